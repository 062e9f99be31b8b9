"""Retrieval measures, as pure functions of rankings."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

NOT_FOUND = np.iinfo(np.int64).max
"""Position of a target that is not in its ranking."""
MIN_GROUPS = 10
"""Groups, such as queries, that an interval of a mean needs; with fewer it would be far too short."""


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


def precision_at(k: int, positions: np.ndarray, request: np.ndarray, num_requests: int) -> np.ndarray:
    """Precision@K of each request, Σ_{t ∈ T} 1[t ∈ R] / K.

    It divides by K even where fewer products are found, or wanted: with one purchase a request it is at most 1 / K.

    Args:
        k: results that count.
        positions: int [P], see `target_positions`.
        request: int [P], request of each pair.
        num_requests: R.

    Returns:
        float64 [R]; NaN for a request without targets.
    """
    found = np.bincount(request, weights=positions < k, minlength=num_requests)
    return _where_wanted(found / k, request, num_requests)


def reciprocal_rank(k: int, positions: np.ndarray, request: np.ndarray, num_requests: int) -> np.ndarray:
    """1 / rank of each request's first target among the first K, 0 without one there; its mean is MRR@K.

    Args:
        k: results that count.
        positions: int [P], see `target_positions`.
        request: int [P], request of each pair.
        num_requests: R.

    Returns:
        float64 [R]; NaN for a request without targets.
    """
    first = np.full(num_requests, NOT_FOUND, np.int64)
    np.minimum.at(first, request, positions)
    values = np.where(first < k, 1.0 / (np.minimum(first, k) + 1.0), 0.0)
    return _where_wanted(values, request, num_requests)


def ndcg_at(
    k: int, positions: np.ndarray, request: np.ndarray, num_requests: int, gains: np.ndarray | None = None
) -> np.ndarray:
    """NDCG@K of each request, DCG@K / ideal DCG@K with DCG@K = Σ_t gain(t) / log2(1 + rank of t) (ranks from 1).

    Gains count linearly, as in trec_eval (not 2^gain - 1). The ideal order has all of the request's pairs, those that
    the catalogue lacks too: what cannot be found is a miss.

    Args:
        k: results that count.
        positions: int [P], see `target_positions`.
        request: int [P], request of each pair.
        num_requests: R.
        gains: float [P] ≥ 0; none: 1 each.

    Returns:
        float64 [R]; NaN for a request without a gain.
    """
    gains = np.ones(len(request)) if gains is None else np.asarray(gains, np.float64)
    discount = np.where(positions < k, 1.0 / np.log2(np.minimum(positions, k) + 2.0), 0.0)
    reached = np.bincount(request, weights=gains * discount, minlength=num_requests)
    order = np.lexsort((-gains, request))
    place = _place_in_group(request[order])
    discount = np.where(place < k, 1.0 / np.log2(place + 2.0), 0.0)
    ideal = np.bincount(request[order], weights=gains[order] * discount, minlength=num_requests)
    return np.divide(reached, ideal, out=np.full(num_requests, np.nan), where=ideal > 0)


def auroc(
    positions: np.ndarray, is_there: np.ndarray, request: np.ndarray, num_results: np.ndarray, num_products: np.ndarray
) -> np.ndarray:
    """AUROC of each request: how often a target stands above a product that is none, drawn from the whole catalogue.

    A system gives K results and does not tell the others apart, so all that it did not list is tied behind its last
    result, and a tie counts one half. Where K is the whole catalogue, this is the area under the ROC curve of
    its ranking. A target that the catalogue lacks counts 0: it stands below everything. Who lists nothing has ½.

    Args:
        positions: int [P], see `target_positions`.
        is_there: bool [P], whether the catalogue has the target.
        request: int [P], request of each pair.
        num_results: int [R], how many products were listed.
        num_products: int [R], how many there were to be listed.

    Returns:
        float64 [R]; NaN for a request without targets, or whose targets are the whole catalogue.
    """
    num_requests = len(num_products)
    others = num_products - np.bincount(request, weights=is_there, minlength=num_requests)
    is_found = positions < NOT_FOUND
    num_found = np.bincount(request, weights=is_found, minlength=num_requests)
    order = np.lexsort((positions, request))
    targets_above = np.empty(len(request), np.int64)
    targets_above[order] = _place_in_group(request[order])
    others_listed = (num_results - num_found)[request]
    above = np.where(is_found, positions - targets_above, others_listed)
    tied = np.where(is_found, 0.0, others[request] - others_listed)
    wins = np.where(is_there, others[request] - above - tied / 2, 0.0)
    total = np.bincount(request, minlength=num_requests) * others
    wins = np.bincount(request, weights=wins, minlength=num_requests)
    return np.divide(wins, total, out=np.full(num_requests, np.nan), where=total > 0)


def _where_wanted(values: np.ndarray, request: np.ndarray, num_requests: int) -> np.ndarray:
    """The values of requests that have a target, NaN elsewhere."""
    return np.where(np.bincount(request, minlength=num_requests) > 0, values, np.nan)


def _place_in_group(sorted_groups: np.ndarray) -> np.ndarray:
    """0, 1, 2, … within each run of equal values: int64 of the shape of `sorted_groups`."""
    start = np.flatnonzero(np.diff(sorted_groups, prepend=-1))
    lengths = np.diff(start, append=len(sorted_groups))
    return np.arange(len(sorted_groups)) - np.repeat(start, lengths)


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


class Part(NamedTuple):
    """Values whose means are resampled together: of r requests, in M columns.

    Attributes:
        values: float64 [r, M]; NaN is left out of its column.
        day: [r], any labels.
        group: [r], any labels, such as the queries; a label is the same group in all parts.
    """

    values: np.ndarray
    day: np.ndarray
    group: np.ndarray


def resampled_means(parts: Sequence[Part], num_resamples: int = 2_000, seed: int = 0) -> list[np.ndarray]:
    """Bayesian bootstrap of `mean_over_days` over groups of requests, of all columns of all parts with the same draws.

    Requests of one query are answered well or badly together, so they are drawn together, on all of its days: each
    resample gives every group g a weight W_g from the exponential distribution, for all of its requests (Rubin, The
    Bayesian Bootstrap, 1981). With v_r the value of request r and c_r = 1 / requests of its day, the resampled mean is
    Σ_g W_g Σ_{r ∈ g} c_r v_r / Σ_g W_g Σ_{r ∈ g} c_r, one ratio over all days: normalised day by day, a day with one
    query would not vary at all. Drawing whole groups with replacement would leave out days that few ask on, and so be
    off the mean. The difference of two columns' means is the mean of their paired difference, since both have the same
    draws.

    Args:
        parts: such as slices of the same requests.
        num_resamples: S, how often to draw.
        seed: of the draws.

    Returns:
        For each part float64 [S, M]; NaN where the mean rests on fewer than `MIN_GROUPS` groups, by their effective
        number (Σ_g C_g)² / Σ_g C_g² with C_g = Σ_{r ∈ g} c_r, which is their number where all count the same.
    """
    labels = np.unique(np.concatenate([part.group for part in parts]))
    means, prepared = [], []
    for part in parts:
        is_value = ~np.isnan(part.values)
        shares = _shares_of_days(is_value, part.day)
        sums = _sums_by_group(np.where(is_value, part.values, 0.0) * shares, part.group)
        counts = _sums_by_group(shares, part.group)
        squares = (counts**2).sum(axis=0)
        effective = np.divide(counts.sum(axis=0) ** 2, squares, out=np.zeros_like(squares), where=squares > 0)
        is_enough = np.round(effective, 6) >= MIN_GROUPS
        means.append(np.full((num_resamples, part.values.shape[1]), np.nan))
        groups = np.searchsorted(labels, np.unique(part.group))
        prepared.append((groups, is_enough, sums[:, is_enough], counts[:, is_enough]))
    rng = np.random.default_rng(seed)
    step = max(1, 1_000_000 // max(len(labels), 1))
    for begin in range(0, num_resamples, step):
        weights = rng.standard_exponential((min(step, num_resamples - begin), len(labels)))
        for of_part, (groups, is_enough, sums, counts) in zip(means, prepared, strict=True):
            drawn = weights if len(groups) == len(labels) else weights[:, groups]
            of_part[begin : begin + step, is_enough] = (drawn @ sums) / (drawn @ counts)
    return means


def _shares_of_days(is_value: np.ndarray, day: np.ndarray) -> np.ndarray:
    """1 / values of the same day and column, of bool [R, M]: what a value counts; 0 where there is none."""
    shares = np.zeros(is_value.shape)
    for label in np.unique(day):
        of_day = day == label
        shares[of_day] = is_value[of_day] / np.maximum(is_value[of_day].sum(axis=0), 1)
    return shares


def _sums_by_group(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Sums of each group's values, by sorted label: [G, M] of [R, M]."""
    if not len(group):
        return values
    order = np.argsort(group, kind="stable")
    _, begin = np.unique(group[order], return_index=True)
    return np.add.reduceat(values[order], begin)


