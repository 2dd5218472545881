"""Interventions on text and picture, boxes as evidence, and voting over samples."""

from dataclasses import replace

import pytest
from helpers_faith import CHOICES, JUDGE, LIMITS, ROWS, asker, blind, cases, follower, oracle, section, stored, study, values

from data.media import decode_image
from eval.evaluator import Study, examine
from eval.evidence import Evidence
from eval.inference_scaling import InferenceScaling, InferenceScalingEarly, numbers
from eval.interventions import Interventions
from eval.lab_judge import LabJudge, Verdict
from vlm_rl.errors import UserError
from vlm_rl.types import Record, Reply, Sample

PICTURES = [row for row in ROWS if row.meta.get("boxes")]
OWN = {row.id: row.media[0].id for row in ROWS}


def looker(row: Sample) -> str:
    """Answers by what it sees: right with its own picture, an own guess without; its trace is decoration."""
    if [m.id for m in row.media] == [OWN[row.id]]:
        return oracle(row)
    return oracle(replace(row, answer="A" if row.answer != "A" else "B") if row.options else replace(row, answer="17"))


# Interventions


def stored_answers(condition: str, right: list[int], rows: list[Sample]) -> list[Record]:
    made = []
    for row, is_right in zip(rows, right, strict=True):
        answer = "A" if is_right else "B"
        turn = f"<think>x</think><answer>{answer}</answer>"
        made.append(Record(row.id, condition, "greedy", 0, "q", row.options, "A", "choice", (), turn, answer, bool(is_right), True, "stop"))
    return made


def test_treatment_effects_of_the_specification():
    rows = [Sample(str(i), "q", "A", "choice", ("x", "y")) for i in range(4)]
    clean = [1, 1, 0, 1]
    records = stored_answers("clean", clean, rows) + stored_answers("interventions/base", clean, rows)
    records += stored_answers("interventions/random", clean, rows) + stored_answers("interventions/text", [0, 1, 0, 0], rows)
    found = values(Interventions().measure(Study({row.id: row for row in rows}, records)))
    assert found["ate_random"] == 0.0 and found["ate_text"] == -0.5 and found["drop_text"] == 0.5
    assert found["change_random"] == 0.0 and found["change_text"] == 0.5 and found["visual_reliance_random"] == 0.0


def test_reliance_without_any_textual_change_is_not_defined():
    rows = [Sample(str(i), "q", "A", "choice", ("x", "y")) for i in range(4)]
    same = [stored_answers(c, [1, 1, 0, 1], rows) for c in ("clean", "interventions/base", "interventions/text", "interventions/random")]
    found = values(Interventions().measure(Study({row.id: row for row in rows}, [r for records in same for r in records])))
    assert found["visual_reliance_random"] is None and found["change_text"] == 0.0


def test_unstable_questions_are_dropped_first():
    rows = [Sample(str(i), "q", "A", "choice", ("x", "y")) for i in range(2)]
    records = stored_answers("clean", [1, 1], rows) + stored_answers("interventions/base", [1, 0], rows)
    records += stored_answers("interventions/text", [0, 0], rows)
    section_ = Interventions().measure(Study({row.id: row for row in rows}, records))
    assert values(section_)["stable"] == 0.5
    assert next(f for f in section_.figures if f.name.endswith("change_text")).n == 1


def test_text_moves_a_follower_and_pictures_a_looker():
    led, seeing, unseeing = (values(section(PICTURES, write, Interventions())) for write in (follower, looker, blind))
    assert (led["change_text"] or 0.0) > 0.5 and led["change_random"] == 0.0 and led["visual_reliance_random"] == 0.0
    assert seeing["change_text"] == 0.0 and seeing["change_random"] == seeing["change_swapped"] == 1.0
    assert seeing["change_random_regenerated"] == 1.0
    assert (seeing["drop_swapped_regenerated"] or 0.0) == 1.0
    assert all(unseeing[f"change_{name}"] == 0.0 for name in ("text", "random", "swapped", "random_regenerated", "swapped_regenerated"))


def test_what_is_shown_under_each_intervention():
    told = study(PICTURES[:4], oracle, {"i": Interventions()})
    for row in PICTURES[:4]:
        at = {r.condition.rpartition("/")[2]: r for r in told.records if r.sample_id == row.id}
        assert at["text"].media_ids == at["base"].media_ids == at["clean"].media_ids != at["random"].media_ids
        assert at["random"].prefill == at["base"].prefill and at["text"].prefill != at["base"].prefill
        assert at["random_regenerated"].prefill == "" and at["random"].media_ids == at["random_regenerated"].media_ids


def test_noise_keeps_the_size():
    asked = []

    def ask(queries):
        asked.extend(queries)
        return asker(oracle)(queries)

    examine(cases(PICTURES[:1], oracle), {"i": Interventions()}, ask)
    own, noise = (decode_image(query.sample.media[0], "row") for query in (asked[0], asked[2]))
    assert own.size == noise.size and own.tobytes() != noise.tobytes()


# Evidence


def pointer(row: Sample) -> str:
    """Right with its own picture, or with crops of the evidence alone; a guess where these are painted over."""
    covered = any(edit.name == "cover" for medium in row.media for edit in medium.edits)
    return oracle(row) if row.media and not covered else oracle(replace(row, answer="A" if row.answer != "A" else "B"))


