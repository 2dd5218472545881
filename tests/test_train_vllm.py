"""Training with vLLM as engine: it follows the weights, and a fine-tuning refuses it."""

import json
from pathlib import Path

import pytest

pytest.importorskip("vllm")

from eval.runner import load_records
from vlm_rl.cli_eval import evaluate
from vlm_rl.cli_train import train
from vlm_rl.config import SftConfig, TrainConfig
from vlm_rl.config_eval import EvalConfig
from vlm_rl.errors import UserError
from vlm_rl.loading import load

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_every_step_is_sampled_with_the_weights_of_the_step_before(tmp_path: Path) -> None:
    small = [
        "train.steps=3",
        "eval.questions=20",
        "eval.samples=0",
        "eval.every=null",
        "optim.learning_rate=0.01",
        "tracker.tensorboard=false",
    ]
    vllm = ["rollout.engine=vllm", "rollout.vllm.enforce_eager=true", "rollout.vllm.max_num_seqs=64"]
    config = load(TrainConfig, str(ROOT / "configs/quickstart.yaml"), [*small, *vllm, f"run_dir={tmp_path / 'run'}"])
    train(config)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 3 and all("time/sync" in line for line in lines)
    # At this rate the weights move so far in a step that old ones, or a cache of theirs, would show at once.
    assert all(line["guard/logprob_diff_max"] < 1e-3 for line in lines)


@pytest.mark.slow
def test_an_evaluation_by_vllm_is_that_of_the_model_itself(tmp_path: Path) -> None:
    small = ["data.limit=24", "samples=0"]
    vllm = ["rollout.engine=vllm", "rollout.vllm.enforce_eager=true", "rollout.vllm.max_num_seqs=64"]
    for name, more in (("hf", []), ("vllm", vllm)):
        config = load(EvalConfig, str(ROOT / "configs/eval/easy_vqa.yaml"), [*small, *more, f"run_dir={tmp_path / name}"])
        evaluate(config, {})
    said = [[(r.sample_id, r.condition, r.answer) for r in load_records(tmp_path / name / "records.jsonl")] for name in ("hf", "vllm")]
    assert len(said[0]) == 48 and sum(a == b for a, b in zip(*said, strict=True)) >= 46, "but for a near tie"


def test_a_fine_tuning_refuses_it() -> None:
    with pytest.raises(UserError, match="only vlm-rl train has another than hf"):
        load(SftConfig, str(ROOT / "configs/lab/warm_start.yaml"), ["rollout.engine=vllm"])
