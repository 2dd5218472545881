"""Benchmarks by name: how a row is read and how the official metric is computed. Ids, splits and revisions stand in `configs/eval/`."""

from collections.abc import Sequence
from dataclasses import dataclass

from data.benchmarks import BENCHMARK_ROWS, RowMapper
from eval.graded import Graded, Metric, OfficialResult, accuracy, graded_records, macro
from eval.official import dynamath, hrbench, mathverse, mmmu_pro, pope, vsibench, wemath
from vlm_rl.errors import UserError, unknown
from vlm_rl.types import Record, Sample

METRICS: dict[str, Metric] = {
    "chartqa": accuracy("type"),
    "dynamath": dynamath,
    "geometry3k": accuracy(),
    "geoqa": accuracy(),
    "hrbench": hrbench,
    "logicvista": accuracy("skill"),
    "longvideobench": accuracy("duration_group", "question_category"),
    "mathverse": mathverse,
    "mathvision": accuracy("subject", "level"),
    "mathvista": accuracy("task", "context", "skills", "category", "grade", "question_type", "answer_type", "source"),
    "mmmu": accuracy("discipline", "subject", "question_type"),
    "mmmu_pro": mmmu_pro,
    "mmvu": accuracy("question_type", "subject"),
    "mvbench": macro("task"),
    "pope": pope,
    "spatial_mm": accuracy("category"),
    "tempcompass": accuracy("task", "dim"),
    "videomme": accuracy("duration", "domain", "sub_category", "task_type", "subtitles"),
    "videommmu": macro("track", "discipline", "subject", "question_type"),
    "vsibench": vsibench,
    "vstar": accuracy("category"),
    "wemath": wemath,
    "whatsup": accuracy("category"),
}


@dataclass(frozen=True)
class Benchmark:
    """`row` reads a raw row in the published schema (data.benchmarks), `metric` turns graded answers into what the benchmark reports."""

    name: str
    row: RowMapper
    metric: Metric

    def score(self, graded: Sequence[Graded]) -> OfficialResult:
        """Raises UserError when there is nothing to score."""
        if not graded:
            raise UserError(f"{self.name}: no answers to score")
        return self.metric(self.name, graded)

    def score_records(self, samples: Sequence[Sample], records: Sequence[Record]) -> OfficialResult:
        """The official result of the greedy answers of the clean condition; needs no model, so stored records can be scored again."""
        return self.score(graded_records(samples, records))


BENCHMARKS: dict[str, Benchmark] = {name: Benchmark(name, BENCHMARK_ROWS[name], metric) for name, metric in METRICS.items()}


def find_benchmark(name: str) -> Benchmark:
    """Raises UserError with the nearest known name."""
    if name not in BENCHMARKS:
        raise unknown("benchmark", name, BENCHMARKS, "benchmark.name")
    return BENCHMARKS[name]
