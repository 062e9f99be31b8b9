"""The story of `uepp boost`: quality features → weights on the selection window → boosted export → report window."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import Progress

import uepp
from uepp.artifacts import atomic_directory, read_json, write_json
from uepp.config import BoostingConfig, Config, load_config
from uepp.errors import InputError
from uepp.evaluation.baselines import Towers
from uepp.evaluation.boosting import Window, compare, plot_trade_off, trade_off
from uepp.evaluation.recall import without_nan
from uepp.evaluation.requests import Requests, load_requests
from uepp.evaluation.segments import Segments, assign_segments
from uepp.metrics import mean_over_days
from uepp.pipeline.stored import read_run
from uepp.retrieval.boost_candidates import BoostCandidates
from uepp.retrieval.boost_weights import TunedWeights, WeightSpace, similarity_spread, tune_weights
from uepp.retrieval.boosting import BOOSTING, remove_boosting, write_boosting
from uepp.retrieval.embed import embed_queries, load_tower, read_vectors
from uepp.retrieval.export import open_export, rebuild_index
from uepp.retrieval.quality import CLIP, QualityFeature, fit_quality, read_quality, standardized_quality
from uepp.retrieval.refresh import refuse_refreshed
from uepp.runs.directory import announced


def boost(
    run_dir: Path,
    console: Console,
    *,
    at: int | None = None,
    num_trials: int | None = None,
    max_boost: float | None = None,
) -> dict[str, Any]:
    """Tune weights of quality, publish the export with hydrated vectors in its index, and report what it brings.

    `RUN/boosting/` gets `report.json` (what is returned), `trials.json` and the trade-off as `tradeoff.svg` and `.png`.
    Where no weights beat similarity alone on held-out requests, the export comes out without boosting.

    Args:
        run_dir: a run with an export.
        console: for progress.
        at: K of the Recall@K that is maximised; none: `boosting.at`. Likewise the next two.
        num_trials: weightings to try, a fold.
        max_boost: the bound.

    Raises:
        InputError: no export, or one that was refreshed or replaced meanwhile, no quality features, quality that was
            measured after T, or too few requests to tune on.
    """
    config = _with(read_run(run_dir)[0], run_dir, at=at, num_trials=num_trials, max_boost=max_boost)
    settings = config.boosting
    export_dir = open_export(run_dir)
    refuse_refreshed(export_dir, "uepp boost, which tunes on the run's own requests,")
    manifest = read_json(export_dir / "manifest.json")

    # ---------------------------------------------------------------------- quality features, from before T only
    values, num_known = read_quality(export_dir, settings.features)
    features = fit_quality(values, num_known)
    if not features:
        raise InputError(
            f"{run_dir}: nothing to boost by: no quality_* column, purchases, clicks, shops or created_at that differ "
            "among the products known before the end of training"
        )
    quality = standardized_quality(values, features)
    console.print(f"  quality: {', '.join(feature.name for feature in features)}", soft_wrap=True, highlight=False)

    # ---------------------------------------------------------------------- weights, on the selection window
    requests = {name: _requests(name, run_dir) for name in ("selection", "report")}
    if len(requests["selection"]) < 2:
        raise InputError(
            f"{run_dir}: {len(requests['selection'])} requests with a target in the selection window; boosting is "
            "tuned there and needs at least 2"
        )
    with announced(console, "requests"):
        selection, report = (_window(of_window, export_dir, config, quality) for of_window in requests.values())
    plain = selection.candidates.rank(np.zeros(len(features)))
    spread = similarity_spread(plain)
    if spread <= 0:
        raise InputError(
            f"{run_dir}: the first {settings.at} products of the selection requests are equally similar "
            "(boosting.at); nothing can be said of how much quality may count"
        )
    space = WeightSpace(quality, settings.max_boost * spread)
    with announced(console, "tuning of weights"):
        tuned = _tune(space, selection, settings.num_trials)

    # ---------------------------------------------------------------------- boost first, then the index
    is_boosted = bool(tuned.weights.any())
    facts = _facts(config, export_dir, features, tuned, space, spread, selection)
    if is_boosted:
        kept = np.flatnonzero(tuned.weights > 0)
        written = {**facts, "features": [facts["features"][column] for column in kept]}
        with announced(console, "index of hydrated vectors"):
            hydrate = partial(write_boosting, quality=quality[:, kept], facts=written)
            rebuild_index(export_dir, config.export, hydrate, seen=manifest)
    else:
        unboost(run_dir, console)

    # ---------------------------------------------------------------------- what it brings, on the report window
    result: dict[str, Any] = {**facts, "is_boosted": is_boosted, "report": None, "trade_off": []}
    if len(report.requests):
        with announced(console, "report"):
            if is_boosted:
                before, after = (Towers(export_dir, config.history, is_boosted=boosted) for boosted in (False, True))
                ks = config.evaluation.recall_at
                result["report"] = compare(before, after, report.requests, report.segments, ks)
            if tuned.best.any():
                result["trade_off"] = trade_off(report, space, tuned.best, tuned.scale)
    result = without_nan(result)
    with atomic_directory(run_dir / "boosting") as folder:
        write_json(folder / "trials.json", tuned.trials)
        write_json(folder / "report.json", result)
        if result["trade_off"]:
            plot_trade_off(result["trade_off"], tuned.scale, space.bound, settings.at, folder / "tradeoff")
    return result


def unboost(run_dir: Path, console: Console) -> bool:
    """Take the boosting out of a run's export and build its index without; False where there is none."""
    config = read_run(run_dir)[0]
    export_dir = open_export(run_dir)
    if not (export_dir / BOOSTING).exists():
        return False
    with announced(console, "index without boosting"):
        rebuild_index(export_dir, config.export, remove_boosting)
    return True


