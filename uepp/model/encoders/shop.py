"""Shop: the product's shop as an id."""

from typing import TYPE_CHECKING

import tensorflow as tf

from uepp.features.entries import Features
from uepp.model.embedding import EmbeddingTable, TokenBags
from uepp.model.encoders.base import Block

if TYPE_CHECKING:
    from uepp.config import Config
    from uepp.model.tables import Tables


class ShopEncoder(tf.keras.layers.Layer):
    """The shop's row of the table that the history's clicked shops use too (UEPPR III-C).

    Args:
        table: of shops.
    """

    def __init__(self, table: EmbeddingTable) -> None:
        super().__init__(name="shop_encoder", dtype="float32")
        self._table = table
        self.blocks = (Block(table.dim, 0.0),)

    def call(self, features: Features, training: bool = False) -> tf.Tensor:
        """Feature dictionary to float32 [R, D]; a product without a shop gives zeros."""
        del training
        shops = features["product/shop"]
        has_shop = shops >= 0
        # One bag a product, of one shop or none.
        return self._table(TokenBags(tf.boolean_mask(shops, has_shop), tf.cast(has_shop, tf.int32)))


def product_shop(config: "Config", tables: "Tables") -> ShopEncoder:
    """The product's shop."""
    del config
    return ShopEncoder(tables.shops)
