"""The training loop: Keras' `fit` of the trainer, under a distribution strategy, with exact resume."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from uepp.config import Config, TrainingConfig
from uepp.errors import InputError
from uepp.model.towers import TwoTower
from uepp.runs.checkpoints import Checkpoints
from uepp.runs.divergence import refuse_divergence
from uepp.runs.logs import Log
from uepp.runs.memory import freed_memory_kept
from uepp.runs.signals import Stop, stop_signal
from uepp.runs.strategies import batch_of_replica, elements_of_steps, gather_numbers, is_chief
from uepp.training.optimizers import build_optimizer
from uepp.training.trainer import Trainer

ElementDataset = Callable[[tf.data.Dataset], tf.data.Dataset]
"""Numbers of stream elements (int64 scalars) to one batch of a replica for each, in their order."""

_SHOWN = ("loss", "positive_loss", "in_batch_loss", "dynamic_loss", "positive_similarity")
_REFRESH_SECONDS = 0.5
_LINE_SECONDS = 10.0
_AGREE_EVERY_STEPS = 10


class TrainingResult(NamedTuple):
    """What `fit` leaves.

    Attributes:
        model: the trained towers.
        step: steps that have been taken since the start of the run.
        is_complete: False where a signal stopped training before its last step; it can be resumed.
    """

    model: TwoTower
    step: int
    is_complete: bool


def fit(
    build_model: Callable[[], TwoTower],
    make_dataset: ElementDataset,
    config: Config,
    run_dir: Path,
    *,
    strategy: tf.distribute.Strategy,
    resume: bool = False,
    verbose: int = 1,
) -> TrainingResult:
    """Train until `training.max_steps` steps are done.

    Resume: 1. checkpoints hold weights, optimiser slots and the step; 2. the stream of batches is a
    function of (seed, element); 3. so a resumed run continues with the element after the last saved
    step, or at the start when none was saved; 4. a run that already has all its steps trains no more.

    SIGTERM and the first SIGINT finish the step, save, and return (main thread only).

    Args:
        build_model: makes the towers (called under the strategy's scope).
        make_dataset: per-replica batches.
        config: uses `training`; the trainer uses more.
        run_dir: gets `checkpoints/` and `logs/` (TensorBoard and `training.csv`); shared by all workers.
        strategy: devices.
        resume: continue from the newest checkpoint.
        verbose: progress on standard error: 0 silent, 1 bar, 2 a line now and then.

    Raises:
        InputError: the batch size does not split over the replicas, or checkpoints cannot be continued.
    """
    settings = config.training
    batch_of_replica(strategy, "training.batch_size", settings.batch_size)
    if settings.deterministic:
        tf.keras.utils.set_random_seed(settings.seed)
        tf.config.experimental.enable_op_determinism()
    with strategy.scope():
        step = _step_variable()
        model = build_model()
        model(next(iter(make_dataset(tf.data.Dataset.range(1)))))  # makes the variables
        trainer = Trainer(model, config, step)
        trainer.compile(optimizer=build_optimizer(model, settings))
    trainer.distribute_reduction_method = "first"  # what the step returns is not used: no need to add up replicas
    checkpoints = Checkpoints(
        run_dir / "checkpoints",
        settings.keep_checkpoints,
        is_chief=is_chief(strategy),
        model=model,
        optimizer=trainer.optimizer,
        step=step,
    )
    done = checkpoints.start(resume)
    if len(found := set(gather_numbers(strategy, done))) > 1:
        raise InputError(
            f"{run_dir}: the workers found checkpoints of different steps, {sorted(found)}; all must see one directory"
        )
    if done >= settings.max_steps:
        return TrainingResult(model, done, True)

    def batches(context: tf.distribute.InputContext) -> tf.data.Dataset:
        return make_dataset(elements_of_steps(context, done, settings.max_steps - done))

    with stop_signal() as stop:
        count = _CountSteps(step, settings, strategy, stop)
        report = _Report(Log(run_dir / "logs", done) if is_chief(strategy) else None, settings, done, verbose)
        with report.bar, freed_memory_kept():
            trainer.fit(
                strategy.distribute_datasets_from_function(batches),
                # One epoch: a run may begin and end anywhere, and steps are what everything is counted in.
                steps_per_epoch=settings.max_steps - done,
                verbose=0,
                # A row is written before the checkpoint of its step: after a kill between the two it comes again.
                callbacks=[count, report, _Save(checkpoints, count)],
            )
    return TrainingResult(model, count.done, count.done >= settings.max_steps)


def restore(build_model: Callable[[], TwoTower], config: Config, run_dir: Path) -> TwoTower:
    """The towers of the newest undamaged checkpoint of a run.

    Raises:
        InputError: the run has no such checkpoint, or it is of another model.
    """
    model = build_model()
    Checkpoints(run_dir / "checkpoints", config.training.keep_checkpoints, model=model, step=_step_variable()).restore()
    return model


def _step_variable() -> tf.Variable:
    """Steps done; the schedules of the trainer read it."""
    return tf.Variable(
        0, dtype=tf.int64, trainable=False, name="step", aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
    )


class _CountSteps(tf.keras.callbacks.Callback):
    """Counts steps, and stops after the last one or when asked to."""

    _supports_tf_logs = True  # Keras would copy its logs from the device in each step otherwise

    def __init__(
        self,
        step: tf.Variable,
        config: TrainingConfig,
        strategy: tf.distribute.Strategy,
        stop: Stop,
    ) -> None:
        super().__init__()
        self.done = int(step.numpy())
        self.must_save = False
        self._step = step
        self._config = config
        self._strategy = strategy
        self._stop = stop

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.done += 1
        self._step.assign_add(1, read_value=False)
        is_last = self.done >= self._config.max_steps or self._must_stop()
        self.must_save = is_last or self.done % self._config.checkpoint_every_steps == 0
        if is_last:
            self.model.stop_training = True

    def _must_stop(self) -> bool:
        """All workers have to stop after the same step, so now and then they tell each other."""
        if not isinstance(self._strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return self._stop.is_asked
        return self.done % _AGREE_EVERY_STEPS == 0 and any(gather_numbers(self._strategy, self._stop.is_asked))


class _Save(tf.keras.callbacks.Callback):
    """Saves after the steps of which `count` says so."""

    _supports_tf_logs = True

    def __init__(self, checkpoints: Checkpoints, count: _CountSteps) -> None:
        super().__init__()
        self._checkpoints = checkpoints
        self._count = count

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._count.must_save:
            self._checkpoints.save()


class _Report(tf.keras.callbacks.Callback):
    """Means of all metrics, a row every so many steps, and progress.

    Keras' own callbacks count epochs and start over at 0 in a resumed run; here everything is counted in steps of
    the whole run. A row holds means since the row before it, or since training was resumed. Metrics are read only
    for a row: each reading adds up all replicas, so all workers do it together.

    Args:
        log: where rows go; none: another worker writes them.
        config: steps and examples a step.
        done: steps done before.
        verbose: 0 silent, 1 bar, 2 a line now and then.
    """

    _supports_tf_logs = True

    def __init__(self, log: Log | None, config: TrainingConfig, done: int, verbose: int) -> None:
        super().__init__()
        self._log = log
        self._batch_size = config.batch_size
        keys = ("table_learning_rate", "dense_learning_rate")
        self._rates = {f"training.{key}": getattr(config, key) for key in keys}
        self._last = config.max_steps
        self._row_every = max(1, min(100, self._last // 20))
        self._done = self._row_done = done
        self._time = self._row_time = self._line_time = time.perf_counter()
        self._verbose = verbose if log else 0
        self.bar = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(20),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=Console(stderr=True),
            auto_refresh=False,
            disable=self._verbose != 1,
        )
        self._task = self.bar.add_task("", total=self._last, completed=done, numbers="")
        self._numbers = ""

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        now = time.perf_counter()
        self._done += 1
        if batch == 0:  # the first step builds the graph and says nothing of the speed
            self._row_time, self._row_done = now, self._done
        is_row = self._done % self._row_every == 0 or self.model.stop_training
        if is_row:
            means = {metric.name: float(metric.result()) for metric in self.model.metrics}
            self.model.reset_metrics()
            self._add_row(means, now)
        if is_row or now - self._time > _REFRESH_SECONDS:
            self.bar.update(self._task, completed=self._done, numbers=self._numbers, refresh=self._verbose == 1)
            self._time = now

    def _add_row(self, means: dict[str, float], now: float) -> None:
        if self._done > self._row_done and "loss" in means:
            refuse_divergence(self._done, means["loss"], self._rates)
        steps, seconds = self._done - self._row_done, now - self._row_time
        speed = steps * self._batch_size / seconds if steps else 0.0
        self._row_time, self._row_done = now, self._done
        if self._log is not None:
            self._log.add(self._done, {**means, "examples_per_second": speed})
        shown = [f"{name} {means[name]:.3f}" for name in _SHOWN if name in means]
        self._numbers = "  ".join([f"{speed:,.0f} examples/s", *shown])
        if self._verbose == 2 and (now - self._line_time > _LINE_SECONDS or self.model.stop_training):
            self._line_time = now
            left = (self._last - self._done) / steps * seconds if steps else 0.0
            print(f"  step {self._done:,}/{self._last:,}  {left:,.0f} s left  {self._numbers}", file=sys.stderr)
