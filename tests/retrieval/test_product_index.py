"""A catalogue's index as search uses it, against loops; and what an export keeps of a tuned operating point."""

import functools
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from uepp.artifacts import write_json
from uepp.errors import InputError
from uepp.index_families import parse_spec, resolve
from uepp.retrieval.boosting import Boosting, write_boosting
from uepp.retrieval.index import build_index, write_index
from uepp.retrieval.product_index import (
    INDEX,
    SERVING,
    ProductIndex,
    carried_point,
    tuned_key,
    write_product_index,
)
from uepp.retrieval.vectors import ProductVectors

N, DIM, FEATURES = 700, 16, 2


def clustered(number: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(99).standard_normal((20, DIM))
    vectors = centers[rng.integers(0, 20, number)] + 0.5 * rng.standard_normal((number, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


VECTORS, QUERIES = clustered(N, 1), clustered(25, 2)


@functools.cache
def quality() -> Boosting:
    values = np.random.default_rng(3).standard_normal((N, FEATURES)).astype(np.float32)
    return Boosting(("stars", "sales"), np.array([0.3, 0.05], np.float32), values)


@functools.cache
def index_of(text: str, is_boosted: bool = False, num_shards: int = 1) -> ProductIndex:
    boosting = quality() if is_boosted else None
    vectors = ProductVectors(np.array_split(VECTORS, num_shards), boosting)
    spec = resolve(parse_spec(text), N, vectors.dim)
    return ProductIndex(build_index(vectors, spec), spec, vectors, boosting)


def similarity(query: np.ndarray, row: int) -> float:
    return sum(float(a) * float(b) for a, b in zip(query, VECTORS[row], strict=True))


def bonus(boosting: Boosting, row: int) -> float:
    return sum(float(w) * float(f) for w, f in zip(boosting.weights, boosting.quality[row], strict=True))


FAMILIES = ["flat", "hnsw", "ivf-flat:nlist=10", "ivf-pq-fastscan:nlist=10,nprobe=4", "ivf-pq-fastscan-rerank:nlist=10"]


@pytest.mark.parametrize("text", FAMILIES)
@pytest.mark.parametrize("is_boosted", [False, True])
@pytest.mark.parametrize("num_shards", [1, 3])
def test_similarities_are_cosines_and_scores_rank(text: str, is_boosted: bool, num_shards: int) -> None:
    boosting = quality() if is_boosted else None
    found = index_of(text, is_boosted, num_shards).search(QUERIES, 30)
    assert found.rows.dtype == np.int64
    assert found.scores.dtype == found.similarities.dtype == np.float32
    num_found = 0
    for query, rows, scores, similarities in zip(QUERIES, *found, strict=True):
        there = rows[rows >= 0].tolist()
        num_found += len(there)
        assert rows.tolist() == there + [-1] * (30 - len(there))
        np.testing.assert_allclose(
            similarities[: len(there)],
            [similarity(query, row) for row in there],
            atol=1e-3 if "rerank" in text else 1e-5,
        )
        wanted = [similarity(query, row) + (bonus(boosting, row) if boosting else 0) for row in there]
        np.testing.assert_allclose(scores[: len(there)], wanted, atol=1e-3 if "rerank" in text else 1e-5)
        assert np.all(np.diff(scores[: len(there)]) <= 1e-6)
    assert num_found > 25 * 20


def test_boosting_changes_the_order_and_can_be_left_out() -> None:
    index = index_of("flat", is_boosted=True)
    with_quality, without = index.search(QUERIES, 20), index.search(QUERIES, 20, boosted=False)
    plain = index_of("flat").search(QUERIES, 20)
    np.testing.assert_array_equal(without.rows, plain.rows)
    np.testing.assert_allclose(without.scores, plain.scores, atol=1e-6)
    np.testing.assert_array_equal(without.scores, without.similarities)
    assert (with_quality.rows != plain.rows).mean() > 0.5


@pytest.mark.parametrize("text", FAMILIES)
def test_more_results_than_products(text: str) -> None:
    found = index_of(text).search(QUERIES[:4], N + 50)
    assert found.rows.shape == found.scores.shape == found.similarities.shape == (4, N + 50)
    assert (found.rows[:, -50:] == -1).all()
    for values in (found.scores, found.similarities):
        assert np.isneginf(values[found.rows < 0]).all()
        assert np.isfinite(values[found.rows >= 0]).all()


@pytest.mark.parametrize("text", FAMILIES)
def test_no_queries(text: str) -> None:
    assert index_of(text).search(QUERIES[:0], 5).rows.shape == (0, 5)


@pytest.mark.parametrize("text", ["hnsw", "ivf-pq-fastscan-rerank:nlist=10"])
def test_many_threads_find_what_one_finds(text: str) -> None:
    index = index_of(text)
    alone = [index.search(query[np.newaxis], 10).rows for query in QUERIES]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda query: index.search(query[np.newaxis], 10).rows, QUERIES))
    np.testing.assert_array_equal(np.concatenate(together), np.concatenate(alone))


@pytest.mark.parametrize("is_boosted", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        "ivf-pq-fastscan:nlist=10,subquantizers=2",
        "ivf-pq-fastscan:nlist=10,subquantizers=2,nprobe=1",
        "ivf-pq-fastscan-rerank:nlist=10,subquantizers=2,rerank=1",
    ],
)
def test_a_deeper_ranking_begins_with_the_shallower_ones(text: str, is_boosted: bool) -> None:
    index = index_of(text, is_boosted)
    depths = [20, 40, 80, 160]
    plain = [index.search(QUERIES, depth).rows for depth in depths]
    assert any((deep[:, :20] != plain[0]).any() for deep in plain), "by itself it does not"
    whole = index.search_on(QUERIES, depths)
    assert whole.rows.dtype == np.int64
    assert whole.scores.dtype == whole.similarities.dtype == np.float32
    for number, depth in enumerate(depths):
        found = index.search_on(QUERIES, depths[: number + 1])
        for deep, shallow in zip(whole, found, strict=True):
            np.testing.assert_array_equal(deep[:, :depth], shallow)
        # Nothing is lost: as many as the search of that depth finds, at least.
        assert ((found.rows >= 0).sum(axis=1) >= (plain[number] >= 0).sum(axis=1)).all()
    for query, rows, similarities in zip(QUERIES, whole.rows, whole.similarities, strict=True):
        there = rows[rows >= 0].tolist()
        assert len(set(there)) == len(there)
        assert rows.tolist() == there + [-1] * (160 - len(there))
        assert np.isneginf(similarities[len(there) :]).all()
        expected = [similarity(query, row) for row in there]
        np.testing.assert_allclose(similarities[: len(there)], expected, atol=1e-3)


