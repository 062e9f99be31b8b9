"""What has to be settled before TensorFlow is imported for the first time: which Keras, and what it may print.

TensorFlow Recommenders needs Keras 2 (`tf_keras`). TensorFlow and TensorFlow Text each write three lines to standard
error when they are loaded, whatever `TF_CPP_MIN_LOG_LEVEL` says: C++ prints them before its logging is set up. They
would stand above the answer of every command, so they are left out; errors and warnings are not.
"""

import contextlib
import importlib.abc
import importlib.machinery
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import BinaryIO

_LOADS_SHARED_OBJECTS = frozenset({"tensorflow", "tensorflow_text"})
_CHATTER = re.compile(rb"WARNING: All log messages before absl::InitializeLog|I\d{4} ")


def choose_keras_2() -> None:
    """Set `TF_USE_LEGACY_KERAS` for this process; refuse when TensorFlow already took Keras 3."""
    if "tensorflow" in sys.modules and os.environ.get("TF_USE_LEGACY_KERAS") != "1":
        raise ImportError(
            "TensorFlow was imported before uepp, with Keras 3. Import uepp first, or set the environment "
            "variable TF_USE_LEGACY_KERAS=1 before TensorFlow is imported."
        )
    os.environ["TF_USE_LEGACY_KERAS"] = "1"


def import_quietly() -> None:
    """Leave out what TensorFlow prints when it is loaded, unless `TF_CPP_MIN_LOG_LEVEL=0` asks for it."""
    # Only what is fatal: level 2 still has a line of CUDA errors at each start where there is no GPU.
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") != "0":
        sys.meta_path.insert(0, _QuietFinder())


class _QuietFinder(importlib.abc.MetaPathFinder):
    """Finds the two packages where they are, and has them loaded by a `_QuietLoader`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """As `importlib` asks."""
        if fullname not in _LOADS_SHARED_OBJECTS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _QuietLoader(spec.loader.name, spec.loader.path)
        return spec


class _QuietLoader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        with _without_chatter():
            super().exec_module(module)


@contextlib.contextmanager
def _without_chatter() -> Iterator[None]:
    """Keep what is written to the file of standard error, and pass it on at the end without the chatter."""
    with contextlib.ExitStack() as undo:
        with contextlib.suppress(OSError):  # no standard error, or no place for the file: nothing is left out
            errors = os.dup(2)
            undo.callback(os.close, errors)
            kept = undo.enter_context(tempfile.TemporaryFile())
            undo.callback(_pass_on, kept)
            os.dup2(kept.fileno(), 2)
            undo.callback(os.dup2, errors, 2)
        yield


def _pass_on(kept: BinaryIO) -> None:
    kept.seek(0)
    with contextlib.suppress(OSError):
        for line in kept:
            if not _CHATTER.match(line):
                os.write(2, line)
