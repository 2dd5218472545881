"""Which evaluators there are: a table by name. It loads none of them, so reading it is cheap.

A config names one as `evaluators: {label: {use: name, ...}}`, or a stranger's own as `use: module:Name`.
"""

EVALUATORS: dict[str, str] = {
    "accuracy": "eval.accuracy:Accuracy",
    "acknowledgement": "eval.acknowledgement:Acknowledgement",
    "consistency": "eval.consistency:Consistency",
    "counterfactual": "eval.counterfactual:Counterfactual",
    "early_answering": "eval.early_answering:EarlyAnswering",
    "evidence": "eval.evidence:Evidence",
    "inference_scaling": "eval.inference_scaling:InferenceScaling",
    "inference_scaling_early": "eval.inference_scaling:InferenceScalingEarly",
    "interventions": "eval.interventions:Interventions",
    "mistake_injection": "eval.mistake_injection:MistakeInjection",
    "monitorability": "eval.monitorability:Monitorability",
    "option_order": "eval.option_order:OptionOrder",
    "perturb": "eval.perturb:Perturb",
    "scene_truth": "eval.truth:SceneTruth",
}
