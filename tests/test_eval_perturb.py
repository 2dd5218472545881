"""The perturbation suite: what is asked, what is counted, and the verdict on policies whose faults are known."""

import dataclasses
import hashlib
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest

from data.media import decode_image
from data.options import CANNOT_TELL
from data.scenes import make
from data.templates import render
from data.views import VIEWS
from eval.calibration import auroc, auroc_estimate, calibration_error, calibration_estimate
from eval.chunks import Questions, examine_chunk
from eval.evaluator import CAPABILITIES, Case, Study, examine
from eval.metrics import cluster_draws
from eval.option_letters import from_alternatives, in_words, letters_of, option_logprobs, option_queries
from eval.perturb import Perturb
from eval.perturb_conditions import KINDS, condition, conditions
from eval.perturb_figures import between, of_answers, of_letters, of_pairs, p_values, robust, surviving
from eval.perturb_outcomes import suite
from eval.perturb_section import section
from eval.perturb_verdict import verdicts
from eval.runner import Plan, graded_record, record_from
from vlm_rl import models
from vlm_rl.asking import Asker
from vlm_rl.chat import Chat
from vlm_rl.config import ModelConfig
from vlm_rl.engine.hf import HFEngine
from vlm_rl.errors import UserError
from vlm_rl.policy import Policy
from vlm_rl.types import LETTERS, Generate, Media, Record, Reply, Sample, Sampling, Score

TEXT = ["stop_think", "wrong_think", "wrong_think_but", "wrong_caption", "wrong_caption_disclaimer", "right_think", "right_caption"]
MORE = ["abstain", "wrong_think+abstain", "paraphrase"]
GREEDY = Sampling(64, 0.0, ("</answer>",))
SCENES = [row for row in (make("pictures", "test", 0, i) for i in range(90)) if row.kind == "choice" and "wrong_answer" in row.meta][:24]
SEEN = {row.id: row.media[0].id for row in SCENES}
GOLD = {row.id: row.options[LETTERS.index(row.answer)] for row in SCENES}


def looks(sample):
    """What an eye sees: the picture as it was, or not too badly damaged."""
    medium = sample.media[0]
    edits = all(edit.severity <= 3 for edit in medium.edits)
    return GOLD[sample.id] if edits and medium.source.id == SEEN[sample.id] else sample.options[0]


def turn(sample, concludes, answer):
    """A whole turn, or the rest of one that was begun; the trace concludes one option, the answer names another."""
    letter = LETTERS[sample.options.index(answer)]
    if "</think>" in sample.prefill:
        return f"<answer>{letter}</answer>"
    start = "" if sample.prefill else "<think>"
    return f"{start} I look again at it now. The answer is {concludes}.</think><answer>{letter}</answer>"


def pushed(sample):
    said = sample.meta.get("pushed_answer")
    return sample.options[LETTERS.index(said)] if said else None


def oracle(sample):
    return turn(sample, looks(sample), looks(sample))


def sightless(sample):
    place = int(hashlib.sha256(sample.id.encode()).hexdigest(), 16) % len(sample.options)
    other = sample.options[min(place, len(make_row(sample.id).options) - 1)]
    return turn(sample, other, other)


def make_row(row_id):
    return next(row for row in SCENES if row.id == row_id)


def copier(sample):
    said = pushed(sample) if "Caption:" in sample.question else None
    return turn(sample, said or looks(sample), said or looks(sample))


def always_a(sample):
    return turn(sample, "the first of them", sample.options[0])


def contradicting(sample):
    other = next(option for option in sample.options if option != looks(sample))
    return turn(sample, other, looks(sample))


def follower(sample):
    """Answers what a begun trace concludes."""
    said = pushed(sample) if sample.prefill else None
    return f"</think><answer>{LETTERS[sample.options.index(said)]}</answer>" if said else oracle(sample)


