"""What an export knows of people: what they did, and where they were last."""

from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from uepp.data.histories import KINDS, history_path
from uepp.data.places import PLACES
from uepp.features.raw import COORDINATES, PLACE
from uepp.features.requests import PastEvents, load_past_events
from uepp.serving.lookup import Lookup

_KIND_OF = {
    "recent_searches": "searches",
    "recent_shops": "clicks",
    "recent_titles": "clicks",
    "purchased_tags": "purchases",
}
_NUM_REMEMBERED = 65_536  # people who asked lately, each several times a request


class People:
    """The histories of an export by user, as of the end of training; read when they are first needed.

    They stay in Arrow's memory: a person's part is cut out when they ask.

    Args:
        export: checked.
        products: the catalogue with titles and tags, for what was clicked and bought.
    """

    def __init__(self, export: Path, products: pa.Table) -> None:
        self._export = export
        self._catalogue = products

    def load(self) -> None:
        """Read everything now: once an export is replaced, its files are gone."""
        _ = self._past, self._events, self._products, self._placed

    @cached_property
    def _past(self) -> PastEvents:
        return load_past_events(self._export, self._catalogue)

    @cached_property
    def _events(self) -> "_Events":
        return _Events({kind: _users(history_path(self._export, kind)) for kind in KINDS})

    @cached_property
    def _products(self) -> dict[str, pa.ChunkedArray]:
        return {
            kind: pq.read_table(history_path(self._export, kind), columns=["product_id"]).column(0)
            for kind in ("clicks", "purchases")
        }

    @property
    def places(self) -> pa.Table:
        """The last known context of everybody who has one, columns of `PLACE`."""
        return self._placed[1]

    @cached_property
    def _placed(self) -> tuple[Lookup, pa.Table]:
        """Whose contexts are known, and those."""
        path = self._export / PLACES
        if not path.exists():
            kinds = [(name, pa.float64() if name in COORDINATES else pa.string()) for name in PLACE]
            return Lookup(pa.array([], pa.string())), pa.schema(kinds).empty_table()
        table = pq.read_table(path).combine_chunks()
        return Lookup(table.column("user_id")), table.select(PLACE)

    def __contains__(self, user: str) -> bool:
        """Whether anything is known of somebody."""
        return self._events.number(user) >= 0

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
        begin, end = self._events.edges(user, kind)
        rows = self._past.products[kind][begin:end]
        return np.asarray(rows[rows >= 0])

    def place(self, user: str) -> dict[str, Any]:
        """The user's last known context, what is known of it."""
        row = self._placed[0].row(user)
        context: dict[str, Any] = {} if row < 0 else self.places.slice(row, 1).to_pylist()[0]
        return {name: value for name, value in context.items() if value is not None}

    def counts(self, user: str) -> dict[str, int]:
        """How many events of each kind."""
        return {kind: end - begin for kind in KINDS for begin, end in [self._events.edges(user, kind)]}

    def most_active(self, number: int) -> list[str]:
        """Users with the longest histories in all kinds: by the shortest of a user's three, then by their sum."""
        return self._events.most_active(number)

    def _latest_rows(self, user: str, kind: str, number: int) -> tuple[int, int]:
        begin, end = self._events.edges(user, kind)
        return max(begin, end - number), end


class _Events:
    """Whose events are where in the history tables, each of which is sorted by user.

    Args:
        users: of each row, by kind.
    """

    def __init__(self, users: dict[str, pa.Array]) -> None:
        runs = {kind: pc.run_end_encode(column, run_end_type=pa.int64()) for kind, column in users.items()}
        self._users = pc.unique(pa.chunked_array([run.values for run in runs.values()]))
        self._edges = {}
        for kind, run in runs.items():
            ends = np.asarray(run.run_ends)
            edges = np.zeros((len(self._users), 2), np.int64)
            edges[np.asarray(pc.index_in(run.values, self._users))] = np.stack([np.append(0, ends)[:-1], ends], axis=1)
            self._edges[kind] = edges
        self.number = lru_cache(_NUM_REMEMBERED)(Lookup(self._users).row)

    def edges(self, user: str, kind: str) -> tuple[int, int]:
        """Rows [begin, end) of a user."""
        number = self.number(user)
        begin, end = (0, 0) if number < 0 else self._edges[kind][number].tolist()
        return begin, end

    def most_active(self, number: int) -> list[str]:
        """See `People`."""
        sizes = np.stack([np.diff(edges, axis=1)[:, 0] for edges in self._edges.values()])
        table = pa.table({"user": self._users, "least": sizes.min(axis=0), "all": sizes.sum(axis=0)})
        order = [("least", "descending"), ("all", "descending"), ("user", "ascending")]
        first = pc.select_k_unstable(table, min(number, len(self._users)), order)
        users: list[str] = self._users.take(first).to_pylist()
        return users


def _users(path: Path) -> pa.Array:
    return pq.read_table(path, columns=["user_id"]).column(0).cast(pa.large_string()).combine_chunks()
