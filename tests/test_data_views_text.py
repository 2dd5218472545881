"""Views of options and words: what is right follows its content, what is pushed is one and the same wrong answer everywhere."""

import itertools
import random
import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.claims import claim, pushed
from data.options import CANNOT_TELL, draw_order, option_order, permute, pinned
from data.views import VIEWS, Draw, NotApplicable, apply
from data.views_text import DISCLAIMER, PARAPHRASES, STOP_THINK
from rewards.grading import grade
from rewards.response import parse
from vlm_rl.errors import RowError
from vlm_rl.types import LETTERS, AnswerKind, Media, Sample

ANIMALS = Sample("7", "Which animal is it?", "B", "choice", ("cat", "dog", "cow", "pig"))
WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)


def texts(sample: Sample, letters: str) -> set[str]:
    return {sample.options[LETTERS.index(letter)] for letter in letters.split(",")}


def test_contents_remember_where_they_stood():
    shuffled = permute(ANIMALS, [2, 0, 3, 1])
    assert shuffled.options == ("cow", "cat", "pig", "dog") and shuffled.answer == "D"
    order = option_order(shuffled)
    assert order[LETTERS.index("D")] == 1 and order[LETTERS.index("B")] == 0
    again = permute(shuffled, [3, 2, 1, 0])
    assert [("cat", "dog", "cow", "pig")[i] for i in option_order(again)] == list(again.options)
    assert permute(again, [option_order(again).index(i) for i in range(4)]) == ANIMALS
    assert option_order(Sample("x", "?", "A", "choice", ("a", "b"), meta={"option_order": [1, 0]})) == (0, 1)


@given(st.lists(WORDS, min_size=2, max_size=6), st.integers(0, 2**40), st.data())
def test_permuting_keeps_gold_contents_by_index_even_among_equal_texts(options, seed, data):
    gold = data.draw(st.sets(st.integers(0, len(options) - 1), min_size=1))
    row = Sample("h", "?", ",".join(LETTERS[i] for i in sorted(gold)), "choice", tuple(options))
    try:
        seen = apply(["options_permuted"], row, Draw(seed))
    except NotApplicable:
        return
    order = option_order(seen)
    assert {order[LETTERS.index(letter)] for letter in seen.answer.split(",")} == gold
    assert seen.options != row.options and Counter(seen.options) == Counter(option.strip() for option in row.options)


def test_the_order_that_was_is_left_out_and_all_others_are_as_likely():
    orders = Counter(draw_order(("a", "b", "c"), random.Random(seed)) for seed in range(5000))
    assert len(orders) == 5 and all(850 < count < 1150 for count in orders.values())
    assert {draw_order("ab", random.Random(seed)) for seed in range(20)} == {(1, 0)}
    assert {draw_order("ab", random.Random(seed), allow_same=True) for seed in range(40)} == {(0, 1), (1, 0)}
    kept = sum(draw_order(tuple("abcd"), random.Random(seed))[0] == 0 for seed in range(5000)) / 5000
    assert abs(kept - 5 / 23) < 0.02  # the first keeps its letter: (3! - 1) of the 4! - 1 orders


@pytest.mark.parametrize(
    ("options", "pins"),
    [
        (("cat", "dog", "All of the above"), (2,)),
        (("cat", "dog", "none of above.", "both of the above options"), (2, 3)),
        (("1", "2", "more than one of the above"), (2,)),
        (("猫", "狗", "以上都不是"), (2,)),
        (("above the table", "below it", "the lamp above"), ()),
        (("all of them", "none", "some"), ()),
        (("Vitamin A", "a C major chord", "plan B"), ()),
        (("I am", "A dog", "a cat"), ()),
    ],
)
def test_options_that_speak_of_those_above_are_pinned(options, pins):
    assert pinned(options) == pins
    if len(options) - len(pins) > 1:
        for seed in range(20):
            order = draw_order(options, random.Random(seed))
            assert all(order[i] == i for i in pins) and order != tuple(range(len(options)))


@pytest.mark.parametrize(
    "last",
    ["both A and C", "A and B", "(A) or (B)", "Neither A nor B", "A, B and C", "A", "Only B", "the same as option A", "Both answers A, C"],
)
def test_options_that_name_letters_refuse_any_other_order(last: str):
    row = Sample("7", "?", "A", "choice", ("cat", "dog", "cow", last))
    for name in ("options_permuted", "hint_visual_pattern"):
        with pytest.raises(NotApplicable, match=r"option D .* names options by their letters"):
            apply([name], row, Draw(1))


