"""DeepSpeed's ZeRO behind the surface of `vlm_rl.optim.Optimiser`, and what a policy in parts needs: its weights in full for a while.

The optimiser is still torch's AdamW: DeepSpeed hands it flat parts of the float32 masters, so that its formulas, and the state that a
checkpoint holds, are those of one process. DeepSpeed is imported only where a config asks for it.
"""

import copy
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vlm_rl.algo.schedules import learning_rate
from vlm_rl.config import DistributedConfig, OptimConfig
from vlm_rl.errors import UserError
from vlm_rl.optim import Optimiser, adamw
from vlm_rl.policy import Policy
from vlm_rl.ranks import Ranks

KEPT_WHOLE = 100_000  # numbers: smaller weights are on every process with ZeRO-3 too (DeepSpeed's own default)
STATES = ("exp_avg", "exp_avg_sq")


def _import() -> Any:
    try:
        import deepspeed  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(
            f"distributed.zero needs DeepSpeed ({error}): pip install 'vlm-rl[deepspeed]', or write distributed.zero=0, which has every "
            "process hold the whole optimiser"
        ) from error
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    # On CPUs it would compile a faster all-reduce of its own at every machine's first start, which takes a compiler and a minute.
    deepspeed.ops.__compatible_ops__.pop("deepspeed_shm_comm", None)
    return deepspeed


def settings_of(distributed: DistributedConfig, grad_clip: float, dtype: torch.dtype) -> dict[str, Any]:
    """DeepSpeed's own config. The loss is divided by counts of the whole step, so nothing here averages by micro-batches."""
    zero: dict[str, Any] = {"stage": distributed.zero}
    if distributed.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if distributed.offload == "all":
        zero["offload_param"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if distributed.zero == 3:
        zero["stage3_param_persistence_threshold"] = KEPT_WHOLE
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": grad_clip,
        "bf16": {"enabled": dtype == torch.bfloat16},
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1 << 30,
    }


class ZeroOptimiser(Optimiser):
    """Used as `Optimiser` is, by all processes alike: each calls `forward`, `backward` and `step` as often as the others."""

    def __init__(
        self,
        policy: Policy,
        config: OptimConfig,
        steps: int,
        rates: Mapping[int, float],
        distributed: DistributedConfig,
        ranks: Ranks,
    ):
        deepspeed = _import()
        self.module, self.config, self.steps, self.ranks, self.stage = policy, config, steps, ranks, distributed.zero
        self.weights = [p for p in policy.parameters() if p.requires_grad]
        adam = adamw(self.weights, config, [rates.get(id(weight)) for weight in self.weights])
        self.ordered: list[Any] = [p for group in adam.param_groups for p in group["params"]]
        self.template = adam.state_dict()["param_groups"]
        adam.param_groups = [group for group in adam.param_groups if group["params"]]  # DeepSpeed fails at an empty one
        settings = settings_of(distributed, config.grad_clip, policy.model.dtype)
        self.engine: Any = deepspeed.initialize(model=policy, optimizer=adam, config=settings, dist_init_required=False)[0]
        self.inner: Any = self.engine.optimizer
        self._begin_states()
        # This process's parts of them, as far as it has any.
        self.masters = [self._part(weight) for weight in self.weights]

    def _part(self, weight: Any) -> Any:
        if self.stage == 3:
            return self.inner._get_fp32_opt_state_partition(weight, release_swap_buffers=False)[0]
        return weight._hp_mapping.hp_fragment if weight._hp_mapping is not None else torch.empty(0)

    def _begin_states(self) -> None:
        # Made before the first step: DeepSpeed looks for them after the step of its first group, when later groups have none yet.
        flats = self.inner.fp32_partitioned_groups_flat if self.stage == 3 else self.inner.single_partition_of_fp32_groups
        for flat in flats:
            zeros = {name: torch.zeros_like(flat, memory_format=torch.preserve_format).detach() for name in STATES}
            self.inner.optimizer.state[flat] = {"step": torch.tensor(0.0), **zeros}
        if self.stage < 3:
            self.inner._lazy_init_hp_params_optimizer_state()

    def forward(self, *inputs: Any) -> Any:
        """The policy's forward, with DeepSpeed looking on."""
        return self.engine(*inputs)

    def gather(self) -> None:
        raise AssertionError("DeepSpeed gathers gradients itself, in backward")

    def backward(self, loss: Tensor, last: bool) -> None:
        """Add the gradients of one pack; `last` of an optimiser step. They are summed over the processes (DeepSpeed takes their mean)."""
        self.engine.set_gradient_accumulation_boundary(last)
        self.engine.backward(loss * self.ranks.world, scale_wrt_gas=False)

    def step(self, step: int, culprits: Callable[[], str]) -> dict[str, float]:
        """As `Optimiser.step`; a gradient that is not finite is told after the weights have taken it, and nothing is saved any more."""
        rate = learning_rate(self.config.learning_rate, self.config.schedule, step, self.steps, self.config.warmup_steps)
        for group in self.inner.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        self.engine.step()
        norm = float(self.engine.get_global_grad_norm())
        if not torch.isfinite(torch.tensor(norm)) or not self.engine.was_step_applied():
            raise UserError(f"step {step}: the gradient is not finite; samples in this step: {culprits()}")
        return {"loss/grad_norm": norm, "loss/learning_rate": rate}

    def state_dict(self) -> dict[str, Any]:
        """What `Optimiser.state_dict` gives, put together on the first process; on the others nothing of use. All must call it."""
        access = _import().utils

        def kept(tensor: Tensor) -> Tensor:
            return tensor.detach().cpu().clone() if self.ranks.first else torch.empty(0)

        done = next(iter(self.inner.optimizer.state.values()))["step"].detach().cpu().clone()
        state = {}
        for i, weight in enumerate(self.ordered):
            state[i] = {"step": done.clone()} | {name: kept(access.safe_get_full_optimizer_state(weight, name)) for name in STATES}
        masters = [kept(access.safe_get_full_fp32_param(weight)) for weight in self._halves()]
        return {"adam": {"state": state, "param_groups": self.template}, "masters": masters}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Of one process or of any number. Weights that had no step yet (a tower that saw no picture) begin with the others' count."""
        saved = state["adam"]["state"]
        done = max((float(entry["step"]) for entry in saved.values()), default=0.0)
        for entry in self.inner.optimizer.state.values():
            entry["step"].fill_(done)
        for i, weight in enumerate(self.ordered):
            for name in STATES if i in saved else ():
                self._put(weight, saved[i][name], name)
        for weight, master in zip(self._halves(), state["masters"], strict=True):
            self._put(weight, master)

    def _halves(self) -> list[Any]:
        """Weights of lower precision than float32, which alone have masters of their own in a checkpoint, in the module's order."""
        return [p for p in self.engine.module.parameters() if p.requires_grad and p.dtype != torch.float32]

    def _put(self, weight: Any, value: Tensor, name: str | None = None) -> None:
        """This process's part of a whole master (or of its state `name`)."""
        access = _import().utils
        value = value.detach().float().to(self.engine.device).flatten()
        if self.stage == 3:
            size = weight.partition_numel()
            own = nn.functional.pad(value, (0, size * self.ranks.world - len(value)))[size * self.ranks.rank :][:size]
            if name is None:
                access.safe_set_local_fp32_param(weight, own)
            else:
                access.safe_set_local_optimizer_state(weight, own, name)
        elif name is None:
            access.safe_set_full_fp32_param(weight, value)
        else:
            access.safe_set_full_optimizer_state(weight, value, name)


