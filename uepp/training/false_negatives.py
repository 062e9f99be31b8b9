"""False negatives: how likely a candidate answers a query although nobody said so (BHNS §3.1, §3.2)."""

import tensorflow as tf


def false_negative_estimate(query_similarity: tf.Tensor, relevance: tf.Tensor) -> tf.Tensor:
    """Estimated probability that a candidate is a false negative of a query.

    θᵢⱼ = 1/Tⱼ · Σₜ rₜⱼ · sim(qᵢ, qₜ), over the Tⱼ queries with rₜⱼ > 0 (BHNS Eq. 6): similar queries share
    answers. Clamped to [0, 1], because cosines can be negative; a candidate that no query knows has θ = 0.

    Args:
        query_similarity: float32 [B, Q], cosine of each query and each query t of the batch.
        relevance: float32 [Q, C], r in [0, 1], known relevance of each candidate to query t; 0: unknown.

    Returns:
        float32 [B, C] in [0, 1].
    """
    is_relevant = relevance > 0
    num_relevant = tf.reduce_sum(tf.cast(is_relevant, query_similarity.dtype), axis=0)
    total = tf.matmul(query_similarity, tf.where(is_relevant, relevance, 0.0))
    return tf.clip_by_value(total / tf.maximum(num_relevant, 1.0), 0.0, 1.0)


def regularized_similarity(similarity: tf.Tensor, theta: tf.Tensor, temperature: float) -> tf.Tensor:
    """Similarity with which hard negatives are chosen, (1 − θ)^τ · sim (BHNS Eq. 7).

    Both factors are clamped at 0: two negative ones would make a likely false negative look hard.

    Args:
        similarity: float32 [B, C], cosine of each query and candidate.
        theta: float32 [B, C], θ of `false_negative_estimate`.
        temperature: τ ≥ 0; the larger, the more θ counts.

    Returns:
        float32 [B, C], at least 0.
    """
    # The slope of x^τ at 0 is infinite for τ < 1, so the power never sees a 0.
    is_possible = theta < 1.0
    factor = tf.where(is_possible, tf.where(is_possible, 1.0 - theta, 1.0) ** temperature, 0.0**temperature)
    return factor * tf.maximum(similarity, 0.0)
