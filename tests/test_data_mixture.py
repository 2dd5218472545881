"""Mixtures, curricula, ranks and workers: what a step draws is a pure function of the step."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import data
from data.mixture import Mixture, Part
from data.rows import LazyRows, Rows, Subset
from data.sampler import Sampler, make_sampler
from data.split import hold_out
from vlm_rl.config import DataConfig
from vlm_rl.errors import RowError, UserError
from vlm_rl.types import Sample


def rows_of(name: str, count: int) -> list[Sample]:
    return [Sample(str(i), f"{name} {i}?", "x", meta={"difficulty": i, "part": name}) for i in range(count)]


def mixture(*parts: tuple[int, float]) -> Mixture:
    return Mixture([Part(str(k), weight, rows_of(str(k), size)) for k, (size, weight) in enumerate(parts)])


def sampler(rows: Rows, per_step: int = 10, seed: int = 0, **fields: Any) -> Sampler:
    return make_sampler(rows, DataConfig(**{"name": "jsonl", **fields}), per_step, seed)


def test_a_mixture_is_its_parts_one_after_another():
    rows = mixture((3, 1), (2, 5))
    assert [row.id for row in rows] == ["0/0", "0/1", "0/2", "1/0", "1/1"] and rows[-1].question == "1 1?"
    with pytest.raises(UserError, match="used twice"):
        Mixture([Part("a", 1, rows_of("a", 1)), Part("a", 1, rows_of("b", 1))])


def test_row_errors_name_the_part():
    class Faulty(LazyRows):
        def __len__(self) -> int:
            return 1

        def row(self, index: int) -> Sample:
            raise RowError("r7", "bad")

    with pytest.raises(RowError, match="row web/r7: bad"):
        Mixture([Part("web", 1, Faulty())])[0]


@given(
    st.lists(st.tuples(st.integers(1, 30), st.floats(0.1, 10)), min_size=2, max_size=4),
    st.integers(1, 12),
    st.integers(0, 99),
)
def test_shares_follow_the_weights_and_no_row_comes_again_too_early(parts: list[tuple[int, float]], per_step: int, seed: int):
    rows = mixture(*parts)
    drawn = sampler(rows, per_step, seed)
    epochs = 6
    stream = [index for step in range(-(-epochs * drawn.size // per_step)) for index in drawn.batch(step)][: epochs * drawn.size]
    owner = rows.part_of_row
    total = sum(weight for _, weight in parts)
    for k, (size, weight) in enumerate(parts):
        mine = [index for index in stream if owner[index] == k]
        share = epochs * drawn.size * weight / total
        assert abs(len(mine) - share) <= epochs * len(parts) and mine
        counts = Counter(mine)
        assert max(counts.values()) - min(counts.get(i, 0) for i in range(len(owner)) if owner[i] == k) <= 2
        assert len(mine) < size or len(counts) == size


def test_one_part_draws_as_without_a_mixture():
    rows = rows_of("a", 23)
    assert [sampler(rows, 5, 3).batch(s) for s in range(9)] == [Sampler(23, 5, 3).batch(s) for s in range(9)]


def test_a_subset_of_a_mixture_keeps_its_weights():
    rows = mixture((100, 9), (300, 1))
    train, held = hold_out(rows, 0.2)
    assert len(train) + len(held) == 400
    drawn = [train[i].meta["part"] for step in range(40) for i in sampler(train).batch(step)]
    assert 0.85 < drawn.count("0") / len(drawn) < 0.95
    only = Subset(rows, range(100, 400))
    assert {only[i].meta["part"] for i in sampler(only).batch(0)} == {"1"}


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 50))
def test_ranks_together_draw_what_one_process_draws(per_step: int, world: int, step: int):
    for rows in (rows_of("a", 17), mixture((5, 1), (8, 3))):
        drawn = sampler(rows, per_step)
        slices = [drawn.batch(step, rank, world) for rank in range(world)]
        assert [index for part in slices for index in part] == drawn.batch(step)
        assert max(map(len, slices)) - min(map(len, slices)) <= 1


def test_a_rank_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="rank 2 of 2"):
        Sampler(5, 2, 0).batch(0, rank=2, world=2)


CONFIGS = [{}, {"curriculum": {"warm_steps": 20}}]


@pytest.mark.parametrize("fields", CONFIGS)
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_neither_workers_nor_a_resume_change_what_is_drawn(fields: dict, workers: int):
    rows = mixture((13, 2), (40, 1))
    straight = sampler(rows, **fields)
    expected = [straight.batch(step) for step in range(40)]
    resumed = sampler(rows, **fields)
    assert [resumed.batch(step) for step in range(23, 40)] == expected[23:]
    shared = sampler(rows, **fields)
    with ThreadPoolExecutor(workers) as pool:
        assert list(pool.map(shared.batch, range(40))) == expected
        read = list(pool.map(lambda step: [rows[i].id for i in shared.batch(step)], range(40)))
    assert read == [[rows[i].id for i in batch] for batch in expected]


def test_easy_rows_come_first():
    rows = rows_of("a", 100)
    drawn = sampler(rows, curriculum={"warm_steps": 5})
    for step in range(5):
        batch = drawn.batch(step)
        assert max(batch) < 20 * (step + 1) and len(set(batch)) == 10
    plain = sampler(rows)
    assert [drawn.batch(step) for step in range(5, 15)] == [plain.batch(step) for step in range(5, 15)]
    hard = sampler(rows, curriculum={"warm_steps": 5, "order": "hard_first"})
    assert min(hard.batch(0)) >= 80
    assert sampler(rows, seed=1, curriculum={"warm_steps": 5}).batch(0) != drawn.batch(0)


def test_each_part_starts_with_its_own_easy_rows():
    rows = mixture((50, 1), (50, 1))
    batch = sampler(rows, 20, curriculum={"warm_steps": 10}).batch(0)
    assert {rows[i].meta["difficulty"] for i in batch} == set(range(5))
    assert {rows[i].meta["part"] for i in batch} == {"0", "1"}


def test_a_pool_smaller_than_a_step_is_used_again():
    assert Counter(sampler(rows_of("a", 10), 6, curriculum={"warm_steps": 5}).batch(0)) == {0: 3, 1: 3}


def test_rows_without_difficulty_are_the_hardest(caplog: pytest.LogCaptureFixture):
    rows = [Sample(str(i), "q", "x", meta={} if i < 5 else {"difficulty": str(i)}) for i in range(10)]
    for order in ("easy_first", "hard_first"):
        drawn = sampler(rows, 5, curriculum={"warm_steps": 2, "order": order})
        assert min(drawn.batch(0)) == 5
    assert "5 of 10 rows have no number under 'difficulty'" in caplog.text
    with pytest.raises(UserError, match="did you mean 'difficulty'"):
        sampler(rows, curriculum={"warm_steps": 2, "field": "dificulty"})


def write(folder: Path, name: str, count: int) -> dict:
    path = folder / f"{name}.jsonl"
    path.write_text("\n".join(json.dumps({"question": f"{name} {i}?", "answer": i}) for i in range(count)))
    return {"name": "jsonl", "path": str(path)}


def test_a_mixture_from_a_config(tmp_path: Path):
    parts = [{"weight": 2, "label": "a", "data": write(tmp_path, "a", 4) | {"limit": 2}}, {"data": write(tmp_path, "b", 3)}]
    rows = data.load_rows(DataConfig.model_validate({"name": "mixture", "parts": parts}))
    assert [row.id.partition("/")[0] for row in rows] == ["a", "a", "1", "1", "1"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"name": "mixture"}, "needs parts"),
        ({"name": "jsonl", "parts": [{"data": {"name": "jsonl"}}]}, "needs parts"),
        ({"name": "mixture", "parts": [{"weight": 0, "data": {"name": "jsonl"}}]}, "greater than 0"),
        ({"name": "mixture", "parts": [{"data": {"name": "jsonl", "curriculum": {"warm_steps": 3}}}]}, "beside parts"),
        ({"name": "jsonl", "mapping": "virl39k", "columns": {"a": "b"}}, "not both"),
        ({"name": "jsonl", "where": {"level": {"mn": 3}}}, "min: NUMBER"),
        ({"name": "jsonl", "where": {"level": []}}, "a list of values"),
        ({"name": "jsonl", "where": {"level": {"min": "three"}}}, "min: NUMBER"),
    ],
)
def test_configs_that_make_no_sense_are_refused(fields: dict, reason: str):
    with pytest.raises(ValueError, match=reason):
        DataConfig.model_validate(fields)
