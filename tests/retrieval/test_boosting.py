"""Hydrated vectors: the score that they give, what is taken back out of it, and what is refused."""

import json
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from uepp.errors import InputError
from uepp.retrieval.boosting import Boosting, read_boosting, remove_boosting, write_boosting


def unit(rng: np.random.Generator, rows: int, dim: int) -> np.ndarray:
    vectors = rng.standard_normal((rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def boosting() -> Boosting:
    rng = np.random.default_rng(1)
    quality = np.clip(rng.standard_normal((50, 3)), -3, 3).astype(np.float32)
    return Boosting(("quality_rating", "freshness", "clicks"), np.array([0.5, 0, 0.02], np.float32), quality)


def test_a_score_is_similarity_and_weighed_quality(boosting: Boosting) -> None:
    """UEPPR IV: S(q', p') = p · q + f(p) · w."""
    rng = np.random.default_rng(2)
    queries, vectors = unit(rng, 4, 8), unit(rng, 50, 8)
    hydrated_queries, hydrated_products = boosting.queries(queries), boosting.products(vectors, 0)
    assert hydrated_queries.shape == (4, 11)
    assert hydrated_products.shape == (50, 11)
    assert hydrated_queries.dtype == hydrated_products.dtype == np.float32
    for query, hydrated_query in zip(queries, hydrated_queries, strict=True):
        for row, vector in enumerate(vectors):
            similarity = sum(float(a) * float(b) for a, b in zip(query, vector, strict=True))
            bonus = sum(float(w) * float(f) for w, f in zip(boosting.weights, boosting.quality[row], strict=True))
            score = float(hydrated_query @ hydrated_products[row])
            assert score == pytest.approx(similarity + bonus, abs=1e-6)
            assert score - float(boosting.bonus(np.array(row))) == pytest.approx(similarity, abs=1e-6)
    assert np.ptp(boosting.all_bonuses) > 0.5, "quality counts here"


def test_products_come_in_parts(boosting: Boosting) -> None:
    vectors = unit(np.random.default_rng(3), 50, 8)
    whole = boosting.products(vectors, 0)
    parts = [boosting.products(vectors[begin : begin + 17], begin) for begin in range(0, 50, 17)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    np.testing.assert_array_equal(whole[:, :8], vectors)
    assert boosting.queries(vectors[:0]).shape == (0, 11)


def test_no_product_has_no_bonus(boosting: Boosting) -> None:
    """An index answers -1 where it found too few."""
    rows = np.array([[3, -1, 0], [-1, -1, 49]])
    bonus = boosting.bonus(rows)
    assert bonus.dtype == np.float32
    assert bonus.shape == rows.shape
    assert bonus[rows < 0].tolist() == [0, 0, 0]
    expected = [sum(boosting.weights * boosting.quality[row]) for row in (3, 0, 49)]
    np.testing.assert_allclose(bonus[rows >= 0], expected, atol=1e-6)


def test_an_index_of_hydrated_products_keeps_to_similar_ones() -> None:
    """Quality of variance 1 beside a vector of length 1 would decide who is whose neighbour: [p; f] finds less."""
    rng = np.random.default_rng(4)
    vectors, queries, k = unit(rng, 3_000, 16), unit(rng, 100, 16), 10
    quality = np.clip(rng.standard_normal((3_000, 4)), -3, 3).astype(np.float32)
    boosting = Boosting(("a", "b", "c", "d"), np.full(4, 0.02, np.float32), quality)
    ours = (boosting.products(vectors, 0), boosting.queries(queries))
    papers = (np.hstack([vectors, quality]), np.hstack([queries, np.tile(boosting.weights, (100, 1))]))
    exact = np.argsort(-(queries @ vectors.T + boosting.all_bonuses), axis=1)[:, :k]
    found = []
    for products, hydrated in (ours, papers):
        index = faiss.IndexHNSWFlat(products.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
        index.add(products)
        found.append(index.search(hydrated, k)[1])
    overlap = [
        np.mean([len(set(one) & set(other)) / k for one, other in zip(rows, exact, strict=True)]) for rows in found
    ]
    assert overlap[0] > 0.95
    assert overlap[0] > overlap[1] + 0.05


def facts(*weights: float) -> dict[str, Any]:
    return {"features": [{"name": f"quality_{n}", "weight": weight} for n, weight in enumerate(weights)]}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    assert read_boosting(tmp_path) is None
    quality = np.arange(6, dtype=np.float64).reshape(3, 2)
    write_boosting(tmp_path, quality, facts(0.25, 0.5))
    read = read_boosting(tmp_path)
    assert read is not None
    assert read.features == ("quality_0", "quality_1")
    assert read.weights.tolist() == [0.25, 0.5]
    assert read.quality.dtype == np.float32
    np.testing.assert_array_equal(read.quality, quality)
    remove_boosting(tmp_path)
    remove_boosting(tmp_path)
    assert read_boosting(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        (facts(0.1, 0.2), 3, r"2 features of weights .* for quality.npy of shape \[5, 3\]"),
        (facts(0.1, -0.2), 2, "allowed are finite weights ≥ 0"),
        (facts(float("nan")), 1, "allowed are finite weights ≥ 0"),
        ({"features": [{"name": "quality_0"}]}, 1, "not a boosting"),
        ({"features": 3}, 1, "not a boosting"),
        (facts(0.1), None, "not a boosting"),
    ],
)
def test_what_does_not_fit_is_refused(
    content: dict[str, Any], columns: int | None, message: str, tmp_path: Path
) -> None:
    (tmp_path / "boosting.json").write_text(json.dumps(content))
    if columns is not None:
        np.save(tmp_path / "quality.npy", np.zeros((5, columns), np.float32))
    with pytest.raises(InputError, match=message) as caught:
        read_boosting(tmp_path)
    assert str(tmp_path / "boosting.json") in str(caught.value)
    assert "\n" not in str(caught.value)
