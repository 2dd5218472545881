"""What follows from things: every family of questions against tables, overlap against counting pixels."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.scene_logic import FAMILIES, RELATIONS, Box, Facts, Thing, answer, direction, holds, iou, name, place
from data.scene_types import plural, question

RED = Thing("red", "circle", "small", (8, 12, 28, 32))
BLUE = Thing("blue", "square", "large", (60, 20, 92, 52))
BIG_RED = Thing("red", "circle", "large", (12, 70, 44, 102))
FIVE = Thing("red", "bar", box=(8, 54, 24, 104), value=5)
THREE = Thing("green", "bar", box=(28, 74, 44, 104), value=3)
CANVAS = [112, 112]

boxes = st.tuples(*[st.integers(-3, 12)] * 4)


def at(time: int, colour: str = "red", shape: str = "circle", box: Box | None = (0, 0, 24, 24)) -> Thing:
    return Thing(colour, shape, box=box, time=time)


def counted_iou(a: Box, b: Box) -> float:
    """Pixel by pixel."""
    first, second = ({(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])} for box in (a, b))
    return len(first & second) / len(first | second) if first | second else 0.0


@given(boxes, boxes)
def test_iou_equals_counting_pixels(a: Box, b: Box):
    assert iou(a, b) == pytest.approx(counted_iou(a, b))


@given(boxes, boxes)
def test_iou_is_symmetric_and_bounded(a: Box, b: Box):
    assert iou(a, b) == iou(b, a) and 0 <= iou(a, b) <= 1


things = st.builds(
    Thing,
    st.sampled_from(["red", "blue", ""]),
    st.sampled_from(["circle", "bar", ""]),
    st.sampled_from(["small", "large", ""]),
    st.none() | boxes,
    st.none() | st.integers(1, 9),
    st.none() | st.integers(0, 3),
)
OPPOSITE = {"left of": "right of", "above": "below", "larger than": "smaller than", "higher than": "lower than", "before": "after"}


@given(st.sampled_from(RELATIONS), things, things)
def test_a_relation_holds_one_way_or_the_other_or_cannot_be_told(relation: str, a: Thing, b: Thing):
    there, back = holds(relation, a, b), holds(relation, b, a)
    assert (there is None and back is None) or (there is not None and back is not None and there != back)


@given(st.sampled_from(sorted(OPPOSITE)), things, things)
def test_opposite_relations_are_told_from_the_same_measure(relation: str, a: Thing, b: Thing):
    assert holds(relation, a, b) == holds(OPPOSITE[relation], b, a)


@pytest.mark.parametrize(
    ("relation", "a", "b", "expected"),
    [
        ("left of", RED, BLUE, True),
        ("right of", RED, BLUE, False),
        ("above", RED, BLUE, True),
        ("below", BIG_RED, BLUE, True),
        ("larger than", RED, BLUE, False),
        ("larger than", BLUE, BIG_RED, None),
        ("higher than", FIVE, THREE, True),
        ("higher than", RED, BLUE, None),
        ("before", at(1), at(2), True),
        ("before", at(1), RED, None),
        ("left of", Thing("red"), BLUE, None),
    ],
)
def test_relations(relation: str, a: Thing, b: Thing, expected: bool | None):
    assert holds(relation, a, b) is expected


@pytest.mark.parametrize(
    ("box", "expected"),
    [((0, 0, 20, 20), "top left"), ((60, 0, 80, 20), "top right"), ((0, 56, 20, 76), "bottom left"), ((56, 56, 57, 57), "bottom right")],
)
def test_places(box: Box, expected: str):
    assert place(box, CANVAS) == expected


@pytest.mark.parametrize(
    ("after", "expected"),
    [((9, 1, 19, 11), "right"), ((0, 9, 10, 19), "down"), ((-9, 5, 1, 15), "left"), ((5, -9, 15, 1), "up"), ((4, 4, 14, 14), None)],
)
def test_directions(after: Box, expected: str | None):
    assert direction((0, 0, 10, 10), after) == expected


def test_names():
    assert name(RED) == "small red circle" and name({"shape": "shape", "colour": "red"}) == "red shape" and name(Thing()) == ""
    assert plural({"colour": "red", "shape": "cross"}) == "red crosses" and plural({"shape": "shape"}) == "shapes"


def pair(family: str, relation: str, a: Thing = RED, b: Thing = BLUE) -> dict:
    called = [{"colour": t.colour, "shape": t.shape} for t in (a, b)]
    return {"family": family, "relation": relation, "a": called[0], "b": called[1]}


COLOUR = {"family": "attribute", "attribute": "colour", "target": {"shape": "circle"}}
SIZE = {"family": "attribute", "attribute": "size", "target": {"colour": "red", "shape": "circle"}}
COUNT = {"family": "count", "target": {"shape": "shape", "colour": "red"}}
COUNT_AT_END = COUNT | {"time": 3}
PLACE = {"family": "place", "target": {"colour": "red", "shape": "circle"}, "canvas": CANVAS}
LEFTMOST = {"family": "extreme", "relation": "left of", "attribute": "colour"}
HIGHEST = {"family": "extreme", "relation": "higher than", "attribute": "colour"}
BAR = {"family": "bar", "target": {"colour": "red", "shape": "bar"}}
MINUS = {"family": "sum", "sign": "-", "a": {"colour": "red", "shape": "bar"}, "b": {"colour": "green", "shape": "bar"}}
MOTION = {"family": "motion", "target": {"colour": "red", "shape": "circle"}}
TURNED = {"family": "turned", "target": {"shape": "circle"}}
WHEN = {"family": "when", "target": {"colour": "red", "shape": "circle"}}
RIGHT_BY_12 = (12, 0, 36, 24)

ANSWERS = [
    (COLOUR, Facts((RED, BLUE)), "red"),
    (COLOUR, Facts((BLUE,)), None),
    (COLOUR, Facts((RED, BIG_RED)), "red"),
    (COLOUR, Facts((RED, Thing("blue", "circle"))), None),
    (COLOUR, Facts((Thing(shape="circle"),)), None),
    (SIZE, Facts((RED, BIG_RED)), None),
    (SIZE, Facts((RED, BLUE)), "small"),
    (COUNT, Facts((RED, BLUE, BIG_RED)), "2"),
    (COUNT, Facts((BLUE,)), "0"),
    (COUNT, Facts(), None),
    (COUNT, Facts(total=3), "3"),
    (COUNT, Facts((RED,), total=3), "1"),
    (COUNT, Facts(absent=(Thing("red"),)), "0"),
    (COUNT, Facts(absent=(Thing(),)), "0"),
    (COUNT, Facts(absent=(Thing("blue"),)), None),
    (COUNT, Facts(absent=(Thing("red", "circle"),)), None),
    (COUNT, Facts(absent=(Thing("red", size="small"),)), None),
    (COUNT_AT_END, Facts((at(0), at(3, "blue"))), "0"),
    (COUNT_AT_END, Facts((at(0),)), None),
    (COUNT_AT_END, Facts(absent=(Thing("red", time=0),)), None),
    (COUNT_AT_END, Facts(absent=(Thing("red", time=3),)), "0"),
    (PLACE, Facts((RED,)), "top left"),
    (PLACE, Facts((RED, BIG_RED)), None),
    (PLACE, Facts((Thing("red", "circle"),)), None),
    (PLACE, Facts(places=((Thing("red", "circle"), "top right"),)), "top right"),
    (PLACE, Facts((RED,), places=((Thing("red", "circle"), "top right"),)), "top left"),
    (pair("relation", "left of"), Facts((RED, BLUE)), "yes"),
    (pair("relation", "below"), Facts((RED, BLUE)), "no"),
    (pair("relation", "below"), Facts((RED,)), None),
    (pair("relation", "below"), Facts(relations=(("below", RED, BLUE),)), "yes"),
    (pair("relation", "below"), Facts(relations=(("below", BLUE, RED),)), "no"),
    (pair("relation", "below"), Facts(relations=(("above", BLUE, RED),)), "yes"),
    (pair("relation", "below"), Facts(relations=(("above", RED, BLUE),)), "no"),
    (pair("relation", "below"), Facts(relations=(("left of", RED, BLUE),)), None),
    (pair("relation", "below"), Facts((RED, BLUE), relations=(("below", RED, BLUE),)), "no"),
    (pair("relation", "before"), Facts((at(2), at(3), at(1, "blue", "square"))), "no"),
    (pair("which", "left of"), Facts((RED, BLUE)), "red circle"),
    (pair("which", "larger than"), Facts((RED, BLUE)), "blue square"),
    (pair("which", "larger than"), Facts((RED,)), None),
    (LEFTMOST, Facts((BLUE, RED)), "red"),
    (LEFTMOST, Facts((BLUE, RED, Thing("green", "cross"))), None),
    (LEFTMOST, Facts((RED, Thing("blue", "square", box=(8, 0, 28, 20)))), None),
    (LEFTMOST | {"attribute": "all"}, Facts((BLUE, RED)), "a small red circle"),
    (LEFTMOST, Facts(), None),
    (HIGHEST, Facts((THREE, FIVE)), "red"),
    (HIGHEST, Facts((FIVE, Thing("blue", "bar", value=5))), None),
    (BAR, Facts((FIVE, THREE)), "5"),
    (BAR, Facts((FIVE, Thing("red", "bar", value=4))), None),
    (BAR, Facts((THREE,)), None),
    (MINUS, Facts((THREE, FIVE)), "2"),
    (MINUS, Facts((FIVE,)), None),
    (MINUS, Facts(sums=(4, 2)), "2"),
    (MINUS, Facts((THREE, FIVE), sums=(9,)), "2"),
    (MOTION, Facts((at(3, box=RIGHT_BY_12), at(0))), "right"),
    (MOTION, Facts((at(3), at(0))), None),
    (MOTION, Facts((at(3),)), None),
    (MOTION, Facts((at(0), at(0, box=RIGHT_BY_12))), None),
    (MOTION, Facts(moves=((Thing("red", "circle"), "up"),)), "up"),
    (MOTION, Facts(moves=((Thing("blue", "circle"), "up"),)), None),
    (MOTION, Facts(moves=((Thing(), "up"),)), "up"),
    (TURNED, Facts((at(0), at(3, "blue"))), "blue"),
    (TURNED, Facts((at(3, "blue"), at(0))), "blue"),
    (TURNED, Facts((at(0), at(3))), None),
    (TURNED, Facts((at(0), at(0, "blue"))), None),
    (TURNED, Facts((at(0), at(3), at(3, "blue"))), None),
    (WHEN, Facts((at(3), at(2))), "2"),
    (WHEN, Facts((at(3, "blue"),)), None),
    (WHEN, Facts((Thing("red", "circle"),)), None),
]


@pytest.mark.parametrize(("query", "facts", "expected"), ANSWERS)
def test_answers(query: dict, facts: Facts, expected: str | None):
    assert answer(query, facts) == expected


def test_every_family_is_in_the_table():
    assert {query["family"] for query, _, _ in ANSWERS} == set(FAMILIES)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (COLOUR, "What colour is the circle?"),
        (COLOUR | {"attribute": "shape", "target": {"shape": "shape", "colour": "red"}}, "What is the red shape?"),
        (SIZE, "Is the red circle small or large?"),
        (COUNT, "How many red shapes are there?"),
        (COUNT_AT_END, "How many red shapes are there at the end?"),
        (PLACE, "Where is the red circle?"),
        (pair("relation", "left of"), "Is the red circle left of the blue square?"),
        (pair("relation", "before"), "Is the red circle seen before the blue square?"),
        (pair("which", "above"), "Which is higher up, the red circle or the blue square?"),
        (pair("which", "after"), "Which is seen last, the red circle or the blue square?"),
        (LEFTMOST, "What colour is the leftmost shape?"),
        (LEFTMOST | {"attribute": "all"}, "Describe the leftmost shape."),
        (HIGHEST, "What colour is the highest bar?"),
        (BAR, "What is the value of the red bar?"),
        (MINUS, "What is the red bar minus the green bar?"),
        (MINUS | {"sign": "+"}, "What is the red bar plus the green bar?"),
        (MOTION, "Which way does the red circle move?"),
        (TURNED, "What colour does the circle turn?"),
        (WHEN, "At which second does the red circle appear?"),
    ],
)
def test_questions_in_words(query: dict, expected: str):
    assert question(query) == expected
