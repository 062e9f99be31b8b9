"""The paper's settings in full on four logical replicas: five steps, in which nothing but numbers of rows is smaller.

Run as a script, it trains: `test_etsy.py DATA RUN`.
"""

import csv
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from uepp.config import Config, Given, load_config
from uepp.data import marketplace

ROOT = Path(__file__).parents[2]
NUM_REPLICAS = 4
ROWS: dict[str, dict[str, int]] = {
    "features": {"vocabulary_size": 2_000, "num_oov_buckets": 100, "max_shops": 5},
    "negatives": {"num_uniform": 12, "dynamic_pool": 50, "dynamic_chunk": 16, "warmup_steps": 1, "ramp_steps": 3},
    "training": {"batch_size": 320, "max_steps": 5},
}
"""Rows of tables, batches and pools, and steps. A replica's 80 queries have 64 in-batch negatives to choose."""


def shrunk(data: Path) -> Config:
    return load_config("etsy", given=[Given("test", {**ROWS, "data": {"path": str(data)}})])


def leaves(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def train(data: Path, run: Path) -> None:
    """Train on four logical CPUs, and print how far the replicas' variables are apart."""
    import tensorflow as tf
    from rich.console import Console

    from uepp.pipeline import training

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * NUM_REPLICAS)
    strategy = tf.distribute.MirroredStrategy([f"/cpu:{number}" for number in range(NUM_REPLICAS)])
    training.choose_strategy = lambda: strategy
    results = []
    fit = training.fit

    def keep_result(*arguments: Any, **options: Any) -> Any:
        results.append(fit(*arguments, **options))
        return results[-1]

    training.fit = keep_result
    training.train(shrunk(data), run, Console(stderr=True), verbose=0)
    distance = {}
    for variable in results[0].model.variables:
        first, *others = (copy.numpy().astype(float) for copy in strategy.experimental_local_results(variable))
        assert len(others) == NUM_REPLICAS - 1, variable.name
        distance[variable.name] = max(float(abs(first - other).max()) for other in others)
    print(json.dumps(distance))


def test_only_rows_and_steps_are_fewer(tmp_path: Path) -> None:
    full, small = (leaves(config.model_dump()) for config in (load_config("etsy"), shrunk(tmp_path)))
    changed = {name for name, value in full.items() if small[name] != value}
    assert changed == {*leaves(ROWS), "data.path"}
    assert all(small[name] < full[name] for name in leaves(ROWS))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, float]], dict[str, float]]:
    """Numbers of each step, and how far the replicas' variables are apart."""
    root = tmp_path_factory.mktemp("etsy")
    marketplace.generate(root / "data", num_products=100, num_events=5_000, seed=1, progress=False)
    finished = subprocess.run(
        [sys.executable, __file__, str(root / "data"), str(root / "run")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3_000:]
    with (root / "run" / "logs" / "training.csv").open(newline="") as file:
        steps = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert [step["step"] for step in steps] == [1, 2, 3, 4, 5]
    return steps, json.loads(finished.stdout.splitlines()[-1])


def test_every_number_is_finite(trained: tuple[list[dict[str, float]], dict[str, float]]) -> None:
    for step in trained[0]:
        assert all(math.isfinite(value) for value in step.values())
        assert step["loss"] > 0
        assert step["positive_loss"] > 0


def test_uniform_alone_warms_up_and_all_three_sources_follow(
    trained: tuple[list[dict[str, float]], dict[str, float]],
) -> None:
    negatives = load_config("etsy").negatives
    weights = {
        "uniform": negatives.uniform_weight, "in_batch": negatives.in_batch_weight, "dynamic": negatives.dynamic_weight
    }  # fmt: skip
    most = {"uniform": 12, "in_batch": negatives.num_in_batch, "dynamic": negatives.num_dynamic}
    for done, step in enumerate(trained[0]):
        share = min(1.0, max(0.0, (done - 1) / 3))
        expected = {source: (1 - share) * start + share * end for source, (start, end) in weights.items()}
        for source, weight in expected.items():
            assert step[f"{source}_weight"] == pytest.approx(weight, abs=1e-6)
            if weight:
                assert 0 < step[f"{source}_count"] <= most[source], source
                assert -1 <= step[f"{source}_similarity"] <= 1
        weighted = sum(weight * step[f"{source}_loss"] for source, weight in expected.items())
        assert step["loss"] == pytest.approx(step["positive_loss"] + weighted, rel=1e-3)
    first, second, *later = trained[0]
    for step in (first, second):
        assert (step["uniform_weight"], step["in_batch_weight"], step["dynamic_weight"]) == (1, 0, 0)
        assert step["dynamic_count"] == 0, "the pool is not searched for nothing"
    assert later[-1]["in_batch_count"] > 20


def test_replicas_stay_equal(trained: tuple[list[dict[str, float]], dict[str, float]]) -> None:
    names = " ".join(trained[1])
    for part in ("shared_embeddings", "description_embeddings", "shops_", "locations_", "recency", "moving_variance"):
        assert part in names
    assert set(trained[1].values()) == {0.0}


if __name__ == "__main__":
    train(Path(sys.argv[1]), Path(sys.argv[2]))
