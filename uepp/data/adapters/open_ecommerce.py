"""Open e-commerce 1.0 (Berke et al., 2024): five years of purchases of Amazon customers who shared them."""

import math
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from uepp.data.adapters import tables
from uepp.data.schema import TIMESTAMP, Report
from uepp.errors import InputError

NAME = "open-ecommerce"
LICENCE = (
    "Open e-commerce 1.0, doi 10.7910/DVN/YGLYDY: the terms on its Harvard Dataverse page; "
    "these are purchases of real people, do not try to identify them"
)
PROTOCOL = (
    "The category text of a purchase is its query, as in HEM, ZAM and TEM (ABIS_BOOK: abis book). What a user bought "
    "of a category on a day is one request. Split by date: training before T, the first day of the month six months "
    "before the end of the data. Report the non-repeat purchases by themselves."
)
_MONTHS_AFTER_TRAINING = 6
_SUGGESTED_WINDOWS = {"example_days": 1461, "graph_days": 1461, "selection_days": 30, "report_days": 150}

# Our names, and the headers of the file as it is published.
_COLUMNS = {
    "order_date": "Order Date",
    "unit_price": "Purchase Price Per Unit",
    "ship_state": "Shipping Address State",
    "title": "Title",
    "asin": "ASIN/ISBN (Product Code)",
    "category": "Category",
    "user_id": "Survey ResponseID",
}
_NEEDED = ("asin", "title", "category", "user_id")


def import_data(source: Path, directory: Path) -> Report:
    """Write the data set.

    A product takes title and category from its first row and price from its last one, in the order of date and then
    of the file. A purchase has the time 00:00 UTC of its date; a search of the same moment goes with each request, so
    that there are recent searches. Rows without asin, title, category or user are skipped, and counted in the notes.

    Args:
        source: csv or csv.gz file of purchases, or a folder with exactly one that has the columns, named as here
            (order_date, unit_price, ship_state, title, asin, category, user_id) or as published (Order Date, …).
        directory: new data set.

    Raises:
        InputError: missing or malformed files, columns or values. Nothing is written then.
    """
    tables.refuse_occupied(directory)
    path, names = _find(source)
    raw = tables.read_csv(path)
    allowed = "a date from 1970-01-01 to 2100-12-31"
    days = tables.parse(path, raw, names["order_date"], _day, allowed, pa.date32())
    prices = tables.parse(path, raw, names["unit_price"], _price, "a number of at least 0, or nothing", pa.float64())
    purchases = pa.table({"day": days, "price": prices} | {
        ours: raw[names[ours]] for ours in ("ship_state", *_NEEDED)
    })  # fmt: skip
    purchases, notes = _skip_incomplete(path, purchases)
    category = pc.replace_substring(pc.utf8_lower(purchases["category"]), "_", " ")
    purchases = purchases.set_column(purchases.schema.get_field_index("category"), "category", category)
    purchases = purchases.append_column("row", pa.array(range(purchases.num_rows), pa.int64()))
    purchases = purchases.sort_by([("day", "ascending"), ("row", "ascending")]).drop_columns(["row"])
    data = {"products": _products(purchases), "events": _events(purchases)}
    facts = {
        "name": NAME,
        "licence": LICENCE,
        "protocol": PROTOCOL,
        "train_end": _train_end(pc.max(purchases["day"]).as_py()).isoformat(),
        "windows": _SUGGESTED_WINDOWS,
        "notes": notes,
    }
    return tables.write_data_set(directory, data, facts)


def _find(source: Path) -> tuple[Path, dict[str, str]]:
    """The file, and its header names by ours."""
    files = tables.csv_files(source)
    found = {file: tables.read_header(file) for file in files}
    names = {file: _names(header) for file, header in found.items()}
    complete = [file for file in files if all(name in found[file] for name in names[file].values())]
    if len(complete) == 1:
        return complete[0], names[complete[0]]
    if complete:
        raise InputError(
            f"{source}: {', '.join(file.name for file in complete)} all hold purchases; name one of them as the source"
        )
    file = files[0]
    missing = next(name for name in names[file].values() if name not in found[file])
    raise InputError(f"{file}: missing column {missing}; found: {', '.join(found[file])}")


def _names(header: list[str]) -> dict[str, str]:
    return {ours: published if published in header else ours for ours, published in _COLUMNS.items()}


def _day(text: str) -> date:
    value = date.fromisoformat(text)
    if not 1970 <= value.year <= 2100:
        raise ValueError
    return value


def _price(text: str) -> float | None:
    if not text:
        return None
    value = float(text)
    if not math.isfinite(value) or value < 0:
        raise ValueError
    return value


def _skip_incomplete(path: Path, purchases: pa.Table) -> tuple[pa.Table, list[str]]:
    notes = []
    for name in _NEEDED:
        is_missing = pc.equal(pc.utf8_trim_whitespace(purchases[name]), "")
        count = pc.sum(is_missing).as_py()
        if count:
            notes.append(f"{count} rows without {name} were skipped")
            purchases = purchases.filter(pc.invert(is_missing))
    if purchases.num_rows == 0:
        raise InputError(f"{path}: no row has {', '.join(_NEEDED)}; at least one is expected")
    return purchases, notes


def _products(purchases: pa.Table) -> pa.Table:
    grouped = purchases.group_by("asin", use_threads=False).aggregate(
        [("title", "first"), ("category", "first"), ("price", "last")]
    )
    grouped = grouped.rename_columns({
        "asin": "product_id", "title_first": "title", "category_first": "category", "price_last": "price",
    }).sort_by("product_id")  # fmt: skip
    return grouped.append_column("created_at", pa.nulls(grouped.num_rows, TIMESTAMP))


def _events(purchases: pa.Table) -> pa.Table:
    def strings(values: Any) -> Any:
        return values.cast(pa.string())

    size = purchases.num_rows
    session = pc.binary_join_element_wise(purchases["user_id"], strings(purchases["day"]), purchases["category"], "|")
    region = pc.if_else(pc.equal(purchases["ship_state"], ""), pa.scalar(None, pa.string()), purchases["ship_state"])
    bought = pa.table({
        "timestamp": purchases["day"].cast(pa.timestamp("us")).cast(TIMESTAMP),
        "user_id": purchases["user_id"],
        "session_id": session,
        "type": pa.array(["purchase"] * size),
        "query": purchases["category"],
        "product_id": purchases["asin"],
        "country": pa.array(["US"] * size),
        "region": region,
    })  # fmt: skip
    others = [name for name in bought.column_names if name not in ("session_id", "type", "product_id")]
    searched = bought.group_by("session_id", use_threads=False).aggregate([(name, "first") for name in others])
    searched = searched.rename_columns([name.removesuffix("_first") for name in searched.column_names])
    searched = searched.append_column("type", pa.array(["search"] * searched.num_rows))
    searched = searched.append_column("product_id", pa.nulls(searched.num_rows, pa.string()))
    return pa.concat_tables([searched.select(bought.column_names), bought])


def _train_end(last_day: date) -> datetime:
    """The first of the month, six months before the month that begins after the last day."""
    after = last_day + timedelta(days=1)
    months = after.year * 12 + after.month - 1 - _MONTHS_AFTER_TRAINING
    return datetime(months // 12, months % 12 + 1, 1, tzinfo=UTC)
