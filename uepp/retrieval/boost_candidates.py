"""The boosted top K of many requests for one weighting after another, without searching the catalogue again."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from uepp.retrieval.boosting import bonuses
from uepp.retrieval.index import search_exact

_FIRST_DEPTH = 4  # M at the start, times K
_GROWTH = 4
_MAX_ENTRIES = 50_000_000  # candidates kept, all requests together, 8 bytes each
_SCORED_AT_ONCE = 50_000_000  # similarities in memory where the whole catalogue is compared
_BITS = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_SIGN = np.uint32(0x80000000)


class Ranking(NamedTuple):
    """The K best products of each request by score; of the same score, the lower product index.

    Attributes:
        rows: int64 [R, K] product indexes, best first, -1 where there are fewer.
        similarity: float32 [R, K], the score without the bonus, NaN there.
    """

    rows: np.ndarray
    similarity: np.ndarray


@dataclass
class _Level:
    """r requests with as many candidates each, by similarity.

    Attributes:
        requests: int64 [r].
        rows: int32 [r, M], -1 where the catalogue has fewer.
        similarity: float32 [r, M], -inf there.
    """

    requests: np.ndarray
    rows: np.ndarray
    similarity: np.ndarray

    def take(self, kept: np.ndarray) -> "_Level":
        return _Level(self.requests[kept], self.rows[kept], self.similarity[kept])

    def with_(self, other: "_Level") -> "_Level":
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return _Level(*(np.concatenate(pair) for pair in pairs))


class BoostCandidates:
    """Every request's M products of highest similarity, searched once and ranked again for any weights.

    Of a score, only the bonus w · f(p) depends on w. A product outside the M has at most the similarity s_M of the last
    of them, so its score is at most s_M + max w · f. **Where the K-th best boosted candidate scores more than that, the
    boosted top K of the candidates is the one of the whole catalogue.** Where it does not, M grows fourfold for that
    request, which later weights profit from. Beyond a limit of memory, the whole catalogue is compared for it.

    So a ranking is that of an exact search over hydrated vectors, up to the rounding of an inner product.

    Args:
        queries: float32 [R, d] unit vectors.
        vectors: float32 [N, d] unit vectors.
        num_products: int [R], leading products that a request sees.
        quality: float32 [N, F].
        k: K.
        max_entries: candidates that may be kept, all requests together.
    """

    def __init__(
        self,
        queries: np.ndarray,
        vectors: np.ndarray,
        num_products: np.ndarray,
        quality: np.ndarray,
        k: int,
        max_entries: int = _MAX_ENTRIES,
    ) -> None:
        self._queries, self._vectors, self._quality = queries, vectors, quality
        self._num_products = np.asarray(num_products, np.int64)
        self._k, self._max_entries = k, max_entries
        self._levels = {_FIRST_DEPTH * k: self._search(np.arange(len(queries)), _FIRST_DEPTH * k)}

    @property
    def num_entries(self) -> int:
        """Candidates kept, all requests together."""
        return sum(level.rows.size for level in self._levels.values())

    def rank(self, weights: np.ndarray) -> Ranking:
        """The boosted top K of every request, for weights float [F]."""
        bonus = bonuses(self._quality, weights)
        highest = np.maximum.accumulate(bonus)[self._num_products - 1]
        best = np.zeros((len(self._queries), self._k), np.uint64)
        depth = min(self._levels)
        while depth in self._levels:
            level = self._levels[depth]
            top = _top(_keys(level.similarity + bonus[level.rows], level.rows), self._k)
            best[level.requests] = top
            last_score = _scores(top.min(axis=1)) if top.size else np.empty(0, np.float32)
            reachable = level.similarity[:, -1] + highest[level.requests]
            is_open = (self._num_products[level.requests] > depth) & (last_score <= reachable)
            if is_open.any() and not self._deepen(depth, is_open):
                best[level.requests[is_open]] = self._search_boosted(level.requests[is_open], bonus)
            depth = self._next(depth)
        best = np.sort(best, axis=1)[:, ::-1]
        rows = np.where(best > 0, (_LOW - (best & _LOW)).astype(np.int64), -1)
        similarity = np.where(best > 0, _scores(best) - bonus[rows], np.float32(np.nan))
        return Ranking(rows, similarity)

    def _next(self, depth: int) -> int:
        """The next depth that has candidates; without one, a depth that has none."""
        return min((other for other in self._levels if other > depth), default=0)

    def _deepen(self, depth: int, is_open: np.ndarray) -> bool:
        """Give some requests of a level more candidates, on the next level; False where memory does not allow it."""
        level, deeper = self._levels[depth], depth * _GROWTH
        num_added = int(is_open.sum()) * (min(deeper, len(self._vectors)) - min(depth, len(self._vectors)))
        if self.num_entries + num_added > self._max_entries:
            return False
        found = self._search(level.requests[is_open], deeper)
        self._levels[deeper] = self._levels[deeper].with_(found) if deeper in self._levels else found
        self._levels[depth] = level.take(~is_open)
        return True

    def _search(self, requests: np.ndarray, depth: int) -> _Level:
        """The most similar products of some requests."""
        width = min(depth, len(self._vectors))
        level = _Level(requests, *(np.empty((len(requests), width), kind) for kind in (np.int32, np.float32)))
        for part, num_products in self._by_catalogue(requests):
            found = search_exact(self._queries[requests[part]], self._vectors[:num_products], width)
            level.rows[part], level.similarity[part] = found
        return level

    def _search_boosted(self, requests: np.ndarray, bonus: np.ndarray) -> np.ndarray:
        """Keys of the boosted top K of some requests, by comparing with every product: the plain way."""
        best = np.zeros((len(requests), self._k), np.uint64)
        for part, num_products in self._by_catalogue(requests):
            step = max(1, _SCORED_AT_ONCE // num_products)
            every = np.arange(num_products)
            for begin in range(0, len(part), step):
                some = part[begin : begin + step]
                scores = self._queries[requests[some]] @ self._vectors[:num_products].T + bonus[:num_products]
                best[some] = _top(_keys(scores, np.broadcast_to(every, scores.shape)), self._k)
        return best

    def _by_catalogue(self, requests: np.ndarray) -> list[tuple[np.ndarray, int]]:
        """Positions in `requests` of those that see the same products, and how many these are."""
        seen = self._num_products[requests]
        return [(np.flatnonzero(seen == number), int(number)) for number in np.unique(seen)]


def _keys(scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """uint64 of the order of (score, -row), so that a partition knows no ties; 0 where the row is -1."""
    bits = (scores.astype(np.float32) + np.float32(0)).view(np.uint32)  # + 0: of two zeros, -0 would be the lower
    ordered = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    keys = (ordered.astype(np.uint64) << _BITS) | (_LOW - rows.astype(np.uint64))
    return np.where(rows >= 0, keys, np.uint64(0))


def _scores(keys: np.ndarray) -> np.ndarray:
    """float32 scores of keys."""
    ordered = (keys >> _BITS).astype(np.uint32)
    return np.where(ordered & _SIGN, ordered ^ _SIGN, ~ordered).view(np.float32)


def _top(keys: np.ndarray, k: int) -> np.ndarray:
    """The k highest keys of each row, in any order, 0 where there are fewer."""
    width = keys.shape[1]
    if width > k:
        return np.partition(keys, width - k, axis=1)[:, width - k :]
    return np.concatenate([keys, np.zeros((len(keys), k - width), np.uint64)], axis=1)
