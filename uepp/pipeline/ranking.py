"""The story of `uepp relevance rank`: what is found → features → LambdaMART on the selection window → report."""

from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

import uepp
from uepp.artifacts import MANIFEST, read_json, write_json
from uepp.config import Given, load_config
from uepp.errors import InputError
from uepp.evaluation.baselines import Towers
from uepp.evaluation.measures import Measured
from uepp.evaluation.recall import report, without_nan
from uepp.evaluation.requests import Requests
from uepp.evaluation.reranking import measure_lists
from uepp.evaluation.segments import assign_segments
from uepp.evaluation.slices import ALL, Slices, slices_of
from uepp.features.text import query_keys, query_numbers
from uepp.metrics import direction, mean_over_days, ndcg_at, paired_interval, paired_p_values, target_positions
from uepp.pipeline.stored import read_run, read_windows
from uepp.relevance.pair_scores import TRAINED_QUERIES, PairScores, trained_queries
from uepp.relevance.ranker import (
    NUM_FOLDS,
    Lists,
    Ranker,
    Trained,
    by_scores,
    has_ranker,
    load_lightgbm,
    remove_ranker,
    towers_key,
    train_ranker,
    write_ranker,
)  # fmt: skip
from uepp.relevance.ranking_features import SCORES, Asked, RankingFeatures, Relevance, Score
from uepp.retrieval.boosting import BOOSTING
from uepp.retrieval.export import changed_copy, open_export
from uepp.retrieval.quality import read_quality
from uepp.retrieval.refresh import refuse_refreshed
from uepp.retrieval.vectors import ProductVectors
from uepp.runs.directory import announced

RETRIEVAL = "retrieval"
SYSTEMS: dict[Relevance, str] = {
    "similarity": "ranker",
    "cross_encoder": "ranker_cross_encoder",
    "both": "ranker_both",
}
"""Names of the rankers in reports, by the scores that they read."""
KS = (5, 10, 20)
"""K of NDCG and Precision (BHNS Table 5)."""
_CHOSEN_AT = 10


class _Found(NamedTuple):
    """Requests of a window and their lists, as retrieval orders them.

    Attributes:
        requests: R.
        asked: what the ranker reads of them.
        rows: product indexes int64 [R, K] of what is ranked; -1: fewer were found.
        behind: the same of what a search gives after them, as far as is measured, int64 [R, B].
        similarities: float32 [R, K].
        is_bought: bool [R, K].
        num_left_out: requests of the window that are not among these.
    """

    requests: Requests
    asked: Asked
    rows: np.ndarray
    behind: np.ndarray
    similarities: np.ndarray
    is_bought: np.ndarray
    num_left_out: int

    @property
    def retrieved(self) -> np.ndarray:
        """What a search without a ranker gives, int64 [R, K + B]."""
        return np.concatenate([self.rows, self.behind], axis=1)

    def ranked(self, scores: np.ndarray) -> np.ndarray:
        """What a search gives that orders the lists by scores [R, K], int64 [R, K + B]."""
        first = np.take_along_axis(self.rows, by_scores(scores, self.rows >= 0), axis=1)
        return np.concatenate([first, self.behind], axis=1)

    def ndcg(self, ranking: np.ndarray) -> np.ndarray:
        """NDCG@10 of each request, float64 [R]."""
        targets = self.requests.targets
        positions = target_positions(ranking, targets.request, targets.product_index)
        return ndcg_at(_CHOSEN_AT, positions, targets.request, len(self.requests))


