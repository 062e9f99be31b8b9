"""Columns of a table of products or requests as the towers take them: one string or number a row and input."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import tensorflow as tf

PLACE_NAMES = ("country", "region", "language", "zip")
COORDINATES = ("latitude", "longitude")
PLACE = (*PLACE_NAMES, *COORDINATES)
"""Inputs of the location encoder; an unknown name is empty, an unknown coordinate NaN."""

_PRODUCTS_AT_ONCE = 4_096


def table_inputs(table: pa.Table, names: Sequence[str]) -> dict[str, list[str] | np.ndarray]:
    """The named inputs of every row.

    Tags are joined by newlines, attributes written one `key: value` a line, missing text is empty,
    a missing coordinate is NaN (float32).
    """
    columns: dict[str, list[str] | np.ndarray] = {}
    for name in names:
        column = table.column(name)
        if name == "tags":
            columns[name] = ["\n".join(tags or ()) for tags in column.to_pylist()]
        elif name == "attributes":
            columns[name] = [_attribute_lines(pairs or ()) for pairs in column.to_pylist()]
        elif name in COORDINATES:
            columns[name] = np.asarray(column.cast(pa.float64()).fill_null(float("nan")), np.float32)
        else:
            columns[name] = [text or "" for text in column.to_pylist()]
    return columns


def product_batches(products: pa.Table, names: Sequence[str]) -> Iterator[tuple[dict[str, tf.Tensor], int]]:
    """The named inputs as tensors, some thousand products at a time, and how many products they are."""
    for begin in range(0, products.num_rows, _PRODUCTS_AT_ONCE):
        part = products.slice(begin, _PRODUCTS_AT_ONCE)
        yield as_tensors(table_inputs(part, names)), part.num_rows


def as_tensors(columns: dict[str, list[str] | np.ndarray]) -> dict[str, tf.Tensor]:
    """Lists of text become string tensors, arrays keep their type."""
    return {
        name: tf.constant(values) if isinstance(values, np.ndarray) else tf.constant(values, tf.string)
        for name, values in columns.items()
    }


def _attribute_lines(pairs: Sequence[tuple[str, Sequence[str] | None]]) -> str:
    lines = (f"{key}: {value}" for key, values in pairs for value in values or () if value)
    return "\n".join(line.replace("\n", " ") for line in lines)
