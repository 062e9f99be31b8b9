"""The loop on a tiny model: how many steps, what is logged and saved, how signals end it."""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tiny
from trained import rows

from uepp.config import Config
from uepp.errors import InputError
from uepp.runs.strategies import choose_strategy
from uepp.training import loop


@pytest.fixture(autouse=True)
def _tiny_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "Trainer", tiny.Trainer)


class Run:
    """`fit`, remembering which elements were made."""

    def __init__(self, **training: Any) -> None:
        self.config: Config = tiny.make_config(**training)
        self.met: list[int] = []
        self._actions: dict[int, Any] = {}

    def at(self, element: int, action: Any) -> None:
        """Call `action` when an element is made."""
        self._actions[element] = action

    def _meet(self, element: int) -> None:
        self.met.append(element)
        self._actions.get(element, lambda: None)()

    def fit(self, directory: Path, *, resume: bool = False, verbose: int = 0) -> loop.TrainingResult:
        stream = tiny.Stream(self.config, 1, self._meet)
        return loop.fit(
            tiny.Towers, stream, self.config, directory, strategy=choose_strategy(), resume=resume, verbose=verbose
        )


def weights(model: tf.keras.Model) -> list[np.ndarray]:
    return [variable.numpy() for variable in model.variables]


def saved_steps(directory: Path) -> list[int]:
    return sorted(int(file.stem.removeprefix("ckpt-")) for file in (directory / "checkpoints").glob("*.index"))


@pytest.fixture
def keras_log() -> Iterator[list[str]]:
    """What TensorFlow and Keras log at warning level; it doesn't reach Python's warnings."""
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    loggers = [logging.getLogger("tensorflow"), logging.getLogger("absl")]
    for logger in loggers:
        logger.addHandler(handler)
    yield messages
    for logger in loggers:
        logger.removeHandler(handler)


# Steps


@pytest.mark.parametrize(
    ("max_steps", "every", "expected"), [(1, 100, [1]), (7, 2, [6, 7]), (13, 4, [12, 13]), (25, 100, [25])]
)
def test_exactly_max_steps_are_taken(
    tmp_path: Path, keras_log: list[str], max_steps: int, every: int, expected: list[int]
) -> None:
    """Whatever the number: no step too many, and Keras does not complain that data ran out."""
    run = Run(max_steps=max_steps, checkpoint_every_steps=every)
    result = run.fit(tmp_path)
    assert (result.step, result.is_complete) == (max_steps, True)
    assert saved_steps(tmp_path) == expected
    assert sorted(run.met) == sorted([0, *range(max_steps)]), "the first is also looked at to build the model"
    assert not [message for message in keras_log if "ran out of data" in message]
    counts = {name: value for name, value in tiny.saved(tmp_path, max_steps).items() if "iterations" in name}
    assert len(counts) == 2
    assert all(count == max_steps for count in counts.values()), "the optimisers' schedules see the same step"
    assert all(np.isfinite(weight).all() for weight in weights(result.model))


def test_a_loss_that_is_no_number_ends_the_training(tmp_path: Path) -> None:
    run = Run(max_steps=20, warmup_steps=0, dense_learning_rate=1e38, table_learning_rate=1e38)
    with pytest.raises(
        InputError, match=r"step \d+: the loss is (nan|inf), .* with training\.table_learning_rate below"
    ):
        run.fit(tmp_path)


class PowerCutError(Exception):
    pass


def cut() -> None:
    raise PowerCutError


def fit_until(run: Run, element: int, directory: Path) -> None:
    """A run that dies when it makes an element."""
    run.at(element, cut)
    with pytest.raises(tf.errors.UnknownError, match="PowerCutError"):
        run.fit(directory)


