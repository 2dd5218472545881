"""What is told of a mixture before anything runs: who can outrank whom, and what changes nothing."""

import math

import pytest
import torch
from helpers_rewards import configs, make_group
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rewards import combining, crosschecks, transforms
from rewards.crosschecks import Setting
from rewards.mixture import Mixture
from vlm_rl.algo.advantages import gdpo, group_std
from vlm_rl.config import AlgoConfig
from vlm_rl.types import RewardResult

GDPO = {"rewards": "normalize_then_sum"}


def warnings(entries: dict, group_size: int = 8, **algo: object) -> list[str]:
    return Mixture(configs(**entries), 0.0).warnings(AlgoConfig(**algo), group_size)


OVERLONG = {"use": "overlong", "max_tokens": 9, "cache": 2}


@pytest.mark.parametrize(
    ("entries", "span"),
    [
        ({"format": {"weight": 1.0, "transform": {"use": "clip", "high": 0.5}}}, None),
        ({"format": {"weight": 0.5, "transform": {"use": "scale", "by": 3}}}, "format 1.5"),
        ({"format": {"weight": 2.0, "gate": "requires_correct"}}, None),
        ({"format": {"weight": 2.0, "gate": {"use": "requires_correct", "threshold": 0}}}, "format 2"),
        ({"overlong": {**OVERLONG, "weight": 2.0, "gate": "requires_correct"}}, "overlong 2"),
        ({"format": {"weight": 1.0, "transform": "rank"}}, "format 1"),
        ({"format": {"weight": 1.0, "gate": "trust"}}, "format 1"),
        ({"scalar": {"scorer": "rm", "transform": "par"}}, "scalar 1"),
        ({"scalar": {"scorer": "rm", "transform": "log_sigmoid", "weight": 0.15}}, None),
        ({"scalar": {"scorer": "rm", "transform": "log_sigmoid", "weight": 0.2}}, "scalar 1"),
    ],
)
def test_transforms_and_gates_count_in_what_a_wrong_answer_can_earn(entries: dict, span: str | None) -> None:
    found = [text for text in warnings({"accuracy": {}, **entries}) if "wrong answer" in text]
    assert len(found) == (span is not None)
    assert span is None or (span in found[0] and "accuracy only 1" in found[0])


@pytest.mark.parametrize(
    ("transform", "gap"),
    [({"use": "unlikeliness"}, 0.75), ({"use": "scale", "by": 0.25}, 0.25), ("rank", 0.5), ("patterns", 0.9), ("sigmoid", 0.231059)],
)
def test_a_transform_of_accuracy_narrows_what_a_right_answer_earns(transform, gap: float) -> None:
    entry = {"use": "patterns", "phrases": ["wait"]} if transform == "patterns" else transform
    [text] = [w for w in warnings({"accuracy": {"transform": entry}, "format": {}}) if "wrong" in w]
    assert f"accuracy only {gap:g}" in text
    assert warnings({"accuracy": {"transform": entry}, "format": {"weight": gap - 0.01}}) == []


def test_where_each_reward_is_divided_by_its_own_spread_other_numbers_hold() -> None:
    right, lift = 2 * math.sqrt(7 / 8), math.sqrt(14)
    entries = {"accuracy": {}, "format": {"weight": 0.6}}
    assert warnings(entries) == []
    [text] = warnings(entries, **GDPO)
    assert f"span {0.6 * lift:g}" in text and f"accuracy only {right:g}" in text and "own spread" in text
    assert warnings({"accuracy": {}, "format": {"weight": 0.4}}, **GDPO) == []
    assert warnings({"accuracy": {}, "reference": {"weight": 0.2}}, **GDPO) == []
    assert "reference 1" in warnings({"accuracy": {}, "reference": {"weight": 0.2}})[0]
    assert warnings({"accuracy": {"weight": 0}, "evidence": {}, "format": {"weight": 0.2}}, **GDPO) == []


