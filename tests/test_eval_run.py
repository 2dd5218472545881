"""`vlm-rl eval` as a whole on a tiny model: what it writes, what a kill loses, what it refuses, and grading again without a model."""

import json
from pathlib import Path

import pytest
from runs_small import write_model, write_rows

from eval.measured import open_run
from eval.store import RecordStore, keep_rows, load_study
from vlm_rl import cli_eval
from vlm_rl.config_eval import EvalConfig
from vlm_rl.errors import UserError
from vlm_rl.loading import load, load_eval
from vlm_rl.types import Record, Sample


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("eval")
    write_model(directory / "model")
    write_rows(directory / "rows", 6)
    (directory / "eval.yaml").write_text(
        f"run_dir: {directory}/run\nmodel: {directory}/model\ndata: {{name: jsonl, path: {directory}/rows/rows.jsonl}}\n"
        "samples: 2\nchunk: 4\nrollout: {max_new_tokens: 4}\n"
    )
    return directory


def run(place: Path, name: str, *overrides: str) -> Path:
    return cli_eval.evaluate(load_eval(str(place / "eval.yaml"), [f"run_dir={place}/{name}", *overrides]), {})


@pytest.fixture(scope="module")
def whole(place: Path) -> Path:
    return run(place, "whole")


def test_a_run_leaves_questions_answers_numbers_and_a_report(whole: Path):
    records = load_study(whole).records
    assert len(records) == 6 * (1 + 2 + 1)
    assert [r.condition for r in records if r.mode == "greedy"].count("blank") == 6
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["run/finished"] and summary["not_run"] == {}
    figure = summary["accuracy"]["accuracy"]
    right = sum(r.correct for r in records if r.condition == "clean" and r.mode == "greedy")
    assert figure["value"] == right / 6 and figure["n"] == 6 and figure["low"] <= figure["value"] <= figure["high"]
    assert "<html" in (whole / "report.html").read_text()
    assert any((whole / "media").glob("*.png"))
    assert "media" not in json.loads((whole / "rows.jsonl").read_text().splitlines()[0])


