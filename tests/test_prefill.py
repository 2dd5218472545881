"""What a model is given of its own turn: rendered once, stored apart, and read together with what it wrote."""

import copy
import dataclasses
import json

import pytest
from models_small import make_chat, picture

from eval.graded import graded_records
from eval.runner import Plan, evaluate, load_records, save_records, unchanged
from vlm_rl.types import Reply, Sample

ROW = Sample("r", "what color is it?", "B", "choice", ("red", "teal"))


@pytest.mark.parametrize(
    ("prefill", "written", "answer", "correct", "wellformed"),
    [
        ("", "<think>seen</think><answer>B</answer>", "B", True, True),
        ("<think>It is red.</think><answer>", "B</answer>", "B", True, True),
        ("<think>It is red.</think><answer>", "A</answer>", "A", False, True),
        ("<think>It is red.", " No, teal.</think><answer>B</answer>", "B", True, True),
        ("<think>The answer is B.", " I think so", None, False, False),
        ("<think>ok</think>", "\n<answer>B</answer>", "B", True, True),
        ("<think>ok</think>", "<think>again</think><answer>B</answer>", "B", True, False),
        ("<think>ok</think><answer>", "", None, False, False),
    ],
)
def test_answers_are_read_from_prefill_and_completion_together(prefill, written, answer, correct, wellformed, tmp_path):
    row = dataclasses.replace(ROW, prefill=prefill)
    (record,) = evaluate([row], {"clean": unchanged}, Plan(0, 8), lambda queries: [Reply(written) for _ in queries])
    assert (record.answer, record.correct, record.wellformed) == (answer, correct, wellformed)
    assert (record.prefill, record.completion) == (prefill, written)
    save_records(tmp_path / "r.jsonl", [record])
    assert load_records(tmp_path / "r.jsonl") == [record]
    assert graded_records([row], [record])[0].score == float(correct)


def test_records_of_before_there_were_prefills_are_read(tmp_path):
    (record,) = evaluate([ROW], {"clean": unchanged}, Plan(0, 8), lambda queries: [Reply("B") for _ in queries])
    tree = dataclasses.asdict(record)
    del tree["prefill"]
    (tmp_path / "old.jsonl").write_text(json.dumps(tree) + "\n")
    assert load_records(tmp_path / "old.jsonl") == [record]


def test_a_prompt_ends_with_the_samples_prefill_and_then_the_questions():
    chat = make_chat()
    row = dataclasses.replace(ROW, media=(picture(1),))
    plain = chat.prompt(row)
    both = chat.prompt(dataclasses.replace(row, prefill="<think>red"), prefill=" teal")
    assert both.text == plain.text + "<think>red teal" and both.prefill == "<think>red teal"
    assert both.expanded_ids == plain.expanded_ids + chat.ids_of("<think>red teal")
    assert chat.prompt(row, prefill="<think>red teal").ids == both.ids


def test_a_template_that_opens_the_thought_itself_gets_no_second_tag():
    chat = make_chat()
    chat.processor = copy.copy(chat.processor)  # the other is shared by all tests
    chat.processor.chat_template += "{% if add_generation_prompt %}{{ '<think>' }}{% endif %}"
    for row, prefill in ((dataclasses.replace(ROW, prefill="<think>red"), " or"), (ROW, "<think>red or")):
        prompt = chat.prompt(row, prefill)
        assert prompt.text.count("<think>") == 1 and prompt.text.endswith("<think>red or") and prompt.prefill == "red or"
