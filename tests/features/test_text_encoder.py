"""A text encoder's directory, and what towers read of it."""

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from text_encoders import DIM, MAX_TOKENS, write_text_encoder

from uepp.artifacts import write_manifest
from uepp.config import Config
from uepp.errors import InputError
from uepp.features import text_encoder
from uepp.features.text import joined_fields
from uepp.features.text_encoder import (
    check_text_encoder_fits,
    copy_text_encoder,
    open_text_encoder,
    pretraining_source,
    text_encoder_dim,
)

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


def test_facts_that_are_none(directory: Path) -> None:
    (directory / "encoder.json").write_text("[6, 4]")
    write_manifest(directory)
    with pytest.raises(InputError, match=r"encoder\.json: expected an object of facts, got list"):
        open_text_encoder(directory)


def test_a_saved_model_without_the_parts(directory: Path) -> None:
    shutil.rmtree(directory / "model")
    tf.saved_model.save(tf.train.Checkpoint(), str(directory / "model"))
    write_manifest(directory)
    with pytest.raises(InputError, match="model: its SavedModel has no tokenize"):
        open_text_encoder(directory)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dim": DIM + 1}, r"encode of its SavedModel makes float32 \[1, 6\] of one text; allowed is float32 \[1, 7\]"),
        ({"max_tokens": 9}, r"tokenize of its SavedModel makes int32 \[1, 4\] of one text; allowed is int32 \[1, 9\]"),
    ],
)
def test_sizes_that_are_not_those_of_the_model(directory: Path, change: dict[str, int], said: str) -> None:
    rewritten(directory, **change)
    with pytest.raises(InputError, match=rf"encoder/model: {said}, as encoder.json has"):
        open_text_encoder(directory)


class Foreign(tf.Module):
    """Somebody's own encoder, which may be wrong in one way."""

    def __init__(self, wrong: str) -> None:
        super().__init__()
        self.rows = tf.Variable(tf.ones([50, DIM]))
        self._wrong = wrong

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def tokenize(self, texts: tf.Tensor) -> tf.Tensor:
        return tf.ones([tf.size(texts), MAX_TOKENS], tf.int32)

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32)])
    def encode(self, ids: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(tf.gather(self.rows, ids), axis=1)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def call(self, texts: tf.Tensor) -> Any:
        vectors = self.encode(self.tokenize(texts))
        if self._wrong == "half":
            return tf.cast(vectors, tf.float16)
        if self._wrong == "width":
            return vectors[:, 1:]
        if self._wrong == "outputs":
            return {"vectors": vectors}
        if self._wrong == "fails":
            tf.debugging.assert_greater(tf.size(texts), 9, "not so few")
        return vectors


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("", ""),
        ("no call", "its SavedModel cannot be called with strings"),
        ("half", r"__call__ of its SavedModel makes float16 \[1, 6\] of one text; allowed is float32 \[1, 6\]"),
        ("width", r"__call__ of its SavedModel makes float32 \[1, 5\] of one text; allowed is float32 \[1, 6\]"),
        ("outputs", "__call__ of its SavedModel makes a .*[dD]ict.* of one text"),
        ("fails", r"its SavedModel does not encode a text \(InvalidArgumentError: .*not so few"),
    ],
)
def test_an_encoder_of_ones_own_encodes_a_text_when_it_is_opened(directory: Path, wrong: str, said: str) -> None:
    module = Foreign(wrong)
    reusable = tf.train.Checkpoint(variables=[module.rows])
    reusable.trainable_variables = [module.rows]
    reusable.tokenize, reusable.encode = module.tokenize, module.encode
    if wrong != "no call":
        reusable.__call__ = module.call
    shutil.rmtree(directory / "model")
    tf.saved_model.save(reusable, str(directory / "model"))
    write_manifest(directory)
    if not said:
        assert open_text_encoder(directory).dim == DIM
        return
    with pytest.raises(InputError, match=rf"encoder/model: {said}") as refused:
        open_text_encoder(directory)
    assert "\n" not in str(refused.value)


