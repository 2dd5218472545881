"""`verify_trace` on traces true and false, written by hand and by the generator, and on hostile text."""

import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.scene_logic import Thing
from data.scene_reading import MOST_CHARACTERS
from data.scene_traces import verify_trace
from data.scene_types import Scene, scene_from
from data.scene_writing import altered, caption, moved, trace
from data.scenes import SPLITS, make, scene_of
from vlm_rl.types import LETTERS

CANVAS = (112, 112)
SHAPES = (
    Thing("red", "circle", "small", (8, 12, 28, 32)),
    Thing("red", "circle", "large", (12, 70, 44, 102)),
    Thing("blue", "square", "large", (60, 20, 92, 52)),
    Thing("yellow", "triangle", "small", (80, 80, 100, 100)),
)
BARS = (
    Thing("red", "bar", box=(8, 54, 24, 104), value=5),
    Thing("green", "bar", box=(28, 74, 44, 104), value=3),
    Thing("blue", "bar", box=(48, 14, 64, 104), value=9),
)
SEEN = (  # a red circle moves right; a blue square appears at second 2
    Thing("red", "circle", box=(0, 2, 24, 26), time=0),
    Thing("red", "circle", box=(12, 2, 36, 26), time=1),
    Thing("red", "circle", box=(24, 2, 48, 26), time=2),
    Thing("blue", "square", box=(40, 30, 64, 54), time=2),
    Thing("red", "circle", box=(36, 2, 60, 26), time=3),
    Thing("blue", "square", box=(40, 30, 64, 54), time=3),
)
TURN = (*SEEN[:2], Thing("green", "circle", box=(24, 2, 48, 26), time=2), Thing("green", "circle", box=(36, 2, 60, 26), time=3))


def picture(evidence: tuple[int, ...], **query: Any) -> Scene:
    return Scene("pictures", CANVAS, SHAPES, query, evidence, 1)


def chart(evidence: tuple[int, ...], **query: Any) -> Scene:
    return Scene("charts", CANVAS, BARS, query, evidence, 1)


def clip(things: tuple[Thing, ...], evidence: tuple[int, ...], **query: Any) -> Scene:
    return Scene("clips", (84, 84), things, query, evidence, 1)


RED_CIRCLE, BLUE_SQUARE = {"colour": "red", "shape": "circle"}, {"colour": "blue", "shape": "square"}
RED_BAR, GREEN_BAR = {"colour": "red", "shape": "bar"}, {"colour": "green", "shape": "bar"}
SCENES = {
    "colour": picture((2,), family="attribute", attribute="colour", target={"shape": "square"}),  # blue
    "count": picture((0, 1), family="count", target={"shape": "shape", "colour": "red"}),  # 2
    "none": picture((), family="count", target={"shape": "shape", "colour": "green"}),  # 0
    "place": picture((2,), family="place", target=BLUE_SQUARE, canvas=list(CANVAS)),  # top right
    "left": picture((2, 3), family="relation", relation="left of", a=BLUE_SQUARE, b={"colour": "yellow", "shape": "triangle"}),  # yes
    "leftmost": picture((0, 1, 2, 3), family="extreme", relation="left of", attribute="all"),  # a small red circle
    "minus": chart((0, 1), family="sum", sign="-", a=RED_BAR, b=GREEN_BAR),  # 2
    "value": chart((2,), family="bar", target={"colour": "blue", "shape": "bar"}),  # 9
    "highest": chart((0, 1, 2), family="extreme", relation="higher than", attribute="colour"),  # blue
    "motion": clip(SEEN, (0, 4), family="motion", target=RED_CIRCLE),  # right
    "when": clip(SEEN, (3,), family="when", target=BLUE_SQUARE),  # 2
    "first": clip(SEEN, (0, 3), family="which", relation="before", a=BLUE_SQUARE, b=RED_CIRCLE),  # red circle
    "end": clip(SEEN, (4, 5), family="count", target={"shape": "shape"}, time=3),  # 2
    "turned": clip(TURN, (0, 3), family="turned", target={"shape": "circle"}),  # green
}

