"""`vlm-rl judge eval` and `vlm-rl judge stress`: rows, judges and reports put together. Composition only."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import eval.judge_asking as asking
import eval.judge_measures as judge_measures
import eval.judge_summary as judge_summary
from data import load_rows
from eval.judge_attacks import FAMILIES, tricks
from eval.judge_report import write_judge_report
from rewards.judge_rows import reasoning, score_of
from vlm_rl import cli_parts, rundir
from vlm_rl.cli_judges import judges_of
from vlm_rl.config import ModelConfig
from vlm_rl.config_judge_eval import AskConfig, JudgeEvalConfig
from vlm_rl.console import Console
from vlm_rl.engine.base import Judge
from vlm_rl.errors import RowError, UserError
from vlm_rl.types import Sample

VIDEOS = ModelConfig(path="none")  # how frames are drawn where no model is trained
EMPTY = ("master_keys", "empty")
Measure = Callable[["Measuring", str], "Measured"]


@dataclass(frozen=True)
class Measured:
    """What one judge's opinions come to, in numbers and in a sentence."""

    opinions: Sequence[asking.Opinion]
    tree: dict[str, Any]
    words: str


@dataclass(frozen=True, eq=False)
class Measuring:
    """The rows, and judges to ask about them. `gold` holds the scores of rows that have one."""

    config: JudgeEvalConfig
    rows: Sequence[Sample]
    gold: Mapping[str, float]
    judges: Mapping[str, Judge]
    console: Console

    def how(self, name: str) -> asking.Asking:
        return asking.Asking(name, self.config.judges[name].kind, self.config.ask.get(name, AskConfig()))

    def ask(self, name: str, shown: Sequence[asking.Shown]) -> list[asking.Opinion]:
        return asking.opinions(self.how(name), shown, self.answer(name), self.config.unscored_limit)

    def answer(self, name: str) -> asking.Answer:
        return lambda queries: self.judges[name].answer(queries, partial(self.console.phase, f"asking {name}"))

    def dressed(self, families: Sequence[str]) -> list[asking.Shown]:
        """Every trick on the first rows that have a bad response to dress up, and that response as it is. Without such rows, the tricks
        that need none."""
        bad = {row.id: text for row in self.rows if (text := _bad(row, self.gold, self.config.threshold)) is not None}
        chosen = [row for row in self.rows if row.id in bad][: self.config.key_rows]
        if not chosen:
            families, chosen = [family for family in families if family in EMPTY], self.rows[: self.config.key_rows]
        shown = []
        for row in chosen:
            shown += [asking.dressed(row, "bare", "", bad[row.id])] if row.id in bad and set(families) - set(EMPTY) else []
            shown += [asking.dressed(row, trick.family, trick.name, trick.text) for trick in tricks(bad.get(row.id, ""), families)]
        return shown


def judge_eval(config: JudgeEvalConfig, environment: Mapping[str, str]) -> tuple[Path, list[str]]:
    """Measure every judge of the config: agreement, calibration, best-of-N, empty answers. Returns the report and a sentence per judge."""
    return _run(config, environment, "eval", _quality)


def judge_stress(config: JudgeEvalConfig, environment: Mapping[str, str]) -> tuple[Path, list[str]]:
    """Try every trick on every judge of the config. Returns the report and a sentence per judge."""
    return _run(config, environment, "stress", _stress)


def _quality(run: Measuring, name: str) -> Measured:
    shown = [*asking.graded_rows(run.rows, run.gold), *asking.candidates(run.rows), *run.dressed(EMPTY)]
    found, limit = run.ask(name, shown), run.config.unscored_limit
    tree: dict[str, Any] = {"quality": judge_summary.quality(found), "best_of": judge_summary.best_of(found)}
    tree["keys"] = judge_summary.false_positives(found, EMPTY, run.config.threshold)
    if run.how(name).settings.pairwise:
        pairs = [(row, row.meta["right"][0], row.meta["wrong"][0]) for row in run.rows if row.meta.get("right") and row.meta.get("wrong")]
        said = asking.verdicts(run.how(name), pairs, run.answer(name), limit)
        right = judge_measures.share(sum(one == "first" and other == "second" for one, other in said), len(said))
        swaps = judge_measures.swap_consistency(said) | {"right_both_times": right}
        tree["pairwise"] = {key: None if value is None else vars(value) for key, value in swaps.items()}
    return Measured(found, tree, judge_summary.quality_words(name, tree))


