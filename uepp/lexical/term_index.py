"""A bm25s index that is assembled by numpy and takes a new k1 and b without new tokenisation."""

import copy
import logging
from array import array
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import bm25s
import numpy as np
from numpy.typing import NDArray

logging.getLogger("bm25s").setLevel(logging.WARNING)  # the library sets DEBUG and so writes a line an index


class Bags:
    """Bags of term ids, one a product, in the form that `bm25s.BM25.index` takes (`ids` and `vocab`)."""

    def __init__(self) -> None:
        """Start without products."""
        self._numbers: defaultdict[str, int] = defaultdict()
        self._numbers.default_factory = self._numbers.__len__
        self._ids, self._splits = array("i"), array("q", [0])

    def add(self, terms: Iterable[str]) -> None:
        """Append the next product's terms; ids count up in the order terms first occur."""
        numbers = self._numbers
        self._ids.extend([numbers[term] for term in terms])
        self._splits.append(len(self._ids))

    @property
    def vocab(self) -> dict[str, int]:
        """Term -> id."""
        return dict(self._numbers)

    @property
    def ids(self) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Term ids int32 [T] and row splits int64 [N+1]."""
        return np.array(self._ids, np.int32), np.array(self._splits, np.int64)


class TermIndex(bm25s.BM25):  # type: ignore[misc]
    """Lucene's BM25 over one kind of terms.

    score(q, p) = Σ_{t in q} idf(t) · tf / (tf + k1 · (1 - b + b · |p| / mean |p|)),
    idf(t) = ln(1 + (N - df + ½) / (df + ½)); `method="lucene"` of bm25s (Kamphuis et al., 2020).
    A term that the query repeats counts as often as it is repeated.
    """

    def build_index_from_ids(
        self,
        unique_token_ids: list[int],
        corpus_token_ids: tuple[NDArray[np.int32], NDArray[np.int64]],
        show_progress: bool = False,
        leave_progress: bool = False,
    ) -> dict[str, Any]:
        """Sort the (term, product) pairs once and keep their counts; bm25s's own loop is a Python one.

        Args:
            unique_token_ids: all ids of the vocabulary.
            corpus_token_ids: the `ids` of `Bags`.
            show_progress: unused, part of bm25s's interface.
            leave_progress: unused, part of bm25s's interface.

        Returns:
            bm25s's score matrix by term: `data` float32, `indices` int32 (products, increasing), `indptr` int64.
        """
        ids, splits = corpus_token_ids
        num_products = len(splits) - 1
        lengths = np.diff(splits)
        pairs = ids.astype(np.int64)
        pairs *= num_products
        pairs += np.repeat(np.arange(num_products), lengths)
        pairs.sort()
        starts = np.flatnonzero(np.diff(pairs, prepend=-1))
        self._counts = np.diff(starts, append=len(pairs)).astype(np.float32)
        pairs = pairs[starts]
        terms, products = np.divmod(pairs, max(num_products, 1))
        self._document_frequency = np.bincount(terms, minlength=len(unique_token_ids))
        self._relative_length = (lengths / max(lengths.mean(), 1e-9) if num_products else lengths).astype(np.float32)
        indptr = np.concatenate(([0], np.cumsum(self._document_frequency)))
        self.nonoccurrence_array = None
        self.scores: dict[str, Any] = {"indices": products.astype(np.int32), "indptr": indptr, "num_docs": num_products}
        self.weigh(self.k1, self.b)
        return self.scores

    def copy(self) -> "TermIndex":
        """The same counts, to be weighed in another way."""
        other = copy.copy(self)
        other.scores = dict(self.scores)
        return other

    def weigh(self, k1: float, b: float) -> None:
        """Compute every score anew for this k1 and b; only for an index that was built, not loaded."""
        self.k1, self.b = k1, b
        frequency = self._document_frequency
        idf = np.log1p((self.scores["num_docs"] - frequency + 0.5) / (frequency + 0.5)).astype(np.float32)
        data = (k1 * (1 - b + b * self._relative_length)).astype(np.float32)[self.scores["indices"]]
        data += self._counts
        np.divide(self._counts, data, out=data)
        data *= np.repeat(idf, frequency)
        self.scores["data"] = data

    def add_scores(self, terms: Iterable[str], weight: float, totals: NDArray[np.float32]) -> None:
        """Add a query's weighted scores to those of the whole catalogue, in place.

        One array takes the postings of all terms and indexes, so that nothing as long as the catalogue is made for
        each; bm25s makes two.

        Args:
            terms: of the query; unknown ones add nothing.
            weight: of this index.
            totals: float32 [N].
        """
        indptr, products, data = (np.asarray(self.scores[name]) for name in ("indptr", "indices", "data"))
        for term in self.get_tokens_ids(terms):
            postings = slice(indptr[term], indptr[term + 1])
            # numpy adds three times as fast where it need not convert the places on the way.
            np.add.at(totals, products[postings].astype(np.intp), data[postings] * np.float32(weight))
