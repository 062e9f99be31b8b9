"""An export of untrained towers: the same vectors in a fresh process, and damage that is noticed."""

import json
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from conftest import START, Toy

from uepp.artifacts import check_manifest
from uepp.config import Config
from uepp.errors import InputError
from uepp.features.catalog import product_texts
from uepp.features.text import Tokenizer
from uepp.model.towers import Tower, TwoTower, build_two_tower
from uepp.retrieval import export as export_module
from uepp.retrieval.embed import embed_queries, load_tower, read_vectors, write_vectors
from uepp.retrieval.export import open_export, rebuild_index, write_export
from uepp.retrieval.index import read_index, search_exact

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
FIELDS = ("title", "tags", "category", "attributes", "description")
ODD_PRODUCTS = {
    "title": ["Handmade red lamp", "", "Ünïcödé 赤い ランプ 👟", "long title " * 1_000, "mug"],
    "tags": ["red\nlamp gift", "", "für\n👟", "", "\n\n"],
    "category": ["Home > lamp", "", " > > ", "Häuser > Stühle", "a>b>c>d>e>f>g>h>i>j"],
    "attributes": ["color: red", "", "größe: 12 cm\nno colon", ": \n:", "color: red\ncolor: blue"],
    "description": ["a lamp made of red things", "", "赤", "x" * 10_000, "mug"],
}


def make_model(toy: Toy, **model: Any) -> tuple[Config, TwoTower]:
    """Towers whose weights, BatchNorm statistics and token table are all random."""
    settings = toy.config.model_dump()
    settings["model"] |= {"hidden_layers": (9,), **model}
    config = Config.model_validate(settings)
    towers = build_two_tower(config, toy.vocabulary.size, toy.vocabulary.inverse_document_frequency())
    towers(next(iter(batches(toy, config))))
    rng = np.random.default_rng(5)
    for variable in towers.variables:
        variable.assign(rng.uniform(0.1, 1.0, variable.shape))
    return config, towers


def batches(toy: Toy, config: Config) -> tf.data.Dataset:
    from uepp.features.examples import batch_dataset

    return batch_dataset(toy.batch_maker(config), config.features, toy.vocabulary, 0, 1)


def write_mined(directory: Path) -> Path:
    """The tables that an export takes along; half of each history is from after the end of training."""
    directory.mkdir()
    moments = pa.array([START, START.replace(day=20)], pa.timestamp("us", "UTC"))
    for name in ("searches", "clicks", "purchases"):
        history = {"user_id": ["u", "u"], "timestamp": moments, "product_id": ["001", "002"]}
        pq.write_table(pa.table(history), directory / f"history_{name}.parquet")
    graph = {"query": ["lamp"], "product_id": ["001"], "clicks": [1], "carts": [0], "purchases": [0]}
    pq.write_table(pa.table(graph), directory / "graph.parquet")
    pq.write_table(pa.table({"query": ["lamp"], "count": [3]}), directory / "query_counts.parquet")
    edges = dict.fromkeys(("graph_start", "examples_start", "selection_end", "report_end"), START.isoformat())
    (directory / "windows.json").write_text(json.dumps({**edges, "train_end": START.replace(day=10).isoformat()}))
    return directory


@pytest.fixture(scope="module")
def exported(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Config, TwoTower, Path]:
    """A run directory with an export, its configuration, its towers and the mined tables."""
    config, towers = make_model(toy)
    root = tmp_path_factory.mktemp("exported")
    mined = write_mined(root / "mined")
    run = root / "run"
    run.mkdir()
    (run / "config.yaml").write_text("{}\n")
    export(toy, config, towers, mined, run / "export")
    return run, config, towers, mined


def export(toy: Toy, config: Config, towers: TwoTower, mined: Path, directory: Path) -> None:
    write_export(
        directory,
        model=towers,
        config=config,
        vocabulary=toy.vocabulary,
        products=toy.products,
        mined=mined,
        bm25={"k1": 1.0, "b": 0.5},
        run_id="run 7",
    )


@pytest.fixture(scope="module")
def served(exported: tuple[Path, Config, TwoTower, Path]) -> dict[str, Any]:
    """The exported towers, loaded."""
    return {name: load_tower(exported[0] / "export" / name) for name in ("query_tower", "product_tower")}


@pytest.fixture
def copy(exported: tuple[Path, Config, TwoTower, Path], tmp_path: Path) -> Path:
    """A run of its own, to damage."""
    shutil.copytree(exported[0], tmp_path / "run")
    return tmp_path / "run"


def contents(directory: Path) -> dict[str, str]:
    """Digest of each file."""
    files = [path for path in sorted(directory.rglob("*")) if path.is_file()]
    return {str(file.relative_to(directory)): sha256(file.read_bytes()).hexdigest() for file in files}


