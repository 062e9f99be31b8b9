"""θ and the regularised similarity against BHNS Eq. 6 and 7, and their edges."""

import numpy as np
import oracles
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from uepp.training.false_negatives import false_negative_estimate, regularized_similarity


def cosines(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    return rng.uniform(-1, 1, (rows, columns)).astype(np.float32)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 6), st.integers(0, 7), st.booleans())
def test_theta_is_the_oracle(seed: int, rows: int, others: int, columns: int, graded: bool) -> None:
    rng = np.random.default_rng(seed)
    similarity = cosines(rng, rows, others)
    relevance = (rng.random((others, columns)) < 0.4) * (rng.random((others, columns)) if graded else 1.0)
    theta = false_negative_estimate(tf.constant(similarity), tf.constant(relevance, tf.float32)).numpy()
    np.testing.assert_allclose(theta, oracles.false_negative_estimate(similarity, relevance), atol=1e-5)
    assert theta.shape == (rows, columns)
    assert ((theta >= 0) & (theta <= 1)).all()


def test_theta_spelled_out() -> None:
    """Three queries; product 0 answers queries 0 and 1, product 1 query 2, product 2 nobody."""
    similarity = tf.constant([[1.0, 0.5, -0.5], [0.5, 1.0, 0.25], [-0.5, 0.25, 1.0]])
    relevance = tf.constant([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.5, 0.0]])
    expected = [
        [(1.0 + 0.5) / 2, 0.0, 0.0],
        [(0.5 + 1.0) / 2, 0.5 * 0.25, 0.0],
        [0.0, 0.5 * 1.0, 0.0],
    ]
    np.testing.assert_allclose(false_negative_estimate(similarity, relevance), expected, atol=1e-6)


def test_theta_counts_only_queries_that_know_the_product() -> None:
    """T is the number of queries with r > 0, not of queries."""
    similarity, relevance = tf.fill([1, 100], 0.6), tf.concat([tf.ones([2, 1]), tf.zeros([98, 1])], axis=0)
    np.testing.assert_allclose(false_negative_estimate(similarity, relevance), [[0.6]], atol=1e-6)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 6), st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]))
def test_regularized_similarity_is_the_oracle(seed: int, rows: int, columns: int, temperature: float) -> None:
    rng = np.random.default_rng(seed)
    similarity = cosines(rng, rows, columns)
    theta = rng.choice([0.0, 0.3, 0.7, 1.0], (rows, columns)).astype(np.float32)
    np.testing.assert_allclose(
        regularized_similarity(tf.constant(similarity), tf.constant(theta), temperature),
        oracles.regularized_similarity(similarity, theta, temperature),
        atol=1e-6,
    )


def test_two_negative_factors_do_not_make_a_hard_negative() -> None:
    """θ above 1 by rounding and a negative cosine: clamped, not multiplied."""
    regularized = regularized_similarity(tf.constant([[-0.9, 0.8, -0.9]]), tf.constant([[1.2, 1.2, 0.2]]), 1.0)
    assert regularized.numpy().tolist() == [[0.0, 0.0, 0.0]]


def test_a_likely_false_negative_falls_behind_and_further_with_temperature() -> None:
    similarity, theta = tf.constant([[0.9, 0.6]]), tf.constant([[0.8, 0.0]])
    ranks = [regularized_similarity(similarity, theta, temperature).numpy()[0] for temperature in (0.0, 0.2, 1.0, 2.0)]
    assert ranks[0][0] > ranks[0][1], "without the regulariser the likely false negative is the harder one"
    assert ranks[2][0] < ranks[2][1]
    assert ranks[3][0] < ranks[2][0] < ranks[1][0] < ranks[0][0]
    assert all(rank[1] == pytest.approx(0.6) for rank in ranks)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_gradients_are_numbers(temperature: float) -> None:
    """At every clamp: θ = 0 and 1, T = 0, cosine 0 and negative."""
    query_similarity = tf.Variable([[1.0, 0.0, -1.0], [0.3, 1.0, 0.0], [1.0, 1.0, 1.0]])
    similarity = tf.Variable([[0.5, 0.0, -0.5], [0.9, 1.0, 0.1], [0.4, -1.0, 0.0]])
    relevance = tf.constant([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    with tf.GradientTape() as tape:
        theta = false_negative_estimate(query_similarity, relevance)
        loss = tf.reduce_sum(regularized_similarity(similarity, theta, temperature))
    gradients = tape.gradient(loss, [query_similarity, similarity])
    assert {0.0, 1.0} <= set(theta.numpy().ravel().tolist())
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)
