"""How commands log: lines to standard error, chatty libraries quieter."""

import logging
import sys
import warnings


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
