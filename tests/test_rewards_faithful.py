"""The faithfulness reward, what a trace concludes by rule, and the signs of collapsing traces."""

from collections.abc import Sequence

import pytest
from helpers_rewards import CHOICE, configs, make_group, never
from hypothesis import given, settings
from hypothesis import strategies as st
from models_small import picture

from rewards.conclusion import agrees, conclusion
from rewards.faithful import FORMS
from rewards.mixture import Mixture
from rewards.monitors import compression, distinct_grams, monitors
from vlm_rl.errors import UserError
from vlm_rl.types import Generate, Group, Query, Reply, Sample, ScoredGroup

RIGHT, WRONG = "<think>So it is teal.</think><answer>B</answer>", "<think>So it is red.</think><answer>A</answer>"
SPLIT = "<think>So it is red.</think><answer>B</answer>"  # right, and not what the trace concludes


@pytest.mark.parametrize(
    ("form", "f", "c", "k", "value"),
    [
        ("multiply_all", 1, 1, 1, 1.1),
        ("multiply_all", 1, 1, 0, 0.0),
        ("multiply_all", 1, 0, 1, 0.1),
        ("multiply_all", 1, 0, 0, 0.0),
        ("multiply_accuracy", 1, 1, 1, 1.1),
        ("multiply_accuracy", 1, 1, 0, 0.1),
        ("multiply_accuracy", 1, 0, 1, 0.1),
        ("multiply_accuracy", 1, 0, 0, 0.1),
        ("additive", 1, 1, 1, 1.6),
        ("additive", 1, 1, 0, 1.1),
        ("additive", 1, 0, 1, 0.6),
        ("additive", 0, 1, 0, 1.0),
    ],
)
def test_forms(form: str, f: float, c: float, k: float, value: float) -> None:
    assert FORMS[form]((f, c, k), 0.1, 0.5) == pytest.approx(value)


def faithful(limit: float = 1.0, **entry: object) -> Mixture:
    return Mixture(configs(faithful=entry), limit)


def raws(mixed: Mixture, group: Group, *replies: Reply | str) -> list[float | None]:
    asked = [reply if isinstance(reply, Reply) else Reply(reply) for reply in replies]
    [scored] = mixed.score([group], 0, lambda queries: asked)
    return [part.raw for part in scored.parts["faithful"]]


def test_by_rule_nobody_is_asked() -> None:
    group = make_group([RIGHT, WRONG, SPLIT, RIGHT + " more"])
    for form, values in (
        ("multiply_all", [1.1, 0.1, 0.0, 1.0]),
        ("multiply_accuracy", [1.1, 0.1, 0.1, 1.0]),
        ("additive", [2.1, 1.1, 1.1, 2]),
    ):
        [scored] = faithful(form=form).score([group], 0, never)
        assert scored.totals == pytest.approx(values)


def test_a_judge_says_whether_they_agree() -> None:
    group = make_group([RIGHT, WRONG, SPLIT])
    assert raws(faithful(judge="other"), group, "no", "Yes.", "**yes**") == pytest.approx([0.0, 0.1, 1.1])


def test_the_judge_is_asked_once_for_all_about_right_and_wrong_alike() -> None:
    calls: list[list[Query]] = []

    def ask(queries: Sequence[Query]) -> list[Reply]:
        calls.append(list(queries))
        return [Reply("yes") for _ in queries]

    faithful(judge={"name": "other", "item": True}).score([make_group([RIGHT, WRONG]), make_group([SPLIT])], 0, ask)
    assert [len(call) for call in calls] == [3]
    query = calls[0][2]
    assert isinstance(query, Generate) and query.target == "other" and query.sampling.temperature == 0 and not query.sample.media
    assert query.sample.question.startswith("Item: 7\n")
    for part in ("So it is red.", "<answer>\nB\n</answer>", "What colour?\nA. red\nB. teal", "yes or no"):
        assert part in query.sample.question


def test_probabilities_of_yes() -> None:
    likely = Reply("no", alternatives={"yes": -0.2231436, "no": -1.609438})  # .8 and .2
    group = make_group([RIGHT])
    assert raws(faithful(judge="other", soft=True), group, likely) == pytest.approx([0.88], abs=1e-5)
    assert raws(faithful(judge="other"), group, likely) == pytest.approx([1.1])
    assert raws(faithful(judge="other", soft=True), group, "no") == [0.0]


@pytest.mark.parametrize("text", ["B", "<answer>B</answer>", "<think>Solution</think><answer>B</answer>", "<think>It is teal.</think>"])
def test_without_a_trace_or_an_answer_nothing_agrees_and_nobody_is_asked(text: str) -> None:
    [scored] = faithful(judge="other").score([make_group([text])], 0, never)
    assert scored.totals == (0.0,) and scored.parts["faithful"][0].detail["no_trace"] is True


