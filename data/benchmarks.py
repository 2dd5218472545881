"""The benchmarks' row mappers by name, and `to_sample`, which applies one and says which row of what is wrong. It reads no files."""

import re
from collections.abc import Callable
from dataclasses import replace

from data.benchmark_fields import Place, Row
from data.benchmarks_image import chartqa, hrbench, mmmu, mmmu_pro, pope, spatial_choice, vstar
from data.benchmarks_math import dynamath, geometry3k, geoqa, logicvista, mathverse, mathvision, mathvista, wemath
from data.benchmarks_video import longvideobench, mmvu, mvbench, tempcompass, videomme, videommmu, vsibench
from vlm_rl.errors import RowError, unknown
from vlm_rl.types import Sample

__all__ = ["BENCHMARK_ROWS", "Place", "Row", "RowMapper", "to_sample"]

RowMapper = Callable[[Row, Place], Sample]

BENCHMARK_ROWS: dict[str, RowMapper] = {
    "chartqa": chartqa,
    "dynamath": dynamath,
    "geometry3k": geometry3k,
    "geoqa": geoqa,
    "hrbench": hrbench,
    "logicvista": logicvista,
    "longvideobench": longvideobench,
    "mathverse": mathverse,
    "mathvision": mathvision,
    "mathvista": mathvista,
    "mmmu": mmmu,
    "mmmu_pro": mmmu_pro,
    "mmvu": mmvu,
    "mvbench": mvbench,
    "pope": pope,
    "spatial_mm": spatial_choice,
    "tempcompass": tempcompass,
    "videomme": videomme,
    "videommmu": videommmu,
    "vsibench": vsibench,
    "vstar": vstar,
    "wemath": wemath,
    "whatsup": spatial_choice,
}

_MARK = re.compile(r"<(image|video)>")
_IDS = ("id", "pid", "question_id", "index", "sample_index", "ID")


def to_sample(name: str, row: Row, place: Place) -> Sample:
    """One raw row of the benchmark `name` as a Sample; its answer is "" where the split hides the key.

    Raises UserError for an unknown benchmark; RowError naming the row, the benchmark, configuration, split and revision for a row that is
    not in the benchmark's schema.
    """
    if name not in BENCHMARK_ROWS:
        raise unknown("benchmark", name, BENCHMARK_ROWS, "benchmark.name")
    try:
        return _marks_agree(BENCHMARK_ROWS[name](row, place))
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        own = next((str(row[key])[:80] for key in _IDS if row.get(key) is not None), str(place.number))
        where = ", ".join(part for part in (name, place.config, place.split, place.revision and f"revision {place.revision}") if part)
        raise RowError(own, f"not in the schema of {where}: {error}") from None


def _marks_agree(sample: Sample) -> Sample:
    """Marks that do not stand for the sample's media, one each and in order, are taken out of its text, so that media come first."""
    shown = [*_MARK.findall(sample.question), *(mark for option in sample.options for mark in _MARK.findall(option))]
    if not shown or shown == [medium.kind for medium in sample.media]:
        return sample
    question = _MARK.sub("", sample.question).strip()
    return replace(sample, question=question, options=tuple(_MARK.sub(r"[\1]", option).strip() for option in sample.options))
