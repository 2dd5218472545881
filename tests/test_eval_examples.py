import dataclasses
import io

import pytest
from PIL import Image
from test_eval_report import record

from eval.evaluator import Case, Figure, Section, Study
from eval.examples import EXAMPLES, examples, shown_marks
from eval.marking import Piece, added, marked
from eval.perturb import Perturb
from eval.wording import bounds_text, value_text
from vlm_rl.types import Media, Sample, Sampling


def png(colour):
    out = io.BytesIO()
    picture = Image.new("RGB", (40, 30), colour)
    picture.paste("white", (10, 10, 30, 20))
    picture.save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize(
    ("trace", "answer", "expected"),
    [
        ("I see teal. So it is red.", "A", [("I see teal. So it is red.", ())]),
        ("So it is teal.", "A", [("So it is ", ()), ("teal", ("answer", "truth")), (".", ())]),
        ("So it is teal.", "B", [("So it is ", ()), ("teal", ("truth",)), (".", ())]),
        ("So it is red.", "B", [("So it is ", ()), ("red", ("answer",)), (".", ())]),
        ("The answer is B", "A", [("The answer is ", ()), ("B", ("answer", "truth"))]),
        ("", "A", []),
    ],
)
def test_words_of_the_conclusion_are_marked(trace, answer, expected):
    assert marked(trace, dataclasses.replace(record(0, True), answer=answer)) == [Piece(*one) for one in expected]


def test_false_claims_about_a_scene_are_marked():
    said = dataclasses.replace(
        record(0, True), sample_id="pictures-v1-test-0-2", question="How many green shapes are there?", options=(), gold="0"
    )
    pieces = marked("I see no green shape. I see 17. 2 + 2 = 5.", dataclasses.replace(said, kind="number", answer="0"))
    assert next(piece.text for piece in pieces if "truth" in piece.marks) == "2 + 2 = 5"


def test_what_the_test_concludes_is_not_held_against_the_model():
    begun = dataclasses.replace(record(0, True), prefill="<think>It is teal.", completion=" But it is red.</think><answer>A</answer>")
    assert marked("It is teal. But it is red.", begun) == [Piece("It is teal.", ("given",)), Piece(" But it is red.")]
    closed = dataclasses.replace(begun, prefill="<think>It is teal.</think><answer>", completion="A</answer>")
    assert marked("It is teal.", closed) == [Piece("It is teal.", ("given",))]


@pytest.mark.parametrize(
    ("text", "before", "given"), [("Caption: x\nq", "q", "Caption: x\n"), ("q", "q", ""), ("aa", "a", "a"), ("q tail", "q", " tail")]
)
def test_what_a_prompt_has_more_than_another(text, before, given):
    pieces = added(text, before)
    assert "".join(piece.text for piece in pieces) == text
    assert "".join(piece.text for piece in pieces if piece.marks) == given


def test_examples_show_changed_pictures_and_judges_and_leave_out_repetitions(tmp_path):
    (tmp_path / "media").mkdir()
    for name in ("m0", "blurred"):
        (tmp_path / "media" / f"{name}.png").write_bytes(png("red"))
    clean = record(0, True)
    blurred = dataclasses.replace(clean, condition="perturb/blur@5", media_ids=("blurred",))
    base = dataclasses.replace(clean, condition="perturb/base")
    judged = dataclasses.replace(clean, condition="perturb/asked", detail={"judge": "J", "reply": "<b>NONE</b>"})
    section = Section("Perturbations", "", (), marks=("0", "0", "gone"))
    (example,) = examples(tmp_path, "perturb", section, Study({}, [clean, base, blurred, judged]))
    assert [said.condition for said in example.said] == ["as asked", "perturb/blur@5", "perturb/asked"]
    assert len(example.said[1].pictures) == 1 and not example.said[0].pictures
    assert example.said[2].correct is None and example.said[2].notes == ("judge J",)


def test_marks_that_are_shown_are_evenly_drawn():
    marks = [str(i) for i in range(30)]
    assert shown_marks(Section("x", "", (), marks=(*marks, "0"))) == marks[:: 30 // EXAMPLES]


def test_a_condition_shows_its_pictures_again():
    row = Sample("r", "what colour?", "A", "choice", ("red", "teal"), (Media("image", data=png("red")),))
    other = dataclasses.replace(row, id="o", media=(Media("image", data=png("blue")),))
    case = Case(row, (), 7, Sampling(8, 0.0), (other,))
    shown = Perturb(["blur", "wrong_caption", "swapped"], severities=[1, 5]).shown(case)
    assert list(shown) == ["perturb/blur@1", "perturb/blur@5", "perturb/swapped"]
    assert len({sample.media[0].id for sample in shown.values()} | {row.media[0].id}) == 4


@pytest.mark.parametrize(
    ("numbers", "unit", "expected"),
    [
        ((0.3364, 3.54e-07, 0.905), "nats", "0.336 [0.000, 0.905]"),
        ((1.349, 0.969, 1.71), "number", "1.35 [0.97, 1.71]"),
        ((512.4, 480.0, 560.2), "number", "512 [480, 560]"),
        ((12.0, None, None), "count", "12 "),
        ((None, None, None), "share", "– "),
    ],
)
def test_numbers_have_the_digits_they_need(numbers, unit, expected):
    value, low, high = numbers
    figure = Figure("x", value, 9, low, high, unit)
    assert f"{value_text(figure)} {bounds_text(figure)}" == expected
