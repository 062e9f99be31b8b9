"""What is learned from: products and the queries that they were bought for."""

import hashlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from uepp.config import INTERACTION_TYPES, PretrainingConfig
from uepp.errors import InputError
from uepp.features.text import query_keys

_DESCENDING = [(name, "descending") for name in ("purchases", "carts", "clicks")]


@dataclass(frozen=True)
class Pairs:
    """Product and query, E of them, sorted by product index and then best query first.

    Attributes:
        product_index: int64 [E], row of the catalogue.
        queries: E texts.
        is_held_out: bool [E], never trained on; a held-out product has only its best query here.
        is_reported: bool [E], about half of the held-out ones: those that figures are told of. The best step is chosen
            by the others, so that what is told was not chosen by what it is told of.
    """

    product_index: np.ndarray
    queries: list[str]
    is_held_out: np.ndarray
    is_reported: np.ndarray

    def __len__(self) -> int:
        return len(self.queries)


def load_pairs(mined: Path, product_ids: list[str], config: PretrainingConfig) -> Pairs:
    """The most purchased queries of each product, from the mined graph (before T only).

    A product's queries are ordered by purchases, then carts, then clicks, then text; so a product that nobody bought
    has the query that it was most put in the cart or clicked for, as far as `weakest_interaction` allows. Queries of
    one key (`query_keys`) count as one, and the spelling that comes first in this order stands for them.

    Args:
        mined: folder with `graph.parquet`.
        product_ids: the catalogue.
        config: `weakest_interaction`, `queries_per_product`, `held_out_share`.

    Raises:
        InputError: nothing to train on, to choose the best step by, or to report.
    """
    graph = _merged(pq.read_table(mined / "graph.parquet"))
    columns = [f"{name}s" for name in INTERACTION_TYPES[INTERACTION_TYPES.index(config.weakest_interaction) :]]
    counts = np.sum([graph.column(name).to_numpy() for name in columns], axis=0)
    graph = graph.filter(pa.array(counts > 0))
    if not graph.num_rows:
        raise InputError(
            f"events.parquet: no {' or '.join(name[:-1] for name in columns)} with a query before the end of training "
            "(pretraining.weakest_interaction)"
        )
    graph = graph.sort_by([("product_id", "ascending"), *_DESCENDING, ("query", "ascending")])
    products = graph.column("product_id").to_pylist()
    starts = np.flatnonzero([True, *(one != other for one, other in pairwise(products))])
    lengths = np.diff([*starts, len(products)])
    place = np.arange(len(products)) - np.repeat(starts, lengths)
    is_held_out = np.repeat([_is_held_out(products[row], config.held_out_share) for row in starts], lengths)
    is_reported = is_held_out & np.repeat([_is_of_second_half(products[row]) for row in starts], lengths)
    kept = np.flatnonzero(place < np.where(is_held_out, 1, config.queries_per_product))

    row_of = {product: row for row, product in enumerate(product_ids)}
    index = np.array([row_of[products[row]] for row in kept], np.int64)
    kept, index = kept[np.argsort(index, kind="stable")], np.sort(index, kind="stable")
    queries = graph.column("query").to_pylist()
    pairs = Pairs(index, [queries[row] for row in kept], is_held_out[kept], is_reported[kept])
    num_held_out, num_reported = int(pairs.is_held_out.sum()), int(pairs.is_reported.sum())
    if num_held_out == len(pairs) or not 0 < num_reported < num_held_out:
        raise InputError(
            f"pretraining.held_out_share = {config.held_out_share}: keeps {num_held_out} of {len(starts)} products "
            f"with a query, {num_reported} of them to report; at least one must be reported, one more be kept to "
            "choose the best step by, and one be left for training"
        )
    return pairs


def _merged(graph: pa.Table) -> pa.Table:
    """Interactions by product and key of the query, with its most frequent spelling; without blank queries."""
    queries = graph.column("query").combine_chunks().dictionary_encode()
    texts = queries.dictionary.to_pylist()
    key_of = pa.array(query_keys(texts), pa.string())
    is_text = pa.array([bool(text.strip()) for text in texts], pa.bool_())
    graph = graph.append_column("key", pc.take(key_of, queries.indices)).filter(pc.take(is_text, queries.indices))
    graph = graph.sort_by([("product_id", "ascending"), *_DESCENDING, ("query", "ascending")])
    counted = [(name, "sum") for name, _ in _DESCENDING]
    # Only one thread keeps the order, which says which spelling is the first.
    merged = graph.group_by(["product_id", "key"], use_threads=False).aggregate([("query", "first"), *counted])
    names = {"query_first": "query"} | {f"{name}_sum": name for name, _ in counted}
    return merged.rename_columns([names.get(name, name) for name in merged.column_names])


def _is_held_out(product_id: str, share: float) -> bool:
    """By the MD5 of the id: the same products whatever else changes."""
    return int.from_bytes(hashlib.md5(product_id.encode()).digest()[:8]) < share * 2**64


def _is_of_second_half(product_id: str) -> bool:
    """By the next byte of the same hash, so whatever share is held out."""
    return hashlib.md5(product_id.encode()).digest()[8] % 2 == 1
