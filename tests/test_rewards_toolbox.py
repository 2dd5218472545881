"""Small rewards of one file each: repetition, likelihood of the reference."""

import math
from collections.abc import Sequence

import pytest
from helpers_rewards import configs, make_group
from hypothesis import given
from hypothesis import strategies as st

from rewards import make_rewards
from rewards.mixture import Mixture
from rewards.reference import FORMS, Reference
from rewards.repetition import Repetition
from vlm_rl.errors import UserError
from vlm_rl.types import Completion, Group, Prompt, Query, Reply, Rollout, Sample, Score, Segment


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


PROBS = (0.9, 0.5, 0.8)
OPEN = Sample("1", "Which animal?", "a dog", "text")


def likely(probs: Sequence[float]) -> Reply:
    return Reply("a dog", tuple(math.log(p) for p in probs))


@pytest.mark.parametrize(
    ("form", "value"), [("prob", 0.36), ("logprob", -1.0217), ("avg_logprob", -0.3406), ("geo_mean", 0.7114), ("avg_prob", 0.7333)]
)
def test_forms_of_likelihood(form: str, value: float) -> None:
    group = make_group(["<think>It barks.</think>\n<answer>a cat</answer>"], OPEN)
    [result] = Reference(form=form).score(group, [likely(PROBS)])
    assert result.value == pytest.approx(value, abs=1e-4) and result.detail["likelihood"] == pytest.approx(0.7114, abs=1e-4)


@given(st.lists(st.floats(-50, 0), min_size=1, max_size=9))
def test_laws_of_the_forms(logprobs: list[float]) -> None:
    value = {name: form(logprobs) for name, form in FORMS.items()}
    assert value["prob"] <= value["geo_mean"] + 1e-12 and value["geo_mean"] <= value["avg_prob"] + 1e-12
    assert math.exp(value["logprob"]) == pytest.approx(value["prob"]) and value["avg_logprob"] * len(logprobs) == pytest.approx(
        value["logprob"]
    )
    assert -5 <= Reference()._value(logprobs) <= 0


def test_it_is_cut_before_the_answer_tag_is_closed() -> None:
    turns = ["<think>It barks.</think>\n<answer>a cat</answer>", "no tag", "<answer>x</answer> <answer>y", "<think>never closed <answer>x"]
    reward = Reference(target="start")
    asked = reward.ask(make_group(turns, OPEN))
    assert asked == [
        Score("start", OPEN, "a dog", "<think>It barks.</think>\n<answer", ">"),
        Score("start", OPEN, "a dog", "<answer", ">"),
    ]
    results = reward.score(make_group(turns, OPEN), [likely(PROBS), Reply(error="down")])
    assert [r.value for r in results] == [pytest.approx(-0.3406, abs=1e-4), -5.0, None, -5.0]
    assert results[2].detail["error"] == "down" and results[1].detail["no_answer_tag"]
    assert Reference(form="prob").score(make_group(turns, OPEN), [likely(PROBS)] * 2)[3].value == 0.0


def test_a_prefill_is_given_once() -> None:
    row = Sample("1", "?", "a dog", "text", prefill="<think>Look:")
    [query] = Reference().ask(make_group([" it barks.</think><answer>x"], row, row.prefill))
    assert query.prefill == "<think>Look: it barks.</think><answer" and query.sample.prefill == ""


def test_rlpr_takes_off_what_is_likely_without_reasoning() -> None:
    group = make_group(["<think>It barks.</think><answer>x</answer>", "<think>It mews.</think><answer>x</answer>"], OPEN)
    mixed = Mixture(configs(format={"weight": 0.1}, rlpr={"use": "reference", "form": "avg_prob", "debias": True, "weight": 0.9}), 0.0)

    def ask(queries: Sequence[Query]) -> list[Reply]:
        assert [q.prefill for q in queries] == [
            "<think>It barks.</think><answer",
            "<think>It mews.</think><answer",
            "<think></think>\n<answer",
        ]
        return [likely(PROBS), likely([0.2]), likely([0.4])]

    [scored] = mixed.score([group], 0, ask)
    assert scored.totals == (pytest.approx(0.4), pytest.approx(0.1))
    failed = Reference(debias=True).score(group, [likely(PROBS), likely(PROBS), Reply(error="down")])
    assert [r.value for r in failed] == [None, None]


def test_no_reference_no_question() -> None:
    group = make_group(["<answer>x</answer>"], Sample("1", "?", " ", "text"))
    assert Reference().ask(group) == [] and "skipped" in Reference().score(group, [])[0].detail


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"form": "avg_logprobs"}, "avg_logprob"), ({"target": "judge"}, "start"), ({"floor": 1}, "floor"), ({"debias": 1}, "true")],
)
def test_reference_refuses(wrong: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make_rewards(configs(reference=wrong))
