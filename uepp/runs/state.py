"""State of a training that a checkpoint holds besides model and optimiser: counters, and the best weights so far."""

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf


class Variables(tf.Module):
    """Variables in their order, as a checkpoint takes them."""

    def __init__(self, values: Sequence[tf.Variable]) -> None:
        super().__init__()
        self.values = list(values)


def counter() -> tf.Variable:
    """A number of steps, 0 at first; the same on all replicas."""
    return tf.Variable(0, dtype=tf.int64, trainable=False, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA)


class BestWeights:
    """The weights with the lowest measure so far, and how often in a row no lower one was seen since.

    Args:
        weights: that are trained; made under the same strategy's scope as this.
    """

    def __init__(self, weights: Sequence[tf.Variable]) -> None:
        self._weights = list(weights)
        self._kept = [tf.Variable(weight, trainable=False) for weight in self._weights]
        self._step = counter()
        self._measure = tf.Variable(math.inf, dtype=tf.float64, trainable=False)
        self._num_worse = counter()

    @property
    def state(self) -> dict[str, tf.Module | tf.Variable]:
        """All that a checkpoint holds of it."""
        return {
            "best": Variables(self._kept),
            "best_step": self._step,
            "best_measure": self._measure,
            "num_worse": self._num_worse,
        }

    @property
    def step(self) -> int:
        """When they were seen; 0: never."""
        return int(self._step.numpy())

    @property
    def num_worse(self) -> int:
        """Measures in a row since then."""
        return int(self._num_worse.numpy())

    def see(self, measure: float, step: tf.Variable) -> None:
        """Compare the weights as they are with the best ones, and keep them if they are better."""
        if measure < self._measure.numpy():
            for kept, weight in zip(self._kept, self._weights, strict=True):
                kept.assign(weight.read_value())
            self._measure.assign(measure)
            self._step.assign(step)
            self._num_worse.assign(0)
        else:
            self._num_worse.assign_add(1)

    def restore(self) -> None:
        """Make the best weights the model's own."""
        for kept, weight in zip(self._kept, self._weights, strict=True):
            weight.assign(kept.read_value())

    def values(self) -> list[np.ndarray]:
        """The best weights."""
        return [weight.numpy() for weight in self._kept]
