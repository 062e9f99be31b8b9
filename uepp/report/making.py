"""The story of `uepp report`: what was recorded, some requests ranked again, the figures, the page."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from uepp.artifacts import atomic_file
from uepp.errors import InputError
from uepp.evaluation.requests import load_requests
from uepp.evaluation.systems import SYSTEMS
from uepp.pipeline.evaluation import known_of
from uepp.pipeline.stored import read_run
from uepp.report.gather import OPPONENT, gather
from uepp.report.page import render
from uepp.report.sample import Sample, draw, rank
from uepp.retrieval.export import open_export
from uepp.retrieval.refresh import refuse_refreshed
from uepp.runs.directory import announced

OURS = "uepp"


def make_report(run_dir: Path, studies: Sequence[Path], out: Path | None, console: Console) -> Path:
    """Write the report of a run.

    Args:
        run_dir: evaluated.
        studies: directories with the `results.json` of a study.
        out: file of the page; none: `report.html` in the run. Its figures go to a folder of its name.
        console: for progress.

    Returns:
        Path of the page.

    Raises:
        InputError: not an evaluated run, a study without results, or no page of that name.
    """
    page = run_dir / "report.html" if out is None else out
    if page.suffix != ".html" or page.is_dir():
        raise InputError(f"--out {page}: name a file that ends in .html")
    export = open_export(run_dir)
    refuse_refreshed(export, "a report of the run's own window")
    config, run, mined = read_run(run_dir)
    facts = gather(run_dir, export, config, run, mined, studies)
    known = known_of(run_dir, export, config)
    with announced(console, "ranking of some requests"):
        requests = load_requests(mined / "requests.parquet", "report", known.products)
        rows = draw(requests)
        systems = {name: SYSTEMS[name].fit(known) for name in (OURS, OPPONENT)}
        sample: Sample = rank(systems, requests, rows, known.products)
    with announced(console, "figures and page"):
        html, drawn = render(facts, sample)
        for figure in drawn:
            figure.write(page.with_suffix(""))
        with atomic_file(page) as temporary:
            temporary.write_text(html, encoding="utf-8")
    return page
