"""How good generated queries are: against a unigram model, and for finding their product."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from uepp.features.raw import table_inputs
from uepp.features.text import TEXT_FIELDS
from uepp.lexical.bm25 import BM25

DEPTH = 10_000
"""Results that are looked at."""


def unigram_perplexity(trained: np.ndarray, held_out: np.ndarray, vocabulary_size: int) -> float:
    """Perplexity per piece of p(v) = (count(v) + 1) / (Σ count + V), counted in the training queries.

    Args:
        trained: int [E, T] query ids, 0 is padding, end marks included.
        held_out: int [H, T].
        vocabulary_size: V, all ids that occur are below it.
    """
    counts = np.bincount(trained[trained != 0], minlength=vocabulary_size) + 1.0
    log_probabilities = np.log(counts) - math.log(counts.sum())
    return math.exp(-float(log_probabilities[held_out[held_out != 0]].mean()))


def reciprocal_ranks(bm25: BM25, queries: Sequence[str], targets: np.ndarray, num_products: int) -> np.ndarray:
    """1 / rank of each query's product by BM25; 0 where it is not among the first `DEPTH`.

    Products of the same score share the mean of their places: a query that says nothing of what sets them apart earns
    nothing by the order of the catalogue.

    Args:
        bm25: index of the catalogue.
        queries: B texts.
        targets: int [B], product indexes.
        num_products: search only the first so many products.

    Returns:
        float64 [B].
    """
    result = np.zeros(len(queries))
    for begin in range(0, len(queries), 64):
        part = slice(begin, begin + 64)
        found, scores = bm25.search(queries[part], min(DEPTH, num_products), limit=num_products)
        for row, target in enumerate(targets[part]):
            place = np.flatnonzero(found[row] == target)
            if len(place):
                ties = np.flatnonzero((scores[row] == scores[row, place[0]]) & (found[row] >= 0))
                result[begin + row] = 1.0 / (1.0 + ties.mean())
    return result


def mean_reciprocal_ranks(
    bm25: BM25, queries: Mapping[str, Sequence[str]], targets: np.ndarray, num_products: int
) -> dict[str, float]:
    """The mean of `reciprocal_ranks` of each kind of query for the same targets; 0 without targets."""
    ranks = {name: reciprocal_ranks(bm25, asked, targets, num_products) for name, asked in queries.items()}
    return {name: float(values.mean()) if len(values) else 0.0 for name, values in ranks.items()}


def searched_texts(products: pa.Table) -> dict[str, dict[str, list[str]]]:
    """What products are looked for in, by the name of the index: fields of BM25, each the texts of all products.

    A title finds itself, so `without_title` has what else is written of a product, where anything is.
    """
    columns = table_inputs(products, TEXT_FIELDS)
    fields = {name: [str(text).replace("\n", " ") for text in column] for name, column in columns.items()}
    others = [" ".join(parts).strip() for parts in zip(*(fields[n] for n in fields if n != "title"), strict=True)]
    indexes = {"title_and_tags": {name: fields[name] for name in ("title", "tags")}}
    if any(others):
        indexes["without_title"] = {"tags": others}
    return indexes


def first_words(title: str, number: int = 3) -> str:
    """The start of a title."""
    return " ".join(title.split()[:number])
