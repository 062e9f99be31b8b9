"""Head, torso and tail: how well a query is known from training."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow.parquet as pq

from uepp.artifacts import read_json
from uepp.features.catalog import num_products_before
from uepp.features.text import TEXT_FIELDS, normalized_queries, product_texts, query_keys

_AT_ONCE = 65_536
_MIN_SEEN_SHARE = 0.1
NAMES = ("head", "torso", "tail")


@dataclass(frozen=True)
class Segments:
    """A segment a request.

    Attributes:
        labels: [R], `head`, `torso` or `tail`.
        rule: what they mean, in words, for the reader of a table.
    """

    labels: np.ndarray
    rule: str


def assign_segments(
    queries: list[str], export: Path, by: Literal["auto", "query_count", "rarest_word"] = "auto"
) -> Segments:
    """Cut requests into head, torso and tail.

    `query_count`: the most frequent training queries that together make a third of the training
    window's requests are head, those that make the next third torso, all others (unseen ones too) tail. Queries are
    told apart by `query_keys`.

    `rarest_word`: for data without traffic, where no evaluated query occurs in training. A query counts
    as often as its rarest word occurs in texts of training (products known before T, and its distinct queries); thirds
    of the evaluated requests. What the towers read of these texts makes no difference, so all runs on the same data
    have the same segments.

    Args:
        queries: [R] evaluated queries.
        export: an export, for its query counts, products and T.
        by: the rule; `auto` takes `query_count` where at least a tenth of the requests were seen.
    """
    table = pq.read_table(export / "query_counts.parquet")
    counts: Counter[str] = Counter()
    for query, count in zip(
        query_keys(table.column("query").to_pylist()), table.column("count").to_pylist(), strict=True
    ):
        counts[query] += count
    seen = np.array([counts[query] for query in query_keys(queries)], np.int64)
    if by == "query_count" or (by == "auto" and np.mean(seen > 0) >= _MIN_SEEN_SHARE):
        head, torso = _traffic_thirds(np.array(list(counts.values()), np.int64))
        labels = np.where(seen >= head, "head", np.where(seen >= torso, "torso", "tail"))
        rule = f"query's requests in the training window: head ≥ {head}, torso ≥ {torso}"
        return Segments(labels, rule)
    rarest = _rarest_word_counts(queries, export, table.column("query").to_pylist())
    third, two_thirds = (float(value) for value in np.quantile(rarest, (1 / 3, 2 / 3)))
    labels = np.where(rarest > two_thirds, "head", np.where(rarest > third, "torso", "tail"))
    rule = (
        "proxy, no traffic: training texts that hold the query's rarest word: "
        f"head > {two_thirds:.0f}, torso > {third:.0f}"
    )
    return Segments(labels, rule)


def _traffic_thirds(counts: np.ndarray) -> tuple[int, int]:
    """Smallest counts of head and torso queries."""
    if not len(counts):
        return 1, 1
    ordered = np.sort(counts)[::-1]
    cumulative = np.cumsum(ordered)
    head, torso = (int(ordered[np.searchsorted(cumulative, cumulative[-1] * share)]) for share in (1 / 3, 2 / 3))
    return head, torso


def _rarest_word_counts(queries: list[str], export: Path, trained: list[str]) -> np.ndarray:
    asked = normalized_queries(queries)
    wanted = {word for query in asked for word in query.split()}
    counts: Counter[str] = Counter()

    def count(texts: list[str]) -> None:
        for text in normalized_queries(texts):
            counts.update(wanted.intersection(text.split()))

    products = pq.read_table(export / "products.parquet")
    train_end = datetime.fromisoformat(read_json(export / "windows.json")["train_end"])
    num_known = num_products_before(products, train_end)
    for begin in range(0, num_known, _AT_ONCE):
        part = products.slice(begin, min(_AT_ONCE, num_known - begin))
        count(product_texts(part, TEXT_FIELDS))
    count(trained)
    return np.array([min((counts[word] for word in query.split()), default=0) for query in asked], np.int64)
