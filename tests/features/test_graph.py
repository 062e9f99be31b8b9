"""Neighbour queries of products: what the graph file means, and which of them a batch gets."""

import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from batches import changed, query_rows_of, rows_of
from conftest import Toy, write_mined
from hypothesis import given, settings
from hypothesis import strategies as st

from uepp.config import GraphConfig
from uepp.features.bags import Bags, BagStore
from uepp.features.batches import build_batch_maker, tokenize_queries
from uepp.features.examples import load_examples
from uepp.features.graph import Neighbors, load_neighbors

Edge = tuple[str, str, int, int, int]
PRODUCTS = ["a", "b", "c", "d"]


def lists(bags: Bags) -> list[list[int]]:
    assert bags.values.dtype == bags.lengths.dtype == np.int32
    values = iter(bags.values.tolist())
    rows = [[next(values) for _ in range(length)] for length in bags.lengths]
    assert next(values, None) is None
    return rows


def neighbors_of(weights: list[dict[int, int]], num_queries: int = 40) -> Neighbors:
    """Neighbours of products 0, 1, … given as counts by query row; each interaction was a request of its own."""
    ordered = [sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])) for counts in weights]
    values = np.array([query for row in ordered for query, _ in row], np.int32)
    return Neighbors(
        [f"query {number:02d}" for number in range(num_queries)],
        BagStore.concatenate([Bags(values, np.array([len(row) for row in ordered], np.int32))]),
        np.cumsum([0.0] + [count for row in ordered for _, count in row]),
        np.array([count for row in ordered for _, count in row], np.int64),
    )


def sample(
    neighbors: Neighbors,
    products: list[int],
    targets: list[int],
    number: int,
    *,
    seed: int = 1,
    **settings: str,
) -> list[list[int]]:
    config = GraphConfig(num_neighbors=number, **settings)
    rng = np.random.default_rng(seed)
    return lists(neighbors.sample(np.array(products, np.int64), np.array(targets, np.int32), config, rng))


# Reading the file


def plain(query: str) -> str:
    """Lower-case words without accents, as one text."""
    text = unicodedata.normalize("NFKD", query.casefold())
    return " ".join("".join(c if c.isalnum() else " " for c in text if not unicodedata.combining(c)).split())


def expected_neighbors(edges: list[Edge]) -> dict[str, list[tuple[str, int]]]:
    """For each product its queries that have words and how many interactions they had, most first, ties by text."""
    counts: dict[str, Counter[str]] = {product: Counter() for product in PRODUCTS}
    for query, product, clicks, carts, purchases in edges:
        if product in counts and plain(query):
            counts[product][plain(query)] += clicks + carts + purchases
    return {
        product: sorted(counter.items(), key=lambda pair: (-pair[1], pair[0])) for product, counter in counts.items()
    }


def found_neighbors(neighbors: Neighbors) -> dict[str, list[tuple[str, int]]]:
    counts = np.diff(neighbors.cumulative_counts)
    assert len(counts) == len(neighbors.rows.values)
    return {
        product: [
            (neighbors.queries[neighbors.rows.values[edge]], int(counts[edge]))
            for edge in range(neighbors.rows.splits[row], neighbors.rows.splits[row + 1])
        ]
        for row, product in enumerate(PRODUCTS)
    }


texts = st.sampled_from(["lamp", "Lamp", "LAMP!", "red lamp", "Réd  lamp", "mug", "", "tiny-mug", "東京", "!"])
numbers = st.integers(0, 4)
edges_of_a_file = st.lists(
    st.tuples(texts, st.sampled_from([*PRODUCTS[:3], "gone"]), numbers, numbers, numbers),
    max_size=25,
    unique_by=lambda edge: edge[:2],
)


@settings(deadline=None, max_examples=40)
@given(edges_of_a_file)
def test_load_is_the_oracle(tmp_path_factory: pytest.TempPathFactory, edges: list[Edge]) -> None:
    neighbors = load_neighbors(write_mined(tmp_path_factory.mktemp("graph"), [], edges), PRODUCTS)
    assert found_neighbors(neighbors) == expected_neighbors(edges)
    assert neighbors.queries == sorted({plain(edge[0]) for edge in edges})
    assert len(neighbors.rows) == len(PRODUCTS)
    assert neighbors.cumulative_counts[0] == 0


