"""`vlm-rl plan`: what a training will hold on each device in its phases, from the config and the model's sizes alone. It measures nothing.

The largest prompt, every completion at rollout.max_new_tokens or shorter where that is worse, on every device alike. Bytes are of the
formulas in `footprint`; what is assumed beside them stands in the constants here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from vlm_rl import footprint
from vlm_rl.architecture import PARTS, Architecture
from vlm_rl.config import TrainConfig
from vlm_rl.errors import UserError, unknown
from vlm_rl.footprint import BYTES, Moment, Sharing, States
from vlm_rl.footprint_layers import Form, Row, Trained

GIB = 1 << 30
# Memory that torch reports, a little below the name; ours, from data sheets.
GPUS: Mapping[str, float] = {
    "rtx4090-24gb": 23.5 * GIB,
    "a100-40gb": 39.4 * GIB,
    "l40s-48gb": 44.4 * GIB,
    "a100-80gb": 79.1 * GIB,
    "h100-80gb": 79.1 * GIB,
    "h200-141gb": 139.8 * GIB,
}
CONTEXT = 1 * GIB  # CUDA's own and its libraries'; ours
FRAGMENTED = 0.05  # of the device, lost between allocations; ours
VLLM_WORK = 3 * GIB  # what vLLM needs beside weights and cache, its pictures included; ours
VLLM_ASLEEP = 1 * GIB  # what stays on the device while it sleeps; ours
SECOND_ANSWER = 32  # tokens that a reward lets a model write; ours


@dataclass(frozen=True)
class Seen:
    """The prompts: tokens and patches of the largest, tokens on average, and how this is known."""

    tokens: int
    patches: int
    mean: float
    source: str


@dataclass(frozen=True)
class Machine:
    """`count` devices of `memory` bytes each."""

    name: str
    memory: float
    count: int = 1

    @property
    def usable(self) -> float:
        return self.memory * (1 - FRAGMENTED) - CONTEXT


@dataclass(frozen=True)
class Setting:
    """What a plan is made of. `asked` are the models that rewards ask, `policy` and `start`."""

    config: TrainConfig
    arch: Architecture
    seen: Seen
    machine: Machine
    asked: frozenset[str] = frozenset()

    @property
    def b(self) -> int:
        return BYTES[self.config.model.dtype]

    @property
    def trained(self) -> Trained:
        model = self.config.model
        adapters = (model.lora.rank, model.lora.dora) if model.lora is not None else (None, False)
        return Trained(model.trained or PARTS, *adapters, checkpointing=model.gradient_checkpointing)

    @property
    def sharing(self) -> Sharing:
        return Sharing(self.machine.count, self.config.distributed.zero, self.config.distributed.offload)

    @property
    def states(self) -> States:
        return footprint.shared_states(self.arch, self.b, self.trained, self.sharing)

    @property
    def prompts(self) -> int:
        """Of a step, on each device."""
        return -(-self.config.rollout.prompts_per_step // self.machine.count)

    @property
    def form(self) -> Form:
        """How a group is forwarded, for this family."""
        return self.config.model.attention if self.arch.packs else "plain"

    @property
    def packs_follow(self) -> bool:
        """Whether an optimiser step may have several packs, so that gradients of earlier ones are there in the backward of a later one."""
        rollout, train = self.config.rollout, self.config.train
        group = self.seen.tokens + rollout.group_size * rollout.max_new_tokens
        return self.prompts * group > train.mini_batches * train.token_budget


@dataclass(frozen=True)
class Share:
    what: str
    bytes: float


@dataclass(frozen=True)
class Phase:
    """What one device holds in a phase, at its fullest."""

    name: str
    shares: tuple[Share, ...]

    @property
    def total(self) -> float:
        return sum(share.bytes for share in self.shares)


def machine(name: str, count: int) -> Machine:
    """Raises UserError for a device that is not in the table; "48" means 48 GiB of any kind."""
    if name.replace(".", "", 1).isdigit() and float(name) > 0:
        return Machine(f"{name} GiB", float(name) * GIB, count)
    if name not in GPUS:
        raise UserError(f"{unknown('device', name, GPUS, '--gpu')}; or write its memory in GiB, such as --gpu 48")
    return Machine(name, GPUS[name], count)


def phases(setting: Setting) -> tuple[Phase, ...]:
    """In the order of a step."""
    return rollout(setting), scoring(setting), update(setting)


def rollout(setting: Setting) -> Phase:
    config, arch, b, seen = setting.config.rollout, setting.arch, setting.b, setting.seen
    if config.engine == "vllm":
        return Phase("rollout", (*resident(setting), vllm_share(setting)))
    written = seen.tokens + config.max_new_tokens
    together = max(1, setting.config.train.token_budget // seen.tokens)  # distinct prompts that are read at once
    rows = min(config.batch_size, config.group_size * min(together, setting.prompts))
    read = footprint.reading(arch, min(together, setting.prompts), seen.tokens, seen.patches, b)
    work = max(read, footprint.decoding(arch, rows, written, b))
    shares = (Share(f"cache of {rows} completions", footprint.cache(arch, rows, written, b)), Share("a layer and logits at work", work))
    return Phase("rollout", (*resident(setting), *shares))


def scoring(setting: Setting) -> Phase:
    """Questions of rewards to the policy or the start: prompts that hold a reasoning, each distinct, and a short answer."""
    config, arch, b, seen = setting.config.rollout, setting.arch, setting.b, setting.seen
    here = setting.asked & ({"start"} if config.engine == "vllm" else {"policy", "start"})
    engine = (vllm_share(setting),) if config.engine == "vllm" else ()
    if not here:
        return Phase("scoring", (*resident(setting), *engine))
    length = min(seen.tokens + config.max_new_tokens, setting.config.model.max_prompt_tokens) + SECOND_ANSWER
    rows = max(1, min(config.batch_size, setting.config.train.token_budget // length))
    work = max(footprint.reading(arch, rows, length, seen.patches, b), footprint.decoding(arch, rows, length, b))
    shares = (Share(f"cache of {rows} questions", footprint.cache(arch, rows, length, b)), Share("a layer and logits at work", work))
    return Phase("scoring", (*resident(setting), *engine, *shares))


def update(setting: Setting) -> Phase:
    """At whichever moment of the largest pack's backward, or of the optimiser's step, holds most."""
    states, own = setting.states, resident(setting)
    asleep = (Share("vLLM asleep", VLLM_ASLEEP),) if setting.config.rollout.engine == "vllm" else ()
    gathered = states.gathered if setting.packs_follow or setting.sharing.zero else 0
    moments = [
        (name, row, moment)
        for row in largest_rows(setting)
        for name, moment in footprint.backward(setting.arch, row, setting.b, setting.trained).items()
    ]

    def total(found: tuple[str, Row, Moment]) -> int:
        return found[2].activations + footprint.reduced(found[2].gradients, setting.b, setting.sharing)

    name, row, fullest = max(moments, key=total)
    made = footprint.reduced(fullest.gradients, setting.b, setting.sharing)
    if gathered + fullest.activations + made < states.step:
        return Phase("update", (*own, *asleep, Share("gradients and the optimiser at work", states.step)))
    shares = (
        Share(f"activations, fullest at: {name}; {row.tokens:,} tokens, {row.completions} completions", fullest.activations),
        Share("gradients", made + gathered),
    )
    return Phase("update", (*own, *asleep, *shares))


def resident(setting: Setting) -> tuple[Share, ...]:
    """What is there in every phase."""
    states, algo = setting.states, setting.config.algo
    shares = [Share("weights", states.weights), Share("masters in float32", states.masters), Share("moments of AdamW", states.moments)]
    copies = ("start" in setting.asked) or algo.kl_weight > 0
    if copies and setting.trained.rank is None:
        shares.append(Share("frozen copy of the start", setting.b * setting.arch.total))
        if algo.kl_weight > 0 and algo.reference.kind == "ema":
            own = setting.arch.total * (setting.b + (footprint.SINGLE if setting.b < footprint.SINGLE else 0))
            shares[-1] = Share("reference that follows", own + (setting.b * setting.arch.total if "start" in setting.asked else 0))
    if setting.sharing.zero == 3 and setting.config.rollout.engine == "hf":
        shares.append(Share("weights put together for answers", setting.b * setting.arch.total))
    return tuple(share for share in shares if share.bytes)


def vllm_share(setting: Setting) -> Share:
    """vLLM takes its share of the device whatever it needs."""
    share = setting.config.rollout.vllm.gpu_memory_utilization * setting.machine.memory
    return Share(f"vLLM, of it a cache for {vllm_rows(setting):.0f} completions of full length", share)


def vllm_rows(setting: Setting) -> float:
    """Completions of full length that fit in vLLM's share beside its own weights; below 1 it does not start."""
    config = setting.config.rollout
    room = config.vllm.gpu_memory_utilization * setting.machine.memory - setting.b * setting.arch.total - VLLM_WORK
    return max(0.0, room) / footprint.cache(setting.arch, 1, setting.seen.tokens + config.max_new_tokens, setting.b)


