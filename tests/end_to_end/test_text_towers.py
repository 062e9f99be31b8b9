"""A pretrained text encoder in the towers: frozen or trained with them, on products alone or on both sides.

Run as a script, it trains on two logical CPUs: `test_text_towers.py DATA ENCODER RUN`.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console
from text_encoders import DIM, MAX_TOKENS, write_text_encoder

from uepp import pipeline
from uepp.artifacts import write_manifest
from uepp.config import Config, Given, load_config
from uepp.data import marketplace
from uepp.data.schema import read_products
from uepp.errors import InputError
from uepp.pipeline import training

ROOT = Path(__file__).parents[2]
QUIET = Console(quiet=True)
VARIANTS: dict[str, dict[str, Any]] = {
    "frozen": {"text": {"trainable": False}, "model": {"product_encoders": ["tokens", "text"]}},
    "trainable": {"text": {"trainable": True}, "model": {"product_encoders": ["tokens", "text"]}},
    "frozen symmetric": {
        "text": {"trainable": False},
        "model": {"product_encoders": ["tokens", "text"], "query_encoders": ["tokens", "text"]},
    },
}


def settings(variant: str, data: Path, encoder: Path) -> Config:
    chosen = VARIANTS[variant]
    return load_config(
        None,
        given=[Given("test", {
            "data": {"path": str(data)},
            "features": {"vocabulary_size": 500, "num_oov_buckets": 10},
            "text": {"encoder": str(encoder), "fields": ["title", "tags"], **chosen["text"]},
            "model": {"token_dim": 8, "output_dim": 8, "query_encoders": ["tokens"], **chosen["model"]},
            "negatives": {"num_uniform": 8},
            "training": {
                "batch_size": 32, "max_steps": 6, "warmup_steps": 1, "title_query_share": 0.25,
                "text_learning_rate": 0.01, "deterministic": True,
            },
        })],
    )  # fmt: skip


def train_on_two(data: Path, encoder: Path, run: Path) -> None:
    """Train on two logical CPUs, and print how far the replicas' encoders are apart, and from where they began."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
    training.choose_strategy = lambda: strategy
    kept = []
    fit = training.fit

    def keep_result(*arguments: Any, **options: Any) -> Any:
        kept.append(fit(*arguments, **options))
        return kept[-1]

    training.fit = keep_result
    pipeline.train(settings("trainable", data, encoder), run, QUIET, verbose=0)
    before = tf.saved_model.load(str(encoder / "model")).trainable_variables
    apart, moved = [], []
    for variable, old in zip(kept[0].model.text_variables, before, strict=True):
        one, other = (copy.numpy() for copy in strategy.experimental_local_results(variable))
        apart.append(float(np.abs(one - other).max()))
        moved.append(float(np.abs(one - old.numpy()).max()))
    print(json.dumps({"apart": apart, "moved": moved}))


