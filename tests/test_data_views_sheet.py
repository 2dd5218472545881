"""`vlm-rl data show --views`: rows beside their views, boxes drawn, what does not apply said with its reason."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from clips_small import CARPHONE, clip
from PIL import Image
from typer.testing import CliRunner

from data.contact_sheet import cards_of
from data.media import png_media
from data.templates import render
from data.views import VIEWS, Draw, find
from vlm_rl import cli_data
from vlm_rl.cli import app
from vlm_rl.errors import UserError
from vlm_rl.types import Media, Sample

ORANGE, BLUE = (255, 127, 14), (21, 101, 255)
WHITE = png_media(Image.new("RGB", (200, 100), "white"))
HOSTILE = "<script>alert(1)</script>"


def cards(sample: Sample, *names: str):
    draw = Draw(0, others=[sample])
    views = {name: cli_data._drawn(find(name), draw) for name in names}
    (card,) = cards_of([sample], [0], render("plain"), lambda done, total: None, views)
    return card, {view.view: view for view in card.views}


def shown(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))


def test_boxes_of_the_evidence_and_of_the_demonstration_are_drawn_where_they_fit():
    said = "<think>I see a dog [100, 20, 150.5, 60] and [1,2,3].</think><answer>A</answer>"
    sample = Sample("1", "?", "A", "choice", ("x", "y"), (WHITE,), said, {"boxes": [[10, 10, 60, 50], [900, 0, 999, 9], "x"]})
    card, views = cards(sample, "boxes_cropped", "boxes_kept")
    (picture,) = card.pictures
    seen = shown(picture.addresses[0])
    assert picture.caption == "image in memory, 200×100, evidence orange, response blue"
    assert tuple(seen[10, 30]) == tuple(seen[30, 10]) == tuple(seen[49, 30]) == ORANGE and tuple(seen[20, 120]) == BLUE
    assert (seen != 255).any(-1).sum() == 2 * (50 + 38) + 2 * (51 + 38)
    assert "the box [900, 0, 999, 9] holds nothing" in (views["boxes_kept"].note or "")
    plain = Sample("1", "?", "A", "choice", ("x", "y"), (WHITE, WHITE), None, {"boxes": [[10, 10, 60, 50]]})
    assert (shown(cards(plain)[0].pictures[0].addresses[0]) == 255).all()


def test_a_view_shows_what_it_changed_and_what_does_not_apply_says_why():
    sample = Sample("1", "Which?", "A", "choice", ("x", "y"), (WHITE,), meta={"caption": HOSTILE, "boxes": [[10, 10, 60, 50]]})
    card, views = cards(sample, *VIEWS)
    assert set(views) == set(VIEWS) and all(bool(v.note) != bool(v.prompt) for v in views.values())
    assert views["frames_reversed"].note == "does not apply: it has no video" and not views["frames_reversed"].problem
    assert views["think_empty"].prefill.startswith("<think>") and HOSTILE in views["caption_right"].prompt
    assert [option[1:] for option in views["options_permuted"].options] == [("y", False), ("x", True)]
    assert views["options_permuted"].meta == (("option_order", "[1, 0]"),) and len(card.meta) == 2
    assert views["boxes_cropped"].pictures[0].caption == "image in memory, 50×40"
    gone = Sample("2", "Which?", "A", "choice", ("x", "y"), (Media("image", path=Path("gone.png")),))
    assert "gone.png" in (cards(gone, "image_blank")[1]["image_blank"].problem or "")


def test_frames_of_a_view_are_shown():
    card, views = cards(Sample("c", "Who?", "x", media=(clip(CARPHONE),)), "frames_reversed", "frames_frozen")
    first, last = shown(card.pictures[0].addresses[0]), shown(views["frames_reversed"].pictures[0].addresses[-1])
    wide = (first.shape[1] + 2) // 2 - 2  # four frames, two in a strip
    assert np.array_equal(first[:, :wide], last[:, -wide:]) and views["frames_frozen"].pictures[0].caption == card.pictures[0].caption


def test_the_command_names_views_and_puts_several_together(tmp_path: Path):
    with pytest.raises(UserError, match="unknown view 'image_blurr' in --views; did you mean 'image_blur'"):
        cli_data.views_of("options_permuted,image_blurr")
    assert list(cli_data.views_of(" image_blur, options_permuted + image_noise ,")) == ["image_blur", "options_permuted + image_noise"]
    (tmp_path / "a.png").write_bytes(WHITE.read())
    rows = [
        {"id": f"r{i}", "question": HOSTILE, "images": ["a.png"], "options": ["p", "q"], "answer": "q", "boxes": [[1, 1, 9, 9]]}
        for i in "ab"
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tree = {"run_dir": "x", "model": {"path": "x"}, "data": {"name": "jsonl", "path": str(tmp_path / "rows.jsonl")}, "train": {"steps": 1}}
    (tmp_path / "c.yaml").write_text(json.dumps(tree))
    out, views = tmp_path / "s.html", "boxes_kept,caption_wrong+image_blur,frames_reversed"
    result = CliRunner().invoke(app, ["data", "show", str(tmp_path / "c.yaml"), "--out", str(out), "--views", views, "--severity", "5"])
    assert result.exit_code == 0, result.output
    page = out.read_text()
    assert page.count('<div class="beside">') == 2 and "<script>alert" not in page
    assert re.findall(r'<span class="view">([^<]*)</span>', page) == views.split(",") * 2
    assert page.count("data:image/png") == 6 and page.count("does not apply: it has no video") == 2
    assert page.count("Caption: The answer to &#39;&lt;script&gt;") == 2 and page.count("evidence orange</figcaption>") == 6
    assert CliRunner().invoke(app, ["data", "show", str(tmp_path / "c.yaml"), "--severity", "0"]).exit_code == 2
