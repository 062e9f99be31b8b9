"""A run's towers guide the sampling: each text and product gets its own vector, whatever order they stand in."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stand_in_run import DIM, STRINGS, TIMESTAMP, begin_run, finish_run, unit

from uepp.errors import InputError
from uepp.relevance.bi_encoder import check_bi_encoder, embed_pairs, trained_on
from uepp.relevance.pairs import TextPairs

NUM_PRODUCTS = 30


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A finished run, and the vectors of its products; their ids say which row each has."""
    run = tmp_path_factory.mktemp("towers") / "run"
    export = begin_run(run, "run 9", {})
    vectors = unit(np.random.default_rng(9).standard_normal((NUM_PRODUCTS, DIM)))
    products = {
        "product_id": [f"p{row}" for row in range(NUM_PRODUCTS)],
        "title": [f"product {row}" for row in range(NUM_PRODUCTS)],
        "tags": pa.array([[]] * NUM_PRODUCTS, STRINGS),
        **{name: pa.nulls(NUM_PRODUCTS, pa.string()) for name in ("category", "description", "shop_id", "country")},
        "attributes": pa.nulls(NUM_PRODUCTS, pa.map_(pa.string(), STRINGS)),
        "price": pa.nulls(NUM_PRODUCTS, pa.float64()),
        "created_at": pa.nulls(NUM_PRODUCTS, TIMESTAMP),
    }
    pq.write_table(pa.table({"product_id": products["product_id"]}), export / "product_ids.parquet")
    finish_run(run, "run 9", products, vectors)
    return run, vectors


def pairs_of(queries: np.ndarray, ids: list[str]) -> TextPairs:
    texts = [" ".join(f"{value:.4f}" for value in query) for query in queries]
    number = min(len(texts), len(ids))
    rows = np.arange(number)
    return TextPairs(texts, ids, [f"text of {name}" for name in ids], rows, rows, np.ones(number))


def test_each_has_its_own_vector(run: tuple[Path, np.ndarray]) -> None:
    directory, vectors = run
    rng = np.random.default_rng(4)
    rows, queries = rng.permutation(NUM_PRODUCTS)[:21], unit(rng.standard_normal((7, DIM)))
    found = embed_pairs(str(directory), pairs_of(queries, [f"p{row}" for row in rows]))
    assert found.products.dtype == found.queries.dtype == np.float32
    np.testing.assert_allclose(found.products, vectors[rows], rtol=1e-6)
    np.testing.assert_allclose(found.queries, queries, atol=1e-3)
    assert (np.abs(vectors[rows] - vectors[:21]).max(axis=1) > 0.1).any(), "not the order of the export"


def test_what_it_does_not_know_is_refused(run: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    directory, vectors = run
    with pytest.raises(InputError, match="its export has no product 'p99'; it must be of the same data set"):
        embed_pairs(str(directory), pairs_of(vectors[:2], ["p3", "p99"]))
    with pytest.raises(InputError, match="must be minilm, a text encoder"):
        check_bi_encoder(str(tmp_path))
    assert trained_on(str(directory), ["lamp"]) is None, "without the graph of its log nobody knows"
