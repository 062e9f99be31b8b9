"""`uepp export`."""

from typing import Annotated

import typer

from uepp.cli.app import RunArgument, app, progress_console, say, working
from uepp.index_families import FAMILIES


@app.command()
def export(
    run: RunArgument,
    index: Annotated[
        str | None,
        typer.Option(
            "--index",
            metavar="SPEC",
            help=f"{', '.join(FAMILIES)}, with parameters where wanted: hnsw:neighbors=32,ef_search=256; or auto: by "
            "the number of products. [default: export.index]",
        ),
    ] = None,
) -> None:
    """Write a trained run's SavedModels, vectors and Faiss index."""
    from uepp import pipeline

    with working():
        if index is None:
            pipeline.export(run, progress_console)
        else:
            pipeline.export_index(run, index, progress_console)
    say("Export: ", (str(run / "export"), "bold"))
