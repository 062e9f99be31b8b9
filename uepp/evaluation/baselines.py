"""The run and its opponents under one interface: requests in, rankings out.

Every system may see the query and who asks, the products, and only what was known before the end of training.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from uepp.config import HistoryConfig
from uepp.errors import InputError
from uepp.features.raw import table_inputs
from uepp.features.requests import RawRequests
from uepp.features.text import TEXT_FIELDS
from uepp.lexical.bm25 import BM25
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


class LessPersonal:
    """A system that is told less of who asks (UEPPR Figure 1): the query alone, or also the place.

    Args:
        system: is asked.
        has_place: whether it is told the place.
    """

    def __init__(self, system: System, has_place: bool) -> None:
        self._system = system
        self._has_place = has_place

    def rank(self, requests: RawRequests, k: int, num_products: int) -> np.ndarray:
        """See `System`."""
        told = RawRequests(requests.queries, requests.contexts if self._has_place else None)
        return self._system.rank(told, k, num_products)


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
    """BM25, as it is or times quality.

    S(q, p) = R(q, p) · Q(p), UEPPR's multiplicative boosting of its inverted index (UEPPR IV); Q is 1 here by default.

    Args:
        index: BM25 of the catalogue.
        quality: Q, float32 [N] > 0; none: 1 for all.
    """

    def __init__(self, index: BM25, quality: np.ndarray | None = None) -> None:
        self._index = index
        self._quality = quality

    def rank(self, requests: RawRequests, k: int, num_products: int) -> np.ndarray:
        """See `System`."""
        return self._index.search(requests.queries, k, limit=num_products, multiplier=self._quality)[0]


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
