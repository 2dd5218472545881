"""A reward without labels: the answer that most rollouts give to another wording of the question. Co-Reward (I), arXiv 2508.00410.

    value_i = 1 if answer_i is the majority answer to the other view of the row, else 0

Deviations: only the row's own rollouts are trained, the others are questions to the policy; the other view may be any of `data.views`, or
the row's own `rephrased` text; answers are compared by what they say (options by contents); a tied or weak vote is no label.
"""

from collections.abc import Sequence
from dataclasses import replace

from data import views
from rewards.agreement import canonical, majority
from rewards.base import Reward, Rounds, whole_text
from rewards.response import parse
from vlm_rl.errors import RowError, UserError
from vlm_rl.seeds import stable_hash
from vlm_rl.types import Generate, Group, Reply, RewardResult, Sample, Sampling


class CoReward(Reward):
    """`votes` answers are sampled to the row's `rephrased` question, where it has one, else to the row under `view`.

    A vote needs `least_share` of the answers that can be read. The group is skipped where the view has nothing to change and where the
    vote is no label; without a single answer to vote on, all get 0. detail: voted (share that can be read).
    """

    range = (0.0, 1.0)
    targets = ("policy",)

    def __init__(
        self,
        view: str = "question_paraphrased",
        votes: int = 8,
        least_share: float = 0.5,
        max_new_tokens: int = 256,
        temperature: float = 1.0,
    ):
        if votes < 2 or not 0 <= least_share <= 1:
            raise UserError(f"votes is 2 or more, least_share from 0 to 1, not {votes} and {least_share}")
        views.find(view, "view")
        self.view, self.votes, self.least_share = view, votes, least_share
        self.sampling = Sampling(max_new_tokens, temperature, ("</answer>",))

    def rounds(self, group: Group) -> Rounds:
        try:
            other = self.other(group.sample, group.seed)
        except RowError as error:
            return [RewardResult(None, {"skipped": error.reason})] * len(group.rollouts)
        seeds = [stable_hash(group.seed, "co_reward", i) for i in range(self.votes)]
        replies = yield [Generate("policy", other, self.sampling, seed=seed) for seed in seeds]
        return self._results(group, other, replies)

    def other(self, sample: Sample, seed: int) -> Sample:
        """The row as it is asked again. Raises RowError where there is nothing to change."""
        rephrased = sample.meta.get("rephrased")
        if rephrased is not None:
            if not isinstance(rephrased, str) or not rephrased.strip():
                raise RowError(sample.id, f"rephrased is the question in other words, not {rephrased!r}")
            return replace(sample, question=rephrased)
        return views.apply([self.view], sample, views.Draw(seed))

    def _results(self, group: Group, other: Sample, replies: Sequence[Reply]) -> list[RewardResult]:
        if errors := [reply.error for reply in replies if reply.error is not None]:
            return [RewardResult(None, {"error": errors[0]})] * len(group.rollouts)
        votes = [canonical(parse(other.prefill + reply.text).answer, other) for reply in replies]
        said = [canonical(parse(whole_text(group, rollout)).answer, group.sample) for rollout in group.rollouts]
        label = majority(votes, self.least_share)
        if label is None and any(vote is not None for vote in votes):
            return [RewardResult(None, {"skipped": "the vote is tied or weak"})] * len(said)
        voted = sum(vote is not None for vote in votes) / len(votes)
        return [RewardResult(float(label is not None and answer == label), {"voted": voted}) for answer in said]
