"""The cheap way to a boosted top K against the plain one: every product compared, for one weighting after another."""

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uepp.retrieval import boost_candidates
from uepp.retrieval.boost_candidates import BoostCandidates
from uepp.retrieval.boosting import bonuses


def plain(
    queries: np.ndarray, vectors: np.ndarray, num_products: Any, quality: np.ndarray, weights: Any, k: int
) -> list[list[int]]:
    """Hydrated vectors p' = [p; f(p)], q' = [q; w]; by score, of the same score the lower row; -1 in free places."""
    products = [[*map(float, p), *map(float, f)] for p, f in zip(vectors, quality, strict=True)]
    rankings = []
    for query, number in zip(queries, num_products, strict=True):
        hydrated = [*map(float, query), *map(float, weights)]
        scores = [sum(a * b for a, b in zip(hydrated, product, strict=True)) for product in products[:number]]
        order = sorted(range(number), key=lambda row: (-scores[row], row))
        rankings.append((order + [-1] * k)[:k])
    return rankings


def coarse(rng: np.random.Generator, *shape: int, levels: int = 2) -> np.ndarray:
    """Few different numbers, whose products and sums a float32 holds exactly: many ties, and no rounding."""
    return (rng.integers(-levels, levels + 1, shape) / 4).astype(np.float32)