def test_load_spelled_out(tmp_path: Path) -> None:
    edges = [
        ("lamp", "b", 1, 0, 0), ("Lamp", "b", 0, 1, 1), ("red lamp", "b", 5, 0, 0), ("lamp", "a", 0, 0, 1),
        ("desk", "b", 3, 0, 0), ("lost", "gone", 9, 9, 9),
    ]  # fmt: skip
    neighbors = load_neighbors(write_mined(tmp_path, [], edges), PRODUCTS)
    assert found_neighbors(neighbors) == {
        "a": [("lamp", 1)],
        "b": [("red lamp", 5), ("desk", 3), ("lamp", 3)],
        "c": [],
        "d": [],
    }


def test_a_graph_without_edges(tmp_path: Path) -> None:
    neighbors = load_neighbors(write_mined(tmp_path, []), PRODUCTS)
    assert neighbors.queries == []
    assert sample(neighbors, [0, 3, 3], [-1, -1, -1], 5) == [[], [], []]
    assert neighbors.fixed(np.arange(4), 5) == [[]] * 4


# Sampling


counts_by_query = st.dictionaries(st.integers(0, 11), st.integers(1, 9), max_size=12)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(counts_by_query, min_size=1, max_size=5),
    st.integers(1, 8),
    st.sampled_from(["uniform", "count"]),
    st.integers(0, 1_000),
    st.data(),
)
def test_samples_are_neighbours_at_most_n_and_never_the_target(
    weights: list[dict[int, int]], number: int, sampling: str, seed: int, data: st.DataObject
) -> None:
    neighbors = neighbors_of(weights)
    products = data.draw(st.lists(st.integers(0, len(weights) - 1), max_size=12))
    targets = [data.draw(st.sampled_from([-1, 0, 1, *weights[product]])) for product in products]
    drawn = sample(neighbors, products, targets, number, seed=seed, sampling=sampling)
    assert len(drawn) == len(products)
    for product, target, row in zip(products, targets, drawn, strict=True):
        known = neighbors.rows.gather(np.array([product])).values.tolist()
        assert len(row) <= number
        assert target not in row
        assert set(row) <= set(known)
        if len(known) <= number:
            assert row == [query for query in known if query != target], "a small neighbourhood is taken whole"


@pytest.mark.parametrize("sampling", ["uniform", "count"])
def test_a_product_whose_only_query_is_the_target(sampling: str) -> None:
    neighbors = neighbors_of([{3: 2}, {}])
    assert sample(neighbors, [0, 0, 1], [3, -1, 3], 2, sampling=sampling) == [[], [3], []]


@pytest.mark.parametrize("sampling", ["uniform", "count"])
def test_leave_one_out_keeps_a_target_that_others_asked_too(sampling: str) -> None:
    """Only the example's own request is left out: the rest of the edge will be in the export."""
    neighbors = neighbors_of([{3: 2, 5: 1}, {3: 1, 5: 1}])
    products, targets = [0, 0, 1, 1, 1], [3, 5, 3, 5, -1]
    found = sample(neighbors, products, targets, 4, sampling=sampling, target_query="leave_one_out")
    assert found == [[3, 5], [3], [5], [3], [3, 5]]
    excluded = sample(neighbors, products, targets, 4, sampling=sampling)
    assert excluded == [[5], [3], [5], [3], [3, 5]]


def test_leave_one_out_of_a_large_neighbourhood() -> None:
    """Drawn edges know their own requests: of five neighbours two are drawn, and the once-asked target is left out."""
    neighbors = neighbors_of([{9: 3}, {0: 4, 1: 3, 2: 2, 3: 1, 4: 1}])
    once = sample(neighbors, [1] * 400, [3] * 400, 2, target_query="leave_one_out")
    assert {query for row in once for query in row} == {0, 1, 2, 4}
    twice = sample(neighbors, [1] * 400, [2] * 400, 2, target_query="leave_one_out")
    assert {query for row in twice for query in row} == {0, 1, 2, 3, 4}
    assert {len(row) for row in twice} == {2}


