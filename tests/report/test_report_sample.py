"""Which requests the report ranks, and which of them it shows, against slow readings of the rule."""

import numpy as np
import pytest
from reported import NASTY, NUM_PRODUCTS, SYSTEMS, products, requests, sample_of

from uepp.report.examples import POOL_SHARE, choose
from uepp.report.sample import draw, people_of, products_of, rank


def test_a_draw_is_the_same_every_time_and_without_repeats() -> None:
    asked = requests()
    rows = draw(asked, 20)
    assert rows.tolist() == draw(asked, 20).tolist() == sorted(set(rows.tolist()))
    assert len(rows) == 20
    assert draw(asked, 20, seed=2).tolist() != rows.tolist()
    assert draw(asked, 1_000).tolist() == list(range(len(asked)))


def test_ranks_are_those_of_a_search_of_each_request() -> None:
    asked = requests()
    sample = sample_of(asked, products())
    pairs = 0
    for place, row in enumerate(sample.rows.tolist()):
        target = int(asked.targets.product_index[row])
        own = np.flatnonzero(sample.pair == place)
        assert len(own) == (target >= 0), "what the catalogue lacks is no pair"
        for name, system in SYSTEMS.items():
            if name not in sample.rankings or target < 0:
                continue
            num_products = int(asked.num_products[row])
            ranking = system.rank(asked.raw.take(np.array([row])), 30, num_products)[0].tolist()
            expected = ranking.index(target) + 1 if target in ranking else 31
            assert sample.ranks[name][own[0]] == expected
            assert sample.rankings[name][place].tolist() == ranking
            pairs += 1
    assert pairs > 80
    assert max(ranks.max() for ranks in sample.ranks.values()) == 31, "something is not found"


def test_a_small_catalogue_is_ranked_whole() -> None:
    asked = requests()
    sample = rank(SYSTEMS, asked, draw(asked, 10), products())
    assert sample.depth == NUM_PRODUCTS
    assert all(ranking.shape == (10, NUM_PRODUCTS) for ranking in sample.rankings.values())


def test_places_are_read_and_may_be_missing() -> None:
    sample = sample_of(requests(), products())
    assert people_of(sample).latitude.tolist() == [48.0] * 50
    assert np.isnan(products_of(sample).latitude[7])
    assert products_of(sample).country[:2].tolist() == ["fr", "de"]
    bare = sample_of(requests(has_places=False), products(has_places=False))
    assert np.isnan(people_of(bare).latitude).all()
    assert products_of(bare).country.tolist() == [""] * NUM_PRODUCTS


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_examples_follow_the_rule(seed: int) -> None:
    sample = sample_of(requests(), products())
    chosen = choose(sample, "uepp", "bm25", num_each=3, seed=seed)
    ours, theirs = (sample.ranks[name].astype(float) for name in ("uepp", "bm25"))
    better = sorted((theirs / ours)[theirs > ours].tolist(), reverse=True)
    worse = sorted((ours / theirs)[ours > theirs].tolist(), reverse=True)
    assert (chosen.num_pairs, chosen.num_better, chosen.num_worse) == (len(ours), len(better), len(worse))
    assert len(chosen.better) == len(chosen.worse) == 3
    for drawn, ratios, pool, sign in (
        (chosen.better, better, chosen.pools[0], 1),
        (chosen.worse, worse, chosen.pools[1], -1),
    ):
        assert pool == max(3, -(-len(ratios) * POOL_SHARE // 1))
        for one in drawn:
            rank_of = {name: 31 if one.ranks[name] is None else one.ranks[name] for name in ("uepp", "bm25")}
            ratio = (rank_of["bm25"] / rank_of["uepp"]) ** sign
            assert ratio >= ratios[pool - 1] - 1e-9 > 0, "of the furthest only"
            assert ratio > 1


def test_an_example_tells_who_asked_and_what_was_found() -> None:
    sample = sample_of(requests(), products())
    chosen = choose(sample, "uepp", "bm25")
    shown = [*chosen.better, *chosen.worse]
    assert len({one.query for one in shown}) > 1
    for one in shown:
        assert one.place == "DE, <i>BY</i>"
        assert all(len(titles) == 5 for titles in one.first.values())
        for name, titles in one.first.items():
            place = [is_bought for _, is_bought in titles]
            assert sum(place) == ((one.ranks[name] or 99) <= 5)
            assert not any(place) or titles[place.index(True)][0] == one.title
    searches = {tuple(one.searches) for one in shown}
    assert searches <= {(), ("first <u>search</u>",), ("second search", "first <u>search</u>")}
    assert len(searches) > 1, "latest first, and none for some"
    assert any(NASTY in one.clicked for one in shown)


def test_where_nothing_is_worse_nothing_is_shown() -> None:
    asked = requests()
    rows = draw(asked, 50)
    sample = rank({"uepp": SYSTEMS["uepp"], "bm25": SYSTEMS["uepp"]}, asked, rows, products(), depth=30)
    chosen = choose(sample, "uepp", "bm25")
    assert (chosen.better, chosen.worse, chosen.num_better, chosen.num_worse) == ([], [], 0, 0)
