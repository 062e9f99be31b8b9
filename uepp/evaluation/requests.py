"""Evaluation requests: what was asked, when, and what was bought."""

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from uepp.features.catalog import num_products_before
from uepp.features.requests import RawRequests, load_past_events, load_raw_requests


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
        non_repeat_targets: those that the user had never bought before.
    """

    raw: RawRequests
    day: np.ndarray
    num_products: np.ndarray
    targets: Targets
    non_repeat_targets: Targets

    def __len__(self) -> int:
        """R."""
        return len(self.raw)

    @property
    def queries(self) -> list[str]:
        """[R] texts."""
        return self.raw.queries

    @property
    def missing_target_share(self) -> float:
        """Share of targets that the catalogue lacks."""
        return float(np.mean(self.targets.product_index < 0)) if len(self.targets.product_index) else 0.0

    def target_lists(self) -> list[list[int]]:
        """Target product indexes, a list a request."""
        lists: list[list[int]] = [[] for _ in self.queries]
        for request, product in zip(self.targets.request, self.targets.product_index, strict=True):
            lists[request].append(int(product))
        return lists


def load_requests(path: Path, window: str, products: pa.Table) -> Requests:
    """Read mined requests of one window (`selection` or `report`).

    Args:
        path: `requests.parquet`; the history tables are beside it.
        window: which requests.
        products: the catalogue in product-index order.
    """
    table = pq.read_table(path)
    table = table.filter(pc.equal(table.column("window"), window))
    days = table.column("day").to_pylist()
    as_of = {
        day: num_products_before(products, datetime.combine(day, time(), UTC) + timedelta(days=1)) for day in set(days)
    }
    product_ids = pa.array(products.column("product_id").to_pylist())
    return Requests(
        raw=load_raw_requests(table, load_past_events(path.parent, products)),
        day=np.array([day.isoformat() for day in days]),
        num_products=np.array([as_of[day] for day in days], np.int64),
        targets=_targets(table.column("targets"), product_ids),
        non_repeat_targets=_targets(table.column("non_repeat_targets"), product_ids),
    )


def _targets(column: pa.ChunkedArray, product_ids: pa.Array) -> Targets:
    lists = column.combine_chunks()
    if isinstance(lists, pa.ChunkedArray):
        lists = pa.concat_arrays(lists.chunks) if lists.num_chunks else pa.array([], column.type)
    index = pc.fill_null(pc.index_in(lists.flatten(), product_ids), -1)
    return Targets(
        request=np.asarray(pc.list_parent_indices(lists), np.int64), product_index=np.asarray(index, np.int64)
    )
