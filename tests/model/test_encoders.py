"""Encoders against their equations."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import oracles
import pytest
import small_model
import tensorflow as tf
from small_model import DIM, Batch, Product, Request, make_config

from uepp.config import Config
from uepp.model.embedding import EmbeddingTable
from uepp.model.encoders import PRODUCT_ENCODERS, QUERY_ENCODERS
from uepp.model.encoders.base import Block, Encoder
from uepp.model.encoders.graph import GraphEncoder
from uepp.model.encoders.location import LocationEncoder
from uepp.model.encoders.shop import ShopEncoder
from uepp.model.encoders.tokens import TokenEncoder
from uepp.model.tables import Tables

GROUPS = [[[1, 2, 2], [], [5]], [[3], [4, 0, 6], []]]


def features(groups: list[list[list[int]]]) -> dict[str, tf.Tensor]:
    made = {}
    for position, bags in enumerate(groups):
        made[f"product/{position}/values"] = tf.constant([token for bag in bags for token in bag], tf.int32)
        made[f"product/{position}/lengths"] = tf.constant([len(bag) for bag in bags], tf.int32)
    return made


def new_table(num_rows: int = 7, dim: int = 4) -> EmbeddingTable:
    return EmbeddingTable(num_rows, dim, "some", None, 1)


def encoder_of(*names: str, normalize: bool = True, table: EmbeddingTable | None = None) -> TokenEncoder:
    table = table or new_table()
    return TokenEncoder([(name, table) for name in names], normalize)


@pytest.mark.parametrize("normalize", [False, True])
def test_groups_are_averaged_then_concatenated(normalize: bool) -> None:
    table = new_table()
    encoder = encoder_of("product/0", "product/1", normalize=normalize, table=table)
    got = encoder(features(GROUPS)).numpy()
    expected = oracles.token_representation(table.embeddings.numpy(), GROUPS, normalize=normalize)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert got.shape == (3, 8)
    assert encoder.blocks == (Block(4, 1.0), Block(4, 0.5))
    lengths = np.linalg.norm(got.reshape(3, 2, 4), axis=2)
    assert (lengths[1, 0], lengths[2, 1]) == (0, 0), "empty groups"
    assert np.allclose(lengths[lengths > 0], 1) == normalize


def test_order_of_groups_is_as_given() -> None:
    forward = encoder_of("product/0", "product/1")(features(GROUPS)).numpy()
    backward = encoder_of("product/1", "product/0")(features(GROUPS)).numpy()
    np.testing.assert_array_equal(forward, np.roll(backward, 4, axis=1))


def test_groups_are_not_one_bag() -> None:
    """A long noisy group does not touch the other group's columns."""
    encoder = encoder_of("product/0", "product/1")
    noisy = [GROUPS[0], [[6] * 50, [0], [1] * 9]]
    np.testing.assert_array_equal(encoder(features(GROUPS))[:, :4], encoder(features(noisy))[:, :4])


def test_a_group_may_have_a_table_of_its_own() -> None:
    shared, own = new_table(), EmbeddingTable(7, 4, "own", None, 2)
    got = TokenEncoder([("product/0", shared), ("product/1", own)], False)(features(GROUPS)).numpy()
    np.testing.assert_allclose(got[:, :4], oracles.bag_average(shared.embeddings.numpy(), GROUPS[0]), atol=1e-6)
    np.testing.assert_allclose(got[:, 4:], oracles.bag_average(own.embeddings.numpy(), GROUPS[1]), atol=1e-6)


@pytest.mark.parametrize("normalize", [False, True])
def test_gradient_is_finite_with_empty_groups(normalize: bool) -> None:
    table = new_table()
    encoder = encoder_of("product/0", "product/1", normalize=normalize, table=table)
    with tf.GradientTape() as tape:
        weights = tf.random.stateless_normal([3, 8], [1, 2])
        loss = tf.reduce_sum(encoder(features(GROUPS)) * weights)
    gradient = tape.gradient(loss, table.embeddings)
    assert isinstance(gradient, tf.IndexedSlices)
    dense = tf.convert_to_tensor(gradient).numpy()
    assert np.isfinite(dense).all()
    assert dense.any(axis=1).all(), "every row of the table occurs in GROUPS"