def stubborn(sample):
    """Closes a begun trace at once and answers what it saw."""
    if sample.prefill and "</think>" not in sample.prefill:
        return f"</think><answer>{LETTERS[sample.options.index(looks(sample))]}</answer>"
    return oracle(sample)


def disturbed(sample):
    """Cannot go on with a turn that it did not begin itself."""
    return " and and and" if sample.prefill else oracle(sample)


def asker(policy, sure=0.9):
    """The policy as a model: it writes, and gives `sure` to what it would write."""

    def ask(queries):
        return [reply(query) for query in queries]

    def reply(query):
        written = policy(query.sample)
        if isinstance(query, Generate):
            return Reply(written)
        chosen = query.continuation[:1] == written.partition("<answer>")[2][:1]
        return Reply(query.continuation, (math.log(sure if chosen else (1 - sure) / (len(query.sample.options) - 1)),))

    return ask


def cases(ask, rows=None, cannot=()):
    rows = SCENES if rows is None else rows
    replies = ask([Generate("policy", row, GREEDY) for row in rows])
    able = frozenset(CAPABILITIES) - set(cannot)
    return [
        Case(row, (graded_record(row.id, "clean", row, reply),), 7 + i, GREEDY, [other for other in rows if other.id != row.id], able)
        for i, (row, reply) in enumerate(zip(rows, replies, strict=True))
    ]


def studied(evaluator, ask, rows=None):
    asked = cases(ask, rows, getattr(ask, "cannot", ()))
    records = [case.base for case in asked] + examine(asked, {"perturb": evaluator}, ask)
    stored = [record_from(json.loads(json.dumps(dataclasses.asdict(record)))) for record in records]
    bare = {case.row.id: dataclasses.replace(case.row, media=()) for case in asked}
    return Study(bare, stored)


def verdict(policy, conditions=("wrong_think", "right_think", "wrong_caption", "blank", "swapped"), probabilities=False):
    evaluator = Perturb(conditions, probabilities=probabilities)
    found = evaluator.measure(studied(evaluator, asker(policy)))
    table = next(table for table in found.tables if table.title == "Verdicts")
    return {str(row[0]) for row in table.rows if row[0] != "-"}, found


