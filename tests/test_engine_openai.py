"""The client of judges against real servers: order, bounds, retries, caches, pictures, and every way in which a server fails."""

import base64
import json
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from http_faults import completion, drip, echo, faulty, hang_up, later, raw, says, slow, status
from models_small import picture, video

from vlm_rl.cli_judges import Pictures, make_judges
from vlm_rl.config import ModelConfig, TrainConfig
from vlm_rl.engine.http_json import MOST_BYTES, Endpoint, _retry_after
from vlm_rl.engine.openai import OpenAIJudge
from vlm_rl.errors import RowError, UserError
from vlm_rl.loading import load
from vlm_rl.types import Generate, Media, Reply, Sample, Sampling

LIMITS = Sampling(16, 0.0)


def judge(server_or_url, cache_dir: Path | None = None, pictures=None, **settings) -> OpenAIJudge:
    url = server_or_url if isinstance(server_or_url, str) else server_or_url.url
    settings = {"max_concurrency": 4, "timeout_s": 5.0, "retries": 2, "backoff_s": 0.001} | settings
    return OpenAIJudge(Endpoint("tidy", url, "m", **settings), pictures or (lambda media, row: [media.read()]), cache_dir)


def query(text: str, media: tuple[Media, ...] = (), sampling: Sampling = LIMITS, seed: int = 0) -> Generate:
    return Generate("tidy", Sample("row", text, "", media=media), sampling, seed=seed)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_replies_keep_the_order_and_no_more_are_asked_at_once_than_allowed():
    with faulty(later(0.01, echo)) as server:
        replies = judge(server, max_concurrency=3).answer([query(f"say {i}") for i in range(24)])
    assert [reply.text for reply in replies] == [str(i) for i in range(24)]
    assert 1 < server.most_at_once <= 3 and len(server.asked) == 24
    assert server.asked[0] == {"model": "m", "messages": [{"role": "user", "content": server.asked[0]["messages"][0]["content"]}]} | {
        "max_tokens": 16,
        "temperature": 0.0,
    }


FAULTS = {
    "server error": (status(500, "boom"), "HTTP 500", {}),
    "overloaded": (status(429, "slow down", Retry_After="0"), "HTTP 429", {}),
    "hung up": (hang_up, "RemoteProtocolError", {}),
    "cut off": (raw(json.dumps(completion("yes")).encode()[:40], declared=500), "RemoteProtocolError", {}),
    "half a document": (raw(json.dumps(completion("yes")).encode()[:40]), "not JSON", {}),
    "rubbish": (raw(b"<html>\x00\xff gateway</html>"), "not JSON", {}),
    "nested without end": (raw(b"[" * 100_000), "not JSON", {}),
    "another schema": (raw(b'{"reply": "yes"}'), "choices[0].message.content", {}),
    "a list": (raw(b"[1, 2]"), "choices[0].message.content", {}),
    "no choice": (raw(b'{"choices": []}'), "choices[0].message.content", {}),
    "no text": (says(None), "is no text", {}),
    "slow": (slow(3.0), "no answer within 0.2 s", {"timeout_s": 0.2}),
    "dripping": (drip, "no whole answer within 0.2 s", {"timeout_s": 0.2}),
}


@pytest.mark.parametrize("fault, said, settings", FAULTS.values(), ids=FAULTS)
def test_a_fault_that_passes_costs_a_retry_and_one_that_stays_is_an_error(fault, said, settings):
    with faulty(fault, echo) as server:
        assert judge(server, **settings).answer([query("say yes")]) == [Reply("yes")]
        assert len(server.asked) == 2
    with faulty(fault) as server:
        one = judge(server, retries=1, **settings)
        (reply,) = one.answer([query("say yes")])
        assert len(server.asked) == 2
    assert reply.text == "" and reply.error is not None and said in reply.error and "tried 2 times" in reply.error
    assert one.failures == 1


