"""Answer-consistency verification (ACRE, arXiv 2510.10104): does the same reasoning lead to the same right option in another order?

Each rollout of a multiple-choice question is asked again: the options permuted, the assistant's turn prefilled with the rollout's own
reasoning up to `<answer>`. With a the first answer, a~ the second and y the right one, all as option contents,

    r_c = alpha_1 if a = y and a~ = y;  alpha_2 if only a = y;  alpha_3 if only a~ = y;  0 otherwise

averaged over `shuffles` orders. An answer that is missing or cannot be read is wrong. There is no gradient through the second pass.

The paper's values of alpha, its second prompt and its way of combining were not available to us: all are arguments, their defaults ours.
Deviations: the unchanged order is excluded unless `allow_identity`; the `likelihood` form asks for no text. Not a reproduction.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from data.answers import strip_letters
from data.options import option_order
from rewards import option_shuffle
from rewards.accuracy import Accuracy
from rewards.base import Reward, whole_text
from rewards.grading import grade
from rewards.option_shuffle import CLOSING, Contents, Shuffle
from rewards.response import parse
from vlm_rl.config import RewardConfig
from vlm_rl.errors import UserError, unknown
from vlm_rl.seeds import stable_hash
from vlm_rl.types import LETTERS, Generate, Group, Query, Reply, RewardResult, Rollout, Sample, Sampling, Score

MODES = ("additive", "replace")
FORMS = ("generate", "likelihood")
_TARGET = "policy"


def case_of(first: Contents | None, second: Contents | None, right: Contents) -> int:
    """1 both right, 2 only the first, 3 only the second, 4 neither, whether or not they agree. None is wrong."""
    return {(True, True): 1, (True, False): 2, (False, True): 3, (False, False): 4}[first == right, second == right]


def consistency(first: Contents | None, seconds: Sequence[Contents | None], right: Contents, alpha: Sequence[float]) -> float:
    """r_c, the mean over the second answers. consistency({1}, [{1}, {0}], {1}, (1, .5, .25)) -> .75"""
    return fmean((*alpha, 0.0)[case_of(first, second, right) - 1] for second in seconds)


@dataclass(frozen=True)
class _Second:
    """One question asked again: the row in its new order and how the assistant's turn begins."""

    sample: Sample
    prefill: str


