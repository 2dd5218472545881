"""From rewards to new weights, a whole update under a config equals what the installed TRL makes of the same numbers, two passes each.

The policy is a table of log-probs, one weight per token, so a step of plain descent shows the gradient of every token. TRL's own lines make
the advantages, the ratios to the engine and the losses; only its models and its gathering between ranks are replaced.
"""

import random
import warnings
from collections import defaultdict, deque
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_algo_trl import KINDS, trainer
from torch import Tensor, nn

from vlm_rl.config import AlgoConfig, OptimConfig
from vlm_rl.optim import Optimiser
from vlm_rl.packing import Item, Pack, pack
from vlm_rl.policy import TokenStats
from vlm_rl.step_batch import Limits
from vlm_rl.types import Completion, Group, Part, Prompt, Rollout, Sample, ScoredGroup, Segment
from vlm_rl.update import Updater

GROUPS, G, T, LONGEST, RATE, EOS = 3, 4, 8, 10, 4.0, 2
B = GROUPS * G
ALL = KINDS | {"gmpo": ("gmpo", "sequence_mean", 0.1, 0.1), "rloo": ("grpo", "sequence_mean", 0.2, 0.28)}
AXES: dict[str, list[Any]] = {
    "kind": list(ALL),
    "level": ["token", "sequence", "sequence_token"],
    "scaling": ["group", "batch", "none", "normalize_then_sum"],
    "kl": [None, "own", "ratio"],
    "engine": [None, "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"],
    "bounds": [(None, 1.2), (0.7, None), (0.8, 1.3)],
    "drift": [None, 0.05],
    "top": [1.0, 0.3],
    "delta": [None, 1.5],
    "bonus": [0.0, 0.05],
    "truncated": [False, True],
    "holes": [False, True],
    "minis": [1, 2],
}


@dataclass(frozen=True)
class Setting:
    kind: str
    level: str
    scaling: str
    kl: str | None
    engine: str | None
    bounds: tuple[float | None, float | None]
    drift: float | None
    top: float
    delta: float | None
    bonus: float
    truncated: bool
    holes: bool
    minis: int

    @property
    def possible(self) -> bool:
        """What both sides take."""
        grpo, engine = KINDS.get(self.kind, ("",))[0] == "grpo", self.engine or ""
        if self.kind in ("gmpo", "rloo"):
            plain = not engine and self.drift is None and self.top == 1 and not self.bonus and self.level == "token" and self.kl != "ratio"
            return plain and self.delta is None and (self.kind == "gmpo" or (self.scaling in ("none", "batch") and not self.holes))
        return (
            (grpo or self.delta is None)
            # TRL has no third level: there it is GSPO, equal while all tokens of a rollout have the same weight.
            and (self.level != "sequence_token" or (grpo and self.kl is None and self.top == 1 and not engine.startswith("token")))
            and not (self.kind == "vespo" and engine.startswith("sequence"))
            # There a step's token count is the generation's over its steps, here its own.
            and (self.minis == 1 or self.kind not in ("dapo", "cispo", "vespo"))
        )

    @property
    def algo(self) -> AlgoConfig:
        loss, aggregation, low, high = ALL[self.kind]
        gdpo, rloo = self.scaling == "normalize_then_sum", self.kind == "rloo"
        engine = {"use": self.engine, "low": self.bounds[0], "high": self.bounds[1]}
        return AlgoConfig.model_validate(
            {
                "loss": loss,
                "loss_settings": {} if self.delta is None else {"dual_clip": self.delta},
                "ratio": "product" if rloo else self.level,
                "clip_low": low,
                "clip_high": high,
                "aggregation": aggregation,
                "advantage": "leave_one_out" if rloo else "group_std" if gdpo or self.scaling == "group" else "group_mean",
                "batch": {"batch": "whiten" if rloo else "reward_std", "normalize_then_sum": "whiten"}.get(self.scaling, "none"),
                "rewards": "normalize_then_sum" if gdpo else "sum_then_normalize",
                "least_std": 0.0,
                "kl_weight": 0.1 if self.kl else 0.0,
                "kl_in": "reward" if rloo else "loss",
                "kl_gradient": self.kl or "own",
                "correction": [engine] if self.engine else [],
                "off_policy_mask": self.drift,
                "top_entropy": self.top,
                "entropy_bonus": self.bonus,
                "mask_truncated": self.truncated,
            }
        )


