"""Does a training step cost more when the table has more rows?

    python benchmarks/sparse_updates.py [--json]

Look up 10,000 distinct rows a replica (other ones each step), loss, gradient, update; with a small table, with a large
one of which the same rows are used, and with the large one and rows anywhere in it. These take turns in one process;
every way and number of replicas (logical CPU devices under MirroredStrategy) has a process of its own. Prints median
milliseconds and the ratios large / small, or with --json only one object of rows.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable

import uepp  # noqa: F401  chooses Keras 2 before TensorFlow is imported

import numpy as np  # isort: skip
import tensorflow as tf  # isort: skip

from uepp.model.embedding import EmbeddingTable  # isort: skip
from uepp.training.optimizers import SparseAdagrad  # isort: skip

DIM, NUM_TOUCHED, NUM_BATCHES, RUNS = 64, 10_000, 16, 32
SMALL, LARGE = 100_000, 4_000_000
# Adam's update is dense; its slots and temporaries would not fit into memory at the large size.
LARGE_OF_ADAM = 1_000_000
# Rows anywhere miss caches and pages more often in a large table: that is the memory's price, once a row touched.
GOALS = {"same rows": 1.3, "rows anywhere": 2.5}

Lookup = Callable[[tf.Tensor], tf.Tensor]


def ours(num_rows: int, rowwise: bool) -> tuple[tf.Variable, Lookup, tf.keras.optimizers.Optimizer]:
    """The project's table and optimiser."""
    table = EmbeddingTable(num_rows, DIM, "benchmark", None, seed=1)
    return table.embeddings, table.rows, SparseAdagrad(0.02, rowwise=rowwise)


def keras(
    num_rows: int, optimizer: tf.keras.optimizers.Optimizer
) -> tuple[tf.Variable, Lookup, tf.keras.optimizers.Optimizer]:
    """A variable and tf.gather, which is what `tf.keras.layers.Embedding` does."""
    table = tf.Variable(tf.random.stateless_normal([num_rows, DIM], [1, 2]))
    return table, lambda ids: tf.gather(table, ids), optimizer


WAYS = {
    "ours": lambda num_rows: ours(num_rows, rowwise=False),
    "ours, row-wise": lambda num_rows: ours(num_rows, rowwise=True),
    "tf.keras Adagrad": lambda num_rows: keras(num_rows, tf.keras.optimizers.Adagrad(0.02)),
    "tf.keras Adam": lambda num_rows: keras(num_rows, tf.keras.optimizers.Adam(0.001)),
}


def rows_of_large(way: str) -> int:
    """Rows of the large table."""
    return LARGE_OF_ADAM if way == "tf.keras Adam" else LARGE


def measure(way: str, num_replicas: int) -> tuple[float, ...]:
    """Median seconds of a step: small table; large table, same rows; large table, rows anywhere."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * num_replicas)
    strategy = tf.distribute.MirroredStrategy([f"/cpu:{replica}" for replica in range(num_replicas)])
    direction = tf.random.stateless_normal([NUM_TOUCHED, DIM], [3, 4])
    rng = np.random.default_rng(0)

    def make_step(num_rows: int) -> Callable[[tf.Tensor], None]:
        with strategy.scope():
            table, lookup, optimizer = WAYS[way](num_rows)
            optimizer.build([table])

        def replica_step(ids: tf.Tensor) -> None:
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(lookup(ids) * direction)
            optimizer.apply_gradients([(tape.gradient(loss, table), table)])

        return tf.function(lambda ids: strategy.run(replica_step, args=(ids,)))

    def make_batches(num_rows: int) -> list[tf.Tensor]:
        def ids(_: object) -> tf.Tensor:
            return tf.constant(rng.choice(num_rows, NUM_TOUCHED, replace=False), tf.int32)

        return [strategy.experimental_distribute_values_from_function(ids) for _ in range(NUM_BATCHES)]

    num_large = rows_of_large(way)
    small, large = make_step(SMALL), make_step(num_large)
    same, anywhere = make_batches(SMALL), make_batches(num_large)
    turns = [(small, same), (large, same), (large, anywhere)]
    seconds = np.zeros((2 + RUNS, len(turns)))
    for run in range(len(seconds)):
        for position, (step, batches) in enumerate(turns):
            begin = time.perf_counter()
            step(batches[run % NUM_BATCHES])
            seconds[run, position] = time.perf_counter() - begin
    return tuple(np.median(seconds[2:], axis=0).tolist())  # the first two steps trace and warm up


def main() -> None:
    """Measure every way in processes of their own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true", help="print only JSON")
    parser.add_argument("--only", nargs=2, metavar=("WAY", "REPLICAS"), help="measure one, in this process")
    arguments = parser.parse_args()
    if arguments.only:
        way, num_replicas = arguments.only
        print(json.dumps(measure(way, int(num_replicas))))
        return
    rows = []
    if not arguments.json:
        print(
            "| Way | Replicas | Rows of the large table | ms, 100,000 rows | large, same rows | large, rows anywhere |"
        )
        print("|---|---|---|---|---|---|")
    for way in WAYS:
        for num_replicas in (1, 2):
            command = [sys.executable, __file__, "--only", way, str(num_replicas)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            small, *large = json.loads(output.stdout.splitlines()[-1])
            ratios = [seconds / small for seconds in large]
            for (where, goal), ratio in zip(GOALS.items(), ratios, strict=True):
                name = f"{way}, {where}, replicas {num_replicas}"
                rows.append({"name": name, "ratio": ratio, "goal": goal, "ok": ratio <= goal})
            if not arguments.json:
                figures = " | ".join(f"{1000 * s:.0f} (× {r:.2f})" for s, r in zip(large, ratios, strict=True))
                line = f"| {way} | {num_replicas} | {rows_of_large(way):,} | {1000 * small:.0f} | {figures} |"
                print(line, flush=True)
    if arguments.json:
        print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