def test_resuming_is_like_not_having_stopped(tmp_path: Path) -> None:
    """10 steps straight, and a run that dies after 7, was saved after 6, and goes on with new objects."""
    settings = {"checkpoint_every_steps": 3, "max_steps": 10, "warmup_steps": 3}
    whole = Run(**settings).fit(tmp_path / "straight")
    fit_until(Run(**settings), 7, tmp_path / "stopped")
    stopped = saved_steps(tmp_path / "stopped")
    assert stopped in ([3], [3, 6]), "elements are made a little before their step"
    second = Run(**settings)
    resumed = second.fit(tmp_path / "stopped", resume=True)
    assert sorted(second.met[1:]) == list(range(stopped[-1], 10)), "the element after the last saved step comes next"
    assert saved_steps(tmp_path / "stopped") == saved_steps(tmp_path / "straight") == [9, 10]
    for one, other in zip(weights(whole.model), weights(resumed.model), strict=True):
        np.testing.assert_array_equal(other, one)
    early = loop.restore(tiny.Towers, tiny.make_config(**settings), tmp_path / "straight")
    early(next(iter(tiny.Stream(second.config)(tf.data.Dataset.range(1)))))
    for one, other in zip(weights(whole.model), weights(early), strict=True):
        np.testing.assert_array_equal(one, other)


def test_more_steps_than_planned(tmp_path: Path) -> None:
    """`training.max_steps` may grow in a resumed run."""
    Run(max_steps=4).fit(tmp_path)
    second = Run(max_steps=9)
    assert second.fit(tmp_path, resume=True).step == 9
    assert sorted(second.met[1:]) == [4, 5, 6, 7, 8]
    assert [row["step"] for row in rows(tmp_path)] == list(range(1, 10))


def test_a_finished_run_trains_no_more(tmp_path: Path) -> None:
    trained = Run(max_steps=3).fit(tmp_path)
    second = Run(max_steps=3)
    again = second.fit(tmp_path, resume=True)
    assert (again.step, again.is_complete) == (3, True)
    assert second.met == [0], "only to build the model"
    for one, other in zip(weights(trained.model), weights(again.model), strict=True):
        np.testing.assert_array_equal(one, other)
    assert saved_steps(tmp_path) == [3]


def test_a_run_without_checkpoint_resumes_at_the_start(tmp_path: Path) -> None:
    """A run that was stopped before its first checkpoint can still be resumed."""
    run = Run(max_steps=3)
    run.fit(tmp_path, resume=True)
    assert sorted(run.met) == [0, 0, 1, 2]
    assert saved_steps(tmp_path) == [3]


def test_a_damaged_checkpoint_costs_only_its_steps(tmp_path: Path) -> None:
    settings = {"checkpoint_every_steps": 3, "max_steps": 10}
    whole = Run(**settings).fit(tmp_path)
    newest = tmp_path / "checkpoints" / "ckpt-10.data-00000-of-00001"
    newest.write_bytes(newest.read_bytes()[:100])
    second = Run(**settings)
    resumed = second.fit(tmp_path, resume=True)
    assert second.met == [0, 9]
    for one, other in zip(weights(whole.model), weights(resumed.model), strict=True):
        np.testing.assert_array_equal(one, other)


# Refusals


def test_checkpoints_of_another_training_are_not_written_over(tmp_path: Path) -> None:
    Run(max_steps=3).fit(tmp_path)
    with pytest.raises(InputError, match="holds checkpoints of another training"):
        Run(max_steps=2).fit(tmp_path)
    assert saved_steps(tmp_path) == [3]


def test_nothing_to_restore(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint to restore"):
        loop.restore(tiny.Towers, tiny.make_config(), tmp_path)
    assert not list(tmp_path.iterdir())


class _ThreeReplicas:
    num_replicas_in_sync = 3


def test_a_batch_must_split_over_the_devices(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"training\.batch_size = 8: must divide by the 3 devices") as caught:
        loop.fit(tiny.Towers, tiny.Stream, tiny.make_config(), tmp_path, strategy=_ThreeReplicas())  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir()), "nothing is written"


