"""Every algorithm that ships: laid over the quickstart it parses, makes optimiser steps, and is told of in docs/algorithms.md."""

import math
from pathlib import Path

import pytest
import yaml
from test_algo_update import scored_groups, updated, weights

from vlm_rl.config import TrainConfig
from vlm_rl.loading import load
from vlm_rl.update import check_names

ROOT = Path(__file__).parent.parent
FRAGMENTS = sorted((ROOT / "configs/fragments").glob("algo_*.yaml"))
QUICKSTART = ROOT / "configs/quickstart.yaml"


@pytest.mark.parametrize("path", FRAGMENTS, ids=lambda p: p.stem)
def test_it_trains_over_the_quickstart(path: Path, tmp_path: Path) -> None:
    child = tmp_path / "child.yaml"
    child.write_text(yaml.safe_dump({"extends": [str(QUICKSTART), str(path)], "run_dir": "r"}))
    config = load(TrainConfig, child)
    assert load(TrainConfig, QUICKSTART, [f"extends={path}", "run_dir=r"]) == config
    check_names(config.algo)
    minis = min(config.train.mini_batches, 2)
    metrics, policy, _ = updated(config.algo, updates=config.train.updates_per_rollout, minis=minis, steps=2)
    _, untouched, _ = updated(config.algo, steps=0)
    assert all(math.isfinite(value) for line in metrics for value in line.values())
    assert not weights(policy).equal(weights(untouched)) and len(metrics) == 2
    assert len(scored_groups()) == 3


OVER_A_LOSS = ("gdpo", "kl_adaptive", "reference_ema", "tis", "icepop", "replay", "top_entropy")
WHOLE = [path for path in FRAGMENTS if path.stem.removeprefix("algo_") not in OVER_A_LOSS]


@pytest.mark.parametrize("path", WHOLE, ids=lambda p: p.stem)
def test_a_whole_algorithm_forgets_the_one_before(path: Path) -> None:
    """Whatever is laid on first, but for what is no part of an algorithm: corrections, replay, the choice of tokens."""
    alone = load(TrainConfig, QUICKSTART, [f"extends={path}", "run_dir=r"])
    for other in [*WHOLE, *(ROOT / f"configs/fragments/algo_{name}.yaml" for name in ("gdpo", "kl_adaptive", "reference_ema"))]:
        before = [f"extends={other}", "algo.norm_length=7"]
        after = load(TrainConfig, QUICKSTART, [*before, f"extends={path}", "run_dir=r", "algo.reference={kind: fixed}"])
        assert after == alone, other.stem
    first = ["algo.loss_settings.dual_clip=3", f"extends={path}", "run_dir=r"]
    assert load(TrainConfig, QUICKSTART, first).algo.loss_settings == {}


def test_grpo_is_what_trains_without_a_fragment() -> None:
    assert load(TrainConfig, QUICKSTART, [f"extends={ROOT}/configs/fragments/algo_grpo.yaml"]) == load(TrainConfig, QUICKSTART)


def test_the_table_of_the_docs_is_whole() -> None:
    text = (ROOT / "docs/algorithms.md").read_text()
    for path in FRAGMENTS:
        assert f"`{path.stem}`" in text, path.stem
