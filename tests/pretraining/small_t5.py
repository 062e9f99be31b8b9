"""A T5 of two thousand weights on queries that are words of their products; run as a program, it trains."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import uepp  # noqa: F401  chooses Keras 2
from uepp.config import PretrainingConfig

VOCABULARY_SIZE = 20
SIZES: dict[str, Any] = {
    "dim": 8, "num_heads": 2, "num_layers": 2, "intermediate_dim": 12, "max_tokens": 8, "max_query_tokens": 4,
    "batch_size": 8, "max_steps": 30, "evaluate_every_steps": 10, "checkpoint_every_steps": 5, "warmup_steps": 5,
    "learning_rate": 0.01, "dropout": 0.2, "seed": 3,
}  # fmt: skip


def config(**changes: Any) -> PretrainingConfig:
    return PretrainingConfig(**SIZES | changes)


def model(precision: str | None = None, **changes: Any) -> Any:
    from uepp.pretraining.t5 import build_t5

    return build_t5(config(**changes), VOCABULARY_SIZE, precision or "float32")


def pairs(number: int, seed: int = 0) -> Any:
    """Products of three to seven pieces; the query is the first ones of them, in their order."""
    from uepp.pretraining.loop import TokenPairs

    rng = np.random.default_rng(seed)
    products, queries = np.zeros((number, 8), np.int32), np.zeros((number, 4), np.int32)
    for row in range(number):
        pieces = rng.integers(3, VOCABULARY_SIZE, rng.integers(2, 7))
        products[row, : len(pieces) + 1] = [*pieces, 1]
        asked = pieces[: rng.integers(1, 3)]
        queries[row, : len(asked) + 1] = [*asked, 1]
    return TokenPairs(products, queries)


def train(
    run_dir: str, *, replicas: int = 1, resume: bool = False, seconds: float = 0.0, verbose: int = 0, **changes: Any
) -> dict[str, Any]:
    """`fit` of this model; `seconds` is how long each step takes longer."""
    import tensorflow as tf

    from uepp.pretraining import loop

    if replicas > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
    strategy = tf.distribute.MirroredStrategy([f"/cpu:{number}" for number in range(replicas)])
    changes = {"num_layers": 1, **changes}
    settings = config(**changes)
    if seconds:
        batches = loop.batch_dataset

        def slowly(*arguments: Any) -> tf.data.Dataset:
            return batches(*arguments).map(lambda *batch: (tf.py_function(_wait, [], []), batch)[1])

        def _wait() -> None:
            time.sleep(seconds)

        loop.batch_dataset = slowly
    fitted = loop.fit(
        lambda: model(**changes),
        pairs(64),
        pairs(24, seed=1),
        settings,
        Path(run_dir),
        strategy=strategy,
        resume=resume,
        verbose=verbose,
    )
    return {
        "step": fitted.step,
        "is_complete": fitted.is_complete,
        "best_step": fitted.best_step,
        "weights": [weight.tolist() for weight in fitted.weights],
    }


if __name__ == "__main__":
    for arguments in json.loads(sys.argv[1]):
        print(json.dumps(train(**arguments)), flush=True)