def test_workers_that_see_different_checkpoints_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run directory that is not shared: one worker would go on and the other start anew."""
    Run(max_steps=2).fit(tmp_path)
    monkeypatch.setattr(loop, "gather_numbers", lambda strategy, number: [number, 0])
    with pytest.raises(InputError, match=r"found checkpoints of different steps, \[0, 2\]; all must see one directory"):
        Run(max_steps=4).fit(tmp_path, resume=True)


# Signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends_after_the_step(tmp_path: Path, number: signal.Signals) -> None:
    settings = {"max_steps": 40, "checkpoint_every_steps": 25, "warmup_steps": 3}
    whole = Run(**settings).fit(tmp_path / "straight")
    before = signal.getsignal(number)
    run = Run(**settings)
    run.at(11, lambda: os.kill(os.getpid(), number))
    stopped = run.fit(tmp_path / "stopped")
    assert not stopped.is_complete
    assert 1 <= stopped.step <= 12, "elements are made a little before their step"
    assert saved_steps(tmp_path / "stopped") == [stopped.step]
    assert rows(tmp_path / "stopped")[-1]["step"] == stopped.step
    assert signal.getsignal(number) is before
    second = Run(**settings)
    resumed = second.fit(tmp_path / "stopped", resume=True)
    assert resumed.is_complete
    assert sorted(second.met[1:]) == list(range(stopped.step, 40))
    for one, other in zip(weights(whole.model), weights(resumed.model), strict=True):
        np.testing.assert_array_equal(other, one)


def test_outside_the_main_thread_signals_stay_as_they_are(tmp_path: Path) -> None:
    results: list[loop.TrainingResult] = []
    thread = threading.Thread(target=lambda: results.append(Run(max_steps=3).fit(tmp_path)))
    thread.start()
    thread.join()
    assert results[0].is_complete


# What is told


def test_logs_hold_all_metrics_of_all_steps(tmp_path: Path) -> None:
    run = Run(max_steps=60, checkpoint_every_steps=100)
    run.fit(tmp_path)
    written = rows(tmp_path)
    assert [row["step"] for row in written] == list(range(3, 61, 3))
    assert list(written[0]) == ["step", "loss", "step_seen", "examples_per_second"]
    # A step sees the number of steps before it: the mean of a row is that of its three steps.
    assert [row["step_seen"] for row in written] == [step - 2.0 for step in range(3, 61, 3)]
    assert all(row["examples_per_second"] > 0 for row in written)
    assert np.mean([row["loss"] for row in written[-5:]]) < np.mean([row["loss"] for row in written[:5]])
    events: dict[tuple[str, int], float] = {}
    (file,) = (tmp_path / "logs").glob("*tfevents*")
    for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
        event = tf.compat.v1.Event.FromString(record)
        for value in event.summary.value:
            events[value.tag, event.step] = float(tf.make_ndarray(value.tensor))
    for row in written:
        for name in ("loss", "step_seen", "examples_per_second"):
            assert events[name, row["step"]] == pytest.approx(row[name], rel=1e-5)


def test_rows_after_the_checkpoint_are_written_again(tmp_path: Path) -> None:
    """A killed run has logged steps that the resumed one takes again, and perhaps half a row."""
    settings = {"max_steps": 40, "checkpoint_every_steps": 10}
    Run(**settings).fit(tmp_path / "straight")
    fit_until(Run(**settings), 27, tmp_path / "cut")
    file = tmp_path / "cut" / "logs" / "training.csv"
    with file.open("a") as stream:
        stream.write("26,0.5")
    Run(**settings).fit(tmp_path / "cut", resume=True)
    one, other = rows(tmp_path / "straight"), rows(tmp_path / "cut")
    assert [row["step"] for row in one] == list(range(2, 41, 2))
    assert [(row["step"], row["loss"]) for row in one] == [(row["step"], row["loss"]) for row in other]


@pytest.mark.parametrize("verbose", [0, 1, 2])
def test_progress_counts_the_steps_of_the_whole_run(
    tmp_path: Path, verbose: int, capsys: pytest.CaptureFixture[str]
) -> None:
    Run(max_steps=30).fit(tmp_path)
    run = Run(max_steps=40)
    run.fit(tmp_path, resume=True, verbose=verbose)
    out, err = capsys.readouterr()
    shown = "".join(line for line in err.splitlines() if "WARNING:tensorflow" not in line)
    assert out == ""
    if verbose == 0:
        assert shown == ""
    else:
        assert "40/40" in shown
        assert "examples/s" in shown
        assert "loss " in shown
    if verbose == 2:
        assert "0 s left" in shown
