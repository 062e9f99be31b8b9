"""The story of `uepp tune`: requests → exact search → trials → the choice on held-out requests → report → served."""

import hashlib
import math
import os
import platform
import shutil
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from rich.console import Console

import uepp
from uepp.artifacts import atomic_file, fingerprint, read_json, write_json
from uepp.config import load_config, save_config
from uepp.errors import InputError
from uepp.evaluation.recall import without_nan
from uepp.features.text import query_keys
from uepp.index_families import AUTO, FAMILIES
from uepp.pipeline.stored import read_run, read_windows
from uepp.retrieval.ann import Builds, Reference
from uepp.retrieval.ann_report import as_markdown, plot_trials
from uepp.retrieval.boosting import Boosting, read_boosting
from uepp.retrieval.embed import embed_queries, load_tower
from uepp.retrieval.export import open_export, rebuild_index
from uepp.retrieval.operating_point import HELD_OUT, REPORT, TUNED_ON, Task, decide, run_trials
from uepp.retrieval.product_index import tuned_key
from uepp.retrieval.replacing import refuse_replaced
from uepp.retrieval.trials import TrialLog
from uepp.retrieval.vectors import ProductVectors
from uepp.runs.directory import announced

_HELD_OUT_SHARE = 1 / 3
_MAX_REQUESTS = {TUNED_ON: 2_000, HELD_OUT: 1_000, REPORT: 2_000}


def tune(
    run_dir: Path,
    console: Console,
    *,
    budget_ms: float = 20.0,
    at: int | None = None,
    num_trials: int = 60,
    families: Sequence[str] | None = None,
    seconds: float | None = None,
) -> dict[str, Any]:
    """Choose the index and how it is searched, and serve with it.

    `RUN/tuning/` gets `trials.jsonl` (as they happen), `indexes/` (what was built, for the next call), `report.json`
    (what is returned), `report.md`, and `pareto.svg` and `.png`. The export gets the index and, in `serving.json`, the
    operating point; `export.index` becomes `auto`. A second call goes on with the trials of the first.

    Args:
        run_dir: a run with an export.
        console: for progress.
        budget_ms: p99 of a query on one thread, without the tower, that must not be exceeded.
        at: K of the overlap with exact search that is maximised; none: what serving searches, `serving.depth`.
        num_trials: operating points to measure for this budget, those of earlier calls included.
        families: which to try; none: all.
        seconds: no trial begins after so many, nor goes on building a graph that would not be done by then; the choice
            comes after them.

    Raises:
        InputError: no export, a K beyond the catalogue, an unknown family, too few requests, or a budget that no point
            meets; then the export stays as it was.
    """
    begin = time.monotonic()
    export_dir = open_export(run_dir)
    manifest = read_json(export_dir / "manifest.json")
    config, _, mined = read_run(run_dir)
    vectors, boosting = ProductVectors.open(export_dir), read_boosting(export_dir)
    tuned_for = tuned_key(export_dir)
    tried = _families(families)
    depth = min(config.serving.depth, len(vectors))
    at = depth if at is None else at
    if not 1 <= at <= len(vectors):
        raise InputError(f"--at {at}: must be from 1 to the number of products, {len(vectors):,}")
    if not 0 < budget_ms < math.inf:
        raise InputError(f"--budget-ms {budget_ms:g}: must be a number above 0")
    if at != depth:
        note = f"tuned for the first {at:,} products, but serving searches for {depth:,} (serving.depth): --at {depth}"
        console.print(f"  note: {note}", soft_wrap=True, highlight=False)

    # ------------------------------------------------------------------------------- requests, and exact search
    with announced(console, "requests"):
        references = load_references(run_dir, at)
    numbers = {name: len(reference) for name, reference in references.items()}
    console.print(f"  {', '.join(f'{number:,} {name}' for name, number in numbers.items())}".replace("_", " "))
    for name in (TUNED_ON, HELD_OUT):
        if not numbers[name]:
            raise InputError(
                f"{run_dir}: {numbers[TUNED_ON] + numbers[HELD_OUT]} requests with a target in the selection "
                "window; tuning needs some to tune on and some to choose on (data.selection_days)"
            )

    # ---------------------------------------------------------------------------------------------------- trials
    folder = run_dir / "tuning"
    builds = open_builds(run_dir, manifest, vectors, boosting)
    task = Task(builds, references, len(vectors), vectors.dim, at, budget_ms, tried)
    # What a measurement depends on besides the point: vectors, towers, requests, K, and the machine.
    machine = (platform.node(), os.cpu_count(), faiss.get_compile_options())
    measured = fingerprint(_content_key(manifest), tuned_for, mined.name, numbers[TUNED_ON], at, machine)
    log = TrialLog(folder / "trials.jsonl", measured)
    with announced(console, "trials"):
        run_trials(
            task,
            log,
            num_trials,
            left=lambda: math.inf if seconds is None else begin + seconds - time.monotonic(),
            say=lambda line: console.print(f"  {line}", soft_wrap=True, highlight=False, markup=False),
            when=_now,
        )

    # ---------------------------------------------------------- the choice, on requests that nothing was tuned on
    with announced(console, "choice and report"):
        decision = decide(task, log)
    trials = [trial for trial in log.trials if trial.spec.family in tried]
    tables = {name: [without_nan(row) for row in rows] for name, rows in decision.tables.items()}
    facts = {"budget_ms": budget_ms, "at": at, "num_trials": len(trials), "when": _now()}
    result: dict[str, Any] = {
        "run_id": manifest["run_id"],
        "uepp_version": uepp.__version__,
        "faiss_version": faiss.__version__,
        "num_cores": os.cpu_count(),
        "num_products": len(vectors),
        "dim": vectors.dim,
        "is_boosted": boosting is not None,
        **facts,
        "num_requests": numbers,
        "chosen": str(decision.spec),
        "defaults": decision.defaults,
        **tables,
    }
    write_json(folder / "report.json", result)
    with atomic_file(folder / "report.md") as temporary:
        temporary.write_text(as_markdown(result), encoding="utf-8")
    plot_trials(trials, str(decision.spec), at, budget_ms, folder / "pareto")

    # ---------------------------------------------------------------------------------------------- what is served
    figures = without_nan(decision.row)
    point = {
        **{name: value for name, value in figures.items() if name != "label"},
        "key": tuned_for,
        **facts,
        "measured_on": decision.reported_on,
        "num_requests": numbers[decision.reported_on],
    }
    with announced(console, f"index: {decision.spec}"):
        config = load_config(str(run_dir / "config.yaml"), [f"export.index={AUTO}"])
        rebuild_index(export_dir, config.export, tuned=point, built=builds.path(decision.spec), seen=manifest)
        save_config(config, run_dir / "config.yaml")
    return result


