"""Matched scenes: the wording of a response tells nothing of its score, the picture all of it."""

import io
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from data import load_rows, own_test_split
from data.matched_scenes import APART, matched
from data.scene_pictures import RGB
from data.scene_quality import quality
from data.scenes import by_id, make, scene_of
from eval.judge_measures import spearman
from vlm_rl.config import DataConfig
from vlm_rl.errors import UserError

WORLDS = ("pictures", "charts")
ROWS = [matched(make(world, "train", 3, i), "train") for world in WORLDS for i in range(450)]
SCORES = np.array([row.meta["score"] for row in ROWS])


def trace(response: str | None) -> str:
    assert response is not None
    return response.partition("<think>")[2].partition("</think>")[0]


def test_scores_are_the_truth_about_the_picture_that_is_shown():
    for row in ROWS:
        scene = scene_of(row)
        [right], [wrong] = row.meta["right"], row.meta["wrong"]
        assert row.response in (right, wrong) and row.meta["score"] == quality(trace(row.response), scene)
        assert quality(trace(right), scene) == 1 and quality(trace(wrong), scene) <= APART and right != wrong
        assert row.answer == scene.gold and by_id(row.id) is None


def test_pictures_show_their_scenes():
    for row in ROWS[::25]:
        data = row.media[0].data
        assert data is not None
        pixels = np.asarray(Image.open(io.BytesIO(data)))
        for thing in scene_of(row).things:
            assert thing.box is not None
            x0, y0, x1, y1 = thing.box
            middle = pixels[(y0 + y1) // 2, (x0 + x1) // 2]
            assert tuple(middle.tolist()) == RGB[thing.colour]


def words(row) -> Counter[str]:
    said = f"{row.question} {row.response}".replace(",", " ").replace("[", " ").replace("]", " ").split()
    return Counter([*said, *(f"{a} {b}" for a, b in pairwise(said))])


def test_a_reader_of_the_text_alone_learns_nothing():
    """Ridge regression on words and pairs of words, trained on two thirds."""
    counts = [words(row) for row in ROWS]
    frequent = [word for word, n in Counter(word for found in counts for word in found).items() if n >= 5]
    table = np.array([[found[word] for word in frequent] for found in counts], np.float64)
    table -= table.mean(0)
    held = np.arange(len(ROWS)) % 3 == 0
    train = table[~held]
    for penalty in (1.0, 30.0):
        weights = train.T @ np.linalg.solve(train @ train.T + penalty * np.eye(len(train)), SCORES[~held] - SCORES[~held].mean())
        assert abs(spearman(SCORES[held], table[held] @ weights)) < 0.15
    lengths = np.array([len(row.response or "") for row in ROWS], np.float64)
    assert abs(spearman(SCORES, lengths)) < 0.1 and abs(np.mean(SCORES == 1) - 0.5) < 0.06


def test_all_questions_and_the_same_rows_again():
    assert len({row.meta["family"] for row in ROWS}) == 10
    assert matched(make("charts", "train", 3, 7), "train") == ROWS[457]


@pytest.mark.parametrize("split", ["test", "test_pairs", "test_more"])
def test_as_a_data_set(split):
    rows = load_rows(DataConfig(name="matched_scenes", split=split, limit=12))
    assert len(rows) == 12 and all(row.meta["score"] <= 1 for row in rows)
    test = own_test_split(DataConfig(name="matched_scenes"))
    assert test is not None and test.split == "test"
    for wrong, words in (({"demonstrations": {"tour": 1.0}}, "true of one of two pictures"), ({"config": "clips"}, "pictures and charts")):
        with pytest.raises(UserError, match=words):
            load_rows(DataConfig(name="matched_scenes", **wrong))
