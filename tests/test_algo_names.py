"""Names under `algo:`: one that belongs elsewhere is sent there; a loss and an advantage of one's own train as docs/algorithms.md says."""

import re
from pathlib import Path

import pytest
import torch
from test_algo_update import updated, weights
from torch import Tensor

from vlm_rl.algo.losses import LOSSES, LossOut, Tokens
from vlm_rl.config import AlgoConfig, TrainConfig
from vlm_rl.errors import UserError
from vlm_rl.loading import load
from vlm_rl.named import ELSEWHERE, TABLES, advantage_of, loss_of, misplaced
from vlm_rl.update import check_names

ROOT = Path(__file__).parent.parent
FRAGMENTS = sorted(p.stem.removeprefix("algo_") for p in (ROOT / "configs/fragments").glob("algo_*.yaml"))


@pytest.mark.parametrize("key", ["algo.loss", "algo.advantage", "algo.ratio", "algo.aggregation", "algo.credit"])
@pytest.mark.parametrize("name", FRAGMENTS)
def test_the_name_of_a_fragment_as_a_value_names_the_fragment(key: str, name: str) -> None:
    if name in TABLES[key]:
        return
    with pytest.raises(UserError) as error:
        check_names(AlgoConfig.model_validate({key.removeprefix("algo."): name}))
    assert f"extends=configs/fragments/algo_{name}.yaml" in str(error.value) and f"unknown {key} '{name}'" in str(error.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"loss": "gspo"}, "write extends=configs/fragments/algo_gspo.yaml (known for algo.loss: cispo, gmpo, grpo, sapo, vespo)"),
        ({"loss": "sequence"}, "write algo.ratio=sequence "),
        ({"loss": "sequence_token"}, "algo.ratio=sequence_token"),
        ({"loss": "bnpo"}, "algo.aggregation=token_mean"),
        ({"loss": "token_mean"}, "algo.aggregation=token_mean"),
        ({"loss": "Dr.GRPO"}, "extends=configs/fragments/algo_dr_grpo.yaml"),
        ({"loss": "ppo"}, "algo.loss=grpo"),
        ({"loss": "REINFORCE++"}, "extends=configs/fragments/algo_reinforce_pp.yaml"),
        ({"loss": "reinforce_plus_plus_baseline"}, "extends=configs/fragments/algo_reinforce_pp_baseline.yaml"),
        ({"loss": "geo_mean"}, "algo.loss=gmpo"),
        ({"loss": "token_mask"}, "algo.correction=[{use: token_mask, high: 2}]"),
        ({"loss": "leave_one_out"}, "algo.advantage=leave_one_out"),
        ({"loss": "grop"}, "did you mean 'grpo'"),
        ({"aggregation": "seq-mean-token-mean"}, "algo.aggregation=sequence_mean"),
        ({"aggregation": "token"}, "algo.ratio=token"),
        ({"ratio": "sequences"}, "did you mean 'sequence'"),
        ({"ratio": "mine:level"}, "unknown algo.ratio 'mine:level'"),
        ({"advantage": "grpo"}, "group_std"),
        ({"credit": "late"}, "unknown algo.credit 'late'"),
        ({"credit": "nowhere:late"}, "no module named 'nowhere'"),
        ({"credit": "test_algo_update:G"}, "is no function of (rollout, advantage, penalties_T)"),
        ({"loss": "test_algo_names:missing"}, "test_algo_names has none"),
        (
            {"correction": [{"use": "tis", "high": 2.0}]},
            "extends=configs/fragments/algo_tis.yaml (known for algo.correction: geometric_mask",
        ),
        ({"correction": [{"use": "token_masks", "high": 2.0}]}, "did you mean 'token_mask'"),
    ],
)
def test_a_name_in_the_wrong_place_is_sent_to_its_own(settings: dict, said: str) -> None:
    with pytest.raises(UserError) as error:
        check_names(AlgoConfig.model_validate(settings))
    assert said in str(error.value)


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_is_told_for_names_of_other_programs_can_be_written(name: str) -> None:
    found = re.search(r"write (.*?) \(known", str(misplaced("algo.credit", name)))
    assert found
    for text in found[1].split(" or "):
        check_names(load(TrainConfig, ROOT / "configs/quickstart.yaml", [text]).algo)


def python_of(heading: str) -> str:
    section = (ROOT / "docs/algorithms.md").read_text().split(f"## {heading}")[1].split("\n## ")[0]
    return "\n".join(re.findall(r"```python\n(.*?)```", section, re.S))


def test_a_loss_and_an_advantage_as_the_docs_show_them(tmp_path, monkeypatch) -> None:
    """Written to a file of that name, they train; and the loss in the table would be the same."""
    (tmp_path / "my_algorithm.py").write_text(python_of("A loss of your own"))
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = {"loss": "my_algorithm:topr", "loss_settings": {"most": 0.9}, "ratio": "product", "advantage": "my_algorithm:above_median"}
    metrics, policy, _ = updated(AlgoConfig.model_validate(settings), updates=2)
    assert not torch.equal(weights(policy), weights(updated(AlgoConfig(), steps=0)[1])) and metrics[0]["loss/grad_norm"] > 0
    assert metrics[0]["loss/failures"] > 0.1
    import my_algorithm  # type: ignore[reportMissingImports]

    assert my_algorithm.above_median(torch.tensor([1.0, 0.0, 0.0]), 1e-4).tolist() == [1.0, 0.0, 0.0]
    monkeypatch.setitem(LOSSES, "topr", my_algorithm.topr)
    by_name, other, _ = updated(AlgoConfig.model_validate(settings | {"loss": "topr"}), updates=2)
    assert by_name == metrics and torch.equal(weights(policy), weights(other))
    with pytest.raises(UserError, match="did you mean 'most'"):
        check_names(AlgoConfig.model_validate(settings | {"loss_settings": {"mots": 1.0}}))


def plain(tokens: Tokens, low: float, high: float) -> Tensor:
    """Without marks a tensor will do: REINFORCE."""
    return -tokens.advantages_T * tokens.logp_T


def summed(tokens: Tokens, low: float, high: float) -> LossOut:
    return LossOut(plain(tokens, low, high).sum())


def nothing(tokens: Tokens, low: float, high: float) -> None:
    return None


def too_short(totals_G: Tensor, eps: float) -> Tensor:
    return totals_G[1:]


def infinite(totals_G: Tensor, eps: float) -> Tensor:
    return totals_G / 0


def test_what_a_strangers_function_gives_is_checked() -> None:
    metrics, _, _ = updated(AlgoConfig(loss="test_algo_names:plain"))
    assert metrics[0]["loss/grad_norm"] > 0
    for name, said in (("summed", r"numbers of shape \(\) for"), ("nothing", "a NoneType for")):
        with pytest.raises(UserError, match=rf"algo\.loss=test_algo_names:{name} gave {said}"):
            updated(AlgoConfig(loss=f"test_algo_names:{name}"))
    for name in ("too_short", "infinite"):
        with pytest.raises(UserError, match="for 4 totals"):
            advantage_of(AlgoConfig(advantage=f"test_algo_names:{name}"))(torch.tensor([1.0, 0.0, 0.0, 1.0]), 1e-4)
    assert loss_of(AlgoConfig()) is LOSSES["grpo"]
