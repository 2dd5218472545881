"""Official metrics: published numbers and hand-made cases; what cannot be read is wrong and counted, never drawn or dropped."""

import random
from typing import Any

import pytest
from benchmark_rows import RED, ROWS, benchmark_of, mathverse, mathvista, mmmu, vsi, wemath

from data.benchmarks import Place, to_sample
from eval.benchmarks import BENCHMARKS, find_benchmark
from eval.graded import OfficialResult, grade_answers
from eval.official import FourWay, four_way
from vlm_rl.errors import RowError, UserError
from vlm_rl.types import Sample


def scored(name: str, rows: list[dict[str, Any]], answers: list[str | None], configs: list[str] | None = None) -> OfficialResult:
    places = [Place(number=i, config=configs[i] if configs else "") for i in range(len(rows))]
    samples = [to_sample(name, row, place) for row, place in zip(rows, places, strict=True)]
    assert len({sample.id for sample in samples}) == len(samples)
    return find_benchmark(name).score(grade_answers(samples, dict(zip((s.id for s in samples), answers, strict=True))))


def gold_samples(entry: str) -> list[Sample]:
    config, rows = ROWS[entry]
    return [to_sample(benchmark_of(entry), row, Place(number=i, config=config)) for i, row in enumerate(rows)]


@pytest.mark.parametrize("entry", ROWS)
def test_gold_answers_score_one_and_no_answers_zero(entry: str) -> None:
    samples, benchmark = gold_samples(entry), find_benchmark(benchmark_of(entry))
    best = benchmark.score(grade_answers(samples, {s.id: s.answer for s in samples}))
    # Where the only keys are "no", F1 of "yes" has nothing to find.
    assert best.headline == 1.0 and best.n == len(samples) and best.unparsed == 0
    worst = benchmark.score(grade_answers(samples, {s.id: None for s in samples}))
    assert worst.headline == 0.0 and worst.unparsed == worst.n == len(samples)


@pytest.mark.parametrize("entry", ROWS)
def test_every_table_row_has_its_n_and_order_does_not_matter(entry: str) -> None:
    samples, benchmark = gold_samples(entry), find_benchmark(benchmark_of(entry))
    answers: dict[str, str | None] = {s.id: s.answer if i % 2 else "?" for i, s in enumerate(samples)}
    one = benchmark.score(grade_answers(samples, answers))
    shuffled = random.Random(0).sample(samples, len(samples))
    other = benchmark.score(grade_answers(shuffled, answers))
    assert one.headline == pytest.approx(other.headline) and one.parts == pytest.approx(other.parts)
    for key in one.parts:
        if key.count("/") == 1 and key.split("/")[0] in ("category", "subject", "task", "question_type", "version", "dim", "duration"):
            assert one.parts[f"{key}/n"] >= 1


def test_unknown_benchmarks_hidden_keys_and_missing_answers() -> None:
    with pytest.raises(UserError, match="did you mean 'pope'"):
        find_benchmark("popes")
    with pytest.raises(UserError, match=r"no gold answer.*hides its keys"):
        scored("mathvista", [mathvista(), mathvista(pid="2", answer="")], ["7", "7"])
    samples = gold_samples("mathvista")
    with pytest.raises(RowError, match="4 of 5 are missing"):
        grade_answers(samples, {samples[0].id: "7"})
    with pytest.raises(UserError, match="no answers to score"):
        BENCHMARKS["pope"].score([])


def test_mathvista_tables() -> None:
    rows = [mathvista(), mathvista(pid="2", answer="8"), mathvista(pid="3", answer_type="text", answer="red")]
    result = scored("mathvista", rows, ["7", "9", None])
    assert (result.headline, result.n, result.unparsed) == (pytest.approx(1 / 3), 3, 1)
    assert result.parts["answer_type/integer"] == 0.5 and result.parts["answer_type/integer/n"] == 2
    assert result.parts["skills/statistical reasoning/n"] == result.parts["skills/arithmetic reasoning/n"] == 3


def test_mathverse_leaves_text_only_out_of_the_headline() -> None:
    rows = [mathverse("Vision Dominant", 1), mathverse("Vision Only", 2), mathverse("Text Only", 3, image=None)]
    result = scored("mathverse", rows, ["C", "A", "C"])
    assert result.headline == 0.5 and result.parts["with_picture/n"] == 2 and result.n == 3
    assert result.parts["version/Text Only"] == 1.0


def test_mmmu_by_discipline_and_never_a_random_letter() -> None:
    rows = [mmmu(id=f"validation_Physics_{i}") for i in range(50)] + [mmmu(id="validation_Art_Theory_1")]
    result = scored("mmmu", rows, ["I am not sure"] * 50 + ["B"])
    assert result.headline == pytest.approx(1 / 51) and result.unparsed == 50
    assert result.parts["discipline/Science"] == 0.0 and result.parts["discipline/Science/n"] == 50
    assert result.parts["subject/Art_Theory"] == 1.0


