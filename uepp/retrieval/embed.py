"""Requests and products to vectors through an exported tower, in batches of bounded memory."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import tensorflow as tf
import tensorflow_text  # noqa: F401  registers the operations that the towers use
from rich.progress import track

from uepp.config import HistoryConfig
from uepp.features.raw import as_tensors, table_inputs
from uepp.features.requests import RawRequests

_SHARD_ROWS = 500_000


def load_tower(directory: Path) -> tf.types.experimental.GenericFunction:
    """The serving signature of an exported tower."""
    model = tf.saved_model.load(str(directory))
    serve = model.signatures["serving_default"]
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
) -> None:
    """Embed a catalogue into shards `vectors/part-00000.npy`, … of float32 [rows, d] in product-index order.

    Args:
        product_tower: exported tower.
        products: the catalogue, canonical columns.
        neighbors: each product's neighbour queries; none where the tower reads none.
        directory: where `vectors/` is made.
        batch_size: products at once.
    """
    columns = [name for name in tower_inputs(product_tower) if name != "neighbor_queries"]
    folder = directory / "vectors"
    folder.mkdir()
    for shard, first in enumerate(range(0, products.num_rows, _SHARD_ROWS)):
        end = min(first + _SHARD_ROWS, products.num_rows)
        vectors = []
        for begin in track(range(first, end, batch_size), "embed", transient=True):
            part = products.slice(begin, min(batch_size, end - begin))
            inputs = as_tensors(table_inputs(part, columns))
            if neighbors is not None:
                inputs["neighbor_queries"] = _padded(neighbors[begin : begin + part.num_rows])
            vectors.append(product_tower(**inputs)["embedding"].numpy())
        np.save(folder / f"part-{shard:05}.npy", np.concatenate(vectors))


def _padded(texts: Sequence[Sequence[str]]) -> tf.Tensor:
    """Lists of texts as one string matrix, padded with empty strings."""
    width = max(1, max(map(len, texts), default=0))
    return tf.constant([[*row, *[""] * (width - len(row))] for row in texts], tf.string)


def read_vectors(directory: Path) -> np.ndarray:
    """All shards of an export as float32 [N, d]; a single shard stays memory-mapped."""
    shards = [np.load(path, mmap_mode="r") for path in sorted((directory / "vectors").glob("part-*.npy"))]
    return shards[0] if len(shards) == 1 else np.concatenate(shards)
