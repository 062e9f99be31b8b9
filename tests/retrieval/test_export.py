"""An export of untrained towers: the same vectors in a fresh process, and damage that is noticed."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from by_hand import HISTORY, PLACE, TEXTS, Reader, Row, columns, product, product_rows, request, request_rows, tensors
from conftest import TRAIN_END, Toy

from uepp import artifacts
from uepp.artifacts import check_manifest, read_json, write_json
from uepp.config import Config, ExportConfig
from uepp.errors import InputError
from uepp.features.batches import load_request_features
from uepp.features.fitted import Fitted
from uepp.features.requests import RawRequests, load_past_events, load_raw_requests
from uepp.features.vocabulary import Vocabulary
from uepp.model.towers import TwoTower, build_two_tower
from uepp.retrieval import export as export_module
from uepp.retrieval.boosting import write_boosting
from uepp.retrieval.embed import embed_queries, load_tower, read_vectors, write_vectors
from uepp.retrieval.export import open_export, rebuild_index, write_export
from uepp.retrieval.index import read_index, search_exact
from uepp.retrieval.operations import not_in_tensorflow_serving, operations_of

QUERIES = [
    "red lamp",
    "RED Lamp!",
    "",
    "  ",
    "zzz unheard of",
    "Stühle für Kinder",
    "赤い ランプ",
    "👟",
    "\x00",
    "lamp " * 2_000,
]
CALIFORNIA = {
    "country": "US", "region": "CA", "language": "en-US", "zip": "94103", "latitude": 37.8, "longitude": -122.4,
}  # fmt: skip
PAST = {
    "recent_searches": ["blue chair", "red lamp"],
    "recent_shops": ["shop 1", "shop 4"],
    "recent_titles": ["Handmade red lamp number 0", "Handmade blue chair number 9"],
    "purchased_tags": ["red\nlamp gift", "golden"],
}
REQUESTS = [
    *(request(query) for query in QUERIES),
    request("red lamp", **CALIFORNIA, **PAST),
    request("", **CALIFORNIA, **PAST),
    request("", **PAST),
    request("red lamp", **CALIFORNIA),
    request("red lamp", country="us", zip="94 1"),
    request("red lamp", region="CA", zip="94103"),
    request("red lamp", country="Atlantis", region="Berlin", language="xx", zip="00000000000000"),
    request("red lamp", latitude=-33.9, longitude=151.2),
    request("red lamp", latitude=91.0, longitude=0.0),
    request("red lamp", latitude=float("inf"), longitude=float("-inf")),
    request("red lamp", country="\x00", region="赤い", language="\n", zip="👟"),
    *(request("red lamp", **{name: texts}) for name, texts in PAST.items()),
    request("red lamp", recent_searches=["", "red lamp", "", "mug", "ring"], recent_shops=["", "nowhere", "shop 2"]),
    request("red lamp", recent_titles=["", "👟", "mug"], purchased_tags=["\n\n", "", "mug"]),
    request("red lamp", **{name: 5 * texts for name, texts in PAST.items()}),
]
PRODUCTS = [
    product(title="Handmade red lamp", tags="red\nlamp gift", category="Home > lamp", shop_id="shop 1", **CALIFORNIA),
    product(),
    product(title="Ünïcödé 赤い ランプ 👟", tags="für\n👟", category=" > > ", attributes="größe: 12 cm\nno colon"),
    product(title="long title " * 1_000, category="Häuser > Stühle", attributes=": \n:", description="x" * 10_000),
    product(title="mug", tags="\n\n", category="a>b>c>d>e>f>g>h>i>j", attributes="color: red\ncolor: blue"),
    product(description="a lamp made of red things", shop_id="nowhere"),
    product(shop_id="shop 2"),
    product(country="DE", zip="10115"),
    product(latitude=-33.9, longitude=151.2),
    product(neighbor_queries=["red lamp", "", "mug"]),
    product(title="mug", neighbor_queries=["👟"]),
]


@dataclass(frozen=True)
class Exported:
    """A run directory with an export, and what it was made of."""

    run: Path
    config: Config
    fitted: Fitted
    towers: TwoTower
    mined: Path

    @property
    def reader(self) -> Reader:
        return Reader(self.config, self.fitted)

    def embed_requests(self, rows: Sequence[Row]) -> np.ndarray:
        """By the towers themselves."""
        return self.towers.query_user_tower(self.reader.requests(rows), training=False).numpy()

    def embed_products(self, rows: Sequence[Row]) -> np.ndarray:
        """By the towers themselves."""
        return self.towers.product_tower(self.reader.products(rows), training=False).numpy()


def with_own_table(toy: Toy) -> tuple[Config, Fitted]:
    """All encoders, and a table of its own for descriptions."""
    settings = toy.config.model_dump()
    settings["model"] |= {"hidden_layers": (9,)}
    settings["features"] |= {"own_tables": ("description",)}
    config = Config.model_validate(settings)
    own = Vocabulary([b"lamp", b"made", b"of", b"~#la"], np.array([9, 8, 7, 6]), 40, 3)
    fitted = replace(toy.fitted, vocabularies={**toy.fitted.vocabularies, "description": own})
    return config, fitted


@pytest.fixture(scope="module")
def exported(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Towers whose weights, BatchNorm statistics and tables are all random; some history is after the end."""
    root = tmp_path_factory.mktemp("exported")
    mined = root / "mined"
    shutil.copytree(toy.mined, mined)
    train_end = (TRAIN_END - timedelta(days=20)).isoformat()
    write_json(mined / "windows.json", {**read_json(mined / "windows.json"), "train_end": train_end})
    (root / "run").mkdir()
    (root / "run" / "config.yaml").write_text("{}\n")
    config, fitted = with_own_table(toy)
    made = Exported(root / "run", config, fitted, build_two_tower(config, fitted), mined)
    made.embed_requests(REQUESTS)
    made.embed_products(PRODUCTS)
    rng = np.random.default_rng(5)
    for variable in made.towers.variables:
        is_variance = "variance" in variable.name
        # Larger weights would leave all attention with one event.
        variable.assign(rng.uniform(0.5, 1.5, variable.shape) if is_variance else rng.normal(0, 0.3, variable.shape))
    export(toy, made, made.run / "export")
    return made


