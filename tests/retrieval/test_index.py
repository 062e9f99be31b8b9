"""Indexes against exact search, and exact search against a loop."""

from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uepp.index_families import IndexSpec, parse_spec, resolve
from uepp.retrieval.index import (
    build_index,
    read_index,
    search_exact,
    search_exact_chunks,
    set_search,
    train_index,
    write_index,
)
from uepp.retrieval.vectors import ProductVectors


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


def built(vectors: np.ndarray, text: str, shards: int | list[int] = 1) -> tuple[faiss.Index, IndexSpec]:
    """The index of a spec over vectors in so many shards, or in shards that begin at these rows (and at 0)."""
    spec = resolve(parse_spec(text), len(vectors), vectors.shape[1])
    return build_index(ProductVectors(np.array_split(vectors, shards)), spec), spec


def clustered(number: int, dim: int, seed: int) -> np.ndarray:
    """Unit vectors around forty directions, as embeddings of products are."""
    rng = np.random.default_rng(seed)
    centers = unit_vectors(40, dim, 99)
    vectors = centers[rng.integers(0, 40, number)] + 0.25 * rng.standard_normal((number, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def overlap(index: faiss.Index, vectors: np.ndarray, queries: np.ndarray, k: int) -> float:
    found = index.search(queries, k)[1]
    exact = search_exact(queries, vectors, k)[0]
    return float(np.mean([len(set(one) & set(other)) / k for one, other in zip(found, exact, strict=True)]))


ALL = [
    "flat",
    "hnsw",
    "ivf-flat:nlist=20,nprobe=5",
    "ivf-pq-fastscan:nlist=20,nprobe=5",
    "ivf-pq-fastscan:nlist=20,nprobe=5,residual=false",
    "ivf-pq-fastscan-rerank:nlist=20,nprobe=5",
    "ivf-pq-fastscan-rerank:nlist=20,nprobe=5,store=flat",
]


def test_a_flat_index_is_exact() -> None:
    vectors, queries = unit_vectors(300, 16, 1), unit_vectors(20, 16, 2)
    scores, rows = built(vectors, "flat", shards=3)[0].search(queries, 25)
    exact_rows, exact_scores = search_exact(queries, vectors, 25)
    np.testing.assert_array_equal(rows, exact_rows)
    np.testing.assert_allclose(scores, exact_scores, atol=1e-6)


def test_exact_search_in_chunks_is_exact_search() -> None:
    vectors, queries = unit_vectors(70, 8, 1), unit_vectors(9, 8, 2)
    for k in (5, 90):
        rows, scores = search_exact_chunks(queries, np.array_split(vectors, 4), k)
        exact_rows, exact_scores = search_exact(queries, vectors, k)
        np.testing.assert_array_equal(rows, exact_rows)
        np.testing.assert_allclose(scores, exact_scores, atol=1e-6)


def test_families_find_nearly_all_neighbours() -> None:
    vectors, queries = clustered(3_000, 32, 1), clustered(100, 32, 2)
    found = {text: overlap(built(vectors, text)[0], vectors, queries, 10) for text in ALL}
    assert found["flat"] == 1
    assert found["hnsw"] > 0.95
    assert found["ivf-flat:nlist=20,nprobe=5"] > 0.8
    coded, reranked = found["ivf-pq-fastscan:nlist=20,nprobe=5"], found["ivf-pq-fastscan-rerank:nlist=20,nprobe=5"]
    assert coded > 0.5
    assert reranked > coded + 0.1


@pytest.mark.parametrize("text", ALL)
def test_shards_are_one_catalogue(text: str) -> None:
    """Products keep their numbers; with one training sample, the same cells and codes."""
    vectors, queries = clustered(1_200, 16, 1), clustered(40, 16, 2)
    whole, spec = built(vectors, text)
    parts, _ = built(vectors, text, shards=3)
    assert parts.ntotal == whole.ntotal == 1_200
    if spec.family != "hnsw":  # its links depend on the order of threads
        np.testing.assert_allclose(parts.search(queries, 20)[0], whole.search(queries, 20)[0], atol=1e-5)
    again, _ = built(vectors, text)
    np.testing.assert_array_equal(again.search(queries, 20)[1], whole.search(queries, 20)[1])


def test_a_cell_that_is_full_takes_the_next_shards_codes() -> None:
    """Faiss wrote beyond its arrays where a shard was merged behind 64 codes of 4 parts: memory was damaged."""
    vectors = unit_vectors(165, 8, 1)
    text = "ivf-pq-fastscan:nlist=1,subquantizers=4"
    (whole, _), (parts, _) = built(vectors, text), built(vectors, text, shards=[64])
    for found, expected in zip(parts.search(vectors, 20), whole.search(vectors, 20), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ("hnsw:neighbors=4,ef_construction=10", "ef_search", (5, 200)),
        ("ivf-flat:nlist=40", "nprobe", (1, 40)),
        ("ivf-pq-fastscan:nlist=40,subquantizers=32", "nprobe", (1, 40)),
        ("ivf-pq-fastscan-rerank:nlist=40,nprobe=20,subquantizers=4", "rerank", (1.0, 20.0)),
        ("ivf-pq-fastscan-rerank:nlist=40,subquantizers=32", "nprobe", (1, 40)),
    ],
)
def test_every_search_knob_turns(text: str, name: str, values: tuple[float, float], tmp_path: Path) -> None:
    """Faiss has indexes that ignore what comes with a call. More work finds more, in memory and read from a file."""
    vectors, queries = clustered(4_000, 32, 1), unit_vectors(150, 32, 2)
    index, spec = built(vectors, text)
    write_index(index, tmp_path / "index.faiss")
    for one in (index, read_index(tmp_path / "index.faiss")):
        reached = []
        for value in values:
            set_search(one, spec.with_values({name: value}))
            reached.append(overlap(one, vectors, queries, 5))
        assert reached[1] > reached[0] + 0.02, (text, name, reached)


@pytest.mark.parametrize(
    ("family", "few", "many"),
    [
        ("hnsw:ef_search=8", "neighbors=4", "neighbors=64"),
        ("hnsw:ef_search=8,neighbors=8", "ef_construction=8", "ef_construction=300"),
        ("ivf-pq-fastscan:nlist=10,nprobe=10", "subquantizers=4", "subquantizers=32"),
    ],
)
def test_build_parameters_reach_the_index(family: str, few: str, many: str) -> None:
    vectors, queries = clustered(2_000, 32, 1), unit_vectors(150, 32, 2)
    less, more = (overlap(built(vectors, f"{family},{value}")[0], vectors, queries, 5) for value in (few, many))
    assert more > less + 0.02


@pytest.mark.parametrize("text", ["flat", "hnsw", "ivf-flat:nlist=1", "ivf-flat:nlist=4,nprobe=4"])
def test_k_beyond_the_catalogue(text: str) -> None:
    vectors = unit_vectors(5, 8, 1)
    _, rows = built(vectors, text)[0].search(vectors, 9)
    assert rows[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert all(sorted(row) == [-1] * 4 + [0, 1, 2, 3, 4] for row in rows.tolist())


@pytest.mark.parametrize("text", ["ivf-pq-fastscan:nlist=20,nprobe=1", "ivf-pq-fastscan-rerank:nlist=20,nprobe=1"])
def test_k_beyond_the_cells_that_are_searched(text: str) -> None:
    vectors = clustered(400, 16, 1)
    _, rows = built(vectors, text)[0].search(vectors[:20], 300)
    assert (rows[:, -1] == -1).all()
    assert all(
        len({product for product in row if product >= 0}) == sum(product >= 0 for product in row) for row in rows
    )


def test_codes_of_a_boosted_vector_hold_hardly_any_padding() -> None:
    """128 dimensions and 7 of quality: each part encodes two of them, the last one a zero too."""
    vectors = clustered(600, 135, 1)
    index, _ = built(vectors, "ivf-pq-fastscan:nlist=4")
    coded = faiss.downcast_index(faiss.downcast_index(index).index)
    assert (coded.d, coded.pq.M) == (136, 68)


def test_a_sample_of_all_vectors_is_the_vectors() -> None:
    vectors = unit_vectors(90, 8, 1)
    for number in (90, 500):
        np.testing.assert_array_equal(ProductVectors(np.array_split(vectors, 3)).sample(number, 1), vectors)
    some = ProductVectors(np.array_split(vectors, 3)).sample(40, 1)
    rows = [int(np.flatnonzero((vectors == row).all(axis=1))[0]) for row in some]
    assert rows == sorted(set(rows))
    assert len(rows) == 40


def test_dimensions_that_codes_do_not_divide_are_padded() -> None:
    vectors, queries = clustered(600, 13, 1), clustered(30, 13, 2)
    index, _ = built(vectors, "ivf-pq-fastscan-rerank:nlist=5,nprobe=5,subquantizers=6")
    assert overlap(index, vectors, queries, 10) > 0.9


@pytest.mark.parametrize("text", ALL)
def test_a_written_index_answers_the_same(text: str, tmp_path: Path) -> None:
    vectors, queries = clustered(600, 16, 1), clustered(10, 16, 2)
    index, _ = built(vectors, text)
    write_index(index, tmp_path / "index.faiss")
    for one, other in zip(
        read_index(tmp_path / "index.faiss").search(queries, 7), index.search(queries, 7), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert [file.name for file in tmp_path.iterdir()] == ["index.faiss"]


def test_training_sees_a_sample_and_memory_a_chunk() -> None:
    vectors = clustered(900, 8, 1)
    stored = ProductVectors(np.array_split(vectors, 4))
    chunks = list(stored.chunks(100, 700, rows=64))
    assert max(len(chunk) for chunk in chunks) <= 64
    np.testing.assert_array_equal(np.concatenate(chunks), vectors[100:700])
    sample = stored.sample(50, seed=3)
    np.testing.assert_array_equal(sample, stored.sample(50, seed=3))
    assert len({row.tobytes() for row in sample} & {row.tobytes() for row in vectors}) == 50
    spec = resolve(parse_spec("ivf-flat:nlist=9"), 900, 8)
    assert train_index(stored, spec).ntotal == 0
