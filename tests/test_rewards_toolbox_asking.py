"""Small rewards of one file each that ask judges or models: checks and citations (CRAFT), pairwise (BRPO), steps, scalar, co_reward,
listeners (REMUL); and key_points (RLVRR), a rule."""

import time
from collections.abc import Callable, Sequence

import pytest
from helpers_rewards import CHOICE, configs, make_group, never
from hypothesis import given, settings
from hypothesis import strategies as st
from models_small import make, sample

from data.views import VIEWS, Draw, apply
from rewards import make_rewards
from rewards.agreement import canonical, majority
from rewards.co_reward import CoReward
from rewards.judging import MASTER_KEYS
from rewards.keypoints import KeyPoints, overlap, sequence
from rewards.listeners import Listeners, agreed, beginning
from rewards.mixture import Mixture
from rewards.pairwise import Pairwise, skew
from rewards.steps import Steps, clipped, deltas, split
from vlm_rl.asking import Asker
from vlm_rl.engine.scripted import ScriptedEngine
from vlm_rl.errors import RowError, UserError
from vlm_rl.types import Generate, Group, Query, Reply, Sample

OPEN = Sample("1", "Which animal?", "a dog", "text")


def turn(answer: str, trace: str = "It barks.") -> str:
    return f"<think>{trace}</think><answer>{answer}</answer>"


def asking(say: Callable[[Generate], str]) -> Callable[[Sequence[Query]], list[Reply]]:
    """Replies by what `say` makes of each query; "" is a judge that is down."""

    def ask(queries: Sequence[Query]) -> list[Reply]:
        texts = [say(query) for query in queries if isinstance(query, Generate)]
        return [Reply(text) if text else Reply(error="judge is down") for text in texts]

    return ask


def values(entry: dict, group: Group, say: Callable[[Generate], str], limit: float = 1.0) -> list[float | None]:
    [scored] = Mixture(configs(r=entry), limit).score([group], 0, asking(say))
    return [part.raw for part in scored.parts["r"]]


# CRAFT: checks and citations.

FOUR = ["plan leads to reasons", "reasons are cited", "answer follows", "evidence is there"]
CHECKS = {"use": "checks", "judge": "tidy", "checks": FOUR}
CRAFT = {
    "accuracy": {"gate": "requires_format"},
    "format": {},
    "citations": {"gate": "requires_format"},
    "checks": {"judge": "tidy", "checks": FOUR},
}


def cited(ids: str, answer: str = "a dog") -> str:
    return turn(answer, f"It barks. <useful_chunks>{ids}</useful_chunks>")


def third_fails(query: Generate) -> str:
    return "no" if FOUR[2] in query.sample.question else "Yes."


def test_craft_is_a_composition() -> None:
    """Form, answer, a citation too many, three of four checks: 1 + 1 + 0.5 + 0.75; without the form what rules decide is lost."""
    row = Sample("1", "Which animal?", "a dog", "text", meta={"evidence_ids": [3]})
    entries = {**CRAFT, "accuracy": {"gate": {"use": "requires_format", "on": "format"}}}
    group = make_group([cited("3, 4"), cited("3") + " and so on", cited("3, 4", "fish")], row)
    mixed = Mixture(configs(**entries), 0.0)
    [scored] = mixed.score([group], 0, asking(third_fails))
    assert scored.totals == pytest.approx((3.25, 0.75, 2.25))
    assert mixed.metrics([scored])["reward/checks/strict"] == 0.0
    [met] = Mixture(configs(**entries), 0.0).score([group], 0, asking(lambda query: "yes"))
    assert met.totals[0] == 3.5 and met.parts["checks"][0].detail["strict"]


def test_each_check_is_asked_apart() -> None:
    group = make_group([turn("a dog"), turn("a cat"), "no tags"], OPEN)
    asked: list[Generate] = []

    def say(query: Generate) -> str:
        asked.append(query)
        return "yes"

    assert values({**CHECKS, "shown": "answer"}, group, say) == [1.0, 1.0, 0.0]
    assert len(asked) == 8 and all(FOUR[k % 4] in query.sample.question for k, query in enumerate(asked))
    assert not any("barks" in query.sample.question or "a dog" in query.sample.question for query in asked[4:])
    assert values(CHECKS, group, lambda query: "" if FOUR[1] in query.sample.question else "yes") == [None, None, 0.0]
    assert values(CHECKS, group, lambda query: "it depends") == [None, None, 0.0]


