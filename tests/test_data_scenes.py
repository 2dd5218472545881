"""Generated scenes as rows: reproducible, held out, balanced, and what the pictures show is what is said of them."""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import data
from data.check import check_rows
from data.media import decode_image
from data.scene_clips import clip
from data.scene_logic import COLOURS, SHAPES, Thing
from data.scene_pictures import ONE_MORE, RGB, UNSEEN_BARS, UNSEEN_SHAPES, chart, picture
from data.scene_types import Scene, question, scene_from
from data.scenes import SPLITS, WORLDS, by_id, make, scene_of
from data.split import overlap
from rewards import grading
from vlm_rl.config import DataConfig
from vlm_rl.errors import UserError
from vlm_rl.types import LETTERS, Sample

DRAWN = ("pictures", "charts")


def load(**fields: Any) -> data.Rows:
    return data.load_rows(DataConfig(name="scenes", **fields))


def pixels(sample: Sample) -> np.ndarray:
    return np.asarray(decode_image(sample.media[0], sample.id))


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def told(sample: Sample) -> str:
    """All of a row but its media."""
    fields = (sample.id, sample.question, sample.options, sample.answer, sample.kind, sample.response, sample.meta)
    return digest(json.dumps(fields, sort_keys=True).encode())


# id -> what is told, what is drawn (of clips see test_data_scene_clips); new values are a new VERSION
GOLDEN: dict[str, tuple[str, str]] = {
    "pictures-v1-train-0-0": ("9e32a0d27e6a", "bbe2664872a9"),
    "pictures-v1-train-0-1": ("6783126bbb77", "eb4613f1e4c9"),
    "pictures-v1-train-0-1999": ("e125939a4526", "9ef5ccafb7c5"),
    "pictures-v1-test-0-0": ("d9a999600bf4", "37f72503d85d"),
    "pictures-v1-test-0-7": ("044357fbae2a", "1af87050af14"),
    "pictures-v1-test_pairs-0-0": ("9669cd7ab555", "e5369154fe81"),
    "pictures-v1-test_pairs-0-7": ("9a3c763b720f", "8c95902c1ce8"),
    "pictures-v1-test_more-0-0": ("437d9382c436", "70b6f139099a"),
    "pictures-v1-test_more-0-7": ("1ddb09ab1e6a", "3e57c14bc268"),
    "charts-v1-train-0-0": ("5197ad0d7cd1", "db980d1f30c5"),
    "charts-v1-train-0-1": ("4867a092bd3c", "91ec3cb53054"),
    "charts-v1-train-0-1999": ("cb5d00609a96", "1b590c8e5021"),
    "charts-v1-test-0-0": ("a1f5146c318e", "311c371166d3"),
    "charts-v1-test-0-7": ("a82d06d06032", "55629688d622"),
    "charts-v1-test_pairs-0-0": ("c067a8433b22", "f9ef1261943a"),
    "charts-v1-test_pairs-0-7": ("1267d6285f97", "a6e25bebda84"),
    "charts-v1-test_more-0-0": ("26af7d051116", "0a9daebba36b"),
    "charts-v1-test_more-0-7": ("c18078581a05", "285790e1da6f"),
    "clips-v1-train-0-0": ("9aaba123804c", ""),
    "clips-v1-train-0-1": ("33a004b1d2a3", ""),
    "clips-v1-train-0-1999": ("9d642391aae8", ""),
    "clips-v1-test-0-0": ("2a66eccad567", ""),
    "clips-v1-test-0-7": ("27507d0ac7d1", ""),
    "clips-v1-test_pairs-0-0": ("85937974aadc", ""),
    "clips-v1-test_pairs-0-7": ("9d283cbf5288", ""),
    "clips-v1-test_more-0-0": ("ebd942dba73a", ""),
    "clips-v1-test_more-0-7": ("66b12934c405", ""),
}


@pytest.mark.parametrize("row_id", GOLDEN)
def test_rows_are_what_they_were(row_id: str):
    sample = by_id(row_id)
    assert sample is not None and sample.id == row_id
    drawn = "" if sample.media[0].kind == "video" else digest(pixels(sample).tobytes())
    assert (told(sample), drawn) == GOLDEN[row_id]


@pytest.mark.parametrize("world", WORLDS)
def test_a_row_is_a_function_of_its_coordinates(world: Any):
    rows = load(config=world, split="test", seed=3)
    assert [row.id for row in rows[:3]] == [f"{world}-v1-test-3-{i}" for i in range(3)]
    for index in (2, 0, 1):
        twice, spelt = make(world, "test", 3, index), by_id(f"part/{world}-v1-test-3-{index}")
        assert spelt is not None
        assert told(rows[index]) == told(twice) == told(spelt)
        assert rows[index].media[0].id == twice.media[0].id == spelt.media[0].id
    assert len({told(row) for row in rows[:30]} | {told(row) for row in load(config=world, split="test", seed=4)[:30]}) == 60