# Shop


def test_shop_is_its_row_and_none_is_zeros() -> None:
    table = new_table()
    with tf.GradientTape() as tape:
        got = ShopEncoder(table)({"product/shop": tf.constant([3, -1, 0, 3])})
        loss = tf.reduce_sum(got)
    rows = table.embeddings.numpy()
    np.testing.assert_array_equal(got, [rows[3], np.zeros(4), rows[0], rows[3]])
    gradient = tape.gradient(loss, table.embeddings)
    assert isinstance(gradient, tf.IndexedSlices)
    np.testing.assert_array_equal(tf.convert_to_tensor(gradient)[:, 0], [1, 0, 0, 2, 0, 0, 0])


# Location


@pytest.mark.parametrize("of", ["product", "user"])
def test_location_is_each_kind_then_the_average_of_zip_prefixes(of: str) -> None:
    table = new_table(9, 4)
    encoder = LocationEncoder(table, 3, of)
    ids, zips = [[0, 3, 5], [1, 3, 6]], [[7, 8, 8], []]
    got = encoder(
        {
            f"{of}/location/ids": tf.constant(ids),
            f"{of}/zip/values": tf.constant([7, 8, 8]),
            f"{of}/zip/lengths": tf.constant([3, 0]),
        }
    ).numpy()
    rows = table.embeddings.numpy()
    for row in range(2):
        kinds = np.concatenate([rows[id_] for id_ in ids[row]])
        np.testing.assert_allclose(got[row], [*kinds, *oracles.bag_average(rows, zips)[row]], atol=1e-6)
    assert encoder.blocks == (Block(4, 0.0),) * 4


# Graph


def graph_oracle(rows: np.ndarray, batch: Batch, normalize: bool) -> np.ndarray:
    """Average over the neighbours of each neighbour's own average."""
    made = []
    for product in batch.products:
        average = np.zeros(rows.shape[1])
        for neighbor in product.neighbors:
            average += oracles.bag_average(rows, [batch.graph[neighbor]])[0] / len(product.neighbors)
        made.append(oracles.unit(average) if normalize else average)
    return np.stack(made)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_graph_is_the_average_of_the_neighbours_averages(normalize: bool, frozen: bool) -> None:
    table = new_table(30)
    batch = small_model.batch()
    got = GraphEncoder(table, frozen, normalize)(batch.features()).numpy()
    np.testing.assert_allclose(got, graph_oracle(table.embeddings.numpy(), batch, normalize), atol=1e-6)
    assert not got[1].any(), "a product without neighbours"
    assert got[[0, 2, 3, 4]].any(axis=1).all()


def test_graph_of_a_batch_without_any_neighbour_is_zeros() -> None:
    batch = small_model.batch()
    batch.products = [Product(neighbors=[])] * 3
    for graph in (batch.graph, []):
        batch.graph = graph
        assert not GraphEncoder(new_table(30), True, True)(batch.features()).numpy().any()


def gradient_of(
    model: tf.keras.Model, side: str, batch: Batch, name: str = "shared"
) -> tuple[np.ndarray, tf.Tensor, tf.IndexedSlices | None]:
    table = small_model.table(model, name)
    with tf.GradientTape() as tape:
        output = getattr(model, side)(batch.features(), training=True)
        weights = tf.random.stateless_normal(tf.shape(output), [1, 2])
        loss = tf.reduce_sum(output * weights)
    gradient = tape.gradient(loss, table)
    return small_model.dense(gradient, table), output, gradient


