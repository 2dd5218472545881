"""Answer consistency under another order of options: cases, totals, draws, what is re-fed, what is asked, and a run of two steps."""

import dataclasses
import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
import torch
from helpers_rewards import configs, make_group, never
from models_small import make, make_chat, picture
from runs_small import train_config
from test_shipped_policy import PATH as SHIPPED
from test_shipped_policy import load as load_policy

from data import load_rows
from data.media import decode_image
from data.options import option_order, permute
from data.templates import render
from rewards import option_shuffle
from rewards.acre import Acre, case_of, consistency
from rewards.mixture import Mixture
from rewards.option_shuffle import Shuffle, contents, gold_contents, names_letter, reasoning, refed, without_letters
from vlm_rl import cli_train
from vlm_rl.algo.advantages import group_std
from vlm_rl.asking import Asker
from vlm_rl.chat import Chat
from vlm_rl.config import AlgoConfig, DataConfig
from vlm_rl.engine.base import GenerateRequest
from vlm_rl.engine.hf import HFEngine
from vlm_rl.engine.scripted import ScriptedEngine
from vlm_rl.errors import UserError
from vlm_rl.policy import Policy
from vlm_rl.step_batch import Limits, StepBatch
from vlm_rl.types import LETTERS, Generate, Group, Query, Reply, RewardResult, Rollout, Sample, Sampling, Score

PETS = Sample(id="7", question="Which animal?", answer="B", kind="choice", options=("cat", "dog", "cow", "pig"))
RIGHT = frozenset({1})


def wrote(letter: str, trace: str = "It barks.") -> str:
    return f"<think>{trace}</think>\n<answer>{letter}</answer>"


def answering(*said: int | None) -> Callable[[Sequence[Query]], list[Reply]]:
    """Replies to the n-th question with the letter under which it shows content said[n], or with no letter."""

    def ask(queries: Sequence[Query]) -> list[Reply]:
        shown = [option_order(query.sample) for query in queries]
        return [Reply("well" if a is None else LETTERS[order.index(a)] + "</answer>") for order, a in zip(shown, said, strict=True)]

    return ask


def totals(firsts: str, seconds: Sequence[int | None], sample: Sample = PETS, **entries: dict) -> tuple[float, ...]:
    """Totals of one group whose rollouts wrote the letters `firsts` and answered the contents `seconds` when they were asked again."""
    mixed = Mixture(configs(**(entries or {"accuracy": {}, "acre": {}})), 0.0)
    [scored] = mixed.score([make_group([wrote(letter) for letter in firsts], sample)], 0, answering(*seconds))
    return scored.totals


# What is compared


def test_answers_are_compared_by_content_not_by_letter() -> None:
    shuffled = permute(PETS, [2, 0, 3, 1])
    assert shuffled.options == ("cow", "cat", "pig", "dog") and shuffled.answer == "D"
    assert [contents(text, shuffled) for text in ("D", "B", "cat", "well", None)] == [{1}, {0}, {0}, None, None]
    assert gold_contents(shuffled) == gold_contents(PETS) == RIGHT


@pytest.mark.parametrize("count", range(2, 7))
def test_every_order_can_be_taken_back(count: int) -> None:
    for order in itertools.permutations(range(count)):
        shuffled = permute(dataclasses.replace(PETS, options=tuple("uvwxyz"[:count]), answer="A"), order)
        assert [contents(LETTERS[order.index(c)], shuffled) for c in range(count)] == [{c} for c in range(count)]


def test_of_two_options_that_read_the_same_the_place_decides() -> None:
    twins = dataclasses.replace(PETS, options=("dog", "dog", "cow"))
    assert contents("A", permute(twins, [1, 2, 0])) == {1}
    assert contents("dog", twins) is None


CASES = [(1, 1, 1.0, 2.0), (1, 0, 0.5, 1.5), (0, 1, 0.25, 0.25), (0, 0, 0, 0), (0, 2, 0, 0), (1, None, 0.5, 1.5), (None, 1, 0.25, 0.25)]


