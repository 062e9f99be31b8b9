"""BM25 against the formula in plain Python, against bm25s itself, and its edges."""

import math
import subprocess
import sys
from pathlib import Path

import bm25s
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uepp.errors import InputError
from uepp.lexical.analysis import Analyzer
from uepp.lexical.bm25 import BM25, BM25Settings
from uepp.lexical.term_index import Bags, TermIndex

TITLES = ["red wool hat", "red red silk scarf", "blue wool hat with red band", "oak table", "", "red wool hat"]


def lucene(bags: list[list[str]], query: list[str], k1: float, b: float) -> list[float]:
    """BM25 with Lucene's idf, term by term."""
    mean_length = sum(len(bag) for bag in bags) / len(bags)
    scores = []
    for bag in bags:
        score = 0.0
        for term in query:
            tf = bag.count(term)
            df = sum(term in other for other in bags)
            idf = math.log(1 + (len(bags) - df + 0.5) / (df + 0.5))
            if tf:
                score += idf * tf / (tf + k1 * (1 - b + b * len(bag) / mean_length))
        scores.append(score)
    return scores


def expected_results(scores: list[float], k: int) -> list[int]:
    order = sorted((product for product, score in enumerate(scores) if score > 0), key=lambda p: (-scores[p], p))
    return (order + [-1] * k)[:k]


def plain(titles: list[str], **settings_: float) -> BM25:
    return BM25.build({"title": titles}, "plain", BM25Settings(**settings_))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["scattered", "ties", "rare", "in one place"])
@pytest.mark.parametrize("k", [1, 100, 5_000])
def test_the_best_of_a_large_catalogue_are_those_of_a_full_sort(kind: str, k: int) -> None:
    """Of 60,000 products, whose best are looked for among those that a sample says are good."""
    num_products, rng = 60_000, np.random.default_rng(5)
    scattered = 1 + rng.integers(0, 1_000, num_products) / 1_000
    multiplier = {
        "scattered": scattered,
        "ties": rng.choice([1.0, 1.5], num_products),
        "rare": scattered,
        "in one place": np.where(np.arange(num_products) % 64 == 0, 9.0, scattered),
    }[kind].astype(np.float32)
    has_term = rng.random(num_products) < (0.01 if kind == "rare" else 0.5)
    bm25 = BM25.build({"title": np.where(has_term, "hat", "bag").tolist()}, "plain")
    found, scores = bm25.search(["hat"], k, multiplier=multiplier)
    rows = np.flatnonzero(has_term)
    expected = rows[np.lexsort((rows, -multiplier[rows]))][:k]
    assert found[0][: len(expected)].tolist() == expected.tolist()
    assert (found[0][len(expected) :] == -1).all()
    assert (scores[0][: len(expected)] > 0).all()


@pytest.mark.parametrize(("k1", "b"), [(1.2, 0.75), (0.3, 0.0), (2.0, 1.0)])
@pytest.mark.parametrize("query", ["red", "wool hat", "red red band", "table unknown"])
def test_scores_are_the_formulas(query: str, k1: float, b: float) -> None:
    expected = lucene([title.split() for title in TITLES], query.split(), k1, b)
    product_index, scores = plain(TITLES, k1=k1, b=b).search([query], 6)
    assert product_index.dtype == np.int32
    assert scores.dtype == np.float32
    hits = product_index[0] >= 0
    assert hits.sum() == sum(score > 0 for score in expected) > 0
    np.testing.assert_allclose(scores[0][hits], [expected[p] for p in product_index[0][hits]], rtol=1e-5)
    assert np.all(scores[0][~hits] == 0)
    assert np.all(np.diff(scores[0]) <= 0)


WORDS = st.lists(st.sampled_from("abcdefgh"), max_size=8)


