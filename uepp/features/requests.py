"""Requests as the exported query tower takes them: strings and numbers of who asks (UEPPR III-C)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tensorflow as tf

from uepp.config import HistoryConfig
from uepp.data.histories import history_path
from uepp.features.histories import pointers_of
from uepp.features.raw import COORDINATES, PLACE, as_tensors, table_inputs
from uepp.features.readers.history import history_inputs

_KIND_OF = {
    "recent_searches": "searches",
    "recent_shops": "clicks",
    "recent_titles": "clicks",
    "purchased_tags": "purchases",
}


class Texts:
    """A text a row of a history table, in Arrow's memory: Python objects are made only of those that are looked at.

    Args:
        values: strings; null: empty.
        rows: int64 [n], where each row's text is among the values; -1: an empty text. None: row by row.
    """

    def __init__(self, values: pa.Array, rows: np.ndarray | None = None) -> None:
        values = pc.fill_null(values, "")
        kind = np.int64 if pa.types.is_large_string(values.type) else np.int32
        # a call of Arrow takes longer than to cut out what a request reads
        self._edges = np.zeros(1, kind)
        if len(values):
            self._edges = np.frombuffer(values.buffers()[1], kind)[values.offset : values.offset + len(values) + 1]
        self._bytes = memoryview(values.buffers()[2] or b"")
        self._rows = rows

    def __len__(self) -> int:
        """Rows."""
        return len(self._edges) - 1 if self._rows is None else len(self._rows)

    def __getitem__(self, which: slice | np.ndarray) -> np.ndarray:
        """The texts of some rows, object [n]."""
        rows = np.arange(*which.indices(len(self))) if isinstance(which, slice) else which
        if self._rows is not None:
            rows = self._rows[rows]
        begins, ends = self._edges[rows], np.where(rows < 0, 0, self._edges[rows + 1])
        pairs = zip(begins.tolist(), ends.tolist(), strict=True)
        return np.array([str(self._bytes[begin:end], "utf-8") for begin, end in pairs], object)


@dataclass(frozen=True)
class PastEvents:
    """The history tables as texts.

    Attributes:
        texts: for each history input of the query tower, one text a row of its table; empty where unknown.
        products: int64 product indexes of `clicks` and of `purchases`, one a row; -1 where the catalogue lacks it.
    """

    texts: Mapping[str, Texts]
    products: dict[str, np.ndarray] = field(default_factory=dict)


def load_past_events(directory: Path, products: pa.Table) -> PastEvents:
    """Read `history_<kind>.parquet` of mined tables or of an export.

    Args:
        directory: where they are.
        products: the catalogue, for titles and tags.
    """

    def read(kind: str, name: str) -> pa.Array:
        column = pq.read_table(history_path(directory, kind), columns=[name]).column(0)
        return column.cast(pa.large_string()).combine_chunks()  # a long log's texts are more than 2 GB

    ids = products.column("product_id").cast(pa.large_string()).combine_chunks()
    rows = {
        kind: np.asarray(pc.fill_null(pc.index_in(read(kind, "product_id"), ids), -1), np.int64)
        for kind in ("clicks", "purchases")
    }
    titles, tags = (products.column(name).combine_chunks() for name in ("title", "tags"))
    tags = pc.binary_join(tags, "\n")
    return PastEvents(
        {
            "recent_searches": Texts(read("searches", "query")),
            "recent_shops": Texts(read("clicks", "shop_id")),
            "recent_titles": Texts(titles, rows["clicks"]),
            "purchased_tags": Texts(tags, rows["purchases"]),
        },
        rows,
    )


@dataclass(frozen=True)
class RawRequests:
    """R requests with what was known of who asked.

    Attributes:
        queries: [R] texts.
        contexts: context columns, R rows; none: nothing is known.
        pointers: int64 [R, 2] by kind, rows [begin, end) of the history tables; none: nothing is known.
        past: what the pointers point into.
    """

    queries: list[str]
    contexts: pa.Table | None = None
    pointers: dict[str, np.ndarray] | None = None
    past: PastEvents | None = None

    def __len__(self) -> int:
        """R."""
        return len(self.queries)

    def take(self, rows: np.ndarray) -> "RawRequests":
        """Some of the requests."""
        return RawRequests(
            queries=[self.queries[row] for row in rows],
            contexts=None if self.contexts is None else self.contexts.take(rows),
            pointers=None if self.pointers is None else {kind: edges[rows] for kind, edges in self.pointers.items()},
            past=self.past,
        )

    def inputs(self, names: Iterable[str], history: HistoryConfig) -> dict[str, tf.Tensor]:
        """Inputs of the query tower.

        Args:
            names: those that the tower takes.
            history: how many past events of each kind it reads.

        Returns:
            By name: string or float32 [R], histories string [R, n] padded with empty strings.
        """
        numbers = history_inputs(history)
        columns: dict[str, list[str] | np.ndarray] = {}
        for name in names:
            if name == "query":
                columns[name] = self.queries
            elif name not in PLACE:
                columns[name] = self._latest(name, numbers[name])
            elif self.contexts is not None:
                columns |= table_inputs(self.contexts, [name])
            elif name in COORDINATES:
                columns[name] = np.full(len(self), np.nan, np.float32)
            else:
                columns[name] = [""] * len(self)
        return as_tensors(columns)

    def _latest(self, name: str, number: int) -> np.ndarray:
        """The latest texts of each request, most recent first, object [R, n]."""
        if self.pointers is None or self.past is None:
            return np.full((len(self), 1), "", object)
        begin, end = self.pointers[_KIND_OF[name]].T
        width = max(1, min(number, int((end - begin).max(initial=0))))
        place = end[:, np.newaxis] - 1 - np.arange(width)
        is_there = place >= begin[:, np.newaxis]
        latest = np.full(place.shape, "", object)
        latest[is_there] = self.past.texts[name][place[is_there]]
        return latest


def load_raw_requests(table: pa.Table, past: PastEvents) -> RawRequests:
    """Requests of a mined table with context columns and pointers."""
    return RawRequests(
        queries=table.column("query").to_pylist(),
        contexts=table.select(PLACE),
        pointers=pointers_of(table),
        past=past,
    )