@pytest.mark.parametrize(("first", "second", "value", "total"), CASES)
def test_cases_and_totals(first: int | None, second: int | None, value: float, total: float) -> None:
    a, b = (None if x is None else frozenset({x}) for x in (first, second))
    assert consistency(a, [b], RIGHT, (1.0, 0.5, 0.25)) == value
    letter = "?" if first is None else LETTERS[first]
    assert totals(letter, [second]) == (total,)
    assert totals(letter, [second], accuracy={"weight": 0}, acre={"mode": "replace"}) == (value,)
    assert totals(letter, [second], acre={"alpha": [3, 2, 1]}) == ({1.0: 3, 0.5: 2, 0.25: 1, 0: 0}[value],)


def test_cases_with_several_right_options() -> None:
    both = frozenset({0, 2})
    assert [case_of(a, b, both) for a, b in ((both, both), (both, RIGHT), (frozenset({0}), both), (None, None))] == [1, 2, 3, 4]
    assert totals("C", [0], dataclasses.replace(PETS, answer="A,C")) == (0.0,)
    several = Mixture(configs(accuracy={}, acre={}), 0.0)
    group = make_group([wrote("A, C"), wrote("C and A")], dataclasses.replace(PETS, answer="A,C"))

    def ask(queries: Sequence[Query]) -> list[Reply]:
        return [Reply(query.sample.answer + "</answer>") for query in queries]

    assert several.score([group], 0, ask)[0].totals == (2.0, 2.0)


@pytest.mark.parametrize(
    ("firsts", "seconds", "expected", "advantages"),
    [
        ("BBBB", [1, 1, 0, 0], [2, 2, 1.5, 1.5], [0.8657, 0.8657, -0.8657, -0.8657]),
        ("BBBA", [1, 1, 0, 0], [2, 2, 1.5, 0], [0.6603, 0.6603, 0.1321, -1.4526]),
        ("BBAA", [1, 0, 1, 0], [2, 1.5, 0.25, 0], [1.1003, 0.5825, -0.7120, -0.9708]),
    ],
)
def test_advantages(firsts: str, seconds: list[int], expected: list[float], advantages: list[float]) -> None:
    given = totals(firsts, seconds)
    assert list(given) == expected
    assert group_std(torch.tensor(given), 1e-4).tolist() == pytest.approx(advantages, abs=1e-4)


def test_plain_accuracy_cannot_tell_those_groups_apart() -> None:
    assert group_std(torch.tensor(totals("BBBB", [], accuracy={})), 1e-4).tolist() == [0, 0, 0, 0]
    plain = group_std(torch.tensor(totals("BBBA", [], accuracy={})), 1e-4).tolist()
    assert plain == pytest.approx([0.4999, 0.4999, 0.4999, -1.4997], abs=1e-4)


def test_several_shuffles_are_averaged() -> None:
    assert totals("B", [1, 0, 1, None], acre={"shuffles": 4}) == (0.75,)
    assert totals("AB", [1, 2, 1, 1], acre={"shuffles": 2}) == (0.125, 1.0)


# Draws


def drawn(shuffle: Shuffle, sample: Sample, count: int) -> Counter[tuple[int, ...]]:
    return Counter(option_order(shuffle(sample, seed)) for seed in range(count))


def test_two_options_are_always_swapped_unless_the_same_order_is_allowed() -> None:
    two = dataclasses.replace(PETS, options=("cat", "dog"))
    assert drawn(Shuffle(), two, 50).keys() == {(1, 0)}
    assert drawn(Shuffle(allow_identity=True), two, 50).keys() == {(0, 1), (1, 0)}


def test_other_orders_are_equally_likely_and_the_key_keeps_its_letter_as_often_as_chance_says() -> None:
    orders = drawn(Shuffle(), PETS, 4600)
    assert len(orders) == 23 and (0, 1, 2, 3) not in orders
    assert all(130 < count < 270 for count in orders.values())
    kept = sum(count for order, count in orders.items() if order[1] == 1) / 4600
    assert kept == pytest.approx(5 / 23, abs=0.03)
    with_same = drawn(Shuffle(allow_identity=True), PETS, 2400)
    assert len(with_same) == 24
    assert sum(count for order, count in with_same.items() if order[1] == 1) / 2400 == pytest.approx(1 / 4, abs=0.04)


