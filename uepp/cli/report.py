"""`uepp report`."""

from pathlib import Path
from typing import Annotated

import typer

from uepp.cli.app import RunArgument, app, progress_console, say, working


@app.command()
def report(
    run: RunArgument,
    study: Annotated[
        list[Path] | None,
        typer.Option("--study", metavar="DIR", help="Results of a study, put beside the paper's. Repeatable."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The page. \\[default: RUN/report.html]")
    ] = None,
) -> None:
    """A page that says how much better than BM25, for whom, how sure, and at what cost; with examples, good and bad."""
    with working():
        from uepp.report import make_report

        page = make_report(run, study or [], out, progress_console)
    say("\nReport: ", (str(page), "bold"), f"   (figures: {page.with_suffix('')})")