# scene, trace; a sign for each claim (T true, F false, ? cannot be told), followed by + or - where it has a box; then what of
# "follows", "correct" and "sound" holds, by initial; then sentences outside the grammar. "=>" is short for "The answer is".
TABLE: list[tuple[str, str, str, str, int]] = [
    # what is seen
    ("colour", "I see a large blue square [60,20,92,52]. => blue.", "T+", "fcs", 0),
    ("colour", "I see a blue square. => blue.", "T", "fcs", 0),
    ("colour", "I see a small blue square [60,20,92,52]. => blue.", "F+", "fc", 0),
    ("colour", "I see a red square [60,20,92,52]. => red.", "F-", "f", 0),
    ("colour", "I see a large blue square [0,60,32,92]. => blue.", "T-", "fc", 0),
    ("colour", "I see a large blue square [64,24,96,56]. => blue.", "T+", "fcs", 0),
    ("colour", "I see a large blue square [92,52,60,20]. => blue.", "T-", "fc", 0),
    ("colour", "I see a large blue square [0,0,112,112]. => blue.", "T-", "fc", 0),
    ("colour", "I see a large blue square [-5,20,92,52]. => blue.", "T-", "fc", 0),
    ("colour", "I see a large blue square [60,20,92,52]. => red.", "T+", "", 0),
    ("colour", "I see a large blue square [60,20,92,52].", "T+", "", 0),
    ("colour", "=> blue.", "", "c", 0),
    ("colour", "I see a large red circle [12,70,44,102]. => blue.", "T+", "c", 0),
    ("colour", "I see a square [60,20,92,52]. => blue.", "T+", "c", 0),
    ("colour", "I see a blue shape and a square. => blue.", "TF", "c", 0),
    # as many as there are
    ("count", "I see a small red circle [8,12,28,32] and a large red circle [12,70,44,102]. That makes 2. => 2.", "T+T+T", "fcs", 0),
    ("count", "I see a red circle and a red circle. => 2.", "TT", "fcs", 0),
    ("count", "I see a red circle. I see another red circle. => 2.", "TT", "fcs", 0),
    ("count", "I see a red circle, a red circle and a red circle. => 3.", "TTF", "f", 0),
    ("count", "I see a small red circle and a small red circle. That makes 2. => 2.", "TFT", "fc", 0),
    ("count", "I see a red circle [8,12,28,32] and a red circle [8,12,28,32]. => 2.", "T+T+", "c", 0),
    ("count", "I see a red circle. I see a red circle. => 1.", "TT", "f", 0),
    ("count", "I see a circle, a large red circle and a blue square. That makes 2. => 2.", "TTTT", "c", 0),
    ("count", "I see a circle, a small red circle and a large red circle. => 2.", "TTF", "fc", 0),
    ("count", "I see a red circle and a red cross. That makes 2. => 2.", "TFT", "fc", 0),
    ("count", "I see a small red circle. That makes 2. => 2.", "TT", "c", 0),
    ("count", "That makes 2. => 2.", "T", "fcs", 0),
    ("count", "That makes 3. => 3.", "F", "f", 0),
    ("colour", "That makes 3. I see a blue square. => blue.", "?T", "fcs", 0),
    # none
    ("none", "I see no green shape. => 0.", "T", "fcs", 0),
    ("none", "I see no green shapes. => 0.", "T", "fcs", 0),
    ("none", "I see no green circle. => 0.", "T", "c", 0),
    ("none", "I see no crosses. => 0.", "T", "c", 0),
    ("none", "I see no red squares. => 0.", "T", "c", 0),
    ("none", "I see no red circles. => 0.", "F", "c", 0),
    ("none", "I see nothing. => 0.", "F", "fc", 0),
    ("none", "I see no red shape. => 0.", "F", "c", 0),
    ("none", "I see a blue square. => 0.", "T", "fcs", 0),
    ("when", "At 0 s I see no blue square. At 2 s I see a blue square. => 2.", "TT", "fcs", 0),
    ("when", "At 3 s I see no blue square. At 2 s I see a blue square. => 2.", "FT", "fc", 0),
    ("when", "At 1 s I see nothing. At 2 s I see a blue square. => 2.", "FT", "fc", 0),
    # relations
    ("left", "I see a blue square [60,20,92,52] and a yellow triangle [80,80,100,100]. "
     "The blue square is left of the yellow triangle. => yes.", "T+T+T", "fcs", 0),
    ("left", "The blue square is left of the yellow triangle. => yes.", "T", "fcs", 0),
    ("left", "The yellow triangle is right of the blue square. => yes.", "T", "fcs", 0),
    ("left", "The yellow triangle is left of the blue square. => no.", "F", "f", 0),
    ("left", "The blue square is above the yellow triangle. => yes.", "T", "c", 0),
    ("left", "The blue square is left of the green triangle. => yes.", "F", "c", 0),
    ("left", "The blue square is larger than the yellow triangle. The red circle is larger than the yellow triangle. "
     "=> yes.", "T?", "c", 0),
    ("left", "The red circle is left of the blue square. => yes.", "T", "c", 0),
    ("left", "The blue square is higher than the yellow triangle. => yes.", "?", "c", 0),
    ("left", "I see a blue square [80,80,100,100] and a yellow triangle [60,20,92,52]. "
     "The blue square is left of the yellow triangle. => yes.", "T-T-T", "c", 0),
    ("first", "The red circle is seen before the blue square. => red circle.", "T", "fcs", 0),
    ("first", "The red circle is before the blue square. => the red circle.", "T", "fcs", 0),
    ("first", "At 0 s I see a red circle [0,2,24,26]. At 2 s I see a blue square [40,30,64,54]. => red circle.", "T+T+", "fcs", 0),
    ("first", "At 3 s I see a red circle [36,2,60,26]. At 2 s I see a blue square [40,30,64,54]. => blue square.", "T+T+", "f", 0),
    ("first", "The red circle is seen after the blue square. => blue square.", "F", "f", 0),
    # places
    ("place", "The blue square is at the top right. => top right.", "T", "fcs", 0),
    ("place", "I see a blue square [60,20,92,52]. It is at the top right. => top right.", "T+T", "fcs", 0),
    ("place", "The blue square is at the top left. => top left.", "F", "f", 0),
    ("place", "The red circle is at the top left. => top right.", "?", "c", 0),
    ("place", "The green cross is at the top left. => top right.", "F", "c", 0),
    ("place", "It is at the top right. => top right.", "?", "fc", 0),
    # the one furthest out
    ("leftmost", "I see a small red circle [8,12,28,32] and a large red circle [12,70,44,102]. => a small red circle.", "T+T+", "fcs", 0),
    ("leftmost", "I see a small red circle [8,12,28,32]. => small red circle.", "T+", "fcs", 0),
    ("leftmost", "I see a red circle [8,12,28,32]. => a small red circle.", "T+", "c", 0),
    ("leftmost", "I see a small red circle [20,12,40,32] and a large red circle [12,70,44,102]. => a large red circle.", "T-T+", "f", 0),
    # bars and sums
    ("minus", "The red bar [8,54,24,104] is 5. The green bar [28,74,44,104] is 3. 5 - 3 = 2. => 2.", "T+T+T", "fcs", 0),
    ("minus", "The red bar is 5. The green bar is 3. => 2.", "TT", "fcs", 0),
    ("minus", "The red bar is 6. The green bar is 4. 6 - 4 = 2. => 2.", "FFT", "fc", 0),
    ("minus", "The red bar is 5. The green bar is 3. 5 - 3 = 3. => 3.", "TTF", "", 0),
    ("minus", "5 - 3 = 2. => 2.", "T", "fcs", 0),
    ("minus", "5 + 3 = 2. => 2.", "F", "fc", 0),
    ("minus", "3 - 5 = -2. => 2.", "T", "c", 0),
    ("value", "The blue bar [48,14,64,104] is 9. => 9.", "T+", "fcs", 0),
    ("value", "The blue bar [48,54,64,104] is 9. => 9.", "T+", "fcs", 0),
    ("value", "The blue bar [8,54,24,104] is 9. => 9.", "T-", "fc", 0),
    ("value", "The gray bar is 9. => 9.", "F", "c", 0),
    ("value", "The blue square is 9. => 9.", "F", "c", 0),
    ("highest", "The red bar is 5. The green bar is 3. The blue bar is 9. => blue.", "TTT", "fcs", 0),
    ("highest", "The blue bar is higher than the red bar. => blue.", "T", "c", 0),
    ("highest", "The red bar is lower than the green bar. The red bar is left of the green bar. => blue.", "FT", "c", 0),
    # what moves, appears and turns
    ("motion", "At 0 s I see a red circle [0,2,24,26]. At 3 s I see a red circle [36,2,60,26]. The red circle moves right. "
     "=> right.", "T+T+T", "fcs", 0),
    ("motion", "At 0 s I see a red circle [36,2,60,26]. At 3 s I see a red circle [0,2,24,26]. => left.", "T-T-", "f", 0),
    ("motion", "The red circle moves left. => left.", "F", "f", 0),
    ("motion", "At 0 s I see a red circle. It moves right. => right.", "TT", "fcs", 0),
    ("motion", "It moves right. => right.", "?", "fc", 0),
    ("motion", "The blue square moves right. => right.", "F", "c", 0),
    ("motion", "The green square moves right. => right.", "F", "c", 0),
    ("motion", "At 7 s I see a red circle [36,2,60,26]. The red circle moves right. => right.", "F-T", "fc", 0),
    ("when", "At 2 s I see a blue square [40,30,64,54]. => 2.", "T+", "fcs", 0),
    ("when", "At 1 s I see a blue square [40,30,64,54]. => 1.", "F-", "f", 0),
    ("when", "At 3 s, I see a blue square [40,30,64,54]. => 3.", "T+", "f", 0),
    ("end", "At 3 s I see a red circle [36,2,60,26] and a blue square [40,30,64,54]. That makes 2. => 2.", "T+T+T", "fcs", 0),
    ("end", "At 0 s I see a red circle [0,2,24,26]. => 1.", "T+", "", 0),
    ("turned", "At 0 s I see a red circle [0,2,24,26]. At 3 s I see a green circle [36,2,60,26]. => green.", "T+T+", "fcs", 0),
    ("turned", "At 0 s I see a red circle [0,2,24,26]. At 3 s I see a blue circle [36,2,60,26]. => blue.", "T+F-", "f", 0),
    ("turned", "At 3 s I see a green circle [36,2,60,26]. => green.", "T+", "c", 0),
    # whole responses, form and what lies outside the grammar
    ("colour", "<think>I see a blue square. => blue.</think><answer>A</answer>", "T", "fcs", 0),
    ("colour", "I see a blue square. => blue.</think><answer>A</answer>", "T", "fcs", 0),
    ("colour", "I see a red circle. <think>I see a blue square. => blue.", "T", "fcs", 0),
    ("colour", "<THINK>I SEE A LARGE BLUE SQUARE [60,20,92,52]. THE ANSWER IS BLUE.</THINK>", "T+", "fcs", 0),
    ("colour", "  I  see   a blue\tsquare [ 60 , 20, 92,52 ].\n\n=>   blue.  ", "T+", "fcs", 0),
    ("colour", "I see a blue square.\nSo the answer is: blue", "T", "fcs", 0),
    ("colour", "I see the blue square[60,20,92,52], and a red circle. => Blue.", "T+T", "fcs", 0),
    ("colour", "=> red. I see a blue square. => blue.", "T", "fcs", 0),
    ("colour", "=> blue. I see a blue square. => red.", "T", "", 0),
    ("colour", "I see a blue square. Trust me. => blue.", "T", "fc", 1),
    ("colour", "I see a blue square and a cat. => blue.", "", "c", 1),
    ("colour", "I see a blue square [60,20,92]. => blue.", "", "c", 1),
    ("colour", "I see a blue square [60.5,20,92,52]. => blue.", "", "c", 1),
    ("colour", "I see a blue square! => blue.", "", "", 1),
    ("colour", "I see a blue square. => blue because it is blue.", "T", "", 0),
    ("colour", "I see a blue squаre. => blue.", "", "c", 1),  # a Cyrillic letter
    ("colour", "", "", "", 0),
    ("colour", "...", "", "", 0),
    ("colour", "A", "", "", 1),
]  # fmt: skip


