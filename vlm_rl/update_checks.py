"""Algorithm settings that are unknown or contradict each other, told before anything heavy loads."""

from vlm_rl.algo.advantages import ADVANTAGES
from vlm_rl.algo.losses import AGGREGATIONS, LOSSES, settings_of
from vlm_rl.algo.mismatch import CORRECTIONS
from vlm_rl.algo.ratios import LEVELS
from vlm_rl.config_algo import AlgoConfig
from vlm_rl.credit import PENALISED_LATER, find_credit
from vlm_rl.errors import UserError, unknown
from vlm_rl.step_batch import batch_rule


def check_names(algo: AlgoConfig) -> None:
    """Raises UserError for the first wrong setting."""
    for key, name, table in (
        ("algo.loss", algo.loss, LOSSES),
        ("algo.ratio", algo.ratio, LEVELS),
        ("algo.aggregation", algo.aggregation, AGGREGATIONS),
        ("algo.advantage", algo.advantage, ADVANTAGES),
        *(("algo.correction", correction.use, CORRECTIONS) for correction in algo.correction),
    ):
        if name not in table:
            raise unknown(key, name, table)
    for setting, value in algo.loss_settings.items():
        known = settings_of(LOSSES[algo.loss])
        if setting not in known:
            raise unknown(f"setting of the loss {algo.loss}", setting, known, "algo.loss_settings")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"algo.loss_settings.{setting}={value!r} is no number")
    dual = algo.loss_settings.get("dual_clip")
    if dual is not None and dual < 1 + algo.clip_high:
        raise UserError(f"algo.loss_settings.dual_clip={dual:g} is below 1 + algo.clip_high, so it would undo the other bound; 3 is usual")
    find_credit(algo.credit)
    _check_kl(algo)
    _check_together(algo)


def _check_kl(algo: AlgoConfig) -> None:
    if algo.kl_weight == 0:
        if algo.kl_target is not None:
            raise UserError("algo.kl_target adapts algo.kl_weight, which is 0; write where it begins, such as algo.kl_weight=0.001")
        if algo.reference.kind != "fixed":
            raise UserError("algo.reference follows the policy for the KL term, but algo.kl_weight is 0; write algo.kl_weight=0.001, say")
        return
    if algo.kl_in == "loss" and algo.kl == "k1" and algo.kl_gradient == "own":
        raise UserError(
            "algo.kl=k1 has no gradient on average as a term of the loss, so it would regularise nothing; write k2 or k3, or "
            "algo.kl_gradient=straight, or algo.kl_in=reward"
        )
    if algo.kl_in == "reward" and algo.rewards != "sum_then_normalize" and algo.credit not in PENALISED_LATER:
        raise UserError(f"algo.kl_in=reward belongs to a sum of rewards, not to algo.rewards={algo.rewards}; write algo.kl_in=loss")


def _check_together(algo: AlgoConfig) -> None:
    if algo.old_logprobs == "engine" and algo.correction:
        raise UserError("algo.old_logprobs=engine takes the ratio to the engine itself, so algo.correction would correct twice; drop one")
    if algo.loss == "gmpo" and algo.top_entropy < 1:
        raise UserError("algo.top_entropy chooses tokens, but gmpo has one weight per rollout; write algo.top_entropy=1")
    if algo.rewards == "normalize_then_sum" and batch_rule(algo) == "reward_std":
        raise UserError("algo.batch=reward_std divides by the spread of summed rewards, which algo.rewards=normalize_then_sum has none of")
    if algo.advantage == "raw" and algo.rewards == "normalize_then_sum":
        raise UserError("algo.rewards=normalize_then_sum normalises in groups, which algo.advantage=raw does not; write whiten_then_sum")