@pytest.mark.parametrize("kind", ["frozen", "shared"])
def test_gradient_into_the_shared_table_through_the_graph(kind: str) -> None:
    """Frozen: exactly none; and yet neighbours change the embedding, and the query moves the table."""
    model = small_model.make_model(
        graph={"gradient": kind},
        model={"product_encoders": ("graph",), "query_encoders": ("tokens",), "initial_projection": "independent"},
    )
    batch = small_model.batch()
    model(batch.features())
    through_graph, before, slices = gradient_of(model, "product_tower", batch)
    through_query, _, _ = gradient_of(model, "query_user_tower", batch)
    assert (slices is None) == (kind == "frozen")
    used = {1, 3, 20, 21, 22, 23}
    assert set(np.nonzero(through_graph.any(axis=1))[0]) == (used if kind == "shared" else set())
    assert set(np.nonzero(through_query.any(axis=1))[0]) == {1, 2, 3}
    batch.graph[1] = [25, 26]
    after = model.product_tower(batch.features(), training=True)
    changed = np.abs(after - before).max(axis=1) > 1e-3
    assert changed.tolist() == [True, False, False, True, False], "those that have neighbour 1"


@pytest.mark.parametrize("kind", ["frozen", "shared"])
def test_with_tokens_too_only_the_tokens_own_gradient_is_left_when_frozen(kind: str) -> None:
    model = small_model.make_model(graph={"gradient": kind}, model={"product_encoders": ("tokens", "graph")})
    batch = small_model.batch()
    model(batch.features())
    gradient, _, _ = gradient_of(model, "product_tower", batch)
    assert gradient[[2, 4, 5, 8, 9]].any(axis=1).all()
    assert gradient[[20, 21, 22, 23]].any() == (kind == "shared"), "tokens of neighbours alone"


def test_each_distinct_neighbour_is_averaged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    table = new_table(30)
    met: list[int] = []
    whole = EmbeddingTable.call
    monkeypatch.setattr(
        EmbeddingTable, "call", lambda self, bags: (met.append(int(tf.size(bags.lengths))), whole(self, bags))[1]
    )
    GraphEncoder(table, True, True)(small_model.batch().features())
    assert met == [4], "neighbours 0, 1, 2, 3, of which some belong to several products"


# All of them


SIDES = {"product": PRODUCT_ENCODERS, "query": QUERY_ENCODERS}


def build(name: str, side: str, config: Config) -> Encoder:
    builders: Mapping[str, Callable[..., Encoder]] = SIDES[side]  # type: ignore[assignment]
    return builders[name](config, Tables(config, small_model.fitted(config)))


# The text encoder needs one to read: test_text.py.
ALL = [(side, name) for side, names in SIDES.items() for name in names if name != "text"]


@pytest.mark.parametrize(("side", "name"), ALL)
def test_output_is_as_wide_as_the_blocks_say(side: str, name: str) -> None:
    encoder = build(name, side, make_config())
    output = encoder(small_model.batch().features(), training=True)
    assert output.shape == (5 if side == "product" else 3, sum(block.dim for block in encoder.blocks))
    assert output.dtype == tf.float32
    assert np.isfinite(output).all()


@pytest.mark.parametrize(("side", "name"), [pair for pair in ALL if pair[1] != "location"])
def test_nothing_known_at_all_gives_zeros_and_a_finite_gradient(side: str, name: str) -> None:
    """The encoder fills an entire [R, D] of zeros; a place has rows for `missing`, so it is never nothing."""
    encoder = build(name, side, make_config(graph={"gradient": "shared"}))
    nothing = Batch([Request()] * 4, [Product()] * 6).features()
    with tf.GradientTape() as tape:
        output = encoder(nothing, training=True)
        loss = tf.reduce_sum(tf.math.l2_normalize(output + 1e-3, axis=1) * tf.range(output.shape[1], dtype=tf.float32))
    assert output.shape[0] == (6 if side == "product" else 4)
    assert not output.numpy().any()
    variables = encoder.trainable_variables  # type: ignore[attr-defined]
    for gradient, variable in zip(tape.gradient(loss, variables), variables, strict=True):
        assert not small_model.dense(gradient, variable).any()


