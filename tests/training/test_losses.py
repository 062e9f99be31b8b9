"""Losses against the papers' formulas (UEPPR III-E, Yi et al. 2019), and their edges."""

import numpy as np
import oracles
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from uepp.training.losses import negative_hinge, positive_hinge, sampled_softmax

THRESHOLDS = (0.7, 0.8, 0.9)


def random_case(seed: int, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    similarity = rng.uniform(-1, 1, (rows, columns)).astype(np.float32)
    return similarity, rng.random((rows, columns)) < 0.7, rng.integers(0, 3, rows).astype(np.int32)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 9), st.sampled_from([1, 2]), st.floats(-1, 1))
def test_hinges_are_the_oracle(seed: int, rows: int, columns: int, power: int, threshold: float) -> None:
    similarity, is_negative, types = random_case(seed, rows, columns)
    np.testing.assert_allclose(
        positive_hinge(tf.constant(similarity[:, 0]), types, THRESHOLDS, power),
        oracles.positive_hinge(similarity[:, 0], types, THRESHOLDS, power),
        atol=1e-5,
    )
    np.testing.assert_allclose(
        negative_hinge(tf.constant(similarity), is_negative, threshold, power),
        oracles.negative_hinge(similarity, is_negative, threshold, power),
        atol=1e-5,
    )


def test_spelled_out() -> None:
    similarity = tf.constant([0.5, 0.5, 0.5, 0.95])
    types = tf.constant([0, 1, 2, 2])
    expected = [0.7 - 0.5, 0.8 - 0.5, 0.9 - 0.5, 0.0]
    np.testing.assert_allclose(positive_hinge(similarity, types, THRESHOLDS, 1), expected, atol=1e-6)
    np.testing.assert_allclose(positive_hinge(similarity, types, THRESHOLDS, 2), np.square(expected), atol=1e-6)
    negatives = tf.constant([[0.5, 0.1, -0.9, 0.9]])
    mask = tf.constant([[True, True, True, False]])
    np.testing.assert_allclose(negative_hinge(negatives, mask, 0.2, 1), [0.5 - 0.2], atol=1e-6)
    np.testing.assert_allclose(negative_hinge(negatives, mask, 0.2, 2), [(0.5 - 0.2) ** 2], atol=1e-6)


@pytest.mark.parametrize("power", [1, 2])
def test_gradient_of_negatives(power: int) -> None:
    """Masked: exactly zero. Above ε: p · (y − ε)^(p−1). Below: exactly zero."""
    values, is_negative, _ = random_case(3, 20, 30)
    similarity = tf.Variable(values)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(negative_hinge(similarity, is_negative, 0.2, power))
    gradient = tape.gradient(loss, similarity).numpy()
    is_active = is_negative & (values > 0.2)
    would_be_active = ~is_negative & (values > 0.2)
    assert min(is_active.sum(), would_be_active.sum(), (is_negative & ~is_active).sum()) > 20
    assert (gradient[~is_active] == 0).all()
    expected = power * (values[is_active] - 0.2) ** (power - 1)
    np.testing.assert_allclose(gradient[is_active], expected, atol=1e-5)
    assert (gradient[is_active] > 0).all()


@pytest.mark.parametrize("power", [1, 2])
def test_gradient_of_positives(power: int) -> None:
    values, _, types = random_case(4, 60, 1)
    similarity = tf.Variable(values[:, 0])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(positive_hinge(similarity, types, THRESHOLDS, power))
    gradient = tape.gradient(loss, similarity).numpy()
    gap = np.array(THRESHOLDS)[types] - values[:, 0]
    assert min((gap > 0).sum(), (gap <= 0).sum()) > 2
    np.testing.assert_allclose(gradient, np.where(gap > 0, -power * np.maximum(gap, 0) ** (power - 1), 0), atol=1e-5)


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("shape", [(3, 4), (1, 1), (1, 5), (3, 0)])
def test_all_masked_is_zero_with_zero_gradient(power: int, shape: tuple[int, int]) -> None:
    similarity = tf.Variable(np.full(shape, 0.9, np.float32))
    with tf.GradientTape() as tape:
        loss = negative_hinge(similarity, tf.zeros(shape, tf.bool), 0.2, power)
    assert loss.numpy().tolist() == [0.0] * shape[0]
    assert not tape.gradient(loss, similarity).numpy().any()


