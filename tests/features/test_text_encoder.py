"""A text encoder's directory, and what towers read of it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from text_encoders import DIM, MAX_TOKENS, write_text_encoder

from uepp.artifacts import write_manifest
from uepp.errors import InputError
from uepp.features import text_encoder
from uepp.features.text import joined_fields
from uepp.features.text_encoder import copy_text_encoder, open_text_encoder, text_encoder_dim

TEXTS = ["red lamp", "", "a b c d e f", "red lamp", "Lampe, grün", " "]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    write_text_encoder(tmp_path / "encoder")
    return tmp_path / "encoder"


@pytest.mark.parametrize("at_once", [1, 4, 6, 100])
@pytest.mark.parametrize("in_graph", [False, True])
def test_vectors_do_not_depend_on_how_many_are_made_at_once(
    directory: Path, at_once: int, in_graph: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_encoder, "_AT_ONCE", at_once)
    encoder = open_text_encoder(directory)

    def vectors(texts: tf.Tensor) -> tf.Tensor:
        return encoder.entries(texts, trainable=False)

    if in_graph:
        vectors = tf.function(vectors, input_signature=[tf.TensorSpec([None], tf.string)])
    found = vectors(tf.constant(TEXTS)).numpy()
    expected = write_text_encoder(directory.with_name("other"))(tf.constant(TEXTS)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert np.abs(found[0]).min() > 0
    np.testing.assert_array_equal(found[[1, 5]], 0)
    assert vectors(tf.constant([], tf.string)).shape == (0, DIM)


def test_ids_of_a_trainable_encoder(directory: Path) -> None:
    ids = open_text_encoder(directory).entries(tf.constant(TEXTS), trainable=True)
    assert ids.dtype == tf.int32
    assert ids.shape == (len(TEXTS), MAX_TOKENS)
    assert [int(row) for row in tf.math.count_nonzero(ids, axis=1)] == [2, 0, MAX_TOKENS, 2, 2, 0]


def test_a_copy_is_the_same_encoder(directory: Path, tmp_path: Path) -> None:
    copy_text_encoder(directory, tmp_path / "copy")
    original = open_text_encoder(directory).model(tf.constant(TEXTS)).numpy()
    shutil.rmtree(directory)
    np.testing.assert_array_equal(open_text_encoder(tmp_path / "copy").model(tf.constant(TEXTS)).numpy(), original)
    assert text_encoder_dim(tmp_path / "copy") == DIM


def test_what_is_no_text_encoder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^text\.encoder = '.*nowhere': not a text encoder .*: uepp pretrain$"):
        open_text_encoder(tmp_path / "nowhere")


def test_a_damaged_file_is_named(directory: Path) -> None:
    next((directory / "model" / "variables").glob("*.index")).write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"variables\.index: differs from its SHA-256"):
        open_text_encoder(directory)


@pytest.mark.parametrize("dim", [None, 0, "6"])
def test_a_wrong_size_is_named(directory: Path, dim: object) -> None:
    (directory / "encoder.json").write_text(json.dumps({"dim": dim, "max_tokens": 4}))
    write_manifest(directory)
    with pytest.raises(InputError, match=r"encoder\.json: dim is .*; it must be a whole number of at least 1"):
        open_text_encoder(directory)


def test_a_saved_model_without_the_parts(directory: Path) -> None:
    shutil.rmtree(directory / "model")
    tf.saved_model.save(tf.train.Checkpoint(), str(directory / "model"))
    write_manifest(directory)
    with pytest.raises(InputError, match="model: its SavedModel has no tokenize"):
        open_text_encoder(directory)


def test_joined_fields() -> None:
    inputs = {
        "title": tf.constant([b" Red  lamp", b"", b"\xff mug"]),
        "tags": tf.constant(["gift\nfor him", "", "blue"]),
        "description": tf.constant(["one\n\ntwo", "", ""]),
    }
    joined = joined_fields(inputs, ("title", "tags", "description")).numpy().tolist()
    assert [text.decode() for text in joined] == ["Red lamp gift for him one two", "", "� mug blue"]
    assert joined_fields(inputs, ("tags", "title")).numpy()[0].decode() == "gift for him Red lamp"
