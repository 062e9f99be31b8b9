"""Popularity baselines against slow counting, and every system's promise to keep to the catalogue of the day."""

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uepp.evaluation.baselines import LessPersonal, Lexical, System, lexical_texts
from uepp.evaluation.popularity import CategoryPopularity, Popularity
from uepp.features.requests import RawRequests
from uepp.lexical.bm25 import BM25, BM25Settings

Row = tuple[str, str, int, int, int]
CATEGORIES = ["ring", "ring", "lamp", None, "lamp", "mug"]


def products(**changes: Any) -> pa.Table:
    columns = {
        "product_id": [f"p{row}" for row in range(6)],
        "title": ["gold ring", "silver ring", "red lamp", "gold leaf", "gold lamp", "mug"],
        "tags": pa.array([["gift", "two words"], [], None, [], [], []], pa.list_(pa.string())),
        "category": CATEGORIES,
        "attributes": pa.array([None] * 6, pa.map_(pa.string(), pa.list_(pa.string()))),
        "description": pa.array([None] * 6, pa.string()),
    }
    return pa.table(columns | changes)


def write_graph(directory: Path, rows: list[Row]) -> Path:
    names = ("query", "product_id", "clicks", "carts", "purchases")
    columns = {name: [row[place] for row in rows] for place, name in enumerate(names)}
    types = [pa.string(), pa.string(), pa.int64(), pa.int64(), pa.int64()]
    schema = pa.schema(list(zip(names, types, strict=True)))
    pq.write_table(pa.table(columns, schema=schema), directory / "graph.parquet")
    return directory


def rank(system: System, queries: list[str], k: int, num_products: int) -> Any:
    """The opponents look at nothing but the query."""
    return system.rank(RawRequests(queries), k, num_products)


def order_oracle(scores: list[float], k: int) -> list[int]:
    """Products with a positive score, best first, ties in catalogue order; -1 in free places."""
    kept = [row for row, score in enumerate(scores) if score > 0]
    kept.sort(key=lambda row: (-scores[row], row))
    return (kept + [-1] * k)[:k]


def popularity_oracle(rows: list[Row], types: tuple[str, ...]) -> list[float]:
    """Relevant interactions of each product over all queries; clicks only break ties."""
    scores = [0.0] * 6
    for _, product, clicks, carts, purchases in rows:
        if product != "gone":
            counted = {"click": clicks, "cart": carts, "purchase": purchases}
            scores[int(product[1:])] += sum(counted[name] for name in types) + 1e-6 * clicks
    return scores


def category_oracle(rows: list[Row], query: str, types: tuple[str, ...], num_products: int) -> list[float]:
    """P(category | query) · popularity; a product that nobody took yet counts a thousandth."""

    def led_to(types: tuple[str, ...]) -> dict[str, float]:
        weights: dict[str, float] = defaultdict(float)
        for asked, product, clicks, carts, purchases in rows:
            counted = {"click": clicks, "cart": carts, "purchase": purchases}
            category = None if product == "gone" else CATEGORIES[int(product[1:])]
            if asked == query and category is not None:
                weights[category] += sum(counted[name] for name in types)
        return weights

    popularity = popularity_oracle(rows, types)
    weights = led_to(types)
    if not sum(weights.values()):
        weights = led_to(("click", "cart", "purchase"))
    if not sum(weights.values()):
        return popularity[:num_products]
    shares = {category: weight / sum(weights.values()) for category, weight in weights.items()}
    return [
        shares.get(CATEGORIES[row] or "", 0.0) * (popularity[row] + 1e-3) if CATEGORIES[row] else 0.0
        for row in range(num_products)
    ]


ROWS: list[Row] = [
    ("gold", "p0", 9, 1, 1),
    ("gold", "p4", 1, 1, 3),
    ("gold", "p3", 0, 0, 8),
    ("gift", "p5", 3, 0, 0),
    ("gift", "p1", 0, 0, 1),
    ("gift", "gone", 50, 50, 50),
]


