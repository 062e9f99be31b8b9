"""Encoders: each turns some features of a query or a product into one vector; a tower pools them."""

from collections.abc import Sequence

import tensorflow as tf

from uepp.model.embedding import TokenBags, TokenTable


class TokenEncoder(tf.keras.layers.Layer):
    """Concatenated averages of field groups, concat([avg(F¹); avg(F²); …]) (UEPPR III-B-1).

    Args:
        table: the token table, shared by whoever holds it.
        features: for each group, the prefix of its entries in the feature dictionary:
            `<prefix>/values` int32 [T] and `<prefix>/lengths` int32 [R].
        normalize: L2-normalise each group's average, so that no group outweighs another by its size.
    """

    def __init__(self, table: TokenTable, features: Sequence[str], normalize: bool) -> None:
        super().__init__(name="token_encoder")
        self._table = table
        self._features = tuple(features)
        self._normalize = normalize
        self.block_dims = (table.dim,) * len(self._features)

    def call(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """Feature dictionary to float32 [R, D · groups]."""
        groups = [
            self._table(TokenBags(features[f"{prefix}/values"], features[f"{prefix}/lengths"]))
            for prefix in self._features
        ]
        if self._normalize:
            groups = [tf.math.l2_normalize(group, axis=1) for group in groups]
        return tf.concat(groups, axis=1)
