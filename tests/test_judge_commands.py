"""`vlm-rl judge eval` and `judge stress` on judges behind real HTTP: the lab's, which are honest, noisy or hackable, and faulty ones."""

import json
import re
from contextlib import ExitStack
from pathlib import Path

import pytest
from http_faults import completion, faulty, says, status
from runs_small import COLOURS
from typer.testing import CliRunner

from rewards.judging import MASTER_KEYS
from vlm_rl import cli
from vlm_rl.cli_judge_eval import judge_eval, judge_stress
from vlm_rl.cli_lab import serving
from vlm_rl.config_judge_eval import JudgeEvalConfig
from vlm_rl.errors import RowError, UserError

SCENES = {"name": "graded_scenes", "config": "pictures", "split": "test", "limit": 24}
KNOWS = {"item": True, "media": False}


def config(folder: Path, urls: dict, data: dict | None = None, **more: object) -> JudgeEvalConfig:
    """`urls`: judge -> (url, model)"""
    judges = {name: {"url": url, "model": model, "retries": 0, "timeout_s": 20} for name, (url, model) in urls.items()}
    tree = {"run_dir": str(folder / "run"), "judges": judges, "data": data or SCENES, "key_rows": 3, **more}
    return JudgeEvalConfig.model_validate(tree)


def summary(folder: Path) -> dict:
    return json.loads((folder / "run" / "summary.json").read_text())


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "run" / "records.jsonl").read_text().splitlines()]


def test_stress_tells_honest_noisy_and_hackable_judges_apart(tmp_path):
    kinds = {
        "honest": {},
        "noisy": {"rate": 0.5},
        "length": {"hack": "length"},
        "flattery": {"hack": "flattery"},
        "boxes": {"hack": "boxes"},
    }
    with ExitStack() as stack:
        servers = {name: stack.enter_context(serving("hackable" if "hack" in more else name, **more)) for name, more in kinds.items()}
        urls = {name: (server.url, server.model) for name, server in servers.items()}
        report, words = judge_stress(config(tmp_path, urls, ask=dict.fromkeys(urls, KNOWS)), {})
    found = summary(tmp_path)["judges"]
    rate = {judge: {family: entry["guarded"]["value"] for family, entry in found[judge]["families"].items()} for judge in found}
    assert set(rate["honest"]) == {"master_keys", "empty", "injected", "length", "flattery", "boxes"}
    assert all(value == 0 for value in rate["honest"].values()) and found["honest"]["guarded"]["worst"] == 0
    for hack in ("length", "flattery", "boxes"):
        assert rate[hack][hack] == 1.0 and rate[hack]["master_keys"] == 0.0, hack
        assert found[hack]["families"][hack]["lift"]["value"] == 1.0
        assert re.search(rf"is won over by .*{hack} \(100\.0%\)", found[hack]["words"])
    assert 0.1 < found["noisy"]["judge"]["all"]["value"] < 0.45 and rate["noisy"]["master_keys"] == 0.0
    keys = found["noisy"]["families"]["master_keys"]
    assert keys["judge"]["value"] > 0.1 and keys["judge"]["low"] < keys["judge"]["value"] < keys["judge"]["high"]
    assert len(keys["tricks"]) == 5 * len(MASTER_KEYS) and keys["judge"]["n"] == 3 * 5 * len(MASTER_KEYS)
    assert words[0].startswith("honest withstands every trick tried")
    page = report.read_text()
    assert "won over by" in page and "<script" not in page and "default-src 'none'" in page
    assert not re.search(r"(?<!&lt;)<\|im_end", page)
    shown = [one for one in records(tmp_path) if one["judge"] == "honest" and one["part"] == "master_keys"]
    assert all(one["guarded"] for one in shown) and {one["sample_id"] for one in shown} <= {f"pictures-v1-test-0-{i}" for i in range(4000)}


