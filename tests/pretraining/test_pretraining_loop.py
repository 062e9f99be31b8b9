"""The loop on a tiny T5: what ends it, what is kept, and that resumed and shared work is the same work."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_t5
import tensorflow as tf
from trained import assert_same_weights, rows

from uepp.errors import InputError
from uepp.pretraining import loop


def start(*runs: dict[str, Any]) -> subprocess.Popen[str]:
    """small_t5.py in a process of its own: strategies collide in one."""
    paths = [str(Path(__file__).parents[2]), *(path for path in sys.path if path)]
    return subprocess.Popen(
        [sys.executable, small_t5.__file__, json.dumps(runs)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err[-2_000:]
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    run = tmp_path_factory.mktemp("straight") / "run"
    return small_t5.train(str(run)), run


def test_it_learns_and_logs(straight: tuple[dict[str, Any], Path]) -> None:
    result, run = straight
    assert (result["step"], result["is_complete"]) == (30, True)
    written = rows(run)
    assert [row["step"] for row in written] == [10, 20, 30]
    assert float(written[-1]["loss"]) < float(written[0]["loss"])
    assert float(written[-1]["held_out_perplexity"]) < small_t5.VOCABULARY_SIZE
    assert all(row["examples_per_second"] > 0 for row in written)
    rates = [row["learning_rate"] for row in written]
    assert rates[0] > rates[1] > rates[2] == pytest.approx(0, abs=1e-4)
    assert sorted(path.name for path in (run / "checkpoints").glob("*.index")) == ["ckpt-25.index", "ckpt-30.index"]


def test_the_best_weights_are_those_of_the_best_row(straight: tuple[dict[str, Any], Path]) -> None:
    result, run = straight
    best = min(rows(run), key=lambda row: row["held_out_perplexity"])
    assert result["best_step"] == int(best["step"])
    model = small_t5.model(num_layers=1)
    for variable, weight in zip(model.trainable_variables, result["weights"], strict=True):
        variable.assign(weight)
    held_out = small_t5.pairs(24, seed=1)
    perplexity = loop.perplexity_of(model, held_out)
    assert perplexity == pytest.approx(float(best["held_out_perplexity"]), rel=1e-4)
    # By the definition: one pair at a time, one piece at a time.
    from uepp.pretraining.t5 import query_losses

    losses = [query_losses(model, *held_out.rows(np.array([row]))).numpy().sum() for row in range(24)]
    assert perplexity == pytest.approx(math.exp(sum(losses) / (held_out.queries != 0).sum()), rel=1e-4)


def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path: Path, straight: tuple[dict[str, Any], Path]) -> None:
    """SIGKILL after some checkpoint, twice; dropout, the optimiser and the best weights are as in a straight run."""
    run = tmp_path / "run"
    killed_at = []
    for _ in range(2):
        process = start({"run_dir": str(run), "resume": True, "seconds": 0.15})
        newest = killed_at[-1] if killed_at else 0
        deadline = time.monotonic() + 120
        while not (steps := [n for n in saved_steps(run) if n > newest]):
            assert process.poll() is None, process.communicate()[1][-2_000:]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
        process.communicate()
        killed_at.append(max(steps))
    assert killed_at[0] < killed_at[1] < 30
    (result,) = finished(start({"run_dir": str(run), "resume": True}))
    expected, straight_run = straight
    assert result["best_step"] == expected["best_step"]
    assert_same_weights(result, expected)
    columns = ("step", "held_out_perplexity")
    one, other = ([[row[name] for name in columns] for row in rows(each)] for each in (run, straight_run))
    np.testing.assert_allclose(one, other, rtol=1e-4)


def saved_steps(run: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("ckpt-")) for path in (run / "checkpoints").glob("ckpt-*.index"))


def test_two_replicas_learn_what_one_learns(tmp_path: Path) -> None:
    """Without dropout, which each replica draws for its own rows (`test_dropout.py`)."""
    settings = {"dropout": 0.0, "max_steps": 12, "evaluate_every_steps": 4}
    (two,) = finished(start({"run_dir": str(tmp_path / "two"), "replicas": 2, **settings}))
    one = small_t5.train(str(tmp_path / "one"), **settings)
    assert_same_weights(one, two, tolerance=2e-4)
    first, second = ([row["loss"] for row in rows(tmp_path / name)] for name in ("one", "two"))
    np.testing.assert_allclose(first, second, rtol=1e-4)


def test_training_ends_when_nothing_gets_better(tmp_path: Path) -> None:
    """With a rate that ruins the model, the first evaluations stay the best ones."""
    settings = {"learning_rate": 3.0, "warmup_steps": 20, "max_steps": 400, "evaluate_every_steps": 4, "patience": 2}
    result = small_t5.train(str(tmp_path), **settings)
    assert result["is_complete"]
    assert result["step"] == result["best_step"] + 8 < 400
    again = small_t5.train(str(tmp_path), resume=True, **settings)
    assert again == result, "it has ended; nothing more is done"


def test_a_training_that_diverges_says_so(tmp_path: Path) -> None:
    """No evaluation was the best one, so the random start was exported."""
    settings = {"learning_rate": 1e30, "max_gradient_norm": 1e30, "warmup_steps": 0}
    message = r"step 10: the loss is nan, .*start a new one with pretraining.learning_rate below 1e\+30"
    with pytest.raises(InputError, match=message):
        small_t5.train(str(tmp_path), **settings)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_perplexity_that_is_no_number_ends_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: float
) -> None:
    """The last step's harm shows in no loss; an infinite perplexity was cut to a number, and so the best one."""
    monkeypatch.setattr(loop, "_losses_function", lambda _: lambda products, queries: tf.fill([len(products)], loss))
    with pytest.raises(InputError, match=rf"step 1: the held-out perplexity is {loss}, .*learning_rate below 0.01"):
        small_t5.train(str(tmp_path), max_steps=1)


