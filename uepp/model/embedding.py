"""Tables of embeddings and the average of a bag of their rows (UEPPR Eq. 2)."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf


class TokenBags(NamedTuple):
    """Bags of ids, row after row.

    Attributes:
        values: int32 [T], ids of all bags.
        lengths: int32 [R], ids of each bag.
    """

    values: tf.Tensor
    lengths: tf.Tensor


def bag_average(table: tf.Variable, bags: TokenBags) -> tf.Tensor:
    """Average embedding of each bag, avg(F) = 1/N_t(F) · Σ E[t] (UEPPR Eq. 2).

    The gradient into `table` is sparse: only rows of ids that occur. Nothing of the table's size is read or copied.

    Args:
        table: float32 [V, D].
        bags: R bags of ids in [0, V).

    Returns:
        float32 [R, D]; an empty bag gives zeros.
    """
    return average_of(lambda ids: tf.gather(_copy_here(table), ids), bags)


def average_of(embed: Callable[[tf.Tensor], tf.Tensor], bags: TokenBags) -> tf.Tensor:
    """Average over each bag of what its ids are embedded as; each distinct id is embedded once.

    Args:
        embed: distinct ids, int32 [n], to float32 [n, D].
        bags: R bags of ids.

    Returns:
        float32 [R, D]; an empty bag gives zeros.
    """
    num_bags = tf.shape(bags.lengths)[0]
    bag = tf.repeat(tf.range(num_bags), bags.lengths)
    total = segment_sum(embed, bags.values, bag, num_bags)
    return total / tf.maximum(tf.cast(bags.lengths, total.dtype), 1.0)[:, tf.newaxis]


def segment_sum(
    embed: Callable[[tf.Tensor], tf.Tensor], ids: tf.Tensor, segments: tf.Tensor, num_segments: tf.Tensor
) -> tf.Tensor:
    """Sum over each segment of what its ids are embedded as; each distinct id is embedded once.

    Args:
        embed: distinct ids, int32 [n], to float32 [n, D].
        ids: int32 [T].
        segments: int32 [T] in [0, num_segments), ascending.
        num_segments: R.

    Returns:
        float32 [R, D].
    """
    # The sum is fused: nothing of size [T, D] is made, forward or backward, and a table's gradient has one row a
    # distinct id. benchmarks/bag_average.py compares it with the plain ways. That `embed` sees no id which is in no
    # segment matters also: with rows but without ids, the gradient that TensorFlow gives is uninitialised memory.
    distinct, position = tf.unique(ids)
    return tf.sparse.segment_sum(embed(distinct), position, segments, num_segments=num_segments)


class EmbeddingTable(tf.keras.layers.Layer):
    """One row of D numbers an id; the same object serves every encoder that shares it.

    Args:
        num_rows: ids.
        dim: D.
        name: what the ids are; the variable is `<name>_embeddings`.
        row_scale: float32 [num_rows], factor of each initial row (inverse document frequency); none: 1.
        seed: of the initial values.
    """

    def __init__(self, num_rows: int, dim: int, name: str, row_scale: np.ndarray | None, seed: int) -> None:
        super().__init__(name=f"{name}_table", dtype="float32")
        self.dim = dim

        def initial(shape: tf.TensorShape, dtype: tf.DType = tf.float32, **_: object) -> tf.Tensor:
            rng = np.random.default_rng(seed)
            values = rng.standard_normal(tuple(shape), np.float32) / np.sqrt(np.float32(dim))
            if row_scale is not None:
                values *= (row_scale / row_scale.mean())[:, np.newaxis]
            return tf.constant(values, dtype)

        self.embeddings = self.add_weight(f"{name}_embeddings", (num_rows, dim), initializer=initial)

    def call(self, bags: TokenBags) -> tf.Tensor:
        """Averages, float32 [R, D]."""
        return bag_average(self.embeddings, TokenBags(*bags))

    def rows(self, ids: tf.Tensor) -> tf.Tensor:
        """Rows of ids, int32 [n] to float32 [n, D]."""
        return self(TokenBags(ids, tf.ones_like(ids)))


def _copy_here(table: tf.Variable) -> tf.Variable:
    """The replica's own copy of a mirrored variable; anything else as it is.

    tf.gather reads a mirrored variable whole and gathers from that, which also makes the next sparse update copy it.
    """
    if not isinstance(table, tf.distribute.DistributedValues):
        return table
    copies = tf.distribute.get_strategy().experimental_local_results(table)
    replica = tf.distribute.get_replica_context()
    # Outside of replicas (exporting, embedding the catalogue) all copies are alike.
    number = 0 if replica is None else int(tf.get_static_value(replica.replica_id_in_sync_group))
    return copies[number % len(copies)]
