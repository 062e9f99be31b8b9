"""Learning rates over the steps of a run."""

import tensorflow as tf


class WarmUpThenDecay(tf.keras.optimizers.schedules.LearningRateSchedule):
    """From 0 to the peak over `warmup_steps`, then linearly to 0 at `max_steps`."""

    def __init__(self, peak: float, warmup_steps: int, max_steps: int) -> None:
        self._peak = peak
        self._warmup_steps = warmup_steps
        self._max_steps = max_steps

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """Learning rate of a step."""
        done = tf.cast(step, tf.float32)
        rising = (done + 1.0) / (self._warmup_steps + 1.0)
        falling = (self._max_steps - done) / tf.maximum(float(self._max_steps - self._warmup_steps), 1.0)
        return self._peak * tf.clip_by_value(tf.minimum(rising, falling), 0.0, 1.0)
