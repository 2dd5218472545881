import dataclasses
import json
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from eval.report import learning_curve_png, write_report
from eval.run_files import picture, read_run, spread
from eval.runner import save_records
from eval.summary import compare
from vlm_rl.errors import UserError
from vlm_rl.types import Record

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}\x00\u202e"


class Page(HTMLParser):
    """What a browser would find in a page: tags, attributes, text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.text, self.inside = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.inside.append(tag)

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data):
        if "style" not in self.inside:
            self.text.append(data)

    @property
    def words(self):
        return re.sub(r"\s+", " ", " ".join(self.text))


def record(i, correct, condition="clean", said="I see red."):
    letter = "A" if correct else "B"
    return Record(
        sample_id=str(i),
        condition=condition,
        mode="greedy",
        index=0,
        question=f"colour of thing {i}?",
        options=("red", "teal"),
        gold="A",
        kind="choice",
        media_ids=(f"m{i}",),
        completion=f"<think>{said}</think><answer>{letter}</answer>",
        answer=letter,
        correct=correct,
        wellformed=True,
        finish="stop",
    )


def metrics(step):
    row = {
        "step": step,
        "reward/total": step / 10,
        "loss/total": -0.1,
        "loss/grad_norm": 1.5,
        "rollout/entropy": 0.4,
        "rollout/length": 20.0,
    }
    row |= {"reward/accuracy/contribution": step / 12, "guard/logprob_diff": 1e-6, "loss/clip_high": 0.01, "rollout/wellformed": 0.99}
    return row | ({"eval/accuracy": 0.7} if step == 5 else {})


def rollout(step, i, completion="<think>red thing</think><answer>A</answer>", answer="A", **over):
    parts = {"accuracy": {"raw": 1.0, "weight": 1.0, "contribution": 1.0}, "judge": {"raw": None, "weight": 0.3, "contribution": None}}
    row = {
        "step": step,
        "sample_id": str(i),
        "prompt": "<|im_start|>what colour?\nA. red\nB. teal\n",
        "media_ids": ["m0"],
        "options": ["red", "teal"],
    }
    row |= {"gold": "A", "completion": completion, "trace": "red thing", "answer": answer, "wellformed": True, "total": 1.0, "parts": parts}
    return row | over


@pytest.fixture
def run_dir(tmp_path):
    """A finished run of 10 steps, 40 questions."""
    run = tmp_path / "my run"
    (run / "media").mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save(run / "media" / "m0.png")
    before = [record(i, i % 2 == 0, said="Before, I saw teal.") for i in range(40)] + [record(i, i % 3 == 0, "blank") for i in range(40)]
    after = [record(i, i != 4, said="After, I saw red.") for i in range(40)] + [record(i, i % 3 == 0, "blank") for i in range(40)]
    save_records(run / "eval" / "before.jsonl", before)
    save_records(run / "eval" / "after.jsonl", after)
    lines(run / "metrics.jsonl", [metrics(step) for step in range(1, 11)])
    lines(run / "rollouts.jsonl", [rollout(step, i) for step in range(1, 11) for i in range(4)])
    summary = compare(before, after) | {"run/finished": True, "time/total": 268.4, "system/torch": "2.11.0"}
    (run / "summary.json").write_text(json.dumps(summary))
    (run / "config.yaml").write_text("seed: 3\nmodel: {path: some/model}\ndata: {name: easy_vqa}\nguards: {parity_limit: 0.05}\n")
    return run


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def page(run):
    return Page(write_report(run).read_text())


def test_report_says_what_happened(run_dir):
    words = page(run_dir).words
    assert "The model uses the picture. Accuracy 50.0 → 97.5: +47.5 points [" in words
    assert "wrong, then right" in words and "20 wrong, then right" in words and "1 right, then wrong" in words
    assert "Before, I saw teal." in words and "After, I saw red." in words
    for heading in (
        "Held-out accuracy",
        "Reward",
        "Entropy",
        "Completion length",
        "Gradient norm",
        "Clipped tokens",
        "Parity guard",
        "limit 0.05",
    ):
        assert heading in words
    first, middle, last = map(int, re.findall(r"Step (\d+)", words))
    assert first == 1 and 5 <= middle <= 7 and last == 10
    assert "not scored" in words and "judge" in words
    assert "system/torch 2.11.0" in words and "seed: 3" in words
    assert "missing" not in words and "unfinished" not in words


def test_prompt_of_a_rollout_is_shown_without_chat_marks_or_its_options_twice(run_dir):
    words = page(run_dir).words
    assert "what colour?" in words and "im_start" not in words and "A. red" not in words


def test_pictures_are_embedded_and_missing_ones_counted(run_dir):
    found = page(run_dir)
    sources = {value for key, value in found.attributes if key == "src"}
    assert len(sources) == 1 and sources.pop().startswith("data:image/png;base64,")
    assert "1 picture not stored with the run" in found.words


def test_nothing_is_fetched_or_run(run_dir):
    html = write_report(run_dir).read_text()
    found = Page(html)
    assert not {"script", "link", "iframe", "object", "base", "form"} & set(found.tags)
    assert "http" not in re.sub(r"http-equiv", "", html)
    assert all(value.startswith(("data:", "#")) for key, value in found.attributes if key in ("src", "href", "xlink:href"))
    assert not re.search(r"url\((?!#)", html) and "@import" not in html
    assert "default-src 'none'" in html


def test_hostile_text_is_only_ever_text(run_dir):
    for side in ("before", "after"):
        records = [dataclasses.replace(r, completion=HOSTILE, question=HOSTILE, answer=HOSTILE) for r in read_run(run_dir).before]
        flipped = [dataclasses.replace(r, correct=r.correct == (side == "before"), options=(HOSTILE, "b"), gold="A") for r in records]
        save_records(run_dir / "eval" / f"{side}.jsonl", flipped)
    part = {HOSTILE: {"raw": HOSTILE, "weight": 1.0, "contribution": []}}
    lines(run_dir / "rollouts.jsonl", [rollout(1, HOSTILE, HOSTILE, HOSTILE, prompt=HOSTILE, options=[HOSTILE], parts=part, gold=HOSTILE)])
    label = "$\\frac{" + HOSTILE.replace("/", "")
    lines(run_dir / "metrics.jsonl", [metrics(1) | {f"reward/{label}/contribution": 1.0, "eval/accuracy": HOSTILE}])
    (run_dir / "config.yaml").write_text(json.dumps({"model": {"path": HOSTILE}, "data": {"name": HOSTILE}}))
    tags = page(run_dir)
    assert tags.words.count("<script>alert(1)</script>") > 5
    assert not {"script"} & set(tags.tags)
    assert not [key for key, _ in tags.attributes if key.startswith("on")]
    assert "{{ 7 * 7 }}" in tags.words


def test_lone_surrogates_and_endless_text_are_written_and_cut(run_dir):
    lines(run_dir / "rollouts.jsonl", [rollout(1, 0, "\ud800" + "x" * 300_000, None)])
    assert len(write_report(run_dir).read_text()) < 300_000
    assert "more characters" in page(run_dir).words


@pytest.mark.parametrize(
    "name", ["config.yaml", "metrics.jsonl", "rollouts.jsonl", "summary.json", "eval/before.jsonl", "eval/after.jsonl"]
)
def test_a_missing_file_is_named_and_the_rest_is_shown(run_dir, name):
    (run_dir / name).unlink()
    words = page(run_dir).words
    assert f"{name.split('/')[-1]} is missing" in words
    assert ("Key figures" in words) and ("What changed" in words) == (not name.startswith("eval"))


def test_an_empty_run_directory_gives_a_report_that_says_so(tmp_path):
    words = page(tmp_path).words
    assert "this is what it has written so far" in words and "No evaluation before and after to compare" in words


def test_a_killed_run_is_read_up_to_its_last_whole_line(run_dir):
    (run_dir / "summary.json").unlink()
    for name in ("metrics.jsonl", "rollouts.jsonl", "eval/after.jsonl"):
        path = run_dir / name
        path.write_text(path.read_text() + '{"step": 11, "rew')
    found = page(run_dir)
    assert "the run has not finished" in found.words and "metrics.jsonl: 1 of 11 lines are damaged" in found.words
    assert "+47.5 points" in found.words


@pytest.mark.parametrize("text", ["[" * 5000, "\x00", "- a", "{", "12"])
def test_rubbish_in_any_file_gives_a_report(run_dir, text):
    for name in ("config.yaml", "metrics.jsonl", "rollouts.jsonl", "summary.json", "eval/before.jsonl"):
        (run_dir / name).write_text(text)
    assert "vlm-rl training report" in page(run_dir).words


def test_evaluations_of_different_questions_are_reported_not_compared(run_dir):
    (run_dir / "summary.json").write_text("{}")
    save_records(run_dir / "eval" / "after.jsonl", [record(99, True)])
    assert "answered on one side only" in page(run_dir).words


def test_no_run_directory_is_the_users_error(tmp_path):
    with pytest.raises(UserError, match="no run directory"):
        write_report(tmp_path / "nowhere")


@pytest.mark.parametrize("media_id", ["../my run/media/m0", "m0.png", "", "a/b", "x" * 65, "absent", "text"])
def test_only_kept_pngs_by_plain_id_are_embedded(run_dir, media_id):
    (run_dir / "media" / "text.png").write_text("no picture")
    assert picture(run_dir, media_id) is None
    assert picture(run_dir, "m0") is not None


def test_rollouts_of_a_long_run_come_from_three_places(run_dir):
    long = "<think>" + "word " * 600 + "</think>"
    lines(run_dir / "rollouts.jsonl", [rollout(step, i, long) for step in range(1, 1001) for i in range(4)])
    early, middle, late = read_run(run_dir).rollouts
    assert (early[0]["step"], late[0]["step"]) == (1, 1000)
    assert 490 < middle[0]["step"] < 510
    assert [len(rows) for rows in (early, middle, late)] == [4, 4, 4]


@pytest.mark.parametrize(
    ("items", "count", "chosen"), [([], 3, []), ([1, 2], 3, [1, 2]), (list(range(9)), 3, [0, 3, 6]), ([1, 2, 3], 0, [])]
)
def test_spread(items, count, chosen):
    assert spread(items, count) == chosen


def test_learning_curve_is_a_picture(run_dir, tmp_path):
    learning_curve_png(run_dir, tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as image:
        assert image.size == (1152, 640)


def test_a_run_without_evaluation_has_no_learning_curve(tmp_path):
    with pytest.raises(UserError, match="holds no evaluation"):
        learning_curve_png(tmp_path, tmp_path / "curve.png")
