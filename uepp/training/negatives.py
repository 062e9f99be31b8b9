"""Negatives: which candidates a query is compared with (UEPPR III-D); everything here only chooses."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from uepp.training.false_negatives import false_negative_estimate, regularized_similarity


def known_positive_mask(candidates: tf.Tensor, known_values: tf.Tensor, known_lengths: tf.Tensor) -> tf.Tensor:
    """Which candidates are known to answer which query, by product id.

    Needs no more memory than a few times its result, however many products a query knows.

    Args:
        candidates: int32 [C], product of each column; a product may stand in several columns.
        known_values: int32 [T], products that answer query 0, then those of query 1, …
        known_lengths: int32 [B], how many of them belong to each query.

    Returns:
        bool [B, C].
    """
    ordered = tf.sort(candidates)
    # A product is looked for at its first place in the ordered candidates; all its columns read from there.
    is_known = _known_among(ordered, known_values, known_lengths)
    return tf.gather(is_known, tf.searchsorted(ordered, candidates), axis=1)


def select_highest(score: tf.Tensor, is_negative: tf.Tensor, num_negatives: int) -> tf.Tensor:
    """Each query's k negatives with the highest score.

    Args:
        score: float32 [B, C]; of equal scores the first column wins.
        is_negative: bool [B, C], candidates to choose from.
        num_negatives: k.

    Returns:
        bool [B, C], True for min(k, number of negatives) of each row.
    """
    num_queries, num_candidates = tf.shape(score)[0], tf.shape(score)[1]
    best, column = tf.math.top_k(tf.where(is_negative, score, float("-inf")), tf.minimum(num_negatives, num_candidates))
    row = tf.broadcast_to(tf.range(num_queries)[:, tf.newaxis], tf.shape(column))
    place = tf.boolean_mask(tf.stack([row, column], axis=2), best > float("-inf"))
    return _true_at(place, [num_queries, num_candidates])


def select_uniform(is_negative: tf.Tensor, num_negatives: int, seed: tf.Tensor) -> tf.Tensor:
    """A query's k negatives, each candidate with the same chance.

    Args:
        is_negative: bool [B, C], candidates to choose from.
        num_negatives: k.
        seed: integers [2]; the choice is a function of it alone.

    Returns:
        bool [B, C], True for min(k, number of negatives) of each row.
    """
    return select_highest(tf.random.stateless_uniform(tf.shape(is_negative), seed), is_negative, num_negatives)


def select_hardest_regularized(
    similarity: tf.Tensor,
    is_negative: tf.Tensor,
    theta: tf.Tensor,
    num_negatives: int,
    temperature: float,
    seed: tf.Tensor,
) -> tf.Tensor:
    """Each query's k hardest negatives, likely false negatives held back (BHNS Eq. 7).

    Args:
        similarity: float32 [B, C].
        is_negative: bool [B, C], candidates to choose from.
        theta: float32 [B, C], θ of `false_negative_estimate`.
        num_negatives: k.
        temperature: τ.
        seed: integers [2]; breaks the ties that Eq. 7 makes where it clamps at 0.

    Returns:
        bool [B, C], True for min(k, number of negatives) of each row.
    """
    score = regularized_similarity(similarity, theta, temperature)
    score = tf.where(score > 0, score, -tf.random.stateless_uniform(tf.shape(score), seed))
    return select_highest(score, is_negative, num_negatives)


class HardestOfPool(NamedTuple):
    """What `select_hardest` chose.

    Attributes:
        rows: int32 [B, K], row of the pool; 0 where nothing was chosen.
        is_chosen: bool [B, K], False where a query has fewer than K candidates.
        masked_share: float32 scalar, share of (query, distinct product) pairs that were masked.
    """

    rows: tf.Tensor
    is_chosen: tf.Tensor
    masked_share: tf.Tensor


def select_hardest(
    queries: tf.Tensor,
    encode: Callable[[tf.Tensor], tf.Tensor],
    pool: tf.Tensor,
    known_values: tf.Tensor,
    known_lengths: tf.Tensor,
    *,
    num_hardest: int,
    chunk: int,
    temperature: float = 0.0,
    seed: tf.Tensor | None = None,
) -> HardestOfPool:
    """Each query's K most similar products of a large pool that are not known to answer it.

    The pool is encoded chunk by chunk with a running top K, so memory holds B · (chunk + K) scores and one
    encoded chunk, never B · M. Nothing here has a gradient. Products are met in the order of their ids, so the
    result depends neither on the order of the pool nor on the chunk: of equally similar ones the lower id wins,
    and a product that was drawn twice is met once.

    Args:
        queries: float32 [B, d].
        encode: rows of the pool, int32 [n], to embeddings, float32 [n, d].
        pool: int32 [M], product of each row of the pool.
        known_values: int32 [T], products that answer query 0, then those of query 1, …
        known_lengths: int32 [B], how many of them belong to each query.
        num_hardest: K.
        chunk: n, products encoded at once.
        temperature: τ of BHNS Eq. 7, with θ from the queries of the batch that know the product; 0: off.
        seed: integers [2]; breaks the ties that Eq. 7 makes where it clamps at 0, by query and product.
    """
    queries = tf.stop_gradient(queries)
    query_similarity = tf.matmul(queries, queries, transpose_b=True) if temperature else None
    order = tf.argsort(pool, stable=True)
    products = tf.gather(pool, order)
    is_first = tf.concat([tf.ones_like(products[:1], tf.bool), products[1:] != products[:-1]], axis=0)
    products, rows = tf.boolean_mask(products, is_first), tf.boolean_mask(order, is_first)
    num_queries, num_products = tf.shape(queries)[0], tf.shape(products)[0]

    def meet_chunk(
        begin: tf.Tensor, best: tf.Tensor, best_rows: tf.Tensor, num_masked: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        end = tf.minimum(begin + chunk, num_products)
        is_known = _known_among(products[begin:end], known_values, known_lengths)
        score = tf.matmul(queries, encode(rows[begin:end]), transpose_b=True)
        if query_similarity is not None:
            theta = false_negative_estimate(query_similarity, tf.cast(is_known, score.dtype))
            score = regularized_similarity(score, theta, temperature)
            if seed is not None:
                score = tf.where(score > 0, score, -_draws(products[begin:end], num_queries, seed))
        score = tf.where(is_known, float("-inf"), score)
        best, position = tf.math.top_k(tf.concat([best, score], axis=1), num_hardest)
        kept = tf.gather(best_rows, tf.minimum(position, num_hardest - 1), batch_dims=1)
        fresh = tf.gather(rows, begin + tf.maximum(position - num_hardest, 0))
        best_rows = tf.where(position < num_hardest, kept, fresh)
        return end, best, best_rows, num_masked + tf.reduce_sum(tf.cast(is_known, tf.float32))

    empty = tf.fill([num_queries, num_hardest], float("-inf"))
    _, best, best_rows, num_masked = tf.while_loop(
        lambda begin, *_: begin < num_products,
        meet_chunk,
        (0, empty, tf.zeros_like(empty, tf.int32), 0.0),
        parallel_iterations=1,  # more would hold several encoded chunks at once
    )
    is_chosen = best > float("-inf")
    num_pairs = tf.cast(num_queries, tf.float32) * tf.cast(num_products, tf.float32)
    return HardestOfPool(tf.where(is_chosen, best_rows, 0), is_chosen, tf.math.divide_no_nan(num_masked, num_pairs))


def distinct_rows(rows: tf.Tensor, is_chosen: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The rows that at least one query chose, each once, and where each choice is among them.

    Args:
        rows: int32 [B, K].
        is_chosen: bool [B, K].

    Returns:
        int32 [U], increasing; int32 [B, K] in [0, U), without meaning where nothing was chosen.
    """
    distinct = tf.sort(tf.unique(tf.boolean_mask(rows, is_chosen)).y)
    position = tf.searchsorted(distinct, tf.reshape(rows, [-1]))
    return distinct, tf.reshape(position, tf.shape(rows))


