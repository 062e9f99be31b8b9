"""Checkpoints: what is kept, what comes back, and what is not taken for one."""

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from uepp.errors import InputError
from uepp.runs.checkpoints import Checkpoints


class State(tf.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = tf.Variable([value, value])


def step_variable(value: int = 0) -> tf.Variable:
    return tf.Variable(value, dtype=tf.int64)


def checkpoints(directory: Path, state: State, step: tf.Variable, keep: int = 2) -> Checkpoints:
    return Checkpoints(directory, keep, model=state, step=step)


def save(directory: Path, *steps: int, keep: int = 2) -> Checkpoints:
    """A process that saves [s, -s] at each step s."""
    state, step = State(0.0), step_variable()
    saved = checkpoints(directory, state, step, keep)
    for number in steps:
        step.assign(number)
        state.weight.assign([number, -number])
        saved.save()
    return saved


def restored(directory: Path) -> int:
    """The step that a new process starts with."""
    state, step = State(99.0), step_variable()
    checkpoints(directory, state, step).restore()
    assert state.weight.numpy().tolist() == [int(step), -int(step)]
    return int(step)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def files_of(*steps: int) -> list[str]:
    parts = (".data-00000-of-00001", ".index")
    return sorted(["checkpoint", *(f"ckpt-{step}{part}" for step in steps for part in parts)])


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("uepp")
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


# What is kept


def test_the_newest_are_kept_and_restored(tmp_path: Path) -> None:
    assert checkpoints(tmp_path / "run", State(0.0), step_variable()).steps == []
    assert save(tmp_path / "run", 5, 10, 12).steps == [10, 12]
    assert names(tmp_path / "run") == files_of(10, 12)
    assert restored(tmp_path / "run") == 12


def test_numbers_are_not_sorted_as_text(tmp_path: Path) -> None:
    save(tmp_path, 9, 100)
    save(tmp_path, 1_000)
    assert names(tmp_path) == files_of(100, 1_000)
    assert restored(tmp_path) == 1_000


def test_tensorflow_reads_the_directory(tmp_path: Path) -> None:
    """Its manager finds the same checkpoints, goes on numbering and deletes the oldest; also in another place."""
    save(tmp_path / "there", 3, 8)
    shutil.move(tmp_path / "there", tmp_path / "here")
    directory = tmp_path / "here"
    assert tf.train.latest_checkpoint(str(directory)) == str(directory / "ckpt-8")
    assert any(name.startswith("model/weight") for name, _ in tf.train.list_variables(str(directory)))
    state, step = State(0.0), step_variable()
    checkpoint = tf.train.Checkpoint(model=state, step=step)
    manager = tf.train.CheckpointManager(checkpoint, str(directory), max_to_keep=2)
    assert manager.checkpoints == [str(directory / "ckpt-3"), str(directory / "ckpt-8")]
    checkpoint.restore(manager.latest_checkpoint).assert_consumed()
    assert (int(step), state.weight.numpy().tolist()) == (8, [8.0, -8.0])
    manager.save()
    assert names(directory) == files_of(8, 9)


def test_a_manager_of_tensorflow_wrote_it(tmp_path: Path) -> None:
    state, step = State(4.0), step_variable(4)
    state.weight.assign([4.0, -4.0])
    checkpoint = tf.train.Checkpoint(model=state, step=step)
    tf.train.CheckpointManager(checkpoint, str(tmp_path), max_to_keep=2).save(checkpoint_number=4)
    assert restored(tmp_path) == 4


@pytest.mark.parametrize("content", [None, "", 'model_checkpoint_path: "ckpt-77"\n', "\x00\x01 nonsense"])
def test_the_state_file_does_not_matter(tmp_path: Path, content: str | None, warnings: list[str]) -> None:
    save(tmp_path, 5, 10)
    state_file = tmp_path / "checkpoint"
    state_file.unlink() if content is None else state_file.write_text(content)
    assert restored(tmp_path) == 10
    save(tmp_path, 15)
    assert names(tmp_path) == files_of(10, 15), "older ones are found and deleted, too"
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "ckpt-15")
    assert warnings == []


# What is not taken


def test_leftovers_of_a_killed_save(tmp_path: Path, warnings: list[str]) -> None:
    """Killed while writing, while moving, and before the index: each is ignored, and gone after the next save."""
    save(tmp_path, 5, 10)
    content = (tmp_path / "ckpt-10.data-00000-of-00001").read_bytes()
    (tmp_path / ".writing-123" / "ckpt-15_temp").mkdir(parents=True)
    (tmp_path / ".writing-123" / "ckpt-15_temp" / "part-00000-of-00001.data-00000-of-00001").write_bytes(content[:7])
    (tmp_path / ".ckpt-15.index.123.tmp").write_bytes(b"half")
    (tmp_path / "ckpt-15.data-00000-of-00001").write_bytes(content)
    assert restored(tmp_path) == 10
    assert warnings == []
    save(tmp_path, 20)
    assert names(tmp_path) == files_of(10, 20)