def test_probabilities_of_yes() -> None:
    """P(yes) .8, P(no) .15 -> .8421"""
    import math

    group = make_group([turn("a dog")], OPEN)
    reward = make_rewards(configs(checks={"judge": "tidy", "checks": ["short"], "soft": True}))["checks"]
    rounds = reward.rounds(group)
    assert [query.sampling.alternatives for query in next(rounds)] == [20]
    with pytest.raises(StopIteration) as stop:
        rounds.send([Reply("Yes", alternatives={"Yes": math.log(0.5), " yes": math.log(0.3), "No": math.log(0.15)})])
    assert stop.value.value[0].value == pytest.approx(0.8421, abs=1e-4)


@pytest.mark.parametrize("key", MASTER_KEYS)
@pytest.mark.parametrize("entry", [CHECKS, {"use": "pairwise", "judge": "tidy"}, {"use": "scalar", "scorer": "tidy", "weight": 0}])
def test_master_keys_earn_nothing_and_nobody_is_asked(key: str, entry: dict) -> None:
    [scored] = Mixture(configs(r=entry), 1.0).score([make_group([turn(key), turn(key)], OPEN)], 0, never)
    assert all(not part.raw for part in scored.parts["r"])


@pytest.mark.parametrize("key", MASTER_KEYS)
@pytest.mark.parametrize(
    "entry", [{"use": "thinking", "judge": "tidy", "skip": None}, {"use": "steps", "judge": "tidy"}, {"use": "faithful", "judge": "tidy"}]
)
def test_master_keys_are_no_reasoning_and_nobody_is_asked(key: str, entry: dict) -> None:
    [scored] = Mixture(configs(r=entry), 1.0).score([make_group([turn("a dog", key), turn("a cat", key)], OPEN)], 0, never)
    assert all((part.raw or 0.0) <= 0 for part in scored.parts["r"])


@pytest.mark.parametrize(
    ("ids", "value"), [("3, 4", 1.0), ("4 3", 1.0), ("3", 0.5), ("3, 4, 5", 0.5), ("5", 0.0), ("", 0.0), ("3, 4, 3", 1.0)]
)
def test_citations(ids: str, value: float) -> None:
    row = Sample("1", "?", "a dog", "text", meta={"evidence_ids": [3, "4"]})
    assert values({"use": "citations"}, make_group([cited(ids), "none"], row), str) == [value, 0.0]
    assert values({"use": "citations"}, make_group([cited(ids)], OPEN), str) == [None]


# BRPO.


def prefers(*better: str, place: str | None = None) -> Callable[[Generate], str]:
    """A judge who prefers responses in the order given; or always the one in a place."""

    def say(query: Generate) -> str:
        if place is not None:
            return f"<choice>{place}</choice>"
        first, second = (query.sample.question.split(f"<{tag}>\n")[1].split("\n</")[0] for tag in ("first", "second"))
        return f"<choice>{'first' if better.index(first) < better.index(second) else 'second'}</choice>"

    return say


def drawn_third(texts: Sequence[str]) -> Group:
    """The group, with a seed under which its third rollout is the one that others are compared with."""
    group = make_group(texts, OPEN)
    seeded = (Group(group.prompt, group.rollouts, seed) for seed in range(99))
    return next(g for g in seeded if values({"use": "pairwise", "judge": "tidy"}, g, prefers("a", "b", "c", "d"))[2] == 0.0)


def test_better_or_worse_than_the_drawn_one() -> None:
    group = drawn_third([turn(x) for x in "abcd"])
    entry = {"use": "pairwise", "judge": "tidy"}
    assert values(entry, group, prefers("a", "b", "c", "d")) == [1.0, 1.0, 0.0, -1.0]
    assert values(entry, group, prefers("d", "c", "b", "a")) == [-1.0, -1.0, 0.0, 1.0]
    assert values(entry, group, prefers(place="first")) == values(entry, group, prefers(place="tie")) == [0.0] * 4
    assert values(entry, group, prefers("a", "b", "d", "c")) == [None] * 4  # 3 of 4 win
    assert values({**entry, "most_skew": 0.75}, group, prefers("a", "b", "d", "c")) == [1.0, 1.0, 0.0, 1.0]
    assert values(entry, group, lambda query: "") == [None, None, 0.0, None]
    assert values(entry, group, lambda query: "the first") == [None, None, 0.0, None]


