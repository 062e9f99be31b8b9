"""Row of a product's shop (UEPPR III-A-4)."""

import tensorflow as tf

from uepp.features.entries import Features
from uepp.features.readers.base import Reader, Sources


class ProductShop(Reader):
    """Row of `shop_id` in the table of shops."""

    columns = ("shop_id",)

    def __init__(self, sources: Sources) -> None:
        super().__init__()
        self._shops = sources.shops

    def __call__(self, inputs: Features) -> Features:
        """`product/shop` int32 [R], −1 for none."""
        return {"product/shop": tf.cast(self._shops.lookup(inputs["shop_id"]), tf.int32)}
