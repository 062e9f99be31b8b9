"""Runs that are killed, stopped or spread over processes end, bit for bit, where one that was left alone ends."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import tiny

ROOT = Path(__file__).parents[2]
TRAINING = {"max_steps": 120, "checkpoint_every_steps": 10, "keep_checkpoints": 2}


def start(*runs: dict[str, Any], **environment: str) -> subprocess.Popen[str]:
    """`tiny.train` for each set of arguments, one after another in a process of their own."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(Path(tiny.__file__)), json.dumps(runs)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err[-3_000:]
    return [json.loads(line) for line in out.splitlines()]


def saved_steps(run: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("ckpt-")) for path in (run / "checkpoints").glob("ckpt-*.index"))


def kill_after_a_checkpoint(process: subprocess.Popen[str], run: Path, moment: float) -> int:
    """SIGKILL `moment` seconds after the next checkpoint; the step of the newest one that is there."""
    before = max(saved_steps(run), default=0)
    deadline = time.monotonic() + 300
    while max(saved_steps(run), default=0) <= before:
        assert process.poll() is None, process.communicate()[1][-3_000:]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(moment)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was still training"
    return saved_steps(run)[-1]


def assert_same_bits(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value.dtype == other[name].dtype
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def test_killed_is_like_not_killed(tmp_path: Path) -> None:
    """Weights, batch statistics, slots, counts and the order of the examples, after SIGKILL at random moments.

    With `deterministic`, killed twice; without it, once.
    """
    settings = {name: {**TRAINING, "deterministic": name == "exact"} for name in ("plain", "exact")}
    # Determinism can't be switched off again in a process.
    straight = start(*({"run_dir": str(tmp_path / "straight" / name), **settings[name]} for name in settings))
    for name, kills in (("plain", 1), ("exact", 2)):
        run = tmp_path / "killed" / name
        arguments = {"run_dir": str(run), "seconds": 0.01, "resume": True, **settings[name]}
        done = 0
        for _ in range(kills):
            moment = random.Random(os.urandom(8)).uniform(0.0, 0.2)
            newest = kill_after_a_checkpoint(start(arguments), run, moment)
            assert done < newest < TRAINING["max_steps"]
            done = newest
        (result,) = finished(start(arguments))
        assert (result["step"], result["is_complete"]) == (TRAINING["max_steps"], True)
        assert sorted(result["met"]) == list(range(done, TRAINING["max_steps"])), "no example twice, and none left out"
    for result in finished(straight):
        assert sorted(result["met"]) == list(range(TRAINING["max_steps"]))
    for name in settings:
        one, other = (tmp_path / kind / name for kind in ("straight", "killed"))
        state = tiny.saved(one, TRAINING["max_steps"])
        assert_same_bits(state, tiny.saved(other, TRAINING["max_steps"]))
        described = " ".join(state) + " "
        for part in ("moving_mean", "embeddings", "order", "optimizer", "step"):
            assert part in described
        assert len(state) > 20, described
        assert sorted(os.listdir(one / "checkpoints")) == sorted(os.listdir(other / "checkpoints"))
        rows = [(run / "logs" / "training.csv").read_text().splitlines() for run in (one, other)]
        assert len(rows[0]) > 10
        assert [row.split(",")[0] for row in rows[0]] == [row.split(",")[0] for row in rows[1]]
    assert len(saved_steps(tmp_path / "killed" / "exact")) == 2


# Several processes


def free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("localhost", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def start_workers(*runs: dict[str, Any]) -> list[subprocess.Popen[str]]:
    cluster = {"worker": [f"localhost:{port}" for port in free_ports(2)]}
    configs = [json.dumps({"cluster": cluster, "task": {"type": "worker", "index": worker}}) for worker in range(2)]
    return [start(*runs, TF_CONFIG=config) for config in configs]


def test_two_processes_end_where_one_ends(tmp_path: Path) -> None:
    """Two workers, stopped by a signal to one of them and resumed, against one process with two replicas."""
    settings = {"max_steps": 40, "checkpoint_every_steps": 12}
    one = start({"run_dir": str(tmp_path / "one"), "replicas": 2, **settings})
    arguments = {"run_dir": str(tmp_path / "two"), "resume": True, **settings}
    workers = start_workers({**arguments, "seconds": 0.05})
    while not saved_steps(tmp_path / "two"):
        assert all(worker.poll() is None for worker in workers)
        time.sleep(0.01)
    workers[1].send_signal(signal.SIGTERM)
    stopped = [finished(worker)[0] for worker in workers]
    assert [result["is_complete"] for result in stopped] == [False, False]
    assert stopped[0]["step"] == stopped[1]["step"]
    done = stopped[0]["step"]
    assert 12 < done < 40
    assert saved_steps(tmp_path / "two")[-1] == done

    results = [finished(worker)[0] for worker in start_workers(arguments)]
    assert [result["is_complete"] for result in results] == [True, True]
    assert [result["is_chief"] for result in results] == [True, False]
    for worker, result in enumerate(results):
        assert sorted(result["met"]) == list(range(2 * done + worker, 80, 2)), "each takes every other element"
    assert sorted(finished(one)[0]["met"]) == list(range(80))
    expected, found = (tiny.saved(tmp_path / name, 40) for name in ("one", "two"))
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    assert int(found["model/order/.ATTRIBUTES/VARIABLE_VALUE"]) == int(
        expected["model/order/.ATTRIBUTES/VARIABLE_VALUE"]
    )
    assert not list((tmp_path / "two" / "checkpoints").glob(".*")), "nothing temporary is left"
    assert len(list((tmp_path / "two" / "logs").glob("*.csv"))) == 1
    assert len(list((tmp_path / "two" / "logs").glob("*tfevents*"))) == 2, "one a start: only the chief writes"
