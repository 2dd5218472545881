"""How the cost of vlm-rl grows: with prompt, group, response, frames, asking rewards; loading of data; start-up. Plots.

python -m benchmarks.scaling. Settings of an axis take turns, round by round, so what else runs on the machine slows them alike; a figure
is the median over rounds. Packed is the shared-prefix update, repeated the plain one that forwards each prompt once per completion.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import torch

from benchmarks import report
from benchmarks.cases import ASKING, Shape, answered, asking, clip, make_chat, picture, samples, sizes
from vlm_rl import small
from vlm_rl.asking import Asker
from vlm_rl.chat import Chat
from vlm_rl.engine.base import GenerateRequest
from vlm_rl.engine.hf import HFEngine
from vlm_rl.packing import Item
from vlm_rl.policy import Policy
from vlm_rl.types import Prompt, Query, Reply, Sample, Sampling

BASE = Shape(prompts=1, group=8, prompt_tokens=120, new_tokens=32, side=224)
AXES: dict[str, tuple[str, list[Shape]]] = {
    "prompt": ("prompt tokens", [replace(BASE, prompt_tokens=n, side=side) for n, side in ((72, 112), (120, 224), (312, 448), (632, 672))]),
    "group": ("completions of a prompt", [replace(BASE, group=n) for n in (2, 4, 8, 16)]),
    "response": ("tokens of a completion", [replace(BASE, new_tokens=n) for n in (8, 16, 32, 64)]),
}
X = {"prompt": "prompt_tokens", "group": "group", "response": "new_tokens"}
FRAMES = (4, 8, 16, 32)
START_UP = {"python": "pass", "import vlm_rl.cli": "import vlm_rl.cli", "import torch, transformers": "import torch, transformers"}
Work = Callable[[], object]


def in_turns(works: Mapping[Any, Mapping[str, Work]], rounds: int) -> dict[Any, dict[str, float]]:
    """Median seconds of each work; the first round warms up."""
    taken: dict[Any, dict[str, list[float]]] = {x: {name: [] for name in by_name} for x, by_name in works.items()}
    for _ in range(rounds + 1):
        for x, by_name in works.items():
            for name, work in by_name.items():
                start = time.perf_counter()
                work()
                taken[x][name].append(time.perf_counter() - start)
    return {x: {name: median(seconds[1:]) for name, seconds in by_name.items()} for x, by_name in taken.items()}


class Bench:
    """A model with both ways to forward it, on the same weights' values."""

    def __init__(self, seed: int):
        self.seed, scratch = seed, sizes(224)
        bounds = {"image_min_pixels": 28 * 28, "image_max_pixels": 1 << 20, "video_fps": 4, "video_max_frames": max(FRAMES)}
        self.chat: Chat = make_chat(scratch, **bounds, video_min_pixels=112**2, video_max_pixels=112**2)
        self.packed, self.plain = (
            Policy(small.make_model(scratch, self.chat.tokenizer, seed), self.chat.visual_ids, mode) for mode in ("shared_prefix", "plain")
        )
        self.engine = HFEngine(self.packed, self.chat)
        self.engine.eos = set()

    def works(self, prompt: Prompt, group: int, new_tokens: int) -> dict[str, Work]:
        """Rollout, and forward with backward in both ways."""
        generator = torch.Generator().manual_seed(self.seed)
        ids = tuple(tuple(torch.randint(0, 300, (new_tokens,), generator=generator).tolist()) for _ in range(group))
        item = Item(prompt, ids, tuple(range(group)))
        request = GenerateRequest(prompt, Sampling(new_tokens), tuple(range(group)))

        def update(policy: Policy) -> None:
            policy.zero_grad()
            policy(policy.pack([item])).logprob_T.sum().backward()

        return {
            "rollout": lambda: self.engine.generate([request]),
            "update": lambda: update(self.packed),
            "repeated update": lambda: update(self.plain),
        }

    def shapes(self, axis: str, rounds: int) -> dict[int, dict[str, float]]:
        works = {}
        for shape in AXES[axis][1]:
            prompt = self.chat.prompt(samples(self.chat, shape, 1, self.seed)[0][0])
            works[vars(shape)[X[axis]]] = self.works(prompt, shape.group, shape.new_tokens)
        return in_turns(works, rounds)

    def frames(self, rounds: int) -> dict[int, dict[str, float]]:
        """Of 112 x 112 pixels: 16 visual tokens per two frames."""
        works = {}
        for n in FRAMES:
            row = Sample(f"clip{n}", "what?", "A", media=(clip(self.seed, n, 112),))
            works[n] = self.works(self.chat.prompt(row), BASE.group, BASE.new_tokens)
        return in_turns(works, rounds)

    def rewards(self, rounds: int) -> dict[int, dict[str, float]]:
        """Seconds of scoring 4 groups of 8 with 0 to 5 asking rewards, how many questions that was, and seconds per question."""
        from rewards.mixture import Mixture

        rows = [Sample(f"r{i}", "which?", "B", "choice", ("red", "teal", "blue"), (picture(i, 112),)) for i in range(4)]
        groups = [answered(self.chat, self.chat.prompt(row), 8, self.seed) for row in rows]
        ask, asked = Asker({"policy": self.engine}, self.chat), dict.fromkeys(range(len(ASKING) + 1), 0)

        def score(count: int) -> None:
            asked[count] = 0

            def counted(queries: Sequence[Query]) -> list[Reply]:
                asked[count] += len(queries)
                return ask(queries)

            Mixture(asking(count), 0.5).score(groups, 0, counted)

        found = in_turns({n: {"scoring": lambda n=n: score(n)} for n in asked}, rounds)
        for n, by_name in found.items():
            by_name["questions"] = asked[n]
            by_name["each"] = (by_name["scoring"] - found[0]["scoring"]) / asked[n] if asked[n] else 0.0
        return found