@settings(deadline=None, max_examples=60)
@given(
    bags=st.lists(WORDS, min_size=1, max_size=12).filter(lambda bags: any(bags)),
    query=WORDS,
    k1=st.sampled_from([0.0, 0.5, 1.2]),
    b=st.sampled_from([0.0, 0.4, 1.0]),
)
def test_the_index_equals_the_oracle_and_bm25s(bags: list[list[str]], query: list[str], k1: float, b: float) -> None:
    collected = Bags()
    for bag in bags:
        collected.add(bag)
    ours = TermIndex(k1=1.9, b=0.1)
    ours.index(collected, create_empty_token=False, show_progress=False)
    ours.weigh(k1, b)
    scores = np.ones(len(bags), np.float32)
    ours.add_scores(query, 0.5, scores)
    scores = (scores - 1) / 0.5
    expected = lucene(bags, query, k1, b)
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)
    known = [term for term in query if any(term in bag for bag in bags)]
    if known:
        theirs = bm25s.BM25(k1=k1, b=b, method="lucene")
        theirs.index(bags, show_progress=False)
        np.testing.assert_allclose(scores, theirs.get_scores(known), rtol=1e-5, atol=1e-6)


def test_a_limit_searches_the_first_products_only() -> None:
    bm25 = plain(TITLES)
    everything, all_scores = bm25.search(["red hat"], 6)
    assert (everything[0] >= 3).any()  # there is something to leave out
    limited, scores = bm25.search(["red hat"], 6, limit=3)
    kept = [(product, score) for product, score in zip(everything[0], all_scores[0], strict=True) if 0 <= product < 3]
    assert limited[0].tolist() == [product for product, _ in kept] + [-1] * (6 - len(kept))
    assert scores[0][: len(kept)].tolist() == [score for _, score in kept]
    assert bm25.search(["red hat"], 2, limit=0)[0].tolist() == [[-1, -1]]
    assert bm25.search(["red hat"], 6, limit=99)[0].tolist() == everything.tolist()


def test_ties_go_to_the_lower_product_index_at_any_k() -> None:
    bm25 = plain(["red hat"] * 50 + ["red"] + ["red hat"] * 50)
    for k in (1, 2, 7, 60, 101, 200):
        expected = ([50, *range(50), *range(51, 101)] + [-1] * 200)[:k]
        assert bm25.search(["red"], k)[0][0].tolist() == expected


@settings(deadline=None, max_examples=40)
@given(titles=st.lists(WORDS, min_size=1, max_size=15), query=WORDS.filter(bool), k=st.integers(1, 20))
def test_results_are_the_oracles_ranking(titles: list[list[str]], query: list[str], k: int) -> None:
    bm25 = plain([" ".join(title) for title in titles])
    if not any(titles):
        assert bm25.search([" ".join(query)], k)[0].tolist() == [[-1] * k]
        return
    scores = [round(score, 5) for score in lucene(titles, query, 1.2, 0.75)]
    found, values = bm25.search([" ".join(query)], k)
    expected = expected_results(scores, k)
    # Sums that differ only by rounding may swap; their scores are the same.
    assert (found[0] >= 0).tolist() == [product >= 0 for product in expected]
    np.testing.assert_allclose(
        values[0], [scores[product] if product >= 0 else 0 for product in expected], atol=3e-5, rtol=1e-4
    )


@pytest.mark.parametrize("strength", ["plain", "stemmed", "tuned"])
def test_queries_without_a_known_term_find_nothing(strength: str) -> None:
    bm25 = BM25.build({"title": TITLES}, strength)  # type: ignore[arg-type]
    product_index, scores = bm25.search(["", "  ,. ", "qqq", "\u65e5\u672c"], 3)
    assert (product_index == -1).all()
    assert (scores == 0).all()
    assert bm25.search([], 3)[0].shape == (0, 3)


@pytest.mark.parametrize("strength", ["plain", "stemmed", "tuned"])
def test_a_catalogue_without_words_or_products(strength: str) -> None:
    for titles in ([], ["", " - "]):
        bm25 = BM25.build({"title": titles}, strength)  # type: ignore[arg-type]
        assert bm25.search(["hat"], 2)[0].tolist() == [[-1, -1]]


def test_long_and_foreign_titles() -> None:
    titles = ["lamp " * 2_000 + "unique", "Chaise en ch\u00eane", "\u65e5\u672c\u8a9e\u306e\u6642\u8a08", "oak chair"]
    bm25 = BM25.build({"title": titles})
    found, _ = bm25.search(["unique lamp", "chaise chene", "\u65e5\u672c\u8a9e", "oak chair"], 1)
    assert found[:, 0].tolist() == [0, 1, 2, 3]


