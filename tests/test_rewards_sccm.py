"""Visual sufficiency and minimality: what the answerer is shown, what it is asked, and what its answers are worth."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers_rewards import configs, make_group, never
from hypothesis import given
from hypothesis import strategies as st
from models_small import make, make_chat
from PIL import Image
from runs_small import train_config

from data import DATASETS
from data.edits import GREY
from data.media import decode_image, png_media
from data.options import gold_indices, option_order
from data.sources import jsonl
from data.templates import render
from data.views import Draw, apply
from data.views_text import STOP_THINK
from eval.metrics import paired_bootstrap
from rewards.mixture import Mixture
from rewards.sccm import Sccm, narrowness, rotated
from vlm_rl import cli_train
from vlm_rl.asking import Asker
from vlm_rl.chat import Chat
from vlm_rl.config import DataConfig
from vlm_rl.engine.hf import HFEngine
from vlm_rl.errors import RowError, UserError
from vlm_rl.types import LETTERS, Generate, Group, Media, Query, Reply, RewardResult, Sample

DOT = (10, 5, 20, 10)  # red, on a grey picture of 100 x 100


def dotted(size: tuple[int, int] = (100, 100)) -> Media:
    image = Image.new("RGB", size, GREY)
    image.paste((220, 20, 20), DOT)
    image.paste((20, 20, 220), (80, 80, 90, 90))
    return png_media(image)


COLOURS = ("teal", "red", "green", "black")
ROW = Sample("row", "What colour is the dot?", "B", "choice", COLOURS, (dotted(),))
SEES, MISSES = "[0,0,50,10]", "[30,30,50,40]"  # with and without the dot


def turn(boxes: str, answer: str = "B") -> str:
    return f"<think>I see a dot {boxes}. The answer is red.</think><answer>{answer}</answer>"


def looks(query: Query) -> bool:
    """Whether red is to be seen in any picture of a question."""
    shown = [np.asarray(decode_image(medium, "r")) for medium in query.sample.media]
    return any(((pixels[:, :, 0] > 150) & (pixels[:, :, 1] < 100)).any() for pixels in shown)


class Answerer:
    """Names the dot's colour where it sees red, and otherwise does `guess`. Remembers what it was asked, call by call."""

    def __init__(self, guess: Callable[[Sample], str] = lambda sample: "?"):
        self.guess = guess
        self.calls: list[list[Generate]] = []

    def __call__(self, queries: Sequence[Query]) -> list[Reply]:
        self.calls.append([query for query in queries if isinstance(query, Generate)])
        return [Reply(f"<answer>{self.say(query.sample) if looks(query) else self.guess(query.sample)}</answer>") for query in queries]

    def say(self, sample: Sample) -> str:
        return LETTERS[sample.options.index("red")]

    @property
    def asked(self) -> list[Generate]:
        return [query for call in self.calls for query in call]


def red(sample: Sample) -> str:
    return LETTERS[sample.options.index("red")]


def seeing_chat(**settings) -> Chat:
    """A small model's chat with the template and the decoder of real runs."""
    chat = make_chat(**settings)
    return Chat(chat.processor, chat.config, render("plain"), decode_image)


def results(reward: Sccm, group: Group, ask: Callable[[Sequence[Query]], list[Reply]]) -> Sequence[RewardResult]:
    course = reward.rounds(group)
    try:
        queries = next(course)
        while True:
            queries = course.send(ask(queries))
    except StopIteration as stop:
        return stop.value


def one(boxes: str, ask: Callable[[Sequence[Query]], list[Reply]], sample: Sample = ROW, **settings) -> RewardResult:
    [result] = results(Sccm("abs_original", **settings), make_group([turn(boxes)], sample), ask)
    return result


@pytest.mark.parametrize(("rho", "factor"), [(0, 1), (0.05, 1), (0.1, 0.8889), (0.275, 0.5), (0.5, 0), (0.9, 0)])
def test_narrowness(rho: float, factor: float) -> None:
    assert narrowness(rho) == pytest.approx(factor, abs=1e-4)


