"""Running the cells of a study: each in a process of its own, once, and kept."""

import csv
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import uepp
from uepp.artifacts import MANIFEST, atomic_file, fingerprint, read_json, write_json
from uepp.config import Config, TextConfig, load_config, save_config
from uepp.errors import InputError
from uepp.evaluation.systems import LABELS, needs_tuned_bm25
from uepp.runs.directory import made_alone, read_costs
from uepp.runs.processes import Task, run_all, run_one
from uepp.study.definition import Cell, EncoderCell, Study, cell_key
from uepp.study.table import markdown

_METRICS = "metrics.json"
_BOOSTED = "uepp_boost"
_ROW_NAMES = {
    "uepp": "{}",
    _BOOSTED: "{}, boosted",
    "uepp_query": "{}, told the query alone",
    "uepp_place": "{}, told query and place",
    "fusion": "{}, with tuned BM25 (RRF)",
    "bm25_expanded": "BM25, tuned, with the queries of {}",
}
"""What a system of a cell is called in the table, after its variant."""


class Kept(NamedTuple):
    """A cell that is there.

    Attributes:
        directory: that holds it.
        metrics: what its `metrics.json` holds.
    """

    directory: Path
    metrics: dict[str, Any]


def make_encoders(encoders: Sequence[EncoderCell], out: Path, console: Console) -> None:
    """Make the text encoders that are missing, one after another.

    Args:
        encoders: of `encoders_of`.
        out: holds `cells/KEY/encoder`, of all studies.
        console: for progress.

    Raises:
        InputError: one could not be made; its `log.txt` says why.
    """
    for encoder in encoders:
        directory = out / "cells" / encoder.key
        if (directory / "encoder" / MANIFEST).is_file():
            _remove_run(directory)
            continue
        console.print(f"  text encoder {encoder.name} …", highlight=False, markup=False)
        begin = time.perf_counter()
        task = _task(directory, _make_encoder, encoder.config.model_dump_json(), directory, encoder.source)
        try:
            run_one(task)
        except InputError as error:
            raise InputError(f"text encoder {encoder.name}: could not be made ({error}); {task.log}") from None
        console.print(f"  text encoder {encoder.name}: {time.perf_counter() - begin:.0f} s", markup=False)


def run_study(
    name: str,
    study: Study,
    cells: Sequence[Cell],
    out: Path,
    console: Console,
    *,
    shown: Sequence[Cell] = (),
    jobs: int | None = 1,
) -> dict[str, Any]:
    """Run the cells that are missing, and put all of them together.

    Args:
        name: of the study; its results go to `out/NAME/`.
        study: as read.
        cells: of `cells_of`, those to run.
        out: holds `cells/KEY/`, of all studies.
        console: for progress.
        shown: of `with_other_cells`, what else the table shows of what is there; none: `cells` alone.
        jobs: cells at once, each a process of its own; none: as many as memory and cores allow.

    Returns:
        What `out/NAME/results.json` holds.

    Raises:
        InputError: some cells failed; the others are kept.
    """
    folder = out / "cells"
    shown = shown or cells
    kept = _kept(shown, folder)
    missing = list({cell.key: cell for cell in cells if cell.key not in kept}.values())
    tasks = [
        _task(folder / cell.name, _run_cell, cell.config.model_dump_json(), folder / cell.name, cell.also)
        for cell in missing
    ]
    failed = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        bar = progress.add_task(name, total=len(cells), completed=len(cells) - len(missing))

        def on_end(number: int, error: str | None) -> int | None:
            cell = missing[number]
            progress.advance(bar)
            if error is not None:
                failed.append(cell)
                text = f"  {cell.variant}, seed {cell.seed}: failed ({error}); {tasks[number].log}"
                progress.console.print(text, markup=False)
                return None
            metrics = read_json(folder / cell.name / _METRICS)
            progress.console.print(f"  {_line(cell, metrics)}", highlight=False, markup=False)
            kept[cell.key] = Kept(folder / cell.name, metrics)
            return _peak(kept[cell.key])

        peak = max((_peak(kept[cell.key]) for cell in cells if cell.key in kept), default=0)
        run_all(tasks, on_end, jobs=jobs, peak=peak)
    # What another process has made meanwhile is there too; it may have ended before, and nobody else would show it.
    results = _collect(study, shown, _kept(shown, folder))
    _write(results, out / name)
    done = [cell for cell in shown if cell.key in kept]
    if done and study.against:
        opponents = _opponents(study, done, folder, console)
        results = {**_collect(study, shown, _kept(shown, folder)), "opponents": opponents}
        _write(results, out / name)
    if failed:
        raise InputError(f"{out / name}: {len(failed)} of {len(cells)} cells failed; run the study again to retry them")
    return results


