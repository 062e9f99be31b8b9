"""Batches: which products and requests are in one, and that every entry is about them."""

import math
import re

import numpy as np
import oracles
import pyarrow.parquet as pq
import pytest
from batches import (
    PRODUCT_BAGS,
    QUERY_BAGS,
    changed,
    product_bag,
    query_rows_of,
    rows_of,
    tiny_maker,
    with_training,
)
from conftest import Toy

from uepp.features.batches import build_batch_maker, permuted
from uepp.features.graph import load_neighbors


def test_a_batch_is_a_pure_function_of_its_element(toy: Toy) -> None:
    config = with_training(toy, token_dropout=0.3, title_query_share=0.25)
    one, other = toy.batch_maker(config), toy.batch_maker(config)
    forward = [one.make(element) for element in range(15)]
    backward = [other.make(element) for element in reversed(range(15))][::-1]
    for (arrays, spans), (again, spans_again) in zip(forward, backward, strict=True):
        assert spans == spans_again
        assert arrays.keys() == again.keys()
        for name, array in arrays.items():
            assert array.dtype == again[name].dtype
            np.testing.assert_array_equal(array, again[name])
    assert len({arrays["product/0/values"].tobytes() for arrays, _ in forward}) == 15


def test_seeds_give_different_batches(toy: Toy) -> None:
    first, second = (toy.batch_maker(with_training(toy, seed=seed)).make(0)[0] for seed in (1, 2))
    assert first["query/values"].tolist() != second["query/values"].tolist()


def test_shapes_and_types(toy: Toy) -> None:
    arrays, spans = toy.batch_maker(changed(toy, negatives={"dynamic_pool": 5})).make(3)
    assert spans == []
    bags = (*PRODUCT_BAGS, *QUERY_BAGS, "graph", "searches", "known_positives")
    assert set(arrays) == {
        "element", "candidates", "type_ids", "log_expected_count",
        "product/shop", "product/location/ids", "user/location/ids",
        *(f"{name}/{part}" for name in bags for part in ("values", "lengths")),
    }  # fmt: skip
    kinds = toy.fitted.locations.num_kinds
    assert kinds == 3 + 2
    assert arrays["element"].shape == ()
    assert arrays["element"].dtype == np.int64
    assert arrays["candidates"].shape == arrays["product/shop"].shape == (8 + 6 + 5,)
    assert arrays["type_ids"].shape == arrays["known_positives/lengths"].shape == (8,)
    assert arrays["log_expected_count"].shape == (8 + 6,)
    assert arrays["log_expected_count"].dtype == np.float32
    assert arrays["product/location/ids"].shape == (19, kinds)
    assert arrays["user/location/ids"].shape == (8, kinds)
    assert {len(arrays[f"{name}/lengths"]) for name in PRODUCT_BAGS} == {19}
    assert {len(arrays[f"{name}/lengths"]) for name in QUERY_BAGS} == {8}
    integers = {array.dtype for name, array in arrays.items() if name not in ("element", "log_expected_count")}
    assert integers == {np.dtype(np.int32)}


