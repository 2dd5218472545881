import pytest

from eval.evaluator import Table
from eval.figures import mean, ratio, said, share, with_tabled
from eval.metrics import paired_bootstrap, wilson


def test_share_by_question():
    found = share("right", {"a": True, "b": True, "c": False})
    assert (found.value, found.n, found.unit) == (pytest.approx(2 / 3), 3, "share")
    assert (found.low, found.high) == wilson(2, 3)
    assert found.items == {"a": (1.0, 1.0), "b": (1.0, 1.0), "c": (0.0, 1.0)}
    assert share("right", [True, True, False]) == found


def test_of_nothing_there_is_no_figure():
    assert (share("x", {}).value, mean("x", {}, {}).value, ratio("x", {"a": (0, 0)}, {"a": 1}).value) == (None, None, None)
    assert share("x", []).n == mean("x", [], []).n == ratio("x", [], []).n == 0
    assert said(share("x", [])) == "not defined"


def test_mean_over_clusters_found_by_question():
    values = {"a": 1.0, "b": 0.0, "c": 1.0}
    found = mean("x", values, {"c": 2, "a": 1, "b": 1, "other": 9}, "difference")
    expected = paired_bootstrap([1.0, 0.0, 1.0], [1, 1, 2])
    assert (found.value, found.low, found.high) == (expected.value, expected.low, expected.high)
    assert found.items["c"] == (1.0, 1.0)
    with pytest.raises(ValueError, match="by question id"):
        mean("x", [1.0], {"a": 1})


def test_ratio_of_a_subset_counts_its_denominator():
    found = ratio("flip", {"a": (1, 1), "b": (0, 1), "c": (0, 0)}, {"a": 1, "b": 2, "c": 3}, "share")
    assert (found.value, found.n, found.items["c"]) == (0.5, 2, (0, 0))


def test_in_running_text():
    assert said(share("x", [True] * 5 + [False] * 5)) == "50.0% [23.7, 76.3] (n = 10)"
    assert said(mean("x", [0.1, 0.1], [1, 2], "difference")) == "+10.0 points [10.0, 10.0] (n = 2)"
    assert said(mean("x", [1.5, 1.5], [1, 2], "nats")) == "1.50 [1.50, 1.50] (n = 2)"


def test_figures_of_tables_are_in_the_summary_once():
    low, high, other = share("x", [False]), share("x", [True]), share("y", [True])
    table = Table("t", ("a", "b", "c"), (("row", high, 3.0), ("row", other, None)))
    assert with_tabled([low], [table]) == (high, other) and with_tabled([], []) == ()
