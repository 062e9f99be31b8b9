"""Sparse rows move and nothing else does; dense weights move too."""

from typing import Any

import numpy as np
import oracles
import pytest
import tensorflow as tf

from uepp.config import Config
from uepp.model.towers import TwoTower, build_two_tower
from uepp.training.optimizers import build_optimizer

NUM_TOKENS = 20
TOUCHED = [1, 2, 4, 7]
UNTOUCHED = [row for row in range(NUM_TOKENS) if row not in TOUCHED]


def built(
    *, warmup_steps: int = 0, max_steps: int = 10**7, **model: Any
) -> tuple[TwoTower, tf.keras.optimizers.Optimizer]:
    """By default with learning rates that stay at their peak."""
    training = {"warmup_steps": warmup_steps, "max_steps": max_steps}
    config = Config.model_validate(
        {
            "features": {"groups": [["title"]]},
            "model": {"token_dim": 4, "output_dim": 4, "hidden_layers": [6]} | model,
            "training": {"table_learning_rate": 0.1, "dense_learning_rate": 0.01, **training},
        }
    )
    two_tower = build_two_tower(config, NUM_TOKENS, np.ones(NUM_TOKENS, np.float32))
    two_tower(batch())
    return two_tower, build_optimizer(two_tower, config.training)


def batch() -> dict[str, tf.Tensor]:
    return {
        "query/values": tf.constant([1, 2, 2, 4]),
        "query/lengths": tf.constant([1, 3]),
        "product/0/values": tf.constant([7, 7, 1]),
        "product/0/lengths": tf.constant([2, 1]),
    }


def step(model: TwoTower, optimizer: tf.keras.optimizers.Optimizer) -> None:
    with tf.GradientTape() as tape:
        queries, products = model(batch(), training=True)
        loss = tf.reduce_mean(tf.matmul(queries, products, transpose_b=True) * tf.constant([[-1.0, 2.0], [3.0, -1.0]]))
    gradients = tape.gradient(loss, model.trainable_variables)
    assert isinstance(
        gradients[[v.ref() for v in model.trainable_variables].index(model.table_variables[0].ref())], tf.IndexedSlices
    )
    optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))


def table_slots(optimizer: tf.keras.optimizers.Optimizer) -> list[tf.Variable]:
    """State the size of the token table."""
    parts = [part.variables for part in optimizer.optimizers]
    variables = [v for part in parts for v in (part() if callable(part) else part)]
    return [variable for variable in variables if variable.shape.as_list() == [NUM_TOKENS, 4]]


def test_only_touched_rows_and_their_slots_move() -> None:
    model, optimizer = built()
    step(model, optimizer)  # makes the slots
    (table,), (slot,) = model.table_variables, table_slots(optimizer)
    rows, accumulated = table.numpy(), slot.numpy()
    dense = [variable.numpy() for variable in model.dense_variables]
    step(model, optimizer)
    assert (np.abs(table.numpy() - rows)[TOUCHED].max(axis=1) > 1e-4).all()
    assert (slot.numpy() - accumulated)[TOUCHED].max(axis=1).min() > 0
    np.testing.assert_array_equal(table.numpy()[UNTOUCHED], rows[UNTOUCHED])
    np.testing.assert_array_equal(slot.numpy()[UNTOUCHED], accumulated[UNTOUCHED])
    assert accumulated[UNTOUCHED].max() < 1e-6, "rows that were never seen have an empty slot"
    assert len(dense) > 4
    for before, variable in zip(dense, model.dense_variables, strict=True):
        assert not np.array_equal(before, variable.numpy()), f"{variable.name} did not move"


@pytest.mark.parametrize("projection", ["equal", "independent"])
def test_a_model_without_hidden_layers_trains_too(projection: str) -> None:
    model, optimizer = built(hidden_layers=[], initial_projection=projection)
    before = [variable.numpy() for variable in model.trainable_variables]
    assert len(before) >= 3
    step(model, optimizer)
    for old, variable in zip(before, model.trainable_variables, strict=True):
        assert not np.array_equal(old, variable.numpy())


