"""The boosted top K of many requests for one weighting after another, without searching the catalogue again."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from uepp.retrieval.boosting import bonuses
from uepp.retrieval.index import search_exact

_FIRST_DEPTH = 4  # M at the start, times K
_GROWTH = 4
_MAX_ENTRIES = 250_000_000  # candidates kept, all requests together, 8 bytes each
_FOUND_AT_ONCE = 20_000_000  # candidates of one search, for which Faiss takes some 40 bytes each
_RANKED_AT_ONCE = 4_000_000  # candidates whose scores are in memory, some 40 bytes each, too
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

    K candidates score at least s_K + min w · f. So a product of the boosted top K is at most max w · f - min w · f less
    similar than the K-th without boosting, whatever the size of the catalogue: `cover` gives every request the
    candidates that weights within a bound can need, and a trial ranks only those that its own weights can.

    So a ranking is that of an exact search over hydrated vectors, up to the rounding of an inner product.

    Args:
        queries: float32 [R, d] unit vectors.
        vectors: float32 [N, d] unit vectors.
        num_products: int [R], leading products that a request sees.
        quality: float32 [N, F].
        k: K.
        max_entries: candidates that may be kept, all requests together.

    Attributes:
        num_compared: how often the whole catalogue was compared for a request.
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
        self.num_compared = 0
        self._levels = {_FIRST_DEPTH * k: self._search(np.arange(len(queries)), _FIRST_DEPTH * k)}

    @property
    def num_entries(self) -> int:
        """Candidates kept, all requests together."""
        return sum(level.rows.size for level in self._levels.values())

    def cover(self, bound: float) -> None:
        """Let every request have the candidates that any weights need whose bonuses differ by at most `bound`.

        Requests that memory does not suffice for keep those that they have.
        """
        depth = min(self._levels)
        while depth in self._levels:
            level = self._levels[depth]
            is_open = self._has_more(level, depth) & (level.similarity[:, -1] >= self._kth(level.similarity) - bound)
            if is_open.any():
                self._deepen(depth, np.flatnonzero(is_open))
            depth = self._next(depth)

    def rank(self, weights: np.ndarray, is_asked: np.ndarray | None = None) -> Ranking:
        """The boosted top K of every request.

        Args:
            weights: float [F].
            is_asked: bool [R], requests that are ranked, the others come out empty; none: all are.
        """
        bonus = bonuses(self._quality, weights)
        last = self._num_products - 1
        highest, lowest = np.maximum.accumulate(bonus)[last], np.minimum.accumulate(bonus)[last]
        best = np.zeros((len(self._queries), self._k), np.uint64)
        depth = min(self._levels)
        while depth in self._levels:
            level = self._levels[depth]
            asked = slice(None) if is_asked is None else is_asked[level.requests]
            places = np.arange(len(level.requests))[asked]
            requests = level.requests[places]
            top = self._rank_level(level, places, bonus, highest[requests], lowest[requests])
            best[requests] = top
            last_score = _scores(top.min(axis=1)) if top.size else np.empty(0, np.float32)
            reachable = level.similarity[places, -1] + highest[requests]
            is_open = self._has_more(level, depth)[places] & (last_score <= reachable)
            left = self._deepen(depth, places[is_open]) if is_open.any() else requests[:0]
            if len(left):
                best[left] = self._search_boosted(left, bonus)
            depth = self._next(depth)
        best = np.sort(best, axis=1)[:, ::-1]
        rows = np.where(best > 0, (_LOW - (best & _LOW)).astype(np.int64), -1)
        similarity = np.where(best > 0, _scores(best) - bonus[rows], np.float32(np.nan))
        return Ranking(rows, similarity)

    def _rank_level(
        self, level: _Level, places: np.ndarray, bonus: np.ndarray, highest: np.ndarray, lowest: np.ndarray
    ) -> np.ndarray:
        """Keys [n, K] of the boosted top K among the candidates of some requests of a level.

        Args:
            level: of the requests.
            places: int64 [n], of these requests in the level.
            bonus: of all products.
            highest: float32 [n], highest bonus of a product that the request sees.
            lowest: likewise.
        """
        top = np.empty((len(places), self._k), np.uint64)
        step = max(1, _RANKED_AT_ONCE // level.rows.shape[1])
        for begin in range(0, len(places), step):
            part = slice(begin, begin + step)
            similarity, rows = level.similarity[places[part]], level.rows[places[part]]
            # In order of similarity, so what cannot reach the score that K of them have at least is at the end.
            reached = self._kth(similarity) + lowest[part]
            width = int((similarity + highest[part, np.newaxis] >= reached[:, np.newaxis]).sum(axis=1).max())
            similarity, rows = similarity[:, :width], rows[:, :width]
            top[part] = _top(_keys(similarity + bonus[rows], rows), self._k)
        return top

    def _kth(self, similarity: np.ndarray) -> np.ndarray:
        """Similarity of the K-th candidate, float32 [r] of [r, M]; the last one's where there are fewer."""
        return similarity[:, min(self._k, similarity.shape[1]) - 1]

    def _has_more(self, level: _Level, depth: int) -> np.ndarray:
        """Which requests of a level see products that are no candidates, bool [r]."""
        return self._num_products[level.requests] > depth

    def _next(self, depth: int) -> int:
        """The next depth that has candidates; without one, a depth that has none."""
        return min((other for other in self._levels if other > depth), default=0)

    def _deepen(self, depth: int, places: np.ndarray) -> np.ndarray:
        """Give some requests of a level more candidates, on the next level.

        Args:
            depth: of the level.
            places: of the requests in the level.

        Returns:
            Those that memory does not allow it for, the last ones.
        """
        level, deeper = self._levels[depth], depth * _GROWTH
        num_added = min(deeper, len(self._vectors)) - min(depth, len(self._vectors))
        room = max(0, self._max_entries - self.num_entries) // num_added
        left, places = level.requests[places[room:]], places[:room]
        if len(places):
            found = self._search(level.requests[places], deeper)
            self._levels[deeper] = self._levels[deeper].with_(found) if deeper in self._levels else found
            self._levels[depth] = level.take(~np.isin(np.arange(len(level.requests)), places))
        return left

    def _search(self, requests: np.ndarray, depth: int) -> _Level:
        """The most similar products of some requests."""
        width = min(depth, len(self._vectors))
        level = _Level(requests, *(np.empty((len(requests), width), kind) for kind in (np.int32, np.float32)))
        step = max(1, _FOUND_AT_ONCE // width)
        for part, num_products in self._by_catalogue(requests):
            for begin in range(0, len(part), step):
                some = part[begin : begin + step]
                found = search_exact(self._queries[requests[some]], self._vectors[:num_products], width)
                level.rows[some], level.similarity[some] = found
        return level

    def _search_boosted(self, requests: np.ndarray, bonus: np.ndarray) -> np.ndarray:
        """Keys of the boosted top K of some requests, by comparing with every product: the plain way."""
        self.num_compared += len(requests)
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
