"""Reciprocal rank fusion: rankings of the same products become one, by ranks alone.

Scores of BM25 and of the towers have nothing in common, ranks have. Cormack, Clarke and Büttcher (SIGIR 2009):

    score(p) = Σ_r weight_r / (constant + rank of p in ranking r),  ranks from 1

A ranking without the product adds nothing. Weight and constant are chosen on selection requests (`tune`): equal weights
suit rankings that are about as good as each other.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uepp.artifacts import read_json
from uepp.errors import InputError
from uepp.lexical.bm25 import MIN_GAIN

DEPTH = 1_000
"""Results of each system that are fused, at least: with another depth a fusion is another ranking, so evaluation and
serving, and all pages up to it, take the same."""
CONSTANT = 60.0
"""The paper's: high enough that no single first rank decides."""
FUSION = "fusion.json"
"""In an export: how the towers and BM25 are fused."""

_CONSTANTS = (2.0, 5.0, 10.0, 20.0, 40.0, 60.0)
_WEIGHTS = (0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)


@dataclass(frozen=True)
class FusionSettings:
    """How the towers' ranking and BM25's become one.

    Args:
        weight: of the towers, > 0; BM25's is 1.
        constant: ≥ 0, see above.

    Raises:
        ValueError: a value out of its range.
    """

    weight: float = 1.0
    constant: float = CONSTANT

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not (self.weight > 0 and self.constant >= 0):
            raise ValueError(f"weight = {self.weight}, constant = {self.constant}: expected > 0 and ≥ 0")

    @classmethod
    def read(cls, export: Path) -> "FusionSettings":
        """Of an export; one that has none takes the defaults.

        Raises:
            InputError: a damaged file.
        """
        path = export / FUSION
        if not path.exists():
            return cls()
        facts = read_json(path)
        try:
            return cls(float(facts["weight"]), float(facts["constant"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: not settings of a fusion ({error})") from None

    def fuse(
        self, towers: NDArray[np.integer], by_words: NDArray[np.integer], k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """`fuse` of the towers' rankings [B, K] and BM25's [B, K'] with these settings."""
        return fuse([towers, by_words], k, weights=[self.weight, 1.0], constant=self.constant)


def tune(
    towers: NDArray[np.integer],
    by_words: NDArray[np.integer],
    targets: Sequence[Sequence[int]],
    at: Sequence[int] = (10, 100),
) -> dict[str, Any]:
    """Choose the settings whose mean of Recall@K over several K is highest on selection requests.

    With 30 as weight and 60 as constant what only BM25 finds stands behind all 1,000 of the towers: the towers alone,
    but for the order. The defaults stay where nothing gains more than .001.

    Args:
        towers: product indexes int [B, K], best first, -1: none.
        by_words: int [B, K'], likewise.
        targets: wanted products of each request; -1 is one that the catalogue lacks, a miss.
        at: the K.

    Returns:
        For `fusion.json`: `weight`, `constant`, `num_requests`, and where there are any each `recall@K`, also of the
        `towers` and `bm25` alone, and `tried`: all settings with theirs.
    """
    asked = [row for row, wanted in enumerate(targets) if len(wanted)]
    if not asked:
        return {**asdict(FusionSettings()), "num_requests": 0}
    grid = [FusionSettings()]
    grid += [each for c in _CONSTANTS for w in _WEIGHTS if (each := FusionSettings(w, c)) != grid[0]]
    recalls, alone = np.zeros((len(grid), len(at))), np.zeros((2, len(at)))
    for row in asked:
        products, ranks = _ranked([towers[row], by_words[row]])
        wanted = np.unique([product for product in targets[row] if product >= 0])
        num_wanted = len(wanted) + sum(product < 0 for product in targets[row])
        places = np.flatnonzero(np.isin(products, wanted))
        for system, own in enumerate(ranks):
            alone[system] += [np.count_nonzero(own[places] <= k) / num_wanted for k in at]
        for number, settings in enumerate(grid):
            values = _values(ranks, [settings.weight, 1.0], settings.constant)
            found = np.array([_place(values, ranks[0], place) for place in places.tolist()])
            recalls[number] += [np.count_nonzero(found < k) / num_wanted for k in at]
    recalls, alone = recalls / len(asked), alone / len(asked)
    means = recalls.mean(axis=1)
    best = int(np.argmax(means))
    if means[best] <= means[0] + MIN_GAIN:
        best = 0

    def named(values: NDArray[np.float64]) -> dict[str, float]:
        return {f"recall@{k}": round(float(value), 4) for k, value in zip(at, values, strict=True)}

    return {
        **asdict(grid[best]),
        "num_requests": len(asked),
        **named(recalls[best]),
        "towers": named(alone[0]),
        "bm25": named(alone[1]),
        "tried": [{**asdict(each), **named(values)} for each, values in zip(grid, recalls, strict=True)],
    }


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
    products, ranks = _ranked(rows)
    values = _values(ranks, weights, constant)
    order = np.lexsort((products, *reversed(ranks), -values))
    return products[order], values[order]


def _ranked(rows: Sequence[NDArray[np.integer]]) -> tuple[NDArray[np.int64], list[NDArray[np.float64]]]:
    """All products of some rankings, and their ranks in each, from 1, infinite where it lacks them."""
    products = np.unique(np.concatenate(rows))
    products = products[products >= 0].astype(np.int64)
    ranks = []
    for row in rows:
        rank = np.full(len(products), np.inf)
        is_there = row >= 0
        rank[np.searchsorted(products, row[is_there])] = np.flatnonzero(is_there) + 1.0
        ranks.append(rank)
    return products, ranks


def _values(ranks: Sequence[NDArray[np.float64]], weights: Sequence[float], constant: float) -> NDArray[np.float64]:
    values = np.zeros(len(ranks[0]))
    for rank, weight in zip(ranks, weights, strict=True):
        values += weight / (constant + rank)
    return values


def _place(values: NDArray[np.float64], first: NDArray[np.float64], product: int) -> int:
    """Place of a product of two rankings in their fusion, from 0: of equal values the first ranking decides."""
    value = values[product]
    is_before = (values > value) | ((values == value) & (first < first[product]))
    return int(np.count_nonzero(is_before))
