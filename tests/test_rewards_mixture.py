import math
from collections.abc import Sequence
from types import ModuleType

import pytest
from helpers_rewards import CHOICE, Asked, configs, make_group, never

from rewards.base import Reward, Rounds
from rewards.mixture import Mixture
from vlm_rl.errors import UserError
from vlm_rl.types import Generate, Group, Reply, RewardResult, Sampling, Score

RIGHT, WRONG = "<think>teal</think><answer>B</answer>", "<think>red</think><answer>A</answer>"


class Listed(Reward):
    """Gives the values it is told, NaN and None included."""

    range = (-10.0, 10.0)

    def __init__(self, values: list):
        self.values = values

    def score(self, group: Group, replies: Sequence[Reply]) -> list[RewardResult]:
        return [RewardResult(v, {"error": "judge is down"} if v is None else {}) for v in self.values]


class Echo(Reward):
    """Asks one question per rollout and checks that it gets its own replies."""

    def __init__(self, name: str):
        self.name = name

    def ask(self, group: Group) -> list[Score]:
        return [Score("policy", group.sample, r.text, prefill=f"{self.name}/{group.seed}/{r.index}") for r in group.rollouts]

    def score(self, group: Group, replies: Sequence[Reply]) -> list[RewardResult]:
        return [RewardResult(float(p.text == q.prefill)) for q, p in zip(self.ask(group), replies, strict=True)]


class TwoRounds(Reward):
    def rounds(self, group: Group) -> Rounds:
        first = yield [Generate("start", group.sample, Sampling(4), prefill="one")]
        second = yield [Generate("judge", group.sample, Sampling(4), prefill=first[0].text + "+two")]
        return [RewardResult(1.0, {"heard": second[0].text}) for _ in group.rollouts]


class Returned(Reward):
    """Returns the very thing it is told to."""

    def __init__(self, what: object):
        self.what = what

    def score(self, group: Group, replies: Sequence[Reply]) -> Sequence[RewardResult]:
        return self.what  # type: ignore[return-value]


class Endless(Reward):
    def rounds(self, group: Group) -> Rounds:
        while True:
            yield ()


class Declared(Listed):
    range = (0.0, 1.0)


@pytest.fixture(autouse=True)
def strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("strangers")
    for kind in (Listed, Echo, TwoRounds, Returned, Endless, Declared):
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(__import__("sys").modules, "strangers", module)


def listed(*values: object, **entry: object) -> dict:
    return {"use": "strangers:Listed", "values": list(values), **entry}


def mixture(limit: float = 1.0, **entries: dict) -> Mixture:
    return Mixture(configs(**entries), limit)


def test_total_is_the_sum_of_weighted_parts() -> None:
    mixed = mixture(accuracy={}, format={"weight": 0.5}, other=listed(2.0, -1.0, weight=0.25))
    [scored] = mixed.score([make_group([RIGHT, "<answer>B"])], step=0, ask=never)
    assert scored.totals == (1 + 0.5 + 0.5, 1 + 0 - 0.25)
    part = scored.parts["format"][0]
    assert (part.raw, part.weight, part.contribution) == (1.0, 0.5, 0.5)
    assert scored.parts["accuracy"][1].detail == {"answer": "B", "correct": True}


def test_schedules_anneal_the_weight() -> None:
    annealed = {"weight": 0.3, "schedule": {"kind": "exponential", "anneal_steps": 1500}}
    mixed = mixture(format=annealed)
    for step, factor in [(0, 1.0), (1, 0.999334), (750, 0.606531), (1500, 0.367879)]:
        [scored] = mixed.score([make_group([RIGHT])], step, never)
        assert scored.totals[0] == scored.parts["format"][0].weight == pytest.approx(0.3 * factor, abs=1e-6)


