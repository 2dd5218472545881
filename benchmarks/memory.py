"""Peak activation memory of an update at a vocabulary of 152k: vlm-rl against the installed TRL with its own fused projection.

python -m benchmarks.memory. One group of one prompt with a picture, forward and backward; weights and gradients are there before and are
not counted. Exact sums of the allocator's own reports, so the figures do not depend on what else runs.
"""

import argparse
import copy
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from benchmarks import allocations, report
from benchmarks.cases import Shape, make_chat, samples, sizes
from vlm_rl import small
from vlm_rl.config import AlgoConfig, OptimConfig
from vlm_rl.optim import Optimiser
from vlm_rl.types import Completion, Group, Part, Rollout, ScoredGroup, Segment
from vlm_rl.update import Updater

SLACK = 1.25
# Prompts of about 512, 1,024 and 1,600 tokens, most of them a picture's; sides are multiples of 28 pixels.
PROMPTS = {552: 616, 1064: 896, 1640: 1120}
GROUPS = (8, 16)


class Still(Optimiser):
    """Leaves weights and gradients as they are."""

    def step(self, step: int, culprits: Any) -> dict[str, float]:
        return {}


def measure(shape: Shape, vocabulary: int, layers: int, seed: int) -> dict[str, Any]:
    """Peaks in bytes of both sides on the same completions; TRL forwards the whole group at once, as we do."""
    from benchmarks import ours, peer

    scratch = sizes(shape.side, layers=layers)
    chat = make_chat(scratch)
    model = widened(small.make_model(scratch, chat.tokenizer, seed), vocabulary)
    [step] = samples(chat, shape, 1, seed)
    us = ours.Ours(copy.deepcopy(model), chat, shape, seed)
    scored = [_scored(chat.prompt(step[0]), shape, vocabulary, seed)]
    updater = Updater(us.policy, Still(us.policy, OptimConfig(), 1), AlgoConfig(), us.limits)
    _fill(us.policy)
    mine = allocations.peak(lambda: updater(scored, 0))
    trainer = peer.make(model, chat, shape, [step], lambda i, laps: None, shape.group)
    made = peer.inputs_of(trainer, scored)
    trainer.current_gradient_accumulation_steps = 1
    _fill(trainer.model)
    with peer.compact():
        theirs = allocations.peak(lambda: trainer.compute_loss(trainer.model, made).backward())
    limit = SLACK / shape.token_ratio
    return {"shape": vars(shape), "vlm-rl": mine, "trl": theirs, "share": mine / theirs, "tokens": 1 / shape.token_ratio, "limit": limit}


def widened(model: Any, vocabulary: int) -> Any:
    """The same model with rows of random weights for further tokens, which no prompt holds."""
    model.resize_token_embeddings(vocabulary, mean_resizing=False)
    return model


def _fill(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)


def _scored(prompt: Any, shape: Shape, vocabulary: int, seed: int) -> ScoredGroup:
    """Random completions, each with its own reward; they are not sampled, as only the update is measured."""
    generator = torch.Generator().manual_seed(seed)
    rollouts, totals = [], []
    for i in range(shape.group):
        ids = tuple(torch.randint(600, vocabulary, (shape.new_tokens,), generator=generator).tolist())
        completion = Completion("", (Segment(ids, (-12.0,) * len(ids)),), "length")
        rollouts.append(Rollout(i, i, completion))
        totals.append(i / shape.group)
    parts = {"given": tuple(Part(t, 1.0, t, {}, t) for t in totals)}
    return ScoredGroup(Group(prompt, tuple(rollouts), seed), tuple(totals), parts)


def tables(facts: dict[str, Any]) -> list[str]:
    rows = []
    for found in facts["cases"]:
        shape = found["shape"]
        met = "yes" if found["share"] <= found["limit"] else "no"
        met = met if shape["prompt_tokens"] >= 1024 else f"({met})"
        mib = [round(found[side] / 2**20) for side in ("trl", "vlm-rl")]
        rows.append(
            [shape["prompt_tokens"], shape["group"], shape["new_tokens"], *mib, found["share"], found["tokens"], found["limit"], met]
        )
    heads = ["P", "G", "R", "TRL MiB", "vlm-rl MiB", "share", "share of tokens", f"limit ({SLACK} x)", "within"]
    return [
        f"Peak of one group's forward and backward beyond weights and gradients: {facts['layers']} layers of 256, vocabulary "
        f"{facts['vocabulary']:,}, float32. TRL projects with its fused head, completions only (as on a GPU). The goal is for P >= 1,024.",
        "",
        report.table(heads, rows),
    ]


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--prompts", type=int, nargs="*", choices=PROMPTS, default=list(PROMPTS))
    parser.add_argument("--groups", type=int, nargs="*", default=GROUPS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry", action="store_true", help="print only")
    args = parser.parse_args(words)
    torch.set_num_threads(1)
    before, machine, found = report.load(), report.about(args.seed), []
    for tokens in args.prompts:
        for group in args.groups:
            shape = replace(Shape(1), group=group, prompt_tokens=tokens, new_tokens=args.new_tokens, side=PROMPTS[tokens])
            found.append(measure(shape, args.vocabulary, args.layers, args.seed))
            print(found[-1], file=sys.stderr, flush=True)
    facts = {"about": machine, "command": " ".join(["python -m benchmarks.memory", *(words or sys.argv[1:])]), "cases": found}
    facts |= {"layers": args.layers, "vocabulary": args.vocabulary, "load": report.in_words(before, report.load(), machine["cores"])}
    print("\n".join(tables(facts)))
    if not args.dry:
        print(report.write("memory", facts, tables(facts)))


if __name__ == "__main__":
    main()
