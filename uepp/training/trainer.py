"""The training loop: `tfrs.Model` in Keras' `fit`, under a distribution strategy."""

import math
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf
import tensorflow_recommenders as tfrs

from uepp.config import Config
from uepp.errors import InputError
from uepp.features.examples import Batch
from uepp.model.towers import TwoTower
from uepp.training.checkpoints import Checkpoints
from uepp.training.losses import negative_hinge, positive_hinge
from uepp.training.optimizers import build_optimizer

ElementDataset = Callable[[int, int], tf.data.Dataset]
"""(first element, number of elements) to a dataset of per-replica batches."""


def choose_strategy() -> tf.distribute.Strategy:
    """All visible GPUs mirrored; without one, the CPU."""
    gpus = tf.config.list_logical_devices("GPU")
    return tf.distribute.MirroredStrategy([gpu.name for gpu in gpus] or ["/cpu:0"])


_REPORTED = ("positive", "in_batch", "uniform", "similarity", "masked_share")


class Trainer(tfrs.Model):
    """One training step: embed, compare, mask, hinge.

    Args:
        model: the two towers.
        config: uses `loss`.
    """

    def __init__(self, model: TwoTower, config: Config) -> None:
        super().__init__()
        self.two_tower = model
        self._loss = config.loss
        self._means = {name: tf.keras.metrics.Mean(name) for name in _REPORTED}

    def compute_loss(self, inputs: Batch, training: bool = False) -> tf.Tensor:
        """Mean loss of a batch and its metrics.

        Candidates are B positives, then m uniform negatives; every candidate that is not known to
        answer a query is a negative of it. The two sources have weights of their own (UEPPR III-D).
        """
        queries, products = self.two_tower(inputs, training=training)
        similarity = tf.matmul(queries, products, transpose_b=True)
        batch_size = tf.shape(queries)[0]
        is_negative = tf.logical_not(inputs["is_known_positive"])

        settings = self._loss
        positive_similarity = tf.linalg.diag_part(similarity)
        positive = positive_hinge(positive_similarity, inputs["type_ids"], settings.thresholds, settings.power)
        in_batch, uniform = (
            negative_hinge(part, mask, settings.threshold_negative, settings.power)
            for part, mask in (
                (similarity[:, :batch_size], is_negative[:, :batch_size]),
                (similarity[:, batch_size:], is_negative[:, batch_size:]),
            )
        )
        self._report(
            positive=positive,
            in_batch=in_batch,
            uniform=uniform,
            similarity=positive_similarity,
            masked_share=tf.cast(inputs["is_known_positive"], tf.float32),
        )
        loss = positive + settings.in_batch_weight * in_batch + settings.uniform_weight * uniform
        # Optimisers add up the gradients of all replicas, so each replica contributes its share of the global mean.
        return tf.reduce_mean(loss) / tf.distribute.get_strategy().num_replicas_in_sync

    def _report(self, **values: tf.Tensor) -> None:
        for name, value in values.items():
            self._means[name].update_state(value)


class _CountSteps(tf.keras.callbacks.Callback):
    """Counts steps, saves every `every` of them and at the end, and stops after `last`."""

    def __init__(self, checkpoints: Checkpoints, step: tf.Variable, every: int, last: int) -> None:
        super().__init__()
        self._last = last
        self._checkpoints = checkpoints
        self._step = step
        self._every = every

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._step.assign_add(1)
        if int(self._step) % self._every == 0:
            self._checkpoints.save()
        if int(self._step) >= self._last:
            self.model.stop_training = True

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        if int(self._step) % self._every:
            self._checkpoints.save()


def fit(
    build_model: Callable[[], TwoTower],
    make_dataset: ElementDataset,
    config: Config,
    run_dir: Path,
    *,
    resume: bool = False,
    verbose: int = 1,
) -> TwoTower:
    """Train for `training.max_steps` steps and return the towers.

    Resume: 1. checkpoints hold weights, optimiser slots and the step; 2. the stream of batches is a
    function of (seed, element); 3. so a resumed run continues with the element after the last saved
    step, or at the start when none was saved; 4. a run that already has all its steps trains no more.

    Args:
        build_model: makes the towers (called under the strategy's scope).
        make_dataset: per-replica batches.
        config: uses `training` and `loss`.
        run_dir: gets `checkpoints/` and `logs/` (TensorBoard).
        resume: continue from the newest checkpoint.
        verbose: Keras' progress: 0 silent, 1 bar, 2 a line an epoch.

    Raises:
        InputError: the batch size does not split over the replicas.
    """
    settings = config.training
    strategy = choose_strategy()
    num_replicas = strategy.num_replicas_in_sync
    if settings.batch_size % num_replicas:
        raise InputError(f"training.batch_size = {settings.batch_size}: must divide by the {num_replicas} devices")
    with strategy.scope():
        trainer = Trainer(build_model(), config)
        example = next(iter(make_dataset(0, 1)))
        trainer.two_tower(example)  # makes the variables, so that the optimiser can split them
        trainer.compile(optimizer=build_optimizer(trainer.two_tower, settings))
    step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
    checkpoints = Checkpoints(
        run_dir / "checkpoints", settings, model=trainer.two_tower, optimizer=trainer.optimizer, step=step
    )
    if resume and checkpoints.latest is not None:
        checkpoints.restore()
    done = int(step)
    if done >= settings.max_steps:
        return trainer.two_tower

    # Keras counts whole epochs; the last one may be cut short by the callback.
    steps_per_epoch = max(1, min(settings.checkpoint_every_steps, settings.max_steps // 10))
    epochs = math.ceil((settings.max_steps - done) / steps_per_epoch)

    def replica_batches(_: tf.distribute.InputContext) -> tf.data.Dataset:
        return make_dataset(done * num_replicas, (settings.max_steps - done) * num_replicas)

    trainer.fit(
        strategy.distribute_datasets_from_function(replica_batches),
        steps_per_epoch=steps_per_epoch,
        epochs=epochs,
        verbose=verbose,
        callbacks=[
            _CountSteps(checkpoints, step, settings.checkpoint_every_steps, settings.max_steps),
            tf.keras.callbacks.TensorBoard(run_dir / "logs", update_freq=100),
        ],
    )
    return trainer.two_tower


def restore(build_model: Callable[[], TwoTower], config: Config, run_dir: Path) -> TwoTower:
    """The towers of the newest checkpoint of a run.

    Raises:
        InputError: the run has no checkpoint.
    """
    model = build_model()
    step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
    Checkpoints(run_dir / "checkpoints", config.training, model=model, step=step).restore()
    return model
