"""Indexes against exact search, and exact search against a loop."""

from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uepp.config import ExportConfig
from uepp.retrieval.index import build_index, read_index, search_exact, write_index


def unit_vectors(number: int, dim: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((number, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def assert_best(rows: np.ndarray, scores: np.ndarray, queries: np.ndarray, vectors: np.ndarray, k: int) -> None:
    """Each result scores what a result of its place must score; equal products may stand in any order."""
    assert rows.shape == scores.shape == (len(queries), k)
    for query, found, values in zip(queries, rows.tolist(), scores.tolist(), strict=True):
        products = [sum(float(a) * float(b) for a, b in zip(query, vector, strict=True)) for vector in vectors]
        kept = [product for product in found if product >= 0]
        assert found == kept + [-1] * (k - len(kept))
        assert len(set(kept)) == len(kept) == min(k, len(vectors))
        np.testing.assert_allclose(values[: len(kept)], sorted(products, reverse=True)[:k], atol=1e-5)
        np.testing.assert_allclose(values[: len(kept)], [products[product] for product in kept], atol=1e-5)
        assert values[len(kept) :] == [-np.inf] * (k - len(kept))


@settings(max_examples=40, deadline=None)
@given(
    num_queries=st.integers(1, 4),
    num_products=st.integers(1, 30),
    dim=st.integers(1, 9),
    k=st.integers(1, 40),
    num_levels=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_exact_search_is_the_oracle(
    num_queries: int, num_products: int, dim: int, k: int, num_levels: int, seed: int
) -> None:
    """Few levels of values make many products equal."""
    rng = np.random.default_rng(seed)
    queries = rng.integers(-num_levels, num_levels + 1, (num_queries, dim)).astype(np.float32)
    vectors = rng.integers(-num_levels, num_levels + 1, (num_products, dim)).astype(np.float32)
    assert_best(*search_exact(queries, vectors, k), queries, vectors, k)


def test_exact_search_ranks_zero_and_negative_similarities() -> None:
    vectors = np.array([[-1, 0], [0, 0], [1, 0]], np.float32)
    rows, scores = search_exact(np.array([[1, 0]], np.float32), vectors, 4)
    assert rows.tolist() == [[2, 1, 0, -1]]
    assert scores.tolist() == [[1, 0, -1, -np.inf]]


def test_exact_search_of_a_prefix_and_of_a_memory_map(tmp_path: Path) -> None:
    vectors, queries = unit_vectors(50, 8, 1), unit_vectors(3, 8, 2)
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    rows, scores = search_exact(queries, mapped[:20], 5)
    assert rows.max() < 20
    assert_best(rows, scores, queries, vectors[:20], 5)


def test_exact_search_of_nothing() -> None:
    rows, scores = search_exact(unit_vectors(2, 4, 1), np.empty((0, 4), np.float32), 3)
    assert rows.tolist() == [[-1] * 3] * 2
    assert scores.tolist() == [[-np.inf] * 3] * 2
    assert search_exact(np.empty((0, 4), np.float32), unit_vectors(2, 4, 1), 3)[0].shape == (0, 3)


def test_a_flat_index_is_exact() -> None:
    vectors, queries = unit_vectors(300, 16, 1), unit_vectors(20, 16, 2)
    scores, rows = build_index(vectors, ExportConfig(index="flat")).search(queries, 25)
    exact_rows, exact_scores = search_exact(queries, vectors, 25)
    np.testing.assert_array_equal(rows, exact_rows)
    np.testing.assert_allclose(scores, exact_scores, atol=1e-6)


def overlap(index: faiss.Index, vectors: np.ndarray, queries: np.ndarray, k: int) -> float:
    found = index.search(queries, k)[1]
    exact = search_exact(queries, vectors, k)[0]
    return float(np.mean([len(set(one) & set(other)) / k for one, other in zip(found, exact, strict=True)]))


def test_hnsw_finds_nearly_all_neighbours_by_inner_product() -> None:
    vectors, queries = unit_vectors(3_000, 16, 1), unit_vectors(100, 16, 2)
    index = build_index(vectors, ExportConfig(index="hnsw"))
    assert overlap(index, vectors, queries, 10) > 0.95
    scores, rows = index.search(queries, 10)
    np.testing.assert_allclose(scores, np.einsum("qd,qkd->qk", queries, vectors[rows]), atol=1e-5)
    assert np.all(np.diff(scores, axis=1) <= 1e-6)


def test_hnsw_parameters_reach_the_index_and_change_it(tmp_path: Path) -> None:
    vectors, queries = unit_vectors(800, 32, 1), unit_vectors(100, 32, 2)
    narrow = ExportConfig(index="hnsw", hnsw_neighbors=4, hnsw_ef_construction=5, hnsw_ef_search=7)
    index = build_index(vectors, narrow)
    write_index(index, tmp_path / "index.faiss")
    read = read_index(tmp_path / "index.faiss")
    for one in (faiss.downcast_index(index), faiss.downcast_index(read)):
        assert one.metric_type == faiss.METRIC_INNER_PRODUCT
        assert one.hnsw.nb_neighbors(1) == 4
        assert one.hnsw.efConstruction == 5
        assert one.hnsw.efSearch == 7
    reached = overlap(index, vectors, queries, 5)
    for wider in ({"hnsw_neighbors": 32}, {"hnsw_ef_construction": 200}, {"hnsw_ef_search": 300}):
        other = build_index(vectors, ExportConfig.model_validate(narrow.model_dump() | wider))
        assert overlap(other, vectors, queries, 5) > reached, wider


@pytest.mark.parametrize("family", ["flat", "hnsw"])
def test_k_beyond_the_catalogue(family: str) -> None:
    vectors = unit_vectors(5, 8, 1)
    _, rows = build_index(vectors, ExportConfig.model_validate({"index": family})).search(vectors, 9)
    assert rows[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert all(sorted(row) == [-1] * 4 + [0, 1, 2, 3, 4] for row in rows.tolist())


@pytest.mark.parametrize("family", ["flat", "hnsw"])
def test_a_written_index_answers_the_same(family: str, tmp_path: Path) -> None:
    vectors, queries = unit_vectors(200, 8, 1), unit_vectors(10, 8, 2)
    index = build_index(vectors, ExportConfig.model_validate({"index": family}))
    write_index(index, tmp_path / "index.faiss")
    for one, other in zip(
        read_index(tmp_path / "index.faiss").search(queries, 7), index.search(queries, 7), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert [file.name for file in tmp_path.iterdir()] == ["index.faiss"]
