"""Does the response name the evidence, by the ids of frames, time spans or regions? LongRLVR's verifiable context reward (ICLR 2026).

With r_a = 1 for a right answer, else 0, P the share of cited ids (repeated ones each count) that are gold, R the share of gold ids cited:

    r = r_a + eta F2 + (1 - eta) r_a F2        F2 = 5 P R / (4 P + R)

and 0 unless the response has exactly one `<useful_chunks>` block and one `<answer>` block. Deviations: a rule grades the answer instead of
a judge; who cites more than `most` ids has F2 = 0, since F2 leans to recall and citing everything would pay; a row without evidence: r_a.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rewards.accuracy import Accuracy
from rewards.base import Reward, whole_text
from vlm_rl.config import RewardConfig
from vlm_rl.errors import RowError, UserError
from vlm_rl.types import Group, Reply, RewardResult, Sample

_BLOCKS = ("useful_chunks", "answer")
_ID = re.compile(r"[^\s,;\[\]\"']+")


class Evidence(Reward):
    """r, in [0, 2], by the row's `evidence_ids`. It pays for the answer too, so the weight of `accuracy` must be 0.

    Ids stand between commas, semicolons, spaces, quotes or square brackets. detail: accuracy, blocks, f2, precision, recall, cited.
    """

    range = (0.0, 2.0)

    def __init__(self, eta: float = 0.1, most: int = 16):
        if not 0 <= eta <= 1 or most < 1:
            raise UserError(f"eta is from 0 to 1, not {eta}; most is the ids that may be cited, 1 or more, not {most}")
        self.eta, self.most, self.accuracy = eta, most, Accuracy()
        self.edge = eta - 1.0  # a wrong answer with all evidence against a right one with none

    def check(self, label: str, rewards: Mapping[str, Reward], configs: Mapping[str, RewardConfig]) -> None:
        for other, reward in rewards.items():
            if isinstance(reward, Accuracy) and configs[other].weight:
                raise UserError(f"rewards.{label} pays for right answers itself; write rewards.{other}.weight=0, which only logs them")

    def score(self, group: Group, replies: Sequence[Reply]) -> list[RewardResult]:
        gold, right = gold_ids(group.sample), [bool(result.detail["correct"]) for result in self.accuracy.score(group, ())]
        texts = [whole_text(group, rollout) for rollout in group.rollouts]
        return [self._result(text, gold, r) if gold else RewardResult(float(r)) for text, r in zip(texts, right, strict=True)]

    def _result(self, text: str, gold: frozenset[str], right: bool) -> RewardResult:
        cited = cited_ids(text)
        if cited is None or _only(_BLOCKS[1], text) is None:
            return RewardResult(0.0, {"accuracy": right, "blocks": False})
        precision, recall = overlap(cited, gold)
        f2 = 5 * precision * recall / (4 * precision + recall) if precision and len(cited) <= max(self.most, len(gold)) else 0.0
        detail = {"accuracy": right, "blocks": True, "f2": f2, "precision": precision, "recall": recall, "cited": len(cited)}
        return RewardResult(right + self.eta * f2 + (1 - self.eta) * right * f2, detail)


def overlap(cited: Sequence[str], gold: frozenset[str]) -> tuple[float, float]:
    """(precision, recall). overlap(["3", "3", "5"], frozenset({"3", "4"})) -> (1 / 3, 1 / 2)"""
    hits = len(gold.intersection(cited))
    return (hits / len(cited) if cited else 0.0), hits / len(gold)


def cited_ids(text: str) -> list[str] | None:
    """What a turn cites, in order; None without exactly one block of citations. "<useful_chunks>[3, 4]</useful_chunks>" -> ["3", "4"]"""
    chunks = _only(_BLOCKS[0], text)
    return None if chunks is None else _ID.findall(chunks)


def gold_ids(sample: Sample) -> frozenset[str]:
    """The row's evidence as text; none without an `evidence_ids` column. Raises RowError when it holds anything but ids."""
    ids: Any = sample.meta.get("evidence_ids") or ()
    if not isinstance(ids, (list, tuple)) or not all(type(i) in (int, str) and _ID.fullmatch(str(i)) for i in ids):
        raise RowError(sample.id, f"evidence_ids is a list of numbers or words without spaces, such as [3, 4], not {ids!r}")
    return frozenset(map(str, ids))


def _only(tag: str, text: str) -> str | None:
    """What the only such block holds; None where there is none, or one of its tags comes twice."""
    begin, end = f"<{tag}>", f"</{tag}>"
    inside, closed, _ = text.partition(begin)[2].partition(end)
    return inside if closed and text.count(begin) == text.count(end) == 1 else None
