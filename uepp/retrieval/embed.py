"""Requests and products to vectors through an exported tower, in batches of bounded memory."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import tensorflow as tf
import tensorflow_text  # noqa: F401  registers the operations that the towers use
from rich.progress import track

from uepp.config import HistoryConfig
from uepp.errors import InputError
from uepp.features.raw import as_tensors, table_inputs
from uepp.features.readers.text import TEXT_VECTORS
from uepp.features.requests import RawRequests
from uepp.retrieval.vectors import CHUNK_ROWS, ProductVectors

NEIGHBORS = "neighbor_queries"
"""The product tower's input that is no column of the catalogue."""

_SHARD_ROWS = 500_000


class Kept(NamedTuple):
    """Vectors that are known already.

    Attributes:
        vectors: of the same tower.
        rows: int64 [N], where a product's vector is among them; -1: it is not.
    """

    vectors: ProductVectors
    rows: np.ndarray


def load_tower(directory: Path, signature: str = "serving_default") -> tf.types.experimental.GenericFunction:
    """A signature of an exported tower."""
    model = tf.saved_model.load(str(directory))
    serve = model.signatures[signature]
    serve.model = model  # the signature does not keep its model alive
    return serve


def embed_queries(
    query_tower: tf.types.experimental.GenericFunction,
    requests: RawRequests,
    history: HistoryConfig,
    batch_size: int = 1_024,
) -> np.ndarray:
    """Requests to unit vectors, float32 [R, d].

    Args:
        query_tower: exported tower.
        requests: queries and who asked.
        history: the run's settings, how many past events the tower reads.
        batch_size: requests at once.
    """
    names = tower_inputs(query_tower)
    parts = []
    for begin in range(0, len(requests), batch_size):
        part = requests.take(np.arange(begin, min(begin + batch_size, len(requests))))
        parts.append(query_tower(**part.inputs(names, history))["embedding"].numpy())
    return np.concatenate(parts)


def tower_inputs(tower: tf.types.experimental.GenericFunction) -> tuple[str, ...]:
    """Names of an exported tower's inputs."""
    return tuple(tower.structured_input_signature[1])


def write_vectors(
    product_tower: tf.types.experimental.GenericFunction,
    products: pa.Table,
    neighbors: Sequence[Sequence[str]] | None,
    directory: Path,
    batch_size: int,
    kept: Kept | None = None,
    text_vectors: np.ndarray | None = None,
) -> None:
    """Embed a catalogue into shards `vectors/part-00000.npy`, … of float32 [rows, d] in product-index order.

    Args:
        product_tower: exported tower.
        products: the catalogue, canonical columns.
        neighbors: each product's neighbour queries; none where the tower reads none.
        directory: where `vectors/` is made.
        batch_size: products at once.
        kept: vectors that are copied bit by bit, the tower sees the other products only; none: it sees all.
        text_vectors: each product's vector of the text encoder, for a tower that reads it; none: it reads texts.
    """
    dim = int(product_tower.structured_outputs["embedding"].shape[1])
    folder = directory / "vectors"
    folder.mkdir()
    for shard, first in enumerate(range(0, products.num_rows, _SHARD_ROWS)):
        end = min(first + _SHARD_ROWS, products.num_rows)
        vectors = np.empty((end - first, dim), np.float32)
        missing = np.arange(first, end)
        if kept is not None:
            missing = first + np.flatnonzero(kept.rows[first:end] < 0)
            for rows in _parts(first + np.flatnonzero(kept.rows[first:end] >= 0), CHUNK_ROWS):
                vectors[rows - first] = kept.vectors.take(kept.rows[rows])
        for rows in track(_parts(missing, batch_size), "embed", transient=True):
            vectors[rows - first] = _embed(product_tower, products, neighbors, text_vectors, rows)
        if not np.isfinite(vectors).all():
            row = first + int((~np.isfinite(vectors)).any(axis=1).argmax())
            product = products.column("product_id")[row].as_py()
            raise InputError(f"product {product}: the tower gives no finite vector; the training has diverged")
        np.save(folder / f"part-{shard:05}.npy", vectors)


def _parts(rows: np.ndarray, size: int) -> list[np.ndarray]:
    return [rows[begin : begin + size] for begin in range(0, len(rows), size)]


def _embed(
    product_tower: tf.types.experimental.GenericFunction,
    products: pa.Table,
    neighbors: Sequence[Sequence[str]] | None,
    text_vectors: np.ndarray | None,
    rows: np.ndarray,
) -> np.ndarray:
    """Vectors float32 [n, d] of the products of n rising rows."""
    columns = [name for name in tower_inputs(product_tower) if name not in (NEIGHBORS, TEXT_VECTORS)]
    # slices, since taking rows would first put all chunks of a text column together
    runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    part = pa.concat_tables([products.select(columns).slice(run[0], len(run)) for run in runs])
    inputs = as_tensors(table_inputs(part, columns))
    if neighbors is not None:
        inputs[NEIGHBORS] = _padded([neighbors[row] for row in rows])
    if text_vectors is not None:
        inputs[TEXT_VECTORS] = tf.constant(text_vectors[rows])
    return np.asarray(product_tower(**inputs)["embedding"].numpy())


def _padded(texts: Sequence[Sequence[str]]) -> tf.Tensor:
    """Lists of texts as one string matrix, padded with empty strings."""
    width = max(1, max(map(len, texts), default=0))
    return tf.constant([[*row, *[""] * (width - len(row))] for row in texts], tf.string)


def read_vectors(directory: Path) -> np.ndarray:
    """All shards of an export as float32 [N, d]; a single shard stays memory-mapped."""
    shards = [np.load(path, mmap_mode="r") for path in sorted((directory / "vectors").glob("part-*.npy"))]
    return shards[0] if len(shards) == 1 else np.concatenate(shards)
