"""Every measure of every request, for one system: it ranks, and its rankings are looked through once."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from uepp.evaluation.baselines import System
from uepp.evaluation.locality import FirstResults
from uepp.evaluation.requests import Requests, Targets
from uepp.evaluation.slices import ALL, Slices, Wanted
from uepp.metrics import (
    NOT_FOUND,
    auroc,
    mean_over_days,
    ndcg_at,
    precision_at,
    recall_at,
    reciprocal_rank,
    target_positions,
)

MEASURES = ("recall", "ndcg", "precision", "mrr", "auroc")
"""What is measured, in the order of the figures."""
_RANKED_AT_ONCE = 2_000


def measure_names(ks: Sequence[int]) -> list[str]:
    """`recall@10`, …, `auroc@1000`: the first three at every K, MRR and AUROC at the largest."""
    return [f"{name}@{k}" for name in MEASURES[:3] for k in ks] + [f"{name}@{max(ks)}" for name in MEASURES[3:]]


@dataclass(frozen=True)
class Measured:
    """One system on R requests.

    Attributes:
        values: for each key of `Slices.wanted`, the measures by name, float64 [R] each, NaN where nothing is wanted.
        locality: where the first results are, see `FirstResults`; empty where that was not asked.
    """

    values: dict[str, dict[str, np.ndarray]]
    locality: dict[str, float] = field(default_factory=dict)

    def mean(self, of: Slices, name: str, measure: str, day: np.ndarray) -> float:
        """A measure's mean over days in one slice; NaN without a request."""
        part = of.by_name[name]
        return mean_over_days(self.values[part.wanted][measure][part.rows], day[part.rows])


def measure(
    system: System, requests: Requests, slices: Slices, ks: Sequence[int], first: FirstResults | None = None
) -> Measured:
    """Rank all requests, in parts of bounded memory, and measure.

    Args:
        system: ranks.
        requests: R.
        slices: of these requests.
        ks: K of the measures, increasing.
        first: is told the rankings; none: nothing is said of where results are.
    """
    tables = list({id(wanted.among): wanted.among for wanted in slices.wanted.values()}.values())
    positions, num_results = target_places(system, requests, tables, max(ks), first)
    place_of = {id(table): places for table, places in zip(tables, positions, strict=True)}
    return Measured(
        {
            name: _measures(wanted, place_of[id(wanted.among)][wanted.pairs], num_results, requests, ks)
            for name, wanted in slices.wanted.items()
        },
        {} if first is None else first.figures(),
    )


def target_places(
    system: System, requests: Requests, tables: Sequence[Targets], width: int, first: FirstResults | None = None
) -> tuple[list[np.ndarray], np.ndarray]:
    """Where wanted products stand in a system's rankings.

    Args:
        system: ranks.
        requests: R.
        tables: pairs to look for.
        width: results that are asked for.
        first: is told the rankings.

    Returns:
        For each table int64 [P], see `uepp.metrics.target_positions`; and int64 [R], how many results there were.
    """
    positions = [np.full(len(table.request), NOT_FOUND, np.int64) for table in tables]
    num_results = np.zeros(len(requests), np.int64)
    for num_products in np.unique(requests.num_products):
        rows = np.flatnonzero(requests.num_products == num_products)
        for begin in range(0, len(rows), _RANKED_AT_ONCE):
            part = rows[begin : begin + _RANKED_AT_ONCE]
            ranking = system.rank(requests.raw.take(part), width, int(num_products))
            num_results[part] = ranking.shape[1]
            is_short = ranking[:, -1] < 0  # free places are at the end
            num_results[part[is_short]] = np.count_nonzero(ranking[is_short] >= 0, axis=1)
            if first is not None:
                first.add(part, ranking)
            row_in_part = np.full(len(requests), -1, np.int64)
            row_in_part[part] = np.arange(len(part))
            for table, places in zip(tables, positions, strict=True):
                pair = np.flatnonzero(row_in_part[table.request] >= 0)
                places[pair] = target_positions(ranking, row_in_part[table.request[pair]], table.product_index[pair])
    return positions, num_results


def recalls(system: System, requests: Requests, ks: Sequence[int]) -> dict[int, np.ndarray]:
    """Recall@K of each request, by K, float64 [R], NaN without a target."""
    (positions,), _ = target_places(system, requests, [requests.targets], max(ks))
    return {k: recall_at(k, positions, requests.targets.request, len(requests)) for k in ks}


def _measures(
    wanted: Wanted, positions: np.ndarray, num_results: np.ndarray, requests: Requests, ks: Sequence[int]
) -> dict[str, np.ndarray]:
    request, size = wanted.request, len(requests)
    if wanted.gains is not None:
        return {f"ndcg@{k}": ndcg_at(k, positions, request, size, wanted.gains) for k in ks}
    values = {f"recall@{k}": recall_at(k, positions, request, size) for k in ks}
    values |= {f"ndcg@{k}": ndcg_at(k, positions, request, size) for k in ks}
    values |= {f"precision@{k}": precision_at(k, positions, request, size) for k in ks}
    values[f"mrr@{max(ks)}"] = reciprocal_rank(max(ks), positions, request, size)
    is_there = (wanted.product_index >= 0) & (wanted.product_index < requests.num_products[request])
    values[f"auroc@{max(ks)}"] = auroc(positions, is_there, request, num_results, requests.num_products)
    return values


def daily(measured: Measured, day: np.ndarray) -> dict[str, dict[str, float]]:
    """Each day's mean of all measures, over all requests with a target."""
    labels, row = np.unique(day, return_inverse=True)
    found: dict[str, dict[str, float]] = {str(label): {} for label in labels}
    for name, values in measured.values[ALL].items():
        is_value = ~np.isnan(values)
        sums = np.bincount(row[is_value], values[is_value], len(labels))
        numbers = np.bincount(row[is_value], minlength=len(labels))
        means = np.divide(sums, numbers, out=np.full(len(labels), np.nan), where=numbers > 0)
        for label, mean in zip(labels, means.tolist(), strict=True):
            found[str(label)][name] = mean
    return found