@pytest.mark.parametrize("code", [400, 401, 403, 404, 413, 422, 307])
def test_what_the_server_refuses_is_not_asked_again(code):
    with faulty(status(code, "such a thing\n\x1b[31m is not served", Location="http://127.0.0.1:1/")) as server:
        (reply,) = judge(server).answer([query("say yes")])
        assert len(server.asked) == 1
    assert reply.error is not None and f"HTTP {code}" in reply.error and "such a thing" in reply.error and reply.error.isprintable()


def test_a_reply_without_end_is_not_read_to_its_end():
    with faulty(raw(b" " * (MOST_BYTES + 1000))) as server:
        (reply,) = judge(server).answer([query("say yes")])
    assert reply.error is not None and "longer than" in reply.error and len(server.asked) == 1


def test_a_server_is_given_the_time_it_asks_for():
    with faulty(status(429, Retry_After="0.4"), echo) as server:
        started = time.monotonic()
        assert judge(server).answer([query("say yes")])[0].text == "yes"
        assert time.monotonic() - started > 0.4


@pytest.mark.parametrize(
    "header, low, high",
    [("7", 7, 7), ("-3", 0, 0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0), ("Fri, 01 Jan 2999 00:00:00 GMT", 1e9, 1e11)],
)
def test_retry_after_is_a_number_or_a_date(header, low, high):
    wait = _retry_after(header)
    assert wait is not None and low <= wait <= high
    assert _retry_after("soon") is _retry_after("") is _retry_after(None) is None


def test_a_judge_that_is_down_leaves_all_unscored_and_is_soon_given_up():
    one = judge(f"http://127.0.0.1:{free_port()}/v1", retries=1, max_concurrency=2)
    replies = one.answer([query(f"say {i}") for i in range(40)])
    assert all(reply.error and not reply.text for reply in replies)
    assert "ConnectError" in (replies[0].error or "") and "given up after" in (replies[-1].error or "")
    assert one.connection.requests <= 12 and one.failures == 40


def test_a_recovered_judge_is_asked_again_in_the_next_round():
    with faulty(*[status(503)] * 4, echo) as server:
        one = judge(server, retries=1, max_concurrency=2)
        assert all(reply.error for reply in one.answer([query("say a"), query("say b")]))
        assert [reply.text for reply in one.answer([query("say a"), query("say b")])] == ["a", "b"]


def test_some_failures_do_not_disturb_the_others():
    def behave(handler, body):
        (status(500) if "odd" in body["messages"][0]["content"] else echo)(handler, body)

    with faulty(behave) as server:
        replies = judge(server, retries=0, max_concurrency=1).answer([query(f"{'odd' if i % 2 else 'even'} {i}") for i in range(10)])
    assert [reply.text for reply in replies] == ["0", "", "2", "", "4", "", "6", "", "8", ""]


def test_equal_questions_and_known_replies_need_no_request(tmp_path):
    with faulty(echo) as server:
        one = judge(server, tmp_path / "kept")
        first = one.answer([query("say a"), query("say b"), query("say a")])
        assert [reply.text for reply in first] == ["a", "b", "a"] and len(server.asked) == 2
        assert one.answer([query("say b"), query("say a")])[0].text == "b" and one.hits == 2
        other = judge(server, tmp_path / "kept")
        assert [reply.text for reply in other.answer([query("say a"), query("say b")])] == ["a", "b"]
        assert len(server.asked) == 2 and other.connection.requests == 0


def test_what_changes_a_reply_is_part_of_its_key():
    small, large = picture(1), picture(2)
    warm = Sampling(16, 0.7)
    asked = [
        query("say a"),
        query("say a "),
        query("say a", (small,)),
        query("say a", (large,)),
        query("say a", sampling=Sampling(17, 0.0)),
        query("say a", sampling=Sampling(16, 0.0, ("x",))),
        query("say a", sampling=Sampling(16, 0.0, alternatives=3)),
        query("say a", sampling=warm, seed=1),
        query("say a", sampling=warm, seed=2),
    ]
    with faulty(echo) as server, faulty(echo) as elsewhere:
        one = judge(server)
        one.answer(asked)
        assert len(server.asked) == len(asked)
        one.answer([query("say a", seed=5)])  # greedy: no seed
        assert len(server.asked) == len(asked)
        assert judge(elsewhere)._key(asked[0]) != one._key(asked[0])
        assert {body.get("seed") for body in server.asked} == {None, 1, 2}


