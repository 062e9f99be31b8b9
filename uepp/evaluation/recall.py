"""Figures of several systems on the same requests: means, intervals, and how far one is ahead of the others."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from uepp.evaluation.measures import Measured, daily
from uepp.evaluation.slices import ALL, JUDGED, Slices
from uepp.features.text import query_numbers
from uepp.metrics import Part, middle, paired_p_values, resampled_means

REFERENCE = "bm25"
"""What every other system is compared with: tuned BM25."""
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
        `interval` and `p_value`; `over_bm25`, where tuned BM25 is among the systems: by each other one, slice and
        measure the same of its own mean minus BM25's, and `ratio` of the means with `ratio_interval`; `days`: by day
        `num_requests` and by system the measures. The ends of an interval are NaN where there are too few queries for
        one (`resampled_means`), and a ratio to 0 is.
    """
    first, *others = measured
    query = query_numbers(queries)
    systems: dict[str, Any] = {name: {} for name in measured}
    comparisons: dict[str, Any] = {name: {} for name in others}
    over: dict[str, Any] = {name: {} for name in measured if REFERENCE in measured and name != REFERENCE}
    place = {name: row for row, name in enumerate(measured)}
    pairs = [(first, name) for name in others] + [(name, REFERENCE) for name in over]
    rows = np.array([(place[one], place[other]) for one, other in pairs], np.int64).reshape(-1, 2)
    shown, tables = {}, []
    for slice_name, part in slices.by_name.items():
        values = {name: one.values[part.wanted] for name, one in measured.items()}
        names = [name for name in values[first] if slice_name in (ALL, JUDGED) or name.startswith("recall@")]
        columns = [of_system[name][part.rows] for of_system in values.values() for name in names]
        tables.append(Part(np.stack(columns, axis=1), day[part.rows], query[part.rows]))
        shown[slice_name] = names
    with threadpool_limits(1, "blas"):  # small matrices: threads would wait for each other, and add up in any order
        drawn = resampled_means(tables, _NUM_RESAMPLES)
        found = [_compared(table, means, rows, len(measured)) for table, means in zip(tables, drawn, strict=True)]
    for (slice_name, names), (intervals, compared) in zip(shown.items(), found, strict=True):
        part = slices.by_name[slice_name]
        for row, name in enumerate(measured):
            means = {
                key: measured[name].mean(slices, slice_name, key, day) for key in measured[name].values[part.wanted]
            }
            ends = dict(zip(names, intervals[row].tolist(), strict=True))
            numbers = {"num_queries": part.num_queries, "num_requests": len(part.rows)}
            systems[name][slice_name] = {**means, **numbers, "intervals": ends}
        differences = [
            {
                key: {
                    "difference": systems[one][slice_name][key] - systems[other][slice_name][key],
                    "interval": compared.differences[pair, column].tolist(),
                    "p_value": float(compared.p_values[pair, column]),
                }
                for column, key in enumerate(names)
            }
            for pair, (one, other) in enumerate(pairs)
        ]
        for pair, name in enumerate(others):
            comparisons[name][slice_name] = differences[pair]
        for pair, name in enumerate(over, start=len(others)):
            base = systems[REFERENCE][slice_name]
            over[name][slice_name] = {
                key: {
                    **differences[pair][key],
                    "ratio": systems[name][slice_name][key] / base[key] if base[key] else np.nan,
                    "ratio_interval": compared.ratios[pair, column].tolist(),
                }
                for column, key in enumerate(names)
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
    return {"systems": systems, "comparisons": comparisons, "over_bm25": over, "days": days}


class _Compared(NamedTuple):
    """Of P pairs of systems and M measures.

    Attributes:
        differences: intervals [P, M, 2].
        ratios: intervals [P, M, 2].
        p_values: of the differences, [P, M].
    """

    differences: np.ndarray
    ratios: np.ndarray
    p_values: np.ndarray


def _compared(table: Part, means: np.ndarray, pairs: np.ndarray, num_systems: int) -> tuple[np.ndarray, _Compared]:
    """Intervals and tests.

    Args:
        table: S · M columns, system by system the measures of each.
        means: their resampled means, [resamples, S · M].
        pairs: int64 [P, 2], systems by their row.
        num_systems: S.

    Returns:
        Intervals [S, M, 2] of the means, and the pairs' comparisons.
    """
    num_measures = table.values.shape[1] // num_systems
    means = means.reshape(len(means), num_systems, num_measures)
    values = table.values.reshape(len(table.values), num_systems, num_measures)
    rows, others = pairs.T
    one, other = means[:, rows], means[:, others]
    ratios = np.divide(one, other, out=np.full_like(one, np.nan), where=other > 0)
    paired = (values[:, rows] - values[:, others]).reshape(len(values), len(pairs) * num_measures)
    p_values = paired_p_values(paired, table.day, table.group).reshape(len(pairs), num_measures)
    return _ends(means), _Compared(_ends(one - other), _ends(ratios), p_values)


def _ends(resamples: np.ndarray) -> np.ndarray:
    """Of [resamples, …], the ends of the middle of them, [..., 2]."""
    return np.round(np.moveaxis(middle(resamples), 0, -1), _DECIMALS)


def without_nan(scores: Any) -> Any:
    """The same nested scores with null for what has no value (JSON knows no NaN)."""
    if isinstance(scores, dict):
        return {key: without_nan(value) for key, value in scores.items()}
    if isinstance(scores, list):
        return [without_nan(value) for value in scores]
    return None if isinstance(scores, float) and np.isnan(scores) else scores