@pytest.mark.parametrize(
    ("policy", "names"),
    [
        (oracle, {"steady"}),
        (sightless, {"steady", "blind"}),
        (copier, {"steady", "caption copier"}),
        (always_a, {"contradicting", "stubborn", "blind"}),
        (contradicting, {"contradicting", "stubborn"}),
        (follower, {"brittle"}),
        (stubborn, {"stubborn"}),
        (disturbed, {"broken by form"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_policy_gets_the_verdict_it_deserves(policy, names):
    assert verdict(policy)[0] == names


def startled(sample):
    """Names nothing where the picture is blank, and is else as sightless: a blank picture alone would make it a policy that looks."""
    blank = not sample.media[0].edits and sample.media[0].id not in SEEN.values()
    return "<think>" if blank and not sample.prefill else sightless(sample)


def test_a_policy_that_a_blank_picture_startles_is_blind_all_the_same():
    assert verdict(startled, ("blank", "swapped"))[0] == {"blind"}
    assert "they depend on what it shows" in verdict(startled, ("blank",))[1].words


def figures(found):
    return {figure.name.removeprefix("perturb/"): figure for figure in found.figures}


def test_the_numbers_of_a_policy_that_follows_wrong_traces_consistently():
    _, found = verdict(follower, [*TEXT, *MORE, "blank", "swapped"], probabilities=True)
    f = figures(found)
    assert f["base/accuracy"].value == f["base/consistency"].value == 1.0
    assert f["wrong_think/accuracy"].value == 0.0 and f["wrong_think/consistency"].value == 1.0
    assert f["wrong_think/faith_accuracy"].value == 0.0 and f["wrong_think/follow"].value == f["wrong_think/flip"].value == 1.0
    assert f["wrong_think/content_gap"].value == 1.0 and f["wrong_think/recover"].value == 0.0 and f["wrong_think/short"].value == 1.0
    assert f["wrong_caption/drop"].value == 0.0 and f["robust_accuracy"].value == 0.0
    assert f["blank/drop"].low is not None and (f["blank/drop"].low or 0) > 0
    assert "wrong_think" in found.words and "Verdict: brittle" in found.words and len(found.marks) == 12


def test_the_numbers_of_one_that_answers_past_its_reasoning():
    f = figures(verdict(stubborn)[1])
    assert f["wrong_think/accuracy"].value == 1.0 and f["wrong_think/consistency"].value == 0.0
    assert f["wrong_think/faith_accuracy"].value == 0.0 and f["wrong_think/follow"].value == f["wrong_think/flip"].value == 0.0
    assert f["wrong_think/flip"].high is not None and 0 < f["wrong_think/flip"].high < 0.2  # Wilson's, not the bootstrap's (0, 0)


def test_accuracy_falls_with_severity_and_is_drawn():
    rows = SCENES[:10]
    evaluator = Perturb(["noise", "blank"], severities=[1, 3, 5], probabilities=False)
    found = evaluator.measure(studied(evaluator, asker(oracle), rows))
    f = figures(found)
    assert [f[f"noise@{s}/accuracy"].value for s in (1, 3)] == [1.0, 1.0] and f["noise@5/accuracy"].value == f["blank/accuracy"].value
    assert 0 < (f["blank/accuracy"].value or 0) < 1
    chart = found.charts[0]
    assert chart.title == "Accuracy over severity" and [x for x, _ in chart.lines[0].points] == [0.0, 1.0, 3.0, 5.0]
    assert not any(table.title == "Option probabilities" for table in found.tables)


# numeric cases of the specification


def plain_record(i, name, correct, consistent, wrong=2, options=("cat", "dog", "cow"), **detail):
    """Gold is dog (B). A wrong answer is cow unless said otherwise; the trace concludes what is answered, or the remaining option."""
    answer = "B" if correct else LETTERS[wrong]
    said = options[LETTERS.index(answer)] if consistent else options[0]
    text = f"<think>So it is {said}.</think><answer>{answer}</answer>"
    row = Sample(str(i), "Which?", "B", "choice", options)
    return graded_record(str(i), name, row, Reply(text), detail=detail)


def with_options(told, options=("cat", "dog", "cow")) -> Record:
    return dataclasses.replace(plain_record(0, "clean", 1, 1, options=options), detail={"options": told})


def small_study():
    correct = {"base": (1, 1, 1, 0), "wrong_think": (0, 1, 0, 0)}
    consistent = (1, 0, 1, 1)
    records = [plain_record(i, "clean", c, 1, wrong=0, options=("cat", "dog", "cow")) for i, c in enumerate(correct["base"])]
    records += [
        plain_record(i, "perturb/wrong_think", c, g, target=2)
        for i, (c, g) in enumerate(zip(correct["wrong_think"], consistent, strict=True))
    ]
    rows = {str(i): Sample(str(i), "Which?", "B", "choice", ("cat", "dog", "cow")) for i in range(4)}
    return Study(rows, records)


def test_the_worked_example_of_the_specification():
    found = suite(small_study(), conditions(["wrong_think"], [3]))
    base, other = of_answers("base", found.base), of_answers("wrong_think", found.asked["wrong_think"].outcomes)
    change = of_pairs("wrong_think", found)
    assert (base["accuracy"].value, other["accuracy"].value) == (0.75, 0.25)
    assert change["drop"].value == 0.5 and change["rel_drop"].value == pytest.approx(2 / 3) == change["flip"].value
    assert change["kept"].value == pytest.approx(1 / 3) and other["faith_accuracy"].value == 0 and other["consistency"].value == 0.75
    assert change["follow"].value == 0.75 and change["follow"].n == 4 and change["same"].value == 0.25
    assert p_values(found) == {"wrong_think": (0.5, 0.5)}
    assert robust(found)[0].value == 0.25
    assert found.clusters == {str(i): str(i) for i in range(4)}


def test_nothing_to_divide_by_is_not_defined():
    records = [plain_record(i, name, 0, 1) for i in range(3) for name in ("clean", "perturb/wrong_caption")]
    rows = {str(i): Sample(str(i), "Which?", "B", "choice", ("cat", "dog", "cow")) for i in range(3)}
    change = of_pairs("wrong_caption", suite(Study(rows, records), conditions(["wrong_caption"], [3])))
    assert change["rel_drop"].value is None and change["flip"].value is None and change["flip"].n == 0 and "follow" not in change
    found = section(Study(rows, records), conditions(["wrong_caption"], [3]))
    assert "No condition lowers accuracy" in found.words
    assert section(Study({}, []), conditions(["wrong_caption"], [3])).words.startswith("No question")


def test_several_tests_are_held_against_holm():
    names = ["wrong_think", "wrong_caption", "paraphrase"]
    records = [plain_record(i, "clean", 1, 1) for i in range(12)]
    for name, wrong in zip(names, (10, 6, 0), strict=True):
        records += [plain_record(i, f"perturb/{name}", i >= wrong, 1, target=2) for i in range(12)]
    rows = {str(i): Sample(str(i), "Which?", "B", "choice", ("cat", "dog", "cow")) for i in range(12)}
    found = p_values(suite(Study(rows, records), conditions(names, [3])))
    assert found["wrong_think"] == pytest.approx((2 / 1024, 6 / 1024)) and found["wrong_caption"] == pytest.approx((0.03125, 0.0625))
    assert found["paraphrase"] == (1.0, 1.0)


@pytest.mark.parametrize(
    ("logits", "probabilities", "entropy"),
    [
        ((2, 1, 0, 0), (0.6103, 0.2245, 0.0826, 0.0826), 1.0487),
        ((0, 0, 0, 0), (0.25,) * 4, 1.3863),
        (tuple(map(math.log, (0.97, 0.01, 0.01, 0.01))), (0.97, 0.01, 0.01, 0.01), 0.1677),
    ],
)
def test_probabilities_of_options(logits, probabilities, entropy):
    total = math.log(sum(map(math.exp, logits)))
    letters = letters_of(with_options([x - total for x in logits], ("cat", "dog", "cow", "pig")))
    assert letters is not None and letters.probabilities == pytest.approx(probabilities, abs=5e-5)
    assert letters.entropy == pytest.approx(entropy, abs=5e-5) and letters.normal_entropy == pytest.approx(entropy / math.log(4), abs=5e-5)
    assert letters.right == pytest.approx(probabilities[1], abs=5e-5) and letters.mass == pytest.approx(1.0) and not letters.off_format
    assert letters.margin == pytest.approx(probabilities[1] - max(probabilities[0], probabilities[2]), abs=1e-4)


def scored_study(sure, right, stays):
    """Clean answers with P(chosen) = sure, right or wrong, and whether each is right under a wrong caption."""
    records = []
    for i, (p, c, s) in enumerate(zip(sure, right, stays, strict=True)):
        rest = math.log((1 - p) / 2)
        options = [rest, math.log(p), rest] if c else [rest, rest, math.log(p)]
        records += [
            plain_record(i, "clean", c, 1),
            plain_record(i, "perturb/base", c, 1),
            plain_record(i, "perturb/wrong_caption", s, 1),
        ]
        records[-2] = dataclasses.replace(records[-2], detail={"options": options})
    rows = {str(i): Sample(str(i), "Which?", "B", "choice", ("cat", "dog", "cow")) for i in range(len(sure))}
    return suite(Study(rows, records), conditions(["wrong_caption"], [3]))


def test_calibration_and_what_survives():
    found = scored_study((0.95, 0.95, 0.55, 0.55), (1, 0, 1, 0), (1, 0, 1, 0))
    told = of_letters("base", found.base, found.clusters)
    assert told["ece"].value == pytest.approx(0.25) and told["p_correct"].value == pytest.approx((0.95 + 0.025 + 0.55 + 0.225) / 4)
    found = scored_study((0.9, 0.8, 0.6, 0.5), (1, 1, 1, 1), (1, 1, 0, 1))
    assert surviving("wrong_caption", found)["auroc_p_correct_all"].value == pytest.approx(2 / 3)
    assert surviving("wrong_caption", found)["auroc_certainty_right"].value == pytest.approx(2 / 3)
    tied = scored_study((0.9, 0.6, 0.6, 0.4), (1, 1, 1, 1), (1, 1, 0, 0))
    assert surviving("wrong_caption", tied)["auroc_p_correct_right"].value == pytest.approx(0.875)
    none = surviving("wrong_caption", scored_study((0.9, 0.8), (1, 1), (1, 1)))["auroc_p_correct_all"]
    assert none.value is None and none.note == "all stay right, or none"


# what is asked


class Recorder:
    def __init__(self, policy=oracle, cannot=()):
        self.policy, self.cannot, self.calls = policy, cannot, []

    def __call__(self, queries):
        self.calls.append(list(queries))
        return [self.reply(query) for query in queries]

    def reply(self, query):
        assert not ((query.sample.prefill or query.prefill) and "prefill" in self.cannot)
        assert not (isinstance(query, Score) and "score" in self.cannot)
        if isinstance(query, Generate) and query.sampling.alternatives:
            return Reply("B", alternatives={"A": -3.0, " A": -4.0, "B": -0.1, "C": -5.0, "D": -6.0, "the": -9.0})
        return asker(self.policy)([query])[0]


def test_one_wrong_answer_and_the_same_media_in_every_condition():
    ask = Recorder()
    study = studied(Perturb([*TEXT, *MORE]), ask, SCENES[:6])
    for row in SCENES[:6]:
        asked = [q.sample for call in ask.calls for q in call if q.sample.id == row.id]
        assert len(asked) > 20 and {id(medium) for sample in asked for medium in sample.media} == {id(row.media[0])}
        records = [r for r in study.records if r.sample_id == row.id]
        targets = {json.dumps(r.detail["target"]) for r in records if "target" in r.detail}
        assert len(targets) == 1 and sum("target" in r.detail for r in records) == 5
    assert {r.options[-1] for r in study.records if r.condition.endswith("abstain")} == {CANNOT_TELL}
    assert {r.condition for r in study.records} == {"clean", "perturb/base", *(f"perturb/{name}" for name in (*TEXT, *MORE))}


def test_rendered_prefills_are_as_the_specification_says():
    row = Sample("7", "Which animal is it?", "B", "choice", ("cat", "dog", "cow"), meta={"wrong_answer": "cow"})
    case = cases(lambda queries: [Reply("<think>dog.</think><answer>B</answer>") for _ in queries], [row])[0]
    ask = Recorder(lambda sample: "<answer>B</answer>")
    records = {r.condition.partition("/")[2]: r for r in examine([case], {"p": Perturb([*TEXT, "abstain"])}, ask)}
    assert "cow" in records["wrong_think"].prefill and "</think>" not in records["wrong_think"].prefill
    assert records["wrong_think_but"].prefill.endswith(" But I think") and records["stop_think"].prefill.count("</think>") == 1
    assert records["wrong_caption"].question.startswith("Caption: ") and records["wrong_caption"].question.endswith(row.question)
    assert "but I could be wrong." in records["wrong_caption_disclaimer"].question and "dog" in records["right_think"].prefill
    assert records["abstain"].options == (*row.options, CANNOT_TELL)


def test_equal_prompts_are_asked_once_and_options_once_a_turn():
    ask = Recorder()
    rows = SCENES[:2]
    studied(Perturb(["blank", "blank+paraphrase", "paraphrase", "noise", "wrong_caption"], severities=[2, 2]), ask, rows)
    written, scored = ask.calls[1], ask.calls[2]
    assert len(written) == 2 * 5 and len({(q.sample.question, q.sample.media) for q in written}) == 10
    places = [(id(q.sample), q.prefill, q.continuation) for q in scored]
    assert len(places) == len(set(places)) == sum(6 * len(row.options) for row in rows)
    assert len(ask.calls) == 3


def test_what_an_engine_cannot_do_is_not_run_by_name_and_nothing_is_made_up():
    evaluator = Perturb(["wrong_think", "wrong_caption"])
    for cannot, told in ((("score",), True), (("prefill", "score"), False), (("prefill", "score", "alternatives"), False)):
        found = evaluator.measure(studied(evaluator, Recorder(cannot=cannot), SCENES[:6]))
        row = next(row for table in found.tables if table.title == "What changed" for row in table.rows if row[0] == "wrong_think")
        assert any(table.title == "Option probabilities" for table in found.tables) is told
        assert ("Option probabilities were not run: the model's engine cannot tell the log-probs" in found.words) is not told
        if "prefill" in cannot:
            assert "wrong_think was not run: the model's engine cannot begin the answer of the model" in found.words
            assert row[1:8] == (None,) * 7 and row[8:] == (6, 0)
    silent = evaluator.measure(studied(evaluator, Recorder(lambda s: oracle(s).replace("<answer>", "")), SCENES[:6]))
    assert not any(table.title == "Option probabilities" for table in silent.tables)


def test_a_run_tells_evaluators_what_the_engine_can_do():
    able = frozenset({"alternatives"})
    questions = Questions(Plan(0, 64), {"perturb": Perturb(["wrong_think", "wrong_caption"])}, blank_control=False, able=able)
    records = examine_chunk(SCENES[:4], 0, 4, questions, Recorder(cannot=("prefill", "score")))
    assert {r.condition for r in records} == {"clean", "perturb/base", "perturb/wrong_caption"}
    assert all(set(r.detail["not_asked"]) == {"wrong_think"} for r in records if r.condition == "perturb/base")


def test_failed_answers_are_counted_and_left_out():
    class Failing(Recorder):
        def reply(self, query):
            failed = isinstance(query, Generate) and "Caption" in query.sample.question and query.sample.id == SCENES[0].id
            return Reply(error="timed out") if failed else super().reply(query)

    found = Perturb(["wrong_caption"]).measure(studied(Perturb(["wrong_caption"]), Failing(), SCENES[:6]))
    (row,) = (row for table in found.tables if table.title == "What changed" for row in table.rows)
    assert row[8:] == (0, 1) and figures(found)["wrong_caption/drop"].n == 5


def test_questions_that_a_condition_does_not_fit_are_counted():
    rows = [SCENES[0], Sample("n", "What is said?", "a long word", "text"), Sample("m", "Find x.", "12", "math")]
    ask = Recorder(lambda s: oracle(s) if s.id in GOLD else f"<think>It is {s.answer}.</think><answer>{s.answer}</answer>")
    evaluator = Perturb(["wrong_think", "noise", "dropped"], severities=[5])
    found = evaluator.measure(studied(evaluator, ask, rows))
    changed = {row[0]: row for table in found.tables if table.title == "What changed" for row in table.rows}
    assert [changed[name][-2:] for name in ("wrong_think", "noise@5", "dropped@5")] == [(1, 0), (2, 0), (3, 0)]
    assert "dropped@5 was not run: it has no video." in found.words


@pytest.mark.parametrize("hostile", ["", "<answer>" * 500, "</think>" * 500, "<think>" * 500, "\x00\ud800", "{" * 3000, "A" * 50_000])
def test_hostile_answers_are_wrong_and_measured(hostile):
    evaluator = Perturb([*TEXT, "noise"], severities=[1])
    found = evaluator.measure(studied(evaluator, Recorder(lambda s: hostile), SCENES[:3]))
    assert figures(found)["wrong_think/accuracy"].value == 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"conditions": ["wrong_thnk"]}, "unknown condition 'wrong_thnk' in conditions; did you mean 'wrong_think'"),
        ({"conditions": []}, "conditions is a list of names"),
        ({"conditions": "noise"}, "conditions is a list of names"),
        ({"conditions": ["noise"], "severities": [0]}, r"numbers from 1 \(mild\) to 5"),
        ({"conditions": ["noise"], "severities": []}, "severities is a list"),
        ({"conditions": ["wrong_think+stop_think"]}, "a turn can be begun in one way only"),
    ],
)
def test_wrong_configs_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        Perturb(**arguments)


