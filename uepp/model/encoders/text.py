"""Text: a pretrained transformer's vector of a text (UEPPR III-A-1)."""

from typing import TYPE_CHECKING

import tensorflow as tf

from uepp.features.entries import Features
from uepp.features.text_encoder import TextEncoder
from uepp.model.encoders.base import Block

if TYPE_CHECKING:
    from uepp.config import Config
    from uepp.model.tables import Tables

_SYMMETRIC_SCALE = 0.5
_LENGTH_BESIDE_AVERAGES = 0.1
"""Of a vector where groups of tokens are not normalised: an average of 100 rows is about as long at the start."""


class PretrainedTextEncoder(tf.keras.layers.Layer):
    """Vectors of a pretrained text encoder.

    A frozen one gives them to the catalogue, once, and this layer only reads them. A trainable one is part of this
    layer, its variables are the layer's weights, and the batch has token ids.

    Args:
        entry: of the feature dictionary: vectors float32 [R, d], or token ids int32 [R, T] for a trainable encoder.
        dim: d.
        encoder: the one to train; none: frozen.
        scale: of its block in an equal initial projection.
        length: of the vectors in the tower, whatever the encoder gives: what is longer than its neighbours drowns them.
    """

    def __init__(self, entry: str, dim: int, encoder: TextEncoder | None, scale: float, length: float) -> None:
        super().__init__(name="text_encoder", dtype="float32")
        self._entry = entry
        self._length = length
        self._model = None if encoder is None else encoder.model
        if self._model is not None:
            # Keras does not look for variables in a loaded SavedModel.
            self._trainable_weights.extend(self._model.trainable_variables)
        self.blocks = (Block(dim, scale),)

    def call(self, features: Features, training: bool = False) -> tf.Tensor:
        """Feature dictionary to float32 [R, d]; a text without tokens gives zeros."""
        del training
        vectors = features[self._entry]
        if self._model is not None:
            # Between replicas a loaded function cannot run; there, layers after this one are only built.
            is_built_only = tf.distribute.in_cross_replica_context()
            shape = [tf.shape(vectors)[0], self.blocks[0].dim]
            vectors = tf.zeros(shape) if is_built_only else self._model.encode(vectors)
        vectors = tf.ensure_shape(vectors, [None, self.blocks[0].dim])
        return self._length * tf.math.l2_normalize(vectors, axis=1)


def product_text(config: "Config", tables: "Tables") -> PretrainedTextEncoder:
    """The product's fields `text.fields`."""
    return _text("product/text", config, tables)


def query_text(config: "Config", tables: "Tables") -> PretrainedTextEncoder:
    """The query's text, read by the encoder of the products' texts."""
    return _text("query/text", config, tables)


def _text(entry: str, config: "Config", tables: "Tables") -> PretrainedTextEncoder:
    # In both towers, texts that mean the same start alike. On one side alone, the vectors' directions mean nothing yet.
    is_symmetric = "text" in config.model.product_encoders and "text" in config.model.query_encoders
    return PretrainedTextEncoder(
        entry,
        tables.text_dim,
        tables.text_encoder,
        _SYMMETRIC_SCALE if is_symmetric else 0.0,
        1.0 if config.model.normalize_groups else _LENGTH_BESIDE_AVERAGES,
    )
