"""A pretrained text encoder as a part of a tower (UEPPR III-A-1).

It is a directory: `encoder.json` (what it is), `model/` (a reusable SavedModel with its tokeniser inside) and
`manifest.json`. docs/architecture.md, "A text encoder", has the contract; anything in that form plugs in.
"""

import shutil
from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_text  # noqa: F401  registers the operations of the tokenisers

from uepp.artifacts import MANIFEST, check_manifest, read_json
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
    if not (directory / MANIFEST).is_file():
        raise InputError(f"{directory / MANIFEST}: no such file; make the text encoder again with: uepp pretrain")
    check_manifest(directory)
    return _facts(directory)


def open_text_encoder(directory: Path) -> TextEncoder:
    """Load a text encoder; under a strategy's scope its variables are that strategy's.

    Raises:
        InputError: not a text encoder, a file that differs from the manifest, or a SavedModel without the parts.
    """
    facts = check_text_encoder(directory)
    model = tf.saved_model.load(str(directory / "model"))
    for part in ("tokenize", "encode", "trainable_variables"):
        if not hasattr(model, part):
            raise InputError(f"{directory / 'model'}: its SavedModel has no {part}; see docs/architecture.md")
    return TextEncoder(model, facts["dim"], facts["max_tokens"])


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
    for name in ("dim", "max_tokens"):
        if not isinstance(facts.get(name), int) or facts[name] < 1:
            raise InputError(
                f"{directory / 'encoder.json'}: {name} is {facts.get(name)!r}; it must be a whole number of at least 1"
            )
    return facts
