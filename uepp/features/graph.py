"""The query-product graph: which queries led to a product (UEPPR III-A-2)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from uepp.config import GraphConfig
from uepp.features.bags import Bags, BagStore
from uepp.features.text import normalized_queries


@dataclass(frozen=True)
class Neighbors:
    """Neighbour queries of every product, most interactions first, ties by text.

    Queries that differ only in case, accents or punctuation are one neighbour.

    Attributes:
        queries: the G distinct normalised queries of the graph.
        rows: N rows of positions in `queries`.
        cumulative_counts: float64 [edges + 1], interactions before each edge of `rows.values`.
        num_requests: int64 [edges], distinct requests that led to the product.
    """

    queries: list[str]
    rows: BagStore
    cumulative_counts: np.ndarray
    num_requests: np.ndarray

    def sample(
        self, products: np.ndarray, target_rows: np.ndarray, config: GraphConfig, rng: np.random.Generator
    ) -> Bags:
        """At most n neighbours of each product, without what the example itself put into the graph.

        A product with at most n neighbours gives all of them. Of more, n are drawn with replacement,
        uniformly or in proportion to interactions. Draws of the target query are left out: always (as in
        UEPPR III-A-2), or only where no other request led to the product (`leave_one_out`), which is how
        often an exported product will have the query among its neighbours.

        Args:
            products: int [C] product indexes.
            target_rows: int [C], row in `queries` of the query to leave out; -1: none.
            config: n, how to draw, and what becomes of the target query.
            rng: source of the draws.

        Returns:
            C bags of rows in `queries`.
        """
        begin = self.rows.splits[products]
        degree = self.rows.splits[products + 1] - begin
        lengths = np.minimum(degree, config.num_neighbors)
        row = np.repeat(np.arange(len(products)), lengths)
        place = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        draw = rng.random(len(row))
        if config.sampling == "count":
            low, high = self.cumulative_counts[begin], self.cumulative_counts[begin + degree]
            drawn = np.searchsorted(self.cumulative_counts, low[row] + draw * (high - low)[row], side="right") - 1
            drawn = np.minimum(drawn, (begin + degree)[row] - 1)
        else:
            drawn = begin[row] + (draw * degree[row]).astype(np.int64)
        edge = np.where((degree > config.num_neighbors)[row], drawn, begin[row] + place)
        values = self.rows.values[edge]
        is_kept = values != target_rows[row]
        if config.target_query == "leave_one_out":
            is_kept |= self.num_requests[edge] > 1
        return Bags(values[is_kept], np.bincount(row[is_kept], minlength=len(products)).astype(np.int32))

    def fixed(self, products: np.ndarray, num_neighbors: int) -> list[list[str]]:
        """The n neighbours with the most interactions of each product, as an export holds them."""
        found = []
        for begin, end in zip(self.rows.splits[products], self.rows.splits[products + 1], strict=True):
            found.append([self.queries[row] for row in self.rows.values[begin : min(end, begin + num_neighbors)]])
        return found


def load_neighbors(mined: Path, product_ids: list[str]) -> Neighbors:
    """Read `graph.parquet` of mined tables.

    Args:
        mined: folder of mined tables.
        product_ids: the catalogue in product-index order.
    """
    table = pq.read_table(mined / "graph.parquet")
    texts = pc.unique(table.column("query"))
    normalized = pa.array(normalized_queries(texts.to_pylist()))
    queries = pc.unique(normalized).sort()
    row_of_text = _int64(pc.index_in(normalized, queries))
    query_rows = row_of_text[_int64(pc.index_in(table.column("query"), texts))]
    product_index = pc.index_in(table.column("product_id"), pa.array(product_ids))
    # A query without words says nothing, and an empty text is no neighbour where a tower is served.
    has_words = np.array([query != "" for query in queries.to_pylist()], bool)
    is_known = np.asarray(pc.is_valid(product_index)) & has_words[query_rows]
    counts = np.sum([_int64(table.column(name)) for name in ("clicks", "carts", "purchases")], axis=0)
    pair = _int64(pc.fill_null(product_index, 0)) * len(queries) + query_rows
    pairs, position = np.unique(pair[is_known], return_inverse=True)
    weight, requests = (
        np.bincount(position, weights=column[is_known], minlength=len(pairs))
        for column in (counts, _int64(table.column("requests")))
    )
    product, query = pairs // max(len(queries), 1), pairs % max(len(queries), 1)
    order = np.lexsort((query, -weight, product))
    lengths = np.bincount(product, minlength=len(product_ids)).astype(np.int32)
    return Neighbors(
        queries=queries.to_pylist(),
        rows=BagStore.concatenate([Bags(query[order].astype(np.int32), lengths)]),
        cumulative_counts=np.concatenate([[0.0], np.cumsum(weight[order])]),
        num_requests=requests[order].astype(np.int64),
    )


def _int64(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    return np.asarray(column, np.int64)
