"""The bonus for answers that follow from their reasoning, where there are no options: who qualifies, who earns, what is asked."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from helpers_rewards import CHOICE, configs, make_group, never

from rewards.care import Care, earning, qualifying
from rewards.mixture import Mixture
from vlm_rl.errors import UserError
from vlm_rl.types import Query, Reply, Sample, Score

OPEN = Sample(id="7", question="Which animal?", answer="a large brown dog", kind="text")


def wrote(answer: str) -> str:
    return f"<think>It barks.</think>\n<answer>{answer}</answer>"


def likely(*chances: float | None):
    """Replies whose answer has that mean probability a token; None fails."""

    def ask(queries: Sequence[Query]) -> list[Reply]:
        assert len(queries) == len(chances)
        return [Reply(error="no engine") if p is None else Reply("", (math.log(p) - 0.5, math.log(p) + 0.5)) for p in chances]

    return ask


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ([1, 1, 0, 0], [True, True, False, False]),
        ([0.1, 0.1], [False, False]),
        ([0.2, 0.2], [True, True]),
        ([0.2, 0.9, 0.6], [False, True, True]),
        ([0, 0], [False, False]),
    ],
)
def test_accurate_for_themselves_and_for_their_group(accuracies: list[float], expected: list[bool]) -> None:
    assert qualifying(accuracies, 0.1) == expected


@pytest.mark.parametrize(
    ("likelihoods", "expected"),
    [
        ([0.9, 0.5, None], [True, False, False]),
        ([0.99, 0.96], [True, True]),
        ([0.5, 0.485], [True, True]),
        ([0.5, 0.47], [True, False]),
        ([0.3], [True]),
        ([None, None], [False, False]),
        ([], []),
    ],
)
def test_as_likely_as_their_peers(likelihoods: list[float | None], expected: list[bool]) -> None:
    assert earning(likelihoods, 0.95, 0.01) == expected


def test_the_bonus_is_half_the_accuracy_of_those_who_earn_it() -> None:
    mixed = Mixture(configs(accuracy={}, care={}), 0.0)
    texts = [wrote("a large brown dog"), wrote("a large brown dog"), wrote("no idea"), "<answer>a large brown dog</answer>"]
    [scored] = mixed.score([make_group(texts, OPEN)], 0, likely(0.8, 0.4))
    assert scored.totals == (1.5, 1.0, 0.0, 1.0)
    assert [part.detail["likelihood"] for part in scored.parts["care"][:2]] == pytest.approx([0.8, 0.4])
    numbers = mixed.metrics([scored])
    assert (numbers["reward/care/qualifies"], numbers["reward/care/earned"]) == (0.75, 0.25)
    assert numbers["reward/care/likelihood"] == pytest.approx(0.6)


def test_partly_right_answers_earn_in_proportion() -> None:
    [scored] = Mixture(configs(care={"bonus": 1.0}), 0.0).score([make_group([wrote("a brown dog")], OPEN)], 0, likely(0.8))
    [plain] = Mixture(configs(accuracy={}), 0.0).score([make_group([wrote("a brown dog")], OPEN)], 0, never)
    assert 0.5 < scored.totals[0] == plain.totals[0] < 1


def test_only_qualifying_rollouts_are_asked_about_and_with_their_own_reasoning() -> None:
    for target in ("start", "policy"):
        rounds = Care(target=target).rounds(make_group([wrote("no idea"), wrote("a large brown dog")], OPEN))
        assert list(next(rounds)) == [Score(target, OPEN, "a large brown dog", "<think>It barks.</think>\n<answer>")]
    [scored] = Mixture(configs(care={}), 0.0).score([make_group([wrote("no idea"), "nothing"], OPEN)], 0, never)
    assert scored.totals == (0.0, 0.0)


def test_a_turn_that_was_begun_is_given_once() -> None:
    begun = "<think>It is"
    group = make_group([" teal.</think><answer>B</answer>"] * 2, replace(CHOICE, prefill=begun), prefill=begun)
    for query in next(Care().rounds(group)):
        assert query.sample.prefill + query.prefill == "<think>It is teal.</think><answer>"


def test_a_reader_that_fails_is_unscored() -> None:
    mixed = Mixture(configs(accuracy={}, care={}), 0.5)
    [scored] = mixed.score([make_group([wrote("a large brown dog")] * 2, OPEN)], 0, likely(0.8, None))
    assert scored.totals == (1.0, 1.0) and scored.parts["care"][1].raw is None


def test_who_reads_is_known_before_anything_loads() -> None:
    assert Mixture(configs(care={}), 0.0).targets == {"start"}
    assert Mixture(configs(care={"target": "policy"}), 0.0).targets == {"policy"}
    for entry, words in (({"target": "polcy"}, "did you mean 'policy'"), ({"cap": 1.5}, "cap above 0"), ({"bonus": 0}, "bonus is above 0")):
        with pytest.raises(UserError, match=r"rewards\.care") as caught:
            Mixture(configs(care=entry), 0.0)
        assert words in str(caught.value)
    assert Mixture(configs(accuracy={}, care={}), 0.0).ordering_warning() is None