@pytest.mark.parametrize(
    ("answer", "boxes", "total", "gated"),
    [
        ("B", SEES, 1.75, 1.75),
        ("B", "[0,0,100,50]", 1.50, 1.50),
        ("B", "[30,30,50,40]", 1.00, 1.00),
        ("A", SEES, 0.75, 0.0),
        ("A", "", 0.0, 0.0),
        ("B", "[0,0,100,100]", 1.50, 1.50),
        ("B", "", 1.0, 1.0),
    ],
)
def test_totals(answer: str, boxes: str, total: float, gated: float) -> None:
    sccm = {"convention": "abs_original"}
    for gates, expected in (([], total), (["requires_correct"], gated)):
        mixture = Mixture(configs(accuracy={}, sccm={**sccm, "gate": gates}), 0.0)
        [scored] = mixture.score([make_group([turn(boxes, answer)], ROW)], 0, Answerer())
        assert scored.totals[0] == pytest.approx(expected)


def test_a_gate_on_format() -> None:
    mixture = Mixture(configs(accuracy={"weight": 0}, sccm={"convention": "abs_original", "gate": "requires_format"}), 0.0)
    [scored] = mixture.score([make_group([turn(SEES), turn(SEES) + " and more"], ROW)], 0, Answerer())
    assert scored.totals == pytest.approx((0.75, 0.0))


@pytest.mark.parametrize(
    ("boxes", "area", "count"),
    [
        ("[0,0,50,50] [25,25,75,75]", 0.4375, 2),
        ("[10,10,20,20] then [10,10,20,20]", 0.01, 1),
        ("[0,0,100,100]", 1.0, 1),
        ("[-5,-5,50,10]", 0.05, 1),
    ],
)
def test_area_is_that_of_the_union_as_it_is_cut_out(boxes: str, area: float, count: int) -> None:
    detail = one(boxes, Answerer()).detail
    assert (detail["area"], detail["boxes"]) == (pytest.approx(area), count)


def test_area_counts_what_the_padding_shows() -> None:
    result = one("[0.4,0.4,0.5,0.5]", Answerer(), pad=0.1, lambda_m=0.25)
    assert result.detail["malformed"] == 0
    padded = results(Sccm("rel_1", pad=0.1), make_group([turn("[0.4,0.4,0.5,0.5]")], ROW), Answerer())[0]
    assert padded.detail["area"] == pytest.approx(0.09)


def test_without_a_usable_box_nothing_is_asked_and_nothing_earned() -> None:
    group = make_group([turn("[50,0,0,10]"), turn(""), "no tags at all [0,0,50,10]", f"<answer>{SEES}</answer>"], ROW)
    for kind in ("area", "count", "leave_one_out"):
        said = results(Sccm("abs_original", kind=kind, blind=True), group, never)
        assert [result.value for result in said] == [0.0] * 4
        assert [result.detail["malformed"] for result in said] == [1, 0, 0, 0]
        assert "area" not in said[0].detail
    assert said[0].detail["rejected"] == ["order: [50,0,0,10]"]


def test_a_failed_box_is_no_component() -> None:
    result = one(f"[50,0,0,10] {SEES}", Answerer(), kind="count")
    assert (result.detail["boxes"], result.detail["malformed"], result.detail["minimality"]) == (1, 1, 1.0)


def test_the_whole_picture_is_sufficient_and_not_minimal() -> None:
    detail = one("[0,0,100,100]", Answerer()).detail
    assert (detail["sufficiency"], detail["area"], detail["minimality"]) == (1, 1, 0)


def test_no_crop_is_minimal_that_is_not_sufficient() -> None:
    for kind in ("area", "count", "leave_one_out"):
        detail = one("[30,30,32,32]", Answerer(), kind=kind).detail
        assert (detail["sufficiency"], detail["minimality"]) == (0, 0)


LEAKY = replace(
    ROW,
    question="Look at <image> well. What colour is the dot?",
    meta={"caption": "a red dot", "trace": "it is red", "boxes": [[0, 0, 9, 9]], "rho_hi": 0.5},
    response="<think>red</think><answer>B</answer>",
)