@dataclass(eq=False)
class Acre(Reward):
    """r_c per rollout. `form` generate writes the second answer greedily, likelihood takes the likeliest option letter without writing.

    `mode` additive pays r_c beside accuracy. replace pays it instead: accuracy must then have weight 0, and groups without r_c are paid
    their accuracy here. `canonicalise` replaces letters that the reasoning names explicitly by what they stand for, before it is re-fed.
    Orders: see `option_shuffle.Shuffle`; each depends on the group's seed, the rollout's index and the number of the shuffle alone.
    """

    alpha: Sequence[float] = (1.0, 0.5, 0.25)
    mode: str = "additive"
    form: str = "generate"
    shuffles: int = 1
    allow_identity: bool = False
    move_key: bool = False
    skip_ordered_numbers: bool = False
    canonicalise: bool = False
    max_new_tokens: int = 8

    targets = (_TARGET,)

    def __post_init__(self) -> None:
        for name, given, known in (("mode", self.mode, MODES), ("form", self.form, FORMS)):
            if given not in known:
                raise unknown(name, str(given), known)
        if not _are_coefficients(self.alpha):
            raise UserError(f"alpha is three numbers, alpha_1 > alpha_2 >= alpha_3 >= 0, such as [1.0, 0.5, 0.25], not {self.alpha}")
        for name, count in (("shuffles", self.shuffles), ("max_new_tokens", self.max_new_tokens)):
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise UserError(f"{name} is a whole number, 1 or more, not {count!r}")
        for name in ("allow_identity", "move_key", "skip_ordered_numbers", "canonicalise"):
            if not isinstance(vars(self)[name], bool):
                raise UserError(f"{name} is true or false, not {vars(self)[name]!r}")
        if self.allow_identity and self.move_key:
            raise UserError("move_key leaves out the unchanged order that allow_identity lets in; write one of them")
        self.shuffle = Shuffle(self.allow_identity, self.move_key, self.skip_ordered_numbers)
        # A wrong answer earns at most alpha_3, a right one at least alpha_2; where the term is left out of a group, both earn nothing.
        self.edge = self.alpha[2] - self.alpha[1] if self.mode == "replace" else 0.0

    def check(self, label: str, rewards: Mapping[str, Reward], configs: Mapping[str, RewardConfig]) -> None:
        for other, reward in rewards.items():
            if self.mode == "replace" and isinstance(reward, Accuracy) and configs[other].weight:
                raise UserError(
                    f"rewards.{label}.mode=replace pays for right answers itself; write rewards.{other}.weight=0, which only logs them, "
                    f"or rewards.{label}.mode=additive"
                )

    def ask(self, group: Group) -> list[Query]:
        if self._obstacle(group.sample):
            return []
        return [query for seconds in self._seconds(group) for second in seconds for query in self._queries(second)]

    def score(self, group: Group, replies: Sequence[Reply]) -> list[RewardResult]:
        """detail: `orders` (content index by slot), `first` and `second` (contents named), and the metrics of `docs/rewards.md`."""
        if reason := self._obstacle(group.sample):
            return [self._left_out(group, rollout, {"skipped": reason}) for rollout in group.rollouts]
        waiting = iter(replies)
        results = [self._result(group, r, s, waiting) for r, s in zip(group.rollouts, self._seconds(group), strict=True)]
        if self.mode == "replace" and any(result.value is None for result in results):
            return [self._left_out(group, r, result.detail) for r, result in zip(group.rollouts, results, strict=True)]
        return results

    def _obstacle(self, sample: Sample) -> str | None:
        """Why the row is not asked again."""
        obstacle = self.shuffle.obstacle(sample)
        several = self.form == "likelihood" and len(option_shuffle.gold_contents(sample)) > 1 if obstacle is None else False
        return "several options are right, and the likelihood form reads one letter" if several else obstacle

    def _seconds(self, group: Group) -> list[list[_Second]]:
        """What each rollout is asked again: one a shuffle, nothing without a think block to re-feed.

        Rows in the same order are one object, so that questions which share their reasoning too share a prompt.
        """
        rows: dict[tuple[int, ...], Sample] = {}
        seconds: list[list[_Second]] = []
        for rollout in group.rollouts:
            prefill = self._prefill(group, rollout)
            shuffled = [self.shuffle(group.sample, stable_hash(group.seed, rollout.index, m)) for m in range(self.shuffles)]
            same = [rows.setdefault(option_order(row), row) for row in shuffled]
            seconds.append([] if prefill is None else [_Second(row, prefill) for row in same])
        return seconds

    def _prefill(self, group: Group, rollout: Rollout) -> str | None:
        turn, opened = whole_text(group, rollout), option_shuffle.opened(group.prompt)
        trace = option_shuffle.reasoning(turn, opened)
        if trace is not None and self.canonicalise:
            trace = option_shuffle.without_letters(trace, strip_letters(group.sample.options))
        return None if trace is None else option_shuffle.refed(trace, turn, opened)

    def _queries(self, second: _Second) -> list[Query]:
        if self.form == "generate":
            return [Generate(_TARGET, second.sample, Sampling(self.max_new_tokens, 0.0, (CLOSING,)), second.prefill)]
        letters = LETTERS[: len(second.sample.options)]
        return [Score(_TARGET, second.sample, letter, second.prefill) for letter in letters]

    def _left_out(self, group: Group, rollout: Rollout, detail: Mapping[str, Any]) -> RewardResult:
        """Without r_c there is nothing beside accuracy, or accuracy in its place."""
        if self.mode == "additive":
            return RewardResult(None, detail)
        accuracy = grade(group.sample, parse(whole_text(group, rollout)).answer)
        return RewardResult(accuracy, {**detail, "accuracy_instead": True})

    def _result(self, group: Group, rollout: Rollout, asked: Sequence[_Second], waiting: Iterator[Reply]) -> RewardResult:
        said = [[next(waiting) for _ in self._queries(second)] for second in asked]
        if errors := [reply.error for replies in said for reply in replies if reply.error is not None]:
            return RewardResult(None, {"error": errors[0]})
        first = option_shuffle.contents(parse(whole_text(group, rollout)).answer, group.sample)
        right = option_shuffle.gold_contents(group.sample)
        chances = [_chances(s.sample, replies) for s, replies in zip(asked, said, strict=True)] if self.form == "likelihood" else []
        if chances:
            seconds = [frozenset({max(chance, key=lambda content: chance[content])}) for chance in chances]
        else:
            seconds = [option_shuffle.contents(r[0].text.partition(CLOSING)[0], s.sample) for s, r in zip(asked, said, strict=True)]
        seconds = seconds or [None] * self.shuffles
        value = consistency(first, seconds, right, self.alpha)
        detail: dict[str, Any] = {"orders": [list(option_order(second.sample)) for second in asked]}
        detail |= _answers(first, seconds, right) | _of_trace(group, rollout, value) | {"asked": bool(asked)}
        if chances and first is not None and len(first) == 1:
            detail["p_kept"] = fmean(chance[next(iter(first))] for chance in chances)
        return RewardResult(value, detail)


def _are_coefficients(alpha: object) -> bool:
    if not isinstance(alpha, Sequence) or len(alpha) != 3:
        return False
    plain = all(isinstance(a, int | float) and not isinstance(a, bool) and math.isfinite(a) for a in alpha)
    return plain and alpha[0] > alpha[1] >= alpha[2] >= 0


def _chances(sample: Sample, replies: Sequence[Reply]) -> dict[int, float]:
    """Probability of each option content, over the live letters alone."""
    logprobs = [sum(reply.logprobs) for reply in replies]
    most = max(logprobs)
    weights = [math.exp(logprob - most) for logprob in logprobs]
    return {content: weight / sum(weights) for content, weight in zip(option_order(sample), weights, strict=True)}


def _answers(first: Contents | None, seconds: Sequence[Contents | None], right: Contents) -> dict[str, Any]:
    """What was answered, and its numbers. A missing answer agrees with nothing, not even with another missing one."""
    cases = [case_of(first, second, right) for second in seconds]
    kept = fmean(float(first is not None and second == first) for second in seconds)
    detail: dict[str, Any] = {f"case{case}": fmean(float(c == case) for c in cases) for case in (1, 2, 3, 4)}
    detail |= {"oscr_fixed": kept, "oscr_correct": kept if first == right else 0.0}
    detail["second_read"] = fmean(float(second is not None) for second in seconds)
    if first is not None and any(second is not None for second in seconds):
        detail["consistent"] = kept / detail["second_read"]
    detail["first"] = sorted(first) if first is not None else None
    detail["second"] = [sorted(second) if second is not None else None for second in seconds]
    return detail


def _of_trace(group: Group, rollout: Rollout, value: float) -> dict[str, Any]:
    """r_c apart for traces that name a letter, which another order makes stale, and for those that do not."""
    trace = option_shuffle.reasoning(whole_text(group, rollout), option_shuffle.opened(group.prompt))
    if trace is None:
        return {}
    named = option_shuffle.names_letter(trace, group.sample.options)
    return {"names_letter": named, "r_c_letter" if named else "r_c_no_letter": value}
