"""The two towers: encoders → concatenation → feed-forward → L2 (UEPPR III, Figure 2)."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf

from uepp.config import Config
from uepp.model.embedding import TokenTable
from uepp.model.encoders import TokenEncoder

_SECONDARY_GROUP_SCALE = 0.5


class Encoder(Protocol):
    """What a tower pools: a callable layer that knows the width of each block of its output."""

    block_dims: tuple[int, ...]

    def __call__(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        """Feature dictionary to float32 [R, Σ block_dims]."""
        ...


class Tower(tf.keras.layers.Layer):
    """Pools encoders into one unit vector.

    Feed-forward layers with batch normalisation end in a projection to d dimensions. With
    `initial_projection: equal` the concatenation also reaches the output through a linear path that
    starts as the same matrix in both towers, and the feed-forward part starts at zero; so a query and
    a product with the same tokens start with cosine 1 (a deviation, see docs/deviations.md).

    Args:
        encoders: what to pool.
        output_dim: d.
        hidden_layers: widths of the feed-forward layers.
        batch_norm: normalise each hidden layer.
        equal_projection: start both towers alike.
        seed: of the equal projection; the same in both towers.
        name: of the tower.
    """

    def __init__(
        self,
        encoders: Sequence[Encoder],
        *,
        output_dim: int,
        hidden_layers: Sequence[int],
        batch_norm: bool,
        equal_projection: bool,
        seed: int,
        name: str,
    ) -> None:
        super().__init__(name=name)
        self._encoders = list(encoders)
        self._hidden: list[tf.keras.layers.Layer] = []
        for position, width in enumerate(hidden_layers):
            initializer = tf.keras.initializers.GlorotUniform(_seed(seed, f"{name}/{position}"))
            self._hidden.append(tf.keras.layers.Dense(width, use_bias=not batch_norm, kernel_initializer=initializer))
            if batch_norm:
                self._hidden.append(tf.keras.layers.BatchNormalization())
            self._hidden.append(tf.keras.layers.ReLU())
        self._linear: tf.keras.layers.Dense | None = None
        self._projection: tf.keras.layers.Dense | None = None
        if equal_projection:
            blocks = [dim for encoder in self._encoders for dim in encoder.block_dims]
            kernel = _equal_kernel(blocks, output_dim, seed)
            self._linear = tf.keras.layers.Dense(
                output_dim, use_bias=False, kernel_initializer=tf.keras.initializers.Constant(kernel)
            )
        if self._hidden or not equal_projection:
            initializer = (
                "zeros" if equal_projection else tf.keras.initializers.GlorotUniform(_seed(seed, f"{name}/output"))
            )
            self._projection = tf.keras.layers.Dense(output_dim, kernel_initializer=initializer)

    def call(self, features: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Feature dictionary to unit vectors, float32 [R, d]; a row without features gives zeros."""
        pooled = tf.concat([encoder(features) for encoder in self._encoders], axis=1)
        output = self._linear(pooled) if self._linear is not None else 0.0
        if self._projection is not None:
            hidden = pooled
            for layer in self._hidden:
                hidden = layer(hidden, training=training)
            output += self._projection(hidden)
        # Without features only the bias would be left: an arbitrary direction, with a gradient of 1 / ε at the start.
        has_features = tf.reduce_any(pooled != 0, axis=1, keepdims=True)
        return tf.math.l2_normalize(tf.where(has_features, output, 0.0), axis=1)


class TwoTower(tf.keras.Model):
    """A product tower and a query-user tower, scored by cosine (UEPPR Eq. 1)."""

    def __init__(self, product_tower: Tower, query_user_tower: Tower) -> None:
        super().__init__(name="two_tower")
        self.product_tower = product_tower
        self.query_user_tower = query_user_tower

    def call(self, features: dict[str, tf.Tensor], training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """Query embeddings float32 [B, d] and product embeddings float32 [C, d]."""
        return self.query_user_tower(features, training=training), self.product_tower(features, training=training)

    @property
    def table_variables(self) -> list[tf.Variable]:
        """Variables whose gradients are sparse."""
        return [variable for variable in self.trainable_variables if "embeddings" in variable.name]

    @property
    def dense_variables(self) -> list[tf.Variable]:
        """All other trainable variables."""
        return [variable for variable in self.trainable_variables if "embeddings" not in variable.name]


def build_two_tower(config: Config, num_tokens: int, inverse_document_frequency: np.ndarray) -> TwoTower:
    """The towers that a configuration describes.

    Args:
        config: uses `features.groups`, `model` and `training.seed`.
        num_tokens: rows of the token table.
        inverse_document_frequency: float32 [num_tokens], scale of the initial rows where `model.idf_start` is on.
    """
    model = config.model
    seed = config.training.seed
    table = TokenTable(num_tokens, model.token_dim, inverse_document_frequency if model.idf_start else None, seed)
    groups = [f"product/{position}" for position in range(len(config.features.groups))]

    def tower(encoder: TokenEncoder, name: str) -> Tower:
        return Tower(
            [encoder],
            output_dim=model.output_dim,
            hidden_layers=model.hidden_layers,
            batch_norm=model.batch_norm,
            equal_projection=model.initial_projection == "equal",
            seed=seed,
            name=name,
        )

    return TwoTower(
        product_tower=tower(TokenEncoder(table, groups, model.normalize_groups), "product_tower"),
        query_user_tower=tower(TokenEncoder(table, ["query"], model.normalize_groups), "query_user_tower"),
    )


def _equal_kernel(blocks: Sequence[int], output_dim: int, seed: int) -> np.ndarray:
    """One projection (identity where sizes agree, else random) for every block; later blocks count half."""
    kernels = []
    for position, dim in enumerate(blocks):
        if dim == output_dim:
            kernel = np.eye(dim, dtype=np.float32)
        else:
            rng = np.random.default_rng([seed, dim, output_dim])
            kernel = rng.standard_normal((dim, output_dim), np.float32) / np.sqrt(np.float32(output_dim))
        kernels.append(kernel * (1.0 if position == 0 else _SECONDARY_GROUP_SCALE))
    return np.concatenate(kernels, axis=0)


def _seed(seed: int, name: str) -> int:
    """A seed of its own for each named kernel."""
    return int(np.random.SeedSequence([seed, *name.encode()]).generate_state(1)[0])