def test_the_key_can_be_made_to_move() -> None:
    assert all(order[1] != 1 for order in drawn(Shuffle(move_key=True), PETS, 200))
    pinned = dataclasses.replace(PETS, options=("cat", "dog", "none of the above"), answer="C")
    assert Shuffle(move_key=True).obstacle(pinned) == "its right option cannot move"
    assert drawn(Shuffle(), pinned, 20).keys() == {(1, 0, 2)}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": "text", "options": (), "answer": "dog"}, "not multiple choice"),
        ({"options": (), "meta": {"options_shown": ["cat", "dog"]}}, "stand in its picture"),
        ({"options": ("dog",), "answer": "A"}, "no two options that can change places"),
        ({"options": ("dog", "dog")}, "no two options that can change places"),
        ({"options": ("cat", "dog", "both A and B")}, "names options by their letters"),
        ({"options": ("cat", "all of the above")}, "no two options that can change places"),
    ],
)
def test_what_cannot_be_asked_again_is_left_out_by_name_and_asks_nothing(change: dict, reason: str) -> None:
    row = dataclasses.replace(PETS, **change)
    group = make_group([wrote(row.answer), wrote("nothing at all")], row)
    [scored] = Mixture(configs(accuracy={}, acre={}), 0.0).score([group], 0, never)
    assert scored.totals == (1.0, 0.0)
    part = scored.parts["acre"][0]
    assert part.contribution is None and reason in part.detail["skipped"]
    [instead] = Mixture(configs(accuracy={"weight": 0}, acre={"mode": "replace"}), 0.0).score([group], 0, never)
    assert instead.totals == (1.0, 0.0)


def test_numbers_in_order_can_be_left_out() -> None:
    for options, ordered in ((("1", "2", "3"), True), (("30%", "20%", "5%"), True), (("1", "3", "2"), False), (("1", "2"), False)):
        row = dataclasses.replace(PETS, options=options)
        assert (Shuffle(skip_ordered_numbers=True).obstacle(row) == "its options are numbers in order") is ordered
        assert Shuffle().obstacle(row) is None


def test_letters_before_options_do_not_move_with_them() -> None:
    lettered = dataclasses.replace(PETS, options=("A. cat", "(B) dog", "C: cow", "D) pig"))
    shuffled = Shuffle()(lettered, 3)
    assert shuffled.options == Shuffle()(PETS, 3).options and gold_contents(shuffled) == RIGHT
    assert contents("B", lettered) == RIGHT


def asked(acre: Acre, group: Group) -> list[Generate]:
    queries = acre.ask(group)
    assert all(isinstance(query, Generate) for query in queries)
    return queries  # type: ignore[return-value]


def test_orders_depend_on_the_groups_seed_the_rollouts_index_and_the_shuffle_alone() -> None:
    group = dataclasses.replace(make_group([wrote("A"), wrote("B", "Other words.")], PETS), seed=123)
    orders = [option_order(query.sample) for query in asked(Acre(shuffles=2), group)]
    assert orders == [(0, 1, 3, 2), (3, 0, 1, 2), (0, 1, 3, 2), (0, 3, 2, 1)]
    other = dataclasses.replace(group, prompt=make_group([], dataclasses.replace(PETS, id="8")).prompt, rollouts=group.rollouts[::-1])
    assert [option_order(query.sample) for query in asked(Acre(shuffles=2), other)] == orders[2:] + orders[:2]
    assert [option_order(query.sample) for query in asked(Acre(), group)] == orders[::2]
    said = Acre(shuffles=2).score(group, [Reply("A")] * 4)
    assert [result.detail["orders"] for result in said] == [[list(o) for o in orders[:2]], [list(o) for o in orders[2:]]]


# What is re-fed


@pytest.mark.parametrize(
    ("turn", "opened", "trace", "prefill"),
    [
        ("<think>a b</think>\n<answer>B</answer>", False, "a b", "<think>a b</think>\n<answer>"),
        ("<think>\na\n</think>\n\n<answer>B", False, "\na\n", "<think>\na\n</think>\n\n<answer>"),
        ("<think>a</think><answer>B</answer>", False, "a", "<think>a</think><answer>"),
        ("<think>a</think> So it is B.\n<answer>B</answer>", False, "a", "<think>a</think>\n<answer>"),
        ("Well. <think>a <think> b</think> c</think> The answer is B", False, "a <think> b</think> c", None),
        ("a</think>\n<answer>B</answer>", True, "a", "a</think>\n<answer>"),
        ("a</think>\n<answer>B</answer>", False, None, None),
        ("<think>a <answer>B</answer>", False, None, None),
        ("</think><think>a", False, None, None),
        ("B", True, None, None),
        ("", False, None, None),
    ],
)
def test_the_trace_is_re_fed_word_for_word(turn: str, opened: bool, trace: str | None, prefill: str | None) -> None:
    assert reasoning(turn, opened) == trace
    if trace is not None:
        assert refed(trace, turn, opened) == (prefill or f"<think>{trace}</think>\n<answer>")