def test_a_killed_run_goes_on_and_equals_an_unbroken_one(place: Path, whole: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def killed(rows, start, end, questions, ask):
        asked.append(start)
        if start == 4 and len(asked) == 2:
            raise KeyboardInterrupt
        return examine(rows, start, end, questions, ask)

    examine = cli_eval.examine_chunk
    monkeypatch.setattr(cli_eval, "examine_chunk", killed)
    with pytest.raises(KeyboardInterrupt):
        run(place, "killed")
    path = place / "killed" / "records.jsonl"
    path.write_bytes(path.read_bytes() + b'{"sample_id": "r4", "condition": "cl')
    with pytest.raises(UserError, match=r"seed: there 0, now 3"):
        run(place, "killed", "seed=3")
    run(place, "killed", "chunk=3")
    assert asked == [0, 4, 4]
    stripped = [{**json.loads(line)} for line in path.read_text().splitlines()]
    assert stripped == [json.loads(line) for line in (whole / "records.jsonl").read_text().splitlines()]


def test_other_questions_in_a_begun_run_are_refused(tmp_path: Path):
    keep_rows(tmp_path, [Sample("a", "q?", "x"), Sample("b", "q?", "y")])
    store = RecordStore(tmp_path)
    store.append([record("a")], 1, 0.5)
    with pytest.raises(UserError, match="'b' is not as it was"):
        keep_rows(tmp_path, [Sample("a", "q?", "x"), Sample("b", "another?", "y")])
    keep_rows(tmp_path, [Sample("a", "q?", "x"), Sample("b", "q?", "y")])
    (tmp_path / "progress.jsonl").write_bytes((tmp_path / "progress.jsonl").read_bytes() + b'{"questions": 2, "rec')
    again = RecordStore(tmp_path)
    assert (again.done, again.seconds) == (1, 0.5)
    again.append([record("b")], 1, 1.0)
    assert RecordStore(tmp_path).done == 2 and [r.sample_id for r in load_study(tmp_path).records] == ["a", "b"]


def record(name: str) -> Record:
    return Record(name, "clean", "greedy", 0, "q?", (), "x", "text", (), "<think>a</think><answer>x</answer>", "x", True, True, "stop")


def test_grading_again_needs_no_model(place: Path, whole: Path):
    before = {name: (whole / name).read_bytes() for name in ("records.jsonl", "report.html")}
    figures = json.loads((whole / "summary.json").read_text())
    assert cli_eval.regrade(whole)[-1].startswith("0 of 24 records")
    assert before == {name: (whole / name).read_bytes() for name in before}
    assert json.loads((whole / "summary.json").read_text()) == figures
    run(place, "spoilt")
    path = place / "spoilt" / "records.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line | {"correct": not line["correct"], "answer": "??"}) + "\n" for line in lines))
    assert cli_eval.regrade(place / "spoilt")[-1].startswith("24 of 24 records")
    assert path.read_bytes() == before["records.jsonl"]
    assert json.loads((place / "spoilt" / "summary.json").read_text())["accuracy"] == figures["accuracy"]


def test_a_finished_run_is_only_pointed_at(place: Path, whole: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cli_eval, "open_target", lambda *_: pytest.fail("nothing is loaded"))
    assert run(place, "whole") == whole
    assert list(open_run(whole).sections()) == ["accuracy"]


@pytest.mark.parametrize(
    "overrides, said",
    [
        (["evaluators.acuracy={}"], "did you mean 'accuracy'"),
        (["evaluators.accuracy.benchmrk=pope"], "did you mean 'evaluators.accuracy.benchmark'"),
        (["evaluators.mine.use=nowhere:Mine"], "no module named 'nowhere'"),
        (["evaluators.mine.use=vlm_rl.types:Sample"], "is no evaluator"),
        (["benchmark.name=poep"], "did you mean 'pope'"),
        (["model=./nowhere"], "no such directory"),
        (["data.path=none.jsonl"], "none.jsonl"),
    ],
)
def test_mistakes_are_named_before_anything_is_asked(place: Path, overrides: list[str], said: str):
    with pytest.raises(UserError, match=said):
        run(place, "mistaken", *overrides)


@pytest.mark.parametrize(
    "overrides, said",
    [
        (["model.url=ftp://x"], "write an address"),
        (["model=http://h:1/v1", "model.path=x"], "model.path or model.url"),
        (["model.path=x", "model.retries=5"], "model.retries: only for an endpoint"),
        (["model.scratch={}"], "learnt nothing"),
        (["evaluators={a/b: {use: accuracy}}"], "label has no"),
        (["sampels=3"], "did you mean 'samples'"),
    ],
)
def test_a_wrong_config_is_refused(tmp_path: Path, overrides: list[str], said: str):
    (tmp_path / "c.yaml").write_text("run_dir: r\ndata: {name: easy_vqa}\n")
    with pytest.raises(UserError, match=said):
        load_eval(str(tmp_path / "c.yaml"), overrides)


def test_a_model_is_spelled_in_one_word_or_in_keys(tmp_path: Path):
    (tmp_path / "c.yaml").write_text("run_dir: r\ndata: {name: easy_vqa}\nmodel: {video_max_frames: 64}\n")
    there = load_eval(str(tmp_path / "c.yaml"), ["model=http://127.0.0.1:8000/v1/#qwen", "model.retries=1"]).model
    assert (there.url, there.name, there.retries, there.video_max_frames) == ("http://127.0.0.1:8000/v1", "qwen", 1, 64)
    here = load_eval(str(tmp_path / "c.yaml"), ["model=runs/x", "model.dtype=bfloat16"]).model
    assert (here.path, here.dtype, here.video_max_frames) == ("runs/x", "bfloat16", 64)
    with pytest.raises(UserError, match="which model"):
        cli_eval.evaluate(load(EvalConfig, write(tmp_path, "data: {name: jsonl, path: x.jsonl}")), {})


def write(directory: Path, text: str) -> Path:
    (directory / "d.yaml").write_text(f"run_dir: {directory}/r\n{text}\n")
    return directory / "d.yaml"


def test_data_of_our_own_brings_its_policy(tmp_path: Path):
    from vlm_rl.cli_targets import with_model

    for data, policy in (
        ("{name: easy_vqa}", "data/policies/easy_vqa"),
        ("{name: scenes, config: charts}", "data/policies/scenes"),
        ("{name: mixture, parts: [{data: {name: jsonl, path: x}}, {data: {name: scenes}}]}", "data/policies/scenes"),
    ):
        assert with_model(load(EvalConfig, write(tmp_path, f"data: {data}"))).model.path == policy
