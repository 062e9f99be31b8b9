"""Boosting: product vectors with quality beside them, query vectors with its weights (UEPPR IV).

S(q, p) = similarity(q, p) + w · f(p), as one inner product of hydrated vectors.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from uepp.artifacts import atomic_file, read_json, write_json
from uepp.errors import InputError

BOOSTING = "boosting.json"
QUALITY = "quality.npy"


@dataclass(frozen=True)
class Boosting:
    """Quality features of a catalogue and their weights.

    UEPPR IV: p' = [p; f(p)], q' = [q; w]. Here p' = [p; √w · f(p)] and q' = [q; √w], column by column. The inner
    product is the same, and so is every exact ranking. But unscaled features of variance 1 would outweigh a vector of
    length 1, and an index looks at how near products are to each other: HNSW's links, the cells of IVF and the
    codes of PQ would follow quality.

    Attributes:
        features: names of the F features.
        weights: float32 [F], w ≥ 0.
        quality: float32 [N, F], f(p) by product index; 0 is the mean of the products known before T.
    """

    features: tuple[str, ...]
    weights: np.ndarray
    quality: np.ndarray

    def products(self, vectors: np.ndarray, first_row: int) -> np.ndarray:
        """Hydrated product vectors, float32 [n, d + F].

        Args:
            vectors: float32 [n, d], products `first_row`, `first_row` + 1, …
            first_row: product index of the first one.
        """
        quality = self.quality[first_row : first_row + len(vectors)]
        return np.concatenate([vectors, quality * self._root], axis=1, dtype=np.float32)

    def queries(self, vectors: np.ndarray) -> np.ndarray:
        """Hydrated query vectors, float32 [B, d + F], of float32 [B, d]."""
        root = np.broadcast_to(self._root, (len(vectors), len(self._root)))
        return np.concatenate([vectors, root], axis=1, dtype=np.float32)

    def bonus(self, rows: np.ndarray) -> np.ndarray:
        """What quality adds to a score, w · f(p): float32 of the shape of `rows`, product indexes, and 0 where -1.

        similarity = score - bonus. Thresholds of similarity apply to that, never to the score.
        """
        return np.where(rows >= 0, self.all_bonuses[rows], np.float32(0))

    @cached_property
    def all_bonuses(self) -> np.ndarray:
        """Bonus of every product, float32 [N]."""
        return bonuses(self.quality, self.weights)

    @cached_property
    def _root(self) -> np.ndarray:
        return np.sqrt(self.weights, dtype=np.float32)


def bonuses(quality: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Bonus w · f(p) of every product: float32 [N], of float32 [N, F] and float [F]."""
    return np.asarray(quality @ np.asarray(weights, np.float32), np.float32)


def read_boosting(export: Path) -> Boosting | None:
    """The boosting of an export whose manifest was checked; none where it has none.

    Raises:
        InputError: `boosting.json` and `quality.npy` do not fit each other.
    """
    if not (export / BOOSTING).exists():
        return None
    facts = read_json(export / BOOSTING)
    try:
        features = tuple(str(feature["name"]) for feature in facts["features"])
        weights = np.array([feature["weight"] for feature in facts["features"]], np.float32)
        quality = np.load(export / QUALITY, mmap_mode="r")
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise InputError(f"{export / BOOSTING}: not a boosting ({' '.join(str(error).split())})") from None
    if quality.ndim != 2 or quality.shape[1] != len(features) or not np.all(np.isfinite(weights) & (weights >= 0)):
        raise InputError(
            f"{export / BOOSTING}: {len(features)} features of weights {weights.tolist()} for {QUALITY} of shape "
            f"{list(quality.shape)}; allowed are finite weights ≥ 0, one a column"
        )
    return Boosting(features, weights, quality)


def write_boosting(folder: Path, quality: np.ndarray, facts: dict[str, Any]) -> None:
    """Put a boosting into a folder that is to become an export; the index and the manifest come after it.

    Args:
        folder: with the vectors.
        quality: float32 [N, F].
        facts: content of `boosting.json`; `features` has `name` and `weight` of each.
    """
    with atomic_file(folder / QUALITY) as temporary, temporary.open("wb") as file:
        np.save(file, np.ascontiguousarray(quality, np.float32))
    write_json(folder / BOOSTING, facts)


def remove_boosting(folder: Path) -> None:
    """Take the boosting out of a folder that is to become an export."""
    for name in (BOOSTING, QUALITY):
        (folder / name).unlink(missing_ok=True)