def export(toy: Toy, made: Exported, directory: Path) -> None:
    write_export(
        directory,
        model=made.towers,
        config=made.config,
        fitted=made.fitted,
        products=toy.products,
        mined=made.mined,
        bm25={"bm25": {"k1": 1.0, "b": 0.5}},
        generated=None,
        run_id="run 7",
    )


@pytest.fixture(scope="module")
def served(exported: Exported) -> dict[str, Any]:
    """The exported towers, loaded."""
    return {name: load_tower(exported.run / "export" / name) for name in ("query_tower", "product_tower")}


@pytest.fixture
def copy(exported: Exported, tmp_path: Path) -> Path:
    """A run of its own, to damage."""
    shutil.copytree(exported.run, tmp_path / "run")
    return tmp_path / "run"


def contents(directory: Path) -> dict[str, str]:
    """Digest of each file."""
    files = [path for path in sorted(directory.rglob("*")) if path.is_file()]
    return {str(file.relative_to(directory)): sha256(file.read_bytes()).hexdigest() for file in files}


def serve(tower: Any, rows: Sequence[Row], padding: int = 0) -> np.ndarray:
    return tower(**tensors(rows, padding))["embedding"].numpy()


# The towers as they are served

_FRESH_PROCESS = """
import json, sys
import numpy as np
import tensorflow as tf
import tensorflow_text
export, inputs, output = sys.argv[1:]
with open(inputs, encoding="utf-8") as file:
    inputs = json.load(file)
found = {}
for name, columns in inputs.items():
    serve = tf.saved_model.load(f"{export}/{name}").signatures["serving_default"]
    types = {name: spec.dtype for name, spec in serve.structured_input_signature[1].items()}
    found[name] = serve(**{name: tf.constant(values, types[name]) for name, values in columns.items()})["embedding"]
assert not any(module.partition(".")[0] == "uepp" for module in sys.modules)
np.savez(output, **found)
"""