def test_who_says_nothing_loses() -> None:
    group = drawn_third([turn(x) for x in "abcd"])
    empty = make_group([turn("a"), turn(":"), turn("c"), "d"], OPEN)
    assert values({"use": "pairwise", "judge": "tidy"}, Group(empty.prompt, empty.rollouts, group.seed), prefers("a", "c")) == [
        1,
        -1,
        0,
        -1,
    ]


@pytest.mark.parametrize(
    ("results", "skewed"), [([1, 1, 0, -1], 0.25), ([1] * 15 + [0], 0.9375), ([-1] * 15 + [0], 0.9375), ([None, 1], 0.5)]
)
def test_skew(results: list, skewed: float) -> None:
    assert skew(results) == skewed


@settings(deadline=None, max_examples=30)
@given(st.permutations("abcde"), st.integers(0, 99))
def test_a_judge_of_one_mind_orders_the_group(order: list[str], seed: int) -> None:
    group = make_group([turn(x) for x in "abcde"], OPEN)
    got = values({"use": "pairwise", "judge": "tidy", "most_skew": 1.0}, Group(group.prompt, group.rollouts, seed), prefers(*order))
    ranked = [got["abcde".index(x)] for x in order]
    assert ranked == sorted(ranked, reverse=True) and ranked.count(0.0) == 1


# Clip and Delta.


@pytest.mark.parametrize(
    ("scores", "clip", "delta", "both"),
    [
        ([0.9, 0.4, 0.6, 0.95], [0, -0.1, 0, 0], [0.5, -0.2, 0.6, 0], [0.1, -0.1, 0, 0]),
        ([0.9], [0], [0], [0]),
        ([0.3, 0.8], [-0.2, 0], [0.3, 0], [-0.2, 0]),
        ([], [], [], []),
    ],
)
def test_clip_and_delta(scores: list[float], clip: list[float], delta: list[float], both: list[float]) -> None:
    assert clipped(scores, 0.5) == pytest.approx(clip)
    assert deltas(scores) == pytest.approx(delta)
    assert deltas(clipped(scores, 0.5))[1:] == pytest.approx(both[1:]) and sum(deltas(clipped(scores, 0.5))) == pytest.approx(
        clipped(scores, 0.5)[0] if len(scores) > 1 else 0
    )


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9), st.floats(0.1, 1))
def test_more_steps_never_raise_the_return(scores: list[float], eta: float) -> None:
    found = deltas(scores)
    assert len(found) == len(scores)
    assert [sum(found[j:]) for j in range(len(scores) - 1)] == pytest.approx(scores[:-1])
    assert sum(clipped([*scores, 1.0], eta)) == sum(clipped(scores, eta)) <= 0


def test_steps_are_judged_one_by_one() -> None:
    scores = {"It barks.": 0.9, "So it is a cat.": 0.4, "No.": 0.6, "A dog it is": 0.95}
    asked: list[str] = []

    def say(query: Generate) -> str:
        step = query.sample.question.split("<step>\n")[1].split("\n</step>")[0]
        asked.append(query.sample.question.split("<before>\n")[1].split("\n</before>")[0] + "|" + step)
        return f"<score>{scores[step]}</score>"

    group = make_group([turn("a dog", "It barks. So it is a cat.\n No.\nA dog it is"), "no trace", turn("x", " ... ")], OPEN)
    assert values({"use": "steps", "judge": "tidy"}, group, say) == pytest.approx([-0.1, -0.5, -0.5])
    assert asked[2] == "It barks.\nSo it is a cat.|No." and len(asked) == 4
    assert values({"use": "steps", "judge": "tidy", "most_steps": 1, "eta": 1.0}, group, say) == pytest.approx([-0.1, -1.0, -1.0])
    assert values({"use": "steps", "judge": "tidy"}, group, lambda q: "8/10") == [None, -0.5, -0.5]
    assert split("3.5 red balls. Two\n\n...\nB") == ["3.5 red balls.", "Two", "B"]


# Raw scores of a reward model.


