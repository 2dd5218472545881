"""How a question and its options become the text of the user's turn. Chat templates and media marks are not its business."""

from collections.abc import Callable

from vlm_rl.errors import unknown
from vlm_rl.types import LETTERS, AnswerKind, Sample

Template = Callable[[Sample], str]

_HINTS: dict[AnswerKind, str] = {
    "choice": "the letter of the right option only",
    "number": "a number only",
    "math": "the final result only, as a number or a LaTeX expression",
    "text": "a word or a short phrase only",
    "yesno": "yes or no only",
}


def plain(sample: Sample) -> str:
    """The question, then one line per option. "What colour is it?\\nA. red\\nB. teal" """
    return "\n".join([sample.question, *(f"{letter}. {option}" for letter, option in zip(LETTERS, sample.options, strict=False))])


def think(sample: Sample) -> str:
    """`plain` and the instruction to reason inside <think></think> and answer inside <answer></answer>, with a hint on the kind."""
    instruction = f"First reason step by step inside <think></think>, then give the answer inside <answer></answer>: {_hint(sample)}."
    return f"{plain(sample)}\n\n{instruction}"


def direct(sample: Sample) -> str:
    """`plain` and the instruction to answer at once inside <answer></answer>, with a hint on the kind."""
    return f"{plain(sample)}\n\nGive the answer at once, without any reasoning, inside <answer></answer>: {_hint(sample)}."


def _hint(sample: Sample) -> str:
    """The row's own `meta["answer_form"]`, else by its kind."""
    several = sample.kind == "choice" and "," in sample.answer
    usual = "the letters of all right options, separated by commas" if several else _HINTS[sample.kind]
    return str(sample.meta.get("answer_form") or usual)


TEMPLATES: dict[str, Template] = {"direct": direct, "plain": plain, "think": think}


def render(name: str) -> Template:
    """The template of that name. Raises UserError with the nearest known one."""
    if name not in TEMPLATES:
        raise unknown("template", name, TEMPLATES, "data.template")
    return TEMPLATES[name]