def rank(
    run_dir: Path, console: Console, *, cross_encoder: Path | None = None, top: int | None = None
) -> dict[str, Any]:
    """Train rankers of the first products that are found, report what they bring, and keep the best in the export.

    One reads the similarity of the towers, and where there is a cross-encoder another one reads its score instead, and
    a third one reads both. They are trained on the selection window: the towers have learned the purchases of the time
    before T, and what is counted of products has them in it, so there all would tell what was bought. Which one is
    kept, if any, is decided by held-out queries of that window. `RUN/ranking/report.json` gets what is returned.

    A cross-encoder has been told the answers of the queries that it was trained or validated on, so their requests are
    left out, of both windows and for all systems.

    Args:
        run_dir: a run with an export.
        console: for progress.
        cross_encoder: run of `uepp relevance train`, or its SavedModel.
        top: products of a list that are ranked; none: `ranker.top`.

    Raises:
        InputError: no export, or one that was refreshed or replaced meanwhile, quality that was measured after T, too
            few requests with a bought product in their list, or of queries that the cross-encoder has not seen, no
            LightGBM, or no cross-encoder there.
    """
    config = read_run(run_dir)[0]
    if top is not None:
        config = load_config(str(run_dir / "config.yaml"), given=[Given("--top", {"ranker": {"top": top}})])
    load_lightgbm()
    export_dir = open_export(run_dir)
    refuse_refreshed(export_dir, "uepp relevance rank, which trains on the run's own requests,")
    manifest = read_json(export_dir / MANIFEST)
    read_quality(export_dir)  # refuses what was measured after T
    pairs = None if cross_encoder is None else PairScores(cross_encoder, export_dir)

    # ---------------------------------------------------------------------- what is found, and known of it
    features = RankingFeatures(export_dir)
    with announced(console, "requests"):
        towers = Towers(export_dir, config.history, is_boosted=(export_dir / BOOSTING).exists())
        seen = None if pairs is None else trained_queries(pairs.directory)
        windows = read_windows(run_dir)
        selection, reported = (
            _find(asked, export_dir, config.ranker.top, towers, features, seen or ()) for asked in windows.values()
        )
        is_listed = [
            float(found.is_bought.any(axis=1).mean()) if len(found.rows) else 0.0 for found in (selection, reported)
        ]
        for name, found, share in zip(windows, (selection, reported), is_listed, strict=True):
            console.print(
                f"  {name}: {len(found.rows):,} requests, a purchase among the first {config.ranker.top} of {share:.1%}"
            )

        about = None if pairs is None else _left_out(seen, selection, reported)
        if about is not None:
            console.print(f"  {left_out_line(about)}", highlight=False)
        _refuse_too_few(selection, reported)

    # ---------------------------------------------------------------------- rankers, on the selection window
    trained: dict[Relevance, Trained] = {}
    rankers: dict[Relevance, Ranker] = {}
    scores: dict[Score, list[np.ndarray]] = {"similarity": [selection.similarities, reported.similarities]}
    if pairs is not None:
        with announced(console, "scores of the cross-encoder"):
            scores["cross_encoder"] = [pairs.logits(found.asked.queries, found.rows) for found in (selection, reported)]
    for kind in [kind for kind, read in SCORES.items() if scores.keys() >= set(read)]:
        with announced(console, f"training of the {SYSTEMS[kind].replace('_', ' ')}"):
            matrix = features.matrix(selection.asked, selection.rows, *(scores[score][0] for score in SCORES[kind]))
            lists = Lists(matrix, selection.rows >= 0, selection.is_bought, selection.requests.queries)
            trained[kind] = train_ranker(lists, features.names(kind), config.ranker, config.training.seed)
            # Now, so that nothing is published that would not load again.
            own_pairs = pairs if "cross_encoder" in SCORES[kind] else None
            names = features.names(kind)
            rankers[kind] = Ranker(trained[kind].model, names, features, kind, config.ranker.top, own_pairs)
            console.print(f"  {trained[kind].num_rounds} trees", highlight=False)
    held_out, chosen = _choose(selection, trained)

    # ---------------------------------------------------------------------- the one that is kept
    facts: dict[str, Any] = {
        "run_id": manifest["run_id"],
        "uepp_version": uepp.__version__,
        "lightgbm_version": load_lightgbm().__version__,
        "towers": towers_key(manifest),
        "top": config.ranker.top,
        "quality": list(features.quality),
        "trained_on": {
            "window": "selection",
            "num_requests": len(selection.rows),
            "num_requests_with_purchase": int(selection.is_bought.any(axis=1).sum()),
            "seed": config.training.seed,
            "settings": config.ranker.model_dump(mode="json"),
        },
        "cross_encoder": about,
        "held_out": held_out,
    }
    if chosen is None:
        unrank(run_dir, console, seen=manifest)
    else:
        own = {
            "relevance": chosen,
            "features": list(features.names(chosen)),
            "num_trees": trained[chosen].num_rounds,
            "gains": trained[chosen].gains,
        }
        with announced(console, "export"), changed_copy(export_dir, manifest) as folder:
            copied = pairs.directory if pairs is not None and "cross_encoder" in SCORES[chosen] else None
            write_ranker(folder, trained[chosen].model, {**facts, **own}, copied)

    # ---------------------------------------------------------------------- what they bring, on the report window
    result: dict[str, Any] = {
        **facts,
        "chosen": None if chosen is None else SYSTEMS[chosen],
        "rankers": {SYSTEMS[kind]: {"num_trees": one.num_rounds, "gains": one.gains} for kind, one in trained.items()},
        "num_requests": len(reported.rows),
        "num_days": len(set(reported.requests.day.tolist())),
        "listed_share": {"selection": is_listed[0], "report": is_listed[1]},
        "systems": None,
        "comparisons": None,
    }
    if len(reported.rows):
        with announced(console, "report"):
            rankings = {RETRIEVAL: reported.retrieved}
            for kind, ranker in rankers.items():
                matrix = features.matrix(reported.asked, reported.rows, *(scores[score][1] for score in SCORES[kind]))
                rankings[SYSTEMS[kind]] = reported.ranked(ranker.scores(matrix))
            segments = assign_segments(reported.requests.queries, export_dir, config.evaluation.segments)
            slices = slices_of(reported.requests, segments)
            measured = {
                name: measure_lists(ranking, reported.requests, slices, KS, config.ranker.top)
                for name, ranking in rankings.items()
            }
            result |= _figures(measured, slices, reported.requests)
    result = without_nan(result)
    write_json(run_dir / "ranking" / "report.json", result)
    return result


