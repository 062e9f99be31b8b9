"""The highest scores of a catalogue."""

import numpy as np
from numpy.typing import NDArray

_SAMPLED = 64


def best_of(scores: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Positions and values of the k highest positive scores, ties by position."""
    candidates = _among_best(scores, k)
    values = scores[candidates]
    if len(candidates) > k:
        threshold = np.partition(values, -k)[-k]
        above = values > threshold
        level = np.flatnonzero(values == threshold)[: k - np.count_nonzero(above)]
        above[level] = True
        candidates, values = candidates[above], values[above]
    order = np.lexsort((candidates, -values))
    return candidates[order], values[order]


def _among_best(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Positions, increasing, that hold the k highest positive scores, with ties by position, and few others.

    Half of a large catalogue has something in common with a query. So every 64th score says first from where on about
    1.5 · k are; where it says so wrongly, all that are positive are given.
    """
    sample = scores[::_SAMPLED]
    rank = int(1.5 * k / _SAMPLED) + 8
    if len(sample) > rank and (least := np.partition(sample, -rank)[-rank]) > 0:
        above = np.flatnonzero(scores > least)
        if len(above) >= k:
            return above
        level = np.flatnonzero(scores == least)[: k - len(above)]
        if len(above) + len(level) == k:
            return np.sort(np.concatenate((above, level)))
    return np.flatnonzero(scores > 0)
