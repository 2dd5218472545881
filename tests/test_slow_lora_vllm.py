"""Adapters and vLLM: a run that samples with it, broken and resumed; its checkpoint and the model merged from it asked by vLLM."""

from pathlib import Path

import pytest

pytest.importorskip("vllm")

from test_train_runs import Killed, metrics, stop_after

from eval.runner import load_records
from vlm_rl.cli_eval import evaluate
from vlm_rl.cli_merge import merge
from vlm_rl.cli_train import train
from vlm_rl.config import TrainConfig
from vlm_rl.loading import load, load_eval

ROOT = Path(__file__).parent.parent
SMALL = ("train.steps=3", "eval.questions=20", "eval.samples=0", "eval.every=null", "tracker.tensorboard=false", "checkpoint.every=1")
LORA = (f"extends={ROOT / 'configs/fragments/lora.yaml'}", "optim.learning_rate=0.01")
VLLM = ("rollout.engine=vllm", "rollout.vllm.enforce_eager=true", "rollout.vllm.max_num_seqs=64")


def broken_and_resumed(directory: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> Path:
    """The directory of a run whose engine was in step with its trainer all the way."""
    config = load(TrainConfig, str(ROOT / "configs/quickstart.yaml"), [*LORA, *SMALL, *VLLM, *more, f"run_dir={directory / 'run'}"])
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(Killed):
            train(config)
    run = train(config)
    lines = metrics(run)
    assert [line["step"] for line in lines] == [1, 2, 3]
    # At this rate adapters move so far in a step that old ones, or none after the resume, would show at once.
    assert all(line["guard/logprob_diff_max"] < 1e-3 for line in lines) and lines[0]["loss/grad_norm"] > 0
    return run


@pytest.mark.slow
def test_vllm_is_given_adapters_alone_after_every_step_and_after_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken_and_resumed(tmp_path, monkeypatch, "model.lora.parts=[text, tower, projector]", "rollout.vllm.adapters=adapter")


@pytest.mark.slow
def test_vllm_has_the_adapters_after_every_step_after_a_resume_and_in_evaluations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = broken_and_resumed(tmp_path, monkeypatch, "model.lora.parts=[text, tower, projector]")

    merge(run, tmp_path / "merged")
    said = {}
    for name, path, engine in (
        ("adapter by hf", run / "checkpoints" / "step_3", ()),
        ("adapter by vllm", run / "checkpoints" / "step_3", VLLM),
        ("merged by vllm", tmp_path / "merged", VLLM),
        ("start by hf", "data/policies/easy_vqa", ()),
    ):
        few = ["data.limit=16", "samples=0", f"model={path}", f"run_dir={tmp_path / name}"]
        evaluate(load_eval(str(ROOT / "configs/eval/easy_vqa.yaml"), [*few, *engine]), {})
        said[name] = [(r.sample_id, r.condition, r.completion) for r in load_records(tmp_path / name / "records.jsonl")]
    want = said["adapter by hf"]
    for name in ("adapter by vllm", "merged by vllm"):
        assert len(want) == 32 and sum(a == b for a, b in zip(want, said[name], strict=True)) >= 31, "but for a near tie"
    assert sum(a == b for a, b in zip(want, said["start by hf"], strict=True)) < 31
