"""Reading a benchmark's raw rows: fields, options in their many spellings, gold letters, image marks. Knows no benchmark by name.

Everything raises ValueError with a text that names the field; `data.benchmarks.to_sample` adds the row and the benchmark.
"""

import ast
import difflib
import itertools
import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data.answers import strip_letters
from data.media import media_from
from vlm_rl.types import LETTERS, Media

Row = Mapping[str, Any]

_LONGEST_LITERAL = 50_000
_HIDDEN = ("", "?")
_GOLD = re.compile(r"\(?([A-Za-z])(?:\)|\.|:|\))?")
_LABELLED = re.compile(r"\(?([A-Z])[).:]\s*(\S.*)", re.DOTALL)
_STYLES = (
    re.compile(r"\(([A-Z])\)\s*"),
    re.compile(r"(?<!\S)([A-Z])[.．]\s*"),
    re.compile(r"(?<!\S)([A-Z])\s?[:：]\s*"),
    re.compile(r"(?<!\S)([A-Z])\)\s*"),
)
_HEADING = re.compile(r"\b(?:Choices?|Options?|Select)\s?[:：]\Z", re.IGNORECASE)
_INSTRUCTION = re.compile(r"(?:please\s+)?(?:answer|respond|select|choose|reply)\b", re.IGNORECASE)
_NUMBERED_MARK = re.compile(r"<image\s?([1-9])>")
_ANY_MARK = re.compile(r"<image\s?[1-9]?>")
_DEFAULT_LETTERS = 5


@dataclass(frozen=True)
class Place:
    """Where a raw row came from: its number, hub configuration and split, and the folder its media paths are relative to.

    `bounded` says that videos are whole where a row asks about a part of one.
    """

    number: int = 0
    config: str = ""
    split: str = ""
    base: Path = Path()
    revision: str = ""
    bounded: bool = False


def need(row: Row, *keys: str) -> Any:
    """The first of these fields that is there, even if it is None."""
    found = [key for key in keys if key in row]
    if not found:
        has = ", ".join(map(str, row))[:300] or "nothing"
        others = f" (or {', '.join(keys[1:])})" if keys[1:] else ""
        raise ValueError(f'the field "{keys[0]}"{others} is missing (the row has: {has})')
    return row[found[0]]


def text(row: Row, *keys: str) -> str:
    """The first of these fields as a text; numbers are written out. It must be there and not be empty."""
    found = _as_text(need(row, *keys), keys[0])
    if not found:
        raise ValueError(f'the field "{keys[0]}" is empty')
    return found


def maybe(row: Row, *keys: str) -> str:
    """The first of these fields that holds some text or number; "" when none does."""
    texts = (_as_text(row[key], key) for key in keys if row.get(key) is not None)
    return next((found for found in texts if found), "")


def _as_text(value: Any, key: str) -> str:
    if isinstance(value, bool) or (value is not None and not isinstance(value, (str, int, float))):
        raise ValueError(f'the field "{key}" is a text or a number, not a {type(value).__name__}')
    return "" if value is None else str(value).strip()


def key_text(row: Row, *keys: str) -> str:
    """The gold answer as written, "" where the split hides it (empty, null, "?"); the field itself must be there."""
    value = _as_text(need(row, *keys), keys[0])
    return "" if value in _HIDDEN else value


def mapping(row: Row, key: str) -> Row:
    """A field that holds an object, {} when it holds none."""
    value = row.get(key)
    return value if isinstance(value, Mapping) else {}


def texts(value: Any, key: str) -> tuple[str, ...]:
    """A list of texts or numbers: a list, an array, or a string that holds a Python or JSON list, read as a literal and never run."""
    if isinstance(value, str):
        value = _literal(value, key)
    if value is None:
        return ()
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise ValueError(f'the field "{key}" is a list of texts, not a {type(value).__name__}')
    return tuple(_as_text(entry, key) for entry in value)


def _literal(source: str, key: str) -> Sequence[Any]:
    source = source.strip()
    if not source:
        return ()
    try:
        if len(source) > _LONGEST_LITERAL:
            raise ValueError
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # LaTeX in options: "\d" is no escape
            value = ast.literal_eval(source)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise ValueError(f'the field "{key}" is not a list written as a Python literal: {source[:80]!r}') from None
    if not isinstance(value, (list, tuple)):
        raise ValueError(f'the field "{key}" holds a {type(value).__name__} where a list is expected: {source[:80]!r}')
    return value