def _write(results: dict[str, Any], directory: Path) -> None:
    write_json(directory / "results.json", results)
    with atomic_file(directory / "table.md") as path:
        path.write_text(markdown(results), encoding="utf-8")


def _peak(kept: Kept) -> int:
    """Bytes of memory that a cell took at most; 0: not known."""
    return int(kept.metrics.get("peak_memory_bytes", 0))


def _task(directory: Path, function: Callable[..., None], *arguments: Any) -> Task:
    return Task(directory / "log.txt", function, arguments)


def _make_encoder(settings: str, directory: Path, source: str | None, console: Console) -> None:
    """Pretrain (or import) in a process of its own; the encoder and the figures of its training are kept."""
    from uepp.pretraining import run as pretraining

    config, run_dir = Config.model_validate_json(settings), directory / "run"
    with made_alone(directory, console):
        if (directory / "encoder" / MANIFEST).is_file():
            return
        begin = time.perf_counter()
        if source is not None:
            shutil.rmtree(run_dir, ignore_errors=True)
            metrics = pretraining.import_encoder(source, config, run_dir, console)
        else:
            ended = _started(pretraining.pretrain, config, run_dir, console)
            if ended.metrics is None:
                raise RuntimeError("stopped by a signal")
            metrics = ended.metrics
        write_json(directory / _METRICS, {**metrics, "total_seconds": time.perf_counter() - begin})
        (run_dir / "encoder").rename(directory / "encoder")
        _remove_run(directory)


def _kept(cells: Sequence[Cell], folder: Path) -> dict[str, Kept]:
    """By key, the cells that are there with at least the systems that are asked for; the others are to be run."""
    found = {}
    for cell in {cell.key: cell for cell in cells}.values():
        for path in sorted(folder.glob(f"{cell.key}*/{_METRICS}")):
            metrics = read_json(path)
            if {"uepp", *cell.also} <= metrics["report"]["systems"].keys():
                _remove_run(path.parent)
                found[cell.key] = Kept(path.parent, metrics)
                break
    return found


def _remove_run(directory: Path) -> None:
    """Of a cell whose figures are there; a process that was killed before it did so left it, gigabytes maybe."""
    shutil.rmtree(directory / "run", ignore_errors=True)  # whoever is first, of several studies


def _run_cell(settings: str, directory: Path, against: Sequence[str], console: Console) -> None:
    """Train, export and evaluate in a process of its own; only the figures are kept.

    Args:
        settings: the configuration as JSON.
        directory: of the cell; `metrics.json` is written last.
        against: other systems; BM25 is tuned only where one reads its settings, and the run is boosted where it is
            among them.
        console: for progress.
    """
    with made_alone(directory, console):
        if not (directory / _METRICS).is_file():
            _measure_cell(Config.model_validate_json(settings), directory, against, console)


def _measure_cell(config: Config, directory: Path, against: Sequence[str], console: Console) -> None:
    from uepp import pipeline

    run_dir = directory / "run"
    trained = _started(pipeline.train, config, run_dir, console)
    if not trained.is_complete:
        raise RuntimeError("stopped by a signal")
    # Of all the processes that it took, if it was interrupted.
    spent = read_costs(run_dir)["seconds"]
    train = sum(spent.get(stage, 0.0) for stage in ("mining", "features", "training"))
    seconds = {"train": train, "step": _step_seconds(run_dir)}
    clock = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal clock
        seconds[name], clock = time.perf_counter() - clock, time.perf_counter()

    pipeline.export(run_dir, console, tune=any(map(needs_tuned_bm25, against)))
    lap("export")
    others = list(against)
    if _BOOSTED in against:
        if not pipeline.boost(run_dir, console)["is_boosted"]:
            others.remove(_BOOSTED)
        lap("boost")
    windows = {}
    for window in ("selection", "report"):
        metrics, _ = pipeline.evaluate_run(run_dir, console, against=others, window=window)
        windows[window] = {key: metrics[key] for key in ("systems", "segments", "num_requests", "num_days")}
        systems = windows[window]["systems"]
        for name, locality in metrics["locality"].items():
            systems[name]["locality"] = locality
        # Where no weights beat similarity alone, a boosted run is what it was.
        systems |= {name: systems["uepp"] for name in against if name not in systems}
    lap("evaluate")
    peak = read_costs(run_dir)["peak_memory_bytes"]
    save_config(config, directory / "config.yaml")
    write_json(directory / _METRICS, {**windows, "seconds": seconds, "peak_memory_bytes": peak})
    _remove_run(directory)


