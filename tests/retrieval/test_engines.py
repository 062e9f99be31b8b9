"""Other engines get what our own index holds, whole or not at all."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from rich.progress import Progress

from uepp.artifacts import atomic_directory, read_json, write_manifest
from uepp.errors import InputError
from uepp.retrieval import engines
from uepp.retrieval.boosting import read_boosting, write_boosting
from uepp.retrieval.index import search_exact
from uepp.retrieval.vectors import ProductVectors

DIM, NUM_PRODUCTS = 8, 57


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """An export of two vector shards; some columns are empty, some texts odd."""
    rng = np.random.default_rng(3)
    export = tmp_path / "run" / "export"
    (export / "vectors").mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text("{}\n")
    vectors = unit(rng.standard_normal((NUM_PRODUCTS, DIM)))
    np.save(export / "vectors" / "part-00000.npy", vectors[:40])
    np.save(export / "vectors" / "part-00001.npy", vectors[40:])
    titles = [f"lamp {n}" for n in range(NUM_PRODUCTS)]
    titles[3], titles[4] = "ü" * 40_000, ""
    number = range(NUM_PRODUCTS)
    table = pa.table(
        {
            "product_id": [f"{n:03}" for n in number],
            "title": titles,
            "tags": [["a"]] * NUM_PRODUCTS,
            "price": pa.array([None if n % 3 else n / 2 for n in number], pa.float64()),
            "created_at": pa.array([n * 10**6 for n in number], pa.timestamp("us", "UTC")),
            "country": pa.array([None] * NUM_PRODUCTS, pa.string()),
        }
    )
    pq.write_table(table, export / "products.parquet", row_group_size=25)
    write_manifest(export, run_id="abcdef0123456789", num_products=NUM_PRODUCTS)
    return tmp_path / "run"


def boosted(run: Path) -> None:
    quality = np.random.default_rng(4).standard_normal((NUM_PRODUCTS, 2)).astype(np.float32)
    features = [{"name": "quality_sales", "weight": 0.5}, {"name": "quality_reviews", "weight": 0.25}]
    write_boosting(run / "export", quality, {"features": features})
    (run / "export" / "manifest.json").unlink()
    write_manifest(run / "export", run_id="abcdef0123456789", num_products=NUM_PRODUCTS)


def progress() -> Progress:
    return Progress(console=Console(quiet=True))


def stored_vectors(run: Path) -> np.ndarray:
    return np.concatenate([np.load(path) for path in sorted((run / "export" / "vectors").glob("*.npy"))])


@pytest.mark.parametrize("rows", [7, 40, 1_000])
def test_shards_hold_every_product_with_its_vector(
    run: Path, tmp_path: Path, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_SHARD_ROWS", rows)
    facts = engines.write_shards(run, tmp_path / "out", progress())
    assert facts == read_json(tmp_path / "out" / "collection.json")
    assert {name: facts[name] for name in ("run_id", "num_products", "dim", "hydrated")} == {
        "run_id": "abcdef0123456789", "num_products": NUM_PRODUCTS, "dim": DIM, "hydrated": [],
    }  # fmt: skip
    tables = [pq.read_table(tmp_path / "out" / name) for name in facts["shards"]]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([*facts["shards"], "collection.json"])
    table = pa.concat_tables(tables)
    assert table.column_names == ["product_id", "vector", "title", "price", "created_at", "country"]
    vectors = np.array(table.column("vector").to_pylist(), np.float32)
    np.testing.assert_array_equal(vectors, stored_vectors(run))
    products = pq.read_table(run / "export" / "products.parquet")
    for name in ("product_id", "title", "price", "created_at"):
        assert table.column(name).to_pylist() == products.column(name).to_pylist()


def test_a_boosted_export_is_published_hydrated(run: Path, tmp_path: Path) -> None:
    boosted(run)
    facts = engines.write_shards(run, tmp_path / "out", progress())
    assert (facts["dim"], facts["hydrated"]) == (DIM + 2, ["quality_sales", "quality_reviews"])
    table = pq.read_table(tmp_path / "out" / facts["shards"][0])
    boosting = read_boosting(run / "export")
    assert boosting is not None
    expected = boosting.products(stored_vectors(run), 0)
    np.testing.assert_array_equal(np.array(table.column("vector").to_pylist(), np.float32), expected)


def replace_export(run: Path) -> None:
    """As `uepp export` does: other products, or the same in another order."""
    with atomic_directory(run / "export") as folder:
        shutil.copytree(run / "export", folder, dirs_exist_ok=True)
        for path in (folder / "vectors").iterdir():
            np.save(path, np.load(path)[::-1].copy())
        table = pq.read_table(folder / "products.parquet")
        pq.write_table(table.take(list(range(NUM_PRODUCTS))[::-1]), folder / "products.parquet")
        write_manifest(folder, run_id="abcdef0123456789", num_products=NUM_PRODUCTS)


@pytest.mark.parametrize("is_boosted", [False, True])
def test_an_export_that_is_replaced_is_published_as_it_was(
    run: Path, tmp_path: Path, is_boosted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vectors of the second shard were then those of the new export, and the ids those of the old one."""
    if is_boosted:
        boosted(run)
    expected = engines.write_shards(run, tmp_path / "expected", progress())

    class Replacing(Progress):
        def advance(self, *args: Any, **about: Any) -> None:
            replace_export(run)

    monkeypatch.setattr(engines, "_SHARD_ROWS", 7)
    before = stored_vectors(run)
    facts = engines.write_shards(run, tmp_path / "out", Replacing(console=Console(quiet=True)))
    assert not np.array_equal(stored_vectors(run), before)
    assert len(facts["shards"]) == 9
    assert facts["content"] == expected["content"]
    one, other = (
        pa.concat_tables([pq.read_table(tmp_path / folder / name) for name in about["shards"]])
        for folder, about in (("expected", expected), ("out", facts))
    )
    assert one.combine_chunks() == other.combine_chunks()


