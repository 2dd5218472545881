"""The files of a run: one line a step, equal after a kill and a resume, and never a number that is none."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_rl.errors import UserError
from vlm_rl.tracker import Tracker, read_jsonl


def run(run_dir: Path, first: int, last: int, start_step: int) -> None:
    tracker = Tracker(run_dir, tensorboard=False, wandb=False, start_step=start_step)
    for step in range(first, last + 1):
        tracker.log_rollouts(step, [{"completion": f"é {step}.{i}\u2028", "reward": np.float32(i)} for i in range(3)])
        tracker.log(step, {"reward/total": step / 7, "algo/dropped": step})
    tracker.close()


def contents(run_dir: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in run_dir.iterdir()}


def test_one_line_a_step_with_sorted_keys(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path / "new" / "run", tensorboard=False, wandb=False, start_step=0)
    tracker.log(1, {"time/step": 0.5, "loss/kl": 0.0, "algo/dropped": 2})
    assert (tmp_path / "new/run/metrics.jsonl").read_text() == '{"algo/dropped": 2, "loss/kl": 0.0, "step": 1, "time/step": 0.5}\n'
    tracker.close()
    tracker.close()


@pytest.mark.parametrize(
    "value",
    [1.5, np.float32(1.5), np.float64(1.5), np.array(1.5), torch.tensor(1.5), torch.tensor(1.5, dtype=torch.bfloat16, requires_grad=True)],
)
def test_scalars_of_any_library_are_numbers(tmp_path: Path, value: Any) -> None:
    tracker = Tracker(tmp_path, tensorboard=False, wandb=False, start_step=0)
    metrics: dict[str, Any] = {"m": value, "count": np.int64(3), "flag": np.bool_(True)}
    tracker.log(1, metrics)
    tracker.log_rollouts(1, [{"raw": value, "parts": {"a": (value, None)}, "mask": np.array([True, False])}])
    assert read_jsonl(tmp_path / "metrics.jsonl") == [{"step": 1, "m": 1.5, "count": 3, "flag": 1}]
    assert read_jsonl(tmp_path / "rollouts.jsonl") == [{"step": 1, "raw": 1.5, "parts": {"a": [1.5, None]}, "mask": [True, False]}]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("-inf"), torch.tensor(float("nan"))])
def test_a_metric_that_is_not_finite_is_refused_by_name(tmp_path: Path, value: Any) -> None:
    tracker = Tracker(tmp_path, tensorboard=False, wandb=False, start_step=0)
    tracker.log(1, {"loss/kl": 0.0})
    with pytest.raises(UserError, match=r"'loss/kl' at step 2"):
        tracker.log(2, {"a": 1.0, "loss/kl": value})
    assert [row["step"] for row in read_jsonl(tmp_path / "metrics.jsonl")] == [1]


@pytest.mark.parametrize("value", ["0.5", None, [1.0]])
def test_what_is_no_number_is_refused_by_name(tmp_path: Path, value: Any) -> None:
    with pytest.raises(TypeError, match="'m'"):
        Tracker(tmp_path, tensorboard=False, wandb=False, start_step=0).log(1, {"m": value})


def test_rollouts_with_odd_values_stay_valid_json(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, tensorboard=False, wandb=False, start_step=0)
    tracker.log_rollouts(
        4, [{"step": 99, "text": "\ud800 \x00 \n", "bad": float("nan"), "path": Path("a"), "deep": [{"x": {1: float("inf")}}]}]
    )
    assert len((tmp_path / "rollouts.jsonl").read_bytes().splitlines()) == 1
    row = json.loads((tmp_path / "rollouts.jsonl").read_text(), parse_constant=pytest.fail)
    assert row == {"step": 4, "text": "\ud800 \x00 \n", "bad": "nan", "path": "a", "deep": [{"x": {"1": "inf"}}]}


def test_two_lines_for_one_step_are_our_mistake(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, tensorboard=False, wandb=False, start_step=0)
    tracker.log(2, {"a": 1.0})
    for step in (2, 1):
        with pytest.raises(ValueError, match="one call"):
            tracker.log(step, {"b": 1.0})


@pytest.mark.parametrize("start_step", [0, 1, 4, 6])
@pytest.mark.parametrize("torn", [b"", b'{"step": 7, "x', b'{"step": 7, "text": "\xc3', b"\x00\x00\x00", b"\n"])
def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path, start_step: int, torn: bytes) -> None:
    run(tmp_path / "unbroken", 0, 9, start_step=0)
    run(tmp_path / "killed", 0, 6, start_step=0)
    for name in ("metrics.jsonl", "rollouts.jsonl"):
        with (tmp_path / "killed" / name).open("ab") as file:
            file.write(torn)
    run(tmp_path / "killed", start_step, 9, start_step=start_step)
    assert contents(tmp_path / "killed") == contents(tmp_path / "unbroken")


@settings(max_examples=25, deadline=None)
@given(cut=st.integers(0, 400))
def test_a_file_cut_anywhere_resumes(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    run_dir = tmp_path_factory.mktemp("run")
    run(run_dir, 1, 4, start_step=0)
    unbroken = contents(run_dir)
    for path in run_dir.iterdir():
        path.write_bytes(path.read_bytes()[:cut])
    run(run_dir, 1, 4, start_step=0)
    assert contents(run_dir) == unbroken


def test_a_line_lacking_only_its_newline_is_kept(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}')
    Tracker(tmp_path, tensorboard=False, wandb=False, start_step=2).close()
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'


def test_read_jsonl(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    assert read_jsonl(path) == []
    path.write_bytes(b'{"a": 1}\n{"a": 2}\n{"a"')
    assert read_jsonl(path) == [{"a": 1}, {"a": 2}]
    path.write_bytes(b'{"a": 1}\n{"a"\n{"a": 3}\n')
    with pytest.raises(UserError, match=r"x\.jsonl: line 2"):
        read_jsonl(path)
    path.write_bytes(b"[1]\n")
    with pytest.raises(UserError, match="line 1"):
        read_jsonl(path)


def test_media_are_written_once(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, tensorboard=False, wandb=False, start_step=0)
    path = tracker.save_media("3f2a", b"png")
    assert path == tmp_path / "media" / "3f2a.png"
    tracker.save_media("3f2a", b"other")
    assert path.read_bytes() == b"png"
    assert [p.name for p in path.parent.iterdir()] == ["3f2a.png"]


@pytest.mark.parametrize("media_id", ["../escape", "", "a/b", "a.b"])
def test_a_media_id_is_no_path(tmp_path: Path, media_id: str) -> None:
    with pytest.raises(ValueError, match="media id"):
        Tracker(tmp_path, tensorboard=False, wandb=False, start_step=0).save_media(media_id, b"")


def test_a_file_that_cannot_be_written_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(UserError, match=r"metrics\.jsonl"):
        Tracker(tmp_path, tensorboard=False, wandb=False, start_step=0)


def test_tensorboard_shows_each_step_once_after_a_resume(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for start, last in ((0, 4), (2, 5)):
        tracker = Tracker(tmp_path, tensorboard=True, wandb=False, start_step=start)
        for step in range(start + 1, last + 1):
            tracker.log(step, {"reward/total": step * 10})
        tracker.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("reward/total")] == [(s, s * 10.0) for s in range(1, 6)]


def test_wandb_goes_on_in_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wandb.py").write_text(
        "calls = []\n"
        "class Run:\n"
        "    def log(self, metrics, step): calls.append((step, metrics))\n"
        "    def finish(self): calls.append('finish')\n"
        "def init(**options):\n"
        "    calls.append(options['id'])\n"
        "    return Run()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    for step in (1, 2):
        tracker = Tracker(tmp_path / "run", tensorboard=False, wandb=True, start_step=step - 1)
        tracker.log(step, {"m": 1.0})
        tracker.close()
    calls = sys.modules["wandb"].calls
    monkeypatch.delitem(sys.modules, "wandb")
    assert calls[0] == calls[3]
    assert calls[1:3] == [(1, {"m": 1.0}), "finish"]
    assert calls[4:] == [(2, {"m": 1.0}), "finish"]


@pytest.mark.parametrize(("module", "fix"), [("wandb", "pip install wandb"), ("torch.utils.tensorboard", "pip install tensorboard")])
def test_a_missing_package_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, fix: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=fix):
        Tracker(tmp_path, tensorboard=module != "wandb", wandb=module == "wandb", start_step=0)
