import subprocess
import sys
from pathlib import Path

import pytest
from helpers_rewards import configs, make_group, never

from rewards import REWARDS, make_rewards
from rewards.mixture import Mixture
from vlm_rl.errors import UserError

STRANGER = '''
from vlm_rl.types import RewardResult


class Shouting:
    """Half a point for capitals."""

    def __init__(self, bonus: float = 0.5):
        self.bonus = bonus

    def score(self, group, replies):
        return [RewardResult(self.bonus * rollout.text.isupper()) for rollout in group.rollouts]


class Nothing:
    pass


def a_function(group, replies):
    return []
'''


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shouting_reward.py").write_text(STRANGER)
    (tmp_path / "broken_reward.py").write_text("def (:\n")
    (tmp_path / "needy_reward.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)


def test_every_table_entry_can_be_made() -> None:
    arguments = {
        "flipped": {"rate": 0.1},
        "checks": {"judge": "tidy", "checks": ["It is short."]},
        "pairwise": {"judge": "tidy"},
        "scalar": {"scorer": "tidy"},
        "steps": {"judge": "tidy"},
        "overlong": {"max_tokens": 100, "cache": 20},
        "hybrid": {"scorer": "tidy"},
        "thinking": {"judge": "tidy"},
        "sccm": {"convention": "rel_1"},
    }
    made = make_rewards(configs(**{name: arguments.get(name, {}) for name in REWARDS}))
    assert list(made) == list(REWARDS)


def test_a_strangers_reward(stranger: None) -> None:
    mixture = Mixture(configs(loud={"use": "shouting_reward:Shouting", "bonus": 0.25, "weight": 2}), 0.0)
    [scored] = mixture.score([make_group(["YES", "no"])], 0, never)
    assert scored.totals == (0.5, 0.0)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"acuracy": {}}, ["unknown reward 'acuracy'", "rewards.acuracy", "did you mean 'accuracy'"]),
        ({"x": {"use": "formt"}}, ["unknown reward 'formt'", "rewards.x", "did you mean 'format'"]),
        ({"accuracy": {"mod": "strict"}}, ["'rewards.accuracy.mod'", "did you mean 'rewards.accuracy.mode'"]),
        ({"accuracy": {"wieght": 2.0}}, ["'rewards.accuracy.wieght'", "did you mean 'rewards.accuracy.weight'"]),
        ({"accuracy": {"zzz": 2.0}}, ["'rewards.accuracy.zzz'", "known here: gate, mode, schedule, transform, unscored, use, weight"]),
        ({"accuracy": {"mode": "strickt"}}, ["rewards.accuracy", "did you mean 'strict'"]),
        ({"overlong": {"max_tokens": 5}}, ["rewards.overlong.cache is missing"]),
        ({"overlong": {"max_tokens": 5, "cache": 9}}, ["rewards.overlong", "cache"]),
        ({"overlong": {"max_tokens": "many", "cache": 9}}, ["rewards.overlong"]),
        ({"format": {"size": 5}}, ["'rewards.format.size'"]),
        ({"x": {"use": "shouting_reward:Shoutin"}}, ["unknown class of shouting_reward", "rewards.x.use", "did you mean 'Shouting'"]),
        ({"x": {"use": "shouting_reward:Nothing"}}, ["rewards.x.use", "score(self, group, replies)"]),
        ({"x": {"use": "shouting_reward:a_function"}}, ["rewards.x.use", "not a class"]),
        ({"x": {"use": "shouting_reward:Shouting", "bonsu": 1}}, ["'rewards.x.bonsu'", "did you mean 'rewards.x.bonus'"]),
        ({"x": {"use": "no_such_module_here:X"}}, ["rewards.x.use", "no module named 'no_such_module_here'", "current directory"]),
        ({"x": {"use": "needy_reward:X"}}, ["a_package_that_is_not_there", "which needy_reward imports"]),
        ({"x": {"use": "broken_reward:X"}}, ["rewards.x.use", "importing broken_reward failed"]),
        ({"x": {"use": ":X"}}, ["rewards.x.use"]),
    ],
)
def test_mistakes_in_a_config_are_named(stranger: None, entries: dict, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        make_rewards(configs(**entries))
    for word in words:
        assert word in str(caught.value)


def test_all_is_checked_before_any_constructor_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["class Heavy:", "    def __init__(self):", "        raise AssertionError", "    def score(self, group, replies): ..."]
    (tmp_path / "heavy_reward.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"rewards\.format\.nothing"):
        make_rewards(configs(heavy={"use": "heavy_reward:Heavy"}, format={"nothing": 1}))


@pytest.mark.parametrize(("length", "value"), [(1, 0.0), (80, 0.0), (90, -0.5), (100, -1.0), (101, -1.0), (5000, -1.0)])
def test_overlong(length: int, value: float) -> None:
    reward = make_rewards(configs(overlong={"max_tokens": 100, "cache": 20}))["overlong"]
    [result] = reward.score(make_group(["x"], tokens=[length]), ())
    assert result.value == value


def test_strict_accuracy_gives_nothing_to_a_malformed_response() -> None:
    group = make_group(["<answer>B</answer>", "<think>x</think><answer>B</answer>"])
    made = make_rewards(configs(lenient={"use": "accuracy"}, strict={"use": "accuracy", "mode": "strict"}))
    assert [r.value for r in made["lenient"].score(group, ())] == [1.0, 1.0]
    assert [r.value for r in made["strict"].score(group, ())] == [0.0, 1.0]


def test_importing_and_making_rewards_loads_no_torch() -> None:
    code = (
        "import sys, rewards, rewards.mixture, rewards.grading; from vlm_rl.config import RewardConfig; "
        "rewards.make_rewards({'accuracy': RewardConfig(), 'format': RewardConfig()}); "
        "sys.exit(', '.join({'torch', 'numpy', 'sympy', 'nltk'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
