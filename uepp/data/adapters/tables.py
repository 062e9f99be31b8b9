"""What all adapters share: csv files read as strings, values parsed with their row named, data sets written whole."""

import gzip
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq

from uepp.artifacts import atomic_directory, write_json
from uepp.data.schema import Report, validate
from uepp.errors import InputError


def csv_files(source: Path) -> list[Path]:
    """The csv and csv.gz files of a folder, by name; or the file itself. Raises `InputError` if there is none."""
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise InputError(f"{source}: no such file or directory; expected csv or csv.gz files")
    files = sorted(file for file in source.iterdir() if file.name.endswith((".csv", ".csv.gz")))
    if not files:
        raise InputError(f"{source}: no csv or csv.gz file in this directory")
    return files


def read_header(path: Path) -> list[str]:
    """The column names of a csv file. Raises `InputError`."""
    with _one_line_errors(path):
        opener: Any = gzip.open if path.name.endswith(".gz") else open
        with opener(path, "rb") as stream:
            first = stream.readline()
        # utf-8-sig: spreadsheets put a byte order mark before the first name.
        line = first.decode("utf-8-sig", errors="replace").encode()
        if not line.strip():
            raise InputError(f"{path}: empty file; a csv header and at least one row are expected")
        names = list(csv.read_csv(pa.BufferReader(line)).column_names)
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}: column {name}: {names.count(name)} columns have this name; allowed is one")
    return names


def read_csv(path: Path) -> pa.Table:
    """A csv file with every column as strings, so that identifiers keep their leading zeros.

    Text that is not UTF-8 is read as Latin-1. Raises `InputError` for a malformed or empty file.
    """
    columns = read_header(path)

    def read(encoding: str) -> pa.Table:
        return csv.read_csv(
            path,
            read_options=csv.ReadOptions(encoding=encoding),
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                column_types={name: pa.string() for name in columns}, strings_can_be_null=False
            ),
        )

    with _one_line_errors(path):
        try:
            table = read("utf8")
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            if "UTF8" not in str(error) and "utf-8" not in str(error):
                raise
            table = read("latin-1")
    if table.num_rows == 0:
        raise InputError(f"{path}: no rows after the header; at least one is expected")
    return table


def parse(
    path: Path, table: pa.Table, name: str, parser: Callable[[str], Any], allowed: str, type_: pa.DataType
) -> pa.Array:
    """Parse a column of strings, each distinct value once. Raises `InputError` naming row and value."""
    codes = table[name].combine_chunks().dictionary_encode()
    values = []
    for text in codes.dictionary.to_pylist():
        try:
            values.append(parser(text))
        except ValueError:
            refuse(path, table, name, text, allowed)
    return pa.array(values, type_).take(codes.indices)


def refuse(path: Path, table: pa.Table, name: str, value: str, allowed: str) -> None:
    """Raise the `InputError` of the first row that has this value (rows are counted from 0, after the header)."""
    row = pc.index(table[name], value).as_py()
    raise InputError(f"{path}: column {name}, row {row}: {value!r}; allowed is {allowed}")


def refuse_empty(path: Path, table: pa.Table, names: Sequence[str]) -> None:
    """Raise `InputError` if one of these columns holds an empty string."""
    for name in names:
        if pc.index(table[name], "").as_py() >= 0:
            refuse(path, table, name, "", "a non-empty string")


def write_data_set(directory: Path, tables: dict[str, pa.Table], facts: dict[str, Any]) -> Report:
    """Write the Parquet tables and `dataset.json`, all or nothing, into a new or empty directory; validate them.

    The report's notes begin with `facts["notes"]`. Raises `InputError` if the directory is not empty.
    """
    refuse_occupied(directory)
    with atomic_directory(directory) as temporary:
        for name, table in tables.items():
            pq.write_table(table, temporary / f"{name}.parquet")
        write_json(temporary / "dataset.json", facts)
        report = validate(temporary)
    return Report(report.rows, (*facts.get("notes", ()), *report.notes))


def refuse_occupied(directory: Path) -> None:
    """Raise `InputError` unless the path is free or an empty directory."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError(f"{directory}: exists and is not an empty directory; name a new one")


@contextmanager
def _one_line_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise InputError(f"{path}: not a readable csv file ({' '.join(str(error).split())})") from None
