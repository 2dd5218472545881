"""What every command begins with: where log lines go, which modules can be named; and how an OSError is told."""

import errno
import importlib
import logging
import sys
import warnings
from pathlib import Path


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
