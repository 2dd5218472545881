import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.sampler import Sampler
from vlm_rl.errors import UserError


@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 10**9))
def test_the_stream_is_one_permutation_after_another(size: int, per_step: int, seed: int):
    sampler = Sampler(size, per_step, seed)
    batches = [sampler.batch(step) for step in range(-(-3 * size // per_step))]
    assert all(len(batch) == per_step for batch in batches)
    stream = [index for batch in batches for index in batch]
    for epoch in range(3):
        assert sorted(stream[epoch * size : (epoch + 1) * size]) == list(range(size))


@given(st.lists(st.integers(0, 500), min_size=1, max_size=10))
def test_a_batch_depends_on_its_step_alone(steps: list[int]):
    used = Sampler(13, 5, seed=3)
    assert [used.batch(step) for step in steps] == [Sampler(13, 5, seed=3).batch(step) for step in steps]


def test_epochs_and_seeds_differ():
    first, second, other = Sampler(50, 50, 0).batch(0), Sampler(50, 50, 0).batch(1), Sampler(50, 50, 1).batch(0)
    assert first != second and first != other and first != list(range(50))


def test_another_process_draws_the_same():
    code = "from data.sampler import Sampler; print(Sampler(10, 7, 42).batch(3))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(Sampler(10, 7, 42).batch(3))


def test_nothing_to_draw_from_is_refused():
    for size, per_step in [(0, 4), (4, 0)]:
        with pytest.raises(UserError):
            Sampler(size, per_step, 0)
    with pytest.raises(ValueError):
        Sampler(4, 2, 0).batch(-1)
