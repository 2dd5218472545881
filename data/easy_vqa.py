"""The public easy-vqa package (MIT; pictures of one coloured shape) as multiple choice, with its own train and test split.

Pictures stay files of the installed package. On request each row carries a demonstration: a trace that names what is seen, the right
conclusion, and a letter that is imperfect in a chosen share of rows. It makes no other rows and draws no pictures.
"""

import importlib.util
import json
import logging
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.options import letter_options
from data.rows import LazyRows, Rows
from vlm_rl.config import DataConfig
from vlm_rl.errors import UserError, unknown
from vlm_rl.seeds import stable_hash
from vlm_rl.types import LETTERS, Media, Sample

logger = logging.getLogger(__name__)

COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
SHAPES = ("circle", "rectangle", "triangle")
YES_NO = ("yes", "no")
DEMONSTRATIONS = ("letter_a",)
_ANSWERS = {"colour": COLOURS, "shape": SHAPES, "yesno": YES_NO}

Facts = Mapping[int, Mapping[str, str]]
Question = tuple[str, str, int]


def load(config: DataConfig) -> Rows:
    """Questions of `config.split` as rows of kind "choice", ids such as "train-0017-00123" (picture, question).

    All questions about a colour or a shape, and as many yes/no questions as leave "yes" and "no" equally often right for plain and for
    negated wording. Of all the package's yes/no questions the wording alone answers 82%: "is there a red shape?" is
    mostly answered no, "is there not a red shape?" mostly yes, and a model trained on them learns to read instead of to look.

    meta: {"image": int, "question_type": "colour" | "shape" | "yesno"} and "colour", "shape" where the picture's are known. Facts come only
    from questions answered by a colour or a shape, because the package words its yes/no questions with "no" and "not". The number of
    options is drawn per question from `config.options` (yes/no: 2, shapes: at most 3), and so is their order, by `config.seed`.

    With `config.demonstrations`, only pictures of known colour and shape are kept and each row has a `response`; `letter_a` is the share
    of them whose letter is "A" whatever the trace concludes. Raises UserError.
    """
    _check(config)
    folder = _folder() / config.split
    questions = _questions(folder / "questions.json")
    return EasyVqa(questions, folder / "images", config)


class EasyVqa(LazyRows):
    """Rows made from question, answer and picture number when asked for; one Media handle per picture, so that each is hashed once."""

    def __init__(self, questions: list[Question], images: Path, config: DataConfig):
        facts = _facts(questions)
        numbered = _balanced(questions)
        if config.demonstrations:
            kept = [(i, q) for i, q in numbered if facts.get(q[2], {}).keys() == {"colour", "shape"}]
            dropped = len(numbered) - len(kept)
            logger.info("easy_vqa: %d demonstrations; %d rows of pictures without known colour and shape dropped", len(kept), dropped)
            numbered = kept
        self._numbered, self._facts, self._config = numbered, facts, config
        self._media = {image: Media("image", path=images / f"{image}.png") for image in {q[2] for _, q in numbered}}

    def __len__(self) -> int:
        return len(self._numbered)

    def row(self, index: int) -> Sample:
        number, (question, answer, image) = self._numbered[index]
        config, kind = self._config, _question_type(answer)
        row_id = f"{config.split}-{image:04d}-{number:05d}"
        seed = stable_hash("easy_vqa", config.seed, row_id)
        known = _ANSWERS[kind]
        fewest, most = (min(limit, len(known)) for limit in config.options)
        count = random.Random(stable_hash(seed, "count")).randint(fewest, most)
        options, letter = letter_options(answer, [other for other in known if other != answer], count, stable_hash(seed, "options"))
        facts = self._facts.get(image, {})
        meta: dict[str, Any] = {"image": image, "question_type": kind, **facts}
        response = _demonstration(answer, letter, facts, config.demonstrations, seed) if config.demonstrations else None
        return Sample(row_id, question, letter, "choice", options, (self._media[image],), response, meta)


def _balanced(questions: list[Question]) -> list[tuple[int, Question]]:
    """Numbered questions, with an equal share of the yes/no questions for each wording (plain, negated) and answer."""
    cells: dict[tuple[bool, str], list[int]] = {}
    for number, (text, answer, _) in enumerate(questions):
        if answer in YES_NO:
            cells.setdefault((bool({"no", "not"} & set(text.split())), answer), []).append(number)
    each = min(map(len, cells.values()), default=0)
    drawn = {n for cell in cells.values() for n in sorted(cell, key=lambda n: stable_hash("easy_vqa balance", n))[:each]}
    return [(n, question) for n, question in enumerate(questions) if question[1] not in YES_NO or n in drawn]


def _demonstration(answer: str, letter: str, facts: Mapping[str, str], shares: Mapping[str, float], seed: int) -> str:
    seen = f"I see a {facts['colour']} {facts['shape']}."
    conclusion = f"So {answer}." if answer in YES_NO else f"The answer is {answer}."
    biased = random.Random(stable_hash(seed, "letter_a")).random() < shares.get("letter_a", 0.0)
    return f"<think>{seen} {conclusion}</think><answer>{LETTERS[0] if biased else letter}</answer>"


def _check(config: DataConfig) -> None:
    if config.path is not None:
        raise UserError("data.path is set but data.name is easy_vqa, which has its own pictures; for your own rows write data.name=jsonl")
    if config.split not in ("train", "test"):
        raise unknown("split", config.split, ("train", "test"), "data.split")
    fewest, most = config.options
    if not 2 <= fewest <= most <= len(LETTERS):
        raise UserError(f"data.options is [fewest, most] with 2 <= fewest <= most <= {len(LETTERS)}, not {list(config.options)}")
    for key, share in config.demonstrations.items():
        if key not in DEMONSTRATIONS:
            raise unknown("imperfection", key, DEMONSTRATIONS, "data.demonstrations")
        if not 0 <= share <= 1:
            raise UserError(f"data.demonstrations.{key} is a share between 0 and 1, not {share}")


def _folder() -> Path:
    spec = importlib.util.find_spec("easy_vqa")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("data set 'easy_vqa' needs the package easy-vqa; run: pip install easy-vqa")
    return Path(next(iter(spec.submodule_search_locations))) / "data"


def _questions(path: Path) -> list[Question]:
    try:
        return [(str(text), str(answer), int(image)) for text, answer, image in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}); run: pip install --force-reinstall easy-vqa") from None


def _facts(questions: list[Question]) -> Facts:
    facts: dict[int, dict[str, str]] = {}
    for _, answer, image in questions:
        kind = _question_type(answer)
        if kind != "yesno":
            facts.setdefault(image, {})[kind] = answer
    return facts


def _question_type(answer: str) -> str:
    return next(kind for kind, answers in _ANSWERS.items() if answer in answers)
