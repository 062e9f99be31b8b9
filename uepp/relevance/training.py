"""Training of the cross-encoder: sampled negatives, graded labels, one global batch over all replicas, exact resume."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from threadpoolctl import threadpool_limits

from uepp.config import RelevanceConfig
from uepp.pretraining.dropout import draw_for_replica, dropout_states
from uepp.relevance.cross_encoder import CrossEncoder, pair_losses
from uepp.relevance.steps import Steps
from uepp.runs.checkpoints import Checkpoints
from uepp.runs.divergence import refuse_divergence
from uepp.runs.logs import Log
from uepp.runs.memory import freed_memory_kept
from uepp.runs.progress import StepReport
from uepp.runs.rates import WarmUpThenDecay
from uepp.runs.signals import stop_signal
from uepp.runs.state import BestWeights, Variables, counter
from uepp.runs.strategies import batch_of_replica, elements_of_steps

_SCORED_AT_ONCE = 256
_OBSERVER_SEED = 7_919  # added to the run's seed, modulo all seeds: another model than the one it observes
_NUM_SEEDS = 2**32


class Fitted(NamedTuple):
    """How a training ended.

    Attributes:
        encoder: with the best validated weights, or the last ones without validation; the last ones where it is not
            complete.
        step: steps done since the start of the run.
        is_complete: False where a signal stopped it; resume it to go on.
        best_step: of the weights in `encoder`.
    """

    encoder: CrossEncoder
    step: int
    is_complete: bool
    best_step: int


def fit(
    build_encoder: Callable[[int], CrossEncoder],
    steps: Steps,
    config: RelevanceConfig,
    run_dir: Path,
    *,
    strategy: tf.distribute.Strategy,
    validate: Callable[[CrossEncoder], float] | None = None,
    resume: bool = False,
    verbose: int = 1,
) -> Fitted:
    """Train until `max_steps`, or until the validation has not improved `patience` times in a row.

    A step's loss is the mean of `pair_losses` over its labelled and sampled pairs, those of all replicas; a sampled one
    counts `weight_of_sampled` as much. A step is a function of (seed, step), and a checkpoint holds all that changes:
    weights, optimisers, dropout's state, the step, the best weights. So a resumed run goes on as if it had not been
    stopped.

    With the sampler `cet` a second cross-encoder, the observer, is trained beside it on the same pairs, and they weigh
    each other's sampled pairs (`pair_weights`). It is in the step, since what the sampler knows must not depend on
    how far the input is ahead of it.

    SIGTERM and the first SIGINT finish the step, save, and return (main thread only).

    Args:
        build_encoder: makes a cross-encoder of a seed (called under the strategy's scope).
        steps: pairs of each step.
        config: steps, rates, when to do what.
        run_dir: gets `checkpoints/` and `logs/`.
        strategy: devices.
        validate: a measure of the encoder, the higher the better; asked every `evaluate_every_steps` steps.
        resume: go on from the newest checkpoint.
        verbose: progress on standard error: 0 silent, 1 bar, 2 a line now and then.

    Raises:
        InputError: the batch does not split over the replicas, or checkpoints cannot be continued, or training
            diverged.
    """
    num_replicas = strategy.num_replicas_in_sync
    batch_of_replica(strategy, "relevance.batch_size", steps.batch_size)
    with strategy.scope():
        observer_seed = (config.seed + _OBSERVER_SEED) % _NUM_SEEDS
        seeds = [config.seed, observer_seed] if config.sampler == "cet" else [config.seed]
        trainee = _Trainee([build_encoder(seed) for seed in seeds], config, strategy)
    checkpoints = Checkpoints(run_dir / "checkpoints", config.keep_checkpoints, **trainee.state)
    done = checkpoints.start(resume)

    def batches(context: tf.distribute.InputContext) -> tf.data.Dataset:
        elements = elements_of_steps(context, done, max(0, config.max_steps - done))
        return batch_dataset(steps, trainee.encoder, elements, num_replicas)

    dataset = strategy.distribute_datasets_from_function(batches)
    train_step = trainee.train_step(dataset.element_spec)
    log = Log(run_dir / "logs", done)
    report = StepReport(config.max_steps, done, "pairs", verbose)
    is_over = trainee.is_over(done)
    rates = {"relevance.learning_rate": config.peak_learning_rate}
    # A pool's small matrix products on several threads would wait for TensorFlow's, which have the cores.
    with stop_signal() as stop, report.bar, freed_memory_kept(), threadpool_limits(1, user_api="blas"):
        stream = iter(dataset)
        while not is_over and not stop.is_asked:
            loss, num_pairs = train_step(*next(stream))
            report.add(loss, int(num_pairs))
            done += 1
            trainee.step.assign(done)
            is_over = done >= config.max_steps
            if is_over or done % config.evaluate_every_steps == 0:
                sampling = steps.sampler_seconds() * num_replicas  # each replica samples the whole step
                row = report.row(done) | {"sampler_seconds": sampling, "learning_rate": trainee.rate}
                refuse_divergence(done, row["loss"], rates)
                if validate is not None:
                    measure = validate(trainee.encoder)
                    trainee.best.see(-measure, trainee.step)
                    row["validation"] = measure
                    report.show(f"validation {measure:.4f}")
                log.add(done, row)
                is_over = trainee.is_over(done)
            report.advance(done, is_last=is_over or stop.is_asked)
            if is_over or stop.is_asked or done % config.checkpoint_every_steps == 0:
                checkpoints.save()
    best_step = done
    if is_over and trainee.best.step:
        trainee.best.restore()
        best_step = trainee.best.step
    if is_over:
        # A loss is of the weights before its step, so it says nothing of what the last step has done.
        queries, products = steps.texts(steps.pairs(best_step - 1))
        logits = logits_of(trainee.encoder, queries.tolist(), products.tolist())
        refuse_divergence(best_step, float(logits.sum()), rates, name="sum of the logits")
    return Fitted(trainee.encoder, done, is_over, best_step)


def batch_dataset(steps: Steps, encoder: CrossEncoder, elements: tf.data.Dataset, num_replicas: int) -> tf.data.Dataset:
    """A replica's share of a step for each element of the stream.

    Element e is for replica e mod P of step e ÷ P, and holds every P-th pair of it. Each replica samples the whole
    step: that costs next to nothing, and so the step does not depend on how many there are.

    Returns:
        ids and segments int32 [n, S], labels float32 [n], is_sampled bool [n], and the pairs of the whole step, int64.
    """

    def share(element: np.ndarray) -> tuple[Any, ...]:
        step, replica = divmod(int(element), num_replicas)
        pairs = steps.pairs(step)
        queries, products = steps.texts(pairs)
        own = slice(replica, None, num_replicas)
        return queries[own], products[own], pairs.labels[own], pairs.is_sampled[own], np.int64(len(pairs.labels))

    def as_tensors(element: tf.Tensor) -> tuple[tf.Tensor, ...]:
        kinds = [tf.string, tf.string, tf.float32, tf.bool, tf.int64]
        queries, products, labels, is_sampled, number = tf.numpy_function(share, [element], kinds, stateful=False)
        queries, products, labels, is_sampled = (
            tf.ensure_shape(column, [None]) for column in (queries, products, labels, is_sampled)
        )
        return *encoder.tokenize(queries, products), labels, is_sampled, tf.ensure_shape(number, [])

    return elements.map(as_tensors, num_parallel_calls=2).prefetch(2)


def logits_of(encoder: CrossEncoder, queries: Sequence[str], products: Sequence[str]) -> np.ndarray:
    """What the cross-encoder says of pairs of texts: float32 [P], of texts [P] and [P]."""
    # Texts of like length go together, since a batch costs what its longest pair does.
    order = np.argsort([len(one) + len(other) for one, other in zip(queries, products, strict=True)], kind="stable")
    logits = np.empty(len(order), np.float32)
    for begin in range(0, len(order), _SCORED_AT_ONCE):
        rows = order[begin : begin + _SCORED_AT_ONCE]
        texts = ([column[row] for row in rows] for column in (queries, products))
        logits[rows] = encoder.score(*(tf.constant(each, tf.string) for each in texts))["logit"].numpy()
    return logits


class _Trainee:
    """The cross-encoder, for CET its observer too, their optimisers, and the best weights of the first."""

    def __init__(
        self, encoders: Sequence[CrossEncoder], config: RelevanceConfig, strategy: tf.distribute.Strategy
    ) -> None:
        self._encoders = list(encoders)
        self._config = config
        self._strategy = strategy
        self._optimizers = [_optimizer(encoder, config) for encoder in encoders]
        self._dropout_states = dropout_states(variable for encoder in encoders for variable in encoder.variables)
        self.best = BestWeights(encoders[0].trainable_variables)
        self.step = counter()

    @property
    def encoder(self) -> CrossEncoder:
        """The one that is wanted."""
        return self._encoders[0]

    @property
    def state(self) -> dict[str, tf.Module | tf.Variable]:
        """All that a checkpoint holds."""
        names = ("", "observer_")[: len(self._encoders)]
        parts = list(zip(names, self._encoders, self._optimizers, strict=True))
        return {
            **{f"{name}model": Variables(encoder.variables) for name, encoder, _ in parts},
            **{f"{name}optimizer": optimizer for name, _, optimizer in parts},
            "step": self.step,
            **self.best.state,
        }

    @property
    def rate(self) -> float:
        """The learning rate now."""
        return float(self._optimizers[0].learning_rate.numpy())

    def train_step(self, element_spec: Any) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
        """A step on a distributed batch; returns the loss of the global batch, and how many pairs it has."""

        def on_replica(
            ids: tf.Tensor, segments: tf.Tensor, labels: tf.Tensor, is_sampled: tf.Tensor, num_pairs: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor]:
            draw_for_replica(self._dropout_states, self.step)
            num_sampled = tf.cast(num_pairs - self._config.batch_size, tf.float32)
            share = 1.0 / (self._config.batch_size + self._config.weight_of_sampled * num_sampled)
            with tf.GradientTape() as tape:
                logits = [encoder.logits(ids, segments, training=True) for encoder in self._encoders]
                weights = pair_weights(logits, is_sampled, self._config.weight_of_sampled)
                losses = [
                    share * tf.reduce_sum(pair_losses(each, labels, weight))
                    for each, weight in zip(logits, weights, strict=True)
                ]
            gradients = tape.gradient(losses, [encoder.trainable_variables for encoder in self._encoders])
            for optimizer, gradient, encoder in zip(self._optimizers, gradients, self._encoders, strict=True):
                # adds up the replicas
                optimizer.apply_gradients(zip(gradient, encoder.trainable_variables, strict=True))
            return losses[0], num_pairs

        def step(*batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            losses, num_pairs = self._strategy.run(on_replica, args=batch)
            loss = self._strategy.reduce(tf.distribute.ReduceOp.SUM, losses, axis=None)
            return loss, self._strategy.experimental_local_results(num_pairs)[0]

        return tf.function(step, input_signature=list(element_spec))

    def is_over(self, done: int) -> bool:
        """Whether training has nothing more to do."""
        has_stalled = self._config.patience and self.best.num_worse >= self._config.patience
        return done >= self._config.max_steps or bool(has_stalled)


def pair_weights(logits: Sequence[tf.Tensor], is_sampled: tf.Tensor, sampled_weight: float) -> list[tf.Tensor]:
    """What pairs weigh in the loss of each model: labelled ones 1, sampled ones less or more; no gradient.

    With two models it is CET (Cai et al. 2022): the second cross-encoder, the observer, weighs what was sampled.
    Cai et al. learn two models at once, one of relevance and one of how pairs come to be labelled, and correct the
    training of each by the other's estimate. BHNS says that a subordinate cross-encoder watches for the bias of false
    negatives and corrects it while the primary one is trained, and no more. Simplified from both: the observer is a
    cross-encoder of the same kind from another seed, trained on the same labelled and sampled pairs. Negatives are
    random (`RandomSampler`), r̃ = 0. A sampled pair's weight is multiplied by 1 − σ(x) of the *other* model in the loss
    of each of the two: what one takes for relevant may be a false negative, and teaches the other little. The observer
    is thrown away after training.

    Args:
        logits: x of one model, which nobody observes, or of two, float32 [P] each.
        is_sampled: bool [P].
        sampled_weight: of a sampled pair.

    Returns:
        float32 [P] for each model.
    """
    weights = tf.where(is_sampled, sampled_weight, 1.0)
    if len(logits) == 1:
        return [weights]
    others = (tf.stop_gradient(tf.sigmoid(each)) for each in reversed(logits))
    return [tf.where(is_sampled, (1.0 - other) * weights, weights) for other in others]


def _optimizer(encoder: CrossEncoder, config: RelevanceConfig) -> tf.keras.optimizers.Optimizer:
    weights = encoder.trainable_variables
    optimizer = tf.keras.optimizers.AdamW(
        WarmUpThenDecay(config.peak_learning_rate, config.warmup_steps, config.max_steps),
        weight_decay=config.weight_decay,
        global_clipnorm=config.max_gradient_norm,
    )
    # Pulling shifts and gains to 0 regularises nothing. They have one dimension; those of attention have a row a head.
    is_shift = [weight.name.split(":")[0].endswith("bias") for weight in weights]
    kept = [weight for weight, is_one in zip(weights, is_shift, strict=True) if is_one or weight.shape.rank < 2]
    optimizer.exclude_from_weight_decay(var_list=kept)
    optimizer.build(weights)
    return optimizer
