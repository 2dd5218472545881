"""Views: pure, seeded changes of a Sample, by name. Rewards, stress tests and training-time augmentation share them.

A view keeps the row's id and gold answer, which follows its option: where the evidence is taken away or turned round (image_swapped,
frames_reversed), the gold answer is what the row had and no longer what is shown. Views of text load no image library, and no view decodes
pictures or runs a model: pixels are changed when a medium is decoded (`data.edits`).
"""

import importlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

from vlm_rl.errors import RowError, UserError, unknown
from vlm_rl.seeds import stable_hash
from vlm_rl.types import Box, Sample

SEVERITIES = (1, 2, 3, 4, 5)


class NotApplicable(RowError):
    """The view has nothing to change in this row, for the reason given: to be counted, never passed over."""


@dataclass(frozen=True)
class Draw:
    """What a view depends on beside the row: Draw(seed=7, severity=3, others=rows, boxes=((0, 0, 40, 40),))

    `severity` scales the changes of pixels and frames. `others` are rows to take another picture or caption from. `boxes` take the place of
    the row's own (`meta["boxes"]`), in pixels of its upright picture. Raises UserError for a severity other than 1 to 5.
    """

    seed: int
    severity: int = 3
    others: Sequence[Sample] = ()
    boxes: Sequence[Box] = ()

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise UserError(f"severity {self.severity}: write 1 (mild) to {SEVERITIES[-1]}; for no change leave the view out")

    def rng(self, *key: object) -> random.Random:
        """The generator for `key`. A severity is no part of it, so that what is drawn at one holds at all."""
        return random.Random(stable_hash(self.seed, *key))


View = Callable[[Sample, Draw], Sample]

VIEWS: dict[str, str] = {
    "boxes_covered": "data.views_image:boxes_covered",
    "boxes_cropped": "data.views_image:boxes_cropped",
    "boxes_kept": "data.views_image:boxes_kept",
    "caption_irrelevant": "data.views_text:caption_irrelevant",
    "caption_right": "data.views_text:caption_right",
    "caption_wrong": "data.views_text:caption_wrong",
    "caption_wrong_disclaimer": "data.views_text:caption_wrong_disclaimer",
    "frames_dropped": "data.views_video:frames_dropped",
    "frames_frozen": "data.views_video:frames_frozen",
    "frames_reversed": "data.views_video:frames_reversed",
    "frames_shuffled": "data.views_video:frames_shuffled",
    "hint_consistency": "data.views_text:hint_consistency",
    "hint_consistency_right": "data.views_text:hint_consistency_right",
    "hint_grader": "data.views_text:hint_grader",
    "hint_grader_right": "data.views_text:hint_grader_right",
    "hint_metadata": "data.views_text:hint_metadata",
    "hint_metadata_right": "data.views_text:hint_metadata_right",
    "hint_opinion": "data.views_text:hint_opinion",
    "hint_opinion_right": "data.views_text:hint_opinion_right",
    "hint_sycophancy": "data.views_text:hint_sycophancy",
    "hint_sycophancy_right": "data.views_text:hint_sycophancy_right",
    "hint_unethical": "data.views_text:hint_unethical",
    "hint_unethical_right": "data.views_text:hint_unethical_right",
    "hint_visual_pattern": "data.views_options:hint_visual_pattern",
    "hint_visual_pattern_right": "data.views_options:hint_visual_pattern_right",
    "image_blank": "data.views_image:image_blank",
    "image_blur": "data.views_image:image_blur",
    "image_jpeg": "data.views_image:image_jpeg",
    "image_noise": "data.views_image:image_noise",
    "image_occluded": "data.views_image:image_occluded",
    "image_random": "data.views_image:image_random",
    "image_rotated": "data.views_image:image_rotated",
    "image_swapped": "data.views_image:image_swapped",
    "option_added": "data.views_options:option_added",
    "options_permuted": "data.views_options:options_permuted",
    "question_paraphrased": "data.views_text:question_paraphrased",
    "think_empty": "data.views_text:think_empty",
    "think_right": "data.views_text:think_right",
    "think_wrong": "data.views_text:think_wrong",
    "think_wrong_but": "data.views_text:think_wrong_but",
}


def find(name: str, where: str = "") -> View:
    """The view of the table, or one of your own named "module:name". Raises UserError, with the nearest name of the table."""
    if name not in VIEWS and ":" not in name:
        raise unknown("view", name, VIEWS, where)
    module, _, attribute = VIEWS.get(name, name).partition(":")
    try:
        return vars(importlib.import_module(module))[attribute]
    except (ImportError, KeyError, ValueError) as error:
        raise UserError(f'view "{name}"{where and f" in {where}"}: there is no such function ({error})') from error


def compose(names: Sequence[str], where: str = "") -> View:
    """One view of several, made in order: compose(["options_permuted", "image_blur"]). Names are checked before anything is made."""
    views = [find(name, where) for name in names]
    return lambda sample, draw: reduce(lambda changed, view: view(changed, draw), views, sample)


def apply(names: Sequence[str], sample: Sample, draw: Draw) -> Sample:
    """The row under these views. Raises UserError for an unknown name, NotApplicable where a view has nothing to change."""
    return compose(names)(sample, draw)


def blank(sample: Sample) -> Sample:
    """Every picture and video replaced by a uniform grey one of the same upright size and length: what can be answered without seeing.

    A row without media is returned as it is. Raises RowError for an unreadable medium.
    """
    from data.views_image import image_blank

    return image_blank(sample, Draw(0)) if sample.media else sample
