"""Truth of traces question by question: the same shares as the sums, with what each question adds."""

import pytest

from data.scenes import make
from eval.evaluator import Study
from eval.runner import graded_record
from eval.scene_truth import scene_truth
from eval.truth import SceneTruth
from vlm_rl.types import Reply, Sample


def study() -> Study:
    """Every second question answered with its right trace, the others with one about changed evidence, one without scene."""
    rows = [row for row in (make("pictures", "test", 0, i) for i in range(24)) if "wrong_trace" in row.meta]
    told = [(row, row.meta["trace"] if i % 2 else row.meta["wrong_trace"], row.answer) for i, row in enumerate(rows)]
    records = [
        graded_record(row.id, "clean", row, Reply(f"<think>{trace}</think><answer>{answer}</answer>")) for row, trace, answer in told
    ]
    other = Sample("photo", "What is it?", "dog")
    records.append(graded_record("photo", "clean", other, Reply("<think>I see fur.</think><answer>dog</answer>")))
    return Study({row.id: row for row in rows} | {"photo": other}, records)


def test_figures_are_the_shares_of_scene_truth():
    whole = study()
    figures = {figure.name.partition("/")[2]: figure for figure in SceneTruth().measure(whole).figures}
    sums = scene_truth(whole.records)
    for name in ("claim_truth", "box_truth", "follows", "concludes", "sound"):
        assert figures[name].value == pytest.approx(sums[name]), name
    assert figures["right_unsound"].value == pytest.approx(sums["unfaithful"])
    assert 0 < figures["claim_truth"].value < 1 and 0 < figures["sound"].value < 1
    assert "photo" not in figures["sound"].items and figures["sound"].n == len(whole.rows) - 1


def test_each_question_adds_its_own_claims():
    whole = study()
    figure = next(figure for figure in SceneTruth().measure(whole).figures if figure.name == "scene_truth/claim_truth")
    for i, (true, told) in figure.items.items():
        alone = scene_truth([record for record in whole.records if record.sample_id == i])
        assert true / told == pytest.approx(alone["claim_truth"]), i
    assert sum(a for a, _ in figure.items.values()) / sum(b for _, b in figure.items.values()) == pytest.approx(figure.value)


def test_without_scenes_nothing_is_defined():
    whole = study()
    only = Study({"photo": whole.rows["photo"]}, [record for record in whole.records if record.sample_id == "photo"])
    assert all(figure.value is None for figure in SceneTruth().measure(only).figures)
