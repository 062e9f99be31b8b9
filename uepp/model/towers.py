"""The two towers: encoders → concatenation → feed-forward → L2 (UEPPR III, Figure 2)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from uepp.config import Config
from uepp.errors import InputError
from uepp.features.entries import Features
from uepp.model.encoders import PRODUCT_ENCODERS, QUERY_ENCODERS
from uepp.model.encoders.base import Block, Encoder
from uepp.model.seeds import named_seed
from uepp.model.tables import Tables

if TYPE_CHECKING:
    from uepp.features.fitted import Fitted
    from uepp.features.text_encoder import TextEncoder

_SHORTEST = 1e-6


class Tower(tf.keras.layers.Layer):
    """Pools encoders into one unit vector.

    Feed-forward layers with batch normalisation end in a projection to d dimensions, normalised too but not
    shifted: a direction that all outputs have in common is the easy way to similarities that are all equal.
    With `initial_projection: equal` the concatenation also reaches the output through a linear path that
    starts as the same matrix in both towers, and the feed-forward part starts at zero; so a query and
    a product with the same tokens start with cosine 1 (a deviation, see docs/deviations.md).

    Args:
        encoders: what to pool; one without blocks is left out.
        output_dim: d.
        hidden_layers: widths of the feed-forward layers.
        batch_norm: normalise each hidden layer, by the batch of all replicas.
        momentum: of the moving averages that stand for the batch outside of training.
        equal_projection: start both towers alike.
        precision: dtype policy of the feed-forward layers; pooling and output are float32.
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
        momentum: float = 0.99,
        equal_projection: bool,
        precision: str,
        seed: int,
        name: str,
    ) -> None:
        super().__init__(name=name, dtype="float32")
        policy = tf.keras.mixed_precision.Policy(precision)
        self._encoders = [encoder for encoder in encoders if encoder.blocks]
        # Layers have names, since Keras counts those without in a process, and a SavedModel's files hold the names.
        self._hidden: list[tf.keras.layers.Layer] = []
        for position, width in enumerate(hidden_layers):
            initializer = tf.keras.initializers.GlorotUniform(named_seed(seed, f"{name}/{position}"))
            self._hidden.append(
                tf.keras.layers.Dense(
                    width,
                    use_bias=not batch_norm,
                    kernel_initializer=initializer,
                    name=f"dense_{position}",
                    dtype=policy,
                )
            )
            if batch_norm:
                self._hidden.append(
                    tf.keras.layers.BatchNormalization(
                        momentum=momentum, synchronized=True, name=f"batch_normalization_{position}", dtype=policy
                    )
                )
            self._hidden.append(tf.keras.layers.ReLU(name=f"relu_{position}", dtype=policy))
        self._linear: tf.keras.layers.Dense | None = None
        if equal_projection:
            blocks = [block for encoder in self._encoders for block in encoder.blocks]
            kernel = _equal_kernel(blocks, output_dim, seed)
            self._linear = tf.keras.layers.Dense(
                output_dim,
                use_bias=False,
                kernel_initializer=tf.keras.initializers.Constant(kernel),
                name="dense_linear",
                dtype=policy,
            )
        self._is_deep = bool(self._hidden) or not equal_projection
        if self._is_deep:
            is_normalized = batch_norm and bool(hidden_layers)
            random = tf.keras.initializers.GlorotUniform(named_seed(seed, f"{name}/output"))
            initializer = "zeros" if equal_projection and not is_normalized else random
            self._hidden.append(
                tf.keras.layers.Dense(
                    output_dim, use_bias=False, kernel_initializer=initializer, name="dense_output", dtype=policy
                )
            )
            if is_normalized:
                initializer = "zeros" if equal_projection else "ones"
                self._hidden.append(
                    tf.keras.layers.BatchNormalization(
                        momentum=momentum,
                        center=False,
                        gamma_initializer=initializer,
                        synchronized=True,
                        name="batch_normalization_output",
                        dtype=policy,
                    )
                )

    def call(self, features: Features, training: bool = False) -> tf.Tensor:
        """Feature dictionary to unit vectors, float32 [R, d]; a row for which every encoder gives zeros gives zeros."""
        pooled = tf.concat([encoder(features, training=training) for encoder in self._encoders], axis=1)
        output = tf.cast(self._linear(pooled), tf.float32) if self._linear is not None else 0.0
        if self._is_deep:
            hidden = pooled
            for layer in self._hidden:
                hidden = layer(hidden, training=training)
            output += tf.cast(hidden, tf.float32)
        # Without features only the bias would be left, an arbitrary direction. And what only reads blocks that start
        # without effect has no direction yet: its gradient would be 1 / ε.
        has_features = tf.reduce_any(pooled != 0, axis=1, keepdims=True)
        has_direction = tf.reduce_sum(output**2, axis=1, keepdims=True) > _SHORTEST**2
        return tf.math.l2_normalize(tf.where(has_features & has_direction, output, 0.0), axis=1)