def unit(rng: np.random.Generator, rows: int, dim: int) -> np.ndarray:
    vectors = rng.standard_normal((rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(autouse=True)
def usual_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a test sets, the next one has the usual ones."""
    for name in ("_FOUND_AT_ONCE", "_RANKED_AT_ONCE"):
        monkeypatch.setattr(boost_candidates, name, getattr(boost_candidates, name))


@settings(max_examples=150, deadline=None)
@given(
    num_queries=st.integers(1, 5),
    num_products=st.integers(1, 60),
    num_features=st.integers(1, 3),
    k=st.integers(1, 6),
    levels=st.integers(1, 6),
    scales=st.lists(st.sampled_from([0.0, 0.25, 1.0, 8.0]), min_size=1, max_size=4),
    max_entries=st.sampled_from([0, 60, 10**6]),
    bound=st.sampled_from([None, 0.5, 4.0]),
    at_once=st.sampled_from([1, 7, 10**6]),
    seed=st.integers(0, 10**6),
)
def test_the_cheap_way_is_the_plain_way(
    num_queries: int,
    num_products: int,
    num_features: int,
    k: int,
    levels: int,
    scales: list[float],
    max_entries: int,
    bound: float | None,
    at_once: int,
    seed: int,
) -> None:
    """Exactly: no rounding here, so every row has to be in its place, ties too, whatever was asked before.

    Requests that are not asked for come out empty, and nothing is searched for them.
    """
    rng = np.random.default_rng(seed)
    boost_candidates._FOUND_AT_ONCE = boost_candidates._RANKED_AT_ONCE = at_once
    queries, vectors = coarse(rng, num_queries, 3, levels=levels), coarse(rng, num_products, 3, levels=levels)
    quality = coarse(rng, num_products, num_features, levels=12)
    seen = rng.integers(1, num_products + 1, num_queries)
    candidates = BoostCandidates(queries, vectors, seen, quality, k, max_entries)
    if bound is not None:
        candidates.cover(bound)
    for scale in scales:
        weights = scale * rng.integers(0, 5, num_features) / 4
        is_asked = rng.random(num_queries) < 0.7
        expected = plain(queries, vectors, seen, quality, weights, k)
        some = candidates.rank(weights, is_asked).rows.tolist()
        assert some == [row if asked else [-1] * k for row, asked in zip(expected, is_asked, strict=True)]
        ranking = candidates.rank(weights)
        assert ranking.rows.tolist() == expected
        for query, row, similarity in zip(queries, ranking.rows, ranking.similarity, strict=True):
            kept = row >= 0
            np.testing.assert_array_equal(similarity[kept], vectors[row[kept]] @ query)
            assert np.isnan(similarity[~kept]).all()


def test_real_numbers_score_as_faiss_scores_hydrated_vectors() -> None:
    rng = np.random.default_rng(1)
    queries, vectors, k = unit(rng, 40, 16), unit(rng, 3_000, 16), 10
    quality = np.clip(rng.standard_normal((3_000, 4)), -3, 3).astype(np.float32)
    candidates = BoostCandidates(queries, vectors, np.full(40, 3_000), quality, k)
    for scale in (0, 0.01, 0.03, 0.1, 1):
        weights = (scale * rng.random(4)).astype(np.float32)
        ranking = candidates.rank(weights)
        hydrated = np.hstack([vectors, quality])
        scores, rows = faiss.knn(
            np.hstack([queries, np.tile(weights, (40, 1))]), hydrated, k, metric=faiss.METRIC_INNER_PRODUCT
        )
        own = np.take_along_axis(queries @ vectors.T + quality @ weights, ranking.rows, axis=1)
        np.testing.assert_allclose(own, scores, atol=1e-5)
        # The same products, but where two scores are as near as rounding.
        differs = ranking.rows != rows
        assert differs.mean() < 0.01
        np.testing.assert_allclose(own[differs], scores[differs], atol=1e-6)


def counted(monkeypatch: pytest.MonkeyPatch, candidates: BoostCandidates) -> dict[str, int]:
    """How many requests are searched again, by similarity and over the whole catalogue."""
    calls = {"_search": 0, "_search_boosted": 0}
    for name in calls:
        original = getattr(candidates, name)

        def counting(requests: np.ndarray, *rest: Any, name: str = name, original: Any = original) -> Any:
            calls[name] += len(requests)
            return original(requests, *rest)

        monkeypatch.setattr(candidates, name, counting)
    return calls


def test_a_trial_searches_nothing_again_where_the_candidates_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    queries, vectors, k = unit(rng, 20, 8), unit(rng, 2_000, 8), 5
    quality = np.clip(rng.standard_normal((2_000, 2)), -3, 3).astype(np.float32)
    candidates = BoostCandidates(queries, vectors, np.full(20, 2_000), quality, k)
    calls = counted(monkeypatch, candidates)
    similar = candidates.rank(np.zeros(2)).rows
    gentle = candidates.rank(np.full(2, 0.005)).rows
    assert calls == {"_search": 0, "_search_boosted": 0}
    assert (similar != gentle).any(), "the boost does something"
    strong = candidates.rank(np.full(2, 0.2))
    assert calls["_search"] > 0
    assert strong.rows.tolist() == plain(queries, vectors, np.full(20, 2_000), quality, np.full(2, 0.2), k)
    before = dict(calls)
    candidates.rank(np.full(2, 0.15))
    assert calls == before, "what was found deeper is kept"
    assert candidates.rank(np.zeros(2)).rows.tolist() == similar.tolist()


def test_what_a_bound_covers_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 4,000 products the first 4·K are one in a hundred: every trial would search deeper for many requests."""
    rng = np.random.default_rng(6)
    queries, vectors, k, bound = unit(rng, 30, 8), unit(rng, 4_000, 8), 10, 0.2
    seen = rng.choice([4_000, 3_000], 30)
    quality = np.clip(rng.standard_normal((4_000, 2)), -3, 3).astype(np.float32)

    def within(share: float, parts: list[float]) -> np.ndarray:
        return np.array(parts) * share * bound / float(np.ptp(bonuses(quality, np.array(parts))))

    trials = [within(1, [1, 0]), within(1, [0, 1]), within(0.5, [1, 1]), within(1, [1, 3])]
    lazy = BoostCandidates(queries, vectors, seen, quality, k)
    calls = counted(monkeypatch, lazy)
    rankings = [lazy.rank(weights) for weights in trials]
    assert calls["_search"] > 10
    covering = BoostCandidates(queries, vectors, seen, quality, k)
    covering.cover(bound)
    calls = counted(monkeypatch, covering)
    for weights, expected in zip(trials, rankings, strict=True):
        np.testing.assert_array_equal(covering.rank(weights).rows, expected.rows)
    assert calls == {"_search": 0, "_search_boosted": 0}
    assert covering.num_compared == 0
    assert covering.num_entries < 30 * 4_000


def test_a_trial_ranks_what_its_weights_can_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    queries, vectors, k = unit(rng, 10, 8), unit(rng, 3_000, 8), 5
    quality = np.clip(rng.standard_normal((3_000, 1)), -3, 3).astype(np.float32)
    candidates = BoostCandidates(queries, vectors, np.full(10, 3_000), quality, k)
    candidates.cover(0.6)
    ranked: list[int] = []

    def noting(scores: np.ndarray, rows: np.ndarray, keys: Any = boost_candidates._keys) -> Any:
        ranked.append(scores.size)
        return keys(scores, rows)

    monkeypatch.setattr(boost_candidates, "_keys", noting)
    sizes = []
    for scale in (0.0, 0.005, 0.1):
        ranked.clear()
        candidates.rank(np.array([scale]))
        sizes.append(sum(ranked))
    assert sizes[0] < 10 * 2 * k < sizes[1] < sizes[2] <= candidates.num_entries


def test_what_there_is_room_for_is_kept_and_the_rest_compared_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(8)
    queries, vectors, k, weights = unit(rng, 20, 8), unit(rng, 1_000, 8), 5, np.full(1, 0.05)
    quality = np.clip(rng.standard_normal((1_000, 1)), -3, 3).astype(np.float32)
    candidates = BoostCandidates(queries, vectors, np.full(20, 1_000), quality, k, max_entries=700)
    calls = counted(monkeypatch, candidates)
    assert candidates.rank(weights).rows.tolist() == plain(queries, vectors, np.full(20, 1_000), quality, weights, k)
    assert calls["_search"] > 0
    assert 0 < calls["_search_boosted"] == candidates.num_compared < 20
    assert candidates.num_entries <= 700


def test_without_room_the_whole_catalogue_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    queries, vectors, k = coarse(rng, 6, 4), coarse(rng, 200, 4), 3
    quality, seen = coarse(rng, 200, 2, levels=12), np.array([200, 50, 200, 120, 50, 3])
    candidates = BoostCandidates(queries, vectors, seen, quality, k, max_entries=0)
    calls, entries = counted(monkeypatch, candidates), candidates.num_entries
    monkeypatch.setattr("uepp.retrieval.boost_candidates._SCORED_AT_ONCE", 300)
    for _ in range(2):
        ranking = candidates.rank(np.array([2.0, 1.0]))
        assert ranking.rows.tolist() == plain(queries, vectors, seen, quality, [2.0, 1.0], k)
    assert calls["_search"] == 0 < calls["_search_boosted"]
    assert candidates.num_entries == entries


def test_fewer_products_than_k() -> None:
    vectors, quality = np.eye(3, dtype=np.float32), np.array([[0], [-1], [1]], np.float32)
    candidates = BoostCandidates(vectors[:2], vectors, np.array([3, 2]), quality, 5)
    assert candidates.rank(np.zeros(1)).rows.tolist() == [[0, 1, 2, -1, -1], [1, 0, -1, -1, -1]]
    assert candidates.rank(np.array([2.0])).rows.tolist() == [[2, 0, 1, -1, -1], [0, 1, -1, -1, -1]]
    ranking = candidates.rank(np.array([0.5]))
    assert ranking.rows.tolist() == [[0, 2, 1, -1, -1], [1, 0, -1, -1, -1]]
    np.testing.assert_array_equal(ranking.similarity[1], [1, 0, np.nan, np.nan, np.nan])


def test_zeros_of_either_sign_tie() -> None:
    """-0.0 and 0.0 are the same score, but not the same bits."""
    vectors = np.array([[-0.0, 0.0], [0.0, -1.0], [0.0, 0.0], [-1.0, 0.0]], np.float32)
    queries = np.array([[1.0, 0.0]], np.float32)
    candidates = BoostCandidates(queries, vectors, np.array([4]), np.zeros((4, 1), np.float32), 4)
    assert candidates.rank(np.zeros(1)).rows.tolist() == [[0, 1, 2, 3]]


def test_no_requests() -> None:
    candidates = BoostCandidates(
        np.empty((0, 2), np.float32), np.eye(2, dtype=np.float32), np.empty(0, int), np.ones((2, 1), np.float32), 3
    )
    assert candidates.rank(np.ones(1)).rows.shape == (0, 3)


def test_vectors_may_be_memory_mapped(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    vectors, quality = coarse(rng, 100, 4), coarse(rng, 100, 1)
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    queries, seen = coarse(rng, 3, 4), np.array([100, 40, 70])
    ranking = BoostCandidates(queries, mapped, seen, quality, 2).rank(np.array([3.0]))
    assert ranking.rows.tolist() == plain(queries, vectors, seen, quality, [3.0], 2)
