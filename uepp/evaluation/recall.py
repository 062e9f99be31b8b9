"""Recall@K of systems on the same requests, by segment, and the closing table."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from uepp.evaluation.baselines import System
from uepp.evaluation.requests import Requests, Targets
from uepp.evaluation.segments import NAMES, Segments
from uepp.metrics import NOT_FOUND, mean_over_days, recall_at, target_positions

LABELS = {
    "uepp": "UEPPR (this run)",
    "uepp_boost": "UEPPR boost (this run)",
    "bm25": "BM25, tuned",
    "bm25_expanded": "BM25, tuned, with generated queries",
    "bm25_stemmed": "BM25, stemmed",
    "bm25_plain": "BM25, plain",
    "fusion": "UEPPR + tuned BM25 (RRF)",
    "random_walk": "random walk",
    "category_popularity": "category + popularity",
    "popularity": "popularity",
}
Scores = dict[str, dict[str, float]]
_RANKED_AT_ONCE = 2_000


def evaluate(system: System, requests: Requests, segments: Segments, recall_at_ks: Sequence[int]) -> Scores:
    """Recall@K of one system: mean of each day, then over days (UEPPR VI-A).

    Returns:
        `{"all": {"recall@10": …, "num_requests": …, "num_queries": …}, "head": …, "torso", "tail", "non_repeat"}`.
        `non_repeat` keeps only targets that the user had never bought before, and requests that still have one.
    """
    results = Positions(system, requests, max(recall_at_ks))
    every = np.ones(len(requests), bool)
    scores = {"all": results.summary(requests.targets, every, recall_at_ks)}
    for name in NAMES:
        scores[name] = results.summary(requests.targets, segments.labels == name, recall_at_ks)
    scores["non_repeat"] = results.summary(requests.non_repeat_targets, every, recall_at_ks)
    return scores


class Positions:
    """Positions of all targets in one system's rankings, ranked in parts of bounded memory.

    Args:
        system: ranks.
        requests: with their targets.
        width: places that count, the largest K.
    """

    def __init__(self, system: System, requests: Requests, width: int) -> None:
        self._requests = requests
        self._positions = {
            id(targets): np.full(len(targets.request), NOT_FOUND, np.int64)
            for targets in (requests.targets, requests.non_repeat_targets)
        }
        for num_products in np.unique(requests.num_products):
            rows = np.flatnonzero(requests.num_products == num_products)
            for begin in range(0, len(rows), _RANKED_AT_ONCE):
                part = rows[begin : begin + _RANKED_AT_ONCE]
                ranking = system.rank(requests.raw.take(part), width, int(num_products))
                for targets in (requests.targets, requests.non_repeat_targets):
                    self._place(targets, part, ranking)

    def _place(self, targets: Targets, part: np.ndarray, ranking: np.ndarray) -> None:
        row_in_part = np.full(len(self._requests), -1, np.int64)
        row_in_part[part] = np.arange(len(part))
        pair = np.flatnonzero(row_in_part[targets.request] >= 0)
        self._positions[id(targets)][pair] = target_positions(
            ranking, row_in_part[targets.request[pair]], targets.product_index[pair]
        )

    def recall(self, targets: Targets, k: int) -> np.ndarray:
        """Recall@K of each request, float64 [R], NaN without a target."""
        return recall_at(k, self._positions[id(targets)], targets.request, len(self._requests))

    def summary(self, targets: Targets, is_in: np.ndarray, ks: Sequence[int]) -> dict[str, float]:
        """Recall@K over some of the requests, bool [R], and how many these are."""
        has_target = np.bincount(targets.request, minlength=len(self._requests)) > 0
        counted = is_in & has_target
        summary: dict[str, float] = {}
        for k in ks:
            recall = self.recall(targets, k)
            summary[f"recall@{k}"] = mean_over_days(np.where(counted, recall, np.nan), self._requests.day)
        queries = {query for query, keep in zip(self._requests.queries, counted, strict=True) if keep}
        return {**summary, "num_queries": len(queries), "num_requests": int(counted.sum())}


def without_nan(scores: Any) -> Any:
    """The same nested scores with null for what has no value (JSON knows no NaN)."""
    if isinstance(scores, dict):
        return {key: without_nan(value) for key, value in scores.items()}
    return None if isinstance(scores, float) and np.isnan(scores) else scores


def print_table(metrics: dict[str, Any], console: Console) -> None:
    """The closing table: systems by Recall@K, for all requests and by segment."""
    systems: dict[str, Any] = metrics["systems"]
    ks = [key for key in next(iter(systems.values()))["all"] if key.startswith("recall@")]
    shown = ["all", "head", "torso", "tail"]
    if any(
        scores["non_repeat"]["num_requests"] and scores["non_repeat"] != scores["all"] for scores in systems.values()
    ):
        shown.append("non_repeat")
    title = f"Recall on {metrics['num_requests']:,} requests of {metrics['num_days']} days"
    table = Table(title=title, caption=f"Segments: {metrics['segments']}", caption_justify="left")
    table.add_column("segment")
    table.add_column("system")
    for k in ks:
        table.add_column(f"R{k[6:]}", justify="right")
    for segment in shown:
        best = {
            k: max((s[segment][k] for s in systems.values() if s[segment][k] is not None), default=None) for k in ks
        }
        for name, scores in systems.items():
            cells = [_cell(scores[segment][k], scores[segment][k] == best[k]) for k in ks]
            first = f"{segment} ({scores[segment]['num_requests']:,})" if name == next(iter(systems)) else ""
            table.add_row(first, LABELS.get(name, name), *cells)
        table.add_section()
    console.print(table)


def _cell(value: float | None, is_best: bool) -> str:
    if value is None:
        return "–"
    return f"[bold]{value:.3f}[/bold]" if is_best else f"{value:.3f}"
