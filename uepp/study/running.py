"""Running the cells of a study: each in a process of its own, once, and kept."""

import csv
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import uepp
from uepp.artifacts import MANIFEST, atomic_file, fingerprint, read_json, write_json
from uepp.config import Config, TextConfig, load_config, save_config
from uepp.errors import InputError
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
}
"""What a system of a cell is called in the table, after its variant."""


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
            continue
        console.print(f"  text encoder {encoder.name} …", highlight=False, markup=False)
        begin = time.perf_counter()
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            try:
                pool.submit(_make_encoder, encoder.config.model_dump_json(), directory, encoder.source).result()
            except Exception as error:
                log = directory / "log.txt"
                raise InputError(f"text encoder {encoder.name}: could not be made ({error}); {log}") from error
        console.print(f"  text encoder {encoder.name}: {time.perf_counter() - begin:.0f} s", markup=False)


def run_study(
    name: str, study: Study, cells: Sequence[Cell], out: Path, console: Console, *, jobs: int = 1
) -> dict[str, Any]:
    """Run the cells that are missing, and put all of them together.

    Args:
        name: of the study; its results go to `out/NAME/`.
        study: as read.
        cells: of `cells_of`.
        out: holds `cells/KEY/`, of all studies.
        console: for progress.
        jobs: cells at once, each a process of its own.

    Returns:
        What `out/NAME/results.json` holds.

    Raises:
        InputError: some cells failed; the others are kept.
    """
    folder = out / "cells"
    missing = list({cell.key: cell for cell in cells if _kept(cell, folder) is None}.values())
    failed = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        Progress(*columns, TimeRemainingColumn(), console=console) as progress,
        ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool,
    ):
        task = progress.add_task(name, total=len(cells), completed=len(cells) - len(missing))
        running = {
            pool.submit(_run_cell, cell.config.model_dump_json(), folder / cell.name, cell.also): cell
            for cell in missing
        }
        for future in as_completed(running):
            cell = running[future]
            progress.advance(task)
            try:
                future.result()
                progress.console.print(f"  {_line(cell, read_json(folder / cell.name / _METRICS))}", highlight=False)
            except Exception as error:
                failed.append(cell)
                log = folder / cell.name / "log.txt"
                progress.console.print(f"  {cell.variant}, seed {cell.seed}: failed ({error}); {log}", markup=False)
    done = [cell for cell in cells if _kept(cell, folder) is not None]
    results = _collect(study, done, folder)
    if done and study.against:
        results["opponents"] = _opponents(study, done, folder, console)
    write_json(out / name / "results.json", results)
    with atomic_file(out / name / "table.md") as path:
        path.write_text(markdown(results), encoding="utf-8")
    if failed:
        raise InputError(f"{out / name}: {len(failed)} of {len(cells)} cells failed; run the study again to retry them")
    return results


def _make_encoder(settings: str, directory: Path, source: str | None) -> None:
    """Pretrain (or import) in a process of its own; the encoder and the figures of its training are kept."""
    console = _logged(directory)

    from uepp.pretraining import run as pretraining

    config, run_dir = Config.model_validate_json(settings), directory / "run"
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
    shutil.rmtree(run_dir)


def _kept(cell: Cell, folder: Path) -> Path | None:
    """Directory of a cell that is there, with at least the systems that are asked for; none: it is to be run."""
    for metrics in sorted(folder.glob(f"{cell.key}*/{_METRICS}")):
        if {"uepp", *cell.also} <= read_json(metrics)["report"]["systems"].keys():
            return metrics.parent
    return None


def _run_cell(settings: str, directory: Path, against: Sequence[str] = ()) -> None:
    """Train, export and evaluate in a process of its own; only the figures are kept.

    Args:
        settings: the configuration as JSON.
        directory: of the cell; `metrics.json` is written last.
        against: other systems; BM25 is tuned only if there are any, and the run is boosted where it is among them.
    """
    console = _logged(directory)

    from uepp import pipeline

    config, run_dir = Config.model_validate_json(settings), directory / "run"
    seconds: dict[str, float] = {}
    clock = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal clock
        seconds[name], clock = time.perf_counter() - clock, time.perf_counter()

    trained = _started(pipeline.train, config, run_dir, console)
    lap("train")
    if not trained.is_complete:
        raise RuntimeError("stopped by a signal")
    seconds["step"] = _step_seconds(run_dir)
    pipeline.export(run_dir, console, tune=bool(against))
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
    save_config(config, directory / "config.yaml")
    write_json(directory / _METRICS, {**windows, "seconds": seconds})
    shutil.rmtree(run_dir)


def _logged(directory: Path) -> Console:
    """Send all that this process prints to the cell's log."""
    directory.mkdir(parents=True, exist_ok=True)
    log = (directory / "log.txt").open("a", encoding="utf-8")
    os.dup2(log.fileno(), sys.stdout.fileno())
    os.dup2(log.fileno(), sys.stderr.fileno())
    return Console(file=log, width=120)


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
    """Figures of the opponents on each data set that the cells use, from one short training each, kept too."""
    found: dict[str, Any] = {}
    for cell in {cell.config.data.model_dump_json(): cell for cell in reversed(cells)}.values():
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
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                pool.submit(_run_cell, config.model_dump_json(), folder / key, study.against).result()
        metrics = read_json(path)
        for name in study.against:
            found[name] = {window: metrics[window]["systems"][name] for window in ("selection", "report")}
    return found


def _collect(study: Study, cells: Sequence[Cell], folder: Path) -> dict[str, Any]:
    variants: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        directory = _kept(cell, folder) or folder / cell.name
        metrics = read_json(directory / _METRICS)
        for system in ("uepp", *cell.also):
            variants.setdefault(_ROW_NAMES[system].format(cell.variant), []).append(
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
    }


def _line(cell: Cell, metrics: dict[str, Any]) -> str:
    recall = metrics["report"]["systems"]["uepp"]["all"]
    figures = "  ".join(f"{name} {value:.3f}" for name, value in recall.items() if name.startswith("recall"))
    return f"{cell.variant}, seed {cell.seed}: {figures}  ({metrics['seconds']['train']:.0f} s)"