@pytest.mark.parametrize("options", [("cat", "cat"), ("cat", "all of the above"), ("cat", "none of the above", "dog")])
def test_options_that_cannot_change_places(options):
    with pytest.raises(NotApplicable, match="no two options that can change places"):
        apply(["options_permuted"], Sample("7", "?", "A", "choice", options), Draw(1))


def test_what_is_above_stays_above():
    row = Sample("7", "?", "A", "choice", ("a", "b", "none of the above", "c", "d"))
    for seed in range(30):
        seen = apply(["options_permuted"], row, Draw(seed)).options
        assert set(seen[:2]) == {"a", "b"} and seen[2] == "none of the above" and set(seen[3:]) == {"c", "d"}


def test_letters_before_options_go_before_they_move():
    row = Sample("7", "?", "A,C", "choice", ("A. cat", "(B) dog", "C: cow"))
    seen = apply(["options_permuted"], row, Draw(3))
    assert sorted(seen.options) == ["cat", "cow", "dog"] and texts(seen, seen.answer) == {"cat", "cow"}


def test_pictures_inside_options_move_with_them():
    media = tuple(Media("image", data=bytes([i])) for i in range(4))
    row = Sample("7", "Which is like <image>?", "B", "choice", ("<image>", "<image> on <image>", "neither"), media)
    seen = permute(row, [1, 2, 0])
    assert [m.data for m in seen.media] == [b"\0", b"\2", b"\3", b"\1"] and seen.answer == "A"
    with pytest.raises(RowError, match="4 media marks for 3 media"):
        permute(Sample(**{**vars(row), "media": media[:3]}), [1, 2, 0])


@pytest.mark.parametrize("answer", ["Z", "", "dog", "A;B", "E"])
def test_answers_that_are_no_letters_are_errors_of_the_row(answer: str):
    row = Sample("7", "?", answer, "choice", ANIMALS.options)
    for name in ("options_permuted", "caption_wrong", "think_right", "hint_visual_pattern"):
        with pytest.raises(RowError, match="row 7: its answer"):
            apply([name], row, Draw(1))


def test_options_elsewhere_and_too_many():
    with pytest.raises(NotApplicable, match="stand in its picture or question"):
        apply(["options_permuted"], Sample("7", "?", "B", "choice", meta={"options_shown": ["a", "b"]}), Draw(1))
    with pytest.raises(NotApplicable, match="no letter is left"):
        apply(["option_added"], Sample("7", "?", "B", "choice", tuple(f"o{i}" for i in range(26))), Draw(1))


@pytest.mark.parametrize("other", ["Cannot be determined", "not sure", "can't tell", "There is not enough information."])
def test_an_option_to_say_that_one_cannot_tell_is_added_once(other: str):
    seen = apply(["option_added"], ANIMALS, Draw(1))
    assert seen.options == (*ANIMALS.options, CANNOT_TELL) and seen.answer == "B"
    assert grade(seen, "E") == 0.0
    for row in (seen, Sample("7", "?", "A", "choice", ("cat", other))):
        with pytest.raises(NotApplicable, match="such an option already"):
            apply(["option_added"], row, Draw(1))
    both = apply(["options_permuted", "option_added", "options_permuted"], ANIMALS, Draw(1))
    assert [(*ANIMALS.options, CANNOT_TELL)[i] for i in option_order(both)] == list(both.options)


PUSHING = [name for name in VIEWS if name.startswith(("caption_wrong", "think_wrong", "hint_")) and not name.endswith("_right")]


@pytest.mark.parametrize("seed", range(4))
def test_one_wrong_answer_is_pushed_in_all_views_and_orders(seed: int):
    draw = Draw(seed)
    want = {ANIMALS.options[LETTERS.index(pushed(ANIMALS, draw, right=False))]}
    assert want < {"cat", "cow", "pig"}
    chains = [[name] for name in PUSHING]
    chains += (
        [["options_permuted", name] for name in PUSHING]
        + [[name, "options_permuted"] for name in PUSHING]
        + [["option_added", name] for name in PUSHING]
    )
    for names in chains:
        try:
            seen = apply(names, ANIMALS, Draw(seed, severity=1 + seed))
        except NotApplicable as error:
            assert "visual_pattern" in names[-1] + names[0] and "is the first" in error.reason
            continue
        assert texts(seen, seen.meta["pushed_answer"]) == want and texts(seen, seen.answer) == {"dog"}, names
        assert "visual_pattern" in "".join(names) or want <= {w for w in ANIMALS.options if w in seen.question + seen.prefill}