@given(st.sampled_from(DRAWN), st.sampled_from(sorted(SPLITS)), st.integers(-5, 10**17), st.integers(0, 1999))
@settings(max_examples=30, deadline=None)
def test_an_id_spells_its_row(world: Any, split: str, seed: int, index: int):
    sample = make(world, split, seed, index)
    again = by_id(sample.id)
    assert again is not None and told(again) == told(sample)


@pytest.mark.parametrize(
    "row_id",
    [
        "",
        "7",
        "pictures-v2-train-0-1",
        "pictures-v1-trains-0-1",
        "poems-v1-train-0-1",
        "pictures-v1-test-0-4000",
        "pictures-v1-train-0-01",
        "pictures-v1-train-0-1 ",
        "pictures-v1-train-0-\N{ARABIC-INDIC DIGIT TWO}",
        "pictures-v1-train-0-" + "9" * 10_000,
        "pictures-v1-train-" + "9" * 10_000 + "-1",
    ],
)
def test_other_ids_spell_no_row(row_id: str):
    assert by_id(row_id) is None


def scenes(world: str, split: str, count: int) -> list[Scene]:
    """Scenes without pictures, which are quickly made."""
    ask: dict[str, Callable[[Random], Scene]] = {
        "pictures": lambda rng: picture(rng, split),
        "charts": lambda rng: chart(rng, split),
        "clips": lambda rng: clip(rng, split)[0],
    }
    return [ask[world](Random(index)) for index in range(count)]


def unseen(thing: Thing) -> bool:
    return (thing.colour, thing.shape) in UNSEEN_SHAPES or (thing.colour, thing.value) in UNSEEN_BARS


@pytest.mark.parametrize("world", WORLDS)
def test_held_out_pairs_are_held_out(world: str):
    for split in ("train", "test", "test_more"):
        assert not any(unseen(thing) for scene in scenes(world, split, 1500) for thing in scene.things), split
    held = scenes(world, "test_pairs", 500)
    assert all(any(unseen(thing) for thing in scene.shown) for scene in held)
    everything = Counter((t.colour, t.value or t.shape) for scene in held for t in scene.things if unseen(t))
    assert set(everything) == set(UNSEEN_BARS if world == "charts" else UNSEEN_SHAPES)


def shapes_in(scene: Scene) -> int:
    """Of a clip at its end."""
    return sum(thing.time in (None, 3) for thing in scene.things)


@pytest.mark.parametrize("world", WORLDS)
def test_the_split_of_more_has_one_more(world: str):
    most = max(shapes_in(scene) for split in ("train", "test", "test_pairs") for scene in scenes(world, split, 1000))
    assert {shapes_in(scene) for scene in scenes(world, "test_more", 500)} == {most + 1}
    assert world == "clips" or most + 1 == ONE_MORE


@pytest.mark.parametrize("world", WORLDS)
def test_every_split_asks_every_family_equally_often(world: str):
    families = {split: Counter(scene.query["family"] for scene in scenes(world, split, 1500)) for split in SPLITS}
    assert len({frozenset(counts) for counts in families.values()}) == 1
    for split in ("train", "test", "test_more"):
        for family, count in families[split].items():
            assert abs(count - families["train"][family]) < 0.05 * 1500, (split, family)


def test_no_picture_is_in_two_splits_or_twice_in_one():
    seen: Counter[str] = Counter()
    for world in DRAWN:
        for split in SPLITS:
            seen.update(digest(pixels(row).tobytes()) for row in load(config=world, split=split)[:100])
    assert seen.total() == 800 and max(seen.values()) == 1
    assert overlap(load(config="charts", limit=200), load(config="charts", split="test", limit=200)) == []


@pytest.mark.parametrize("world", DRAWN)
@pytest.mark.parametrize("split", SPLITS)
def test_rows_pass_the_check(world: str, split: str):
    assert check_rows(load(config=world, split=split, limit=120), grading.gold_problem) == []


@pytest.mark.parametrize(("world", "count"), [("pictures", 400), ("charts", 400), ("clips", 80)])
def test_most_rows_have_a_wrong_trace(world: Any, count: int):
    rows = [make(world, "train", 6, index) for index in range(count)]
    assert sum("wrong_trace" in row.meta for row in rows) > 0.85 * count
    assert all(("wrong_trace" in row.meta) == ("wrong_caption" in row.meta) == ("wrong_answer" in row.meta) for row in rows)


