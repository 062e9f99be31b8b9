"""Random walk on the query–product graph, the graph-based retriever of UEPPR VI-A.

From a query a walker goes to a product that people interacted with after it, from there to another query that led to
that product, and so on; at every product it stops with a fixed probability. A product's score is the probability
to stop there. The paper calls it highly tuned and says no more; the walk, and what is tuned of it, are ours.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import scipy.sparse as sp

from uepp.evaluation.measures import recalls
from uepp.evaluation.requests import Requests
from uepp.features.requests import RawRequests
from uepp.features.text import normalized_queries
from uepp.lexical.bm25 import BM25, MIN_GAIN

_KEPT = 2_000
_AT_ONCE = 256
_TYPES = ("clicks", "carts", "purchases")
_MAX_REQUESTS = 1_000


@dataclass(frozen=True)
class WalkSettings:
    """What `RandomWalk.tune` chooses.

    Attributes:
        weights: of a click, a cart and a purchase on an edge, each ≥ 0.
        stop: probability to stop at a product, in (0, 1].
        steps: products that a walker comes to at most, ≥ 1.
        entries: queries that one which the graph lacks starts from at most, ≥ 1.
    """

    weights: tuple[float, float, float] = (1.0, 3.0, 9.0)
    stop: float = 0.5
    steps: int = 3
    entries: int = 10


_GRID: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("weights", ((1.0, 1.0, 1.0), (1.0, 3.0, 9.0), (0.0, 1.0, 1.0), (1.0, 10.0, 100.0))),
    ("stop", (0.15, 0.3, 0.5, 0.75)),
    ("steps", (2, 3, 5)),
    ("entries", (3, 10, 30)),
)


class RandomWalk:
    """Ranks by where a walk from the query ends.

    A query that the graph has starts at its node. Another one starts at the queries that are most like it by BM25 over
    query texts, each as likely as its score; one that shares no word with any finds nothing.

    Args:
        export: for its graph, which ends with the training window.
        products: the catalogue in product-index order.
        settings: none: those before tuning.

    Attributes:
        settings: of the walk.
    """

    def __init__(self, export: Path, products: pa.Table, settings: WalkSettings | None = None) -> None:
        graph = pq.read_table(export / "graph.parquet")
        product_ids = pa.array(products.column("product_id").to_pylist())
        product = np.asarray(pc.fill_null(pc.index_in(graph.column("product_id"), product_ids), -1))
        texts = np.array(normalized_queries(graph.column("query").to_pylist()), object)
        counts = np.stack([np.asarray(graph.column(name), float) for name in _TYPES], axis=1)
        is_edge = (product >= 0) & (counts.sum(axis=1) > 0) & (texts != "")
        self._queries = sorted(set(texts[is_edge].tolist()))
        self._row_of = {text: row for row, text in enumerate(self._queries)}
        query = np.array([self._row_of[text] for text in texts[is_edge].tolist()], np.int64)
        self._edges = (query, product[is_edge])
        self._counts = counts[is_edge]
        self._num_products = products.num_rows
        self._entries = BM25.build({"title": self._queries}, "stemmed") if len(self._queries) else None
        self.set(settings or WalkSettings())

    def set(self, settings: WalkSettings) -> None:
        """Walk by these settings from now on."""
        self.settings = settings
        shape = (len(self._queries), self._num_products)
        weight = self._counts @ np.asarray(settings.weights)
        edges = sp.csr_matrix((weight, self._edges), shape)  # adds up what became one query
        edges.eliminate_zeros()
        self._to_products = _by_row(edges)
        self._to_queries = _by_row(sp.csr_matrix(edges.T))

    def tune(self, requests: Requests, k: int = 100) -> dict[str, Any]:
        """Choose the settings one after the other by Recall@k on selection requests, of which at most 1,000 are drawn.

        A choice that gains no more than .001 is not taken, as with BM25.

        Args:
            requests: of the selection window; without any, the settings stay as they are.
            k: results that count.

        Returns:
            What `WalkSettings` has, `recall@k`, `num_requests`, and `tried`: each choice with the recall it gave.
        """
        requests = requests.take(requests.drawn(_MAX_REQUESTS))
        if not len(requests):
            return {**asdict(self.settings), f"recall@{k}": None, "num_requests": 0, "tried": []}
        best, chosen = self._recall(requests, k), self.settings
        tried: list[dict[str, Any]] = [{"setting": "start", "value": None, "recall": round(best, 4)}]
        for name, values in _GRID:
            before = chosen
            for value in values:
                changed = replace(before, **{name: value})
                if changed == before:
                    continue
                self.set(changed)
                recall = self._recall(requests, k)
                tried.append({"setting": name, "value": value, "recall": round(recall, 4)})
                if recall > best + MIN_GAIN:
                    best, chosen = recall, changed
            self.set(chosen)
        return {**asdict(chosen), f"recall@{k}": best, "num_requests": len(requests), "tried": tried}

    def _recall(self, requests: Requests, k: int) -> float:
        return float(np.nanmean(recalls(self, requests, (k,))[k]))

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
            found, scores = self._entries.search(unknown, self.settings.entries)
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
        stop = self.settings.stop
        at_products = _most_likely(start @ self._to_products)
        stopped = stop * at_products
        going = 1.0
        for _ in range(self.settings.steps - 1):
            going *= 1 - stop
            at_products = _most_likely(_most_likely(at_products @ self._to_queries) @ self._to_products)
            stopped = stopped + going * stop * at_products
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
