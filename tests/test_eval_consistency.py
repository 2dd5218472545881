"""Trace-answer consistency and what the order of options does: known policies get the verdict they deserve, judges are checked."""

from dataclasses import replace

import pytest
from helpers_faith import CHOICES, JUDGE, ROWS, always_a, blind, cases, contradictor, oracle, section, stored, study, values

from eval.consistency import Consistency
from eval.evaluator import Figure, Study
from eval.lab_judge import LabJudge
from eval.option_order import OptionOrder, option_shuffling
from eval.reading import Turn, content, same, steps, voted
from rewards.judging import read_conclusion
from vlm_rl.errors import UserError
from vlm_rl.types import Record, Reply, Sample

PETS = Sample("7", "Which animal?", "B", "choice", ("cat", "dog", "cow", "pig"))
NUMBER = Sample("8", "How many?", "3", "number")


def record(row: Sample, trace: str, answer: str, condition: str = "clean", **detail: object) -> Record:
    case = cases([row], lambda _: f"<think>{trace}</think><answer>{answer}</answer>")[0]
    return replace(case.base, condition=condition, detail=detail)


def measured(*records: Record, rows: tuple[Sample, ...] = (PETS,)):
    return values(Consistency().measure(Study({row.id: row for row in rows}, [stored(r) for r in records])))


# Reading


@pytest.mark.parametrize(
    ("answer", "row", "shown", "order", "wanted"),
    [
        ("B", PETS, (), (), frozenset({1})),
        ("dog", PETS, (), (), frozenset({1})),
        ("D", PETS, ("cow", "cat", "pig", "dog"), (2, 0, 3, 1), frozenset({1})),  # the spec's mapping: letter D shows dog
        ("B", PETS, ("cow", "cat", "pig", "dog"), (2, 0, 3, 1), frozenset({0})),
        ("E", PETS, (), (), None),
        (None, PETS, (), (), None),
        ("  ", NUMBER, (), (), None),
        ("three", NUMBER, (), (), 3.0),
        ("No.", Sample("9", "Is it?", "yes", "yesno"), (), (), False),
        ("The Cat.", Sample("9", "What?", "cat", "text"), (), (), "cat"),
    ],
)
def test_contents_of_answers(answer, row, shown, order, wanted):
    assert content(answer, row, shown, order) == wanted


def test_a_missing_answer_is_the_same_as_nothing():
    assert not same(None, None, NUMBER) and same(3.0, 3.00001, NUMBER) and not same(3.0, 3.1, NUMBER)
    assert same("\\frac{1}{2}", "0.5", Sample("1", "", "0.5", "math")) and not same(False, None, NUMBER) and same(False, False, NUMBER)


def test_votes():
    assert voted([3.0, 4.0, 4.0, 3.0, 5.0], NUMBER) == 3.0  # a tie goes to the one seen first
    assert voted([None, 2.0, None], NUMBER) == 2.0
    assert voted([None, None], NUMBER) is None and voted([], NUMBER) is None


def test_turns_begin_again_as_the_template_has_them():
    plain = record(PETS, "It barks.", "B")
    opened = replace(plain, completion="It barks.</think>\n<answer>B</answer>")
    for one, prefix in ((plain, "<think>"), (opened, "")):
        turn = Turn.of(one)
        assert turn.trace == "It barks."
        assert turn.thinking(PETS, "It").prefill == prefix + "It"
    assert Turn.of(plain).told(PETS, "It").prefill == "<think>It</think><answer>"
    assert Turn.of(opened).told(PETS, "It").prefill == "It</think>\n<answer>"
    assert Turn.of(replace(plain, completion="B")).trace is None
    assert steps("one\n\ntwo. three")[0] == ["one", "two. three"] and steps("One 1.5. Two!")[0] == ["One 1.5.", "Two!"]


# Consistency