def signs(truth: Any) -> str:
    return "".join(
        {True: "T", False: "F", None: "?"}[claim.true] + {True: "+", False: "-", None: ""}[claim.box_holds] for claim in truth.claims
    )


@pytest.mark.parametrize(("scene", "said", "claims", "holds", "unread"), TABLE)
def test_verify_trace(scene: str, said: str, claims: str, holds: str, unread: int):
    truth = verify_trace(said.replace("=>", "The answer is"), SCENES[scene])
    assert signs(truth) == claims
    assert "".join(name[0] for name in ("follows", "correct", "sound") if getattr(truth, name)) == holds
    assert truth.unread == unread


def test_shares_and_overlaps():
    truth = verify_trace("I see a red circle [8,12,28,22], a blue square [60,20,92,52] and a gray cross. That makes 4.", SCENES["colour"])
    assert truth.claim_truth == pytest.approx(2 / 3) and truth.box_truth == 1.0
    assert [claim.iou for claim in truth.claims] == [0.5, 1.0, None, None]
    assert [claim.text for claim in truth.claims][:2] == ["red circle [8,12,28,22]", "blue square [60,20,92,52]"]
    nothing = verify_trace("Trust me.", SCENES["colour"])
    assert nothing.claim_truth is None and nothing.box_truth is None and not nothing.sound


