"""The smallest model that trains like ours: a table, batch normalisation and a dense layer, on numbers made up.

Run as a script, it trains: `tiny.py JSON` with the arguments of `train`, for tests that need a process of their own.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import uepp

assert uepp.__version__
import tensorflow as tf  # noqa: E402

from uepp.config import Config  # noqa: E402
from uepp.training import loop  # noqa: E402

ROWS, DIM = 40, 6


class Towers(tf.keras.Model):
    """Also holds a digest of the order in which its batches came."""

    def __init__(self) -> None:
        super().__init__(name="tiny")
        rng = np.random.default_rng(5)
        start = tf.constant_initializer(rng.standard_normal((ROWS, DIM)))
        self.embeddings = self.add_weight("embeddings", (ROWS, DIM), initializer=start)
        self.order = self.add_weight(
            "order", (), tf.int64, "zeros", trainable=False, aggregation=tf.VariableAggregation.SUM
        )
        self.normalize = tf.keras.layers.BatchNormalization(synchronized=True)
        kernel = tf.keras.initializers.Constant(rng.standard_normal((DIM, 1)))
        self.dense = tf.keras.layers.Dense(1, kernel_initializer=kernel)

    def call(self, batch: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        return self.dense(self.normalize(tf.gather(self.embeddings, batch["ids"]), training=training))[:, 0]

    @property
    def table_variables(self) -> list[tf.Variable]:
        return [self.embeddings]

    @property
    def dense_variables(self) -> list[tf.Variable]:
        return [variable for variable in self.trainable_variables if variable is not self.embeddings]

    @property
    def text_variables(self) -> list[tf.Variable]:
        return []


class Trainer(tf.keras.Model):
    """Squared error; two metrics."""

    def __init__(self, model: Towers, config: Config, step: tf.Variable) -> None:
        super().__init__()
        self.two_tower, self.step = model, step
        self.means = {name: tf.keras.metrics.Mean(name) for name in ("loss", "step_seen")}

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self.two_tower(batch, training=True) - batch["target"]) ** 2)
            share = loss / tf.distribute.get_strategy().num_replicas_in_sync
        variables = self.two_tower.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(share, variables), variables, strict=True))
        # Order matters between the steps, and not within one.
        self.two_tower.order.assign_add(batch["element"] * (tf.cast(self.step, tf.int64) + 1))
        self.means["loss"].update_state(loss)
        self.means["step_seen"].update_state(tf.cast(self.step, tf.float32))
        return {"loss": loss}


def make_config(**training: Any) -> Config:
    settings = {"batch_size": 8, "max_steps": 40, "checkpoint_every_steps": 10, "warmup_steps": 5, "seed": 3}
    return Config.model_validate({"training": settings | training})


class Stream:
    """Batches of one replica; calls `meet(element)` when one is made."""

    def __init__(self, config: Config, num_replicas: int = 1, meet: Any = lambda element: None) -> None:
        self._batch_size = config.training.batch_size // num_replicas
        self._meet = meet

    def __call__(self, elements: tf.data.Dataset) -> tf.data.Dataset:
        def make(element: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            self._meet(int(element))
            rng = np.random.default_rng(int(element))
            ids = rng.integers(0, ROWS, self._batch_size, dtype=np.int32)
            return ids, np.sin(ids).astype(np.float32) + rng.standard_normal(self._batch_size, np.float32)

        def batch(element: tf.Tensor) -> dict[str, tf.Tensor]:
            ids, target = tf.numpy_function(make, [element], [tf.int32, tf.float32], stateful=False)
            ids.set_shape([self._batch_size])
            target.set_shape([self._batch_size])
            return {"ids": ids, "target": target, "element": element}

        return elements.map(batch, num_parallel_calls=2, deterministic=True).prefetch(2)


def saved(run_dir: Path, step: int) -> dict[str, np.ndarray]:
    """Everything in a checkpoint: weights, statistics, slots, counts."""
    reader = tf.train.load_checkpoint(str(run_dir / "checkpoints" / f"ckpt-{step}"))
    names = [name for name in reader.get_variable_to_shape_map() if "OBJECT_GRAPH" not in name]
    return {name: reader.get_tensor(name) for name in names}


def train(
    run_dir: str, seconds: float = 0.0, resume: bool = False, replicas: int = 1, verbose: int = 0, **training: Any
) -> dict[str, Any]:
    """`fit` of this model.

    Args:
        run_dir: of the run.
        seconds: how long a batch takes to make.
        resume: continue.
        replicas: logical devices of this process.
        verbose: of `fit`.
        training: settings.
    """
    from uepp.runs.strategies import choose_strategy, is_chief

    if replicas > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
        strategy = tf.distribute.MirroredStrategy([f"/cpu:{number}" for number in range(replicas)])
    else:
        strategy = choose_strategy()
    loop.Trainer = Trainer  # type: ignore[misc, assignment]
    config = make_config(**training)
    met: list[int] = []

    def meet(element: int) -> None:
        met.append(element)
        time.sleep(seconds)

    stream = Stream(config, strategy.num_replicas_in_sync, meet)
    result = loop.fit(Towers, stream, config, Path(run_dir), strategy=strategy, resume=resume, verbose=verbose)
    return {
        "step": result.step,
        "is_complete": result.is_complete,
        "met": met[1:],  # the first builds the model
        "is_chief": is_chief(strategy),
        "pid": os.getpid(),
    }


if __name__ == "__main__":
    for arguments in json.loads(sys.argv[1]):
        print(json.dumps(train(**arguments)), flush=True)
