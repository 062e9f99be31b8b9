"""The `uepp` command. Heavy imports wait until a command needs them, so help and errors come at once."""

import sys

# A command registers itself when its module is imported; the help lists them in this order.
from uepp.cli import training, retrieval, boosting, serving, engines, evaluation, report, relevance, ranking, data  # isort: skip
from uepp.cli.app import app
from uepp.errors import InputError

__all__ = [
    "app",
    "boosting",
    "data",
    "engines",
    "evaluation",
    "main",
    "ranking",
    "relevance",
    "report",
    "retrieval",
    "serving",
    "training",
]


def main() -> None:
    """Run the command line. Exit codes: 0 done, 2 bad input (one line on standard error), 1 anything else."""
    try:
        app()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
