"""The run and its opponents under one interface: requests in, rankings out.

Every system may see the query and who asks, the products, and only what was known before the end of training.
"""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from uepp.config import HistoryConfig
from uepp.errors import InputError
from uepp.features.raw import table_inputs
from uepp.features.requests import RawRequests
from uepp.features.text import TEXT_FIELDS
from uepp.lexical.bm25 import BM25
from uepp.lexical.fusion import FusionSettings
from uepp.relevance.ranker import read_ranker
from uepp.retrieval.boosting import read_boosting
from uepp.retrieval.embed import embed_queries, load_tower, read_vectors
from uepp.retrieval.index import search_exact
from uepp.retrieval.vectors import ProductVectors


class System(Protocol):
    """A retriever under evaluation."""

    def rank(self, requests: RawRequests, k: int, num_products: int) -> np.ndarray:
        """The k best of the first `num_products` products: int [B, k], -1 where there are fewer."""
        ...


class Towers:
    """The run itself: exported query tower and vectors, exact search.

    Args:
        export: of the run.
        history: of its configuration.
        is_boosted: search the hydrated vectors, so that quality counts (UEPPR IV).
        like: of the same run, with or without boosting: its tower and vectors are taken; none: they are read.

    Attributes:
        vectors: of the products, without boosting, float32 [N, d].

    Raises:
        InputError: it is to be boosted, and has no boosting.
    """

    def __init__(
        self, export: Path, history: HistoryConfig, *, is_boosted: bool = False, like: "Towers | None" = None
    ) -> None:
        self._boosting = read_boosting(export) if is_boosted else None
        if is_boosted and self._boosting is None:
            raise InputError(f"{export}: has no boosting; make it with: uepp boost {export.parent}")
        self._history = history
        self._tower: Any = load_tower(export / "query_tower") if like is None else like._tower
        self.vectors: np.ndarray = read_vectors(export) if like is None else like.vectors
        self._searched = self.vectors if self._boosting is None else self._boosting.products(self.vectors, 0)

    def embed(self, requests: RawRequests) -> np.ndarray:
        """Of B requests, float32 [B, d], of length 1."""
        return embed_queries(self._tower, requests, self._history)

    def search(self, queries: np.ndarray, k: int, num_products: int) -> np.ndarray:
        """The k best of the first products for what `embed` gave: int [B, k], -1 where there are fewer."""
        asked = queries if self._boosting is None else self._boosting.queries(queries)
        return search_exact(asked, self._searched[:num_products], k)[0]

    def rank(self, requests: RawRequests, k: int, num_products: int) -> np.ndarray:
        """See `System`."""
        return self.search(self.embed(requests), k, num_products)


class RankedTowers:
    """The run as `uepp search --rerank` answers: its ranker orders the first products that are found (BHNS 4.3).

    Args:
        export: of the run.
        towers: the run without the ranker.

    Raises:
        InputError: the export has no ranker, or one that does not fit.
    """

    def __init__(self, export: Path, towers: Towers) -> None:
        ranker = read_ranker(export)
        if ranker is None:
            raise InputError(f"{export}: has no ranker; make it with: uepp relevance rank {export.parent}")
        self._ranker = ranker
        self._towers = towers
        self._vectors = ProductVectors.open(export)

    def rank(self, requests: RawRequests, k: int, num_products: int) -> np.ndarray:
        """See `System`."""
        queries, top = self._towers.embed(requests), self._ranker.top
        rows = self._towers.search(queries, max(k, top), num_products)
        first = rows[:, :top]
        asked = self._ranker.features.asked(requests)
        order = self._ranker.order(asked, first, self._vectors.similarities(queries, first))
        return np.concatenate([np.take_along_axis(first, order, axis=1), rows[:, top:]], axis=1)[:, :k]


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
    """The towers and BM25 as one, by reciprocal ranks (`uepp.lexical.fusion`).

    Args:
        towers: of the run.
        by_words: BM25.
        depth: results of each that count.
        settings: of the export.
    """

    def __init__(self, towers: System, by_words: System, depth: int, settings: FusionSettings) -> None:
        self._systems = (towers, by_words)
        self._depth = depth
        self._settings = settings

    def rank(self, requests: RawRequests, k: int, num_products: int) -> np.ndarray:
        """See `System`."""
        towers, by_words = (system.rank(requests, self._depth, num_products) for system in self._systems)
        return self._settings.fuse(towers, by_words, k)[0]


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
