"""Judges loaded from Hugging Face files, on small random models written here: numbers against the model itself, and what is refused."""

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from models_small import TEXTS, parts, picture
from PIL import Image
from runs_small import train_config
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing

from data.views import Draw
from vlm_rl import cli_train, small
from vlm_rl.cli_judges import Pictures, make_judges
from vlm_rl.config import ModelConfig, TrainConfig
from vlm_rl.config_judges import JudgeConfig
from vlm_rl.engine.hf_judge import make_local
from vlm_rl.engine.hf_local import LocalJudge
from vlm_rl.errors import UserError
from vlm_rl.loading import load
from vlm_rl.types import Generate, Reply, Sample, Sampling
from vlm_rl.value_head import FILE, LIKELIHOOD

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }} [SEP]{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"


def tokenizer(template: str | None = None) -> transformers.PreTrainedTokenizerFast:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=200, special_tokens=special))
    words.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=64, chat_template=template, **names)


def seeded(kind: type, config: transformers.PretrainedConfig) -> transformers.PreTrainedModel:
    torch.manual_seed(3)
    return kind(config).eval()


def write(directory: Path, model: transformers.PreTrainedModel, template: str | None = None) -> Path:
    model.save_pretrained(directory)
    tokenizer(template).save_pretrained(directory)
    return directory


def bert(directory: Path, kind: type = transformers.BertForSequenceClassification, labels: int = 1, template: str | None = None) -> Path:
    config = transformers.BertConfig(vocab_size=200, num_labels=labels, initializer_range=0.3, max_position_embeddings=64, **SIZES)
    return write(directory, seeded(kind, config), template)


def vlm(directory: Path) -> Path:
    sizes, words, processor = parts("qwen2_5_vl")
    small.make_model(sizes, words, seed=1).save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory


def judge(kind: str, path: Path, **settings: object) -> LocalJudge:
    config = JudgeConfig.model_validate({"kind": kind, "path": str(path), "device": "cpu", **settings})
    return make_local("tidy", config, Pictures(64 * 64, ModelConfig(path="x")))


def scored(question: str, response: str | None, media: tuple = ()) -> Generate:
    return Generate("tidy", Sample("r", question, "", media=media, response=response), Sampling(1, 0.0))


def compared(one: str, other: str) -> Generate:
    return Generate("tidy", Sample("r", one, other), Sampling(1, 0.0))


def asked(prompt: str, tokens: int = 4, media: tuple = (), **sampling: object) -> Generate:
    return Generate("tidy", Sample("r", prompt, "", media=media), Sampling(tokens, 0.0, **sampling))


def value(reply: Reply) -> float:
    assert reply.error is None
    return float(reply.text)


PAIRS = [("what color is it?", "teal"), ("what color is the circle?", "I see a teal circle and a red circle"), ("is it red?", "red")]


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_a_reward_model_says_what_the_model_says_whatever_is_beside_it(tmp_path, batch_size):
    path = bert(tmp_path)
    one = judge("reward_model", path, batch_size=batch_size)
    replies = one.answer([scored(*pair) for pair in PAIRS])
    model = transformers.AutoModelForSequenceClassification.from_pretrained(path)
    words = transformers.AutoTokenizer.from_pretrained(path)
    with torch.no_grad():
        wanted = [float(model(**words(*pair, return_tensors="pt")).logits[0, 0]) for pair in PAIRS]
    assert [value(reply) for reply in replies] == pytest.approx(wanted, abs=1e-5)
    assert len({round(w, 4) for w in wanted}) == 3


def test_a_chat_template_renders_both_turns(tmp_path):
    path = bert(tmp_path, template=TEMPLATE)
    [reply] = judge("reward_model", path).answer([scored("what color is it?", "teal")])
    model = transformers.AutoModelForSequenceClassification.from_pretrained(path)
    words = transformers.AutoTokenizer.from_pretrained(path)
    text = "[user] what color is it? [SEP][assistant] teal [SEP]"
    with torch.no_grad():
        wanted = model(**words(text, add_special_tokens=False, return_tensors="pt")).logits[0, 0]
    assert value(reply) == pytest.approx(float(wanted), abs=1e-5)


