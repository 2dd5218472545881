"""Every metric that a shipped claim registers is measured by its evaluation: asked of a few questions, with the policy as it is."""

import os
from contextlib import nullcontext
from pathlib import Path

import pytest

from eval.lab_results import figures_of
from eval.measured import open_run
from vlm_rl import cli_lab, cli_lab_plan
from vlm_rl.cli_eval import evaluate
from vlm_rl.config_claim import ClaimConfig
from vlm_rl.loading import load, load_eval

ROOT = Path(__file__).parent.parent
CLAIMS = {path.stem: load(ClaimConfig, path) for path in sorted((ROOT / "configs" / "claims").glob("*.yaml"))}
FIRST = {claim.evaluation.config: name for name, claim in reversed(CLAIMS.items())}
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize("name", FIRST.values())
def test_what_is_registered_is_measured(name, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    claim = CLAIMS[name]
    command = cli_lab_plan.plan(f"configs/claims/{name}.yaml", True, tmp_path).units[0].evaluation
    world = "clips" if "clips" in claim.policy else "pictures"
    few = f"data={{name: scenes, config: {world}, split: test, limit: 24}}"
    judge = command.judge
    with cli_lab.serving(judge.kind, judge.noise, judge.hack) if judge else nullcontext() as server:
        served = [f"judges.{judge.name}.url={server.url}"] if judge and server else []
        overrides = [*command.overrides, *served, few, f"run_dir={tmp_path}/run", f"model={claim.policy}"]
        evaluate(load_eval(command.config, overrides), os.environ)
    measured = figures_of(open_run(tmp_path / "run").sections())
    sharing = [other for other in CLAIMS.values() if other.evaluation.config == claim.evaluation.config]
    wanted = {metric for other in sharing for test in other.tests for metric in (test.metric, test.against_metric or test.metric)}
    assert {metric for metric in wanted if not metric.startswith("cost/")} <= measured.keys()