def paired_interval(
    differences: np.ndarray,
    day: np.ndarray,
    group: np.ndarray,
    *,
    confidence: float = 0.95,
    num_resamples: int = 2_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Bayesian bootstrap interval of `mean_over_days` of paired differences, over groups of requests.

    It holds the middle `confidence` of the means of `resampled_means` (percentile method).

    Args:
        differences: float [R], one system's value minus the other's, for the same request; NaN is left out.
        day: [R], any labels.
        group: [R], any labels, such as the queries.
        confidence: share of the resamples within.
        num_resamples: how often to draw.
        seed: of the draws.

    Returns:
        Lower and upper end, NaN where `resampled_means` are.
    """
    is_value = ~np.isnan(differences)
    part = Part(differences[is_value, np.newaxis], day[is_value], group[is_value])
    (means,) = resampled_means([part], num_resamples, seed)
    (low, high) = middle(means, confidence)[:, 0]
    return float(low), float(high)


def middle(means: np.ndarray, confidence: float = 0.95) -> np.ndarray:
    """Ends of the interval that holds the middle `confidence` of resampled means: [2, M] of [S, M]."""
    return np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)


def paired_p_values(
    differences: np.ndarray, day: np.ndarray, group: np.ndarray, num_flips: int = 9_999, seed: int = 0
) -> np.ndarray:
    """Two-sided p-values of `mean_over_days` of paired differences, by a randomisation test.

    Were two systems the same, their values could be exchanged, of all requests of a query together: the difference has
    either sign with equal chance. p is the share of random signs, the observed ones counted among them, that give a
    mean at least as far from 0 (Fisher's test). Taken rather than a t-test, since recall of one purchase is 0 or 1 and
    not normal; rather than Wilcoxon's, which tests another thing than the mean; and rather than counting bootstrap
    means beyond 0, which is no test under the null hypothesis. Groups count as independent of each other.

    Args:
        differences: float [R, M]; NaN is left out of its column.
        day: [R], any labels.
        group: [R], any labels, such as the queries.
        num_flips: how often signs are drawn; p is at least 1 / (num_flips + 1).
        seed: of the draws.

    Returns:
        float64 [M]; 1 where all differences are 0, NaN without a value.
    """
    is_value = ~np.isnan(differences)
    shares = _sums_by_group(np.where(is_value, differences, 0.0) * _shares_of_days(is_value, day), group)
    # Equal means must count as equal, whatever the order of addition: recall takes few values.
    least = np.abs(shares.sum(axis=0)) - 1e-6 * np.abs(shares).sum(axis=0)
    p_values, together = np.full(len(least), np.nan), []
    for column in np.flatnonzero(is_value.any(axis=0)):
        sizes, times = np.unique(np.abs(shares[:, column]), return_counts=True)
        if len(sizes) < len(shares) / 10:
            # m shares of one size with random signs are 2 · Binomial(m, ½) - m of them.
            drawn = np.random.default_rng(seed).binomial(times, 0.5, (num_flips, len(sizes)))
            reached = np.count_nonzero(np.abs((2.0 * drawn - times) @ sizes) >= least[column])
            p_values[column] = (1 + reached) / (num_flips + 1)
        else:
            together.append(column)
    if together:
        beyond = _flips_beyond(shares[:, together].astype(np.float32), least[together], num_flips, seed)
        p_values[together] = (1 + beyond) / (num_flips + 1)
    return p_values


class SeedDifference(NamedTuple):
    """How two variants of a training differ, seed by seed: the same examples, draws and start.

    Attributes:
        mean: of the differences.
        deviation: their standard deviation.
        is_apart: 0 is outside of the 95% interval of the mean.
    """

    mean: float
    deviation: float
    is_apart: bool


def seed_difference(differences: Sequence[float]) -> SeedDifference:
    """Differences of one measure, a seed each, put together; the interval is Student's t.

    It is over seeds alone: that other requests could have been asked is not in it.

    Args:
        differences: [S], at least 2.
    """
    from scipy import stats

    gaps = np.asarray(differences, np.float64)
    mean, deviation = float(gaps.mean()), float(gaps.std(ddof=1))
    reach = stats.t.ppf(0.975, len(gaps) - 1) * deviation / np.sqrt(len(gaps))
    return SeedDifference(mean, deviation, bool(abs(mean) > reach))


def seed_difference_row(name: str, differences: Sequence[float] | None) -> dict[str, float | bool | None]:
    """`seed_difference` as `name`, `name_std` and `name_is_apart` of a result; of none, none each."""
    apart = None if differences is None else seed_difference(differences)
    return {
        name: apart and apart.mean,
        f"{name}_std": apart and apart.deviation,
        f"{name}_is_apart": apart and apart.is_apart,
    }


def direction(interval: Sequence[float | None], p_value: float, confidence: float = 0.95) -> int:
    """Whether a difference is surely above 0 (1) or below (−1), or not to be told from chance (0).

    Both have to say so: an interval of a Bayesian bootstrap does not hold 0 where all that is not 0 has one sign, be it
    one query among thousands, which the test takes for chance.

    Args:
        interval: of the difference, that holds `confidence`; without one (None or NaN) nothing is sure.
        p_value: of the same difference.
        confidence: of both.
    """
    low, high = interval
    if low is None or high is None or p_value > 1 - confidence + 1e-9:
        return 0
    return 1 if low > 0 else -1 if high < 0 else 0


def _flips_beyond(shares: np.ndarray, least: np.ndarray, num_flips: int, seed: int) -> np.ndarray:
    """In how many of `num_flips` random signs a column of shares, float32 [R, M], adds up to `least` [M] or more."""
    rng = np.random.default_rng(seed)
    num_rows, total = len(shares), shares.sum(axis=0)
    reached = np.zeros(len(total), np.int64)
    step = max(1, 2_000_000 // num_rows)
    for begin in range(0, num_flips, step):
        flips = min(step, num_flips - begin)
        bits = np.frombuffer(rng.bytes(flips * -(-num_rows // 8)), np.uint8).reshape(flips, -1)
        is_kept = np.unpackbits(bits, axis=1, count=num_rows).astype(np.float32)
        reached += np.count_nonzero(np.abs(2 * (is_kept @ shares) - total) >= least, axis=0)
    return reached