def test_an_export_that_is_replaced_while_it_is_opened_is_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(export: Path) -> ProductVectors:
        vectors = ProductVectors.open(export)
        replace_export(run)
        return vectors

    monkeypatch.setattr(engines, "ProductVectors", SimpleNamespace(open=slow))
    with pytest.raises(InputError, match="export: was replaced meanwhile; do it again"):
        engines.write_shards(run, tmp_path / "out", progress())
    assert not (tmp_path / "out").exists()


def test_a_directory_that_exists_is_left_alone(run: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(InputError, match="out: exists already"):
        engines.write_shards(run, tmp_path / "out", progress())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


# Milvus, by its embedded twin


@pytest.fixture
def milvus(tmp_path: Path) -> Any:
    pytest.importorskip("pymilvus", reason="pymilvus is not installed (uepp[milvus])")
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed (uepp[milvus])")
    return tmp_path / "engine.db"


def found(uri: Path, queries: np.ndarray, k: int, collection: str = "products") -> list[list[dict[str, Any]]]:
    from pymilvus import MilvusClient

    client = MilvusClient(str(uri))
    hits = client.search(collection, data=list(queries), limit=k, output_fields=["product_id", "title", "price"])
    result = [[{**hit["entity"], "distance": hit["distance"]} for hit in row] for row in hits]
    client.close()
    return result


@pytest.mark.parametrize("is_boosted", [False, True])
def test_milvus_finds_what_exact_search_finds(run: Path, milvus: Path, is_boosted: bool) -> None:
    if is_boosted:
        boosted(run)
    name = engines.load_into_milvus(run, str(milvus), "products", progress(), index="FLAT")
    assert name.startswith("products_abcdef01_")
    queries, vectors = unit(np.random.default_rng(5).standard_normal((6, DIM))), stored_vectors(run)
    boosting = read_boosting(run / "export")
    if boosting is not None:
        queries, vectors = boosting.queries(queries), boosting.products(vectors, 0)
    rows, scores = search_exact(queries, vectors, 10)
    hits = found(milvus, queries, 10)
    assert [[hit["product_id"] for hit in row] for row in hits] == [[f"{n:03}" for n in row] for row in rows]
    np.testing.assert_allclose([[hit["distance"] for hit in row] for row in hits], scores, atol=1e-5)
    by_id = {hit["product_id"]: hit for row in found(milvus, queries, NUM_PRODUCTS) for hit in row}
    assert len(by_id) == NUM_PRODUCTS
    assert by_id["003"]["title"] == "ü" * 32_767  # 65,535 bytes, less the half of a character
    assert (by_id["006"]["price"], by_id["007"]["price"]) == (3.0, None)


def test_the_alias_moves_to_a_new_export_and_the_old_collection_goes(run: Path, milvus: Path) -> None:
    from pymilvus import MilvusClient

    first = engines.load_into_milvus(run, str(milvus), "products", progress())
    assert engines.load_into_milvus(run, str(milvus), "products", progress()) == first
    vectors = np.load(run / "export" / "vectors" / "part-00000.npy")
    np.save(run / "export" / "vectors" / "part-00000.npy", vectors[::-1].copy())
    write_manifest(run / "export", run_id="abcdef0123456789", num_products=NUM_PRODUCTS)
    second = engines.load_into_milvus(run, str(milvus), "products", progress())
    client = MilvusClient(str(milvus))
    assert client.list_collections() == [second] != [first]
    client.close()
    assert found(milvus, vectors[:1], 1)[0][0]["product_id"] == "039"


@pytest.mark.parametrize(
    ("index", "parameters"), [("AUTOINDEX", None), ("HNSW", {"M": 16, "efConstruction": 100})], ids=str
)
def test_milvus_default_index_finds_nearly_all(
    run: Path, milvus: Path, index: str, parameters: dict[str, Any] | None
) -> None:
    """What `uepp publish` makes unless told otherwise is approximate: 95% of the exact first ten, with exact scores."""
    rng = np.random.default_rng(6)
    export, number = run / "export", 2_000
    vectors = unit(rng.standard_normal((number, DIM)))
    for path in (export / "vectors").iterdir():
        path.unlink()
    np.save(export / "vectors" / "part-00000.npy", vectors)
    ids = [f"{n:04}" for n in range(number)]
    pq.write_table(pa.table({"product_id": ids, "title": ids}), export / "products.parquet")
    write_manifest(export, run_id="abcdef0123456789", num_products=number)
    name = engines.load_into_milvus(run, str(milvus), "products", progress(), index=index, parameters=parameters)
    assert index_of(milvus, name) == index
    queries = unit(rng.standard_normal((40, DIM)))
    rows, _ = search_exact(queries, vectors, 10)
    hits = search_ids(milvus, queries)
    shares = [
        len({hit for hit, _ in found} & {f"{n:04}" for n in best}) / 10 for found, best in zip(hits, rows, strict=True)
    ]
    assert np.mean(shares) >= 0.95
    for query, found in zip(queries, hits, strict=True):
        expected = [vectors[int(product)] @ query for product, _ in found]
        np.testing.assert_allclose([score for _, score in found], expected, atol=1e-5)


def index_of(uri: Path, name: str) -> str:
    from pymilvus import MilvusClient

    client = MilvusClient(str(uri))
    kind = client.describe_index(name, "vector")["index_type"]
    client.close()
    return str(kind)


def search_ids(uri: Path, queries: np.ndarray) -> list[list[tuple[str, float]]]:
    from pymilvus import MilvusClient

    client = MilvusClient(str(uri))
    hits = client.search("products", data=list(queries), limit=10, output_fields=["product_id"])
    result = [[(hit["entity"]["product_id"], hit["distance"]) for hit in row] for row in hits]
    client.close()
    return result


def test_what_a_stopped_load_left_goes_with_the_next(run: Path, milvus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A load of other content, stopped half-way, stayed for ever; collections of others are nobody's to drop."""
    from pymilvus import MilvusClient

    first = engines.load_into_milvus(run, str(milvus), "products", progress())
    rows = engines._milvus_rows

    def stopped(table: pa.Table) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(engines, "_milvus_rows", stopped)
    for seed in (1, 2):
        np.save(run / "export" / "vectors" / "part-00000.npy", unit(np.random.default_rng(seed).random((40, DIM))))
        write_manifest(run / "export", run_id="abcdef0123456789", num_products=NUM_PRODUCTS)
        with pytest.raises(KeyboardInterrupt):
            engines.load_into_milvus(run, str(milvus), "products", progress())
    client = MilvusClient(str(milvus))
    others = ["products_2", "products_abcdef01_copy", "products_abcdef01_abcdef012", "others_abcdef01_abcdef01"]
    pinned = "products_00000000_00000000"
    for name in [*others, pinned]:
        client.create_collection(name, dimension=4)
    client.create_alias(pinned, "pinned")
    assert len(client.list_collections()) == 3 + 5, "two that were stopped"
    client.close()

    monkeypatch.setattr(engines, "_milvus_rows", rows)
    np.save(run / "export" / "vectors" / "part-00000.npy", unit(np.random.default_rng(3).random((40, DIM))))
    write_manifest(run / "export", run_id="abcdef0123456789", num_products=NUM_PRODUCTS)
    last = engines.load_into_milvus(run, str(milvus), "products", progress())
    client = MilvusClient(str(milvus))
    assert last != first
    assert sorted(client.list_collections()) == sorted([*others, pinned, last])
    client.create_collection("products_11111111_11111111", dimension=4)
    client.close()
    assert engines.load_into_milvus(run, str(milvus), "products", progress()) == last
    client = MilvusClient(str(milvus))
    assert "products_11111111_11111111" not in client.list_collections(), "also where all is there already"
    client.close()


def test_products_are_counted_when_all_are_there(run: Path, milvus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server counts as of some seconds ago unless asked for more, so a whole load was refused."""
    from pymilvus import MilvusClient

    levels: list[Any] = []
    query = MilvusClient.query

    def recorded(self: Any, *args: Any, **about: Any) -> Any:
        levels.append(about.get("consistency_level"))
        return query(self, *args, **about)

    monkeypatch.setattr(MilvusClient, "query", recorded)
    engines.load_into_milvus(run, str(milvus), "products", progress())
    assert levels == ["Strong"]


def test_what_milvus_refuses_is_one_line(run: Path, milvus: Path) -> None:
    from pymilvus import MilvusClient

    with pytest.raises(InputError, match="--collection bad name!: must be letters, digits"):
        engines.load_into_milvus(run, str(milvus), "bad name!", progress())
    client = MilvusClient(str(milvus))
    client.create_collection("taken", dimension=4)
    client.close()
    with pytest.raises(InputError, match="--collection taken: a collection has this name"):
        engines.load_into_milvus(run, str(milvus), "taken", progress())
    shutil.rmtree(run / "export")
    with pytest.raises(InputError, match="has no export yet"):
        engines.load_into_milvus(run, str(milvus), "products", progress())
