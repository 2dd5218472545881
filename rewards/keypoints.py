"""A rule for captions and open answers: RLVRR's chain of key points and checks (YJiangcm/RLVRR), read off a reference text.

    content = mean over key points of the max over its lists of keywords of LCS(seq_response, seq_reference) / max of both lengths
    value   = content + sum of the weights of the checks that hold

seq: the keywords in the order in which a text has them, whole words, whatever their case. The released code runs checks that a language
model wrote; here they are named ones (`CHECKS`), without patterns of a row's own.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from rewards.base import Reward, whole_text
from rewards.response import parse
from rewards.rouge import longest_common
from vlm_rl.errors import RowError, unknown
from vlm_rl.types import Group, Reply, RewardResult, Sample

MOST_CHARACTERS = 12_000  # of an answer; what is longer is cut

Keywords = Sequence[str]


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False


CHECKS: dict[str, Callable[[str, Any], bool]] = {
    "contains": lambda text, what: str(what).casefold() in text.casefold(),
    "lacks": lambda text, what: str(what).casefold() not in text.casefold(),
    "begins": lambda text, what: text.casefold().startswith(str(what).casefold()),
    "ends": lambda text, what: text.casefold().endswith(str(what).casefold()),
    "most_words": lambda text, count: len(text.split()) <= float(count),
    "least_words": lambda text, count: len(text.split()) >= float(count),
    "is_json": lambda text, wanted: _is_json(text) == bool(wanted),
}


class KeyPoints(Reward):
    """Rows carry `key_points`, [[["left", "red ball"], ["port", "crimson ball"]], ...] (points, alternatives, keywords), and may carry
    `checks`, [{"most_words": 40, "weight": 0.2}, ...] with weights of 1 together at most. The row's answer is the reference.

    A row without `key_points` is skipped; no answer earns 0. detail: content, style.
    """

    range = (0.0, 2.0)

    def score(self, group: Group, replies: Sequence[Reply]) -> list[RewardResult]:
        sample, points = group.sample, key_points(group.sample)
        if not points:
            return [RewardResult(None, {"skipped": "the row has no key_points"})] * len(group.rollouts)
        checks, texts = checks_of(sample), [parse(whole_text(group, rollout)).answer or "" for rollout in group.rollouts]
        return [self._result(text[:MOST_CHARACTERS], sample.answer, points, checks) for text in texts]

    def _result(self, text: str, reference: str, points: Sequence[Sequence[Keywords]], checks: Sequence[tuple]) -> RewardResult:
        if not text.strip():
            return RewardResult(0.0, {"content": 0.0, "style": 0.0})
        content = fmean(max(overlap(text, reference, keywords) for keywords in point) for point in points)
        style = sum(weight for name, setting, weight in checks if CHECKS[name](text, setting))
        return RewardResult(content + style, {"content": content, "style": style})


def overlap(text: str, reference: str, keywords: Keywords) -> float:
    """overlap("a then c", "a, b, c", ["a", "b", "c"]) -> 2 / 3; 0 where neither text has a keyword"""
    said, wanted = sequence(text, keywords), sequence(reference, keywords)
    return longest_common(said, wanted) / max(len(said), len(wanted), 1)


def sequence(text: str, keywords: Keywords) -> list[str]:
    """The keywords as they come in a text; where several begin at one place, the longest."""
    words = sorted({word.casefold() for word in keywords if word.strip()}, key=len, reverse=True)
    pattern = "|".join(map(re.escape, words))
    return re.findall(rf"(?<!\w)(?:{pattern})(?!\w)", text.casefold()) if words else []


def key_points(sample: Sample) -> list[list[Keywords]]:
    """The row's key points, checked; none without the column. Raises RowError."""
    points: Any = sample.meta.get("key_points") or []
    if not _listed(points, lambda point: bool(point) and _listed(point, lambda words: _listed(words, lambda w: isinstance(w, str)))):
        raise RowError(sample.id, "key_points is a list of points, each a list of alternatives, each a list of keywords (texts)")
    return points


def _listed(value: Any, right: Callable[[Any], bool]) -> bool:
    return isinstance(value, list | tuple) and all(map(right, value))


def checks_of(sample: Sample) -> list[tuple[str, Any, float]]:
    """(name, setting, weight) of each of the row's `checks`. Raises RowError."""
    found, entries = [], sample.meta.get("checks") or ()
    if not _listed(entries, lambda entry: isinstance(entry, Mapping) and len(entry) == 2 and type(entry.get("weight")) in (int, float)):
        raise RowError(sample.id, 'checks is a list such as [{"most_words": 40, "weight": 0.2}]')
    for entry in entries:
        name = next(key for key in entry if key != "weight")
        if name not in CHECKS:
            raise RowError(sample.id, str(unknown("check", str(name), CHECKS)))
        if "words" in name and type(entry[name]) not in (int, float):
            raise RowError(sample.id, f"checks: {name} is a number of words, not {entry[name]!r}")
        found.append((name, entry[name], float(entry["weight"])))
    if found and (min(w for _, _, w in found) < 0 or sum(w for _, _, w in found) > 1 + 1e-9):
        raise RowError(sample.id, "checks: weights are 0 or more, and 1 together at most")
    return found
