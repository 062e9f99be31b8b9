"""The multi-part hinge (UEPPR III-E), as pure functions of similarities."""

from collections.abc import Sequence

import tensorflow as tf


def positive_hinge(similarity: tf.Tensor, type_ids: tf.Tensor, thresholds: Sequence[float], power: int) -> tf.Tensor:
    """Positives' parts of the hinge, Σᵢ 1[ŷ = i] · max(0, εᵢ − y) (UEPPR III-E).

    Args:
        similarity: float32 [B], y, cosine of each query and its positive.
        type_ids: int32 [B], i, position of the interaction type in `thresholds`.
        thresholds: εᵢ for each interaction type, in [-1, 1].
        power: 1 for the paper's linear hinge, 2 for its square (a deviation, chosen by study).

    Returns:
        float32 [B].
    """
    threshold = tf.gather(tf.constant(thresholds, similarity.dtype), type_ids)
    return tf.maximum(threshold - similarity, 0.0) ** power


def negative_hinge(similarity: tf.Tensor, is_negative: tf.Tensor, threshold: float, power: int) -> tf.Tensor:
    """Negatives' part of the hinge, Σ 1⁻ · max(0, y − ε), summed over a query's negatives (UEPPR III-E).

    A sum and not a mean: most negatives are below ε and add nothing, so a mean over all of them would let
    the few that matter fade as the number of candidates grows.

    Args:
        similarity: float32 [B, C], y, cosine of each query and candidate.
        is_negative: bool [B, C], False where the candidate is masked (a known positive).
        threshold: ε in [-1, 1].
        power: 1 or 2.

    Returns:
        float32 [B]; 0 for a query without a negative above ε.
    """
    excess = tf.where(is_negative, tf.maximum(similarity - threshold, 0.0), 0.0)
    return tf.reduce_sum(excess**power, axis=1)
