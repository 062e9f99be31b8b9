"""History: what a person searched, clicked and bought, in the light of the query (UEPPR III-C)."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import tensorflow as tf

from uepp.features.entries import Features
from uepp.model.embedding import EmbeddingTable, TokenBags, segment_sum
from uepp.model.encoders.base import Block, unit_rows
from uepp.model.features import bags_of, take_bags
from uepp.model.seeds import named_seed

if TYPE_CHECKING:
    from uepp.config import Config, HistoryConfig
    from uepp.model.tables import Tables

_QUERY, _SEARCH, _SHOP = range(3)


class EventTransformer(tf.keras.layers.Layer):
    """One transformer layer over [q, recent searches…, recent clicked shops…], of which q's output is used.

    An event is its embedding (the average of a search's tokens, or the shop's row) plus that of its type and that of
    its recency, the same for both types. Normalisation comes before attention and feed-forward.

    Args:
        tokens: table of queries' tokens.
        shops: table of shops; none: `num_shops` is 0.
        config: sizes.
        normalize: L2-normalise the averages of tokens, so that an event's weight does not come from its length.
        precision: dtype policy of attention and feed-forward.
        seed: of the initial values.
    """

    def __init__(
        self,
        tokens: EmbeddingTable,
        shops: EmbeddingTable | None,
        config: "HistoryConfig",
        normalize: bool,
        precision: str,
        seed: int,
    ) -> None:
        super().__init__(name="event_transformer", dtype="float32")
        dim = tokens.dim
        self._tokens = tokens
        self._shops = shops
        self._num_searches = config.num_searches
        self._num_shops = config.num_shops
        self._normalize = normalize
        small = tf.keras.initializers.RandomNormal(stddev=0.02, seed=named_seed(seed, "history/types"))
        self._types = self.add_weight("types", (3, dim), initializer=small)
        small = tf.keras.initializers.RandomNormal(stddev=0.02, seed=named_seed(seed, "history/recency"))
        longest = max(config.num_searches, config.num_shops)
        self._recency = self.add_weight("recency", (longest, dim), initializer=small)

        def glorot(name: str) -> tf.keras.initializers.Initializer:
            return tf.keras.initializers.GlorotUniform(named_seed(seed, f"history/{name}"))

        policy = tf.keras.mixed_precision.Policy(precision)
        # One seed for all of its kernels: those of queries and keys start alike, so what resembles the query is
        # attended to most from the first step.
        self._attention = tf.keras.layers.MultiHeadAttention(
            config.num_heads,
            -(-dim // config.num_heads),
            kernel_initializer=glorot("attention"),
            name="attention",
            dtype=policy,
        )
        self._expand = tf.keras.layers.Dense(
            config.feed_forward_dim, "relu", kernel_initializer=glorot("expand"), name="expand", dtype=policy
        )
        self._contract = tf.keras.layers.Dense(
            dim, kernel_initializer=glorot("contract"), name="contract", dtype=policy
        )
        self._before_attention = tf.keras.layers.LayerNormalization(name="before_attention", dtype="float32")
        self._before_feed_forward = tf.keras.layers.LayerNormalization(name="before_feed_forward", dtype="float32")
        # The output starts at length 1, like what the other encoders give.
        self._output = tf.keras.layers.LayerNormalization(
            gamma_initializer=tf.keras.initializers.Constant(dim**-0.5), name="output", dtype="float32"
        )

    def call(self, features: Features) -> tf.Tensor:
        """Feature dictionary to float32 [B, D]; neither a query token nor an event gives zeros."""
        events, is_event = self.sequence(features)
        output = self.transform(events[:, :1], events, is_event)[:, 0]
        has_anything = (features["query/lengths"] > 0) | tf.reduce_any(is_event[:, 1:], axis=1)
        return tf.where(has_anything[:, tf.newaxis], output, 0.0)

    def sequence(self, features: Features) -> tuple[tf.Tensor, tf.Tensor]:
        """Events, float32 [B, 1 + searches + shops, D], and where there is one, bool [B, 1 + searches + shops]."""
        query = unit_rows(self._tokens(bags_of(features, "query")), self._normalize)
        parts = [(query + self._types[_QUERY])[:, tf.newaxis]]
        masks = [tf.ones([tf.shape(query)[0], 1], tf.bool)]
        if self._num_searches:
            texts = bags_of(features, "searches")
            bags = bags_of(features, "history/searches")
            parts.append(
                self._placed(
                    lambda searches: unit_rows(self._tokens(take_bags(texts, searches)), self._normalize),
                    bags,
                    self._num_searches,
                )
                + self._types[_SEARCH]
            )
            masks.append(tf.sequence_mask(bags.lengths, self._num_searches))
        if self._shops is not None:
            bags = bags_of(features, "history/shops")
            parts.append(self._placed(self._shops.rows, bags, self._num_shops) + self._types[_SHOP])
            masks.append(tf.sequence_mask(bags.lengths, self._num_shops))
        return tf.concat(parts, axis=1), tf.concat(masks, axis=1)

    def transform(self, queries: tf.Tensor, events: tf.Tensor, is_event: tf.Tensor) -> tf.Tensor:
        """The transformer layer at the given positions only.

        Args:
            queries: float32 [B, Q, D], the events whose outputs are wanted.
            events: float32 [B, S, D], what they attend to.
            is_event: bool [B, S], False for padding.

        Returns:
            float32 [B, Q, D].
        """
        attended = self._attention(
            self._before_attention(queries),
            self._before_attention(events),
            attention_mask=is_event[:, tf.newaxis],
        )
        hidden = queries + tf.cast(attended, tf.float32)
        changed = self._contract(self._expand(self._before_feed_forward(hidden)))
        return self._output(hidden + tf.cast(changed, tf.float32))

    def _placed(self, embed: Callable[[tf.Tensor], tf.Tensor], bags: TokenBags, width: int) -> tf.Tensor:
        """Ragged events at their places, zeros elsewhere, plus recency: float32 [B, width, D]."""
        num_bags = tf.shape(bags.lengths)[0]
        bag = tf.repeat(tf.range(num_bags), bags.lengths)
        place = tf.range(tf.size(bag)) - tf.repeat(tf.cumsum(bags.lengths, exclusive=True), bags.lengths)
        # A history longer than `width` would reach into the next row.
        fits = place < width
        ids, segments = tf.boolean_mask(bags.values, fits), tf.boolean_mask(bag * width + place, fits)
        placed = segment_sum(embed, ids, segments, num_bags * width)
        return tf.reshape(placed, [num_bags, width, self._tokens.dim]) + self._recency[:width]


class HistoryEncoder(tf.keras.layers.Layer):
    """The transformer's output, terms of recently clicked products, tags of purchased ones; each part may be absent.

    Args:
        tokens: table of tokens.
        transformer: of events; none: absent.
        bags: names of the averaged bags.
        normalize: L2-normalise each average.
    """

    def __init__(
        self, tokens: EmbeddingTable, transformer: EventTransformer | None, bags: tuple[str, ...], normalize: bool
    ) -> None:
        super().__init__(name="history_encoder", dtype="float32")
        self._tokens = tokens
        self._transformer = transformer
        self._bags = bags
        self._normalize = normalize
        self.blocks = (Block(tokens.dim, 0.0),) * (len(bags) + (transformer is not None))

    def call(self, features: Features, training: bool = False) -> tf.Tensor:
        """Feature dictionary to float32 [B, D · parts]; what is not known of a person gives zeros."""
        del training
        parts = [] if self._transformer is None else [self._transformer(features)]
        parts += [unit_rows(self._tokens(bags_of(features, name)), self._normalize) for name in self._bags]
        return tf.concat(parts, axis=1)


def query_history(config: "Config", tables: "Tables") -> HistoryEncoder:
    """The parts of `history` that are not switched off."""
    history, model = config.history, config.model
    transformer = None
    if history.num_searches or history.num_shops:
        shops = tables.shops if history.num_shops else None
        transformer = EventTransformer(
            tables.shared, shops, history, model.normalize_groups, model.precision, config.training.seed
        )
    numbers = {"history/clicked": history.num_clicked_products, "history/purchased": history.num_purchased_products}
    bags = tuple(name for name, number in numbers.items() if number)
    return HistoryEncoder(tables.shared, transformer, bags, model.normalize_groups)
