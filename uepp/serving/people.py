"""What an export knows of people: what they did, and where they were last."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from uepp.data.histories import KINDS, history_path
from uepp.data.places import PLACES
from uepp.features.raw import PLACE
from uepp.features.requests import PastEvents, load_past_events

_KIND_OF = {
    "recent_searches": "searches",
    "recent_shops": "clicks",
    "recent_titles": "clicks",
    "purchased_tags": "purchases",
}


class People:
    """The histories of an export by user, as of the end of training; read when they are first needed.

    Args:
        export: checked.
        products: the catalogue with titles and tags, for what was clicked and bought.
    """

    def __init__(self, export: Path, products: pa.Table) -> None:
        self._export = export
        self._catalogue = products

    def load(self) -> None:
        """Read everything now: once an export is replaced, its files are gone."""
        _ = self._past, self._edges, self._products, self._places

    @cached_property
    def _past(self) -> PastEvents:
        return load_past_events(self._export, self._catalogue)

    @cached_property
    def _edges(self) -> dict[str, dict[str, tuple[int, int]]]:
        return {kind: _edges(history_path(self._export, kind)) for kind in KINDS}

    @cached_property
    def _products(self) -> dict[str, pa.ChunkedArray]:
        return {
            kind: pq.read_table(history_path(self._export, kind), columns=["product_id"]).column(0)
            for kind in ("clicks", "purchases")
        }

    @cached_property
    def _places(self) -> pa.Table | None:
        path = self._export / PLACES
        return pq.read_table(path).combine_chunks() if path.exists() else None

    def __contains__(self, user: str) -> bool:
        """Whether anything is known of somebody."""
        return any(user in edges for edges in self._edges.values())

    def latest(self, user: str, name: str, number: int) -> tuple[str, ...]:
        """What the tower's input `name` reads of a user, latest first; empty texts where a product is unknown."""
        begin, end = self._latest_rows(user, _KIND_OF[name], number)
        return tuple(self._past.texts[name][begin:end][::-1])

    def products(self, user: str, kind: str, number: int) -> list[str]:
        """Ids of the latest products of a user, latest first; `kind` is clicks or purchases."""
        begin, end = self._latest_rows(user, kind, number)
        return self._products[kind].slice(begin, end - begin).to_pylist()[::-1]

    def rows(self, user: str, kind: str) -> np.ndarray:
        """Product indexes, int64 [n], of all events of a user whose product is in the catalogue; kinds likewise."""
        begin, end = self._edges[kind].get(user, (0, 0))
        rows = self._past.products[kind][begin:end]
        return np.asarray(rows[rows >= 0])

    def place(self, user: str) -> dict[str, Any]:
        """The user's last known context, what is known of it."""
        if self._places is None:
            return {}
        row = pc.index(self._places.column("user_id"), user).as_py()
        return {} if row < 0 else _known(self._places.select(PLACE).slice(row, 1).to_pylist()[0])

    def last_places(self) -> list[dict[str, Any]]:
        """The last known context of everybody who has one."""
        return [] if self._places is None else [_known(place) for place in self._places.select(PLACE).to_pylist()]

    def counts(self, user: str) -> dict[str, int]:
        """How many events of each kind."""
        return {kind: end - begin for kind in KINDS for begin, end in [self._edges[kind].get(user, (0, 0))]}

    def most_active(self, number: int) -> list[str]:
        """Users with the longest histories in all kinds: by the shortest of a user's three, then by their sum."""
        users = set.union(*(set(edges) for edges in self._edges.values()))
        sizes = {user: list(self.counts(user).values()) for user in users}
        return sorted(users, key=lambda user: (-min(sizes[user]), -sum(sizes[user]), user))[:number]

    def _latest_rows(self, user: str, kind: str, number: int) -> tuple[int, int]:
        begin, end = self._edges[kind].get(user, (0, 0))
        return max(begin, end - number), end


def _edges(path: Path) -> dict[str, tuple[int, int]]:
    """Rows [begin, end) of each user in a table that is sorted by user."""
    users = pq.read_table(path, columns=["user_id"]).column(0).combine_chunks().cast(pa.string())
    if not len(users):
        return {}
    runs = pc.run_end_encode(users, run_end_type=pa.int64())
    ends = np.asarray(runs.run_ends)
    begins = np.concatenate([[0], ends[:-1]])
    return dict(zip(runs.values.to_pylist(), zip(begins.tolist(), ends.tolist(), strict=True), strict=True))


def _known(place: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in place.items() if value is not None}