@pytest.mark.parametrize("form", FORMS)
def test_a_failing_judge_leaves_accuracy_alone_to_the_whole_group(form: str) -> None:
    group = make_group([RIGHT, WRONG, SPLIT, "<answer>B</answer>"])
    mixed = faithful(judge="other", form=form)
    [scored] = mixed.score([group], 0, lambda queries: [Reply("no"), Reply(error="down"), Reply("yes, or no")])
    assert scored.totals == pytest.approx([1.1, 0.1, 1.1, 1.0])
    metrics = mixed.metrics([scored])
    assert metrics["reward/faithful/unscored"] == 2 and metrics["reward/faithful/dropped"] == 1
    with pytest.raises(UserError, match=r"'faithful' left 2 of 4.*down"):
        faithful(0.4, judge="other", form=form).score([group], 0, lambda queries: [Reply("no"), Reply(error="down"), Reply("maybe")])


def test_metrics_tell_right_from_wrong() -> None:
    mixed = faithful()
    metrics = mixed.metrics(mixed.score([make_group([RIGHT, RIGHT, WRONG, SPLIT])], 0, never))
    told = {name: metrics[f"reward/faithful/{name}"] for name in ("accuracy", "format", "judged", "consistent_right", "consistent_wrong")}
    assert told == pytest.approx({"accuracy": 0.75, "format": 1, "judged": 0.75, "consistent_right": 2 / 3, "consistent_wrong": 1})


@settings(deadline=None)
@given(st.lists(st.sampled_from([RIGHT, WRONG, SPLIT, "<answer>B</answer>", ""]), min_size=1, max_size=6), st.sampled_from(sorted(FORMS)))
def test_consistency_is_never_punished(texts: list[str], form: str) -> None:
    """For the same form and accuracy, agreeing earns at least as much."""
    yes, no = (raws(faithful(judge="other", form=form), make_group(texts), *([word] * _asked(texts))) for word in ("yes", "no"))
    assert all((a or 0) >= (b or 0) for a, b in zip(yes, no, strict=True))


def _asked(texts: Sequence[str]) -> int:
    return sum(text in (RIGHT, WRONG, SPLIT) for text in texts)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"faithful": {"form": "multiply"}}, "did you mean 'multiply_all'"),
        ({"faithful": {"soft": True}}, "soft takes P(yes) from a judge"),
        ({"faithful": {}, "accuracy": {}}, "write rewards.accuracy.weight=0"),
        ({"faithful": {}, "format": {"weight": 0.1}}, "write rewards.format.weight=0"),
    ],
)
def test_mistakes_are_named_before_anything_runs(entries: dict, words: str) -> None:
    with pytest.raises(UserError) as caught:
        Mixture(configs(**entries), 0.0)
    assert words in str(caught.value)
    Mixture(configs(faithful={"format_weight": 0.0}, format={}, accuracy={"weight": 0}), 0.0)


def test_consistent_answers_keep_their_order() -> None:
    assert Mixture(configs(faithful={}, accuracy={"weight": 0}, format={"weight": 0}), 0.0).ordering_warning() is None


# What a trace concludes.

CAT = Sample("7", "?", "B", "choice", options=("cat", "dog", "black cat", "12"))
NUMBER, YES, TEXT = (Sample("7", "?", gold, kind) for gold, kind in (("3", "number"), ("yes", "yesno"), ("a red circle", "text")))


@pytest.mark.parametrize(
    ("trace", "sample", "stated"),
    [
        ("I see a dog. The answer is dog.", CAT, "B"),
        ("I see a cat. So it is option B.", CAT, "B"),
        ("It could be a cat.\nTherefore the dog is the one", CAT, "B"),
        ("The black cat sits there.", CAT, "C"),
        ("It is a cat or a dog.", CAT, None),
        ("It is a cat, and a dog.", CAT, "A,B"),
        ("It is not a dog.", CAT, None),
        ("The answer follows below.", CAT, None),
        ("It is a dog. Let me answer.", CAT, None),
        ("There are twelve.", CAT, None),
        ("", CAT, None),
        ("I count two and one. That makes 3.", NUMBER, "That makes 3."),
        ("Between 2 and 3.", NUMBER, None),
        ("The circle is red. The answer is yes.", YES, "yes"),
        ("The answer is no", YES, "no"),
        ("Yes or no.", YES, None),
        ("I see it. The answer is a red circle.", TEXT, "a red circle"),
        ("A red circle is there.", TEXT, None),
    ],
)
def test_conclusions(trace: str, sample: Sample, stated: str | None) -> None:
    assert conclusion(trace, sample) == stated


