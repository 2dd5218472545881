"""What stands around every command: where log lines go, which modules can be named, errors without tracebacks, exit statuses."""

import errno
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from rich.console import Console as Screen

from vlm_rl.errors import UserError

INTERRUPTED = 130


class LiveHandler(logging.Handler):
    """Log lines to standard error as it is at that moment: a progress bar takes its place while it is shown, and prints them above."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


def set_up_logging() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", handlers=[LiveHandler()])
    for chatty in ("httpx", "httpx2", "matplotlib", "absl"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # Some libraries import DeepSpeed where it is installed, and it remarks on a machine without a GPU, in the middle of a run.
    logging.getLogger("DeepSpeed").addFilter(lambda record: "Setting accelerator to CPU" not in record.getMessage())
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def let_user_modules_in() -> None:
    """Rewards named module:Name may lie in the working directory; a data/ or rewards.py there must not hide this project's packages."""
    here = Path.cwd()
    if here != Path(__file__).resolve().parent.parent:
        sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != here.resolve()]
    for package in ("data", "eval", "rewards"):
        importlib.import_module(package)
    sys.path.append(str(here))


def in_words(error: OSError) -> str:
    place = f"{error.filename}: " if error.filename else ""
    hint = "; free some space and run the same command again" if error.errno == errno.ENOSPC else ""
    return f"{place}{error.strerror or error}{hint}"


def run_guarded(app: Callable[[], object]) -> None:
    """Run a command; what the user can mend is printed without a traceback (exit 2), Ctrl-C says how to go on (exit 130)."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    set_up_logging()
    screen = Screen(stderr=True, soft_wrap=True)
    try:
        let_user_modules_in()
        app()
    except UserError as error:
        screen.print(f"error: {error}", style="red", markup=False, highlight=False)
        sys.exit(2)
    except OSError as error:
        logging.getLogger(__name__).debug("the error came from:", exc_info=True)
        screen.print(f"error: {in_words(error)}", style="red", markup=False, highlight=False)
        sys.exit(2)
    except (KeyboardInterrupt, SystemExit) as error:
        # typer has already turned a Ctrl-C inside a command into this exit status.
        if isinstance(error, SystemExit) and error.code != INTERRUPTED:
            raise
        where = {"checkpoint": ("train", "sft"), "saved answers": ("eval", "stress"), "kept results": ("lab",)}
        resumes = [what for what, commands in where.items() if sys.argv[1:2] and sys.argv[1] in commands]
        screen.print("stopped" + (f"; the same command goes on from the newest {resumes[0]}" if resumes else ""), markup=False)
        sys.exit(INTERRUPTED)
