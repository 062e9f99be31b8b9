"""The directory of a text encoder: whole, checked, and usable where neither Keras 3 nor KerasHub is."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_t5
import tensorflow as tf

from uepp.artifacts import check_manifest
from uepp.errors import InputError
from uepp.features.text_encoder import open_text_encoder
from uepp.pretraining.encoder import TextEncoder, write_text_encoder
from uepp.pretraining.sentencepiece_tokens import train_sentencepiece
from uepp.pretraining.t5 import build_t5, text_encoder_of

TEXTS = ["red lamp", "blue chair with a very long title that is cut off somewhere", "", "grün 🙂", "red lamp"]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    proto = train_sentencepiece([*TEXTS, "green mug", "blue ring"] * 3, 60)
    return text_encoder_of(build_t5(small_t5.config(), 60), proto, 6)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory, encoder: TextEncoder) -> Path:
    target = tmp_path_factory.mktemp("encoder") / "encoder"
    write_text_encoder(
        target, encoder, kind="doct5query", fields=("title",), source={"steps": 3}, metrics={"perplexity": 2.5}
    )
    return target


def test_what_is_in_it(directory: Path) -> None:
    assert {path.name for path in directory.iterdir()} == {"encoder.json", "model", "manifest.json"}
    facts = json.loads((directory / "encoder.json").read_text())
    assert {name: facts[name] for name in ("kind", "dim", "max_tokens", "fields", "source", "metrics")} == {
        "kind": "doct5query", "dim": 8, "max_tokens": 6, "fields": ["title"], "source": {"steps": 3},
        "metrics": {"perplexity": 2.5},
    }  # fmt: skip
    assert {"created", "uepp_version"} <= facts.keys()
    assert "encoder.json" in check_manifest(directory)["files"]


_FRESH = """
import json, sys
import uepp, tensorflow as tf, tensorflow_text, numpy as np
model = tf.saved_model.load(sys.argv[1])
texts = json.loads(sys.argv[2])
ids = model.tokenize(tf.constant(texts))
with tf.GradientTape() as tape:
    total = tf.reduce_sum(model.encode(ids) * tf.range(8, dtype=tf.float32))
gradients = tape.gradient(total, model.trainable_variables)
before = model(tf.constant(texts)).numpy()
for variable in model.trainable_variables:
    variable.assign(variable * 1.1)
print(json.dumps({
    "ids": ids.numpy().tolist(), "vectors": before.tolist(), "types": [str(ids.dtype), str(model.encode(ids).dtype)],
    "trained": model(tf.constant(texts)).numpy().tolist(),
    "names": [variable.name for variable in model.trainable_variables], "num_variables": len(model.variables),
    "largest_gradients": [float(tf.reduce_max(tf.abs(tf.convert_to_tensor(each)))) for each in gradients],
    "longer": model.encode(tf.pad(ids, [[0, 0], [0, 4]])).numpy().tolist(),
    "zeros": model.encode(tf.zeros([2, 6], tf.int32)).numpy().tolist(),
    "loaded": [name for name in ("keras", "keras_hub", "sentencepiece", "uepp.pretraining") if name in sys.modules],
    "keras": tf.keras.Model.__module__.split(".")[0],
}))
"""


@pytest.fixture(scope="module")
def fresh(directory: Path) -> dict[str, Any]:
    """What another process, with nothing but TensorFlow, tensorflow-text and Keras 2, sees of it."""
    finished = subprocess.run(
        [sys.executable, "-c", _FRESH, str(directory / "model"), json.dumps(TEXTS)],
        capture_output=True, text=True, timeout=240, check=False,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "TF_CPP_MIN_LOG_LEVEL": "2"},
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr[-2_000:]
    return json.loads(finished.stdout.strip().splitlines()[-1])


def test_a_fresh_process_gets_the_same_vectors(fresh: dict[str, Any], encoder: TextEncoder) -> None:
    assert fresh["ids"] == encoder.tokenize(tf.constant(TEXTS)).numpy().tolist()
    np.testing.assert_allclose(fresh["vectors"], encoder(tf.constant(TEXTS)).numpy(), atol=1e-6)
    np.testing.assert_allclose(fresh["vectors"][0], fresh["vectors"][4], atol=1e-6)
    assert not np.allclose(fresh["vectors"][0], fresh["vectors"][1], atol=0.01)
    assert fresh["vectors"][2] == [0.0] * 8
    assert fresh["zeros"] == [[0.0] * 8] * 2
    np.testing.assert_allclose(fresh["longer"], fresh["trained"], atol=1e-5)
    assert fresh["types"] == ["<dtype: 'int32'>", "<dtype: 'float32'>"]
    assert len(fresh["ids"][1]) == 6
    assert fresh["ids"][1][-1] == 1, "cut off, with an end mark"


def test_it_needs_no_keras_3(fresh: dict[str, Any]) -> None:
    assert fresh["loaded"] == []
    assert fresh["keras"] == "tf_keras"


def test_every_variable_of_it_can_be_trained(fresh: dict[str, Any]) -> None:
    # Embeddings, the positions of the first layer, two layers of four projections, two norms and three dense, one norm.
    assert fresh["num_variables"] == len(fresh["names"]) == 1 + 1 + 2 * 9 + 1
    assert min(fresh["largest_gradients"]) > 0
    assert np.abs(np.array(fresh["trained"]) - fresh["vectors"]).max() > 0.01


def test_it_opens_as_the_towers_open_it(directory: Path, encoder: TextEncoder) -> None:
    opened = open_text_encoder(directory)
    assert (opened.dim, opened.max_tokens) == (8, 6)
    np.testing.assert_allclose(opened.model(tf.constant(TEXTS)).numpy(), encoder(tf.constant(TEXTS)).numpy(), atol=1e-6)


def test_a_changed_file_is_refused(tmp_path: Path, directory: Path) -> None:
    import shutil

    copy = shutil.copytree(directory, tmp_path / "copy")
    facts = json.loads((copy / "encoder.json").read_text())
    (copy / "encoder.json").write_text(json.dumps({**facts, "dim": 9}))
    with pytest.raises(InputError, match=r"encoder.json: differs from its SHA-256"):
        open_text_encoder(copy)


def test_a_failed_save_leaves_nothing(
    tmp_path: Path, encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    def full_disk(*_: Any, **__: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("uepp.pretraining.encoder.write_manifest", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_text_encoder(tmp_path / "encoder", encoder, kind="x", fields=(), source={}, metrics={})
    assert list(tmp_path.iterdir()) == []
