"""The marketplace's own search: what it shows, a stated mix of word match, behaviour, category and chance.

It ranks once per distinct query and day; per request it only re-orders those candidates for the person.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from uepp.data.marketplace.catalogue import Catalogue
from uepp.data.marketplace.demand import Demand
from uepp.data.marketplace.queries import cells
from uepp.data.marketplace.relevance import relevance
from uepp.data.marketplace.texts import normalised_words
from uepp.data.marketplace.world import NUM_CELLS, World, pick_rows, stream

PAGE = 20
SHARES = (0.45, 0.30, 0.20, 0.05)
"""Shares of the page by source: lexical, behaviour, category, chance.

A product that the person's account offers, where there is one, replaces one of them (in `log.py`).
"""

_CANDIDATES = (40, 40, 30, 8)  # a query and day
_KEPT = (18, 14, 10, 4)  # after the order for the person
_STOP_SHARE = 0.15  # words in more than this share of the products are not searched by, beside others
_SCAN = 15_000  # postings read a word at most, from a place that moves daily
_SECOND_SCAN = 3_000
_POOL_DAYS = 7
_FORGET = 0.93  # of the behaviour counts stay from one refresh of the pools to the next
EVENT_WEIGHTS = (1.0, 3.0, 6.0)  # of a click, a cart, a purchase in those counts
_FREQUENT_SHARE = 1 / 400  # words of more than this share of products get a bit map

_BIT = (1 << np.arange(8)).astype(np.uint8)


class LexicalIndex:
    """Which products contain a word in title or tags."""

    def __init__(self, blocks: Iterable[list[list[str]]], quality: np.ndarray, seed: int) -> None:
        """Index products in the order in which their words arrive."""
        vocabulary: dict[str, int] = {}
        word_parts: list[np.ndarray] = []
        length_parts: list[np.ndarray] = []
        for block in blocks:
            numbers = [
                [vocabulary.setdefault(word, len(vocabulary)) for word in dict.fromkeys(words)] for words in block
            ]
            length_parts.append(np.array([len(row) for row in numbers], np.int64))
            word_parts.append(np.array([number for row in numbers for number in row], np.int32))
        words, lengths = np.concatenate(word_parts), np.concatenate(length_parts)
        products = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
        order = np.argsort(words, kind="stable")
        self._postings = products[order]
        self._starts = np.searchsorted(words[order], np.arange(len(vocabulary) + 1))
        self._vocabulary = vocabulary
        self._num_products = len(lengths)
        counts = np.diff(self._starts)
        self._idf = np.log1p(self._num_products / np.maximum(counts, 1)).astype(np.float32)
        # The engine knows quality roughly, and breaks ties by it.
        noise = stream(seed, 6).normal(0, 0.5, self._num_products)
        self._static = (0.35 * (quality + noise)).astype(np.float32)
        self._bit_maps: dict[int, np.ndarray] = {}
        for word in np.flatnonzero(counts > self._num_products * _FREQUENT_SHARE).tolist():
            present = np.zeros(self._num_products, bool)
            present[self._postings[self._starts[word] : self._starts[word + 1]]] = True
            self._bit_maps[word] = np.packbits(present, bitorder="little")

    def _contains(self, word: int, products: np.ndarray) -> np.ndarray:
        bits = self._bit_maps.get(word)
        if bits is not None:
            known: np.ndarray = bits[products >> 3] & _BIT[products & 7] != 0
            return known
        postings = self._postings[self._starts[word] : self._starts[word + 1]]
        place = np.minimum(np.searchsorted(postings, products), len(postings) - 1)
        result: np.ndarray = postings[place] == products
        return result

    def _window(self, word: int, num_alive: int, size: int, turn: float) -> np.ndarray:
        postings = self._postings[self._starts[word] : self._starts[word + 1]]
        living = int(np.searchsorted(postings, num_alive))
        if living <= size:
            return postings[:living]
        start = int(turn * (living - size))
        return postings[start : start + size]

    def search(self, text: str, num_alive: int, limit: int, turn: float) -> tuple[np.ndarray, np.ndarray]:
        """The best products by the summed idf of the query's words they contain, and their scores; best first.

        Args:
            text: the query.
            num_alive: products that exist.
            limit: how many at most.
            turn: in [0, 1), where scans of long postings start.
        """
        words = [self._vocabulary[word] for word in dict.fromkeys(normalised_words(text)) if word in self._vocabulary]
        counts = [int(self._starts[word + 1] - self._starts[word]) for word in words]
        specific = [w for w, count in zip(words, counts, strict=True) if count <= _STOP_SHARE * self._num_products]
        words = sorted(specific or words, key=lambda word: -self._idf[word])
        if not words:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        found = self._window(words[0], num_alive, _SCAN, turn)
        score = self._static[found] + self._idf[words[0]]
        for word in words[1:]:
            score += self._idf[word] * self._contains(word, found)
        if len(words) > 1 and len(found) < 4 * limit:
            more = self._window(words[1], num_alive, _SECOND_SCAN, turn)
            more = more[~self._contains(words[0], more)]
            more_score = self._static[more] + self._idf[words[1]]
            for word in words[2:]:
                more_score += self._idf[word] * self._contains(word, more)
            found, score = np.concatenate([found, more]), np.concatenate([score, more_score])
        if len(found) > limit:
            best = np.argpartition(-score, limit)[:limit]
            found, score = found[best], score[best]
        order = np.argsort(-score, kind="stable")
        return found[order].astype(np.int64), score[order]


@dataclass(frozen=True)
class Candidates:
    """Candidates of the distinct queries of a day: columns run through the four sources; product -1 is none."""

    products: np.ndarray  # [Q, C] int64
    scores: np.ndarray  # [Q, C] float32, the engine's, within each source
    relevance: np.ndarray  # [Q, C] float32, the truth


class Engine:
    """Finds candidates, and learns from what people did with them."""

    def __init__(self, world: World, catalogue: Catalogue, demand: Demand, index: LexicalIndex) -> None:
        """Start without any behaviour."""
        self._world, self._catalogue, self._demand, self._index = world, catalogue, demand, index
        self._pool = np.full((NUM_CELLS, _CANDIDATES[1]), -1, np.int64)
        self._pool_score = np.zeros((NUM_CELLS, _CANDIDATES[1]), np.float32)
        self._keys: np.ndarray = np.zeros(0, np.int64)
        self._weights: np.ndarray = np.zeros(0)
        self._pending: list[tuple[np.ndarray, np.ndarray]] = []

    def learn(self, queries: np.ndarray, products: np.ndarray, weights: np.ndarray) -> None:
        """Count interactions for the cells of the queries they followed."""
        if len(queries):
            cell = cells(self._demand.queries.intents(queries))
            self._pending.append((cell * len(self._catalogue) + products, weights))

    def intents(self, queries: np.ndarray) -> np.ndarray:
        """What queries mean, [B, 7] int16."""
        return self._demand.queries.intents(queries)

    def _refresh_pools(self, rng: np.random.Generator) -> None:
        """The most used products of each cell, drawn with some chance so that the pool is not frozen."""
        keys = np.concatenate([self._keys, *(keys for keys, _ in self._pending)])
        weights = np.concatenate([self._weights * _FORGET, *(weights for _, weights in self._pending)])
        self._pending = []
        self._keys, inverse = np.unique(keys, return_inverse=True)
        self._weights = np.bincount(inverse, weights, len(self._keys))
        kept = self._weights > 0.2
        self._keys, self._weights = self._keys[kept], self._weights[kept]
        cell, product = np.divmod(self._keys, len(self._catalogue))
        popularity = np.log1p(self._weights)
        order = np.lexsort((-(popularity + 0.7 * rng.gumbel(size=len(cell))), cell))
        cell, product, popularity = cell[order], product[order], popularity[order]
        place = np.arange(len(cell)) - np.searchsorted(cell, cell)
        rows = np.flatnonzero(place < self._pool.shape[1])
        self._pool[:] = -1
        self._pool[cell[rows], place[rows]] = product[rows]
        self._pool_score[cell[rows], place[rows]] = popularity[rows]

    def candidates(self, queries: np.ndarray, day: int, rng: np.random.Generator) -> Candidates:
        """Candidates for distinct queries, [Q], on a day."""
        if day % _POOL_DAYS == 0:
            self._refresh_pools(rng)
        num_alive = self._catalogue.num_alive(day)
        alive = self._demand.alive_in_leaf(num_alive)
        intents = self._demand.queries.intents(queries)
        cell = cells(intents)
        num_lexical, num_behaviour, num_category, num_chance = _CANDIDATES
        bounds = np.cumsum((0, *_CANDIDATES))
        products = np.full((len(queries), bounds[-1]), -1, np.int64)
        scores = np.zeros(products.shape, np.float32)

        turns = rng.random(len(queries)).tolist()
        texts = self._demand.queries.texts
        for row, (query, turn) in enumerate(zip(queries.tolist(), turns, strict=True)):
            found, score = self._index.search(texts[query], num_alive, num_lexical, turn)
            products[row, : len(found)] = found
            scores[row, : len(found)] = score
        products[:, bounds[1] : bounds[2]] = self._pool[cell]
        leaf = pick_rows(self._world.cell_leaf, np.repeat(cell, num_category), rng.random(len(queries) * num_category))
        sampled = self._demand.from_leaves(leaf, alive, rng.random(len(leaf)))
        products[:, bounds[2] : bounds[3]] = sampled.reshape(-1, num_category)
        products[:, bounds[3] :] = rng.integers(0, num_alive, (len(queries), num_chance))

        # A product that several sources found stays with the first of them.
        order = np.argsort(products, axis=1, kind="stable")
        ordered = np.take_along_axis(products, order, axis=1)
        repeated = np.zeros(products.shape, bool)
        np.put_along_axis(repeated, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
        products[repeated] = -1
        truth = relevance(self._world, self._catalogue.latents, intents, np.maximum(products, 0))
        # What behaviour teaches: popularity, and a blurred idea of what serves the query.
        blur = rng.normal(0, 0.25, (len(queries), num_behaviour)).astype(np.float32)
        behaviour = slice(bounds[1], bounds[2])
        scores[:, behaviour] = 0.5 * self._pool_score[cell] + 3.0 * (truth[:, behaviour] + blur)
        return Candidates(products, scores, truth)

    @staticmethod
    def pages(scores: np.ndarray, products: np.ndarray, liking: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Which candidate columns each request is shown, best place first, [R, PAGE].

        Every source orders its candidates by its score and a noisy idea of the person's liking; the page then takes
        turns between the sources so that each has its share at every depth.
        """
        bounds = np.cumsum((0, *_CANDIDATES))
        ranked, keys = [], []
        for source, (kept, share) in enumerate(zip(_KEPT, SHARES, strict=True)):
            columns = slice(bounds[source], bounds[source + 1])
            noise = rng.random((len(scores), _CANDIDATES[source]), dtype=np.float32)
            key = scores[:, columns] + np.float32(0.6) * liking[:, columns] + noise
            key = np.where(products[:, columns] >= 0, -key, np.inf)
            best = np.argpartition(key, kept, axis=1)[:, :kept]
            value = np.take_along_axis(key, best, axis=1)
            order = np.argsort(value, axis=1)
            ranked.append(np.take_along_axis(best, order, axis=1) + bounds[source])
            turn = (np.arange(kept) + rng.random((len(scores), 1))) / share
            keys.append(np.where(np.isinf(np.take_along_axis(value, order, axis=1)), 1e9, turn))
        merged = np.argsort(np.concatenate(keys, axis=1), axis=1, kind="stable")[:, :PAGE]
        return np.take_along_axis(np.concatenate(ranked, axis=1), merged, axis=1)
