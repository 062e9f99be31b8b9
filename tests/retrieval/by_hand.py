"""What the towers read, made from raw inputs in plain Python: lists for bags, loops for histories.

Nothing here is imported from what the exported towers run, but for the hash of unknown tokens and the rows of places,
which have tests of their own.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from oracles import attribute_tokens, category_tokens, text_tokens, words

import uepp

assert uepp.__version__
import tensorflow as tf  # noqa: E402

from uepp.config import Config  # noqa: E402
from uepp.features.fitted import Fitted  # noqa: E402

Row = dict[str, Any]
"""A request or a product: each input of its tower by name."""

PLACE = {"country": "", "region": "", "language": "", "zip": "", "latitude": math.nan, "longitude": math.nan}
HISTORY = ("recent_searches", "recent_shops", "recent_titles", "purchased_tags")
TEXTS = ("title", "tags", "category", "attributes", "description")


def request(query: str = "", **given: Any) -> Row:
    """A request of which nothing is known but what is given; histories are lists, most recent first."""
    return {"query": query, **PLACE, **{name: [] for name in HISTORY}, **given}


def product(**given: Any) -> Row:
    """A product of which nothing is known but what is given; neighbour queries are a list."""
    return {**dict.fromkeys(TEXTS, ""), "shop_id": "", **PLACE, "neighbor_queries": [], **given}


def columns(rows: Sequence[Row], padding: int = 0) -> dict[str, list[Any]]:
    """Rows as a tower takes them: lists padded with empty strings to one width, plus `padding` more."""
    made: dict[str, list[Any]] = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        if isinstance(values[0], list):
            width = max(map(len, values)) + padding
            values = [[*value, *[""] * (width - len(value))] for value in values]
        made[name] = values
    return made


def tensors(rows: Sequence[Row], padding: int = 0) -> dict[str, tf.Tensor]:
    """`columns`, with the types of a tower's inputs."""
    return {
        name: tf.constant(values, tf.float32 if name in ("latitude", "longitude") else tf.string)
        for name, values in columns(rows, padding).items()
    }


class Reader:
    """Raw inputs to the entries of `docs/architecture.md`, "batches"."""

    def __init__(self, config: Config, fitted: Fitted) -> None:
        self._config = config
        self._fitted = fitted
        self._shops = {shop.decode(): row for row, shop in enumerate(fitted.shops.tokens)}
        self._tables = {name: vocabulary.lookup_table() for name, vocabulary in fitted.vocabularies.items()}

    def requests(self, rows: Sequence[Row]) -> dict[str, np.ndarray]:
        """Entries of the query tower."""
        read = self._config.history
        made = self._bags("query", [text_tokens(row["query"]) for row in rows])
        searches = [[text for text in row["recent_searches"][: read.num_searches] if text] for row in rows]
        shops = [[shop for shop in row["recent_shops"][: read.num_shops] if shop in self._shops] for row in rows]
        made |= _positions("history/searches", searches)
        made |= self._bags("searches", [text_tokens(text) for texts in searches for text in texts])
        made |= _ids("history/shops", [[self._shops[shop] for shop in row] for row in shops])
        clicked = [row["recent_titles"][: read.num_clicked_products] for row in rows]
        made |= self._bags("history/clicked", [_all(text_tokens(title) for title in titles) for titles in clicked])
        purchased = [row["purchased_tags"][: read.num_purchased_products] for row in rows]
        made |= self._bags("history/purchased", [_all(_lines(tags) for tags in products) for products in purchased])
        return made | self._places("user", rows)

    def products(self, rows: Sequence[Row]) -> dict[str, np.ndarray]:
        """Entries of the product tower."""
        tokens_of = {
            "title": text_tokens,
            "tags": _lines,
            "category": category_tokens,
            "attributes": attribute_tokens,
            "description": text_tokens,
        }
        made: dict[str, np.ndarray] = {}
        for group, fields in enumerate(self._config.features.groups):
            bags = [_all(tokens_of[field](row[field]) for field in fields) for row in rows]
            made |= self._bags(f"product/{group}", bags, self._fitted.table_of_group(group))
        made["product/shop"] = np.array([self._shops.get(row["shop_id"], -1) for row in rows], np.int32)
        neighbors = [[text for text in row["neighbor_queries"] if text] for row in rows]
        made |= _positions("product/graph", neighbors)
        made |= self._bags("graph", [text_tokens(text) for texts in neighbors for text in texts])
        return made | self._places("product", rows)

    def _bags(self, name: str, bags: Sequence[Sequence[str]], table: str = "shared") -> dict[str, np.ndarray]:
        tokens = tf.constant([token for bag in bags for token in bag], tf.string)
        ids = self._tables[table].lookup(tokens).numpy().tolist()
        return _ids(name, [[ids.pop(0) for _ in bag] for bag in bags])

    def _places(self, prefix: str, rows: Sequence[Row]) -> dict[str, np.ndarray]:
        inputs = tensors([{name: row[name] for name in PLACE} for row in rows])
        return {
            f"{prefix}/{name}": value.numpy()
            for name, value in self._fitted.locations.layer()(*inputs.values()).items()
        }


