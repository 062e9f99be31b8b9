"""The story of `uepp boost`: quality features → weights on the selection window → boosted export → report window."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

import uepp
from uepp.artifacts import atomic_directory, read_json, write_json
from uepp.config import BoostingConfig, Config, Given, load_config
from uepp.errors import InputError
from uepp.evaluation.baselines import Towers
from uepp.evaluation.boosting import Window, compare, plot_trade_off, trade_off
from uepp.evaluation.recall import without_nan
from uepp.evaluation.requests import Requests
from uepp.evaluation.segments import Segments, assign_segments
from uepp.metrics import mean_over_days
from uepp.pipeline.stored import read_run, read_windows
from uepp.retrieval.boost_candidates import BoostCandidates
from uepp.retrieval.boost_weights import TunedWeights, WeightSpace, similarity_spread, tune_weights
from uepp.retrieval.boosting import BOOSTING, remove_boosting, write_boosting
from uepp.retrieval.export import open_export, rebuild_index
from uepp.retrieval.quality import CLIP, QualityFeature, fit_quality, read_quality, standardized_quality
from uepp.retrieval.refresh import refuse_refreshed
from uepp.runs.directory import announced

_MAX_REQUESTS = 5_000  # of a window: each is ranked for every weighting that is tried


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
    with announced(console, "requests"):
        requests = read_windows(run_dir)
        if len(requests["selection"]) < 2:
            raise InputError(
                f"{run_dir}: {len(requests['selection'])} requests with a target in the selection window; boosting is "
                "tuned there and needs at least 2"
            )
        before = Towers(export_dir, config.history)
        selection = _window(
            requests["selection"].take(requests["selection"].drawn(_MAX_REQUESTS)), before, quality, settings.at
        )
    spread = similarity_spread(selection.candidates.rank(np.zeros(len(features))))
    if spread <= 0:
        raise InputError(
            f"{run_dir}: the first {settings.at} products of the selection requests are equally similar "
            "(boosting.at); nothing can be said of how much quality may count"
        )
    space = WeightSpace(quality, settings.max_boost * spread)
    with announced(console, "tuning of weights"):
        selection.candidates.cover(space.bound)
        tuned = _tune(space, selection, settings.num_trials)

    # ---------------------------------------------------------------------- boost first, then the index
    is_boosted = bool(tuned.weights.any())
    facts = _facts(config, export_dir, features, tuned, space, spread, selection)
    facts["tuned_on"]["of_requests"] = len(requests["selection"])
    console.print(f"  {_counts(facts['tuned_on'])}", soft_wrap=True, highlight=False)
    del selection  # its candidates may be gigabytes
    if is_boosted:
        kept = np.flatnonzero(tuned.weights > 0)
        written = {**facts, "features": [facts["features"][column] for column in kept]}
        with announced(console, "index of hydrated vectors"):
            hydrate = partial(write_boosting, quality=quality[:, kept], facts=written)
            rebuild_index(export_dir, config.export, hydrate, seen=manifest)
    else:
        unboost(run_dir, console, seen=manifest)

    # ---------------------------------------------------------------------- what it brings, on the report window
    result: dict[str, Any] = {**facts, "is_boosted": is_boosted, "report": None}
    result |= {"trade_off": [], "trade_off_requests": 0}
    report = requests["report"]
    if len(report) and tuned.best.any():
        with announced(console, "report"):
            segments = assign_segments(report.queries, export_dir, config.evaluation.segments)
            if is_boosted:
                after = Towers(export_dir, config.history, is_boosted=True, like=before)
                result["report"] = compare(before, after, report, segments, config.evaluation.recall_at)
            drawn = report.drawn(_MAX_REQUESTS)
            followed = _window(report.take(drawn), before, quality, settings.at)
            of_drawn = Segments(segments.labels[drawn], segments.rule)
            result["trade_off"] = trade_off(followed, of_drawn, space, tuned.best, tuned.scale)
            result["trade_off_requests"] = len(drawn)
    result = without_nan(result)
    with atomic_directory(run_dir / "boosting") as folder:
        write_json(folder / "trials.json", tuned.trials)
        write_json(folder / "report.json", result)
        if result["trade_off"]:
            plot_trade_off(result["trade_off"], tuned.scale, space.bound, settings.at, folder / "tradeoff")
    return result


def unboost(run_dir: Path, console: Console, *, seen: dict[str, Any] | None = None) -> bool:
    """Take the boosting out of a run's export and build its index without; False where there is none.

    Args:
        run_dir: a run with an export.
        console: for progress.
        seen: manifest of the export that is meant; none: the one that is there.

    Raises:
        InputError: no export, another writer, or one that has replaced it since.
    """
    config = read_run(run_dir)[0]
    export_dir = open_export(run_dir)
    if not (export_dir / BOOSTING).exists():
        return False
    with announced(console, "index without boosting"):
        rebuild_index(export_dir, config.export, remove_boosting, seen=seen)
    return True


def _with(config: Config, run_dir: Path, **changes: Any) -> Config:
    """The configuration with options of the command line, checked as settings are."""
    options = {"at": "--at", "num_trials": "--trials", "max_boost": "--max-boost"}
    given = [Given(options[key], {"boosting": {key: value}}) for key, value in changes.items() if value is not None]
    return load_config(str(run_dir / "config.yaml"), given=given) if given else config


def _window(requests: Requests, towers: Towers, quality: np.ndarray, at: int) -> Window:
    """Requests with their candidates for the first `at` products."""
    queries = towers.embed(requests.raw)
    return Window(requests, BoostCandidates(queries, towers.vectors, requests.num_products, quality, at))


def _counts(tuned_on: dict[str, Any]) -> str:
    """What the weights were tuned on, and what that took."""
    number, every = tuned_on["num_requests"], tuned_on["of_requests"]
    of = "" if number == every else f" of {every:,}, drawn,"
    compared = tuned_on["num_compared"]
    whole = f"; {compared:,} rankings took the whole catalogue, for want of memory" if compared else ""
    return f"tuned on {number:,}{of} selection requests; {tuned_on['num_candidates']:,} candidates{whole}"


def _tune(space: WeightSpace, selection: Window, num_trials: int) -> TunedWeights:
    with Progress(transient=True) as progress:
        task = progress.add_task("weights", total=None)
        return tune_weights(
            space,
            selection.boosted_recalls,
            selection.requests.queries,
            selection.requests.day,
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
            "num_candidates": selection.candidates.num_entries,
            "num_compared": selection.candidates.num_compared,
            "num_trials": len(tuned.trials),
            "scale": tuned.scale,
            "held_out": tuned.held_out,
        },
        "selection": {f"recall@{settings.at}": recall},
    }
