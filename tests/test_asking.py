"""Questions meet engines: one call per target and kind, shared prompts, errors as replies, bounded pixels."""

import pytest
from models_small import make, sample

from vlm_rl import asking
from vlm_rl.asking import Asker
from vlm_rl.engine.hf import HFEngine
from vlm_rl.engine.scripted import ScriptedEngine
from vlm_rl.errors import UserError
from vlm_rl.types import Generate, Sample, Sampling, Score

LIMITS = Sampling(8)


def parts():
    policy, chat = make()
    return ScriptedEngine(chat, lambda prompt, seed: f"{prompt.sample.id}{prompt.prefill}{seed}"), HFEngine(policy, chat), chat


def test_replies_come_in_order_with_one_call_per_target_and_kind():
    engine, _, chat = parts()
    ask = Asker({"policy": engine, "start": engine}, chat)
    a, b = sample("a"), sample("b", 0)
    queries = [
        Generate("policy", a, LIMITS, seed=1),
        Generate("start", b, LIMITS, seed=2),
        Score("policy", a, "teal"),
        Generate("policy", a, LIMITS, seed=3),
        Generate("policy", b, LIMITS, "<th", 4),
        Score("policy", b, ""),
    ]
    replies = ask(queries)
    assert [r.text for r in replies] == ["a1", "b2", "teal", "a3", "b<th4", ""]
    assert ask.calls == {"policy": 2, "start": 1} and engine.calls == 3
    assert chat.look.calls == 1


def test_a_question_that_cannot_be_rendered_has_an_error_and_disturbs_no_other():
    engine, _, chat = parts()
    bad = Sample(id="bad", question="<image>", answer="x")
    replies = Asker({"policy": engine}, chat)([Generate("policy", s, LIMITS) for s in (sample("a"), bad, sample("c"))])
    assert [r.error is None for r in replies] == [True, False, True]
    assert "marks" in (replies[1].error or "") and replies[2].text == "c0"


def test_many_pixels_are_asked_in_portions_with_the_same_answers(monkeypatch):
    _, engine, chat = parts()
    queries = [Generate("policy", s, LIMITS, seed=i) for s in (sample("a"), sample("b"), sample("c", 2)) for i in range(2)]
    whole = Asker({"policy": engine}, chat)(queries)
    monkeypatch.setattr(asking, "PIXEL_BYTES", 1)
    portions = Asker({"policy": engine}, chat)
    assert [r.text for r in portions(queries)] == [r.text for r in whole]
    assert portions.calls["policy"] == 3


def test_empty_continuations_do_not_shift_others():
    _, engine, chat = parts()
    ask = Asker({"policy": engine}, chat)
    alone = ask([Score("policy", sample("a"), "blue")])[0].logprobs
    replies = ask([Score("policy", sample("b"), ""), Score("policy", sample("a"), "blue"), Score("policy", sample("a"), "")])
    assert replies[1].logprobs == pytest.approx(alone, abs=1e-5) and replies[0].logprobs == replies[2].logprobs == ()


def test_unknown_targets_are_named():
    engine, _, chat = parts()
    with pytest.raises(UserError, match="did you mean 'policy'"):
        Asker({"policy": engine}, chat)([Generate("polcy", sample("a"), LIMITS)])


def test_the_lead_of_a_continuation_is_read_with_it_and_not_told():
    policy, chat = make()
    ask = Asker({"policy": HFEngine(policy, chat)}, chat)
    whole, told, lead = ask(
        [Score("policy", sample("a"), *rest) for rest in ((">blue", "<answer"), ("blue", "<answer", ">"), ("", "", "x"))]
    )
    count = len(chat.ids_of("blue"))
    assert chat.ids_of(">blue")[-count:] == chat.ids_of("blue")
    assert told.logprobs == pytest.approx(whole.logprobs[-count:], abs=1e-5) and told.text == "blue" and lead.logprobs == ()


@pytest.mark.parametrize(
    ("left", "right", "count"), [((1,), (1, 2), 1), ((1,), (3,), 0), ((), (1,), 0), ((1, 2), (1,), 1), ((1, 2), (1, 3), 1)]
)
def test_shared_ids(left, right, count):
    assert asking._shared(left, right) == count