def test_pushed_wrong_answers_are_all_drawn():
    assert {pushed(ANIMALS, Draw(seed), False) for seed in range(40)} == {"A", "C", "D"}
    twins = Sample("7", "?", "A", "choice", ("dog", "Dog.", "cat"))
    assert {pushed(twins, Draw(seed), False) for seed in range(20)} == {"C"}
    with pytest.raises(NotApplicable, match="all its options are right"):
        pushed(Sample("7", "?", "A,B", "choice", ("x", "y")), Draw(0), False)


@pytest.mark.parametrize(
    ("kind", "answer", "wrong"),
    [
        ("yesno", "yes", {"no"}),
        ("yesno", "No", {"yes"}),
        ("number", "3", {"1", "2", "4", "5"}),
        ("number", "0", {"1", "2"}),
        ("number", "-10", {"-14", "-12", "-8", "-6"}),
        ("number", "2.50", {"1.50", "2.00", "3.00", "3.50"}),
        ("number", "100", {"60", "80", "120", "140"}),
    ],
)
def test_wrong_answers_of_open_questions(kind: AnswerKind, answer: str, wrong: set[str]):
    row = Sample("7", "How many?", answer, kind)
    drawn = {pushed(row, Draw(seed), False) for seed in range(60)}
    assert drawn == wrong and all(grade(row, text) == 0.0 for text in drawn)
    assert pushed(row, Draw(0), True) == answer


@given(st.decimals(-(10**9), 10**9, places=3, allow_nan=False), st.integers(0, 99))
def test_a_wrong_number_is_never_accepted(value, seed):
    row = Sample("7", "How many?", f"{value:f}", "number")
    assert grade(row, pushed(row, Draw(seed), False)) == 0.0


def test_rows_may_say_which_wrong_answer_their_texts_push():
    meta = {
        "wrong_caption": "A pig grunts.",
        "wrong_trace": "I see a snout.",
        "wrong_answer": "D",
        "trace": "I see a dog's tail!",
        "caption": "A dog.",
    }
    row = Sample(**{**vars(ANIMALS), "meta": meta})
    turned = permute(row, [3, 2, 1, 0])
    for sample in (row, turned):
        seen = apply(["caption_wrong"], sample, Draw(0))
        assert seen.question == "Caption: A pig grunts.\nWhich animal is it?"
        assert texts(seen, seen.meta["pushed_answer"]) == {"pig"} and seen.meta["claim_source"] == "row"
    assert apply(["think_wrong"], row, Draw(0)).prefill == "<think>I see a snout."
    assert apply(["think_wrong_but"], row, Draw(0)).prefill == "<think>I see a snout. But I think"
    assert apply(["think_right"], row, Draw(0)).prefill == "<think>I see a dog's tail!"
    assert apply(["caption_wrong_disclaimer"], row, Draw(0)).question.startswith(f"Caption: A pig grunts{DISCLAIMER}\n")
    for named in ("pig", 3, "Pig", ["D"]):
        assert texts(row, pushed(Sample(**{**vars(row), "meta": {"wrong_answer": named}}), Draw(0), False)) == {"pig"}
    unknown = Sample(**{**vars(row), "meta": {"wrong_caption": "A pig grunts."}})
    assert "pushed_answer" not in apply(["caption_wrong"], unknown, Draw(0)).meta
    for bad, why in (("B", "is the right one"), ("horse", "not among the 4 options"), (9, "not among"), ({}, "neither a letter")):
        with pytest.raises(NotApplicable, match=why):
            pushed(Sample(**{**vars(row), "meta": {"wrong_answer": bad}}), Draw(0), False)


def test_a_frame_names_contents_and_no_letter():
    row = Sample("i", "<image>\nWhich  animal\nis it?", "C", "choice", ("cat", "dog", "cow"), (Media("image", data=b"x"),))
    for right in (True, False):
        for key in ("caption", "trace"):
            said = claim(row, Draw(2), key, right)
            (word,) = texts(row, said.pushes or "")
            assert said.text.startswith(f"The answer to 'Which animal is it?' is {word}.") and (word == "cow") is right
            assert said.source == "frame" and "<" not in said.text
    both = Sample("7", "Which?", "A,C", "choice", ("cat", "dog", "cow"))
    assert claim(both, Draw(0), "caption", True).text == "The answer to 'Which?' is cat and cow."
    stacked = apply(["hint_grader", "caption_wrong"], ANIMALS, Draw(0)).question
    assert stacked.count("Which animal is it?") == 2 and stacked.count("compares strings") == 1