def test_mmmu_pro_is_the_mean_of_its_two_settings() -> None:
    standard = [mmmu(id=f"test_Art_{i}", options=str(list("0123456789")), answer="J") for i in range(3)]
    vision = [ROWS["mmmu_pro_vision"][1][0]]
    result = scored("mmmu_pro", standard + vision, ["J", "A", "A", "G"], ["standard (10 options)"] * 3 + ["vision"])
    assert result.headline == pytest.approx((1 / 3 + 1) / 2)
    assert scored("mmmu_pro", standard, ["J", "A", "A"], ["standard (10 options)"] * 3).headline == pytest.approx(1 / 3)


def pope(index: int, key: str, category: str = "random") -> dict[str, Any]:
    return {"question_id": str(index), "question": "Is there a fork?", "answer": key, "image": RED, "category": category}


def test_pope_counts_by_hand() -> None:
    keys = ["yes", "yes", "yes", "no", "no", "no"]
    said = ["Yes.", "yes, there is", "no", "yes", "No", "maybe"]
    result = scored("pope", [pope(i, key, "random" if i % 2 else "popular") for i, key in enumerate(keys)], said)
    parts = result.parts
    assert parts["accuracy"] == pytest.approx(3 / 6) and result.unparsed == 1
    assert parts["precision"] == parts["recall"] == result.headline == parts["f1"] == pytest.approx(2 / 3)
    assert parts["yes_ratio"] == pytest.approx(3 / 6)
    assert parts["category/random/n"] == parts["category/popular/n"] == 3


@pytest.mark.parametrize(
    ("said", "ratio", "f1", "accuracy"), [("yes", 1.0, 2 / 3, 0.5), ("no", 0.0, 0.0, 0.5), ("", 0.0, 0.0, 0.0), ("both", 0.0, 0.0, 0.0)]
)
def test_pope_yes_ratio_is_of_the_predictions(said: str, ratio: float, f1: float, accuracy: float) -> None:
    result = scored("pope", [pope(i, key) for i, key in enumerate(["yes", "no"] * 4)], [said] * 8)
    assert (result.parts["yes_ratio"], result.headline, result.parts["accuracy"]) == (ratio, pytest.approx(f1), accuracy)


def test_mmvu_both_kinds() -> None:
    choice, open_ended = ROWS["mmvu"][1]
    rows = [choice, choice | {"id": "b"}, open_ended, open_ended | {"id": "c"}]
    result = scored("mmvu", rows, ["cooling", "A dog runs", "hooke's law", "the law that Hooke's law is"])
    assert result.headline == 0.5 and result.unparsed == 1
    assert result.parts["question_type/multiple-choice"] == result.parts["question_type/open-ended"] == 0.5
    assert result.parts["subject/Chemistry/n"] == result.parts["subject/Physics/n"] == 2


def test_vsibench_is_the_plain_mean_over_tasks() -> None:
    four = ["A. lamp", "B. table", "C. door", "D. bin"]
    rows = [
        vsi("object_rel_direction_easy", "B", four, 1),
        vsi("object_rel_direction_easy", "B", four, 2),
        vsi("object_rel_direction_medium", "B", four, 3),
        vsi("object_rel_direction_hard", "B", four, 4),
        vsi("route_planning", "C", four, 5),
        vsi("room_size_estimation", "100", None, 6),
        vsi("object_counting", "4", None, 7),
    ]
    result = scored("vsibench", rows, ["B", "B", "A", "(B)", "Option C", "120", "nothing"])
    directions = (1.0 + 0.0 + 1.0) / 3
    assert result.headline == pytest.approx((directions + 1.0 + 0.7 + 0.0) / 4)
    assert result.parts["task/object_rel_direction"] == pytest.approx(directions) and result.parts["task/object_rel_direction/n"] == 4
    assert result.parts["headline_public_mra"] == pytest.approx((directions + 1.0 + 0.6 + 0.0) / 4)
    assert result.parts["tasks"] == 4 and result.unparsed == 1


def test_hrbench_is_a_mean_of_means() -> None:
    base = ROWS["hrbench"][1][0]
    cells = [("0", "B"), ("0", "A"), ("1", "B"), ("1", "B")]
    rows = [base | {"index": i, "cycle_category": cycle} for i, (cycle, _) in enumerate(cells)]
    assert scored("hrbench", rows, [said for _, said in cells]).headline == 0.75
    uneven = scored("hrbench", [*rows, rows[3] | {"index": 9}, rows[3] | {"index": 10}], [said for _, said in cells] + ["B", "B"])
    assert uneven.headline == 0.75 and uneven.parts["items"] == pytest.approx(5 / 6)


