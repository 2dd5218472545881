"""Judges in whole runs: a reward asks one over HTTP, outages are told by name, before training where they are there already."""

import json

import pytest
from http_faults import faulty, says, status
from models_small import make, sample
from runs_small import train_config

from rewards.judging import read_score, render
from vlm_rl import rundir
from vlm_rl.asking import Asker
from vlm_rl.cli_train import train
from vlm_rl.engine.scripted import ScriptedEngine
from vlm_rl.errors import UserError
from vlm_rl.types import Generate, Reply, RewardResult, Sample, Sampling, Score

LIMITS = Sampling(8, 0.0)


class Opinion:
    """A stranger's reward that asks a judge and says so."""

    def __init__(self, judge="tidy", declared=True):
        self.judge = judge
        self.targets = (judge,) if declared else ()

    def ask(self, group):
        def about(rollout):
            return Sample(group.sample.id, render("thinking", question="q", trace=rollout.text), "", media=group.sample.media)

        return [Generate(self.judge, about(rollout), LIMITS) for rollout in group.rollouts]

    def score(self, group, replies):
        return [RewardResult(read_score(reply.text), {"error": reply.error} if reply.error else {}) for reply in replies]


def models(handler, body):
    handler.send_json(200, {"data": [{"id": "m"}]})


def config(tmp_path, url, *overrides):
    judge = [f"judges.tidy.{setting}" for setting in (f"url={url}", "model=m", "retries=0")]
    return train_config(tmp_path, "rewards.opinion.use=test_train_judges:Opinion", "train.steps=2", *judge, *overrides)


def test_a_run_with_a_judge(tmp_path):
    with faulty(says("<score>0.4</score>"), models=models) as server:
        run = train(config(tmp_path, server.url, "judges.tidy.api_key_env=KEY"), {"KEY": "sk-17"})
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [step["reward/opinion/raw"] for step in steps] == pytest.approx([0.4, 0.4])
    content = server.asked[0]["messages"][0]["content"]
    assert content[0]["image_url"]["url"].startswith("data:image/png;base64,") and "<trace>" in content[1]["text"]
    assert len(server.asked) <= 2 * 3 * 4 and all(headers["Authorization"] == "Bearer sk-17" for headers in server.headers)
    written = "".join(path.read_text() for path in run.glob("*") if path.suffix in (".yaml", ".json", ".jsonl", ".html"))
    assert "api_key_env: KEY" in written and "sk-17" not in written


def test_what_can_be_known_is_said_before_anything_loads(tmp_path):
    with pytest.raises(UserError, match=r"unknown judge or model to ask 'tidi' in rewards\.opinion; did you mean 'tidy'"):
        train(config(tmp_path, "http://127.0.0.1:1/v1", "rewards.opinion.judge=tidi"))
    with pytest.raises(UserError, match=r"judges\.tidy\.api_key_env: the environment variable KEY is not set"):
        train(config(tmp_path, "http://127.0.0.1:1/v1", "judges.tidy.api_key_env=KEY"))
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match=r"judge 'tidy' at http://127\.0\.0\.1:1/v1 does not answer: ConnectError"):
        train(config(tmp_path, "http://127.0.0.1:1/v1"))
    assert not list((tmp_path / "run").glob("eval/*"))


def test_a_judge_that_fails_later_stops_the_run_by_the_share_left_unscored(tmp_path):
    said = r"reward 'opinion' left 12 of 12 rollouts unscored.*HTTP 500.*out of memory"
    with faulty(status(500, "out of memory"), models=models) as server, pytest.raises(UserError, match=said):
        train(config(tmp_path, server.url))
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == ""


def test_a_reward_that_does_not_say_whom_it_asks_is_told_at_its_first_question(tmp_path):
    said = "unknown target of a question 'tidi'; did you mean 'tidy'"
    with faulty(says("1"), models=models) as server, pytest.raises(UserError, match=said):
        train(config(tmp_path, server.url, "rewards.opinion.judge=tidi", "rewards.opinion.declared=false"))


def test_a_run_goes_on_with_a_judge_that_moved_but_not_with_another_model(tmp_path):
    first = config(tmp_path, "http://127.0.0.1:1/v1")
    with rundir.claimed(first) as run:
        (run / "checkpoints" / "step_1").mkdir(parents=True)
    moved = ("judges.tidy.timeout_s=5", f"judges.tidy.cache_dir={tmp_path}", "judges.tidy.max_concurrency=2", "judges.tidy.retries=5")
    with rundir.claimed(config(tmp_path, "http://127.0.0.1:2/v1", *moved)):
        pass
    other, said = config(tmp_path, "http://h", "judges.tidy.model=n"), r"judges\.tidy\.model: there 'm', now 'n'"
    with pytest.raises(UserError, match=said), rundir.claimed(other):
        pass


class Echo:
    def __init__(self):
        self.calls = []

    def answer(self, queries, progress=None):
        self.calls.append(len(queries))
        return [Reply(query.sample.question) for query in queries]


def test_all_questions_to_a_judge_are_one_call_past_the_chat_template():
    _, chat = make()
    one, other = Echo(), Echo()
    ask = Asker({"policy": ScriptedEngine(chat, lambda prompt, seed: "wrote")}, chat, judges={"one": one, "other": other})
    marked = Sample("x", "marks <image> <image> <video> without media", "")
    queries = [
        Generate("one", marked, LIMITS),
        Generate("policy", sample("a"), LIMITS),
        Generate("other", sample("b", question="b"), LIMITS),
    ]
    queries.append(Generate("one", sample("c", question="c" * 50_000), LIMITS))
    replies = ask(queries)
    assert [reply.text for reply in replies] == [marked.question, "wrote", "b", "c" * 50_000]
    assert ask.calls == {"policy": 1, "one": 1, "other": 1} and (one.calls, other.calls) == ([2], [1])


@pytest.mark.parametrize(
    "query",
    [
        Score("one", Sample("x", "q", ""), "yes"),
        Generate("one", Sample("x", "q", ""), LIMITS, prefill="<think>"),
        Generate("one", Sample("x", "q", "", prefill="<think>"), LIMITS),
    ],
)
def test_what_a_judge_cannot_be_asked_is_refused(query):
    _, chat = make()
    with pytest.raises(UserError, match="'one' is a judge, which answers whole prompts"):
        Asker({}, chat, judges={"one": Echo()})([query])
