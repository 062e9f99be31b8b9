"""Training batches: an order without state, and masks by product id."""

from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from conftest import Toy
from hypothesis import given, settings
from hypothesis import strategies as st

from uepp.config import Config, TrainingConfig
from uepp.errors import InputError
from uepp.features.bags import Bags, BagStore
from uepp.features.examples import BatchMaker, batch_dataset, load_examples, permuted, tokenize_queries


def with_training(toy: Toy, **changes: Any) -> Config:
    return toy.config.model_copy(update={"training": toy.config.training.model_copy(update=changes)})


def rows_of(arrays: dict[str, np.ndarray], prefix: str) -> list[list[int]]:
    values = iter(arrays[f"{prefix}/values"].tolist())
    rows = [[next(values) for _ in range(length)] for length in arrays[f"{prefix}/lengths"]]
    assert next(values, None) is None
    return rows


# The order


@pytest.mark.parametrize("key", [0, 1, (7 << 32) + 5])
def test_permuted_is_a_permutation(key: int) -> None:
    for size in range(1, 301):
        assert sorted(permuted(np.arange(size), size, key).tolist()) == list(range(size))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 2**40), st.integers(0, 2**70), st.integers(0, 2**40))
def test_permuted_is_computed_position_by_position(size: int, key: int, start: int) -> None:
    positions = np.unique((start + np.arange(50)) % size)
    together = permuted(positions, size, key)
    assert len(set(together.tolist())) == len(positions)
    assert together.min() >= 0
    assert together.max() < size
    assert [int(permuted(np.array([position]), size, key)[0]) for position in positions] == together.tolist()


@pytest.mark.parametrize("size", [20, 100, 300])
def test_keys_give_different_orders(size: int) -> None:
    orders = {tuple(permuted(np.arange(size), size, key)) for key in range(30)}
    assert len(orders) == 30
    assert tuple(range(size)) not in orders


def test_orders_look_random() -> None:
    """Every position goes everywhere: first places over many keys are even, neighbours are torn apart."""
    size = 50
    orders = np.array([permuted(np.arange(size), size, key) for key in range(2_000)])
    for column in (0, 1, size - 1):
        counts = np.bincount(orders[:, column], minlength=size)
        assert ((counts - 40) ** 2 / 40).sum() < 95, "chi-squared with 49 degrees of freedom, p of about 1e-4"
    assert np.mean(np.abs(np.diff(orders, axis=1)) == 1) == pytest.approx(2 / size, abs=0.01)


# Batches


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
    arrays, spans = toy.batch_maker().make(3)
    assert spans == []
    assert set(arrays) == {
        "query/values", "query/lengths", "type_ids", "is_known_positive",
        *(f"product/{group}/{part}" for group in range(3) for part in ("values", "lengths")),
    }  # fmt: skip
    assert arrays["query/lengths"].shape == arrays["type_ids"].shape == (8,)
    assert arrays["product/2/lengths"].shape == (8 + 6,)
    assert arrays["is_known_positive"].shape == (8, 14)
    assert arrays["is_known_positive"].dtype == bool
    assert {array.dtype for name, array in arrays.items() if name != "is_known_positive"} == {np.dtype(np.int32)}


def query_bag(toy: Toy, row: int) -> list[int]:
    return toy.query_tokens.gather(np.array([row])).values.tolist()


def product_bag(toy: Toy, product: int, group: int = 0) -> list[int]:
    return toy.catalog.groups[group].gather(np.array([product])).values.tolist()


def products_of(toy: Toy, arrays: dict[str, np.ndarray]) -> list[int]:
    """Which products the rows are, found by their title and tags."""
    by_bag = {tuple(product_bag(toy, product)): product for product in range(len(toy.catalog))}
    assert len(by_bag) == len(toy.catalog)
    return [by_bag[tuple(bag)] for bag in rows_of(arrays, "product/0")]


def query_rows_of(toy: Toy, arrays: dict[str, np.ndarray]) -> list[int]:
    by_bag = {tuple(query_bag(toy, row)): row for row in range(len(toy.examples.queries))}
    assert len(by_bag) == len(toy.examples.queries)
    return [by_bag[tuple(bag)] for bag in rows_of(arrays, "query")]