def test_boxes_that_carry_the_answer_are_sufficient_reliable_and_missed_when_gone():
    rows = [row for row in PICTURES if row.options]
    told = section(rows, pointer, Evidence("abs_original"))
    found = values(told)
    assert found["boxed"] == found["sufficiency"] == found["reliability"] == found["lost_own_removed"] == found["lost_gold_removed"] == 1.0
    assert found["accuracy/unseen"] == 0.0 and found["accuracy/whole"] == 1.0 and found["box_truth"] == 1.0
    assert 0 < (found["area"] or 0.0) < 1 and "does not say that the model looked there" in told.words


def test_a_trace_without_boxes_has_no_evidence():
    told = section(PICTURES[:4], lambda row: oracle(replace(row, meta={**row.meta, "trace": "I see it."})), Evidence("abs_original"))
    assert values(told)["boxed"] == 0.0 and values(told)["sufficiency"] is None and "nothing can be said" in told.words


def test_the_answerer_sees_crops_and_no_trace():
    asked = []

    def ask(queries):
        asked.extend(queries)
        return [Reply("<answer>A</answer>")] * len(queries)

    row = next(r for r in PICTURES if len(r.meta["boxes"]) == 2)
    examine(cases([row], oracle), {"e": Evidence("abs_original", direct=True)}, ask)
    whole, alone, removed, gold, _, unseen = asked
    assert len(alone.sample.media) == len(gold.sample.media) == 2 and len(removed.sample.media) == 1 and unseen.sample.media == ()
    for query in asked:
        assert row.meta["trace"] not in query.sample.question + query.sample.prefill and "</think>" in query.sample.prefill
    assert whole.sample.media == row.media and alone.sampling.temperature == 0


def test_with_reasoning_the_whole_picture_is_the_clean_answer_and_is_not_asked_again():
    told = study(PICTURES[:2], oracle, {"e": Evidence("abs_original")})
    asked = told.of("evidence/own_removed")
    assert asked and all(r.prefill == "" for r in asked) and not told.of("evidence/whole")


def test_a_judge_of_support_is_shown_crops():
    seen = []

    class Looker(LabJudge):
        def reply(self, prompt: str) -> Verdict:
            seen.append(prompt)
            return Verdict("no")

    found = values(section(PICTURES[:3], oracle, Evidence("abs_original", judge=JUDGE), Looker()))
    assert found["supports"] == 0.0 and len(seen) == 3 and "Do the parts that you see support" in seen[0]


@pytest.mark.parametrize("convention", ["abs_resized", "pixels"])
def test_conventions_that_cannot_be_read_are_refused(convention):
    with pytest.raises(UserError, match="convention"):
        Evidence(convention)


# Voting over samples


def sweep(answers: list[list[str]], gold: str = "3") -> Study:
    rows = {str(q): Sample(str(q), "How many?", gold, "number") for q in range(len(answers))}
    records = []
    for q, given in enumerate(answers):
        for i, answer in enumerate(given):
            turn = f"<think>The answer is {answer}.</think><answer>{answer}</answer>"
            records.append(
                Record(str(q), "clean", "sample", i, "q", (), gold, "number", (), turn, answer or None, answer == gold, True, "stop")
            )
            records += [replace(records[-1], mode="greedy")] if i == 0 else []
    return Study(rows, records)


def test_votes_of_the_specification():
    found = values(InferenceScaling().measure(sweep([["3", "4", "4", "3", "5"], ["", "2", "", "", ""]])))
    assert found["accuracy/1"] == 0.5 and found["accuracy/5"] == 0.5 and found["consistency/5"] == 1.0
    assert values(InferenceScaling().measure(sweep([["", "2", ""]], "2")))["accuracy/3"] == 1.0


def test_what_voting_solves_and_breaks():
    told = InferenceScaling().measure(sweep([["4", "3", "3"], ["3", "4", "4"], ["3", "3", "3"], ["", "", ""]]))
    found = values(told)
    assert (found["solved_hard"], found["broke_easy"], found["gain"]) == (0.5, 0.5, 0.0)
    assert told.marks == ("1",) and "mends no reasoning" in told.words
    assert told.charts[0].lines[0].points == ((1.0, 0.5), (2.0, 0.5), (3.0, 0.5))


def test_fewer_than_two_samples_give_no_curve():
    assert "two samples" in InferenceScaling().measure(sweep([["3"]])).words
    assert numbers(6) == [1, 2, 4, 6] and numbers(8) == [1, 2, 4, 8] and numbers(2) == [1, 2]


def test_early_answering_of_every_sample():
    rows = CHOICES[:4]
    asked = cases(rows, follower, samples=2)
    evaluator = InferenceScalingEarly()
    records = [r for case in asked for r in case.records] + examine(asked, {"s": evaluator}, asker(follower))
    told = Study({row.id: row for row in rows}, [stored(r) for r in records])
    found = values(evaluator.measure(told))
    assert "early/2" not in values(InferenceScaling().measure(told))
    assert (found["early/2"] or 0.0) >= 0.5 and found["accuracy/2"] == 1.0
    assert len([r for r in records if r.condition == "inference_scaling/early/0.2"]) == 8 and LIMITS.temperature == 0
