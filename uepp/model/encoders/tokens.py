"""Tokens: the average of each field group, side by side (UEPPR III-B-1)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import tensorflow as tf

from uepp.features.entries import Features
from uepp.model.embedding import EmbeddingTable
from uepp.model.encoders.base import Block, unit_rows
from uepp.model.features import bags_of

if TYPE_CHECKING:
    from uepp.config import Config
    from uepp.model.tables import Tables

_LATER_GROUPS_SCALE = 0.5


class TokenEncoder(tf.keras.layers.Layer):
    """Concatenated averages of field groups, concat([avg(F¹); avg(F²); …]) (UEPPR III-B-1).

    Args:
        groups: of each group, the name of its bags in the feature dictionary and the table of its tokens.
        normalize: L2-normalise each group's average, so that no group outweighs another by its size.
    """

    def __init__(self, groups: Sequence[tuple[str, EmbeddingTable]], normalize: bool) -> None:
        super().__init__(name="token_encoder", dtype="float32")
        self._names = tuple(name for name, _ in groups)
        self._tables = [table for _, table in groups]
        self._normalize = normalize
        self.blocks = tuple(
            Block(table.dim, _LATER_GROUPS_SCALE if position else 1.0) for position, table in enumerate(self._tables)
        )

    def call(self, features: Features, training: bool = False) -> tf.Tensor:
        """Feature dictionary to float32 [R, D · groups]; a group without tokens gives zeros."""
        del training
        groups = zip(self._names, self._tables, strict=True)
        averages = [unit_rows(table(bags_of(features, name)), self._normalize) for name, table in groups]
        return tf.concat(averages, axis=1)


def product_tokens(config: "Config", tables: "Tables") -> TokenEncoder:
    """Every group of the product's fields."""
    groups = [(f"product/{group}", tables.of_group(group)) for group in range(len(config.features.groups))]
    return TokenEncoder(groups, config.model.normalize_groups)


def query_tokens(config: "Config", tables: "Tables") -> TokenEncoder:
    """The query's text."""
    return TokenEncoder([("query", tables.shared)], config.model.normalize_groups)