# Whether it fits a run


T = datetime(2024, 5, 1, tzinfo=UTC)


@pytest.fixture
def events(tmp_path: Path) -> Path:
    (tmp_path / "events.parquet").write_bytes(b"a log")
    return tmp_path / "events.parquet"


def rewritten(directory: Path, **changes: object) -> Path:
    """The same encoder, of which other things are said."""
    facts = json.loads((directory / "encoder.json").read_text())
    (directory / "encoder.json").write_text(json.dumps({**facts, **changes}))
    write_manifest(directory)
    return directory


def run_of(directory: Path, fields: tuple[str, ...] = ("title", "tags"), tower: str = "product_encoders") -> Config:
    text = {"encoder": str(directory), "fields": fields}
    return Config.model_validate({"text": text, "model": {tower: ["tokens", "text"]}})


def test_fields_that_it_was_not_pretrained_on_are_refused(directory: Path, events: Path) -> None:
    rewritten(directory, fields=["title", "description"])
    check_text_encoder_fits(run_of(directory, ("title", "description")), events, T)
    for fields in (("title", "tags"), ("title",), ("description", "title")):
        said = rf"text\.fields = \[{', '.join(fields)}\]: .*/encoder was pretrained on \[title, description\]; set"
        with pytest.raises(InputError, match=said):
            check_text_encoder_fits(run_of(directory, fields), events, T)
    # It reads queries alone, of which there is one field.
    check_text_encoder_fits(run_of(directory, tower="query_encoders"), events, T)
    for none in ([], None):
        check_text_encoder_fits(run_of(rewritten(directory, fields=none), ("description",)), events, T)


def test_what_has_seen_the_days_of_evaluation_is_refused(directory: Path, events: Path, tmp_path: Path) -> None:
    source = pretraining_source(events, T)
    config = run_of(rewritten(directory, source=source))
    check_text_encoder_fits(config, events, T)
    check_text_encoder_fits(config, events, T + timedelta(days=7))
    said = (
        r"text\.encoder = '.*encoder': pretrained on the same events up to 2024-05-01T00:00:00\+00:00, later than the "
        r"end of the training window, 2024-04-30T23:00:00\+00:00; that is leakage"
    )
    with pytest.raises(InputError, match=said):
        check_text_encoder_fits(config, events, T - timedelta(hours=1))
    # The same log elsewhere is the same log; another one may be of other days.
    same, other = tmp_path / "same.parquet", tmp_path / "other.parquet"
    same.write_bytes(events.read_bytes())
    other.write_bytes(b"another log")
    with pytest.raises(InputError, match="leakage"):
        check_text_encoder_fits(config, same, T - timedelta(days=30))
    check_text_encoder_fits(config, other, T - timedelta(days=30))
    for source in ({}, {"train_end": T.isoformat()}, None, "elsewhere"):
        check_text_encoder_fits(run_of(rewritten(directory, source=source)), events, T - timedelta(days=30))


def test_one_that_cannot_be_opened_is_refused_before_a_run(directory: Path, events: Path) -> None:
    with pytest.raises(InputError, match=r"encoder/model: encode of its SavedModel makes float32 \[1, 6\]"):
        check_text_encoder_fits(run_of(rewritten(directory, dim=5)), events, T)


def test_joined_fields() -> None:
    inputs = {
        "title": tf.constant([b" Red  lamp", b"", b"\xff mug"]),
        "tags": tf.constant(["gift\nfor him", "", "blue"]),
        "description": tf.constant(["one\n\ntwo", "", ""]),
    }
    joined = joined_fields(inputs, ("title", "tags", "description")).numpy().tolist()
    assert [text.decode() for text in joined] == ["Red lamp gift for him one two", "", "� mug blue"]
    assert joined_fields(inputs, ("tags", "title")).numpy()[0].decode() == "gift for him Red lamp"
