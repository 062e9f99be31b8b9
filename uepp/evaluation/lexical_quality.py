"""BM25 × quality: UEPPR's multiplicative boosting of the inverted index (UEPPR IV), its strength tuned as BM25 is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uepp.evaluation.requests import Requests
from uepp.lexical.bm25 import BM25, MIN_GAIN, thinned
from uepp.metrics import recall_at, target_positions
from uepp.retrieval.boosting import bonuses
from uepp.retrieval.quality import QualityFeature, fit_quality, read_quality, standardized_quality

_WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Of a standard deviation of a feature: exp(0.8 · 3) = 11 is the most that one feature lifts a product."""
_DEPTH = 20  # candidates of a request while tuning, times K


class Quality:
    """Q(p) = exp(w · f(p)) with w ≥ 0: it rises with every feature, is 1 for a mean product, and never 0.

    The features are those of `uepp boost`: from the data's columns and from the time before T alone.

    Args:
        export: an export.
        names: the features wanted; none: all.

    Attributes:
        features: of f, F of them.
        values: f(p), float32 [N, F].
    """

    def __init__(self, export: Path, names: tuple[str, ...] | None = None) -> None:
        values, num_known = read_quality(export, names)
        self.features: list[QualityFeature] = fit_quality(values, num_known)
        size = len(next(iter(values.values()))) if values else 0
        self.values = standardized_quality(values, self.features) if self.features else np.zeros((size, 0), np.float32)

    def multiplier(self, weights: dict[str, float]) -> np.ndarray:
        """Q, float32 [N], for weights by name; a feature without one does not count."""
        return np.exp(bonuses(self.values, self._row(weights)))

    def tune(self, index: BM25, requests: Requests, k: int = 100, max_requests: int = 1_000) -> dict[str, Any]:
        """Choose the features' weights one after the other, twice over, by Recall@k on selection requests.

        As with BM25's own, a choice that gains no more than .001 is not taken, and the same requests are looked at.
        While tuning, a request's best 20 · k by BM25 are ranked again.

        Args:
            index: BM25 of the catalogue.
            requests: of the selection window; without any, all weights are 0.
            k: results that count.
            max_requests: more are thinned by a stable hash.

        Returns:
            `weights` by feature, `recall@k`, `num_requests`, and `tried`: each choice with the recall it gave.
        """
        weights = {feature.name: 0.0 for feature in self.features}
        kept = thinned(list(zip(requests.queries, requests.target_lists(), strict=True)), max_requests)
        if not kept or not weights:
            return {"weights": weights, f"recall@{k}": None, "num_requests": len(kept), "tried": []}
        candidates = _Candidates(index, kept, int(requests.num_products.max()), k)
        best = candidates.recall(self.multiplier(weights))
        tried: list[dict[str, Any]] = [{"feature": "start", "weight": None, "recall": round(best, 4)}]
        for name in [*weights, *weights]:
            chosen = weights
            for weight in _WEIGHTS:
                changed = {**chosen, name: weight}
                if changed == weights:
                    continue
                recall = candidates.recall(self.multiplier(changed))
                tried.append({"feature": name, "weight": weight, "recall": round(recall, 4)})
                if recall > best + MIN_GAIN:
                    best, weights = recall, changed
        return {"weights": weights, f"recall@{k}": best, "num_requests": len(kept), "tried": tried}

    def _row(self, weights: dict[str, float]) -> np.ndarray:
        return np.array([weights.get(feature.name, 0.0) for feature in self.features], np.float32)


class _Candidates:
    """Each request's best products by BM25, to be ranked again."""

    def __init__(self, index: BM25, requests: Sequence[tuple[str, Sequence[int]]], limit: int, k: int) -> None:
        self._k, self._num_requests = k, len(requests)
        self._rows, self._scores = index.search([query for query, _ in requests], _DEPTH * k, limit)
        pairs = [(row, target) for row, (_, targets) in enumerate(requests) for target in targets]
        self._request, self._target = np.array(pairs, np.int64).T
        self._place = target_positions(self._rows, self._request, self._target)
        self._is_there = self._place < self._rows.shape[1]

    def recall(self, multiplier: np.ndarray) -> float:
        """Mean Recall@K when scores are multiplied; ties by product index, as everywhere."""
        scores = self._scores * multiplier[self._rows]  # 0 where there is no candidate
        positions = np.full(len(self._place), self._rows.shape[1], np.int64)
        request, target, place = (values[self._is_there] for values in (self._request, self._target, self._place))
        own, others = scores[request, place][:, np.newaxis], scores[request]
        is_before = (others > own) | ((others == own) & (self._rows[request] < target[:, np.newaxis]) & (others > 0))
        positions[self._is_there] = is_before.sum(axis=1)
        return float(np.mean(recall_at(self._k, positions, self._request, self._num_requests)))
