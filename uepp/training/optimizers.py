"""Sparse updates for embedding tables, dense ones for the rest."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import tensorflow as tf
import tensorflow_recommenders as tfrs

from uepp.config import TrainingConfig
from uepp.model.towers import TwoTower
from uepp.runs.rates import WarmUpThenDecay

Gradient: TypeAlias = tf.Tensor | tf.IndexedSlices

# A row's first step has the size of the learning rate for gradients well above √1e-7 ≈ 3e-4, and is smaller for those
# below it (noise of a token that hardly matters). Keras' default of 0.1 is far above the squares of these gradients
# (averages over a batch and a bag) and would freeze the table.
_INITIAL_ACCUMULATOR = 1e-7


class SparseAdagrad(tf.keras.optimizers.Optimizer):
    """Adagrad for tables; a step costs what the touched rows cost, whatever the size of the table.

    A ← A + g², E ← E − η · g / √A (Duchi et al. 2011), only in rows of the gradient; the same numbers as Keras'
    Adagrad with epsilon 0. Row-wise, A is one number a row, A ← A + mean(g²): the optimiser takes a D-th of the
    table's memory instead of as much again.

    Keras' own reads its accumulator by tf.gather, which reads a mirrored variable whole: a copy of the slot each step
    (benchmarks/sparse_updates.py). Gradients of all replicas, and those of a row given more than once, are added up
    before they are squared. A table without a gradient (None) keeps its values.

    Args:
        learning_rate: η, a number or a schedule.
        initial_accumulator: A before the first step, above 0.
        rowwise: one accumulator a row instead of one a number.
    """

    def __init__(
        self,
        learning_rate: float | tf.keras.optimizers.schedules.LearningRateSchedule,
        initial_accumulator: float = _INITIAL_ACCUMULATOR,
        *,
        rowwise: bool = False,
    ) -> None:
        # XLA, which Keras takes on a GPU, would compile a step again for each number of touched rows. Weight decay 0,
        # the default, would rewrite whole tables.
        super().__init__(name="SparseAdagrad", weight_decay=None, jit_compile=False)
        self._learning_rate = self._build_learning_rate(learning_rate)
        self._initial_accumulator = initial_accumulator
        self._rowwise = rowwise

    def build(self, var_list: Sequence[tf.Variable]) -> None:
        """Make the accumulators of all tables, once."""
        super().build(var_list)
        if getattr(self, "_built", False):
            return
        self._built = True
        self._accumulators = [self._new_accumulator(variable) for variable in var_list]

    def apply_gradients(
        self, grads_and_vars: Iterable[tuple[Gradient | None, tf.Variable]], *args: Any, **kwargs: Any
    ) -> tf.Variable:
        """Take one step; the arguments are those of every Keras optimizer."""
        pairs = [(_some_rows(gradient, table), table) for gradient, table in grads_and_vars]
        return super().apply_gradients(pairs, *args, **kwargs)

    def update_step(self, gradient: Gradient, variable: tf.Variable) -> None:
        """Update one replica's copy of a table, whose gradient has each row once."""
        if not isinstance(gradient, tf.IndexedSlices):
            gradient = tf.IndexedSlices(gradient, tf.range(tf.shape(gradient)[0]))
        accumulator = self._accumulators[self._index_dict[self._var_key(variable)]]
        rate = tf.cast(self.learning_rate, variable.dtype)
        # By handle, which is that of the replica's own copy: tf.gather of a mirrored variable reads all of it.
        rows = {"resource": accumulator.handle, "indices": gradient.indices}
        if not self._rowwise:
            tf.raw_ops.ResourceSparseApplyAdagradV2(
                var=variable.handle,
                accum=accumulator.handle,
                lr=rate,
                epsilon=tf.zeros([], variable.dtype),
                grad=gradient.values,
                indices=gradient.indices,
            )
            return
        tf.raw_ops.ResourceScatterAdd(**rows, updates=tf.reduce_mean(gradient.values**2, axis=1))
        accumulated = tf.raw_ops.ResourceGather(**rows, dtype=variable.dtype)
        change = rate * gradient.values / tf.sqrt(accumulated)[:, tf.newaxis]
        tf.raw_ops.ResourceScatterSub(resource=variable.handle, indices=gradient.indices, updates=change)

    def _new_accumulator(self, table: tf.Variable) -> tf.Variable:
        initial = tf.fill(table.shape[:1] if self._rowwise else table.shape, self._initial_accumulator)
        return self.add_variable_from_reference(table, "accumulator", initial_value=initial)


def _some_rows(gradient: Gradient | None, table: tf.Variable) -> Gradient:
    """The gradient; where it has no row, a zero for row 0, which changes nothing.

    TensorFlow crashes when it gathers gradients that are empty on all replicas (tensorflow/tensorflow#65785), as those
    of a batch without any shop would be.
    """
    no_change = tf.zeros([1, table.shape[1]], table.dtype)
    if gradient is None:
        return tf.IndexedSlices(no_change, tf.zeros([1], tf.int32), tf.constant(table.shape.as_list()))
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    values, indices = tf.cond(
        tf.size(gradient.indices) > 0,
        lambda: (gradient.values, gradient.indices),
        lambda: (no_change, tf.zeros([1], gradient.indices.dtype)),
    )
    return tf.IndexedSlices(values, indices, gradient.dense_shape)


def build_optimizer(model: TwoTower, config: TrainingConfig) -> tf.keras.optimizers.Optimizer:
    """Adagrad on the tables (touches only the rows of a batch), Adam on everything else.

    Args:
        model: already built.
        config: the learning rates, and which Adagrad.
    """
    is_rowwise = config.table_optimizer == "rowwise_adagrad"
    table = SparseAdagrad(_schedule(config.table_learning_rate, config), rowwise=is_rowwise)
    dense = tf.keras.optimizers.Adam(_schedule(config.dense_learning_rate, config))
    parts = [(table, lambda: model.table_variables)]
    if model.dense_variables:
        parts.append((dense, lambda: model.dense_variables))
    if model.text_variables:
        text = tf.keras.optimizers.Adam(_schedule(config.text_learning_rate, config))
        parts.append((text, lambda: model.text_variables))
    for optimizer, variables in parts:
        # Slots that the first step makes have TensorFlow trace it a second time, which doubles the time to start.
        optimizer.build(variables())
    return tfrs.experimental.optimizers.CompositeOptimizer(parts)


def _schedule(peak: float, config: TrainingConfig) -> WarmUpThenDecay:
    return WarmUpThenDecay(peak, config.warmup_steps, config.max_steps)