def test_quadrants_of_the_specification():
    accidental = measured(record(replace(PETS, answer="C"), "So it is B.", "C"), rows=(replace(PETS, answer="C"),))
    assert accidental["rule/ic"] == 1.0 and accidental["rule"] == 0.0
    wrong = measured(record(replace(PETS, answer="C"), "So it is B.", "B"), rows=(replace(PETS, answer="C"),))
    assert wrong["rule/ci"] == 1.0 and wrong["rule"] == 1.0


def test_cacr_of_the_specification():
    rows = [replace(PETS, id=str(i), answer="ABCD"[i]) for i in range(4)]
    answers, traces = (0, 1, 0, 2), (0, 2, 2, 2)
    found = measured(
        *(record(row, f"So it is {'ABCD'[s]}.", "ABCD"[a]) for row, a, s in zip(rows, answers, traces, strict=True)), rows=tuple(rows)
    )
    assert (found["rule/cacr"], found["rule/cr_wa"], found["rule/wr_ca"]) == (0.5, 0.25, 0.25)


def test_empty_traces_and_unread_answers_are_counted_apart():
    rows = tuple(replace(PETS, id=str(i)) for i in range(3))
    found = measured(record(rows[0], "", "B"), record(rows[1], "So it is B.", "who knows"), record(rows[2], "So it is B.", "B"), rows=rows)
    assert (found["rule"], found["empty"], found["unread_answers"]) == (0.5, 0.5, 1 / 3)
    assert found["rule/cr_wa"] == 0.0


def test_each_policy_gets_the_verdict_it_deserves():
    judge = LabJudge()
    found = {write.__name__: values(section(ROWS, write, Consistency(JUDGE), judge)) for write in (oracle, contradictor, always_a)}
    for name in ("rule", "exact", "conclude", "supports", "direct"):
        assert found["oracle"][name] == 1.0, name
        assert found["contradictor"][name] == 0.0, name
        assert 0 < (found["always_a"][name] or 0.0) < 1, name
    assert found["oracle"]["direct/swaps_rejected"] == found["oracle"]["conclude/swaps_rejected"] == 1.0
    assert found["contradictor"]["exact/cr_wa"] == 1.0 and found["oracle"]["exact/cc"] == 1.0
    assert found["oracle"]["fleiss_kappa"] is None  # all say the same of all: chance alone would agree


def test_a_noisy_judge_is_seen_through_and_the_range_is_told():
    told = section(ROWS, oracle, Consistency(JUDGE), LabJudge("noisy", rate=0.5))
    found = values(told)
    assert found["rule"] == found["exact"] == 1.0
    assert 0.2 < (found["conclude/errors"] or 0.0) < 0.8 and (found["direct/swaps_rejected"] or 0.0) < 0.95
    assert (found["lowest"] or 0.0) < 1.0 == found["highest"]
    assert "depending on who reads the trace" in told.words and "does not say that the trace is true" in told.words
    (pairs,) = [table for table in told.tables if table.title == "Agreement of classifiers"]
    assert len(pairs.rows) == 10 and all(len(row) == 4 for row in pairs.rows)


def test_the_judge_sees_neither_the_gold_nor_the_emitted_answer():
    row = next(r for r in CHOICES if r.meta["family"] == "colour")
    asked = []

    def ask(queries):
        asked.extend(queries)
        return [Reply("<conclusion>A</conclusion>")] * len(queries)

    from eval.evaluator import examine

    examine(cases([row], lambda _: "<think>Grass.</think><answer>A</answer>"), {"c": Consistency({"name": "judge"})}, ask)
    conclude, supports, direct = asked
    for query in (conclude, supports):
        assert "Grass." in query.sample.question and "<answer>" not in query.sample.question and query.sample.answer == ""
        assert query.sampling.temperature == 0 and query.target == "judge"
    assert all(option in conclude.sample.question for option in row.options)
    assert not any(f". {option}" in supports.sample.question for option in row.options)
    assert "<answer>\nA\n</answer>" in direct.sample.question


