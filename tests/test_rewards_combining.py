"""Transforms, gates, stand-ins and totals: the specified numbers, and the laws that hold for any."""

import math

import pytest
from helpers_rewards import make_group
from hypothesis import given
from hypothesis import strategies as st

from rewards import combining, transforms
from rewards.gates import GATES, Look, trust_weight
from vlm_rl.config import RewardConfig
from vlm_rl.errors import RowError, UserError
from vlm_rl.types import Completion, Group, RewardResult, Rollout, Sample, Segment

shares = st.floats(0, 1, allow_nan=False)


def total(outcomes: list[float], thinking: list[float | None], weight: float, **settings) -> list[float]:
    """Totals of an outcome of weight 1 and a thinking reward behind a trust gate."""
    configs = {"accuracy": RewardConfig(), "thinking": RewardConfig(gate={"use": "trust"}, **settings)}
    results = {
        "accuracy": [RewardResult(x) for x in outcomes],
        "thinking": [RewardResult(x) for x in thinking],
    }
    group = make_group(["<think>x</think><answer>A</answer>"] * len(outcomes))
    return list(combining.combine(group, results, configs, {"accuracy": 1.0, "thinking": weight}).totals)


@pytest.mark.parametrize(
    ("outcomes", "thinking", "step", "gamma", "totals"),
    [
        ([1, 1, 0, 0], [0.9, 0.7, 0.4, 0.2], 0, 1.0, [1.27, 1.21, 0.12, 0.06]),
        ([1, 1, 0, 0], [0.2, 0.4, 0.8, 0.6], 0, 0.670320, [1.040219, 1.080438, 0.160877, 0.120658]),
        ([1, 1, 0, 0], [0.2, 0.4, 0.8, 0.6], 750, 0.670320, [1.024394, 1.048788, 0.097577, 0.073183]),
        (
            [1, 1, 1, 0, 0, 0, 0, 0],
            [0.9, 0.3, 0.6, 0.8, 0.7, 0.9, 0.6, 0.5],
            300,
            0.904837,
            [1.200021, 1.066674, 1.133347, 0.177796, 0.155572, 0.200021, 0.133347, 0.111123],
        ),
        ([1, 1, 1, 1], [0.9, 0.9, 0.9, 0.3], 0, 1.0, [1.27, 1.27, 1.27, 1.09]),
        ([0.8, 0.3, 0.3, 0.1], [0.2, 0.8, 0.6, 0.9], 0, 0.567414, [0.834045, 0.436179, 0.402134, 0.253202]),
    ],
)
def test_trust_weighted_totals(outcomes: list, thinking: list, step: int, gamma: float, totals: list[float]) -> None:
    assert trust_weight(thinking, outcomes) == pytest.approx(gamma, abs=1e-6)
    assert total(outcomes, thinking, 0.3 * math.exp(-step / 1500)) == pytest.approx(totals, abs=1e-6)


@pytest.mark.parametrize(("right", "wrong", "gamma"), [(0.0, 1.0, 0.367879), (0.4, 0.4, 1.0), (0.0, 0.8, 0.449329)])
def test_trust_bounds(right: float, wrong: float, gamma: float) -> None:
    assert trust_weight([right, wrong], [1.0, 0.0]) == pytest.approx(gamma, abs=1e-6)


def test_a_side_without_scored_rollouts_is_trusted() -> None:
    assert trust_weight([0.1, 0.9], [1, 1]) == trust_weight([None, 0.9], [1, 0]) == trust_weight([], []) == 1.0


@given(st.lists(st.tuples(shares, st.booleans()), min_size=2, max_size=8), st.randoms(use_true_random=False), shares)
def test_trust_ignores_order_and_shifts(pairs: list[tuple[float, bool]], rng, shift: float) -> None:
    gamma = trust_weight([v for v, _ in pairs], [o for _, o in pairs])
    assert math.exp(-1) - 1e-12 <= gamma <= 1
    assert trust_weight([v + shift for v, _ in pairs], [o for _, o in pairs]) == pytest.approx(gamma)
    rng.shuffle(pairs)
    assert trust_weight([v for v, _ in pairs], [o for _, o in pairs]) == pytest.approx(gamma)


def test_a_failed_judge_drops_the_term_or_is_stood_in_for() -> None:
    outcomes, thinking = [1, 1, 0, 0], [0.2, None, 0.8, 0.6]
    assert total(outcomes, thinking, 0.3) == [1, 1, 0, 0]
    stood_in = total(outcomes, thinking, 0.3, unscored="impute_side_mean")
    assert stood_in == pytest.approx([1.036392, 1.036392, 0.145567, 0.109176], abs=1e-6)
    assert total(outcomes, [None, None, 0.8, 0.6], 0.3, unscored="impute_side_mean") == [1, 1, 0, 0]
    assert total(outcomes, [None] * 4, 0.3, unscored="impute_mean") == [1, 1, 0, 0]