# The towers as they are served


def in_memory(toy: Toy, config: Config, towers: TwoTower, texts: dict[str, list[str]] | list[str]) -> np.ndarray:
    """Embeddings by the towers themselves: tokens, ids by dictionary, bags."""
    tokenizer = Tokenizer(config.features)
    table = toy.vocabulary.lookup_table()

    def bag(name: str, tokens: tf.RaggedTensor) -> dict[str, tf.Tensor]:
        ids = tf.cast(table.lookup(tokens.values), tf.int32)
        return {f"{name}/values": ids, f"{name}/lengths": tf.cast(tokens.row_lengths(), tf.int32)}

    tower: Tower
    if isinstance(texts, list):
        tower, features = towers.query_user_tower, bag("query", tokenizer.text(tf.constant(texts)))
    else:
        tower, features = towers.product_tower, {}
        columns = {field: tf.constant(values) for field, values in texts.items()}
        for place, group in enumerate(config.features.groups):
            features |= bag(f"product/{place}", tokenizer.fields(columns, group))
    return tower(features, training=False).numpy()


_FRESH_PROCESS = """
import json, sys
import numpy as np
import tensorflow as tf
import tensorflow_text
export, inputs, output = sys.argv[1:]
with open(inputs, encoding="utf-8") as file:
    inputs = json.load(file)
found = {}
for name, texts in inputs.items():
    serve = tf.saved_model.load(f"{export}/{name}").signatures["serving_default"]
    found[name] = serve(**{field: tf.constant(values) for field, values in texts.items()})["embedding"].numpy()
assert not any(module.partition(".")[0] == "uepp" for module in sys.modules)
np.savez(output, **found)
"""


