"""A penalty on responses that repeat themselves. It counts n-grams of tokens and knows nothing of what they mean."""

from collections.abc import Sequence

from rewards.base import Reward
from rewards.monitors import distinct_grams
from vlm_rl.errors import UserError
from vlm_rl.types import Group, Reply, RewardResult


class Repetition(Reward):
    """-most * (1 - distinct n-grams / n-grams), over the tokens the model wrote; 0 where it wrote fewer than n.

    A penalty on repeated n-grams is given to long reasoning in arXiv 2502.03373, per token; this is one number for the whole response, as
    is common since. n and most are our choice: 8 tokens seldom come twice in prose, and a loop of any shorter period is caught. Tokens
    are the model's own, so that scripts without spaces count like others; inserted ones are left out. detail: distinct (the share).
    """

    range = (-1.0, 0.0)

    def __init__(self, n: int = 8, most: float = 1.0):
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise UserError(f"n is the tokens of an n-gram, a whole number from 1, not {n!r}")
        if not 0 < most <= 1:
            raise UserError(f"most is the largest penalty, above 0 and at most 1, not {most}")
        self.n, self.most = n, most
        self.edge = most

    def score(self, group: Group, replies: Sequence[Reply]) -> list[RewardResult]:
        written = [[s.token_ids for s in r.completion.segments if s.logprobs is not None] for r in group.rollouts]
        shares = [distinct_grams(segments, self.n) for segments in written]
        return [RewardResult(0.0 - self.most * (1 - share), {"distinct": share}) for share in shares]
