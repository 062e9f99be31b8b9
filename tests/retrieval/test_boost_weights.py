"""The bound of boosting, by every pair of products, and weights that are found or given up."""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uepp.retrieval.boost_candidates import BoostCandidates, Ranking
from uepp.retrieval.boost_weights import SCALES, TunedWeights, WeightSpace, similarity_spread, tune_weights


def qualities(seed: int, num_products: int, num_features: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    quality = np.clip(rng.standard_normal((num_products, num_features)), -3, 3).astype(np.float32)
    quality[0], quality[1] = -1, 1  # every feature differs somewhere
    return quality


@settings(max_examples=100, deadline=None)
@given(
    num_products=st.integers(2, 12),
    num_features=st.integers(1, 4),
    bound=st.floats(0.01, 2),
    point=st.lists(st.sampled_from([0.0, 0.3, 1.0]), min_size=5, max_size=5),
    seed=st.integers(0, 1_000),
)
def test_no_two_products_are_set_further_apart_than_the_bound(
    num_products: int, num_features: int, bound: float, point: list[float], seed: int
) -> None:
    space = WeightSpace(qualities(seed, num_products, num_features), bound)
    weights = space.weights(point[: space.num_dimensions])
    assert weights.shape == (num_features,)
    assert (weights >= 0).all()
    bonus = [sum(float(w) * float(f) for w, f in zip(weights, row, strict=True)) for row in space.quality]
    furthest = max(abs(one - other) for one in bonus for other in bonus)
    assert space.boost_range(weights) == pytest.approx(furthest, rel=1e-4, abs=1e-6)
    assert furthest == pytest.approx(point[0] * bound, rel=1e-4, abs=1e-6), "the first coordinate is the share of it"


def test_parts_are_of_a_features_own_range() -> None:
    """A feature that one outlier makes wide gets a smaller weight for the same part."""
    quality = np.array([[-1, -2], [1, -2], [0, 2], [0, 0]], np.float32)
    space = WeightSpace(quality, 1.0)
    assert space.num_dimensions == 3
    np.testing.assert_allclose(space.weights([1, 1, 0]), [0.5, 0])
    np.testing.assert_allclose(space.weights([1, 0, 1]), [0, 0.25])
    np.testing.assert_allclose(space.weights([0.5, 0.2, 0.2]), space.weights([0.5, 1, 1]))
    np.testing.assert_allclose(space.weights([0.5, 0, 0]), space.weights([0.5, 1, 1]))
    both = space.weights([1, 1, 1])
    assert both[0] == pytest.approx(2 * both[1])
    starts = [space.weights(start).tolist() for start in space.starts()]
    assert starts[0] == [0, 0]
    assert [sum(weight > 0 for weight in weights) for weights in starts[1:]] == [2, 1, 1]
    single = WeightSpace(quality[:, :1], 1.0)
    assert single.num_dimensions == 1
    assert [single.weights(start).tolist() for start in single.starts()] == [[0.0], [0.25]]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), max_boost=st.sampled_from([0.2, 0.5, 1.0, 3.0]))
