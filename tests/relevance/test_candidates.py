"""Labelled pairs and pools: what is known between queries and products, and how a pool is drawn."""

from collections import Counter

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uepp.config import RelevanceConfig
from uepp.errors import InputError
from uepp.relevance.candidates import LabelledPairs, Pool, draw_pool
from uepp.relevance.sampled import sampled_for


def world(seed: int, *, num_queries: int = 6, num_products: int = 9, num_pairs: int = 14) -> LabelledPairs:
    """Random labels, some of them 0 and some twice, and embeddings of any length."""
    rng = np.random.default_rng(seed)
    return LabelledPairs(
        rng.integers(0, num_queries, num_pairs),
        rng.integers(0, num_products, num_pairs),
        rng.choice([0.0, 0.1, 0.5, 1.0], num_pairs),
        3 * rng.normal(size=(num_queries, 3)),
        rng.normal(size=(num_products, 3)),
        positive_above=float(rng.choice([0.0, 0.25])),
    )


def pool_of(labelled: LabelledPairs, seed: int) -> Pool:
    rng = np.random.default_rng(seed)

    def some(number: int) -> np.ndarray:
        return np.sort(rng.choice(number, rng.integers(0, number + 1), replace=False))

    num_queries, num_products = len(labelled.query_embeddings), len(labelled.product_embeddings)
    return Pool(labelled, rng.permutation(some(num_queries)), some(num_products), some(num_queries))


def cosine(left: np.ndarray, right: np.ndarray) -> float:
    return float(left @ right) / float(np.linalg.norm(left) * np.linalg.norm(right))


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 10_000))
def test_what_a_pool_says_is_the_definition(seed: int) -> None:
    labelled = world(seed)
    pool = pool_of(labelled, seed + 1)
    grades = {(q, p): float(g) for q, p, g in zip(labelled.queries, labelled.products, labelled.grades, strict=True)}
    queries, products = labelled.query_embeddings.astype(float), labelled.product_embeddings.astype(float)
    positive = {pair for pair, grade in grades.items() if grade > labelled.positive_above}
    relevance = np.array(
        [[grades[t, p] if (t, p) in positive else 0.0 for p in pool.products] for t in pool.related_queries]
    ).reshape(len(pool.related_queries), len(pool.products))
    similarity = np.array([[cosine(queries[q], queries[t]) for t in pool.related_queries] for q in pool.queries])
    theta = oracles.false_negative_estimate(similarity.reshape(len(pool.queries), len(relevance)), relevance)
    np.testing.assert_allclose(pool.theta, theta, atol=1e-5)
    for row, query in enumerate(pool.queries):
        liked = [p for q, p in positive if q == query]
        for column, product in enumerate(pool.products):
            assert pool.is_candidate[row, column] == ((query, product) not in grades)
            assert pool.similarity[row, column] == pytest.approx(cosine(queries[query], products[product]), abs=1e-5)
            nearest = max((cosine(products[product], products[p]) for p in liked), default=-np.inf)
            assert pool.similarity_to_positives[row, column] == pytest.approx(nearest, abs=1e-5)
    assert pool.is_candidate.shape == pool.theta.shape == (len(pool.queries), len(pool.products))


def test_the_definition_is_met_with_everything_in_it() -> None:
    """The property above is not about empty pools and zeros."""
    pools = [pool_of(world(seed), seed + 1) for seed in range(50)]
    assert sum((~pool.is_candidate).any() for pool in pools) > 20
    assert sum((pool.theta > 0).any() and (pool.theta == 0).any() for pool in pools) > 20
    assert sum(np.isfinite(pool.similarity_to_positives).any() for pool in pools) > 20
    assert sum(pool.theta.size == 0 for pool in pools) > 2


def test_what_is_known_beside_the_labels_is_no_negative_and_nothing_else() -> None:
    query, product, grade = [0, 1], [0, 1], [1.0, 0.5]
    plain = LabelledPairs(query, product, grade, np.eye(3), np.eye(4, 3))
    told = LabelledPairs(query, product, grade, np.eye(3), np.eye(4, 3), also_known=([2, 1, 0], [3, 0, 0]))
    before, after = (Pool(one, np.arange(3), np.arange(4), np.arange(3)) for one in (plain, told))
    gone = np.argwhere(before.is_candidate & ~after.is_candidate)
    assert gone.tolist() == [[1, 0], [2, 3]]
    assert not (after.is_candidate & ~before.is_candidate).any()
    assert len(told) == len(plain) == 2, "nothing more is trained on"
    np.testing.assert_array_equal(after.theta, before.theta)
    np.testing.assert_array_equal(after.similarity_to_positives, before.similarity_to_positives)
    with pytest.raises(InputError, match="also known product at 0: 4; must be 0 to 3"):
        LabelledPairs(query, product, grade, np.eye(3), np.eye(4, 3), also_known=([0], [4]))


def test_labels_are_averaged_and_their_order_does_not_matter() -> None:
    """BHNS 4.2.1: scores of several annotators for the same pair are averaged."""
    query, product, grade = np.array([1, 0, 1, 1]), np.array([2, 0, 2, 0]), np.array([1.0, 0.2, 0.5, 0.0])
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        labelled = LabelledPairs(query[order], product[order], grade[order], np.eye(2, 3), np.eye(3))
        assert labelled.queries.tolist() == [0, 1, 1]
        assert labelled.products.tolist() == [0, 0, 2]
        np.testing.assert_allclose(labelled.grades, [0.2, 0.0, 0.75])