@pytest.mark.parametrize("answerer", ["start", "policy", "witness"])
@pytest.mark.parametrize("views", [[], ["caption_wrong"], ["hint_grader"], ["think_wrong"], ["image_rotated"]])
def test_the_answerer_is_shown_the_crops_and_nothing_else(answerer: str, views: list[str]) -> None:
    """Neither the picture nor a word of the trace, a label, a coordinate, the first answer, nor what a view put around the question."""
    sample = apply(views, LEAKY, Draw(1))
    trace = 'SECRET words {"bbox_2d": [10, 4, 30, 12], "label": "RUBY"} {"bbox_2d": [40, 40, 57, 63], "label": "SLATE"}'
    text = trace + "</think><answer>B</answer>" if sample.prefill else f"<think>{trace}</think><answer>B</answer>"
    group = make_group([text], sample, prefill=sample.prefill)
    ask = Answerer()
    results(Sccm("abs_original", answerer=answerer), group, ask)
    [query] = ask.asked
    assert query.target == answerer
    judged = answerer == "witness"
    prompt = query.sample.question if judged else seeing_chat().prompt(query.sample, query.prefill).text
    for hidden in ("SECRET", "RUBY", "SLATE", "bbox", "57", "expects", "Caption", "a red dot", "it is red"):
        assert hidden not in prompt
    assert "What colour is the dot?" in prompt
    assert all(f"{letter}. {option}" in prompt for letter, option in zip("ABCD", COLOURS, strict=True))
    assert query.sample.media[0].source == sample.media[0].source
    picture = decode_image(sample.media[0], "r")
    crops = [decode_image(medium, "r") for medium in query.sample.media]
    assert [np.array_equal(crop, picture.crop(box)) for crop, box in zip(crops, [(10, 4, 30, 12), (40, 40, 57, 63)], strict=True)] == [
        True
    ] * 2
    assert (query.sample.prefill, query.prefill) == ("" if judged else STOP_THINK, "")
    assert query.sampling.temperature == 0
    if judged:
        assert "<image>" not in prompt and "<answer></answer>" in prompt
    else:
        assert prompt.count("<|image_pad|>") == 2


def test_equal_questions_are_asked_once_and_all_together() -> None:
    ask = Answerer()
    reward = Sccm("abs_original", blind=True)
    group = make_group([turn(SEES), turn(SEES), turn(MISSES), turn(""), turn(f"{SEES} {SEES}")], ROW)
    said = results(reward, group, ask)
    assert [len(call) for call in ask.calls] == [3], "two sets of crops, and once without a picture"
    assert [result.value for result in said] == pytest.approx([0.75, 0.75, 0, 0, 0.75])
    assert [query for query in ask.asked if not query.sample.media] == ask.asked[2:]


@pytest.mark.parametrize(
    ("boxes", "guess", "orders", "sufficiency", "blind"),
    [
        (SEES, red, 1, 0.0, 1.0),
        (SEES, lambda sample: "A", 4, 0.75, 0.25),
        (MISSES, lambda sample: "A", 4, 0.0, 0.25),
        (MISSES, red, 1, 0.0, 1.0),
        (SEES, lambda sample: "?", 2, 1.0, 0.0),
    ],
)
def test_what_is_known_without_a_picture_is_taken_off(boxes, guess, orders, sufficiency, blind) -> None:
    detail = one(boxes, Answerer(guess), orders=orders, blind=True).detail
    assert (detail["sufficiency"], detail["blind"]) == (pytest.approx(sufficiency), blind)
    assert detail["minimality"] == pytest.approx(sufficiency)  # the area is small enough


def test_the_question_without_a_picture_is_words_alone() -> None:
    ask = Answerer()
    one(SEES, ask, replace(LEAKY, options=("<image>", "red", "green", "black")), blind=True)
    blind = ask.asked[-1].sample
    assert (blind.media, blind.question, blind.options[0]) == ((), "Look at  well. What colour is the dot?", "")


def test_orders_of_options_are_averaged() -> None:
    def first_two(queries: Sequence[Query]) -> list[Reply]:
        return [Reply("<answer>A</answer>") for _ in queries]

    assert one(SEES, first_two, orders=4).detail["sufficiency"] == 0.25
    assert one(SEES, first_two, orders=2).detail["sufficiency"] == 0.5
    assert one(SEES, first_two).detail["sufficiency"] == 0.0