@pytest.mark.parametrize("power", [1, 2])
def test_at_the_threshold_the_loss_is_zero_and_the_gradient_is_a_number(power: int) -> None:
    similarity = tf.Variable([0.5])
    with tf.GradientTape(persistent=True) as tape:
        positive = positive_hinge(similarity, tf.constant([0]), (0.5,), power)
        negative = negative_hinge(similarity[:, tf.newaxis], tf.constant([[True]]), 0.5, power)
    assert positive.numpy() == negative.numpy() == 0
    for loss in (positive, negative):
        assert np.isfinite(tape.gradient(loss, similarity)).all()


def test_a_masked_candidate_is_a_candidate_that_is_not_there() -> None:
    similarity, is_negative, _ = random_case(5, 1, 40)
    masked = negative_hinge(tf.constant(similarity), is_negative, 0.2, 2)
    absent = negative_hinge(tf.constant(similarity[:, is_negative[0]]), np.ones((1, is_negative.sum()), bool), 0.2, 2)
    assert 0 < is_negative.sum() < 40
    np.testing.assert_allclose(masked, absent, rtol=1e-5)


def test_a_masked_candidate_without_a_number_does_no_harm() -> None:
    """A known positive whose embedding broke must not turn the whole step into NaN."""
    similarity = tf.Variable([[0.5, float("nan")]])
    with tf.GradientTape() as tape:
        loss = negative_hinge(similarity, tf.constant([[True, False]]), 0.2, 2)
    np.testing.assert_allclose(loss, [0.09], atol=1e-6)
    assert np.isfinite(tape.gradient(loss, similarity)[0, 0])


def test_order_of_candidates_does_not_matter_and_halves_add_up() -> None:
    similarity, is_negative, _ = random_case(6, 5, 12)
    order = np.random.default_rng(1).permutation(12)
    whole = negative_hinge(tf.constant(similarity), is_negative, 0.1, 1)
    shuffled = negative_hinge(tf.constant(similarity[:, order]), is_negative[:, order], 0.1, 1)
    halves = sum(
        negative_hinge(tf.constant(similarity[:, part]), is_negative[:, part], 0.1, 1)
        for part in (slice(0, 5), slice(5, 12))
    )
    assert whole.numpy().max() > 0
    np.testing.assert_allclose(whole, shuffled, rtol=1e-5)
    np.testing.assert_allclose(whole, halves, rtol=1e-5)


# Sampled softmax


def softmax_case(seed: int, rows: int, columns: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    similarity, is_negative, _ = random_case(seed, rows, columns)
    positive = rng.integers(0, columns, rows).astype(np.int32)
    log_expected_count = rng.uniform(-9, 1, columns).astype(np.float32)
    weight = rng.choice([0.0, 0.25, 1.0, 2.0], columns).astype(np.float32)
    return similarity, positive, is_negative, log_expected_count, weight


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 9), st.sampled_from([0.05, 0.2, 1.0]))
def test_sampled_softmax_is_the_oracle(seed: int, rows: int, columns: int, temperature: float) -> None:
    case = softmax_case(seed, rows, columns)
    got = sampled_softmax(*map(tf.constant, case), temperature).numpy()
    np.testing.assert_allclose(got, oracles.sampled_softmax(*case, temperature), rtol=1e-4, atol=1e-4)
    assert (got >= 0).all()


