"""The recipes of configs/train: each goes through a dry run and is in the table of docs/recipes.md; what dry runs refuse."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console as Screen
from runs_small import train_config

from data import load_rows, stand_in
from data.training_sets import TRAINING_SETS
from rewards.grading import gold_problem
from vlm_rl import cli_dry, cli_dry_parts
from vlm_rl.config import DataConfig, TrainConfig
from vlm_rl.errors import UserError
from vlm_rl.loading import load
from vlm_rl.published import PUBLISHED
from vlm_rl.standin import StandIn
from vlm_rl.types import Generate, Sample, Sampling

ROOT = Path(__file__).parent.parent
RECIPES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "configs/train").glob("*.yaml"))
PHASES = [name for name, _ in cli_dry.Trial(None, {}, Path(), None).phases()]  # pyright: ignore[reportArgumentType]


def tried(config: TrainConfig) -> dict[str, str]:
    shown = []
    done = cli_dry.dry_run(config, {}, shown.append)
    assert [row.phase for row in done] == PHASES and len(shown) == 1
    return {row.phase: row.said for row in done}


@pytest.mark.parametrize("path", RECIPES)
def test_every_recipe_goes_through_a_dry_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load(TrainConfig, ROOT / path)
    assert config.run_dir == f"runs/{Path(path).stem}" and config.model.path in PUBLISHED
    said = tried(config)
    assert "STAND-IN rows" in said["data"] and "nobody asked" not in said["scoring"]
    assert all(name in said["judges"] for name in config.judges)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", RECIPES)
def test_every_recipe_is_documented(path):
    text = (ROOT / "docs/recipes.md").read_text()
    assert f"`{Path(path).stem}`" in text


def test_recipes_use_every_reward_system_and_model():
    configs = [load(TrainConfig, ROOT / path) for path in RECIPES]
    assert {config.model.path for config in configs} == set(PUBLISHED)
    labels = {label for config in configs for label in config.rewards}
    assert labels >= {"accuracy", "format", "acre", "sccm", "thinking", "hybrid", "faithful"}
    assert {config.model.lora is None for config in configs} == {True, False}


def test_rows_that_are_here_are_used(tmp_path):
    """And the run's own directory is left alone."""
    config = train_config(tmp_path, "rewards.acre.use=acre", "eval.every=1", "evaluators={accuracy: {}}", "algo.kl_weight=0.01")
    said = tried(config)
    assert "real rows" in said["data"] and "questions: policy 12" in said["scoring"] and "figures of accuracy" in said["evaluation after"]
    assert not (tmp_path / "run").exists()


def test_an_error_names_its_phase(tmp_path):
    config = train_config(tmp_path)
    rows = tmp_path / "rows" / "rows.jsonl"
    rows.write_text("\n".join(json.dumps(json.loads(line) | {"answer": "mauve"}) for line in rows.read_text().splitlines()))
    with pytest.raises(UserError, match=r"(?s)phase 'rows'.*mauve"):
        tried(config)
    with pytest.raises(UserError, match=r"(?s)phase 'data'.*mine:read"):
        tried(train_config(tmp_path, "data.path=elsewhere.jsonl", "data.mapping=mine:read"))
    with pytest.raises(UserError, match=r"(?s)phase 'model'.*family is not known"):
        tried(train_config(tmp_path, "model.path=somebody/model", "data={name: scenes, config: pictures}"))
    with pytest.raises(UserError, match=r"(?s)phase 'update'.*spread"):
        tried(train_config(tmp_path, "rewards={format: {weight: 1.0}}", "data={name: scenes, config: pictures}"))


@pytest.mark.parametrize("name", ["hub", "jsonl", "parquet"])
@pytest.mark.parametrize("mapping", [*TRAINING_SETS, None])
def test_stand_in_rows_are_read_by_the_sets_own_mapping(mapping, name, tmp_path):
    made = stand_in.write(DataConfig(name=name, path="somebody/somewhere", mapping=mapping, where={"kind": "choice"}), tmp_path)
    rows = load_rows(made)
    samples = [rows[i] for i in range(len(rows))]
    assert len(samples) == stand_in.COUNT and all(gold_problem(sample) is None for sample in samples)
    assert all(medium.read() for sample in samples for medium in sample.media)
    assert {sample.media[0].kind for sample in samples} == {"video" if mapping == "video_r1" else "image"}
    kinds = {sample.kind for sample in samples}
    assert kinds == ({"choice"} if mapping == "geometry3k_choice" else {"choice", "number", "text"})


def test_stand_in_rows_have_the_configs_columns(tmp_path):
    columns = {"question": "problem", "answer": "solution", "images": "pictures", "options": "choices", "kind": "sort"}
    data = DataConfig(name="jsonl", path="nowhere.jsonl", columns=columns)
    (first, *_) = (tmp_path / "train.jsonl").read_text().splitlines() if stand_in.write(data, tmp_path) else []
    assert set(json.loads(first)) <= {*columns.values(), "id"}


def test_judges_that_do_not_answer_are_named(tmp_path):
    judge = ["judges.tidy.url=http://127.0.0.1:9/v1", "judges.tidy.model=m", "judges.tidy.api_key_env=NO_SUCH_KEY"]
    local = ["judges.near.kind=embedding", "judges.near.path=somebody/encoder"]
    found = cli_dry_parts.judges(train_config(tmp_path, *judge, *local), {})
    assert "tidy: a STAND-IN" in found.said and "NO_SUCH_KEY" in found.said and "somebody/encoder is no local directory" in found.said
    [reply] = found.made["near"].answer([Generate("near", Sample("1", "a", "b"), Sampling(1))])
    assert 0 <= float(reply.text) <= 1


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("Grade it, for instance:\n<score>0.3</score>", "<score>"),
        ("Which?\n<choice>tie</choice>", "<choice>tie</choice>"),
        ("Write one word and nothing else: yes or no.", "yes"),
        ("What is it?\nA. red\nB. teal", "<answer>A</answer>"),
    ],
)
def test_a_stand_in_replies_in_the_form_that_is_asked_for(prompt, said):
    [reply] = StandIn("openai").answer([Generate("tidy", Sample("1", prompt, ""), Sampling(8))])
    assert reply.text.startswith(said)


def test_the_table_shows_texts_as_they_are():
    screen = Screen(width=120, record=True, file=io.StringIO())
    screen.print(cli_dry.table([cli_dry.Done("rollout", "[red]4[/red] prompts", 1.0)]))
    assert "[red]4[/red] prompts" in screen.export_text()
