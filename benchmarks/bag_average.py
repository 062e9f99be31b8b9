"""How long does a training step of the averaging bag take, against the plain ways to write it?

    python benchmarks/bag_average.py

Forward, backward and a sparse Adagrad update of a large token table, in the same process and turn by turn. Prints
milliseconds (median) and the ratio to ours.
"""

import time
from collections.abc import Callable

import uepp  # noqa: F401  chooses Keras 2 before TensorFlow is imported

import numpy as np  # isort: skip
import tensorflow as tf  # isort: skip

from uepp.model.embedding import TokenBags, bag_average  # isort: skip

NUM_ROWS, DIM, NUM_BAGS, BAG_SIZE, RUNS = 88_000, 256, 1_536, 80, 15


def gather_unsorted(table: tf.Variable, bags: TokenBags) -> tf.Tensor:
    """Gather every occurrence, unsorted segment mean."""
    row = tf.repeat(tf.range(NUM_BAGS), bags.lengths)
    return tf.math.unsorted_segment_mean(tf.gather(table, bags.values), row, NUM_BAGS)


def gather_sorted(table: tf.Variable, bags: TokenBags) -> tf.Tensor:
    """Gather every occurrence, segment mean."""
    return tf.math.segment_mean(tf.gather(table, bags.values), tf.repeat(tf.range(NUM_BAGS), bags.lengths))


def embedding_lookup_sparse(table: tf.Variable, bags: TokenBags) -> tf.Tensor:
    """TensorFlow's own lookup."""
    ragged = tf.RaggedTensor.from_row_lengths(bags.values, bags.lengths)
    return tf.nn.embedding_lookup_sparse(table, tf.cast(ragged, tf.int64).to_sparse(), None, combiner="mean")


def main() -> None:
    """Time the ways in turn and print a table."""
    rng = np.random.default_rng(0)
    frequent = np.minimum(rng.zipf(1.3, NUM_BAGS * BAG_SIZE) - 1, NUM_ROWS - 1)
    ids = np.where(rng.random(len(frequent)) < 0.5, rng.integers(0, NUM_ROWS, len(frequent)), frequent)
    bags = TokenBags(tf.constant(ids, tf.int32), tf.fill([NUM_BAGS], BAG_SIZE))
    direction = tf.random.normal([NUM_BAGS, DIM])
    ways: dict[str, Callable[[tf.Variable, TokenBags], tf.Tensor]] = {
        "ours": bag_average,
        "gather, segment_mean": gather_sorted,
        "gather, unsorted_segment_mean": gather_unsorted,
        "tf.nn.embedding_lookup_sparse": embedding_lookup_sparse,
    }

    def make_step(way: Callable[[tf.Variable, TokenBags], tf.Tensor]) -> Callable[[], tf.Tensor]:
        table = tf.Variable(tf.random.normal([NUM_ROWS, DIM]))
        optimizer = tf.keras.optimizers.Adagrad(0.01)
        optimizer.build([table])

        @tf.function
        def step() -> tf.Tensor:
            with tf.GradientTape() as tape:
                value = tf.reduce_sum(way(table, bags) * direction)
            optimizer.apply_gradients([(tape.gradient(value, table), table)])
            return value

        step()
        return step

    steps = {name: make_step(way) for name, way in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(RUNS):
        for name, step in steps.items():
            begin = time.perf_counter()
            step().numpy()
            seconds[name].append(time.perf_counter() - begin)
    ours = np.median(seconds["ours"])
    for name, times in seconds.items():
        print(f"{name:32} {1000 * np.median(times):7.0f} ms   {np.median(times) / ours:5.2f} × ours")


if __name__ == "__main__":
    main()