@dataclass(frozen=True)
class Shop:
    data: Path
    encoder: Path


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    root = tmp_path_factory.mktemp("text")
    marketplace.generate(root / "data", num_products=80, num_events=4_000, seed=1, progress=False)
    products = read_products(root / "data")
    titles = zip(products.column("product_id").to_pylist(), products.column("title").to_pylist(), strict=True)
    write_text_encoder(root / "encoder", generated={product: [title.lower(), "gift"] for product, title in titles})
    return Shop(root / "data", root / "encoder")


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def run(variant: str, shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained and exported."""
    directory = tmp_path_factory.mktemp("runs") / "run"
    pipeline.train(settings(variant, shop.data, shop.encoder), directory, QUIET, verbose=0)
    pipeline.export(directory, QUIET)
    return directory


def variables_of(tower: Any) -> list[np.ndarray]:
    return [variable.numpy() for variable in tower.signatures["serving_default"].variables]


def encoder_rows(tower: Any) -> list[np.ndarray]:
    """The encoder's own table in an exported tower, wherever it is: 50 rows of 6."""
    return [value for value in variables_of(tower) if value.shape == (50, DIM)]


def stored_rows(tower: Path) -> list[str]:
    """The same, among all that the SavedModel's files hold, read by a signature or not."""
    stored = tf.train.list_variables(str(tower / "variables" / "variables"))
    return [name for name, shape in stored if shape == [50, DIM]]


def test_the_towers_hold_the_encoder_where_they_read_it(run: Path, variant: str, shop: Shop) -> None:
    """Once, as it was or changed by training. A query tower without it has nothing of it: neither weights nor work."""
    before = tf.saved_model.load(str(shop.encoder / "model")).trainable_variables[0].numpy()
    product_tower, query_tower = (
        tf.saved_model.load(str(run / "export" / name)) for name in ("product_tower", "query_tower")
    )
    (rows,) = encoder_rows(product_tower)
    assert np.array_equal(rows, before) == ("frozen" in variant)
    if "symmetric" in variant:
        (same,) = encoder_rows(query_tower)
        np.testing.assert_array_equal(same, rows)
    else:
        assert not encoder_rows(query_tower)
        assert stored_rows(run / "export" / "product_tower")
        assert not stored_rows(run / "export" / "query_tower"), "in no file of it either"
        assert list(query_tower.signatures["serving_default"].structured_input_signature[1]) == ["query"]


def test_training_reads_what_serving_computes(run: Path, variant: str, shop: Shop) -> None:
    """A batch through the model in memory, and the same products and queries as texts through the exported towers."""
    import pyarrow.parquet as pq

    from uepp.features.batches import build_batch_maker
    from uepp.features.catalog import load_catalog
    from uepp.features.examples import load_examples
    from uepp.features.fitted import Fitted
    from uepp.model.towers import build_two_tower
    from uepp.retrieval.embed import read_vectors
    from uepp.training.loop import restore

    config = load_config(str(run / "config.yaml"))
    config = config.model_copy(update={"training": config.training.model_copy(update={"title_query_share": 0.0})})
    fitted = Fitted.load(run / "features", config.features)
    products = read_products(shop.data)
    catalog = load_catalog(products, run / "features")
    (mined,) = (path for path in (run / "mined").iterdir() if path.is_dir())
    examples = load_examples(mined, catalog.product_ids, config.training)
    maker = build_batch_maker(config, fitted, catalog, examples, mined, products.num_rows, 16)
    arrays, _ = maker.make(0)
    shape = (24, MAX_TOKENS) if "trainable" in variant else (24, DIM)
    assert arrays["product/text"].shape == shape
    model = restore(lambda: build_two_tower(config, fitted), config, run)
    queries, vectors = model({name: tf.constant(value) for name, value in arrays.items()})
    exported = read_vectors(run / "export")[arrays["candidates"]]
    np.testing.assert_allclose(vectors.numpy(), exported, atol=1e-5)
    assert np.abs(exported).max(axis=1).min() > 0
    tower = tf.saved_model.load(str(run / "export" / "query_tower")).signatures["serving_default"]
    asked = [examples.queries[row] for row in examples.query_rows[maker._example_rows(0)]]
    served = tower(query=tf.constant(asked))["embedding"].numpy()
    np.testing.assert_allclose(queries.numpy(), served, atol=1e-5)
    assert pq.read_table(run / "export" / "products.parquet").num_rows == products.num_rows


def test_an_export_takes_frozen_vectors_from_the_catalogue(run: Path, variant: str, shop: Shop, tmp_path: Path) -> None:
    """They are those of the texts, and the encoder, the long part of an export, has not run again."""
    from uepp.features.catalog import load_catalog
    from uepp.retrieval.embed import load_tower, read_vectors, write_vectors

    products, tower = read_products(shop.data), run / "export" / "product_tower"
    (tmp_path / "of_texts").mkdir()
    write_vectors(load_tower(tower), products, None, tmp_path / "of_texts", 16)
    np.testing.assert_allclose(read_vectors(tmp_path / "of_texts"), read_vectors(run / "export"), atol=1e-5)
    signatures = tf.saved_model.load(str(tower)).signatures
    assert set(signatures) == {"serving_default"} | ({"text_vectors"} if "frozen" in variant else set())
    if "frozen" in variant:
        assert set(signatures["text_vectors"].structured_input_signature[1]) >= {"text_vectors", "title"}
        vectors = load_catalog(products, run / "features").columns["product/text"]
        (tmp_path / "of_vectors").mkdir()
        by_vectors = load_tower(tower, "text_vectors")
        write_vectors(by_vectors, products, None, tmp_path / "of_vectors", 16, text_vectors=vectors)
        np.testing.assert_allclose(read_vectors(tmp_path / "of_vectors"), read_vectors(run / "export"), atol=1e-6)
        assert not any(variable.shape == (50, DIM) for variable in by_vectors.variables), "the encoder is not in it"


def test_title_spans_have_their_text(run: Path, variant: str, shop: Shop) -> None:
    """Also on the query's side, where a span's entries are made in the stream."""
    from uepp.features.batches import batch_dataset, build_batch_maker
    from uepp.features.catalog import load_catalog
    from uepp.features.examples import load_examples
    from uepp.features.fitted import Fitted
    from uepp.features.inputs import QueryFeatures

    config = load_config(str(run / "config.yaml"))
    fitted = Fitted.load(run / "features", config.features)
    catalog = load_catalog(read_products(shop.data), run / "features")
    (mined,) = (path for path in (run / "mined").iterdir() if path.is_dir())
    examples = load_examples(mined, catalog.product_ids, config.training)
    maker = build_batch_maker(config, fitted, catalog, examples, mined, len(catalog), 16)
    (batch,) = batch_dataset(
        maker, QueryFeatures(config, fitted), tf.data.Dataset.from_tensors(tf.constant(0, tf.int64))
    )
    _, spans = maker.make(0)
    assert len(spans) == 4
    if "symmetric" not in variant:
        assert "query/text" not in batch
        return
    encoder = tf.saved_model.load(str(shop.encoder / "model"))
    of_spans = encoder.tokenize(tf.constant(spans)) if "trainable" in variant else encoder(tf.constant(spans))
    np.testing.assert_allclose(batch["query/text"].numpy()[12:], of_spans.numpy(), rtol=1e-5)
    assert batch["query/text"].shape == (16, MAX_TOKENS if "trainable" in variant else DIM)


def test_generated_queries_make_an_opponent(run: Path, variant: str, shop: Shop) -> None:
    """Tuned for itself, and evaluated by default; a run without them says where they come from."""
    if variant != "frozen":
        pytest.skip("once is enough")
    metrics, _ = pipeline.evaluate_run(run, QUIET)
    assert list(metrics["systems"])[:4] == ["uepp", "fusion", "bm25_expanded", "bm25"]
    settings = json.loads((run / "export" / "bm25_expanded.json").read_text())
    assert "generated" in [trial["setting"] for trial in settings["tried"]]
    (run / "export" / "generated_queries.parquet").unlink()
    write_manifest(run / "export", run_id="the same")
    with pytest.raises(InputError, match=r"--against bm25_expanded: .* has no generated queries"):
        pipeline.evaluate_run(run, QUIET, against=["bm25_expanded"])


def test_a_run_does_not_need_where_the_encoder_came_from(shop: Shop, tmp_path: Path) -> None:
    """Stopped after three steps, the encoder's directory gone, resumed: the same as straight on."""
    import shutil

    copy = tmp_path / "encoder"
    shutil.copytree(shop.encoder, copy)
    config = settings("trainable", shop.data, copy)
    half = config.model_copy(update={"training": config.training.model_copy(update={"checkpoint_every_steps": 3})})
    pipeline.train(half, tmp_path / "straight", QUIET, verbose=0)
    shutil.copytree(tmp_path / "straight", tmp_path / "resumed")
    for file in (tmp_path / "resumed" / "checkpoints").iterdir():
        if "-6" in file.name or file.name == "checkpoint":
            file.unlink()
    shutil.rmtree(copy)
    trained = pipeline.train(half, tmp_path / "resumed", QUIET, resume=True, verbose=0)
    assert trained.step == 6
    paths = [tmp_path / name / "checkpoints" / "ckpt-6" for name in ("straight", "resumed")]
    ends = [tf.train.load_checkpoint(str(path)) for path in paths]
    names = [name for name in ends[0].get_variable_to_shape_map() if not name.startswith("_CHECKPOINTABLE")]
    assert any("text_encoder" in name for name in names)
    for name in names:
        np.testing.assert_array_equal(*(end.get_tensor(name) for end in ends), err_msg=name)


def test_two_replicas_train_one_encoder(shop: Shop, tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, __file__, str(shop.data), str(shop.encoder), str(tmp_path / "run")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3_000:]
    found = json.loads(finished.stdout.splitlines()[-1])
    assert found["apart"] == [0.0, 0.0]
    assert min(found["moved"]) > 0


def test_bad_settings_are_named(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^test: text\.encoder = None: give the directory of a text encoder"):
        load_config(None, given=[Given("test", {"model": {"product_encoders": ["tokens", "text"]}})])
    with pytest.raises(InputError, match=r"text\.encoder = 'x': no tower reads it; add text to model\."):
        load_config(None, ["text.encoder=x"])
    config = settings("frozen", shop.data, tmp_path / "nowhere")
    with pytest.raises(InputError, match="not a text encoder"):
        pipeline.train(config, tmp_path / "run", QUIET, verbose=0)
    assert not (tmp_path / "run").exists()


if __name__ == "__main__":
    train_on_two(*map(Path, sys.argv[1:]))
