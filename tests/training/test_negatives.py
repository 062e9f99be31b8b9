"""Choosing candidates: masks by id, in-batch choices, and the hardest of a large pool."""

from collections.abc import Callable

import numpy as np
import oracles
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from uepp.training.negatives import (
    HardestOfPool,
    distinct_rows,
    known_positive_mask,
    select_hardest,
    select_hardest_regularized,
    select_highest,
    select_uniform,
)

Known = list[list[int]]


def bags(known: Known) -> tuple[tf.Tensor, tf.Tensor]:
    values = np.array([product for answers in known for product in answers], np.int32)
    return tf.constant(values, tf.int32), tf.constant([len(answers) for answers in known], tf.int32)


def mask(candidates: list[int], known: Known) -> np.ndarray:
    return known_positive_mask(tf.constant(candidates, tf.int32), *bags(known)).numpy()


# Known positives


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.integers(0, 12), max_size=15),
    st.lists(st.lists(st.integers(0, 14), max_size=8, unique=True).map(sorted), min_size=1, max_size=5),
)
def test_the_mask_is_the_oracle(candidates: list[int], known: Known) -> None:
    """Duplicate candidates, products that are no candidates, queries that know nothing, no candidates at all."""
    np.testing.assert_array_equal(mask(candidates, known), oracles.known_positives(candidates, known))


def test_the_mask_spelled_out() -> None:
    got = mask([7, 3, 7, 5], [[3, 9], [], [5, 7]])
    assert got.tolist() == [[False, True, False, False], [False] * 4, [True, False, True, True]]


def test_a_query_that_knows_nearly_everything_costs_no_memory_a_candidate() -> None:
    """[B, C, known] would be 2 · 20,000 · 50,000 booleans."""
    everything = list(range(50_000))
    got = mask(list(range(49_000, 69_000)), [everything, [49_001]])
    assert got.sum(axis=1).tolist() == [1_000, 1]


def test_the_mask_in_a_graph_of_unknown_sizes() -> None:
    spec = tf.TensorSpec([None], tf.int32)
    traced = tf.function(known_positive_mask, input_signature=[spec, spec, spec])
    for candidates, known in (([4, 2, 4], [[2], [4]]), ([], [[2]]), ([9], [[], [], [9]])):
        got = traced(tf.constant(candidates, tf.int32), *bags(known)).numpy()
        np.testing.assert_array_equal(got, oracles.known_positives(candidates, known))


# In the batch


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(0, 9), st.integers(1, 12))
def test_the_highest_are_the_oracle(seed: int, rows: int, columns: int, number: int) -> None:
    """With ties (four different scores), masked candidates, and more asked for than there are."""
    rng = np.random.default_rng(seed)
    score = rng.choice([-0.5, 0.0, 0.25, 0.75], (rows, columns)).astype(np.float32)
    is_negative = rng.random((rows, columns)) < 0.6
    got = select_highest(tf.constant(score), tf.constant(is_negative), number).numpy()
    np.testing.assert_array_equal(got, oracles.highest(score, is_negative, number))
    np.testing.assert_array_equal(got.sum(axis=1), np.minimum(number, is_negative.sum(axis=1)))
    assert not (got & ~is_negative).any()


def test_the_highest_follow_their_columns() -> None:
    rng = np.random.default_rng(5)
    score, is_negative = rng.permutation(60).reshape(4, 15).astype(np.float32), rng.random((4, 15)) < 0.7
    order = rng.permutation(15)
    got = select_highest(tf.constant(score), is_negative, 3).numpy()
    shuffled = select_highest(tf.constant(score[:, order]), is_negative[:, order], 3).numpy()
    assert got.sum() == 12
    np.testing.assert_array_equal(got[:, order], shuffled)


