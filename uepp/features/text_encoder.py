"""A pretrained text encoder as a part of a tower (UEPPR III-A-1).

It is a directory: `encoder.json` (what it is), `model/` (a reusable SavedModel with its tokeniser inside) and
`manifest.json`. docs/architecture.md, "A text encoder", has the contract; anything in that form plugs in.
"""

import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_text  # noqa: F401  registers the operations of the tokenisers

from uepp.artifacts import MANIFEST, check_manifest, read_json, sha256
from uepp.config import Config
from uepp.errors import InputError

GENERATED = "generated_queries.parquet"
"""Of a text encoder that came from docT5query: `product_id`, `queries` list of string."""

_AT_ONCE = 256


class TextEncoder(tf.Module):
    """A loaded text encoder.

    Args:
        model: the SavedModel; strings [R] to float32 [R, d], its parts `tokenize` and `encode`, and
            `trainable_variables`.
        dim: d.
        max_tokens: T, token ids of a text.
    """

    def __init__(self, model: Any, dim: int, max_tokens: int) -> None:
        super().__init__()
        self.model = model
        self.dim = dim
        self.max_tokens = max_tokens

    def entries(self, texts: tf.Tensor, trainable: bool) -> tf.Tensor:
        """What a tower reads of some texts.

        Args:
            texts: strings [R].
            trainable: whether the encoder is part of the tower.

        Returns:
            int32 [R, T] token ids (0: padding) for a trainable encoder, else vectors float32 [R, d].
        """
        if trainable:
            return tf.ensure_shape(self.model.tokenize(texts), [None, self.max_tokens])
        # A transformer's activations of a whole catalogue batch would not fit.
        number = tf.maximum(-(-tf.size(texts) // _AT_ONCE), 1)
        parts = tf.TensorArray(tf.float32, number, infer_shape=False, element_shape=[None, self.dim])

        def encode(part: tf.Tensor, parts: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            vectors = self.model(texts[part * _AT_ONCE : (part + 1) * _AT_ONCE])
            return part + 1, parts.write(part, tf.ensure_shape(vectors, [None, self.dim]))

        _, parts = tf.while_loop(lambda part, _: part < number, encode, [0, parts], parallel_iterations=1)
        return tf.ensure_shape(parts.concat(), [None, self.dim])


def check_text_encoder(directory: Path) -> dict[str, Any]:
    """The content of `encoder.json`, after every file was checked.

    Raises:
        InputError: not a text encoder, or a file that differs from the manifest.
    """
    if not (directory / "encoder.json").is_file():
        raise InputError(
            f"text.encoder = {str(directory)!r}: not a text encoder (it has no encoder.json); "
            "make one with: uepp pretrain"
        )
    remedy = "make the text encoder again with: uepp pretrain"
    if not (directory / MANIFEST).is_file():
        raise InputError(f"{directory / MANIFEST}: no such file; {remedy}")
    check_manifest(directory, remedy)
    return _facts(directory)


def check_text_encoder_fits(config: Config, events: Path, train_end: datetime) -> None:
    """Refuse a text encoder that a run cannot use, before anything is written.

    What does not say which fields, events and moments it was pretrained on comes from elsewhere, and may be used.

    Args:
        config: of the run; `text.encoder` is set.
        events: of the run's data set.
        train_end: the run's T.

    Raises:
        InputError: what `open_text_encoder` refuses; or it was pretrained on other product fields than it is to read,
            or on the same events up to a later moment than T.
    """
    directory = Path(str(config.text.encoder))
    facts = check_text_encoder(directory)
    fields, own = facts.get("fields"), list(config.text.fields)
    if isinstance(fields, list) and fields and fields != own and "text" in config.model.product_encoders:
        raise InputError(
            f"text.fields = [{', '.join(own)}]: {directory} was pretrained on [{', '.join(map(str, fields))}]; "
            "set text.fields to what it was pretrained on, or pretrain another"
        )
    source = facts.get("source")
    refuse_foresight(
        source if isinstance(source, dict) else {}, f"text.encoder = {str(directory)!r}", events, train_end
    )
    _loaded(directory, facts)


def pretraining_source(events: Path, train_end: datetime) -> dict[str, str]:
    """What tells later whether something that was pretrained has seen days that it must not know."""
    return {"events_sha256": sha256(events), "train_end": train_end.isoformat()}


def refuse_foresight(source: Mapping[str, Any], setting: str, events: Path, train_end: datetime) -> None:
    """Refuse what was pretrained on the same events up to a later moment than T: it has seen what is to be found.

    Args:
        source: has what `pretraining_source` gave, or comes from elsewhere.
        setting: key and value, which the error names.
        events: of the run's data set.
        train_end: T of the run.

    Raises:
        InputError: as said.
    """
    if not isinstance(source.get("events_sha256"), str):
        return
    end = datetime.fromisoformat(source["train_end"])
    if end > train_end and source["events_sha256"] == sha256(events):
        raise InputError(
            f"{setting}: pretrained on the same events up to {end.isoformat()}, later than the end of the training "
            f"window, {train_end.isoformat()}; that is leakage, allowed is an end no later (data.train_end)"
        )


def open_text_encoder(directory: Path) -> TextEncoder:
    """Load a text encoder, and let it encode one text.

    Under a strategy's scope its variables are that strategy's, and it is not asked: its functions are for replicas.

    Raises:
        InputError: not a text encoder, a file that differs from the manifest, or a SavedModel that does not encode
            texts as `encoder.json` says.
    """
    return _loaded(directory, check_text_encoder(directory))


def text_encoder_dim(directory: Path) -> int:
    """Columns of its vectors, without loading it."""
    dim: int = _facts(directory)["dim"]
    return dim


def copy_text_encoder(source: Path, directory: Path) -> None:
    """Copy a checked text encoder into a new directory, so that a run does not depend on where it came from."""
    check_text_encoder(source)
    shutil.copytree(source, directory, copy_function=shutil.copyfile)


def _facts(directory: Path) -> dict[str, Any]:
    facts: dict[str, Any] = read_json(directory / "encoder.json")
    if not isinstance(facts, dict):
        raise InputError(f"{directory / 'encoder.json'}: expected an object of facts, got {type(facts).__name__}")
    for name in ("dim", "max_tokens"):
        if not isinstance(facts.get(name), int) or facts[name] < 1:
            raise InputError(
                f"{directory / 'encoder.json'}: {name} is {facts.get(name)!r}; it must be a whole number of at least 1"
            )
    return facts


def _loaded(directory: Path, facts: dict[str, Any]) -> TextEncoder:
    """Load the SavedModel of a checked directory, and see what it makes of one text."""
    path = directory / "model"
    try:
        model = tf.saved_model.load(str(path))
    except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
        raise InputError(f"{path}: not a SavedModel that can be loaded ({_in_short(error)})") from None
    for part in ("tokenize", "encode", "trainable_variables"):
        if not hasattr(model, part):
            raise InputError(f"{path}: its SavedModel has no {part}; see docs/architecture.md")
    if not callable(model):
        raise InputError(f"{path}: its SavedModel cannot be called with strings; see docs/architecture.md")
    if not tf.distribute.has_strategy():
        _refuse_other_vectors(path, model, facts)
    return TextEncoder(model, facts["dim"], facts["max_tokens"])


def _refuse_other_vectors(path: Path, model: Any, facts: dict[str, Any]) -> None:
    """Refuse a SavedModel that does not make of one text what `encoder.json` says."""
    texts = tf.constant(["one text"])
    try:
        ids = model.tokenize(texts)
        found = {"tokenize": ids, "encode": model.encode(ids), "__call__": model(texts)}
    except Exception as error:  # whatever a graph that others made raises
        raise InputError(
            f"{path}: its SavedModel does not encode a text ({_in_short(error)}); strings [R] must become float32 "
            "[R, d], in one call and by tokenize and encode"
        ) from None
    for part, value in found.items():
        dtype, name = (tf.int32, "max_tokens") if part == "tokenize" else (tf.float32, "dim")
        if not tf.is_tensor(value) or value.dtype != dtype or value.shape != (1, facts[name]):
            raise InputError(
                f"{path}: {part} of its SavedModel makes {_kind(value)} of one text; "
                f"allowed is {dtype.name} [1, {facts[name]}], as encoder.json has {name} = {facts[name]}"
            )


def _kind(value: Any) -> str:
    return f"{value.dtype.name} {value.shape.as_list()}" if tf.is_tensor(value) else f"a {type(value).__name__}"


def _in_short(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
