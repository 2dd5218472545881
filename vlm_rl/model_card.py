"""The README.md of a trained model, in the Hugging Face format: a YAML header, then what it was trained on, for what, and how it measured.

Every figure is one of summary.json of its run; nothing is measured here.
"""

import hashlib
import importlib.metadata
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vlm_rl import adapters, rundir

FILE = "README.md"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_HEADLINES = {"eval/accuracy_after": "accuracy (greedy)", "eval/accuracy": "accuracy (greedy)", "eval/sampled_after": "accuracy (sampled)"}


@dataclass(frozen=True)
class Origin:
    """The run that a model came from. `facts` are its summary's, {} for a checkpoint that is not its last and was not measured."""

    config: Mapping[str, Any]
    text: str
    step: int
    facts: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """sha256sum of the run's config.yaml."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def write(directory: Path, run_dir: Path, step: int, facts: Mapping[str, Any] | None = None) -> bool:
    """Beside the files in `directory` of a model of that step, which say whether it is an adapter. False where there is no such run.

    `facts` are the run's, where its summary is not written yet.
    """
    path = run_dir / "config.yaml"
    if not path.is_file():
        return False
    text = path.read_text(encoding="utf-8")
    config = yaml.safe_load(text)
    known = rundir.read_summary(run_dir) if facts is None else facts
    last = known.get("run/steps", config["train"]["steps"])
    origin = Origin(config, text, step, known if step == last else {})
    rundir.write_text(directory / FILE, card(origin, adapters.is_adapter(directory)))
    return True


def card(origin: Origin, adapter: bool) -> str:
    base = origin.config["model"].get("path")
    name = Path(str(origin.config["run_dir"])).name
    sections = [
        f"# {name}, step {origin.step}",
        _what(origin, adapter),
        f"## Data\n\n{_data(origin.config)}",
        *([f"## Rewards\n\n{_rewards(origin.config['rewards'])}"] if "rewards" in origin.config else []),
        f"## Evaluation\n\n{_evaluation(origin)}",
        f"## Use\n\n```python\n{_use(adapter, base)}\n```",
        f"## Versions\n\n{_versions(origin.facts, adapter)}",
        f"## Config\n\n`config.yaml`, SHA-256 `{origin.digest}`:\n\n```yaml\n{origin.text.strip()}\n```",
    ]
    return f"---\n{_header(origin, adapter, name)}---\n\n" + "\n\n".join(sections) + "\n"


def _header(origin: Origin, adapter: bool, name: str) -> str:
    base = origin.config["model"].get("path")
    method = "grpo" if "rewards" in origin.config else "sft"
    tree: dict[str, Any] = {
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "image-text-to-text",
        "tags": ["vlm-rl", method, *(["lora"] if origin.config["model"].get("lora") else [])],
    }
    if base and _HUB_ID.fullmatch(base) and not Path(base).exists():  # the hub takes ids only
        tree |= {"base_model": base, "base_model_relation": "adapter" if adapter else "finetune"}
    metrics = [{"type": "accuracy", "name": words, "value": origin.facts[key]} for key, words in _HEADLINES.items() if key in origin.facts]
    if metrics:
        data = (origin.config.get("eval_data") or origin.config["data"])["name"]
        result = {"task": {"type": "image-text-to-text"}, "dataset": {"name": f"{data}, held out", "type": data}, "metrics": metrics}
        tree["model-index"] = [{"name": name, "results": [result]}]
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def _what(origin: Origin, adapter: bool) -> str:
    model, config = origin.config["model"], origin.config
    base = f"`{model['path']}`" if model.get("path") else f"a random {model['scratch']['family']}"
    lora = model.get("lora")
    trained = ", ".join(lora["parts"]) if lora else ", ".join(model.get("train") or ()) or "the whole model"
    how = f"LoRA of rank {lora['rank']} on: {trained}" if lora else f"trained: {trained}"
    kind = "An adapter for" if adapter else "Made from"
    if "rewards" not in config:
        return f"{kind} {base} by supervised fine-tuning with vlm-rl, {origin.step} steps ({how})."
    algo, rollout = config["algo"], config["rollout"]
    return (
        f"{kind} {base} by reinforcement learning with vlm-rl, {origin.step} steps of {rollout['prompts_per_step']} prompts with "
        f"{rollout['group_size']} completions each ({how}; loss {algo['loss']}, advantage {algo['advantage']}, KL weight "
        f"{algo['kl_weight']:g})."
    )


def _data(config: Mapping[str, Any]) -> str:
    rows = [("trained on", config["data"]), *((f"phase {i}", p["data"]) for i, p in enumerate(config.get("phases") or (), 1))]
    rows += [("evaluated on", config["eval_data"])] if config.get("eval_data") else []
    told = [(what, data["name"], _settings(data, ("name",))) for what, data in rows]
    held = "" if config.get("eval_data") else "\n\nEvaluated on held-out rows of the same source, whose pictures are not trained on."
    return _table(("", "name", "settings"), told) + held


def _rewards(rewards: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [(label, r.get("use") or label, f"{r['weight']:g}", _settings(r, ("use", "weight"))) for label, r in rewards.items()]
    return _table(("label", "reward", "weight", "settings"), rows)


def _evaluation(origin: Origin) -> str:
    """Each number under eval/ with its 95% interval, where the summary has one."""
    facts = {key.removeprefix("eval/"): value for key, value in origin.facts.items() if key.startswith("eval/")}
    rows = [(key, _number(value), _interval(facts, key)) for key, value in facts.items() if isinstance(value, int | float)]
    if not rows:
        return "This checkpoint was not evaluated."
    note = "`blank` is asked with empty pictures: what a model gains there too is no seeing. Differences are paired by question."
    return f"{_table(('measure', 'value', '95% interval'), rows)}\n\n{note}"


def _interval(facts: Mapping[str, Any], key: str) -> str:
    start, _, when = key.rpartition("_")
    found = facts.get(f"{key}_ci95") or (facts.get(f"{start}_ci95_{when}") if start else None)
    return f"{_number(found[0])} to {_number(found[1])}" if found else ""


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def _use(adapter: bool, base: str | None) -> str:
    lines = ["from transformers import AutoModelForImageTextToText, AutoProcessor", "", 'processor = AutoProcessor.from_pretrained("THIS")']
    if not adapter:
        return "\n".join([*lines, 'model = AutoModelForImageTextToText.from_pretrained("THIS")'])
    loaded = [f'base = AutoModelForImageTextToText.from_pretrained("{base}")', 'model = PeftModel.from_pretrained(base, "THIS")']
    return "\n".join(["from peft import PeftModel", *lines, *loaded])


def _versions(facts: Mapping[str, Any], adapter: bool) -> str:
    found = {key.removeprefix("system/"): str(value) for key, value in (facts or rundir.machine()).items() if key.startswith("system/")}
    found |= {"peft": importlib.metadata.version("peft")} if adapter else {}
    return _table(("", ""), [(name, value) for name, value in found.items() if "memory" not in name])


def _settings(section: Mapping[str, Any], without: Sequence[str]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in section.items() if key not in without and value not in (None, {}, []))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")
