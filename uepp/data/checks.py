"""The check of one table against its columns: file, schema, then the rows, a batch at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from uepp.data.columns import ATTRIBUTES, PRODUCTS, STRINGS, TIMESTAMP, Column
from uepp.errors import InputError

_BATCH_ROWS = 65_536


@dataclass(frozen=True)
class Report:
    """Result of a validation: `rows` by table name, and `notes` on what was accepted with a remark."""

    rows: dict[str, int]
    notes: tuple[str, ...] = ()


def open_file(path: Path) -> pq.ParquetFile:
    """Open a Parquet file. Raises `InputError` when it is missing, empty or damaged."""
    if not path.exists():
        text = path.with_suffix(".csv")
        beside = f"; {text.name} beside it is text, and a table is a Parquet file"
        raise InputError(f"{path}: no such file{beside if text.exists() else ''}")
    if not path.is_file():
        raise InputError(f"{path}: not a file; one Parquet file is expected")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: empty file (0 bytes); a Parquet file with at least one row is expected")
    with path.open("rb") as file:
        if file.read(4) != b"PAR1":
            raise InputError(f"{path}: not a Parquet file (it does not begin with PAR1); csv is to be converted first")
    return read_or_refuse(path, lambda: pq.ParquetFile(path))


def read_or_refuse(path: Path, action: Any) -> Any:
    """Run a reading action; whatever Arrow says of a damaged file becomes one clear line."""
    try:
        return action()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: truncated or damaged Parquet file ({reason}); write it again") from None


def with_quality(columns: tuple[Column, ...], schema: pa.Schema) -> tuple[Column, ...]:
    """The contract's columns and, for products, the `quality_*` columns that the file has."""
    if columns is not PRODUCTS:
        return columns
    names = sorted(name for name in schema.names if name.startswith("quality_") and name != "quality_as_of")
    return (*columns, *(Column(name, pa.float64()) for name in names))


def check_table(path: Path, columns: tuple[Column, ...]) -> Report:
    """Check a Parquet file against its columns, in bounded memory. Raises `InputError` for the first problem."""
    with open_file(path) as file:
        schema = file.schema_arrow
        columns = with_quality(columns, schema)
        notes = _check_schema(path, columns, schema)
        if file.metadata.num_rows == 0:
            raise InputError(f"{path}: empty table (0 rows); at least one row is expected")
        present = {column.name: column for column in columns if column.name in schema.names}
        batches = file.iter_batches(_BATCH_ROWS, columns=list(present))
        first_row = 0
        while (batch := read_or_refuse(path, lambda: _next(batches))) is not None:
            _check_batch(path, present, batch, first_row)
            first_row += batch.num_rows
    return Report({path.stem: first_row}, notes)