def test_a_fresh_process_without_uepp_gives_the_same_embeddings(
    toy: Toy, exported: tuple[Path, Config, TwoTower, Path], tmp_path: Path
) -> None:
    run, config, towers, _ = exported
    texts = product_texts(toy.products)
    products = {field: texts[field] + ODD_PRODUCTS[field] for field in FIELDS}
    inputs = {"query_tower": {"query": QUERIES}, "product_tower": products}
    (tmp_path / "inputs.json").write_text(json.dumps(inputs), encoding="utf-8")
    arguments = [str(run / "export"), str(tmp_path / "inputs.json"), str(tmp_path / "found.npz")]
    finished = subprocess.run(
        [sys.executable, "-c", _FRESH_PROCESS, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    found = np.load(tmp_path / "found.npz")
    for name, expected in (
        ("query_tower", in_memory(toy, config, towers, QUERIES)),
        ("product_tower", in_memory(toy, config, towers, products)),
    ):
        np.testing.assert_allclose(found[name], expected, atol=1e-5)
        assert len(np.unique(expected.round(4), axis=0)) > 3
    np.testing.assert_allclose(read_vectors(run / "export"), found["product_tower"][: toy.products.num_rows], atol=1e-5)


def test_signatures_say_what_goes_in_and_out(
    exported: tuple[Path, Config, TwoTower, Path], served: dict[str, Any]
) -> None:
    dim = exported[1].model.output_dim
    for name, fields in (("query_tower", ("query",)), ("product_tower", FIELDS)):
        serve = served[name]
        inputs = serve.structured_input_signature[1]
        assert {field: (spec.dtype, spec.shape.as_list()) for field, spec in inputs.items()} == {
            field: (tf.string, [None]) for field in fields
        }
        outputs = serve.structured_outputs
        assert list(outputs) == ["embedding"]
        assert (outputs["embedding"].dtype, outputs["embedding"].shape.as_list()) == (tf.float32, [None, dim])


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_batches_do_not_matter(
    toy: Toy,
    exported: tuple[Path, Config, TwoTower, Path],
    served: dict[str, Any],
    batch_size: int,
    tmp_path: Path,
) -> None:
    queries = embed_queries(served["query_tower"], QUERIES, batch_size)
    np.testing.assert_allclose(queries, in_memory(toy, exported[1], exported[2], QUERIES), atol=1e-5)
    assert queries.dtype == np.float32
    write_vectors(served["product_tower"], toy.products.slice(0, 10), tmp_path, batch_size)
    np.testing.assert_allclose(read_vectors(tmp_path), read_vectors(exported[0] / "export")[:10], atol=1e-5)


def test_shards_join_in_catalogue_order(
    toy: Toy,
    exported: tuple[Path, Config, TwoTower, Path],
    served: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("uepp.retrieval.embed._SHARD_ROWS", 20)
    write_vectors(served["product_tower"], toy.products, tmp_path, 7)
    shards = sorted(file.name for file in (tmp_path / "vectors").iterdir())
    assert shards == ["part-00000.npy", "part-00001.npy", "part-00002.npy"]
    np.testing.assert_allclose(read_vectors(tmp_path), read_vectors(exported[0] / "export"), atol=1e-5)


# The directory


def test_the_export_holds_the_catalogue_and_what_is_known_of_training(
    toy: Toy, exported: tuple[Path, Config, TwoTower, Path]
) -> None:
    export_dir = exported[0] / "export"
    assert pq.read_table(export_dir / "products.parquet").equals(toy.products)
    assert pq.read_table(export_dir / "product_ids.parquet").column_names == ["product_id"]
    vectors = read_vectors(export_dir)
    assert vectors.shape == (toy.products.num_rows, exported[1].model.output_dim)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert read_index(export_dir / "index.faiss").ntotal == len(vectors)
    assert json.loads((export_dir / "bm25.json").read_text()) == {"k1": 1.0, "b": 0.5}
    for name in ("searches", "clicks", "purchases"):
        # the second event of each history is from after the end of training
        assert pq.read_table(export_dir / f"history_{name}.parquet").column("product_id").to_pylist() == ["001"]
    manifest = check_manifest(open_export(exported[0]))
    assert manifest["run_id"] == "run 7"
    assert manifest["num_products"] == toy.products.num_rows
    assert set(manifest["files"]) == set(contents(export_dir)) - {"manifest.json"}


def test_titles_find_their_products_and_exporting_again_changes_no_vector(
    toy: Toy, tmp_path: Path, exported: tuple[Path, Config, TwoTower, Path]
) -> None:
    """Towers as they start, equal on both sides: a title asked as a query finds its product."""
    settings = toy.config.model_dump()
    settings["features"]["groups"] = (("title",),)
    config = Config.model_validate(settings)
    towers = build_two_tower(config, toy.vocabulary.size, toy.vocabulary.inverse_document_frequency())
    for name in ("one", "other"):
        export(toy, config, towers, exported[3], tmp_path / name)
    titles = toy.products.column("title").to_pylist()
    one, other = (embed_queries(load_tower(tmp_path / name / "query_tower"), titles) for name in ("one", "other"))
    rows, scores = search_exact(one, read_vectors(tmp_path / "one"), 1)
    assert rows[:, 0].tolist() == list(range(len(titles)))
    np.testing.assert_allclose(scores, 1, atol=1e-5)
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(read_vectors(tmp_path / "one"), read_vectors(tmp_path / "other"))


def test_a_failing_export_leaves_the_old_one(
    toy: Toy, exported: tuple[Path, Config, TwoTower, Path], copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(copy)

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    # What comes before the failure is slow and beside the point.
    monkeypatch.setattr(tf.saved_model, "save", lambda *_, **__: None)
    monkeypatch.setattr(export_module, "load_tower", lambda _: None)
    monkeypatch.setattr(export_module, "write_vectors", fail)
    with pytest.raises(OSError, match="no space left"):
        export(toy, exported[1], exported[2], exported[3], copy / "export")
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


def test_another_index_over_the_same_vectors(copy: Path, exported: tuple[Path, Config, TwoTower, Path]) -> None:
    export_dir = copy / "export"
    before, vectors = contents(export_dir), np.array(read_vectors(export_dir))
    settings = exported[1].export.model_copy(update={"index": "hnsw", "hnsw_neighbors": 5})
    rebuild_index(export_dir, settings)
    after = contents(export_dir)
    changed = {name for name in before if before[name] != after[name]}
    assert set(before) == set(after)
    assert changed == {"index.faiss", "serving.json", "manifest.json"}
    manifest = check_manifest(export_dir)
    assert (manifest["run_id"], manifest["num_products"]) == ("run 7", len(vectors))
    served = json.loads((export_dir / "serving.json").read_text())["index"]
    assert (served["index"], served["hnsw_neighbors"]) == ("hnsw", 5)
    rows = read_index(export_dir / "index.faiss").search(vectors, 1)[1]
    np.testing.assert_allclose(np.einsum("nd,nd->n", vectors[rows[:, 0]], vectors), 1, atol=1e-5)


def test_a_damaged_export_gets_no_new_index(copy: Path, exported: tuple[Path, Config, TwoTower, Path]) -> None:
    (copy / "export" / "bm25.json").write_text("{}")
    before = contents(copy)
    with pytest.raises(InputError, match=r"bm25\.json: differs"):
        rebuild_index(copy / "export", exported[1].export.model_copy(update={"index": "hnsw"}))
    assert contents(copy) == before