def test_order_and_company_of_queries_do_not_matter() -> None:
    bm25 = BM25.build({"title": TITLES})
    queries = ["red hat", "silk", "red hat", "nothing", "wool band"]
    together = bm25.search(queries, 4)
    for row, query in enumerate(queries):
        alone = bm25.search([query], 4)
        assert together[0][row].tolist() == alone[0][0].tolist()
        assert together[1][row].tolist() == alone[1][0].tolist()


@pytest.mark.parametrize(
    ("query", "title"), [("deck over", "Premium DeckOver coating"), ("deckover", "Deck Over coating")]
)
def test_joined_neighbours_match_both_ways(query: str, title: str) -> None:
    titles = ["wood stain", title, "metal primer"]
    without_trigrams = BM25Settings(weights={"word": 1.0, "joined": 1.0})
    assert BM25.build({"title": titles}, "stemmed").search([query], 1)[0].tolist() == [[-1]]
    assert BM25.build({"title": titles}, "tuned", without_trigrams).search([query], 1)[0].tolist() == [[1]]


def test_trigrams_forgive_a_misspelling() -> None:
    titles = ["curtain rod", "vinyl flooring", "ceiling fan"]
    assert BM25.build({"title": titles}, "stemmed").search(["vynil floring"], 1)[0].tolist() == [[-1]]
    assert BM25.build({"title": titles}, "tuned").search(["vynil floring"], 1)[0].tolist() == [[1]]


def test_a_component_counts_by_its_weight_and_by_nothing_at_zero() -> None:
    texts = {"title": TITLES, "description": ["", "", "velvet", "", "velvet", ""]}

    def scores(weight: float) -> list[float]:
        bm25 = BM25.build(texts, "tuned", BM25Settings(weights={"word": 1.0, "description": weight}))
        return bm25.search(["velvet"], 2)[1][0].tolist()

    assert scores(0.0) == [0.0, 0.0]
    assert scores(0.5)[0] > 0
    np.testing.assert_allclose(np.array(scores(1.0)), 2 * np.array(scores(0.5)), rtol=1e-6)


