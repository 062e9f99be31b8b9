"""The `uepp` command itself, what its commands share, and how they print."""

import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

import uepp
from uepp.config import shipped_configs

app = typer.Typer(
    name="uepp",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Train, export, search and evaluate personalised product retrieval from a catalogue and a search log.\n\n"
    "Start with [bold]uepp train[/bold]: it generates a marketplace, trains on it and compares with BM25.",
)
progress_console = Console(stderr=True)
"""For what goes on meanwhile: standard output is for results."""
result_console = Console()

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory, made by uepp train.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print only the result, as JSON, on standard output.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, e.g. training.max_steps=500. Repeatable."),
]
ConfigArgument = Annotated[
    str, typer.Argument(metavar="CONFIG", help=f"YAML file, or one of: {', '.join(shipped_configs())}.")
]
DataOption = Annotated[Path | None, typer.Option("--data", metavar="DIR", help="Data set (data.path).")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Continue the run in --run from its checkpoint.")]


def _version(value: bool) -> None:
    if value:
        say(f"uepp {uepp.__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options before the command."""


@contextlib.contextmanager
def working() -> Any:
    """Standard output is for results: what libraries print meanwhile goes to standard error."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def say(*parts: str | tuple[str, str]) -> None:
    """Print texts, or (text, style), as they are: brackets are no markup, and a long path stays in one piece."""
    result_console.print(Text.assemble(*parts), soft_wrap=True)


def print_json(value: Any) -> None:
    """Print a result for programs to read."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def show_metrics(metrics: dict[str, Any], as_json: bool, measures: Sequence[str] = ("recall",)) -> None:
    """Print the closing table of an evaluation, one for each of the measures."""
    if as_json:
        print_json(metrics)
    else:
        from uepp.evaluation.table import print_table

        print_table(metrics, result_console, measures)
