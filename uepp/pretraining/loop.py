"""Training of the T5: teacher forcing under a distribution strategy, the best weights kept, exact resume."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from uepp.config import PretrainingConfig
from uepp.features.batches import endless_order
from uepp.pretraining.dropout import draw_for_replica, dropout_states
from uepp.pretraining.t5 import query_losses
from uepp.runs.checkpoints import Checkpoints
from uepp.runs.divergence import refuse_divergence
from uepp.runs.logs import Log
from uepp.runs.memory import freed_memory_kept
from uepp.runs.progress import StepReport
from uepp.runs.signals import stop_signal
from uepp.runs.state import BestWeights, Variables, counter
from uepp.runs.strategies import batch_of_replica, elements_of_steps

_EVALUATED_AT_ONCE = 256


@dataclass(frozen=True)
class TokenPairs:
    """Ids of pairs, filled up with 0.

    Attributes:
        products: int32 [E, S].
        queries: int32 [E, T], end mark included.
    """

    products: np.ndarray
    queries: np.ndarray

    def __len__(self) -> int:
        return len(self.products)

    def rows(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Some pairs, without the columns that are padding in all of them."""
        return without_padding(self.products[rows]), without_padding(self.queries[rows])


class Fitted(NamedTuple):
    """How a training ended.

    Attributes:
        step: steps done since the start of the run.
        is_complete: False where a signal stopped it; resume it to go on.
        best_step: of the lowest held-out perplexity.
        weights: of the model at that step, in the order of its `trainable_variables`.
    """

    step: int
    is_complete: bool
    best_step: int
    weights: list[np.ndarray]


def fit(
    build_model: Callable[[], Any],
    pairs: TokenPairs,
    chosen_by: TokenPairs,
    config: PretrainingConfig,
    run_dir: Path,
    *,
    strategy: tf.distribute.Strategy,
    resume: bool = False,
    verbose: int = 1,
) -> Fitted:
    """Train until `max_steps`, or until held-out perplexity has not improved `patience` times in a row.

    The loss of a step is the mean over all query pieces of the global batch, however many replicas share it. The
    stream of batches is a function of (seed, step); a checkpoint holds weights, optimiser, states of dropout, step,
    and the best weights with what is known of them. So a resumed run goes on as if it had not been stopped.

    SIGTERM and the first SIGINT finish the step, save, and return (main thread only).

    Args:
        build_model: makes the `T5Seq2SeqLM` (called under the strategy's scope).
        pairs: to train on.
        chosen_by: held-out ones; their perplexity says when to stop and which step was the best.
        config: sizes of steps, rates, when to do what.
        run_dir: gets `checkpoints/` and `logs/`.
        strategy: devices.
        resume: go on from the newest checkpoint.
        verbose: progress on standard error: 0 silent, 1 bar, 2 a line now and then.

    Raises:
        InputError: the batch size does not split over the replicas, or checkpoints cannot be continued, or training
            diverged.
    """
    batch_of_replica(strategy, "pretraining.batch_size", config.batch_size)
    with strategy.scope():
        trainee = _Trainee(build_model(), config, strategy)
    checkpoints = Checkpoints(run_dir / "checkpoints", config.keep_checkpoints, **trainee.state)
    done = checkpoints.start(resume)

    def batches(context: tf.distribute.InputContext) -> tf.data.Dataset:
        elements = elements_of_steps(context, done, max(0, config.max_steps - done))
        return batch_dataset(pairs, elements, config, strategy.num_replicas_in_sync)

    dataset = strategy.distribute_datasets_from_function(batches)
    train_step = trainee.train_step(dataset.element_spec)
    log = Log(run_dir / "logs", done)
    report = StepReport(config.max_steps, done, "examples", verbose)
    is_over = trainee.is_over(done)
    rates = {"pretraining.learning_rate": config.learning_rate}
    with stop_signal() as stop, report.bar, freed_memory_kept():
        stream = iter(dataset)
        while not is_over and not stop.is_asked:
            report.add(train_step(*next(stream)), config.batch_size)
            done += 1
            trainee.step.assign(done)
            is_over = done >= config.max_steps
            if is_over or done % config.evaluate_every_steps == 0:
                row = report.row(done)
                refuse_divergence(done, row["loss"], rates)
                perplexity = trainee.evaluate(chosen_by)
                refuse_divergence(done, perplexity, rates, name="held-out perplexity")
                log.add(done, row | {"held_out_perplexity": perplexity, "learning_rate": trainee.rate})
                report.show(f"held-out perplexity {perplexity:.2f}")
                is_over = trainee.is_over(done)
            report.advance(done, is_last=is_over or stop.is_asked)
            if is_over or stop.is_asked or done % config.checkpoint_every_steps == 0:
                checkpoints.save()
    return Fitted(done, is_over, trainee.best.step, trainee.best.values())