@pytest.mark.parametrize("world", WORLDS)
def test_meta_is_json_and_gives_the_scene_back(world: Any):
    for index in range(60 if world != "clips" else 20):
        sample = make(world, "test", 0, index)
        assert json.loads(json.dumps(sample.meta)) == sample.meta
        scene = scene_of(sample)
        assert scene == scene_from(json.loads(json.dumps(scene.record())))
        gold = sample.options[LETTERS.index(sample.answer)] if sample.kind == "choice" else sample.answer
        assert gold == scene.gold == sample.meta["scene"]["answer"]
        assert len(set(sample.options)) == len(sample.options) and len(sample.options) in (0, 2, 3, 4)
        assert sample.meta["verifiable"] == (not sample.question.startswith("Describe"))
        assert sample.meta.get("boxes", []) == [list(t.box or ()) for t in scene.shown if world != "clips"]


def test_a_row_that_is_no_scene_has_none():
    with pytest.raises(ValueError, match="not the record of a scene"):
        scene_of(Sample("7", "Which?", "A"))


def test_texts_are_graded_by_what_is_known():
    rows = [row for row in load(config="pictures")[:400] if row.kind == "text"]
    descriptions = [row for row in rows if not row.meta["verifiable"]]
    assert descriptions and all(row.kind == "text" for row in descriptions) and len(rows) > len(descriptions)
    for row in rows:
        words = row.answer.removeprefix("a ")
        right = [row.answer, words, words.upper(), f"the {words}", f"It is {row.answer}.", f"The answer is {row.answer}."]
        assert all(grading.grade(row, text) == 1 for text in right), row.answer
        others = [COLOURS, SHAPES, ("small", "large"), ("top", "bottom"), ("left", "right")]
        swapped = [
            words.replace(word, other) for kind in others for word in kind if word in words.split() for other in kind if other != word
        ]
        wrong = [*swapped, f"not {words}", "shape", "", *(["circle"] if len(words.split()) > 1 else [])]
        assert swapped and not any(grading.grade(row, text) for text in wrong), (row.answer, wrong)


def coloured(image: np.ndarray, colour: str) -> np.ndarray:
    return (image == RGB[colour]).all(axis=-1)


def shape_of(mask: np.ndarray) -> str:
    """By which corners are filled and how much of the box."""
    corners = bool(mask[0, 0] and mask[0, -1]), bool(mask[-1, 0] and mask[-1, -1])
    return {(True, True): "square", (False, True): "triangle"}.get(corners, "circle" if mask.mean() > 0.65 else "cross")


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("world", DRAWN)
def test_pictures_show_what_is_said_of_them_and_nothing_else(world: Any, split: str):
    for index in range(60):
        sample = make(world, split, 11, index)
        scene, image = scene_of(sample), pixels(sample)
        assert image.shape == (112, 112, 3) == (*scene.canvas[::-1], 3)
        rest = image.copy()
        for thing in scene.things:
            assert thing.box is not None
            x0, y0, x1, y1 = thing.box
            mask = coloured(image[y0:y1, x0:x1], thing.colour)
            rest[y0:y1, x0:x1] = 255
            rows, columns = np.nonzero(mask)
            assert (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1) == (0, 0, y1 - y0, x1 - x0), "the box is tight"
            if world == "pictures":
                assert shape_of(mask) == thing.shape and {"small": 20, "large": 32}[thing.size] == x1 - x0 == y1 - y0
            else:
                assert mask.all() and thing.value == (y1 - y0) / 10 and y1 == 104
        assert not any(coloured(rest, colour).any() for colour in COLOURS)


def choices(world: Any, split: str, count: int) -> list[tuple[str, Sequence[str], str, str]]:
    """(question, options, gold text, gold letter) of multiple choice."""
    rows = (make(world, split, 5, index) for index in range(count))
    return [(r.question, r.options, r.meta["scene"]["answer"], r.answer) for r in rows if r.kind == "choice"]