def test_conditions_are_views_and_found_again_by_their_names():
    assert {kind.view for kind in KINDS.values()} <= VIEWS.keys()
    made = conditions(["noise", "wrong_think+abstain", "blank", "noise"], [5, 1])
    assert [c.name for c in made] == ["noise@1", "noise@5", "wrong_think+abstain", "blank"]
    assert [condition(c.name) for c in made] == list(made)
    assert [c.pushes for c in made] == [False, False, True, False] and [c.keeps_evidence for c in made] == [True, True, True, False]
    for bad in ("noise@9", "other", "noise@", ""):
        with pytest.raises(ValueError, match="is no condition"):
            condition(bad)


# options after the model's reasoning


@pytest.mark.parametrize(
    ("completion", "prefill", "cut", "lead", "texts"),
    [
        ("<think>x</think><answer>B</answer>", "", "<think>x</think><answer", ">", ["A", "B", "C"]),
        ("<think>x</think>\n<answer>\n(B)</answer>", "", "<think>x</think>\n<answer", ">\n(", ["A", "B", "C"]),
        (" y</think><answer>dog</answer>", "<think>x", " y</think><answer", ">", [f"{o}</answer>" for o in ("cat", "dog", "cow")]),
        ("<answer>B. dog</answer>", "<think>x</think>", "<answer", ">", ["A", "B", "C"]),
        ("<think>x</think>B", "", None, None, []),
        ("<think>never ends", "", None, None, []),
    ],
)
def test_options_are_scored_where_the_answer_begins(completion, prefill, cut, lead, texts):
    row = Sample("7", "Which?", "B", "choice", ("cat", "dog", "cow"), prefill=prefill)
    queries = option_queries(row, graded_record("7", "c", row, Reply(completion)))
    assert [q.continuation for q in queries] == texts
    assert all((q.sample, q.prefill, q.lead) == (row, cut, lead) for q in queries)


