"""Does a listener who reads the beginning of the reasoning come to the speaker's answer? REMUL, arXiv 2602.16154.

    match     matches / n                           n = listeners' continuations of a rollout, one per cut
    balanced  (matches + 3 correct) / (n + 3)       correct: the speaker's answer is right

Deviations: values are divided by their greatest; one listener (the frozen start, or the policy itself) and two cuts in place of three
larger models and three; a reasoning of one line is cut between sentences. It pays for agreement, right or wrong: use it beside `accuracy`.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from data.views import blank
from rewards.agreement import canonical
from rewards.base import Reward, Rounds, whole_text
from rewards.care import READERS
from rewards.grading import is_correct
from rewards.option_shuffle import opened, reasoning
from rewards.response import parse
from vlm_rl.errors import UserError, unknown
from vlm_rl.seeds import stable_hash
from vlm_rl.types import Generate, Group, Reply, RewardResult, Sampling

FORMS = ("match", "balanced")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


class Listeners(Reward):
    """`target` goes on from the first `cuts` of the reasoning (shares of its lines); `blind` shows it grey pictures, which tells whether
    the reasoning carries what was seen. A rollout without reasoning or answer gets 0. detail: matches (share), heard.
    """

    range = (0.0, 1.0)

    def __init__(
        self,
        target: str = "start",
        cuts: Sequence[float] = (0.5, 0.75),
        form: str = "match",
        blind: bool = False,
        max_new_tokens: int = 256,
        temperature: float = 0.9,
    ):
        for name, given, known in (("form", form, FORMS), ("target", target, READERS)):
            if given not in known:
                raise unknown(name, str(given), known)
        if not cuts or not all(0 < cut < 1 for cut in cuts):
            raise UserError(f"cuts are shares of the reasoning above 0 and below 1, such as [0.5, 0.75], not {cuts}")
        self.target, self.targets, self.cuts, self.form, self.blind = target, (target,), tuple(cuts), form, blind
        self.sampling = Sampling(max_new_tokens, temperature, ("</answer>",))
        self.edge = (len(cuts) - 3) / (len(cuts) + 3) if form == "balanced" else None

    def rounds(self, group: Group) -> Rounds:
        begun = opened(group.prompt)
        turns = [whole_text(group, rollout) for rollout in group.rollouts]
        heard: dict[int, list[str]] = {}
        for i, turn in enumerate(turns):
            trace = reasoning(turn, begun)
            if trace is not None and trace.strip() and canonical(parse(turn).answer, group.sample) is not None:
                heard[i] = [("" if begun else "<think>") + beginning(trace, cut) for cut in self.cuts]
        row = replace(blank(group.sample) if self.blind else group.sample, prefill="")
        queries = [
            Generate(self.target, row, self.sampling, prefill, stable_hash(group.seed, "listeners", i, k))
            for i, prefills in heard.items()
            for k, prefill in enumerate(prefills)
        ]
        waiting = iter((yield queries))
        said = {i: [(prefill, next(waiting)) for prefill in prefills] for i, prefills in heard.items()}
        return [self._result(group, turn, said.get(i)) for i, turn in enumerate(turns)]

    def _result(self, group: Group, turn: str, said: Sequence[tuple[str, Reply]] | None) -> RewardResult:
        if said is None:
            return RewardResult(0.0, {"heard": False})
        if errors := [reply.error for _, reply in said if reply.error is not None]:
            return RewardResult(None, {"error": errors[0]})
        answer = parse(turn).answer
        own = canonical(answer, group.sample)
        matches = sum(canonical(parse(prefill + reply.text).answer, group.sample) == own for prefill, reply in said)
        value = agreed(matches, len(said), is_correct(group.sample, answer) if self.form == "balanced" else None)
        return RewardResult(value, {"matches": matches / len(said), "heard": True})


def beginning(trace: str, cut: float) -> str:
    """The first max(1, int(n * cut)) of a trace's n lines, or of its sentences where it has one line. beginning("A. B.", 0.5) -> "A. " """
    pieces = re.findall(r".*\n|.+", trace) if trace.strip("\n").count("\n") else _sentences(trace)
    return "".join(pieces[: max(1, int(len(pieces) * cut))])


def _sentences(text: str) -> list[str]:
    ends = [match.end() for match in _SENTENCE.finditer(text)]
    return [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True) if text[a:b].strip()]


def agreed(matches: int, count: int, correct: bool | None) -> float:
    """agreed(5, 9, None) -> 5 / 9; agreed(5, 9, True) -> 8 / 12"""
    return matches / count if correct is None else (matches + 3 * correct) / (count + 3)
