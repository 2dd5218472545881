"""The schema of `evaluators:`, in an evaluation and beside a training. Knows no evaluator."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class EvaluatorConfig(BaseModel):
    """One entry of `evaluators:`; `use` defaults to its label. Other keys are the evaluator's own arguments, checked by its constructor."""

    model_config = ConfigDict(frozen=True, extra="allow")
    use: str | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


def filled(given: Any) -> Any:
    """A label alone (`consistency:` with nothing behind it) is an entry without arguments."""
    return {label: {} if entry is None else entry for label, entry in given.items()} if isinstance(given, dict) else given


def check_labels(evaluators: dict[str, EvaluatorConfig]) -> dict[str, EvaluatorConfig]:
    """Raises ValueError for a label that figures and overrides could not carry."""
    if bad := [label for label in evaluators if not label or "." in label or "/" in label]:
        raise ValueError(f"an evaluator's label has no '.' or '/': '{bad[0]}'")
    return evaluators