def loading(seed: int, rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds of one row to its prompt, by picture: processed for the first time, and from the cache."""
    found: dict[str, dict[str, float]] = {}
    for side in (112, 224, 448, 896):
        chat = make_chat(sizes(side))
        rows = [Sample(f"l{i}", "which?", "A", media=(picture(seed + i, side),)) for i in range(8)]
        first, again = [], []
        for _ in range(rounds + 1):
            chat.look.cache.kept.clear()
            for seconds in (first, again):
                start = time.perf_counter()
                for row in rows:
                    chat.prompt(row)
                seconds.append((time.perf_counter() - start) / len(rows) * 1000)
        found[f"{side} x {side}"] = {"first": median(first[1:]), "cached": median(again[1:])}
    return found


def start_up(rounds: int) -> dict[str, dict[str, float]]:
    """Seconds until a new process has done this."""
    works: dict[str, dict[str, Work]] = {
        name: {"seconds": lambda code=code: subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)}
        for name, code in START_UP.items()
    }
    works["vlm-rl --help"] = {
        "seconds": lambda: subprocess.run([sys.executable, "-m", "vlm_rl", "--help"], check=True, capture_output=True)
    }
    return in_turns(works, rounds)


def tables(facts: dict[str, Any]) -> list[str]:
    lines = [f"Random Qwen2.5-VL of 3.6M parameters, float32. Unless an axis says otherwise: one prompt, {vars(BASE)}. Seconds.", ""]
    for name, by_x in facts["axes"].items():
        columns = list(next(iter(by_x.values())))
        title = {"frames": "frames of a clip", "rewards": "asking rewards", "loading": "a row to its prompt, ms", "start-up": "start-up"}
        rows = [[x, *values.values()] for x, values in by_x.items()]
        lines += [f"## {AXES[name][0] if name in AXES else title[name]}", "", report.table([name, *columns], rows)]
    return [*lines, "![curves](scaling.png)"]


def plot(axes: Mapping[str, Mapping[Any, Mapping[str, float]]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    curves = [name for name in axes if name in (*AXES, "frames", "rewards")]
    figure, panels = plt.subplots(1, len(curves), figsize=(3.2 * len(curves), 2.8), squeeze=False)
    for panel, name in zip(panels[0], curves, strict=True):
        for line in [k for k in next(iter(axes[name].values())) if k not in ("questions", "each")]:
            panel.plot(list(axes[name]), [values[line] for values in axes[name].values()], marker="o", label=line)
        panel.set_xlabel(name)
        panel.set_ylim(bottom=0)
        panel.legend(fontsize=7)
    panels[0][0].set_ylabel("seconds")
    figure.tight_layout()
    figure.savefig(report.RESULTS / "scaling.png", dpi=70)


def main(words: Sequence[str] | None = None) -> None:
    known = (*AXES, "frames", "rewards", "loading", "start-up")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--only", choices=known, nargs="*", default=list(known))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(words)
    torch.set_num_threads(args.threads)
    before, machine, bench = report.load(), report.about(args.seed), Bench(args.seed)
    others: dict[str, Callable[[], dict[Any, dict[str, float]]]] = {
        "frames": lambda: bench.frames(args.rounds),
        "rewards": lambda: bench.rewards(args.rounds),
        "loading": lambda: loading(args.seed, args.rounds),
        "start-up": lambda: start_up(args.rounds),
    }
    axes: dict[str, dict[Any, dict[str, float]]] = {}
    for name in args.only:
        axes[name] = bench.shapes(name, args.rounds) if name in AXES else others[name]()
        print(name, axes[name], file=sys.stderr, flush=True)
    facts = {"about": machine, "command": " ".join(["python -m benchmarks.scaling", *(words or sys.argv[1:])]), "axes": axes}
    facts["load"] = report.in_words(before, report.load(), machine["cores"])
    print(report.write("scaling", facts, tables(facts)))
    plot(axes)


if __name__ == "__main__":
    main()