def test_uniform_takes_every_negative_equally_often_and_no_other() -> None:
    is_negative = np.ones((1, 10), bool)
    is_negative[0, [2, 7]] = False
    counts = np.zeros(10)
    for element in range(2_000):
        counts += select_uniform(tf.constant(is_negative), 3, tf.constant([1, element], tf.int64)).numpy()[0]
    assert counts[[2, 7]].tolist() == [0, 0]
    assert counts.sum() == 6_000
    expected = 6_000 / 8
    assert np.abs(counts[is_negative[0]] - expected).max() < 5 * np.sqrt(expected)


def test_uniform_is_a_function_of_the_seed_and_differs_between_queries() -> None:
    is_negative = tf.ones([20, 30], tf.bool)
    first, again, other, other_seed = (
        select_uniform(is_negative, 4, tf.constant(seed, tf.int64)).numpy() for seed in ([1, 5], [1, 5], [1, 6], [2, 5])
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (first != other_seed).any()
    assert len(np.unique(first, axis=0)) > 10
    assert (first.sum(axis=1) == 4).all()


def test_regularized_choice_is_the_oracle_and_leaves_likely_false_negatives() -> None:
    rng = np.random.default_rng(3)
    similarity = rng.uniform(0.05, 1, (5, 12)).astype(np.float32)
    theta = rng.uniform(0, 1, (5, 12)).astype(np.float32)
    is_negative = rng.random((5, 12)) < 0.8
    got = select_hardest_regularized(tf.constant(similarity), is_negative, theta, 3, 2.0, tf.constant([1, 1])).numpy()
    score = oracles.regularized_similarity(similarity, theta, 2.0)
    np.testing.assert_array_equal(got, oracles.highest(score, is_negative, 3))
    plain = select_highest(tf.constant(similarity), is_negative, 3).numpy()
    assert theta[got].mean() < theta[plain].mean() - 0.1


def test_ties_of_the_clamp_are_broken_by_the_seed() -> None:
    """All similarities negative: Eq. 7 makes them all 0, and the first columns must not always win."""
    similarity, is_negative, theta = tf.fill([50, 20], -0.5), tf.ones([50, 20], tf.bool), tf.zeros([50, 20])
    first, again, other = (
        select_hardest_regularized(similarity, is_negative, theta, 2, 1.0, tf.constant(seed)).numpy()
        for seed in ([1, 1], [1, 1], [1, 2])
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert first.any(axis=0).sum() > 15
    one_positive = tf.concat([similarity[:, :-1], tf.fill([50, 1], 0.01)], axis=1)
    got = select_hardest_regularized(one_positive, is_negative, theta, 2, 1.0, tf.constant([1, 1])).numpy()
    assert got[:, -1].all(), "anything above 0 goes before what was clamped"


# The pool


class Pool:
    """A pool with embeddings by product; counts what was encoded."""

    def __init__(self, products: list[int], embeddings: dict[int, np.ndarray]) -> None:
        self.products, self.embeddings = products, embeddings
        self.encoded: list[int] = []
        self.largest_chunk = 0

    def encode(self, rows: tf.Tensor) -> tf.Tensor:
        chosen = [self.products[row] for row in rows.numpy()]
        self.encoded += chosen
        self.largest_chunk = max(self.largest_chunk, len(chosen))
        return tf.constant(np.stack([self.embeddings[product] for product in chosen]), tf.float32)

    def hardest(
        self, queries: np.ndarray, known: Known, number: int, chunk: int, temperature: float = 0.0, seed: int = 0
    ) -> HardestOfPool:
        return select_hardest(
            tf.constant(queries, tf.float32),
            self.encode,
            tf.constant(self.products, tf.int32),
            *bags(known),
            num_hardest=number,
            chunk=chunk,
            temperature=temperature,
            seed=tf.constant([seed, 1], tf.int64),
        )

    def chosen_products(self, result: HardestOfPool) -> list[list[int]]:
        """Products chosen for each query, hardest first."""
        rows, is_chosen = result.rows.numpy(), result.is_chosen.numpy()
        return [
            [self.products[row] for row, taken in zip(line, flags, strict=True) if taken]
            for line, flags in zip(rows, is_chosen, strict=True)
        ]


def whole_numbers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Small whole numbers: similarities are exact, and there are ties."""
    return rng.integers(-2, 3, shape).astype(np.float32)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10_000),
    st.lists(st.integers(0, 20), min_size=1, max_size=30),
    st.lists(st.lists(st.integers(0, 20), max_size=12, unique=True).map(sorted), min_size=1, max_size=4),
    st.integers(1, 8),
    st.sampled_from([1, 2, 5, 7, 100]),
)
def test_the_hardest_are_the_oracle(seed: int, products: list[int], known: Known, number: int, chunk: int) -> None:
    """Ties, duplicates in the pool, K beyond the pool, everything masked; whatever the chunk and the pool's order."""
    rng = np.random.default_rng(seed)
    embeddings = {product: whole_numbers(rng, 3) for product in sorted(set(products))}
    queries = whole_numbers(rng, len(known), 3)
    pool = Pool(products, embeddings)
    result = pool.hardest(queries, known, number, chunk)
    expected = oracles.hardest_of_pool(queries, embeddings, known, number)
    assert pool.chosen_products(result) == expected
    assert sorted(pool.encoded) == sorted(embeddings), "each distinct product is encoded once"
    assert pool.largest_chunk <= chunk
    masked = oracles.known_positives(sorted(embeddings), known)
    assert float(result.masked_share) == pytest.approx(masked.mean())

    other = Pool([products[position] for position in rng.permutation(len(products))], embeddings)
    assert other.chosen_products(other.hardest(queries, known, number, 3)) == expected


def test_a_larger_pool_in_chunks_is_the_pool_at_once() -> None:
    rng = np.random.default_rng(8)
    products = rng.permutation(5_000)[:1_500].tolist()
    vectors = rng.standard_normal((1_500, 16)).astype(np.float32)
    pool = Pool(products, dict(zip(products, vectors, strict=True)))
    queries = rng.standard_normal((12, 16)).astype(np.float32)
    known = [sorted(rng.choice(products, 300, replace=False).tolist()) for _ in range(12)]
    expected = oracles.hardest_of_pool(queries, pool.embeddings, known, 7)
    for chunk in (64, 777, 1_500, 10_000):
        assert pool.chosen_products(pool.hardest(queries, known, 7, chunk)) == expected
    unmasked = pool.chosen_products(pool.hardest(queries, [[]] * 12, 7, 500))
    assert all(product not in answers for line, answers in zip(expected, known, strict=True) for product in line)
    assert any(product in answers for line, answers in zip(unmasked, known, strict=True) for product in line)


def test_fewer_candidates_than_asked_for() -> None:
    embeddings = {product: np.array([product], np.float32) for product in range(4)}
    pool = Pool([3, 1, 0, 2], embeddings)
    result = pool.hardest(np.ones((3, 1)), [[3], [0, 1, 2, 3], [0, 1, 2]], 3, 2)
    assert pool.chosen_products(result) == [[2, 1, 0], [], [3]]
    assert result.is_chosen.numpy().sum(axis=1).tolist() == [3, 0, 1]
    assert result.rows.shape == (3, 3)
    more = pool.hardest(np.ones((1, 1)), [[]], 10, 2)
    assert pool.chosen_products(more) == [[3, 2, 1, 0]]


def test_an_empty_pool() -> None:
    pool = Pool([], {})
    result = pool.hardest(np.ones((2, 3)), [[1], []], 4, 2)
    assert not result.is_chosen.numpy().any()
    assert float(result.masked_share) == 0.0
    rows, position = distinct_rows(result.rows, result.is_chosen)
    assert rows.shape == (0,)
    assert position.shape == (2, 4)


@pytest.mark.parametrize("chunk", [1, 3, 50])
def test_the_regulariser_reaches_the_pool(chunk: int) -> None:
    """θ of a pool product: how similar the query is to the batch's queries that know it."""
    rng = np.random.default_rng(4)
    unit: Callable[[np.ndarray], np.ndarray] = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
    queries = unit(rng.uniform(0.1, 1, (5, 6))).astype(np.float32)
    products = list(range(30))
    vectors = unit(rng.uniform(0.1, 1, (30, 6))).astype(np.float32)
    known = [sorted(rng.choice(30, 6, replace=False).tolist()) for _ in range(5)]
    is_known = oracles.known_positives(products, known)
    theta = oracles.false_negative_estimate(queries @ queries.T, is_known.astype(float))
    score = oracles.regularized_similarity(queries @ vectors.T, theta, 2.0)
    expected = oracles.highest(score, ~is_known, 4)
    pool = Pool(products, dict(zip(products, vectors, strict=True)))
    got = pool.chosen_products(pool.hardest(queries, known, 4, chunk, temperature=2.0))
    plain = pool.chosen_products(pool.hardest(queries, known, 4, chunk))
    assert [sorted(line) for line in got] == [np.flatnonzero(line).tolist() for line in expected]
    assert got != plain
    assert all(is_known[:, line].any() for line in plain), "other queries know some of what would be chosen"


def test_ties_of_the_regulariser_fall_by_draw_and_not_by_product() -> None:
    """All products are opposite to all queries, so Eq. 7 clamps every score at 0; chunks change nothing."""
    queries = np.tile([[1.0, 0.0]], (3, 1))
    pool = Pool(list(range(40)), {product: np.array([-1.0, 0.0]) for product in range(40)})
    known: Known = [[], [], []]
    drawn = [
        [pool.chosen_products(pool.hardest(queries, known, 4, chunk, 2.0, seed)) for chunk in (1, 7, 40)]
        for seed in range(30)
    ]
    assert all(one == other for one, *others in drawn for other in others)
    chosen = np.array([lines[0] for lines in drawn])
    assert len({tuple(line) for seed in chosen for line in seed}) > 80, "each query and seed draws by itself"
    counts = np.bincount(chosen.ravel(), minlength=40)
    assert counts.min() > 0
    assert counts.max() < 25, "360 draws of 40 products"


def test_the_pool_in_a_graph_has_no_gradient() -> None:
    table = tf.Variable(np.random.default_rng(1).standard_normal((40, 4)), dtype=tf.float32)
    queries = tf.Variable(np.random.default_rng(2).standard_normal((3, 4)), dtype=tf.float32)

    @tf.function
    def run(pool: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor | None], list[tf.Tensor | None]]:
        with tf.GradientTape(persistent=True) as tape:
            chosen = select_hardest(
                queries, lambda rows: tf.gather(table, tf.gather(pool, rows)), pool, *bags([[1], [2], [3]]),
                num_hardest=2, chunk=7,
            )  # fmt: skip
            distinct, _ = distinct_rows(chosen.rows, chosen.is_chosen)
            similarity = tf.matmul(queries, tf.gather(table, tf.gather(pool, distinct)), transpose_b=True)
            searched, compared = tf.reduce_sum(chosen.rows), tf.reduce_sum(similarity)
        return distinct, tape.gradient(searched, [table, queries]), tape.gradient(compared, [table, queries])

    pool = tf.range(39, -1, -1)
    distinct, searched, compared = run(pool)
    assert searched == [None, None]
    touched = set(np.flatnonzero(np.abs(tf.convert_to_tensor(compared[0]).numpy()).sum(axis=1)).tolist())
    assert touched == set(pool.numpy()[distinct.numpy()].tolist())
    assert 2 <= len(touched) <= 6


# Distinct rows


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 5))
def test_distinct_rows(seed: int, queries: int, number: int) -> None:
    rng = np.random.default_rng(seed)
    rows = np.stack([rng.permutation(9)[:number] for _ in range(queries)]).astype(np.int32)
    is_chosen = rng.random(rows.shape) < 0.7
    rows[~is_chosen] = 0
    distinct, position = (tensor.numpy() for tensor in distinct_rows(tf.constant(rows), tf.constant(is_chosen)))
    assert distinct.tolist() == sorted({int(row) for row in rows[is_chosen]})
    np.testing.assert_array_equal(distinct[position[is_chosen]], rows[is_chosen])
