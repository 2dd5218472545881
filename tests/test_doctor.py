"""The doctor without a model: the machine, gold answers, boxes, judges, the order of checks, what is shown; and the whole command."""

import io
import json
from dataclasses import replace

import pytest
from http_faults import faulty, says, status
from rich.console import Console as Screen
from runs_small import train_config

from data import load_rows
from data.check import check_rows
from rewards import grading
from rewards.accuracy import Accuracy
from rewards.boxes_selftest import Finding as Fit
from rewards.thinking import Thinking
from vlm_rl import cli_doctor, doctor
from vlm_rl.cli_doctor_judges import asked_as, judge_checks
from vlm_rl.cli_judges import make_judges
from vlm_rl.console import Console
from vlm_rl.doctor import Check, Finding, Machine, failed, passed, spared
from vlm_rl.errors import UserError

MACHINE = Machine({"torch": "2.13"}, (), "cpu", "float32", True, 10**9, 10**8, 10**9, 10**8)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"outdated": ["transformers 5.1, but >=5.16 is needed"]}, "transformers 5.1"),
        ({"dtype_runs": False, "dtype": "bfloat16"}, "cpu does not compute in bfloat16"),
        ({"memory_free": 10**7}, "take more memory than is free"),
        ({"disk_free": 10**7}, "do not fit on the disk"),
    ],
)
def test_a_machine_that_will_not_do(change, said):
    assert doctor.environment(MACHINE).status == "pass"
    found = doctor.environment(replace(MACHINE, **change))
    assert (found.status, said in found.cause, bool(found.fix)) == ("fail", True, True)


def test_a_wrong_gold_answer_is_named(tmp_path):
    config = train_config(tmp_path)
    rows = tmp_path / "rows" / "rows.jsonl"
    good = check_rows(load_rows(config.data), grading.gold_problem)
    assert doctor.gold_answers(24, good).status == "pass"
    lines = rows.read_text().splitlines()
    rows.write_text("\n".join([json.dumps(json.loads(lines[0]) | {"answer": "mauve"}), *lines[1:]]))
    found = doctor.gold_answers(24, check_rows(load_rows(config.data), grading.gold_problem))
    assert (found.status, found.numbers["bad"]) == ("fail", 1) and "r0" in found.cause and "mauve" in found.cause


@pytest.mark.parametrize(
    ("convention", "overlap", "wanted", "said"),
    [
        ("rel_1000", {"rel_1000": 0.9, "abs_resized": 0.1}, "pass", ""),
        ("abs_resized", {"rel_1000": 0.9, "abs_resized": 0.1}, "fail", "fit the convention rel_1000, not abs_resized"),
        ("abs_resized", {"rel_1000": 0.1, "abs_resized": 0.2}, "fail", "cannot be told"),
    ],
)
def test_the_convention_of_boxes(convention, overlap, wanted, said):
    fit = Fit(overlap, 4, 4)
    found = doctor.box_convention({"sccm": convention}, fit.overlap, "squares", fit.problem)
    assert found.status == wanted and said in found.cause
    assert doctor.box_convention({}, {}, "", fit.problem).status == "not applicable"


def models(handler, body):
    handler.send_json(200, {"data": [{"id": "m"}]})


def by_trace(handler, body):
    """A judge that scores a reasoning by whether it says anything."""
    shown = body["messages"][-1]["content"]
    text = shown if isinstance(shown, str) else shown[-1]["text"]
    says("<score>0.8</score>" if "The answer is" in text.split("<trace>")[-1] else "<score>0.1</score>")(handler, body)


def judged(tmp_path, url) -> Finding:
    judge = [f"judges.exact.{setting}" for setting in (f"url={url}", "model=m", "retries=0")]
    reward = ["rewards.thinking.use=thinking", "rewards.thinking.judge=exact", "rewards.thinking.weight=0.1"]
    config = train_config(tmp_path, *judge, *reward)
    [check] = judge_checks(config.judges, make_judges(config, {}), [Accuracy(), Thinking("exact")], lambda: load_rows(config.data))
    return doctor.examine([check], lambda name: None, lambda name, finding: None)["judge exact"]


