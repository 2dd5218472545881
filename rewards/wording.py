"""Removing what surrounds an answer without being part of it: marks, LaTeX wrappers, lead-in words. It decides nothing about equality."""

import re

_WRAPPER = re.compile(r"\\(?:boxed|text|textbf|mathrm|mathbf)\s*\{(.*)\}", re.DOTALL)
_PAIRED = "*_`\"'$"
_LEAD_IN = re.compile(
    r"(?:(?:so|thus|hence|therefore)\b,?\s*)?(?:"
    r"(?:(?:the|my)\s+)?(?:(?:final|correct|right|best)\s+)?(?:answer|option|choice)\b\s*(?:(?:is|would be)\b\s*:?|:|=)?"
    r"|it\s+is\b|it's\b|this\s+is\b|there\s+(?:is|are)\b)\s*",
    re.IGNORECASE,
)
_ARTICLE = re.compile(r"(?:an?|the)\s+", re.IGNORECASE)
_LAYERS = 4


def collapsed(text: str) -> str:
    """Every run of whitespace as one space, none at the ends."""
    return " ".join(text.split())


def normal(text: str) -> str:
    """For comparing: case folded, whitespace collapsed, wrappers and a final full stop removed. "The  Cat." -> "the cat"."""
    return unwrapped(collapsed(text)).rstrip(".").rstrip().casefold()


def unwrapped(text: str) -> str:
    """Without paired marks and LaTeX wrappers around the whole. "**\\\\boxed{B}**" -> "B"."""
    text = text.strip()
    for _ in range(_LAYERS):
        before = text
        text = _unpaired(text)
        wrapper = _WRAPPER.fullmatch(text)
        if wrapper and _balanced(wrapper.group(1)):
            text = wrapper.group(1).strip()
        if text == before:
            break
    return text


def _unpaired(text: str) -> str:
    """Without the mark that begins and ends it, however often repeated; all at once, because a hostile text is nothing but marks."""
    mark = text[:1]
    if len(text) < 2 or mark not in _PAIRED:
        return text
    count = min(len(text) - len(text.lstrip(mark)), len(text) - len(text.rstrip(mark)), len(text) // 2)
    return text[count : len(text) - count].strip()


def _balanced(text: str) -> bool:
    """No brace closes one opened outside, so that "\\\\text{a} and \\\\text{b}" is not one wrapper."""
    depth = 0
    for brace in re.findall(r"[{}]", text):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            return False
    return depth == 0


def without_lead_in(text: str) -> str:
    """Without "the answer is", "option", "it is" and the like at the start. "So the correct answer is option B" -> "B"."""
    for _ in range(_LAYERS):
        match = _LEAD_IN.match(text)
        if match is None or match.end() == len(text):
            break
        text = text[match.end() :]
    return text


def without_article(text: str) -> str:
    """Without "a", "an" or "the" at the start. "a cat" -> "cat"."""
    match = _ARTICLE.match(text)
    return text[match.end() :] if match else text