@pytest.mark.parametrize(
    ("reply", "wanted"),
    [
        ("<conclusion>B</conclusion>", "B"),
        ("Hm. <conclusion> NONE </conclusion>", "NONE"),
        ("<think><conclusion>A</conclusion></think><conclusion>B</conclusion>", "B"),
        ("B", None),
        ("<conclusion>B", None),
        ("<conclusion></conclusion>", None),
    ],
)
def test_conclusions_of_judges_are_read_strictly(reply, wanted):
    assert read_conclusion(reply) == wanted


@pytest.mark.parametrize(
    ("reply", "share"),
    [("B", None), ("<conclusion>Z</conclusion>", None), ("<conclusion>NONE</conclusion>", 0.0), ("<conclusion>MULTI</conclusion>", 0.0)],
)
def test_invalid_replies_are_unscored_and_no_conclusion_is_inconsistent(reply, share):
    base = record(PETS, "So it is B.", "B")
    judged = replace(base, condition="consistency/conclude", detail={"judge": "j", "reply": reply})
    assert measured(base, judged).get("conclude") == share
    failed = replace(judged, detail={"judge": "j", "reply": "", "error": "timed out"})
    assert measured(base, failed).get("conclude") is None


def test_hostile_traces_do_not_break_the_measure():
    for trace in ("<trace>" * 2000, "answer is B. " * 5000, "\x00\ud7ff", "</think><answer>A</answer>" * 50):
        assert measured(record(PETS, trace, "B"))["rule"] in (0.0, 1.0)


# The order of the options


def test_option_shuffling_of_the_specification():
    assert option_shuffling(1, [1, 2]) == 0.5 and option_shuffling(0, [None, 0]) == 0.5 and option_shuffling(None, [None, None]) == 0.0


def test_an_oracle_is_steady_and_one_that_always_answers_a_is_not():
    steady, stuck = (section(ROWS, write, OptionOrder(shuffles=3)) for write in (oracle, always_a))
    found = values(steady)
    assert [found[name] for name in ("oscr_fixed", "oscr_regenerated", "oscr_correct", "rerun", "moved_somewhere")] == [1, 1, 1, 1, 0]
    assert "left out" in steady.words
    found = values(stuck)
    assert found["letter_kept"] == 1.0 and found["chosen/A"] == 1.0 and (found["favourite"] or 0.0) > 0.3
    assert (found["oscr_fixed"] or 0.0) < 0.5 and found["rerun"] == 1.0 and stuck.marks
    assert found["gold/A"] is not None and found["gold/A"] < 0.7
    favourite = next(f for f in stuck.figures if f.name.endswith("favourite"))
    assert isinstance(favourite, Figure) and favourite.note == "A"


def test_without_a_trace_nothing_is_re_fed_and_the_second_answer_is_missing():
    told = study(CHOICES[:4], lambda row: f"<answer>{row.answer}</answer>", {"o": OptionOrder(shuffles=2)})
    assert not told.of("option_order/fixed") and len(told.of("option_order/regenerated")) == 8
    found = values(OptionOrder().measure(told))
    assert found["oscr_fixed"] == 0.0 and found["oscr_regenerated"] == 1.0


def test_a_question_that_failed_is_left_out():
    told = study(CHOICES[:3], oracle, {"o": OptionOrder(shuffles=1)})
    broken = [
        replace(r, detail={**r.detail, "error": "too long"}) if r.condition == "option_order/fixed" and r.sample_id == CHOICES[0].id else r
        for r in told.records
    ]
    figure = next(f for f in OptionOrder().measure(Study(told.rows, broken)).figures if f.name.endswith("oscr_fixed"))
    assert figure.n == 2 and figure.value == 1.0


def test_arguments_are_checked():
    with pytest.raises(UserError, match="shuffles"):
        OptionOrder(shuffles=0)
    with pytest.raises(UserError, match="judge"):
        Consistency(judge={"nme": "x"})


def test_a_blind_policy_is_consistent_which_is_no_praise():
    assert values(section(CHOICES, blind, Consistency()))["rule"] == 1.0