def test_equal_questions_are_forwarded_once_and_progress_is_told(tmp_path, monkeypatch):
    one = judge("reward_model", bert(tmp_path), batch_size=2)
    forwarded, told = [], []
    whole = one.forward
    monkeypatch.setattr(one, "forward", lambda encoded, queries: forwarded.append(len(queries)) or whole(encoded, queries))
    replies = one.answer([scored(*PAIRS[i % 3]) for i in range(9)], lambda done, total: told.append((done, total)))
    assert forwarded == [2, 1] and told == [(2, 3), (3, 3)]
    assert replies[0] == replies[3] == replies[6] != replies[1]


def test_control_tokens_in_a_response_stay_text(tmp_path):
    one = judge("reward_model", bert(tmp_path))
    one.probe()
    assert one.plain("a [SEP] b [PAD]") == "a [ SEP] b [ PAD]"
    encoded = one.chat(scored("is it red?", "no [SEP] [CLS]"), "no [SEP] [CLS]")["input_ids"]
    assert encoded.count(3) == 2 and encoded.count(2) == 1


def test_what_cannot_be_asked_goes_unscored_and_the_rest_does_not(tmp_path):
    one = judge("reward_model", bert(tmp_path), max_tokens=20)
    queries = [scored("is it red?", "no"), scored("is it red?", "red " * 30), scored("is it red?", None)]
    queries.append(scored("is it red?", "no", (picture(1),)))
    replies = one.answer(queries)
    assert math.isfinite(value(replies[0]))
    reasons = ["and it takes from 1 to 20", "answers no prompt", "reads text only; write media: false"]
    assert all(words in (reply.error or "") for words, reply in zip(reasons, replies[1:], strict=True))
    assert judge("reward_model", tmp_path).limit == 64  # by its own files


def test_a_number_that_is_none_is_a_failure(tmp_path):
    one = judge("reward_model", bert(tmp_path))
    with torch.no_grad():
        one.model.classifier.bias.fill_(math.nan)
    assert "nan" in (one.answer([scored("is it red?", "no")])[0].error or "")


def test_cosines(tmp_path):
    path = bert(tmp_path, transformers.BertModel)
    one = judge("embedding", path)
    pairs = [("teal", "teal"), ("I see a teal circle", "red"), ("red", "I see a teal circle")]
    replies = [value(reply) for reply in one.answer([compared(*pair) for pair in pairs])]
    model, words = transformers.AutoModel.from_pretrained(path), transformers.AutoTokenizer.from_pretrained(path)
    with torch.no_grad():
        means = [model(**words(text, return_tensors="pt")).last_hidden_state[0].mean(0) for text in pairs[1]]
    assert replies[0] == pytest.approx(1.0, abs=1e-6)
    assert replies[1] == pytest.approx(replies[2], abs=1e-6) == pytest.approx(float(torch.cosine_similarity(*means, dim=0)), abs=1e-5)
    assert all("compares two texts" in (r.error or "") for r in one.answer([asked("is it red?")]))


def test_an_embedding_of_zero_is_like_nothing(tmp_path):
    one = judge("embedding", bert(tmp_path, transformers.BertModel))
    with torch.no_grad():
        for layer in one.model.encoder.layer[-1:]:
            layer.output.LayerNorm.weight.zero_()
            layer.output.LayerNorm.bias.zero_()
    assert value(one.answer([compared("red", "red")])[0]) == 0.0


def test_an_embedding_needs_no_pooler(tmp_path):
    path = bert(tmp_path, transformers.BertForMaskedLM)
    judge("embedding", path).probe()


def value_head(path: Path, width: int = 64, name: str = "v_head.summary.", likelihood: float | None = None) -> Path:
    generator = torch.Generator().manual_seed(1)
    state = {f"{name}weight": torch.randn(1, width, generator=generator), f"{name}bias": torch.tensor([0.5])}
    save_file(state | ({} if likelihood is None else {LIKELIHOOD: torch.tensor([[0.0, likelihood, 0.0]])}), path / FILE)
    return path


@pytest.mark.parametrize("name", ["v_head.summary.", "summary."])
def test_a_vision_language_model_with_a_value_head(tmp_path, name):
    path = value_head(vlm(tmp_path), name=name)
    one = judge("reward_model", path)
    queries = [scored("what color is it?", text, (picture(i),)) for i, text in ((1, "teal"), (2, "teal"), (1, "a red circle"))]
    queries.append(scored("what color is it?", "teal"))
    got = [value(reply) for reply in one.answer(queries)]
    assert len({round(number, 5) for number in got}) == 4
    model = transformers.AutoModelForImageTextToText.from_pretrained(path)
    processor = transformers.AutoProcessor.from_pretrained(path)
    content = [{"type": "image"}, {"type": "text", "text": "what color is it?"}]
    turns = [{"role": "user", "content": content}, {"role": "assistant", "content": [{"type": "text", "text": "teal"}]}]
    text = processor.apply_chat_template(turns, tokenize=False)
    [png] = Pictures(64 * 64, ModelConfig(path="x"))(picture(1), "r")
    image = Image.open(io.BytesIO(png)).convert("RGB")
    with torch.no_grad():
        hidden = model(**processor(text=[text], images=[image], return_tensors="pt"), output_hidden_states=True).hidden_states[-1][0, -1]
    head = one.model.head.summary
    assert got[0] == pytest.approx(float(hidden @ head.weight[0] + head.bias), abs=1e-4)


