"""Which evaluators there are: a table by name. It loads none of them, so `import eval` is cheap.

A config names one as `evaluators: {label: {use: name, ...}}`, or a stranger's own as `use: module:Name`.
"""

EVALUATORS: dict[str, str] = {
    "accuracy": "eval.accuracy:Accuracy",
    "consistency": "eval.consistency:Consistency",
    "counterfactual": "eval.counterfactual:Counterfactual",
    "early_answering": "eval.early_answering:EarlyAnswering",
    "mistake_injection": "eval.mistake_injection:MistakeInjection",
    "option_order": "eval.option_order:OptionOrder",
    "perturb": "eval.perturb:Perturb",
}
