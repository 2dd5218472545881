"""Making the evaluators that a config names, and saying which of them cannot run where."""

from collections.abc import Mapping
from typing import Any

from eval.benchmarks import find_benchmark
from eval.evaluator import CAPABILITIES, Evaluator
from eval.evaluators import EVALUATORS
from vlm_rl.config_evaluators import EvaluatorConfig
from vlm_rl.errors import UserError, unknown
from vlm_rl.plugins import check_arguments, construct, find_class

ACCURACY = "accuracy"
_SHAPE = "rounds(self, case) and measure(self, study)"


def make_evaluators(configs: Mapping[str, EvaluatorConfig], benchmark: str | None = None) -> dict[str, Evaluator]:
    """One evaluator per label, accuracy first whether it is named or not. All names and arguments are checked before one is made.

    Raises UserError naming `evaluators.LABEL` or `evaluators.LABEL.KEY`, with the nearest known name.
    """
    if benchmark is not None:
        find_benchmark(benchmark)
    wanted = {**({} if ACCURACY in configs else {ACCURACY: EvaluatorConfig()}), **configs}
    classes = {label: _find(config.use or label, f"evaluators.{label}") for label, config in wanted.items()}
    for label, config in wanted.items():
        check_arguments(f"evaluators.{label}", classes[label], config.arguments, list(EvaluatorConfig.model_fields), "evaluator")
    own = {label: {"benchmark": benchmark} if label == ACCURACY and benchmark else {} for label in wanted}
    return {label: construct(f"evaluators.{label}", classes[label], {**own[label], **c.arguments}) for label, c in wanted.items()}


def _find(use: str, where: str) -> Any:
    found: Any = find_class(use, EVALUATORS, where, "evaluator", _SHAPE)
    if not issubclass(found, Evaluator) or found.measure is Evaluator.measure:
        raise UserError(f'{where}.use: "{use}" is no evaluator: write a class(eval.evaluator.Evaluator) with {_SHAPE}')
    return found


def check_targets(evaluators: Mapping[str, Evaluator], judges: Mapping[str, Any]) -> None:
    """Raises UserError for an evaluator that asks a judge whom the config does not name."""
    asked = ((label, target) for label, evaluator in evaluators.items() for target in evaluator.targets)
    for label, target in asked:
        if target == "policy" or target in judges:
            continue
        if not judges:
            raise UserError(f"evaluators.{label} asks the judge '{target}', and the config has no judges: section")
        raise unknown("judge", target, judges, f"evaluators.{label}")


def not_run(evaluators: Mapping[str, Evaluator], capabilities: frozenset[str], who: str) -> dict[str, str]:
    """Why, by label, for those that need what `who` ("the endpoint") cannot do: {"perturb": "the endpoint cannot begin the answer ..."}"""
    missing = {label: sorted(evaluator.needs - capabilities) for label, evaluator in evaluators.items()}
    return {label: f"{who} cannot {' or '.join(CAPABILITIES[n] for n in needs)}" for label, needs in missing.items() if needs}
