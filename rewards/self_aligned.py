"""How much does the question, or its picture, explain the response? Self-aligned reward, arXiv 2509.05489; the picture's form is ours.

With ppl(y|q) the perplexity of the response's text after its row, and ppl(y) after the row without its question or without its picture:

    max(-1, (ppl(y) - ppl(y|q)) / ppl(y))

Deviations: both are asked of the policy at temperature 1 about the same tokens (the paper takes the first from the log-probs of sampling);
without its question the row is an empty turn of the user in the same chat template; the log of a perplexity is held at 10.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean

from data.views import blank
from rewards.base import Reward
from vlm_rl.errors import UserError, unknown
from vlm_rl.types import Group, Reply, RewardResult, Sample, Score

MOST = 10.0


def without_question(sample: Sample) -> Sample:
    """The row with nothing to read or see."""
    return replace(sample, question="", options=(), media=(), kind="text", answer="")


BASELINES: dict[str, Callable[[Sample], Sample]] = {"question": without_question, "image": blank}


class SelfAligned(Reward):
    """The value above, in [-1, 1]; 0 for an empty response. `baseline` image shows grey pictures of the same size, question nothing at all.

    Rows without media are skipped under `image`. detail: log_ppl, log_ppl_baseline.
    """

    range = (-1.0, 1.0)

    def __init__(self, baseline: str = "question", target: str = "policy"):
        if baseline not in BASELINES:
            raise unknown("baseline", str(baseline), BASELINES)
        if target not in ("policy", "start"):
            raise UserError(f'target is "policy" or "start", not {target!r}')
        self.baseline, self.target, self.targets = baseline, target, (target,)

    def ask(self, group: Group) -> list[Score]:
        if self._blind(group):
            return []
        row = replace(group.sample, prefill="")
        texts = [rollout.text for rollout in group.rollouts if rollout.text]
        seen = (row, BASELINES[self.baseline](row)) if texts else ()
        return [Score(self.target, sample, text, group.prompt.prefill) for sample in seen for text in texts]

    def score(self, group: Group, replies: Sequence[Reply]) -> list[RewardResult]:
        if self._blind(group):
            return [RewardResult(None, {"skipped": "the row has no picture to take away"})] * len(group.rollouts)
        half = len(replies) // 2
        pairs = zip(replies[:half], replies[half:], strict=True)
        return [_result(*next(pairs)) if rollout.text else RewardResult(0.0) for rollout in group.rollouts]

    def _blind(self, group: Group) -> bool:
        return self.baseline == "image" and not group.sample.media


def _result(given: Reply, ablated: Reply) -> RewardResult:
    if (error := given.error or ablated.error) is not None:
        return RewardResult(None, {"error": error})
    with_it, without = (min(-fmean(reply.logprobs), MOST) for reply in (given, ablated))
    return RewardResult(explained(with_it, without), {"log_ppl": with_it, "log_ppl_baseline": without})


def explained(log_ppl: float, log_ppl_baseline: float) -> float:
    """explained(log(5), log(20)) -> 0.75; never below -1."""
    return max(-1.0, 1 - math.exp(log_ppl - log_ppl_baseline))