def test_without_a_think_block_nothing_is_asked_and_the_second_answer_is_missing() -> None:
    mixed = Mixture(configs(accuracy={}, acre={}), 0.0)
    [scored] = mixed.score([make_group(["<answer>B</answer>", "<think>x <answer>B</answer>", "<answer>A</answer>"], PETS)], 0, never)
    assert scored.totals == (1.5, 0.0, 0.0)
    assert [part.detail["asked"] for part in scored.parts["acre"]] == [False] * 3


def small_chat() -> Chat:
    small = make_chat()
    return Chat(small.processor, small.config, render("think"), decode_image)


@pytest.mark.parametrize("begun", ["", "<think>", "<think>It "])
def test_the_second_prompt_as_the_model_reads_it(begun: str) -> None:
    chat, trace = small_chat(), "It is (B), a dog  that barks."
    row = dataclasses.replace(PETS, media=(picture(1),), prefill=begun)
    group = make_group([f"<think>{trace}</think> I choose B.\n<answer>B</answer>".removeprefix(begun)], row, prefill=begun)
    [query] = asked(Acre(), group)
    prompt = chat.prompt(query.sample, query.prefill)
    options = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, query.sample.options, strict=False))
    for text in (prompt.text, chat.tokenizer.decode(prompt.ids)):
        assert text.count(trace) == text.count(options) == 1
        assert text.endswith(f"<think>{trace}</think>\n<answer>")
        assert "A. cat\nB. dog" not in text
    assert prompt.prefill == f"<think>{trace}</think>\n<answer>"
    assert prompt.vision and query.sample.media == row.media
    limits = query.sampling
    assert (limits.temperature, limits.max_new_tokens, limits.stop) == (0.0, 8, ("</answer>",))


def test_a_think_block_that_the_template_opened_is_not_opened_again() -> None:
    prompt = dataclasses.replace(make_group([], PETS).prompt, text="<|im_start|>assistant\n<think>\n")
    group = dataclasses.replace(make_group(["barks</think>\n<answer>B</answer>"], PETS), prompt=prompt)
    assert [query.prefill for query in asked(Acre(), group)] == ["barks</think>\n<answer>"]
    assert option_shuffle.opened(dataclasses.replace(prompt, text="assistant\n<think>", prefill="<think>")) is False


@pytest.mark.parametrize(
    ("trace", "named", "canonical"),
    [
        ("so option B is right", True, "so option dog is right"),
        ("so (B)", True, "so (dog)"),
        ("The answer is B.", True, "The answer is dog."),
        ("Answer: **C**", True, "Answer: **cow**"),
        ("so it is B", True, None),
        ("A or C", True, None),
        ("A cat and a dog", False, None),
        ("I see a dog. The answer is dog.", False, None),
        ("vitamin E, option F, U-turn", False, None),
        ("DNA, B12, don't", False, None),
        ("", False, None),
    ],
)
def test_letters_named_in_a_trace(trace: str, named: bool, canonical: str | None) -> None:
    assert names_letter(trace, PETS.options) is named
    assert without_letters(trace, PETS.options) == (canonical or trace)


def test_a_hostile_trace_takes_no_time() -> None:
    for part in ("option ", "A ", "(", "answer is ", "A  " * 3, "option B " * 2, "</think>", "<think>"):
        trace = part * 20_000
        names_letter(trace, PETS.options)
        assert len(without_letters(trace, PETS.options)) >= len(trace)
        reasoning(trace)


def test_letters_are_replaced_by_what_they_stood_for_in_the_first_order_where_asked_for() -> None:
    group = make_group([wrote("B", "It barks, so option B.")], dataclasses.replace(PETS, options=("A. cat", "B. dog", "C. cow", "D. pig")))
    assert asked(Acre(), group)[0].prefill == "<think>It barks, so option B.</think>\n<answer>"
    assert asked(Acre(canonicalise=True), group)[0].prefill == "<think>It barks, so option dog.</think>\n<answer>"


