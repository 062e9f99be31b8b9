"""Training on a toy: the loss falls, runs stop and resume exactly, replicas agree."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
import tensorflow as tf
from conftest import Toy

from uepp.config import Config
from uepp.errors import InputError
from uepp.features.examples import batch_dataset
from uepp.model.towers import TwoTower, build_two_tower
from uepp.training import trainer


def configured(toy: Toy, *, model: dict[str, Any] | None = None, **training: Any) -> Config:
    settings = toy.config.model_dump()
    settings["training"] |= training
    settings["model"] |= model or {}
    return Config.model_validate(settings)


class Run:
    """`fit` on the toy, remembering which elements were asked for."""

    def __init__(self, toy: Toy, config: Config) -> None:
        self._toy, self.config = toy, config
        self._maker = toy.batch_maker(config)
        self.asked: list[tuple[int, int]] = []

    def build(self) -> TwoTower:
        idf = self._toy.vocabulary.inverse_document_frequency()
        return build_two_tower(self.config, self._toy.vocabulary.size, idf)

    def dataset(self, first: int, number: int) -> tf.data.Dataset:
        self.asked.append((first, number))
        return batch_dataset(self._maker, self.config.features, self._toy.vocabulary, first, number)

    def fit(self, directory: Path, **arguments: Any) -> TwoTower:
        return trainer.fit(self.build, self.dataset, self.config, directory, verbose=0, **arguments)


def weights(model: TwoTower) -> list[np.ndarray]:
    return [variable.numpy() for variable in model.variables]


def saved_steps(directory: Path) -> list[int]:
    return sorted(int(file.stem.removeprefix("ckpt-")) for file in (directory / "checkpoints").glob("*.index"))


@pytest.fixture
def keras_log() -> Iterator[list[str]]:
    """What TensorFlow and Keras log at warning level; it doesn't reach Python's warnings."""
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    loggers = [logging.getLogger("tensorflow"), logging.getLogger("absl")]
    for logger in loggers:
        logger.addHandler(handler)
    yield messages
    for logger in loggers:
        logger.removeHandler(handler)


# One step


def test_the_loss_of_a_batch_is_the_oracle(toy: Toy) -> None:
    config = configured(toy, batch_size=16, num_uniform_negatives=20)
    weighted = config.model_copy(
        update={
            "loss": config.loss.model_copy(
                update={"in_batch_weight": 0.7, "uniform_weight": 0.3, "threshold_negative": 0.0}
            )
        }
    )
    run = Run(toy, weighted)
    (batch,) = run.dataset(0, 1)
    model = run.build()
    queries, products = (embedding.numpy() for embedding in model(batch))
    similarity = queries @ products.T
    is_negative = ~batch["is_known_positive"].numpy()
    loss = weighted.loss
    positive = oracles.positive_hinge(np.diag(similarity), batch["type_ids"].numpy(), (0.7, 0.8, 0.9), loss.power)
    in_batch = oracles.negative_hinge(similarity[:, :16], is_negative[:, :16], 0.0, loss.power)
    uniform = oracles.negative_hinge(similarity[:, 16:], is_negative[:, 16:], 0.0, loss.power)
    assert min(positive.max(), in_batch.max(), uniform.max()) > 0
    task = trainer.Trainer(model, weighted)
    got = float(task.compute_loss(batch))
    assert got == pytest.approx(np.mean(positive + 0.7 * in_batch + 0.3 * uniform), rel=1e-4)
    reported = {metric.name: float(metric.result()) for metric in task.metrics}
    assert reported["positive"] == pytest.approx(positive.mean(), rel=1e-4)
    assert reported["in_batch"] == pytest.approx(in_batch.mean(), rel=1e-4)
    assert reported["uniform"] == pytest.approx(uniform.mean(), rel=1e-4)
    assert reported["similarity"] == pytest.approx(np.diag(similarity).mean(), rel=1e-4)
    assert reported["masked_share"] == pytest.approx((~is_negative).mean(), rel=1e-4)


# fit


def mean_loss(run: Run, model: TwoTower) -> float:
    task = trainer.Trainer(model, run.config)
    return float(np.mean([float(task.compute_loss(batch)) for batch in run.dataset(1_000, 8)]))


def test_fit_lowers_the_loss_and_finds_the_answers(toy: Toy, tmp_path: Path) -> None:
    run = Run(
        toy,
        configured(
            toy,
            max_steps=60,
            checkpoint_every_steps=100,
            title_query_share=0.25,
            model={"initial_projection": "independent"},
        ),
    )
    before = mean_loss(run, run.build())
    model = run.fit(tmp_path)
    assert mean_loss(run, model) < before / 2
    assert saved_steps(tmp_path) == [60], "saved at the end although no 100th step came"
    assert list((tmp_path / "logs").rglob("*tfevents*"))
    assert all(np.isfinite(weight).all() for weight in weights(model))


def fit_until(run: Run, element: int, directory: Path) -> None:
    """A run that dies when it meets an element."""
    make = run.dataset

    def dataset(first: int, number: int) -> tf.data.Dataset:
        def check(position: tf.Tensor, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            with tf.control_dependencies([tf.debugging.assert_less(position, np.int64(element), "power cut")]):
                return {name: tf.identity(tensor) for name, tensor in batch.items()}

        return tf.data.Dataset.zip((tf.data.Dataset.range(first, first + number), make(first, number))).map(check)

    run.dataset = dataset  # type: ignore[method-assign]
    with pytest.raises(tf.errors.InvalidArgumentError, match="power cut"):
        run.fit(directory)


def test_resuming_is_like_not_having_stopped(toy: Toy, tmp_path: Path) -> None:
    """10 steps straight, and a run that dies after 7, was saved after 6, and goes on with new objects."""
    shared = {
        "model": {"hidden_layers": [10]}, "token_dropout": 0.2,
        "checkpoint_every_steps": 3, "max_steps": 10, "warmup_steps": 3,
    }  # fmt: skip
    config = configured(toy, **shared)
    whole = weights(Run(toy, config).fit(tmp_path / "straight"))
    fit_until(Run(toy, config), 7, tmp_path / "stopped")
    assert saved_steps(tmp_path / "stopped") == [3, 6]
    stopped = trainer.restore(Run(toy, config).build, config, tmp_path / "stopped")
    stopped(next(iter(Run(toy, config).dataset(0, 1))))
    second = Run(toy, config)
    resumed = weights(second.fit(tmp_path / "stopped", resume=True))
    assert second.asked[-1] == (6, 4), "the element after the last saved step comes next"
    assert saved_steps(tmp_path / "stopped") == saved_steps(tmp_path / "straight") == [9, 10]
    assert len(whole) == len(resumed) == len(stopped.variables) > 8
    for one, other, early in zip(whole, resumed, weights(stopped), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-6)
        assert not np.allclose(early, one, atol=1e-5), "the last steps changed something"


def test_a_finished_run_trains_no_more(toy: Toy, tmp_path: Path) -> None:
    config = configured(toy, max_steps=3)
    trained = weights(Run(toy, config).fit(tmp_path))
    again = weights(Run(toy, config).fit(tmp_path, resume=True))
    restored = trainer.restore(Run(toy, config).build, config, tmp_path)
    restored(next(iter(Run(toy, config).dataset(0, 1))))
    for one, other, third in zip(trained, again, weights(restored), strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(one, third)
    assert saved_steps(tmp_path) == [3]


@pytest.mark.parametrize(
    ("max_steps", "every", "expected"), [(1, 100, [1]), (7, 2, [6, 7]), (13, 4, [12, 13]), (25, 100, [25])]
)
def test_exactly_max_steps_are_taken(
    toy: Toy, tmp_path: Path, keras_log: list[str], max_steps: int, every: int, expected: list[int]
) -> None:
    """Whatever the number: no step too many, and Keras does not complain that data ran out."""
    run = Run(toy, configured(toy, max_steps=max_steps, checkpoint_every_steps=every, batch_size=2))
    run.fit(tmp_path)
    assert saved_steps(tmp_path) == expected
    assert run.asked[-1] == (0, max_steps)
    assert not [message for message in keras_log if "ran out of data" in message]


def test_a_run_without_checkpoint_resumes_at_the_start(toy: Toy, tmp_path: Path) -> None:
    """A run that was stopped before its first checkpoint can still be resumed."""
    run = Run(toy, configured(toy, max_steps=3))
    run.fit(tmp_path, resume=True)
    assert run.asked[-1] == (0, 3)
    assert saved_steps(tmp_path) == [3]


def test_nothing_to_restore(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint to restore"):
        trainer.restore(Run(toy, configured(toy)).build, configured(toy), tmp_path)
    assert not saved_steps(tmp_path)


class _ThreeReplicas:
    num_replicas_in_sync = 3


def test_a_batch_must_split_over_the_devices(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "choose_strategy", _ThreeReplicas)
    with pytest.raises(InputError, match=r"training\.batch_size = 8: must divide by the 3 devices") as caught:
        Run(toy, configured(toy)).fit(tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir()), "nothing is written"


# Replicas: one strategy a process

_REPLICAS = """
import json, sys
from pathlib import Path
import uepp, tensorflow as tf
devices = int(sys.argv[1])
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
import numpy as np
from uepp.config import Config
from uepp.model.towers import build_two_tower
from uepp.training import trainer