def dynamath_rows(form: str) -> list[dict[str, Any]]:
    cells = [(seed, variant) for seed in ("a", "b") for variant in ("1", "2", "3")]
    rows = []
    for i, (seed, variant) in enumerate(cells):
        row = {"question": "Slope?", "ground_truth": "1.5", "image": RED}
        ids = {"seed id": {"id": seed, "question_id": f"{seed}_{variant}"}, "item id": {"id": str(i), "question_id": f"{seed}_{variant}"}}
        ids["vk"] = {"index": i, "qid": seed, "varid": variant}
        rows.append(row | ids[form])
    return rows


@pytest.mark.parametrize("form", ["seed id", "item id", "vk"])
def test_dynamath_worst_case(form: str) -> None:
    result = scored("dynamath", dynamath_rows(form), ["1.5", "1.5", "2", "1.5", "1.5", "1.5"])
    assert result.parts["average"] == pytest.approx(5 / 6) and result.headline == result.parts["worst_case"] == 0.5
    assert result.units == (0.0, 1.0)
    assert result.parts["seeds"] == 2 and result.parts["variants_min"] == result.parts["variants_max"] == 3


def test_dynamath_warns_where_no_variants_meet(caplog: pytest.LogCaptureFixture) -> None:
    result = scored("dynamath", [dynamath_rows("vk")[0], dynamath_rows("vk")[3]], ["1.5", "2"])
    assert result.headline == result.parts["average"] == 0.5 and "worst case is the average" in caplog.text


def test_wemath_published_score() -> None:
    counts = FourWay(ik=20, ig=10, cm=525 - 35, rm=5)
    assert counts.score == pytest.approx((525 - 5 - 5 - 20) / 525) and round(100 * counts.score, 2) == 94.29


def test_wemath_four_ways() -> None:
    cases = [((True, True), True), ((True, True), False), ((True, False), True), ((False, False), True), ((True, False), False)]
    assert four_way(cases) == FourWay(ik=1, ig=1, cm=1, rm=2)
    assert four_way(cases, loose=True) == FourWay(ik=1, ig=1, cm=2, rm=1)


def test_wemath_from_rows() -> None:
    rows = [wemath(2, part, ID=str(i)) for i in range(4) for part in ("1", "2", "multi")]
    rows += [wemath(3, part, ID="0") for part in ("1", "2", "3", "multi")] + [wemath(2, "1", ID="9")]
    said = [*"AAA", *"AAB", *"ABA", "B", "B", None, *"AAAA", "A"]
    result = scored("wemath", rows, said)
    # Mastered twice (one of two steps, one of three), generalises once, rote once, lacks knowledge once.
    assert result.parts["composites"] == 5 and result.parts["incomplete"] == 1 and result.unparsed == 1
    assert [result.parts[f"strict/{key}"] for key in ("cm", "ig", "rm", "ik")] == pytest.approx([0.4, 0.2, 0.2, 0.2])
    assert sorted(result.units) == [0.0, 0.0, 0.5, 1.0, 1.0] and sum(result.units) / 5 == pytest.approx(result.headline)
    assert result.headline == pytest.approx(0.4 + 0.1) and result.parts["loose/score"] == pytest.approx(0.6 + 0.1)
    assert result.parts["strict/rote_rate"] == pytest.approx(1 / 3) and result.parts["loose/rote_rate"] == 0.0
    assert result.parts["steps/three_steps/n"] == 1 and result.parts["steps/two_steps/n"] == 4
    with pytest.raises(UserError, match="no composite problem is complete"):
        scored("wemath", [wemath(2, "1")], ["A"])


def test_mvbench_and_videommmu_are_means_over_tasks() -> None:
    row = ROWS["mvbench"][1][0]
    result = scored("mvbench", [row] * 3, ["C", "C", "A"], ["action_sequence", "action_sequence", "moving_count"])
    assert result.headline == 0.5 and result.parts["items"] == pytest.approx(2 / 3) and result.parts["task/moving_count/n"] == 1
    tracks = scored("videommmu", [ROWS["videommmu"][1][0]] * 3, ["C", "A", None], ["Perception", "Comprehension", "Adaptation"])
    assert tracks.headline == pytest.approx(1 / 3) and tracks.unparsed == 1


def test_empty_predictions_stay_in_the_denominator() -> None:
    result = scored("mvbench", [ROWS["mvbench"][1][0]] * 4, ["C", "", None, " "], ["action_sequence"] * 4)
    assert (result.headline, result.n, result.unparsed) == (0.25, 4, 3)
