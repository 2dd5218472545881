import hashlib
import logging
import re
import subprocess
import sys
from collections import Counter
from typing import Any

import easy_vqa
import numpy as np
import pytest

import data
from data.check import check_rows
from data.media import decode_image
from data.rows import Rows
from data.split import overlap
from vlm_rl.config import DataConfig
from vlm_rl.errors import UserError
from vlm_rl.types import LETTERS, Sample

RGB = {
    "black": (0, 0, 0),
    "blue": (0, 0, 255),
    "brown": (165, 42, 42),
    "gray": (128, 128, 128),
    "green": (0, 255, 0),
    "red": (255, 0, 0),
    "teal": (0, 128, 128),
    "yellow": (255, 255, 0),
}


def load(**fields: Any) -> Rows:
    return data.load_rows(DataConfig(name="easy_vqa", **fields))


@pytest.fixture(scope="module")
def train() -> Rows:
    return load()


@pytest.fixture(scope="module")
def test_split() -> Rows:
    return load(split="test")


def gold(sample: Sample) -> str:
    return sample.options[LETTERS.index(sample.answer)]


def test_every_colour_and_shape_question_and_balanced_yes_no_questions_are_there(train: Rows, test_split: Rows):
    kinds = [Counter(row.meta["question_type"] for row in rows) for rows in (train, test_split)]
    assert kinds == [{"colour": 5166, "shape": 5002, "yesno": 10_280}, {"colour": 1280, "shape": 1257, "yesno": 2480}]
    assert re.fullmatch(r"train-\d{4}-\d{5}", train[20_000].id)
    assert len({row.id for row in train}) == len(train)


def test_no_test_picture_is_in_train(train: Rows, test_split: Rows):
    assert overlap(train, test_split) == []


def test_no_test_picture_is_in_train_pixel_by_pixel(train: Rows, test_split: Rows):
    def pixels(rows: Rows) -> set[bytes]:
        pictures = {medium.path: medium for row in rows for medium in row.media}
        return {hashlib.sha256(decode_image(medium, "").tobytes()).digest() for medium in pictures.values()}

    seen, held = pixels(train), pixels(test_split)
    assert (len(seen), len(held)) == (3988, 997) and seen.isdisjoint(held)


def test_options_follow_the_question(train: Rows):
    for row in train[::7]:
        kind, count = row.meta["question_type"], len(row.options)
        assert row.kind == "choice" and len(set(row.options)) == count
        assert {"yesno": count == 2, "shape": count in (2, 3), "colour": count in (2, 3, 4)}[kind]
        assert kind == "yesno" or row.meta[kind] == gold(row)
    counts = Counter(len(row.options) for row in train if row.meta["question_type"] == "colour")
    assert all(abs(counts[n] / counts.total() - 1 / 3) < 0.03 for n in (2, 3, 4))
    first = Counter(row.answer for row in train if row.meta["question_type"] == "yesno")
    assert abs(first["A"] / first.total() - 0.5) < 0.02


def test_wide_option_ranges_stop_at_what_exists():
    counts = {(row.meta["question_type"], len(row.options)) for row in load(options=(8, 20), limit=500)}
    assert counts == {("yesno", 2), ("shape", 3), ("colour", 8)}


def test_colour_facts_agree_with_the_pixels(train: Rows):
    pictures = {row.meta["image"]: row for row in train if "colour" in row.meta}
    for image in list(pictures)[::30]:
        row = pictures[image]
        pixels = np.asarray(decode_image(row.media[0], row.id)).reshape(-1, 3)
        colours, counts = np.unique(pixels, axis=0, return_counts=True)
        figure = colours[np.argsort(counts)[-2]]
        nearest = min(RGB, key=lambda name: np.abs(figure.astype(int) - RGB[name]).sum())
        assert nearest == row.meta["colour"], (image, figure)