def _draws(products: tf.Tensor, num_queries: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """float32 [B, n] in [0, 1), each a function of query, product and seed alone, so that chunks do not matter."""
    offset = tf.random.stateless_uniform([], seed, maxval=None, minval=None, dtype=tf.uint32)
    queries = tf.random.stateless_uniform([num_queries, 1], seed + 1, maxval=None, minval=None, dtype=tf.uint32)
    mixed = (tf.cast(products, tf.uint32)[tf.newaxis] + offset) * tf.constant(0x9E3779B1, tf.uint32)
    mixed = tf.bitwise.bitwise_xor(mixed, queries) * tf.constant(0x85EBCA77, tf.uint32)
    mixed = tf.bitwise.bitwise_xor(mixed, tf.bitwise.right_shift(mixed, 15)) * tf.constant(0xC2B2AE3D, tf.uint32)
    return tf.cast(tf.bitwise.right_shift(mixed, 8), tf.float32) / float(1 << 24)


def _known_among(ordered: tf.Tensor, known_values: tf.Tensor, known_lengths: tf.Tensor) -> tf.Tensor:
    """Bool [B, C], True at the first place of every known product among ordered candidates, int32 [C]."""
    num_queries = tf.shape(known_lengths)[0]
    first = tf.searchsorted(ordered, known_values)
    is_candidate = tf.searchsorted(ordered, known_values, side="right") > first
    row = tf.repeat(tf.range(num_queries), known_lengths)
    place = tf.boolean_mask(tf.stack([row, first], axis=1), is_candidate)
    return _true_at(place, [num_queries, tf.shape(ordered)[0]])


def _true_at(place: tf.Tensor, shape: list[tf.Tensor]) -> tf.Tensor:
    """Bool of a shape, True at the places, int32 [n, 2]."""
    return tf.scatter_nd(place, tf.ones(tf.shape(place)[:1]), tf.stack(shape)) > 0