@pytest.mark.parametrize(("side", "name"), ALL)
def test_no_rows_at_all(side: str, name: str) -> None:
    encoder = build(name, side, make_config())
    assert encoder(Batch([], []).features(), training=False).shape[0] == 0


@pytest.mark.parametrize(("side", "name"), ALL)
def test_same_in_a_graph_of_unknown_sizes(side: str, name: str) -> None:
    encoder = build(name, side, make_config())
    features = small_model.batch().features()
    specs = {key: tf.TensorSpec([None, *value.shape[1:]], value.dtype) for key, value in features.items()}
    traced = tf.function(lambda batch: encoder(batch, training=False), input_signature=[specs])
    np.testing.assert_allclose(traced(features), encoder(features, training=False), atol=1e-6)


def tables_of(**stages: dict[str, Any]) -> dict[str, list[int]]:
    model = small_model.make_model(**stages)
    model(small_model.batch().features())
    return {v.name.removesuffix("_embeddings:0"): v.shape.as_list() for v in model.table_variables}


def test_tables_are_shared_and_made_only_for_who_reads_them() -> None:
    shared, shops, locations = [30, DIM], [7, DIM], [20, 4]
    tokens_only = {"product_encoders": ("tokens",), "query_encoders": ("tokens",)}
    assert tables_of(model=tokens_only) == {"shared": shared}
    assert tables_of() == {"shared": shared, "shops": shops, "locations": locations}
    assert tables_of(features={"own_tables": ("description",)}) == {
        "shared": shared, "description": [12, DIM], "shops": shops, "locations": locations,
    }  # fmt: skip
    history = {"product_encoders": ("tokens",), "query_encoders": ("tokens", "history")}
    assert tables_of(model=history) == {"shared": shared, "shops": shops}
    assert tables_of(model=history, history={"num_shops": 0}) == {"shared": shared}


def test_products_and_histories_share_the_rows_of_shops() -> None:
    model = small_model.make_model(model={"initial_projection": "independent"})
    batch = small_model.batch()
    model(batch.features())
    by_product, products, _ = gradient_of(model, "product_tower", batch, "shops")
    by_query, queries, _ = gradient_of(model, "query_user_tower", batch, "shops")
    assert set(np.nonzero(by_product.any(axis=1))[0]) == {0, 3, 6}
    assert set(np.nonzero(by_query.any(axis=1))[0]) == {1, 3}
    table = small_model.table(model, "shops")
    table.scatter_update(tf.IndexedSlices(tf.ones([1, DIM]) * tf.range(DIM, dtype=tf.float32), tf.constant([3])))
    moved = [
        np.abs(new - old).max(axis=1) > 1e-4
        for new, old in zip(model(batch.features(), training=True), (queries, products), strict=True)
    ]
    assert moved[0].tolist() == [True, False, False]
    assert moved[1].tolist() == [True, False, False, True, False]


def test_both_towers_share_the_rows_of_places() -> None:
    model = small_model.make_model(model={"initial_projection": "independent"})
    batch = small_model.batch()
    model(batch.features())
    by_product, _, _ = gradient_of(model, "product_tower", batch, "locations")
    by_query, _, _ = gradient_of(model, "query_user_tower", batch, "locations")
    assert {1, 5, 9, 12} <= set(np.nonzero(by_product.any(axis=1))[0]) & set(np.nonzero(by_query.any(axis=1))[0])


def test_own_table_gets_the_groups_gradient() -> None:
    model = small_model.make_model(
        features={"own_tables": ("description",)},
        model={"product_encoders": ("tokens",), "query_encoders": ("tokens",)},
    )
    batch = small_model.batch()
    model(batch.features())
    own, _, _ = gradient_of(model, "product_tower", batch, "description")
    shared, _, _ = gradient_of(model, "product_tower", batch)
    assert set(np.nonzero(own.any(axis=1))[0]) == {5, 6, 7, 1, 10, 11}
    assert set(np.nonzero(shared.any(axis=1))[0]) == {1, 2, 4, 8, 9}
