"""One training step: `tfrs.Model` whose loss compares queries with positives and three sources of negatives."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf
import tensorflow_recommenders as tfrs

from uepp.config import Config
from uepp.features.entries import Features
from uepp.model.features import take_rows
from uepp.model.towers import TwoTower
from uepp.training.false_negatives import false_negative_estimate
from uepp.training.losses import negative_hinge, positive_hinge, sampled_softmax
from uepp.training.negatives import (
    HardestOfPool,
    distinct_rows,
    known_positive_mask,
    select_hardest,
    select_hardest_regularized,
    select_highest,
    select_uniform,
)
from uepp.training.schedules import linear_weight

_SOURCE_METRICS = ("count", "active", "masked_share", "similarity", "weight")


class _Source(NamedTuple):
    """Candidates of one source.

    Attributes:
        similarity: float32 [B, C].
        is_negative: bool [B, C], the query's negatives: neither masked nor left out by choice.
        masked_share: float32 scalar, share of candidates that were masked as known positives.
        stands_for: float32 [B, 1], of how many candidates a negative was drawn; none: it is there for itself.
    """

    similarity: tf.Tensor
    is_negative: tf.Tensor
    masked_share: tf.Tensor
    stands_for: tf.Tensor | None = None


class Trainer(tfrs.Model):
    """One training step: encode, choose negatives, compare, weigh.

    Args:
        model: the two towers, already built.
        config: uses `loss`, `negatives` and `training.seed`.
        step: steps taken so far, for the schedules: an int64 variable, or what returns its value.
    """

    def __init__(self, model: TwoTower, config: Config, step: tf.Variable | Callable[[], tf.Tensor]) -> None:
        super().__init__()
        self.two_tower = model
        self._loss = config.loss
        self._negatives = config.negatives
        self._seed = config.training.seed
        # A function, so that Keras does not take the step for a weight of this model.
        self._step = step if callable(step) else (lambda: tf.convert_to_tensor(step))
        schedules = {"in_batch": config.negatives.in_batch_weight}
        if config.negatives.num_uniform:
            schedules["uniform"] = config.negatives.uniform_weight
        if config.negatives.dynamic_pool:
            schedules["dynamic"] = config.negatives.dynamic_weight
        self._schedules = schedules
        reported = ["loss", "positive_similarity"]
        reported += [f"{source}_{name}" for source in schedules for name in _SOURCE_METRICS]
        if config.loss.kind == "hinge":
            reported += ["positive_loss", *(f"{source}_loss" for source in schedules)]
        self._means = {name: tf.keras.metrics.Mean(name) for name in reported}

    def compute_loss(self, inputs: Features, training: bool = False) -> tf.Tensor:
        """Loss of a replica's batch, its share of the mean over all replicas' queries; updates the metrics.

        Negatives of a query are other queries' positives, products drawn uniformly from the catalogue, and
        the hardest of a large pool of them (UEPPR III-D). The pool is only searched with the parameters as
        they are; what is chosen from it is encoded again, once, with positives and uniform negatives.
        """
        weights = self._weights()
        queries = self.two_tower.query_user_tower(inputs, training=training)
        num_queries = tf.shape(queries)[0]
        num_drawn = num_queries + self._negatives.num_uniform

        compared = inputs
        if "dynamic" in weights:
            hardest = self._choose_dynamic(inputs, queries, weights["dynamic"])
            distinct, position = distinct_rows(hardest.rows, hardest.is_chosen)
            compared = take_rows(inputs, tf.concat([tf.range(num_drawn), num_drawn + distinct], axis=0))
        products = self.two_tower.product_tower(compared, training=training)

        positives = products[:num_queries]
        positive_similarity = tf.reduce_sum(queries * positives, axis=1)
        sources = {"in_batch": self._in_batch(inputs, queries, positives)}
        if "uniform" in weights:
            sources["uniform"] = self._uniform(inputs, queries, products[num_queries:num_drawn])
        if "dynamic" in weights:
            own = tf.gather(products, tf.where(hardest.is_chosen, num_drawn + position, 0))
            similarity = tf.einsum("bd,bkd->bk", queries, own)
            sources["dynamic"] = _Source(similarity, hardest.is_chosen, hardest.masked_share)

        self._report_sources(sources, weights)
        self._report(positive_similarity=positive_similarity)
        if self._loss.kind == "hinge":
            loss = self._hinge(inputs, positive_similarity, sources, weights)
        else:
            loss = self._softmax(inputs, sources, weights)
        self._report(loss=loss)
        # Optimisers add up the gradients of all replicas, so each replica contributes its share of the global mean.
        return tf.reduce_mean(loss) / tf.distribute.get_strategy().num_replicas_in_sync

    def train_step(self, inputs: Features) -> dict[str, tf.Tensor]:
        """One update. Only the loss is returned: to compute every metric in every step would cost workers a round."""
        with tf.GradientTape() as tape:
            loss = self.compute_loss(inputs, training=True)
        variables = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return {"loss": loss}

    def _weights(self) -> dict[str, tf.Tensor]:
        """Weight of each source at this step."""
        step, settings = self._step(), self._negatives
        return {
            source: linear_weight(step, start, end, warmup_steps=settings.warmup_steps, ramp_steps=settings.ramp_steps)
            for source, (start, end) in self._schedules.items()
        }

    def _in_batch(self, features: Features, queries: tf.Tensor, positives: tf.Tensor) -> _Source:
        """Positives as negatives of other queries: all of them, or k a query."""
        settings = self._negatives
        num_queries = tf.shape(queries)[0]
        candidates = self._gathered(features["candidates"][:num_queries])
        is_known = _known(features, candidates)
        own = self._positive_column(num_queries)
        is_own = tf.one_hot(own, tf.shape(candidates)[0], True, False, dtype=tf.bool)
        similarity = tf.matmul(queries, self._gathered(positives), transpose_b=True)
        masked_share = tf.math.divide_no_nan(_share(is_known & ~is_own), _share(~is_own))
        is_negative = ~is_known
        if settings.num_in_batch is None:
            return _Source(similarity, is_negative, masked_share)
        seed = tf.stack([tf.constant(self._seed, tf.int64), features["element"]])
        stands_for: tf.Tensor | None = None
        if settings.in_batch == "uniform":
            num_left = tf.math.count_nonzero(is_negative, axis=1, keepdims=True, dtype=tf.float32)
            is_negative = select_uniform(is_negative, settings.num_in_batch, seed)
            stands_for = tf.maximum(num_left / settings.num_in_batch, 1.0)
        elif settings.false_negative_temperature:
            fixed = tf.stop_gradient(queries)
            query_similarity = tf.matmul(fixed, self._gathered(fixed), transpose_b=True)
            theta = false_negative_estimate(query_similarity, self._gathered(tf.cast(is_known, tf.float32)))
            is_negative = select_hardest_regularized(
                similarity, is_negative, theta, settings.num_in_batch, settings.false_negative_temperature, seed
            )
        else:
            is_negative = select_highest(similarity, is_negative, settings.num_in_batch)
        return _Source(similarity, is_negative, masked_share, stands_for)

    def _uniform(self, features: Features, queries: tf.Tensor, products: tf.Tensor) -> _Source:
        """Products drawn uniformly from the catalogue."""
        first = tf.shape(queries)[0]
        candidates = self._gathered(features["candidates"][first : first + self._negatives.num_uniform])
        is_known = _known(features, candidates)
        similarity = tf.matmul(queries, self._gathered(products), transpose_b=True)
        return _Source(similarity, ~is_known, _share(is_known))

    def _choose_dynamic(self, features: Features, queries: tf.Tensor, weight: tf.Tensor) -> HardestOfPool:
        """Each query's hardest of the pool; nothing is searched, and nothing chosen, while the weight is 0."""
        settings = self._negatives
        first = tf.shape(queries)[0] + settings.num_uniform

        def encode(rows: tf.Tensor) -> tf.Tensor:
            return self.two_tower.product_tower(take_rows(features, first + rows), training=False)

        def choose() -> tuple[tf.Tensor, ...]:
            return tuple(
                select_hardest(
                    queries,
                    encode,
                    features["candidates"][first:],
                    features["known_positives/values"],
                    features["known_positives/lengths"],
                    num_hardest=settings.num_dynamic,
                    chunk=settings.dynamic_chunk,
                    temperature=settings.false_negative_temperature,
                    seed=tf.stack([tf.constant(self._seed, tf.int64), features["element"]]),
                )
            )

        def skip() -> tuple[tf.Tensor, ...]:
            shape = [tf.shape(queries)[0], settings.num_dynamic]
            return tf.zeros(shape, tf.int32), tf.zeros(shape, tf.bool), tf.constant(0.0)

        return HardestOfPool(*tf.cond(weight > 0, choose, skip))

    def _hinge(
        self,
        features: Features,
        positive_similarity: tf.Tensor,
        sources: dict[str, _Source],
        weights: dict[str, tf.Tensor],
    ) -> tf.Tensor:
        """Multi-part hinge, float32 [B]: the positive's part and the weighted parts of the sources."""
        settings = self._loss
        loss = positive_hinge(positive_similarity, features["type_ids"], settings.thresholds, settings.power)
        self._report(positive_loss=loss)
        for name, source in sources.items():
            part = negative_hinge(source.similarity, source.is_negative, settings.threshold_negative, settings.power)
            self._report(**{f"{name}_loss": part})
            loss += weights[name] * part
        return loss

    def _softmax(self, features: Features, sources: dict[str, _Source], weights: dict[str, tf.Tensor]) -> tf.Tensor:
        """Sampled softmax, float32 [B], over the candidates of all sources.

        Dynamic candidates and the hardest of a batch were not drawn but chosen, and stand for themselves only: they
        have no correction. Where k of a query's candidates in the batch are drawn, each stands for its share of them.
        The positive has the correction of what it is compared with: of uniform draws while the batch does not count.
        """
        similarity = {name: source.similarity for name, source in sources.items()}
        num_queries = tf.shape(features["type_ids"])[0]
        log_expected_count = features["log_expected_count"]
        # Gathering draws as often as there are replicas.
        gathers = self._negatives.gather
        log_draws = tf.math.log(float(tf.distribute.get_strategy().num_replicas_in_sync)) if gathers else 0.0
        log_expected_counts = {name: tf.zeros(tf.shape(similarity[name])[1]) for name in sources}
        if "uniform" in sources:
            log_expected_counts["uniform"] = self._gathered(log_expected_count[num_queries:]) + log_draws
        of_catalogue = log_expected_counts["uniform"][0] if "uniform" in sources else 0.0  # of any product the same
        of_batch = log_expected_counts["in_batch"]
        if self._negatives.in_batch != "hardest":
            of_batch = self._gathered(log_expected_count[:num_queries]) + log_draws
        log_expected_counts["in_batch"] = tf.where(weights["in_batch"] > 0, of_batch, of_catalogue)

        def weight(name: str) -> tf.Tensor:
            stands_for = 1.0 if sources[name].stands_for is None else sources[name].stands_for
            return tf.broadcast_to(weights[name] * stands_for, tf.shape(similarity[name]))

        return sampled_softmax(
            tf.concat([similarity[name] for name in sources], axis=1),
            self._positive_column(num_queries),
            tf.concat([source.is_negative for source in sources.values()], axis=1),
            tf.concat([log_expected_counts[name] for name in sources], axis=0),
            tf.concat([weight(name) for name in sources], axis=1),
            self._loss.temperature,
        )

    def _positive_column(self, num_queries: tf.Tensor) -> tf.Tensor:
        """Column of each query's own positive among the in-batch candidates, int32 [B]."""
        own = tf.range(num_queries)
        if not self._negatives.gather:
            return own
        return own + num_queries * tf.distribute.get_replica_context().replica_id_in_sync_group

    def _gathered(self, tensor: tf.Tensor) -> tf.Tensor:
        """Rows of all replicas, in the order of replicas, where `negatives.gather` is on; else the replica's own."""
        context = tf.distribute.get_replica_context()
        if not self._negatives.gather or context.num_replicas_in_sync == 1:
            return tensor
        return context.all_gather(tensor, axis=0)

    def _report_sources(self, sources: dict[str, _Source], weights: dict[str, tf.Tensor]) -> None:
        for name, source in sources.items():
            is_negative = tf.cast(source.is_negative, tf.float32)
            is_active = source.is_negative & (source.similarity > self._loss.threshold_negative)
            values = {
                "count": tf.reduce_sum(is_negative, axis=1),
                "active": tf.reduce_sum(tf.cast(is_active, tf.float32), axis=1),
                "masked_share": source.masked_share,
                "weight": weights[name],
            }
            self._report(**{f"{name}_{metric}": value for metric, value in values.items()})
            similarity = tf.where(source.is_negative, source.similarity, 0.0)
            self._means[f"{name}_similarity"].update_state(similarity, sample_weight=is_negative)

    def _report(self, **values: tf.Tensor) -> None:
        for name, value in values.items():
            self._means[name].update_state(value)


def _known(features: Features, candidates: tf.Tensor) -> tf.Tensor:
    """Bool [B, C]: the candidate is known to answer the query."""
    return known_positive_mask(candidates, features["known_positives/values"], features["known_positives/lengths"])


def _share(is_true: tf.Tensor) -> tf.Tensor:
    """Share of True, 0 of nothing."""
    return tf.math.divide_no_nan(tf.reduce_sum(tf.cast(is_true, tf.float32)), tf.cast(tf.size(is_true), tf.float32))