def request_rows(mined: Path, products: pa.Table) -> list[Row]:
    """Every row of mined examples as a request: its context, and its user's events before its moment, by loops."""
    catalogue = {product["product_id"]: product for product in products.to_pylist()}
    kinds = ("searches", "clicks", "purchases")
    histories = {kind: pq.read_table(mined / f"history_{kind}.parquet").to_pylist() for kind in kinds}
    rows = []
    for about in pq.read_table(mined / "examples.parquet").to_pylist():
        past = {
            kind: [
                event
                for event in reversed(histories[kind])
                if event["user_id"] == about["user_id"] and event["timestamp"] < about["request_timestamp"]
            ]
            for kind in kinds
        }
        clicked = [catalogue[event["product_id"]] for event in past["clicks"]]
        purchased = [catalogue[event["product_id"]] for event in past["purchases"]]
        place = {name: missing if about[name] is None else about[name] for name, missing in PLACE.items()}
        rows.append(
            request(
                about["query"],
                **place,
                recent_searches=[event["query"] for event in past["searches"]],
                recent_shops=[event["shop_id"] or "" for event in past["clicks"]],
                recent_titles=[product["title"] for product in clicked],
                purchased_tags=["\n".join(product["tags"] or ()) for product in purchased],
            )
        )
    return rows


def product_rows(mined: Path, products: pa.Table, num_neighbors: int) -> list[Row]:
    """Every product with the `num_neighbors` queries that led to it most often; ties by text."""
    counts: dict[str, dict[str, int]] = {}
    for edge in pq.read_table(mined / "graph.parquet").to_pylist():
        weights = counts.setdefault(edge["product_id"], {})
        query = " ".join(words(edge["query"]))
        weights[query] = weights.get(query, 0) + edge["clicks"] + edge["carts"] + edge["purchases"]
    rows = []
    for about in products.to_pylist():
        weights = counts.get(about["product_id"], {})
        neighbors = sorted(weights, key=lambda query: (-weights[query], query))[:num_neighbors]
        row = {name: about[name] or "" for name in ("title", "category", "description", "shop_id")}
        row |= {name: missing if about[name] is None else about[name] for name, missing in PLACE.items()}
        row["tags"] = "\n".join(about["tags"] or ())
        row["attributes"] = "\n".join(
            f"{key}: {value}" for key, values in about["attributes"] or () for value in values
        )
        rows.append(product(**row, neighbor_queries=neighbors))
    return rows


def _positions(name: str, rows: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
    """Each text of each row as the next row of a list of bags."""
    lengths = [len(row) for row in rows]
    return {f"{name}/values": np.arange(sum(lengths), dtype=np.int32), f"{name}/lengths": np.array(lengths, np.int32)}


def _ids(name: str, rows: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
    values = [value for row in rows for value in row]
    return {f"{name}/values": np.array(values, np.int32), f"{name}/lengths": np.array([*map(len, rows)], np.int32)}


def _lines(text: str) -> list[str]:
    return _all(text_tokens(line) for line in text.split("\n"))


def _all(bags: Any) -> list[str]:
    return [token for bag in bags for token in bag]
