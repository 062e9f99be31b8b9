"""Checkpoints: what is kept and what comes back."""

from pathlib import Path

import pytest
import tensorflow as tf

from uepp.config import TrainingConfig
from uepp.errors import InputError
from uepp.training.checkpoints import Checkpoints


class State(tf.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = tf.Variable([value, value])


def checkpoints(directory: Path, state: State, step: tf.Variable, keep: int = 2) -> Checkpoints:
    return Checkpoints(directory, TrainingConfig(keep_checkpoints=keep), model=state, step=step)


def test_the_newest_are_kept_and_restored(tmp_path: Path) -> None:
    state, step = State(0.0), tf.Variable(0, dtype=tf.int64)
    saved = checkpoints(tmp_path, state, step)
    assert saved.latest is None
    for number in (5, 10, 12):
        step.assign(number)
        state.weight.assign([number, -number])
        saved.save()
    assert sorted(file.name for file in tmp_path.glob("*.index")) == ["ckpt-10.index", "ckpt-12.index"]
    fresh, fresh_step = State(99.0), tf.Variable(0, dtype=tf.int64)
    loaded = checkpoints(tmp_path, fresh, fresh_step)
    assert loaded.latest == str(tmp_path / "ckpt-12")
    loaded.restore()
    assert int(fresh_step) == 12
    assert fresh.weight.numpy().tolist() == [12.0, -12.0]
    assert saved.latest == loaded.latest


def test_plain_tensorflow_can_read_them(tmp_path: Path) -> None:
    step = tf.Variable(3, dtype=tf.int64)
    checkpoints(tmp_path, State(1.5), step).save()
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "ckpt-3")
    names = [name for name, _ in tf.train.list_variables(str(tmp_path))]
    assert any(name.startswith("model/weight") for name in names)


def test_nothing_to_restore(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint to restore") as caught:
        checkpoints(tmp_path / "absent", State(0.0), tf.Variable(0, dtype=tf.int64)).restore()
    assert str(tmp_path / "absent") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_model_is_refused_in_one_line(tmp_path: Path) -> None:
    """A run resumed with another token_dim: which file, and what does not fit."""
    step = tf.Variable(1, dtype=tf.int64)
    checkpoints(tmp_path, State(1.0), step).save()
    other = State(0.0)
    other.weight = tf.Variable([0.0, 0.0, 0.0])
    with pytest.raises(InputError, match="ckpt-1") as caught:
        checkpoints(tmp_path, other, step).restore()
    assert "\n" not in str(caught.value)


def test_a_damaged_checkpoint_is_refused_in_one_line(tmp_path: Path) -> None:
    step = tf.Variable(1, dtype=tf.int64)
    checkpoints(tmp_path, State(1.0), step).save()
    (data,) = tmp_path.glob("ckpt-1.data*")
    data.write_bytes(data.read_bytes()[:3])
    with pytest.raises(InputError, match="ckpt-1") as caught:
        checkpoints(tmp_path, State(0.0), step).restore()
    assert "\n" not in str(caught.value)