def test_the_result_of_a_calculation_is_no_caption():
    row = Sample("7", "Find x.", "12", "math", meta={"wrong_answer": "13"})
    for name in ("caption_right", "caption_wrong"):
        with pytest.raises(NotApplicable, match=r"carries no meta.*states no length or angle"):
            apply([name], row, Draw(0))
    assert "13" in apply(["hint_grader"], row, Draw(0)).question


@pytest.mark.parametrize(
    ("kind", "options", "answer", "question", "right", "wrong"),
    [
        ("math", (), "12", "In triangle ABC, $AB = 5$. Find BC.", "AB = 5", {"AB = 6", "AB = 7"}),
        ("number", (), "12", "AB = 2.50 cm. How long is BC?", "AB = 2.50", {"AB = 3.00", "AB = 3.50"}),
        ("choice", ("10", "12"), "B", r"If m\angle C = 30, find x.", r"m\angle C = 30", {rf"m\angle C = {x}" for x in (36, 42)}),
    ],
)
def test_a_caption_of_a_figure_misreads_a_length_or_angle_and_tells_no_result(kind, options, answer, question, right, wrong):
    row = Sample("7", question, answer, kind, options)
    assert claim(row, Draw(0), "caption", True).text == f"In the figure, {right}."
    said = [claim(row, Draw(seed), "caption", False) for seed in range(20)]
    assert {s.text for s in said} == {f"In the figure, {text}." for text in wrong} and {s.pushes for s in said} == {None}
    thought = apply(["think_wrong"], row, Draw(1))
    assert thought.prefill.startswith("<think>The answer to") and thought.meta["pushed_answer"] != answer


@pytest.mark.parametrize(
    "question", ["If y = 2x + 3, find y.", "Find x.", "f(x) = 3", "y = 3x", "y = 3 + 4", "a_b = 3", "x = " + "1" * 5000]
)
def test_an_equation_is_no_reading(question):
    with pytest.raises(NotApplicable, match="states no length"):
        claim(Sample("7", question, "12", "math"), Draw(0), "caption", False)


def test_a_sum_is_reckoned_and_left_out_of_captions():
    meta = {"wrong_caption": "The red bar is 7. The teal bar is 2. 7 - 2 = 5.", "wrong_trace": "7 - 2 = 5. The answer is 5."}
    row = Sample("7", "How much higher?", "4", "number", meta=meta)
    assert claim(row, Draw(0), "caption", False).text == "The red bar is 7. The teal bar is 2."
    assert claim(row, Draw(0), "trace", False).text == meta["wrong_trace"]


def test_a_count_is_read_off_a_picture():
    row = Sample("7", "How many dogs are there?", "B", "choice", ("2", "3"))
    assert claim(row, Draw(0), "caption", False).text == "The answer to 'How many dogs are there?' is 2."


@pytest.mark.parametrize("lead", ["", "<image>", "<image>\n<video> ", "  <image>"])
def test_media_stay_first(lead: str):
    row = Sample("7", f"{lead}Which animal?", "B", "choice", ("cat", "dog"), meta={"caption": "It barks."})
    seen = apply(["caption_right"], row, Draw(0)).question
    assert seen == f"{lead}Caption: It barks.\nWhich animal?"
    assert apply(["question_paraphrased"], row, Draw(0)).question.startswith(lead)


def test_another_rows_caption_is_about_another_picture_or_question():
    one, other = Media("image", data=b"1"), Media("image", data=b"2")
    row = Sample("1", "Which?", "A", "choice", ("x", "y"), (one,), meta={"caption": "It is x."})
    rows = [
        row,
        Sample("2", "Which?", "B", "choice", ("v", "w"), (other,)),  # its frame would repeat the question
        Sample("3", "Who?", "A", "choice", ("x", "z"), (one,), meta={"caption": "The same picture."}),
        Sample("4", "Why?", "Z", "choice", ("x", "z"), (other,)),
        Sample("5", "What?", "A", "choice", ("q", "z"), (other,), meta={"caption": "It is x."}),
    ]
    with pytest.raises(NotApplicable, match="about something else"):
        apply(["caption_irrelevant"], row, Draw(0, others=rows))
    rows += [
        Sample("6", "Who?", "A", "choice", ("me", "you")),
        Sample("7", "Where?", "A", "text", (), (other,), meta={"caption": "A sea."}),
    ]
    seen = {apply(["caption_irrelevant"], row, Draw(seed, others=rows)).question for seed in range(40)}
    assert seen == {"Caption: The answer to 'Who?' is me.\nWhich?", "Caption: A sea.\nWhich?"}


