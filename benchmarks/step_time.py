"""Where does the time of a training step go?

    python benchmarks/step_time.py --data DIR [--config demo] [--set a.b=c …] [--json]

Times the parts of one step on a data set: gathering a batch (NumPy, in training hidden behind the step before it), the
two towers forward, the search of the dynamic pool, backward, and the update. Parts that cannot be run alone are
differences of two runs. Prints milliseconds (median) and the share of the step; `--json` prints rows instead.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import uepp  # noqa: F401  chooses Keras 2 before TensorFlow is imported

import numpy as np  # isort: skip
import tensorflow as tf  # isort: skip

from uepp.config import Config, load_config  # isort: skip
from uepp.data.mining import mine  # isort: skip
from uepp.data.schema import read_products  # isort: skip
from uepp.data.windows import resolve_windows  # isort: skip
from uepp.features.catalog import build_catalog, num_products_before  # isort: skip
from uepp.features.batches import BatchMaker, batch_dataset, build_batch_maker  # isort: skip
from uepp.features.examples import load_examples  # isort: skip
from uepp.features.fitted import Fitted, fit_features  # isort: skip
from uepp.features.inputs import QueryFeatures  # isort: skip
from uepp.model.towers import build_two_tower  # isort: skip
from uepp.runs.memory import freed_memory_kept  # isort: skip
from uepp.training.optimizers import build_optimizer  # isort: skip
from uepp.training.trainer import Trainer  # isort: skip

RUNS = 15


def prepare(config: Config, data: Path, folder: Path) -> tuple[BatchMaker, Fitted]:
    """The stream of batches of a data set, mined and encoded in a temporary folder."""
    mined = mine(data, config.data, folder / "mined")
    train_end = resolve_windows(data, config.data).train_end
    products = read_products(data)
    num_seen = num_products_before(products, train_end)
    examples = load_examples(mined, products.column("product_id").to_pylist(), config.training)
    fitted = fit_features(config.features, products, examples.queries, examples.contexts, num_seen, 1)
    if config.text.encoder is not None:
        fitted = replace(fitted, text_encoder=Path(config.text.encoder))
    catalog = build_catalog(config, fitted, products, folder / "features")
    size = config.training.batch_size
    return build_batch_maker(config, fitted, catalog, examples, mined, num_seen, size), fitted


def median_seconds(runs: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of each, turn by turn."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(RUNS):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begin)
    return {name: float(np.median(times)) for name, times in seconds.items()}


def main() -> None:
    """Time the parts and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--config", default="demo")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    config = load_config(arguments.config, arguments.overrides)
    with tempfile.TemporaryDirectory() as folder:
        maker, fitted = prepare(config, arguments.data, Path(folder))
        batch = next(iter(batch_dataset(maker, QueryFeatures(config, fitted), tf.data.Dataset.range(1))))
        step = tf.Variable(config.training.max_steps // 2, dtype=tf.int64)
        trainer = Trainer(build_two_tower(config, fitted), config, step)
        trainer.two_tower(batch)
        trainer.compile(optimizer=build_optimizer(trainer.two_tower, config.training))
        with freed_memory_kept():  # as in training
            seconds = median_seconds(parts_of_step(trainer, config, batch) | {"gather": lambda: maker.make(1)})
    rows = shares(seconds, config.negatives.dynamic_pool > 0)
    if arguments.json:
        print(json.dumps({"rows": rows}, indent=2))
        return
    for row in rows:
        print(f"{row['name']:38} {row['value']:7.1f} ms  {row['share']:6.1%}")


def parts_of_step(trainer: Trainer, config: Config, batch: dict[str, tf.Tensor]) -> dict[str, Callable[[], object]]:
    """Runs that contain each other: towers, whole forward, forward and backward, whole step."""
    towers = trainer.two_tower
    variables = towers.trainable_variables
    num_pool = config.negatives.dynamic_pool

    @tf.function
    def query_tower() -> tf.Tensor:
        return towers.query_user_tower(batch, training=True)

    @tf.function
    def pool() -> tf.Tensor:
        queries = towers.query_user_tower(batch, training=True)
        return trainer._choose_dynamic(batch, queries, tf.constant(1.0))[0]  # the part itself has no public name

    @tf.function
    def forward() -> tf.Tensor:
        return trainer.compute_loss(batch, training=True)

    @tf.function
    def backward() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = trainer.compute_loss(batch, training=True)
        gradients = tape.gradient(loss, variables)
        return [gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient for gradient in gradients]

    whole = tf.function(trainer.train_step)
    runs: dict[str, Callable[[], object]] = {
        "query tower": query_tower,
        "forward": forward,
        "backward": backward,
        "step": lambda: whole(batch),
    }
    return runs | {"pool": pool} if num_pool else runs


def shares(seconds: dict[str, float], has_pool: bool) -> list[dict[str, float | str]]:
    """Milliseconds of each part and its share of a step."""
    pool = seconds["pool"] - seconds["query tower"] if has_pool else 0.0
    parts = {
        "query-user tower, forward": seconds["query tower"],
        "dynamic pool: encode, choose": pool,
        "product tower and losses, forward": seconds["forward"] - pool - seconds["query tower"],
        "backward": seconds["backward"] - seconds["forward"],
        "update of tables and dense variables": seconds["step"] - seconds["backward"],
        "whole step": seconds["step"],
        "gather of a batch (hidden)": seconds["gather"],
    }
    return [
        {"name": name, "value": round(1000 * value, 1), "share": round(value / seconds["step"], 3)}
        for name, value in parts.items()
    ]


if __name__ == "__main__":
    main()