def _with(config: Config, run_dir: Path, **changes: Any) -> Config:
    """The configuration with options of the command line, checked as settings are."""
    overrides = [f"boosting.{key}={value}" for key, value in changes.items() if value is not None]
    return load_config(str(run_dir / "config.yaml"), overrides) if overrides else config


def _requests(window: str, run_dir: Path) -> Requests:
    _, _, mined = read_run(run_dir)
    return load_requests(mined / "requests.parquet", window, pq.read_table(run_dir / "export" / "products.parquet"))


def _window(requests: Requests, export_dir: Path, config: Config, quality: np.ndarray) -> Window:
    """Requests as query vectors, with their candidates and segments."""
    vectors = read_vectors(export_dir)
    queries, segments = np.empty((0, vectors.shape[1]), np.float32), Segments(np.empty(0, str), "no requests")
    if len(requests):
        queries = embed_queries(load_tower(export_dir / "query_tower"), requests.raw, config.history)
        segments = assign_segments(requests.queries, export_dir, config.evaluation.segments)
    candidates = BoostCandidates(queries, vectors, requests.num_products, quality, config.boosting.at)
    return Window(requests, candidates, segments)


def _tune(space: WeightSpace, selection: Window, num_trials: int) -> TunedWeights:
    requests, candidates = selection.requests, selection.candidates
    with Progress(transient=True) as progress:
        task = progress.add_task("weights", total=None)
        return tune_weights(
            space,
            lambda weights: selection.recalls(candidates.rank(weights)),
            requests.queries,
            requests.day,
            num_trials,
            lambda: progress.advance(task),
        )


def _facts(
    config: Config,
    export_dir: Path,
    features: list[QualityFeature],
    tuned: TunedWeights,
    space: WeightSpace,
    spread: float,
    selection: Window,
) -> dict[str, Any]:
    """`boosting.json`: the features with their weights, the bound, and what the weights were chosen on."""
    settings: BoostingConfig = config.boosting
    recall = {}
    for name, weights in (("before", np.zeros(len(features))), ("after", tuned.weights)):
        recalls = selection.recalls(selection.candidates.rank(weights))
        recall[name] = mean_over_days(recalls, selection.requests.day)
    return {
        "run_id": read_json(export_dir / "manifest.json")["run_id"],
        "uepp_version": uepp.__version__,
        "features": [
            {**feature.to_json(), "weight": float(weight)}
            for feature, weight in zip(features, tuned.weights, strict=True)
        ],
        "clip": CLIP,
        "missing": "the mean, 0 after standardisation",
        "bound": {
            "max_boost": settings.max_boost,
            "similarity_spread": spread,
            "allowed_boost_range": space.bound,
            "boost_range": space.boost_range(tuned.weights),
        },
        "tuned_on": {
            "window": "selection",
            "measure": f"recall@{settings.at}",
            "num_requests": len(selection.requests),
            "num_trials": len(tuned.trials),
            "scale": tuned.scale,
            "held_out": tuned.held_out,
        },
        "selection": {f"recall@{settings.at}": recall},
    }
