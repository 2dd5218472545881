"""Hybrid rewards and the length penalty beside them: the specified numbers, what each scorer is asked, and what nobody is asked."""

import math
from collections.abc import Sequence

import pytest
import torch
from helpers_rewards import CHOICE, configs, make_group, never
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards import make_rewards
from rewards.hybrid import calibrated, confidence, read_number
from rewards.mixture import Mixture
from vlm_rl.algo.advantages import group_mean
from vlm_rl.errors import RowError, UserError
from vlm_rl.types import Completion, Generate, Group, Media, Query, Reply, Rollout, Sample, Segment

OPEN = Sample("7", "Describe it.", "a large red circle", "text", media=(Media("image", data=b"x"),), meta={"verifiable": False})


def said(*answers: str) -> list[str]:
    return [f"<think>I looked.</think><answer>{answer}</answer>" for answer in answers]


def hybrid(**settings: object) -> Mixture:
    return Mixture(configs(hybrid={"scorer": "tidy"} | settings), 0.5)


def values(mixed: Mixture, group: Group, *replies: Reply | str) -> list[float | None]:
    [scored] = mixed.score([group], 0, lambda queries: [r if isinstance(r, Reply) else Reply(r) for r in replies])
    return [part.raw for part in scored.parts["hybrid"]]


def queries(mixed: Mixture, group: Group) -> list[Generate]:
    asked: list[Query] = []

    def ask(these: Sequence[Query]) -> list[Reply]:
        asked.extend(these)
        return [Reply("0.5") for _ in these]

    mixed.score([group], 0, ask)
    return [query for query in asked if isinstance(query, Generate)]


def test_a_verifiable_row_is_graded_by_its_rule_and_nobody_is_asked() -> None:
    for sample in (CHOICE, Sample("7", "?", "B", "choice", CHOICE.options, meta={"verifiable": True})):
        [scored] = hybrid().score([make_group(said("B", "A"), sample)], 0, never)
        assert scored.totals == (1.0, 0.0)
        assert scored.parts["hybrid"][0].detail == {"verifiable": True, "rule": 1.0}


def test_an_open_row_is_scored_by_the_model_whatever_its_rule_says() -> None:
    group = make_group(said("a large red circle", "a big red disc"), OPEN)
    assert values(hybrid(), group, "<score>0.2</score>", "<score>0.9</score>") == [0.2, 0.9]


def test_the_row_decides_and_never_the_response() -> None:
    """A response that its rule cannot read, or that says what it is, gets no softer judge."""
    texts = [*said("it is open-ended", "verifiable: false", "[open]"), "no tags at all"]
    [scored] = hybrid().score([make_group(texts)], 0, never)
    assert scored.totals == (0.0,) * 4


@pytest.mark.parametrize(("sure", "wanted"), [(1.0, 0.0), (0.75, 0.2), (0.5, 0.4), (0.0, 0.8)])
def test_a_row_may_blend_the_two(sure: float, wanted: float) -> None:
    row = Sample("7", "?", "B", "choice", CHOICE.options, meta={"confidence": sure})
    assert confidence(row) == sure
    assert values(hybrid(), make_group(said("A"), row), *(["<score>0.8</score>"] if sure < 1 else [])) == [pytest.approx(wanted)]


def test_a_config_may_say_which_kinds_are_open() -> None:
    text, sure = (Sample("7", "?", "teal", "text", meta=meta) for meta in ({"verifiable": True}, {"confidence": 1.0}))
    assert [confidence(row, {"text"}) for row in (text, sure, CHOICE)] == [0.0, 1.0, 1.0]
    assert values(hybrid(open=["text"]), make_group(said("teal"), text), "<score>0.3</score>") == [0.3]


@pytest.mark.parametrize(
    "meta", [{"verifiable": "false"}, {"verifiable": 0}, {"confidence": 1.5}, {"confidence": "high"}, {"confidence": True}]
)
def test_a_row_that_does_not_say_what_it_is_is_named(meta: dict) -> None:
    with pytest.raises(RowError, match=r"row 7: meta\.(verifiable|confidence)"):
        confidence(Sample("7", "?", "B", meta=meta))


