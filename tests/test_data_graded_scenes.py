"""Graded scenes: responses whose score is exact, right ones that are faultless, wrong ones that are not."""

import pytest

from data import load_rows, own_test_split
from data.graded_scenes import BAD_AT_MOST, graded
from data.scene_quality import quality
from data.scenes import by_id, make, scene_of
from rewards.judging import MASTER_KEYS, content_free
from vlm_rl.config import DataConfig
from vlm_rl.errors import UserError

ROWS = [graded(make(world, "test", 1, i)) for world in ("pictures", "charts") for i in range(60)]


def trace(response: str) -> str:
    return response.partition("<think>")[2].partition("</think>")[0]


def test_scores_are_the_truth_about_the_response():
    for row in ROWS:
        assert row.response is not None and row.meta["score"] == quality(trace(row.response), scene_of(row))
        assert [quality(trace(text), scene_of(row)) for text in row.meta["right"]] == [1.0] * len(row.meta["right"])
        assert all(quality(trace(text), scene_of(row)) <= BAD_AT_MOST for text in row.meta["wrong"])
        assert row.meta["right"] and len(set(row.meta["wrong"])) == len(row.meta["wrong"])


def test_all_of_the_scale_is_met_and_no_test_is_given_away():
    tenths = {round(row.meta["score"] * 10) for row in ROWS}
    assert {0, 10} <= tenths and len(tenths) >= 8
    assert sum(bool(row.meta["wrong"]) for row in ROWS) > 100
    assert {len(row.meta["right"]) for row in ROWS} == {1, 2}
    for row in ROWS:
        assert row.response is not None
        said = trace(row.response)
        assert not content_free(said) and not any(key.strip() and key.strip() == said.strip() for key in MASTER_KEYS)


def test_rows_are_the_scenes_of_their_ids_and_the_same_again():
    row = ROWS[3]
    scene = by_id(row.id)
    assert scene is not None and scene.question == row.question and graded(scene) == row


def test_as_a_data_set():
    config = DataConfig(name="graded_scenes", config="charts", limit=5)
    rows = load_rows(config)
    assert len(rows) == 5 and all("score" in row.meta for row in rows)
    test = own_test_split(config)
    assert test is not None and test.split == "test" and "-test-" in load_rows(test)[0].id
    with pytest.raises(UserError, match="responses of graded_scenes bring faults of their own"):
        load_rows(DataConfig(name="graded_scenes", demonstrations={"tour": 1.0}))