def _step_seconds(run_dir: Path) -> float:
    """Median time of a training step."""
    with (run_dir / "logs" / "training.csv").open(newline="", encoding="utf-8") as stream:
        speeds = [float(row["examples_per_second"]) for row in csv.DictReader(stream)]
    settings = load_config(str(run_dir / "config.yaml")).training
    return float(settings.batch_size / np.median([speed for speed in speeds if speed > 0] or [np.nan]))


def _started(start: Callable[..., Any], config: Config, run_dir: Path, console: Console) -> Any:
    """Go on with what an interrupted study left, if that is possible."""
    if (run_dir / "config.yaml").is_file():
        try:
            return start(config, run_dir, console, resume=True, verbose=2)
        except InputError as error:
            console.print(f"starting over: {error}", markup=False)
    shutil.rmtree(run_dir, ignore_errors=True)
    return start(config, run_dir, console, verbose=2)


def _opponents(study: Study, cells: Sequence[Cell], folder: Path, console: Console) -> dict[str, Any]:
    """Figures of the opponents on the data of each cell, from one short training for all of like data, kept too."""
    found: dict[str, Any] = {}
    of_data = {cell.config.data.model_dump_json(): cell for cell in reversed(cells)}
    for cell in of_data.values():
        # The towers are not looked at: one step of the smallest is enough for an export, which the opponents read.
        short = {"seed": 1, "max_steps": 1, "warmup_steps": 0, "teacher_queries": 0, "title_query_share": 0.0}
        smallest = {"product_encoders": ("tokens",), "query_encoders": ("tokens",)}
        config = cell.config.model_copy(
            update={
                "training": cell.config.training.model_copy(update=short),
                "model": cell.config.model.model_copy(update=smallest),
                "text": TextConfig(),
            }
        )
        key = fingerprint("opponents", study.against, cell_key(config, cell.data))
        path = folder / key / _METRICS
        if not path.is_file():
            console.print("  opponents …", highlight=False)
            run_one(_task(folder / key, _run_cell, config.model_dump_json(), folder / key, study.against))
        _remove_run(folder / key)
        metrics = read_json(path)
        for name in study.against:
            row = name if len(of_data) == 1 else f"{LABELS[name]}, data of {cell.variant}"
            found[row] = {window: metrics[window]["systems"][name] for window in ("selection", "report")}
    return found


def _collect(study: Study, cells: Sequence[Cell], kept: dict[str, Kept]) -> dict[str, Any]:
    variants: dict[str, list[dict[str, Any]]] = {}
    references: dict[str, str] = {}
    lexical: dict[str, None] = {}
    for cell in cells:
        if cell.key not in kept:
            continue
        directory, metrics = kept[cell.key]
        for system in ("uepp", *cell.also):
            row = _ROW_NAMES[system].format(cell.variant)
            if system == "bm25_expanded":
                lexical[row] = None
            reference = study.reference_of(cell.variant) if system == "uepp" else cell.variant
            if reference is not None:
                references[row] = reference
            variants.setdefault(row, []).append(
                {
                    "seed": cell.seed,
                    "cell": directory.name,
                    "seconds": metrics["seconds"] if system == "uepp" else {},
                    **{window: metrics[window]["systems"][system] for window in ("selection", "report")},
                }
            )
    return {
        "description": study.description,
        "uepp_version": uepp.__version__,
        "columns": study.columns,
        "variants": variants,
        "references": references,
        "lexical": list(lexical),
    }


def _line(cell: Cell, metrics: dict[str, Any]) -> str:
    recall = metrics["report"]["systems"]["uepp"]["all"]
    figures = "  ".join(f"{name} {value:.3f}" for name, value in recall.items() if name.startswith("recall"))
    return f"{cell.variant}, seed {cell.seed}: {figures}  ({metrics['seconds']['train']:.0f} s)"