def largest_rows(setting: Setting) -> list[Row]:
    """Packs under the token budget, of completions at the limit and of ever shorter ones: of these more go together, and each looks at its
    whole prompt again."""
    config, seen = setting.config, setting.seen
    rows, length = [], config.rollout.max_new_tokens
    while length >= 1:
        rows.append(_packed(setting, length))
        length //= 2
    if setting.form == "plain":  # every completion behind its own copy of the prompt
        rows = [replace(row, prompts=row.completions, patches=row.completions * seen.patches) for row in rows]
    return [replace(row, form=setting.form) for row in rows]


def _packed(setting: Setting, length: int) -> Row:
    config, seen, size = setting.config, setting.seen, setting.config.rollout.group_size
    budget, most = config.train.token_budget, -(-setting.prompts // config.train.mini_batches)
    group = seen.tokens + size * length
    if group > budget:
        return Row(1, seen.tokens, min(size, max(1, (budget - seen.tokens) // length)), length, seen.patches)
    groups = min(most, budget // group)
    return Row(groups, seen.tokens, groups * size, length, groups * seen.patches)


def problem(setting: Setting) -> str | None:
    """Why vLLM could not start, where it could not."""
    if setting.config.rollout.engine == "vllm" and vllm_rows(setting) < 1:
        return "vLLM's share of the device does not hold its weights and one completion; raise rollout.vllm.gpu_memory_utilization"
    return None


def fits(setting: Setting) -> bool:
    return problem(setting) is None and all(phase.total <= setting.machine.usable for phase in phases(setting))
