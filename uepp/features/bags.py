"""Bags of ids in compressed rows: all values one after another, and how many belong to each row."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Bags(NamedTuple):
    """Some rows of ids.

    Attributes:
        values: int32 [T], ids of all rows, row after row.
        lengths: int32 [R], number of ids of each row; they sum to T.
    """

    values: np.ndarray
    lengths: np.ndarray

    def entries(self, name: str) -> dict[str, np.ndarray]:
        """As entries `name/values` and `name/lengths` of a batch."""
        return {f"{name}/values": self.values, f"{name}/lengths": self.lengths}

    def drop(self, share: float, rng: np.random.Generator) -> "Bags":
        """Drop each id with probability `share`, but never the last id of a row that would be left empty."""
        if share == 0.0 or not len(self.values):
            return self
        draw = rng.random(len(self.values), np.float32)
        is_kept = draw >= share
        starts = np.cumsum(self.lengths, dtype=np.int64) - self.lengths
        filled = self.lengths > 0
        row = np.repeat(np.arange(len(self.lengths)), self.lengths)
        best = np.zeros(len(self.lengths), np.float32)
        best[filled] = np.maximum.reduceat(draw, starts[filled])
        is_kept |= draw == best[row]
        lengths = np.bincount(row[is_kept], minlength=len(self.lengths)).astype(np.int32)
        return Bags(self.values[is_kept], lengths)


@dataclass(frozen=True)
class BagStore:
    """Bags of a whole table; the values may be memory-mapped.

    Attributes:
        values: int32 [T].
        splits: int64 [N + 1]; row i is values[splits[i]:splits[i + 1]].
    """

    values: np.ndarray
    splits: np.ndarray

    def __len__(self) -> int:
        """N."""
        return len(self.splits) - 1

    def gather(self, rows: np.ndarray) -> Bags:
        """The given rows ([R] integers, any order, repeats allowed) as one batch."""
        begin = self.splits[rows]
        lengths = self.splits[rows + 1] - begin
        ends = np.cumsum(lengths)
        position = np.arange(ends[-1] if len(ends) else 0) + np.repeat(begin - (ends - lengths), lengths)
        return Bags(self.values[position], lengths.astype(np.int32))

    @classmethod
    def concatenate(cls, parts: list[Bags]) -> "BagStore":
        """All rows of all parts, in order."""
        lengths = np.concatenate([part.lengths for part in parts] or [np.zeros(0, np.int32)])
        values = np.concatenate([part.values for part in parts] or [np.zeros(0, np.int32)])
        return cls(values, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))

    def save(self, stem: Path) -> None:
        """Write `stem.values.npy` and `stem.splits.npy`."""
        np.save(stem.with_name(stem.name + ".values.npy"), self.values)
        np.save(stem.with_name(stem.name + ".splits.npy"), self.splits)

    @classmethod
    def load(cls, stem: Path) -> "BagStore":
        """Memory-map what `save` wrote."""
        values = np.load(stem.with_name(stem.name + ".values.npy"), mmap_mode="r")
        return cls(values, np.load(stem.with_name(stem.name + ".splits.npy")))


Column = BagStore | np.ndarray
"""Row-aligned entry of a whole table: bags, or one value (or vector) a row."""


def column_names(parts: dict[str, list[np.ndarray]]) -> list[str]:
    """Names of the columns that some batches' entries make up."""
    return [name.removesuffix("/values") for name in parts if not name.endswith("/lengths")]


def take_column(parts: dict[str, list[np.ndarray]], name: str) -> Column:
    """Put the batches of one column together, and take them out of `parts`, so that memory holds one column twice."""
    if name in parts:
        return np.concatenate(parts.pop(name))
    bags = zip(parts.pop(f"{name}/values"), parts.pop(f"{name}/lengths"), strict=True)
    return BagStore.concatenate([Bags(*pair) for pair in bags])