def test_a_text_without_tokens_has_no_similarity() -> None:
    labelled = LabelledPairs([0], [0], [1.0], [[0.0, 0.0], [3.0, 0.0]], [[0.0, 2.0], [0.0, 0.0]])
    pool = Pool(labelled, np.array([0, 1]), np.array([0, 1]), np.array([0, 1]))
    assert pool.similarity.tolist() == [[0, 0], [0, 0]]
    assert pool.theta.tolist() == [[0, 0], [0, 0]]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(0, 30), st.integers(0, 2**40))
def test_a_pool_holds_its_batch_and_as_many_pairs_as_asked(seed: int, pool_size: int, draw: int) -> None:
    labelled = world(seed)
    batch = np.random.default_rng(seed).permutation(len(labelled))[: min(pool_size, 4)]
    pool = draw_pool(labelled, batch, pool_size, draw)
    own = np.unique(labelled.queries[batch])
    assert pool.queries.tolist() == own.tolist()
    assert set(pool.queries) <= set(pool.related_queries)
    assert set(labelled.products[batch]) <= set(pool.products)
    assert len(pool.products) <= pool_size
    for each in (pool.products, pool.related_queries):
        assert (np.diff(each) > 0).all()
    pairs = set(zip(labelled.queries.tolist(), labelled.products.tolist(), strict=True))
    assert all(any((query, product) in pairs for query in pool.related_queries) for product in pool.products)
    if pool_size >= len(labelled):
        assert pool.products.tolist() == np.unique(labelled.products).tolist()
    again = draw_pool(labelled, batch[::-1], pool_size, draw)
    assert again.products.tolist() == pool.products.tolist()


def test_others_are_drawn_with_the_same_chance_and_never_twice() -> None:
    """Each pair has a product of its own, so that the pool shows which pairs were drawn."""
    labelled = LabelledPairs(np.zeros(20), np.arange(20), np.ones(20), np.ones((1, 2)), np.ones((20, 2)))
    counts: Counter[int] = Counter()
    for seed in range(3_000):
        pool = draw_pool(labelled, [19, 0, 7], 8, (seed, 5))
        assert len(pool.products) == 8
        counts.update(pool.products.tolist())
    assert [counts[own] for own in (0, 7, 19)] == [3_000] * 3
    others = np.array([counts[product] for product in range(20) if product not in (0, 7, 19)])
    # 3,000 · 5/17 ≈ 882 each; five standard deviations of a binomial.
    np.testing.assert_allclose(others, 3_000 * 5 / 17, atol=5 * np.sqrt(3_000 * 5 / 17 * 12 / 17))


def test_a_pool_as_large_as_the_batch_is_the_batch() -> None:
    labelled = world(3)
    pool = draw_pool(labelled, [1, 4], 2, 0)
    assert pool.products.tolist() == np.unique(labelled.products[[1, 4]]).tolist()
    assert pool.related_queries.tolist() == pool.queries.tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"queries": [0, 2]}, r"query at 1: 2; must be 0 to 1"),
        ({"products": [-1, 0]}, r"product at 0: -1; must be 0 to 2"),
        ({"grades": [0.5, 1.5]}, r"labelled pair 1: grade 1.5; must be 0 to 1"),
        ({"grades": [float("nan"), 1.0]}, r"labelled pair 0: grade nan"),
        ({"grades": [1.0]}, r"expected as many"),
        ({"query_embeddings": [[1.0, float("inf")], [1.0, 0.0]]}, r"query embeddings: row 0 is not finite"),
        ({"query_embeddings": [[1.0], [0.0]]}, r"queries have 1 dimensions, of products 2"),
        ({"product_embeddings": [1.0, 2.0]}, r"product embeddings: 1 dimensions"),
        ({"positive_above": 1.0}, r"positive_above = 1.0"),
    ],
)
def test_what_labels_are_refused(changes: dict[str, object], message: str) -> None:
    good = {
        "queries": [0, 1], "products": [2, 0], "grades": [0.5, 1.0],
        "query_embeddings": np.eye(2), "product_embeddings": np.ones((3, 2)),
    }  # fmt: skip
    assert len(LabelledPairs(**good)) == 2  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        LabelledPairs(**{**good, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("batch", "pool_size", "message"),
    [
        ([0, 1, 2], 2, r"pool_size = 2: must be at least 3"),
        ([0, 0], 4, r"2 positions, 1 of them distinct"),
        ([99], 4, r"pair at 0: 99; must be 0 to"),
    ],
)
def test_what_pools_are_refused(batch: list[int], pool_size: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        draw_pool(world(0), batch, pool_size, 1)


def test_cases_come_from_a_pool_as_training_has_it() -> None:
    """All pairs of the shown queries were in it, 36 of 32, so each query's negatives were what the others lead to."""
    rng = np.random.default_rng(5)
    queries, products = np.repeat(np.arange(200), 12), np.arange(2_400)
    embeddings = rng.normal(size=(200, 4)), rng.normal(size=(2_400, 4))
    labelled = LabelledPairs(queries, products, np.ones(2_400), *embeddings)
    shown = np.array([150, 3, 77])
    config = RelevanceConfig(num_negatives=60)
    for query, found in zip(np.sort(shown), (sampled_for(labelled, shown, ["hns"], config)["hns"],) * 3, strict=True):
        chosen = found.products[found.queries == query]
        assert len(chosen) == config.pairs_in_pool - 1, "all of the pool but its own product"
        assert np.isin(queries[chosen], shown).sum() == 2, "one of each other shown query"
    again = sampled_for(labelled, shown[::-1].copy(), ["hns"], config)["hns"]
    assert len(again.products) == len(found.products)
    many = np.arange(50)
    found = sampled_for(labelled, many, ["vns"], config)["vns"]
    assert np.isin(many, found.queries).all(), "more queries than a pool has pairs"