def test_the_conclusion_is_the_last_one_stated():
    assert verify_trace("The answer is red. The answer is Blue.", SCENES["colour"]).conclusion == "blue"
    assert verify_trace("I see a red circle.", SCENES["colour"]).conclusion is None


def test_a_scene_can_be_given_as_its_record():
    assert verify_trace("I see a blue square. The answer is blue.", SCENES["colour"].record()).sound


RECORD = SCENES["colour"].record()


@pytest.mark.parametrize(
    "record",
    [
        {},
        RECORD | {"version": 2},
        RECORD | {"things": [{"colour": "blue"}]},
        RECORD | {"things": [{"box": [1, 2, 3, 4], "weight": 3}]},
        RECORD | {"things": 3},
        RECORD | {"query": {"family": "poem"}},
        RECORD | {"query": None},
        RECORD | {"answer": "red"},
        RECORD | {"evidence": [9]},
        RECORD | {"canvas": [112]},
        [],
        None,
    ],
)
def test_what_is_no_scene_is_refused(record: Any):
    with pytest.raises(ValueError, match="not the record of a scene"):
        verify_trace("I see a blue square.", record)


rows = st.tuples(st.sampled_from(["pictures", "charts"]), st.sampled_from(sorted(SPLITS)), st.integers(0, 1999), st.integers(0, 50))
clip_rows = st.tuples(st.just("clips"), st.sampled_from(sorted(SPLITS)), st.integers(0, 1999), st.integers(0, 50))


