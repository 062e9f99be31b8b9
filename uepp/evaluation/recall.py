"""Figures of several systems on the same requests: means, intervals, and how far one is ahead of the others."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from uepp.evaluation.measures import Measured, daily
from uepp.evaluation.slices import ALL, JUDGED, Slices
from uepp.features.text import query_numbers
from uepp.metrics import middle, paired_p_values, resampled_means

_NUM_RESAMPLES = 1_000
_DECIMALS = 6  # of intervals: their ends do not depend on how many systems are resampled together


def report(measured: Mapping[str, Measured], slices: Slices, day: np.ndarray, queries: Sequence[str]) -> dict[str, Any]:
    """All figures of an evaluation.

    The 95% intervals are of a bootstrap over queries, each with all of its requests, the p-values of a paired
    randomisation test (`uepp.metrics`).
    Both are given of every measure for all and for judged requests, and of recall in the other slices.

    Args:
        measured: systems by name; the first one is compared with each of the others.
        slices: of the requests.
        day: [R], their days.
        queries: [R], their texts.

    Returns:
        `systems`: by system and slice the measures, `num_queries`, `num_requests`, and `intervals` by measure;
        `comparisons`: by other system, slice and measure `difference` (the first one's mean minus the other's),
        `interval` and `p_value`; `days`: by day `num_requests` and by system the measures. The ends of an interval are
        NaN where there are too few queries for one (`resampled_means`).
    """
    first, *others = measured
    query = query_numbers(queries)
    systems: dict[str, Any] = {name: {} for name in measured}
    comparisons: dict[str, Any] = {name: {} for name in others}
    for slice_name, part in slices.by_name.items():
        values = {name: one.values[part.wanted] for name, one in measured.items()}
        names = [name for name in values[first] if slice_name in (ALL, JUDGED) or name.startswith("recall@")]
        table = np.stack([[of_system[name][part.rows] for name in names] for of_system in values.values()])
        with threadpool_limits(1, "blas"):  # small matrices: threads would wait for each other, and add up in any order
            intervals, differences, p_values = _compared(table, day[part.rows], query[part.rows])
        for row, name in enumerate(measured):
            means = {key: measured[name].mean(slices, slice_name, key, day) for key in values[name]}
            ends = dict(zip(names, intervals[row].tolist(), strict=True))
            numbers = {"num_queries": part.num_queries, "num_requests": len(part.rows)}
            systems[name][slice_name] = {**means, **numbers, "intervals": ends}
        for row, name in enumerate(others):
            ours, theirs = systems[first][slice_name], systems[name][slice_name]
            comparisons[name][slice_name] = {
                key: {"difference": ours[key] - theirs[key], "interval": ends, "p_value": p_value}
                for key, ends, p_value in zip(names, differences[row].tolist(), p_values[row].tolist(), strict=True)
            }
    by_system = {name: daily(one, day) for name, one in measured.items()}
    asked = slices.by_name[ALL].rows
    days = {
        str(label): {
            "num_requests": int(np.sum(day[asked] == label)),
            "systems": {name: of_days[str(label)] for name, of_days in by_system.items()},
        }
        for label in np.unique(day[asked])
    }
    return {"systems": systems, "comparisons": comparisons, "days": days}


def _compared(table: np.ndarray, day: np.ndarray, query: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Intervals and tests.

    Args:
        table: float64 [S, M, r], the systems' values of r requests.
        day: [r].
        query: [r].

    Returns:
        Intervals [S, M, 2]; intervals of the first system's differences [S - 1, M, 2], and their p-values [S - 1, M].
    """
    num_systems, num_measures, num_requests = table.shape
    if not num_requests:
        empty = np.full((num_systems, num_measures, 2), np.nan)
        return empty, empty[1:], empty[1:, :, 0]
    columns = table.reshape(-1, num_requests).T
    means = resampled_means(columns, day, query, _NUM_RESAMPLES).reshape(_NUM_RESAMPLES, num_systems, num_measures)
    intervals = np.round(np.moveaxis(middle(means), 0, -1), _DECIMALS)
    differences = np.round(np.moveaxis(middle(means[:, :1] - means[:, 1:]), 0, -1), _DECIMALS)
    paired = (table[:1] - table[1:]).reshape(-1, num_requests).T
    return intervals, differences, paired_p_values(paired, day, query).reshape(num_systems - 1, num_measures)


def without_nan(scores: Any) -> Any:
    """The same nested scores with null for what has no value (JSON knows no NaN)."""
    if isinstance(scores, dict):
        return {key: without_nan(value) for key, value in scores.items()}
    if isinstance(scores, list):
        return [without_nan(value) for value in scores]
    return None if isinstance(scores, float) and np.isnan(scores) else scores