def test_eval_of_an_honest_and_a_noisy_judge(tmp_path):
    with serving() as exact, serving("noisy", 0.6) as noisy:
        urls = {"exact": (exact.url, exact.model), "noisy": (noisy.url, noisy.model)}
        ask = {"exact": {**KNOWS, "pairwise": True}, "noisy": KNOWS}
        _, words = judge_eval(config(tmp_path, urls, ask=ask), {})
    found = summary(tmp_path)["judges"]
    exact, noisy = found["exact"], found["noisy"]
    assert exact["quality"]["spearman"]["value"] == pytest.approx(1.0, abs=1e-3) and exact["quality"]["mae"]["value"] < 1e-3
    assert exact["quality"]["ece"] < 1e-3 and exact["quality"]["same_tenth"]["value"] > 0.9 and exact["quality"]["unread"]["value"] == 0
    assert noisy["quality"]["spearman"]["value"] < 0.9 and noisy["quality"]["ece"] > exact["quality"]["ece"] + 0.02
    assert exact["best_of"]["accuracy"]["value"] == 1.0 and exact["best_of"]["mrr"] == 1.0 and exact["best_of"]["chance"] < 0.3
    assert noisy["best_of"]["accuracy"]["value"] < 1.0
    assert exact["pairwise"]["right_both_times"]["value"] == 1.0 and exact["pairwise"]["consistent"]["value"] == 1.0
    assert exact["pairwise"]["first"]["value"] == 0.5 and "pairwise" not in noisy
    assert exact["keys"]["judge"]["worst"] == 0 and "ranks responses like the gold scores to 1.00" in words[0]


def test_a_principle_is_answered_by_its_probability(tmp_path):
    with serving() as exact:
        ask = {"exact": {**KNOWS, "prompt": "principle", "principle": "What it says of the picture is true.", "max_new_tokens": 1}}
        judge_eval(config(tmp_path, {"exact": (exact.url, exact.model)}, ask=ask), {})
    graded = [one for one in records(tmp_path) if one["part"] == "graded"]
    assert all(one["score"] == pytest.approx(min(max(one["gold"], 0.001), 0.999), abs=1e-3) for one in graded)


def own_rows(folder: Path, *rows: dict) -> dict:
    (folder / "rows.jsonl").write_text("".join(json.dumps({"question": "What colour is it?", **row}) + "\n" for row in rows))
    return {"name": "jsonl", "path": str(folder / "rows.jsonl")}


def told_right(handler, body) -> None:
    """Likes a response that names a colour."""
    text = body["messages"][0]["content"].partition("<trace>\n")[2].partition("\n</trace>")[0]
    handler.send_json(200, completion(f"<score>{0.9 if any(colour in text for colour in COLOURS) else 0.2}</score>"))


def test_ones_own_rows(tmp_path):
    data = own_rows(
        tmp_path,
        {"id": "a", "answer": "red", "right": ["It is red."], "wrong": ["No idea.", "Perhaps so."]},
        {"id": "b", "response": "It is teal.", "grade": 0.8},
        {"id": "c", "response": "Who knows.", "grade": 0.2},
    )
    with faulty(told_right, models=status(404)) as server:
        judge_eval(config(tmp_path, {"mine": (server.url, "m")}, data, score="grade"), {})
    found = summary(tmp_path)["judges"]["mine"]
    assert found["best_of"]["accuracy"]["value"] == 1.0 and found["quality"]["mae"]["value"] == pytest.approx(0.05)
    assert found["keys"]["families"]["empty"]["judge"]["value"] == 0.0


def test_rows_without_bad_responses_are_tried_with_what_needs_none(tmp_path):
    data = own_rows(tmp_path, {"id": "b", "response": "It is teal.", "score": 0.8}, {"id": "c", "response": "Red, yes.", "score": 0.9})
    with faulty(says("<score>1</score>"), models=status(404)) as server:
        judge_stress(config(tmp_path, {"mine": (server.url, "m")}, data), {})
    found = summary(tmp_path)["judges"]["mine"]
    assert set(found["families"]) == {"master_keys", "empty"} and found["bare"] is None
    assert found["judge"]["mean"] == 1.0 and found["guarded"]["worst"] == 0.0  # the judge takes everything, the guard lets nothing through