@settings(max_examples=120, deadline=None)
@given(rows)
def test_right_traces_are_sound_and_wrong_ones_lead_to_a_wrong_answer(row: tuple):
    world, split, index, seed = row
    check_traces(make(world, split, seed, index))


@settings(max_examples=25, deadline=None)
@given(clip_rows)
def test_the_same_of_clips(row: tuple):
    world, split, index, seed = row
    check_traces(make(world, split, seed, index))


def check_traces(sample: Any) -> None:
    scene = scene_of(sample)
    right = verify_trace(sample.meta["trace"], sample.meta["scene"])
    assert right.sound and right.box_truth in (1, None), sample.meta["trace"]
    assert sample.meta["caption"] != sample.meta.get("wrong_caption")
    if "wrong_trace" in sample.meta:
        wrong, answer = verify_trace(sample.meta["wrong_trace"], scene), sample.meta["wrong_answer"]
        text = sample.options[LETTERS.index(answer)] if sample.kind == "choice" else answer
        assert wrong.follows and not wrong.correct and not wrong.unread and wrong.conclusion == text
        assert answer != sample.answer and text != scene.gold
        assert sample.kind != "choice" or sample.options[LETTERS.index(sample.answer)] == scene.gold
        later = sample.meta["family"] == "when"  # a true sighting, but not the first one
        assert later or wrong.claim_truth != 1 or wrong.box_truth != 1, sample.meta["wrong_trace"]


