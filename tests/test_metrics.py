"""Recall@K and its mean over days, against loops written from the definition."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uepp.metrics import mean_over_days, paired_interval, recall_at, target_positions


def recall_oracle(ranking: list[list[int]], targets: list[list[int]], k: int) -> list[float]:
    """Σ_{t ∈ T} 1[t ∈ R] / |T| with R the first k results; -1 is no product, on either side."""
    values = []
    for results, wanted in zip(ranking, targets, strict=True):
        found = 0
        for target in wanted:
            for result in results[:k]:
                if result == target and result != -1:
                    found += 1
        values.append(found / len(wanted) if wanted else math.nan)
    return values


def recall(ranking: list[list[int]], targets: list[list[int]], k: int) -> list[float]:
    request = np.array([row for row, wanted in enumerate(targets) for _ in wanted], np.int64)
    target = np.array([product for wanted in targets for product in wanted], np.int64)
    positions = target_positions(np.array(ranking, np.int64), request, target)
    return recall_at(k, positions, request, len(targets)).tolist()


def test_positions_are_places_in_the_ranking_of_the_own_request() -> None:
    ranking = np.array([[4, 7, 1], [1, 4, -1]])
    positions = target_positions(ranking, np.array([0, 0, 0, 1, 1, 1]), np.array([4, 1, 9, 1, 4, 7]))
    assert positions[[0, 1, 3, 4]].tolist() == [0, 2, 0, 1]
    assert all(positions[[2, 5]] >= ranking.shape[1])


def test_recall_is_the_share_of_a_requests_targets() -> None:
    ranking = [[5, 6, 7, 8], [5, 6, 7, 8]]
    targets = [[6, 8, 1, 2], [7]]
    assert recall(ranking, targets, 1) == [0.0, 0.0]
    assert recall(ranking, targets, 2) == [0.25, 0.0]
    assert recall(ranking, targets, 4) == [0.5, 1.0]


def test_a_request_without_results_scores_0() -> None:
    assert recall([[-1, -1], [3, -1]], [[3], [3]], 2) == [0.0, 1.0]
    nothing = target_positions(np.empty((1, 0), np.int64), np.array([0]), np.array([3]))
    assert recall_at(10, nothing, np.array([0]), 1).tolist() == [0.0]


def test_a_product_that_the_catalogue_lacks_never_matches_the_padding() -> None:
    ranking = [[3, -1, -1]]
    assert recall(ranking, [[-1]], 3) == [0.0]
    assert recall(ranking, [[3, -1]], 3) == [0.5]


def test_k_may_exceed_the_ranking() -> None:
    """A target that was not found must not turn into a hit when more results count than were ranked."""
    assert recall([[3, 4]], [[4, 9]], 1_000) == [0.5]


def test_a_request_without_targets_has_no_recall() -> None:
    values = recall([[3], [3]], [[], [3]], 1)
    assert math.isnan(values[0])
    assert values[1] == 1.0


def test_no_requests_and_no_pairs() -> None:
    empty = np.array([], np.int64)
    assert target_positions(np.empty((0, 5), np.int64), empty, empty).shape == (0,)
    assert recall_at(5, empty, empty, 0).shape == (0,)


def test_many_pairs_are_compared_in_parts() -> None:
    """Wide rankings are compared 20 million cells at a time; the parts must join without a seam."""
    width, num_pairs = 400_000, 120
    ranking = np.arange(width)[None]
    target = np.random.default_rng(1).integers(0, width, num_pairs)
    assert width * num_pairs > 2 * 20_000_000
    assert target_positions(ranking, np.zeros(num_pairs, np.int64), target).tolist() == target.tolist()


@st.composite
def _rankings(draw: st.DrawFn) -> tuple[list[list[int]], list[list[int]], int]:
    num_products, width = draw(st.integers(1, 8)), draw(st.integers(1, 10))
    ranking, targets = [], []
    for _ in range(draw(st.integers(1, 5))):
        order = draw(st.permutations(range(num_products)))
        kept = order[: draw(st.integers(0, min(width, num_products)))]
        ranking.append([*kept, *[-1] * (width - len(kept))])
        known = draw(st.lists(st.integers(0, num_products), unique=True, max_size=4))
        targets.append(known + [-1] * draw(st.integers(0, 2)))
    return ranking, targets, draw(st.integers(1, 12))


@settings(max_examples=200, deadline=None)
@given(_rankings())
def test_recall_is_the_oracle(case: tuple[list[list[int]], list[list[int]], int]) -> None:
    ranking, targets, k = case
    np.testing.assert_allclose(recall(ranking, targets, k), recall_oracle(ranking, targets, k))


@settings(max_examples=50, deadline=None)
@given(_rankings(), st.randoms(use_true_random=False))
def test_the_order_of_pairs_does_not_matter(case: tuple[list[list[int]], list[list[int]], int], random: object) -> None:
    ranking, targets, k = case
    shuffled = [list(wanted) for wanted in targets]
    for wanted in shuffled:
        random.shuffle(wanted)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(recall(ranking, targets, k), recall(ranking, shuffled, k))


def test_recall_is_that_of_ir_measures() -> None:
    ir_measures = pytest.importorskip("ir_measures")
    rng = np.random.default_rng(3)
    ranking = np.stack([rng.permutation(60)[:20] for _ in range(40)])
    targets = [rng.choice(60, rng.integers(1, 6), replace=False).tolist() for _ in range(40)]
    judged = [ir_measures.Qrel(str(row), str(product), 1) for row, wanted in enumerate(targets) for product in wanted]
    run = [
        ir_measures.ScoredDoc(str(row), str(product), -float(place))
        for row, results in enumerate(ranking.tolist())
        for place, product in enumerate(results)
    ]
    for k in (1, 5, 20):
        measured = {int(m.query_id): m.value for m in ir_measures.iter_calc([ir_measures.R @ k], judged, run)}
        ours = recall(ranking.tolist(), targets, k)
        assert 0 < np.mean(ours) < 1
        np.testing.assert_allclose(ours, [measured[row] for row in range(40)])


def mean_over_days_oracle(values: list[float], days: list[str]) -> float:
    daily = []
    for day in sorted(set(days)):
        own = [value for value, label in zip(values, days, strict=True) if label == day and not math.isnan(value)]
        if own:
            daily.append(sum(own) / len(own))
    return sum(daily) / len(daily) if daily else math.nan


def test_each_day_weighs_the_same() -> None:
    assert mean_over_days(np.array([1.0, 0.0, 0.0, 0.0, 1.0]), np.array(list("aaaab"))) == pytest.approx(0.625)


def test_days_without_a_value_are_left_out() -> None:
    values = np.array([np.nan, np.nan, 0.5, np.nan])
    assert mean_over_days(values, np.array(["a", "a", "b", "b"])) == 0.5
    assert math.isnan(mean_over_days(values[:2], np.array(["a", "a"])))
    assert math.isnan(mean_over_days(np.array([]), np.array([], str)))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.one_of(st.just(math.nan), st.floats(0, 1)), st.sampled_from("abcd")), max_size=12))
def test_the_mean_over_days_is_the_oracle(pairs: list[tuple[float, str]]) -> None:
    values, days = [value for value, _ in pairs], [day for _, day in pairs]
    expected = mean_over_days_oracle(values, days)
    np.testing.assert_allclose(mean_over_days(np.array(values), np.array(days, str)), expected)


def test_the_interval_of_a_paired_difference() -> None:
    rng = np.random.default_rng(3)
    day = np.array(["mon"] * 300 + ["tue"] * 100)
    values = rng.choice([-1.0, 0.0, 1.0], 400, p=[0.1, 0.7, 0.2])
    low, high = paired_interval(values, day)
    # Its width is that of the normal approximation: the mean of two days' means.
    error = math.sqrt(sum(values[day == one].var() / (day == one).sum() for one in ("mon", "tue"))) / 2
    middle = mean_over_days(values, day)
    assert low < middle < high
    np.testing.assert_allclose([low, high], [middle - 1.96 * error, middle + 1.96 * error], atol=0.15 * error)
    assert paired_interval(values, day) == (low, high)
    narrow = paired_interval(values, day, confidence=0.5)
    assert low < narrow[0] < middle < narrow[1] < high


def test_an_interval_leaves_out_what_has_no_value() -> None:
    day = np.array(["mon", "mon", "tue", "wed"])
    assert paired_interval(np.array([0.25, np.nan, 0.75, np.nan]), day) == (0.5, 0.5)
    assert all(math.isnan(end) for end in paired_interval(np.full(4, np.nan), day))
    assert all(math.isnan(end) for end in paired_interval(np.array([]), np.array([], str)))
