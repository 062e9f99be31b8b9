"""Random walk on the query–product graph, the graph-based retriever of UEPPR VI-A.

From a query a walker goes to a product that people interacted with after it, from there to another query that led to
that product, and so on; at every product it stops with a fixed probability. A product's score is the probability
to stop there. The paper names the retriever and no more; steps, weights and the way into the graph are ours.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import scipy.sparse as sp

from uepp.features.requests import RawRequests
from uepp.features.text import normalized_queries
from uepp.lexical.bm25 import BM25

_WEIGHTS = {"clicks": 1.0, "carts": 3.0, "purchases": 9.0}
_STEPS = 3
_STOP = 0.5
_ENTRIES = 10
_KEPT = 2_000
_AT_ONCE = 256


class RandomWalk:
    """Ranks by where a walk from the query ends.

    A query that the graph has starts at its node. Another one starts at the queries that are most like it by BM25 over
    query texts, each as likely as its score; one that shares no word with any finds nothing.

    Args:
        export: for its graph, which ends with the training window.
        products: the catalogue in product-index order.
    """

    def __init__(self, export: Path, products: pa.Table) -> None:
        graph = pq.read_table(export / "graph.parquet")
        product_ids = pa.array(products.column("product_id").to_pylist())
        product = np.asarray(pc.fill_null(pc.index_in(graph.column("product_id"), product_ids), -1))
        texts = np.array(normalized_queries(graph.column("query").to_pylist()), object)
        weight = np.sum([value * np.asarray(graph.column(name), float) for name, value in _WEIGHTS.items()], axis=0)
        is_edge = (product >= 0) & (weight > 0) & (texts != "")
        self._queries = sorted(set(texts[is_edge].tolist()))
        self._row_of = {text: row for row, text in enumerate(self._queries)}
        query = np.array([self._row_of[text] for text in texts[is_edge].tolist()], np.int64)
        shape = (len(self._queries), products.num_rows)
        edges = sp.csr_matrix((weight[is_edge], (query, product[is_edge])), shape)  # adds up what became one query
        self._to_products = _by_row(edges)
        self._to_queries = _by_row(sp.csr_matrix(edges.T))
        self._entries = BM25.build({"title": self._queries}, "stemmed") if len(self._queries) else None

    def rank(self, requests: RawRequests, k: int, num_products: int) -> np.ndarray:
        """See `uepp.evaluation.baselines.System`."""
        texts = normalized_queries(requests.queries)
        distinct = sorted(set(texts))
        ranked: dict[str, np.ndarray] = {}
        for begin in range(0, len(distinct), _AT_ONCE):
            part = distinct[begin : begin + _AT_ONCE]
            ranked |= zip(part, self._rank(part, k, num_products), strict=True)
        return np.stack([ranked[text] for text in texts])

    def _rank(self, texts: Sequence[str], k: int, num_products: int) -> np.ndarray:
        scores = self._walk(self._start(texts))
        ranking = np.full((len(texts), k), -1, np.int64)
        for row in range(len(texts)):
            edge = slice(scores.indptr[row], scores.indptr[row + 1])
            found, value = scores.indices[edge], scores.data[edge]
            is_there = found < num_products
            found, value = found[is_there], value[is_there]
            best = found[np.lexsort((found, -value))][:k]
            ranking[row, : len(best)] = best
        return ranking

    def _start(self, texts: Sequence[str]) -> sp.csr_matrix:
        """Probability of each query of the graph to be where the walk begins, [B, queries]."""
        rows, columns, values = [], [], []
        unknown = [text for text in texts if text not in self._row_of]
        like: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        if unknown and self._entries is not None:
            found, scores = self._entries.search(unknown, _ENTRIES)
            like = {text: pair for text, *pair in zip(unknown, found, scores, strict=True)}  # type: ignore[misc]
        for row, text in enumerate(texts):
            if text in self._row_of:
                entries, weights = np.array([self._row_of[text]]), np.ones(1)
            else:
                entries, weights = like.get(text, (np.empty(0, np.int64), np.empty(0)))
                is_there = (entries >= 0) & (weights > 0)
                entries, weights = entries[is_there], weights[is_there]
            rows.append(np.full(len(entries), row))
            columns.append(entries)
            values.append(weights / weights.sum() if len(weights) else weights)
        triple = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
        return sp.csr_matrix(triple, (len(texts), len(self._queries)))

    def _walk(self, start: sp.csr_matrix) -> sp.csr_matrix:
        """Probability to stop at each product, [B, products], of the most likely ones."""
        at_products = _most_likely(start @ self._to_products)
        stopped = _STOP * at_products
        going = 1.0
        for _ in range(_STEPS - 1):
            going *= 1 - _STOP
            at_products = _most_likely(_most_likely(at_products @ self._to_queries) @ self._to_products)
            stopped = stopped + going * _STOP * at_products
        return sp.csr_matrix(stopped)


def _by_row(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """Rows that sum to 1; empty ones stay empty."""
    total = np.asarray(matrix.sum(axis=1)).ravel()
    return sp.csr_matrix(sp.diags(np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)) @ matrix)


def _most_likely(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """Each row's largest entries: what a popular product's neighbours' neighbours share is the whole graph."""
    matrix = sp.csr_matrix(matrix)
    lengths = np.diff(matrix.indptr)
    if not len(lengths) or lengths.max(initial=0) <= _KEPT:
        return matrix
    is_kept = np.ones(matrix.nnz, bool)
    for row in np.flatnonzero(lengths > _KEPT):
        edge = slice(matrix.indptr[row], matrix.indptr[row + 1])
        least = np.partition(matrix.data[edge], lengths[row] - _KEPT)[lengths[row] - _KEPT]
        is_kept[edge] = matrix.data[edge] >= least
    rows = np.repeat(np.arange(len(lengths)), lengths)[is_kept]
    return sp.csr_matrix((matrix.data[is_kept], (rows, matrix.indices[is_kept])), matrix.shape)
