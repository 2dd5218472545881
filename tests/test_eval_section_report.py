import csv
import dataclasses

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_eval_report import HOSTILE, Page, record

from eval.calibration import reliability_bins
from eval.charts import Chart
from eval.drawings import QUADRANTS, bar_chart, curve_chart, reliability_chart
from eval.evaluator import Figure, Section, Table
from eval.figures import mean, share
from eval.runner import save_records
from eval.section_report import write_eval_report
from eval.wording import brief, cell_text, escaped, inert

RIGHT = {str(i): i % 4 > 0 for i in range(40)}
FLIPPED = {str(i): i % 3 > 0 for i in range(40)}


def stressed(i, **over):
    base = record(i, FLIPPED[str(i)], "stress/wrong_caption", said="The caption says teal. So it is teal.")
    return dataclasses.replace(base, **({"question": f"Caption: teal.\n{base.question}", "prefill": ""} | over))


def sections():
    clean, after = share("accuracy", RIGHT), share("accuracy/wrong_caption", FLIPPED)
    drop = mean("drop/wrong_caption", {i: float(RIGHT[i]) - FLIPPED[i] for i in RIGHT}, {i: i for i in RIGHT}, "difference")
    table = Table(
        "Per condition",
        ("condition", "accuracy", "drop", "n", "verdict"),
        (("clean", clean, None, 40, "fine"), ("x", after, drop, 40, "bad")),
    )
    curve = curve_chart("Blur", {"blur": {0: clean, 3: after}}, "severity", {0: "clean", 3: "3"})
    bars = bar_chart("Trace and answer", {"clean": dict(zip(QUADRANTS, (20, 10, 5, 5), strict=True))})
    reliability = reliability_chart("Calibration", {"clean": reliability_bins([0.9, 0.6, 0.6], [True, False, True])})
    undefined = Figure("recover/wrong_caption", None, 0, unit="difference", note="nothing was asked again")
    return {
        "accuracy": Section("Accuracy", "Three in four are answered right.", (clean,), marks=("1",)),
        "stress": Section(
            "Stress",
            "A wrong caption costs points.",
            (clean, after, drop, undefined),
            (table,),
            (curve, bars, reliability, Chart("empty", ())),
            ("0", "9", "none"),
        ),
    }


@pytest.fixture
def run_dir(tmp_path):
    run = tmp_path / "my eval"
    (run / "media").mkdir(parents=True)
    Image.new("RGB", (80, 60), "red").save(run / "media" / "m0.png")
    Image.new("RGB", (400, 60), "red").save(run / "media" / "m9.png")
    clean = [record(i, RIGHT[str(i)], said="I see it at [10,20,30,40]. So it is red.") for i in range(40)]
    save_records(run / "records.jsonl", clean + [stressed(i) for i in range(40)])
    (run / "config.yaml").write_text("seed: 3\nmodel: {path: some/model}\ndata: {name: easy_vqa, split: test}\n")
    return run


def page(run, *args):
    return Page(write_eval_report(run, *args).read_text())


def test_the_page_holds_words_numbers_and_reasons(run_dir):
    words = page(run_dir, sections(), {"order": "the endpoint cannot begin the answer of the model"}).words
    for expected in (
        "model some/model data easy_vqa split test seed 3 questions 40",
        "Three in four are answered right.",
        "A wrong caption costs points.",
        "order was not run: the endpoint cannot begin the answer of the model",
        "75.0% [59.8, 85.8] n = 40",
        "recover · wrong caption nothing was asked again – n = 0",
        "consistent, right",
        "severity",
        "seed: 3",
    ):
        assert expected in words
    assert "drop · wrong caption" not in words, "a figure that stands in a table is not listed again"


def test_examples_show_prompt_perturbation_and_both_traces(run_dir):
    html = write_eval_report(run_dir, sections()).read_text()
    words = Page(html).words
    assert "stress/wrong caption" in words and '<mark class="by-given">Caption: teal.' in html
    assert '<mark class="by-answer by-truth">teal</mark>.</p>' in html or '<mark class="by-truth">teal</mark>.</p>' in html
    assert html.count('<rect x="10.0" y="20.0" width="20.0" height="20.0"') == 1
    assert "picture strip" in html
    assert words.count("not stored with the run") == 1