def test_tags_count_with_the_title() -> None:
    one = BM25.build({"title": ["hat", "cap"], "tags": ["wool warm", "linen"]}, "plain").search(["warm cap"], 2)
    other = BM25.build({"title": ["hat wool warm", "cap linen"]}, "plain").search(["warm cap"], 2)
    assert one[0].tolist() == other[0].tolist()
    assert one[1].tolist() == other[1].tolist()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"titel": ["a"]}, r"unknown fields \['titel'\]"),
        ({"description": ["a"]}, "neither title nor tags"),
        ({"title": ["a"], "tags": ["b", "c"]}, r"different lengths: \{'title': 1, 'tags': 2\}"),
    ],
)
def test_bad_fields_are_refused(fields: dict[str, list[str]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BM25.build(fields)


@pytest.mark.parametrize("bad", [{"k1": -1.0}, {"b": 1.5}, {"weights": {"words": 1.0}}, {"weights": {"word": -1.0}}])
def test_bad_settings_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        BM25Settings(**bad)  # type: ignore[arg-type]


def test_k_must_be_positive() -> None:
    with pytest.raises(ValueError, match="k = 0"):
        plain(TITLES).search(["red"], 0)
    with pytest.raises(ValueError, match="limit = -1"):
        plain(TITLES).search(["red"], 1, limit=-1)


def catalogue_where_only_the_description_helps() -> tuple[dict[str, list[str]], list[tuple[str, list[int]]]]:
    names = [f"{first}{second}o" for first in "bcdfghjklm" for second in "aeiou"]
    texts = {
        "title": [f"thing number{position}" for position in range(50)],
        "category": ["things"] * 50,
        "description": [f"made for {name}" for name in names],
    }
    return texts, [(f"thing {name}", [position]) for position, name in enumerate(names)]


def test_tuning_finds_the_field_that_helps_and_drops_the_one_that_does_not() -> None:
    texts, requests = catalogue_where_only_the_description_helps()
    bm25 = BM25.build(texts)
    chosen = bm25.tune(requests, k=1)
    start, *tried = chosen["tried"]
    assert start["recall"] < 0.1
    assert chosen["recall@1"] == 1.0
    assert chosen["weights"]["description"] > 0
    assert chosen["weights"].get("category", 0) == 0
    assert chosen["num_requests"] == 50
    assert {row["setting"] for row in tried} == {"category", "description", "trigram", "joined", "k1, b"}
    found, _ = bm25.search([query for query, _ in requests], 1)
    assert found[:, 0].tolist() == list(range(50))
    assert BM25.build(texts).tune(requests, k=1) == chosen


@pytest.mark.parametrize("order", [("some", "every"), ("every", "some")])
def test_two_are_tuned_for_one_analysis(monkeypatch: pytest.MonkeyPatch, order: tuple[str, str]) -> None:
    """Each as if it had been built for itself, and each searches with what was chosen for it."""
    texts, requests = catalogue_where_only_the_description_helps()
    texts["description"][25:] = [""] * 25
    texts["generated"] = [f"a {query}" for query, _ in requests]
    without = {name: field for name, field in texts.items() if name != "generated"}
    alone = {"every": BM25.build(texts), "some": BM25.build(without)}
    expected = {name: alone[name].tune(requests, k=1) for name in alone}
    assert expected["every"]["weights"]["generated"] > 0

    analysed: list[str] = []
    analyse = Analyzer.__call__
    monkeypatch.setattr(Analyzer, "__call__", lambda self, text: analysed.append(text) or analyse(self, text))
    every = BM25.build(texts)
    every.analyze_all()
    shared = {"every": every, "some": every.without("generated")}
    assert sorted(analysed) == sorted(text for field in texts.values() for text in field)
    queries = [query for query, _ in requests]
    assert {name: shared[name].tune(requests, k=1) for name in order} == expected
    assert set(analysed) == {*queries, *(text for field in texts.values() for text in field)}, "no field again"
    for name in order:
        for one, other in zip(shared[name].search(queries, 5), alone[name].search(queries, 5), strict=True):
            np.testing.assert_array_equal(one, other)


def test_plain_tunes_k1_and_b_only() -> None:
    texts, requests = catalogue_where_only_the_description_helps()
    chosen = BM25.build(texts, "plain").tune(requests, k=1)
    assert {row["setting"] for row in chosen["tried"]} == {"start", "k1, b"}
    assert chosen["weights"] == {"word": 1.0}


def test_tuning_counts_a_target_outside_the_catalogue_as_a_miss_and_caps_requests() -> None:
    chosen = plain(TITLES).tune([("oak table", [3, -1, 3, -1])] * 5, k=2, max_requests=3)
    assert chosen["num_requests"] == 3
    assert chosen["recall@2"] == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="nothing to tune on"):
        plain(TITLES).tune([("oak", [])])


def test_a_saved_index_searches_the_same_in_a_fresh_process(tmp_path: Path) -> None:
    texts, requests = catalogue_where_only_the_description_helps()
    bm25 = BM25.build(texts)
    bm25.tune(requests, k=1)
    bm25.save(tmp_path / "bm25")
    code = (
        "import sys, pathlib, numpy as np; from uepp.lexical.bm25 import BM25;"
        "found, scores = BM25.load(pathlib.Path(sys.argv[1]) / 'bm25').search(['thing bao', 'gibo'], 5, limit=40);"
        "np.savez(sys.argv[1] + '/found.npz', found=found, scores=scores); assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    found, scores = bm25.search(["thing bao", "gibo"], 5, limit=40)
    assert (found >= 0).any()
    with np.load(tmp_path / "found.npz") as there:
        assert there["found"].tolist() == found.tolist()
        assert there["scores"].tolist() == scores.tolist()
    loaded = BM25.load(tmp_path / "bm25")
    assert loaded.settings == bm25.settings
    with pytest.raises(ValueError, match="cannot be tuned"):
        loaded.tune(requests)


def test_what_is_not_an_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"bm25\.json: no such file"):
        BM25.load(tmp_path)
    plain(TITLES).save(tmp_path / "bm25")
    (tmp_path / "bm25" / "word" / "params.index.json").unlink()
    with pytest.raises(InputError, match="not a BM25 index"):
        BM25.load(tmp_path / "bm25")