@pytest.mark.parametrize(
    ("boxes", "minimality", "questions"),
    [
        (f"{SEES} {MISSES}", 0.5, [1, 2]),
        (f"{SEES} [0,0,30,12]", 0.0, [1, 2]),
        (SEES, 1.0, [1]),
        (f"{MISSES} [60,60,70,70]", 0.0, [1]),
        (f"{SEES} {MISSES} [60,60,70,70]", 1 / 3, [1, 3]),
    ],
)
def test_leave_one_out(boxes: str, minimality: float, questions: list[int]) -> None:
    """A crop whose loss changes nothing was not needed; only what was sufficient is asked about again."""
    ask = Answerer()
    result = one(boxes, ask, kind="leave_one_out")
    assert result.detail["minimality"] == pytest.approx(minimality)
    assert [len(call) for call in ask.calls] == questions


def test_leave_one_out_asks_nothing_twice() -> None:
    ask = Answerer()
    group = make_group([turn(f"{SEES} {MISSES}"), turn(SEES), turn(MISSES), turn(f"{SEES} {MISSES}")], ROW)
    said = results(Sccm("abs_original", kind="leave_one_out"), group, ask)
    assert [len(call) for call in ask.calls] == [3]
    assert [result.detail["minimality"] for result in said] == [0.5, 1.0, 0.0, 0.5]


def test_count() -> None:
    assert one(f"{SEES} {MISSES} [60,60,70,70] [0,50,5,60]", Answerer(), kind="count").detail["minimality"] == 0.25


def test_a_row_can_allow_a_wider_look() -> None:
    wide = "[0,0,100,50]"
    assert one(wide, Answerer(), replace(ROW, meta={"rho_hi": 0.95})).detail["minimality"] == pytest.approx(0.5)
    for bad in ("all", 0.05, 1.5, True):
        with pytest.raises(RowError, match=r"row.*rho_hi"):
            one(wide, Answerer(), replace(ROW, meta={"rho_hi": bad}))


@pytest.mark.parametrize(
    ("media", "reason"),
    [
        ((), "no picture"),
        ((dotted(), dotted()), "2 pictures"),
        ((Media("video", data=b"x"),), "a video"),
        ((dotted(), Media("video", data=b"x")), "a video"),
    ],
)
def test_rows_without_one_picture_are_skipped_by_name(media: tuple[Media, ...], reason: str) -> None:
    group = make_group([turn(SEES), turn(SEES)], replace(ROW, media=media))
    said = results(Sccm("abs_original"), group, never)
    assert [result.value for result in said] == [None, None]
    assert all(reason in result.detail["skipped"] for result in said)


def test_a_judge_that_fails_leaves_rollouts_unscored() -> None:
    def down(queries: Sequence[Query]) -> list[Reply]:
        return [Reply(error="the judge is down") for _ in queries]

    for settings in ({}, {"blind": True}, {"kind": "leave_one_out"}):
        result = one(SEES, down, answerer="witness", **settings)
        assert (result.value, result.detail["error"]) == (None, "the judge is down")


def test_a_judge_that_fails_about_fewer_crops_leaves_them_unscored() -> None:
    def down_later(queries: Sequence[Query]) -> list[Reply]:
        return [Reply("B") if len(query.sample.media) == 2 else Reply(error="down") for query in queries]

    assert one(f"{SEES} {MISSES}", down_later, answerer="witness", kind="leave_one_out").value is None
    assert one(f"{SEES} {MISSES}", down_later, answerer="witness").value is not None


def test_crops_that_a_model_cannot_be_shown_are_not_sufficient() -> None:
    """Too many of them make a prompt too long: the policy's doing, not an outage."""

    def too_long(queries: Sequence[Query]) -> list[Reply]:
        return [Reply(error="the prompt has 9999 tokens") for _ in queries]

    result = one(SEES, too_long)
    assert (result.value, result.detail["shown"]) == (0.0, False)


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("<answer>B</answer>", True),
        ("<answer>red", True),
        ("B", True),
        ("(B) red", True),
        ("<think>it could be A</think><answer>B</answer>", True),
        ("<think>B", False),
        ("A or B", False),
        ("", False),
        ("I think that " + "B " * 100, False),
    ],
)
def test_replies_are_graded_as_answers_are(reply: str, right: bool) -> None:
    for answerer in ("start", "witness"):
        assert one(SEES, lambda queries: [Reply(reply) for _ in queries], answerer=answerer).detail["sufficiency"] == right


