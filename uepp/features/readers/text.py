"""What the towers read of a pretrained text encoder (UEPPR III-A-1)."""

import tensorflow as tf

from uepp.features.entries import Features
from uepp.features.readers.base import Reader, Sources, column_spec
from uepp.features.text import joined_fields


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