def test_an_unscored_rollout_drops_the_term_for_its_whole_group_and_no_other() -> None:
    mixed = mixture(r1=listed(1, 1, 0, 0), r2=listed(0.5, None, 0.5, 0.5))
    [scored] = mixed.score([make_group([RIGHT] * 4)], 0, never)
    mean = sum(scored.totals) / 4
    assert [total - mean for total in scored.totals] == [0.5, 0.5, -0.5, -0.5]
    assert [p.raw for p in scored.parts["r2"]] == [0.5, None, 0.5, 0.5]
    assert [p.contribution for p in scored.parts["r2"]] == [None] * 4
    assert [p.contribution for p in scored.parts["r1"]] == [1, 1, 0, 0]
    metrics = mixed.metrics([scored])
    assert metrics["reward/r2/unscored"] == metrics["algo/unscored"] == 1
    assert metrics["reward/r2/raw"] == 0.5
    assert metrics["reward/r2/contribution"] == 0
    assert metrics["reward/total"] == 0.5


def test_too_many_unscored_stop_the_run() -> None:
    mixed = mixture(0.25, accuracy={}, judge=listed(1, None, None, 1))
    with pytest.raises(UserError, match=r"'judge'.*2 of 4.*50%.*judge is down"):
        mixed.score([make_group([RIGHT] * 4)], 0, never)
    mixture(0.5, judge=listed(1, None, None, 1)).score([make_group([RIGHT] * 4)], 0, never)


def test_five_rewards_of_one_round_make_one_call() -> None:
    echoes = {f"e{i}": {"use": "strangers:Echo", "name": f"e{i}"} for i in range(5)}
    mixed = Mixture(configs(accuracy={}, **echoes), 0.0)
    groups = [make_group([RIGHT, WRONG, WRONG]), make_group([WRONG])]
    ask = Asked()
    scored = mixed.score(groups, 0, ask)
    assert len(ask.calls) == 1
    assert len(ask.calls[0]) == 5 * (3 + 1)
    assert [list(group.totals) for group in scored] == [[6, 5, 5], [5]]


def test_rewards_of_many_rounds_advance_together() -> None:
    mixed = mixture(accuracy={}, e={"use": "strangers:Echo", "name": "e"}, t={"use": "strangers:TwoRounds"})
    ask = Asked()
    scored = mixed.score([make_group([RIGHT, WRONG])] * 2, 0, ask)
    assert [len(call) for call in ask.calls] == [2 * (2 + 1), 2]
    assert scored[1].parts["t"][1].detail == {"heard": "one+two"}


def test_nothing_is_asked_where_nobody_asks() -> None:
    assert mixture(accuracy={}).score([], 0, never) == []
    assert mixture(accuracy={}).score([make_group([RIGHT, WRONG])], 0, never)[0].totals == (1.0, 0.0)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (listed(1.0), "list of 2; it returned 1 results"),
        (listed(1.0, 1.0, 1.0), "list of 2; it returned 3 results"),
        (listed(1.0, math.nan), "value is nan"),
        (listed(-math.inf, 1.0), "value is -inf"),
        (listed(1.0, "good"), "not str"),
        ({"use": "strangers:Returned", "what": None}, "returned NoneType"),
        ({"use": "strangers:Returned", "what": [0.5, 0.5]}, "returned float 0.5; write RewardResult"),
        ({"use": "strangers:Declared", "values": [0.0, 1.5]}, "outside the range"),
        ({"use": "strangers:Endless"}, "still asking"),
    ],
)
def test_a_bad_reward_is_named_with_its_sample(entry: dict, words: str) -> None:
    with pytest.raises(UserError) as caught:
        mixture(odd=entry).score([make_group([RIGHT, WRONG])], 0, never)
    assert words in str(caught.value)
    assert "'odd'" in str(caught.value)
    assert f"'{CHOICE.id}'" in str(caught.value)


