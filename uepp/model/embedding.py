"""The shared token table and the average of a bag (UEPPR Eq. 2)."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf


class TokenBags(NamedTuple):
    """Bags of token ids, row after row.

    Attributes:
        values: int32 [T], ids of all bags.
        lengths: int32 [R], ids of each bag.
    """

    values: tf.Tensor
    lengths: tf.Tensor


def bag_average(table: tf.Tensor, bags: TokenBags) -> tf.Tensor:
    """Average embedding of each bag, avg(F) = 1/N_t(F) · Σ E[t] (UEPPR Eq. 2).

    The gradient into `table` is sparse: only rows of ids that occur.

    Args:
        table: float32 [V, D].
        bags: R bags of ids in [0, V).

    Returns:
        float32 [R, D]; an empty bag gives zeros.
    """
    num_bags = tf.shape(bags.lengths)[0]
    row = tf.repeat(tf.range(num_bags), bags.lengths)
    # Each distinct row is gathered once and the sum is fused: nothing of size [T, D] is made, forward or backward, and
    # the gradient has one row a distinct token. benchmarks/bag_average.py compares it with the plain ways.
    distinct, position = tf.unique(bags.values)
    total = tf.sparse.segment_sum(tf.gather(table, distinct), position, row, num_segments=num_bags)
    return total / tf.maximum(tf.cast(bags.lengths, table.dtype), 1.0)[:, tf.newaxis]


class TokenTable(tf.keras.layers.Layer):
    """One row of D numbers a token; the same object serves every encoder that shares it.

    Args:
        num_rows: vocabulary and out-of-vocabulary rows.
        dim: D.
        row_scale: float32 [num_rows], factor of each initial row (inverse document frequency); none: 1.
        seed: of the initial values.
    """

    def __init__(self, num_rows: int, dim: int, row_scale: np.ndarray | None, seed: int) -> None:
        super().__init__(name="token_table")
        self.dim = dim

        def initial(shape: tf.TensorShape, dtype: tf.DType = tf.float32, **_: object) -> tf.Tensor:
            rng = np.random.default_rng(seed)
            values = rng.standard_normal(tuple(shape), np.float32) / np.sqrt(np.float32(dim))
            if row_scale is not None:
                values *= (row_scale / row_scale.mean())[:, np.newaxis]
            return tf.constant(values, dtype)

        self.embeddings = self.add_weight("embeddings", (num_rows, dim), initializer=initial)

    def call(self, bags: TokenBags) -> tf.Tensor:
        """Averages, float32 [R, D]."""
        return bag_average(self.embeddings, TokenBags(*bags))
