"""One writer of an export at a time: what replaces it is made of what it was."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from uepp.artifacts import MANIFEST, atomic_directory, locked_directory, read_json
from uepp.errors import InputError


@contextmanager
def replacing(directory: Path, seen: dict[str, Any] | None = None) -> Iterator[Path]:
    """Yield a folder that becomes an export when the block ends without an error (`atomic_directory`).

    Meanwhile no other process of this kind writes the export: the run directory is locked, as far as its file system
    has locks. So what a killed one left beside it is removed.

    Args:
        directory: the export.
        seen: manifest of the export that the new one is made of, if some of it was read before; none: nothing was.

    Raises:
        InputError: somebody else writes it, or did after `seen` was read.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)

    def refuse() -> None:
        raise InputError(f"{directory}: another process is writing it; do it again when that has ended")

    with locked_directory(directory.parent, refuse) as is_locked:
        if is_locked:
            for left in directory.parent.glob(f".{directory.name}.*.tmp"):
                shutil.rmtree(left, ignore_errors=True)
        if seen is not None:
            refuse_replaced(directory, seen)
        with atomic_directory(directory) as folder:
            yield folder


def refuse_replaced(directory: Path, seen: dict[str, Any]) -> None:
    """Raise `InputError` where an export is another one than when its manifest was read."""
    if read_json(directory / MANIFEST) != seen:
        raise InputError(f"{directory}: was replaced meanwhile; do it again, with the new one")
