"""Reciprocal rank fusion: rankings of the same products become one, by ranks alone.

Scores of BM25 and of the towers have nothing in common, ranks have. Cormack, Clarke and Büttcher (SIGIR 2009):

    score(p) = Σ_r weight_r / (constant + rank of p in ranking r),  ranks from 1

A ranking without the product adds nothing.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

DEPTH = 1_000
"""Results of each system that are fused, at least: with another depth a fusion is another ranking, so evaluation and
serving, and all pages up to it, take the same."""
CONSTANT = 60.0
"""The paper's: high enough that no single first rank decides."""


def fuse(
    rankings: Sequence[NDArray[np.integer]],
    k: int,
    *,
    weights: Sequence[float] | None = None,
    constant: float = CONSTANT,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Fuse rankings of B queries.

    Args:
        rankings: product indexes [B, K_r] each, best first, every product at most once a row; -1 is no product.
        k: results a query, ≥ 1.
        weights: one > 0 a ranking; none: all count the same.
        constant: ≥ 0.

    Returns:
        product_index int64 [B, k] and scores float32 [B, k], best first; -1 and 0 where there are fewer. Ties go to
        the better rank in the first ranking, then in the next ones, then to the lower product index.

    Raises:
        ValueError: no rankings, different B, or a value out of its range.
    """
    weights = [1.0] * len(rankings) if weights is None else weights
    if not rankings or len(weights) != len(rankings) or len({len(ranking) for ranking in rankings}) > 1:
        raise ValueError("expected rankings of the same queries, and a weight each")
    if k < 1 or constant < 0 or min(weights) <= 0:
        raise ValueError(f"k = {k}, constant = {constant}, weights = {list(weights)}: expected ≥ 1, ≥ 0, all > 0")
    num_queries = len(rankings[0])
    product_index = np.full((num_queries, k), -1, np.int64)
    scores = np.zeros((num_queries, k), np.float32)
    for query in range(num_queries):
        products, values = _fuse_one([ranking[query] for ranking in rankings], weights, constant)
        product_index[query, : len(products)], scores[query, : len(products)] = products[:k], values[:k]
    return product_index, scores


def _fuse_one(
    rows: Sequence[NDArray[np.integer]], weights: Sequence[float], constant: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    products = np.unique(np.concatenate(rows))
    products = products[products >= 0].astype(np.int64)
    values = np.zeros(len(products))
    ranks = []
    for row, weight in zip(rows, weights, strict=True):
        rank = np.full(len(products), np.inf)
        is_there = row >= 0
        rank[np.searchsorted(products, row[is_there])] = np.flatnonzero(is_there) + 1.0
        values += weight / (constant + rank)
        ranks.append(rank)
    order = np.lexsort((products, *reversed(ranks), -values))
    return products[order], values[order]