class Numbers:
    """Rewards of two kinds, one group without spread; lengths, one of them 0 where TRL bears it; log-probs; tokens of others in between."""

    def __init__(self, seed: int, setting: Setting):
        self.generator = torch.Generator().manual_seed(seed)
        self.rewards = torch.randint(0, 5, (B, 2), generator=self.generator).float() / 4
        # A group without spread is not forwarded here, so its tokens have no place in the quantile of entropies that they have in TRL's.
        if setting.top == 1 or setting.kl or setting.bonus:
            self.rewards[G : 2 * G] = 0.5
        self.factors = [1.0, 0.5]
        self.lengths = torch.randint(1, T + 1, (B,), generator=self.generator).tolist()
        self.lengths[0], self.lengths[B - 2] = T, 1 if setting.truncated else 0
        self.finished = (torch.rand(B, generator=self.generator) < 0.6).tolist()
        self.ids = [[5] * (n - 1) + [EOS if f else 5] if n else [] for n, f in zip(self.lengths, self.finished, strict=True)]
        inserted = torch.rand(B, T, generator=self.generator) < (0.25 if setting.holes else 0.0)
        self.written = [[int(not inserted[i, t]) for t in range(n)] for i, n in enumerate(self.lengths)]
        self.logp = -0.05 - 2 * torch.rand(B, T, generator=self.generator)
        # RLOO's KL in the reward is of the trainer's log-probs there, of the engine's here.
        self.engine = self.logp if setting.kind == "rloo" else (self.logp + self.normal(0.15)).clamp(max=-0.01)
        self.reference = (self.logp + self.normal(0.3)).clamp(max=-0.01)

    def normal(self, scale: float) -> Tensor:
        return scale * torch.randn(B, T, generator=self.generator)


def entropies(logp: Tensor) -> Tensor:
    """Of a token that is this one or another: some function with a gradient."""
    p = logp.clamp(max=-1e-3).exp()
    return -p * p.log() - (1 - p) * (1 - p).log()


class Table(nn.Module):
    """A policy that looks its log-probs up by rollout and place."""

    def __init__(self, logp: Tensor):
        super().__init__()
        self.logp = nn.Parameter(logp.clone())

    def pack(self, items: list[Item]) -> Pack:
        return pack(items, lambda prompt: torch.zeros(3, len(prompt.expanded_ids), dtype=torch.long))

    def forward(self, row: Pack, temperature: float, entropy_gradient: bool = False) -> TokenStats:
        pairs = [(i, len(c)) for item in row.items for i, c in zip(item.rollouts, item.completions, strict=True)]
        logp_T = torch.cat([self.logp[i, :n] for i, n in pairs])
        entropy_T = entropies(logp_T)
        return TokenStats(logp_T, entropy_T if entropy_gradient else entropy_T.detach())


def ours(numbers: Numbers, setting: Setting, budget: int) -> tuple[Tensor, dict[str, float]]:
    prompt = Prompt(Sample("s", "?", "!"), "?", (1,), (1,), (0,))
    groups = []
    for start in range(0, B, G):
        rollouts = []
        for i in range(start, start + G):
            told = numbers.engine[i].tolist()
            segments = tuple(Segment((t,), (told[k],) if numbers.written[i][k] else None) for k, t in enumerate(numbers.ids[i]))
            rollouts.append(Rollout(i - start, i, Completion("", segments, "stop" if numbers.finished[i] else "length")))
        values = {f"r{k}": numbers.rewards[start : start + G, k].tolist() for k in range(2)}
        parts = {
            label: tuple(Part(v, w, v * w, {}, v) for v in said) for (label, said), w in zip(values.items(), numbers.factors, strict=True)
        }
        totals = tuple(sum(p[i].contribution or 0.0 for p in parts.values()) for i in range(G))
        groups.append(ScoredGroup(Group(prompt, tuple(rollouts), start), totals, parts))
    policy: Any = Table(numbers.logp)
    optimiser = Optimiser(policy, OptimConfig(learning_rate=RATE, grad_clip=1e6), 4)
    optimiser.adam = torch.optim.SGD(optimiser.masters, lr=RATE)  # type: ignore[assignment]
    reference: Any = Table(numbers.reference) if setting.kl else None
    metrics = Updater(policy, optimiser, setting.algo, Limits(1.0, budget, LONGEST, 2, setting.minis), reference)(groups, 0)
    return policy.logp.detach(), metrics


