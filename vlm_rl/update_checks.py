"""Algorithm settings that are unknown or contradict each other, told before anything heavy loads."""

from vlm_rl.algo.losses import settings_of
from vlm_rl.algo.mismatch import CORRECTIONS
from vlm_rl.config_algo import AlgoConfig
from vlm_rl.credit import PENALISED_LATER, find_credit
from vlm_rl.errors import UserError, unknown
from vlm_rl.named import TABLES, advantage_of, loss_of, misplaced
from vlm_rl.replay import VALUES
from vlm_rl.step_batch import batch_rule


def check_names(algo: AlgoConfig) -> None:
    """Raises UserError for the first wrong setting."""
    named = {"algo.loss": algo.loss, "algo.ratio": algo.ratio, "algo.aggregation": algo.aggregation}
    for key, name in (named | {"algo.advantage": algo.advantage, "algo.credit": algo.credit}).items():
        if name not in TABLES[key] and (":" not in name or key in ("algo.ratio", "algo.aggregation")):
            raise misplaced(key, name)
    for correction in algo.correction:
        if correction.use not in CORRECTIONS:
            raise misplaced("algo.correction", correction.use)
    if algo.replay is not None and algo.replay.value not in VALUES:
        raise unknown("algo.replay.value", algo.replay.value, VALUES)
    advantage_of(algo)
    find_credit(algo.credit)
    known = settings_of(loss_of(algo))
    for setting, value in algo.loss_settings.items():
        if setting not in known:
            raise unknown(f"setting of the loss {algo.loss}", setting, known, "algo.loss_settings")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"algo.loss_settings.{setting}={value!r} is no number")
    dual = algo.loss_settings.get("dual_clip")
    if dual is not None and dual < 1 + algo.clip_high:
        raise UserError(f"algo.loss_settings.dual_clip={dual:g} is below 1 + algo.clip_high, so it would undo the other bound; 3 is usual")
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