def _families(names: Sequence[str] | None) -> tuple[str, ...]:
    if names is not None and not names:
        raise InputError(f"--families: name at least one of {', '.join(FAMILIES)}")
    for name in names or ():
        if name not in FAMILIES:
            raise InputError(f"--families {name}: unknown; known are {', '.join(FAMILIES)}")
    return tuple(family for family in FAMILIES if names is None or family in names)


def load_references(
    run_dir: Path, at: int, names: Sequence[str] = (TUNED_ON, HELD_OUT, REPORT)
) -> dict[str, Reference]:
    """Requests to tune on, to choose on and to report on, with what exact search finds for them.

    A third of the selection window's queries, with all their requests, are held out; which, the MD5 of the query says.

    Args:
        run_dir: a run with an export.
        at: K of the exact search.
        names: which are wanted.
    """
    config, _, _ = read_run(run_dir)
    export_dir = run_dir / "export"
    vectors, boosting = ProductVectors.open(export_dir), read_boosting(export_dir)
    tower = load_tower(export_dir / "query_tower")
    selection, report = read_windows(run_dir).values()
    is_held_out = np.array([_share(key) < _HELD_OUT_SHARE for key in query_keys(selection.queries)], bool)
    chosen = {
        TUNED_ON: (selection, np.flatnonzero(~is_held_out)),
        HELD_OUT: (selection, np.flatnonzero(is_held_out)),
        REPORT: (report, np.arange(len(report))),
    }
    references = {}
    for name in names:
        requests, rows = chosen[name]
        if len(rows) > _MAX_REQUESTS[name]:
            rows = np.sort(np.random.default_rng(1).choice(rows, _MAX_REQUESTS[name], replace=False))
        if not len(rows):
            references[name] = Reference.none()
            continue
        drawn = requests.take(rows)
        queries = embed_queries(tower, drawn.raw, config.history)
        targets = drawn.targets
        references[name] = Reference.make(queries, vectors, boosting, targets.request, targets.product_index, at)
    return references


def _share(key: str) -> float:
    return int(hashlib.md5(key.encode()).hexdigest()[:8], 16) / 16**8


def open_builds(run_dir: Path, seen: dict[str, Any], vectors: ProductVectors, boosting: Boosting | None) -> Builds:
    """What was built of a run's vectors, and is built from now on; what was built of others is removed.

    Args:
        run_dir: a run with an export.
        seen: manifest of the export, read before the next two were opened.
        vectors: of the export.
        boosting: likewise.

    Raises:
        InputError: the export was replaced since, so nobody knows of which one the vectors are.
    """
    refuse_replaced(run_dir / "export", seen)
    indexes, key = run_dir / "tuning" / "indexes", _content_key(seen)
    for other in indexes.glob("*"):
        if other.name != key:
            shutil.rmtree(other)
    (indexes / key).mkdir(parents=True, exist_ok=True)
    return Builds(indexes / key, vectors, boosting)


def _content_key(manifest: dict[str, Any]) -> str:
    """What an index is built of: the vectors and their boosting, and the Faiss that builds it."""
    files = manifest["files"]
    built_of = {name: sha for name, sha in files.items() if name.startswith(("vectors/", "boosting", "quality"))}
    return fingerprint(built_of, faiss.__version__)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