def test_a_broken_or_unwritable_cache_never_ends_a_run(tmp_path, caplog):
    with faulty(echo) as server:
        judge(server, tmp_path).answer([query("say a")])
        (file,) = tmp_path.rglob("*.json")
        for broken in (b"", b"{", b"\xff", b'{"text": 3, "finish": "stop", "alternatives": {}}', b'{"text": "a", "finish": "x"}', b"[]"):
            file.write_bytes(broken)
            assert judge(server, tmp_path).answer([query("say a")]) == [Reply("a")]
        assert len(server.asked) == 7 and json.loads(file.read_text())["text"] == "a"
        (tmp_path / "file").write_text("")
        assert judge(server, tmp_path / "file").answer([query("say b")]) == [Reply("b")]
    assert "not kept on disk" in caplog.text


def test_failures_are_not_kept(tmp_path):
    with faulty(status(400), echo) as server:
        one = judge(server, tmp_path)
        assert one.answer([query("say a")])[0].error
        assert not list(tmp_path.rglob("*.json")) and one.answer([query("say a")]) == [Reply("a")]


def test_pictures_come_first_as_data_urls_and_are_decoded_once():
    small, decoded = picture(1), []

    def pictures(media, row):
        decoded.append(row)
        return [media.read()]

    with faulty(echo) as server:
        judge(server, pictures=pictures).answer([query(f"say {i}", (small,)) for i in range(6)])
    head, text = server.asked[0]["messages"][0]["content"]
    assert base64.b64decode(head["image_url"]["url"].removeprefix("data:image/png;base64,")) == small.data
    assert text["type"] == "text" and text["text"].startswith("say") and decoded == ["row"]


def test_an_unreadable_picture_leaves_only_its_own_question_unanswered(tmp_path):
    pictures = Pictures(100 * 100, ModelConfig(path="m"))
    bad, gone = Media("image", data=b"no picture"), Media("image", path=tmp_path / "gone.png")
    with faulty(echo) as server:
        replies = judge(server, pictures=pictures).answer([query("say a", (bad,)), query("say b", (gone,)), query("say c", (picture(1),))])
    assert "not an image" in (replies[0].error or "") and "gone.png" in (replies[1].error or "") and replies[2] == Reply("c")


def test_large_pictures_are_shrunk_and_videos_sent_as_frames():
    from PIL import Image

    pictures = Pictures(50 * 50, ModelConfig(path="m", video_backend="pyav"))
    (shrunk,) = pictures(picture(1, (200, 100)), "row")
    (same,) = pictures(picture(1, (40, 40)), "row")
    import io

    wide = Image.open(io.BytesIO(shrunk))
    assert wide.size == (70, 35) and Image.open(io.BytesIO(same)).size == (40, 40)
    frames = pictures(video(1, frames=60), "row")
    assert 2 <= len(frames) <= 8 and all(frame.startswith(b"\x89PNG") for frame in frames)
    with pytest.raises(RowError, match="row row"):
        pictures(Media("image", data=b"x"), "row")


TOP = [
    {"token": "yes", "logprob": math.log(0.5)},
    {"token": "yes", "logprob": math.log(0.25)},
    {"token": " No", "logprob": math.log(0.125)},
]