BATCH = 4
config = Config.model_validate({
    "features": {"groups": [["title"]]},
    "model": {"token_dim": 6, "output_dim": 6, "hidden_layers": [5]},
    "training": {"batch_size": BATCH * devices, "max_steps": 6, "checkpoint_every_steps": 4, "warmup_steps": 0},
})
asked, elements = [], []

def make(element):
    rng = np.random.default_rng(int(element))
    elements.append(int(element))
    known = np.eye(BATCH, BATCH + 2, dtype=bool)
    values = rng.integers(0, 30, 3 * BATCH, dtype=np.int32)
    return values, rng.integers(0, 30, 2 * (BATCH + 2), dtype=np.int32), known

def dataset(first, number):
    asked.append([first, number])
    def batch(element):
        query, product, known = tf.numpy_function(make, [element], [tf.int32, tf.int32, tf.bool], stateful=False)
        query.set_shape([3 * BATCH]), product.set_shape([2 * (BATCH + 2)]), known.set_shape([BATCH, BATCH + 2])
        return {
            "query/values": query, "query/lengths": tf.fill([BATCH], 3), "type_ids": tf.fill([BATCH], 2),
            "product/0/values": product, "product/0/lengths": tf.fill([BATCH + 2], 2), "is_known_positive": known,
        }
    return tf.data.Dataset.range(first, first + number).map(batch)

