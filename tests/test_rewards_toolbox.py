"""Small rewards of one file each: repetition."""

import pytest
from helpers_rewards import configs, make_group
from hypothesis import given
from hypothesis import strategies as st

from rewards import make_rewards
from rewards.repetition import Repetition
from vlm_rl.errors import UserError
from vlm_rl.types import Completion, Group, Prompt, Rollout, Sample, Segment


def written(*segments: Segment) -> Group:
    prompt = Prompt(Sample("1", "?", "x"), "", (), (), ())
    return Group(prompt, (Rollout(0, 0, Completion("", segments)),), 0)


def own(*ids: int) -> Segment:
    return Segment(ids, (0.0,) * len(ids))


@pytest.mark.parametrize(
    ("ids", "n", "value"),
    [
        ((1, 2, 1, 2, 1, 2), 2, -3 / 5),
        ((1, 2, 3, 4), 2, 0.0),
        ((1, 1, 1, 1, 1), 1, -4 / 5),
        ((1, 1, 1), 4, 0.0),
        ((), 2, 0.0),
    ],
)
def test_repetition(ids: tuple[int, ...], n: int, value: float) -> None:
    [result] = Repetition(n=n).score(written(own(*ids)), ())
    assert result.value == pytest.approx(value) and result.detail["distinct"] == pytest.approx(1 + value)
    assert Repetition(n=n, most=0.5).score(written(own(*ids)), ())[0].value == pytest.approx(value / 2)


def test_inserted_tokens_are_no_repetition() -> None:
    seen = Segment((1, 2, 1, 2))
    assert Repetition(n=2).score(written(own(1, 2), seen, own(3, 4)), ())[0].value == 0.0
    assert Repetition(n=2).score(written(own(1, 2), seen, own(1, 2)), ())[0].value == -0.5


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(1, 5))
def test_only_repeated_grams_cost(ids: list[int], n: int) -> None:
    value = Repetition(n=n).score(written(own(*ids)), ())[0].value
    assert value is not None and -1 < value <= 0
    fresh = range(len(ids))
    assert Repetition(n=n).score(written(own(*fresh)), ())[0].value == 0.0
    single, double = (1 + (Repetition(n=1).score(written(own(*t)), ())[0].value or 0.0) for t in (ids, ids * 2))
    assert double == pytest.approx(single / 2)


@pytest.mark.parametrize("wrong", [{"n": 0}, {"n": 1.5}, {"most": 0}, {"most": 2}])
def test_repetition_refuses(wrong: dict) -> None:
    with pytest.raises(UserError, match="repetition"):
        make_rewards(configs(repetition=wrong))
    assert len(Repetition().score(make_group(["a", "b"]), ())) == 2
