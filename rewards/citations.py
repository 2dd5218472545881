"""Citations right, partly right or wrong: one deterministic part of CRAFT (arXiv 2602.01348), by ids of frames, time spans or regions.

CRAFT adds format, exact answer, citations and judged checks (`checks`), each with weight 1; what a rule decides counts only in well-formed
responses, which here is `gate: requires_format` on `accuracy` and on this. The documents of the paper are frames or regions here.
"""

from collections.abc import Sequence

from rewards.base import Reward, whole_text
from rewards.evidence import cited_ids, gold_ids
from vlm_rl.types import Group, Reply, RewardResult


class Citations(Reward):
    """1 where the ids between `<useful_chunks>` and `</useful_chunks>` are the row's `evidence_ids`, 0.5 where some are, else 0.

    Citing is cheap, so an id too many costs as much as one that is missing. A row without `evidence_ids` is skipped. detail: cited.
    """

    range = (0.0, 1.0)

    def score(self, group: Group, replies: Sequence[Reply]) -> list[RewardResult]:
        gold = gold_ids(group.sample)
        if not gold:
            return [RewardResult(None, {"skipped": "the row has no evidence_ids"})] * len(group.rollouts)
        said = [cited_ids(whole_text(group, rollout)) or [] for rollout in group.rollouts]
        return [RewardResult(1.0 if set(ids) == gold else 0.5 if gold & set(ids) else 0.0, {"cited": len(ids)}) for ids in said]