def test_requests_of_spellings_are_added_up(tmp_path: Path) -> None:
    edges = [("lamp", "a", 1, 0, 0, 1), ("LAMP", "a", 4, 0, 0, 2), ("desk", "a", 9, 0, 0, 1), ("desk", "b", 1, 0, 0, 5)]
    neighbors = load_neighbors(write_mined(tmp_path, [], edges), PRODUCTS)
    assert [neighbors.queries[row] for row in neighbors.rows.values] == ["desk", "lamp", "desk"]
    assert neighbors.num_requests.tolist() == [1, 3, 5]


COUNTS = {0: 60, 1: 20, 2: 10, 3: 6, 4: 4}


@pytest.mark.parametrize(
    ("sampling", "share"),
    [
        ("uniform", {query: 0.2 for query in COUNTS}),
        ("count", {query: count / 100 for query, count in COUNTS.items()}),
    ],
)
def test_how_often_each_neighbour_is_drawn(sampling: str, share: dict[int, float]) -> None:
    """10,000 draws for a product between two others: chi-squared with 4 degrees of freedom, p of about 1e-4."""
    neighbors = neighbors_of([{7: 50, 8: 1, 9: 1}, COUNTS, {10: 1_000, 11: 1, 12: 3}])
    drawn = sample(neighbors, [1] * 5_000, [-1] * 5_000, 2, sampling=sampling)
    assert {len(row) for row in drawn} == {2}
    found = Counter(query for row in drawn for query in row)
    assert set(found) == set(COUNTS)
    expected = {query: 10_000 * part for query, part in share.items()}
    assert sum((found[query] - expected[query]) ** 2 / expected[query] for query in COUNTS) < 23.5
    repeated = np.mean([one == other for one, other in drawn])
    assert repeated == pytest.approx(sum(part**2 for part in share.values()), abs=0.03), "draws are independent"


@pytest.mark.parametrize("sampling", ["uniform", "count"])
def test_draws_of_the_target_are_left_out_and_not_replaced(sampling: str) -> None:
    drawn = sample(neighbors_of([COUNTS]), [0] * 5_000, [0] * 5_000, 2, sampling=sampling)
    found = Counter(query for row in drawn for query in row)
    assert set(found) == {1, 2, 3, 4}
    target_share = 0.2 if sampling == "uniform" else 0.6
    assert found.total() == pytest.approx(10_000 * (1 - target_share), rel=0.05)


@pytest.mark.parametrize("sampling", ["uniform", "count"])
def test_the_same_seed_draws_the_same(sampling: str) -> None:
    neighbors = neighbors_of([{query: query + 1 for query in range(30)}, COUNTS])
    arguments = ([0, 1, 0] * 5, [-1] * 15, 4)
    once, twice = (sample(neighbors, *arguments, seed=7, sampling=sampling) for _ in range(2))
    assert once == twice
    assert once != sample(neighbors, *arguments, seed=8, sampling=sampling)
    assert once[0] != once[2], "each row is drawn by itself"


def test_an_edge_without_interactions_is_not_drawn_by_count() -> None:
    neighbors = neighbors_of([{0: 3, 1: 0, 2: 2, 3: 0}])
    drawn = sample(neighbors, [0] * 500, [-1] * 500, 2, sampling="count")
    assert {query for row in drawn for query in row} == {0, 2}


# As exported


@settings(deadline=None, max_examples=40)
@given(edges_of_a_file, st.integers(1, 4), st.lists(st.integers(0, 3), max_size=6))
def test_fixed_neighbourhoods_are_the_first_by_count_then_text(
    tmp_path_factory: pytest.TempPathFactory, edges: list[Edge], number: int, products: list[int]
) -> None:
    neighbors = load_neighbors(write_mined(tmp_path_factory.mktemp("graph"), [], edges), PRODUCTS)
    expected = expected_neighbors(edges)
    assert neighbors.fixed(np.array(products, np.int64), number) == [
        [query for query, _ in expected[PRODUCTS[product]][:number]] for product in products
    ]