def test_raw_scores_and_what_bounds_them() -> None:
    group = make_group([turn("a"), turn("b"), "", turn("d")], OPEN)

    def say(query: Generate) -> str:
        return {"a": "2.5", "b": "-7", "d": "1e3"}[(query.sample.response or "").split("\n")[1]]

    assert values({"use": "scalar", "scorer": "rm", "weight": 0}, group, say) == [2.5, -7.0, -7.0, 1000.0]
    [scored] = Mixture(configs(scalar={"scorer": "rm", "transform": "par"}), 0.0).score([group], 0, asking(say))
    assert scored.totals == pytest.approx((0.9241, 0.0009, 0.0009, 1.0), abs=1e-4)
    assert values({"use": "scalar", "scorer": "rm", "weight": 0}, group, lambda q: "nan") == [None] * 4
    with pytest.raises(UserError, match=r"rewards\.scalar has no bounds"):
        Mixture(configs(scalar={"scorer": "rm"}), 0.0)
    with pytest.raises(UserError, match=r"judges\.rm\.kind is openai"):
        Mixture(configs(scalar={"scorer": "rm", "transform": "par"}), 0.0).check_targets({"rm": "openai"})


# Co-Reward.


@pytest.mark.parametrize(
    ("own", "other", "rewards"),
    [
        ("AABA", "BBAB", [0, 0, 1, 0]),
        ("BBAB", "AABA", [0, 0, 1, 0]),
        ("AABA", "A???", [1, 1, 0, 1]),
        ("AABA", "AABB", [None] * 4),
        ("AABA", "ABCD", [None] * 4),
        ("AABA", "????", [0] * 4),
        ("A?BA", "AACB", [1, 0, 0, 1]),
    ],
)
def test_the_vote_on_another_view_is_the_label(own: str, other: str, rewards: list) -> None:
    rows = Sample("7", "What colour is it?", "D", "choice", ("red", "teal", "blue", "grey"))
    said = iter(other)
    entry = {"use": "co_reward", "votes": 4, "least_share": 0.5}
    group = make_group(["no idea" if x == "?" else turn(x) for x in own], rows)
    assert values(entry, group, lambda query: "no idea" if (x := next(said)) == "?" else turn(x)) == rewards


def test_another_view_is_asked_about_and_options_are_compared_by_content() -> None:
    rephrased = Sample("7", "What colour?", "B", "choice", CHOICE.options, meta={"rephrased": "Which colour has it?"})
    asked: list[Generate] = []

    def say(query: Generate) -> str:
        asked.append(query)
        place = query.sample.options.index("teal")
        return turn("ABCD"[place])

    group = make_group([turn("B"), turn("A"), turn("teal")], rephrased)
    assert values({"use": "co_reward", "votes": 3}, group, say) == [1.0, 0.0, 1.0]
    assert {query.sample.question for query in asked} == {"Which colour has it?"} and len({query.seed for query in asked}) == 3
    permuted = {"use": "co_reward", "votes": 3, "view": "options_permuted"}
    assert values(permuted, make_group([turn("B"), turn("A")], CHOICE), say) == [1.0, 0.0]
    assert asked[-1].sample.options != CHOICE.options and asked[-1].sampling.temperature == 1.0
    assert values(permuted, make_group([turn("B")], OPEN), say) == [None]
    failed = values({"use": "co_reward", "votes": 3}, group, lambda query: "")
    assert failed == [None] * 3
    with pytest.raises(UserError, match="did you mean 'options_permuted'"):
        CoReward(view="options_permutd")


@given(st.lists(st.sampled_from(["A", "B", "C", None]), max_size=9), st.randoms(use_true_random=False))
def test_votes_ignore_order_and_those_who_do_not_vote(votes: list, rng) -> None:
    label = majority(votes)
    shuffled = [*votes, None]
    rng.shuffle(shuffled)
    assert majority(shuffled) == label and majority(votes, 1.0) in (label, None)
    assert label is None or all(votes.count(label) > votes.count(x) for x in {"A", "B", "C"} - {label})


@pytest.mark.parametrize(
    ("kind", "one", "other", "same"),
    [
        ("number", "3.50", "7/2", True),
        ("number", "3.5", "35", False),
        ("text", "The Dog.", "a dog", True),
        ("text", "a dog", "a cat", False),
        ("yesno", "Yes, it is", "true", True),
        ("choice", "B", "teal", True),
        ("choice", "(b)", "the answer is B", True),
        ("choice", "A", "B", False),
    ],
)
def test_equal_answers_are_equal(kind, one: str, other: str, same: bool) -> None:
    row = Sample("1", "?", "x", kind, CHOICE.options if kind == "choice" else ())
    assert (canonical(one, row) == canonical(other, row)) is same and canonical(one, row) is not None
    assert canonical(" ", row) is None and canonical("x" * 5000, row) is None


