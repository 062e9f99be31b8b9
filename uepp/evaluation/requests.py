"""Evaluation requests: what was asked, when, and what was bought."""

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from uepp.errors import InputError
from uepp.features.catalog import num_products_before
from uepp.features.requests import PastEvents, RawRequests, load_past_events, load_raw_requests

REQUEST_COLUMNS = ("product_id", "title", "tags", "created_at")
"""What `load_requests` reads of a catalogue."""


@dataclass(frozen=True)
class Targets:
    """Pairs of request and wanted product.

    Attributes:
        request: int64 [P], row of the request.
        product_index: int64 [P]; -1 for a product that the catalogue lacks, which is a miss.
    """

    request: np.ndarray
    product_index: np.ndarray


@dataclass(frozen=True)
class Requests:
    """R requests (docs/architecture.md, "windows").

    Attributes:
        raw: queries and who asked.
        day: [R] ISO dates.
        num_products: int64 [R], leading catalogue rows that existed by the end of the request's day.
        targets: products with a relevant interaction in the request.
        is_repeat: bool [P], targets that the user had bought before.
        is_signed_in: bool [R], whether the log knows who asked.
    """

    raw: RawRequests
    day: np.ndarray
    num_products: np.ndarray
    targets: Targets
    is_repeat: np.ndarray
    is_signed_in: np.ndarray

    def __len__(self) -> int:
        """R."""
        return len(self.raw)

    @property
    def queries(self) -> list[str]:
        """[R] texts."""
        return self.raw.queries

    @property
    def has_history(self) -> np.ndarray:
        """Whether who asked had searched, clicked or bought before, bool [R]."""
        if self.raw.pointers is None:
            return np.zeros(len(self), bool)
        return np.any([edges[:, 1] > edges[:, 0] for edges in self.raw.pointers.values()], axis=0)

    @property
    def missing_target_share(self) -> float:
        """Share of targets that the catalogue of their day lacks."""
        return 1.0 - float(np.mean(self.has_target)) if len(self.targets.product_index) else 0.0

    @property
    def has_target(self) -> np.ndarray:
        """Whether the catalogue of its day has a target, bool [P]."""
        index = self.targets.product_index
        return (index >= 0) & (index < self.num_products[self.targets.request])

    def take(self, rows: np.ndarray) -> "Requests":
        """Some of the requests, which are numbered anew; rows int64 [n], each once."""
        place = np.full(len(self), -1, np.int64)
        place[rows] = np.arange(len(rows))
        request = place[self.targets.request]
        is_in = request >= 0
        return Requests(
            raw=self.raw.take(rows),
            day=self.day[rows],
            num_products=self.num_products[rows],
            targets=Targets(request[is_in], self.targets.product_index[is_in]),
            is_repeat=self.is_repeat[is_in],
            is_signed_in=self.is_signed_in[rows],
        )

    def drawn(self, most: int) -> np.ndarray:
        """Rows of at most so many requests, always the same ones, int64 [n], increasing."""
        if len(self) <= most:
            return np.arange(len(self))
        return np.sort(np.random.default_rng(1).choice(len(self), most, replace=False))

    def target_lists(self) -> list[list[int]]:
        """Target product indexes, a list a request."""
        lists: list[list[int]] = [[] for _ in self.queries]
        for request, product in zip(self.targets.request, self.targets.product_index, strict=True):
            lists[request].append(int(product))
        return lists