def test_markdown_and_csv_hold_the_same_figures(run_dir):
    write_eval_report(run_dir, sections(), {"order": "no"})
    text = (run_dir / "report.md").read_text()
    assert "| x | 65\\.0% \\[49\\.5, 77\\.9\\] \\(n \\= 40\\) |" in text and "order" in text
    rows = list(csv.DictReader((run_dir / "figures.csv").read_text().splitlines()))
    assert [(row["section"], row["figure"]) for row in rows[:2]] == [("accuracy", "accuracy"), ("stress", "accuracy")]
    assert float(rows[0]["value"]) == 0.75 and rows[0]["n"] == "40"
    assert (rows[-1]["value"], rows[-1]["low"], rows[-1]["note"]) == ("", "", "nothing was asked again")


def test_the_page_asks_nothing_from_outside(run_dir):
    found = page(run_dir, sections())
    assert not {"script", "link", "iframe", "object", "form"} & set(found.tags)
    addresses = [value for key, value in found.attributes if key in ("src", "href", "xlink:href", "action")]
    assert all(value.startswith(("data:image/png;base64,", "#")) for value in addresses)
    assert "default-src 'none'" in dict(found.attributes)["content"] or any("default-src 'none'" in (v or "") for _, v in found.attributes)


def test_without_records_config_or_sections_the_page_says_so(tmp_path):
    words = page(tmp_path, {}).words
    assert "Nothing was measured" in words and "config.yaml is missing" in words


def test_failed_answers_and_conditions_of_others_are_no_examples(run_dir):
    records = [
        record(0, True),
        stressed(0, detail={"error": "down"}),
        dataclasses.replace(stressed(0), condition="other/x", completion="OTHER"),
    ]
    save_records(run_dir / "records.jsonl", records)
    words = page(run_dir, sections()).words
    assert "OTHER" not in words and "as asked" in words


TEXT = st.text(st.characters() | st.sampled_from("<>&\"'\\`|*_[](){}$\x00\u202e\ud800\n"), max_size=40)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(TEXT | st.just(HOSTILE), min_size=14, max_size=14))
def test_no_text_in_any_field_becomes_markup(run_dir, texts):
    def build(t):
        figure = Figure(t[0], 0.5, 3, 0.1, 0.9, note=t[1])
        stacks = bar_chart(t[2], {t[3]: {t[4]: 2}}, t[5])
        curve = dataclasses.replace(curve_chart(t[2], {t[3]: {0: figure, 1: figure}}, t[4], {0: t[5]}), note=t[1])
        table = Table(t[6], (t[7], t[8]), ((t[9], figure), (t[9], t[10])), t[11])
        section = Section(t[12], t[13], (figure, Figure(t[0], 1.0, 1)), (table,), (stacks, curve), ("0",))
        plain = record(0, True)
        hit = {"question": t[0], "options": (t[1], t[2]), "gold": t[3], "completion": t[4], "prefill": t[5], "answer": t[6]}
        clean = dataclasses.replace(
            plain, question=t[7], completion=f"<think>{t[8]}</think><answer>{t[9]}</answer>", options=(t[10], t[11])
        )
        records = [clean, dataclasses.replace(plain, condition=f"{t[0]}/{t[1]}", **hit)]
        save_records(run_dir / "records.jsonl", records)
        return write_eval_report(run_dir, {t[0]: section}, {t[12]: t[13]} if t[12] != t[0] else {}).read_text(encoding="utf-8")

    plain = Page(build([f"plain{i}" for i in range(14)]))
    found = Page(build(texts))
    assert set(found.tags) <= set(plain.tags) | {"mark", "rect"}
    assert {key for key, _ in found.attributes} <= {key for key, _ in plain.attributes} | {"class", "x", "y", "width", "height"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("=1+1", "'=1+1"), ("@x", "'@x"), ("a=b", "a=b"), ("a\nb", "a b"), (" -2", "'-2")],
)
def test_cells_are_no_formulas(text, expected):
    assert inert(text) == expected


def test_markdown_is_shown_not_obeyed():
    assert escaped("<b>*x*|`y`\n# [a](http://b)") == "&lt;b&gt;\\*x\\*\\|\\`y\\` \\# \\[a\\]\\(http\\://b\\)"


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (None, "–"),
        (0.25, "25.0%"),
        (3, "3"),
        (True, "yes"),
        ("x", "x"),
        (Figure("x", -0.0004, 9, -0.1, 0.1, "difference"), "+0.0 [-10.0, 10.0] (n = 9)"),
    ],
)
def test_cells(cell, expected):
    assert cell_text(cell) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("Short. And whole.", "Short. And whole."),
        ("One 3.5 is. " + "Two x. " * 60, ("One 3.5 is. " + "Two x. " * 38).strip()),
        ("x" * 400 + ". Then.", "x" * 400 + "."),
        ("x" * 400, "x" * 400),
    ],
)
def test_a_summary_holds_whole_sentences(words, expected):
    assert brief(words) == expected