class TwoTower(tf.keras.Model):
    """A product tower and a query-user tower, scored by cosine (UEPPR Eq. 1).

    Args:
        product_tower: as built.
        query_user_tower: as built.
        text_encoder: the pretrained one that is trained with them; none: there is none, or it is frozen.
    """

    def __init__(
        self, product_tower: Tower, query_user_tower: Tower, text_encoder: "TextEncoder | None" = None
    ) -> None:
        super().__init__(name="two_tower", dtype="float32")
        self.product_tower = product_tower
        self.query_user_tower = query_user_tower
        self.text_encoder = text_encoder

    def call(self, features: Features, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """Query embeddings float32 [B, d] and product embeddings float32 [C, d]."""
        return self.query_user_tower(features, training=training), self.product_tower(features, training=training)

    @property
    def table_variables(self) -> list[tf.Variable]:
        """Variables whose gradients are sparse."""
        return [variable for variable in self._own_variables if "embeddings" in variable.name]

    @property
    def dense_variables(self) -> list[tf.Variable]:
        """All other trainable variables, except the text encoder's."""
        return [variable for variable in self._own_variables if "embeddings" not in variable.name]

    @property
    def text_variables(self) -> list[tf.Variable]:
        """Variables of the text encoder that is trained."""
        is_text = self._is_text
        return [variable for variable in self.trainable_variables if variable.ref() in is_text]

    @property
    def _own_variables(self) -> list[tf.Variable]:
        is_text = self._is_text
        return [variable for variable in self.trainable_variables if variable.ref() not in is_text]

    @property
    def _is_text(self) -> set[Any]:
        return set() if self.text_encoder is None else {v.ref() for v in self.text_encoder.model.trainable_variables}


def build_two_tower(config: Config, fitted: "Fitted") -> TwoTower:
    """The towers that a configuration describes.

    Args:
        config: uses `features.groups`, `graph`, `history`, `model` and `training.seed`.
        fitted: sizes of the tables and how their rows start.

    Raises:
        InputError: a tower without anything to read.
    """
    model = config.model
    tables = Tables(config, fitted)

    def tower(encoders: list[Encoder], name: str) -> Tower:
        return Tower(
            encoders,
            output_dim=model.output_dim,
            hidden_layers=model.hidden_layers,
            batch_norm=model.batch_norm,
            # The averages start at variance 1, far above that of an average of tokens: from 100 steps on e⁻¹⁰ of that
            # start is left. Trainings of 1,000 steps and more have Keras' own.
            momentum=min(0.99, max(0.9, 1 - 10 / config.training.max_steps)),
            equal_projection=model.initial_projection == "equal",
            precision=model.precision,
            seed=config.training.seed,
            name=name,
        )

    product_encoders = [PRODUCT_ENCODERS[name](config, tables) for name in model.product_encoders]
    query_encoders = [QUERY_ENCODERS[name](config, tables) for name in model.query_encoders]
    if not any(encoder.blocks for encoder in query_encoders):
        raise InputError(
            f"model.query_encoders = {list(model.query_encoders)}: add tokens or location, or give one of "
            "history.num_searches, num_shops, num_clicked_products, num_purchased_products more than 0"
        )
    return TwoTower(
        product_tower=tower(product_encoders, "product_tower"),
        query_user_tower=tower(query_encoders, "query_user_tower"),
        text_encoder=tables.text_encoder if "text" in (*model.product_encoders, *model.query_encoders) else None,
    )


def _equal_kernel(blocks: Sequence[Block], output_dim: int, seed: int) -> np.ndarray:
    """One projection (identity where sizes agree, else random) for every block, times the block's scale.

    Where every block would start without effect, all start with it: such a tower has nothing to start alike with, and
    from zero it could not learn, since an output without a direction has no gradient.
    """
    if not any(block.scale for block in blocks):
        blocks = [block._replace(scale=1.0) for block in blocks]
    kernels = []
    for block in blocks:
        if block.dim == output_dim:
            kernel = np.eye(block.dim, dtype=np.float32)
        else:
            rng = np.random.default_rng([seed, block.dim, output_dim])
            kernel = rng.standard_normal((block.dim, output_dim), np.float32) / np.sqrt(np.float32(output_dim))
        kernels.append(kernel * np.float32(block.scale))
    return np.concatenate(kernels, axis=0)
