"""Measures, their means over days, intervals and tests, against loops written from the definition."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uepp.metrics import (
    NOT_FOUND,
    Part,
    auroc,
    direction,
    mean_over_days,
    middle,
    ndcg_at,
    paired_interval,
    paired_p_values,
    precision_at,
    recall_at,
    reciprocal_rank,
    resampled_means,
    target_positions,
)


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
    alone = np.arange(400)
    low, high = paired_interval(values, day, alone)
    # Its width is that of the normal approximation: the mean of two days' means.
    error = math.sqrt(sum(values[day == one].var() / (day == one).sum() for one in ("mon", "tue"))) / 2
    mean = mean_over_days(values, day)
    assert low < mean < high
    np.testing.assert_allclose([low, high], [mean - 1.96 * error, mean + 1.96 * error], atol=0.2 * error)
    assert paired_interval(values, day, alone) == (low, high)
    narrow = paired_interval(values, day, alone, confidence=0.5)
    assert low < narrow[0] < mean < narrow[1] < high


def test_requests_of_one_query_are_drawn_together() -> None:
    """Four copies of each request say no more than one: the interval is as wide, where alone it would be half of it."""
    rng = np.random.default_rng(3)
    day, values = np.array(["mon"] * 100), rng.standard_normal(100)
    one = np.subtract(*paired_interval(values, day, np.arange(100)))
    copied, days, query = np.tile(values, 4), np.tile(day, 4), np.tile(np.arange(100), 4).astype(str)
    np.testing.assert_allclose(np.subtract(*paired_interval(copied, days, query)), one, rtol=0.1)
    np.testing.assert_allclose(np.subtract(*paired_interval(copied, days, np.arange(400))), one / 2, rtol=0.1)
    table = 0.15 + values[:, np.newaxis]
    ((p_value,), (p_copied,)) = (
        paired_p_values(*of) for of in ((table, day, query[:100]), (np.tile(table, (4, 1)), days, query))
    )
    assert p_copied == pytest.approx(p_value, abs=0.02)
    assert paired_p_values(np.tile(table, (4, 1)), days, np.arange(400))[0] < p_value / 2


def test_an_interval_leaves_out_what_has_no_value() -> None:
    rng = np.random.default_rng(3)
    day, values = np.repeat(["mon", "tue"], 20), rng.random(40)
    padded = np.insert(values, [0, 25, 40], np.nan)
    days = np.concatenate([["wed"], day[:25], ["tue"], day[25:], ["wed"]])
    assert paired_interval(padded, days, np.arange(43)) == paired_interval(values, day, np.arange(40))
    assert all(math.isnan(end) for end in paired_interval(np.full(4, np.nan), day[:4], np.arange(4)))
    assert all(math.isnan(end) for end in paired_interval(np.array([]), np.array([], str), np.array([])))


# Measures beside recall


def by_measure(k: int, ranking: list[list[int]], targets: list[list[int]]) -> dict[str, list[float]]:
    request = np.array([row for row, wanted in enumerate(targets) for _ in wanted], np.int64)
    target = np.array([product for wanted in targets for product in wanted], np.int64)
    positions = target_positions(np.array(ranking, np.int64), request, target)
    size = len(targets)
    return {
        "precision": precision_at(k, positions, request, size).tolist(),
        "mrr": reciprocal_rank(k, positions, request, size).tolist(),
        "ndcg": ndcg_at(k, positions, request, size).tolist(),
    }


def measures_oracle(k: int, ranking: list[list[int]], targets: list[list[int]]) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {"precision": [], "mrr": [], "ndcg": []}
    for results, wanted in zip(ranking, targets, strict=True):
        if not wanted:
            for column in values.values():
                column.append(math.nan)
            continue
        hits = [result != -1 and result in wanted for result in results[:k]]
        values["precision"].append(sum(hits) / k)
        values["mrr"].append(1 / (hits.index(True) + 1) if any(hits) else 0.0)
        ideal = sum(1 / math.log2(2 + place) for place in range(min(k, len(wanted))))
        values["ndcg"].append(sum(1 / math.log2(2 + place) for place, hit in enumerate(hits) if hit) / ideal)
    return values


@settings(max_examples=200, deadline=None)
@given(_rankings())
def test_the_other_measures_are_the_oracle(case: tuple[list[list[int]], list[list[int]], int]) -> None:
    ranking, targets, k = case
    found, expected = by_measure(k, ranking, targets), measures_oracle(k, ranking, targets)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, err_msg=name)


def test_measures_are_those_of_ir_measures_with_ties_and_grades() -> None:
    """Scores are tied; names are such that trec_eval breaks ties as we do, by product index.

    Reciprocal ranks come from another library there, which breaks them in another way: it gets the places.
    """
    ir_measures = pytest.importorskip("ir_measures")
    rng = np.random.default_rng(4)
    num_requests, num_products, width = 50, 60, 20
    scores = rng.integers(0, 6, (num_requests, num_products)).astype(float)
    order = np.lexsort((np.broadcast_to(np.arange(num_products), scores.shape), -scores))[:, :width]
    assert (np.diff(np.sort(scores, axis=1), axis=1) == 0).mean() > 0.8, "ties"
    grades = [
        dict(
            zip(rng.choice(num_products, size, replace=False).tolist(), rng.integers(1, 5, size).tolist(), strict=True)
        )
        for size in rng.integers(1, 9, num_requests)
    ]

    def name(product: int) -> str:
        return f"p{num_products - product:03}"  # trec_eval puts the last name first

    judged = [
        ir_measures.Qrel(str(row), name(product), grade)
        for row, of_request in enumerate(grades)
        for product, grade in of_request.items()
    ]
    run = [
        ir_measures.ScoredDoc(str(row), name(product), scores[row, product])
        for row, results in enumerate(order.tolist())
        for product in results
    ]
    places = [
        ir_measures.ScoredDoc(str(row), name(product), -float(place))
        for row, results in enumerate(order.tolist())
        for place, product in enumerate(results)
    ]
    request = np.array([row for row, of_request in enumerate(grades) for _ in of_request])
    target = np.array([product for of_request in grades for product in of_request])
    gains = np.array([grade for of_request in grades for grade in of_request.values()], float)
    positions = target_positions(order, request, target)
    measures = {"P": precision_at, "R": recall_at, "RR": reciprocal_rank}
    for k in (1, 5, 20):
        pairs = [(getattr(ir_measures, name) @ k, of) for name, of in measures.items()]
        for theirs, ours in [*pairs, (ir_measures.nDCG @ k, lambda *all_: ndcg_at(*all_, gains))]:
            given = places if theirs.NAME == "RR" else run
            measured = {int(one.query_id): one.value for one in ir_measures.iter_calc([theirs], judged, given)}
            values = ours(k, positions, request, num_requests)
            assert 0 < np.mean(values) < 1
            np.testing.assert_allclose(values, [measured[row] for row in range(num_requests)], err_msg=str(theirs))


def test_ndcg_without_any_gain_has_no_value() -> None:
    positions, request = np.array([0, 1]), np.array([0, 2])
    values = ndcg_at(5, positions, request, 3, np.array([0.0, 2.0]))
    assert np.isnan(values[:2]).all()
    assert values[2] == pytest.approx(1 / math.log2(3))


def auroc_oracle(results: list[int], wanted: list[int], num_products: int) -> float:
    """All pairs of a target and a product that is none; what is not listed is tied behind the last result."""
    listed = [result for result in results if result != -1]
    others = [product for product in range(num_products) if product not in wanted]
    if not wanted or not others:
        return math.nan
    wins = 0.0
    for target in wanted:
        for other in others if 0 <= target < num_products else []:
            here, there = (listed.index(one) if one in listed else len(listed) for one in (target, other))
            wins += 1.0 if here < there else 0.5 if here == there else 0.0
    return wins / (len(wanted) * len(others))


@settings(max_examples=200, deadline=None)
@given(_rankings(), st.integers(8, 12))
def test_auroc_is_the_oracle(case: tuple[list[list[int]], list[list[int]], int], num_products: int) -> None:
    ranking, targets, _ = case
    request = np.array([row for row, wanted in enumerate(targets) for _ in wanted], np.int64)
    target = np.array([product for wanted in targets for product in wanted], np.int64)
    table = np.array(ranking)
    positions = target_positions(table, request, target)
    sizes = np.full(len(targets), num_products)
    is_there = (target >= 0) & (target < num_products)
    found = auroc(positions, is_there, request, (table >= 0).sum(axis=1), sizes)
    expected = [auroc_oracle(*pair, num_products) for pair in zip(ranking, targets, strict=True)]
    np.testing.assert_allclose(found, expected)


def test_auroc_of_a_whole_ranking_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(5)
    ranking = np.stack([rng.permutation(30) for _ in range(6)])
    targets = [rng.choice(30, size, replace=False) for size in (1, 2, 3, 5, 8, 29)]
    request, target = np.repeat(np.arange(6), [len(row) for row in targets]), np.concatenate(targets)
    full = np.full(6, 30)
    found = auroc(target_positions(ranking, request, target), np.ones(len(target), bool), request, full, full)
    expected = [
        roc_auc_score(np.isin(np.arange(30), wanted), -np.argsort(order))
        for order, wanted in zip(ranking, targets, strict=True)
    ]
    np.testing.assert_allclose(found, expected)


def test_auroc_of_who_lists_nothing_is_a_half() -> None:
    positions, request = np.full(3, NOT_FOUND), np.array([0, 0, 1])
    sizes = np.array([10, 10])
    values = auroc(positions, np.array([True, True, False]), request, np.zeros(2, int), sizes)
    assert values.tolist() == [0.5, 0.0]
    assert np.isnan(auroc(np.array([0]), np.array([True]), np.array([0]), np.array([1]), np.array([1]))).all()


# Intervals and tests


def test_resampled_means_are_those_of_weighted_queries() -> None:
    """By a loop with the same weights: each query has one, for its requests of every day."""
    rng = np.random.default_rng(1)
    day = np.array(["a"] * 17 + ["b"] * 11)
    query = np.array(list("xyzxvvwabcdefghij" + "zxuuklmnopq"))
    values = rng.random((28, 3))
    values[2, 1] = values[17:, 1] = np.nan
    (found,) = resampled_means([Part(values, day, query)], num_resamples=50, seed=3)
    names = np.unique(query).tolist()
    weights = np.random.default_rng(3).standard_exponential((50, len(names)))
    for resample in range(50):
        for column in range(3):
            there = [row for row in range(28) if not np.isnan(values[row, column])]
            of_day = [sum(day[row] == day[other] for other in there) for row in there]
            weight = [weights[resample, names.index(query[row])] for row in there]
            expected = np.average(values[there, column], weights=np.array(weight) / of_day)
            np.testing.assert_allclose(found[resample, column], expected)
    some = Part(values[5:, :1], day[5:], query[5:])
    empty = Part(np.full((3, 1), np.nan), np.array(["a"] * 3), np.array(["z"] * 3))
    together = resampled_means([some, empty, Part(values, day, query)], 50, 3)
    np.testing.assert_array_equal(together[2], found)
    without = np.where(np.arange(28)[:, np.newaxis] < 5, np.nan, values[:, :1])
    np.testing.assert_allclose(together[0], resampled_means([Part(without, day, query)], 50, 3)[0])
    assert np.isnan(together[1]).all()


def test_resampled_means_are_not_off_where_days_are_small() -> None:
    """Twenty days of one request each, which all fail, and one of many, which succeed: drawn, some days were absent."""
    day = np.array([f"{number:02}" for number in range(20)] + ["99"] * 200)
    values = np.array([0.0] * 20 + [1.0] * 200)
    assert mean_over_days(values, day) == pytest.approx(1 / 21)
    (found,) = resampled_means([Part(values[:, np.newaxis], day, np.arange(220))])
    assert found.mean() == pytest.approx(1 / 21, rel=0.1)


@pytest.mark.parametrize(("num_days", "a_day"), [(150, 1), (30, 2), (5, 40)])
def test_intervals_hold_the_mean_as_often_as_they_say(num_days: int, a_day: int) -> None:
    """Of days with few queries too: normalised day by day, the interval of 150 days of one query had no width at all.

    The columns are as many experiments, of a paired difference with mean .2.
    """
    rng = np.random.default_rng(8)
    values = rng.choice([-1.0, 0.0, 1.0], (num_days * a_day, 400), p=[0.1, 0.6, 0.3])
    day, query = np.repeat(np.arange(num_days), a_day), np.arange(num_days * a_day)
    low, high = middle(resampled_means([Part(values, day, query)], num_resamples=500)[0])
    assert 0.92 < np.mean((low <= 0.2) & (high >= 0.2)) < 0.97
    needed = 2 * 1.96 * values.mean(axis=0).std()
    np.testing.assert_allclose(np.mean(high - low), needed, rtol=0.1)


def test_few_queries_have_no_interval() -> None:
    """What counts is how many carry the mean: one query alone on a day is half of the mean of two days."""
    rng = np.random.default_rng(9)
    for sizes, is_enough in (([9], False), ([10], True), ([5, 5], True), ([1] * 10, True), ([99, 1], False)):
        day, number = np.repeat(np.arange(len(sizes)), sizes), sum(sizes)
        interval = paired_interval(rng.random(number), day, np.arange(number))
        assert np.isfinite(interval).all() if is_enough else np.isnan(interval).all(), sizes
    # a query's requests are one query; many of them, half of all
    same = np.concatenate([np.zeros(50), np.arange(1, 51)])
    assert np.isnan(paired_interval(rng.random(100), np.zeros(100), same)).all()
    assert np.isfinite(paired_interval(rng.random(100), np.zeros(100), np.arange(100))).all()


def p_value_oracle(differences: list[float], days: list[str]) -> float:
    """Every pattern of signs, by a loop."""
    shares = [difference / days.count(day) / len(set(days)) for difference, day in zip(differences, days, strict=True)]
    observed, reached = abs(sum(shares)), 0
    for pattern in itertools.product((1, -1), repeat=len(shares)):
        reached += abs(sum(sign * share for sign, share in zip(pattern, shares, strict=True))) >= observed - 1e-9
    return reached / 2 ** len(shares)


@pytest.mark.parametrize(
    "column",
    [
        [1.0] * 10,
        [1.0, 1.0, 1.0, -1.0, 0.0, 0.0, 1.0, 1.0, -1.0, 1.0],
        [0.31, -0.22, 0.17, 0.44, -0.05, 0.61, 0.02, -0.13, 0.29, 0.08],
        [0.5, -0.5, 0.5, -0.5, 0.0, 0.0, 0.25, -0.25, 0.0, 0.0],
    ],
    ids=["all better", "few values", "many values", "equal"],
)
def test_p_values_are_shares_of_all_sign_patterns(column: list[float]) -> None:
    days = ["a"] * 6 + ["b"] * 4
    expected = p_value_oracle(column, days)
    # ten times as many requests that do not differ: counted in the means, but without a sign
    table = np.array([column, [-value for value in column]]).T
    padded = np.concatenate([table] + [np.zeros_like(table)] * 19)
    found = paired_p_values(padded, np.array(days * 20), np.arange(200))
    np.testing.assert_allclose(found, expected, atol=0.015)
    np.testing.assert_allclose(paired_p_values(table, np.array(days), np.arange(10)), expected, atol=0.015)
    assert paired_p_values(padded, np.array(days * 20), np.arange(200)).tolist() == found.tolist()
    assert (found > 0).all()


def test_p_values_where_nothing_differs_or_nothing_is_known() -> None:
    table = np.array([[0.0, np.nan, 1.0], [0.0, np.nan, np.nan]])
    found = paired_p_values(table, np.array(["a", "b"]), np.arange(2))
    assert found[0] == 1.0
    assert np.isnan(found[1])
    assert found[2] == 1.0


def test_one_lucky_query_among_many_is_no_direction() -> None:
    """The bootstrap's weights are never 0, so its interval does not hold 0; the test takes it for the chance it is."""
    day, query = np.zeros(1_000), np.arange(1_000)
    for better, expected in ((1, 0), (5, 0), (12, 1)):
        difference = np.zeros((1_000, 1))
        difference[:better] = 1
        interval = paired_interval(difference[:, 0], day, query)
        p_value = float(paired_p_values(difference, day, query)[0])
        assert interval[0] > 0
        assert direction(interval, p_value) == expected
        assert direction((-interval[1], -interval[0]), p_value) == -expected
    assert direction((-0.1, 0.2), 0.01) == 0
    assert direction((0.1, 0.2), 0.2, confidence=0.68) == 1
    assert direction((0.1, 0.2), 0.4, confidence=0.68) == 0
    assert direction((None, None), 0.01) == direction((math.nan, math.nan), 0.01) == 0, "no interval"


def test_p_values_are_uniform_where_systems_are_the_same() -> None:
    """Of 400 comparisons of equal systems, some 5% are significant at 5%: of recall's few values, and of many."""
    rng = np.random.default_rng(6)
    day = np.repeat(["a", "b"], 60)
    for table in (rng.choice([-1.0, 0.0, 1.0], (120, 400), p=[0.2, 0.6, 0.2]), rng.standard_normal((120, 400))):
        p_values = paired_p_values(table, day, np.arange(120), num_flips=999)
        assert 0.02 < np.mean(p_values <= 0.05) < 0.09
        assert 0.4 < np.mean(p_values) < 0.6