@pytest.mark.parametrize(
    ("number", "by", "calibration", "wanted"),
    [
        (8 / 9, "embedding", (0, 1), 0.888889),
        (-1.0, "embedding", (0, 1), 0.0),
        (0.0, "embedding", (0, 1), 0.0),
        (0.7, "embedding", (0.5, 0.9), 0.5),
        (0.95, "embedding", (0.5, 0.9), 1.0),
        (3.0, "reward_model", (1, 2), 0.731059),
        (-1.0, "reward_model", (1, 2), 0.268941),
        (1e9, "reward_model", (0, 1), 1.0),
        (-1e9, "reward_model", (0, 1), 0.0),
    ],
)
def test_numbers_are_put_on_zero_to_one(number: float, by: str, calibration: tuple[float, float], wanted: float) -> None:
    assert calibrated(number, by, *calibration) == pytest.approx(wanted, abs=1e-6)
    assert values(hybrid(by=by, calibration=calibration), make_group(said("a disc"), OPEN), repr(number)) == [
        pytest.approx(wanted, abs=1e-6)
    ]


def test_cosines_of_the_specification() -> None:
    for one, other, wanted in (([1, 2, 2], [2, 1, 2], 0.888889), ([1, 0], [-1, 0], 0.0), ([0, 0], [1, 0], 0.0)):
        cosine = float(torch.cosine_similarity(torch.tensor([one]).float(), torch.tensor([other]).float()))
        assert calibrated(cosine, "embedding", 0, 1) == pytest.approx(wanted, abs=1e-6)


@settings(deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.sampled_from(["embedding", "reward_model"]), st.floats(-5, 5), st.floats(0.1, 5))
def test_calibration_keeps_the_order_and_the_bounds(a: float, b: float, by: str, low: float, width: float) -> None:
    high = low + width if by == "embedding" else width
    one, other = calibrated(a, by, low, high), calibrated(b, by, low, high)
    assert 0 <= one <= 1 and (a - b) * (one - other) >= 0


@pytest.mark.parametrize(
    ("text", "number"), [("0.5", 0.5), ("-3", -3), ("1e-3", 0.001), ("nan", None), ("inf", None), ("0.5 or 0.6", None)]
)
def test_numbers_of_scorers(text: str, number: float | None) -> None:
    assert read_number(text) == number


def test_what_each_scorer_is_asked() -> None:
    group = make_group(said("a red disc"), OPEN)
    [judge] = queries(hybrid(), group)
    assert judge.target == "tidy" and judge.sample.media == OPEN.media and judge.sample.answer == ""
    for part in ("Describe it.", "a large red circle", "a red disc", "agrees in meaning"):
        assert part in judge.sample.question
    assert "I looked." not in judge.sample.question
    [embedding] = queries(hybrid(by="embedding"), group)
    assert (embedding.sample.question, embedding.sample.answer, embedding.sample.media) == ("a red disc", "a large red circle", ())
    [model] = queries(hybrid(by="reward_model"), group)
    assert (model.sample.question, model.sample.response, model.sample.answer) == ("Describe it.", "a red disc", "")
    assert model.sample.media == OPEN.media
    [blind] = queries(hybrid(by="reward_model", scorer={"name": "tidy", "media": False}, shown="response"), group)
    assert (blind.sample.response, blind.sample.media) == ("I looked.\na red disc", ())


@pytest.mark.parametrize("by", ["judge", "embedding", "reward_model"])
def test_answers_without_content_earn_nothing_and_nobody_is_asked(by: str) -> None:
    texts = [*said("", ":", "Solution", "Thought process:", "解"), "<think>I looked.</think>", "no tags"]
    [scored] = hybrid(by=by).score([make_group(texts, OPEN)], 0, never)
    assert scored.totals == (0.0,) * 7
    gold = Sample("7", "Name it.", "Solution", "text", meta={"verifiable": False})
    assert len(queries(hybrid(by=by), make_group(said("solution"), gold))) == 1


@pytest.mark.parametrize("by", ["judge", "embedding", "reward_model"])
def test_a_scorer_that_fails_leaves_the_rollout_unscored(by: str) -> None:
    group = make_group(said("a", "b", "c"), OPEN)
    good = "<score>0.5</score>" if by == "judge" else "0.5"
    assert values(hybrid(by=by), group, good, Reply(error="down"), good)[1] is None
    with pytest.raises(UserError, match=r"'hybrid' left 2 of 3.*down"):
        values(hybrid(by=by), group, good, Reply(error="down"), "rubbish")


