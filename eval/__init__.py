"""Which evaluators there are: a table by name. It loads none of them, so `import eval` is cheap.

A config names one as `evaluators: {label: {use: name, ...}}`, or a stranger's own as `use: module:Name`.
"""

EVALUATORS: dict[str, str] = {
    "accuracy": "eval.accuracy:Accuracy",
}