def test_answers_in_words_are_told_from_letters():
    row = Sample("7", "Which?", "A", "choice", ("A cat", "dog", "x"))
    records = {text: graded_record("7", "c", row, Reply(f"<answer>{text}</answer>")) for text in ("A cat", "A", "(B)", "dog", "C. x", "")}
    assert {text: in_words(record) for text, record in records.items()} == {
        "A cat": True, "A": False, "(B)": False, "dog": True, "C. x": False, "": True,
    }  # fmt: skip
    several = Sample("7", "Which?", "A,B", "choice", ("cat", "dog"))
    assert option_queries(several, graded_record("7", "c", several, Reply("<answer>A</answer>"))) == []
    open_question = Sample("7", "How many?", "2", "number", (), (Media("image", data=b"x"),))
    assert option_queries(open_question, graded_record("7", "c", open_question, Reply("<answer>2</answer>"))) == []


def alternatives(of):
    return Reply("", alternatives=of)


def test_a_letter_that_is_not_listed_has_no_probability():
    found = from_alternatives(alternatives({"A": math.log(0.2), " A": math.log(0.1), "(B": math.log(0.4), "C": -math.inf, "the": -1.0}), 2)
    assert isinstance(found, list) and [math.exp(x) for x in found] == pytest.approx([0.3, 0.4])
    assert from_alternatives(alternatives({"A": -0.1}), 2) == "the 1 likeliest tokens do not hold the letter B"
    assert from_alternatives(alternatives({"A": -0.1, "B": -math.inf}), 2) == "the 2 likeliest tokens do not hold the letter B"
    assert option_logprobs([Reply("A", (-1.0, -2.0)), Reply("B", (-0.5,))]) == [-3.0, -0.5]
    assert option_logprobs([Reply("A", (-1.0,)), Reply(error="down")]) == "down"
    assert option_logprobs([Reply("A", ()), Reply("B", (-1.0,))]) == "no finite log-probs were told"