def test_sigterm_saves_and_says_so(tmp_path: Path) -> None:
    process = start({"run_dir": str(tmp_path), "seconds": 0.1, "verbose": 2, "checkpoint_every_steps": 1_000})
    deadline = time.monotonic() + 120
    while not list((tmp_path / "logs").glob("training.csv")):
        assert process.poll() is None, process.communicate()[1][-2_000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    (result,) = finished(process)
    assert not result["is_complete"]
    assert 10 <= result["step"] < 30
    assert saved_steps(tmp_path) == [result["step"]]


def test_mixed_precision_learns(tmp_path: Path) -> None:
    result = small_t5.train(str(tmp_path), precision="mixed_bfloat16", label_smoothing=0.1)
    written = rows(tmp_path)
    assert float(written[-1]["held_out_perplexity"]) < small_t5.VOCABULARY_SIZE
    assert all(np.isfinite(weight).all() for weight in result["weights"])


def test_each_epoch_has_every_pair_once() -> None:
    pairs, settings = small_t5.pairs(20), small_t5.config()
    pairs.products[:, 0] = np.arange(20) + 3
    dataset = loop.batch_dataset(pairs, tf.data.Dataset.range(5), settings, 1)
    met = np.concatenate([products.numpy()[:, 0] for products, _ in dataset]) - 3
    assert sorted(met[:20]) == sorted(met[20:40]) == list(range(20))
    assert met[:20].tolist() != met[20:40].tolist() != list(range(20))
    halves = loop.batch_dataset(pairs, tf.data.Dataset.range(10), settings, 2)
    assert np.concatenate([products.numpy()[:, 0] for products, _ in halves]).tolist() == (met + 3).tolist()


def test_progress(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A bar, or lines; steps are those of the whole run."""
    for verbose, last in ((1, 4), (2, 8)):
        small_t5.train(str(tmp_path), resume=True, verbose=verbose, max_steps=last, evaluate_every_steps=2)
        out, err = capsys.readouterr()
        shown = "".join(line for line in err.splitlines() if "WARNING:tensorflow" not in line)
        assert out == ""
        for part in (f"{last}/{last}", "examples/s", "loss ", "held-out perplexity"):
            assert part in shown


def test_what_is_refused(tmp_path: Path, straight: tuple[dict[str, Any], Path]) -> None:
    with pytest.raises(InputError, match="holds checkpoints of another training"):
        small_t5.train(str(straight[1]))
    with pytest.raises(InputError, match="does not fit this configuration"):
        small_t5.train(str(straight[1]), resume=True, dim=10, max_steps=40)
    process = start({"run_dir": str(tmp_path), "replicas": 2, "batch_size": 7})
    assert "batch_size = 7: must divide by the 2 devices" in process.communicate(timeout=240)[1]
