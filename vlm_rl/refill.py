"""Dynamic sampling (DAPO, arXiv 2503.14476): which groups are worth training on. The trainer draws further prompts in place of the
others."""

from dataclasses import dataclass

from vlm_rl.types import ScoredGroup


@dataclass(frozen=True)
class Refill:
    """Keep groups whose reward labelled `reward`, as the reward itself said it, differs between rollouts; draw at most `tries` times.

    The verifiable reward decides, not the total, which with a shaped or judged part nearly always differs.
    """

    reward: str
    tries: int

    def keeps(self, scored: ScoredGroup) -> bool:
        """Unscored rollouts are left out; a group with fewer than two scored ones is not kept."""
        known = [part.raw for part in scored.parts[self.reward] if part.raw is not None]
        return len(known) > 1 and max(known) - min(known) > 1e-6 * max(map(abs, known))