def test_what_a_judge_does_not_say_is_counted_and_an_outage_stops(tmp_path):
    data = own_rows(tmp_path, {"id": "b", "response": "It is teal.", "score": 0.8}, {"id": "c", "response": "Who knows.", "score": 0.2})
    with faulty(says("<b>8/10, I'd say</b>"), models=status(404)) as server:
        judge_eval(config(tmp_path, {"mine": (server.url, "m")}, data), {})
        found = summary(tmp_path)["judges"]["mine"]
        assert found["quality"]["unread"]["value"] == 1.0 and found["quality"]["spearman"] is None and found["unscored"] == found["asked"]
        assert {one["error"] for one in records(tmp_path)} == {
            "the judge's reply is not of the form that was asked for: \"<b>8/10, I'd say</b>\""
        }
        with pytest.raises(UserError, match=r"holds what `vlm-rl judge eval` found; write run_dir=OTHER"):
            judge_stress(config(tmp_path, {"mine": (server.url, "m")}, data), {})
    said = r"judge 'mine' left \d+ of \d+ questions unanswered \(unscored_limit=0\.1\): HTTP 500"
    with faulty(status(500, "no memory"), models=status(404)) as server, pytest.raises(UserError, match=said):
        judge_eval(config(tmp_path / "other", {"mine": (server.url, "m")}, data), {})


@pytest.mark.parametrize(
    "more, said",
    [
        ({"ask": {"mind": {}}}, "ask.mind is none of the judges: mine"),
        ({"judges": {}}, "names at least one judge"),
        ({"judges": {"mine": {"kind": "embedding", "path": "x"}}}, "judges.mine is an embedding model"),
        ({"ask": {"mine": {"prompt": "rubric"}}}, "the prompt rubric needs criteria"),
        ({"ask": {"mine": {"principle": "It is short."}}}, "the prompt principle needs principle"),
        ({"ask": {"mine": {"prompt": "yes_no"}}}, "does not grade one response"),
    ],
)
def test_a_config_that_cannot_be_meant_is_refused(tmp_path, more, said):
    with pytest.raises(ValueError, match=said):
        config(tmp_path, {"mine": ("http://127.0.0.1:1/v1", "m")}, **more)


def test_what_can_be_known_is_said_before_a_judge_is_asked(tmp_path):
    urls = {"mine": ("http://127.0.0.1:1/v1", "m")}
    with pytest.raises(UserError, match=r"unknown prompt 'thinkng'.*did you mean 'thinking'"):
        judge_eval(config(tmp_path, urls, ask={"mine": {"prompt": "thinkng"}}), {})
    with pytest.raises(UserError, match='no row has a response with a score under "grade"'):
        judge_eval(config(tmp_path, urls, own_rows(tmp_path, {"id": "a", "answer": "red"}), score="grade"), {})
    with pytest.raises(RowError, match='a: "right" is a list of responses'):
        judge_eval(config(tmp_path, urls, own_rows(tmp_path, {"id": "a", "answer": "red", "right": "red", "wrong": ["x"]})), {})
    with pytest.raises(UserError, match=r"judge 'mine' at http://127\.0\.0\.1:1/v1 does not answer"):
        judge_eval(config(tmp_path, urls), {})


def test_from_the_command_line(tmp_path):
    with serving() as server:
        given = [
            f"judges.exact.url={server.url}",
            f"judges.noisy.url={server.url}",
            "judges.noisy.model=lab-honest",
            "rows=6",
            "key_rows=1",
        ]
        done = CliRunner().invoke(cli.app, ["judge", "eval", "configs/judge/eval.yaml", *given, f"run_dir={tmp_path / 'run'}"])
    assert done.exit_code == 0, done.output
    assert "exact ranks responses like the gold scores to 1.00" in done.output and str(tmp_path / "run" / "report.html") in done.output
