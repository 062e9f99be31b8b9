"""Measures of given lists against loops written from the definitions."""

import math

import numpy as np
import pytest

from uepp.evaluation.measures import measure
from uepp.evaluation.requests import Requests, Targets
from uepp.evaluation.reranking import measure_lists, measure_names
from uepp.evaluation.segments import Segments
from uepp.evaluation.slices import Slices, slices_of
from uepp.features.requests import RawRequests

NUM_REQUESTS, NUM_PRODUCTS, WIDTH, KS = 40, 30, 8, (1, 3, 5)


def make() -> tuple[Requests, Slices, np.ndarray]:
    """Requests with up to three purchases, some of which are not in the catalogue, and lists, some of them short."""
    rng = np.random.default_rng(3)
    ranking = np.stack([rng.permutation(NUM_PRODUCTS)[:WIDTH] for _ in range(NUM_REQUESTS)])
    for number in range(0, NUM_REQUESTS, 5):
        ranking[number, WIDTH - 1 - number // 10 :] = -1
    pairs = [
        (request, int(product))
        for request in range(NUM_REQUESTS)
        for product in {*rng.integers(-1, NUM_PRODUCTS, request % 3).tolist(), *ranking[request, :1].tolist()}
    ]
    targets = Targets(np.array([request for request, _ in pairs]), np.array([product for _, product in pairs]))
    day = np.array(["mon", "tue"])[np.arange(NUM_REQUESTS) % 2]
    seen = np.full(NUM_REQUESTS, NUM_PRODUCTS)
    raw = RawRequests([f"q{number}" for number in range(NUM_REQUESTS)])
    requests = Requests(raw, day, seen, targets, rng.random(len(pairs)) < 0.3, rng.random(NUM_REQUESTS) < 0.5)
    shuffled = ranking.copy()
    for row in shuffled:
        row[row >= 0] = rng.permutation(row[row >= 0])
    labels = np.array(["head", "torso", "tail", "tail"] * (NUM_REQUESTS // 4))
    return requests, slices_of(requests, Segments(labels, "by hand")), shuffled


def oracle(ranking: list[int], wanted: list[int], top: int) -> dict[str, float]:
    found = [product for product in ranking if product >= 0]
    places = [found.index(product) for product in wanted if product in found]
    ranked = [place for place in places if place < top]
    values = {f"mrr@{top}": 1 / (1 + min(ranked)) if ranked else 0.0}
    for k in KS:
        hits = [place for place in places if place < k]
        ideal = sum(1 / math.log2(2 + place) for place in range(min(k, len(wanted))))
        values[f"ndcg@{k}"] = sum(1 / math.log2(2 + place) for place in hits) / ideal
        values[f"precision@{k}"] = len(hits) / k
    for k in (*KS, top):
        values[f"recall@{k}"] = sum(place < k for place in places) / len(wanted)
    others = [place for place in range(min(top, len(found))) if place not in places]
    pairs = [place < other for place in ranked for other in others]
    values[f"auc@{top}"] = sum(pairs) / len(pairs) if pairs else math.nan
    return values


@pytest.mark.parametrize("top", [2, 4, WIDTH])
def test_measures_are_those_of_the_definitions(top: int) -> None:
    requests, slices, ranking = make()
    measured = measure_lists(ranking, requests, slices, KS, top)
    is_new = ~requests.is_repeat
    num_nan = 0
    for name, is_wanted in (("all", np.ones_like(is_new)), ("non_repeat", is_new)):
        for row in range(NUM_REQUESTS):
            is_own = (requests.targets.request == row) & is_wanted
            wanted = requests.targets.product_index[is_own].tolist()
            values = {key: column[row] for key, column in measured.values[name].items()}
            if wanted:
                assert values == pytest.approx(oracle(ranking[row].tolist(), wanted, top), nan_ok=True)
                num_nan += math.isnan(values[f"auc@{top}"])
            else:
                assert all(math.isnan(value) for value in values.values())
    assert num_nan, "there are requests whose purchases were not found"
    assert list(measured.values["all"])[: len(measure_names(KS, top))] == measure_names(KS, top)


def test_what_both_have_is_what_an_evaluation_measures() -> None:
    requests, slices, ranking = make()
    by_query = dict(zip(requests.queries, ranking, strict=True))

    class Fixed:
        def rank(self, requests: RawRequests, k: int, num_products: int) -> np.ndarray:
            return np.stack([by_query[query] for query in requests.queries])

    ours = measure_lists(ranking, requests, slices, KS, WIDTH)
    theirs = measure(Fixed(), requests, slices, (*KS, WIDTH))
    for name, values in ours.values.items():
        both = values.keys() & theirs.values[name].keys()
        assert len(both) == 3 * len(KS) + 2
        for key in both:
            np.testing.assert_allclose(values[key], theirs.values[name][key], err_msg=key)


def test_the_order_alone_changes_auc_and_not_recall_of_all() -> None:
    requests, slices, ranking = make()
    best = ranking.copy()
    for row, products in enumerate(best):
        wanted = set(requests.targets.product_index[requests.targets.request == row].tolist())
        best[row] = sorted(products.tolist(), key=lambda product: (product < 0, product not in wanted))
    before, after = (measure_lists(one, requests, slices, KS, WIDTH).values["all"] for one in (ranking, best))
    np.testing.assert_array_equal(before[f"recall@{WIDTH}"], after[f"recall@{WIDTH}"])
    assert set(after[f"auc@{WIDTH}"][~np.isnan(after[f"auc@{WIDTH}"])]) == {1.0}
    assert np.nanmean(before[f"auc@{WIDTH}"]) < 0.8
