"""The whole model's training: killed and resumed it ends with the same bits, and on two workers where one process ends.

Run as a script, it trains: `test_exact_run.py DATA RUN REPLICAS [--resume]`.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from uepp.config import Config, Given, load_config
from uepp.data import marketplace
from uepp.pipeline import training

ROOT = Path(__file__).parents[2]
STEPS = 12


def everything_on(data: Path) -> Config:
    """Every encoder, every source of negatives, everything that draws."""
    return load_config(
        None,
        given=[Given("test", {
            "data": {"path": str(data)},
            "features": {"vocabulary_size": 500, "num_oov_buckets": 10, "location_buckets": [3]},
            "graph": {"num_neighbors": 2, "sampling": "count"},
            "model": {"token_dim": 8, "output_dim": 8, "hidden_layers": [12]},
            "negatives": {
                "num_uniform": 8, "in_batch": "hardest", "num_in_batch": 6, "dynamic_pool": 24, "num_dynamic": 2,
                "dynamic_chunk": 10, "dynamic_weight": [0.0, 0.5], "warmup_steps": 2, "ramp_steps": 4,
                "false_negative_temperature": 1.0,
            },
            "training": {
                "batch_size": 32, "max_steps": STEPS, "warmup_steps": 2, "title_query_share": 0.25,
                "token_dropout": 0.2, "teacher_queries": 20, "checkpoint_every_steps": 4, "keep_checkpoints": 9,
                "deterministic": True,
            },
        })],
    )  # fmt: skip


def train(data: Path, run: Path, num_replicas: int, resume: bool) -> None:
    if num_replicas > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * num_replicas)
        strategy = tf.distribute.MirroredStrategy([f"/cpu:{number}" for number in range(num_replicas)])
        training.choose_strategy = lambda: strategy
    training.train(everything_on(data), run, Console(quiet=True), resume=resume, verbose=0)


def start(data: Path, run: Path, num_replicas: int = 1, resume: bool = False, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, str(data), str(run), str(num_replicas), *(["--resume"] if resume else [])],
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> None:
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-3_000:]


def saved(run: Path) -> dict[str, np.ndarray]:
    """Everything in the last checkpoint: weights, statistics, slots, counts."""
    reader = tf.train.load_checkpoint(str(run / "checkpoints" / f"ckpt-{STEPS}"))
    names = [name for name in reader.get_variable_to_shape_map() if "OBJECT_GRAPH" not in name]
    return {name: reader.get_tensor(name) for name in names}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("exact") / "data"
    marketplace.generate(directory, num_products=100, num_events=5_000, seed=1, progress=False)
    return directory


def test_killed_and_resumed_it_ends_with_the_same_bits(data: Path, tmp_path: Path) -> None:
    straight = start(data, tmp_path / "straight")
    finish(straight)
    killed = start(data, tmp_path / "killed")
    deadline = time.monotonic() + 240
    while not (tmp_path / "killed" / "checkpoints" / "ckpt-4.index").exists():
        assert killed.poll() is None, killed.communicate()[1][-3_000:]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "checkpoints" / f"ckpt-{STEPS}.index").exists()
    finish(start(data, tmp_path / "killed", resume=True))
    expected, found = saved(tmp_path / "straight"), saved(tmp_path / "killed")
    assert expected.keys() == found.keys()
    names = " ".join(expected)
    for part in (
        "shared",
        "shops",
        "locations",
        "Optimizer0/_variables/3",
        "Optimizer1/_variables/60",
        "moving_variance",
        "step",
    ):
        assert part in names, names
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_two_workers_end_where_one_process_ends(data: Path, tmp_path: Path) -> None:
    """The chief prepares, the other waits for it; both train; the chief has saved what two replicas would save."""
    one = start(data, tmp_path / "one", num_replicas=2)
    finish(one)
    sockets = [socket.socket() for _ in range(2)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    workers = []
    for index in range(2):
        place = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        workers.append(start(data, tmp_path / "two", TF_CONFIG=json.dumps(place)))
    for worker in workers:
        finish(worker)
    expected, found = saved(tmp_path / "one"), saved(tmp_path / "two")
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        largest = np.abs(value).max(initial=0)
        np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-3 * largest, err_msg=name)


if __name__ == "__main__":
    train(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), "--resume" in sys.argv)
