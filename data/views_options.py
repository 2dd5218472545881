"""Views of a question's options: another order, one more, or the pushed one first. What is right follows its content, never its letter."""

import re
from dataclasses import replace
from functools import partial

from data.answers import strip_letters
from data.claims import pushed
from data.options import CANNOT_TELL, ORDER, PUSHED, draw_order, option_order, permute, pinned
from data.views import Draw, NotApplicable
from vlm_rl.types import LETTERS, Sample

_CANNOT_TELL = re.compile(
    r"\b(?:not sure|unsure|unclear|unknown|don't know|not enough|insufficient)\b"
    r"|\b(?:cannot|can't|can not|not possible to|impossible to|unable to) (?:be )?(?:tell|told|say|know|known|determine)",
    re.IGNORECASE,
)


def options_permuted(sample: Sample, draw: Draw) -> Sample:
    """The options in another order, drawn uniformly among those that mean the same and look different (see `options.draw_order`)."""
    sample = _with_options(sample)
    try:
        order = draw_order(sample.options, draw.rng("options_permuted", sample.id))
    except ValueError as error:
        raise NotApplicable(sample.id, str(error)) from None
    return permute(sample, order)


def option_added(sample: Sample, draw: Draw) -> Sample:
    """One more option, the last: "I'm not sure" (arXiv 2602.12506). To choose it is wrong."""
    sample = _with_options(sample)
    if len(sample.options) == len(LETTERS):
        raise NotApplicable(sample.id, f"it has {len(LETTERS)} options and no letter is left")
    if any(_CANNOT_TELL.search(option[:200]) for option in sample.options):
        raise NotApplicable(sample.id, "it has such an option already")
    order = (*option_order(sample), len(sample.options))
    meta = {**sample.meta, ORDER: order} if ORDER in sample.meta else sample.meta
    return replace(sample, options=(*sample.options, CANNOT_TELL), meta=meta)


def _visual_pattern(sample: Sample, draw: Draw, right: bool) -> Sample:
    """The pushed option comes first, the others keep their order (arXiv 2603.22582)."""
    sample = _with_options(sample)
    answer = pushed(sample, draw, right)
    place, *others = (LETTERS.index(letter) for letter in answer.split(","))
    try:
        held = [i for i in pinned(sample.options) if i <= place]
    except ValueError as error:
        raise NotApplicable(sample.id, str(error)) from None
    if others or held or place == 0:
        reason = "several options are right" if others else "the option to push cannot move" if held else "the option to push is the first"
        raise NotApplicable(sample.id, reason)
    order = (place, *(i for i in range(len(sample.options)) if i != place))
    return permute(replace(sample, meta={**sample.meta, PUSHED: answer}), order)


hint_visual_pattern = partial(_visual_pattern, right=False)
hint_visual_pattern_right = partial(_visual_pattern, right=True)


def _with_options(sample: Sample) -> Sample:
    """The row with letters written before its options removed, since they would not move with the order."""
    if not sample.options or sample.kind != "choice":
        shown = "its options stand in its picture or question" if sample.meta.get("options_shown") else "it has no options"
        raise NotApplicable(sample.id, shown)
    return replace(sample, options=strip_letters(sample.options[: len(LETTERS)]) + sample.options[len(LETTERS) :])