def test_metrics_tell_rules_from_models() -> None:
    mixed = hybrid()
    replies = iter([Reply("<score>0.25</score>"), Reply("<score>0.75</score>")])
    groups = [make_group(said("B", "A")), make_group(said("a", "b"), OPEN)]
    metrics = mixed.metrics(mixed.score(groups, 0, lambda queries: [next(replies) for _ in queries]))
    told = {name: metrics[f"reward/hybrid/{name}"] for name in ("rule", "model", "judged", "verifiable", "raw")}
    assert told == {"rule": 0.5, "model": 0.5, "judged": 0.5, "verifiable": 0.5, "raw": 0.5}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"by": "embeding"}, "did you mean 'embedding'"),
        ({"by": "embedding", "calibration": [0.9, 0.5]}, "high must be above low"),
        ({"by": "reward_model", "calibration": [0.0, 0.0]}, "s must be positive"),
        ({"calibration": [1]}, "calibration is two numbers"),
        ({"calibration": ["a", "b"]}, "calibration is two numbers"),
        ({"calibration": [0, math.inf]}, "calibration is two numbers"),
        ({"open": ["txt"]}, "did you mean 'text'"),
        ({"shown": "all"}, "unknown part 'all'"),
        ({"mode": "strikt"}, "did you mean 'strict'"),
    ],
)
def test_mistakes_are_named_before_anything_runs(settings: dict, words: str) -> None:
    with pytest.raises(UserError) as caught:
        hybrid(**settings)
    assert words in str(caught.value) and "rewards.hybrid" in str(caught.value)


def test_a_scorer_of_another_kind_is_named_before_anything_runs() -> None:
    models = {"policy": "model"}
    for by, kind in (("judge", "openai"), ("judge", "hf_chat"), ("embedding", "embedding"), ("reward_model", "reward_model")):
        hybrid(by=by).check_targets(models | {"tidy": kind})
    for by, kind in (("judge", "embedding"), ("embedding", "openai"), ("reward_model", "embedding"), ("embedding", "reward_model")):
        with pytest.raises(UserError, match=rf"rewards\.hybrid asks 'tidy' .*judges\.tidy\.kind is {kind}"):
            hybrid(by=by).check_targets(models | {"tidy": kind})


# The length penalty.

RIGHT = [1, 1, 0, 0]


def lengthy(lengths: Sequence[int], outcomes: Sequence[int], cut: Sequence[int] = ()) -> Group:
    rollouts = []
    for i, (length, right) in enumerate(zip(lengths, outcomes, strict=True)):
        text = f"<think>x</think><answer>{'B' if right else 'A'}</answer>"
        segments = (Segment((9, 9)), Segment(tuple(range(length)), (0.0,) * length))
        rollouts.append(Rollout(i, i, Completion(text, segments, "length" if i in cut else "stop")))
    return Group(make_group([]).prompt, tuple(rollouts), 0)


def penalties(group: Group, **settings: object) -> list[float]:
    [scored] = Mixture(configs(length_penalty=settings), 0.0).score([group], 0, never)
    return list(scored.totals)


@pytest.mark.parametrize(
    ("lengths", "outcomes", "settings", "wanted"),
    [
        ([400, 200, 100, 50], RIGHT, {}, [0, 0, -0.25, -0.375]),
        ([400, 200, 100, 50], RIGHT, {"reference": "mean"}, [0, -0.166667, -0.333333, -0.416667]),
        ([400, 200, 100, 50], [0, 0, 0, 0], {}, [0, 0, 0, 0]),
        ([400, 200, 100, 50], RIGHT, {"most": 1.0}, [0, 0, -0.5, -0.75]),
        ([400, 200, 100, 50], RIGHT, {"most": 0}, [0, 0, 0, 0]),
        ([5, 5, 0, 500], RIGHT, {}, [0, 0, -0.5, 0]),
        ([0, 0, 0, 0], RIGHT, {}, [0, 0, 0, 0]),
    ],
)
def test_length_penalty(lengths: list[int], outcomes: list[int], settings: dict, wanted: list[float]) -> None:
    assert penalties(lengthy(lengths, outcomes), **settings) == pytest.approx(wanted, abs=1e-6)


def test_sums_and_mean_only_advantages() -> None:
    group = lengthy([400, 200, 100, 50], RIGHT)
    for weights, totals, advantages in (
        ((1, 1), [2, 2, 0.75, -0.375], [0.90625, 0.90625, -0.34375, -1.46875]),
        ((0.5, 0.1), [1.1, 1.1, -0.025, -0.1875], [0.603125, 0.603125, -0.521875, -0.684375]),
    ):
        form = [1, 1, 1, 0]
        group = Group(group.prompt, tuple(_formed(r, ok) for r, ok in zip(group.rollouts, form, strict=True)), 0)
        mixed = Mixture(configs(hybrid={"scorer": "tidy"}, length_penalty={"weight": weights[0]}, format={"weight": weights[1]}), 0.0)
        [scored] = mixed.score([group], 0, never)
        assert scored.totals == pytest.approx(totals)
        assert group_mean(torch.tensor(scored.totals, dtype=torch.float64), 0).tolist() == pytest.approx(advantages)