# What is asked and what it says


class Asks:
    """A reward of one round that asks `target` one question a rollout."""

    def __init__(self, target: str):
        self.target = target

    def ask(self, group: Group) -> list[Generate]:
        return [Generate(self.target, group.sample, Sampling(4), seed=r.index) for r in group.rollouts]

    def score(self, group: Group, replies: Sequence[Reply]) -> list[RewardResult]:
        return [RewardResult(float(reply.error is None)) for reply in replies]


def test_five_rewards_of_one_round_cost_one_call_per_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(__file__.rpartition("/")[0])
    chat = small_chat()
    engines = {name: ScriptedEngine(chat, lambda prompt, seed: "A</answer>") for name in ("policy", "start")}
    strangers = {
        f"{target}{i}": {"use": "test_rewards_acre:Asks", "target": target} for i, target in enumerate(("policy", "start", "start"))
    }
    mixed = Mixture(configs(accuracy={}, acre={}, often={"use": "acre", "shuffles": 3}, **strangers), 0.0)
    groups = [make_group([wrote("A"), wrote("B")], PETS), make_group([wrote("C")], dataclasses.replace(PETS, id="8"))]
    ask = Asker(engines, chat)
    scored = mixed.score(groups, 0, ask)
    assert ask.calls == {"policy": 1, "start": 1} and [engine.calls for engine in engines.values()] == [1, 1]
    assert len(scored[0].parts) == 6


def test_an_engine_that_fails_leaves_the_group_with_its_other_rewards_and_is_counted() -> None:
    group = make_group([wrote("B"), wrote("A")], PETS)

    def ask(queries: Sequence[Query]) -> list[Reply]:
        return [Reply("B</answer>"), Reply(error="the prompt has 5000 tokens")]

    [scored] = Mixture(configs(accuracy={}, acre={}), 0.5).score([group], 0, ask)
    assert scored.totals == (1.0, 0.0)
    assert scored.parts["acre"][1].raw is None
    [replaced] = Mixture(configs(accuracy={"weight": 0}, acre={"mode": "replace"}), 0.5).score([group], 0, ask)
    assert replaced.totals == (1.0, 0.0)
    assert replaced.parts["acre"][1].detail["error"] == "the prompt has 5000 tokens"
    with pytest.raises(UserError, match=r"'acre' left 1 of 2 rollouts unscored.*5000 tokens"):
        Mixture(configs(accuracy={}, acre={}), 0.2).score([group], 0, ask)


def test_metrics() -> None:
    mixed = Mixture(configs(accuracy={}, acre={"shuffles": 2}), 0.0)
    texts = [wrote("B", "so (B)"), wrote("B"), wrote("A"), "<answer>B</answer>"]
    numbers = mixed.metrics(mixed.score([make_group(texts, PETS)], 0, answering(1, 1, 1, 0, 0, None)))
    wanted = {
        "raw": (1 + 0.75 + 0 + 0.5) / 4,
        "case1": (1 + 0.5) / 4,
        "case2": (0.5 + 1) / 4,
        "case3": 0,
        "case4": 1 / 4,
        "oscr_fixed": (1 + 0.5 + 0.5 + 0) / 4,
        "oscr_correct": (1 + 0.5) / 4,
        "consistent": (1 + 0.5 + 1) / 3,
        "second_read": (1 + 1 + 0.5 + 0) / 4,
        "asked": 3 / 4,
        "names_letter": 1 / 3,
        "r_c_letter": 1.0,
        "r_c_no_letter": 0.375,
    }
    assert {name: numbers[f"reward/acre/{name}"] for name in wanted} == pytest.approx(wanted)


def test_two_missing_answers_do_not_agree() -> None:
    [result] = Acre().score(make_group([wrote("?")], PETS), [Reply("well")])
    assert (result.value, result.detail["oscr_fixed"], result.detail["case4"]) == (0.0, 0.0, 1.0)
    assert (result.detail["first"], result.detail["second"]) == (None, [None]) and "consistent" not in result.detail


# The likelihood form


