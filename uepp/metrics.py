"""Retrieval measures, as pure functions of rankings."""

import numpy as np

NOT_FOUND = np.iinfo(np.int64).max
"""Position of a target that is not in its ranking."""


def target_positions(ranking: np.ndarray, request: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Where each target stands in the ranking of its request.

    Args:
        ranking: int [R, K] product indexes, best first; -1 where there are fewer results.
        request: int [P], row of `ranking` of each (request, target) pair.
        target: int [P], product index of each pair; negative for a product that the catalogue lacks.

    Returns:
        int64 [P], 0 for the best place; `NOT_FOUND`, beyond any K, where the target is not in the ranking.
    """
    width = ranking.shape[1]
    positions = np.full(len(request), NOT_FOUND, np.int64)
    if not width:
        return positions
    step = max(1, 20_000_000 // width)
    for begin in range(0, len(request), step):
        part = slice(begin, begin + step)
        is_hit = (ranking[request[part]] == target[part, None]) & (target[part, None] >= 0)
        positions[part] = np.where(is_hit.any(axis=1), is_hit.argmax(axis=1), NOT_FOUND)
    return positions


def recall_at(k: int, positions: np.ndarray, request: np.ndarray, num_requests: int) -> np.ndarray:
    """Recall@K of each request, Σ_{t ∈ T} 1[t ∈ R] / |T| (UEPPR VI-A).

    It is not precision, and not the share of requests with a hit: a request with four targets, one of them
    found, counts 0.25. A request without results scores 0.

    Args:
        k: results that count.
        positions: int [P], see `target_positions`.
        request: int [P], request of each pair.
        num_requests: R.

    Returns:
        float64 [R]; NaN for a request without targets.
    """
    found = np.bincount(request, weights=positions < k, minlength=num_requests)
    total = np.bincount(request, minlength=num_requests).astype(float)
    return np.divide(found, total, out=np.full(num_requests, np.nan), where=total > 0)


def mean_over_days(values: np.ndarray, day: np.ndarray) -> float:
    """Mean of each day's mean; NaN values are left out, and days without a value too.

    Args:
        values: float [R].
        day: [R], any labels.

    Returns:
        The mean, or NaN when there is no value at all.
    """
    is_value = ~np.isnan(values)
    if not is_value.any():
        return float("nan")
    _, row = np.unique(day[is_value], return_inverse=True)
    daily = np.bincount(row, weights=values[is_value]) / np.bincount(row)
    return float(daily.mean())


def paired_interval(
    differences: np.ndarray, day: np.ndarray, *, confidence: float = 0.95, num_resamples: int = 2_000, seed: int = 0
) -> tuple[float, float]:
    """Bootstrap interval of `mean_over_days` of paired differences, over requests.

    Each resample draws as many requests of a day as the day has, with replacement; the interval holds the middle
    `confidence` of the resamples' means (percentile method). Days are given, not drawn.

    Args:
        differences: float [R], one system's value minus the other's, for the same request; NaN is left out.
        day: [R], any labels.
        confidence: share of the resamples within.
        num_resamples: how often to draw.
        seed: of the draws.

    Returns:
        Lower and upper end, NaN when there is no value at all.
    """
    is_value = ~np.isnan(differences)
    if not is_value.any():
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    values, days = differences[is_value], day[is_value]
    means = np.zeros(num_resamples)
    labels = np.unique(days)
    for label in labels:
        of_day = values[days == label]
        step = max(1, 10_000_000 // len(of_day))
        for begin in range(0, num_resamples, step):
            part = means[begin : begin + step]
            part += of_day[rng.integers(0, len(of_day), (len(part), len(of_day)))].mean(axis=1)
    low, high = np.quantile(means / len(labels), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