def unrank(run_dir: Path, console: Console, *, seen: dict[str, Any] | None = None) -> bool:
    """Take the ranker out of a run's export; False where there is none.

    Args:
        run_dir: a run with an export.
        console: for progress.
        seen: manifest of the export that is meant; none: the one that is there.

    Raises:
        InputError: no export, another writer, or one that has replaced it since.
    """
    export_dir = open_export(run_dir)
    if not has_ranker(export_dir):
        return False
    seen = read_json(export_dir / MANIFEST) if seen is None else seen
    with announced(console, "export without a ranker"), changed_copy(export_dir, seen) as folder:
        remove_ranker(folder)
    return True


def left_out_line(about: dict[str, Any]) -> str:
    """What `cross_encoder` of a report says of its training, in words."""
    if about["num_trained_queries"] is None:
        return (
            f"It is not known which queries the cross-encoder was trained on (no {TRAINED_QUERIES} beside it): if on "
            "these, its figures are too good."
        )
    parts = [f"{one['num_left_out']:,} of {one['num_requests']:,} {name}" for name, one in about["requests"].items()]
    return f"Left out, since the cross-encoder was trained on their queries: {' and '.join(parts)} requests."


def _left_out(seen: frozenset[str] | None, selection: _Found, reported: _Found) -> dict[str, Any]:
    return {
        "num_trained_queries": None if seen is None else len(seen),
        "requests": {
            name: {"num_requests": len(found.rows) + found.num_left_out, "num_left_out": found.num_left_out}
            for name, found in (("selection", selection), ("report", reported))
        },
    }


def _refuse_too_few(selection: _Found, reported: _Found) -> None:
    for name, found, least in (("selection", selection, NUM_FOLDS), ("report", reported, 1)):
        others = len(set(query_keys(found.requests.queries)))
        if found.num_left_out and others < least:
            raise InputError(
                f"--cross-encoder: was trained on the queries of {found.num_left_out} of "
                f"{found.num_left_out + len(found.rows)} requests of the {name} window, {others} other queries are "
                f"left; allowed are at least {least} (relevance.evaluation_share holds more of them back)"
            )