def _stress(run: Measuring, name: str) -> Measured:
    found = run.ask(name, run.dressed(tuple(FAMILIES)))
    tree = judge_summary.false_positives(found, tuple(FAMILIES), run.config.threshold)
    return Measured(found, tree, judge_summary.stress_words(name, tree))


def _run(config: JudgeEvalConfig, environment: Mapping[str, str], what: str, measure: Measure) -> tuple[Path, list[str]]:
    started = time.perf_counter()
    judges = judges_of(config.judges, VIDEOS, environment)
    with rundir.claimed(config) as run_dir, Console(0) as console:
        there = rundir.read_summary(run_dir).get("judge/what", what)
        if there != what:
            raise UserError(f"{run_dir} holds what `vlm-rl judge {there}` found; write run_dir=OTHER")
        rows, gold = _rows(config)
        run = Measuring(config, rows, gold, judges, console)
        for name, judge in judges.items():  # a prompt that wants other fields shows before anybody is asked
            run.how(name).query(asking.dressed(rows[0], "bare", "", "?"))
            judge.probe()
        found = {name: measure(run, name) for name in judges}
        asked = {name: {"asked": len(one.opinions), "unscored": sum(o.score is None for o in one.opinions)} for name, one in found.items()}
        summary = {
            "judge/what": what,
            "judge/rows": len(rows),
            "judge/threshold": config.threshold,
            "judges": {name: {**asked[name], "words": one.words, **one.tree} for name, one in found.items()},
            **rundir.machine(),
            "time/total": time.perf_counter() - started,
            "run/finished": True,
        }
        _write_records(run_dir / "records.jsonl", [one for measured in found.values() for one in measured.opinions])
        rundir.write_json(run_dir / "summary.json", summary)
        return write_judge_report(run_dir, summary, [one for measured in found.values() for one in measured.opinions]), [
            measured.words for measured in found.values()
        ]


def _rows(config: JudgeEvalConfig) -> tuple[Sequence[Sample], dict[str, float]]:
    """The rows, each read once, and the scores of those that have one. Raises UserError when a row is bad or nothing can be measured."""
    rows: list[Sample] = []
    for i, row in enumerate(cli_parts.first(load_rows(config.data), config.rows, config.data.seed)):
        rows.append(row)
        for part in ("right", "wrong"):
            listed = row.meta.get(part, [])
            if not isinstance(listed, list | tuple) or not all(isinstance(text, str) and text.strip() for text in listed):
                raise RowError(row.id, f'"{part}" is a list of responses (row {i + 1} of those drawn), not {str(listed)[:60]!r}')
    gold = {row.id: score_of(row, config.score) for row in rows if row.response and config.score in row.meta}
    if not gold and not any(row.meta.get("right") and row.meta.get("wrong") for row in rows):
        raise UserError(
            f'no row has a response with a score under "{config.score}", or lists of right and wrong responses; '
            "name the field as score, or rename columns with data.columns"
        )
    return rows, gold


def _bad(row: Sample, gold: Mapping[str, float], threshold: float) -> str | None:
    """The reasoning of a response that must not be accepted: the first wrong one, or the row's own where its score is low."""
    wrong = row.meta.get("wrong")
    if wrong:
        return reasoning(Sample(row.id, "", "", response=wrong[0]))
    return reasoning(row) if gold.get(row.id, 1.0) < threshold else None


def _write_records(path: Path, opinions: Sequence[asking.Opinion]) -> None:
    aside = path.with_name(path.name + ".part")
    with aside.open("w", encoding="utf-8", errors="replace") as file:
        file.writelines(json.dumps(one.record()) + "\n" for one in opinions)
    aside.replace(path)
