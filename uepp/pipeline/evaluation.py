"""The story of `uepp evaluate`: an export and its opponents on the same requests."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

import uepp
from uepp.artifacts import MANIFEST, atomic_file, fingerprint, read_json, sha256, write_json
from uepp.config import Config, load_config
from uepp.data.mining import mine, mine_requests
from uepp.data.schema import validate, validate_events
from uepp.errors import InputError
from uepp.evaluation.latency import query_latency
from uepp.evaluation.locality import FirstResults, is_abroad, places_of
from uepp.evaluation.measures import Measured, measure
from uepp.evaluation.recall import report, without_nan
from uepp.evaluation.requests import Requests, load_judgments, load_requests
from uepp.evaluation.segments import assign_segments
from uepp.evaluation.slices import slices_of
from uepp.evaluation.systems import OPPONENTS, SYSTEMS, Known, chosen_opponents
from uepp.evaluation.table import markdown
from uepp.evaluation.unfinished import Unfinished
from uepp.features.catalog import num_products_before
from uepp.features.text import query_keys
from uepp.pipeline.stored import parts_of_export, read_run
from uepp.relevance.ranker import queries_known_to_ranker
from uepp.retrieval.export import LEXICAL, open_export
from uepp.retrieval.product_index import INDEX, SERVING
from uepp.retrieval.refresh import refuse_refreshed
from uepp.retrieval.replacing import refuse_replaced
from uepp.runs.directory import add_cost, announced

__all__ = ["OPPONENTS", "evaluate_run"]
_RANKED = "uepp_rerank"
_READ_QUALITY = ("uepp_boost", _RANKED)


def evaluate_run(
    run_dir: Path,
    console: Console,
    *,
    data: Path | None = None,
    events: Path | None = None,
    against: Sequence[str] | None = None,
    window: Literal["selection", "report"] = "report",
) -> tuple[dict[str, Any], Path]:
    """Measure an export and its opponents; returns the metrics and the JSON file that holds them.

    The file also keeps the systems that were measured before on the same export and requests. A call that was
    interrupted goes on: what it measured is kept until the figures are there.

    Args:
        run_dir: a run with an export.
        console: for progress.
        data: evaluate the report window of this data set instead of the run's own.
        events: evaluate every request of this events table.
        against: opponents; none: those of `uepp.evaluation.systems` that are compared by default.
        window: which of the run's own requests; those of selection are what something may have been tuned on.

    Raises:
        InputError: no export, a damaged one, one that is replaced meanwhile, or requests that cannot be compared.
    """
    export_dir = open_export(run_dir)
    manifest = read_json(export_dir / MANIFEST)
    if data is None and events is None:
        refuse_refreshed(export_dir, "the run's own window (later requests come with --events or --data)")
    config = load_config(str(run_dir / "config.yaml"))
    known = known_of(run_dir, export_dir, config)
    products = known.products
    names = chosen_opponents(None if against is None else tuple(against), known)
    with announced(console, "requests"):
        requests, path, target = _requests(run_dir, export_dir, config, products, data, events, window)
        for name in _READ_QUALITY:
            if name in names:
                _refuse_later_quality(export_dir, products, requests, name)
        if _RANKED in names and (known_text := _known_to_ranker(export_dir, requests)):
            if against is not None:
                raise InputError(f"--against {_RANKED}: {known_text}")
            console.print(f"  not compared: {_RANKED}; {known_text}", markup=False, highlight=False)
            names = tuple(name for name in names if name != _RANKED)
        if (requests.targets.product_index < 0).all():
            raise InputError(f"{path}: the catalogue of {export_dir} has none of the products that were wanted")
        segments = assign_segments(requests.queries, export_dir, config.evaluation.segments)
        windows = {name: datetime.fromisoformat(end) for name, end in read_json(export_dir / "windows.json").items()}
        graded = _judgments_path(run_dir, data)
        judgments = None if graded is None else load_judgments(graded, requests.queries, products)
        people, places = places_of(requests.raw.contexts, len(requests)), places_of(products, products.num_rows)
        has_places = any(country for country in people.country) or not np.isnan(people.latitude).all()
        abroad = is_abroad(people, places, requests.targets.request, requests.targets.product_index)
        num_known = num_products_before(products, windows["train_end"])
        slices = slices_of(requests, segments, num_known, judgments, abroad)
        console.print(
            f"  {len(requests):,} requests; {requests.missing_target_share:.1%} of targets not in the catalogue"
        )
        last_trained = (windows["train_end"] - timedelta(microseconds=1)).date().isoformat()
        last_tuned = (windows["selection_end"] - timedelta(microseconds=1)).date().isoformat()
        num_before = num_tuned_on = 0
        if data is not None or events is not None:
            num_before = int(np.count_nonzero(requests.day <= last_trained))
            num_tuned_on = int(np.count_nonzero(requests.day <= last_tuned)) - num_before
        for number, days in (
            (num_before, f"days up to {last_trained}, which the run was trained on"),
            (num_tuned_on, f"the days up to {last_tuned} that BM25 and whatever else was tuned on"),
        ):
            if number:
                console.print(f"  note: {number:,} of them are of {days}", highlight=False)
    version = fingerprint(
        _read_of_export(manifest),
        [None if table is None else sha256(table) for table in (path, graded)],
        config.evaluation.recall_at,
        config.boosting.features,
        segments.rule,
        uepp.__version__,
    )
    unfinished = Unfinished(target.with_name(f"{target.stem}_unfinished"), version)
    measured: dict[str, Measured] = {}
    chosen: dict[str, Any] = {}
    for name in ("uepp", *names):
        with announced(console, f"evaluation of {name}"):
            kept = unfinished.get(name)
            if kept is None:
                first, before = FirstResults(people, places) if has_places else None, set(known.used)
                values = measure(SYSTEMS[name].fit(known), requests, slices, config.evaluation.recall_at, first)
                refuse_replaced(export_dir, manifest)
                kept = values, {key: value for key, value in known.used.items() if key not in before}
                unfinished.put(name, *kept)
            else:
                console.print("  measured before this evaluation was interrupted")
            measured[name] = kept[0]
            chosen |= kept[1]
    latency = None
    if data is None and events is None and window == "report":
        with announced(console, "latency"):
            latency = query_latency(export_dir, known.towers, requests.raw, config.serving.depth)
    with announced(console, "intervals"):
        figures = without_nan(report(measured, slices, requests.day, requests.queries))
    metrics = {
        "run_id": manifest["run_id"],
        "version": version,
        "export": parts_of_export(manifest),
        **figures,
        "locality": without_nan({name: one.locality for name, one in measured.items() if one.locality}),
        "segments": segments.rule,
        "num_requests": len(requests),
        "num_requests_before_train_end": num_before,
        "num_requests_tuned_on": num_tuned_on,
        "num_days": len(set(requests.day.tolist())),
        "missing_target_share": requests.missing_target_share,
        "bm25": read_json(export_dir / "bm25.json") if known.has("bm25.json") else None,
        "chosen": chosen,
    }
    refuse_replaced(export_dir, manifest)
    if latency is not None:
        add_cost(run_dir, query=latency)
    joined = _with_kept(target, metrics)
    write_json(target, joined)
    with atomic_file(target.with_name(f"{target.stem.replace('metrics', 'table')}.md")) as table:
        table.write_text(markdown(joined), encoding="utf-8")
    unfinished.end()
    return metrics, target


def _read_of_export(manifest: dict[str, Any]) -> dict[str, Any]:
    """Digests of what figures depend on: towers by their weights, and no index, since the search is exact."""
    unread = ("query_tower/", "product_tower/", f"{LEXICAL}/", INDEX, SERVING)
    files = {name: digest for name, digest in manifest["files"].items() if not name.startswith(unread)}
    return files | parts_of_export(manifest)


def _with_kept(target: Path, metrics: dict[str, Any]) -> dict[str, Any]:
    """These metrics, and those of other systems that the file has of the same export and requests."""
    try:
        kept = read_json(target)
        if kept["version"] != metrics["version"]:
            return metrics
    except (InputError, KeyError, TypeError):  # not there, of an earlier version, or damaged
        return metrics

    def joined(new: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
        both = old | new
        return {name: both[name] for name in SYSTEMS if name in both}

    days = {
        day: {**one, "systems": joined(one["systems"], kept["days"][day]["systems"])}
        for day, one in metrics["days"].items()
    }
    parts = {
        part: joined(metrics[part], kept.get(part, {})) for part in ("systems", "comparisons", "over_bm25", "locality")
    }
    return {**metrics, **parts, "days": days, "chosen": kept["chosen"] | metrics["chosen"]}


def known_of(run_dir: Path, export_dir: Path, config: Config) -> Known:
    """What systems are fitted on; the run's selection window is read only where something is chosen on it."""
    manifest, facts = read_json(export_dir / MANIFEST), read_json(run_dir / "run.json")
    of_export = [manifest["files"].get(name) for name in ("products.parquet", "graph.parquet", "bm25.json")]
    version = fingerprint(of_export, facts.get("mined"), list(config.boosting.features or ()), uepp.__version__)

    def selection() -> Requests:
        _, _, mined = read_run(run_dir)
        return load_requests(mined / "requests.parquet", "selection", known.products)

    known = Known(export_dir, config, selection, run_dir / "baselines", version)
    return known