trainer.choose_strategy = lambda: tf.distribute.MirroredStrategy([f"/cpu:{n}" for n in range(devices)])

def build():
    return build_two_tower(config, 30, np.ones(30, np.float32))

model = trainer.fit(build, dataset, config, Path(sys.argv[2]), verbose=0)
first, moved = build(), []
first(next(iter(dataset(0, 1))))
copies = []
for variable, start in zip(model.trainable_variables, first.trainable_variables, strict=True):
    values = [copy.numpy() for copy in getattr(variable, "values", [variable])]
    copies.append(len(values))
    assert all(np.isfinite(value).all() for value in values), variable.name
    assert all(np.array_equal(value, values[0]) for value in values), variable.name
    moved.append(bool(np.abs(values[0] - start.numpy()).max() > 1e-5))
print(json.dumps({"copies": copies, "moved": moved, "asked": asked[1], "elements": sorted(set(elements))}))
"""


@pytest.mark.parametrize("replicas", [1, 2])
def test_replicas_train_and_stay_equal(replicas: int, tmp_path: Path) -> None:
    """MirroredStrategy on logical CPUs: every element is used once, and all copies of a weight are one number."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", _REPLICAS, str(replicas), str(tmp_path)]
    finished = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300, check=False)
    assert finished.returncode == 0, finished.stderr[-3_000:]
    result = json.loads(finished.stdout.strip().splitlines()[-1])
    assert len(result["copies"]) > 4
    assert set(result["copies"]) == {replicas}
    assert all(result["moved"])
    assert result["asked"] == [0, 6 * replicas]
    assert result["elements"] == list(range(6 * replicas))
    assert saved_steps(tmp_path) == [4, 6]