def test_popularity_counts_what_is_relevant(tmp_path: Path) -> None:
    system = Popularity(write_graph(tmp_path, ROWS), products(), ("purchase",))
    ranking = rank(system, ["gold", "never asked"], 4, 6)
    # p0 and p1 have one purchase each, p0 more clicks; p2 has nothing at all
    assert ranking.tolist() == [[3, 4, 0, 1]] * 2
    both = Popularity(tmp_path, products(), ("cart", "purchase"))
    assert rank(both, ["gold"], 6, 6).tolist() == [[3, 4, 0, 1, 5, -1]]


def test_popularity_keeps_to_the_catalogue_of_the_day(tmp_path: Path) -> None:
    system = Popularity(write_graph(tmp_path, ROWS), products(), ("purchase",))
    assert rank(system, ["gold"], 3, 3).tolist() == [[0, 1, -1]]


def test_a_query_leads_to_its_categories(tmp_path: Path) -> None:
    system = CategoryPopularity(write_graph(tmp_path, ROWS), products(), ("purchase",))
    # gold: lamp 3/4, ring 1/4; p4 .75·3, p0 .25·1, p1 .25·1 with fewer clicks, p2 .75·.001; then what else is popular:
    # p3 has no category, p5 one that the query did not lead to
    popular = rank(Popularity(tmp_path, products(), ("purchase",)), ["x"], 6, 6)[0].tolist()
    others = [product for product in popular if product in (3, 5)]
    assert others
    assert rank(system, ["gold"], 6, 6).tolist() == [[4, 0, 1, 2, *others, *[-1] * (2 - len(others))]]
    assert rank(system, ["gold"], 3, 6).tolist() == [[4, 0, 1]]


def test_an_unseen_query_backs_off_to_popularity(tmp_path: Path) -> None:
    export = write_graph(tmp_path, [*ROWS, ("only leaf", "p3", 0, 0, 1), ("only looked", "p5", 9, 0, 0)])
    system = CategoryPopularity(export, products(), ("purchase",))
    popular = rank(Popularity(export, products(), ("purchase",)), ["x"], 5, 6)[0].tolist()
    ranking = rank(system, ["unseen", "gold", "only leaf", "only looked"], 5, 6).tolist()
    assert ranking[0] == ranking[2] == popular
    assert ranking[1] != popular
    # nobody bought after it, but what they looked at says which category it asks for
    assert ranking[3] == [5, *[product for product in popular if product != 5]][:5]


def test_a_query_counts_however_it_is_written(tmp_path: Path) -> None:
    """As in the graph and the towers: case, accents and punctuation say nothing; a query of signs is those signs."""
    rows: list[Row] = [("Góld!", "p0", 9, 1, 1), ("gold", "p4", 1, 1, 3), ("GOLD", "p3", 0, 0, 8), ("♥", "p5", 0, 0, 2)]
    system = CategoryPopularity(write_graph(tmp_path, rows), products(), ("purchase",))
    first, *others, heart, star = rank(system, ["gold", "GÓLD", " gold. ", "♥", "★"], 6, 6).tolist()
    assert others == [first] * 2
    popular = rank(Popularity(tmp_path, products(), ("purchase",)), ["x"], 6, 6)[0].tolist()
    expected = category_oracle([("gold", *row[1:]) for row in rows[:3]] + rows[3:], "gold", ("purchase",), 6)
    of_categories = [row for row in np.argsort(-np.array(expected), kind="stable") if expected[row] > 0]
    assert first[: len(of_categories)] == of_categories
    assert star == popular
    assert heart != popular


_NAMES = st.sampled_from(["p0", "p1", "p2", "p3", "p4", "p5", "gone"])
_COUNTS = st.integers(0, 3)
_GRAPHS = st.dictionaries(
    st.tuples(st.sampled_from(["q", "r", "s"]), _NAMES), st.tuples(_COUNTS, _COUNTS, _COUNTS), max_size=12
).map(lambda graph: [(*key, *counts) for key, counts in sorted(graph.items())])