def test_relevance_is_kept_within_the_bound(seed: int, max_boost: float) -> None:
    """What boosting brings among the first K is at most B less similar than the K-th was."""
    rng = np.random.default_rng(seed)
    vectors, queries = (rng.standard_normal((rows, 6)).astype(np.float32) for rows in (300, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    quality = qualities(seed, 300, 3)
    candidates = BoostCandidates(queries, vectors, np.array([300, 300, 100, 20, 5]), quality, 10)
    plain = candidates.rank(np.zeros(3))
    space = WeightSpace(quality, max_boost * similarity_spread(plain))
    boosted = candidates.rank(space.weights([1.0, *rng.random(3)]))
    loss = np.nanmin(plain.similarity, axis=1) - np.nanmin(boosted.similarity, axis=1)
    assert loss.max() <= space.bound + 1e-6
    if max_boost == 3.0:
        assert loss.max() > 0.1 * space.bound, "the bound is near"


def test_spread_of_similarity() -> None:
    nan = math.nan
    similarity = np.array([[0.9, 0.5, 0.1], [0.8, 0.7, nan], [0.5, nan, nan], [nan] * 3, [0.6, 0.6, 0.2]], np.float32)
    ranking = Ranking(np.where(np.isnan(similarity), -1, 0), similarity)
    assert similarity_spread(ranking) == pytest.approx(np.median([0.8, 0.1, 0.0, 0.4]))
    assert similarity_spread(Ranking(ranking.rows[3:4], similarity[3:4])) == 0
    assert similarity_spread(Ranking(ranking.rows[:0], similarity[:0])) == 0


QUERIES = [f"query {n % 12}" for n in range(200)]
DAYS = np.array(["mon"] * 80 + ["tue"] * 120)


def tuned(
    recalls: Callable[[np.ndarray], np.ndarray | float], num_trials: int = 20, queries: list[str] = QUERIES
) -> TunedWeights:
    def every(weights: np.ndarray, is_asked: np.ndarray) -> np.ndarray:
        return np.where(is_asked, recalls(weights), np.nan)

    return tune_weights(WeightSpace(qualities(1, 50, 2), 1.0), every, queries, DAYS[: len(queries)], num_trials)


@cache
def fold_of_query() -> dict[str, int]:
    """The fold of each query: where it alone is ever found, the recall of the other folds is 0."""
    found = {}
    for query in sorted(set(QUERIES)):
        alone = np.array([1.0 if other == query else 0.0 for other in QUERIES])
        trials = tuned(lambda weights, alone=alone: alone, 1).trials
        (found[query],) = [trial["fold"] for trial in trials if trial["recall"] == 0]
    return found


def test_a_query_is_tuned_on_or_held_out() -> None:
    assert sorted(set(fold_of_query().values())) == [0, 1, 2]


def test_requests_that_do_not_count_are_not_asked() -> None:
    """Those that are held out in the trials, and those that a fold's weights were tuned on after them."""
    asked: list[np.ndarray] = []

    def noted(weights: np.ndarray, is_asked: np.ndarray) -> np.ndarray:
        asked.append(is_asked)
        return np.where(is_asked, 0.5 + weights[0], np.nan)

    tune_weights(WeightSpace(qualities(1, 50, 2), 1.0), noted, QUERIES, DAYS, 4)
    fold = np.array([fold_of_query()[query] for query in QUERIES])
    expected = [fold != number for number in range(3) for _ in range(4)]
    expected += [fold == number for _ in SCALES for number in range(3)]
    np.testing.assert_array_equal(asked, expected)


def test_weights_that_help_are_found() -> None:
    """The best are near (0.06, 0): as much of the first as that, and nothing of the second."""
    found = tuned(lambda weights: 0.8 - abs(weights[0] - 0.06) - weights[1], 25)
    assert found.scale == 1
    assert found.weights[0] == pytest.approx(0.06, abs=0.015)
    assert found.weights[1] < 0.01
    assert len(found.trials) == 75
    assert found.trials[0]["weights"] == [0, 0]
    assert max(trial["recall"] for trial in found.trials) > found.trials[0]["recall"] + 0.04
    assert [row["scale"] for row in found.held_out] == list(SCALES)
    best = [max((t for t in found.trials if t["fold"] == fold), key=lambda t: t["recall"]) for fold in range(3)]
    np.testing.assert_allclose(found.best, np.mean([trial["weights"] for trial in best], axis=0))


def test_recall_is_the_mean_of_days() -> None:
    found = tuned(lambda weights: np.where(DAYS == "mon", 1.0, 0.0), 1)
    assert [trial["recall"] for trial in found.trials] == [0.5] * 3
    assert [row["recall"] for row in found.held_out] == [0.5] * 5


def test_weights_that_only_fit_what_they_were_tuned_on_are_given_up() -> None:
    """Each request has weights of its own that help it by chance; the best of them for some are nothing for others."""
    rng = np.random.default_rng(5)
    lucky = rng.random((200, 2)) * 0.1

    def by_chance(weights: np.ndarray) -> np.ndarray:
        is_near = (np.abs(lucky - weights) < 0.02).all(axis=1)
        return np.where(is_near, 1.0, 0.5 - (0.1 if weights.any() else 0.0))

    found = tuned(by_chance)
    assert all(max(t["recall"] for t in found.trials if t["fold"] == fold) >= 0.5 for fold in range(3))
    assert found.scale == 0
    assert not found.weights.any()


def test_a_gain_within_its_standard_error_is_none() -> None:
    """One request in two hundred is found, and none is lost: that may be chance. Ten are not."""
    for number, expected in ((1, 0), (10, 1)):
        helped = np.arange(200) % (200 // number) == 0
        found = tuned(lambda weights, helped=helped: 0.5 + helped * min(1.0, 20 * weights[0]), 12)
        assert (found.scale > 0) == expected, number
        assert found.best.any()


def test_half_of_the_weights_may_be_better_elsewhere() -> None:
    """Weights that pay on the requests they are tuned on, up to a point on all."""
    fold = np.array([fold_of_query()[query] for query in QUERIES])
    state = {"fold": 0, "calls": 0}
    num_trials = 12

    def halfway(weights: np.ndarray) -> np.ndarray:
        """Calls of a fold's trials see its own side; after them, held-out requests lose beyond half."""
        number = min(state["calls"] // num_trials, 3)
        state["calls"] += 1
        total = sum(weights)
        elsewhere = -abs(total - 0.05)
        return 0.8 + (np.where(fold == number, elsewhere, total) if number < 3 else np.full(200, elsewhere))

    found = tuned(halfway, num_trials)
    assert 0 < found.scale < 1
    np.testing.assert_array_equal(found.weights, found.scale * found.best)


def test_where_nothing_matters_there_is_no_boost() -> None:
    found = tuned(lambda weights: 0.5, 12)
    assert found.scale == 0
    assert not found.weights.any()


@pytest.mark.parametrize("num_trials", [1, 4, 5, 16])
def test_few_trials(num_trials: int) -> None:
    assert len(tuned(lambda weights: 0.5 + weights[0], num_trials).trials) == 3 * num_trials


@pytest.mark.parametrize("number", [2, 5])
def test_one_query_is_split_by_its_requests(number: int) -> None:
    found = tuned(lambda weights: 0.5 + weights[0], 3, ["ring"] * number)
    assert {trial["fold"] for trial in found.trials} == set(range(min(3, number)))
    assert found.scale == 0, "one query is no evidence, however often it was asked"


def test_the_same_again() -> None:
    one, other = (tuned(lambda weights: 0.8 - abs(weights[0] - 0.06) - weights[1], 16) for _ in range(2))
    assert one.trials == other.trials