def _known_to_ranker(export_dir: Path, requests: Requests) -> str | None:
    """Why re-ranked figures would be too good; none: they are not, as far as it is known."""
    seen = queries_known_to_ranker(export_dir)
    num_seen = sum(key in seen for key in query_keys(requests.queries))
    if not num_seen:
        return None
    return (
        f"the ranker's cross-encoder was trained on the queries of {num_seen:,} of {len(requests):,} requests; "
        "ranking/report.json of the run has figures of the others"
    )


def _judgments_path(run_dir: Path, data: Path | None) -> Path | None:
    """The human grades of the evaluated data set, or of the run's own; none: it has none, or is gone."""
    directory = data or Path(read_json(run_dir / "run.json").get("data", run_dir))
    path = directory / "judgments.parquet"
    return path if path.is_file() else None


def _refuse_later_quality(export_dir: Path, products: pa.Table, requests: Requests, name: str) -> None:
    """A refreshed catalogue's quality may be newer than the requests: it would know what was bought."""
    manifest, first_day = read_json(export_dir / MANIFEST), min(requests.day.tolist())
    if "catalogue" not in manifest:
        return
    latest = pc.max(products.column("quality_as_of")).as_py()
    if latest is not None and latest > datetime.fromisoformat(first_day).replace(tzinfo=UTC):
        raise InputError(
            f"{export_dir}: the refreshed catalogue's quality_as_of, {latest.isoformat()}, is later than requests of "
            f"{first_day}, which would be leakage; leave {name} out (--against) or give later requests"
        )