# REMUL.


@pytest.mark.parametrize(("matches", "count", "correct", "value"), [(5, 9, None, 5 / 9), (5, 9, True, 8 / 12), (9, 9, False, 9 / 12)])
def test_agreed(matches: int, count: int, correct: bool | None, value: float) -> None:
    assert agreed(matches, count, correct) == pytest.approx(value)


@pytest.mark.parametrize(
    ("trace", "cut", "begun"),
    [
        ("a\nb\nc\nd", 0.5, "a\nb\n"),
        ("a\nb\nc\nd", 0.25, "a\n"),
        ("a\nb\nc\nd", 0.9, "a\nb\nc\n"),
        ("Red. Two. So B.", 0.5, "Red. "),
        ("Red. Two. So B.", 0.75, "Red. Two. "),
        ("one", 0.75, "one"),
    ],
)
def test_beginnings(trace: str, cut: float, begun: str) -> None:
    assert beginning(trace, cut) == begun


@given(st.text(alphabet="ab .\n", min_size=1, max_size=40), st.floats(0.1, 0.9))
def test_a_beginning_is_one_and_a_longer_cut_is_no_shorter(trace: str, cut: float) -> None:
    assert trace.startswith(beginning(trace, cut)) and len(beginning(trace, cut)) <= len(beginning(trace, 0.95))


def test_listeners_go_on_from_the_beginning_of_the_reasoning() -> None:
    turns = [turn("B", "Red.\nTwo.\nTeal.\nSo."), turn("A", "Red.\nTwo.\nTeal.\nSo."), "B", turn("dunno", "Red.\nTwo.")]
    asked: list[Generate] = []

    def say(query: Generate) -> str:
        asked.append(query)
        return "so</think><answer>B</answer>" if "Teal." in query.prefill else "so</think><answer>C</answer>"

    group = make_group(turns, CHOICE)
    assert values({"use": "listeners"}, group, say) == [0.5, 0.0, 0.0, 0.0]
    assert [query.prefill for query in asked[:2]] == ["<think>Red.\nTwo.\n", "<think>Red.\nTwo.\nTeal.\n"] and len(asked) == 4
    assert {query.target for query in asked} == {"start"} and len({query.seed for query in asked}) == 4
    assert values({"use": "listeners", "form": "balanced"}, group, say) == pytest.approx([0.8, 0.0, 0.0, 0.0])
    assert values({"use": "listeners", "target": "policy"}, group, lambda query: "") == [None, None, 0.0, 0.0]
    assert Mixture(configs(accuracy={}, listeners={"form": "balanced"}), 0.0).ordering_warning() is None
    assert "listeners 1" in (Mixture(configs(accuracy={}, listeners={}), 0.0).ordering_warning() or "")


@pytest.mark.parametrize(
    "entry",
    [
        {"use": "listeners", "target": "policy", "blind": True},
        {"use": "co_reward", "votes": 2, "view": "question_paraphrased", "least_share": 0.0},
    ],
)
def test_what_is_asked_of_a_model_can_be_rendered(entry: dict) -> None:
    _, chat = make()
    engine = ScriptedEngine(chat, lambda prompt, seed: "</think><answer>B</answer>")
    group = make_group([turn("B"), turn("A")], sample("a"))
    [scored] = Mixture(configs(r=entry), 0.0).score([group], 0, Asker({"policy": engine}, chat))
    assert scored.totals == (1.0, 0.0) and engine.calls == 1


# RLVRR.

CAPTION = Sample(
    "1",
    "Describe it.",
    "A red ball lies left of two grey boxes.",
    "text",
    meta={
        "key_points": [[["red ball", "left", "grey boxes"]], [["two"], ["2", "couple"]]],
        "checks": [{"most_words": 9, "weight": 0.6}, {"contains": "shadow", "weight": 0.4}],
    },
)


