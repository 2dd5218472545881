import pytest
from helpers_rewards import CHOICE, configs, make_group, never

from rewards import make_rewards
from rewards.flipped import Flipped
from rewards.mixture import Mixture
from vlm_rl.errors import UserError
from vlm_rl.types import Group, RewardResult, Sample

ANSWERS = [f"<think>x</think><answer>{letter}</answer>" for letter in "ABABABAB"]


def values(reward: Flipped, group: Group) -> list[float | None]:
    rounds = reward.rounds(group)
    next(rounds)
    try:
        rounds.send([])
    except StopIteration as stop:
        return [result.value for result in stop.value]
    raise AssertionError("it asked twice")


def group(seed: int, sample: Sample = CHOICE) -> Group:
    made = make_group(ANSWERS, sample)
    return Group(made.prompt, tuple(type(r)(r.index, 1000 * seed + r.index, r.completion) for r in made.rollouts), seed)


RIGHT = [0.0, 1.0] * 4
WRONG = [1.0, 0.0] * 4


@pytest.mark.parametrize("level", ["row", "group", "rollout"])
def test_the_ends_are_the_reward_and_its_opposite(level: str) -> None:
    assert values(Flipped(0.0, level), group(1)) == RIGHT
    assert values(Flipped(1.0, level), group(1)) == WRONG


def test_groups_flip_as_a_whole_at_the_rate_and_anew_each_time() -> None:
    found = [values(Flipped(0.4), group(seed)) for seed in range(400)]
    assert all(one in (RIGHT, WRONG) for one in found)
    assert found.count(WRONG) / 400 == pytest.approx(0.4, abs=0.06)


def test_a_row_with_a_wrong_label_keeps_it() -> None:
    rows = [Sample(str(i), "What colour?", "B", "choice", CHOICE.options) for i in range(200)]
    found = [[values(Flipped(0.3, "row"), group(seed, row)) for seed in (1, 2)] for row in rows]
    assert all(first == second for first, second in found)
    assert sum(first == WRONG for first, _ in found) / 200 == pytest.approx(0.3, abs=0.08)


def test_rollouts_flip_on_their_own() -> None:
    found = [
        value != right for seed in range(100) for value, right in zip(values(Flipped(0.2, "rollout"), group(seed)), RIGHT, strict=True)
    ]
    assert sum(found) / len(found) == pytest.approx(0.2, abs=0.05)


class Unscored:
    range = (0.0, 1.0)

    def score(self, group, replies):
        return [RewardResult(None)] * len(group.rollouts)


def test_what_is_unscored_stays_so_and_what_cannot_be_turned_is_refused() -> None:
    assert values(Flipped(1.0, of={"use": "test_rewards_flipped:Unscored"}), group(1)) == [None] * 8
    with pytest.raises(UserError, match="declared range"):
        Flipped(0.1, of={"use": "runs_small:Brief"})
    with pytest.raises(UserError, match="rate is a share"):
        Flipped(1.5)
    with pytest.raises(UserError, match="did you mean 'row'"):
        Flipped(0.1, "rows")
    with pytest.raises(UserError, match="of is a reward's name"):
        Flipped(0.1, of={"use": "accuracy", "weight": 2.0})


def test_in_a_mixture_its_share_is_logged() -> None:
    mixture = Mixture(configs(accuracy={"use": "flipped", "rate": 1.0, "weight": 2.0}), 0.0)
    [scored] = mixture.score([group(1)], 0, never)
    assert scored.totals == tuple(2 * value for value in WRONG)
    assert scored.parts["accuracy"][0].detail["flipped"] is True
    assert list(make_rewards(configs(flipped={"rate": 0.1}))) == ["flipped"]
