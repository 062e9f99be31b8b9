"""How well scores of pairs follow what people said of them (BHNS 4.1.2, 4.2.3)."""

from typing import NamedTuple

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from uepp.metrics import ndcg_at

NDCG_AT = (5, 10, 20)


class Correlations(NamedTuple):
    """Of scores with grades, −1 to 1; and AUROC, 0 to 1.

    Attributes:
        pearson: of the scores themselves, so a rising function of them has another one.
        spearman: of the ranks; ties have their mean rank.
        auroc: how often a positive has the higher score of the two; a tie counts one half.
    """

    pearson: float
    spearman: float
    auroc: float


def correlations(scores: ArrayLike, grades: ArrayLike, is_positive: ArrayLike) -> Correlations:
    """Pair-wise measures of N pairs; NaN where scores or grades are all the same, or all of one kind.

    Args:
        scores: float [N].
        grades: float [N].
        is_positive: bool [N].
    """
    x, y = np.asarray(scores, np.float64), np.asarray(grades, np.float64)
    if len(x) < 2 or not np.ptp(x) or not np.ptp(y):
        return Correlations(np.nan, np.nan, pair_auroc(x, is_positive))
    return Correlations(
        float(scipy.stats.pearsonr(x, y).statistic),
        float(scipy.stats.spearmanr(x, y).statistic),
        pair_auroc(x, is_positive),
    )


def pair_auroc(scores: ArrayLike, is_positive: ArrayLike) -> float:
    """Area under the ROC curve of pairs, whatever their queries (BHNS 4.2.3): not a mean over queries.

    How often a positive pair has a higher score than a negative one, a tie counting one half (Mann and Whitney).

    Args:
        scores: float [N].
        is_positive: bool [N].

    Returns:
        0 to 1; NaN where all pairs are of one kind.
    """
    rank = scipy.stats.rankdata(np.asarray(scores, np.float64))
    positive = np.asarray(is_positive, bool)
    num_positive = int(positive.sum())
    num_negative = len(positive) - num_positive
    if not num_positive or not num_negative:
        return float("nan")
    above = rank[positive].sum() - num_positive * (num_positive + 1) / 2
    return float(above / (num_positive * num_negative))


def query_ndcg(scores: ArrayLike, gains: ArrayLike, query: NDArray[np.int64], k: int) -> float:
    """NDCG@K of the order in which scores put each query's pairs; the mean over queries that have a gain.

    Linear gains (`uepp.metrics.ndcg_at`). Pairs with the same score stand in the order of their gains, least first, so
    that who says the same of all is not rewarded for the order of a file.

    Args:
        scores: float [N].
        gains: float [N] ≥ 0.
        query: int64 [N], the query of each pair.
        k: places that count.
    """
    gain = np.asarray(gains, np.float64)
    order = np.lexsort((gain, -np.asarray(scores, np.float64), query))
    sorted_query = query[order]
    place = np.empty(len(query), np.int64)
    place[order] = np.arange(len(query)) - np.searchsorted(sorted_query, sorted_query)
    _, row = np.unique(query, return_inverse=True)
    return float(np.nanmean(ndcg_at(k, place, row, int(row.max(initial=-1)) + 1, gain)))