def options_of(value: Any, key: str = "options") -> tuple[str, ...]:
    """2 to 26 options without their letters; () for none at all."""
    options = texts(value, key)
    if len(options) == 1 or len(options) > len(LETTERS):
        raise ValueError(f'the field "{key}" has {len(options)} options; from 2 to {len(LETTERS)} can be lettered')
    return strip_letters(options)


def option_columns(row: Row, keys: Iterable[str] = LETTERS[:8], absent: tuple[str, ...] = ("", "nan")) -> tuple[str, ...]:
    """Options that stand in a column each, in order; empty ones are left out."""
    return options_of([option for key in keys if (option := maybe(row, key)) not in absent], "A")


def letter_gold(answer: str, count: int, key: str = "answer") -> str:
    """ "B", "(b)", "B." or "A, C" -> "B", "A,C"; "" stays "". The schema says that it is a letter, so no text is looked for."""
    letters = [_GOLD.fullmatch(part.strip()) for part in answer.split(",")] if answer else []
    found = sorted({match[1].upper() for match in letters if match})
    if not all(letters) or any(letter not in LETTERS[:count] for letter in found):
        raise ValueError(f'the field "{key}" is one of the letters A to {LETTERS[max(count, 1) - 1]}, not {answer[:80]!r}')
    return ",".join(found)


def text_gold(answer: str, options: Sequence[str], key: str = "answer") -> str:
    """The letter of the option with this text (the first of equal ones), compared exactly, else by case and spacing; "" stays "".

    "(B) dog" is read too where option B is "dog".
    """
    if not answer:
        return ""
    label = _LABELLED.fullmatch(answer)
    if label and answer not in options and label[2] in options and LETTERS[options.index(label[2])] == label[1]:
        return label[1]
    for form in (str.strip, lambda option: " ".join(option.split()).casefold()):
        for letter, option in zip(LETTERS, options, strict=False):
            if form(option) == form(answer):
                return letter
    near = difflib.get_close_matches(answer[:200], [option[:200] for option in options], n=1)
    raise ValueError(f'the field "{key}" is none of the options: {answer[:80]!r}' + (f"; did it mean {near[0]!r}?" if near else ""))


def inline_options(source: str) -> tuple[str, tuple[str, ...]]:
    """Split "Which? (A) cat (B) dog" into ("Which?", ("cat", "dog")); options are () where no lettered run A, B, .. closes the text.

    Read are "(A)", "A.", "A:" and "A)"; the last run of consecutive letters counts, so that brackets in the question do not matter. A
    closing line that tells how to answer is dropped.
    """
    runs = [run for style in _STYLES if len(run := _run(list(style.finditer(source)))) > 1]
    if not runs:
        return source.strip(), ()
    labels = max(runs, key=len)
    ends = [*(label.start() for label in labels[1:]), len(source)]
    options = [source[label.end() : end].strip() for label, end in zip(labels, ends, strict=True)]
    last, _, rest = options[-1].partition("\n")
    if rest and _INSTRUCTION.match(rest.strip()):
        options[-1] = last.strip()
    for mark in ";,":
        if all(option.endswith(mark) for option in options[:-1]):
            options = [option.removesuffix(mark).rstrip() for option in options]
    stem = _HEADING.sub("", source[: labels[0].start()].strip()).strip()
    whole = all(options) and "\n" not in options[-1]
    return (stem, tuple(options)) if whole else (source.strip(), ())


def _run(labels: list[re.Match[str]]) -> list[re.Match[str]]:
    """The labels from the last A, B on, when they read A, B, C, .. to the end; one that is out of place makes them unclear."""
    starts = [i for i in range(len(labels) - 1) if labels[i][1] == "A" and labels[i + 1][1] == "B"]
    run = labels[starts[-1] :] if starts else []
    return run if all(label[1] == letter for label, letter in itertools.zip_longest(run, LETTERS[: len(run)])) else []