def test_a_fresh_process_without_uepp_gives_the_same_embeddings(toy: Toy, exported: Exported, tmp_path: Path) -> None:
    """Requests with all, some and none of context and history; products with and without shop, place and graph."""
    requests = [*request_rows(exported.mined, toy.products), *REQUESTS]
    products = [*product_rows(exported.mined, toy.products, exported.config.graph.num_neighbors), *PRODUCTS]
    inputs = {"query_tower": columns(requests), "product_tower": columns(products)}
    (tmp_path / "inputs.json").write_text(json.dumps(inputs), encoding="utf-8")
    arguments = [str(exported.run / "export"), str(tmp_path / "inputs.json"), str(tmp_path / "found.npz")]
    finished = subprocess.run(
        [sys.executable, "-c", _FRESH_PROCESS, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    found = np.load(tmp_path / "found.npz")
    for name, expected in (
        ("query_tower", exported.embed_requests(requests)),
        ("product_tower", exported.embed_products(products)),
    ):
        np.testing.assert_allclose(found[name], expected, atol=1e-5)
        assert len(np.unique(expected.round(3), axis=0)) > 0.7 * len(expected), "they are told apart"
    np.testing.assert_allclose(
        read_vectors(exported.run / "export"), found["product_tower"][: toy.products.num_rows], atol=1e-5
    )


def test_signatures_say_what_goes_in_and_out(exported: Exported, served: dict[str, Any]) -> None:
    place = {name: (tf.float32 if missing else tf.string, [None]) for name, missing in PLACE.items()}
    expected = {
        "query_tower": {"query": (tf.string, [None]), **place, **{name: (tf.string, [None, None]) for name in HISTORY}},
        "product_tower": {
            **{name: (tf.string, [None]) for name in (*TEXTS, "shop_id")},
            **place,
            "neighbor_queries": (tf.string, [None, None]),
        },
    }
    for name, inputs in expected.items():
        signature = served[name].structured_input_signature[1]
        assert {field: (spec.dtype, spec.shape.as_list()) for field, spec in signature.items()} == inputs
        outputs = served[name].structured_outputs
        assert list(outputs) == ["embedding"]
        assert outputs["embedding"].dtype == tf.float32
        assert outputs["embedding"].shape.as_list() == [None, exported.config.model.output_dim]


@pytest.mark.parametrize("tower", ["query_tower", "product_tower"])
def test_a_stock_tensorflow_serving_runs_both_towers(exported: Exported, tower: str) -> None:
    assert {"CaseFoldUTF8", "StatefulPartitionedCall"} < operations_of(exported.run / "export" / tower)
    assert not_in_tensorflow_serving(exported.run / "export" / tower) == []


@pytest.mark.parametrize(
    "change",
    [
        *({name: value} for name, value in CALIFORNIA.items() if name not in ("zip", "latitude", "longitude")),
        {"country": "US", "zip": "94103"},
        {"latitude": 37.8, "longitude": -122.4},
        *({name: texts} for name, texts in PAST.items()),
        *({name: texts[1:]} for name, texts in PAST.items()),
    ],
    ids=lambda change: " ".join(change),
)
def test_who_asks_changes_what_is_found(served: dict[str, Any], change: Row) -> None:
    before = {name: value for name, value in change.items() if name == "country" and len(change) > 1}
    nobody, somebody = serve(served["query_tower"], [request("red lamp", **before), request("red lamp", **change)])
    assert np.linalg.norm(nobody - somebody) > 1e-2


def test_the_order_of_a_history_counts_where_it_is_a_sequence(served: dict[str, Any]) -> None:
    orders = [request("red lamp", **{name: texts}) for name, kept in PAST.items() for texts in (kept, kept[::-1])]
    embeddings = serve(served["query_tower"], orders).reshape(len(PAST), 2, -1)
    distance = dict(zip(PAST, np.linalg.norm(embeddings[:, 0] - embeddings[:, 1], axis=1), strict=True))
    assert min(distance["recent_searches"], distance["recent_shops"]) > 1e-3
    assert max(distance["recent_titles"], distance["purchased_tags"]) < 1e-5


def test_padding_changes_nothing(served: dict[str, Any]) -> None:
    for name, rows in (("query_tower", REQUESTS), ("product_tower", PRODUCTS)):
        alone = np.concatenate([serve(served[name], [row]) for row in rows])
        for padding in (0, 1, 9):
            np.testing.assert_allclose(serve(served[name], rows, padding), alone, atol=1e-5)


def test_what_is_older_than_what_training_looked_at_changes_nothing(exported: Exported, served: dict[str, Any]) -> None:
    history = exported.config.history
    numbers = (history.num_searches, history.num_shops, history.num_clicked_products, history.num_purchased_products)
    for (name, texts), number in zip(PAST.items(), numbers, strict=True):
        kept, longer, other = (
            request("red lamp", **{name: past})
            for past in (texts[:1] * number, [*texts[:1] * number, *texts[1:]], [*texts[1:], *texts[:1] * number])
        )
        kept, longer, other = serve(served["query_tower"], [kept, longer, other])
        np.testing.assert_allclose(longer, kept, atol=1e-5)
        assert np.linalg.norm(other - kept) > 1e-3, name


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_batches_do_not_matter(
    toy: Toy, exported: Exported, served: dict[str, Any], batch_size: int, tmp_path: Path
) -> None:
    raw = load_raw_requests(
        pq.read_table(exported.mined / "examples.parquet"), load_past_events(exported.mined, toy.products)
    )
    embeddings = embed_queries(served["query_tower"], raw, exported.config.history, batch_size)
    expected = exported.embed_requests(request_rows(exported.mined, toy.products))
    np.testing.assert_allclose(embeddings, expected, atol=1e-5)
    assert embeddings.dtype == np.float32
    neighbors = pq.read_table(exported.run / "export" / "neighbors.parquet")["queries"].to_pylist()
    write_vectors(served["product_tower"], toy.products.slice(0, 20), neighbors, tmp_path, batch_size)
    np.testing.assert_allclose(read_vectors(tmp_path), read_vectors(exported.run / "export")[:20], atol=1e-5)


def test_a_training_request_is_served_as_it_was_trained(toy: Toy, exported: Exported, served: dict[str, Any]) -> None:
    """Ids in memory-mapped columns while training, strings when served: the same embedding."""
    examples = toy.examples
    features = load_request_features(exported.config, exported.fitted, examples, exported.mined, toy.catalog)
    assert features.histories is not None
    entries = toy.query_tokens.gather(examples.query_rows).entries("query")
    rows = examples.request_rows
    entries |= features.histories.entries(rows, exported.config.history, features.search_tokens, toy.catalog.terms)
    entries["user/location/ids"] = features.contexts["user/location/ids"][rows]
    entries |= features.contexts["user/zip"].gather(rows).entries("user/zip")
    trained = exported.towers.query_user_tower(entries, training=False).numpy()
    by_query = {row["query"]: row for row in request_rows(exported.mined, toy.products)}
    found = serve(served["query_tower"], [by_query[examples.queries[query]] for query in examples.query_rows])
    np.testing.assert_allclose(found, trained, atol=1e-5)
    assert len(by_query) == len(examples.queries), "a query is asked in one request"


def test_an_unknown_person_is_like_one_without_history(exported: Exported, served: dict[str, Any]) -> None:
    queries = [query for query in QUERIES if query]
    embeddings = embed_queries(served["query_tower"], RawRequests(queries), exported.config.history)
    np.testing.assert_allclose(
        embeddings, serve(served["query_tower"], [request(query) for query in queries]), atol=1e-5
    )


def test_shards_join_in_catalogue_order(
    toy: Toy, exported: Exported, served: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uepp.retrieval.embed._SHARD_ROWS", 20)
    neighbors = pq.read_table(exported.run / "export" / "neighbors.parquet")["queries"].to_pylist()
    write_vectors(served["product_tower"], toy.products, neighbors, tmp_path, 7)
    shards = sorted(file.name for file in (tmp_path / "vectors").iterdir())
    assert shards == ["part-00000.npy", "part-00001.npy", "part-00002.npy"]
    np.testing.assert_allclose(read_vectors(tmp_path), read_vectors(exported.run / "export"), atol=1e-5)


# The directory


def test_the_export_holds_the_catalogue_and_what_is_known_of_training(toy: Toy, exported: Exported) -> None:
    export_dir = exported.run / "export"
    assert pq.read_table(export_dir / "products.parquet").equals(toy.products)
    assert pq.read_table(export_dir / "product_ids.parquet").column_names == ["product_id"]
    vectors = read_vectors(export_dir)
    assert vectors.shape == (toy.products.num_rows, exported.config.model.output_dim)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert read_index(export_dir / "index.faiss").ntotal == len(vectors)
    assert json.loads((export_dir / "bm25.json").read_text()) == {"k1": 1.0, "b": 0.5}
    manifest = check_manifest(open_export(exported.run))
    assert manifest["run_id"] == "run 7"
    assert manifest["num_products"] == toy.products.num_rows
    assert set(manifest["files"]) == set(contents(export_dir)) - {"manifest.json"}


@pytest.mark.parametrize("kind", ["searches", "clicks", "purchases"])
def test_histories_end_with_training(exported: Exported, kind: str) -> None:
    name = f"history_{kind}.parquet"
    before, after = pq.read_table(exported.mined / name), pq.read_table(exported.run / "export" / name)
    end = TRAIN_END - timedelta(days=20)
    kept = [row for row in before.to_pylist() if row["timestamp"] < end]
    assert after.to_pylist() == kept
    assert 0 < len(kept) < before.num_rows


def test_every_product_keeps_its_most_frequent_neighbours(toy: Toy, exported: Exported) -> None:
    number = exported.config.graph.num_neighbors
    rows = product_rows(exported.mined, toy.products, number)
    kept = pq.read_table(exported.run / "export" / "neighbors.parquet").to_pylist()
    assert [row["product_id"] for row in kept] == toy.products["product_id"].to_pylist()
    assert [row["queries"] for row in kept] == [row["neighbor_queries"] for row in rows]
    every = [len(row["neighbor_queries"]) for row in product_rows(exported.mined, toy.products, 99)]
    assert max(every) > number
    assert min(every) == 0
    some = next(row for row in rows if row["neighbor_queries"])
    with_and_without = exported.embed_products([some, {**some, "neighbor_queries": []}])
    assert np.linalg.norm(with_and_without[0] - with_and_without[1]) > 1e-2


def test_titles_find_their_products_and_exporting_again_changes_no_vector(
    toy: Toy, exported: Exported, tmp_path: Path
) -> None:
    """Towers as they start, equal on both sides: a title asked as a query finds its product. Nothing else is read."""
    settings = toy.config.model_dump()
    settings["features"]["groups"] = (("title",),)
    settings["model"] |= {"product_encoders": ("tokens",), "query_encoders": ("tokens",)}
    config = Config.model_validate(settings)
    fitted = replace(toy.fitted, groups=config.features.groups)
    only_text = replace(exported, config=config, fitted=fitted, towers=build_two_tower(config, fitted))
    for name in ("one", "other"):
        export(toy, only_text, tmp_path / name)
    titles = toy.products.column("title").to_pylist()
    towers = {name: load_tower(tmp_path / "one" / name) for name in ("query_tower", "product_tower")}
    inputs = {name: list(tower.structured_input_signature[1]) for name, tower in towers.items()}
    assert inputs == {"query_tower": ["query"], "product_tower": ["title"]}
    assert not (tmp_path / "one" / "neighbors.parquet").exists()
    raw = RawRequests(titles)
    one = embed_queries(towers["query_tower"], raw, config.history)
    other = embed_queries(load_tower(tmp_path / "other" / "query_tower"), raw, config.history)
    rows, scores = search_exact(one, read_vectors(tmp_path / "one"), 1)
    assert rows[:, 0].tolist() == list(range(len(titles)))
    np.testing.assert_allclose(scores, 1, atol=1e-5)
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(read_vectors(tmp_path / "one"), read_vectors(tmp_path / "other"))


def test_a_failing_export_leaves_the_old_one(
    toy: Toy, exported: Exported, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(copy)

    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    # What comes before the failure is slow and beside the point.
    monkeypatch.setattr(export_module, "TowerModule", lambda *_: SimpleNamespace(serve=None))
    monkeypatch.setattr(tf.saved_model, "save", lambda *_, **__: None)
    monkeypatch.setattr(export_module, "load_tower", lambda *_: None)
    monkeypatch.setattr(export_module, "write_vectors", fail)
    with pytest.raises(OSError, match="no space left"):
        export(toy, exported, copy / "export")
    assert contents(copy) == before
    assert [file.name for file in copy.iterdir() if file.name.startswith(".")] == []
    check_manifest(copy / "export")


# Damage


@pytest.mark.parametrize(
    "name", ["vectors/part-00000.npy", "index.faiss", "tokens.txt", "product_tower/saved_model.pb"]
)
def test_one_flipped_bit_is_noticed(copy: Path, name: str) -> None:
    damaged = copy / "export" / name
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(InputError, match=f"{damaged}: differs from its SHA-256"):
        open_export(copy)


@pytest.mark.parametrize("name", ["vectors/part-00000.npy", "query_tower/variables/variables.index", "manifest.json"])
def test_a_missing_file_is_noticed(copy: Path, name: str) -> None:
    (copy / "export" / name).unlink()
    with pytest.raises(InputError, match=str(copy / "export" / name)):
        open_export(copy)


def test_what_is_not_an_export_is_refused(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a run directory"):
        open_export(tmp_path / "nowhere")
    shutil.rmtree(copy / "export")
    with pytest.raises(InputError, match=f"no export yet; make it with: uepp export {copy}"):
        open_export(copy)


# Another index


def test_another_index_over_the_same_vectors(copy: Path) -> None:
    export_dir = copy / "export"
    before, vectors = contents(export_dir), np.array(read_vectors(export_dir))
    rebuild_index(export_dir, ExportConfig(index="hnsw:neighbors=5"))
    after = contents(export_dir)
    changed = {name for name in before if before[name] != after[name]}
    assert set(before) == set(after)
    assert changed == {"index.faiss", "serving.json", "manifest.json"}
    manifest = check_manifest(export_dir)
    assert (manifest["run_id"], manifest["num_products"]) == ("run 7", len(vectors))
    served = json.loads((export_dir / "serving.json").read_text())
    assert served == {"index": "hnsw:neighbors=5,ef_construction=80,ef_search=128", "tuned": None}
    rows = read_index(export_dir / "index.faiss").search(vectors, 1)[1]
    np.testing.assert_allclose(np.einsum("nd,nd->n", vectors[rows[:, 0]], vectors), 1, atol=1e-5)


@pytest.mark.parametrize("has_links", [True, False])
def test_what_stays_is_neither_copied_nor_read_again(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    """Where the file system has links. What changes is a file of its own: the old export stays what it was."""

    def refuse(*_: object) -> None:
        raise OSError("no links here")

    export_dir = copy / "export"
    quality = np.ones((len(read_vectors(export_dir)), 1), np.float32)

    def boost(folder: Path, weight: float) -> None:
        write_boosting(folder, weight * quality, {"features": [{"name": "stars", "weight": weight}]})

    rebuild_index(export_dir, ExportConfig(index="hnsw"), partial(boost, weight=0.5))
    before = contents(export_dir)
    shutil.copytree(export_dir, tmp_path / "old", copy_function=os.link)  # the very files, under other names
    if not has_links:
        monkeypatch.setattr(os, "link", refuse)
    read: list[str] = []
    hashed = artifacts.sha256
    monkeypatch.setattr(artifacts, "sha256", lambda path: read.append(path.name) or hashed(path))
    seen = read_json(export_dir / "manifest.json")
    rebuild_index(export_dir, ExportConfig(index="flat"), partial(boost, weight=0.25), seen=seen)
    changed = {"boosting.json", "index.faiss", "manifest.json", "quality.npy", "serving.json"}
    assert set(read) == changed - {"manifest.json"}
    monkeypatch.undo()
    check_manifest(export_dir)
    after = contents(export_dir)
    assert {name for name in after if after[name] != before[name]} == changed
    assert contents(tmp_path / "old") == before
    for name in after.keys() - changed:
        assert (export_dir / name).samefile(tmp_path / "old" / name) == has_links, name


def test_a_damaged_export_gets_no_new_index(copy: Path) -> None:
    (copy / "export" / "bm25.json").write_text("{}")
    before = contents(copy)
    with pytest.raises(InputError, match=r"bm25\.json: differs"):
        rebuild_index(copy / "export", ExportConfig(index="hnsw"))
    assert contents(copy) == before
