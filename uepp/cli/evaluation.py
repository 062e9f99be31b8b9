"""`uepp evaluate` and `uepp study`."""

from pathlib import Path
from typing import Annotated

import typer

from uepp.cli.app import (
    JsonOption,
    RunArgument,
    app,
    print_json,
    progress_console,
    result_console,
    say,
    show_metrics,
    working,
)
from uepp.config import shipped_studies
from uepp.errors import InputError


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
            help="Opponents, comma-separated: bm25 (tuned), bm25_quality (times products' quality), bm25_stemmed, "
            "bm25_plain, bm25_title (the title only), bm25_expanded (where a model generated queries), random_walk, "
            "category_popularity, own_history, popularity, fusion (of the run and bm25), uepp_boost (where the run is "
            "boosted), uepp_rerank (where it has a ranker), uepp_query and uepp_place (told less of who asks). "
            "\\[default: all but bm25_title, popularity, fusion, uepp_query and uepp_place, as far as the data have "
            "what they need]",
        ),
    ] = None,
    metrics: Annotated[
        str,
        typer.Option(
            "--metrics",
            metavar="A,B",
            help="Measures to print, a table each: recall, ndcg, precision, mrr, auroc. metrics.json has all of them, "
            "with intervals, by segment and day.",
        ),
    ] = "recall",
    as_json: JsonOption = False,
) -> None:
    """Recall of a run and its opponents on its report window, or on events it has never seen."""
    from uepp import pipeline
    from uepp.evaluation.measures import MEASURES

    shown = _names(metrics)
    for name in shown:
        if name not in MEASURES:
            raise InputError(f"--metrics {name}: unknown measure; known are {', '.join(MEASURES)}")

    with working():
        names = None if against is None else _names(against)
        found, path = pipeline.evaluate_run(run, progress_console, data=data, events=events, against=names)
    show_metrics(found, as_json, shown)
    if not as_json:
        say(f"\nMetrics: {path}")


@app.command()
def study(
    name: Annotated[
        str, typer.Argument(metavar="STUDY", help=f"YAML file, or one of: {', '.join(shipped_studies())}.")
    ],
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="Data set. \\[default: the configuration's, or a marketplace]"),
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where cells and tables are kept.")] = Path(
        "studies"
    ),
    seeds: Annotated[str | None, typer.Option("--seeds", metavar="1,2", help="Run only these seeds.")] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="VARIANT", help="Run only this one. Repeatable.")
    ] = None,
    jobs: Annotated[
        str,
        typer.Option("--jobs", metavar="N|auto", help="Cells at once; auto: as memory and cores allow."),
    ] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Train variants × seeds, compare them, and keep every cell: started again, a study goes on where it stopped.

    The table shows all of its cells that are there, whatever was asked to run.
    """
    try:
        chosen = [int(seed) for seed in seeds.split(",")] if seeds else []
    except ValueError:
        raise InputError(f"--seeds {seeds}: expected whole numbers with commas between them") from None
    if jobs != "auto" and not (jobs.isdecimal() and int(jobs) > 0):
        raise InputError(f"--jobs {jobs}: expected a whole number of at least 1, or auto")
    from uepp import study as studies

    read = studies.load_study(name)
    with working():
        studies.make_encoders(studies.encoders_of(read, out, data, only or []), out, progress_console)
        cells = studies.cells_of(read, out, data, chosen, only or [])
        shown = studies.with_other_cells(read, out, data, cells)
        at_once = None if jobs == "auto" else int(jobs)
        results = studies.run_study(Path(name).stem, read, cells, out, progress_console, shown=shown, jobs=at_once)
    if as_json:
        print_json(results)
        return
    studies.print_study(results, result_console)
    say("\nStudy: ", (str(out / Path(name).stem), "bold"), "   (results.json, table.md)")


def _names(text: str) -> list[str]:
    """Names with commas between them."""
    return [name.strip() for name in text.split(",") if name.strip()]