def batch_dataset(
    pairs: TokenPairs, elements: tf.data.Dataset, config: PretrainingConfig, num_replicas: int
) -> tf.data.Dataset:
    """A batch of product and query ids, int32 [B, S] and [B, T], for each element of the stream.

    Element e holds the places e·B … (e + 1)·B − 1 of an endless stream; place p is place p mod E of epoch p ÷ E.
    """
    size = config.batch_size // num_replicas

    def batch(element: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        places = int(element) * size + np.arange(size)
        return pairs.rows(endless_order(places, len(pairs), config.seed << 64))

    def as_tensors(element: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        products, queries = tf.numpy_function(batch, [element], [tf.int32, tf.int32], stateful=False)
        return tf.ensure_shape(products, [None, None]), tf.ensure_shape(queries, [None, None])

    return elements.map(as_tensors, num_parallel_calls=2).prefetch(2)


def perplexity_of(model: Any, pairs: TokenPairs) -> float:
    """Exp of the mean of −ln p over all pieces of the queries, end marks included."""
    return _perplexity(_losses_function(model), pairs)


def without_padding(ids: np.ndarray) -> np.ndarray:
    """Ids [B, T] up to the last column that has any."""
    return ids[:, : max(1, int((ids != 0).sum(axis=1).max(initial=0)))]


def _losses_function(model: Any) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    spec = tf.TensorSpec([None, None], tf.int32)
    return tf.function(
        lambda products, queries: tf.reduce_sum(query_losses(model, products, queries), axis=1),
        input_signature=[spec, spec],
    )


def _perplexity(losses: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], pairs: TokenPairs) -> float:
    by_length = np.argsort((pairs.products != 0).sum(axis=1), kind="stable")
    total = 0.0
    for begin in range(0, len(pairs), _EVALUATED_AT_ONCE):
        products, queries = pairs.rows(by_length[begin : begin + _EVALUATED_AT_ONCE])
        total += float(losses(products, queries).numpy().astype(np.float64).sum())
    if not math.isfinite(total):
        return total
    return math.exp(min(total / int((pairs.queries != 0).sum()), 700.0))


class _Trainee:
    """The model, its optimiser, and what is known of its best weights."""

    def __init__(self, model: Any, config: PretrainingConfig, strategy: tf.distribute.Strategy) -> None:
        self._model = model
        self._config = config
        self._strategy = strategy
        self._weights = [variable.value for variable in model.trainable_variables]
        self._dropout_states = dropout_states(variable.value for variable in model.variables)
        self._optimizer = tf.keras.optimizers.Adam(_schedule(config), global_clipnorm=config.max_gradient_norm)
        self._optimizer.build(self._weights)
        self._losses = _losses_function(model)
        self.best = BestWeights(self._weights)
        self.step = counter()

    @property
    def state(self) -> dict[str, tf.Module | tf.Variable]:
        """All that a checkpoint holds."""
        return {
            "model": Variables([variable.value for variable in self._model.variables]),
            "optimizer": self._optimizer,
            "step": self.step,
            **self.best.state,
        }

    @property
    def rate(self) -> float:
        """Adam's learning rate now."""
        return float(self._optimizer.learning_rate.numpy())

    def train_step(self, element_spec: Any) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
        """A step on a distributed batch; returns the loss of the global batch."""

        def on_replica(products: tf.Tensor, queries: tf.Tensor) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            draw_for_replica(self._dropout_states, self.step)
            num_pieces = tf.cast(tf.math.count_nonzero(queries), tf.float32)
            num_pieces = context.all_reduce(tf.distribute.ReduceOp.SUM, num_pieces)
            with tf.GradientTape() as tape:
                losses = query_losses(
                    self._model, products, queries, label_smoothing=self._config.label_smoothing, training=True
                )
                loss = tf.reduce_sum(losses) / num_pieces
            gradients = tape.gradient(loss, self._weights)
            self._optimizer.apply_gradients(zip(gradients, self._weights, strict=True))  # adds up the replicas
            return loss

        def step(products: tf.Tensor, queries: tf.Tensor) -> tf.Tensor:
            losses = self._strategy.run(on_replica, args=(products, queries))
            return self._strategy.reduce(tf.distribute.ReduceOp.SUM, losses, axis=None)

        return tf.function(step, input_signature=list(element_spec))

    def evaluate(self, held_out: TokenPairs) -> float:
        """Held-out perplexity; weights that are better than any before are kept."""
        perplexity = _perplexity(self._losses, held_out)
        self.best.see(perplexity, self.step)
        return perplexity

    def is_over(self, done: int) -> bool:
        """Whether training has nothing more to do."""
        return done >= self._config.max_steps or self.best.num_worse >= self._config.patience


def _schedule(config: PretrainingConfig) -> tf.keras.optimizers.schedules.LearningRateSchedule:
    """Up from 0 in a line, then down to 0 at `max_steps` along a cosine."""
    decay_steps = max(1, config.max_steps - config.warmup_steps)
    if not config.warmup_steps:
        return tf.keras.optimizers.schedules.CosineDecay(config.learning_rate, decay_steps)
    return tf.keras.optimizers.schedules.CosineDecay(
        0.0, decay_steps, warmup_target=config.learning_rate, warmup_steps=config.warmup_steps
    )