def test_an_epoch_is_every_example_once(toy: Toy) -> None:
    """68 examples in batches of 8: two epochs are 17 batches, and one batch crosses from one to the next."""
    maker, size = toy.batch_maker(), len(toy.examples)
    assert size % 8
    assert size * 2 % 8 == 0
    seen = []
    for element in range(size * 2 // 8):
        arrays, _ = maker.make(element)
        seen += list(
            zip(query_rows_of(toy, arrays), products_of(toy, arrays)[:8], arrays["type_ids"].tolist(), strict=True)
        )
    examples = toy.examples
    expected = sorted(
        zip(examples.query_rows.tolist(), examples.product_index.tolist(), examples.type_ids.tolist(), strict=True)
    )
    assert sorted(seen[:size]) == expected
    assert sorted(seen[size:]) == expected
    assert seen[:size] != seen[size:], "each epoch has an order of its own"


def test_all_groups_of_a_row_are_of_the_same_product(toy: Toy) -> None:
    arrays, _ = toy.batch_maker().make(1)
    products = products_of(toy, arrays)
    for group in (1, 2):
        assert rows_of(arrays, f"product/{group}") == [product_bag(toy, product, group) for product in products]


def known_answers(toy: Toy) -> dict[int, set[int]]:
    known = toy.examples.known_positives
    return {row: set(known.gather(np.array([row])).values.tolist()) for row in range(len(toy.examples.queries))}


def test_known_positives_are_masked_by_id(toy: Toy) -> None:
    maker = toy.batch_maker(with_training(toy, num_uniform_negatives=40), batch_size=24)
    own = doubles = others = from_graph = 0
    for element in range(12):
        arrays, _ = maker.make(element)
        queries, products = query_rows_of(toy, arrays), products_of(toy, arrays)
        expected = oracles.known_positive_mask(queries, products[:24], products, known_answers(toy))
        np.testing.assert_array_equal(arrays["is_known_positive"], expected)
        own += int(np.diag(expected).sum())
        for row, column in zip(*np.nonzero(expected), strict=True):
            doubles += row != column and products[row] == products[column]
            others += products[row] != products[column]
            pairs = zip(toy.examples.query_rows, toy.examples.product_index, strict=True)
            from_graph += products[row] != products[column] and (queries[row], products[column]) not in set(pairs)
        assert not expected.all()
    assert own == 12 * 24
    assert min(doubles, others, from_graph) > 5, "the same product again, another answer, one only the graph knows"


def test_a_query_without_known_positives_still_masks_its_own() -> None:
    """No graph row and no product in common: only the diagonal and its duplicates."""
    from uepp.features.catalog import Catalog
    from uepp.features.examples import Examples

    bag = BagStore.concatenate([Bags(np.arange(3, dtype=np.int32), np.ones(3, np.int32))])
    nothing = BagStore.concatenate([Bags(np.zeros(0, np.int32), np.zeros(2, np.int32))])
    examples = Examples(
        ["a", "b"], np.array([0, 1, 0], np.int32), np.array([0, 1, 1], np.int32), np.zeros(3, np.int32), nothing
    )
    catalog = Catalog(["x", "y", "z"], ["x", "y", "z"], [bag])
    maker = BatchMaker(examples, bag, catalog, 3, TrainingConfig(num_uniform_negatives=4), 3)
    arrays, _ = maker.make(0)
    products = arrays["product/0/values"].tolist()  # each product's one token is its own index
    expected = oracles.known_positive_mask([None] * 3, products[:3], products, {})
    np.testing.assert_array_equal(arrays["is_known_positive"], expected)
    assert expected.sum() > 3


def test_uniform_negatives_are_drawn_from_what_training_knows(toy: Toy) -> None:
    maker = toy.batch_maker(with_training(toy, num_uniform_negatives=100))
    drawn = [product for element in range(40) for product in products_of(toy, maker.make(element)[0])[8:]]
    counts = np.bincount(drawn, minlength=len(toy.catalog))
    assert counts[toy.num_seen_products :].sum() == 0
    assert len(toy.catalog) > toy.num_seen_products
    expected = len(drawn) / toy.num_seen_products
    assert ((counts[: toy.num_seen_products] - expected) ** 2 / expected).sum() < 85, (
        "chi-squared, 43 degrees of freedom"
    )


def test_without_uniform_negatives(toy: Toy) -> None:
    arrays, _ = toy.batch_maker(with_training(toy, num_uniform_negatives=0)).make(0)
    assert arrays["is_known_positive"].shape == (8, 8)


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
    lengths, begins = set(), set()
    for element in range(60):
        arrays, spans = maker.make(element)
        products = products_of(toy, arrays)
        assert len(spans) == 4
        for span, product in zip(spans, products[4:8], strict=True):
            title = toy.catalog.titles[product]
            assert f" {span} " in f" {title} "
            assert product < toy.num_seen_products
            lengths.add(len(span.split()))
            begins.add(title.split().index(span.split()[0]))
        assert arrays["type_ids"][4:].tolist() == [2] * 4, "counted as a purchase"
        mask = oracles.known_positive_mask(
            [*query_rows_of(toy, arrays | {"query/lengths": arrays["query/lengths"][:4]}), *[None] * 4],
            products[:8], products, known_answers(toy),
        )  # fmt: skip
        np.testing.assert_array_equal(arrays["is_known_positive"], mask)
    assert lengths == {1, 2, 3, 4, 5}
    assert begins == {0, 1, 2, 3, 4}


def test_spans_of_short_and_empty_titles() -> None:
    from uepp.features.catalog import Catalog
    from uepp.features.examples import Examples

    bag = BagStore.concatenate([Bags(np.arange(2, dtype=np.int32), np.ones(2, np.int32))])
    examples = Examples(["a"], np.zeros(1, np.int32), np.zeros(1, np.int32), np.zeros(1, np.int32), bag)
    maker = BatchMaker(
        examples, bag, Catalog(["x", "y"], ["", "Lamp"], [bag]), 2,
        TrainingConfig(num_uniform_negatives=0, title_query_share=0.5), 20,
    )  # fmt: skip
    arrays, spans = maker.make(0)
    products = arrays["product/0/values"][10:].tolist()
    assert spans == [("", "Lamp")[product] for product in products]
    assert set(spans) == {"", "Lamp"}


@pytest.mark.parametrize("share", [0.05, 0.99])
def test_a_share_that_rounds_to_none_or_all(toy: Toy, share: float) -> None:
    """0.99 of 8 rows is 8 rows: every query is a span then, and the batch still has 8 rows."""
    maker = toy.batch_maker(with_training(toy, title_query_share=share))
    arrays, spans = maker.make(1)
    assert maker.num_examples + maker.num_spans == len(arrays["type_ids"]) == 8
    assert len(spans) == round(8 * share)
    assert arrays["is_known_positive"].shape == (8, 14)


# tf.data


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_dataset_is_make_with_spans_tokenised(toy: Toy, share: float) -> None:
    config = with_training(toy, title_query_share=share, token_dropout=0.2)
    maker = toy.batch_maker(config)
    batches = list(batch_dataset(maker, config.features, toy.vocabulary, 4, 3))
    assert len(batches) == 3
    for element, batch in zip(range(4, 7), batches, strict=True):
        arrays, spans = maker.make(element)
        assert batch.keys() == arrays.keys()
        for name in arrays.keys() - {"query/values", "query/lengths"}:
            np.testing.assert_array_equal(batch[name].numpy(), arrays[name])
        expected = rows_of(arrays, "query")
        if spans:
            tokens = tokenize_queries(config.features, toy.vocabulary, spans)
            expected += [tokens.gather(np.array([row])).values.tolist() for row in range(len(spans))]
        got = {name: batch[name].numpy() for name in ("query/values", "query/lengths")}
        assert rows_of(got, "query") == expected
        assert len(expected) == 8


def test_starting_at_an_element_is_skipping_to_it(toy: Toy) -> None:
    config = with_training(toy, title_query_share=0.25, token_dropout=0.2)
    maker = toy.batch_maker(config)
    skipped = batch_dataset(maker, config.features, toy.vocabulary, 0, 9).skip(5)
    started = batch_dataset(maker, config.features, toy.vocabulary, 5, 4)
    pairs = list(zip(skipped, started, strict=True))
    assert len(pairs) == 4
    for one, other in pairs:
        for name in one:
            np.testing.assert_array_equal(one[name].numpy(), other[name].numpy())


def test_static_shapes_let_the_batch_size_be_known(toy: Toy) -> None:
    config = with_training(toy, title_query_share=0.25)
    spec = batch_dataset(toy.batch_maker(config), config.features, toy.vocabulary, 0, 1).element_spec
    assert spec["type_ids"].shape == spec["query/lengths"].shape == (8,)
    assert spec["product/0/lengths"].shape == (14,)
    assert spec["is_known_positive"].shape == (8, 14)
    assert spec["query/values"].shape.rank == 1
    assert {spec[name].dtype for name in spec} == {tf.int32, tf.bool}


def test_tokenized_queries_are_the_oracle(toy: Toy) -> None:
    queries = ["red lamp", "", "Émile’s LAMP", "ß" * 3]
    store = tokenize_queries(toy.config.features, toy.vocabulary, queries)
    table = toy.vocabulary.lookup_table()
    assert len(store) == 4
    for row, query in enumerate(queries):
        tokens = oracles.text_tokens(query)
        expected = table.lookup(tf.constant(tokens, tf.string)).numpy().tolist()
        assert store.gather(np.array([row])).values.tolist() == expected


# Loading


def mined(directory: Path, examples: list[tuple[str, str, str]], graph: list[tuple[str, str]]) -> Path:
    names = ("query", "product_id", "type")
    pq.write_table(
        pa.table({name: pa.array([row[i] for row in examples], pa.string()) for i, name in enumerate(names)}),
        directory / "examples.parquet",
    )
    pq.write_table(
        pa.table({name: pa.array([row[i] for row in graph], pa.string()) for i, name in enumerate(names[:2])}),
        directory / "graph.parquet",
    )
    return directory


EXAMPLES = [
    ("lamp", "b", "click"),
    ("mug", "a", "purchase"),
    ("lamp", "c", "purchase"),
    ("lamp", "b", "cart"),
    ("x", "a", "click"),
]
GRAPH = [("lamp", "a"), ("lamp", "b"), ("mug", "gone"), ("never asked", "a")]


def test_load_examples_of_all_types(tmp_path: Path) -> None:
    loaded = load_examples(mined(tmp_path, EXAMPLES, GRAPH), ["a", "b", "c", "d"], TrainingConfig())
    rows = list(
        zip((loaded.queries[row] for row in loaded.query_rows), loaded.product_index, loaded.type_ids, strict=True)
    )
    assert rows == [("lamp", 1, 0), ("mug", 0, 2), ("lamp", 2, 2), ("lamp", 1, 1), ("x", 0, 0)]
    known = {
        query: loaded.known_positives.gather(np.array([row])).values.tolist()
        for row, query in enumerate(loaded.queries)
    }
    assert known == {"lamp": [0, 1, 2], "mug": [0], "x": [0]}


def test_load_examples_of_some_types_still_masks_with_all(tmp_path: Path) -> None:
    """A click is no positive of a purchase-only run, but it isn't a negative either."""
    config = TrainingConfig(positive_types=("purchase",))
    loaded = load_examples(mined(tmp_path, EXAMPLES, []), ["a", "b", "c", "d"], config)
    assert loaded.queries == ["mug", "lamp"]
    assert loaded.type_ids.tolist() == [2, 2]
    assert loaded.known_positives.gather(np.array([1])).values.tolist() == [1, 2]


def test_load_examples_names_the_types_it_found(tmp_path: Path) -> None:
    config = TrainingConfig(positive_types=("purchase",))
    with pytest.raises(InputError, match=r"training\.positive_types = \['purchase'\].*\['click'\]") as caught:
        load_examples(mined(tmp_path, [("q", "a", "click")], []), ["a"], config)
    assert "\n" not in str(caught.value)
