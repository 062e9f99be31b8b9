"""The average of a bag and its gradient (UEPPR Eq. 2)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
import tensorflow as tf
from fresh_process import printed_by
from hypothesis import given, settings
from hypothesis import strategies as st

from uepp.model.embedding import EmbeddingTable, TokenBags, average_of, bag_average

TABLE = np.random.default_rng(1).standard_normal((11, 3)).astype(np.float32)


def bags(rows: list[list[int]]) -> TokenBags:
    values = [token for row in rows for token in row]
    return TokenBags(tf.constant(values, tf.int32), tf.constant([len(row) for row in rows], tf.int32))


def gradient(rows: list[list[int]], upstream: np.ndarray) -> tf.IndexedSlices:
    table = tf.Variable(TABLE)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(bag_average(table, bags(rows)) * upstream)
    return tape.gradient(loss, table)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.integers(0, 10), max_size=7), min_size=1, max_size=6))
def test_average_and_gradient_are_the_oracle(rows: list[list[int]]) -> None:
    np.testing.assert_allclose(bag_average(TABLE, bags(rows)), oracles.bag_average(TABLE, rows), atol=1e-6)
    upstream = np.random.default_rng(2).standard_normal((len(rows), 3)).astype(np.float32)
    dense = tf.convert_to_tensor(gradient(rows, upstream))
    np.testing.assert_allclose(dense, oracles.bag_average_gradient(TABLE, rows, upstream), atol=1e-5)


def test_gradient_is_sparse_also_with_duplicates() -> None:
    rows = [[4, 4, 4, 2], [], [2, 9]]
    slices = gradient(rows, np.ones((3, 3), np.float32))
    assert isinstance(slices, tf.IndexedSlices)
    assert sorted(slices.indices.numpy().tolist()) == [2, 4, 9], "one row a distinct token"
    expected = oracles.bag_average_gradient(TABLE, rows, np.ones((3, 3)))
    np.testing.assert_allclose(tf.convert_to_tensor(slices), expected, atol=1e-6)
    assert expected[4, 0] == pytest.approx(0.75)


def test_gradient_of_finite_differences() -> None:
    rows = [[1, 1, 5], [5]]
    upstream = np.array([[1.0, -2.0, 0.5], [0.3, 0.0, 2.0]], np.float32)
    dense = tf.convert_to_tensor(gradient(rows, upstream)).numpy()
    for token in (1, 5, 6):
        for column in range(3):
            moved = TABLE.astype(float)
            moved[token, column] += 1e-3
            change = (oracles.bag_average(moved, rows) - oracles.bag_average(TABLE, rows)) * upstream
            assert dense[token, column] == pytest.approx(change.sum() / 1e-3, abs=1e-4)


@pytest.mark.parametrize("rows", [[[]], [[], [], []], [[], [3], []]])
def test_empty_bags_are_zero_and_give_no_nan(rows: list[list[int]]) -> None:
    averages = bag_average(TABLE, bags(rows)).numpy()
    assert averages.shape == (len(rows), 3)
    for average, row in zip(averages, rows, strict=True):
        assert average.any() == bool(row)
    dense = tf.convert_to_tensor(gradient(rows, np.ones((len(rows), 3), np.float32))).numpy()
    assert np.isfinite(dense).all()
    assert set(np.nonzero(dense.any(axis=1))[0]) == {token for row in rows for token in row}


def test_order_of_tokens_and_rows_does_not_matter() -> None:
    forward = bag_average(TABLE, bags([[1, 2, 3, 3], [7], []])).numpy()
    shuffled = bag_average(TABLE, bags([[], [7], [3, 1, 3, 2]])).numpy()
    np.testing.assert_allclose(shuffled[::-1], forward, atol=1e-6)


def test_table_starts_scaled_by_idf_and_the_same_for_a_seed() -> None:
    scale = np.linspace(1, 5, 2_000).astype(np.float32)
    one, same, other, plain = (
        EmbeddingTable(2_000, 16, "tokens", row_scale, seed).embeddings.numpy()
        for row_scale, seed in ((scale, 1), (scale, 1), (scale, 2), (None, 1))
    )
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)
    np.testing.assert_allclose(one, plain * (scale / scale.mean())[:, np.newaxis], rtol=1e-5)
    assert np.linalg.norm(plain, axis=1).mean() == pytest.approx(1, abs=0.03), "rows have length about 1"


def test_table_averages_and_is_one_variable() -> None:
    table = EmbeddingTable(5, 4, "tokens", None, 1)
    got = table(bags([[0, 1], [2]])).numpy()
    np.testing.assert_allclose(got, oracles.bag_average(table.embeddings.numpy(), [[0, 1], [2]]), atol=1e-6)
    table(bags([[3]]))
    assert [variable.shape.as_list() for variable in table.trainable_variables] == [[5, 4]]
    assert table.trainable_variables[0].name.startswith("tokens_embeddings")


def test_rows_of_ids_also_repeated() -> None:
    table = EmbeddingTable(5, 4, "shops", None, 1)
    with tf.GradientTape() as tape:
        rows = table.rows(tf.constant([3, 1, 3]))
        loss = tf.reduce_sum(rows * tf.constant([[1.0], [10.0], [100.0]]))
    np.testing.assert_array_equal(rows, table.embeddings.numpy()[[3, 1, 3]])
    slices = tape.gradient(loss, table.embeddings)
    assert isinstance(slices, tf.IndexedSlices)
    np.testing.assert_array_equal(
        tf.convert_to_tensor(slices), np.array([0, 10, 0, 101, 0])[:, np.newaxis] * np.ones((5, 4))
    )
    assert table.rows(tf.constant([], tf.int32)).shape == (0, 4)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.integers(0, 10), max_size=4), min_size=1, max_size=5))
def test_average_of_rows_of_a_tensor_is_the_oracle(rows: list[list[int]]) -> None:
    """Also where no bag has an id: there, TensorFlow's gradient of a sparse segment sum is uninitialised memory."""
    tensor = tf.constant(TABLE)
    upstream = np.random.default_rng(2).standard_normal((len(rows), 3)).astype(np.float32)
    met: list[int] = []

    def embed(ids: tf.Tensor) -> tf.Tensor:
        met.extend(ids.numpy().tolist())
        return tf.gather(tensor * 2.0, ids)

    with tf.GradientTape() as tape:
        tape.watch(tensor)
        averages = average_of(embed, bags(rows))
        loss = tf.reduce_sum(averages * upstream)
    np.testing.assert_allclose(averages, oracles.bag_average(2 * TABLE, rows), atol=1e-6)
    expected = 2 * oracles.bag_average_gradient(TABLE, rows, upstream)
    np.testing.assert_allclose(tape.gradient(loss, tensor), expected, atol=1e-5)
    assert sorted(met) == sorted({token for row in rows for token in row}), "each distinct id is embedded once"


@pytest.fixture(scope="module")
def seen_by_replicas() -> dict[str, Any]:
    """What mirrored_tables.py prints; strategies need a process of their own."""
    return json.loads(printed_by(Path(__file__).with_name("mirrored_tables.py"))[-1])


def test_replicas_gather_rows_and_never_read_a_table(seen_by_replicas: dict[str, Any]) -> None:
    """tf.gather of a mirrored variable reads all of it, and the next sparse update then copies it."""
    seen = seen_by_replicas
    assert seen["num_tables"] == 3
    assert seen["kinds"] == ["IndexedSlices"] * 3 * 2
    assert seen["num_gathers"] >= 2 * 3
    assert seen["whole_reads"] == []
    assert seen["replicas_agree"]
    assert seen["not_zero"]
    for outside, inside in zip(seen["outside"], seen["inside"], strict=True):
        np.testing.assert_allclose(inside, outside, atol=1e-5)


def test_replicas_normalise_by_the_batch_of_all(seen_by_replicas: dict[str, Any]) -> None:
    np.testing.assert_allclose(seen_by_replicas["halves"], seen_by_replicas["whole"], atol=1e-4)