@pytest.mark.parametrize(
    "logprobs, wanted",
    [
        ({"content": [{"token": "yes", "logprob": -0.1, "top_logprobs": TOP}]}, {"yes": math.log(0.75), " No": math.log(0.125)}),
        (None, {}),
        ({"content": []}, {}),
        ({"content": [{"top_logprobs": "rubbish"}]}, {}),
        ({"content": [{"top_logprobs": [{"token": "yes", "logprob": "high"}]}]}, {}),
        ({"content": [{"top_logprobs": [{"token": "a", "logprob": float("nan")}, {"token": "b", "logprob": 3.0}]}]}, {}),
        ({"content": [{"top_logprobs": [{"token": "yes", "logprob": -9999.0}]}]}, {}),
    ],
)
def test_alternatives_of_the_first_token(logprobs, wanted):
    with faulty(says("yes", logprobs=logprobs)) as server:
        (reply,) = judge(server).answer([query("so?", sampling=Sampling(4, 0.0, alternatives=50))])
    assert (server.asked[0]["logprobs"], server.asked[0]["top_logprobs"]) == (True, 20)
    assert reply.text == "yes" and reply.alternatives == pytest.approx(wanted)


def test_a_parameter_that_a_server_does_not_take_is_left_out_from_then_on():
    def behave(handler, body):
        wrong = next((name for name in ("top_logprobs", "logprobs", "max_tokens") if name in body), None)
        (status(400, f"Unsupported parameter: '{wrong}' is not supported with this model.") if wrong else echo)(handler, body)

    with faulty(behave) as server:
        one = judge(server, max_concurrency=1)
        replies = one.answer([query(f"say {i}", sampling=Sampling(4, 0.0, alternatives=2)) for i in range(3)])
    assert [reply.text for reply in replies] == ["0", "1", "2"] and len(server.asked) == 3 + 3
    assert server.asked[-1]["max_completion_tokens"] == 4 and "logprobs" not in server.asked[-1]
    with faulty(behave) as server:  # several find out at the same time
        replies = judge(server).answer([query(f"say {i}", sampling=Sampling(4, 0.0, alternatives=2)) for i in range(8)])
    assert [reply.text for reply in replies] == [str(i) for i in range(8)]


def test_hostile_replies_are_plain_text():
    with faulty(raw(b'{"choices": [{"message": {"content": "a\\ud800b"}, "finish_reason": "length"}]}')) as server:
        (reply,) = judge(server).answer([query("half a pair \ud800 in the question")])
    assert reply.text == "a?b" and reply.finish == "length" and reply.text.encode()
    assert server.asked[0]["messages"][0]["content"] == "half a pair ? in the question"


def test_the_key_is_sent_and_never_told(caplog):
    secret = "sk-very-secret-4711"
    with caplog.at_level(logging.DEBUG), faulty(status(401, f"bad key {secret}"), models=status(401, f"bad key {secret}")) as server:
        one = judge(server, api_key=secret)
        (reply,) = one.answer([query("say a")])
        with pytest.raises(UserError, match=r"judges\.tidy\.api_key_env") as refused:
            one.probe()
    assert server.headers[0]["Authorization"] == f"Bearer {secret}"
    assert "***" in (reply.error or "") and secret not in f"{reply}{refused.value}{one.endpoint}{caplog.text}"


def models(*names):
    return lambda handler, body: handler.send_json(200, {"object": "list", "data": [{"id": name} for name in names]})


@pytest.mark.parametrize("answer", [models("other", "m"), models(), status(404), status(405), raw(b'{"data": 3}'), raw(b'"fine"')])
def test_a_probe_is_content_with_an_endpoint_that_answers(answer):
    with faulty(models=answer) as server:
        judge(server).probe()


@pytest.mark.parametrize(
    "answer, said",
    [
        (models("qwen", "llama"), r"judges\.tidy\.model: .* has no model 'm', but it has: qwen, llama"),
        (status(403), r"judges\.tidy\.api_key_env"),
        (status(500), r"judge 'tidy' at http.* does not answer: HTTP 500.*start it, or mend judges\.tidy\.url"),
        (raw(b"<html>"), "not JSON"),
    ],
)
def test_a_probe_says_what_to_mend(answer, said):
    with faulty(models=answer) as server, pytest.raises(UserError, match=said):
        judge(server).probe()
    with pytest.raises(UserError, match="ConnectError"):
        judge(f"http://127.0.0.1:{free_port()}/v1").probe()


BASE = "run_dir: r\nmodel: {path: m}\ndata: {name: easy_vqa}\nrewards: {accuracy: {}}\ntrain: {steps: 3}\n"


