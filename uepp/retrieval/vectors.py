"""The vectors of an export as an index holds them: memory-mapped, hydrated where the export is boosted."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from uepp.retrieval.boosting import Boosting, read_boosting

CHUNK_ROWS = 65_536
"""Vectors that are in memory at a time."""


class ProductVectors:
    """N product vectors of d dimensions in shards, of which only a chunk is in memory at a time.

    Args:
        shards: float32 [rows, d] each, in product-index order.
        boosting: hydrates them with F features of quality, so that D = d + F (UEPPR IV); none: D = d.
    """

    def __init__(self, shards: Sequence[np.ndarray], boosting: Boosting | None = None) -> None:
        self._shards = list(shards)
        self._boosting = boosting
        self._starts = np.cumsum([0, *(len(shard) for shard in self._shards)])

    @classmethod
    def open(cls, export: Path) -> "ProductVectors":
        """Vectors of an export, or of a folder that is to become one."""
        paths = sorted((export / "vectors").glob("part-*.npy"))
        return cls([np.load(path, mmap_mode="r") for path in paths], read_boosting(export))

    def __len__(self) -> int:
        """N."""
        return int(self._starts[-1])

    @property
    def dim(self) -> int:
        """D, dimensions of what is indexed."""
        return self.own_dim if self._boosting is None else self.own_dim + len(self._boosting.weights)

    @property
    def own_dim(self) -> int:
        """Dimensions d of the vectors themselves."""
        return int(self._shards[0].shape[1])

    def chunks(self, begin: int = 0, end: int | None = None, rows: int = CHUNK_ROWS) -> Iterator[np.ndarray]:
        """Hydrated vectors of the rows [begin, end), float32 [n, D], at most `rows` at a time, in order."""
        end = len(self) if end is None else end
        for shard, (first, last) in zip(self._shards, itertools.pairwise(self._starts.tolist()), strict=True):
            for row in range(max(begin, first), min(end, last), rows):
                part = np.array(shard[row - first : min(row + rows, end, last) - first], np.float32)
                yield part if self._boosting is None else self._boosting.products(part, row)

    def sample(self, number: int, seed: int) -> np.ndarray:
        """Hydrated vectors of rows drawn without replacement, float32 [min(number, N), D], in order of their rows."""
        number = min(number, len(self))
        chosen = np.sort(np.random.default_rng(seed).choice(len(self), number, replace=False, shuffle=False))
        sample = np.empty((number, self.dim), np.float32)
        first = 0
        for chunk in self.chunks():
            begin, end = np.searchsorted(chosen, [first, first + len(chunk)])
            sample[begin:end] = chunk[chosen[begin:end] - first]
            first += len(chunk)
        return sample

    def similarities(self, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Cosines of queries and products, computed from the vectors themselves, without boosting.

        Args:
            queries: float32 [B, d], of length 1.
            rows: int [B, K] product indexes; -1: none.

        Returns:
            float32 [B, K]; -inf where there is no product.
        """
        found = np.full(rows.shape, -np.inf, np.float32)
        for query, row, values in zip(queries, rows, found, strict=True):
            is_there = row >= 0
            values[is_there] = self.take(row[is_there]) @ query
        return found

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The vectors of some products themselves, without boosting: float32 [n, d], of product indexes [n]."""
        if len(self._shards) == 1:
            return np.asarray(self._shards[0][rows])
        taken = np.empty((len(rows), self._shards[0].shape[1]), np.float32)
        shard_of = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(shard_of):
            is_in = shard_of == number
            taken[is_in] = self._shards[number][rows[is_in] - self._starts[number]]
        return taken
