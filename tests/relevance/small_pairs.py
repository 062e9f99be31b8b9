"""A cross-encoder of a few thousand weights on coloured things; run as a program, it trains on several replicas."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import uepp  # noqa: F401  chooses Keras 2
from uepp.config import RelevanceConfig
from uepp.relevance.candidates import LabelledPairs
from uepp.relevance.samplers import make_sampler
from uepp.relevance.steps import Steps

COLOURS = ("red", "blue", "green", "black", "white", "pink")
THINGS = ("chair", "table", "lamp", "mug", "ring", "bowl")
QUERIES = [f"{colour} {thing}" for colour in COLOURS for thing in THINGS]
PRODUCTS = [f"{colour} {thing} by hand" for colour in COLOURS for thing in THINGS]
SETTINGS: dict[str, Any] = {
    "dim": 16, "num_heads": 2, "num_layers": 1, "intermediate_dim": 16, "max_tokens": 12, "batch_size": 8,
    "pool_size": 16, "max_steps": 24, "evaluate_every_steps": 6, "checkpoint_every_steps": 5, "warmup_steps": 4,
    "learning_rate": 0.01, "dropout": 0.2, "seed": 3, "vocabulary_size": 100,
}  # fmt: skip


def config(**changes: Any) -> RelevanceConfig:
    return RelevanceConfig(**SETTINGS | changes)


def labelled() -> LabelledPairs:
    """Each thing for its own query, and half of a grade for the same thing in the next colour."""
    rows = np.arange(len(QUERIES))
    embeddings = np.array([[hash_of(word) for word in text.split()[:2]] for text in QUERIES]).reshape(len(rows), -1)
    return LabelledPairs(
        np.concatenate([rows, rows]),
        np.concatenate([rows, (rows + len(THINGS)) % len(rows)]),
        np.concatenate([np.ones(len(rows)), np.full(len(rows), 0.5)]),
        embeddings,
        embeddings,
    )


def hash_of(word: str) -> np.ndarray:
    return np.random.default_rng(list(word.encode())).normal(size=8)


def steps(settings: RelevanceConfig) -> Steps:
    sampler = make_sampler(settings.sampler, num_negatives=settings.num_negatives)
    sizes = {"batch_size": settings.batch_size, "pool_size": settings.pairs_in_pool, "seed": settings.seed}
    return Steps(labelled(), QUERIES, PRODUCTS, sampler, **sizes)


def train(
    run_dir: str, *, replicas: int = 1, resume: bool = False, validate: Callable[[Any], float] | None = None,
    verbose: int = 0, **changes: Any,
) -> dict[str, Any]:  # fmt: skip
    import tensorflow as tf

    from uepp.relevance.cross_encoder import learn_vocabulary, make_cross_encoder
    from uepp.relevance.training import fit

    cpu = tf.config.list_physical_devices("CPU")[0]
    if replicas > 1 and tf.config.get_logical_device_configuration(cpu) is None:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
    strategy = tf.distribute.MirroredStrategy([f"/cpu:{number}" for number in range(replicas)])
    settings, words = config(**changes), Path(run_dir) / "vocabulary"
    if not words.is_dir():
        learn_vocabulary(QUERIES + PRODUCTS, words, settings.vocabulary_size)
    fitted = fit(
        lambda seed: make_cross_encoder(settings, words, seed), steps(settings), settings, Path(run_dir),
        strategy=strategy, validate=validate, resume=resume, verbose=verbose,
    )  # fmt: skip
    return {
        "step": fitted.step,
        "is_complete": fitted.is_complete,
        "best_step": fitted.best_step,
        "weights": [weight.numpy().tolist() for weight in fitted.encoder.trainable_variables],
    }


if __name__ == "__main__":
    for each in json.loads(sys.argv[1]):
        print(json.dumps(train(**each)))