@pytest.mark.parametrize(
    ("behaviour", "wanted", "said"),
    [
        (by_trace, "pass", ""),
        (says("<score>1.0</score>"), "fail", "accepts answers without content"),
        (says("I would say 8/10"), "fail", "not of the form"),
        (status(500), "fail", "500"),
    ],
)
def test_a_judge(tmp_path, behaviour, wanted, said):
    with faulty(behaviour, models=models) as server:
        found = judged(tmp_path, server.url)
    assert found.status == wanted and said in found.cause, found


def test_a_judge_that_is_not_there(tmp_path):
    with faulty(by_trace, models=models) as server:
        url = server.url
    found = judged(tmp_path, url)
    assert found.status == "fail" and "judges.exact.url" in found.cause


def test_a_judge_is_asked_as_its_reward_asks():
    thinking = Thinking({"name": "exact", "item": True, "media": False, "max_new_tokens": 9}, prompt="trained")
    ask = asked_as("exact", [Accuracy(), thinking])
    assert (ask.prompt, ask.item, ask.media, ask.max_new_tokens) == ("trained", True, False, 9)
    assert asked_as("other", [thinking]).prompt == "thinking"
    [none] = judge_checks({}, {}, [], lambda: [])
    assert none.run().status == "not applicable"


def test_checks_are_tried_in_order_and_one_that_breaks_hides_no_other():
    def refuse() -> Finding:
        raise UserError("no such model; write another")

    checks = [
        Check("a", lambda: passed("1 of 1", share=1.0)),
        Check("b", refuse),
        Check("c", lambda: passed("never"), needs=("a", "b")),
        Check("d", lambda: passed("never"), needs=("c",)),
        Check("e", lambda: [][0]),
        Check("f", lambda: spared("[bold]nothing[/bold] to do")),
        Check("g", lambda: failed("2 > 1", "a cause", "a cure"), needs=("f",)),
    ]
    begun, told = [], []
    findings = doctor.examine(checks, begun.append, lambda name, finding: told.append((name, finding.status)))
    assert begun == list("abcdefg")
    assert [state for _, state in told] == ["pass", "fail", "not applicable", "not applicable", "fail", "not applicable", "fail"]
    assert "no such model" in findings["b"].cause and "needs 'b'" in findings["c"].measured and "IndexError" in findings["e"].cause
    assert doctor.sick(findings) and not doctor.sick({"a": findings["a"]})
    assert doctor.tree(findings)["checks"]["a"]["numbers"]["share"] == 1.0
    screen = Screen(width=160, record=True, file=io.StringIO())
    screen.print(doctor.table(findings))
    shown = screen.export_text()
    assert "[bold]nothing[/bold] to do" in shown and "fix: a cure" in shown


def test_the_whole_command(tmp_path):
    config, shown = train_config(tmp_path), []
    assert cli_doctor.doctor(config, {}, shown.append, tmp_path / "found.json") == 0
    found = json.loads((tmp_path / "found.json").read_text())
    states = {name: finding["status"] for name, finding in found["checks"].items()}
    skipped = {name for name, state in states.items() if state == "not applicable"}
    assert found["healthy"] and skipped == {"judges", "box convention", "weight sync", "stale caches"}, found
    assert set(states.values()) == {"pass", "not applicable"} and len(shown) == 1
    assert not (tmp_path / "run").exists() and not list(tmp_path.glob(".vlm-rl-doctor-*"))


def test_a_model_that_is_not_there_fails_what_needs_it_and_nothing_else(tmp_path):
    config = train_config(tmp_path, "model.path=./nowhere")
    with Console(0, quiet=True) as console:
        findings = cli_doctor.examine(config, {}, console)
    assert findings["tokens"].status == "fail" and "model.path=./nowhere" in findings["tokens"].cause
    assert findings["environment"].status == "pass" and findings["resume"].measured.startswith("not tried")