def test_other_kinds_of_answers() -> None:
    def seven(queries: Sequence[Query]) -> list[Reply]:
        return [Reply("<answer>7.0</answer>") for _ in queries]

    number = replace(ROW, kind="number", options=(), answer="7")
    assert one(SEES, seven, number, orders=3).detail["sufficiency"] == 1
    assert one(SEES, seven, replace(number, answer="8")).detail["sufficiency"] == 0


def test_interventions_on_pictures_keep_words_and_sizes_and_those_on_words_keep_pictures() -> None:
    crops = apply(["boxes_cropped"], ROW, Draw(0, boxes=((0, 0, 50, 10), (30, 30, 50, 40))))
    noise = apply(["image_random"], crops, Draw(0))
    sizes = [[decode_image(medium, "r").size for medium in sample.media] for sample in (crops, noise)]
    assert sizes == [[(50, 10), (20, 10)]] * 2
    assert (noise.question, noise.options, noise.prefill) == (crops.question, crops.options, crops.prefill)
    assert not any(np.array_equal(*(decode_image(medium, "r") for medium in pair)) for pair in zip(crops.media, noise.media, strict=True))
    told = apply(["think_wrong"], crops, Draw(0))
    assert told.media == crops.media
    assert told.prefill


def test_average_effect_of_an_intervention_over_paired_items() -> None:
    clean, pictures, words = [1, 1, 0, 1], [1, 1, 0, 1], [0, 1, 0, 0]
    assert paired_bootstrap([after - before for before, after in zip(clean, pictures, strict=True)]).value == 0
    assert paired_bootstrap([after - before for before, after in zip(clean, words, strict=True)]).value == -0.5


@given(st.integers(2, 8), st.integers(1, 10), st.data())
def test_rotations(count: int, orders: int, data) -> None:
    """All different, what is right stays right, and with as many orders as options each option stands once behind every letter."""
    options = tuple(f"option {i}" for i in range(count))
    sample = Sample("r", "?", LETTERS[data.draw(st.integers(0, count - 1))], "choice", options)
    turned = rotated(sample, orders)
    assert turned[0].options == options
    assert len({other.options for other in turned}) == len(turned) == min(orders, count)
    gold = {other.options[gold_indices(other)[0]] for other in turned}
    assert len(gold) == 1
    if orders >= count:
        assert all(sorted(option_order(other)[i] for other in turned) == list(range(count)) for i in range(count))


@pytest.mark.parametrize(
    ("options", "turned"),
    [
        (("x", "y", "none of the above"), [("x", "y", "none of the above"), ("y", "x", "none of the above")]),
        (("x", "y", "both A and B"), [("x", "y", "both A and B")]),
        (("A. x", "B. y"), [("x", "y"), ("y", "x")]),
        (("x",), [("x",)]),
        ((), [()]),
    ],
)
def test_rotations_keep_what_options_mean(options: tuple[str, ...], turned: list) -> None:
    assert [sample.options for sample in rotated(Sample("r", "?", "A", "choice", options), 3)] == turned


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "rewards.sccm.convention is missing"),
        ({"convention": "rel_100"}, "did you mean 'rel_1000'?"),
        ({"convention": "rel_1", "kind": "aera"}, "did you mean 'area'?"),
        ({"convention": "rel_1", "orders": 0}, "orders is a whole number"),
        ({"convention": "rel_1", "rho_lo": 0.6}, "rho_lo < rho_hi"),
        ({"convention": "rel_1", "lambda_s": -1}, "not negative"),
        ({"convention": "rel_1", "lamda_s": 1}, "did you mean 'rewards.sccm.lambda_s'?"),
    ],
)
def test_mistakes_in_a_config_are_named(settings: dict, words: str) -> None:
    with pytest.raises(UserError) as caught:
        Mixture(configs(sccm=settings), 0.0)
    assert words in str(caught.value)