def test_gates_look_at_the_answer_and_at_the_form() -> None:
    group = make_group(["<think>x</think><answer>A</answer>", "A"])
    look = Look(group, [0.5, 0.5], [0.5, None])
    assert GATES["requires_correct"](look) == [1, 0]
    assert GATES["requires_format"](look) == [1, 0]


def test_parts_keep_what_every_step_made() -> None:
    configs = {"a": RewardConfig(), "b": RewardConfig(transform={"use": "clip", "high": 0.5}, gate={"use": "requires_correct", "on": "a"})}
    group = make_group(["x", "y"])
    results = {"a": [RewardResult(1.0), RewardResult(0.0)], "b": [RewardResult(0.9)] * 2}
    scored = combining.combine(group, results, configs, {"a": 1, "b": 2})
    assert [(p.raw, p.value, p.gate, p.weight, p.contribution) for p in scored.parts["b"]] == [(0.9, 0.5, 1, 2, 1.0), (0.9, 0.5, 0, 2, 0.0)]
    assert scored.totals == (2.0, 0.0)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"transform": "sigmod"}, ["sigmoid", "rewards.b.transform"]),
        ({"transform": {"use": "clip", "hihg": 1}}, ["high"]),
        ({"transform": {"use": "sigmoid", "std": 0}}, ["rewards.b.transform", "std must be positive"]),
        ({"transform": {"use": "par", "references": []}}, ["rewards.b.transform", "at least one reference"]),
        ({"transform": {"use": "log_sigmoid", "percentile": 85}}, ["percentile"]),
        ({"transform": "patterns"}, ["rewards.b.transform", "phrases is a list of texts"]),
        ({"transform": {"use": "patterns", "phrases": "wait"}}, ["phrases is a list of texts"]),
        ({"transform": {"use": "flip", "probability": 2}}, ["probability is from 0 to 1"]),
        ({"transform": {"use": "flip", "each": "token"}}, ['each "group" or "rollout"']),
        ({"gate": "trusts"}, ["trust", "rewards.b.gate"]),
        ({"gate": {"use": "trust", "on": "acuracy"}}, ["accuracy", "rewards.b.gate.on"]),
        ({"gate": {"use": "trust", "on": "b"}}, ["rewards.b.gate.on"]),
        ({"unscored": "impute_side_mean"}, ["gate"]),
    ],
)
def test_mistakes_are_named_before_anything_runs(entry: dict, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        combining.check({"accuracy": RewardConfig(), "b": RewardConfig(**entry)})
    assert all(word in str(caught.value) for word in words)


GROUP = make_group(["x"] * 4)


@pytest.mark.parametrize(
    ("name", "settings", "values", "expected"),
    [
        ("log_sigmoid", {}, [1, 0, -2, 3], [-0.3133, -0.6931, -2.1269, -0.0486]),
        ("log_sigmoid", {}, [-1000, 0, 0, 0], [-5, -0.6931, -0.6931, -0.6931]),
        ("par", {"references": [0, 1, 3]}, [2, 2, 2, 2], [0.6269] * 4),
        ("par", {"references": [2]}, [2, 2, None, 2], [0.5, 0.5, None, 0.5]),
        ("clip", {"low": -1, "high": 1}, [-3, 0.2, 5, None], [-1, 0.2, 1, None]),
        ("sigmoid", {"mean": 1, "std": 2}, [1, 3, -1, 1e9], [0.5, 0.7311, 0.2689, 1]),
        ("rank", {}, [3, 1, 1, None], [1, 0.25, 0.25, None]),
        ("rank", {}, [1, 1, 1, 1], [0.5] * 4),
        ("threshold", {"at": 0.5}, [0.5, 0.49, None, 1], [1, 0, None, 1]),
        ("scale", {"by": 2}, [1, 2, 3, None], [2, 4, 6, None]),
    ],
)
def test_transforms(name: str, settings: dict, values: list, expected: list) -> None:
    got = transforms.TRANSFORMS[name](values, GROUP, **settings)
    assert [v is None for v in got] == [v is None for v in expected]
    assert [v for v in got if v is not None] == pytest.approx([v for v in expected if v is not None], abs=1e-4)


def with_references(*scores: object) -> Group:
    return make_group(["x"] * 4, Sample("1", "?", "x", meta={"reference_scores": list(scores)}))


def test_a_rows_own_reference_scores() -> None:
    """The 85th percentile of a normal of [0, 1, 2] is 2.0364 (1.8462 with the population's spread)."""
    group = with_references(0, 1, 2)
    wanted = [math.log(1 / (1 + math.exp(-(x - 2.03643)))) for x in (3, 2.03643, 0, 1)]
    assert transforms.log_sigmoid([3, 2.03643, 0, 1], group) == pytest.approx(wanted, abs=1e-5)
    assert transforms.log_sigmoid([2.0, 2.0, None, 2.0], with_references(2), reference=9)[0] == pytest.approx(-0.6931, abs=1e-4)
    assert transforms.par([2] * 4, with_references(0, 1, 3), references=[9.0]) == pytest.approx([0.6269] * 4, abs=1e-4)
    assert transforms.par([2], with_references(0))[0] == pytest.approx(0.8808, abs=1e-4)
    for wrong in ("good", math.nan, None):
        with pytest.raises(RowError, match="row 1: reference_scores"):
            transforms.par([1] * 4, with_references(1, wrong))


def test_several_reward_models_are_combined_by_adding_their_log_probabilities() -> None:
    entries = {label: RewardConfig(use="format", transform="log_sigmoid") for label in ("one", "two")}
    results = {"one": [RewardResult(1.0)] * 2, "two": [RewardResult(-2.0)] * 2}
    scored = combining.combine(make_group(["x", "y"]), results, entries, {"one": 1.0, "two": 1.0})
    assert scored.totals == pytest.approx((-2.4402, -2.4402), abs=1e-4)


@given(st.lists(st.floats(-30, 30), min_size=1, max_size=5), st.floats(-30, 30), st.floats(-30, 30))
def test_par_is_bounded_and_ignores_a_shift_of_all_scores(references: list[float], x: float, shift: float) -> None:
    value = transforms.par([x], with_references(*references))[0]
    moved = transforms.par([x + shift], with_references(*(r + shift for r in references)))[0]
    assert value is not None and 0 <= value <= 1 and moved == pytest.approx(value, abs=1e-9)


PHRASES = [f"phrase {i}." for i in range(40)]


def test_phrases_raise_doubtful_scores() -> None:
    traces = [" ".join(PHRASES[:7]).upper(), "PHRASE\n3. " * 7, "nothing", "phrase 1. " * 99]
    group = make_group([f"<think>{trace}</think><answer>phrase 1.</answer>" for trace in traces])
    assert transforms.patterns([0.3, 0.3, 0.3, 0.3], group, phrases=PHRASES) == pytest.approx([0.3175, 0.3175, 0.3, 0.4])
    assert transforms.patterns([0.6, 0.5, 0.3, None], group, phrases=PHRASES) == [0.6, 0.5, 0.3, None]


def test_noise_is_drawn_once_per_group_or_rollout() -> None:
    groups = [Group(GROUP.prompt, GROUP.rollouts, seed) for seed in range(400)]
    values = [1.0, 0.0, 0.25, None]
    by_group = [transforms.flip(values, group, probability=0.4) for group in groups]
    assert all(got in (values, [0.0, 1.0, 0.75, None]) for got in by_group)
    assert 0.3 < sum(got != values for got in by_group) / 400 < 0.5
    by_rollout = [transforms.flip(values, group, probability=0.4, each="rollout") for group in groups]
    assert 0.3 < sum(got[0] != 1.0 for got in by_rollout) / 400 < 0.5 and any(g[0] != 1.0 and g[1] == 0.0 for g in by_rollout)
    assert transforms.flip(values, groups[3], probability=0.4) == by_group[3]
    assert transforms.flip(values, GROUP, probability=0.0) == values and transforms.flip(values, GROUP, probability=1.0)[0] == 0.0


def likely(*means: float) -> Group:
    rollouts = [Rollout(i, i, Completion("x", (Segment((1, 2), (m, m)),))) for i, m in enumerate(means)]
    return Group(GROUP.prompt, tuple(rollouts), 0)


def test_unlikeliness_lowers_what_the_policy_finds_likely() -> None:
    group = likely(-0.1, -0.2, -0.3, -0.4)
    assert transforms.unlikeliness([1, 1, 0, 1], group) == pytest.approx([0.8125, 0.875, 0, 1.0])
    assert transforms.unlikeliness([1, 1, 0, 1], group, paper=True) == pytest.approx([0.75, 0.8125, 0, 0.9375])
    assert transforms.unlikeliness([1, 1, 1, 1], group) == [1, 1, 1, 1]
    assert transforms.unlikeliness([1, 1, 0, 0], likely(-0.1, -0.1, -0.1, -0.1)) == pytest.approx([0.90625, 0.90625, 0, 0])


@given(st.sampled_from(sorted(transforms.TRANSFORMS)), st.lists(st.floats(-50, 50, allow_nan=False), min_size=4, max_size=4))
def test_transforms_keep_the_order_of_values(name: str, values: list[float]) -> None:
    settings = {"phrases": ["wait"]} if name == "patterns" else {}
    got = transforms.TRANSFORMS[name](values, likely(-1, -1, -1, -1), **settings)
    for i in range(4):
        for j in range(4):
            assert not (values[i] < values[j] and got[i] > got[j] + 1e-9)
