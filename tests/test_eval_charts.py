import re

import pytest

from eval.calibration import reliability_bins
from eval.charts import Chart, Line, to_svg
from eval.drawings import QUADRANTS, bar_chart, curve_chart, reliability_chart
from eval.evaluator import Figure
from eval.figures import share

HOSTILE = "<script>alert(1)</script>\x00\u202e\ud800$\\frac{1}{2}$"


def test_curves_over_severity_leave_out_what_is_not_defined():
    clean, mild = share("right", [True, True, False, True]), share("right", [True, False, False, True])
    chart = curve_chart(
        "Noise", {"noise": {1: mild, 0: clean, 2: Figure("right", None, 0)}}, "severity", {0: "clean", 1: "mild", 2: "hard"}
    )
    (line,) = chart.lines
    assert line.points == ((0.0, 0.75), (1.0, 0.5))
    assert line.whiskers == ((0.0, clean.low, clean.high), (1.0, mild.low, mild.high))
    assert chart.share and chart.whole
    svg = to_svg(chart)
    for words in ("severity", "clean", "mild", "hard", "100%"):
        assert f">{words}<" in svg


def test_differences_may_lie_below_zero():
    drop = Figure("drop", -0.2, 10, -0.4, 0.1, "difference")
    chart = curve_chart("Drop", {"noise": {0: drop, 1: drop}}, "severity")
    assert chart.share and not chart.whole
    assert ">\N{MINUS SIGN}30%<" in to_svg(chart)


def test_more_curves_than_colours_are_told_apart_by_dashes():
    one = {0: share("x", [True]), 1: share("x", [True, False])}
    lines = curve_chart("Many", {str(i): one for i in range(8)}, "severity").lines
    assert len({(line.colour, line.dashed) for line in lines}) == 8


def test_reliability_diagram():
    chart = reliability_chart("Calibration", {"clean": reliability_bins((0.95, 0.95, 0.55), (True, False, True)), "none": []})
    line, diagonal = chart.lines
    assert line.points == ((0.55, 1.0), (0.95, 0.5)) and diagonal.dashed
    assert ">confidence<" in to_svg(chart)


def test_bars_have_the_same_parts_in_the_same_order():
    right, odd, *_ = QUADRANTS
    chart = bar_chart("Quadrants", {"clean": {right: 3, odd: 1}, "caption": {odd: 2, "unread": 2}, "nothing": {right: 0}})
    assert [stack.label for stack in chart.stacks] == ["clean", "caption"]
    assert chart.stacks[0].parts == ((right, 0.75), (odd, 0.25), ("unread", 0.0))
    assert chart.stacks[1].parts == ((right, 0.0), (odd, 0.5), ("unread", 0.5))
    assert chart.stacks[1].note == "n = 4"


@pytest.mark.parametrize("where", ["across", "places"])
def test_hostile_names_are_drawn_as_text(where):
    names = {"across": HOSTILE} if where == "across" else {"places": ((0.0, HOSTILE),)}
    svg = to_svg(Chart("x", (Line("a", ((0.0, 1.0), (1.0, 2.0))),), **names))
    assert "<script" not in svg and "&lt;script" in svg
    assert not re.search("[\x00\u202e\ud800]", svg)
