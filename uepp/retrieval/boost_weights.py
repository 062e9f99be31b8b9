"""Weights of quality, found by black-box optimisation of recall within a bound that keeps relevance (UEPPR IV)."""

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from uepp.features.text import query_keys, query_numbers
from uepp.metrics import direction, mean_over_days, paired_interval, paired_p_values
from uepp.retrieval.boost_candidates import Ranking
from uepp.retrieval.boosting import bonuses

SCALES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the best weights that the held-out requests choose from."""
_NUM_FOLDS = 3
_ONE_STANDARD_ERROR = 0.683  # of a normal distribution within one
_RANDOM_POINTS = 10  # before the Gaussian process begins
_SEED = 0


def similarity_spread(ranking: Ranking) -> float:
    """How much less similar the K-th product of a request is than its first: the median over requests, ≥ 0.

    Args:
        ranking: the K most similar products, without boosting.
    """
    has_any = ~np.isnan(ranking.similarity[:, :1]).all(axis=1)
    if not has_any.any():
        return 0.0
    similarity = ranking.similarity[has_any]
    return float(np.median(similarity[:, 0] - np.nanmin(similarity, axis=1)))


@dataclass(frozen=True)
class WeightSpace:
    """The weights that are allowed: w ≥ 0 with a largest difference of two products' bonuses of at most B.

    max_p w · f(p) - min_p w · f(p) ≤ B. So relevance is not sacrificed: a product that boosting brings among the first
    K ousts one that was there, so it is at most B less similar than that one, and than the K-th without boosting. B is
    `boosting.max_boost` times the similarity that lies between the first and the K-th product of a request.

    Attributes:
        quality: float32 [N, F].
        bound: B > 0.
    """

    quality: np.ndarray
    bound: float

    @property
    def num_dimensions(self) -> int:
        """Coordinates of a point: the total, and the part of each feature, unless there is only one."""
        num_features = self.quality.shape[1]
        return 1 if num_features == 1 else 1 + num_features

    def weights(self, point: Sequence[float]) -> np.ndarray:
        """float64 [F] of a point of [0, 1]^D: its first coordinate is the share of B, the others the features' parts.

        A feature's part is of its own range, so that units and outliers do not matter. All parts 0 count as all 1.
        """
        total, *parts = (float(value) for value in point)
        direction = np.array(parts or [1.0])
        direction = (direction if direction.any() else np.ones_like(direction)) / np.ptp(self.quality, axis=0)
        return total * self.bound / self.boost_range(direction) * direction

    def boost_range(self, weights: np.ndarray) -> float:
        """max_p w · f(p) - min_p w · f(p)."""
        return float(np.ptp(bonuses(self.quality, weights)))

    def starts(self) -> list[list[float]]:
        """Points to begin with: no boost, half of the bound for all features together, and for each by itself."""
        num_parts = self.num_dimensions - 1
        alone = [[0.5, *row] for row in np.eye(num_parts).tolist()] if num_parts else []
        return [[0.0] + [1.0] * num_parts, [0.5] + [1.0] * num_parts, *alone]


@dataclass(frozen=True)
class TunedWeights:
    """What was found.

    Attributes:
        best: float64 [F], the mean of the folds' best weights.
        scale: which of `SCALES` of them is taken; 0: nothing beat similarity alone.
        trials: every weighting that was tried, in order: `fold`, `weights`, `boost_range`, and `recall` on the requests
            of the other folds.
        held_out: for each of `SCALES` the `recall` of every fold's weights on the requests of that fold, which they
            were not tuned on, `behind_best`, how far the best scale is ahead: an interval of one standard error, and
            its `p_value`. With too few queries for an interval no scale is surely behind, so 0 is taken.
    """

    best: np.ndarray
    scale: float
    trials: list[dict[str, Any]]
    held_out: list[dict[str, Any]]

    @property
    def weights(self) -> np.ndarray:
        """What is taken, float64 [F]."""
        return self.scale * self.best


def tune_weights(
    space: WeightSpace,
    recalls: Callable[[np.ndarray, np.ndarray], np.ndarray],
    queries: Sequence[str],
    day: np.ndarray,
    num_trials: int,
    progress: Callable[[], None] = lambda: None,
) -> TunedWeights:
    """Maximise recall by Bayesian optimisation (`skopt.gp_minimize`), and see how much of it holds elsewhere.

    The requests fall into three folds by a hash of the query. Weights are tuned three times, on two folds each, and
    tried at several scales on the third. The smallest scale is taken that is behind the best one by no more than a
    standard error of the paired difference; 0 is one of them. The final weights are the mean of the three, which is
    within the bound since that is convex, at that scale. So weights that only fit the noise of the requests they were
    tuned on come out smaller, or as zero.

    Args:
        space: the allowed weights.
        recalls: of weights float [F] and of bool [R], the requests that are asked for, each request's recall, float64
            [R], NaN where it was not asked for.
        queries: [R], at least two.
        day: [R]; recall is the mean of each day, then over days.
        num_trials: weightings to try, a fold.
        progress: called after each.
    """
    fold, query = _folds(query_keys(queries)), query_numbers(queries)
    trials: list[dict[str, Any]] = []
    found: list[np.ndarray] = []
    for number in range(int(fold.max()) + 1):

        def recall(weights: np.ndarray, is_in: np.ndarray = fold != number, number: int = number) -> float:
            value = mean_over_days(recalls(weights, is_in), day)
            range_ = space.boost_range(weights)
            trials.append({"fold": number, "weights": weights.tolist(), "boost_range": range_, "recall": value})
            progress()
            return value

        _maximise(recall, space, num_trials)
        own = [trial for trial in trials if trial["fold"] == number]
        best = max(own, key=lambda trial: (trial["recall"], -trial["boost_range"]))
        found.append(np.array(best["weights"]))

    found_elsewhere: dict[float, np.ndarray] = {}
    for scale in SCALES:
        of_folds = [recalls(scale * weights, fold == number) for number, weights in enumerate(found)]
        found_elsewhere[scale] = np.choose(fold, of_folds)
    recall_of = {scale: mean_over_days(values, day) for scale, values in found_elsewhere.items()}
    best_scale = max(SCALES, key=lambda scale: (recall_of[scale], -scale))
    held_out: list[dict[str, Any]] = []
    for scale, values in found_elsewhere.items():
        differences = found_elsewhere[best_scale] - values
        behind = paired_interval(differences, day, query, confidence=_ONE_STANDARD_ERROR)
        p_value = float(paired_p_values(differences[:, np.newaxis], day, query)[0])
        held_out.append({"scale": scale, "recall": recall_of[scale], "behind_best": list(behind), "p_value": p_value})
    chosen = next(row["scale"] for row in held_out if not _is_behind(row["behind_best"], row["p_value"]))
    return TunedWeights(np.mean(found, axis=0), chosen, trials, held_out)


def _is_behind(interval: Sequence[float], p_value: float) -> bool:
    """By a standard error, and more than the luck of a few requests."""
    return direction(interval, p_value, _ONE_STANDARD_ERROR) > 0


def _maximise(recall: Callable[[np.ndarray], float], space: WeightSpace, num_trials: int) -> None:
    """Try weightings; the caller keeps what came of them."""
    from skopt import gp_minimize
    from threadpoolctl import threadpool_limits

    starts = space.starts()[:num_trials]
    # The matrices are small: threads would wait for each other, and add up in any order.
    with threadpool_limits(1, "blas"), warnings.catch_warnings():
        # On the edge of the box the same point may be best twice, and then a random one is taken.
        warnings.filterwarnings("ignore", message="The objective has been evaluated at point")
        # A length scale at the end of its range: recall hardly depends on that feature.
        warnings.filterwarnings("ignore", message=".*lbfgs failed to converge|.*is close to the specified")
        gp_minimize(
            lambda point: -recall(space.weights(point)),
            [(0.0, 1.0)] * space.num_dimensions,
            x0=starts,
            n_calls=num_trials,
            n_initial_points=min(_RANDOM_POINTS, num_trials - len(starts)),
            random_state=_SEED,
        )


def _folds(keys: Sequence[str]) -> np.ndarray:
    """The fold of each request, int64 [R]: a hash of its query; its row where that would leave a fold empty."""
    digests = [hashlib.md5(key.encode(), usedforsecurity=False).digest() for key in keys]
    fold = np.array([int.from_bytes(digest[:8]) % _NUM_FOLDS for digest in digests], np.int64)
    if len(np.unique(fold)) < _NUM_FOLDS:
        fold = np.arange(len(keys)) % min(_NUM_FOLDS, len(keys))
    return fold
