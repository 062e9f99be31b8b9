"""Sparse updates for token tables, dense ones for the rest."""

import tensorflow as tf
import tensorflow_recommenders as tfrs

from uepp.config import TrainingConfig
from uepp.model.towers import TwoTower

_INITIAL_ACCUMULATOR = 1e-7


class _WarmUpThenDecay(tf.keras.optimizers.schedules.LearningRateSchedule):
    """From 0 to the peak over `warmup_steps`, then linearly to 0 at `max_steps`."""

    def __init__(self, peak: float, config: TrainingConfig) -> None:
        self._peak = peak
        self._warmup_steps = config.warmup_steps
        self._max_steps = config.max_steps

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """Learning rate of a step."""
        done = tf.cast(step, tf.float32)
        rising = (done + 1.0) / (self._warmup_steps + 1.0)
        falling = (self._max_steps - done) / tf.maximum(float(self._max_steps - self._warmup_steps), 1.0)
        return self._peak * tf.clip_by_value(tf.minimum(rising, falling), 0.0, 1.0)


def build_optimizer(model: TwoTower, config: TrainingConfig) -> tf.keras.optimizers.Optimizer:
    """Adagrad on the token tables (touches only the rows of a batch), Adam on everything else.

    Args:
        model: its variables are split by kind at each step, so it may be built later.
        config: the two learning rates.
    """
    # A row's first step has the size of the learning rate for gradients well above √1e-7 ≈ 3e-4, and is smaller for
    # those below it (noise of a token that hardly matters). Keras' default of 0.1 is far above the squares of these
    # gradients (averages over a batch and a bag) and would freeze the table.
    table = tf.keras.optimizers.Adagrad(
        _WarmUpThenDecay(config.table_learning_rate, config),
        initial_accumulator_value=_INITIAL_ACCUMULATOR,
        epsilon=0.0,
    )
    dense = tf.keras.optimizers.Adam(_WarmUpThenDecay(config.dense_learning_rate, config))
    parts = [(table, lambda: model.table_variables)]
    if model.dense_variables:
        parts.append((dense, lambda: model.dense_variables))
    return tfrs.experimental.optimizers.CompositeOptimizer(parts)
