"""Rankings: what decides one, and how it is made of what the towers and BM25 found."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from uepp.lexical.fusion import FusionSettings
from uepp.relevance.ranking_features import Asked
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
        asked: what the ranker reads of the request; none: it is not asked.
        floor: products that are ranked at least, as for the first page; none: all of `depth`.
    """

    features: Features
    depth: int
    fusion: bool
    boosted: bool
    min_similarity: float | None
    asked: Asked | None = field(default=None, compare=False)
    floor: int | None = field(default=None, compare=False)

    @property
    def depths(self) -> tuple[int, ...]:
        """Depths of the pages up to this one: the ranking of each begins with the one before."""
        depths = []
        depth = self.floor or self.depth
        while depth < self.depth:
            depths.append(depth)
            depth *= 2
        return (*depths, self.depth)

    @property
    def options(self) -> tuple[Any, ...]:
        """All but what the tower reads and how deep; the ranker reads the query as it is written."""
        of_ranker = None if self.asked is None else self.features.query
        return (self._of_lexical, self.boosted, self.min_similarity, of_ranker)

    @property
    def _of_lexical(self) -> str | None:
        """What BM25 reads, where it is asked: signs too (3/4"), and no cases, as far as is known here: of ASCII."""
        if not self.fusion:
            return None
        query = self.features.query
        return query.lower() if query.isascii() else query

    @cached_property
    def digest(self) -> bytes:
        """The same for the same features of the tower and of the ranker only."""
        if self.asked is None:
            return self.features.digest
        return hashlib.blake2b(self.features.digest + self.asked.digest, digest_size=16).digest()

    @property
    def key(self) -> tuple[Any, ...]:
        """For a cache."""
        return (self.digest, self.depth, *self.options)


@dataclass(frozen=True)
class Ranking:
    """Products for a question, best first.

    Attributes:
        rows: product indexes int64 [n].
        scores: float32 [n], what ranks: from the index, or with fusion the sum of reciprocal ranks.
        similarities: float32 [n], cosines.
        towers_ranks: int32 [n], from 1; 0: the towers did not find it.
        lexical_ranks: int32 [n], likewise of BM25.
        ranker_ranks: int32 [n], likewise of the ranker; 0: it was not asked about the product. None: it was not asked.
    """

    rows: np.ndarray
    scores: np.ndarray
    similarities: np.ndarray
    towers_ranks: np.ndarray
    lexical_ranks: np.ndarray
    ranker_ranks: np.ndarray | None = None

    def __len__(self) -> int:
        """Products."""
        return len(self.rows)

    @property
    def num_bytes(self) -> int:
        """Of the arrays."""
        return sum(part.nbytes for part in vars(self).values() if part is not None)


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


def fused(
    towers: Ranking, lexical_rows: np.ndarray, similarities: np.ndarray, depth: int, settings: FusionSettings
) -> Ranking:
    """Both rankings as one, by reciprocal ranks.

    The threshold of similarity is for what the towers find: BM25 is there for what they do not understand.

    Args:
        towers: what the towers found.
        lexical_rows: what BM25 found: product indexes int64 [K], best first.
        similarities: float32 [K], cosines of these.
        depth: products kept, at most.
        settings: of the export.
    """
    rows, scores = (part[0] for part in settings.fuse(towers.rows[np.newaxis], lexical_rows[np.newaxis], depth))
    rows, scores = rows[rows >= 0], scores[rows >= 0]
    of_towers, of_words = _places(rows, towers.rows), _places(rows, lexical_rows)
    all_similarities = np.concatenate([towers.similarities, similarities])
    return Ranking(
        rows=rows,
        scores=scores,
        similarities=all_similarities[np.where(of_towers >= 0, of_towers, len(towers) + of_words)],
        towers_ranks=of_towers + 1,
        lexical_ranks=of_words + 1,
    )


def continued(ranking: Ranking, deeper: Ranking, depth: int) -> Ranking:
    """A ranking, then what only a deeper one has, in that one's order; the ranker was not asked about it.

    Args:
        ranking: of the pages before.
        deeper: of the same question.
        depth: products kept, at most.
    """
    is_new = ~np.isin(deeper.rows, ranking.rows)
    names = ("rows", "scores", "similarities", "towers_ranks", "lexical_ranks")
    parts = {name: np.concatenate([getattr(ranking, name), getattr(deeper, name)[is_new]])[:depth] for name in names}
    ranks = ranking.ranker_ranks
    if ranks is not None:
        ranks = np.concatenate([ranks, np.zeros(np.count_nonzero(is_new), ranks.dtype)])[:depth]
    return Ranking(**parts, ranker_ranks=ranks)


def first_of(rankings: Sequence[Ranking], number: int) -> tuple[np.ndarray, np.ndarray]:
    """The first products of B rankings: rows int64 [B, n], -1 where one has fewer, and similarities float32 [B, n]."""
    rows = np.full((len(rankings), number), -1, np.int64)
    similarities = np.full(rows.shape, -np.inf, np.float32)
    for place, ranking in enumerate(rankings):
        width = min(number, len(ranking))
        rows[place, :width] = ranking.rows[:width]
        similarities[place, :width] = ranking.similarities[:width]
    return rows, similarities


def reranked(ranking: Ranking, order: np.ndarray) -> Ranking:
    """A ranking with its first products in another order; scores and similarities go with them, and stay what they are.

    Args:
        ranking: of n products.
        order: places of the first products, best first, int64 [K]; places beyond n are left out.
    """
    order = order[order < len(ranking)]
    places = np.concatenate([order, np.arange(len(order), len(ranking))])
    ranks = np.where(np.arange(len(ranking)) < len(order), np.arange(1, len(ranking) + 1), 0).astype(np.int32)
    names = ("rows", "scores", "similarities", "towers_ranks", "lexical_ranks")
    return replace(ranking, **{name: getattr(ranking, name)[places] for name in names}, ranker_ranks=ranks)


def _places(rows: np.ndarray, ranking: np.ndarray) -> np.ndarray:
    """Places of rows in a ranking, int32, from 0; -1 where it lacks them."""
    if not len(ranking):
        return np.full(len(rows), -1, np.int32)
    order = np.argsort(ranking)
    places = order[np.searchsorted(ranking, rows, sorter=order).clip(max=len(ranking) - 1)]
    return np.where(ranking[places] == rows, places, -1).astype(np.int32)