@pytest.mark.parametrize(("world", "count"), [("pictures", 1200), ("charts", 1000), ("clips", 250)])
def test_answers_cannot_be_guessed_without_the_picture(world: str, count: int):
    """By a letter, by yes, or by the place of a number among those offered."""
    asked = choices(world, "train", count)
    chance = sum(1 / len(options) for _, options, _, _ in asked) / len(asked)
    noise = 4 * 0.5 / len(asked) ** 0.5
    for letter in "ABCD":
        offered = [row for row in asked if len(row[1]) > LETTERS.index(letter)]
        fair = sum(1 / len(options) for _, options, _, _ in offered) / len(offered)
        assert abs(sum(row[3] == letter for row in offered) / len(offered) - fair) < noise * (len(asked) / len(offered)) ** 0.5, letter
    yes = [gold == "yes" for _, options, gold, _ in asked if set(options) == {"yes", "no"}]
    assert len(yes) > 10 and abs(sum(yes) / len(yes) - 0.5) < 2 / len(yes) ** 0.5
    numeric = [(sorted(options, key=int), gold) for _, options, gold, _ in asked if gold.isdigit()]
    by_rule = {
        "smallest": sum(options[0] == gold for options, gold in numeric) / len(numeric),
        "middle": sum(options[(len(options) - 1) // 2] == gold for options, gold in numeric) / len(numeric),
        "largest": sum(options[-1] == gold for options, gold in numeric) / len(numeric),
    }
    numeric_chance = sum(1 / len(options) for options, _ in numeric) / len(numeric)
    print(f"{world}: chance {chance:.3f}; of {len(numeric)} numbers chance {numeric_chance:.3f}, {by_rule}")
    assert all(share < numeric_chance + 2 / len(numeric) ** 0.5 for share in by_rule.values()), (by_rule, numeric_chance)


@pytest.mark.parametrize(("split", "most"), [("train", 4), ("test", 4), ("test_more", 5)])
def test_counts_are_equally_often_right(split: str, most: int):
    counts = Counter(scene.gold for scene in scenes("pictures", split, 6000) if scene.query["family"] == "count")
    assert set(counts) == set(map(str, range(most + 1)))
    assert max(counts.values()) / counts.total() < 1 / (most + 1) + 0.07


def worded(scene: Scene) -> tuple[str, str]:
    """A question as a reader without a picture may group it, and its answer; of two things named, which one."""
    query = scene.query
    if query["family"] in ("relation", "which"):
        answer = scene.gold if query["family"] == "relation" else str(scene.gold == " ".join(query["a"].values()))
        return f"{query['family']} {query['relation']}", answer
    return question(query), scene.gold


@pytest.mark.parametrize("world", WORLDS)
def test_the_wording_of_a_question_tells_little_of_its_answer(world: str):
    """The best answer for each wording, learned on half of the scenes and tried on the other half, by family."""
    asked = [(scene.query.get("attribute", scene.query["family"]), *worded(scene)) for scene in scenes(world, "train", 6000)]
    best: dict[str, Counter[str]] = {}
    for _, text, gold in asked[::2]:
        best.setdefault(text, Counter())[gold] += 1
    right: dict[str, list[bool]] = {}
    for family, text, gold in asked[1::2]:
        right.setdefault(family, []).append(text in best and best[text].most_common(1)[0][0] == gold)
    answers = {"size": 2, "relation": 2, "which": 2, "colour": 6, "turned": 5, "bar": 9, "all": 48, "sum": 9, "count": 5}
    answers |= {"count": 2} if world == "clips" else {}
    for family, hits in right.items():
        fair = 1 / answers.get(family, 4)
        print(f"{world} {family}: {sum(hits) / len(hits):.3f} by the wording alone, {fair:.3f} by chance")
        assert sum(hits) / len(hits) < fair + 0.1, (world, family)


def test_throughput():
    """Printed; only that a picture costs no more than a clip is certain enough to be asserted, and not even by much."""
    rates = {}
    for world, count in (("pictures", 200), ("charts", 200), ("clips", 30)):
        begun = time.process_time()
        for row in load(config=world, seed=2)[:count]:
            assert row.media
        rates[world] = count / (time.process_time() - begun)
    print({world: f"{rate:.0f} rows a CPU second" for world, rate in rates.items()})
    assert rates["clips"] < 5 * rates["pictures"] and rates["charts"] * 20 > rates["pictures"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"config": "picture"}, "unknown world of scenes 'picture'.*did you mean 'pictures'"),
        ({"split": "test_pair"}, "unknown split 'test_pair'.*did you mean 'test_pairs'"),
        ({"path": "rows.jsonl"}, "data.name=jsonl"),
        ({"options": (2, 3)}, "data.options is not for scenes"),
        ({"demonstrations": {"favorite": 0.5}}, "did you mean 'favourite'"),
        ({"demonstrations": {"favourite": 1.5}}, "share between 0 and 1"),
    ],
)
def test_wrong_settings_are_refused(fields: dict, reason: str):
    with pytest.raises(UserError, match=reason):
        load(**fields)


def test_every_split_brings_rows_and_train_its_test_split():
    assert {split: len(load(split=split)) for split in SPLITS} == SPLITS
    held_out = data.own_test_split(DataConfig(name="scenes", config="charts", seed=2, demonstrations={"favourite": 0.5}))
    assert held_out is not None and (held_out.split, held_out.config, held_out.seed, held_out.demonstrations) == ("test", "charts", 2, {})
