"""What does choosing negatives cost, of what does θ take its share, and how much is that of a cross-encoder step?

    python benchmarks/samplers.py [--batch 32] [--negatives 4] [--pools 32,256,1024,4096] [--json]

Generated labels and embeddings: 50,000 labelled pairs of 9,000 queries and 40,000 products, 384 dimensions. A round
draws the pool of a batch and samples from it, as a training step does; the samplers take turns, and each has pools of
its own, so that nobody profits from what another has computed. θ is timed inside `bhns`.

Times are processor time, of all threads, so that other work on the machine counts little; NumPy has one thread, as it
should where it works beside a training step.

The peer is a training step (forward, backward, Adam) of the smallest cross-encoder that the paper would recognise, two
layers of 384 dimensions from scratch, on the same number of pairs: the batch and its negatives, 32 tokens each.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import uepp  # noqa: F401  chooses Keras 2 before TensorFlow is imported

import numpy as np  # isort: skip
import tensorflow as tf  # isort: skip
from threadpoolctl import threadpool_limits  # isort: skip

from uepp.config import SAMPLER_NAMES as NAMES  # isort: skip
from uepp.relevance.candidates import LabelledPairs, draw_pool  # isort: skip
from uepp.relevance.cross_encoder import build_cross_encoder, learn_vocabulary, pair_losses  # isort: skip
from uepp.relevance.samplers import make_sampler  # isort: skip

NUM_PAIRS, NUM_QUERIES, NUM_PRODUCTS, DIM, NUM_TOPICS = 50_000, 9_000, 40_000, 384, 300
ROUNDS, STEPS, GOAL = 15, 3, 0.05


def generated_labels(rng: np.random.Generator) -> LabelledPairs:
    """Queries and products of topics, so that similar queries share products."""
    topics = rng.normal(size=(NUM_TOPICS, DIM))
    query_topic, product_topic = rng.integers(0, NUM_TOPICS, NUM_QUERIES), rng.integers(0, NUM_TOPICS, NUM_PRODUCTS)
    by_topic = np.argsort(product_topic, kind="stable")
    begin = np.searchsorted(product_topic[by_topic], np.arange(NUM_TOPICS + 1))
    queries = rng.integers(0, NUM_QUERIES, NUM_PAIRS)
    of_topic = query_topic[queries]
    place = begin[of_topic] + (rng.random(NUM_PAIRS) * (begin[of_topic + 1] - begin[of_topic])).astype(int)
    return LabelledPairs(
        queries,
        by_topic[place],
        rng.choice([0.0, 0.1, 0.5, 1.0], NUM_PAIRS),
        topics[query_topic] + rng.normal(size=(NUM_QUERIES, DIM)),
        topics[product_topic] + rng.normal(size=(NUM_PRODUCTS, DIM)),
    )


def milliseconds_of_a_step(num_pairs: int) -> float:
    """Median time of a training step of the cross-encoder."""
    words = ["".join(syllables) for syllables in np.random.default_rng(0).choice(list("bcdfgaeiou"), (2_000, 5))]
    with tempfile.TemporaryDirectory() as folder:
        learn_vocabulary(words, Path(folder), 3_000)
        encoder = build_cross_encoder(
            Path(folder), max_tokens=32, num_layers=2, num_heads=12, dim=384, intermediate_dim=1_536
        )
    optimizer = tf.keras.optimizers.Adam(1e-5)
    optimizer.build(encoder.trainable_variables)
    ids, segments = encoder.tokenize(
        tf.fill([num_pairs], " ".join(words[:20])), tf.fill([num_pairs], " ".join(words[20:60]))
    )
    assert ids.shape == (num_pairs, 32)

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(pair_losses(encoder.logits(ids, segments, training=True), tf.zeros([num_pairs])))
        gradients = tape.gradient(loss, encoder.trainable_variables)
        optimizer.apply_gradients(zip(gradients, encoder.trainable_variables, strict=True))
        return loss

    step()
    seconds = []
    for _ in range(STEPS):
        start = time.process_time()
        step().numpy()
        seconds.append(time.process_time() - start)
    return 1_000 * float(np.median(seconds))


def rows_of_a_pool(
    labelled: LabelledPairs, batch_size: int, num_negatives: int, pool_size: int
) -> list[dict[str, Any]]:
    """Median milliseconds of drawing the pool, of each sampler on it, and of θ."""
    seconds: dict[str, list[float]] = {name: [] for name in ("pool", "theta", *NAMES)}
    num_pairs = dict.fromkeys(NAMES, 0)
    high_theta: list[float] = []
    for round_ in range(ROUNDS + 1):  # the first one warms up
        batch = np.random.default_rng(round_).choice(len(labelled), batch_size, replace=False)
        for name in NAMES:
            sampler = make_sampler(name, num_negatives=num_negatives)
            start = time.process_time()
            pool = draw_pool(labelled, batch, pool_size, round_)
            drawn = time.process_time()
            if name == "bhns":
                _ = pool.theta
            estimated = time.process_time()
            pairs = sampler(pool, round_)
            end = time.process_time()
            num_pairs[name] += len(pairs.labels)
            if round_:
                seconds[name].append(end - drawn)
                seconds["pool"].append(drawn - start)
                if name == "bhns":
                    seconds["theta"].append(estimated - drawn)
            if name == "pseudo_labels":
                high_theta.append(float((pairs.labels > 0.3).mean()))
    rows: list[dict[str, Any]] = [
        {
            "pool": pool_size,
            "name": name,
            "milliseconds": 1_000 * float(np.median(seconds[name])),
            "pairs_per_second": num_pairs[name] / (ROUNDS + 1) / float(np.median(seconds[name])),
        }
        for name in NAMES
        if name != "none"
    ]
    rows.append(
        {"pool": pool_size, "name": "drawing the pool", "milliseconds": 1_000 * float(np.median(seconds["pool"]))}
    )
    share = float(np.median(seconds["theta"]) / np.median(seconds["bhns"]))
    rows.append({"pool": pool_size, "name": "θ, share of bhns", "value": share})
    rows.append({"pool": pool_size, "name": "hardest with θ > .3, share", "value": float(np.mean(high_theta))})
    return rows


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--negatives", type=int, default=4)
    parser.add_argument("--pools", default="32,256,1024,4096")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    labelled = generated_labels(np.random.default_rng(1))
    step = milliseconds_of_a_step(arguments.batch * (1 + arguments.negatives))
    rows: list[dict[str, Any]] = [{"name": "cross-encoder step", "milliseconds": step}]
    for size in (int(text) for text in arguments.pools.split(",")):
        with threadpool_limits(1, user_api="blas"):
            found = rows_of_a_pool(labelled, arguments.batch, arguments.negatives, size)
        times = {row["name"]: row["milliseconds"] for row in found if "milliseconds" in row}
        ratio = (times["bhns"] + times["drawing the pool"]) / step
        found.append({"pool": size, "name": "pool and bhns / step", "ratio": ratio, "goal": GOAL, "ok": ratio <= GOAL})
        rows += found
    if arguments.json:
        print(json.dumps({"rows": rows}))
        return
    for row in rows:
        numbers = "   ".join(f"{key} {value:,.4g}" for key, value in row.items() if isinstance(value, float))
        print(f"{row.get('pool', ''):>6} {row['name']:28} {numbers}")


if __name__ == "__main__":
    main()
