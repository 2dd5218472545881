"""Which convention does a policy write boxes in? It is asked where a coloured square is, and its boxes are read in every convention.

A wrong convention gives plausible crops and no error, so a run that reads boxes tries it out first. `ask` and `read` run no model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from PIL import Image

from data.boxes import iou
from data.media import image_size, png_media
from rewards.boxes import CONVENTIONS, Convention, Picture, spoken, to_pixels
from vlm_rl.types import Box, Generate, Media, Reply, Sample, Sampling

QUESTION = "Where is the red square? Give its bounding box."
# (size, square): pictures so small that processors enlarge them, and squares off the centre, or conventions look alike.
SQUARES: tuple[tuple[tuple[int, int], Box], ...] = (
    ((50, 36), (30, 14, 48, 32)),
    ((36, 50), (3, 28, 21, 46)),
    ((330, 250), (180, 120, 290, 230)),
    ((250, 370), (20, 210, 130, 320)),
)
AGREES_WITHIN = 0.05  # of the best convention's overlap: conventions coincide where the processor keeps the size
LEAST = 0.3  # overlap below which no convention can be said to fit


@dataclass(frozen=True)
class Finding:
    """Mean intersection over union by convention, boxes that are missing counting 0, and how many of the `asked` were found."""

    overlap: Mapping[Convention, float]
    found: int
    asked: int

    @property
    def best(self) -> Convention | None:
        """The convention that fits best, None when none does."""
        best = max(self.overlap, key=lambda convention: self.overlap[convention])
        return best if self.overlap[best] >= LEAST else None

    def problem(self, convention: Convention) -> str | None:
        """Why boxes should not be read in this convention, None when they may be."""
        best, listed = self.best, ", ".join(f"{name} {value:.2f}" for name, value in self.overlap.items())
        if best is None:
            return (
                f"the policy's convention of boxes cannot be told: {self.found} boxes for {self.asked} squares, which fit in none (overlap "
                f"{listed}); a policy that cannot point at a square cannot be paid for its boxes"
            )
        if self.overlap[convention] >= self.overlap[best] - AGREES_WITHIN:
            return None
        return f"the policy's boxes fit the convention {best}, not {convention} (overlap {listed}); write convention: {best}"


def ask(target: str = "policy", question: str = QUESTION, max_new_tokens: int = 256) -> list[Generate]:
    """One question per synthetic picture. A policy trained on other words is asked in these: `question`."""
    samples = [Sample(f"square-{i}", question, str(square), media=(_picture(size, square),)) for i, (size, square) in enumerate(SQUARES)]
    return [Generate(target, sample, Sampling(max_new_tokens, 0.0)) for sample in samples]


def read(queries: Sequence[Generate], replies: Sequence[Reply], sizes: Sequence[tuple[int, int]]) -> Finding:
    """The first box of each reply against its square. `sizes` are (height, width) of each picture as the model saw it (`Prompt.sizes`)."""
    overlaps: dict[Convention, list[float]] = {convention: [] for convention in CONVENTIONS}
    found = 0
    for query, reply, seen, (_, square) in zip(queries, replies, sizes, SQUARES, strict=True):
        picture = Picture(*image_size(query.sample.media[0], query.sample.id), seen=seen)
        numbers = next((said.numbers for said in spoken(reply.text) if not isinstance(said.numbers, str)), None)
        found += numbers is not None
        for convention, values in overlaps.items():
            values.append(iou(to_pixels(numbers, convention, picture), square) if numbers else 0.0)
    return Finding({convention: fmean(values) for convention, values in overlaps.items()}, found, len(queries))


def _picture(size: tuple[int, int], square: Box) -> Media:
    image = Image.new("RGB", size, (235, 235, 235))
    left, top, right, bottom = map(int, square)
    image.paste((220, 20, 20), (left, top, right, bottom))
    return png_media(image)
