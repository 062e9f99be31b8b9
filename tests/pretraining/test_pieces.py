"""Rows by length in pieces: the same vectors and gradients as all rows at once, in fewer columns."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from uepp.pretraining.pieces import in_pieces

WORDS, DIM = 30, 4


class Mean(tf.Module):
    """A table and the mean of each row's tokens, weighted by another column; notes how much it was asked."""

    def __init__(self) -> None:
        super().__init__()
        values = np.random.default_rng(1).normal(size=(WORDS, DIM))
        self.table = tf.Variable(values.astype(np.float32))
        self.seen = tf.Variable(0)

    def __call__(self, ids: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        self.seen.assign_add(tf.size(ids))
        weight = tf.cast(ids != 0, tf.float32) * weights
        total = tf.einsum("bsd,bs->bd", tf.gather(self.table, ids), weight)
        return tf.math.divide_no_nan(total, tf.reduce_sum(weight, 1, keepdims=True))


def rows(num_rows: int, longest: int = 20) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(num_rows)
    ids = rng.integers(1, WORDS, (num_rows, longest)).astype(np.int32)
    ids[np.arange(longest) >= rng.integers(0, longest + 1, num_rows)[:, np.newaxis]] = 0
    return ids, rng.uniform(0.5, 1.5, ids.shape).astype(np.float32)


@pytest.mark.parametrize("num_rows", [0, 1, 5, 31, 32, 70, 163])
@pytest.mark.parametrize("in_graph", [False, True])
def test_pieces_are_the_whole(num_rows: int, in_graph: bool) -> None:
    mean, (ids, weights) = Mean(), rows(num_rows)
    wanted = np.random.default_rng(2).normal(size=(num_rows, DIM)).astype(np.float32)

    def asked(encode: Any) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            vectors = encode(mean, tf.constant(ids), tf.constant(weights))
            loss = tf.reduce_sum(vectors * wanted)
        return vectors, tf.convert_to_tensor(tape.gradient(loss, mean.table))

    vectors, gradient = tf.function(lambda: asked(in_pieces))() if in_graph else asked(in_pieces)
    expected, expected_gradient = asked(lambda encode, *columns: encode(*columns))
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-5)


def test_its_width_is_known_and_little_of_it_is_padding() -> None:
    mean, (ids, weights) = Mean(), rows(160)
    traced = tf.function(lambda ids, weights: in_pieces(mean, ids, weights)).get_concrete_function(
        tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None, None], tf.float32)
    )
    assert traced.output_shapes.as_list() == [None, DIM]
    traced(tf.constant(ids), tf.constant(weights))
    assert np.count_nonzero(ids) < int(mean.seen) < 0.7 * ids.size
