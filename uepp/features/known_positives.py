"""What is known to answer a query, so that it is never one of its negatives."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from uepp.features.bags import Bags, BagStore
from uepp.features.text import normalized_queries


@dataclass(frozen=True)
class KnownPositives:
    """Products by query; queries that differ only in case, accents or punctuation, which read alike, are one.

    Attributes:
        texts: the K distinct normalised queries.
        products: K rows of product indexes, each sorted and without repeats.
    """

    texts: list[str]
    products: BagStore

    @classmethod
    def of_pairs(cls, queries: Sequence[str], query_rows: np.ndarray, product_index: np.ndarray) -> "KnownPositives":
        """From P pairs.

        Args:
            queries: [Q] texts.
            query_rows: int [P], row in `queries`.
            product_index: int [P].
        """
        normalized = normalized_queries(list(queries))
        texts = list(dict.fromkeys(normalized))
        row_of = {text: row for row, text in enumerate(texts)}
        rows = np.array([row_of[text] for text in normalized], np.int64)
        pairs = np.unique(np.stack([rows[query_rows], np.asarray(product_index, np.int64)], axis=1), axis=0)
        lengths = np.bincount(pairs[:, 0], minlength=len(texts)).astype(np.int32)
        return cls(texts, BagStore.concatenate([Bags(np.ascontiguousarray(pairs[:, 1], np.int32), lengths)]))

    def joined(self, queries: Sequence[str], products: Bags) -> "KnownPositives":
        """These and the given products of each query, known or not."""
        rows = np.repeat(np.arange(len(self.texts)), np.diff(self.products.splits))
        more = np.repeat(len(self.texts) + np.arange(len(queries)), products.lengths)
        return KnownPositives.of_pairs(
            [*self.texts, *queries],
            np.concatenate([rows, more]),
            np.concatenate([self.products.values, products.values]),
        )

    def rows_of(self, queries: Sequence[str]) -> np.ndarray:
        """Row of each query's text, int32 [R]; -1: nothing is known."""
        return np.array([self._row_of.get(text, -1) for text in normalized_queries(list(queries))], np.int32)

    def gather(self, rows: np.ndarray) -> Bags:
        """The products of R rows; none for -1."""
        found = self.products.gather(rows[rows >= 0])
        lengths = np.zeros(len(rows), np.int32)
        lengths[rows >= 0] = found.lengths
        return Bags(found.values, lengths)

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {text: row for row, text in enumerate(self.texts)}
