"""What is popular, by itself and in the categories that a query led to."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from uepp.config import INTERACTION_TYPES, InteractionType
from uepp.features.requests import RawRequests
from uepp.features.text import query_keys


class Popularity:
    """Products by their relevant interactions in the graph window, whatever was asked; ties by clicks."""

    def __init__(self, export: Path, products: pa.Table, relevant_types: tuple[InteractionType, ...]) -> None:
        self.scores = _popularity(_graph_with_index(export, products), relevant_types, products.num_rows)

    def rank(self, requests: RawRequests, k: int, num_products: int) -> np.ndarray:
        """See `uepp.evaluation.baselines.System`."""
        return np.tile(padded(best_rows(self.scores[:num_products], k), k), (len(requests), 1))


class CategoryPopularity:
    """The categories that a query led to in training, and what is popular in them.

    score(p | q) = P(category of p | q) · popularity(p), with P from relevant interactions after the same query
    (`query_keys`), or from all where it had none of these. A query that led to nothing backs off to popularity.
    """

    def __init__(self, export: Path, products: pa.Table, relevant_types: tuple[InteractionType, ...]) -> None:
        graph = _graph_with_index(export, products)
        self._popularity = _popularity(graph, relevant_types, products.num_rows)
        categories = products.column("category").to_pylist()
        relevant, any_ = (_led_to(graph, categories, types) for types in (relevant_types, INTERACTION_TYPES))
        self._of_query = any_ | relevant
        rows = defaultdict(list)
        for row, category in enumerate(categories):
            if category is not None:
                rows[category].append(row)
        self._members = {category: np.array(members) for category, members in rows.items()}

    def rank(self, requests: RawRequests, k: int, num_products: int) -> np.ndarray:
        """See `uepp.evaluation.baselines.System`."""
        general = self._popularity
        back_off = padded(best_rows(general[:num_products], k), k)
        known = {}
        queries = query_keys(requests.queries)
        for query in set(queries) & self._of_query.keys():
            wanted = self._of_query[query]
            scores = np.zeros(num_products)
            for category, weight in wanted.items():
                members = self._members[category]
                members = members[members < num_products]
                scores[members] = weight / sum(wanted.values()) * (general[members] + 1e-3)
            own = best_rows(scores, k)
            known[query] = np.concatenate([own, back_off[~np.isin(back_off, own)]])[:k]
        return np.stack([known.get(query, back_off) for query in queries])


def _led_to(
    graph: dict[str, Any], categories: Sequence[str | None], types: Sequence[InteractionType]
) -> dict[str, dict[str, float]]:
    """Interactions of some types in each category, by query."""
    found: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    rows = zip(query_keys(graph["query"]), graph["product_index"], _interactions(graph, types), strict=True)
    for query, product, weight in rows:
        category = categories[product]
        if category is not None and weight > 0:
            found[query][category] += weight
    return found


def _graph_with_index(export: Path, products: pa.Table) -> dict[str, Any]:
    graph = pq.read_table(export / "graph.parquet")
    row_of = {product: row for row, product in enumerate(products.column("product_id").to_pylist())}
    columns = {name: graph.column(name).to_pylist() for name in ("query", "product_id", "clicks", "carts", "purchases")}
    is_known = [product in row_of for product in columns["product_id"]]
    kept = {name: [v for v, keep in zip(values, is_known, strict=True) if keep] for name, values in columns.items()}
    return {**kept, "product_index": np.array([row_of[product] for product in kept["product_id"]], np.int64)}


def _interactions(graph: dict[str, Any], types: Sequence[InteractionType]) -> np.ndarray:
    columns = {"click": "clicks", "cart": "carts", "purchase": "purchases"}
    return np.sum([np.array(graph[columns[name]], float) for name in types], axis=0)


def _popularity(graph: dict[str, Any], types: tuple[InteractionType, ...], num_products: int) -> np.ndarray:
    weights = _interactions(graph, types) + 1e-6 * np.array(graph["clicks"], float)
    return np.bincount(graph["product_index"], weights=weights, minlength=num_products)


def best_rows(scores: np.ndarray, k: int) -> np.ndarray:
    """Rows with the k highest positive scores, best first, ties by row."""
    rows = np.flatnonzero(scores > 0)
    if len(rows) > k:
        rows = rows[scores[rows] >= np.partition(scores[rows], len(rows) - k)[len(rows) - k]]
    return rows[np.argsort(-scores[rows], kind="stable")][:k]


def padded(rows: np.ndarray, k: int) -> np.ndarray:
    """The same rows, k of them with -1 in free places."""
    return np.concatenate([rows, np.full(k - len(rows), -1, np.int64)])