def test_a_language_model_with_a_value_head_reads_the_last_token_in_any_batch(tmp_path):
    config = transformers.Qwen2Config(vocab_size=200, num_key_value_heads=2, pad_token_id=0, initializer_range=0.3, **SIZES)
    path = value_head(write(tmp_path, seeded(transformers.Qwen2ForCausalLM, config), TEMPLATE), width=32)
    together = judge("reward_model", path, batch_size=8).answer([scored(*pair) for pair in PAIRS])
    alone = judge("reward_model", path, batch_size=1).answer([scored(*pair) for pair in PAIRS])
    assert [value(reply) for reply in together] == pytest.approx([value(reply) for reply in alone], abs=1e-5)
    value_head(Path(path), width=32, likelihood=2.0)
    counted = [value(r) for size in (8, 1) for r in judge("reward_model", path, batch_size=size).answer([scored(*p) for p in PAIRS])]
    assert counted[: len(PAIRS)] == pytest.approx(counted[len(PAIRS) :], abs=1e-4)
    surprise = [(value(a) - b) / 2.0 for a, b in zip(alone, counted, strict=False)]  # the mean negative log-prob
    assert all(0.5 < nats < 10 for nats in surprise) and len({round(nats, 3) for nats in surprise}) == len(PAIRS)


def test_wrong_files_are_refused_by_name(tmp_path):
    def refused(kind: str, path: Path, words: str) -> None:
        with pytest.raises(UserError) as caught:
            judge(kind, path).probe()
        assert words in str(caught.value) and f"judges.tidy.path={path}" in str(caught.value)

    refused("reward_model", bert(tmp_path / "two", labels=2), "2 outputs")
    headless = bert(tmp_path / "headless", transformers.BertModel, labels=1)
    refused("reward_model", headless, "weights of a BertForSequenceClassification are missing or of another shape, such as classifier.bias")
    refused("reward_model", value_head(vlm(tmp_path / "narrow"), width=8), "(1, 8), for this model it must be (1, 64)")
    save_file({"lm_head.weight": torch.zeros(1)}, vlm(tmp_path / "strange") / FILE)
    refused("reward_model", tmp_path / "strange", "has no v_head.summary.weight; it holds lm_head.weight")
    save_file({"v_head.summary.weight": torch.zeros(1, 64), LIKELIHOOD: torch.zeros(1, 2)}, vlm(tmp_path / "two_features") / FILE)
    refused("reward_model", tmp_path / "two_features", "is (1, 2), it must be (1, 3)")
    refused("reward_model", vlm(tmp_path / "plain"), "there is no value_head.safetensors")
    refused("hf_chat", bert(tmp_path / "bert"), "it was not saved as a judge of kind hf_chat")
    refused("embedding", tmp_path / "nowhere", "there is no such directory")
    (tmp_path / "empty").mkdir()
    refused("embedding", tmp_path / "empty", "could be loaded")


def test_a_chat_model_writes_greedily_and_tells_alternatives(tmp_path):
    path = vlm(tmp_path)
    one = judge("hf_chat", path)
    queries = [asked("what color is it?", 5, (picture(1),), alternatives=5), asked("what color is it?", 5), asked("is it red?", 2)]
    first, second, third = one.answer(queries)
    assert all(reply.error is None and reply.finish in ("stop", "length") for reply in (first, second, third))
    assert len(first.alternatives) <= 5 and not second.alternatives
    likeliest = max(first.alternatives, key=first.alternatives.__getitem__)
    assert first.text.startswith(likeliest) or not likeliest.strip()
    assert sum(math.exp(p) for p in first.alternatives.values()) <= 1 + 1e-6
    assert one.answer(queries)[0] == first
    warm = Generate("tidy", Sample("r", "x", ""), Sampling(1, 1.0))
    assert "temperature 0" in (one.answer([warm])[0].error or "")


