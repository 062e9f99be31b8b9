"""What the towers read of a pretrained text encoder (UEPPR III-A-1)."""

import tensorflow as tf

from uepp.features.entries import Features
from uepp.features.readers.base import Reader, Sources, column_spec
from uepp.features.text import joined_fields

TEXT_VECTORS = "text_vectors"
"""The product tower's input that stands for the texts of a frozen encoder, and its signature that takes it."""


class ProductText(Reader):
    """The product's `text.fields`, joined."""

    def __init__(self, sources: Sources) -> None:
        super().__init__()
        self._encoder = sources.text_encoder
        self._is_trainable = sources.config.text.trainable
        self.columns = sources.config.text.fields

    def __call__(self, inputs: Features) -> Features:
        """`product/text`: vectors float32 [R, d] of a frozen encoder, its token ids int32 [R, T] otherwise."""
        return {"product/text": self._encoder.entries(joined_fields(inputs, self.columns), self._is_trainable)}


class ProductTextVectors(Reader):
    """In place of `ProductText`: the vectors of a frozen encoder, which the catalogue has already."""

    def __init__(self, sources: Sources) -> None:
        super().__init__()
        self._dim = sources.text_encoder.dim

    @property
    def signature(self) -> dict[str, tf.TensorSpec]:
        """`text_vectors`, float32 [R, d]."""
        return {TEXT_VECTORS: tf.TensorSpec([None, self._dim], tf.float32, TEXT_VECTORS)}

    def __call__(self, inputs: Features) -> Features:
        """`product/text`: vectors float32 [R, d]."""
        return {"product/text": inputs[TEXT_VECTORS]}


class QueryText(Reader):
    """The query, by the encoder of the products' texts."""

    def __init__(self, sources: Sources) -> None:
        super().__init__()
        self._encoder = sources.text_encoder
        self._is_trainable = sources.config.text.trainable

    @property
    def signature(self) -> dict[str, tf.TensorSpec]:
        """`query`, [R]."""
        return {"query": column_spec("query")}

    def __call__(self, inputs: Features) -> Features:
        """`query/text`, likewise."""
        return {"query/text": self._encoder.entries(inputs["query"], self._is_trainable)}
