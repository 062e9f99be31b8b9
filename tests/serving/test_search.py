"""Search over an export whose towers are a lookup, so that the right answer is known by eye."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from uepp.artifacts import write_manifest
from uepp.config import ExportConfig
from uepp.errors import InputError
from uepp.retrieval.index import build_index, write_index
from uepp.serving.search import Hit, Searcher

PRODUCTS = {
    "east": ("001", "Lamp, facing east"),
    "north": ("2", "Ünïcödé 赤い ランプ"),
    "north-east": ("03", "[bold]Brackets[/bold] & [gift]"),
}
_HALF = float(np.sqrt(0.5))
VECTORS = np.array([[1, 0], [0, 1], [_HALF, _HALF]], np.float32)


class _Compass(tf.Module):
    """`east` is (1, 0), `赤い` is (0, 1), and any other text has no word in it."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "query")])
    def serve(self, query: tf.Tensor) -> dict[str, tf.Tensor]:
        east, north = (tf.cast(query == word, tf.float32) for word in ("east", "赤い"))
        return {"embedding": tf.stack([east, north], axis=1)}


def make_run(directory: Path, **settings: Any) -> Path:
    export = directory / "export"
    export.mkdir(parents=True)
    (directory / "config.yaml").write_text("{}\n")
    tower = _Compass()
    tf.saved_model.save(tower, str(export / "query_tower"), signatures={"serving_default": tower.serve})
    products = {"product_id": [one for one, _ in PRODUCTS.values()], "title": [title for _, title in PRODUCTS.values()]}
    pq.write_table(pa.table(products), export / "products.parquet")
    write_index(build_index(VECTORS, ExportConfig.model_validate(settings)), export / "index.faiss")
    write_manifest(export, run_id="compass")
    return directory


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("search") / "run")


def hit(name: str, similarity: float) -> Hit:
    return Hit(*PRODUCTS[name], pytest.approx(similarity, abs=1e-6))


def test_the_most_similar_products_come_first(run: Path) -> None:
    searcher = Searcher(run)
    assert searcher.search("east", 3) == [hit("east", 1), hit("north-east", _HALF), hit("north", 0)]
    assert searcher.search("赤い", 2) == [hit("north", 1), hit("north-east", _HALF)]


@pytest.mark.parametrize("index", ["flat", "hnsw"])
def test_more_results_than_products(tmp_path: Path, index: str) -> None:
    found = Searcher(make_run(tmp_path / "run", index=index)).search("east", 1_000)
    assert found == [hit("east", 1), hit("north-east", _HALF), hit("north", 0)]


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_1_is_refused(run: Path, k: int) -> None:
    with pytest.raises(InputError, match=f"--k {k}: must be at least 1"):
        Searcher(run).search("east", k)


@pytest.mark.parametrize("query", ["", " ", "?!"])
def test_a_query_without_a_word_is_refused(run: Path, query: str) -> None:
    with pytest.raises(InputError, match="no word in it"):
        Searcher(run).search(query)


def test_a_query_that_is_not_text_is_refused(run: Path) -> None:
    """What a shell passes on that is not UTF-8 arrives as lone surrogates."""
    with pytest.raises(InputError, match=r"query 'ring .udcff': not valid UTF-8"):
        Searcher(run).search("ring \udcff")


def test_what_is_not_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{tmp_path}: not a run directory"):
        Searcher(tmp_path)


def test_a_damaged_index_is_refused(tmp_path: Path) -> None:
    """Faiss itself loads a damaged index without complaint."""
    index = make_run(tmp_path / "run") / "export" / "index.faiss"
    content = bytearray(index.read_bytes())
    content[-1] ^= 1
    index.write_bytes(content)
    with pytest.raises(InputError, match=f"{index}: differs from its SHA-256"):
        Searcher(tmp_path / "run")
