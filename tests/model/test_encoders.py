"""Encoders against their equations."""

import numpy as np
import oracles
import pytest
import tensorflow as tf

from uepp.model.embedding import TokenTable
from uepp.model.encoders import TokenEncoder

GROUPS = [[[1, 2, 2], [], [5]], [[3], [4, 0, 6], []]]


def features(groups: list[list[list[int]]]) -> dict[str, tf.Tensor]:
    made = {}
    for position, bags in enumerate(groups):
        made[f"product/{position}/values"] = tf.constant([token for bag in bags for token in bag], tf.int32)
        made[f"product/{position}/lengths"] = tf.constant([len(bag) for bag in bags], tf.int32)
    return made


@pytest.mark.parametrize("normalize", [False, True])
def test_groups_are_averaged_then_concatenated(normalize: bool) -> None:
    table = TokenTable(7, 4, None, 1)
    encoder = TokenEncoder(table, ["product/0", "product/1"], normalize)
    got = encoder(features(GROUPS)).numpy()
    expected = oracles.token_representation(table.embeddings.numpy(), GROUPS, normalize=normalize)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert got.shape == (3, 8)
    assert encoder.block_dims == (4, 4)
    lengths = np.linalg.norm(got.reshape(3, 2, 4), axis=2)
    assert (lengths[1, 0], lengths[2, 1]) == (0, 0), "empty groups"
    assert np.allclose(lengths[lengths > 0], 1) == normalize


def test_order_of_groups_is_as_given() -> None:
    table = TokenTable(7, 4, None, 1)
    forward = TokenEncoder(table, ["product/0", "product/1"], False)(features(GROUPS)).numpy()
    backward = TokenEncoder(table, ["product/1", "product/0"], False)(features(GROUPS)).numpy()
    np.testing.assert_array_equal(forward, np.roll(backward, 4, axis=1))


def test_groups_are_not_one_bag() -> None:
    """A long noisy group does not touch the other group's columns."""
    encoder = TokenEncoder(TokenTable(7, 4, None, 1), ["product/0", "product/1"], True)
    noisy = [GROUPS[0], [[6] * 50, [0], [1] * 9]]
    np.testing.assert_array_equal(encoder(features(GROUPS))[:, :4], encoder(features(noisy))[:, :4])


@pytest.mark.parametrize("normalize", [False, True])
def test_gradient_is_finite_with_empty_groups(normalize: bool) -> None:
    table = TokenTable(7, 4, None, 1)
    encoder = TokenEncoder(table, ["product/0", "product/1"], normalize)
    with tf.GradientTape() as tape:
        weights = tf.random.stateless_normal([3, 8], [1, 2])
        loss = tf.reduce_sum(encoder(features(GROUPS)) * weights)
    gradient = tape.gradient(loss, table.embeddings)
    assert isinstance(gradient, tf.IndexedSlices)
    dense = tf.convert_to_tensor(gradient).numpy()
    assert np.isfinite(dense).all()
    assert dense.any(axis=1).all(), "every row of the table occurs in GROUPS"
