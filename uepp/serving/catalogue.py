"""What a server shows of products, and what it knows them by."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from uepp.serving.lookup import Lookup

SHOWN = ("product_id", "title", "shop_id", "price", "country", "region")
"""Columns that a hit shows; null where the catalogue lacks them."""
_READ = (*SHOWN, "tags", "language")


class Catalogue:
    """The products of an export, in product-index order.

    Args:
        export: checked.
    """

    def __init__(self, export: Path) -> None:
        path = export / "products.parquet"
        names = set(pq.read_schema(path).names)
        read = pq.read_table(path, columns=[name for name in _READ if name in names])
        self.products: pa.Table = read.combine_chunks()  # at once, so that the columns below are no second copy
        self._columns = {
            name: self.products.column(name).combine_chunks() if name in names else pa.nulls(len(self))
            for name in _READ
        }
        self._lookup = Lookup(self._columns["product_id"])

    def __len__(self) -> int:
        """N."""
        return self.products.num_rows

    def row(self, product_id: str) -> int:
        """Product index; -1 where there is no such product."""
        return self._lookup.row(product_id)

    def rows(self, product_ids: Collection[str]) -> np.ndarray:
        """Product indexes of those that there are, int64 [n], in the order given."""
        rows = self._lookup.rows(list(product_ids))
        return np.asarray(rows[rows >= 0])

    def unknown(self, product_ids: Collection[str]) -> list[str]:
        """Those that there are not, each once."""
        ids = list(dict.fromkeys(product_ids))
        return [product_id for product_id, row in zip(ids, self._lookup.rows(ids).tolist(), strict=True) if row < 0]

    def shown(self, rows: np.ndarray) -> list[dict[str, Any]]:
        """The columns of `SHOWN` of some products."""
        taken = pa.array(rows, pa.int64())
        columns = {name: self._columns[name].take(taken).to_pylist() for name in SHOWN}
        return [dict(zip(SHOWN, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def titles(self, product_ids: Sequence[str]) -> list[str]:
        """Empty where there is none."""
        return [title or "" for title in self._cells("title", product_ids)]

    def shops(self, product_ids: Sequence[str]) -> list[str]:
        """Empty where there is none."""
        return [shop or "" for shop in self._cells("shop_id", product_ids)]

    def tags(self, product_ids: Sequence[str]) -> list[str]:
        """One a line, as the tower reads them; empty where there are none."""
        return ["\n".join(tags or ()) for tags in self._cells("tags", product_ids)]

    def titled(self, part: str, number: int) -> list[dict[str, Any]]:
        """Products with a text in their title, whatever its case: the first `number` of the catalogue."""
        found = pc.match_substring(self._columns["title"], part, ignore_case=True)
        rows = np.flatnonzero(np.asarray(pc.fill_null(found, False).cast(pa.uint8())))[:number]
        return self.shown(rows)

    def common(self, name: str) -> list[str]:
        """Values of a column, the most frequent first."""
        counted = pa.table({"value": self._columns[name]}).group_by("value").aggregate([([], "count_all")])
        order = [("count_all", "descending"), ("value", "ascending")]
        return [value for value in counted.sort_by(order).column("value").to_pylist() if value]

    def _cells(self, name: str, product_ids: Sequence[str]) -> list[Any]:
        rows = self._lookup.rows(product_ids)
        cells: list[Any] = self._columns[name].take(pa.array(rows, mask=rows < 0)).to_pylist()
        return cells


def matching(values: Sequence[str], part: str, number: int) -> list[str]:
    """Values with a text in them, whatever its case: those that begin with it first, otherwise in their order."""
    wanted = part.casefold()
    begin: list[str] = []
    within: list[str] = []
    for value in values:
        folded = value.casefold()
        if folded.startswith(wanted):
            begin.append(value)
            if len(begin) == number:
                break
        elif wanted in folded and len(within) < number:
            within.append(value)
    return [*begin, *within][:number]
