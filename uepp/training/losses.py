"""Losses as pure functions of similarities: the multi-part hinge (UEPPR III-E) and a sampled softmax."""

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


def sampled_softmax(
    similarity: tf.Tensor,
    positive_column: tf.Tensor,
    is_negative: tf.Tensor,
    log_expected_count: tf.Tensor,
    weight: tf.Tensor,
    temperature: float,
) -> tf.Tensor:
    """Softmax cross entropy over sampled candidates with logQ correction (Yi et al. 2019, Eq. 3-4).

    With corrected logits sᶜⱼ = sⱼ / τ − log Qⱼ: −sᶜ₊ + log(exp sᶜ₊ + Σ_negatives wⱼ · exp sᶜⱼ). The correction
    undoes that frequent products are drawn more often. w lets a source of candidates count less (an addition;
    1 is the plain loss).

    Args:
        similarity: float32 [B, C], cosine of each query and candidate.
        positive_column: int32 [B], the column of each query's own positive.
        is_negative: bool [B, C], False where the candidate is left out (a known positive, or not chosen);
            the positive itself always takes part, whatever stands here.
        log_expected_count: float32 [C], log Q, log of the expected number of times that the column's own source
            draws its product; 0 for candidates that were not drawn but chosen.
        weight: float32 [B, C] or [C], w ≥ 0; a candidate of weight 0 is left out.
        temperature: τ > 0.

    Returns:
        float32 [B]; 0 for a query without a negative.
    """
    is_positive = tf.one_hot(positive_column, tf.shape(similarity)[1], on_value=True, off_value=False, dtype=tf.bool)
    has_weight = weight > 0
    log_weight = tf.math.log(tf.where(has_weight, weight, 1.0))
    logits = similarity / temperature - log_expected_count + tf.where(is_positive, 0.0, log_weight)
    takes_part = is_positive | (is_negative & has_weight)
    logits = tf.where(takes_part, logits, logits.dtype.min)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=positive_column, logits=logits)
