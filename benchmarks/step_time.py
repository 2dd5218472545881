"""Seconds of one optimiser step of vlm-rl and of the installed TRL, side by side; long prompts; generation against vLLM.

python -m benchmarks.step_time [--quick]. Sides alternate, so what else runs on the machine slows both; a ratio is the median over pairs.
"""

import argparse
import copy
import sys
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch

from benchmarks import report
from benchmarks.cases import Shape, make_chat, samples, sizes
from benchmarks.long_prompts import Long
from benchmarks.long_prompts import measure as measure_long
from vlm_rl import small

PHASES = ("prompts", "rollout", "scoring", "update", "total")
QUICK = Shape(prompts=2)


def step(shape: Shape, pairs: int, seed: int, micro: int) -> dict[str, Any]:
    """Phases of both sides for each pair after the first, which warms up, and their distance on the same completions."""
    from benchmarks import ours, peer

    scratch = sizes(shape.side)
    chat = make_chat(scratch)
    model = small.make_model(scratch, chat.tokenizer, seed)
    steps = samples(chat, shape, pairs + 1, seed)
    us = ours.Ours(copy.deepcopy(model), chat, shape, seed)
    found: dict[str, list[dict[str, float]]] = {"trl": [], "vlm-rl": []}

    def between(i: int, laps: dict[str, float]) -> None:
        found["trl"].append(laps)
        found["vlm-rl"].append(us.step(steps[i]))
        print(f"pair {i}: TRL {laps['total']:.2f} s, vlm-rl {found['vlm-rl'][-1]['total']:.2f} s", file=sys.stderr, flush=True)

    with peer.compact():
        peer.make(copy.deepcopy(model), chat, shape, steps, between, micro).train()
        gap = distance(model, chat, shape, steps, seed, micro)
    warm = {side: laps[1:] for side, laps in found.items()}
    ratios = {
        phase: median(t[phase] / o[phase] for t, o in zip(warm["trl"], warm["vlm-rl"], strict=True))
        for phase in ("rollout", "update", "total")
    }
    parameters = sum(p.numel() for p in model.parameters())
    return {"shape": vars(shape), "parameters": parameters, "trl_batch": micro, "laps": found, "ratios": ratios, **gap}


def distance(model: Any, chat: Any, shape: Shape, steps: Any, seed: int, micro: int) -> dict[str, float]:
    """Loss and gradient of both sides on the same completions. TRL's log-probs are over the whole vocabulary, so ours are here, too; how
    much it changes that visual tokens, which cannot be sampled, are left out, is told beside it."""
    from benchmarks import ours, peer

    trainer = peer.make(copy.deepcopy(model), chat, shape, steps, lambda i, laps: None, micro)
    whole, banned = (ours.Ours(copy.deepcopy(model), chat, shape, seed, visual) for visual in (False, True))
    scored = banned.scored([chat.prompt(row) for row in steps[0]])
    theirs = peer.gradient(trainer, scored)
    flat = torch.cat([g.flatten() for g in theirs[1]])
    gaps = []
    for side in (whole, banned):
        metrics, gradient = side.gradient(scored)
        gaps.append(
            (abs(metrics["loss/total"] - theirs[0]), float((torch.cat([g.flatten() for g in gradient]) - flat).norm() / flat.norm()))
        )
    return {"loss_gap": gaps[0][0], "gradient_gap": gaps[0][1], "gradient_gap_without_visual_tokens": gaps[1][1]}


def _long_tables(long: dict[str, Any]) -> list[str]:
    seconds, case = long["seconds"], long["case"]
    return [
        f"## Long prompts: G={case['group']}, P={long['prompt_tokens']} (a video), R={case['new_tokens']} on average",
        "",
        f"Forward and backward of the log-probs, packed against repeated in batches of {case['batch']} by length: {long['ratio']:.2f} "
        f"times faster, {long['share']:.0%} of the token ratio {long['token_ratio']:.2f} (goal 75%); of the text model alone, without the "
        f"vision tower, {long['ratio_text_model']:.2f}. Gradients differ by {long['gradient_gap']:.1e} (relative).",
        "",
        report.table(["seconds", *(f"pair {i}" for i in range(len(seconds["packed"])))], [[k, *v] for k, v in seconds.items()]),
        "Pair 0 warms up and does not count.",
    ]