def test_fixed_neighbourhoods_of_the_toy(toy: Toy) -> None:
    """The first product's are two examples' queries, one of which the graph also has in capitals, and three others."""
    neighbors = load_neighbors(toy.mined, toy.catalog.product_ids)
    assert neighbors.fixed(np.array([0, 47, 40]), 4) == [
        ["red lamp", "tiny lamp", "lamp", "old lamp"],
        [],
        ["golden lamp"],
    ]
    assert len(neighbors.fixed(np.array([0]), 100)[0]) == 5


# In batches


def test_a_positive_does_not_see_its_own_query(toy: Toy) -> None:
    """Also where the graph spells it otherwise; as a uniform negative the product has all of its neighbours."""
    config = changed(toy, graph={"num_neighbors": 50}, negatives={"num_uniform": 60})
    maker = toy.batch_maker(config)
    neighbors = load_neighbors(toy.mined, toy.catalog.product_ids)
    tokens = tokenize_queries(config.features, toy.vocabulary, neighbors.queries)
    bags = [tuple(tokens.gather(np.array([row])).values.tolist()) for row in range(len(neighbors.queries))]
    text_of = dict(zip(bags, neighbors.queries, strict=True))
    assert len(text_of) == len(neighbors.queries)
    respelled = 0
    for element in range(9):
        arrays, _ = maker.make(element)
        texts = [text_of[tuple(row)] for row in rows_of(arrays, "graph")]
        assert len(set(texts)) == len(texts), "each text once"
        found = [[texts[place] for place in row] for row in rows_of(arrays, "product/graph")]
        assert {text for row in found for text in row} == set(texts), "and only those that a row has"
        everything = neighbors.fixed(arrays["candidates"], 50)
        assert found[8:] == everything[8:]
        for row, query_row in enumerate(query_rows_of(toy, arrays)):
            query = toy.examples.queries[query_row]
            assert query in everything[row]
            assert found[row] == [text for text in everything[row] if text != query]
            respelled += query == "red lamp"  # which the graph also has in capitals
    assert respelled


def test_the_own_query_is_left_out_however_it_is_spelled(tmp_path: Path, toy: Toy) -> None:
    rows = [{"query": "Red LAMP!", "product_id": "000", "type": "click"}]
    graph = [("red lamp", "000", 1, 0, 0), ("RED lamp", "000", 1, 0, 0), ("red lamps", "000", 1, 0, 0)]
    mined_tables = write_mined(tmp_path, rows, graph)
    config = changed(
        toy,
        model={"product_encoders": ("graph",), "query_encoders": ("tokens",)},
        training={"batch_size": 2},
        negatives={"num_uniform": 100},
    )
    examples = load_examples(mined_tables, toy.catalog.product_ids, config.training)
    maker = build_batch_maker(config, toy.fitted, toy.catalog_of(config), examples, mined_tables, 44, batch_size=2)
    arrays, _ = maker.make(0)
    found = list(zip(arrays["candidates"].tolist(), rows_of(arrays, "product/graph"), strict=True))
    plural = tokenize_queries(config.features, toy.vocabulary, ["red lamps"]).values.tolist()
    assert [(product, [rows_of(arrays, "graph")[place] for place in row]) for product, row in found[:2]] == [
        (0, [plural]),
        (0, [plural]),
    ]
    assert {len(row) for product, row in found[2:] if product == 0} == {2}, "as a negative it has both"


def test_graph_samples_differ_by_element_and_not_by_maker(toy: Toy) -> None:
    config = changed(toy, graph={"num_neighbors": 1}, negatives={"num_uniform": 40})
    one, other = toy.batch_maker(config), toy.batch_maker(config)
    sampled = [one.make(element)[0] for element in range(4)]
    for element, arrays in enumerate(sampled):
        again = other.make(element)[0]
        for name in ("product/graph/values", "product/graph/lengths", "graph/values", "graph/lengths"):
            np.testing.assert_array_equal(arrays[name], again[name])
        assert arrays["product/graph/lengths"].max() == 1
    drawn = {
        tuple(rows_of(arrays, "graph")[row[0]])
        for arrays in sampled
        for product, row in zip(arrays["candidates"], rows_of(arrays, "product/graph"), strict=True)
        if product == 0 and row
    }
    assert len(drawn) > 1, "the first product has five neighbours"
