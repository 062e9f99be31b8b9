"""The stream of examples: an order without state, as tf.data, from mined tables."""

from pathlib import Path

import numpy as np
import oracles
import pytest
import tensorflow as tf
from batches import PRODUCT_BAGS, QUERY_BAGS, changed, rows_of, with_training
from conftest import Toy, write_mined
from hypothesis import given, settings
from hypothesis import strategies as st

from uepp.config import TrainingConfig
from uepp.errors import InputError
from uepp.features.batches import batch_dataset, permuted, tokenize_queries
from uepp.features.examples import load_examples
from uepp.features.inputs import QueryFeatures

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


# tf.data


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_dataset_is_make_with_spans_tokenised(toy: Toy, share: float) -> None:
    config = changed(toy, training={"title_query_share": share, "token_dropout": 0.2}, negatives={"dynamic_pool": 3})
    maker = toy.batch_maker(config)
    numbers = [4, 9, 2]
    elements = tf.data.Dataset.from_tensor_slices(np.array(numbers, np.int64))
    batches = list(batch_dataset(maker, QueryFeatures(config, toy.fitted), elements))
    for element, batch in zip(numbers, batches, strict=True):
        arrays, spans = maker.make(element)
        assert batch.keys() == arrays.keys()
        for name in arrays.keys() - {"query/values", "query/lengths"}:
            np.testing.assert_array_equal(batch[name].numpy(), arrays[name])
            assert batch[name].dtype == arrays[name].dtype
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
    skipped = batch_dataset(maker, QueryFeatures(config, toy.fitted), tf.data.Dataset.range(9)).skip(5)
    started = batch_dataset(maker, QueryFeatures(config, toy.fitted), tf.data.Dataset.range(5, 9))
    pairs = list(zip(skipped, started, strict=True))
    assert len(pairs) == 4
    for one, other in pairs:
        for name in one:
            np.testing.assert_array_equal(one[name].numpy(), other[name].numpy())


def test_static_shapes_let_the_batch_size_be_known(toy: Toy) -> None:
    config = changed(toy, training={"title_query_share": 0.25}, negatives={"dynamic_pool": 3})
    spec = batch_dataset(
        toy.batch_maker(config), QueryFeatures(config, toy.fitted), tf.data.Dataset.range(1)
    ).element_spec
    of_queries = [f"{name}/lengths" for name in (*QUERY_BAGS, "known_positives")]
    assert {tuple(spec[name].shape) for name in ("type_ids", *of_queries)} == {(8,)}
    of_products = [f"{name}/lengths" for name in PRODUCT_BAGS]
    assert {tuple(spec[name].shape) for name in ("candidates", "product/shop", *of_products)} == {(17,)}
    assert spec["user/location/ids"].shape == (8, 5)
    assert spec["product/location/ids"].shape == (17, 5)
    assert spec["log_expected_count"].shape == (14,)
    assert spec["element"].shape == ()
    varying = [name for name in spec if name.endswith("/values")] + ["graph/lengths", "searches/lengths"]
    assert {tuple(spec[name].shape) for name in varying} == {(None,)}


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
    rows = [{"query": query, "product_id": product, "type": type_} for query, product, type_ in examples]
    return write_mined(directory, rows, [(query, product, 1, 0, 0) for query, product in graph])


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
        query: loaded.known_positives.gather(loaded.known_rows[[row]]).values.tolist()
        for row, query in enumerate(loaded.queries)
    }
    assert known == {"lamp": [0, 1, 2], "mug": [0], "x": [0]}


def test_load_examples_of_some_types_still_masks_with_all(tmp_path: Path) -> None:
    """A click is no positive of a purchase-only run, but it isn't a negative either."""
    config = TrainingConfig(positive_types=("purchase",))
    loaded = load_examples(mined(tmp_path, EXAMPLES, []), ["a", "b", "c", "d"], config)
    assert loaded.queries == ["mug", "lamp"]
    assert loaded.type_ids.tolist() == [2, 2]
    assert loaded.known_positives.gather(loaded.known_rows[[1]]).values.tolist() == [1, 2]


def test_what_was_bought_counts_as_the_strongest_type_below(tmp_path: Path) -> None:
    """Leaving out purchases leaves out no example: whoever bought had looked."""
    table = mined(tmp_path, EXAMPLES, [])
    for types, expected in ((("click",), [0] * 5), (("click", "cart"), [0, 1, 1, 1, 0]), (("cart",), [1, 1, 1])):
        loaded = load_examples(table, ["a", "b", "c", "d"], TrainingConfig(positive_types=types))
        assert loaded.type_ids.tolist() == expected


def test_load_examples_names_the_types_it_found(tmp_path: Path) -> None:
    config = TrainingConfig(positive_types=("purchase",))
    with pytest.raises(InputError, match=r"training\.positive_types = \['purchase'\].*\['click'\]") as caught:
        load_examples(mined(tmp_path, [("q", "a", "click")], []), ["a"], config)
    assert "\n" not in str(caught.value)


def test_examples_of_one_request_share_its_context(tmp_path: Path) -> None:
    """In whatever order requests and their products come, each example finds who asked."""
    known = {
        70: {"query": "lamp", "user_id": "u", "country": "US"},
        12: {"query": "mug", "user_id": None, "latitude": 1.5, "longitude": 2.0},
        71: {"query": "lamp", "user_id": "v"},
    }
    rows = [
        {"request_id": request, "product_id": product, "type": "click", **known[request]}
        for request, product in ((70, "b"), (70, "a"), (12, "a"), (71, "c"), (12, "c"))
    ]
    loaded = load_examples(write_mined(tmp_path, rows), ["a", "b", "c"], TrainingConfig())
    assert loaded.contexts.num_rows == 3
    contexts = loaded.contexts.to_pylist()
    for row, request in zip(rows, loaded.request_rows, strict=True):
        for name in ("user_id", "country", "latitude"):
            assert contexts[request][name] == row.get(name)


def test_requests_of_other_types_are_not_kept(tmp_path: Path) -> None:
    rows = [
        {"request_id": 1, "query": "a", "product_id": "a", "type": "click", "user_id": "u"},
        {"request_id": 2, "query": "b", "product_id": "a", "type": "purchase", "user_id": "v"},
    ]
    loaded = load_examples(write_mined(tmp_path, rows), ["a"], TrainingConfig(positive_types=("purchase",)))
    assert loaded.contexts.column("user_id").to_pylist() == ["v"]
    assert loaded.request_rows.tolist() == [0]