@dataclass(frozen=True)
class Choice:
    """A question with its options, or with `shown` options that its text or picture displays already."""

    question: str
    options: tuple[str, ...]
    shown: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        return len(self.options or self.shown)

    @property
    def meta(self) -> dict[str, Any]:
        return {"options_shown": self.shown} if self.shown else {}


def lettered(source: str, gold: str = "", fewest: int = _DEFAULT_LETTERS) -> Choice:
    """A question that brings its options along. Where they cannot be told apart they stay in the text, and only letters are read."""
    question, options = inline_options(source)
    if options:
        return Choice(question, options)
    highest = max((LETTERS.index(c) + 1 for c in gold.upper() if c in LETTERS), default=0)
    return Choice(question, (), tuple(LETTERS[: max(fewest, highest)]))


def image(row: Row, place: Place, *keys: str) -> tuple[Media, ...]:
    """The picture in the first of these fields that holds one, as a tuple; () when none does."""
    values = (row[key] for key in keys if row.get(key) is not None)
    return next(((media_from(value, "image", place.base),) for value in values if not _empty(value)), ())


def required_image(row: Row, place: Place, *keys: str) -> tuple[Media, ...]:
    found = image(row, place, *keys)
    if not found:
        raise ValueError(f'the field "{keys[0]}" holds no picture')
    return found


def _empty(value: Any) -> bool:
    """An empty picture as parquet and JSON write it: "", or a record with neither bytes nor path."""
    return value == "" if isinstance(value, (str, bytes)) else isinstance(value, Mapping) and not any(value.values())


def file(place: Place, kind: Literal["image", "video"], *candidates: str) -> Media:
    """The first of these files that exists below the row's folder, else the first: that it is missing is said when it is read."""
    return Media(kind, path=below(place, *candidates))


def below(place: Place, *candidates: str) -> Path:
    """As `file`, its path."""
    for name in candidates:
        if not name.strip("./") or "\0" in name or Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"{name[:80]!r} is not a path below the folder of media")
    paths = [place.base / name for name in candidates]
    return next((path for path in paths if path.exists()), paths[0])


def seconds(row: Row, key: str) -> float | None:
    """A field that holds a time, None when it holds none."""
    value = row.get(key)
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf):
        return None if value is None else float(value)
    raise ValueError(f'the field "{key}" is a number of seconds from 0 on, not {str(value)[:40]!r}')


def place_images(question: str, options: tuple[str, ...], pictures: Mapping[int, Media]) -> tuple[str, tuple[str, ...], tuple[Media, ...]]:
    """Turn numbered marks ("<image 2>") into "<image>" marks, and give the pictures in the order of these marks.

    A picture is shown where it is first named; later mentions read "[image k]", k its place in the order shown. Pictures that only options
    name are shown at the end of the question, so that options can change places. Without marks the question stays as it is and all pictures
    come first. Raises ValueError for a mark without a picture.
    """
    order: list[int] = []

    def show(match: re.Match[str]) -> str:
        number = int(match[1])
        if number not in pictures:
            raise ValueError(f'the text names <image {number}> but "image_{number}" holds no picture')
        if number in order:
            return f"[image {order.index(number) + 1}]"
        order.append(number)
        return "<image>"

    question = _NUMBERED_MARK.sub(show, question)
    named = [int(found) for option in options for found in _NUMBERED_MARK.findall(option)]
    for number in dict.fromkeys(named):
        if number not in order:
            mark = _show_at_end(number, len(order) + 1, pictures)
            order.append(number)
            question = f"{question}\n{mark}"
    options = tuple(_NUMBERED_MARK.sub(lambda match: f"[image {order.index(int(match[1])) + 1}]", option) for option in options)
    return question, options, tuple(pictures[number] for number in order or sorted(pictures))


def mark_once(question: str) -> str:
    """For rows with one picture: the first mark, numbered or not, becomes "<image>", later ones "[image 1]"."""
    first, *others = _ANY_MARK.split(question)
    return first + "".join(f"{'[image 1]' if i else '<image>'}{part}" for i, part in enumerate(others))


def _show_at_end(number: int, position: int, pictures: Mapping[int, Media]) -> str:
    if number not in pictures:
        raise ValueError(f'an option names <image {number}> but "image_{number}" holds no picture')
    return f"[image {position}]: <image>"
