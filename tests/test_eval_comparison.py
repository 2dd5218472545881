import csv
import dataclasses

import pytest
from hypothesis import HealthCheck, given, settings
from test_eval_report import HOSTILE, Page, record
from test_eval_section_report import TEXT

from eval.comparison import Change, Measured, changes, p_text, shared_questions, verdict
from eval.comparison_report import write_comparison
from eval.evaluator import Figure, Section, Study
from eval.figures import mean, ratio, share
from eval.metrics import mcnemar_exact, paired_bootstrap, ratio_difference
from vlm_rl.errors import UserError

IDS = [str(i) for i in range(60)]


def measured(name, right, consistent, ids=IDS, **over):
    records = [dataclasses.replace(record(i, right(int(i))), **over) for i in ids]
    study = Study({}, records)
    by_id = {i: bool(right(int(i))) for i in ids}
    flips = {i: (float(not consistent(int(i))), 1.0) for i in ids if right(int(i))}
    sections = {
        "accuracy": Section("Accuracy", "", (share("accuracy", by_id), Figure("auroc", 0.7, len(ids)))),
        "consistency": Section("Consistency", "", (share("consistency/rule", {i: bool(consistent(int(i))) for i in ids}),)),
        "stress": Section(
            "Stress", "", (ratio("flip", flips, study.clusters(), "share"), mean("nats", dict.fromkeys(ids, 0.5), study.clusters(), "nats"))
        ),
    }
    return Measured(name, study, sections, {})


BEFORE = measured("before", lambda i: i % 3 == 0, lambda i: i % 10 > 0)
AFTER = measured("after", lambda i: i % 3 < 2, lambda i: i % 10 > 4)


def test_changes_are_paired_by_question():
    found = changes(BEFORE, AFTER, IDS)
    accuracy, auroc = found["accuracy"]
    old, new = [i % 3 == 0 for i in range(60)], [i % 3 < 2 for i in range(60)]
    expected = paired_bootstrap([float(b) - a for a, b in zip(old, new, strict=True)])
    assert accuracy.difference.value == pytest.approx(1 / 3)
    assert (accuracy.difference.low, accuracy.difference.high) == pytest.approx((expected.low, expected.high), abs=0.02)
    assert accuracy.p == mcnemar_exact(old, new) and accuracy.direction == "up"
    assert auroc.difference is None and auroc.p is None
    flip, nats = found["stress"]
    assert flip.difference.n == 40 and flip.p_holm == pytest.approx(min(1, 2 * flip.p))
    assert nats.difference.value == 0 and nats.difference.unit == "nats" and nats.direction == "open"


def test_the_highest_of_a_range_is_not_tested_twice():
    def with_copy(run):
        (rule,) = run.sections["consistency"].figures
        figures = (rule, dataclasses.replace(rule, name="consistency/highest"))
        return dataclasses.replace(run, sections={"consistency": Section("Consistency", "", figures)})

    (change,) = changes(with_copy(BEFORE), with_copy(AFTER), IDS)["consistency"]
    assert change.name == "consistency/rule" and change.p == change.p_holm


@pytest.mark.parametrize(
    ("score", "reasoning", "tone", "words"),
    [
        (
            (0.041, 0.012, 0.07),
            (-0.063, -0.09, -0.035),
            "bad",
            "accuracy +4.1 [1.2, 7.0]; consistency -6.3 [-9.0, -3.5]: the score went up, the reasoning got worse",
        ),
        (
            (0.041, 0.012, 0.07),
            (0.063, 0.02, 0.09),
            "good",
            "accuracy +4.1 [1.2, 7.0]; consistency +6.3 [2.0, 9.0]: the score went up, and the reasoning got better with it",
        ),
        (
            (0.01, -0.02, 0.04),
            (0.0, -0.02, 0.02),
            "open",
            "accuracy +1.0 [-2.0, 4.0]; consistency +0.0 [-2.0, 2.0]: no change that chance alone would not make",
        ),
        ((0.041, 0.012, 0.07), None, "open", "accuracy +4.1 [1.2, 7.0]: the score went up; whether the reasoning did was not measured"),
        (None, (0.0, -0.02, 0.02), "open", "accuracy was not measured on the same questions in both runs"),
    ],
)
def test_the_sentence_a_researcher_would_write(score, reasoning, tone, words):
    def change(label, name, numbers):
        figure = Figure(name, 0.5, 100)
        value, low, high = numbers
        return Change(label, name, figure, figure, Figure(name, value, 100, low, high, "difference"))

    found = {"accuracy": [change("accuracy", "accuracy", score)] if score else []}
    found["consistency"] = [change("consistency", "consistency/rule", reasoning)] if reasoning else []
    assert verdict(found) == (tone, words)