def test_sampled_softmax_spelled_out() -> None:
    """exp(s / τ) / Q: the positive's 4 / 2; negatives 1 / 0.5 and, at weight ½, 3 / 1; the last is masked."""
    similarity = tf.math.log(tf.constant([[4.0, 1.0, 3.0, 9.0]])) * 0.1
    counts = tf.math.log(tf.constant([2.0, 0.5, 1.0, 1.0]))
    is_negative, weight = tf.constant([[False, True, True, False]]), tf.constant([1.0, 1.0, 0.5, 1.0])
    got = sampled_softmax(similarity, tf.constant([0]), is_negative, counts, weight, 0.1)
    np.testing.assert_allclose(got, [-np.log(2.0 / (2.0 + 2.0 + 1.5))], rtol=1e-5)


def test_sampled_softmax_estimates_the_full_softmax() -> None:
    """What logQ is for: corrected draws stand for the whole catalogue, however unequal the shares they came with."""
    rng = np.random.default_rng(0)
    catalogue = rng.uniform(-1, 1, 50).astype(np.float32)
    share = rng.dirichlet(np.full(50, 0.5)) * 0.9 + 0.1 / 50
    drawn = rng.choice(50, 100_000, p=share)
    everything = float(np.exp(catalogue / 0.5).sum())

    def estimate(log_expected_count: np.ndarray) -> float:
        similarity = np.concatenate([[0.0], catalogue[drawn]]).astype(np.float32)[np.newaxis]
        counts = np.concatenate([[0.0], log_expected_count[drawn]]).astype(np.float32)
        is_negative = tf.ones([1, 100_001], tf.bool)
        loss = sampled_softmax(
            tf.constant(similarity), tf.constant([0]), is_negative, tf.constant(counts), tf.ones([100_001]), 0.5
        )
        return float(np.exp(loss.numpy()[0])) - 1.0

    assert estimate(np.log(100_000 * share)) == pytest.approx(everything, rel=0.02)
    assert abs(estimate(np.full(50, np.log(100_000 / 50))) - everything) > 0.05 * everything


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_gradient_of_sampled_softmax(temperature: float) -> None:
    """Masked, or of weight 0: exactly zero. Negatives push down, the positive is pulled up, and rows sum to 0."""
    values, positive, is_negative, counts, weight = softmax_case(11, 20, 30)
    similarity = tf.Variable(values)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(sampled_softmax(similarity, positive, is_negative, counts, weight, temperature))
    gradient = tape.gradient(loss, similarity).numpy()
    is_positive = np.eye(30, dtype=bool)[positive]
    takes_part = is_positive | (is_negative & (weight > 0))
    assert min((~is_negative & ~is_positive).sum(), (is_negative & (weight == 0)).sum(), takes_part.sum()) > 20
    assert (gradient[~takes_part] == 0).all()
    assert (gradient[takes_part & ~is_positive] >= 0).all()
    assert (gradient[is_positive] < 0).all()
    np.testing.assert_allclose(gradient.sum(axis=1), 0, atol=1e-4)


def test_sampled_softmax_without_a_negative_is_zero_with_zero_gradient() -> None:
    similarity = tf.Variable([[0.9, float("nan"), 0.3], [0.9, 0.5, 0.3]])
    arguments = (tf.constant([0, 0]), tf.zeros([2, 3], tf.bool), tf.zeros([3]), tf.ones([3]), 0.05)
    with tf.GradientTape() as tape:
        loss = sampled_softmax(similarity, *arguments)
    assert loss.numpy().tolist() == [0.0, 0.0]
    assert tape.gradient(loss, similarity).numpy().tolist() == [[0.0] * 3] * 2


def test_extreme_logits_stay_numbers() -> None:
    similarity = tf.Variable([[-1.0, 1.0, 1.0]])
    with tf.GradientTape() as tape:
        loss = sampled_softmax(
            similarity, tf.constant([0]), tf.constant([[False, True, True]]), tf.constant([5.0, -30.0, -30.0]),
            tf.constant([1.0, 1e-6, 1.0]), 0.001,
        )  # fmt: skip
    assert np.isfinite(loss).all()
    assert np.isfinite(tape.gradient(loss, similarity)).all()