def _next(batches: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
    batch = next(batches, None)
    if batch is not None:
        batch.validate(full=True)
    return batch


def _check_schema(path: Path, columns: tuple[Column, ...], schema: pa.Schema) -> tuple[str, ...]:
    names = schema.names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{path}: column {twice[0]} occurs {names.count(twice[0])} times; allowed is once")
    for column in columns:
        if column.required and column.name not in names:
            raise InputError(f"{path}: missing column {column.name}; found: {', '.join(names)}")
        if column.name in names and not _is_lossless(schema.field(column.name).type, column.type):
            received = schema.field(column.name).type
            raise InputError(f"{path}: column {column.name} has type {received}; allowed is {column.allowed}")
    for one, other in (("latitude", "longitude"), ("longitude", "latitude")):
        if one in names and other not in names and any(column.name == one for column in columns):
            raise InputError(f"{path}: column {one} without column {other}; give both or neither")
    quality = [column.name for column in columns if column.name.startswith("quality_") and column.name in names]
    if quality and "quality_as_of" not in names:
        raise InputError(f"{path}: column {quality[0]} without column quality_as_of, the moment its values were known")
    notes = []
    unknown = [name for name in names if name not in {column.name for column in columns}]
    if unknown:
        notes.append(f"{path.name}: ignored unknown columns: {', '.join(unknown)}")
    for column in columns:
        if (
            column.type == TIMESTAMP
            and column.name in names
            and getattr(schema.field(column.name).type, "tz", "") is None
        ):
            notes.append(f"{path.name}: column {column.name} has no time zone; taken as UTC")
    return tuple(notes)


def _is_lossless(received: pa.DataType, canonical: pa.DataType) -> bool:
    if pa.types.is_dictionary(received):
        received = received.value_type
    if pa.types.is_null(received):
        return True
    if canonical == ATTRIBUTES:
        return pa.types.is_map(received) and all(
            _is_lossless(part, target)
            for part, target in ((received.key_type, pa.string()), (received.item_type, STRINGS))
        )
    if canonical == STRINGS:
        is_list = (
            pa.types.is_list(received) or pa.types.is_large_list(received) or pa.types.is_fixed_size_list(received)
        )
        return bool(is_list) and _is_lossless(received.value_type, pa.string())
    if canonical == TIMESTAMP:
        return bool(pa.types.is_timestamp(received))
    if canonical == pa.string():
        return received in (pa.string(), pa.large_string(), pa.string_view())
    if pa.types.is_integer(canonical):
        # pandas turns whole numbers with gaps into floats; the rows are checked to be whole.
        return bool(pa.types.is_integer(received) or pa.types.is_floating(received))
    return bool(pa.types.is_integer(received) or pa.types.is_floating(received) or pa.types.is_decimal(received))


# The rows of a batch


def _check_batch(path: Path, columns: dict[str, Column], batch: pa.RecordBatch, first_row: int) -> None:
    def refuse(mask: Any, column: Column, allowed: str | None = None) -> None:
        index = pc.index(mask, True).as_py()
        if index >= 0:
            value = _in_words(batch.column(column.name)[index])
            where = f"{path}: column {column.name}, row {first_row + index}"
            raise InputError(f"{where}: {value}; allowed is {allowed or column.allowed}")

    for name, column in columns.items():
        array = batch.column(name)
        if not column.nullable and array.null_count:
            refuse(pc.is_null(array), column, f"{column.allowed}, not null")
        if pa.types.is_null(array.type):
            continue
        if column.type in (STRINGS, ATTRIBUTES):
            refuse(_holds_null(array), column, f"{column.allowed} without nulls in it")
        elif column.choices:
            refuse(pc.invert(pc.is_in(array.cast(pa.string()), pa.array(column.choices))), column)
        elif not column.can_be_empty:
            refuse(pc.equal(array.cast(pa.large_string()), ""), column)
        elif column.type != TIMESTAMP and column.type != pa.string():
            numbers = array.cast(pa.float64(), safe=False)
            if pa.types.is_integer(column.type):
                refuse(pc.not_equal(numbers, pc.floor(numbers)), column)
            in_range = pc.and_(pc.greater_equal(numbers, column.low), pc.less_equal(numbers, column.high))
            refuse(pc.invert(pc.and_(pc.is_finite(numbers), in_range)), column)
        elif column.type == TIMESTAMP:
            # Years that every reader of these files can represent; a coarser unit could hold more.
            seconds = array.cast(pa.timestamp(array.type.unit)).cast(pa.timestamp("s"), safe=False)
            edges = [pa.scalar(datetime(year, 1, 1), pa.timestamp("s")) for year in (1, 9999)]
            in_range = pc.and_(pc.greater_equal(seconds, edges[0]), pc.less(seconds, edges[1]))
            refuse(pc.invert(in_range), column, "a timestamp in the years 1 to 9998")
    if "latitude" in columns and "longitude" in columns:
        valid = {name: pc.is_valid(batch.column(name)) for name in ("latitude", "longitude")}
        half = pc.xor(valid["latitude"], valid["longitude"])
        refuse(pc.and_(half, valid["longitude"]), columns["latitude"], "a latitude where longitude is given")
        refuse(half, columns["longitude"], "a longitude where latitude is given")
    if "type" in columns:
        needs_product = pc.not_equal(batch.column("type").cast(pa.string()), "search")
        refuse(
            pc.and_(pc.is_null(batch.column("product_id")), needs_product),
            columns["product_id"],
            "a product_id, null only where type is search",
        )
    for name in columns:
        if name.startswith("quality_") and name != "quality_as_of":
            undated = pc.and_(pc.is_valid(batch.column(name)), pc.is_null(batch.column("quality_as_of")))
            refuse(undated, columns["quality_as_of"], f"a timestamp where {name} is given")


def _in_words(scalar: pa.Scalar) -> str:
    try:
        return repr(scalar.as_py())
    except (OverflowError, ValueError):  # a moment that Python cannot represent
        return str(scalar.cast(pa.int64()))


def _holds_null(array: Any) -> pa.Array:
    """For lists and maps: True where a row is not null but holds a null; the slow way only if there is one."""
    if not _null_leaves(array):
        return pa.array([], pa.bool_())
    return pa.array([value is not None and _has_none(value) for value in array.to_pylist()], pa.bool_())


def _null_leaves(array: Any) -> int:
    if pa.types.is_map(array.type):
        return int(array.items.null_count) + int(array.items.flatten().null_count)
    return int(array.flatten().null_count)


def _has_none(value: Any) -> bool:
    return value is None or (isinstance(value, list | tuple) and any(_has_none(part) for part in value))
