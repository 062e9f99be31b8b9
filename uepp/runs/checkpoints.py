"""Checkpoints: model, optimisers and the step, which is all the state there is."""

import logging
import os
import platform
import re
import shutil
from pathlib import Path

import tensorflow as tf

from uepp.artifacts import atomic_file
from uepp.errors import InputError

_INDEX = re.compile(r"ckpt-(\d+)\.index")
_logger = logging.getLogger(__name__)


class Checkpoints:
    """The `checkpoints/` directory of a run, laid out as `tf.train.CheckpointManager` does.

    A checkpoint is written elsewhere, flushed to disk and renamed into place, its index last; so whatever has an
    index was written whole. What is in the directory is what counts; the `checkpoint` file is kept for TensorFlow's
    own tools and never read here.

    Args:
        directory: where checkpoints are.
        num_kept: how many of the newest stay.
        is_chief: False in a worker that takes part in saving (it holds parts of the state) and keeps nothing.
        state: the objects to save; `step` (an int64 variable) is one of them.
    """

    def __init__(
        self, directory: Path, num_kept: int, *, is_chief: bool = True, **state: tf.Module | tf.Variable
    ) -> None:
        self._directory = directory
        self._num_kept = num_kept
        self._is_chief = is_chief
        self._step = state["step"]
        self._checkpoint = tf.train.Checkpoint(**state)
        self._checkpoint.save_counter.assign(0)  # makes it: TensorFlow's managers look for it
        self._damaged: set[int] = set()
        if self._is_chief:
            # Of workers that were killed; nobody saves yet, since workers wait for each other before their first step.
            for path in directory.glob(".worker-*"):
                shutil.rmtree(path, ignore_errors=True)

    @property
    def steps(self) -> list[int]:
        """Steps that have a checkpoint, whether damaged or not, in increasing order."""
        if not self._directory.is_dir():
            return []
        names = (_INDEX.fullmatch(name) for name in os.listdir(self._directory))
        return sorted(int(name[1]) for name in names if name)

    def start(self, resume: bool) -> int:
        """Begin or go on, and say with which step: the newest checkpoint's, 0 without one.

        Raises:
            InputError: there are checkpoints, and nobody asked to resume; or none of them can be restored.
        """
        if self.steps:
            if not resume:
                raise InputError(f"{self._directory}: holds checkpoints of another training; resume it or move it away")
            self.restore()
        return int(self._step.numpy())

    def save(self) -> None:
        """Save at the current step; all workers call this together."""
        step = int(self._step.numpy())
        self._checkpoint.save_counter.assign(step)
        role = "writing" if self._is_chief else "worker"
        workplace = self._directory / f".{role}-{platform.node()}-{os.getpid()}"  # containers may share numbers
        if self._is_chief:
            self._remove_leftovers()
        workplace.mkdir(parents=True, exist_ok=True)
        try:
            self._checkpoint.write(str(workplace / f"ckpt-{step}"))
            if self._is_chief:
                # ".data" sorts before ".index"
                for written in sorted(workplace.iterdir()):
                    with atomic_file(self._directory / written.name) as temporary:
                        os.replace(written, temporary)
        finally:
            shutil.rmtree(workplace, ignore_errors=True)
        if self._is_chief:
            self._keep_newest(step)

    def restore(self) -> None:
        """Restore the newest undamaged checkpoint; variables made later get their values when they are made.

        Damaged ones are skipped, with a warning.

        Raises:
            InputError: there is none, all are damaged, or it is of another model.
        """
        for step in reversed(self.steps):
            prefix = self._prefix(step)
            damage = _damage(prefix)
            if damage is None:
                return self._restore(prefix)
            self._damaged.add(step)
            _logger.warning("%s: damaged, skipped (%s)", prefix, damage)
        if not self._damaged:
            raise InputError(f"{self._directory}: no checkpoint to restore")
        names = ", ".join(f"ckpt-{step}" for step in sorted(self._damaged))
        raise InputError(f"{self._directory}: every checkpoint is damaged ({names}); start a new run")

    def _restore(self, prefix: str) -> None:
        try:
            status = self._checkpoint.restore(prefix)
            status.assert_existing_objects_matched()
            status.expect_partial()
        except (AssertionError, ValueError, IndexError, tf.errors.OpError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{prefix}: does not fit this configuration ({reason})") from None

    def _prefix(self, step: int) -> str:
        return str(self._directory / f"ckpt-{step}")

    def _remove_leftovers(self) -> None:
        """What a process that was killed while it saved left behind."""
        for path in self._directory.glob(".writing-*"):
            shutil.rmtree(path, ignore_errors=True)
        for pattern in (".ckpt-*.tmp", ".checkpoint.*.tmp"):
            for path in self._directory.glob(pattern):
                path.unlink()
        for path in self._directory.glob("ckpt-*.data-*"):
            if not path.with_name(f"{path.name.split('.data-')[0]}.index").exists():
                path.unlink()

    def _keep_newest(self, newest: int) -> None:
        """Name the kept checkpoints in TensorFlow's `checkpoint` file and delete the others."""
        # A checkpoint after this one can only be damaged: training went back to before it.
        good = [step for step in self.steps if step <= newest and step not in self._damaged - {newest}]
        kept = good[-self._num_kept :]
        lines = [f'model_checkpoint_path: "ckpt-{newest}"']
        lines += [f'all_model_checkpoint_paths: "ckpt-{step}"' for step in kept]
        times = [os.path.getmtime(f"{self._prefix(step)}.index") for step in kept]
        lines += [f"all_model_checkpoint_timestamps: {time}" for time in times]
        with atomic_file(self._directory / "checkpoint") as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        for step in set(self.steps) - set(kept):
            # The index goes first: without it, there is no checkpoint.
            Path(f"{self._prefix(step)}.index").unlink()
            for path in self._directory.glob(f"ckpt-{step}.data-*"):
                path.unlink()
        self._damaged.clear()


def _damage(prefix: str) -> str | None:
    """What is wrong with a checkpoint's files, or None: every tensor is read, and TensorFlow compares checksums."""
    try:
        reader = tf.train.load_checkpoint(prefix)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except (IndexError, RuntimeError, ValueError, tf.errors.OpError) as error:
        return " ".join(str(error).split())
    return None