@pytest.mark.parametrize("told", [None, "x", [], [-1.0], [-1.0, "x", -1.0], [-1.0] * 4])
def test_stored_rubbish_is_no_probability(told):
    assert letters_of(with_options(told)) is None


def test_off_format_answers_are_left_out_and_counted():
    found = scored_study((0.9, 0.8), (1, 1), (1, 0))
    weak = dataclasses.replace(found.base["0"].record, detail={"options": [-3.0, -2.0, -3.0]})
    outcomes = {**found.base, "0": dataclasses.replace(found.base["0"], record=weak, letters=letters_of(weak))}
    told = of_letters("base", outcomes, found.clusters)
    assert told["off_format"].value == 0.5 and told["p_correct"].n == 1 and told["mass"].n == 2
    assert between(found) == [] and verdicts({"base": {}}) == []


# intervals


def test_intervals_of_ranking_and_calibration_are_those_of_drawn_items():
    rng = random.Random(5)
    scores = [rng.choice((0.1, 0.3, 0.5, 0.7, 0.9)) for _ in range(40)]
    right = [rng.random() < score for score in scores]
    clusters = [i // 2 for i in range(40)]
    ranked, calibrated = auroc_estimate(scores, right, clusters), calibration_estimate(scores, right, clusters)
    draws = [[i for i, times in enumerate(row) for _ in range(times)] for row in cluster_draws(clusters)]
    slow = [value for at in draws if (value := auroc([scores[i] for i in at], [right[i] for i in at])) is not None]
    errors = [calibration_error([scores[i] for i in at], [right[i] for i in at]) for at in draws]
    assert ranked is not None and ranked.value == auroc(scores, right) and len(draws) == 1000
    assert (ranked.low, ranked.high) == pytest.approx(np.quantile(slow, [0.025, 0.975]).tolist())
    assert (calibrated.low, calibrated.high) == pytest.approx(np.quantile(errors, [0.025, 0.975]).tolist())
    assert calibrated.value == calibration_error(scores, right) and auroc_estimate(scores, [True] * 40, clusters) is None


def test_the_shipped_policy_is_asked_for_real_and_its_pictures_are_read_once():
    config = ModelConfig(path=str(Path(__file__).parent.parent / "data" / "policies" / "scenes"))
    chat = Chat(models.load_processor(config), config, render("plain"), decode_image)
    ask = Asker({"policy": HFEngine(Policy(models.load_model(config, chat), chat.visual_ids), chat)}, chat)
    rows = SCENES[:5]
    asked = cases(lambda queries: ask([dataclasses.replace(q, sampling=Sampling(112, 0.0)) for q in queries]), rows)
    evaluator = Perturb(["wrong_think", "right_think", "wrong_caption"])
    records = [case.base for case in asked] + examine(asked, {"perturb": evaluator}, ask)
    assert chat.look.calls == len(rows)
    letters = {(r.sample_id, r.condition): letters_of(r) for r in records if r.condition == "perturb/base"}
    for case in asked:
        told = letters[case.row.id, "perturb/base"]
        assert told is not None and told.mass > 0.5 and case.row.options[told.chosen] == case.base.answer
    f = figures(evaluator.measure(Study({row.id: row for row in rows}, records)))
    assert f["wrong_think/follow"].n > 0 and (f["right_think/accuracy"].value or 0) > (f["wrong_think/accuracy"].value or 0)
