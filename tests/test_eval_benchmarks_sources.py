"""Benchmarks from files in their own schema to the official result: JSONL, parquet, folders of configurations, a scripted model."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from benchmark_rows import ROWS, benchmark_of, column, png
from PIL import Image

from data.benchmark_source import benchmark_rows
from eval.benchmarks import find_benchmark
from eval.runner import Plan, evaluate, load_records, save_records, unchanged
from rewards.grading import gold_problem
from vlm_rl.config import DataConfig
from vlm_rl.config_eval import BenchmarkConfig, EvalConfig
from vlm_rl.errors import RowError, UserError
from vlm_rl.loading import load
from vlm_rl.types import Query, Reply

ROOT = Path(__file__).parent.parent


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_parquet(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    return path


def source(kind: str, path: Path, **more: Any) -> DataConfig:
    return DataConfig(name=kind, path=str(path), **{"split": "test", **more})


@pytest.mark.parametrize("entry", ROWS)
def test_jsonl_in_every_schema(entry: str, tmp_path: Path) -> None:
    config, rows = ROWS[entry]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    found = benchmark_rows(source("jsonl", path, config=config or None), BenchmarkConfig(name=benchmark_of(entry)))
    assert len(found) == len(rows) and [gold_problem(sample) for sample in found] == [None] * len(rows)
    for medium in (medium for sample in found for medium in sample.media if medium.data is not None):
        assert Image.open(io.BytesIO(medium.read())).size == (8, 8)


def test_parquet_with_picture_columns(tmp_path: Path) -> None:
    rows = [{**row, "image_1": column("red"), "image_2": column("blue")} for row in ROWS["mmmu"][1][:2]]
    write_parquet(tmp_path / "data" / "validation-00000-of-00001.parquet", rows)
    found = benchmark_rows(source("hub", tmp_path, split="validation"), BenchmarkConfig(name="mmmu"))
    assert [len(sample.media) for sample in found] == [1, 2]
    assert found[1].media[0].read() == png("blue") and found[1].media[1].read() == png("red")


def test_pictures_by_path_lie_beside_the_file_or_below_media_root(tmp_path: Path) -> None:
    row = {**ROWS["pope"][1][0], "image": "pictures/1.png"}
    path = write_jsonl(tmp_path / "rows.jsonl", [row])
    assert benchmark_rows(source("jsonl", path), BenchmarkConfig(name="pope"))[0].media[0].path == tmp_path / "pictures" / "1.png"
    moved = benchmark_rows(source("jsonl", path, media_root=str(tmp_path / "m")), BenchmarkConfig(name="pope"))
    assert moved[0].media[0].path == tmp_path / "m" / "pictures" / "1.png"


def test_configurations_are_folders_and_have_media_folders(tmp_path: Path) -> None:
    for task in ("action_sequence", "moving_count"):
        write_jsonl(tmp_path / task / "train.jsonl", ROWS["mvbench"][1] * 2)
    tasks = BenchmarkConfig(
        name="mvbench", configs=("action_sequence", "moving_count"), media_folders={"moving_count": "clevrer/video_validation"}
    )
    found = benchmark_rows(source("hub", tmp_path, split="train", media_root=str(tmp_path / "v")), tasks)
    assert [sample.id for sample in found] == ["action_sequence/0", "action_sequence/1", "moving_count/0", "moving_count/1"]
    assert [sample.media[0].path for sample in found][1:3] == [
        tmp_path / "v" / "clip_001.mp4",
        tmp_path / "v" / "clevrer" / "video_validation" / "clip_001.mp4",
    ]


def test_whole_videos_are_bounded_by_their_rows(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "action_sequence" / "train.jsonl", ROWS["mvbench"][1])
    for whole, bounds in ((False, (None, None)), (True, (3.2, 9.8))):
        tasks = BenchmarkConfig(name="mvbench", configs=("action_sequence",), whole_videos=whole)
        medium = benchmark_rows(source("hub", tmp_path, split="train"), tasks)[0].media[0]
        assert (medium.start, medium.end) == bounds


def test_limit_is_a_seeded_subset_and_where_filters(tmp_path: Path) -> None:
    rows = [{**ROWS["pope"][1][i % 2], "question_id": str(i)} for i in range(40)]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    few, more = (benchmark_rows(source("jsonl", path, limit=n), BenchmarkConfig(name="pope")) for n in (5, 20))
    assert {s.id for s in few} < {s.id for s in more} and len(few) == 5
    only = benchmark_rows(source("jsonl", path, where={"category": "random"}), BenchmarkConfig(name="pope"))
    assert len(only) == 20 and {sample.meta["category"] for sample in only} == {"random"}


def test_bad_settings_and_rows_are_named(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [ROWS["pope"][1][0], {"question_id": "9", "question": "?"}])
    rows = benchmark_rows(source("jsonl", path, revision="abc"), BenchmarkConfig(name="pope"))
    with pytest.raises(RowError, match=r'row 9: not in the schema of pope, test, revision abc: the field "answer" is missing'):
        rows[1]
    for data, benchmark, said in [
        (source("jsonl", path), BenchmarkConfig(name="popes"), "did you mean 'pope'"),
        (source("jsnl", path), BenchmarkConfig(name="pope"), "did you mean 'jsonl'"),
        (source("jsonl", path, mapping="x"), BenchmarkConfig(name="pope"), "schema of its own"),
        (source("jsonl", path), BenchmarkConfig(name="pope", configs=("a",), media_folders={"b": "c"}), "media_folders"),
        (DataConfig(name="jsonl"), BenchmarkConfig(name="pope"), "data.path is not set"),
        (source("jsonl", tmp_path / "none.jsonl"), BenchmarkConfig(name="pope"), "no such file"),
    ]:
        with pytest.raises(UserError, match=said):
            benchmark_rows(data, benchmark)
    assert len(benchmark_rows(source("jsonl", path), BenchmarkConfig(name="pope", configs=("a",), media_folders={"a": "b", "c": "d"}))) == 2


def test_from_rows_to_official_result_by_way_of_stored_records(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", ROWS["mathvista"][1])
    rows = benchmark_rows(source("jsonl", path), BenchmarkConfig(name="mathvista"))
    replies = dict(zip((s.id for s in rows), ["<think>A</think><answer>7 tiles</answer>", "\\boxed{yes}", "about", "", "[?]"], strict=True))

    def ask(queries: Sequence[Query]) -> list[Reply]:
        return [Reply(replies[query.sample.id]) for query in queries]

    records = evaluate(rows, {"clean": unchanged}, Plan(samples=0, max_new_tokens=8), ask)
    save_records(tmp_path / "records.jsonl", records)
    result = find_benchmark("mathvista").score_records(rows, load_records(tmp_path / "records.jsonl"))
    assert (result.headline, result.n, result.unparsed) == (0.4, 5, 2)
    with pytest.raises(RowError, match="two greedy answers"):
        find_benchmark("mathvista").score_records(rows, [*records, records[0]])


@pytest.mark.parametrize(
    ("completion", "finish", "right"),
    [
        ("B", "stop", True),
        ("(B) teal", "stop", True),
        ("<think>The answer is A</think>\nB.", "stop", True),
        ("<think>The answer is A</think><answer>B</answer>", "stop", True),
        ("<think>B", "stop", False),
        ("B", "length", False),
        ("I like B\nB", "stop", False),
        ("A dog runs with a cup", "stop", False),
        ("<think>The answer is B</think>", "stop", False),
        ("", "stop", False),
    ],
)
def test_a_bare_reply_is_the_answer_and_reasoning_never_is(completion: str, finish: str, right: bool, tmp_path: Path) -> None:
    row = {**ROWS["hrbench"][1][0], "A": "red", "B": "teal"}
    rows = benchmark_rows(source("jsonl", write_jsonl(tmp_path / "rows.jsonl", [row])), BenchmarkConfig(name="hrbench"))

    def ask(queries: Sequence[Query]) -> list[Reply]:
        return [Reply(completion, finish=finish) for _ in queries]  # type: ignore[arg-type]

    records = evaluate(rows, {"clean": unchanged}, Plan(samples=0, max_new_tokens=8), ask)
    result = find_benchmark("hrbench").score_records(rows, records)
    assert (result.headline, result.unparsed) == (float(right), int(not right))


def test_the_model_is_given_by_path_on_the_command_line() -> None:
    config = load(EvalConfig, ROOT / "configs" / "eval" / "mmvu.yaml", ["model=some/model", "data.limit=5"])
    assert config.model is not None and config.model.path == "some/model" and config.data.limit == 5
    assert config.data.template == "think" and config.benchmark.name == "mmvu"


def test_every_benchmark_has_a_config_and_tasks_agree_with_folders() -> None:
    configs = {path.stem: load(EvalConfig, path) for path in (ROOT / "configs" / "eval").glob("*.yaml") if "benchmark:" in path.read_text()}
    assert {config.benchmark.name for config in configs.values()} == {benchmark_of(entry) for entry in ROWS}
    for mvbench in (configs["mvbench"].benchmark, configs["mvbench_original"].benchmark):
        assert len(mvbench.configs) == 20 and set(mvbench.configs) == set(mvbench.media_folders)
