"""What accuracy measures from records alone: two readings, samples, the blank control, official metrics, replies that never came."""

import pytest

from eval.accuracy import Accuracy, majority
from eval.evaluator import Evaluator, Study
from eval.making import check_targets, make_evaluators, not_run
from eval.runner import graded_record
from vlm_rl.config_evaluators import EvaluatorConfig
from vlm_rl.errors import UserError
from vlm_rl.types import Media, Record, Reply, Sample

ROWS = [Sample(str(i), f"q{i}?", "B", "choice", ("red", "teal"), (Media("image", data=b"p%d" % (i // 2)),)) for i in range(4)]


def said(row: Sample, text: str, condition: str = "clean", mode: str = "greedy", index: int = 0, error: str | None = None) -> Record:
    return graded_record(row.id, condition, row, Reply(text, error=error), mode, index)


def whole(letter: str) -> str:
    return f"<think>x</think><answer>{letter}</answer>"


def figures(records: list[Record], rows: list[Sample] = ROWS, **arguments) -> dict:
    section = Accuracy(**arguments).measure(Study({row.id: row for row in rows}, records))
    return {figure.name: figure for figure in section.figures}


def test_readings_stand_side_by_side_and_what_cannot_be_read_is_counted_apart():
    texts = [whole("B"), "The answer is B.", "no idea", whole("A")]
    found = figures([said(row, text) for row, text in zip(ROWS, texts, strict=True)])
    assert found["accuracy"].value == 0.5 and found["accuracy_strict"].value == 0.25
    assert found["unparsed"].value == 0.25 and found["wellformed"].value == 0.5
    assert found["accuracy"].items["0"] == (1.0, 1.0) and found["accuracy"].low < 0.5 < found["accuracy"].high


def test_a_reply_that_never_came_is_in_no_share():
    records = [said(ROWS[0], whole("B")), said(ROWS[1], "", error="timed out"), said(ROWS[2], whole("A"))]
    found = figures(records)
    assert (found["accuracy"].value, found["accuracy"].n) == (0.5, 2)
    assert (found["failed"].value, found["failed"].n) == (1, 3)
    nothing = Accuracy().measure(Study({}, [said(ROWS[0], "", error="down")]))
    assert nothing.figures[0].value is None and nothing.figures[0].n == 0


def test_samples_give_unbiased_pass_at_k_and_the_majority():
    drawn = ["BAAA", "BBAA", "AAAA", "BBBA"]
    records = [said(row, whole("A")) for row in ROWS]
    records += [
        said(row, whole(x), mode="sample", index=i) for row, letters in zip(ROWS, drawn, strict=True) for i, x in enumerate(letters)
    ]
    found = figures(records)
    assert found["sampled"].value == pytest.approx((1 + 2 + 0 + 3) / 16)
    assert found["pass@2"].value == pytest.approx((1 / 2 + 5 / 6 + 0 + 1) / 4)
    assert found["pass@4"].value == 0.75
    assert found["majority@4"].value == pytest.approx((0 + 0.5 + 0 + 1) / 4)


def test_votes_go_to_contents_not_to_spellings():
    row = Sample("n", "how many?", "7", "number")
    votes = [said(row, whole(text)) for text in ("7", "7.0", "seven", "3", "3")]
    assert [r.correct for r in votes] == [True, True, True, False, False]
    assert majority(votes) == 1.0
    assert majority([said(row, "nothing")]) == 0.0
    text = Sample("t", "what?", "a cat", "text", meta={"grading": "exact"})
    assert majority([said(text, whole(x)) for x in ("a dog", "A  dog", "a cat")]) == 0.0


def test_a_model_that_ignores_the_picture_gains_nothing_over_the_blank_one():
    clean, blind = [said(row, whole("B")) for row in ROWS], [said(row, whole("B"), "blank") for row in ROWS]
    section = Accuracy().measure(Study({row.id: row for row in ROWS}, clean + blind))
    gain = {figure.name: figure for figure in section.figures}["gain_over_blank"]
    assert (gain.value, gain.low, gain.high, gain.unit) == (0, 0, 0, "difference")
    assert "no proof that the model uses the picture" in section.words
    sees = figures(clean + [said(row, whole("A"), "blank") for row in ROWS])
    assert sees["gain_over_blank"].value == 1 and sees["gain_over_blank"].low == 1


def test_questions_about_one_picture_stand_and_fall_together():
    """Eight questions about two pictures, one all right, one all wrong: as uncertain as two questions."""
    rows = [Sample(str(i), "q?", "B", "choice", ("x", "y"), (Media("image", data=b"%d" % (i // 4)),)) for i in range(8)]
    found = figures([said(row, whole("B" if i < 4 else "A")) for i, row in enumerate(rows)], rows)["accuracy"]
    assert (found.value, found.low, found.high) == (0.5, 0.0, 1.0)


def test_the_official_metric_stands_first_with_its_interval_and_parts():
    rows = [
        Sample(
            str(i), "is there a cat?", "yes" if i % 2 else "no", "yesno", (), (Media("image", data=b"%d" % i),), meta={"category": "random"}
        )
        for i in range(8)
    ]
    records = [said(row, whole("yes")) for row in rows]
    section = Accuracy("pope").measure(Study({row.id: row for row in rows}, records))
    official = section.figures[0]
    assert official.name == "official" and official.value == pytest.approx(2 / 3) and official.n == 8  # F1 of a model that says yes
    assert official.low is not None and official.low < 2 / 3 < official.high
    assert any("accuracy" in str(row[0]) for row in section.tables[1].rows)
    failed = [*records[:7], said(rows[7], "", error="down")]
    assert Accuracy("pope").measure(Study({row.id: row for row in rows}, failed)).figures[0].n == 7


def test_a_metric_over_groups_has_the_interval_of_its_groups():
    """Ten seeds of three variants each, half of them with one wrong variant: as uncertain as ten questions, not as thirty."""
    rows = [
        Sample(f"{i}", "q?", "B", "choice", ("x", "y"), (Media("image", data=b"%d" % i),), meta={"seeds": (f"seed{i // 3}",)})
        for i in range(30)
    ]
    records = [said(row, whole("A" if i % 3 == 0 and i < 15 else "B")) for i, row in enumerate(rows)]
    official = Accuracy("dynamath").measure(Study({row.id: row for row in rows}, records)).figures[0]
    assert (official.value, official.n, official.note) == (0.5, 30, "interval over 10 groups")
    assert official.low == pytest.approx(0.2, abs=0.1) and official.high == pytest.approx(0.8, abs=0.1)


def test_evaluators_are_made_by_name_accuracy_first():
    made = make_evaluators({"mine": EvaluatorConfig(use="consistency")}, "pope")
    assert list(made) == ["accuracy", "mine"] and isinstance(made["accuracy"], Accuracy) and made["accuracy"].benchmark == "pope"
    judged = make_evaluators({"consistency": EvaluatorConfig.model_validate({"judge": "strict"})})
    with pytest.raises(UserError, match=r"evaluators\.consistency asks the judge 'strict', and the config has no judges"):
        check_targets(judged, {})
    with pytest.raises(UserError, match="did you mean 'strictly'"):
        check_targets(judged, {"strictly": 1})
    check_targets(judged, {"strict": 1})


def test_what_cannot_run_is_said_in_words():
    class Needy(Evaluator):
        needs = frozenset({"prefill", "score"})

    assert not_run({"a": Evaluator(), "b": Needy()}, frozenset({"prefill"}), "the endpoint") == {
        "b": "the endpoint cannot tell the log-probs of a given continuation"
    }