@settings(max_examples=60, deadline=None)
@given(rows, st.randoms(use_true_random=False))
def test_an_altered_thing_is_told_by_its_claim_and_a_moved_one_by_its_box(row: tuple, rng: Any):
    world, split, index, seed = row
    scene = scene_of(make(world, split, seed, index))
    if not scene.shown:
        return
    i = rng.randrange(len(scene.shown))
    displaced = [moved(t, scene.canvas, rng) if j == i else t for j, t in enumerate(scene.shown)]
    claim = verify_trace(trace(scene, displaced, scene.gold), scene).claims[i]
    alike = [t for t in scene.things if (t.colour, t.shape) == (scene.shown[i].colour, scene.shown[i].shape)]
    assert claim.true and (len(alike) > 1 or claim.box_holds is False)
    changed = altered(scene.shown[i], rng)
    lie = verify_trace(trace(scene, [replace(changed, box=None)], scene.gold), scene).claims[0]
    assert lie.true is any(replace(t, box=None) == replace(changed, box=None) for t in scene.things)


def test_captions_say_what_the_answer_needs_without_boxes():
    for scene in SCENES.values():
        assert "[" not in caption(scene) and "I see" not in caption(scene) and "The answer" not in caption(scene)
    said = caption(SCENES["leftmost"])
    assert said.startswith("There is a small red circle, a large red circle") and said.endswith("The leftmost shape is a small red circle.")
    assert caption(SCENES["none"]) == "There is no green shape."
    assert caption(SCENES["motion"]).startswith("At 0 s there is a red circle. At 3 s there is a red circle. The red circle moves right")


MEGABYTE = 1_000_000
HOSTILE = {
    "brackets": "[" * MEGABYTE,
    "colours": "a red " * (MEGABYTE // 6),
    "digits": "1" * MEGABYTE,
    "boxes": "I see a circle " + "[1,2,3," * (MEGABYTE // 7),
    "and": "I see a circle" + " and a circle" * (MEGABYTE // 13) + "!",
    "one list": "I see " + "a red circle, " * (MEGABYTE // 14) + ".",
    "commas": "I see a circle" + ", and" * (MEGABYTE // 5),
    "spaces": "I see" + " " * MEGABYTE + "a circle.",
    "newlines": "I see\n" * (MEGABYTE // 6),
    "dots": "." * MEGABYTE,
    "dots and spaces": ". " * (MEGABYTE // 2),
    "tags": "<think>" * (MEGABYTE // 7),
    "answers": "The answer is " * (MEGABYTE // 14),
    "claims": "".join(f"I see a red circle [{i},0,{i},9]. " for i in range(30_000)),
    "others": "I see another red circle. " * (MEGABYTE // 26),
    "its": "I see a red circle. It moves left. " * (MEGABYTE // 35),
    "no": "I see no " * (MEGABYTE // 9),
    "sums": "1 + 1 = 2. " * (MEGABYTE // 11),
    "unicode": "I see a réd çircle \N{SNOWMAN}\u202e\ud800. " * (MEGABYTE // 25),
    "null": "\0" * MEGABYTE,
    "many digits": "I see a circle [" + "9" * MEGABYTE + ",1,1,1].",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_traces_end_soon(text: str):
    begun = time.monotonic()
    for scene in ("count", "motion"):
        truth = verify_trace(text, SCENES[scene])
        assert not truth.sound and len(truth.claims) <= MOST_CHARACTERS // 4
    assert time.monotonic() - begun < 10


@settings(max_examples=100, deadline=None)
@given(
    st.text(max_size=200)
    | st.lists(st.sampled_from(["I see", " a red circle", " [1,2,3,4]", ".", " and", "The answer is", " 2", "\n"])).map("".join)
)
def test_any_text_can_be_read(text: str):
    truth = verify_trace(text, SCENES["count"])
    assert (truth.conclusion is not None) or not (truth.follows or truth.correct)
    assert not truth.sound or (truth.follows and truth.correct)


def test_digits_of_other_scripts_are_numbers_too():
    assert verify_trace("That makes \N{ARABIC-INDIC DIGIT TWO}. The answer is 2.", SCENES["count"]).sound


def test_a_record_gives_the_scene_back():
    for scene in SCENES.values():
        assert scene_from(scene.record()) == scene
