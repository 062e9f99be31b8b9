"""The `uepp` command. Heavy imports wait until a command needs them, so help and errors come at once."""

import contextlib
import json
import os
import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

import uepp
from uepp.config import Config, load_config, shipped_configs, shipped_studies
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
_progress = Console(stderr=True)
_results = Console()

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


@app.command()
def train(
    config: ConfigArgument = "demo",
    settings: SetOption = None,
    data: DataOption = None,
    run: Annotated[
        Path | None, typer.Option("--run", metavar="DIR", help="Run directory. [default: runs/CONFIG-DATE-TIME]")
    ] = None,
    resume: ResumeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train the two towers, export them, and compare with BM25."""
    resolved, run_dir = _resolve(config, settings, data, run, resume)

    from uepp import pipeline

    with _working():
        trained = pipeline.train(resolved, run_dir, _progress, resume=resume, verbose=_keras_verbosity())
        if not trained.is_complete:
            _say_stopped("train", run_dir, trained.step, resolved.training.max_steps)
        if not (trained.is_complete and trained.is_chief):
            return
        pipeline.export(run_dir, _progress)
        metrics, _ = pipeline.evaluate_run(run_dir, _progress)
    _show_metrics(metrics, as_json)
    if not as_json:
        _say("\nRun: ", (str(run_dir), "bold"), "   (metrics.json, checkpoints/, logs/, export/)")
        _say("Next: ", (shlex.join(["uepp", "search", str(run_dir), _example_query(run_dir)]), "bold"))


@app.command()
def pretrain(
    config: ConfigArgument = "demo",
    settings: SetOption = None,
    data: DataOption = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", metavar="DIR", help="Run directory. [default: runs/pretrain-CONFIG-DATE-TIME]"),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="SOURCE",
            help="No training: write a published sentence encoder in the same form. minilm, or the folder of a BERT "
            "as sentence-transformers saves it.",
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
    resolved, run_dir = _resolve(config, settings, data, run, resume, "pretrain-")
    with _working():
        from uepp.pretraining import run as pretraining

        if source is not None:
            result = pretraining.import_encoder(source, resolved, run_dir, _progress)
        else:
            ended = pretraining.pretrain(resolved, run_dir, _progress, resume=resume, verbose=_keras_verbosity())
            if ended.metrics is None:
                _say_stopped("pretrain", run_dir, ended.step, resolved.pretraining.max_steps)
                return
            result = ended.metrics
    if as_json:
        _print_json(result)
        return
    if source is None:
        _show_pretraining(result)
    encoders = ", ".join(dict.fromkeys([*resolved.model.product_encoders, "text"]))
    arguments = ["uepp", "train", *([] if resume else [config])]
    arguments += ["--data", resolved.data.path] if resolved.data.path is not None else []
    arguments += ["--set", f"text.encoder={run_dir / 'encoder'}", "--set", f"model.product_encoders=[{encoders}]"]
    _say("\nEncoder: ", (str(run_dir / "encoder"), "bold"))
    _say("Next: ", (shlex.join(arguments), "bold"))


@app.command()
def export(
    run: RunArgument,
    index: Annotated[
        str | None, typer.Option("--index", metavar="SPEC", help="flat (exact) or hnsw. [default: export.index]")
    ] = None,
) -> None:
    """Write a trained run's SavedModels, vectors and Faiss index."""
    from uepp import pipeline

    with _working():
        if index is None:
            pipeline.export(run, _progress)
        else:
            pipeline.export_index(run, index, _progress)
    _say("Export: ", (str(run / "export"), "bold"))


@app.command()
def evaluate(
    run: RunArgument,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Report window of another data set.")
    ] = None,
    events: Annotated[
        Path | None, typer.Option("--events", metavar="FILE", help="Every request of this events table.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="A,B",
            help="Opponents, comma-separated: bm25, bm25_expanded (where a model generated queries), bm25_stemmed, "
            "bm25_plain, category_popularity, popularity. "
            "[default: the BM25s, and category_popularity where products have categories]",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Recall of a run and its opponents on its report window, or on events it has never seen."""
    from uepp import pipeline

    with _working():
        names = None if against is None else [name.strip() for name in against.split(",") if name.strip()]
        metrics, path = pipeline.evaluate_run(run, _progress, data=data, events=events, against=names)
    _show_metrics(metrics, as_json)
    if not as_json:
        _say(f"\nMetrics: {path}")


@app.command()
def study(
    name: Annotated[
        str, typer.Argument(metavar="STUDY", help=f"YAML file, or one of: {', '.join(shipped_studies())}.")
    ],
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="Data set. [default: the configuration's, or a marketplace]"),
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where cells and tables are kept.")] = Path(
        "studies"
    ),
    seeds: Annotated[str | None, typer.Option("--seeds", metavar="1,2", help="Only these seeds.")] = None,
    only: Annotated[list[str] | None, typer.Option("--only", metavar="VARIANT", help="Repeatable.")] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Cells at once, each a process.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Train variants × seeds, compare them, and keep every cell: started again, a study goes on where it stopped."""
    try:
        chosen = [int(seed) for seed in seeds.split(",")] if seeds else []
    except ValueError:
        raise InputError(f"--seeds {seeds}: expected whole numbers with commas between them") from None
    from uepp import study as studies

    read = studies.load_study(name)
    with _working():
        cells = studies.cells_of(read, out, data, chosen, only or [])
        results = studies.run_study(Path(name).stem, read, cells, out, _progress, jobs=jobs)
    if as_json:
        _print_json(results)
        return
    studies.print_study(results, _results)
    _say("\nStudy: ", (str(out / Path(name).stem), "bold"), "   (results.json, table.md)")


@app.command()
def search(
    run: RunArgument,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What a customer would type.")],
    k: Annotated[int, typer.Option("--k", help="Number of results.")] = 10,
    user: Annotated[
        str | None, typer.Option("--user", metavar="ID", help="Search as this user, with their history.")
    ] = None,
    country: Annotated[str | None, typer.Option("--country", help="Where they are.")] = None,
    region: Annotated[str | None, typer.Option("--region")] = None,
    language: Annotated[str | None, typer.Option("--language")] = None,
    zip_code: Annotated[str | None, typer.Option("--zip")] = None,
    latitude: Annotated[float | None, typer.Option("--latitude", help="Degrees.")] = None,
    longitude: Annotated[float | None, typer.Option("--longitude", help="Degrees.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Search a run's catalogue, for anybody or for somebody."""
    if k < 1:
        raise InputError(f"--k {k}: must be at least 1")
    given: dict[str, str | float | None] = {
        "country": country, "region": region, "language": language, "zip": zip_code,
        "latitude": latitude, "longitude": longitude,
    }  # fmt: skip
    context = {name: value for name, value in given.items() if value is not None}
    with _working():
        from uepp.serving.search import Searcher

        hits = Searcher(run).search(query, k, user=user, context=context)
    if as_json:
        _print_json({"query": query, "hits": [vars(hit) for hit in hits]})
        return
    for hit in hits:
        _say(f"{hit.similarity:6.3f}  {' '.join(hit.title.split())}  ", (hit.product_id, "dim"))


@app.command()
def generate(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="New data set directory.")],
    products: Annotated[int, typer.Option("--products", help="Products in the catalogue.")] = 20_000,
    events: Annotated[int, typer.Option("--events", help="Rows of the log.")] = 1_000_000,
    seed: Annotated[int, typer.Option("--seed")] = 1,
) -> None:
    """Generate a marketplace: a catalogue and a search log with known truth."""
    from uepp.data import marketplace

    with _working():
        marketplace.generate(directory, num_products=products, num_events=events, seed=seed)
    _say("Data set: ", (str(directory), "bold"))
    _say("Next: ", shlex.join(["uepp", "train", "--data", str(directory)]))


@app.command("import")
def import_data(
    name: Annotated[str, typer.Argument(metavar="NAME", help="home-depot or open-ecommerce.")],
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Folder or file as downloaded (csv, csv.gz).")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="New data set directory.")],
    eval_fraction: Annotated[
        float | None,
        typer.Option("--eval-fraction", help="Share of queries kept for evaluation (home-depot). [default: 0.2]"),
    ] = None,
) -> None:
    """Turn a public data set into uepp's tables; states its licence and the protocol."""
    from uepp.data.adapters import ADAPTERS

    if name not in ADAPTERS:
        raise InputError(f"{name}: no such adapter; known are {', '.join(ADAPTERS)}")
    adapter = ADAPTERS[name]
    options: dict[str, Any] = {}
    if eval_fraction is not None:
        if name != "home-depot":
            raise InputError(f"--eval-fraction: {name} is split by date; only home-depot takes a fraction")
        options["eval_fraction"] = eval_fraction
    with _working():
        report = adapter.import_data(source, directory, **options)
    rows = ", ".join(f"{count:,} {table}" for table, count in report.rows.items())
    _say("Data set: ", (str(directory), "bold"), f" ({rows})")
    for note in report.notes:
        _say(f"Note: {note}")
    _say(f"Licence: {adapter.LICENCE}\nProtocol: {adapter.PROTOCOL}")
    _say("Next: ", shlex.join(["uepp", "train", name.replace("-", "_"), "--data", str(directory)]))


@app.command()
def validate(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Data set: products.parquet and events.parquet.")],
    as_json: JsonOption = False,
) -> None:
    """Check a data set and name file, column, row and value of the first thing that is wrong."""
    from uepp.data import schema

    with _working():
        report = schema.validate(directory)
    if as_json:
        _print_json({"rows": dict(report.rows), "notes": list(report.notes)})
        return
    for table, count in report.rows.items():
        _say(f"{table}: {count:,} rows")
    for note in report.notes:
        _say(f"note: {note}")
    _say(f"{directory}: valid")


def _version(value: bool) -> None:
    if value:
        _say(f"uepp {uepp.__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options before the command."""


@contextlib.contextmanager
def _working() -> Any:
    """Standard output is for results: what libraries print meanwhile goes to standard error."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _say(*parts: str | tuple[str, str]) -> None:
    """Print texts, or (text, style), as they are: brackets are no markup, and a long path stays in one piece."""
    _results.print(Text.assemble(*parts), soft_wrap=True)


def _resolve(
    config: str, settings: list[str] | None, data: Path | None, run: Path | None, resume: bool, prefix: str = ""
) -> tuple[Config, Path]:
    """The configuration and the directory of a run that is to be started or continued."""
    extra = {"data": {"path": str(data)}} if data is not None else {}
    if resume and run is None:
        raise InputError("--resume: give the run to continue with --run DIR")
    if run is None and "TF_CONFIG" in os.environ:
        from uepp.runs.strategies import num_workers

        if num_workers() > 1:
            raise InputError(
                f"--run: needed with {num_workers()} workers (TF_CONFIG), a directory that all of them see"
            )
    if resume and run is not None and (run / "config.yaml").is_file():
        config = str(run / "config.yaml")
    resolved: Config = load_config(config, settings or (), extra)
    return resolved, run or Path("runs") / f"{prefix}{Path(config).stem}-{datetime.now():%Y%m%d-%H%M%S}"


def _say_stopped(command: str, run_dir: Path, step: int, max_steps: int) -> None:
    again = shlex.join(["uepp", command, "--run", str(run_dir), "--resume"])
    _progress.print(
        f"Stopped and saved at step {step:,} of {max_steps:,}. Go on with: {again}", markup=False, soft_wrap=True
    )


def _show_pretraining(metrics: dict[str, Any]) -> None:
    """What the T5 writes for products that it was not trained on, and what that is worth."""
    table = Table("title", "true query", "generated query", box=box.SIMPLE_HEAD)
    for sample in metrics["samples"]:
        table.add_row(*(Text(sample[name]) for name in ("title", "true_query", "generated_query")))
    _results.print(table)
    held_out, ranks = metrics["held_out"], metrics["reciprocal_rank"]
    _say(
        f"Held-out perplexity: {held_out['perplexity']:.1f} a piece "
        f"(unigram model of the queries: {held_out['unigram_perplexity']:.1f})"
    )
    names = {"generated": "generated query", "title_start": "title's first three words", "true_query": "true query"}
    table = Table("mean reciprocal rank by BM25", *names.values(), box=box.SIMPLE_HEAD)
    for index, values in ranks.items():
        table.add_row(f"over {index.replace('_', ' ')}", *(f"{values[name]:.3f}" for name in names))
    _results.print(table)


def _keras_verbosity() -> int:
    return 1 if sys.stderr.isatty() else 2


def _show_metrics(metrics: dict[str, Any], as_json: bool) -> None:
    if as_json:
        _print_json(metrics)
    else:
        from uepp.evaluation.recall import print_table

        print_table(metrics, _results)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _example_query(run_dir: Path) -> str:
    """A frequent training query, so that the command to try next finds something."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    counts = pq.read_table(run_dir / "export" / "query_counts.parquet")
    if not counts.num_rows:
        return "gift"
    return str(counts.column("query")[pc.index(counts.column("count"), pc.max(counts.column("count"))).as_py()])


def main() -> None:
    """Run the command line. Exit codes: 0 done, 2 bad input (one line on standard error), 1 anything else."""
    try:
        app()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