def load_requests(path: Path, window: str, products: pa.Table, past: PastEvents | None = None) -> Requests:
    """Read mined requests of one window (`selection` or `report`).

    Args:
        path: `requests.parquet`; the history tables are beside it.
        window: which requests.
        products: the catalogue in product-index order; of its columns, those in `REQUEST_COLUMNS` are read.
        past: the histories, where they were read for another window; none: they are read.
    """
    table = pq.read_table(path)
    table = table.filter(pc.equal(table.column("window"), window))
    days = table.column("day").to_pylist()
    as_of = {
        day: num_products_before(products, datetime.combine(day, time(), UTC) + timedelta(days=1)) for day in set(days)
    }
    targets, new = (_flat(table.column(name)) for name in ("targets", "non_repeat_targets"))
    users = table.column("user_id") if "user_id" in table.column_names else pa.nulls(table.num_rows)
    return Requests(
        raw=load_raw_requests(table, load_past_events(path.parent, products) if past is None else past),
        day=np.array([day.isoformat() for day in days]),
        num_products=np.array([as_of[day] for day in days], np.int64),
        targets=Targets(targets[0], _rows_of(targets[1], products)),
        is_repeat=~_is_among(targets, new),
        is_signed_in=np.asarray(pc.is_valid(users), bool),
    )


@dataclass(frozen=True)
class Judgments:
    """Human grades of products for the queries of requests.

    Attributes:
        pairs: every judged product of each request's query.
        grades: float64 [P].
    """

    pairs: Targets
    grades: np.ndarray


def load_judgments(path: Path, queries: list[str], products: pa.Table) -> Judgments | None:
    """The grades of `judgments.parquet` for evaluated queries; none where no query is judged.

    Args:
        path: of the data set's table.
        queries: [R] texts, compared as they are.
        products: the catalogue in product-index order.

    Raises:
        InputError: a product is graded twice for the same query: its gain would count twice, and NDCG exceed 1.
    """
    table = pq.read_table(path, columns=["query", "product_id", "grade"])
    for place, name in enumerate(("query", "product_id")):
        table = table.set_column(place, name, pc.cast(table.column(name), pa.string()))
    _refuse_graded_twice(path, table)
    asked = pa.table({"query": pa.array(queries, pa.string()), "request": np.arange(len(queries))})
    joined = asked.join(table, "query", join_type="inner").sort_by([("request", "ascending")])
    if not joined.num_rows:
        return None
    pairs = Targets(np.asarray(joined.column("request"), np.int64), _rows_of(joined.column("product_id"), products))
    return Judgments(pairs, np.asarray(joined.column("grade"), np.float64))


def _refuse_graded_twice(path: Path, table: pa.Table) -> None:
    keys = table.select(["query", "product_id"]).append_column("row", pa.array(np.arange(table.num_rows)))
    first = keys.group_by(["query", "product_id"]).aggregate([("row", "min")])
    if first.num_rows < table.num_rows:
        row = int(np.setdiff1d(np.arange(table.num_rows), np.asarray(first.column("row_min")))[0])
        value = ", ".join(repr(keys.column(name)[row].as_py()) for name in ("query", "product_id"))
        raise InputError(
            f"{path}: column query, product_id, row {row}: {value} is a duplicate of an earlier row; allowed is one "
            "row a query and product"
        )


def _flat(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Rows and values of all entries of a column of lists."""
    lists = column.combine_chunks()
    if isinstance(lists, pa.ChunkedArray):
        lists = pa.concat_arrays(lists.chunks) if lists.num_chunks else pa.array([], column.type)
    return np.asarray(pc.list_parent_indices(lists), np.int64), lists.flatten()


def _rows_of(product_ids: pa.Array, products: pa.Table) -> np.ndarray:
    """Product indexes, int64, -1 for products that the catalogue lacks."""
    known = pa.array(products.column("product_id").to_pylist(), pa.string())
    return np.asarray(pc.fill_null(pc.index_in(pc.cast(product_ids, pa.string()), known), -1), np.int64)


def _is_among(pairs: tuple[np.ndarray, pa.Array], others: tuple[np.ndarray, pa.Array]) -> np.ndarray:
    """Which (row, value) pairs are among others, bool."""
    values = pa.concat_arrays([pairs[1], others[1]])
    codes = np.asarray(values.dictionary_encode().indices, np.int64)
    keys = np.concatenate([pairs[0], others[0]]) * (len(values) + 1) + codes
    return np.isin(keys[: len(pairs[0])], keys[len(pairs[0]) :])
