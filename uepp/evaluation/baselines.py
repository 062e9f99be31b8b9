"""The run and its opponents under one interface: requests in, rankings out.

Every system may see the query and who asks, the products, and only what was known before the end of training.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from uepp.config import HistoryConfig, InteractionType
from uepp.errors import InputError
from uepp.features.raw import table_inputs
from uepp.features.requests import RawRequests
from uepp.features.text import TEXT_FIELDS
from uepp.lexical.analysis import Strength
from uepp.lexical.bm25 import BM25, BM25Settings
from uepp.lexical.fusion import fuse
from uepp.retrieval.boosting import read_boosting
from uepp.retrieval.embed import embed_queries, load_tower, read_vectors
from uepp.retrieval.index import search_exact


class System(Protocol):
    """A retriever under evaluation."""

    def rank(self, requests: RawRequests, k: int, num_products: int) -> np.ndarray:
        """The k best of the first `num_products` products: int [B, k], -1 where there are fewer."""
        ...


class Towers:
    """The run itself: exported query tower and vectors, exact search."""

    def __init__(self, export: Path, history: HistoryConfig) -> None:
        self._history = history
        self._tower = load_tower(export / "query_tower")
        self._vectors = read_vectors(export)

    def rank(self, requests: RawRequests, k: int, num_products: int) -> np.ndarray:
        """See `System`."""
        vectors = embed_queries(self._tower, requests, self._history)
        return search_exact(vectors, self._vectors[:num_products], k)[0]


class BoostedTowers:
    """The run with its boosting: exact search over hydrated vectors (UEPPR IV)."""

    def __init__(self, export: Path, history: HistoryConfig) -> None:
        boosting = read_boosting(export)
        if boosting is None:
            raise InputError(f"{export}: has no boosting; make it with: uepp boost {export.parent}")
        self._boosting = boosting
        self._history = history
        self._tower = load_tower(export / "query_tower")
        self._vectors = boosting.products(read_vectors(export), 0)

    def rank(self, requests: RawRequests, k: int, num_products: int) -> np.ndarray:
        """See `System`."""
        vectors = self._boosting.queries(embed_queries(self._tower, requests, self._history))
        return search_exact(vectors, self._vectors[:num_products], k)[0]


class Lexical:
    """BM25 in one of its strengths.

    Args:
        products: the catalogue.
        strength: how texts become terms.
        settings: chosen ones; none: the strength's own.
        generated: table of generated queries, for document expansion; none: the products' own texts only.
    """

    def __init__(
        self,
        products: pa.Table,
        strength: Strength,
        settings: BM25Settings | None = None,
        generated: pa.Table | None = None,
    ) -> None:
        self.index = BM25.build(lexical_texts(products, generated), strength, settings)

    def rank(self, requests: RawRequests, k: int, num_products: int) -> np.ndarray:
        """See `System`."""
        return self.index.search(requests.queries, k, limit=num_products)[0]


class Fusion:
    """Several systems as one, by reciprocal ranks (`uepp.lexical.fusion`).

    Args:
        systems: to fuse, all with the same weight.
        depth: results of each that count.
    """

    def __init__(self, systems: Sequence[System], depth: int) -> None:
        self._systems = list(systems)
        self._depth = depth

    def rank(self, requests: RawRequests, k: int, num_products: int) -> np.ndarray:
        """See `System`."""
        return fuse([system.rank(requests, self._depth, num_products) for system in self._systems], k)[0]


class Popularity:
    """Products by their relevant interactions in the graph window, whatever was asked; ties by clicks."""

    def __init__(self, export: Path, products: pa.Table, relevant_types: tuple[InteractionType, ...]) -> None:
        self.scores = _popularity(_graph_with_index(export, products), relevant_types, products.num_rows)

    def rank(self, requests: RawRequests, k: int, num_products: int) -> np.ndarray:
        """See `System`."""
        return np.tile(_pad(_top(self.scores[:num_products], k), k), (len(requests), 1))


class CategoryPopularity:
    """The categories that a query led to in training, and what is popular in them.

    score(p | q) = P(category of p | q) · popularity(p), with P from relevant interactions after the same
    query. A query that was never seen backs off to popularity.
    """

    def __init__(self, export: Path, products: pa.Table, relevant_types: tuple[InteractionType, ...]) -> None:
        graph = _graph_with_index(export, products)
        self._popularity = _popularity(graph, relevant_types, products.num_rows)
        categories = products.column("category").to_pylist()
        self._of_query: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        weights = _interactions(graph, relevant_types)
        for query, product, weight in zip(graph["query"], graph["product_index"], weights, strict=True):
            category = categories[product]
            if category is not None and weight > 0:
                self._of_query[query][category] += weight
        rows = defaultdict(list)
        for row, category in enumerate(categories):
            if category is not None:
                rows[category].append(row)
        self._members = {category: np.array(members) for category, members in rows.items()}

    def rank(self, requests: RawRequests, k: int, num_products: int) -> np.ndarray:
        """See `System`."""
        general = self._popularity
        back_off = _pad(_top(general[:num_products], k), k)
        known = {}
        for query in set(requests.queries) & self._of_query.keys():
            wanted = self._of_query[query]
            scores = np.zeros(num_products)
            for category, weight in wanted.items():
                members = self._members[category]
                members = members[members < num_products]
                scores[members] = weight / sum(wanted.values()) * (general[members] + 1e-3)
            known[query] = _pad(_top(scores, k), k)
        return np.stack([known.get(query, back_off) for query in requests.queries])


def lexical_texts(products: pa.Table, generated: pa.Table | None = None) -> dict[str, list[str]]:
    """Product texts for BM25, a text a product and field; empty fields are left out.

    Args:
        products: the catalogue.
        generated: `product_id`, `queries` list of string: what people might ask for a product (docT5query).
    """
    columns = table_inputs(products, TEXT_FIELDS)
    texts = {field: [text.replace("\n", " ") for text in column] for field, column in columns.items()}
    if generated is not None:
        ids, queries = (generated.column(name).to_pylist() for name in ("product_id", "queries"))
        text_of = {product_id: " ".join(asked) for product_id, asked in zip(ids, queries, strict=True)}
        texts["generated"] = [text_of.get(product_id, "") for product_id in products.column("product_id").to_pylist()]
    return {field: column for field, column in texts.items() if field in ("title", "tags") or any(column)}


def _graph_with_index(export: Path, products: pa.Table) -> dict[str, Any]:
    graph = pq.read_table(export / "graph.parquet")
    row_of = {product: row for row, product in enumerate(products.column("product_id").to_pylist())}
    columns = {name: graph.column(name).to_pylist() for name in ("query", "product_id", "clicks", "carts", "purchases")}
    is_known = [product in row_of for product in columns["product_id"]]
    kept = {name: [v for v, keep in zip(values, is_known, strict=True) if keep] for name, values in columns.items()}
    return {**kept, "product_index": np.array([row_of[product] for product in kept["product_id"]], np.int64)}


def _interactions(graph: dict[str, Any], types: tuple[InteractionType, ...]) -> np.ndarray:
    columns = {"click": "clicks", "cart": "carts", "purchase": "purchases"}
    return np.sum([np.array(graph[columns[name]], float) for name in types], axis=0)


def _popularity(graph: dict[str, Any], types: tuple[InteractionType, ...], num_products: int) -> np.ndarray:
    weights = _interactions(graph, types) + 1e-6 * np.array(graph["clicks"], float)
    return np.bincount(graph["product_index"], weights=weights, minlength=num_products)


def _top(scores: np.ndarray, k: int) -> np.ndarray:
    """Rows with the k highest positive scores, best first, ties by row."""
    rows = np.flatnonzero(scores > 0)
    if len(rows) > k:
        rows = rows[scores[rows] >= np.partition(scores[rows], len(rows) - k)[len(rows) - k]]
    return rows[np.argsort(-scores[rows], kind="stable")][:k]


def _pad(rows: np.ndarray, k: int) -> np.ndarray:
    return np.concatenate([rows, np.full(k - len(rows), -1, np.int64)])
