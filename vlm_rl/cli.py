"""The command line. Commands read a config, apply overrides and hand over; the only file that prints."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console as Screen

from vlm_rl import __version__
from vlm_rl.cli_setup import run_guarded
from vlm_rl.config import SftConfig, TrainConfig
from vlm_rl.config_judge_eval import JudgeEvalConfig
from vlm_rl.loading import load, load_eval

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train vision-language models with rewards that question their reasoning, and measure what training did.\n\n"
    "Start with: vlm-rl train configs/quickstart.yaml",
)
data_app = typer.Typer(no_args_is_help=True, help="Look at data before training on it.")
app.add_typer(data_app, name="data")
make_app = typer.Typer(no_args_is_help=True, help="Write data of our own to disk, for this or any other program.")
data_app.add_typer(make_app, name="make")
lab_app = typer.Typer(no_args_is_help=True, help="Experiments whose truth is known, and the judges for them.")
app.add_typer(lab_app, name="lab")
judge_app = typer.Typer(no_args_is_help=True, help="Measure judges before a policy is paid by them.")
app.add_typer(judge_app, name="judge")

ConfigPath = Annotated[str, typer.Argument(metavar="CONFIG", help="a YAML file, for instance configs/quickstart.yaml")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY.SUB=VALUE]...", help="config values to replace, for instance seed=1")]


@app.command()
def train(
    config: ConfigPath,
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="one step through all phases on small random weights; keeps nothing")] = False,
    hub: Annotated[bool, typer.Option("--hub", help="in a dry run: load data sets from the hub instead of making rows up")] = False,
) -> None:
    """Train a policy with GRPO. The same command on the same run_dir resumes from the newest whole checkpoint.

    Example: vlm-rl train configs/quickstart.yaml run_dir=runs/mine seed=1 data.name=jsonl data.path=rows.jsonl
    """
    checked = load(TrainConfig, config, overrides or [])
    if dry_run:
        from vlm_rl.cli_dry import dry_run as tried

        tried(checked, os.environ, Screen().print, hub)
        return
    from vlm_rl.cli_train import train as run

    run(checked, os.environ)


@app.command()
def doctor(
    config: ConfigPath,
    overrides: Overrides = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="also write what was found as JSON")] = None,
) -> None:
    """Check a config of train on this machine before training: versions, tokens, log-probs, weights, judges, resume, memory.

    Takes about a minute and exits with 1 when a check fails. Example: vlm-rl doctor configs/quickstart.yaml --json found.json
    """
    from vlm_rl.cli_doctor import doctor as examined

    raise typer.Exit(examined(load(TrainConfig, config, overrides or []), os.environ, Screen().print, json_file))


@app.command()
def plan(
    config: ConfigPath,
    overrides: Overrides = None,
    gpu: Annotated[str, typer.Option(help="such as h100-80gb, a100-40gb, or a number of GiB")] = "h100-80gb",
    gpus: Annotated[int, typer.Option(min=1, help="how many of them")] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="also write the plan as JSON")] = None,
) -> None:
    """Predict memory by phase and tokens of a step of a config of train, without a GPU, weights or data; exits with 1 when it does not fit.

    Example: vlm-rl plan configs/train/qwen2_5_vl_7b_acre.yaml --gpu a100-80gb --gpus 8
    """
    from vlm_rl.cli_plan import planned

    raise typer.Exit(planned(load(TrainConfig, config, overrides or []), gpu, gpus, Screen().print, json_file))


@app.command()
def sft(config: ConfigPath, overrides: Overrides = None) -> None:
    """Fine-tune on rows with a 'response': warm starts and demonstrations. Resumes like train.

    Example: vlm-rl sft configs/lab/warm_start.yaml run_dir=runs/warm
    """
    checked = load(SftConfig, config, overrides or [])
    from vlm_rl.cli_sft import sft as run

    run(checked)


@app.command("eval")
def evaluate(config: ConfigPath, overrides: Overrides = None) -> None:
    """Measure a model: accuracy by the benchmark's own metric, and whatever evaluators the config names. Goes on where it was stopped.

    The model is a directory, hub id or LoRA adapter directory, or an OpenAI-compatible endpoint: model=http://HOST:PORT/v1#NAME. Without
    one it is the shipped small policy that fits the data.

    Example: vlm-rl eval configs/eval/easy_vqa.yaml model=runs/quickstart/checkpoints/step_200 run_dir=runs/mine
    """
    checked = load_eval(config, overrides or [])
    from vlm_rl.cli_eval import evaluate as run

    run(checked, os.environ)


@app.command()
def stress(config: ConfigPath, overrides: Overrides = None) -> None:
    """The same as eval, for configs that make questions harder: misleading captions and reasoning, corrupted pictures and videos.

    Example: vlm-rl stress configs/stress/captions.yaml model=http://127.0.0.1:8000/v1#qwen
    """
    evaluate(config, overrides)


@app.command()
def regrade(run_dir: Annotated[Path, typer.Argument(help="the directory of an evaluation")]) -> None:
    """Grade and measure the stored answers of an evaluation again, with no model, and write its report and summary."""
    from vlm_rl import cli_eval

    print("\n".join(cli_eval.regrade(run_dir)))


@app.command()
def merge(
    source: Annotated[Path, typer.Argument(metavar="RUN|CHECKPOINT", help="a run with model.lora, one of its checkpoints, or an adapter")],
    out: Annotated[Path, typer.Option(help="a new or empty directory for the whole model")],
) -> None:
    """Write a LoRA adapter into the weights of its model: a Hugging Face directory that transformers, vLLM and train load.

    Example: vlm-rl merge runs/mine --out runs/mine/merged
    """
    from vlm_rl.cli_merge import merge as run

    print("\n".join(run(source, out)))


@app.command()
def report(
    run_dirs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="directories of runs: of training, eval or stress")],
    out: Annotated[Path, typer.Option(help="where the comparison of several runs is written")] = Path("comparison"),
) -> None:
    """Write the report of a run again, finished or not; or compare several, the first with each other, on the questions all were asked.

    Example: vlm-rl report runs/eval_before runs/eval_after --out runs/comparison
    """
    from vlm_rl import cli_report

    print(cli_report.report(run_dirs, out))


@data_app.command()
def check(
    config: ConfigPath,
    overrides: Overrides = None,
    most: Annotated[int, typer.Option(min=0, help="bad rows to print for each data set; 0 prints all")] = 1000,
) -> None:
    """Try every row of a config's data: media decode, an answer is there, its own verifier accepts it. Exits with 1 on bad rows.

    Works on configs of train, sft and eval. Example: vlm-rl data check configs/quickstart.yaml data.name=jsonl data.path=rows.jsonl
    """
    from vlm_rl import cli_data

    raise typer.Exit(cli_data.check(cli_data.load_any(config, overrides or []), most))


@data_app.command()
def show(
    config: ConfigPath,
    overrides: Overrides = None,
    rows: Annotated[int, typer.Option(min=1, help="rows to show of each data set")] = 24,
    out: Annotated[Path, typer.Option(help="where to write the page")] = Path("sheet.html"),
    views: Annotated[str, typer.Option(help="views to show beside each row; + makes one view of several")] = "",
    severity: Annotated[int, typer.Option(min=1, max=5, help="how hard these views change pictures and frames")] = 3,
) -> None:
    """Write rows as a self-contained HTML page: pictures, frames of videos, prompt, options with the right one marked, answer, meta.

    Example: vlm-rl data show configs/quickstart.yaml --rows 12 --views options_permuted,caption_wrong+image_blur
    """
    from vlm_rl import cli_data

    seen = cli_data.views_of(views)
    print(cli_data.show(cli_data.load_any(config, overrides or []), config, rows, out, seen, severity))


@data_app.command()
def bench(
    config: ConfigPath,
    overrides: Overrides = None,
    rows: Annotated[int, typer.Option(min=1, help="rows to measure on, of each data set")] = 200,
) -> None:
    """Measure how fast rows are read, media decoded and prompts processed on this machine."""
    from vlm_rl import cli_bench, cli_data

    cli_bench.bench(cli_data.load_any(config, overrides or []), rows)


@lab_app.command("run")
def lab_run(
    claim: Annotated[str, typer.Argument(metavar="CLAIM", help="a YAML file, for instance configs/claims/tradeoff.yaml")],
    quick: Annotated[bool, typer.Option("--quick", help="the short form: less training, fewer questions")] = False,
    seeds: Annotated[str, typer.Option(metavar="0,1", help="only these of the registered seeds")] = "",
    jobs: Annotated[int, typer.Option(min=1, help="processes at once, each on one core")] = os.cpu_count() or 1,
    out: Annotated[Path, typer.Option(help="where trainings, evaluations and results are kept")] = Path("runs/lab"),
    docs: Annotated[Path | None, typer.Option(help="also write the page, its picture and its numbers here")] = None,
) -> None:
    """Test a claim: train its arms over several seeds, evaluate them, say whether it holds. Goes on where it stopped.

    Example: vlm-rl lab run configs/claims/tradeoff.yaml --quick
    """
    from vlm_rl import cli_lab_run

    options = cli_lab_run.Options(quick, cli_lab_run.numbers(seeds), jobs, out, docs)
    whole, said = cli_lab_run.run(claim, options, os.environ)
    print(said)
    raise typer.Exit(0 if whole else 1)


@lab_app.command()
def judge(
    kind: Annotated[str, typer.Option(help="honest, noisy or hackable")] = "honest",
    noise: Annotated[float, typer.Option(min=0, max=1, help="share of opinions that a noisy judge draws at random")] = 0.2,
    hack: Annotated[str, typer.Option(help="what wins a hackable judge over: length, flattery or boxes")] = "length",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = 0,
    seed: Annotated[int, typer.Option(help="of a noisy judge's draws")] = 0,
) -> None:
    """Serve a judge that knows the truth about generated scenes, over OpenAI's chat protocol, on this machine only, until Ctrl-C.

    Prints one line of JSON when it is ready; its url and model are what a config's judges: section takes.

    Example: vlm-rl lab judge --kind noisy --noise 0.3 --port 8008
    """
    from vlm_rl import cli_lab

    cli_lab.judge(kind, noise, hack, port, seed, lambda line: print(line, flush=True))


@judge_app.command("eval")
def judge_eval(config: ConfigPath, overrides: Overrides = None) -> None:
    """Agreement with gold scores, calibration, best-of-N accuracy and acceptance of empty answers, of every judge of a config.

    Example: vlm-rl judge eval configs/judge/eval.yaml judges.exact.url=http://127.0.0.1:8765/v1
    """
    from vlm_rl import cli_judge_eval

    report, words = cli_judge_eval.judge_eval(load(JudgeEvalConfig, config, overrides or []), os.environ)
    print("\n".join([*words, str(report)]))


@judge_app.command("stress")
def judge_stress(config: ConfigPath, overrides: Overrides = None) -> None:
    """What wins a judge over: empty answers, instructions to it, length, flattery, boxes. False-positive rates of every judge of a config.

    Example: vlm-rl judge stress configs/judge/stress.yaml judges.exact.url=http://127.0.0.1:8765/v1
    """
    from vlm_rl import cli_judge_eval

    report, words = cli_judge_eval.judge_stress(load(JudgeEvalConfig, config, overrides or []), os.environ)
    print("\n".join([*words, str(report)]))


@make_app.command("scenes")
def make_scenes(
    out: Annotated[Path, typer.Option(help="a new or empty directory, or one that the same command began to fill")],
    world: Annotated[list[str] | None, typer.Option(help="pictures (the default), charts or clips; may be repeated")] = None,
    split: Annotated[str, typer.Option(help="train, test, test_pairs (unseen pairs) or test_more (one shape more)")] = "train",
    count: Annotated[int, typer.Option(help="rows of each world")] = 1000,
    seed: Annotated[int, typer.Option(help="other rows for other seeds")] = 0,
) -> None:
    """Write generated scenes with their exact truth: rows.jsonl, PNG and mp4 files, and a README. Goes on where it stopped.

    Example: vlm-rl data make scenes --world pictures --world clips --split train --count 1000 --out scenes
    """
    from vlm_rl import cli_data

    print(cli_data.make_scenes(world or ["pictures"], split, count, seed, out))


@app.command()
def version() -> None:
    """Print the version."""
    print(f"vlm-rl {__version__}")


def main() -> None:
    """Run a command; see `run_guarded`."""
    run_guarded(app)