def test_an_epoch_is_every_example_once(toy: Toy) -> None:
    """68 examples in batches of 8: two epochs are 17 batches, and one batch crosses from one to the next."""
    maker, size = toy.batch_maker(), len(toy.examples)
    assert size % 8
    assert size * 2 % 8 == 0
    seen = []
    for element in range(size * 2 // 8):
        arrays, _ = maker.make(element)
        assert arrays["element"] == element
        own = arrays["candidates"][:8].tolist()
        seen += list(zip(query_rows_of(toy, arrays), own, arrays["type_ids"].tolist(), strict=True))
    examples = toy.examples
    expected = sorted(
        zip(examples.query_rows.tolist(), examples.product_index.tolist(), examples.type_ids.tolist(), strict=True)
    )
    assert sorted(seen[:size]) == expected
    assert sorted(seen[size:]) == expected
    assert seen[:size] != seen[size:], "each epoch has an order of its own"


def test_all_entries_of_a_row_are_of_the_same_product(toy: Toy) -> None:
    arrays, _ = toy.batch_maker(changed(toy, negatives={"dynamic_pool": 9})).make(1)
    products = arrays["candidates"].tolist()
    for name in PRODUCT_BAGS[:-1]:
        expected = [product_bag(toy, product, name) for product in products]
        assert rows_of(arrays, name) == expected
        assert any(expected)
    for name in ("product/shop", "product/location/ids"):
        column = toy.catalog.columns[name]
        assert isinstance(column, np.ndarray)
        assert arrays[name].tolist() == [column[product].tolist() for product in products]


# Known positives


def logged(toy: Toy) -> set[tuple[str, str]]:
    """Pairs of query and product id in the mined tables."""
    tables = [pq.read_table(toy.mined / f"{name}.parquet") for name in ("examples", "graph")]
    return {(row["query"], row["product_id"]) for table in tables for row in table.to_pylist()}


def known_answers(toy: Toy) -> dict[int, set[int]]:
    """From the mined tables: products that any example or the graph has for a training query, however it is spelled."""
    pairs = logged(toy)
    return {
        row: {int(product) for asked, product in pairs if words_of(asked) == words_of(query)}
        for row, query in enumerate(toy.examples.queries)
    }


def words_of(query: str) -> str:
    """The toy's queries differ in case, spaces and signs at most."""
    return " ".join(re.findall(r"\w+", query.lower()))


def test_known_positives_are_all_products_that_answered_the_query(toy: Toy) -> None:
    maker, answers = toy.batch_maker(batch_size=24), known_answers(toy)
    own = others = from_graph = 0
    pairs = set(zip(toy.examples.query_rows.tolist(), toy.examples.product_index.tolist(), strict=True))
    for element in range(12):
        arrays, _ = maker.make(element)
        queries = query_rows_of(toy, arrays)
        known = rows_of(arrays, "known_positives")
        assert known == [sorted(answers[query]) for query in queries]
        for query, product, answer in zip(queries, arrays["candidates"], known, strict=False):
            own += product in answer
            others += len(answer) > 1
            from_graph += any((query, other) not in pairs for other in answer)
    assert own == 12 * 24
    assert min(others, from_graph) > 20, "another answer, one that only the graph knows"


def test_known_positives_give_the_mask_by_id(toy: Toy) -> None:
    """Candidates that are among a query's known positives are those that the definition masks."""
    arrays, _ = toy.batch_maker(changed(toy, negatives={"num_uniform": 40, "dynamic_pool": 30})).make(2)
    candidates = arrays["candidates"].tolist()
    mask = oracles.known_positives(candidates, rows_of(arrays, "known_positives"))
    expected = oracles.known_positive_mask(query_rows_of(toy, arrays), candidates[:8], candidates, known_answers(toy))
    np.testing.assert_array_equal(mask, expected)
    assert mask[:, 8:].any()


# Negatives


def test_candidates_are_positives_then_uniform_then_pool(toy: Toy) -> None:
    arrays, _ = toy.batch_maker(changed(toy, negatives={"dynamic_pool": 7})).make(4)
    size = len(toy.examples)
    rows = permuted(np.arange(32, 40) % size, size, toy.config.training.seed << 32)
    candidates = arrays["candidates"]
    assert candidates.shape == (8 + 6 + 7,)
    assert candidates[:8].tolist() == toy.examples.product_index[rows].tolist()
    without_pool, _ = toy.batch_maker().make(4)
    assert without_pool["candidates"].tolist() == candidates[:14].tolist(), "the pool comes last and changes nothing"


def test_uniform_negatives_are_drawn_from_what_training_knows(toy: Toy) -> None:
    maker = toy.batch_maker(changed(toy, negatives={"num_uniform": 100}))
    drawn = np.concatenate([maker.make(element)[0]["candidates"][8:] for element in range(40)])
    counts = np.bincount(drawn, minlength=len(toy.catalog))
    assert counts[toy.num_seen_products :].sum() == 0
    assert len(toy.catalog) > toy.num_seen_products
    expected = len(drawn) / toy.num_seen_products
    assert ((counts[: toy.num_seen_products] - expected) ** 2 / expected).sum() < 85, (
        "chi-squared, 43 degrees of freedom"
    )


def test_a_pool_holds_each_product_once_and_any_product_alike(toy: Toy) -> None:
    maker = toy.batch_maker(changed(toy, negatives={"dynamic_pool": 11}))
    pools = [maker.make(element)[0]["candidates"][14:] for element in range(200)]
    assert all(len(pool) == len(set(pool.tolist())) == 11 for pool in pools)
    counts = np.bincount(np.concatenate(pools), minlength=len(toy.catalog))
    assert counts[toy.num_seen_products :].sum() == 0
    expected, variance = 200 * 11 / 44, 200 * (11 / 44) * (33 / 44)
    assert ((counts[: toy.num_seen_products] - expected) ** 2 / variance).sum() < 85, (
        "chi-squared, 43 degrees of freedom"
    )
    assert len({pool.tobytes() for pool in pools}) == 200


@pytest.mark.parametrize("size", [44, 45, 1_000])
def test_a_pool_larger_than_the_catalogue_is_all_of_it(toy: Toy, size: int) -> None:
    arrays, _ = toy.batch_maker(changed(toy, negatives={"dynamic_pool": size})).make(1)
    assert sorted(arrays["candidates"][14:].tolist()) == list(range(toy.num_seen_products))
    assert len(arrays["product/0/lengths"]) == 14 + 44


def test_without_uniform_negatives(toy: Toy) -> None:
    arrays, _ = toy.batch_maker(changed(toy, negatives={"num_uniform": 0})).make(0)
    assert len(arrays["candidates"]) == len(arrays["log_expected_count"]) == len(arrays["product/shop"]) == 8


def test_log_expected_counts_are_the_definition() -> None:
    """In-batch: examples a batch times the share of examples; a span adds its even share. Uniform: m / N."""
    maker = tiny_maker(
        ["a", "b"],
        [(0, 0), (0, 1), (1, 1), (0, 1)],
        ["x", "y", "z", "w", "v"],
        training={"batch_size": 8, "title_query_share": 0.25},
        negatives={"num_uniform": 3},
    )
    assert (maker.num_examples, maker.num_spans) == (6, 2)
    arrays, _ = maker.make(0)
    share = {0: 1 / 4, 1: 3 / 4}
    own = [math.log(6 * share.get(product, 0) + 2 / 5) for product in arrays["candidates"][:8].tolist()]
    np.testing.assert_allclose(arrays["log_expected_count"], [*own, *[math.log(3 / 5)] * 3], rtol=1e-6)
    assert len(set(own)) > 1


def test_expected_counts_are_what_batches_hold(toy: Toy) -> None:
    """Over two whole epochs, a product is in the batches as often as expected."""
    maker = toy.batch_maker()
    batches = [maker.make(element)[0] for element in range(17)]
    found = np.bincount(np.concatenate([arrays["candidates"][:8] for arrays in batches]), minlength=48) / 17
    for arrays in batches:
        np.testing.assert_allclose(np.exp(arrays["log_expected_count"][:8]), found[arrays["candidates"][:8]], rtol=1e-5)
        np.testing.assert_allclose(np.exp(arrays["log_expected_count"][8:]), 6 / 44, rtol=1e-5)


# Encoders


@pytest.mark.parametrize(
    ("product_encoders", "query_encoders", "names"),
    [
        (("tokens",), ("tokens",), {"product/0", "product/1", "product/2", "query"}),
        (("shop", "graph"), ("tokens",), {"product/shop", "product/graph", "graph", "query"}),
        (("location",), ("location",), {"product/location", "product/zip", "user/location", "user/zip", "query"}),
        (
            ("shop",),
            ("history",),
            {"product/shop", "query", "searches", *(name for name in QUERY_BAGS if name.startswith("history/"))},
        ),
    ],
)
def test_only_what_encoders_read_is_in_a_batch(
    toy: Toy, product_encoders: tuple[str, ...], query_encoders: tuple[str, ...], names: set[str]
) -> None:
    config = changed(toy, model={"product_encoders": product_encoders, "query_encoders": query_encoders})
    arrays, _ = toy.batch_maker(config).make(0)
    always = {"element", "candidates", "type_ids", "log_expected_count", "known_positives"}
    found = {name.removesuffix("/values").removesuffix("/lengths").removesuffix("/ids") for name in arrays}
    assert found == always | names


def test_the_toys_maker_is_the_one_that_is_built(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where requests and queries are prepared some at a time."""
    monkeypatch.setattr("uepp.features.batches._AT_ONCE", 20)
    monkeypatch.setattr("uepp.features.text._QUERIES_AT_ONCE", 20)
    assert toy.examples.contexts.num_rows > 40
    built = build_batch_maker(
        toy.config, toy.fitted, toy.catalog, toy.examples, toy.mined, toy.num_seen_products, batch_size=68
    )
    (arrays, _), (expected, _) = built.make(5), toy.batch_maker(batch_size=68).make(5)
    assert arrays.keys() == expected.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, expected[name])


# Token dropout and title spans


def test_token_dropout_thins_both_sides(toy: Toy) -> None:
    whole, _ = toy.batch_maker().make(2)
    thinned, _ = toy.batch_maker(with_training(toy, token_dropout=0.5)).make(2)
    for prefix in ("query", "product/0", "product/1"):
        assert len(thinned[f"{prefix}/values"]) == pytest.approx(len(whole[f"{prefix}/values"]) / 2, rel=0.35)
        for before, after in zip(rows_of(whole, prefix), rows_of(thinned, prefix), strict=True):
            assert set(after) <= set(before)
            assert bool(after) == bool(before)


def test_title_spans_come_from_the_rows_own_title(toy: Toy) -> None:
    maker = toy.batch_maker(with_training(toy, title_query_share=0.5))
    assert (maker.num_examples, maker.num_spans) == (4, 4)
    logged_pairs = logged(toy)
    lengths, begins = set(), set()
    of_the_log = 0
    for element in range(60):
        arrays, spans = maker.make(element)
        products = arrays["candidates"].tolist()
        assert len(spans) == 4
        for span, product in zip(spans, products[4:8], strict=True):
            title = toy.catalog.titles[product]
            assert f" {span} " in f" {title} "
            assert product < toy.num_seen_products
            lengths.add(len(span.split()))
            begins.add(title.split().index(span.split()[0]))
        assert arrays["type_ids"][4:].tolist() == [2] * 4, "counted as a purchase"
        known = rows_of(arrays, "known_positives")
        for span, product, answers in zip(spans, products[4:8], known[4:], strict=True):
            asked = [int(other) for text, other in logged_pairs if words_of(text) == words_of(span)]
            assert answers == sorted({product, *asked}), "its own product, and what the log knows of that text"
            of_the_log += len(answers) > 1
        assert len(rows_of(arrays, "query")) == 4, "its tokens are still to be made"
    assert of_the_log > 5
    assert lengths == {1, 2, 3, 4, 5}
    assert begins == {0, 1, 2, 3, 4}


def test_nobody_asks_for_a_title_span(toy: Toy) -> None:
    """The entries of a span's row are those of a request of which nothing is known."""
    maker = toy.batch_maker(with_training(toy, title_query_share=0.5))
    locations = toy.fitted.locations
    nowhere = [locations.rows(kind).start for kind in locations.kinds]
    known = dict.fromkeys(QUERY_BAGS[1:], 0)
    for element in range(8):
        arrays, _ = maker.make(element)
        assert arrays["user/location/ids"][4:].tolist() == [nowhere] * 4
        for name in known:
            rows = rows_of(arrays, name)
            assert rows[4:] == [[]] * 4
            known[name] += sum(map(bool, rows[:4]))
    assert min(known.values()) > 3


def test_a_span_is_no_neighbour_of_its_product(toy: Toy) -> None:
    """It is the target there; most spans are no query of the graph, and their products keep all neighbours."""
    config = changed(toy, training={"title_query_share": 0.5}, graph={"num_neighbors": 50})
    neighbors = load_neighbors(toy.mined, toy.catalog.product_ids)
    maker = toy.batch_maker(config)
    left_out = 0
    for element in range(20):
        arrays, spans = maker.make(element)
        products = arrays["candidates"][4:8].tolist()
        for place, (span, product) in enumerate(zip(spans, products, strict=True)):
            (known,) = neighbors.fixed(np.array([product]), 50)
            found = arrays["product/graph/lengths"][4 + place]
            assert found == len(known) - (words_of(span) in known)
            left_out += words_of(span) in known
    assert 0 < left_out < 40


def test_spans_of_short_and_empty_titles() -> None:
    training = {"batch_size": 20, "title_query_share": 0.5}
    maker = tiny_maker(["a"], [(0, 0)], ["", "Lamp"], training=training, negatives={"num_uniform": 0})
    arrays, spans = maker.make(0)
    assert spans == [("", "Lamp")[product] for product in arrays["candidates"][10:]]
    assert set(spans) == {"", "Lamp"}


@pytest.mark.parametrize("share", [0.05, 0.99])
def test_a_share_that_rounds_to_none_or_all(toy: Toy, share: float) -> None:
    """0.99 of 8 rows is 8 rows: every query is a span then, and the batch still has 8 rows."""
    maker = toy.batch_maker(with_training(toy, title_query_share=share))
    arrays, spans = maker.make(1)
    assert maker.num_examples + maker.num_spans == len(arrays["type_ids"]) == 8
    assert len(spans) == round(8 * share)
    assert len(arrays["candidates"]) == 14
    assert len(arrays["user/location/ids"]) == len(arrays["history/shops/lengths"]) == 8


def test_a_log_in_which_a_place_is_never_missing(toy: Toy) -> None:
    """Such columns are not nullable in their files, and nobody's place could not be added to them."""
    from dataclasses import replace

    import pyarrow as pa

    from uepp.features.batches import load_request_features

    contexts = toy.examples.contexts
    filled = contexts.set_column(
        contexts.column_names.index("country"),
        pa.field("country", pa.string(), nullable=False),
        pa.array(["US"] * contexts.num_rows),
    )
    examples = replace(toy.examples, contexts=filled)
    found = load_request_features(toy.config, toy.fitted, examples, toy.mined, toy.catalog)
    ids = found.contexts["user/location/ids"]
    assert isinstance(ids, np.ndarray)
    assert len(ids) == contexts.num_rows + 1
    assert ids[-1, 0] != ids[0, 0], "nobody's country is missing"
