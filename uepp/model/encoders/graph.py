"""Graph: queries that led to the product before (UEPPR III-A-2)."""

from typing import TYPE_CHECKING

import tensorflow as tf

from uepp.features.entries import Features
from uepp.model.embedding import EmbeddingTable, average_of
from uepp.model.encoders.base import Block, unit_rows
from uepp.model.features import bags_of, take_bags

if TYPE_CHECKING:
    from uepp.config import Config
    from uepp.model.tables import Tables

_SCALE = 0.5


class GraphEncoder(tf.keras.layers.Layer):
    """Average of the token averages of the product's sampled neighbour queries (UEPPR III-A-2).

    Args:
        table: tokens of queries, shared with the query tower.
        frozen: what this encoder reads of the table gets no gradient through it.
        normalize: L2-normalise the average.
    """

    def __init__(self, table: EmbeddingTable, frozen: bool, normalize: bool) -> None:
        super().__init__(name="graph_encoder", dtype="float32")
        self._table = table
        self._frozen = frozen
        self._normalize = normalize
        self.blocks = (Block(table.dim, _SCALE),)

    def call(self, features: Features, training: bool = False) -> tf.Tensor:
        """Feature dictionary to float32 [R, D]; a product without neighbours gives zeros."""
        del training
        texts = bags_of(features, "graph")

        # Only the queries that these products need: a part of a batch does not pay for the neighbours of the rest.
        def embed(queries: tf.Tensor) -> tf.Tensor:
            averages = self._table(take_bags(texts, queries))
            return tf.stop_gradient(averages) if self._frozen else averages

        return unit_rows(average_of(embed, bags_of(features, "product/graph")), self._normalize)


def product_graph(config: "Config", tables: "Tables") -> GraphEncoder:
    """The product's neighbours."""
    return GraphEncoder(tables.shared, config.graph.gradient == "frozen", config.model.normalize_groups)