def theirs(cls: Any, numbers: Numbers, setting: Setting) -> tuple[Tensor, float, dict[str, list[float]]]:
    """(weights after two passes, the loss of the last, its metrics)"""
    now, model, reference = numbers.logp.clone(), SimpleNamespace(training=True), object()
    first = entropies(numbers.logp)
    leaf, part = now, slice(B)

    def forward(whom: Any, *rest: Any, **more: Any) -> tuple[Tensor, Tensor, None]:
        if whom is reference:
            return numbers.reference, first, None
        entropy = entropies(leaf)
        if setting.top < 1:  # which tokens are chosen is our policy's that sampled, not the one of the pass
            entropy = entropy - entropy.detach() + first
        return leaf[part], entropy[part], None

    made = trainer_of(numbers, setting, model, reference, forward)
    for name in ("get_off_policy_mask", "get_gamma_weights"):
        setattr(made, name, getattr(cls, name, None))
    made.get_high_entropy_mask = lambda *a: cls.get_high_entropy_mask(made, *a)
    inputs = cls._generate_and_score_completions(made, [{"prompt": "q"} for _ in range(B)])
    loss = 0.0
    for _ in range(2):
        made._metrics, loss = {"train": defaultdict(list)}, 0.0
        for part in (slice(G), slice(G, B)) if setting.minis == 2 else (slice(B),):
            leaf = now.clone().requires_grad_()
            some = {name: tensor[part] if tensor.ndim else tensor for name, tensor in inputs.items()}
            out = cls._compute_loss(made, model, some)
            out.backward()
            assert leaf.grad is not None
            now, loss = now - RATE * leaf.grad, loss + out.item() / setting.minis
    return now, loss, made._metrics["train"]


def trainer_of(numbers: Numbers, setting: Setting, model: Any, reference: Any, forward: Any) -> SimpleNamespace:
    _, _, low, high = ALL[setting.kind]
    told = [numbers.engine[i, :n].tolist() for i, n in enumerate(numbers.lengths)]
    gdpo = setting.scaling == "normalize_then_sum"
    generated = ([[1]] * B, numbers.ids, numbers.written, ["x"] * B, told, {}, None, None)
    made = trainer(
        SimpleNamespace(entropy=torch.zeros(B, T)),  # type: ignore[arg-type]
        numbers.logp,
        loss_type=setting.kind,
        importance_sampling_level="token" if setting.level == "token" else "sequence",
        epsilon_low=low,
        epsilon_high=1 + high if setting.kind == "cispo" else high,  # an absolute cap there
        delta=setting.delta,
        beta=0.1 if setting.kl else 0.0,
        use_bias_correction_kl=setting.kl == "ratio",
        top_entropy_quantile=setting.top,
        off_policy_mask_threshold=setting.drift,
        use_vllm=setting.engine is not None,
        vllm_importance_sampling_correction=setting.engine is not None,
        vllm_importance_sampling_mode=setting.engine,
        vllm_importance_sampling_clip_min=setting.bounds[0],
        vllm_importance_sampling_clip_max=setting.bounds[1],
        _entropy_bonus_enabled=setting.bonus > 0,
        entropy_coef=setting.bonus,
        mask_truncated_completions=setting.truncated,
        eos_token_ids=[EOS],
        scale_rewards="group" if gdpo else setting.scaling,
        multi_objective_aggregation="normalize_then_sum" if gdpo else "sum_then_normalize",
        reward_weights=torch.tensor(numbers.factors),
        max_completion_length=LONGEST,
        num_iterations=2,
        model=model,
        ref_model=reference,
        _get_per_token_logps_and_entropies=forward,
        _generate=lambda prompts: generated if setting.kind != "rloo" else (generated[0], generated[1], generated[3]),
        _calculate_rewards=lambda *a: numbers.rewards,
    )
    vars(made).update(environment_factories=None, environments=None, tools=[], _tokenizer=SimpleNamespace(pad_token_id=0))
    vars(made).update(pad_to_multiple_of=None, num_generations=G, reward_funcs=["a", "b"], reward_func_names=["a", "b"], _is_vlm=False)
    vars(made).update(normalize_advantages=setting.scaling == "batch", reward_clip_range=None, log_multimodal=False)
    vars(made).update(_pending_extra_logs={}, _pending_metrics={})
    made._logs = {"prompt": deque(), "completion": deque(), "rewards": defaultdict(deque), "advantages": deque(), "extra": {}}
    vars(made.args).update(per_device_train_batch_size=B, gradient_accumulation_steps=1, gradient_checkpointing_kwargs=None)
    return made


