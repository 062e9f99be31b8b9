"""Studies: named variants × seeds, each a cell that is trained, exported and evaluated once, and kept.

A cell is keyed by the content of its configuration and data, so a study that is started again goes on where it
stopped, and studies share the cells that they have in common.
"""

import json
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

import uepp
from uepp.artifacts import MANIFEST, atomic_file, fingerprint, read_json, sha256, write_json
from uepp.config import Config, TextConfig, load_config, merge_settings, save_config, shipped_studies
from uepp.errors import InputError
from uepp.evaluation.recall import LABELS
from uepp.runs.directory import data_directory

_METRICS = "metrics.json"
_COLUMNS = (
    ("report", "all", "recall@10", "R@10"),
    ("report", "all", "recall@100", "R@100"),
    ("report", "all", "recall@1000", "R@1000"),
    ("report", "head", "recall@100", "head R@100"),
    ("report", "tail", "recall@100", "tail R@100"),
    ("report", "non_repeat", "recall@100", "new R@100"),
    ("selection", "all", "recall@100", "R@100, selection"),
)
"""Window, segment, metric and heading of each column of the table."""


class Study(BaseModel):
    """A study file.

    Attributes:
        description: what it asks, a line.
        config: configuration that all variants start from: a YAML file, or the name of a shipped one.
        settings: what all variants change of it.
        seeds: of training, each a cell of every variant.
        against: opponents, evaluated once.
        variants: by name, what each changes; `config` in it replaces the study's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str = ""
    config: str = "demo"
    settings: dict[str, Any] = Field(default_factory=dict)
    seeds: tuple[int, ...] = Field((1, 2, 3), min_length=1)
    against: tuple[str, ...] = ("bm25",)
    variants: dict[str, dict[str, Any]] = Field(min_length=1)


class Cell(NamedTuple):
    """One training.

    Attributes:
        variant: its name.
        seed: of training.
        config: resolved.
        data: digests of the data set's tables.
        key: of its directory.
    """

    variant: str
    seed: int
    config: Config
    data: list[str]
    key: str


def load_study(source: str) -> Study:
    """Read a study.

    Args:
        source: path of a YAML file, or the name of a shipped one.

    Raises:
        InputError: no such study, not YAML, an unknown key or a wrong value.
    """
    path = Path(source)
    if not path.is_file():
        name = path.name.removesuffix(".yaml")
        if name not in shipped_studies():
            raise InputError(f"{source}: no such study; give a YAML file or one of: {', '.join(shipped_studies())}")
        path = Path(str(resources.files("uepp.configs") / "studies" / f"{name}.yaml"))
    try:
        return Study.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise InputError(f"{path}: {key}: {problem['msg']}; got {str(problem['input'])[:80]}") from None


def cells_of(study: Study, out: Path, data: Path | None, seeds: Sequence[int], variants: Sequence[str]) -> list[Cell]:
    """The cells of a study, seed by seed, so that every variant has a first figure early.

    Args:
        study: as read.
        out: where studies are; a generated marketplace lies there too.
        data: data set; none: that of the configuration, or the generated marketplace.
        seeds: some seeds; none: the study's.
        variants: some variants; none: all.

    Raises:
        InputError: an unknown variant, or a setting that is wrong.
    """
    for name in variants:
        if name not in study.variants:
            raise InputError(f"--only {name}: no such variant; the study has {', '.join(study.variants)}")
    chosen = {name: dict(study.variants[name]) for name in (variants or study.variants)}
    cells, digests = [], {}
    for seed in seeds or study.seeds:
        for name, changes in chosen.items():
            settings = merge_settings(study.settings, {key: value for key, value in changes.items() if key != "config"})
            settings = merge_settings(settings, {"training": {"seed": seed}})
            if data is not None:
                settings = merge_settings(settings, {"data": {"path": str(data)}})
            config = load_config(changes.get("config", study.config), extra=settings)
            directory = data_directory(config, out / "cell")
            config = config.model_copy(update={"data": config.data.model_copy(update={"path": str(directory)})})
            if directory not in digests:
                files = [directory / "products.parquet", directory / "events.parquet"]
                if missing := [file for file in files if not file.is_file()]:
                    raise InputError(f"{missing[0]}: no such file")
                digests[directory] = [sha256(file) for file in files]
            cells.append(Cell(name, seed, config, digests[directory], _key(config, digests[directory])))
    return cells


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
    missing = list({cell.key: cell for cell in cells if not (folder / cell.key / _METRICS).is_file()}.values())
    failed = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        Progress(*columns, TimeRemainingColumn(), console=console) as progress,
        ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool,
    ):
        task = progress.add_task(name, total=len(cells), completed=len(cells) - len(missing))
        running = {pool.submit(_run_cell, cell.config.model_dump_json(), folder / cell.key): cell for cell in missing}
        for future in as_completed(running):
            cell = running[future]
            progress.advance(task)
            try:
                future.result()
                progress.console.print(f"  {_line(cell, read_json(folder / cell.key / _METRICS))}", highlight=False)
            except Exception as error:
                failed.append(cell)
                log = folder / cell.key / "log.txt"
                progress.console.print(f"  {cell.variant}, seed {cell.seed}: failed ({error}); {log}", markup=False)
    done = [cell for cell in cells if (folder / cell.key / _METRICS).is_file()]
    results = _collect(study, done, folder)
    if done and study.against:
        results["opponents"] = _opponents(study, done, folder, console)
    write_json(out / name / "results.json", results)
    with atomic_file(out / name / "table.md") as path:
        path.write_text(markdown(results), encoding="utf-8")
    if failed:
        raise InputError(f"{out / name}: {len(failed)} of {len(cells)} cells failed; run the study again to retry them")
    return results


def _run_cell(settings: str, directory: Path, against: Sequence[str] = ()) -> None:
    """Train, export and evaluate in a process of its own; only the figures are kept.

    Args:
        settings: the configuration as JSON.
        directory: of the cell; `metrics.json` is written last.
        against: opponents; their BM25 is tuned only if there are any.
    """
    directory.mkdir(parents=True, exist_ok=True)
    log = (directory / "log.txt").open("a", encoding="utf-8")
    os.dup2(log.fileno(), sys.stdout.fileno())
    os.dup2(log.fileno(), sys.stderr.fileno())

    from uepp import pipeline

    config = Config.model_validate_json(settings)
    console, run_dir, seconds = Console(file=log, width=120), directory / "run", {}
    clock = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal clock
        seconds[name], clock = time.perf_counter() - clock, time.perf_counter()

    trained = _trained(pipeline.train, config, run_dir, console)
    lap("train")
    if not trained.is_complete:
        raise RuntimeError("stopped by a signal")
    pipeline.export(run_dir, console, tune=bool(against))
    lap("export")
    windows = {}
    for window in ("selection", "report"):
        metrics, _ = pipeline.evaluate_run(run_dir, console, against=against, window=window)
        windows[window] = {key: metrics[key] for key in ("systems", "segments", "num_requests", "num_days")}
    lap("evaluate")
    save_config(config, directory / "config.yaml")
    write_json(directory / _METRICS, {**windows, "seconds": seconds})
    shutil.rmtree(run_dir)


def _trained(train: Callable[..., Any], config: Config, run_dir: Path, console: Console) -> Any:
    """Go on with what an interrupted study left, if that is possible."""
    if (run_dir / "config.yaml").is_file():
        try:
            return train(config, run_dir, console, resume=True, verbose=2)
        except InputError as error:
            console.print(f"starting over: {error}", markup=False)
    shutil.rmtree(run_dir, ignore_errors=True)
    return train(config, run_dir, console, verbose=2)


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
        key = fingerprint("opponents", study.against, _key(config, cell.data))
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
        metrics = read_json(folder / cell.key / _METRICS)
        variants.setdefault(cell.variant, []).append(
            {
                "seed": cell.seed,
                "cell": cell.key,
                "seconds": metrics["seconds"],
                **{window: metrics[window]["systems"]["uepp"] for window in ("selection", "report")},
            }
        )
    return {"description": study.description, "uepp_version": uepp.__version__, "variants": variants}


def summary(results: dict[str, Any]) -> list[tuple[str, int, list[tuple[float, float] | None], float | None]]:
    """Rows of a study's table: name, number of seeds, mean and standard deviation a column, seconds of training.

    The standard deviation is over seeds, nan with one; a column without a value is None.
    """
    rows: list[tuple[str, int, list[tuple[float, float] | None], float | None]] = []
    for name, cells in results["variants"].items():
        seconds = float(np.mean([cell["seconds"]["train"] for cell in cells]))
        rows.append((name, len(cells), [_spread(cells, *column[:3]) for column in _COLUMNS], seconds))
    for name, scores in results.get("opponents", {}).items():
        rows.append((LABELS.get(name, name), 0, [_spread([scores], *column[:3]) for column in _COLUMNS], None))
    return rows


def _spread(cells: Sequence[dict[str, Any]], window: str, segment: str, metric: str) -> tuple[float, float] | None:
    values = [cell[window][segment].get(metric) for cell in cells]
    if any(value is None for value in values):
        return None
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def markdown(results: dict[str, Any]) -> str:
    """The table as Markdown."""
    lines = ["| variant | seeds | " + " | ".join(heading for *_, heading in _COLUMNS) + " | s |"]
    lines.append("|---" * (len(_COLUMNS) + 3) + "|")
    for row in summary(results):
        lines.append("| " + " | ".join(_cells(*row)) + " |")
    return "\n".join(lines) + "\n"


def print_study(results: dict[str, Any], console: Console) -> None:
    """The table on a terminal."""
    table = Table(title=results["description"] or None, caption="mean ± standard deviation over seeds")
    for heading in ("variant", "seeds", *(heading for *_, heading in _COLUMNS), "s"):
        table.add_column(heading, justify="left" if heading == "variant" else "right")
    for row in summary(results):
        table.add_row(*_cells(*row))
    console.print(table)


def _cells(
    name: str, num_seeds: int, columns: Sequence[tuple[float, float] | None], seconds: float | None
) -> list[str]:
    texts = ["–" if value is None else _figure(*value) for value in columns]
    return [name, str(num_seeds or "–"), *texts, "–" if seconds is None else f"{seconds:.0f}"]


def _figure(mean: float, deviation: float) -> str:
    text = f"{mean:.3f}".lstrip("0")
    return text if np.isnan(deviation) else f"{text} ± {deviation:.3f}".replace("± 0.", "± .")


def _line(cell: Cell, metrics: dict[str, Any]) -> str:
    recall = metrics["report"]["systems"]["uepp"]["all"]
    figures = "  ".join(f"{name} {value:.3f}" for name, value in recall.items() if name.startswith("recall"))
    return f"{cell.variant}, seed {cell.seed}: {figures}  ({metrics['seconds']['train']:.0f} s)"


def _key(config: Config, data: list[str]) -> str:
    settings = config.model_dump(mode="json")
    del settings["data"]["path"]
    if config.text.encoder is not None:
        manifest = Path(config.text.encoder) / MANIFEST
        settings["text"]["encoder"] = json.dumps(read_json(manifest)) if manifest.is_file() else None
    return fingerprint(settings, data, uepp.__version__)
