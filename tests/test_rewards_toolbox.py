"""Small rewards of one file each: repetition, likelihood of the reference, self-aligned, evidence."""

import math
from collections.abc import Sequence

import pytest
from helpers_rewards import configs, make_group
from hypothesis import given
from hypothesis import strategies as st
from models_small import make, sample

from data.views import blank
from rewards import make_rewards
from rewards.evidence import Evidence, gold_ids, overlap
from rewards.mixture import Mixture
from rewards.reference import FORMS, Reference
from rewards.repetition import Repetition
from rewards.response import before_answer
from rewards.self_aligned import SelfAligned, explained, without_question
from vlm_rl.asking import Asker
from vlm_rl.engine.scripted import ScriptedEngine
from vlm_rl.errors import RowError, UserError
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


@pytest.mark.parametrize(
    ("turn", "opened"),
    [("never closed <answer>", True), ("<think>a</think><think><answer>", False), ("<think>a <answer>", False), ("a", False)],
)
def test_no_answer_before_the_thought_ends(turn: str, opened: bool) -> None:
    assert before_answer(turn, opened) is None
    assert before_answer("a</think><answer>", True) == "a</think><answer"


@pytest.mark.parametrize(("given", "ablated", "value"), [(5, 20, 0.75), (5, 2, -1.0), (3, 3, 0.0), (2, 1e9, 1 - 2 / math.exp(10))])
def test_self_aligned(given: float, ablated: float, value: float) -> None:
    group = make_group(["It barks.", ""], OPEN)
    reward = SelfAligned()
    assert reward.ask(group) == [Score("policy", OPEN, "It barks."), Score("policy", without_question(OPEN), "It barks.")]
    results = reward.score(group, [Reply(logprobs=(-math.log(p),) * 3) for p in (given, ablated)])
    assert [r.value for r in results] == [pytest.approx(value), 0.0]
    assert results[0].detail["log_ppl"] == pytest.approx(math.log(given))


@given(st.floats(0, 10), st.floats(0, 10))
def test_what_explains_more_pays_more(a: float, b: float) -> None:
    assert -1 <= explained(a, b) < 1 and (explained(a, b) > 0) <= (a < b) and explained(min(a, b), 5) >= explained(max(a, b), 5)


def test_replies_go_to_their_own_rollouts_and_failures_are_unscored() -> None:
    group = make_group(["one", "", "two"], OPEN)
    one, two, down = (-math.log(5),), (-math.log(2),), Reply(error="down")
    said = [Reply(logprobs=one), Reply(logprobs=two), Reply(logprobs=(-math.log(20),)), down]
    results = SelfAligned().score(group, said)
    assert [r.value for r in results] == [pytest.approx(0.75), 0.0, None] and results[2].detail == {"error": "down"}


def test_the_picture_is_taken_away_by_a_grey_one() -> None:
    seen = sample("a")
    given, ablated = SelfAligned("image").ask(make_group(["teal"], seen))
    assert given.sample == seen and ablated.sample == blank(seen) != seen and ablated.sample.question == seen.question
    assert SelfAligned("image").ask(make_group(["teal"], OPEN)) == []
    assert "skipped" in SelfAligned("image").score(make_group(["teal"], OPEN), [])[0].detail


@pytest.mark.parametrize("baseline", ["question", "image"])
def test_what_is_asked_can_be_rendered(baseline: str) -> None:
    _, chat = make()
    engine = ScriptedEngine(chat, lambda prompt, seed: "")
    group = make_group(["teal", "blue"], sample("a"))
    [scored] = Mixture(configs(self_aligned={"baseline": baseline}), 0.0).score([group], 0, Asker({"policy": engine}, chat))
    assert scored.totals == (0.0, 0.0) and engine.calls == 1


