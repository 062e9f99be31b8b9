"""Texts to vectors through an exported tower, in batches of bounded memory."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import tensorflow as tf
import tensorflow_text  # noqa: F401  registers the operations that the towers use
from rich.progress import track

from uepp.features.catalog import product_texts

_SHARD_ROWS = 500_000


def load_tower(directory: Path) -> tf.types.experimental.GenericFunction:
    """The serving signature of an exported tower."""
    model = tf.saved_model.load(str(directory))
    serve = model.signatures["serving_default"]
    serve.model = model  # the signature does not keep its model alive
    return serve


def embed_queries(
    query_tower: tf.types.experimental.GenericFunction, queries: Sequence[str], batch_size: int = 1_024
) -> np.ndarray:
    """Query texts to unit vectors, float32 [B, d]."""
    parts = []
    for begin in range(0, len(queries), batch_size):
        batch = tf.constant(list(queries[begin : begin + batch_size]), tf.string)
        parts.append(query_tower(query=batch)["embedding"].numpy())
    return np.concatenate(parts)


def write_vectors(
    product_tower: tf.types.experimental.GenericFunction, products: pa.Table, directory: Path, batch_size: int
) -> None:
    """Embed a catalogue into shards `vectors/part-00000.npy`, … of float32 [rows, d] in product-index order.

    Args:
        product_tower: exported tower.
        products: the catalogue, canonical columns.
        directory: where `vectors/` is made.
        batch_size: products at once.
    """
    folder = directory / "vectors"
    folder.mkdir()
    for shard, first in enumerate(range(0, products.num_rows, _SHARD_ROWS)):
        part = products.slice(first, _SHARD_ROWS)
        vectors = []
        for begin in track(range(0, part.num_rows, batch_size), "embed", transient=True):
            texts = product_texts(part.slice(begin, batch_size))
            inputs = {field: tf.constant(values, tf.string) for field, values in texts.items()}
            vectors.append(product_tower(**inputs)["embedding"].numpy())
        np.save(folder / f"part-{shard:05}.npy", np.concatenate(vectors))


def read_vectors(directory: Path) -> np.ndarray:
    """All shards of an export as float32 [N, d]; a single shard stays memory-mapped."""
    shards = [np.load(path, mmap_mode="r") for path in sorted((directory / "vectors").glob("part-*.npy"))]
    return shards[0] if len(shards) == 1 else np.concatenate(shards)
