"""`uepp generate`, `uepp import` and `uepp validate`."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from uepp.cli.app import (
    JsonOption,
    app,
    print_json,
    say,
    working,
)
from uepp.errors import InputError


@app.command()
def generate(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="New data set directory.")],
    products: Annotated[int, typer.Option("--products", help="Products in the catalogue.")] = 20_000,
    events: Annotated[int, typer.Option("--events", help="Rows of the log.")] = 1_000_000,
    seed: Annotated[int, typer.Option("--seed")] = 1,
) -> None:
    """Generate a marketplace: a catalogue and a search log with known truth."""
    from uepp.data import marketplace

    with working():
        marketplace.generate(directory, num_products=products, num_events=events, seed=seed)
    say("Data set: ", (str(directory), "bold"))
    say("Next: ", shlex.join(["uepp", "train", "--data", str(directory)]))


@app.command("import")
def import_data(
    name: Annotated[str, typer.Argument(metavar="NAME", help="home-depot or open-ecommerce.")],
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Folder or file as downloaded (csv, csv.gz).")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="New data set directory.")],
    eval_fraction: Annotated[
        float | None,
        typer.Option("--eval-fraction", help="Share of queries kept for evaluation (home-depot). \\[default: 0.2]"),
    ] = None,
) -> None:
    """Turn a public data set into uepp's tables; states its licence and the protocol.

    home-depot reads train.csv of Kaggle's competition, and test.csv, product_descriptions.csv or a products.csv beside
    it; open-ecommerce one csv file of purchases.
    """
    from uepp.data.adapters import ADAPTERS

    if name not in ADAPTERS:
        raise InputError(f"{name}: no such adapter; known are {', '.join(ADAPTERS)}")
    adapter = ADAPTERS[name]
    options: dict[str, Any] = {}
    if eval_fraction is not None:
        if name != "home-depot":
            raise InputError(f"--eval-fraction: {name} is split by date; only home-depot takes a fraction")
        options["eval_fraction"] = eval_fraction
    with working():
        report = adapter.import_data(source, directory, **options)
    rows = ", ".join(f"{count:,} {table}" for table, count in report.rows.items())
    say("Data set: ", (str(directory), "bold"), f" ({rows})")
    for note in report.notes:
        say(f"Note: {note}")
    say(f"Licence: {adapter.LICENCE}\nProtocol: {adapter.PROTOCOL}")
    say("Next: ", shlex.join(["uepp", "train", name.replace("-", "_"), "--data", str(directory)]))


@app.command()
def validate(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Data set: products.parquet and events.parquet.")],
    as_json: JsonOption = False,
) -> None:
    """Check a data set and name file, column, row and value of the first thing that is wrong."""
    from uepp.data import schema

    with working():
        report = schema.validate(directory)
    if as_json:
        print_json({"rows": dict(report.rows), "notes": list(report.notes)})
        return
    for table, count in report.rows.items():
        say(f"{table}: {count:,} rows")
    for note in report.notes:
        say(f"note: {note}")
    say(f"{directory}: valid")