def test_contributions_add_up_in_the_metrics() -> None:
    mixed = mixture(accuracy={}, format={"weight": 0.5}, other=listed(1.0, 3.0, weight=2.0))
    metrics = mixed.metrics(mixed.score([make_group([RIGHT, WRONG])] * 3, 0, never))
    parts = sum(metrics[f"reward/{label}/contribution"] for label in ("accuracy", "format", "other"))
    assert metrics["reward/total"] == pytest.approx(parts) == pytest.approx(0.5 + 0.5 + 4)
    assert metrics["reward/other/raw"] == 2.0
    assert metrics["reward/other/std"] == 1.0
    assert metrics["reward/other/weight"] == 2.0
    assert metrics["algo/unscored"] == 0


def test_every_part_is_logged_raw_transformed_weighted_and_contributing() -> None:
    mixed = mixture(
        accuracy={}, half=listed(1.0, 4.0, 2.0, weight=2.0, transform={"use": "clip", "high": 2.0}, gate="requires_correct"), format={}
    )
    [scored] = mixed.score([make_group([RIGHT, WRONG, RIGHT])], 0, never)
    metrics = mixed.metrics([scored])
    logged = {name: metrics[f"reward/half/{name}"] for name in ("raw", "value", "gate", "weight", "contribution")}
    assert logged == pytest.approx({"raw": 7 / 3, "value": 5 / 3, "gate": 2 / 3, "weight": 2.0, "contribution": 2.0})
    assert metrics["reward/format/value"] == metrics["reward/format/raw"] == 1.0
    assert [part.value for part in scored.parts["half"]] == [1.0, 2.0, 2.0]


def test_what_a_reward_has_to_do_with_accuracy_and_length() -> None:
    mixed = mixture(
        accuracy={}, with_it=listed(1.0, 0.0, 0.5), against=listed(0.2, 0.9, 0.2), flat=listed(1, 1, 1), down=listed(None, 0, 1)
    )
    group = make_group([RIGHT, WRONG, RIGHT], tokens=[3, 1, 2])
    metrics = mixed.metrics(mixed.score([group], 0, never))
    assert metrics["reward/with_it/with_length"] == pytest.approx(1.0)
    assert metrics["reward/with_it/with_accuracy"] == pytest.approx(3**0.5 / 2)
    assert metrics["reward/against/with_accuracy"] == pytest.approx(-1.0)
    assert metrics["reward/down/with_accuracy"] == pytest.approx(1.0)
    assert not {"reward/flat/with_accuracy", "reward/accuracy/with_accuracy"} & metrics.keys()


def test_what_the_prompt_already_wrote_belongs_to_the_response() -> None:
    group = make_group(["teal</think><answer>B</answer>", "<answer>B</answer>"], prefill="<think>")
    [scored] = mixture(accuracy={}, format={}).score([group], 0, never)
    assert scored.totals == (2.0, 0.0)
    expected = {"trace": "teal", "answer": "B", "wellformed": True}
    assert Mixture.describe(group.rollouts[0], "<think>") == expected


def test_describe() -> None:
    rollout = make_group(["so <answer>C</answer>"]).rollouts[0]
    assert Mixture.describe(rollout) == {"trace": None, "answer": "C", "wellformed": False}


@pytest.mark.parametrize(
    ("entries", "warned"),
    [
        ({"accuracy": {}}, False),
        ({"accuracy": {}, "format": {"weight": 0.5}}, False),
        ({"accuracy": {}, "format": {"weight": 1.0}}, True),
        ({"accuracy": {}, "format": {"weight": 0.5}, "overlong": {"weight": 0.5, "max_tokens": 9, "cache": 2}}, True),
        ({"accuracy": {}, "other": listed(weight=0.04)}, False),
        ({"accuracy": {}, "other": listed(weight=0.05)}, True),
        ({"accuracy": {"weight": 2}, "format": {"schedule": {"kind": "linear", "final": 3.0}}}, True),
        ({"right": {"use": "accuracy"}, "format": {}}, True),
        ({"format": {}}, False),
    ],
)
def test_ordering_warning(entries: dict, warned: bool) -> None:
    warning = mixture(**entries).ordering_warning()
    assert (warning is not None) is warned
    if warning:
        assert "span" in warning
