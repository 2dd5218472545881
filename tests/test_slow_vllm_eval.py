"""`vlm-rl eval` of the shipped small policy behind vLLM's own OpenAI server: turns are begun there too, and answers are the same."""

import json
from pathlib import Path

import pytest
from test_slow_vllm_judge import url as url

from eval.store import load_study
from vlm_rl import cli_eval
from vlm_rl.loading import load_eval

pytest.importorskip("vllm")
pytestmark = pytest.mark.slow


def run(tmp_path: Path, name: str, *overrides: str) -> Path:
    (tmp_path / "eval.yaml").write_text(
        "run_dir: r\ndata: {name: scenes, config: pictures, split: test, limit: 10}\nrollout: {max_new_tokens: 112}\n"
        "evaluators: {early_answering: , scored: {use: 'evaluators_small:Scored'}, told: {use: 'evaluators_small:Told'}}\n"
    )
    return cli_eval.evaluate(load_eval(str(tmp_path / "eval.yaml"), [f"run_dir={tmp_path}/{name}", *overrides]), {})


def test_a_served_model_is_evaluated_as_its_files_are(url: str, tmp_path: Path):
    remote, local = run(tmp_path, "remote", f"model={url}", "model.max_concurrency=4"), run(tmp_path, "local")
    summary = json.loads((remote / "summary.json").read_text())
    assert summary["not_run"] == {"scored": "the endpoint cannot tell the log-probs of a given continuation"}
    there, here = (
        {(r.sample_id, r.condition, r.index): r for r in load_study(path).records if not r.condition.startswith("scored")}
        for path in (remote, local)
    )
    assert there.keys() == here.keys() and not any("error" in r.detail for r in there.values())
    clean = [key for key in here if key[1] == "clean"]
    assert sum(there[key].completion == here[key].completion for key in clean) >= len(clean) - 1
    begun = [key for key in here if key[1].startswith("early_answering") and here[key].prefill]
    assert begun and sum(there[key].answer == here[key].answer for key in begun) >= 0.9 * len(begun)
    told = [(there[key].detail["told"], here[key].detail["told"]) for key in here if key[1] == "told/first"]
    assert all(max(a, key=a.get) == max(b, key=b.get) for a, b in told)
