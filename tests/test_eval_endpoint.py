"""An OpenAI-compatible endpoint evaluated over real HTTP, with a real small model behind it: the same records as from its files."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from http_faults import completion, faulty, hang_up, status
from policy_server import policy
from runs_small import write_model, write_rows

from data.media import decode_image
from eval.store import load_study
from vlm_rl import cli_eval, models
from vlm_rl.chat import Chat
from vlm_rl.config import ModelConfig
from vlm_rl.engine.hf import HFEngine
from vlm_rl.errors import UserError
from vlm_rl.loading import load_eval
from vlm_rl.policy import Policy
from vlm_rl.types import Record

EVALUATORS = "{begun: {use: 'evaluators_small:Begun'}, told: {use: 'evaluators_small:Told'}, scored: {use: 'evaluators_small:Scored'}}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("endpoint")
    write_model(directory / "model")
    write_rows(directory / "rows", 4)
    (directory / "eval.yaml").write_text(
        f"run_dir: {directory}/run\ndata: {{name: jsonl, path: {directory}/rows/rows.jsonl}}\n"
        f"samples: 1\nchunk: 2\nrollout: {{max_new_tokens: 4, stop: ['</answer>']}}\nevaluators: {EVALUATORS}\n"
    )
    return directory


@pytest.fixture(scope="module")
def parts(place: Path) -> tuple[HFEngine, Chat]:
    config = ModelConfig(path=str(place / "model"))
    chat = Chat(models.load_processor(config), config, lambda sample: sample.question, decode_image)
    return HFEngine(Policy(models.load_model(config, chat), chat.visual_ids), chat), chat


@pytest.fixture(scope="module")
def local(place: Path) -> Path:
    return run(place, "local", f"model={place}/model")


def run(place: Path, name: str, *overrides: str, environment: dict[str, str] | None = None) -> Path:
    config = load_eval(str(place / "eval.yaml"), [f"run_dir={place}/{name}", *overrides])
    return cli_eval.evaluate(config, environment or {})


def models_list(*names: str):
    return lambda handler, body: handler.send_json(200, {"data": [{"id": name} for name in names]})


def by_key(run_dir: Path) -> dict[tuple, Record]:
    return {(r.sample_id, r.condition, r.mode, r.index): r for r in load_study(run_dir).records}


def test_an_endpoint_gives_the_records_that_its_model_gives_here(place: Path, parts, local: Path):
    with faulty(policy(*parts), models=models_list("small")) as server:
        remote = run(place, "remote", f"model={server.url}")
    here, there = by_key(local), by_key(remote)
    assert {key for key in here if key not in there} == {key for key in here if key[1] == "scored/a"}
    for key, record in there.items():
        other = here[key]
        assert (record.completion, record.prefill, record.finish, record.media_ids) == (
            other.completion,
            other.prefill,
            other.finish,
            other.media_ids,
        ), key
        if record.condition == "told/first":
            assert record.detail["told"] == pytest.approx(other.detail["told"], abs=1e-4)
    assert json.loads((local / "summary.json").read_text())["not_run"] == {}
    summary = json.loads((remote / "summary.json").read_text())
    assert summary["not_run"] == {"scored": "the endpoint cannot tell the log-probs of a given continuation"}
    assert "scored" not in summary and summary["begun"]["answered"]["value"] == 4
    assert "tell the log-probs of a given continuation" in (remote / "report.html").read_text()


@pytest.mark.parametrize("begins, tells, missing", [(False, True, {"begun", "scored"}), (True, False, {"told", "scored"})])
def test_what_an_endpoint_cannot_do_is_found_out_and_reported_by_name(place: Path, parts, begins: bool, tells: bool, missing: set[str]):
    with faulty(policy(*parts, begins=begins, tells=tells), models=models_list("small")) as server:
        remote = run(place, f"lacks{begins}", f"model={server.url}#small")
        begun = [body for body in server.asked if body["messages"][-1]["role"] == "assistant"]
    reasons = json.loads((remote / "summary.json").read_text())["not_run"]
    assert reasons.keys() == missing
    if not begins:
        assert reasons["begun"] == "the endpoint cannot begin the answer of the model (assistant prefill)"
        assert len(begun) == 2  # the trial, and nothing emulated


def test_the_question_is_sent_with_its_options_and_the_picture_in_its_place(place: Path, parts):
    with faulty(policy(*parts), models=models_list("small")) as server:
        run(place, "sent", f"model={server.url}", "data.limit=1", "samples=0", "blank_control=false", "evaluators={}")
        content = server.asked[-1]["messages"][0]["content"]
    assert [part["type"] for part in content] == ["image_url", "text"]
    assert content[1]["text"].splitlines()[0] == "what color is it?" and content[1]["text"].splitlines()[1].startswith("A. ")
    assert server.asked[-1]["temperature"] == 0 and server.asked[-1]["stop"] == ["</answer>"]


def test_which_model_is_named_when_an_endpoint_has_several(place: Path, parts):
    with faulty(policy(*parts), models=models_list("one", "two")) as server:
        with pytest.raises(UserError, match=r"it has one, two; write model=http.*#NAME"):
            run(place, "several", f"model={server.url}")
        with pytest.raises(UserError, match=r"model\.name: .*has no model 'three', but it has: one, two"):
            run(place, "several", f"model={server.url}#three")


def test_a_key_that_is_not_set_and_a_server_that_is_not_there_are_named(place: Path):
    with pytest.raises(UserError, match=r"model\.api_key_env: the environment variable NO_KEY is not set"):
        run(place, "down", "model=http://127.0.0.1:9/v1#x", "model.api_key_env=NO_KEY")
    with pytest.raises(UserError, match=r"the model's endpoint at http://127\.0\.0\.1:9/v1 does not answer.*mend model\.url"):
        run(place, "down", "model=http://127.0.0.1:9/v1#x", "model.retries=0")


def test_failed_answers_are_kept_as_such_or_stop_the_run(place: Path):
    """Four trials, then four questions, of which one is never answered."""

    def answers(handler, body) -> None:
        text = str(body["messages"][0]["content"][-1])
        if "what color" in text and len(server.asked) % 4 == 2:
            return status(400, "too long")(handler, body)
        return handler.send_json(200, completion("<think>a</think><answer>A</answer>"))

    quick = ("samples=0", "blank_control=false", "evaluators={}", "model.retries=0", "model.max_concurrency=1", "chunk=4")
    with faulty(answers, models=models_list("m")) as server:
        with pytest.raises(UserError, match=r"1 of 4 answers to questions 1 to 4 failed, more than failure_limit=0\.1"):
            run(place, "failing", f"model={server.url}", *quick)
        assert load_study(place / "failing").records == []
        kept = run(place, "failing", f"model={server.url}", *quick, "failure_limit=0.5")
    records = load_study(kept).records
    assert [bool(r.detail.get("error")) for r in records].count(True) == 1
    figures = json.loads((kept / "summary.json").read_text())["accuracy"]
    assert figures["failed"]["value"] == 1 and figures["accuracy"]["n"] == 3
    with faulty(hang_up, models=models_list("m")) as server, pytest.raises(UserError, match="does not answer"):
        run(place, "gone", f"model={server.url}", *quick)


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("vlm_rl.engine.http_json.Connection._pause", lambda self, attempt, asked: None)
    yield
