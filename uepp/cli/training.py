"""`uepp train` and `uepp pretrain`."""

import os
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from uepp.artifacts import read_json
from uepp.cli.app import (
    ConfigArgument,
    DataOption,
    JsonOption,
    ResumeOption,
    SetOption,
    app,
    print_json,
    progress_console,
    resolve_run,
    result_console,
    say,
    say_stopped,
    show_metrics,
    verbosity,
    working,
)
from uepp.config import Config
from uepp.errors import InputError


@app.command()
def train(
    config: ConfigArgument = "demo",
    settings: SetOption = None,
    data: DataOption = None,
    run: Annotated[
        Path | None, typer.Option("--run", metavar="DIR", help="Run directory. \\[default: runs/CONFIG-DATE-TIME]")
    ] = None,
    resume: ResumeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train the two towers, export them, and compare with BM25."""
    _refuse_workers_without_run(run, resume)
    resolved, run_dir = resolve_run(config, settings, data, run, resume)

    from uepp import pipeline

    with working():
        trained = pipeline.train(resolved, run_dir, progress_console, resume=resume, verbose=verbosity())
        if not trained.is_complete:
            say_stopped("train", run_dir, trained.step, resolved.training.max_steps)
        if not (trained.is_complete and trained.is_chief):
            return
        pipeline.export(run_dir, progress_console)
        metrics, _ = pipeline.evaluate_run(run_dir, progress_console)
    show_metrics(metrics, as_json)
    if not as_json:
        say("\nRun: ", (str(run_dir), "bold"), "   (metrics.json, checkpoints/, logs/, export/)")
        say("Next: ", (shlex.join(["uepp", "search", str(run_dir), _example_query(run_dir)]), "bold"))


@app.command()
def pretrain(
    config: ConfigArgument = "demo",
    settings: SetOption = None,
    data: DataOption = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", metavar="DIR", help="Run directory. \\[default: runs/pretrain-CONFIG-DATE-TIME]"),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="SOURCE",
            help="No training: write a published sentence encoder in the same form. minilm, the folder of a BERT as "
            "sentence-transformers saves it, or a BERT preset of KerasHub (its name or folder).",
        ),
    ] = None,
    resume: ResumeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a text encoder for the product tower.

    A T5 learns to write the query that a product is bought for (docT5query); its encoder is kept. The settings are
    [bold]pretraining.*[/bold] and [bold]text.fields[/bold], the product fields that are read. It ends with queries
    for products that it was not trained on, and with the command that trains the towers with the encoder.
    """
    if source is not None and (data is not None or resume):
        raise InputError("--from: writes an encoder as it is; leave out --data and --resume")
    _refuse_workers_without_run(run, resume)
    resolved, run_dir = resolve_run(config, settings, data, run, resume, prefix="pretrain-")
    with working():
        from uepp.pretraining import run as pretraining

        if source is not None:
            result = pretraining.import_encoder(source, resolved, run_dir, progress_console)
        else:
            ended = pretraining.pretrain(resolved, run_dir, progress_console, resume=resume, verbose=verbosity())
            if ended.metrics is None:
                say_stopped("pretrain", run_dir, ended.step, resolved.pretraining.max_steps)
                return
            result = ended.metrics
    if as_json:
        print_json(result)
        return
    if source is None:
        _show_pretraining(result)
    say("\nEncoder: ", (str(run_dir / "encoder"), "bold"))
    say("Next: ", (shlex.join(_train_command(resolved, run_dir)), "bold"))


def _refuse_workers_without_run(run: Path | None, resume: bool) -> None:
    """Several workers have to share a run directory, so it must have been named."""
    if run is None and not resume and "TF_CONFIG" in os.environ:
        from uepp.runs.strategies import num_workers

        if num_workers() > 1:
            raise InputError(
                f"--run: needed with {num_workers()} workers (TF_CONFIG), a directory that all of them see"
            )


def _train_command(config: Config, run_dir: Path) -> list[str]:
    """What trains towers with a new encoder: its run's own configuration has all that it was pretrained with."""
    arguments = ["uepp", "train", str(run_dir / "config.yaml")]
    data = read_json(run_dir / "run.json").get("data") if config.data.path is None else None
    arguments += [] if data is None else ["--data", data]
    encoders = ", ".join(dict.fromkeys([*config.model.product_encoders, "text"]))
    return [*arguments, "--set", f"text.encoder={run_dir / 'encoder'}", "--set", f"model.product_encoders=[{encoders}]"]


def _show_pretraining(metrics: dict[str, Any]) -> None:
    """What the T5 writes for products that it was not trained on, and what that is worth."""
    table = Table("title", "true query", "generated query", box=box.SIMPLE_HEAD)
    for sample in metrics["samples"]:
        table.add_row(*(Text(sample[name]) for name in ("title", "true_query", "generated_query")))
    result_console.print(table)
    held_out, ranks = metrics["held_out"], metrics["reciprocal_rank"]
    say(
        f"Held-out perplexity: {held_out['perplexity']:.1f} a piece "
        f"(unigram model of the queries: {held_out['unigram_perplexity']:.1f})"
    )
    names = {"generated": "generated query", "title_start": "title's first three words", "true_query": "true query"}
    table = Table("mean reciprocal rank by BM25", *names.values(), box=box.SIMPLE_HEAD)
    for index, values in ranks.items():
        table.add_row(f"over {index.replace('_', ' ')}", *(f"{values[name]:.3f}" for name in names))
    result_console.print(table)


def _example_query(run_dir: Path) -> str:
    """A frequent training query, so that the command to try next finds something."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    counts = pq.read_table(run_dir / "export" / "query_counts.parquet")
    if not counts.num_rows:
        return "gift"
    return str(counts.column("query")[pc.index(counts.column("count"), pc.max(counts.column("count"))).as_py()])
