"""The contract of a data set: what its Parquet tables hold, the check of it, and how they are read.

A data set is a directory with `products.parquet`, `events.parquet`, optionally `judgments.parquet`, and optionally
`dataset.json` (`{"name", "licence", "protocol", "train_end"}`, every key optional).
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from uepp.artifacts import read_json
from uepp.data.checks import Report, check_table, open_file, read_or_refuse, with_quality
from uepp.data.columns import ATTRIBUTES, CONTEXT, EVENTS, JUDGMENTS, PRODUCTS, STRINGS, TIMESTAMP, Column
from uepp.errors import InputError

__all__ = [
    "CONTEXT",
    "EVENTS",
    "JUDGMENTS",
    "PRODUCTS",
    "TIMESTAMP",
    "Report",
    "as_utc",
    "check_quality",
    "connect",
    "open_events",
    "open_parquet",
    "read_dataset_facts",
    "read_products",
    "validate",
    "validate_events",
    "validate_products",
]
_SLICE_ROWS = 65_536


def validate(directory: Path) -> Report:
    """Check a data set against the contract, in bounded memory.

    Raises:
        InputError: for the first problem, naming file, column, row (counted from 0), value and what is allowed.
    """
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory; expected one with products.parquet and events.parquet")
    read_dataset_facts(directory)
    reports = [validate_products(directory)]
    products, events, judgments = (directory / f"{name}.parquet" for name in ("products", "events", "judgments"))
    reports.append(check_table(events, EVENTS))
    _refuse_unknown_products(events, products)
    if judgments.exists():
        reports.append(check_table(judgments, JUDGMENTS))
        _refuse_duplicates(judgments, ("query", "product_id"), "a query and product")
    rows = {name: count for report in reports for name, count in report.rows.items()}
    return Report(rows, tuple(note for report in reports for note in report.notes))


def validate_products(directory: Path) -> Report:
    """Check the catalogue of a data set by itself; its events need not be there. Raises `InputError` as above."""
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory; expected one with products.parquet")
    path = directory / "products.parquet"
    report = check_table(path, PRODUCTS)
    _refuse_duplicates(path, ("product_id",), "a product")
    return report


def validate_events(path: Path) -> Report:
    """Check one events table by itself; its products may be unknown. Raises `InputError` as `validate` does."""
    return check_table(path, EVENTS)


def check_quality(products: pa.Table, train_end: datetime) -> None:
    """Refuse quality values that were measured after the end of the training window: they would leak.

    Args:
        products: as `read_products` returns it.
        train_end: T (UTC).

    Raises:
        InputError: naming the first such product.
    """
    late = pc.greater(products["quality_as_of"], pa.scalar(as_utc(train_end), TIMESTAMP))
    index = pc.index(late, True).as_py()
    if index >= 0:
        raise InputError(
            f"products.parquet: column quality_as_of, product_id {products['product_id'][index].as_py()!r}: "
            f"{products['quality_as_of'][index].as_py().isoformat()} is later than the end of the training window, "
            f"{as_utc(train_end).isoformat()}; later values are leakage, allowed are earlier ones"
        )


def read_dataset_facts(directory: Path) -> dict[str, Any]:
    """The content of `dataset.json`, or {} without it; `train_end` as a UTC datetime. Raises `InputError`."""
    path = directory / "dataset.json"
    facts = read_json(path) if path.exists() else {}
    if not isinstance(facts, dict):
        raise InputError(f"{path}: expected an object of facts, got {type(facts).__name__}")
    if facts.get("train_end") is not None:
        try:
            facts["train_end"] = as_utc(datetime.fromisoformat(facts["train_end"]))
        except (TypeError, ValueError):
            raise InputError(
                f"{path}: train_end is {facts['train_end']!r}; allowed is an ISO date or time, 2024-05-01T00:00:00Z"
            ) from None
    return facts


def read_products(directory: Path) -> pa.Table:
    """The catalogue with every column of the contract, in canonical types.

    Absent optional columns are nulls (tags: empty lists); `quality_*` columns follow, as float64. Rows are sorted by
    (`created_at`, nulls first; `product_id`), and the row number is the product index everywhere: the catalogue as of
    a day is a prefix.
    """
    path = directory / "products.parquet"
    with open_file(path) as file:
        columns = with_quality(PRODUCTS, file.schema_arrow)
        present = [column.name for column in columns if column.name in file.schema_arrow.names]
        table = read_or_refuse(path, lambda: file.read(columns=present))
    arrays = []
    for column in columns:
        if column.name not in present:
            arrays.append(pa.chunked_array([pa.nulls(table.num_rows, column.type)]))
        else:
            values = _canonical_column(table[column.name], _large(column.type))
            if column.empty_is_null:
                values = pc.if_else(pc.equal(values, ""), pa.scalar(None, values.type), values)
            arrays.append(values)
    large = pa.table(arrays, names=[column.name for column in columns]).combine_chunks()
    # False sorts before True, so products without a time come first.
    keys = large.select(["created_at", "product_id"]).append_column("is_dated", pc.is_valid(large["created_at"]))
    names = ("is_dated", "created_at", "product_id")
    order = pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in names])
    schema = pa.schema([(column.name, column.type) for column in columns])
    # Sorted in slices: a whole column of long descriptions may exceed the 2 GiB of one string array.
    slices = [
        large.take(order.slice(start, _SLICE_ROWS)).cast(schema) for start in range(0, table.num_rows, _SLICE_ROWS)
    ]
    products = pa.concat_tables(slices) if slices else schema.empty_table()
    tags = pa.chunked_array([pc.fill_null(chunk, []) for chunk in products["tags"].chunks], STRINGS)
    return products.set_column(schema.get_field_index("tags"), schema.field("tags"), tags)


def open_events(con: Any, path: Path) -> Any:
    """An events file as an Ibis table on `con` (DuckDB) with the contract's columns in canonical types."""
    table = open_parquet(con, path)
    types = {TIMESTAMP: "timestamp('UTC', 6)", pa.string(): "string", pa.float64(): "float64", pa.int32(): "int32"}
    import ibis

    def canonical(column: Column) -> Any:
        if column.name not in table.columns:
            return ibis.null(types[column.type])
        values = table[column.name].cast(types[column.type])
        return values.nullif("") if column.empty_is_null else values

    return table.select(**{column.name: canonical(column) for column in EVENTS})