# In an export


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """Vectors in two shards, and towers of which only the weights matter here."""
    folder = tmp_path / "export"
    (folder / "vectors").mkdir(parents=True)
    for number, shard in enumerate(np.array_split(VECTORS, 2)):
        np.save(folder / "vectors" / f"part-{number:05}.npy", shard)
    for tower in ("query_tower", "product_tower"):
        (folder / tower / "variables").mkdir(parents=True)
        (folder / tower / "variables" / "variables.data-00000-of-00001").write_bytes(tower.encode())
    return folder


def test_what_was_written_is_opened_as_it_was(export: Path) -> None:
    write_product_index(export, "ivf-flat:nlist=10,nprobe=2")
    index = ProductIndex.open(export)
    assert (str(index.spec), index.num_products) == ("ivf-flat:nlist=10,nprobe=2", N)
    expected = index_of("ivf-flat:nlist=10,nprobe=2", num_shards=2).search(QUERIES, 12)
    for one, other in zip(index.search(QUERIES, 12), expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_serving_json_says_how_to_search_whatever_the_index_file_has(export: Path) -> None:
    write_product_index(export, "ivf-flat:nlist=10,nprobe=1")
    few = ProductIndex.open(export).search(QUERIES, 200).rows
    write_json(export / SERVING, {"index": "ivf-flat:nlist=10,nprobe=10", "tuned": None})
    assert (ProductIndex.open(export).search(QUERIES, 200).rows >= 0).sum() > (few >= 0).sum()


def test_a_boosted_export_has_an_index_of_hydrated_vectors(export: Path) -> None:
    boosting = quality()
    facts = [
        {"name": name, "weight": float(weight)}
        for name, weight in zip(boosting.features, boosting.weights, strict=True)
    ]
    write_boosting(export, boosting.quality, {"features": facts})
    write_product_index(export, "flat")
    index = ProductIndex.open(export)
    assert index.faiss_index.d == DIM + FEATURES
    expected = index_of("flat", is_boosted=True).search(QUERIES, 9)
    np.testing.assert_array_equal(index.search(QUERIES, 9).rows, expected.rows)


def test_auto_is_the_tuned_point_else_by_the_number_of_products(export: Path) -> None:
    write_product_index(export, "auto")
    assert json.loads((export / SERVING).read_text()) == {"index": "flat", "tuned": None}
    tuned = {"index": "hnsw:neighbors=8,ef_construction=20,ef_search=50", "key": tuned_key(export)}
    write_product_index(export, "auto", tuned)
    assert json.loads((export / SERVING).read_text()) == {"index": tuned["index"], "tuned": tuned}
    assert ProductIndex.open(export).faiss_index.hnsw.efSearch == 50


def test_an_index_that_was_built_before_is_taken(export: Path, tmp_path: Path) -> None:
    """HNSW's links depend on the order of threads: what was measured is what is served."""
    spec = resolve(parse_spec("hnsw:neighbors=6"), N, DIM)
    write_index(build_index(ProductVectors([VECTORS]), spec), tmp_path / "built.faiss")
    write_product_index(export, str(spec), built=tmp_path / "built.faiss")
    assert (export / INDEX).read_bytes() == (tmp_path / "built.faiss").read_bytes()


def test_a_parameter_that_does_not_fit_leaves_the_folder_without_an_index(export: Path) -> None:
    with pytest.raises(InputError, match=r"index ivf-flat:nlist=800: nlist=800: must be at most the 700 products"):
        write_product_index(export, "ivf-flat:nlist=800")
    assert not (export / INDEX).exists()


@pytest.mark.parametrize("content", ['{"index": {"index": "flat"}}', '{"index": "annoy"}', "{}", "[]"])
def test_another_versions_serving_json_is_refused(export: Path, content: str) -> None:
    write_product_index(export, "flat")
    (export / SERVING).write_text(content)
    with pytest.raises(InputError, match=r"serving\.json: names no index that this version knows"):
        ProductIndex.open(export)


def test_an_index_of_other_vectors_is_refused(export: Path) -> None:
    write_product_index(export, "flat")
    (export / "vectors" / "part-00001.npy").unlink()
    with pytest.raises(InputError, match=r"index\.faiss: 700 products of 16 dimensions, but vectors/ has 350 of 16"):
        ProductIndex.open(export)


def test_a_tuned_point_holds_for_the_same_towers_and_boosting(export: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    shutil.copytree(export, new)
    assert carried_point(export, new) is None, "nothing was indexed"
    write_product_index(export, "flat")
    assert carried_point(export, new) is None, "nothing was tuned"
    tuned = {"index": "flat", "key": tuned_key(export)}
    write_product_index(export, "hnsw", tuned)
    assert carried_point(export, new) == tuned
    (new / "vectors" / "part-00001.npy").unlink()
    assert carried_point(export, new) == tuned, "products come and go"
    weights = new / "query_tower" / "variables" / "variables.data-00000-of-00001"
    weights.write_bytes(b"trained on")
    assert carried_point(export, new) is None
    shutil.copyfile(export / "query_tower" / "variables" / weights.name, weights)
    assert carried_point(export, new) == tuned
    write_json(new / "boosting.json", {"features": []})
    assert carried_point(export, new) is None


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "null", '{"tuned": {"index": "flat"}}', '{"tuned": "x"}', '{"tuned": {"index": 1, "key": "KEY"}}',
     '{"tuned": {"index": "annoy", "key": "KEY"}}', '{"tuned": {"key": "KEY"}}'],
)  # fmt: skip
def test_a_damaged_serving_json_has_no_tuned_point(export: Path, content: str) -> None:
    """It says itself that exporting again mends it, so that must not read it."""
    write_product_index(export, "flat", {"index": "flat", "key": tuned_key(export)})
    (export / SERVING).write_text(content.replace("KEY", tuned_key(export)))
    assert carried_point(export, export) is None
