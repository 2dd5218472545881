"""`vlm-rl report` on directories as runs leave them, without a model."""

import dataclasses
import json

import pytest
from test_eval_report import Page, record
from test_eval_report import run_dir as training_run  # noqa: F401

from eval.runner import save_records
from eval.store import RecordStore, keep_rows
from vlm_rl.cli_report import report
from vlm_rl.errors import UserError
from vlm_rl.types import Sample

IDS = range(40)


def evaluation(path, right, said="So it is red."):
    """A finished evaluation of questions about nothing: `right(i)` says whether question i is answered right."""
    path.mkdir()
    records = [dataclasses.replace(record(i, right(i), said=said), media_ids=()) for i in IDS]
    rows = [Sample(r.sample_id, r.question, r.gold, r.kind, r.options) for r in records]
    keep_rows(path, rows)
    RecordStore(path).append(records, len(rows), 1.0)
    (path / "config.yaml").write_text("run_dir: x\ndata: {name: easy_vqa}\nevaluators: {consistency: {}, order: {use: option_order}}\n")
    (path / "summary.json").write_text(json.dumps({"not_run": {"order": "the endpoint cannot begin an answer"}}))
    return path


def test_one_evaluation(tmp_path):
    run = evaluation(tmp_path / "a", lambda i: i % 2 == 0)
    path = report([run], tmp_path / "unused")
    words = Page(path.read_text()).words
    assert path == run / "report.html" and "50.0%" in words and "Trace-answer consistency" in words
    assert "order was not run: the endpoint cannot begin an answer" in words
    assert (run / "report.md").exists() and (run / "figures.csv").exists()


def test_one_training_run(training_run):  # noqa: F811
    assert "The model uses the picture" in Page(report([training_run], training_run).read_text()).words


def test_the_score_went_up_and_the_reasoning_got_worse(tmp_path):
    one = evaluation(tmp_path / "before", lambda i: i % 4 == 0, "So it is teal.")
    two = evaluation(tmp_path / "after", lambda i: i % 8 > 0, "So it is teal.")
    path = report([one, two], tmp_path / "out")
    assert path == tmp_path / "out" / "report.html"
    assert "the score went up, the reasoning got worse" in Page(path.read_text()).words


def test_training_runs_are_compared_by_what_they_answered_last(tmp_path, training_run):  # noqa: F811
    other = tmp_path / "other"
    save_records(other / "eval" / "after.jsonl", [record(i, i % 2 == 0) for i in range(40)])
    words = Page(report([training_run, other], tmp_path / "out").read_text()).words
    assert "my run → other" in words and "the score fell" in words


def test_what_cannot_be_compared_or_reported(tmp_path):
    (tmp_path / "empty").mkdir()
    one = evaluation(tmp_path / "a", bool)
    with pytest.raises(UserError, match="compared with itself"):
        report([one, one], tmp_path)
    with pytest.raises(UserError, match="neither records"):
        report([one, tmp_path / "empty"], tmp_path)
    with pytest.raises(UserError, match="holds no config"):
        report([tmp_path / "empty"], tmp_path)
