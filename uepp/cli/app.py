"""The `uepp` command itself, what its commands share, and how they print."""

import contextlib
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

import uepp
from uepp.config import Config, Given, load_config, shipped_configs
from uepp.errors import InputError

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


def resolve_run(
    config: str,
    settings: Sequence[str] | None,
    data: Path | None,
    run: Path | None,
    resume: bool,
    *,
    prefix: str = "",
    given: Sequence[Given] = (),
) -> tuple[Config, Path]:
    """The configuration and the directory of a run that is to be started or continued.

    Args:
        config: YAML file or shipped name; a resumed run has its own.
        settings: of --set.
        data: of --data.
        run: of --run; none: `runs/` with a name that has the configuration's and the time.
        resume: of --resume.
        prefix: of that name.
        given: what other options set.
    """
    if resume and run is None:
        raise InputError("--resume: give the run to continue with --run DIR")
    if resume and run is not None and (run / "config.yaml").is_file():
        config = str(run / "config.yaml")
    resolved: Config = load_config(config, settings or (), given=[*given, *given_by({"--data": ("data.path", data)})])
    return resolved, run or Path("runs") / f"{prefix}{Path(config).stem}-{datetime.now():%Y%m%d-%H%M%S}"


def given_by(options: Mapping[str, tuple[str, Any]]) -> list[Given]:
    """Settings that options stand for.

    Args:
        options: by name, the key of the setting and its value; none: the option was not given.
    """
    given = []
    for option, (key, value) in options.items():
        stage, name = key.split(".")
        if value is not None:
            given.append(Given(option, {stage: {name: str(value) if isinstance(value, Path) else value}}))
    return given


def say_stopped(command: str, run_dir: Path, step: int, max_steps: int) -> None:
    """Say that a signal ended a training, and how to go on."""
    again = shlex.join(["uepp", *command.split(), "--run", str(run_dir), "--resume"])
    progress_console.print(
        f"Stopped and saved at step {step:,} of {max_steps:,}. Go on with: {again}", markup=False, soft_wrap=True
    )


def verbosity() -> int:
    """Of a training's progress: 1 a bar, where somebody looks; else 2, a line now and then."""
    return 1 if sys.stderr.isatty() else 2
