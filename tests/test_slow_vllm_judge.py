"""The judge client against vLLM's own OpenAI server with the shipped small policy: pictures, log-probs, errors, many at once."""

import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from data.scenes import make
from rewards.judging import render, yes_probability
from vlm_rl.cli_judges import Pictures
from vlm_rl.config import ModelConfig
from vlm_rl.engine.http_json import Endpoint
from vlm_rl.engine.openai import OpenAIJudge
from vlm_rl.errors import UserError
from vlm_rl.types import Generate, Sample, Sampling

ROOT = Path(__file__).parent.parent
pytest.importorskip("vllm")
pytestmark = pytest.mark.slow
STARTS_WITHIN_S = 240


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    limits = ["--max-model-len", "1024", "--max-num-seqs", "8", "--limit-mm-per-prompt", '{"image": 1}']
    serve = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(ROOT / "data/policies/scenes")]
    serve += ["--served-model-name", "small", "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager"]
    setting = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    log = tmp_path_factory.mktemp("vllm") / "log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            [*serve, *limits], env=os.environ | setting, stdout=out, stderr=subprocess.STDOUT, cwd=log.parent, start_new_session=True
        )
    try:
        _wait(server, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _wait(server: subprocess.Popen, health: str, log: Path) -> None:
    end = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < end and server.poll() is None:
        try:
            if httpx2.get(health, timeout=2, trust_env=False).status_code == 200:
                return
        except httpx2.HTTPError:
            pass
        time.sleep(1)
    pytest.fail(f"vLLM's server did not start:\n{log.read_text(errors='replace')[-3000:]}")


def judge(url: str, model: str = "small", **settings) -> OpenAIJudge:
    endpoint = Endpoint("real", url, model, **{"max_concurrency": 4, "timeout_s": 120.0, "retries": 1, **settings})
    return OpenAIJudge(endpoint, Pictures(112 * 112, ModelConfig(path="x")))


def about(index: int, seen: bool = True, tokens: int = 48, text: str | None = None, **sampling) -> Generate:
    row = make("pictures", "test", 0, index)
    shown = Sample(row.id, text or row.question, "", media=row.media if seen else ())
    return Generate("real", shown, Sampling(tokens, 0.0, **sampling))


def test_a_model_is_found_by_its_name(url: str) -> None:
    judge(url).probe()
    with pytest.raises(UserError, match=r"judges\.real\.model: .* has no model 'other', but it has: small"):
        judge(url, "other").probe()


def test_pictures_arrive_and_many_questions_at_once_are_answered_in_order(url: str) -> None:
    queries = [about(i) for i in range(6)]
    one = judge(url)
    together = one.answer(queries)
    assert [reply.error for reply in together] == [None] * 6 and one.connection.requests == 6
    assert all(reply.text.startswith("<think>I see") for reply in together)
    assert [judge(url).answer([query])[0].text for query in queries] == [reply.text for reply in together]
    blind = judge(url).answer([about(i, seen=False) for i in range(6)])
    assert [reply.text for reply in blind] != [reply.text for reply in together]
    one.answer(queries)
    assert one.hits == 6 and one.connection.requests == 6


def test_log_probs_of_the_first_token(url: str) -> None:
    [reply] = judge(url).answer([about(0, tokens=1, alternatives=20)])
    assert len(reply.alternatives) > 5 and all(value <= 0 for value in reply.alternatives.values())
    assert max(reply.alternatives, key=lambda token: reply.alternatives[token]) == reply.text and reply.finish == "length"
    assert 0.5 < sum(math.exp(value) for value in reply.alternatives.values()) <= 1 + 1e-4
    [unsure] = judge(url).answer([about(0, tokens=4, alternatives=20, text=render("yes_no", trace="It is red.", answer="red"))])
    assert yes_probability(unsure) is None  # this model has never been asked for yes or no: unscored, not 0


def test_what_it_cannot_take_is_an_error_and_no_reply(url: str) -> None:
    one = judge(url)
    long, fine = one.answer([about(0, text="red " * 3000), about(0)])
    assert long.error and "HTTP 400" in long.error and fine.error is None
    assert one.failures == 1


def test_a_seeded_draw_is_the_same_again(url: str) -> None:
    def drawn(seed: int) -> str:
        query = about(1)
        return judge(url).answer([Generate("real", query.sample, Sampling(48, 1.0), seed=seed)])[0].text

    assert drawn(3) == drawn(3) and len({drawn(seed) for seed in range(6)}) > 1
