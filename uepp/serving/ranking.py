"""Rankings: what decides one, and how it is made of what the towers and BM25 found."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from uepp.lexical.fusion import fuse
from uepp.serving.requests import Features


@dataclass(frozen=True)
class Question:
    """What decides a ranking, and nothing else: requests with the same key have the same ranking.

    Attributes:
        features: what the tower reads.
        depth: products that are ranked.
        fusion: see `Request`, as the next two.
        boosted: False wherever there is no boosting.
        min_similarity: none: all stay.
    """

    features: Features
    depth: int
    fusion: bool
    boosted: bool
    min_similarity: float | None

    @property
    def options(self) -> tuple[Any, ...]:
        """All but the features."""
        return (self.depth, self.fusion, self.boosted, self.min_similarity)

    @property
    def key(self) -> tuple[Any, ...]:
        """For a cache."""
        return (self.features.digest, *self.options)


@dataclass(frozen=True)
class Ranking:
    """Products for a question, best first.

    Attributes:
        rows: product indexes int64 [n].
        scores: float32 [n], what ranks: from the index, or with fusion the sum of reciprocal ranks.
        similarities: float32 [n], cosines.
        towers_ranks: int32 [n], from 1; 0: the towers did not find it.
        lexical_ranks: int32 [n], likewise of BM25.
    """

    rows: np.ndarray
    scores: np.ndarray
    similarities: np.ndarray
    towers_ranks: np.ndarray
    lexical_ranks: np.ndarray

    def __len__(self) -> int:
        """Products."""
        return len(self.rows)


def depth_of(needed: int, floor: int, num_products: int) -> int:
    """How many products to rank: `floor` times a power of two, so that the pages of one search share a ranking."""
    depth = floor
    while depth < needed:
        depth *= 2
    return min(depth, num_products)


def of_towers(rows: np.ndarray, scores: np.ndarray, similarities: np.ndarray, min_similarity: float | None) -> Ranking:
    """One query's results of an index; those below the threshold of similarity are left out (UEPPR III-E).

    Args:
        rows: product indexes [K], best first, -1: none.
        scores: float32 [K].
        similarities: float32 [K], what the threshold is compared with, never the scores.
        min_similarity: none: all stay.
    """
    is_kept = rows >= 0
    if min_similarity is not None:
        is_kept &= similarities >= min_similarity
    ranks = np.arange(1, 1 + np.count_nonzero(is_kept), dtype=np.int32)
    return Ranking(rows[is_kept], scores[is_kept], similarities[is_kept], ranks, np.zeros_like(ranks))


def fused(towers: Ranking, lexical_rows: np.ndarray, similarities: np.ndarray, depth: int) -> Ranking:
    """Both rankings as one, by reciprocal ranks.

    The threshold of similarity is for what the towers find: BM25 is there for what they do not understand.

    Args:
        towers: what the towers found.
        lexical_rows: what BM25 found: product indexes int64 [K], best first.
        similarities: float32 [K], cosines of these.
        depth: products kept, at most.
    """
    rows, scores = (part[0] for part in fuse([towers.rows[np.newaxis], lexical_rows[np.newaxis]], depth))
    rows, scores = rows[rows >= 0], scores[rows >= 0]
    similarity_of = dict(zip(lexical_rows.tolist(), similarities.tolist(), strict=True))
    similarity_of |= dict(zip(towers.rows.tolist(), towers.similarities.tolist(), strict=True))
    return Ranking(
        rows=rows,
        scores=scores,
        similarities=np.array([similarity_of[row] for row in rows.tolist()], np.float32),
        towers_ranks=_ranks(rows, towers.rows),
        lexical_ranks=_ranks(rows, lexical_rows),
    )


def _ranks(rows: np.ndarray, ranking: np.ndarray) -> np.ndarray:
    """Ranks of rows in a ranking, int32, from 1; 0 where it lacks them."""
    rank_of = {row: rank for rank, row in enumerate(ranking.tolist(), 1)}
    return np.array([rank_of.get(row, 0) for row in rows.tolist()], np.int32)