class Lender:
    """The policy's weights in full, in a `copy` of its modules that has no weights of its own and none of DeepSpeed's hooks.

    Made before DeepSpeed takes the policy apart. Outside of a `with` block on `lent` or `lent_on_cpu` the copy is empty. All processes
    enter and leave these blocks together.
    """

    def __init__(self, policy: Policy):
        self.policy = policy
        # One empty stand-in for each weight, so that tied ones stay tied and nothing large is copied.
        stands: dict[int, Any] = {id(p): nn.Parameter(torch.empty(0, dtype=p.dtype), requires_grad=False) for p in policy.parameters()}
        self.pairs = [(stands[id(p)], p) for p in policy.parameters()]
        self.copy: Policy = copy.deepcopy(policy, stands)

    @contextmanager
    def lent(self) -> Iterator[None]:
        """For generation and scoring: every process has all weights at once, where they were."""
        with self._gathered([p for _, p in self.pairs]):
            for stand, weight in self.pairs:
                stand.data = weight.data
            try:
                yield
            finally:
                self._empty()

    @contextmanager
    def lent_on_cpu(self, here: bool) -> Iterator[None]:
        """For saving: one weight after the other goes to the CPU's memory of the processes that are `here`."""
        for stand, weight in self.pairs:
            with self._gathered([weight]):
                stand.data = weight.data.to("cpu", copy=True) if here else stand.data
        try:
            yield
        finally:
            self._empty()

    def named(self) -> Iterator[tuple[str, Tensor]]:
        """Every weight of the model once, one after the other put together. All processes go through all of them."""
        for (name, stand), (_, weight) in zip(self.copy.model.named_parameters(), self.pairs, strict=True):
            with self._gathered([weight]):
                stand.data = weight.data
                yield name, stand.detach()
        self._empty()

    def _gathered(self, weights: Sequence[Any]) -> Any:
        return _import().zero.GatheredParameters(weights)

    def _empty(self) -> None:
        for stand, weight in self.pairs:
            stand.data = torch.empty(0, dtype=weight.dtype)
