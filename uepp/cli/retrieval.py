"""`uepp export` and `uepp tune`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from uepp.cli.app import JsonOption, RunArgument, app, print_json, progress_console, result_console, say, working
from uepp.index_families import FAMILIES

_CHANGES = ("added", "changed", "unchanged", "gone")


@app.command()
def export(
    run: RunArgument,
    index: Annotated[
        str | None,
        typer.Option(
            "--index",
            metavar="SPEC",
            help=f"{', '.join(FAMILIES)}, with parameters where wanted: hnsw:neighbors=32,ef_search=256; or auto: what "
            "uepp tune chose, else by the number of products. \\[default: export.index]",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="DIR", help="Refresh: a changed catalogue, with the weights that the export has."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a trained run's SavedModels, vectors and Faiss index.

    With --data only the catalogue is new: products that were added or changed are encoded, the others keep their
    vectors. A server that watches takes it up.
    """
    from uepp import pipeline
    from uepp.artifacts import MANIFEST, read_json

    result: dict[str, Any] = {}
    with working():
        if data is not None:
            result = pipeline.refresh(run, data, progress_console, index=index)
        elif index is None:
            pipeline.export(run, progress_console)
        else:
            pipeline.export_index(run, index, progress_console)
        if not result:
            result = {name: fact for name, fact in read_json(run / "export" / MANIFEST).items() if name != "files"}
    if as_json:
        print_json(result)
        return
    if data is not None:
        changes = ", ".join(f"{result['catalogue'][name]:,} {name}" for name in _CHANGES)
        say(f"{result['num_products']:,} products: {changes}   ({result['seconds']:g} s)")
    say("Export: ", (str(run / "export"), "bold"))


@app.command()
def tune(
    run: RunArgument,
    budget_ms: Annotated[
        float, typer.Option("--budget-ms", help="p99 of a query alone on one thread, without the tower.")
    ] = 20.0,
    at: Annotated[
        int | None,
        typer.Option("--at", metavar="K", help="Results that have to be found. \\[default: serving.depth, 200]"),
    ] = None,
    trials: Annotated[int, typer.Option("--trials", min=1, help="Operating points measured, earlier calls' too.")] = 60,
    families: Annotated[
        str | None, typer.Option("--families", metavar="A,B", help=f"Of {', '.join(FAMILIES)}. \\[default: all]")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", help="Begin no trial after so many; the choice follows.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Choose the index and its parameters on the selection window, and serve with them.

    The highest overlap with exact search within the time, by black-box optimisation over families and parameters; then
    a comparison with Faiss' defaults on requests that nothing was tuned on. Called again it goes on where it was.
    """
    from uepp import pipeline

    with working():
        names = None if families is None else [name.strip() for name in families.split(",") if name.strip()]
        result = pipeline.tune(
            run, progress_console, budget_ms=budget_ms, at=at, num_trials=trials, families=names, seconds=seconds
        )
    if as_json:
        print_json(result)
        return
    from uepp.retrieval.ann_report import print_result

    print_result(result, result_console)
    say("\nServes with: ", (result["chosen"], "bold"))
    say("Report: ", (str(run / "tuning" / "report.md"), "bold"), "   (report.json, pareto.svg, trials.jsonl)")