@settings(max_examples=60, deadline=None)
@given(
    rows=_GRAPHS,
    k=st.integers(1, 8),
    num_products=st.integers(0, 6),
    types=st.sampled_from([("purchase",), ("cart", "purchase"), ("click", "cart", "purchase")]),
)
def test_both_are_the_oracle(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], k: int, num_products: int, types: Any
) -> None:
    export = write_graph(tmp_path_factory.mktemp("export"), rows)
    popular = popularity_oracle(rows, types)[:num_products]
    assert rank(Popularity(export, products(), types), ["q"], k, num_products).tolist() == [order_oracle(popular, k)]
    ranking = rank(CategoryPopularity(export, products(), types), ["q", "new", "q"], k, num_products)
    expected = [category_oracle(rows, query, types, num_products) for query in ("q", "new", "q")]
    for row, scores in zip(ranking.tolist(), expected, strict=True):
        assert len(row) == k
        wanted = [score for score in sorted(scores, reverse=True)[:k] if score > 0]
        kept = [product for product in row if product >= 0]
        assert row == kept + [-1] * (k - len(kept))
        assert len(set(kept)) == len(kept)
        own = kept[: len(wanted)]
        assert all(math.isclose(scores[one], other) for one, other in zip(own, wanted, strict=True))
        filled = [one for one in order_oracle(popular, len(popular)) if one >= 0 and one not in own]
        assert kept[len(wanted) :] == filled[: k - len(wanted)]


def test_lexical_texts_drop_fields_that_nobody_filled() -> None:
    texts = lexical_texts(products())
    assert list(texts) == ["title", "tags", "category"]
    assert texts["tags"][0] == "gift two words"
    assert texts["tags"][2] == texts["category"][3] == ""


def test_generated_queries_are_one_more_field() -> None:
    """Document expansion finds a product by words that it lacks; a product of nobody, or without queries, has none."""
    ids = products().column("product_id").to_pylist()
    generated = pa.table({"product_id": [ids[3], "gone", ids[0]], "queries": [["autumn deco"], ["xyzzy"], []]})
    texts = lexical_texts(products(), generated)
    assert texts["generated"] == ["", "", "", "autumn deco", "", ""]
    settings = BM25Settings(weights={"word": 1.0, "generated": 0.5})
    found = rank(Lexical(BM25.build(texts, "tuned", settings)), ["autumn", "xyzzy"], 3, 6)
    assert found.tolist() == [[3, -1, -1], [-1, -1, -1]]
    plain = Lexical(BM25.build(lexical_texts(products()), "tuned", settings))
    assert rank(plain, ["autumn"], 3, 6).tolist() == [[-1, -1, -1]]


@pytest.mark.parametrize("strength", ["plain", "stemmed", "tuned"])
def test_lexical_ranking_keeps_to_the_catalogue_of_the_day(strength: Any) -> None:
    system = Lexical(BM25.build(lexical_texts(products()), strength))
    ranking = rank(system, ["gold", "two words", "xyzzy"], 10, 6)
    assert set(ranking[0][ranking[0] >= 0].tolist()) == {0, 3, 4}
    assert ranking[1][0] == 0
    assert ranking[2].tolist() == [-1] * 10
    prefix = rank(system, ["gold"], 10, 4)[0]
    assert set(prefix[prefix >= 0].tolist()) == {0, 3}
    assert np.issubdtype(ranking.dtype, np.integer)


def test_less_is_told_of_who_asks() -> None:
    class Listener:
        def rank(self, requests: RawRequests, k: int, num_products: int) -> np.ndarray:
            heard.append((requests, k, num_products))
            return np.zeros((len(requests), k), np.int64)

    heard: list[tuple[RawRequests, int, int]] = []
    known = RawRequests(["ring"], pa.table({"country": ["US"]}), {"clicks": np.array([[0, 1]])})
    for has_place in (False, True):
        LessPersonal(Listener(), has_place).rank(known, 3, 5)
    alone, with_place = (requests for requests, *_ in heard)
    assert [call[1:] for call in heard] == [(3, 5), (3, 5)]
    assert (alone.queries, alone.contexts, alone.pointers, alone.past) == (["ring"], None, None, None)
    assert (with_place.contexts, with_place.pointers) == (known.contexts, None)
