"""Search: a query and who asks in, products with their similarity out."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from uepp.config import load_config
from uepp.data.histories import KINDS, history_path
from uepp.errors import InputError
from uepp.features.raw import COORDINATES, PLACE
from uepp.features.requests import PastEvents, RawRequests, load_past_events
from uepp.features.text import normalize
from uepp.retrieval.embed import embed_queries, load_tower, tower_inputs
from uepp.retrieval.export import open_export
from uepp.retrieval.index import read_index


@dataclass(frozen=True)
class Hit:
    """One result.

    Attributes:
        product_id: id of the product.
        title: its title.
        similarity: cosine of query and product, in [-1, 1].
    """

    product_id: str
    title: str
    similarity: float


class Searcher:
    """A run's query tower, index and product titles, loaded once.

    Args:
        run_dir: a run with an export; its manifest is checked.
    """

    def __init__(self, run_dir: Path) -> None:
        export = open_export(run_dir)
        self._query_tower = load_tower(export / "query_tower")
        self._index = read_index(export / "index.faiss")
        self._export = export
        self._history = load_config(str(run_dir / "config.yaml")).history
        self._products = pq.read_table(export / "products.parquet")
        self._people: _People | None = None

    def search(
        self, query: str, k: int = 10, *, user: str | None = None, context: dict[str, str | float] | None = None
    ) -> list[Hit]:
        """The k most similar products, best first; fewer where the catalogue is smaller.

        Args:
            query: text.
            k: results.
            user: id of a person; what they did before the end of training is their history.
            context: where they are: any of country, region, language, zip, latitude, longitude (degrees).

        Raises:
            InputError: k is below 1, the query is not UTF-8 or holds no word, the user or a key of the context is
                unknown, a coordinate is missing or out of range, or the query tower reads neither people nor places.
        """
        if k < 1:
            raise InputError(f"--k {k}: must be at least 1")
        try:
            query.encode()
        except UnicodeEncodeError:
            raise InputError(f"query {query!r}: not valid UTF-8") from None
        if not normalize(tf.constant(query)).numpy():
            raise InputError(f"query {query!r}: no word in it; give letters or digits")
        self._refuse_unread(user, context)
        request = RawRequests([query], _context_table(context) if context else None)
        if user is not None:
            if self._people is None:
                self._people = _load_people(self._export, self._products)
            request = replace(request, pointers=self._people.pointers(user), past=self._people.past)
        vectors = embed_queries(self._query_tower, request, self._history)
        similarity, rows = self._index.search(vectors, min(k, self._products.num_rows))
        found = rows[0][rows[0] >= 0]  # an approximate index may return fewer, marked -1
        products = self._products.take(found).to_pylist()
        return [
            Hit(product["product_id"], product["title"], float(value))
            for product, value in zip(products, similarity[0], strict=False)
        ]

    def _refuse_unread(self, user: str | None, context: dict[str, str | float] | None) -> None:
        """Raise `InputError` for what the query tower would not look at."""
        names = set(tower_inputs(self._query_tower))
        if user is not None and not names - {"query", *PLACE}:
            raise InputError(f"--user {user}: this run's query tower has no history encoder (model.query_encoders)")
        if context and not names & set(PLACE):
            given = ", ".join(context)
            raise InputError(f"--{given}: this run's query tower has no location encoder (model.query_encoders)")


@dataclass(frozen=True)
class _People:
    """Histories of an export by user.

    Attributes:
        past: the history tables as texts.
        edges: for each kind, a user's first row and the row after the last.
    """

    past: PastEvents
    edges: dict[str, dict[str, tuple[int, int]]]

    def pointers(self, user: str) -> dict[str, np.ndarray]:
        if not any(user in edges for edges in self.edges.values()):
            raise InputError(f"--user {user}: no events of this user before the end of training")
        return {kind: np.array([edges.get(user, (0, 0))], np.int64) for kind, edges in self.edges.items()}


def _load_people(export: Path, products: pa.Table) -> _People:
    edges = {}
    for kind in KINDS:
        users = pq.read_table(history_path(export, kind), columns=["user_id"]).column("user_id").to_pylist()
        first = {user: row for row, user in reversed(list(enumerate(users)))}
        last = {user: row + 1 for row, user in enumerate(users)}
        edges[kind] = {user: (row, last[user]) for user, row in first.items()}
    return _People(load_past_events(export, products), edges)


def _context_table(context: dict[str, str | float]) -> pa.Table:
    for name in context:
        if name not in PLACE:
            raise InputError(f"context {name}: unknown; known are {', '.join(PLACE)}")
    for name, limit in (("latitude", 90), ("longitude", 180)):
        value = context.get(name)
        if value is not None and not -limit <= float(value) <= limit:
            raise InputError(f"{name} {value}: must be between -{limit} and {limit} degrees")
    if ("latitude" in context) != ("longitude" in context):
        raise InputError("latitude and longitude: give both or neither")
    types = {name: pa.float64() if name in COORDINATES else pa.string() for name in PLACE}
    return pa.table({name: pa.array([context.get(name)], kind) for name, kind in types.items()})