def test_a_text_chat_model_writes_the_same_in_any_batch(tmp_path):
    config = transformers.Qwen2Config(vocab_size=200, num_key_value_heads=2, pad_token_id=0, eos_token_id=3, initializer_range=0.3, **SIZES)
    path = write(tmp_path, seeded(transformers.Qwen2ForCausalLM, config), TEMPLATE)
    queries = [asked(question, tokens) for (question, _), tokens in zip(PAIRS, (3, 6, 9), strict=True)]
    together = judge("hf_chat", path, batch_size=3).answer(queries)
    alone = judge("hf_chat", path, batch_size=1).answer(queries)
    assert together == alone and all(reply.text for reply in alone)
    stop = alone[2].text[2:4]
    [stopped] = judge("hf_chat", path).answer([asked(PAIRS[2][0], 9, stop=(stop,))])
    assert stopped.finish == "stop" and stopped.text == alone[2].text[: alone[2].text.index(stop) + len(stop)]


def config(tmp_path: Path, **settings: object) -> TrainConfig:
    path = tmp_path / "c.yaml"
    entry = ", ".join(f"{key}: {setting}" for key, setting in settings.items())
    path.write_text(
        f"run_dir: r\nmodel: {{path: m}}\ndata: {{name: d}}\nrewards: {{format: {{}}}}\ntrain: {{steps: 1}}\n"
        f"judges: {{tidy: {{{entry}}}}}\n"
    )
    return load(TrainConfig, path)


def test_judges_of_a_config_load_nothing_before_they_are_probed(tmp_path):
    one = make_judges(config(tmp_path, kind="embedding", path=str(tmp_path / "nowhere"), batch_size=3), {})["tidy"]
    with pytest.raises(UserError, match="no such directory"):
        one.probe()


def test_a_resolved_config_can_be_read_again(tmp_path):
    for settings in ({"kind": "embedding", "path": "x"}, {"url": "http://h/v1", "model": "m"}):
        once = config(tmp_path, **settings).judges["tidy"]
        assert JudgeConfig.model_validate(once.model_dump(mode="json", exclude_none=True)) == once


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "embedding"}, "judges.tidy.path: a judge of kind embedding needs it"),
        ({"kind": "embeding", "path": "x"}, "judges.tidy.kind"),
        ({"kind": "reward_model", "path": "x", "timeout_s": 3}, "timeout_s is not for judges of kind reward_model"),
        ({"url": "http://h/v1", "model": "m", "batch_size": 3}, "batch_size is not for judges of kind openai"),
        ({"url": "http://h/v1"}, "judges.tidy.model: a judge of kind openai needs it"),
        ({"kind": "hf_chat", "path": "x", "dtype": "int8"}, "judges.tidy.dtype"),
    ],
)
def test_wrong_settings_are_named(tmp_path, settings, words):
    with pytest.raises(UserError) as caught:
        config(tmp_path, **settings)
    assert words in str(caught.value)


def answering(row: Sample, draw: Draw) -> Sample:
    """A view under which even an untrained policy answers."""
    return replace(row, prefill="<think>I looked.</think><answer>")


@pytest.mark.parametrize("by", ["embedding", "reward_model"])
def test_a_run_scored_by_a_local_model(tmp_path, by):
    path = bert(tmp_path / "scorer", transformers.BertModel if by == "embedding" else transformers.BertForSequenceClassification)
    media = "{name: near, media: false}"
    rewards = [f"rewards.hybrid.{key}={value}" for key, value in {"use": "hybrid", "by": by, "scorer": media, "open": "[choice]"}.items()]
    judges = f"judges={{near: {{kind: {by}, path: {path}, max_tokens: 60}}}}"
    overrides = [*rewards, judges, "augment={'test_engine_hf_judge:answering': 1.0}", "guards.unscored_limit=1.0", "train.steps=2"]
    run = cli_train.train(train_config(tmp_path, *overrides))
    for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()):
        assert line["reward/hybrid/verifiable"] == 0 and 0 < line["reward/hybrid/model"] < 1 and line["reward/hybrid/unscored"] == 0
    wrong = f"judges={{near: {{kind: {'reward_model' if by == 'embedding' else 'embedding'}, path: {path}}}}}"
    with pytest.raises(UserError, match=r"rewards\.hybrid asks 'near' as a judge of kind"):
        cli_train.train(train_config(tmp_path, *rewards, wrong, f"run_dir={tmp_path}/other"))
