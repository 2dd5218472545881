"""The parts of a vision-language model, by the names of its weights: which train, at which rate, and a check that only they move."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vlm_rl.config import OptimConfig
from vlm_rl.errors import UserError
from vlm_rl.families import Part, family_of
from vlm_rl.optim import Optimiser

INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def part_of(family: str, name: str) -> Part:
    """part_of("qwen2_5_vl", "model.visual.merger.mlp.0.weight") -> "projector". Raises UserError for a family or a name not in FAMILIES."""
    starts: list[tuple[str, Part]] = [(start, part) for part, known in family_of(family).parts.items() for start in known]
    for start, part in sorted(starts, key=lambda pair: -len(pair[0])):
        if name.startswith(start):
            return part
    raise UserError(f"the weight {name} belongs to no part of a {family}; add how its name begins to vlm_rl.families")


def freeze_others(model: nn.Module, trained: Sequence[Part]) -> None:
    """Only these parts take gradients from now on; none named means all. Raises UserError for one that the model lacks."""
    if not trained:
        return
    family = _family(model)
    named = {name: part_of(family, name) for name, _ in model.named_parameters()}
    _check_there(family, trained, named.values(), "weights")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(named[name] in trained)


def linear_layers(model: Any, parts: Sequence[Part]) -> list[str]:
    """Names of the linear layers of these parts, without the vocabulary projection. Raises UserError for a part that has none."""
    family, head = _family(model), model.get_output_embeddings()
    found = [(name, part_of(family, name)) for name, layer in model.named_modules() if isinstance(layer, nn.Linear) and layer is not head]
    _check_there(family, parts, [part for _, part in found], "linear layers")
    return [name for name, part in found if part in parts]


def rates(model: nn.Module, config: OptimConfig) -> dict[int, float]:
    """The learning rate of each weight that has one of its own, by id()."""
    if not config.part_learning_rates:
        return {}
    family = _family(model)
    parts = {id(p): part_of(family, name) for name, p in model.named_parameters()}
    _check_there(family, tuple(config.part_learning_rates), parts.values(), "weights")
    return {key: config.part_learning_rates[part] for key, part in parts.items() if part in config.part_learning_rates}


def checksum(tensor: Tensor) -> int:
    """A number that every change of a bit changes, but for rare coincidences."""
    return int(tensor.detach().contiguous().view(INTEGERS[tensor.element_size()]).sum(dtype=torch.int64))


class Movement:
    """Frozen weights stay as they are to the bit, and every part that trains moves; made before the first update of a process."""

    def __init__(self, model: nn.Module, optimiser: Optimiser, whole: Callable[[], Iterator[tuple[str, Tensor]]] | None = None):
        """`whole` gives the model's weights by name where they do not lie whole in the model."""
        family, masters = _family(model), {id(w): m for w, m in zip(optimiser.weights, optimiser.masters, strict=True)}
        named = [(part_of(family, name), name, p) for name, p in model.named_parameters()]
        self.frozen = {name: p for _, name, p in named if not p.requires_grad}
        self.trained = [(part, masters[id(p)]) for part, _, p in named if id(p) in masters]
        self.whole, self.ranks = whole or model.named_parameters, optimiser.ranks
        self.still = self._sums()
        self.before = [checksum(master) for _, master in self.trained]
        self.waiting = {part for part, _ in self.trained}
        self.updated = self.pictured = False

    @property
    def mark(self) -> str:
        """Of all frozen weights; goes into checkpoints, so that a resumed run knows whether it has the same."""
        return f"{sum(self.still.values()) % (1 << 64):016x}" if self.still else ""

    def after_step(self, step: int, updated: bool, pictured: float) -> None:
        """Look after the first update, and at parts that see pictures after the first one made of pictures only; `pictured` is the share
        of the step's rows that have any. Raises UserError."""
        if not updated or (self.updated and not (self.waiting and pictured)):
            return
        if not self.updated:
            self.check_frozen(step)
        self.updated, self.pictured = True, self.pictured or pictured > 0
        both = zip(self.trained, self.before, strict=True)
        moved = {part for (part, master), old in both if part in self.waiting and checksum(master) != old}
        self.waiting -= set().union(*self.ranks.exchange("parts that moved", moved))
        self._check_moved(step, self.waiting if pictured == 1 else self.waiting & {"text"})

    def check(self, step: int, final: bool) -> None:
        """Before a checkpoint; the final one also wants that every part moved that had something to see. Raises UserError."""
        self.check_frozen(step)
        if final and self.pictured:
            self._check_moved(step, self.waiting)

    def expect(self, mark: str, checkpoint: Path | None, base: str | None) -> None:
        """Raises UserError where frozen weights are not those that a checkpoint has the mark of."""
        if mark != self.mark:
            raise UserError(
                f"the weights that do not train are not those that {checkpoint} was trained with; put {base} back as it was, or write "
                "run_dir=OTHER"
            )

    def check_frozen(self, step: int) -> None:
        """Raises UserError where a frozen weight has another bit than at the start."""
        now = self._sums()
        if loose := [name for name, before in self.still.items() if now[name] != before]:
            raise UserError(
                f"step {step}: {len(loose)} of {len(self.frozen)} frozen tensors moved, such as {loose[0]}; only the optimiser may write "
                "weights, and only those that train. The last checkpoint is from before; report this with the config"
            )

    def _sums(self) -> dict[str, int]:
        return {name: checksum(p) for name, p in self.whole() if name in self.frozen} if self.frozen else {}

    def _check_moved(self, step: int, parts: set[str]) -> None:
        if parts:
            raise UserError(
                f"step {step}: no weight of the {sorted(parts)[0]} moved although it trains: no gradient reaches it, or its rate is too "
                "small for any change; raise optim.learning_rate, or let other parts train (model.train, model.lora.parts)"
            )


def _family(model: Any) -> str:
    return str(model.config.model_type)


def _check_there(family: str, wanted: Sequence[Part], there: Iterable[str], what: str) -> None:
    found = set(there)
    if absent := [part for part in wanted if part not in found]:
        raise UserError(f"a {family} has no {what} in the part '{absent[0]}'; parts that have: {', '.join(sorted(found))}")