def test_a_failed_save_leaves_the_old_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 5)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full_disk(self: tf.train.Checkpoint, prefix: str) -> str:
        Path(prefix).with_name("half").write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(tf.train.Checkpoint, "write", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 10)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_index_appears_only_when_its_data_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after each single rename in turn, the directory always restores the old or the new checkpoint."""
    import os

    save(tmp_path / "start", 5)
    rename, outcomes = os.replace, []
    for allowed in range(20):
        directory = tmp_path / str(allowed)
        shutil.copytree(tmp_path / "start", directory)
        left = allowed

        def counted(source: object, target: object) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            rename(source, target)

        monkeypatch.setattr(os, "replace", counted)
        try:
            save(directory, 10)
        except KeyboardInterrupt:
            outcomes.append(restored(directory))
        else:
            break
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {5, 10}
    assert len(outcomes) > 3


@pytest.mark.parametrize("part", ["data-00000-of-00001", "index"])
@pytest.mark.parametrize("keep", [0, 3, -1])
def test_a_truncated_checkpoint_is_skipped_and_named(tmp_path: Path, part: str, keep: int, warnings: list[str]) -> None:
    save(tmp_path, 5, 10)
    file = tmp_path / f"ckpt-10.{part}"
    file.write_bytes(file.read_bytes()[:keep])
    assert restored(tmp_path) == 5
    (warning,) = warnings
    assert warning.startswith(f"{tmp_path / 'ckpt-10'}: damaged, skipped (")
    assert "\n" not in warning


def test_a_checkpoint_without_its_data_is_skipped(tmp_path: Path, warnings: list[str]) -> None:
    save(tmp_path, 5, 10)
    (tmp_path / "ckpt-10.data-00000-of-00001").unlink()
    assert restored(tmp_path) == 5
    assert "ckpt-10" in warnings[0]


@pytest.mark.parametrize("part", ["data-00000-of-00001", "index"])
def test_no_flipped_byte_is_restored(tmp_path: Path, part: str, warnings: list[str]) -> None:
    """Each byte in turn: the checkpoint is skipped, or the byte held nothing and the values are right."""
    save(tmp_path, 5, 10)
    file = tmp_path / f"ckpt-10.{part}"
    content = file.read_bytes()
    outcomes = []
    for position in range(len(content)):
        file.write_bytes(content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :])
        outcomes.append(restored(tmp_path))
    assert set(outcomes) <= {5, 10}
    assert len(warnings) == outcomes.count(5)
    assert outcomes.count(5) > len(content) / 2


def test_after_a_damaged_one_saving_goes_on(tmp_path: Path, warnings: list[str]) -> None:
    """A damaged checkpoint does not count as one of those to keep, nor as the newest."""
    save(tmp_path, 5, 10)
    (tmp_path / "ckpt-10.index").write_bytes(b"")
    state, step = State(0.0), step_variable()
    continued = checkpoints(tmp_path, state, step)
    continued.restore()
    step.assign(7)
    state.weight.assign([7.0, -7.0])
    continued.save()
    assert names(tmp_path) == files_of(5, 7)
    assert restored(tmp_path) == 7
    assert len(warnings) == 1


def test_a_damaged_one_is_saved_again(tmp_path: Path) -> None:
    save(tmp_path, 5, 10)
    (tmp_path / "ckpt-10.data-00000-of-00001").write_bytes(b"")
    state, step = State(0.0), step_variable()
    continued = checkpoints(tmp_path, state, step)
    continued.restore()
    step.assign(10)
    state.weight.assign([10.0, -10.0])
    continued.save()
    assert names(tmp_path) == files_of(5, 10)
    assert restored(tmp_path) == 10


# Refusals, one line each


def refusal(directory: Path, state: State, *expected: str) -> None:
    with pytest.raises(InputError) as caught:
        checkpoints(directory, state, step_variable()).restore()
    assert all(part in str(caught.value) for part in expected), str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_to_restore(tmp_path: Path) -> None:
    refusal(tmp_path / "absent", State(0.0), f"{tmp_path / 'absent'}: no checkpoint to restore")


def test_all_damaged(tmp_path: Path, warnings: list[str]) -> None:
    save(tmp_path, 5, 10)
    for file in tmp_path.glob("*.index"):
        file.write_bytes(b"")
    refusal(tmp_path, State(0.0), "every checkpoint is damaged (ckpt-5, ckpt-10)")
    assert len(warnings) == 2


def test_another_size_is_refused(tmp_path: Path, warnings: list[str]) -> None:
    """A run resumed with another token_dim: which file, and what does not fit."""
    save(tmp_path, 1)
    other = State(0.0)
    other.weight = tf.Variable([0.0, 0.0, 0.0])
    refusal(tmp_path, other, f"{tmp_path / 'ckpt-1'}: does not fit this configuration (", "(2,)", "(3,)")
    assert warnings == [], "it is not damaged, and older ones would not fit either"


def test_one_more_layer_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 1)
    other = State(0.0)
    other.bias = tf.Variable([0.0])
    refusal(tmp_path, other, "ckpt-1: does not fit this configuration (")


def test_a_worker_takes_part_and_keeps_nothing(tmp_path: Path) -> None:
    state = State(1.0)
    worker = Checkpoints(
        tmp_path / "run", 2, is_chief=False, model=state, step=step_variable(3)
    )  # fmt: skip
    worker.save()
    assert list((tmp_path / "run").iterdir()) == []
    np.testing.assert_array_equal(state.weight.numpy(), [1.0, 1.0])