def test_only_shared_questions_count():
    more = measured("more", lambda i: i % 3 == 0, lambda i: True, [*IDS[20:], "99"])
    ids = shared_questions([BEFORE, more])
    assert ids == IDS[20:]
    accuracy = changes(BEFORE, more, ids)["accuracy"][0]
    assert accuracy.before.n == 40 and accuracy.before.note == "over the shared questions" and accuracy.difference.value == 0
    with pytest.raises(UserError, match="share no question"):
        shared_questions([BEFORE, measured("x", bool, bool, ["77"])])
    with pytest.raises(UserError, match="question '0' is not the same in before and x"):
        shared_questions([BEFORE, measured("x", bool, bool, gold="B")])


def test_ratio_difference_of_means_is_the_paired_bootstrap():
    one, other = [1.0, 0.0, 1.0, 0.0] * 10, [1.0, 1.0, 0.0, 1.0] * 10
    estimate, p = ratio_difference([(a, 1) for a in one], [(b, 1) for b in other], list(range(40)))
    expected = paired_bootstrap([b - a for a, b in zip(one, other, strict=True)])
    assert (estimate.value, estimate.n) == (expected.value, 40)
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), abs=0.03)
    assert 0.01 < p < 0.3
    assert ratio_difference([(0, 0)], [(1, 1)], [0]) is None and ratio_difference([], [], []) is None


def test_the_page_of_a_comparison(tmp_path):
    path = write_comparison(tmp_path / "out", [(tmp_path / "a", BEFORE), (tmp_path / "b", AFTER)])
    words = Page(path.read_text()).words
    assert "the score went up, the reasoning got worse." in words
    assert "questions in all runs 60" in words and "not paired" in words and "Score and reasoning" in words
    assert "Wrong, then right 4 of 20, evenly drawn" in words and "the trace no longer concludes" in words
    rows = list(csv.DictReader((tmp_path / "out" / "figures.csv").read_text().splitlines()))
    assert rows[0]["figure"] == "accuracy" and float(rows[0]["difference"]) == pytest.approx(1 / 3)
    assert rows[1]["figure"] == "auroc" and rows[1]["p"] == ""
    assert "the reasoning got worse" in (tmp_path / "out" / "report.md").read_text().replace("\\", "")


def test_three_runs_are_compared_with_the_first(tmp_path):
    third = measured("third", lambda i: i % 3 == 0, lambda i: i % 10 > 0)
    words = Page(write_comparison(tmp_path, [(tmp_path, BEFORE), (tmp_path, AFTER), (tmp_path, third)]).read_text()).words
    assert words.count("before → after") >= 2 and words.count("before → third") >= 2


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXT, TEXT)
def test_no_text_becomes_markup(tmp_path, one, two):
    def build(a, b):
        runs = []
        for name, right in ((a, True), (b, False)):
            said = dataclasses.replace(record(0, right), question=a, options=(a, b), completion=f"<think>{b}</think>{a}", answer=b)
            figure = share(b, {"0": right})
            runs.append(
                (
                    tmp_path,
                    Measured(
                        name,
                        Study({}, [said]),
                        {b: Section(a, b, (figure,)), "accuracy": Section(b, a, (share("accuracy", {"0": right}),))},
                        {a: b},
                    ),
                )
            )
        return Page(write_comparison(tmp_path / "out", runs).read_text(encoding="utf-8"))

    plain, found = build("one", "two"), build(one + HOSTILE, two + HOSTILE)
    assert set(found.tags) <= set(plain.tags) | {"mark", "p"}


def test_p_in_text():
    assert [p_text(p) for p in (None, 0.00001, 0.03857, 1.0)] == ["–", "< 0.0001", "0.039", "1"]