@pytest.fixture(scope="module")
def trainers() -> Any:
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        found = pytest.importorskip("trl")
        from trl.experimental.gmpo import GMPOTrainer
        from trl.trainer import grpo_trainer, rloo_trainer

        for module in (grpo_trainer, rloo_trainer):
            for name in ("gather", "gather_object"):
                patch.setattr(module, name, lambda x: x)
            patch.setattr(module, "disable_gradient_checkpointing", lambda *a: nullcontext())
        yield dict.fromkeys(KINDS, found.GRPOTrainer) | {"gmpo": GMPOTrainer, "rloo": found.RLOOTrainer}


@cache
def drawn(count: int) -> list[Setting]:
    """Settings such that every value of an axis meets every loss type where it can; otherwise at random."""
    draw = random.Random(0)

    def at_random(**fixed: Any) -> Setting:
        return Setting(**{axis: draw.choice(values) for axis, values in AXES.items()} | fixed)

    found: list[Setting] = []
    for kind, axis, value in ((kind, axis, value) for kind in ALL for axis, values in AXES.items() if axis != "kind" for value in values):
        tries = (at_random(kind=kind, **{axis: value}) for _ in range(1000))
        found += [s for s in tries if s.possible][:1]
    while len(found) < count:
        found += [s for s in [at_random()] if s.possible]
    return found


@pytest.mark.parametrize("kind", ALL)
def test_a_whole_update_is_trls(trainers: Any, kind: str) -> None:
    clipped = 0.0
    for seed, setting in enumerate(drawn(200)):
        if setting.kind != kind:
            continue
        numbers = Numbers(seed, setting)
        found, metrics = ours(numbers, setting, 10_000 if seed % 2 else 40)
        wanted, loss, logged = theirs(trainers[kind], numbers, setting)
        assert torch.allclose(found, wanted, rtol=1e-6, atol=1e-6 * RATE), (seed, setting, float((found - wanted).abs().max()))
        assert not torch.equal(found, numbers.logp)
        # An empty rollout has ratio 1 there and adds -A / N, which has no gradient.
        if not (setting.bonus and setting.top < 1) and kind not in ("gmpo", "rloo"):
            assert metrics["loss/total"] == pytest.approx(loss, rel=1e-5, abs=2e-6), (seed, setting)
        if setting.level == "token" and setting.minis == 1 and kind in ("grpo", "dapo", "dr_grpo") and not metrics["algo/dropped_groups"]:
            for mark in ("low", "high"):
                assert metrics[f"loss/clip_{mark}"] == pytest.approx(logged[f"clip_ratio/{mark}_mean"][0], abs=1e-6)
                clipped += metrics[f"loss/clip_{mark}"]
    assert clipped > 0 or kind != "dapo"
