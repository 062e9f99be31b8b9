"""What a server shows of products, and what it knows them by."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

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
        self.products: pa.Table = pq.read_table(path, columns=[name for name in _READ if name in names])
        self._columns = {
            name: self.products.column(name).combine_chunks() if name in names else pa.nulls(len(self))
            for name in _READ
        }
        self._row_of = {product: row for row, product in enumerate(self._columns["product_id"].to_pylist())}

    def __len__(self) -> int:
        """N."""
        return self.products.num_rows

    def row(self, product_id: str) -> int:
        """Product index; -1 where there is no such product."""
        return self._row_of.get(product_id, -1)

    def shown(self, rows: np.ndarray) -> list[dict[str, Any]]:
        """The columns of `SHOWN` of some products."""
        taken = pa.array(rows, pa.int64())
        columns = {name: self._columns[name].take(taken).to_pylist() for name in SHOWN}
        return [dict(zip(SHOWN, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def title(self, product_id: str) -> str:
        """Empty where there is none."""
        return self._cell("title", product_id) or ""

    def shop(self, product_id: str) -> str:
        """Empty where there is none."""
        return self._cell("shop_id", product_id) or ""

    def tags(self, product_id: str) -> str:
        """One a line, as the tower reads them; empty where there are none."""
        return "\n".join(self._cell("tags", product_id) or ())

    def titled(self, part: str, number: int) -> list[dict[str, Any]]:
        """Products with a text in their title, whatever its case: the first `number` of the catalogue."""
        found = pc.match_substring(self._columns["title"], part, ignore_case=True)
        rows = np.flatnonzero(np.asarray(pc.fill_null(found, False).cast(pa.uint8())))[:number]
        return self.shown(rows)

    def common(self, name: str) -> list[str]:
        """Values of a column, the most frequent first."""
        counts = Counter(value for value in self._columns[name].to_pylist() if value)
        return [value for value, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))]

    def _cell(self, name: str, product_id: str) -> Any:
        row = self.row(product_id)
        return None if row < 0 else self._columns[name][row].as_py()


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
