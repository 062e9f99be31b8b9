"""Weights of the loss parts over time."""

import tensorflow as tf


def linear_weight(step: tf.Tensor | int, start: float, end: float, *, warmup_steps: int, ramp_steps: int) -> tf.Tensor:
    """Weight of a step: `start` while warming up, then a straight line to `end` (UEPPR III-D).

    w(step) = start + (end − start) · min(1, max(0, (step − warmup) / ramp)); without a ramp it jumps.

    Args:
        step: integer scalar, steps taken so far (0 in the first step).
        start: weight of steps 0 to `warmup_steps`.
        end: weight from step `warmup_steps + ramp_steps` on.
        warmup_steps: steps at `start`.
        ramp_steps: steps from `start` to `end`; with 0, step `warmup_steps` is the first at `end`.

    Returns:
        float32 scalar; a function of the step alone, so a resumed run goes on where it was.
    """
    since_warmup = tf.cast(step, tf.float32) - float(warmup_steps)
    share = (
        tf.clip_by_value(since_warmup / ramp_steps, 0.0, 1.0) if ramp_steps else tf.cast(since_warmup >= 0, tf.float32)
    )
    # Written so that both ends are exact: a source whose weight is exactly 0 is skipped.
    return start * (1.0 - share) + end * share