@pytest.mark.parametrize(("wrong", "words"), [({"baseline": "images"}, "did you mean 'image'"), ({"target": "judge"}, "start")])
def test_self_aligned_refuses(wrong: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make_rewards(configs(self_aligned=wrong))


def cites(ids: str, answer: str = "a dog") -> str:
    return f"<think>It barks.</think><useful_chunks>{ids}</useful_chunks><answer>{answer}</answer>"


def with_evidence(*ids: object) -> Sample:
    return Sample("1", "Which animal?", "a dog", "text", meta={"evidence_ids": list(ids)})


@pytest.mark.parametrize(
    ("cited", "gold", "f2", "right", "wrong"),
    [
        ("3, 9", (3,), 0.8333, 1.8333, 0.0833),  # P 1/2, R 1
        ("[1, 2, 9]", ("1", "2", "3", "4"), 0.5263, 1.5263, 0.0526),  # P 2/3, R 1/2
        ("3 3", (3,), 0.8333, 1.8333, 0.0833),  # repeated ones each count
        ("1;2;3;4;5;6;7;8;9;10", (3,), 0.3571, 1.3571, 0.0357),
        ("'3'", (3,), 1.0, 2.0, 0.1),
        ("4", (3,), 0.0, 1.0, 0.0),
        ("", (3,), 0.0, 1.0, 0.0),
        (",".join(map(str, range(17))), (3,), 0.0, 1.0, 0.0),
        (",".join(map(str, range(17))), range(17), 1.0, 2.0, 0.1),
    ],
)
def test_evidence(cited: str, gold: Sequence[object], f2: float, right: float, wrong: float) -> None:
    group = make_group([cites(cited), cites(cited, "a cat")], with_evidence(*gold))
    results = Evidence().score(group, ())
    assert [r.value for r in results] == [pytest.approx(right, abs=1e-4), pytest.approx(wrong, abs=1e-4)]
    assert results[0].detail["f2"] == pytest.approx(f2, abs=1e-4)


@pytest.mark.parametrize(
    "text",
    [
        "<answer>a dog</answer>",
        "<useful_chunks>3</useful_chunks> The answer is a dog",
        cites("3") + "<useful_chunks>3</useful_chunks>",
        cites("3") + "<answer>a dog</answer>",
        cites("3").replace("</useful_chunks>", ""),
        "</useful_chunks><useful_chunks>3<answer>a dog</answer>",
    ],
)
def test_other_than_one_block_of_each_earns_nothing(text: str) -> None:
    [result] = Evidence().score(make_group([text], with_evidence(3)), ())
    assert result.value == 0.0 and result.detail["blocks"] is False


def test_a_row_without_evidence_pays_for_its_answer_alone() -> None:
    for row in (OPEN, with_evidence()):
        assert [r.value for r in Evidence().score(make_group(["<answer>a dog</answer>", cites("3", "a cat")], row), ())] == [1.0, 0.0]


@given(st.lists(st.sampled_from("abcdef"), max_size=8), st.sets(st.sampled_from("abcdef"), min_size=1))
def test_shares_of_evidence(cited: list[str], gold: set[str]) -> None:
    precision, recall = overlap(cited, frozenset(gold))
    assert 0 <= precision <= 1 and 0 <= recall <= 1 and (precision == 0) == (recall == 0)
    assert (precision == recall == 1) == (set(cited) == gold and len(cited) == len(gold))


@pytest.mark.parametrize("ids", ["3", [True], [1.5], ["a b"], [[1]], {"a": 1}])
def test_evidence_that_cannot_be_cited_is_named(ids: object) -> None:
    with pytest.raises(RowError, match="row 7: evidence_ids"):
        gold_ids(Sample("7", "?", "x", meta={"evidence_ids": ids}))


def test_answers_are_not_paid_twice() -> None:
    with pytest.raises(UserError, match=r"accuracy\.weight=0"):
        Mixture(configs(accuracy={}, evidence={}), 0.0)
    Mixture(configs(accuracy={"weight": 0}, evidence={}), 0.0)


@pytest.mark.parametrize("wrong", [{"eta": 2}, {"most": 0}])
def test_evidence_refuses(wrong: dict) -> None:
    with pytest.raises(UserError, match="eta"):
        make_rewards(configs(evidence=wrong))
