"""Strangers' evaluators, one for every capability, so small that what they store can be foretold."""

from typing import ClassVar

from eval.evaluator import Evaluator, Figure, Section
from vlm_rl.types import Generate, Sampling, Score


class Begun(Evaluator):
    """Begins the answer of the model and lets it go on."""

    needs: ClassVar[frozenset[str]] = frozenset({"prefill"})
    beginning = "<think>I see"

    def rounds(self, case):
        (reply,) = yield [Generate("policy", case.row, case.greedy, self.beginning)]
        return [case.record("begun/once", case.row, reply, prefilled=self.beginning)]

    def measure(self, study):
        return Section("Begun", "", (Figure("answered", float(len(study.of("begun/once"))), len(study.rows), unit="count"),))


class Told(Evaluator):
    """Keeps the log-probs of the likeliest first tokens."""

    needs: ClassVar[frozenset[str]] = frozenset({"alternatives"})

    def rounds(self, case):
        (reply,) = yield [Generate("policy", case.row, Sampling(1, 0.0, alternatives=3))]
        return [case.record("told/first", case.row, reply, told=dict(reply.alternatives))]

    def measure(self, study):
        return Section("Told", "", (Figure("told", float(len(study.of("told/first"))), len(study.rows), unit="count"),))


class Scored(Evaluator):
    """Asks how likely a given answer is."""

    needs: ClassVar[frozenset[str]] = frozenset({"score", "prefill"})

    def rounds(self, case):
        (reply,) = yield [Score("policy", case.row, "A")]
        return [case.record("scored/a", case.row, reply, nats=sum(reply.logprobs))]

    def measure(self, study):
        return Section("Scored", "", (Figure("scored", float(len(study.of("scored/a"))), len(study.rows), unit="count"),))
