"""Negative samplers against loops written from BHNS Eq. 3, 4, 7 and 8, and what holds for all of them."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uepp.config import SAMPLER_NAMES as NAMES
from uepp.errors import InputError
from uepp.relevance.candidates import LabelledPairs, Pool
from uepp.relevance.samplers import SampledPairs, make_sampler

sampler = make_sampler


def world(seed: int, *, is_tied: bool = False) -> Pool:
    """Up to 6 queries and 12 products, a third of the pairs labelled; tied: embeddings of few different values."""
    rng = np.random.default_rng(seed)
    num_queries, num_products = int(rng.integers(1, 7)), int(rng.integers(1, 13))
    num_pairs = int(rng.integers(0, num_queries * num_products // 3 + 1))

    def embeddings(rows: int) -> np.ndarray:
        return rng.choice([-1.0, 0.0, 1.0], (rows, 2)) if is_tied else rng.normal(size=(rows, 3))

    labelled = LabelledPairs(
        rng.integers(0, num_queries, num_pairs),
        rng.integers(0, num_products, num_pairs),
        rng.choice([0.0, 0.2, 0.5, 1.0], num_pairs),
        embeddings(num_queries),
        embeddings(num_products),
    )
    products = np.sort(rng.choice(num_products, rng.integers(1, num_products + 1), replace=False))
    return Pool(labelled, rng.permutation(num_queries), products, np.arange(num_queries))


def by_query(pool: Pool, pairs: SampledPairs) -> list[list[tuple[int, float]]]:
    """(product, label) of each query of the pool."""
    found: dict[int, list[tuple[int, float]]] = {int(query): [] for query in pool.queries}
    for query, product, label in zip(*pairs, strict=True):
        found[int(query)].append((int(product), float(label)))
    return list(found.values())


def unlabelled(pool: Pool, query: int) -> list[int]:
    labelled = {
        int(p) for q, p in zip(pool.labelled.queries, pool.labelled.products, strict=True) if q == query
    }  # whatever the grade
    return [int(product) for product in pool.products if product not in labelled]


def theta_of(pool: Pool) -> np.ndarray:
    relevance = np.zeros((len(pool.related_queries), len(pool.products)))
    for q, p, grade in zip(pool.labelled.queries, pool.labelled.products, pool.labelled.grades, strict=True):
        relevance[np.flatnonzero(pool.related_queries == q)[:, None], np.flatnonzero(pool.products == p)] = grade
    embeddings = pool.labelled.query_embeddings.astype(float)
    return oracles.false_negative_estimate(embeddings[pool.queries] @ embeddings[pool.related_queries].T, relevance)


def scores_of(pool: Pool, *, is_regularized: bool) -> np.ndarray:
    queries, products = pool.labelled.query_embeddings.astype(float), pool.labelled.product_embeddings.astype(float)
    similarity = queries[pool.queries] @ products[pool.products].T
    return oracles.regularized_similarity(similarity, theta_of(pool), 2.0) if is_regularized else similarity


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 100_000), st.sampled_from(NAMES), st.integers(1, 6), st.integers(0, 2**40), st.booleans())
def test_what_holds_for_every_sampler(seed: int, name: str, number: int, draw: int, is_tied: bool) -> None:
    pool = world(seed, is_tied=is_tied)
    pairs = sampler(name, num_negatives=number)(pool, draw)
    assert len({len(each) for each in pairs}) == 1
    assert pairs.labels.dtype == np.float32
    assert set(pairs.queries.tolist()) <= set(pool.queries.tolist())
    for query, chosen in zip(pool.queries, by_query(pool, pairs), strict=True):
        products = [product for product, _ in chosen]
        allowed = unlabelled(pool, query)
        assert len(products) == len(set(products)), "distinct"
        assert set(products) <= set(allowed), "never a labelled one"
        if name == "none":
            assert products == []
        elif name != "false":
            assert len(products) == min(number, len(allowed))
        assert all(0 <= label <= 1 for _, label in chosen)
        if name not in ("pseudo_labels", "bhns"):
            assert all(label == 0 for _, label in chosen)
    again = sampler(name, num_negatives=number)(world(seed, is_tied=is_tied), draw)
    assert [each.tolist() for each in again] == [each.tolist() for each in pairs], "a function of pool and seed"


@settings(deadline=None, max_examples=100)
@given(
    st.integers(0, 100_000), st.sampled_from(["hns", "regularized", "pseudo_labels", "bhns"]), st.integers(1, 5),
    st.booleans(),
)  # fmt: skip
def test_hard_negatives_are_the_loops_of_the_paper(seed: int, name: str, number: int, is_tied: bool) -> None:
    """Eq. 4 or 7 chooses, 0 or Eq. 8 labels. Ties may fall anyhow, so scores are compared, and not products."""
    pool = world(seed, is_tied=is_tied)
    score, theta = scores_of(pool, is_regularized=name in ("regularized", "bhns")), theta_of(pool)
    pairs = by_query(pool, sampler(name, num_negatives=number)(pool, 1))
    for row, (query, chosen) in enumerate(zip(pool.queries, pairs, strict=True)):
        column = {int(product): place for place, product in enumerate(pool.products)}
        best = sorted((score[row, column[product]] for product in unlabelled(pool, query)), reverse=True)[:number]
        np.testing.assert_allclose([score[row, column[product]] for product, _ in chosen], best, atol=1e-5)
        labels = [theta[row, column[product]] if name in ("pseudo_labels", "bhns") else 0.0 for product, _ in chosen]
        np.testing.assert_allclose([label for _, label in chosen], labels, atol=1e-5)


def honey() -> Pool:
    """The paper's example: honey (0) asked for in two ways (queries 0 and 1), soap (1), and crisps (2) for query 2.

    Product 0 is labelled for query 1 only, so for query 0 it is a false negative, and the most similar one.
    """
    queries = [[1.0, 0.1, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    products = [[1.0, 0.1, 0.0], [0.6, 0.8, 0.0], [0.0, 0.3, 1.0], [0.9, 0.1, 0.1]]
    labelled = LabelledPairs([0, 1, 2, 2], [3, 0, 2, 1], [1.0, 1.0, 1.0, 0.0], queries, products)
    return Pool(labelled, np.array([0]), np.arange(4), np.arange(3))


def test_bhns_leaves_the_honey_that_hard_sampling_takes() -> None:
    def first(name: str, **settings: Any) -> tuple[int, float]:
        return by_query(honey(), sampler(name, num_negatives=1, **settings)(honey(), 0))[0][0]

    theta = 1 / np.sqrt(1.01)  # r = 1 times the cosine of the two queries
    assert first("hns") == (0, 0.0)
    assert first("pseudo_labels") == (0, pytest.approx(theta))
    assert first("regularized") == (1, 0.0)
    assert first("bhns") == (1, 0.0), "its only label is 0, so θ is 0"
    assert first("regularized", temperature=0.0) == (0, 0.0), "θ does not count"
    assert by_query(honey(), sampler("bhns", num_negatives=3)(honey(), 0))[0][-1][0] in (0, 2)


def test_a_product_that_no_query_leads_to_is_an_ordinary_hard_negative() -> None:
    """T = 0: θ = 0, so Eq. 7 ranks as Eq. 4 and Eq. 8 labels as Eq. 3. Also where its only grade is 0."""
    labelled = LabelledPairs([0, 1], [0, 1], [1.0, 0.0], np.eye(2), [[1.0, 0.0], [0.9, 0.1], [0.5, 0.5], [0.1, 0.9]])
    pool = Pool(labelled, np.array([0]), np.arange(4), np.arange(2))
    for name in ("hns", "regularized", "pseudo_labels", "bhns"):
        pairs = sampler(name, num_negatives=3)(pool, 0)
        assert pairs.products.tolist() == [1, 2, 3]
        assert pairs.labels.tolist() == [0, 0, 0]


def counted(name: str, pool: Pool, number: int, runs: int = 2_000) -> Counter[int]:
    counts: Counter[int] = Counter()
    for seed in range(runs):
        counts.update(sampler(name, num_negatives=number)(pool, (7, seed)).products.tolist())
    return counts


def flat(num_products: int, products: Sequence[Sequence[float]]) -> Pool:
    """One query [1, 0]; of these products number 0 is labelled."""
    labelled = LabelledPairs([0], [0], [1.0], [[1.0, 0.0]], products)
    return Pool(labelled, np.array([0]), np.arange(num_products), np.array([0]))


@pytest.mark.parametrize(
    ("name", "vector"),
    [
        ("vns", [1.0, 0.2]),
        ("cet", [1.0, 0.2]),
        ("false", [0.0, 1.0]),
        ("hns", [1.0, 0.2]),  # equal similarities
        ("bhns", [-1.0, 0.2]),  # negative ones: Eq. 7 makes all of them 0
        ("regularized", [-1.0, 0.2]),
    ],
)
def test_equal_candidates_have_equal_chances(name: str, vector: list[float]) -> None:
    counts = counted(name, flat(9, [[1.0, 0.0]] + [vector] * 8), 3)
    assert sum(counts.values()) == 6_000
    assert 0 not in counts
    # 750 each, five standard deviations of a binomial with p = 3/8
    np.testing.assert_allclose([counts[product] for product in range(1, 9)], 750, atol=5 * np.sqrt(750 * 5 / 8))


def test_negative_cosines_are_ranked_without_the_regulariser_and_tie_with_it() -> None:
    pool = flat(4, [[1.0, 0.0], [-1.0, 3.0], [-1.0, 1.0], [-3.0, 1.0]])
    assert sampler("hns", num_negatives=3)(pool, 0).products.tolist() == [1, 2, 3]
    assert set(counted("regularized", pool, 1, 60)) == {1, 2, 3}


@pytest.mark.parametrize(("number", "num_hard"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)])
def test_star_is_half_hard_and_half_random(number: int, num_hard: int) -> None:
    pool = flat(12, [[1.0, 0.0]] + [[1.0, step / 4] for step in range(1, 12)])
    seen = set()
    for seed in range(100):
        products = sampler("star", num_negatives=number)(pool, seed).products.tolist()
        assert products[:num_hard] == list(range(1, num_hard + 1))
        assert len(set(products)) == number
        seen |= set(products[num_hard:])
    assert seen == (set(range(num_hard + 1, 12)) if number > num_hard else set()), (
        "the random half is of all the others"
    )


def test_false_drops_what_resembles_a_positive() -> None:
    """Products 1 and 2 have cosines .99 and .71 with the positive 0; product 3 has .10; grade 0 is no positive."""
    products = [[1.0, 0.0], [1.0, 0.1], [1.0, 1.0], [0.1, 1.0], [-1.0, 0.0]]
    pool = flat(5, products)
    assert set(sampler("false")(pool, 0).products.tolist()) == {3, 4}
    assert set(sampler("false", max_similarity=0.8)(pool, 0).products.tolist()) == {2, 3, 4}
    assert set(sampler("false", max_similarity=-1.0)(pool, 0).products.tolist()) == {4}
    unlike = LabelledPairs([0], [0], [0.0], [[1.0, 0.0]], products)
    everything = Pool(unlike, np.array([0]), np.arange(5), np.array([0]))
    assert set(sampler("false")(everything, 0).products.tolist()) == {1, 2, 3, 4}


def test_cet_draws_at_random_and_leaves_weights_to_the_step() -> None:
    pool = flat(9, [[1.0, 0.0]] * 9)
    assert make_sampler("cet")(pool, 3).products.tolist() == make_sampler("vns")(pool, 3).products.tolist()


@pytest.mark.parametrize("name", NAMES)
def test_pools_without_queries_or_candidates(name: str) -> None:
    full = flat(1, [[1.0, 0.0]])
    nobody = Pool(full.labelled, np.zeros(0, np.int64), np.arange(1), np.array([0]))
    nothing = Pool(full.labelled, np.array([0]), np.zeros(0, np.int64), np.array([0]))
    for pool in (full, nobody, nothing):
        assert [len(each) for each in sampler(name)(pool, 0)] == [0, 0, 0]


def test_seeds_differ_and_the_default_is_the_papers() -> None:
    pool = flat(60, [[1.0, 0.0]] * 60)
    assert len(sampler("bhns")(pool, 0).products) == 4
    drawn = {tuple(sampler("vns")(pool, seed).products.tolist()) for seed in [0, 1, (0, 0), (0, 1), (1, 0)]}
    assert len(drawn) == 5


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("bhn", {}, r"sampler 'bhn': must be one of none, vns"),
        ("vns", {"num_negatives": 0}, r"num_negatives = 0"),
        ("bhns", {"temperature": -1.0}, r"temperature = -1.0"),
        ("bhns", {"temperature": float("nan")}, r"temperature = nan"),
        ("false", {"max_similarity": 1.5}, r"max_similarity = 1.5"),
    ],
)
def test_what_is_refused(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_sampler(name, **settings)
