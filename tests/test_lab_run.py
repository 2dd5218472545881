"""`vlm-rl lab run`: the registration, the plan, what is kept by seed, the report; and whole small experiments, killed and gone on with."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from eval import lab_results
from eval.lab_findings import check_metrics, findings
from eval.lab_results import SeedResult, costs_of, curves_of
from vlm_rl import cli_lab_plan, cli_lab_run
from vlm_rl.cli_lab_run import Options
from vlm_rl.cli_train import prepared
from vlm_rl.config import TrainConfig
from vlm_rl.config_claim import ClaimConfig
from vlm_rl.errors import UserError
from vlm_rl.loading import load

ROOT = Path(__file__).parent.parent
CLAIMS = sorted((ROOT / "configs" / "claims").glob("*.yaml"))
SMALL = [
    "train.steps=2",
    "rollout.prompts_per_step=2",
    "rollout.group_size=2",
    "rollout.max_new_tokens=24",
    "eval.questions=2",
    "eval.samples=0",
    "eval.blank_control=false",
    "eval.every=null",
    "checkpoint.every=1",
    "tracker.tensorboard=false",
]


def claim_tree(**changes):
    one_world = "data={name: scenes, config: pictures, split: test, limit: 6}"
    return {
        "claim": "GRPO <b>helps</b>",
        "source": "arXiv 0000.00000",
        "arms": {"start": {}, "grpo": {"config": "configs/lab/scenes.yaml"}},
        "baseline": "start",
        "seeds": [0, 1],
        "train": SMALL,
        "evaluation": {
            "config": "configs/claims/eval/scenes.yaml",
            "overrides": [one_world, "blank_control=false", "rollout.max_new_tokens=24"],
        },
        "primary": {"arm": "grpo", "metric": "accuracy/accuracy", "direction": "up", "margin": 0.05},
        "secondary": [{"arm": "grpo", "metric": "scene_truth/words", "direction": "up", "margin": 1.0}],
        "quick": {"seeds": [0], "train": ["train.steps=1"]},
        **changes,
    }


def write(path: Path, **changes) -> str:
    path.write_text(yaml.safe_dump(claim_tree(**changes)))
    return str(path)


def result(registration: str, arm: str, seed: int, right: list[int]) -> SeedResult:
    items = {f"test/q{i}": [float(value), 1.0] for i, value in enumerate(right)}
    figures = {
        "accuracy/accuracy": {"value": sum(right) / len(right), "n": len(right), "unit": "share", "items": items},
        "perturb/x/auroc": {"value": 0.5 + 0.1 * seed, "n": len(right), "unit": "number"},
    }
    curves = {"watched/accuracy": [[0, 0.1], [1, sum(right) / len(right)]]} if arm == "grpo" else {}
    return SeedResult(registration, arm, seed, figures, {}, curves, {"commands": [f"vlm-rl train {arm}"]})


def kept(path: str, out: Path, right: dict[str, list[list[int]]], **options) -> Path:
    """An experiment as a run leaves it, with these right answers by arm and seed."""
    experiment = cli_lab_plan.plan(path, False, out)
    hashed = lab_results.register(out / experiment.title, experiment.registered, experiment.claim.amendments)
    for arm, rows in right.items():
        for seed, row in enumerate(rows):
            lab_results.save(out / experiment.title, result(hashed, arm, seed, row))
    return out / experiment.title


RIGHT = {"start": [[0] * 30 + [1] * 10] * 2, "grpo": [[1] * 30 + [0] * 10, [1] * 31 + [0] * 9]}


@pytest.mark.parametrize("path", CLAIMS, ids=lambda path: path.stem)
@pytest.mark.parametrize("quick", [False, True])
def test_every_shipped_claim_can_be_planned(path, quick, monkeypatch):
    monkeypatch.chdir(ROOT)
    experiment = cli_lab_plan.plan(str(path.relative_to(ROOT)), quick, Path("runs/lab"))
    claim = experiment.claim
    assert len(experiment.units) == len(claim.seeds) * len(claim.arms) and len(claim.seeds) >= (2 if quick else 3)
    assert claim.amendments == () or all(claim.amendments)
    trained = {unit.training.run_dir for unit in experiment.units if unit.training}
    assert len(trained) == len(claim.seeds) * sum(arm.config is not None for arm in claim.arms.values())  # no two arms are the same
    splits = {part.data.split for part in cli_lab_plan.load_eval(claim.evaluation.config, claim.evaluation.overrides).data.parts}
    assert {"test", "test_pairs", "test_more"} <= splits


def test_trainings_are_shared_between_claims_of_the_same_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    one = cli_lab_plan.plan(write(tmp_path / "a.yaml"), False, tmp_path)
    other = cli_lab_plan.plan(write(tmp_path / "b.yaml", claim="another", train=list(reversed(SMALL))), False, tmp_path)
    apart = cli_lab_plan.plan(write(tmp_path / "c.yaml", train=[*SMALL, "optim.learning_rate=1.0e-3"]), False, tmp_path)
    dirs = [{u.training.run_dir for u in e.units if u.training} for e in (one, other, apart)]
    assert dirs[0] == dirs[1] and not dirs[0] & dirs[2]
    assert len({u.evaluation.run_dir for u in one.units}) == 3  # the policy as it is is evaluated once for both seeds


def test_judges_of_different_opinions_make_different_trainings(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    arms = {
        "start": {},
        "grpo": {"config": "configs/lab/trust.yaml", "judge": {"kind": "honest"}},
        "noisy": {"config": "configs/lab/trust.yaml", "judge": {"kind": "noisy", "noise": 0.4}},
    }
    experiment = cli_lab_plan.plan(write(tmp_path / "a.yaml", arms=arms), False, tmp_path)
    first = {unit.arm: unit.training for unit in experiment.units if unit.seed == 0}
    assert first["grpo"].run_dir != first["noisy"].run_dir
    assert "judges.exact.model=lab-noisy-0.4-0" in first["noisy"].overrides


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"baseline": "none"}, "no arm is called 'none'"),
        ({"primary": {"arm": "grop", "metric": "a/b", "direction": "up", "margin": 0.1}}, "no arm is called 'grop'"),
        ({"primary": {"arm": "start", "metric": "a/b", "direction": "up", "margin": 0.1}}, "with itself"),
        ({"primary": {"arm": "grpo", "metric": "a/b", "direction": "up", "margin": 0}}, "margin"),
        ({"seeds": [1, 1]}, "one is named twice"),
        ({"arms": {"start": {"overrides": ["seed=1"]}, "grpo": {"config": "configs/lab/scenes.yaml"}}}, "give the arm a config"),
        ({"train": ["train.stesp=3"]}, "did you mean 'steps'"),
        ({"primary": {"arm": "grpo", "metric": "acuracy/accuracy", "direction": "up", "margin": 0.1}}, "did you mean 'accuracy'"),
        ({"quick": {"seeds": [0], "arms": ["grpo"]}}, "the primary test needs grpo, start"),
    ],
)
def test_a_wrong_claim_is_refused_by_name(tmp_path, monkeypatch, changes, said):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=said):
        cli_lab_plan.plan(write(tmp_path / "a.yaml", **changes), False, tmp_path)


def test_seeds_that_are_not_registered_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    experiment = cli_lab_plan.plan(write(tmp_path / "a.yaml"), False, tmp_path)
    assert {unit.seed for unit in cli_lab_plan.only(experiment, (1,)).units} == {1}
    with pytest.raises(UserError, match="--seeds 7 is not registered"):
        cli_lab_plan.only(experiment, (7,))
    with pytest.raises(UserError, match="'x' is none"):
        cli_lab_run.numbers("0,x")


def test_a_registration_is_not_changed_behind_results(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    path, out = write(tmp_path / "a.yaml"), tmp_path / "lab"
    cli_lab_plan.plan(path, False, out)
    kept(path, out, {})
    changed = {"primary": {**claim_tree()["primary"], "margin": 0.01}}
    write(tmp_path / "a.yaml", **changed)
    kept(path, out, RIGHT)  # nothing had been measured yet
    write(tmp_path / "a.yaml", primary={**claim_tree()["primary"], "margin": 0.2})
    with pytest.raises(UserError, match=r"4 results under another registration; it differs in primary\.margin") as error:
        kept(path, out, {})
    assert "amendments" in str(error.value)
    note = "2026-01-01: margin 20 points, after all results were seen"
    write(tmp_path / "a.yaml", primary={**claim_tree()["primary"], "margin": 0.2}, amendments=[note])
    kept(path, out, RIGHT)
    whole, _ = cli_lab_run.run(path, Options(out=out), {})
    assert whole and note in (out / "a" / "report.html").read_text()
    write(tmp_path / "a.yaml", primary={**claim_tree()["primary"], "margin": 0.3}, amendments=[note])
    with pytest.raises(UserError, match="another registration"):
        kept(path, out, {})


def test_an_edited_config_of_an_arm_is_another_registration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.yaml").write_text(f"extends: {ROOT}/configs/lab/scenes.yaml\n")
    arms = {"start": {}, "grpo": {"config": "own.yaml"}}
    path = write(tmp_path / "a.yaml", arms=arms)
    before = cli_lab_plan.plan(path, False, tmp_path).registered
    (tmp_path / "own.yaml").write_text(f"extends: {ROOT}/configs/lab/scenes.yaml\nrewards: {{format: {{weight: 0.2}}}}\n")
    assert lab_results.digest(cli_lab_plan.plan(path, False, tmp_path).registered) != lab_results.digest(before)


def test_what_is_kept_by_seed_makes_the_report_without_training(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    path, out = write(tmp_path / "a.yaml"), tmp_path / "lab"
    directory = kept(path, out, RIGHT)
    whole, said = cli_lab_run.run(path, Options(out=out, docs=tmp_path / "docs"), {})
    assert whole and said.startswith("Holds: accuracy · accuracy of grpo, less that of start: +51.2 points")
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["verdict"] == "holds" and summary["primary"]["by_seed"] == {"0": 0.5, "1": 0.525}
    assert summary["secondary"][0]["verdict"] == "undecided"  # scene_truth/words was not measured
    html = (directory / "report.html").read_text()
    assert "GRPO &lt;b&gt;helps" in html and "<b>helps" not in html
    assert "http" not in html.replace("http-equiv", "") and html.count("<svg") >= 2
    page = (tmp_path / "docs" / "a.md").read_text()
    assert "**Holds" in page.replace("\\", "") and "](a.png)" in page and (tmp_path / "docs" / "a.png").exists()
    assert json.loads((tmp_path / "docs" / "a.json").read_text())["verdict"] == "holds"


def test_a_failed_training_is_named_and_the_rest_reported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arms = {"start": {}, "grpo": {"config": str(ROOT / "configs/lab/scenes.yaml"), "overrides": ["rewards.accuracy.use=nothing"]}}
    path, out = write(tmp_path / "a.yaml", arms=arms), tmp_path / "lab"
    kept(path, out, {"start": RIGHT["start"], "grpo": RIGHT["grpo"][:1]})
    whole, said = cli_lab_run.run(path, Options(out=out), {**os.environ, "PYTHONPATH": str(ROOT)})
    assert not whole and "unfinished: 1 of the registered" in said and said.startswith("Undecided")
    summary = json.loads((out / "a" / "summary.json").read_text())
    assert "training: exit status 2" in summary["unfinished"]["grpo, seed 1"]
    assert "unknown reward 'nothing'" in summary["unfinished"]["grpo, seed 1"]


def test_findings_pair_by_question_and_by_group():
    """Two groups of questions, of which one gets better: the whole is their mean, each group has its own interval."""
    claim = ClaimConfig(**claim_tree(secondary=[{**claim_tree()["primary"], "metric": "perturb/x/auroc", "margin": 0.5}]))
    results = {}
    for seed in (0, 1):
        for arm, right in (("start", [0] * 20), ("grpo", [1] * 9 + [0] * 11)):
            made = result("h", arm, seed, right)
            items = {(f"test/q{i}" if i < 10 else f"more/q{i}"): pair for i, pair in enumerate(made.items("accuracy/accuracy").values())}
            figure = {**made.figures["accuracy/accuracy"], "items": items}
            results[arm, seed] = dataclasses.replace(made, figures={**made.figures, "accuracy/accuracy": figure})
    found = findings(claim, results)
    assert found.primary.effect.value == pytest.approx(0.45) and found.primary.verdict.word == "holds"
    assert {test.words: test.effect.value for test in found.groups} == {"test": pytest.approx(0.9), "more": 0.0}
    assert found.secondary[0].effect.questions == 0 and found.secondary[0].effect.value == 0  # no parts by question: over seeds alone
    assert [table.title for table in found.tables] == ["accuracy", "perturb"]


def test_a_metric_that_is_not_measured_is_named_with_the_nearest():
    claim = ClaimConfig(**claim_tree(secondary=[{"arm": "grpo", "metric": "accuracy/acuracy", "direction": "up", "margin": 0.1}]))
    for arm in ("start", "grpo"):
        with pytest.raises(UserError, match=r"unknown metric 'accuracy/acuracy' in the evaluation of .*; did you mean 'accuracy/accuracy'"):
            check_metrics(claim, result("h", arm, 0, [1, 0]))
    check_metrics(ClaimConfig(**claim_tree(secondary=[])), result("h", "grpo", 0, [1, 0]))


def test_costs_and_curves_of_a_training():
    steps = [
        {"step": s, "time/generate": 2.0, "time/score": 1.0, "time/update": 3.0, "reward/total": 0.5 * s, "loss/kl": 0.0} for s in (1, 2)
    ]
    costs = costs_of(steps)
    assert costs["cost/overhead"]["value"] == pytest.approx(0.2) and costs["cost/seconds_per_step"]["value"] == pytest.approx(6)
    watched = [{"step": 0, "accuracy": {"value": 0.4, "items": {}}, "consistency": {"value": None}}]
    assert curves_of(steps, watched) == {"reward/total": [[1, 0.5], [2, 1.0]], "watched/accuracy": [[0, 0.4]]}
    assert costs_of([]) == {} and curves_of([], []) == {}


def lab(*words: str, wait: bool = True) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "vlm_rl", "lab", "run", *words], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if wait:
        process.communicate()
    return process


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_whole_experiment_is_killed_and_gone_on_with(tmp_path):
    """What was done before the kill is not done again, and the results are those of a run that was not killed."""
    path = write(tmp_path / "a.yaml")
    killed = lab(path, "--out", str(tmp_path / "one"), "--jobs", "1", wait=False)
    seeds = tmp_path / "one" / "a" / "seeds"
    while not list(seeds.glob("grpo-0.json")):
        assert killed.poll() is None
        time.sleep(0.2)
    os.kill(killed.pid, signal.SIGTERM)
    assert killed.wait() == 130
    assert not list(seeds.glob("grpo-1.json"))
    first = (seeds / "grpo-0.json").stat().st_mtime_ns
    assert lab(path, "--out", str(tmp_path / "one")).returncode == 0
    assert (seeds / "grpo-0.json").stat().st_mtime_ns == first
    assert lab(path, "--out", str(tmp_path / "two")).returncode == 0
    for name in ("grpo-0", "grpo-1", "start-0", "start-1"):
        one, two = (json.loads((tmp_path / which / "a" / "seeds" / f"{name}.json").read_text())["figures"] for which in ("one", "two"))
        assert all(one[key] == two[key] for key in one if not key.startswith("cost/"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_judge_is_there_for_the_trainings_that_need_one(tmp_path):
    arms = {"grpo": {"config": "configs/lab/scenes.yaml"}, "judged": {"config": "configs/lab/trust.yaml", "judge": {"kind": "honest"}}}
    primary = {"arm": "judged", "metric": "scene_truth/claim_truth", "direction": "up", "margin": 0.05}
    path = write(tmp_path / "a.yaml", arms=arms, baseline="grpo", primary=primary, secondary=[])
    assert lab(path, "--quick", "--out", str(tmp_path / "lab")).returncode == 0
    summary = json.loads((tmp_path / "lab" / "a-quick" / "summary.json").read_text())
    assert summary["verdict"] == "undecided" and summary["primary"]["seeds"] == 1
    assert load(ClaimConfig, path).level == 0.95


@pytest.mark.parametrize("path", CLAIMS, ids=lambda path: path.stem)
def test_every_arm_of_a_shipped_claim_is_taken_by_train(path, monkeypatch):
    """Its rewards, gates, judges, views and evaluators are made; nothing is loaded."""
    monkeypatch.chdir(ROOT)
    units = cli_lab_plan.plan(str(path.relative_to(ROOT)), False, Path("runs/lab")).units
    commands = {unit.arm: unit.training for unit in units if unit.training}
    for command in commands.values():
        prepared(load(TrainConfig, command.config, command.overrides), {})