def apply_to_table(gradients: list[tf.IndexedSlices], **settings: Any) -> tuple[np.ndarray, np.ndarray]:
    """The table before and after some steps with given gradients."""
    model, optimizer = built(**settings)
    table = model.table_variables[0]
    before = table.numpy()
    for gradient in gradients:
        pairs = [(gradient if v.ref() == table.ref() else tf.zeros_like(v), v) for v in model.trainable_variables]
        optimizer.apply_gradients(pairs)
    return before, table.numpy()


def test_table_steps_are_adagrad() -> None:
    rng = np.random.default_rng(1)
    dense = [np.zeros((NUM_TOKENS, 4)) for _ in range(3)]
    for gradient in dense:
        gradient[TOUCHED] = rng.uniform(0.1, 1, (4, 4)) * rng.choice([-1, 1], (4, 4))
    slices = [
        tf.IndexedSlices(tf.constant(g[TOUCHED], tf.float32), tf.constant(TOUCHED), [NUM_TOKENS, 4]) for g in dense
    ]
    before, after = apply_to_table(slices)
    expected, accumulator = before, np.zeros_like(before)
    for gradient in dense:
        expected, accumulator = oracles.adagrad_rows(expected, accumulator, gradient, 0.1)
    np.testing.assert_allclose(after, expected, atol=1e-4)


def test_a_row_given_twice_is_one_row_with_the_sum() -> None:
    """Adagrad must square the sum: adding the squares of the parts makes the step √2 times too large."""
    twice = tf.IndexedSlices(tf.constant([[0.5] * 4, [0.5] * 4]), tf.constant([7, 7]), [NUM_TOKENS, 4])
    before, after = apply_to_table([twice])
    np.testing.assert_allclose(after[7] - before[7], -0.1, atol=1e-4)
    np.testing.assert_array_equal(np.delete(after, 7, axis=0), np.delete(before, 7, axis=0))


@pytest.mark.parametrize("size", [1e-1, 1e-2, 1e-3])
def test_the_first_step_of_a_row_has_the_size_of_the_learning_rate(size: float) -> None:
    """Also for the small gradients of a token in one bag of a large batch: η · g / √(1e-7 + g²) is nearly η."""
    once = tf.IndexedSlices(tf.constant([[size] * 4]), tf.constant([7]), [NUM_TOKENS, 4])
    before, after = apply_to_table([once])
    np.testing.assert_allclose(after[7] - before[7], -0.1, rtol=0.1)


def test_a_negligible_gradient_makes_a_small_step() -> None:
    once = tf.IndexedSlices(tf.constant([[1e-5] * 4]), tf.constant([7]), [NUM_TOKENS, 4])
    before, after = apply_to_table([once])
    np.testing.assert_allclose(after[7] - before[7], -0.1 * 1e-5 / np.sqrt(1e-7 + 1e-10), rtol=1e-3)


@pytest.mark.parametrize(("warmup_steps", "max_steps"), [(5, 20), (0, 20), (19, 20), (100, 20)])
def test_learning_rates_rise_then_fall(warmup_steps: int, max_steps: int) -> None:
    """Step n touches row n for the first time, so the row's move is the learning rate of that step."""
    slices = [tf.IndexedSlices(tf.ones([1, 4]), tf.constant([row]), [NUM_TOKENS, 4]) for row in range(NUM_TOKENS)]
    before, after = apply_to_table(slices, warmup_steps=warmup_steps, max_steps=max_steps)
    expected = [0.1 * oracles.learning_rate_share(step, warmup_steps, max_steps) for step in range(NUM_TOKENS)]
    np.testing.assert_allclose((before - after)[:, 0], expected, rtol=1e-3, atol=1e-6)
    assert min(expected) > 0