def _requests(
    run_dir: Path,
    export_dir: Path,
    config: Config,
    products: pa.Table,
    data: Path | None,
    events: Path | None,
    window: Literal["selection", "report"],
) -> tuple[Requests, Path, Path]:
    """The requests to evaluate, the table that they are of, and where their metrics go."""
    if data is not None and events is not None:
        raise InputError("--data and --events: give one of them")
    if events is not None:
        validate_events(events)
        folder = run_dir / "evaluations" / fingerprint(str(events.resolve()))
        mine_requests(events, export_dir, config.data, folder / "mined")
        path, target = folder / "mined" / "requests.parquet", folder / "metrics.json"
    elif data is not None:
        validate(data)
        folder = run_dir / "evaluations" / fingerprint(str(data.resolve()))
        path, target = mine(data, config.data, folder / "mined") / "requests.parquet", folder / "metrics.json"
    else:
        _, _, mined = read_run(run_dir)
        path = mined / "requests.parquet"
        target = run_dir / ("metrics.json" if window == "report" else "metrics_selection.json")
    requests = load_requests(path, window, products)
    if not len(requests):
        raise InputError(
            f"{events or data or path}: no request in the {window} window has a relevant interaction "
            f"(data.relevant_types = {list(config.data.relevant_types)})"
        )
    return requests, path, target
