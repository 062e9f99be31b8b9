"""Location of a product or a user (UEPPR III-B-2)."""

from typing import TYPE_CHECKING

import tensorflow as tf

from uepp.features.entries import Features
from uepp.model.embedding import EmbeddingTable
from uepp.model.encoders.base import Block
from uepp.model.features import bags_of

if TYPE_CHECKING:
    from uepp.config import Config
    from uepp.model.tables import Tables


class LocationEncoder(tf.keras.layers.Layer):
    """One embedding a kind (country, region, language, each clustering's bucket) and the average of zip prefixes.

    Args:
        table: of locations, the same for products and users.
        num_kinds: S, columns of `<of>/location/ids`.
        of: `product` or `user`.
    """

    def __init__(self, table: EmbeddingTable, num_kinds: int, of: str) -> None:
        super().__init__(name="location_encoder", dtype="float32")
        self._table = table
        self._num_kinds = num_kinds
        self._of = of
        self.blocks = (Block(table.dim, 0.0),) * (num_kinds + 1)

    def call(self, features: Features, training: bool = False) -> tf.Tensor:
        """Feature dictionary to float32 [R, (S + 1) · L]; no known zip prefix gives zeros in the last L columns."""
        del training
        ids = features[f"{self._of}/location/ids"]
        kinds = tf.reshape(self._table.rows(tf.reshape(ids, [-1])), [-1, self._num_kinds * self._table.dim])
        return tf.concat([kinds, self._table(bags_of(features, f"{self._of}/zip"))], axis=1)


def product_location(config: "Config", tables: "Tables") -> LocationEncoder:
    """Where the product is."""
    del config
    return LocationEncoder(tables.locations, tables.fitted.locations.num_kinds, "product")


def user_location(config: "Config", tables: "Tables") -> LocationEncoder:
    """Where the user is."""
    del config
    return LocationEncoder(tables.locations, tables.fitted.locations.num_kinds, "user")
