"""θ from sparse labels against BHNS Eq. 6 and 7, and against the towers' θ in the TensorFlow graph."""

import numpy as np
import oracles
import pytest
import scipy.sparse
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import uepp.training.false_negatives as in_graph
from uepp.relevance.false_negatives import false_negative_estimate, regularized_similarity


def case(seed: int, rows: int, others: int, columns: int) -> tuple[np.ndarray, np.ndarray, scipy.sparse.csr_array]:
    """Cosines [B, Q] and relevance [Q, C], dense and sparse; the sparse one also stores some zeros."""
    rng = np.random.default_rng(seed)
    similarity = rng.uniform(-1, 1, (rows, others)).astype(np.float32)
    is_stored = rng.random((others, columns)) < 0.5
    grade = rng.choice([0.0, 0.1, 0.5, 1.0], (others, columns)).astype(np.float32)
    place = np.nonzero(is_stored)
    return similarity, grade * is_stored, scipy.sparse.csr_array((grade[place], place), shape=grade.shape)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(0, 6), st.integers(0, 6), st.integers(0, 7))
def test_theta_is_the_oracle(seed: int, rows: int, others: int, columns: int) -> None:
    similarity, dense, sparse = case(seed, rows, others, columns)
    theta = false_negative_estimate(similarity, sparse)
    np.testing.assert_allclose(theta, oracles.false_negative_estimate(similarity, dense), atol=1e-6)
    assert theta.shape == (rows, columns)
    assert theta.dtype == np.float32


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_theta_of_the_towers(seed: int) -> None:
    """Two forms of one definition: what training does in its graph, and what a sampler does while loading."""
    similarity, dense, sparse = case(seed, 20, 30, 40)
    theta = false_negative_estimate(similarity, sparse)
    np.testing.assert_allclose(theta, in_graph.false_negative_estimate(similarity, tf.constant(dense)), atol=1e-6)
    assert (theta > 0).mean() > 0.2
    assert (theta == 0).mean() > 0.2
    cosines = np.random.default_rng(seed).uniform(-1, 1, theta.shape).astype(np.float32)
    for temperature in (0.0, 0.5, 2.0):
        np.testing.assert_allclose(
            regularized_similarity(cosines, theta, temperature),
            in_graph.regularized_similarity(tf.constant(cosines), tf.constant(theta), temperature),
            atol=1e-6,
        )


def test_theta_spelled_out() -> None:
    """Product 0 answers queries 0 and 1, product 1 answers 2 by half, 2 is judged irrelevant, nobody knows 3."""
    similarity = np.array([[1.0, 0.5, -0.5], [-0.2, 0.0, 0.4]], np.float32)
    relevance = scipy.sparse.csr_array(
        (np.array([1.0, 1.0, 0.5, 0.0], np.float32), ([0, 1, 2, 1], [0, 0, 1, 2])), shape=(3, 4)
    )
    assert relevance.nnz == 4, "the zero is stored"
    expected = [[(1.0 + 0.5) / 2, 0.0, 0.0, 0.0], [0.0, 0.5 * 0.4, 0.0, 0.0]]
    np.testing.assert_allclose(false_negative_estimate(similarity, relevance), expected, atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]))
def test_regularized_similarity_is_the_oracle(seed: int, temperature: float) -> None:
    rng = np.random.default_rng(seed)
    similarity = rng.uniform(-1, 1, (4, 5)).astype(np.float32)
    theta = rng.choice([0.0, 0.3, 0.7, 1.0], (4, 5)).astype(np.float32)
    regularized = regularized_similarity(similarity, theta, temperature)
    np.testing.assert_allclose(regularized, oracles.regularized_similarity(similarity, theta, temperature), atol=1e-6)
    assert regularized.dtype == np.float32
