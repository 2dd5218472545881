"""The raw score of a scalar reward model, to be made something bounded by a transform: PAR, LSC, sigmoid, rank. It knows no rule.

`hybrid` puts such a score on [0, 1] by two constants; here the row's own `reference_scores` may decide (see `transforms.par`).
"""

import math
from collections.abc import Mapping
from typing import Any

from rewards.base import Reward, Rounds, whole_text
from rewards.hybrid import read_number
from rewards.judge_call import bare_trace, judge_call, question_of, why_unread
from rewards.judging import content_free
from rewards.response import parse
from vlm_rl.config import RewardConfig
from vlm_rl.errors import UserError
from vlm_rl.types import Generate, Group, Reply, RewardResult, Sample, Sampling

BOUNDING = ("clip", "log_sigmoid", "par", "rank", "sigmoid", "threshold")


class Scalar(Reward):
    """r(question, trace and answer) as the judge of kind reward_model says, any number.

    A response without an answer, or one without content, gets the least score of its group, and nobody is asked. detail: judged, empty.
    """

    range = (-math.inf, math.inf)

    def __init__(self, scorer: str | Mapping[str, Any]):
        self.call = judge_call(scorer)
        self.targets, self.kinds = (self.call.name,), {self.call.name: "reward_model"}

    def check(self, label: str, rewards: Mapping[str, Reward], configs: Mapping[str, RewardConfig]) -> None:
        transform = configs[label].transform
        if configs[label].weight and (transform is None or transform.use not in BOUNDING):
            raise UserError(f"rewards.{label} has no bounds; give it a transform of {', '.join(BOUNDING)}, or weight 0, which only logs it")

    def rounds(self, group: Group) -> Rounds:
        texts = [whole_text(group, rollout) for rollout in group.rollouts]
        answers = [parse(text).answer for text in texts]
        asked = [i for i, answer in enumerate(answers) if answer is not None and not content_free(answer)]
        replies = yield [self._query(group.sample, f"{bare_trace(texts[i])}\n{answers[i]}".strip()) for i in asked]
        numbers = {i: _result(reply) for i, reply in zip(asked, replies, strict=True)}
        known = [result.value for result in numbers.values() if result.value is not None]
        least = RewardResult(min(known), {"empty": True}) if known else RewardResult(None, {"skipped": "no response of the group answers"})
        return [numbers.get(i, least) for i in range(len(texts))]

    def _query(self, sample: Sample, response: str) -> Generate:
        media = sample.media if self.call.media else ()
        return Generate(self.call.name, Sample(sample.id, question_of(sample), "", media=media, response=response), Sampling(1, 0.0))


def _result(reply: Reply) -> RewardResult:
    number = read_number(reply.text) if reply.error is None else None
    return RewardResult(None, {"error": why_unread(reply)}) if number is None else RewardResult(number, {"judged": number, "empty": False})
