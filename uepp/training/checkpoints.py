"""Checkpoints: model, optimisers and the step, which is all the state there is."""

from pathlib import Path

import tensorflow as tf

from uepp.config import TrainingConfig
from uepp.errors import InputError


class Checkpoints:
    """The `checkpoints/` directory of a run, a `tf.train.CheckpointManager`.

    Args:
        directory: where checkpoints are.
        config: how many to keep.
        state: the objects to save; `step` (an int64 variable) is one of them.
    """

    def __init__(self, directory: Path, config: TrainingConfig, **state: tf.Module) -> None:
        self._state = state
        self._checkpoint = tf.train.Checkpoint(**state)
        self._manager = tf.train.CheckpointManager(self._checkpoint, str(directory), config.keep_checkpoints)

    @property
    def latest(self) -> str | None:
        """Path prefix of the newest checkpoint."""
        return self._manager.latest_checkpoint

    def save(self) -> None:
        """Save at the current step."""
        self._manager.save(checkpoint_number=int(self._state["step"]))

    def restore(self) -> None:
        """Restore the newest checkpoint; variables made later get their values when they are made.

        Raises:
            InputError: there is none, it is damaged, or it is of another model.
        """
        if self.latest is None:
            raise InputError(f"{self._manager.directory}: no checkpoint to restore")
        try:
            self._checkpoint.restore(self.latest).expect_partial()
        except (ValueError, IndexError, tf.errors.OpError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{self.latest}: does not fit this configuration, or is damaged ({reason})") from None
