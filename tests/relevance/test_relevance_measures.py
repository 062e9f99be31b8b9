"""Pair-wise measures against their definitions."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uepp.relevance.measures import correlations, pair_auroc, query_ndcg

VALUES = st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 4)), min_size=2, max_size=12)


def pearson(x: list[float], y: list[float]) -> float:
    dx, dy = ([value - sum(values) / len(values) for value in values] for values in (x, y))
    return sum(a * b for a, b in zip(dx, dy, strict=True)) / math.sqrt(sum(a * a for a in dx) * sum(b * b for b in dy))


def ranks(values: list[float]) -> list[float]:
    """Mean of the places that values take, equal ones together."""
    return [sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2
            for value in values]  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(VALUES)
def test_correlations_are_their_definitions(pairs: list[tuple[int, int]]) -> None:
    x, y = ([float(value) for value in column] for column in zip(*pairs, strict=True))
    found = correlations(x, y, np.array(y) >= 2)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert math.isnan(found.pearson)
        assert math.isnan(found.spearman)
    else:
        assert found.pearson == pytest.approx(pearson(x, y), abs=1e-9)
        assert found.spearman == pytest.approx(pearson(ranks(x), ranks(y)), abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(VALUES)
def test_auroc_counts_pairs_of_pairs(pairs: list[tuple[int, int]]) -> None:
    scores, is_positive = [score for score, _ in pairs], [grade >= 2 for _, grade in pairs]
    wins = [(score > other) + (score == other) / 2
            for score, positive in zip(scores, is_positive, strict=True) if positive
            for other, is_other in zip(scores, is_positive, strict=True) if not is_other]  # fmt: skip
    found = pair_auroc(scores, is_positive)
    assert math.isnan(found) if not wins else found == pytest.approx(sum(wins) / len(wins))


def test_ndcg_by_hand() -> None:
    """Query 0 is in the best order; query 7 has its only relevant product at the second of three places."""
    query = np.array([7, 0, 7, 0, 7])
    gains, scores = [0.1, 0.0, 1.0, 1.0, 0.0], [5.0, 1.0, 2.0, 3.0, -1.0]
    second = (0.1 + 1 / math.log2(3)) / (1 + 0.1 / math.log2(3))
    assert query_ndcg(scores, gains, query, 5) == pytest.approx((1 + second) / 2)
    assert query_ndcg(scores, gains, query, 1) == pytest.approx((1 + 0.1) / 2)


def test_who_says_the_same_of_all_is_not_rewarded() -> None:
    query, gains = np.zeros(4, np.int64), np.array([1.0, 0.1, 0.0, 1.0])
    worst = query_ndcg(-gains, gains, query, 5)
    assert query_ndcg(np.zeros(4), gains, query, 5) == pytest.approx(worst)
    assert worst < query_ndcg(gains, gains, query, 5) == 1


def test_a_query_without_gains_is_left_out() -> None:
    assert query_ndcg([1.0, 2.0, 3.0], [1.0, 0.0, 0.0], np.array([0, 1, 1]), 5) == 1
