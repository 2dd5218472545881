import dataclasses
import json

import pytest

from eval.runner import Plan, evaluate, load_records, save_records, unchanged
from vlm_rl.errors import RowError, UserError
from vlm_rl.seeds import stable_hash
from vlm_rl.types import Media, Reply, Sample

PLAN = Plan(samples=2, max_new_tokens=16, temperature=0.8, stop=("</answer>",), seed=7)


def blanked(sample):
    return dataclasses.replace(sample, media=tuple(Media("image", data=b"grey") for _ in sample.media))


def rows():
    return [Sample(str(i), f"q{i}?", "B", "choice", ("red", "teal"), (Media("image", data=f"picture {i}".encode()),)) for i in range(3)]


CONDITIONS = {"clean": unchanged, "blank": blanked}


class Asker:
    """Answers B where it sees the picture, A where it is blank, rubbish to sampled questions; remembers what it was asked."""

    def __init__(self):
        self.calls = []

    def __call__(self, queries):
        self.calls.append(list(queries))
        return [self.reply(query) for query in queries]

    def reply(self, query):
        if query.sampling.temperature:
            return Reply("<think>so", finish="length")
        letter = "A" if query.sample.media[0].data == b"grey" else "B"
        return Reply(f"<think>seen</think><answer>{letter}</answer>")


def test_one_call_holds_every_query_grouped_by_what_is_shown():
    ask = Asker()
    evaluate(rows(), CONDITIONS, PLAN, ask)
    (queries,) = ask.calls
    assert [(q.sample.id, q.sampling.temperature) for q in queries[:5]] == [("0", 0.0), ("0", 0.8), ("0", 0.8), ("0", 0.0), ("1", 0.0)]
    assert len(queries) == 3 * (1 + 2 + 1)
    assert {(q.target, q.sampling.max_new_tokens, q.sampling.stop) for q in queries} == {("policy", 16, ("</answer>",))}


def test_seeds_depend_on_the_question_not_on_its_company():
    whole, part = Asker(), Asker()
    evaluate(rows(), CONDITIONS, PLAN, whole)
    evaluate(rows()[2:], {"clean": unchanged}, PLAN, part)
    assert [q.seed for q in whole.calls[0][8:11]] == [q.seed for q in part.calls[0]]
    assert part.calls[0][2].seed == stable_hash(7, "2", "clean", 1)


def test_records_are_graded_under_each_condition():
    records = evaluate(rows(), CONDITIONS, PLAN, Asker())
    greedy = {(r.sample_id, r.condition): r for r in records if r.mode == "greedy"}
    assert all(greedy[i, "clean"].correct and not greedy[i, "blank"].correct for i in "012")
    assert greedy["1", "blank"].answer == "A"
    sampled = [r for r in records if r.mode == "sample"]
    assert {(r.answer, r.correct, r.wellformed, r.finish) for r in sampled} == {(None, False, False, "length")}
    assert [r.index for r in sampled] == [0, 1] * 3


@pytest.mark.parametrize("hostile", ["", "<answer>" * 2000, "\x00\ud800", "<think>" + "a" * 50_000, "</answer><answer>", "{" * 3000])
def test_hostile_answers_are_wrong_and_stored_as_they_are(hostile, tmp_path):
    records = evaluate(rows()[:1], {"clean": unchanged}, PLAN, lambda queries: [Reply(hostile)] * len(queries))
    assert not any(r.correct for r in records)
    save_records(tmp_path / "r.jsonl", records)
    assert load_records(tmp_path / "r.jsonl") == records


def test_an_unanswered_question_stops_the_evaluation_and_is_named():
    def ask(queries):
        return [Reply(error="timed out" if q.sample.id == "1" else None) for q in queries]

    with pytest.raises(RowError, match=r"row 1: .*condition 'clean'.*timed out; 4 of 12"):
        evaluate(rows(), CONDITIONS, PLAN, ask)


def test_a_repeated_row_id_is_named():
    with pytest.raises(RowError, match="row 0: another row has the same id"):
        evaluate([*rows(), rows()[0]], CONDITIONS, PLAN, Asker())


def test_a_missing_picture_is_named(tmp_path):
    gone = Sample("lost", "q?", "B", "choice", ("x", "y"), (Media("image", path=tmp_path / "gone.png"),))
    with pytest.raises(RowError, match="row lost: a medium cannot be read"):
        evaluate([gone], {"clean": unchanged}, PLAN, lambda queries: [Reply("A")] * len(queries))


def test_too_few_replies_are_refused():
    with pytest.raises(ValueError):
        evaluate(rows(), CONDITIONS, PLAN, lambda queries: [])


def test_records_survive_the_disk_and_a_failed_write(tmp_path, monkeypatch):
    records = evaluate(rows(), CONDITIONS, PLAN, Asker())
    path = tmp_path / "eval" / "before.jsonl"
    save_records(path, records)
    assert load_records(path) == records
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_records(path, records[:1])
    assert load_records(path) == records


@pytest.mark.parametrize("line", ["{", "[]", '{"sample_id": "1"}', "[" * 5000])
def test_a_damaged_record_is_named_by_file_and_line(line, tmp_path):
    path = tmp_path / "before.jsonl"
    save_records(path, evaluate(rows()[:1], {"clean": unchanged}, Plan(0, 8), Asker()))
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(UserError, match=r"before\.jsonl, line 2"):
        load_records(path)


def test_a_field_of_the_wrong_type_is_named(tmp_path):
    path = tmp_path / "before.jsonl"
    save_records(path, evaluate(rows()[:1], {"clean": unchanged}, Plan(0, 8), Asker()))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"correct": "yes"}) + "\n")
    with pytest.raises(UserError, match="field 'correct'"):
        load_records(path)