def _generation_tables(other: dict[str, Any]) -> list[str]:
    rates = other["tokens_per_second"]
    return [
        "## Generation against vLLM's CPU build",
        "",
        f"The transformers engine writes {other['ratio']:.2f} times as many tokens per second (goal 0.5); {other['threads']} thread(s).",
        "",
        report.table(["tokens/s", *(f"pair {i}" for i in range(len(rates["hf"])))], [[k, *v] for k, v in rates.items()]),
        "Pair 0 warms up and does not count.",
    ]


def _step_tables(step: dict[str, Any]) -> list[str]:
    shape = Shape(**step["shape"])
    rows = []
    for phase in PHASES:
        values = [median(laps.get(phase, 0.0) for laps in step["laps"][side][1:]) for side in ("trl", "vlm-rl")]
        rows.append([phase, *values, step["ratios"].get(phase, "")])
    return [
        f"## One optimiser step: {shape.prompts} x {shape.group} completions, {shape.prompt_tokens} + {shape.new_tokens} tokens, "
        f"{step['parameters'] / 1e6:.1f}M parameters",
        "",
        f"TRL with batches of {step['trl_batch']}, without checkpointing, and with its GPU's choice of positions to project (on a CPU it "
        "projects those of prompts, too). It has its processor run in rollout and update; ours runs in `prompts`, once per picture. Median "
        f"seconds of {len(step['laps']['trl']) - 1} pairs; a ratio is the median of the pairs' ratios.",
        "",
        report.table(["phase", "TRL", "vlm-rl", "ratio"], rows),
        f"On the same completions losses differ by {step['loss_gap']:.1e} and gradients by {step['gradient_gap']:.1e} (relative), and by "
        f"{step['gradient_gap_without_visual_tokens']:.1e} with the visual tokens outside of the support, as they are in training.",
        f"Goals: total 4, rollout 3. Token ratio {shape.token_ratio:.2f}.",
        "",
    ]


def _generation(shape: Shape, args: argparse.Namespace) -> dict[str, Any]:
    from benchmarks.generation import measure

    return measure(shape, args.pairs, args.seed)


# Results by name: what is measured, and how it is told. vLLM comes first, as its variables are read when it is imported.
PARTS: dict[str, tuple[Callable[[Shape, argparse.Namespace], dict[str, Any]], Callable[[dict[str, Any]], list[str]]]] = {
    "generation": (_generation, _generation_tables),
    "step_time": (lambda shape, args: step(shape, args.pairs, args.seed, min(args.trl_batch, shape.completions)), _step_tables),
    "long_prompts": (lambda shape, args: measure_long(Long(), args.pairs, args.seed), _long_tables),
}


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step_time", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a step with 2 prompts, nothing written; the last line is 'ratio X'")
    parser.add_argument("--only", choices=PARTS, nargs="*", default=list(PARTS))
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--trl-batch", type=int, default=8, help="completions that TRL forwards at once; 8 is its default")
    args = parser.parse_args(words)
    torch.set_num_threads(args.threads)
    command = " ".join(["python -m benchmarks.step_time", *(words or sys.argv[1:])])
    for name in ["step_time"] if args.quick else args.only:
        before, machine = report.load(), report.about(args.seed)
        measure, tell = PARTS[name]
        facts = measure(QUICK if args.quick else Shape(), args)
        facts |= {"about": machine, "command": command, "load": report.in_words(before, report.load(), machine["cores"])}
        print("\n".join([*tell(facts), facts["load"]]), flush=True)
        if args.quick:
            print(f"ratio {facts['ratios']['total']:.2f}")
        else:
            print(report.write(name, facts, tell(facts)))


if __name__ == "__main__":
    main()