def test_the_likelihood_form_reads_letters_without_writing() -> None:
    acre = Acre(form="likelihood")
    group = make_group([wrote("B"), wrote("A")], PETS)
    queries = acre.ask(group)
    assert [query.continuation for query in queries if isinstance(query, Score)] == list("ABCD") * 2

    def chance(query: Query) -> float:
        assert isinstance(query, Score)
        return (0.1, 0.2, 0.05, 0.05)[option_order(query.sample)[LETTERS.index(query.continuation)]]

    replies = [Reply("", (math.log(chance(query)) - 3.0, 3.0)) for query in queries]
    kept, lost = acre.score(group, replies)
    assert (kept.value, lost.value) == (1.0, 0.25)
    assert (kept.detail["p_kept"], lost.detail["p_kept"]) == pytest.approx((0.5, 0.25))
    several = make_group([wrote("A,B")], dataclasses.replace(PETS, answer="A,B"))
    assert acre.ask(several) == [] and "several options are right" in acre.score(several, [])[0].detail["skipped"]


def test_both_forms_agree_with_the_model_that_is_asked() -> None:
    policy, _ = make()
    chat = small_chat()
    engine = HFEngine(policy, chat)
    ask = Asker({"policy": engine}, chat)
    group = make_group([wrote("B"), wrote("A", "a teal circle")], dataclasses.replace(PETS, media=(picture(1),)))
    acre = Acre(form="likelihood")
    queries = acre.ask(group)
    together = ask(queries)
    assert ask.calls == {"policy": 1}
    for query, reply in zip(queries, together, strict=True):
        alone = Asker({"policy": engine}, chat)([query])[0]
        assert reply.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
    for i, result in enumerate(acre.score(group, together)):
        logprobs = [sum(reply.logprobs) for reply in together[4 * i : 4 * i + 4]]
        best = result.detail["orders"][0][logprobs.index(max(logprobs))]
        assert result.detail["second"] == [[best]]


# Settings


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"acre": {"alpha": [1.0, 1.0, 0.5]}}, "alpha_1 > alpha_2 >= alpha_3 >= 0"),
        ({"acre": {"alpha": [1.0, 0.2, 0.5]}}, "alpha_1 > alpha_2 >= alpha_3 >= 0"),
        ({"acre": {"alpha": [1.0, 0.2, -0.5]}}, "alpha_1 > alpha_2 >= alpha_3 >= 0"),
        ({"acre": {"alpha": [1.0, 0.5]}}, "alpha is three numbers"),
        ({"acre": {"alpha": 1.0}}, "alpha is three numbers"),
        ({"acre": {"alpha": "cba"}}, "alpha is three numbers"),
        ({"acre": {"alpha": [math.nan, 0.5, 0.2]}}, "alpha is three numbers"),
        ({"acre": {"mode": "aditive"}}, "did you mean 'additive'"),
        ({"acre": {"form": "likelyhood"}}, "did you mean 'likelihood'"),
        ({"acre": {"shuffles": 0}}, "shuffles is a whole number, 1 or more"),
        ({"acre": {"max_new_tokens": 2.5}}, "max_new_tokens is a whole number"),
        ({"acre": {"allow_identity": "no"}}, "allow_identity is true or false"),
        ({"acre": {"allow_identity": True, "move_key": True}}, "write one of them"),
        ({"acre": {"shufles": 2}}, "did you mean 'rewards.acre.shuffles'"),
        ({"accuracy": {}, "acre": {"mode": "replace"}}, "write rewards.accuracy.weight=0"),
        ({"right": {"use": "accuracy", "weight": 0.5}, "acre": {"mode": "replace"}}, "write rewards.right.weight=0"),
    ],
)
def test_mistakes_are_named(entries: dict, words: str) -> None:
    with pytest.raises(UserError) as caught:
        Mixture(configs(**entries), 0.0)
    assert words in str(caught.value) and "rewards." in str(caught.value)


def test_equal_lower_coefficients_are_allowed() -> None:
    assert Acre(alpha=[1, 0, 0]).alpha == [1, 0, 0]


