"""What an evaluation has measured so far, so that one that was interrupted goes on where it was."""

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from uepp.artifacts import atomic_file
from uepp.evaluation.measures import Measured


class Unfinished:
    """Systems that were measured by an evaluation that has no figures yet.

    Two evaluations of a run may go on at once: each takes what the other has measured, and removes only what it took
    or measured itself.

    Args:
        folder: holds a file a system while it goes on.
        version: of the export, the requests and the measures; what was measured of others is removed.
    """

    def __init__(self, folder: Path, version: str) -> None:
        self._folder = folder
        self._of_version = folder / version
        self._own: set[str] = set()
        for other in folder.glob("*"):
            if other.name != version:
                shutil.rmtree(other, ignore_errors=True)

    def get(self, name: str) -> tuple[Measured, dict[str, Any]] | None:
        """What `put` was given; none: the system was not measured yet, or its file is damaged."""
        try:
            with np.load(self._path(name), allow_pickle=False) as file:
                facts, rows = json.loads(str(file["facts"])), file["values"]
            values: dict[str, dict[str, np.ndarray]] = {}
            for (wanted, measure), row in zip(facts["names"], rows, strict=True):
                values.setdefault(wanted, {})[measure] = row
            kept = Measured(values, facts["locality"]), facts["chosen"]
        except (OSError, EOFError, ValueError, KeyError, BadZipFile):
            return None
        self._own.add(name)
        return kept

    def put(self, name: str, measured: Measured, chosen: dict[str, Any]) -> None:
        """Keep a system's measures.

        Args:
            name: of the system.
            measured: of all requests.
            chosen: settings that were chosen for it, by system.
        """
        of_each = [(wanted, name) for wanted, values in measured.values.items() for name in values]
        facts = {"names": of_each, "locality": measured.locality, "chosen": chosen}
        rows = np.stack([measured.values[wanted][name] for wanted, name in of_each])
        self._own.add(name)
        try:
            self._write(name, facts, rows)
        except FileNotFoundError:  # another evaluation has just ended, and removed the folder
            self._write(name, facts, rows)

    def end(self) -> None:
        """The figures are there: nothing of this evaluation is needed any more."""
        for name in self._own:
            self._path(name).unlink(missing_ok=True)
        for folder in (self._of_version, self._folder):
            with suppress(OSError):  # another evaluation keeps something there
                folder.rmdir()

    def _write(self, name: str, facts: dict[str, Any], rows: np.ndarray) -> None:
        with atomic_file(self._path(name)) as path, path.open("wb") as file:
            np.savez(file, facts=np.array(json.dumps(facts)), values=rows)

    def _path(self, name: str) -> Path:
        return self._of_version / f"{name}.npz"