def config(tmp_path: Path, *overrides: str) -> TrainConfig:
    path = tmp_path / "c.yaml"
    path.write_text(BASE + "judges: {tidy: {url: 'http://127.0.0.1:8000/v1/', model: m}}\n")
    return load(TrainConfig, path, overrides)


def test_judges_of_a_config(tmp_path):
    settings = ["timeout_s=5", "retries=1", "max_concurrency=3", f"cache_dir={tmp_path}", "image_max_pixels=784", "api_key_env=TIDY_KEY"]
    checked = config(tmp_path, *[f"judges.tidy.{setting}" for setting in settings])
    one = make_judges(checked, {"TIDY_KEY": " sk-1 "})["tidy"]
    assert one.endpoint == Endpoint("tidy", "http://127.0.0.1:8000/v1", "m", "sk-1", 3, 5.0, 1)
    assert one.pictures.most_pixels == 784 and one.cache.directory == tmp_path
    for environment in ({}, {"TIDY_KEY": "  "}, {"TIDY_KEY": "schlüssel"}):
        with pytest.raises(UserError, match=r"judges\.tidy\.api_key_env: the environment variable TIDY_KEY"):
            make_judges(checked, environment)


@pytest.mark.parametrize(
    "override, said",
    [
        ("judges.tidy.url=localhost:8000/v1", "write an address such as"),
        ("judges.tidy.url=http://", "write an address such as"),
        ("judges.tidy.url=http://h:99999/v1", "write an address such as"),
        ("judges.tidy.url='http://h/v1 x'", "write an address such as"),
        ("judges.tidy.url=http://me:pw@h/v1", "api_key_env"),
        ("judges.tidy.url=http://h/v1?key=3", "api_key_env"),
        ("judges.tidy.api_key=sk-1", "unknown key 'judges.tidy.api_key'; did you mean 'api_key_env'"),
        ("judges.tidy.retries=-1", "judges.tidy.retries"),
        ("judges.other.url=http://h/v1", "judges.other.model"),
        ("judges.policy={url: 'http://h', model: m}", "no judge can be called 'policy'"),
    ],
)
def test_wrong_judges_are_named(tmp_path, override, said):
    with pytest.raises(UserError) as error:
        config(tmp_path, override)
    assert said in str(error.value)


@pytest.mark.parametrize("url", ["http://h/v1", "http://h/v1/", "http://h/v1/chat/completions"])
def test_an_address_may_be_written_in_three_ways(tmp_path, url):
    assert config(tmp_path, f"judges.tidy.url={url}").judges["tidy"].url == "http://h/v1"


INTERRUPTED = """
import sys
from vlm_rl.engine.http_json import Endpoint
from vlm_rl.engine.openai import OpenAIJudge
from vlm_rl.types import Generate, Sample, Sampling
judge = OpenAIJudge(Endpoint("tidy", sys.argv[1], "m"), lambda media, row: [])
print("asking", flush=True)
judge.answer([Generate("tidy", Sample(str(i), f"say {i}", ""), Sampling(4)) for i in range(40)])
"""


def test_an_interrupted_program_does_not_wait_for_a_slow_server():
    with faulty(slow(30)) as server:
        command = [sys.executable, "-c", INTERRUPTED, server.url]
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=Path(__file__).parent.parent)
        signal.signal(signal.SIGINT, before)
        assert process.stdout is not None and process.stdout.readline() == b"asking\n"
        deadline = time.monotonic() + 20
        while not server.asked and time.monotonic() < deadline:
            time.sleep(0.01)
        started = time.monotonic()
        os.kill(process.pid, signal.SIGINT)
        _, error = process.communicate(timeout=20)
        assert b"KeyboardInterrupt" in error and time.monotonic() - started < 5


def test_a_fault_of_the_program_is_raised_where_it_was_asked():
    def pictures(media, row):
        raise ZeroDivisionError

    with faulty(echo) as server, pytest.raises(ZeroDivisionError):
        judge(server, pictures=pictures).answer([query("say a", (picture(1),)), query("say b")])
