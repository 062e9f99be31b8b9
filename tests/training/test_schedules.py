"""Weights over time against their definition, and at the edges."""

import oracles
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from uepp.training.schedules import linear_weight


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 400), st.floats(0, 5), st.floats(0, 5), st.integers(0, 100), st.integers(0, 100))
def test_linear_weight_is_the_oracle(step: int, start: float, end: float, warmup: int, ramp: int) -> None:
    got = float(linear_weight(tf.constant(step, tf.int64), start, end, warmup_steps=warmup, ramp_steps=ramp))
    assert got == pytest.approx(oracles.linear_weight(step, start, end, warmup, ramp), abs=1e-5)
    assert min(start, end) - 1e-5 <= got <= max(start, end) + 1e-5


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 1.0), (9, 1.0), (10, 1.0), (11, 0.9), (15, 0.5), (19, 0.1), (20, 0.0), (10**12, 0.0)]
)
def test_the_edges(step: int, expected: float) -> None:
    step_variable = tf.Variable(step, dtype=tf.int64)
    weight = float(linear_weight(step_variable, 1.0, 0.0, warmup_steps=10, ramp_steps=10))
    assert weight == pytest.approx(expected, abs=1e-6)
    if expected in (0.0, 1.0):
        assert weight == expected, "both ends are exact, so that a source of weight 0 is skipped"


def test_without_a_ramp_it_jumps_and_without_a_warm_up_it_starts_at_once() -> None:
    jump = [float(linear_weight(step, 0.25, 2.0, warmup_steps=3, ramp_steps=0)) for step in range(5)]
    assert jump == [0.25, 0.25, 0.25, 2.0, 2.0]
    ramp = [float(linear_weight(step, 0.0, 1.0, warmup_steps=0, ramp_steps=4)) for step in range(6)]
    assert ramp == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    assert float(linear_weight(0, 0.25, 2.0, warmup_steps=0, ramp_steps=0)) == 2.0


def test_it_reads_the_step_in_a_graph() -> None:
    step = tf.Variable(0, dtype=tf.int64)

    @tf.function
    def weight() -> tf.Tensor:
        return linear_weight(step, 0.0, 1.0, warmup_steps=1, ramp_steps=2)

    seen = []
    for _ in range(5):
        seen.append(float(weight()))
        step.assign_add(1)
    assert seen == [0.0, 0.0, 0.5, 1.0, 1.0]