@settings(deadline=None, max_examples=200)
@given(st.data(), st.integers(2, 8))
def test_without_a_warning_no_wrong_answer_outranks_a_right_one(data: st.DataObject, size: int) -> None:
    """Of the totals, or of GDPO's advantages before they are whitened, which keeps the order."""
    outcomes = data.draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=size, max_size=size))
    other = data.draw(st.lists(st.floats(0, 1), min_size=size, max_size=size))
    entry = {"weight": data.draw(st.floats(0, 1)), "use": "format"}
    entry |= data.draw(st.sampled_from([{}, {"transform": "rank"}, {"transform": {"use": "par", "references": [0.2, 0.9], "slope": 3}}]))
    entry |= data.draw(st.sampled_from([{}, {"gate": "requires_correct"}, {"gate": "trust"}]))
    algo = AlgoConfig(rewards=data.draw(st.sampled_from(["sum_then_normalize", "normalize_then_sum"])))
    mixed = Mixture(configs(accuracy={}, other=entry), 0.0)
    assume(not [w for w in mixed.warnings(algo, size) if "wrong" in w])
    results = {"accuracy": [RewardResult(x) for x in outcomes], "other": [RewardResult(x) for x in other]}
    scored = combining.combine(make_group(["x"] * size), results, mixed.configs, {"accuracy": 1.0, "other": entry["weight"]})
    values = list(scored.totals)
    if algo.rewards == "normalize_then_sum":
        parts = torch.tensor([[p.value for p in row] for row in scored.parts.values()], dtype=torch.float64)
        factors = torch.tensor([[p.weight * p.gate for p in row] for row in scored.parts.values()], dtype=torch.float64)
        values = gdpo(parts, factors, group_std, 1e-9, algo.least_std).tolist()
    wrong, right = ([v for v, o in zip(values, outcomes, strict=True) if o == side] for side in (0.0, 1.0))
    assert not wrong or not right or max(wrong) <= min(right) + 1e-6


@pytest.mark.parametrize(
    ("entries", "algo", "words"),
    [
        ({"accuracy": {"transform": {"use": "scale", "by": 5}}}, {}, "rewards.accuracy.transform=scale changes nothing"),
        ({"accuracy": {"transform": {"use": "scale", "by": 5}}}, {"advantage": "group_mean"}, None),
        ({"accuracy": {"transform": {"use": "scale", "by": 5}}, "format": {"weight": 0.1}}, {}, None),
        ({"accuracy": {}, "format": {"weight": 0.1, "transform": {"use": "scale", "by": 5}}}, GDPO, "use weight"),
        ({"accuracy": {}, "format": {"weight": 0.1, "transform": "scale"}}, {}, "multiplies by 1"),
        ({"accuracy": {"transform": "clip"}}, {}, "lies in [0, 1] as it is"),
        ({"accuracy": {"transform": {"use": "clip", "high": 0.9}}}, {}, None),
        ({"format": {"transform": "sigmoid"}}, {}, "0 or 1"),
        ({"accuracy": {"weight": 3}}, {}, "rewards.accuracy.weight=3 changes nothing"),
        ({"accuracy": {"weight": 3}}, {"advantage": "group_mean"}, None),
        ({"accuracy": {"schedule": {"kind": "cosine", "anneal_steps": 9, "final": 0.5}}}, {}, "schedule=cosine changes nothing"),
        ({"accuracy": {"weight": 0}, "format": {"gate": "trust"}}, {}, "gate=trust changes nothing"),
        ({"accuracy": {"weight": 0}, "format": {"gate": "trust"}}, GDPO, None),
        ({"accuracy": {}}, {}, None),
    ],
)
def test_what_group_normalisation_makes_a_no_op_is_explained(entries: dict, algo: dict, words: str | None) -> None:
    found = [text for text in warnings(entries, **algo) if "changes nothing" in text]
    assert len(found) == (words is not None)
    assert words is None or words in found[0]


@given(st.lists(st.floats(0, 1), min_size=3, max_size=8, unique=True), st.floats(0.5, 20))
def test_what_is_called_a_no_op_is_one(values: list[float], by: float) -> None:
    assume(max(values) - min(values) > 0.01)
    group = make_group(["x"] * len(values))
    plain = group_std(torch.tensor(values, dtype=torch.float64), 0.0)
    scaled = transforms.scale(values, group, by=by)
    assert group_std(torch.tensor(scaled, dtype=torch.float64), 0.0).tolist() == pytest.approx(plain.tolist(), abs=1e-6)


def test_least_favourable_weights() -> None:
    falling = {"weight": 2.0, "schedule": {"kind": "linear", "anneal_steps": 9, "final": -1.0}}
    assert crosschecks.extremes(configs(accuracy=falling)["accuracy"]) == (-2.0, 2.0)
    made = Mixture(configs(accuracy={"schedule": {"kind": "exponential", "anneal_steps": 9}}, format={"weight": 0.01}), 0.0)
    assert "accuracy only 0" in (crosschecks.ordering_warning(Setting(made.configs, made.rewards, AlgoConfig(), 8)) or "")
