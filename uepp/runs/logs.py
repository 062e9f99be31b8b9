"""Numbers of a training, a row every so many steps, to TensorBoard and `training.csv`."""

import csv
from pathlib import Path

import tensorflow as tf

from uepp.artifacts import atomic_file


class Log:
    """The `logs/` directory of a run.

    Args:
        directory: where to; made if needed.
        done: steps that are done. What a killed run wrote after its last checkpoint comes again, so it is dropped.
    """

    def __init__(self, directory: Path, done: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._csv = directory / "training.csv"
        self._old_rows = _read_rows(self._csv, done)
        self._columns: list[str] = []
        self._writer = tf.summary.create_file_writer(str(directory))

    def add(self, step: int, values: dict[str, float]) -> None:
        """One row; at once on disk."""
        with self._writer.as_default(step):
            for name, value in values.items():
                tf.summary.scalar(name, value)
        self._writer.flush()
        if not self._columns:
            self._columns = list(dict.fromkeys(["step", *values, *(name for row in self._old_rows for name in row)]))
            with atomic_file(self._csv) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, self._columns)
                writer.writeheader()
                writer.writerows(self._old_rows)
        with self._csv.open("a", newline="", encoding="utf-8") as stream:
            csv.DictWriter(stream, self._columns).writerow({"step": step, **values})


def _read_rows(path: Path, done: int) -> list[dict[str, str]]:
    """Rows of the steps that are done; what a killed run wrote after its last checkpoint comes again."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    # A row that was cut off has fewer cells.
    whole = [row for row in rows if None not in row and None not in row.values()]
    return [row for row in whole if row.get("step", "").isdecimal() and int(row["step"]) <= done]
