"""Some rows of a batch's products, against plain Python."""

import numpy as np
import pytest
import small_model
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from uepp.model.embedding import TokenBags
from uepp.model.features import take_bags, take_rows

BAGS = st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=1, max_size=7)


def make_bags(rows: list[list[int]]) -> TokenBags:
    values = [id_ for row in rows for id_ in row]
    return TokenBags(tf.constant(values, tf.int32), tf.constant([len(row) for row in rows], tf.int32))


def as_lists(bags: TokenBags) -> list[list[int]]:
    values, made = bags.values.numpy().tolist(), []
    for length in bags.lengths.numpy().tolist():
        made.append(values[:length])
        values = values[length:]
    assert values == [], "no value is left over"
    return made


@settings(deadline=None, max_examples=60)
@given(BAGS, st.data())
def test_bags_of_chosen_rows(rows: list[list[int]], data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=9))
    taken = take_bags(make_bags(rows), tf.constant(chosen, tf.int32))
    assert as_lists(taken) == [rows[row] for row in chosen]
    assert {part.dtype for part in taken} == {tf.int32}


@settings(deadline=None, max_examples=60)
@given(BAGS, st.data())
def test_bags_of_a_slice(rows: list[list[int]], data: st.DataObject) -> None:
    bounds = st.one_of(st.none(), st.integers(0, len(rows) + 1))
    begin, end = data.draw(bounds), data.draw(bounds)
    expected = rows[begin:end]
    assert as_lists(take_bags(make_bags(rows), slice(begin, end))) == expected
    if begin is not None and end is not None:
        tensors = slice(tf.constant(begin), tf.constant(end))
        assert as_lists(take_bags(make_bags(rows), tensors)) == expected


CHOSEN = [4, 0, 0, 2]


@pytest.mark.parametrize(
    ("rows", "kept"),
    [(tf.constant(CHOSEN), CHOSEN), (slice(1, 4), [1, 2, 3]), (slice(tf.constant(2), None), [2, 3, 4])],
)
def test_entries_of_chosen_products(rows: tf.Tensor | slice, kept: list[int]) -> None:
    batch = small_model.batch()
    features = batch.features() | {"candidates": tf.range(5)}
    batch.products = [batch.products[row] for row in kept]
    expected = batch.features()
    taken = take_rows(features, rows)
    assert taken.keys() == {name for name in expected if name.startswith(("product/", "graph/"))}
    for name, value in taken.items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


@pytest.mark.parametrize("rows", [tf.constant([4, 0, 0, 2]), slice(1, 4), slice(0, 0)])
def test_the_tower_gives_the_same_for_a_part(rows: tf.Tensor | slice) -> None:
    model = small_model.make_model(model={"hidden_layers": (6,), "initial_projection": "independent"})
    features = small_model.batch().features()
    everything = model.product_tower(features).numpy()
    part = model.product_tower(take_rows(features, rows))
    np.testing.assert_allclose(part, everything[rows.numpy() if tf.is_tensor(rows) else rows], atol=1e-6)


def test_in_a_graph_with_unknown_sizes() -> None:
    @tf.function
    def parts(features: dict[str, tf.Tensor], size: tf.Tensor) -> tf.Tensor:
        total = 0
        for begin in tf.range(0, tf.size(features["product/shop"]), size):
            total += tf.reduce_sum(take_rows(features, slice(begin, begin + size))["product/0/values"])
        return total

    features = small_model.batch().features()
    expected = int(tf.reduce_sum(features["product/0/values"]))
    assert [int(parts(features, tf.constant(size))) for size in (1, 2, 5, 9)] == [expected] * 4