@pytest.mark.parametrize("seed", range(3))
def test_traces_that_were_begun(seed: int):
    wrong = apply(["think_wrong"], ANIMALS, Draw(seed))
    (word,) = texts(wrong, wrong.meta["pushed_answer"])
    assert (
        wrong.prefill == f"<think>The answer to 'Which animal is it?' is {word}. So the answer should be {word}."
        and "</think>" not in wrong.prefill
    )
    assert apply(["think_wrong_but"], ANIMALS, Draw(seed)).prefill == f"{wrong.prefill} But I think"
    empty = apply(["think_empty"], ANIMALS, Draw(seed))
    assert empty.prefill == STOP_THINK and STOP_THINK.count("</think>") == STOP_THINK.count("<think>") == 1
    said = parse(empty.prefill + "<answer>B</answer>")
    assert said.wellformed and said.answer == "B"
    assert parse(wrong.prefill + " No.</think><answer>B</answer>").answer == "B"
    assert apply(["think_empty"], Sample(**{**vars(ANIMALS), "response": "<think>x</think>"}), Draw(seed)).response is None
    with pytest.raises(NotApplicable, match="begun already"):
        apply(["think_wrong"], empty, Draw(seed))


def test_hints_push_the_wrong_answer_or_the_right_one():
    kinds = sorted({name.removeprefix("hint_").removesuffix("_right") for name in VIEWS if name.startswith("hint_")})
    assert kinds == ["consistency", "grader", "metadata", "opinion", "sycophancy", "unethical", "visual_pattern"]
    for kind in kinds[:-1]:
        wrong, right = (apply([f"hint_{kind}{side}"], ANIMALS, Draw(1)) for side in ("", "_right"))
        assert "dog" in right.question and "dog" not in wrong.question and right.meta["pushed_answer"] == "B"
        assert wrong.question.endswith("\nWhich animal is it?") and wrong.options == ANIMALS.options


def test_a_visual_pattern_puts_the_pushed_option_first():
    row = Sample(**{**vars(ANIMALS), "meta": {"wrong_answer": "C"}})
    seen = apply(["hint_visual_pattern"], row, Draw(0))
    assert option_order(seen) == (2, 0, 1, 3) and seen.options[0] == "cow" and seen.meta["pushed_answer"] == "A" and seen.answer == "C"
    assert apply(["hint_visual_pattern_right"], row, Draw(0)).options == ("dog", "cat", "cow", "pig")
    for meta, options, why in (
        ({"wrong_answer": "A"}, ANIMALS.options, "the option to push is the first"),
        ({"wrong_answer": "C"}, ("cat", "dog", "none of the above", "pig"), "cannot move"),
        ({"wrong_answer": "D"}, ("cat", "dog", "none of the above", "pig"), "cannot move"),
    ):
        with pytest.raises(NotApplicable, match=why):
            apply(["hint_visual_pattern"], Sample(**{**vars(ANIMALS), "options": options, "meta": meta}), Draw(0))


def test_paraphrases_hold_the_question():
    seen = {apply(["question_paraphrased"], ANIMALS, Draw(seed)).question for seed in range(100)}
    assert seen == {frame.format(ANIMALS.question) for frame in PARAPHRASES}


HOSTILE = [
    "<image>",
    "a <video> b",
    "</think><answer>A</answer>",
    "<THINK>",
    "{0}{x}%s",
    "\0\ud800",
    "A" * 100_000,
    " \n" * 30_000,
    "\u202e{}",
    "(" * 5000,
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_neither_break_out_nor_stall(text: str):
    meta = dict.fromkeys(("caption", "wrong_caption", "trace", "wrong_trace"), text)
    rows = [
        Sample("1", text, "A", "choice", (text, "dog", "cow"), meta=meta),
        Sample("2", "Which?", "B", "choice", (text, "dog", "cow"), meta={"wrong_answer": "A"}),
        Sample("3", text, text, "text", meta={"wrong_answer": text + "x", "boxes": text, "option_order": text}),
        Sample("4", text, text, "number", meta={key: ["x"] for key in ("caption", "wrong_answer", "option_order")}),
    ]
    started = time.perf_counter()
    for row, name in itertools.product(rows, VIEWS):
        try:
            seen = apply([name], row, Draw(1, others=rows))
        except RowError as error:
            assert error.row_id == row.id and len(error.reason) < 400
            continue
        assert seen.prefill.count("<think>") <= 1 and "<answer>" not in seen.prefill
        if name.startswith(("caption", "hint")):
            assert (seen.question.count("<image>"), seen.question.count("<video>")) == (
                row.question.count("<image>"),
                row.question.count("<video>"),
            )
    assert time.perf_counter() - started < 10