@pytest.mark.parametrize(
    ("trace", "answer", "sample", "agree"),
    [
        ("So it is a dog.", "B", CAT, True),
        ("So it is a dog.", "dog", CAT, True),
        ("So it is a dog.", "A", CAT, False),
        ("So it is a dog.", None, CAT, False),
        ("Who knows.", "B", CAT, False),
        ("That makes 3.", "three", NUMBER, True),
        ("That makes 3.", "4", NUMBER, False),
        ("The answer is no.", "No.", YES, True),
        ("The answer is no.", "yes", YES, False),
        ("The answer is a red circle.", "Red circle", TEXT, True),
        ("The answer is a red circle.", "a large red circle", TEXT, False),
    ],
)
def test_agreement_is_about_what_is_said_and_not_about_what_is_right(trace: str, answer: str | None, sample: Sample, agree: bool) -> None:
    assert agrees(trace, answer, sample) is agree


@settings(deadline=None)
@given(st.text(max_size=300), st.sampled_from([CAT, NUMBER, YES, TEXT]))
def test_any_text_has_one_conclusion_or_none(trace: str, sample: Sample) -> None:
    stated = conclusion(trace, sample)
    assert stated is None or (set(stated.split(",")) <= set("ABCD") if sample.options else bool(stated))


# Signs of collapse.


def scored(*groups: Group) -> list[ScoredGroup]:
    return [ScoredGroup(group, (0.0,) * len(group.rollouts), {}) for group in groups]


def test_monitors() -> None:
    long = " ".join(f"word{i}" for i in range(30))
    group = make_group([f"<think>{long}</think><answer>A</answer>", "<think>Short one.</think>", "<think>Short one.</think>", "nothing"])
    got = monitors(scored(group))
    assert got == pytest.approx(
        {
            "monitor/trace_tokens": 3.0,
            "monitor/short_traces": 0.75,
            "monitor/distinct_4grams": 1.0,
            "monitor/common_prefix": 0.5,
            "monitor/compression": got["monitor/compression"],
            "monitor/duplicate_traces": 0.5,
        }
    )
    assert monitors([]) == {}


def test_templates_and_repetition_show() -> None:
    varied = [f"<think>{' '.join(chr(97 + (i * k) % 26) * 3 for i in range(1, 25))}</think>" for k in (1, 3, 5, 7)]
    templated = ["<think>Let me look at the picture and think about it step by step. The answer is below.</think>"] * 4
    looping = ["<think>" + "and then " * 50 + "</think>"] * 4
    healthy, dull, loop = (monitors(scored(make_group(texts))) for texts in (varied, templated, looping))
    assert dull["monitor/common_prefix"] == dull["monitor/duplicate_traces"] == 1 and healthy["monitor/common_prefix"] == 0.25
    assert loop["monitor/distinct_4grams"] < 0.02 < 0.9 < healthy["monitor/distinct_4grams"]
    assert loop["monitor/compression"] < 0.1 < healthy["monitor/compression"]


def test_what_the_prompt_began_is_not_the_policys() -> None:
    begun = make_group(["and so on.</think><answer>B</answer>"], prefill="<think>A long wrong trace that the row begins with,")
    assert monitors(scored(begun))["monitor/trace_tokens"] == 4.0
    assert monitors(scored(make_group(["<answer>B</answer>"], prefill="<think>Done.</think>"))) == {}


def test_scripts_without_spaces_have_tokens() -> None:
    assert monitors(scored(make_group(["<think>红色的圆。</think>"])))["monitor/trace_tokens"] == 5.0


def test_grams_and_compression() -> None:
    assert distinct_grams([("a", "b", "a", "b", "a", "b")], 2) == 2 / 5
    assert distinct_grams([("a",)], 2) == compression([]) == compression(["", ""]) == 1.0


# The probe of what the trace alone tells.


def test_the_policy_answers_its_own_trace_without_pictures() -> None:
    asked: list[Query] = []

    def ask(queries: Sequence[Query]) -> list[Reply]:
        asked.extend(queries)
        return [Reply("B</answer>"), Reply("A</answer>"), Reply(error="too long")]

    seen = Sample("7", "What colour?", "B", "choice", CHOICE.options, (picture(1),), prefill="<think>")
    turns = ["It is teal.</think><answer>B</answer>", "Hm.</think> so <answer>B</answer>", "It is.</think>", "<answer>B</answer>"]
    mixed = Mixture(configs(trace_only={"weight": 0}), 1.0)
    [scored] = mixed.score([make_group(turns, seen, "<think>")], 0, ask)
    assert [part.raw for part in scored.parts["trace_only"]] == [1.0, 0.0, None, 0.0]
    assert [part.detail.get("same") for part in scored.parts["trace_only"]] == [True, False, None, None]
    first, second, _ = asked
    assert isinstance(first, Generate) and isinstance(second, Generate)
    assert (first.target, first.prefill) == ("policy", "<think>It is teal.</think><answer>")
    assert "so" not in second.prefill and first.sampling.stop == ("</answer>",)
    assert first.sample.prefill == "" and first.sample.media[0].id != seen.media[0].id and first.sample.question == seen.question
    with pytest.raises(UserError, match=r"rewards\.trace_only\.weight=0"):
        Mixture(configs(trace_only={}), 1.0)