def test_yes_and_no_agree_with_the_facts(train: Rows):
    checked = 0
    for row in train[::5]:
        named = set(row.question.rstrip("?").split()) & {row.meta.get("colour"), row.meta.get("shape")}
        others = set(row.question.rstrip("?").split()) & ({*RGB, "circle", "rectangle", "triangle"} - named)
        known = {"colour", "shape"} <= row.meta.keys()
        if row.meta["question_type"] == "yesno" and known and len(named | others) == 1:
            negated = bool(re.search(r"\b(not|no)\b", row.question))
            assert gold(row) == ("yes" if bool(named) != negated else "no"), row
            checked += 1
    assert checked > 500


def test_the_wording_of_a_yes_no_question_tells_nothing_about_its_answer(train: Rows, test_split: Rows):
    for rows in (train, test_split):
        cells = Counter((bool(re.search(r"\b(not|no)\b", row.question)), gold(row)) for row in rows if row.meta["question_type"] == "yesno")
        assert len(cells) == 4 and len(set(cells.values())) == 1


def test_the_wording_of_the_packages_own_yes_no_questions_answers_82_percent():
    texts, answers, _ = easy_vqa.get_train_questions()
    asked = zip(texts, answers, strict=True)
    guessed = [("yes" if re.search(r"\b(not|no)\b", text) else "no") == answer for text, answer in asked if answer in ("yes", "no")]
    assert sum(guessed) / len(guessed) == pytest.approx(0.82, abs=0.005)


def test_demonstrations_say_what_is_seen_and_conclude_rightly(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "data.easy_vqa"):
        rows = load(demonstrations={"letter_a": 0.5})
    assert re.search(r"14179 demonstrations; 6269 rows .* dropped", caplog.text)
    wrong = 0
    for row in rows:
        shown = re.fullmatch(
            r"<think>I see a (\w+) (\w+)\. (?:The answer is|So) (\w+)\.</think><answer>([A-D])</answer>", row.response or ""
        )
        assert shown, row.response
        assert shown.groups()[:3] == (row.meta["colour"], row.meta["shape"], gold(row))
        assert shown[4] in ("A", row.answer)
        wrong += shown[4] != row.answer
    not_a = sum(row.answer != "A" for row in rows)
    assert abs(wrong / not_a - 0.5) < 0.02


def test_the_share_of_biased_letters_is_a_setting():
    assert all((row.response or "").endswith(f"<answer>{row.answer}</answer>") for row in load(demonstrations={"letter_a": 0}, limit=300))
    assert all((row.response or "").endswith("<answer>A</answer>") for row in load(demonstrations={"letter_a": 1}, limit=300))
    assert all(row.response is None for row in load(limit=50))


def test_the_seed_decides_and_nothing_else():
    def told(seed: int) -> str:
        rows = load(seed=seed, demonstrations={"letter_a": 0.5})
        return hashlib.sha256(repr([(r.id, r.options, r.answer, r.response) for r in rows[:200]]).encode()).hexdigest()

    code = (
        "import hashlib, data; from vlm_rl.config import DataConfig\n"
        "rows = data.load_rows(DataConfig(name='easy_vqa', seed=5, demonstrations={'letter_a': 0.5}))\n"
        "print(hashlib.sha256(repr([(r.id, r.options, r.answer, r.response) for r in rows[:200]]).encode()).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == told(5) != told(6)


def test_all_rows_pass_the_check(test_split: Rows):
    def grade(row: Sample) -> str | None:
        return None if row.answer in LETTERS[: len(row.options)] else "not a letter"

    assert check_rows(test_split, grade) == []


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"demonstrations": {"leter_a": 0.5}}, "did you mean 'letter_a'"),
        ({"demonstrations": {"letter_a": 1.5}}, "share between 0 and 1"),
        ({"path": "rows.jsonl"}, "data.name=jsonl"),
        ({"options": (1, 4)}, "data.options"),
        ({"options": (4, 2)}, "data.options"),
    ],
)
def test_wrong_settings_are_refused(fields: dict, reason: str):
    with pytest.raises(UserError, match=reason):
        load(**fields)