@pytest.mark.parametrize(
    ("entries", "warned"),
    [
        ({"accuracy": {}, "acre": {}, "format": {"weight": 0.1}}, False),
        ({"accuracy": {}, "acre": {"alpha": [5, 0.5, 0.5]}}, False),
        ({"accuracy": {}, "acre": {}, "format": {"weight": 1.0}}, True),
        ({"accuracy": {"weight": 0}, "acre": {"mode": "replace"}, "format": {"weight": 0.2}}, False),
        ({"accuracy": {"weight": 0}, "acre": {"mode": "replace"}, "format": {"weight": 0.3}}, True),
    ],
)
def test_a_wrong_answer_can_earn_more_than_a_right_one_only_by_other_rewards(entries: dict, warned: bool) -> None:
    assert (Mixture(configs(**entries), 0.0).ordering_warning() is not None) is warned


# With a model


def test_loss_tokens_are_those_of_the_first_pass_alone() -> None:
    policy, _ = make()
    chat = small_chat()
    engine = HFEngine(policy, chat)
    row = dataclasses.replace(PETS, media=(picture(1),), prefill="<think>It barks.</think>\n<answer>")
    request = GenerateRequest(chat.prompt(row), Sampling(6), (1, 2, 3))
    [completions] = engine.generate([request])
    group = Group(request.prompt, tuple(Rollout(i, i, c) for i, c in enumerate(completions)), 5)
    masks = []
    for entries in ({"accuracy": {}}, {"accuracy": {}, "acre": {}}):
        ask = Asker({"policy": engine}, chat)
        [scored] = Mixture(configs(**entries), 0.0).score([group], 0, ask)
        assert ask.calls["policy"] == len(entries) - 1
        spread = dataclasses.replace(scored, totals=(1.0, 0.5, 0.0))
        batch = StepBatch([spread], AlgoConfig(), Limits(1.0, 4096, 6))
        masks.append(torch.cat([batch.store.get("mask", policy.pack(items)) for items in batch.packs([0])]))
    assert torch.equal(masks[0], masks[1]) and masks[0].sum() == sum(len(c.token_ids) for c in completions)


@pytest.mark.parametrize("form", ["generate", "likelihood"])
def test_a_real_policy_that_is_asked_the_very_same_again_says_the_same(form: str) -> None:
    """What is re-fed reads to the policy like its own words: with the options in their old order its greedy answer is the first one."""
    model, chat = load_policy(SHIPPED)
    engine = HFEngine(Policy(model, chat.visual_ids), chat)
    rows = load_rows(DataConfig(name="easy_vqa", split="test", limit=8))
    requests = [GenerateRequest(chat.prompt(row), Sampling(40, 0.0), (0,)) for row in rows]
    acre, ask, same, read = Acre(form=form, allow_identity=True, shuffles=4), Asker({"policy": engine}, chat), [], []
    for seed, (request, [completion]) in enumerate(zip(requests, engine.generate(requests), strict=True)):
        group = Group(request.prompt, (Rollout(0, 0, completion),), seed)
        [result] = acre.score(group, ask(acre.ask(group)))
        pairs = zip(result.detail["orders"], result.detail["second"], strict=True)
        same += [second == result.detail["first"] for order, second in pairs if order == sorted(order)]
        read.append(result.detail["second_read"])
    assert len(same) > 4 and all(same) and read == [1.0] * 8


def test_a_training_of_two_steps(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is untrained, so its turns are begun with a trace; it answers, and is asked again for real."""
    rendered = cli_train.TrainRun.samples

    def begun(self: cli_train.TrainRun, step: int) -> list[Sample]:
        return [dataclasses.replace(sample, prefill="<think>I see teal.</think><answer>") for sample in rendered(self, step)]

    monkeypatch.setattr(cli_train.TrainRun, "samples", begun)
    overrides = ["train.steps=2", "rewards.acre.use=acre", "rewards.acre.weight=0.5", "rewards.care.use=care", "rewards.care.weight=0.5"]
    run = cli_train.train(train_config(tmp_path, *overrides))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    for line in lines:
        assert (
            "reward/care/qualifies" in line
            and line["reward/acre/asked"] == 1.0
            and line["reward/acre/unscored"] == line["reward/acre/skipped"] == 0
        )
        assert sum(line[f"reward/acre/case{case}"] for case in (1, 2, 3, 4)) == pytest.approx(1.0)
        parts = sum(line[f"reward/{label}/contribution"] for label in ("accuracy", "format", "brief", "acre", "care"))
        assert line["reward/total"] == pytest.approx(parts)