def test_the_size_at_which_the_picture_was_seen_is_used() -> None:
    sample = replace(ROW, media=(dotted((112, 56)),))
    chat = seeing_chat(image_min_pixels=56 * 112 * 4, image_max_pixels=56 * 112 * 4)
    prompt = chat.prompt(sample)
    assert prompt.sizes == ((112, 224),)
    group = replace(make_group([turn("[20,10,40,20]")], sample), prompt=prompt)
    ask = Answerer()
    [result] = results(Sccm("abs_resized"), group, ask)
    assert ask.asked[0].sample.media[0].edits[0].boxes == (DOT,)
    assert result.detail["sufficiency"] == 1
    with pytest.raises(UserError, match="abs_resized"):
        results(Sccm("abs_resized"), make_group([turn("[20,10,40,20]")], sample), ask)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, None),
        ({"lambda_s": 0.8}, "sccm 1.05"),
        ({"weight": 2}, "sccm 1.5"),
        ({"lambda_s": 0.5, "lambda_m": 0.5}, "sccm 1"),
    ],
)
def test_weights_that_let_a_wrong_answer_outrank_a_right_one_are_told(settings: dict, said: str | None) -> None:
    warning = Mixture(configs(accuracy={}, sccm={"convention": "rel_1", **settings}), 0.0).ordering_warning()
    assert warning is None if said is None else said in (warning or "")


def test_the_answerer_is_declared() -> None:
    for name in ("start", "policy", "witness"):
        assert Mixture(configs(sccm={"convention": "rel_1", "answerer": name}), 0.0).targets == {name}


def test_real_models_are_asked_in_one_call_and_without_pictures_too() -> None:
    policy, chat = make("qwen2_5_vl")[0], seeing_chat()
    ask = Asker({"start": HFEngine(policy, chat), "policy": HFEngine(policy, chat)}, chat)
    mixture = Mixture(configs(one={"use": "sccm", "convention": "abs_resized", "blind": True, "orders": 2, "max_new_tokens": 4}), 0.0)
    groups = [replace(make_group([turn(SEES), turn(f"{SEES} {MISSES}"), turn("")], ROW), prompt=chat.prompt(ROW))] * 2
    scored = mixture.score(groups, 0, ask)
    assert ask.calls == {"start": 1, "policy": 0}
    assert [part.detail["boxes"] for part in scored[0].parts["one"]] == [1, 2, 0]
    assert all(part.raw == 0 or 0 < part.raw <= 0.75 for part in scored[0].parts["one"])


def boxed_rows(config: DataConfig) -> list[Sample]:
    """Rows whose turn begins with a box, since a model that has learnt nothing writes none."""
    rows = jsonl(config)
    return [replace(rows[i], prefill="<think>I see it [2,2,30,20].") for i in range(len(rows))]


def test_a_run_with_an_untrained_model_asks_the_model_it_started_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "boxed", f"{__name__}:boxed_rows")
    asked: list[Query] = []
    monkeypatch.setattr(Asker, "__call__", lambda self, queries, call=Asker.__call__: asked.extend(queries) or call(self, queries))
    sccm = "rewards.sccm={use: sccm, convention: abs_resized, blind: true, max_new_tokens: 4, gate: requires_correct}"
    run = cli_train.train(train_config(tmp_path, "data.name=boxed", sccm, "train.steps=2", "eval.samples=0", "eval.every=null"))
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in metrics] == [1, 2]
    for line in metrics:
        assert (line["reward/sccm/boxes"], line["reward/sccm/malformed"], line["reward/sccm/shown"]) == (1, 0, 1)
        assert {"raw", "weight", "contribution", "sufficiency", "minimality", "area", "blind", "gate"} <= {
            name.removeprefix("reward/sccm/") for name in line
        }
    to_start = [query for query in asked if query.target == "start"]
    assert [len(query.sample.media) for query in to_start] == [1, 0] * 6, (
        "of each of two steps' three groups the crop and the blind question"
    )
    assert to_start[0].sample.media[0].edits[0].boxes == ((1, 1, 22, 15),), "of 56 x 56 pixels seen, on 40 x 40"
