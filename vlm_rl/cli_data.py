"""`vlm-rl data ...`: looking at rows."""

from data import load_rows
from data.check import check_rows
from rewards import grading
from vlm_rl.config import TrainConfig
from vlm_rl.console import Console


def check(config: TrainConfig) -> int:
    """Print what is wrong, by row id. Returns 1 when anything is."""
    wrong = 0
    with Console(1) as console:
        for name, source in (("data", config.data), ("eval_data", config.eval_data)):
            if source is None:
                continue
            rows = load_rows(source)
            errors = check_rows(rows, grading.gold_problem, lambda done, total: console.phase("checking rows", done, total))
            for error in errors:
                console.message(str(error))
            console.message(f"{name}: {len(rows)} rows of {source.name}, {len(errors)} problems")
            wrong += len(errors)
    return 1 if wrong else 0