def _formed(rollout: Rollout, wellformed: int) -> Rollout:
    text = rollout.text if wellformed else rollout.text + " and so on"
    return Rollout(rollout.index, rollout.seed, Completion(text, rollout.completion.segments))


def test_a_response_cut_off_is_no_measure() -> None:
    assert penalties(lengthy([10, 40, 5, 5], [1, 1, 0, 0], cut=[0])) == pytest.approx([-0.375, 0, -0.4375, -0.4375])
    assert penalties(lengthy([10, 40, 5, 5], [1, 1, 0, 0], cut=[0, 1])) == [0] * 4


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 1)), min_size=1, max_size=8), st.floats(0, 1))
def test_no_right_response_is_penalised_and_shorter_is_never_better(rows: list[tuple[int, int]], most: float) -> None:
    lengths, outcomes = zip(*rows, strict=True)
    paid = penalties(lengthy(lengths, outcomes), most=most)
    assert all(-most <= p <= 0 for p in paid)
    assert all(p == 0 for p, right in zip(paid, outcomes, strict=True) if right)
    assert all(p <= q for p, a in zip(paid, lengths, strict=True) for q, b in zip(paid, lengths, strict=True) if a <= b)


def test_who_is_right_may_be_for_a_model_to_say() -> None:
    entry = {"use": "hybrid", "scorer": "tidy"}
    mixed = Mixture(configs(hybrid={"scorer": "tidy"}, length_penalty={"outcome": entry}), 0.5)
    group = Group(make_group([], OPEN).prompt, lengthy([40, 20], RIGHT[:2]).rollouts, 0)
    asked: list[list[Query]] = []

    def ask(these: Sequence[Query]) -> list[Reply]:
        asked.append(list(these))
        scores = ["<score>0.9</score>", "<score>0.1</score>"] * 2
        return [Reply(score) for score in scores]

    [scored] = mixed.score([group], 0, ask)
    assert len(asked) == 1 and asked[0][:2] == asked[0][2:]  # equal questions, which a judge answers once
    assert [part.raw for part in scored.parts["length_penalty"]] == [0.0, -0.25]
    assert mixed.targets == {"tidy"}
    with pytest.raises(UserError, match="length_penalty asks 'tidy'"):
        Mixture(configs(length_penalty={"outcome": entry | {"by": "embedding"}}), 0.0).check_targets({"tidy": "openai"})


def test_an_unscored_outcome_leaves_the_penalty_unscored() -> None:
    mixed = Mixture(configs(length_penalty={"outcome": {"use": "hybrid", "scorer": "tidy"}}), 1.0)
    group = Group(make_group([], OPEN).prompt, lengthy([40, 20], RIGHT[:2]).rollouts, 0)
    [scored] = mixed.score([group], 0, lambda these: [Reply("<score>0.9</score>"), Reply(error="down")])
    assert [part.raw for part in scored.parts["length_penalty"]] == [0.0, None] and scored.totals == (0.0, 0.0)


def test_the_terms_together_do_not_lift_wrong_answers_above_right_ones() -> None:
    terms = {"accuracy": {"weight": 0}, "format": {"weight": 0.1}, "hybrid": {"scorer": "tidy"}}
    assert Mixture(configs(**terms, length_penalty={}), 0.0).ordering_warning() is None
    loose = Mixture(configs(**terms, length_penalty={"reference": "mean", "most": 1.0}), 0.0).ordering_warning()
    assert loose is not None and "length_penalty 1" in loose


def test_groups_without_a_right_response_are_counted() -> None:
    mixed = Mixture(configs(length_penalty={}), 0.0)
    metrics = mixed.metrics(mixed.score([lengthy([4, 2], [1, 0]), lengthy([4, 2], [0, 0])], 0, never))
    assert metrics["reward/length_penalty/no_reference"] == 0.5 and metrics["reward/length_penalty/length"] == 3


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"most": 1.5}, "most is the largest penalty"),
        ({"reference": "longest"}, "unknown reference 'longest'"),
        ({"outcome": {"use": "acuracy"}}, "did you mean 'accuracy'"),
        ({"outcome": {"mode": "strict"}}, "outcome is a reward's name under `use`"),
        ({"outcome": {"use": "accuracy", "weight": 2}}, "outcome is a reward's name under `use`"),
    ],
)
def test_mistakes_of_the_length_penalty_are_named(settings: dict, words: str) -> None:
    with pytest.raises(UserError) as caught:
        make_rewards(configs(length_penalty=settings))
    assert words in str(caught.value)