def open_parquet(con: Any, path: Path, **options: Any) -> Any:
    """A Parquet file as an Ibis table; nothing in its path is taken for a pattern, or for a column (`country=DE/`)."""
    name = "".join(f"[{character}]" if character in "*?[" else character for character in str(path))
    return con.read_parquet(name, hive_partitioning=False, **options)


def connect(**options: Any) -> Any:
    """A DuckDB connection for Ibis. Options are DuckDB settings (`memory_limit`, `temp_directory`, …)."""
    import ibis

    return ibis.duckdb.connect(**options)


def as_utc(moment: datetime) -> datetime:
    """The same moment in UTC; a naive one is taken as UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _large(canonical: pa.DataType) -> pa.DataType:
    """The same type with 64-bit offsets."""
    return {
        pa.string(): pa.large_string(),
        STRINGS: pa.large_list(pa.large_string()),
        ATTRIBUTES: pa.map_(pa.large_string(), pa.large_list(pa.large_string())),
    }.get(canonical, canonical)


def _canonical_column(array: Any, canonical: pa.DataType) -> Any:
    # Only nanoseconds (to microseconds) and whole numbers beyond 2^53 lose anything; both are meant.
    return array.cast(canonical, safe=False)


# Set operations: DuckDB, which spills to disk


def _refuse_duplicates(path: Path, key: tuple[str, ...], what: str) -> None:
    con = connect()
    table = open_parquet(con, path, file_row_number=True)
    repeated = table.group_by(key).having(table.count() > 1).agg(first_row=table.file_row_number.min())
    rows = table.select(*key, "file_row_number").inner_join(repeated, key)
    rows = rows.filter(rows.file_row_number > rows.first_row).order_by("file_row_number").limit(1)
    found = rows.to_pyarrow().to_pylist()
    con.disconnect()
    if found:
        value = ", ".join(repr(found[0][name]) for name in key)
        raise InputError(
            f"{path}: column {', '.join(key)}, row {found[0]['file_row_number']}: {value} is a duplicate "
            f"of row {found[0]['first_row']}; allowed is one row {what}"
        )


def _refuse_unknown_products(events_path: Path, products_path: Path) -> None:
    con = connect()
    try:
        products = open_parquet(con, products_path).select("product_id")
        events = open_parquet(con, events_path, file_row_number=True).select("product_id", "file_row_number")
        unknown = events.filter(events.product_id.notnull()).anti_join(products, "product_id")
        found = unknown.order_by("file_row_number").limit(1).to_pyarrow().to_pylist()
        if found:
            rows, ids = unknown.count().to_pyarrow().as_py(), unknown.product_id.nunique().to_pyarrow().as_py()
            raise InputError(
                f"{events_path}: column product_id, row {found[0]['file_row_number']}: "
                f"{found[0]['product_id']!r} is unknown; allowed is a product_id of {products_path.name} (so are "
                f"{rows:,} events of {ids:,} products: leave them out, or keep the products in the catalogue)"
            )
    finally:
        con.disconnect()