def _find(
    asked: Requests,
    export_dir: Path,
    top: int,
    towers: Towers,
    features: RankingFeatures,
    seen: Collection[str],
) -> _Found:
    """The first `top` that exact search gives to requests, from the catalogue as of their day, and what is behind them.

    Requests whose query's key is in `seen` are left out.
    """
    is_new = [key not in seen for key in query_keys(asked.queries)]
    requests = asked.take(np.flatnonzero(is_new))
    found = np.full((len(requests), max(top, *KS)), -1, np.int64)
    rows, behind = found[:, :top], found[:, top:]
    similarities = np.full(rows.shape, -np.inf, np.float32)
    if len(requests):
        queries = towers.embed(requests.raw)
        for num_products in np.unique(requests.num_products).tolist():
            part = requests.num_products == num_products
            found[part] = towers.search(queries[part], found.shape[1], num_products)
        similarities = ProductVectors.open(export_dir).similarities(queries, rows)
    is_bought = np.zeros(rows.shape, bool)
    targets = requests.targets
    np.logical_or.at(is_bought, targets.request, rows[targets.request] == targets.product_index[:, np.newaxis])
    is_bought &= rows >= 0
    num_left_out = len(asked) - len(requests)
    return _Found(requests, features.asked(requests.raw), rows, behind, similarities, is_bought, num_left_out)


def _choose(selection: _Found, trained: dict[Relevance, Trained]) -> tuple[dict[str, dict[str, Any]], Relevance | None]:
    """NDCG@10 of each ranker on queries that it has not seen, and the one that is worth what it costs in every search.

    The ranker of the similarity, where it is surely ahead of retrieval. In its place the better one of those with a
    cross-encoder, where that is surely ahead of it, and of retrieval. Surely: by the 95% interval of the difference and
    the paired test.
    """
    day, query = selection.requests.day, query_numbers(selection.requests.queries)
    ndcg = {RETRIEVAL: selection.ndcg(selection.retrieved)}
    ndcg |= {SYSTEMS[kind]: selection.ndcg(selection.ranked(one.held_out)) for kind, one in trained.items()}
    figures: dict[str, dict[str, Any]] = {
        name: {f"ndcg@{_CHOSEN_AT}": mean_over_days(values, day)} for name, values in ndcg.items()
    }
    plain = SYSTEMS["similarity"]
    for name in map(SYSTEMS.__getitem__, trained):
        figures[name]["ahead_of"] = {}
        for other in [RETRIEVAL] if name == plain else [RETRIEVAL, plain]:
            difference = ndcg[name] - ndcg[other]
            figures[name]["ahead_of"][other] = {
                "interval": list(paired_interval(difference, day, query)),
                "p_value": float(paired_p_values(difference[:, np.newaxis], day, query)[0]),
            }

    def is_ahead(kind: Relevance, other: str) -> bool:
        found = figures[SYSTEMS[kind]]["ahead_of"][other]
        return direction(found["interval"], found["p_value"]) > 0

    chosen: Relevance | None = "similarity" if is_ahead("similarity", RETRIEVAL) else None
    costly = [kind for kind in trained if "cross_encoder" in SCORES[kind]]
    best = max(costly, key=lambda kind: figures[SYSTEMS[kind]][f"ndcg@{_CHOSEN_AT}"], default=None)
    if best is not None and is_ahead(best, RETRIEVAL) and (chosen is None or is_ahead(best, plain)):
        chosen = best
    return figures, chosen


def _figures(measured: dict[str, Measured], slices: Slices, requests: Requests) -> dict[str, Any]:
    """`systems`, and `comparisons` of each ranker with those before it."""
    names = list(measured)
    systems: dict[str, Any] = {}
    comparisons: dict[str, Any] = {}
    for last in range(len(names), 1, -1):
        compared = {name: measured[name] for name in [names[last - 1], *names[: last - 1]]}
        figures = report(compared, slices, requests.day, requests.queries)
        systems = systems or {name: figures["systems"][name] for name in names}
        comparisons[names[last - 1]] = {other: one[ALL] for other, one in figures["comparisons"].items()}
    return {"systems": systems, "comparisons": comparisons}