def test_key_points_and_checks() -> None:
    texts = [
        "A Red ball; two grey boxes",
        "grey boxes, red ball, twofold",
        "",
        "red ball left of grey boxes, two of them, and a shadow falls",
    ]
    got = values({"use": "key_points"}, make_group([turn(text) for text in texts], CAPTION), str)
    assert got == pytest.approx([(2 / 3 + 1) / 2 + 0.6, (1 / 3 + 0) / 2 + 0.6, 0.0, 1.0 + 0.4])
    [plain] = values({"use": "key_points"}, make_group([turn("a then c")], Sample("1", "?", "a, b, c", "text", meta=POINTS)), str)
    assert plain == pytest.approx(0.6667 + 0.6, abs=1e-4)


POINTS = {"key_points": [[["a", "b", "c"]]], "checks": [{"lacks": "z", "weight": 0.6}, {"is_json": True, "weight": 0.4}]}


@given(st.lists(st.sampled_from("abcd"), max_size=8), st.lists(st.sampled_from("abcd"), max_size=8))
def test_overlap_of_sequences(said: list[str], wanted: list[str]) -> None:
    value = overlap(" ".join(said), " ".join(wanted), ["a", "b", "c", ""])
    assert 0 <= value <= 1 and value == overlap(" ".join(wanted), " ".join(said), ["a", "b", "c"])
    own = sequence(" ".join(wanted), ["a", "b", "c"])
    assert overlap(" ".join(own), " ".join(wanted), ["a", "b", "c"]) == bool(own) and overlap("a", "a", []) == 0.0


def test_json_and_hostile_answers() -> None:
    row = Sample("1", "?", "a, b, c", "text", meta=POINTS)
    texts = ['["a"]', "[" * 5000, "a " * 100_000, "1"]
    start = time.perf_counter()
    got = values({"use": "key_points"}, make_group([turn(text) for text in texts], row), str)
    assert got == pytest.approx([1 / 3 + 1, 0.6, 1 / 6000 + 0.6, 0.6], abs=1e-4) and time.perf_counter() - start < 2


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        ({"key_points": ["a"]}, "key_points is a list"),
        ({"key_points": [[]]}, "key_points is a list"),
        ({"key_points": [[["a"]]], "checks": [{"exec": "x", "weight": 1}]}, "unknown check 'exec'"),
        ({"key_points": [[["a"]]], "checks": [{"most_words": "9", "weight": 1}]}, "most_words is a number"),
        ({"key_points": [[["a"]]], "checks": [{"most_words": 9}]}, "checks is a list such as"),
        ({"key_points": [[["a"]]], "checks": [{"most_words": 9, "weight": 2}]}, "1 together at most"),
    ],
)
def test_rows_that_cannot_be_used_are_named(meta: dict, words: str) -> None:
    with pytest.raises(RowError, match="row 1: ") as caught:
        KeyPoints().score(make_group([turn("a")], Sample("1", "?", "a", "text", meta=meta)), ())
    assert words in str(caught.value)
    assert KeyPoints().score(make_group(["a"], OPEN), ())[0].detail["skipped"]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"use": "checks", "judge": "t", "checks": "short"}, "checks is a list of texts"),
        ({"use": "checks", "judge": "t", "checks": [" "]}, "checks is a list of texts"),
        ({"use": "checks", "judge": "t", "checks": ["a"], "shown": "all"}, "unknown part 'all'"),
        ({"use": "pairwise", "judge": "t", "shown": "all"}, "unknown part 'all'"),
        ({"use": "pairwise", "judge": "t", "most_skew": 0}, "most_skew"),
        ({"use": "steps", "judge": "t", "form": "clip_delta"}, "later steps would count for nothing; write form=clip"),
        ({"use": "steps", "judge": "t", "eta": 0}, "eta is above 0"),
        ({"use": "co_reward", "votes": 1}, "votes is 2 or more"),
        ({"use": "listeners", "target": "judge"}, "start"),
        ({"use": "listeners", "form": "mach"}, "did you mean 'match'"),
        ({"use": "listeners", "cuts": [1.0]}, "cuts are shares"),
    ],
)
def test_mistakes_are_named(entry: dict, words: str) -> None:
    with pytest.raises(UserError) as caught:
        make_rewards(configs(r=entry))
    assert words in str(caught.value) and "rewards.r" in str(caught.value)


def test_defaults_are_those_of_the_table() -> None:
    assert Pairwise("t").most_skew == 0.6 and Steps("t").eta == 0.5 and Listeners().cuts == (0.5, 0.75)
    assert CoReward().view in VIEWS and apply([CoReward().view], CHOICE, Draw(0)).question != CHOICE.question
