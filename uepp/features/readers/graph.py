"""Token ids of a product's neighbour queries (UEPPR III-A-2)."""

import tensorflow as tf

from uepp.features.entries import Features, listed_texts
from uepp.features.readers.base import Reader, Sources, list_spec


class ProductNeighbors(Reader):
    """Neighbour queries of a product; a training batch samples its own instead."""

    def __init__(self, sources: Sources) -> None:
        super().__init__()
        self._tokenizer = sources.tokenizer
        self._table = sources.tokens

    @property
    def signature(self) -> dict[str, tf.TensorSpec]:
        """`neighbor_queries`, [R, n]."""
        return {"neighbor_queries": list_spec("neighbor_queries")}

    def __call__(self, inputs: Features) -> Features:
        """The bags `product/graph` of positions in `graph`, and `graph`."""
        return listed_texts("product/graph", "graph", inputs["neighbor_queries"], self._tokenizer, self._table)
