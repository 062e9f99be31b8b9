"""LambdaMART on lists whose truth is known, and that what is held out is not seen."""

import math
import sys

import numpy as np
import pytest

from uepp.config import RankerConfig
from uepp.errors import InputError
from uepp.metrics import ndcg_at, target_positions
from uepp.relevance import ranker
from uepp.relevance.ranker import NUM_FOLDS, Lists, by_scores, train_ranker

NUM_REQUESTS, NUM_LISTED = 150, 12
NAMES = ("noise", "telling", "more noise")
SETTINGS = RankerConfig(min_products_in_leaf=10, max_trees=60, patience=10)


def make_lists(seed: int, *, is_random: bool = False) -> Lists:
    """The product with the highest second feature is bought; or any, whatever its features."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((NUM_REQUESTS, NUM_LISTED, len(NAMES))).astype(np.float32)
    is_there = np.ones((NUM_REQUESTS, NUM_LISTED), bool)
    is_there[::4, 9:] = False
    features[~is_there] = np.nan
    worth = rng.standard_normal(is_there.shape) if is_random else features[..., 1]
    best = np.argmax(np.where(is_there, worth, -np.inf), axis=1)
    is_bought = np.zeros_like(is_there)
    is_bought[np.arange(NUM_REQUESTS), best] = True
    is_bought[::10] = False  # what they bought was not found
    return Lists(features, is_there, is_bought, [f"query {n % 60}" for n in range(NUM_REQUESTS)])


def ndcg(lists: Lists, scores: np.ndarray) -> float:
    request, product = np.nonzero(lists.is_bought)
    ranking = by_scores(scores, lists.is_there)
    return float(np.nanmean(ndcg_at(10, target_positions(ranking, request, product), request, NUM_REQUESTS)))


def scored(model: str, features: np.ndarray) -> np.ndarray:
    booster = ranker.load_lightgbm().Booster(model_str=model)
    return booster.predict(features.reshape(-1, len(NAMES)), num_threads=1).reshape(features.shape[:2])


def test_it_orders_by_the_feature_that_tells() -> None:
    trained = train_ranker(make_lists(1), NAMES, SETTINGS, seed=3)
    new = make_lists(2)
    assert ndcg(new, new.features[..., 1]) == 1
    assert ndcg(new, scored(trained.model, new.features)) > 0.9
    assert ndcg(new, new.features[..., 0]) < 0.7
    assert trained.gains["telling"] > 0.8
    assert sum(trained.gains.values()) == pytest.approx(1)
    assert 1 <= trained.num_rounds <= SETTINGS.max_trees


def test_held_out_scores_are_of_models_that_have_not_seen_the_query() -> None:
    """Where nothing can be learned a model fits what it has seen, and guesses the rest."""
    lists = make_lists(4, is_random=True)
    greedy = RankerConfig(min_products_in_leaf=1, max_trees=40, patience=40, num_leaves=31, learning_rate=0.3, l2=0)
    trained = train_ranker(lists, NAMES, greedy, seed=1)
    chance = np.mean([
        sum(1 / math.log2(rank + 1) for rank in range(1, min(10, size) + 1)) / size
        for size in lists.is_there[lists.is_bought.any(axis=1)].sum(axis=1)
    ])  # fmt: skip
    assert ndcg(lists, trained.held_out) == pytest.approx(chance, abs=0.08)
    assert ndcg(lists, scored(trained.model, lists.features)) > chance + 0.2
    np.testing.assert_array_equal(np.isnan(trained.held_out), ~lists.is_there)


def test_held_out_scores_do_not_change_with_what_was_bought_there() -> None:
    """The fold of a query depends on its text; its own purchases are unknown to the model that scores it."""
    lists = make_lists(5)
    is_own = np.array([query == "query 7" for query in lists.queries])
    assert lists.is_telling[is_own].any()
    changed = lists.is_bought.copy()
    changed[is_own] = np.roll(changed[is_own], 1, axis=1) & lists.is_there[is_own]
    assert (changed != lists.is_bought).any()
    single = RankerConfig(min_products_in_leaf=10, max_trees=1)
    one, other = (
        train_ranker(lists._replace(is_bought=bought), NAMES, single, 1) for bought in (lists.is_bought, changed)
    )
    np.testing.assert_array_equal(one.held_out[is_own], other.held_out[is_own])
    assert (one.held_out[~is_own] != other.held_out[~is_own]).any()


def test_the_same_lists_and_seed_give_the_same_ranker() -> None:
    lists = make_lists(6)
    one, two = (train_ranker(lists, NAMES, SETTINGS.model_copy(update={"threads": n}), seed=2) for n in (1, 2))
    np.testing.assert_array_equal(one.held_out, two.held_out)
    np.testing.assert_array_equal(scored(one.model, lists.features), scored(two.model, lists.features))
    other = train_ranker(lists, NAMES, SETTINGS, seed=3)
    assert (scored(other.model, lists.features) != scored(one.model, lists.features)).any()


def test_any_name_of_a_column_will_do() -> None:
    """LightGBM turns blanks into _ and refuses JSON's characters: so its columns have numbers, and we the names."""
    names = ("quality_star rating", 'quality_{"x": [1, 2]}', "quality_ß:,")
    trained = train_ranker(make_lists(1), names, SETTINGS, seed=3)
    assert trained.gains.keys() == set(names)
    assert trained.gains[names[1]] > 0.8
    plain = train_ranker(make_lists(1), NAMES, SETTINGS, seed=3)
    assert plain.model == trained.model, "names decide nothing"


def test_missing_products_go_last_and_ties_stay() -> None:
    scores = np.array([[1.0, 3.0, 3.0, 9.0], [np.nan, 0.0, 1.0, 0.0]])
    is_there = np.array([[True, True, True, False], [False, True, True, True]])
    assert by_scores(scores, is_there).tolist() == [[1, 2, 0, 3], [2, 1, 3, 0]]


def test_too_few_queries_are_refused() -> None:
    lists = make_lists(1)
    is_bought = lists.is_bought.copy()
    is_bought[NUM_FOLDS - 1 :] = False
    with pytest.raises(InputError, match=r"3 queries of the selection window have a bought product .* at least 5"):
        train_ranker(lists._replace(is_bought=is_bought), NAMES, SETTINGS, 1)


def test_a_list_of_what_was_bought_alone_tells_nothing() -> None:
    lists = make_lists(1)
    everything = lists._replace(is_bought=lists.is_there)
    assert not everything.is_telling.any()
    assert lists.is_telling.sum() == NUM_REQUESTS * 9 // 10


def test_without_the_library_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(InputError, match=r'^the final ranker needs lightgbm: pip install "uepp\[rank\]"$'):
        train_ranker(make_lists(1), NAMES, SETTINGS, 1)
