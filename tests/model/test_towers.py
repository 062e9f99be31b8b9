"""The two towers: unit vectors, how they start, and what training changes."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from uepp.config import Config
from uepp.model.towers import TwoTower, build_two_tower

NUM_TOKENS = 30
IDF = np.linspace(1, 4, NUM_TOKENS).astype(np.float32)


def model_of(groups: tuple = (("title",), ("description",)), **model: Any) -> TwoTower:
    config = Config.model_validate(
        {"features": {"groups": groups}, "model": {"token_dim": 8, "output_dim": 8} | model, "training": {"seed": 5}}
    )
    return build_two_tower(config, NUM_TOKENS, IDF)


def features(queries: list[list[int]], *groups: list[list[int]]) -> dict[str, tf.Tensor]:
    made = {}
    for prefix, bags in [("query", queries), *((f"product/{position}", bags) for position, bags in enumerate(groups))]:
        made[f"{prefix}/values"] = tf.constant([token for bag in bags for token in bag], tf.int32)
        made[f"{prefix}/lengths"] = tf.constant([len(bag) for bag in bags], tf.int32)
    return made


BAGS = [[1, 2, 3], [4], [5, 5, 6, 7], [8, 9], [10, 11, 12], [13]]
OTHER = [[20], [21, 22], [23], [24, 25], [26], [27, 28]]
EMPTY: list[list[int]] = [[]] * 6


@pytest.mark.parametrize("projection", ["equal", "independent"])
@pytest.mark.parametrize("hidden", [(), (16,), (16, 12)])
@pytest.mark.parametrize("training", [False, True])
def test_outputs_are_unit_vectors(projection: str, hidden: tuple[int, ...], training: bool) -> None:
    model = model_of(initial_projection=projection, hidden_layers=hidden)
    queries, products = model(features(BAGS[:4], BAGS, OTHER), training=training)
    assert (queries.shape, products.shape) == ((4, 8), (6, 8))
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(products, axis=1), 1, atol=1e-5)
    assert len({tuple(row.round(4)) for row in products.numpy()}) == 6


@pytest.mark.parametrize("output_dim", [8, 5, 20])
@pytest.mark.parametrize("hidden", [(), (16,)])
@pytest.mark.parametrize("normalize", [False, True])
def test_equal_start_gives_the_same_tokens_cosine_one(
    output_dim: int, hidden: tuple[int, ...], normalize: bool
) -> None:
    model = model_of(output_dim=output_dim, hidden_layers=hidden, normalize_groups=normalize)
    queries, products = model(features(BAGS, BAGS, EMPTY))
    similarity = queries.numpy() @ products.numpy().T
    np.testing.assert_allclose(np.diag(similarity), 1, atol=1e-5)
    assert np.abs(similarity[~np.eye(6, dtype=bool)]).max() < 0.999


def test_equal_start_ranks_by_shared_tokens_and_the_first_group_counts_more() -> None:
    model = model_of(token_dim=64, output_dim=64)
    queries, products = model(features([[1, 2]], [[1, 2], [1, 9], [14, 9], [17, 18]], [[10], [11], [12], [1, 2]]))
    both, one, none, described = (queries.numpy() @ products.numpy().T)[0]
    assert both > one > none
    assert both > described > none


def test_independent_start_is_about_orthogonal() -> None:
    model = model_of(token_dim=64, output_dim=64, initial_projection="independent")
    queries, products = model(features(BAGS, BAGS, EMPTY))
    similarity = np.diag(queries.numpy() @ products.numpy().T)
    assert np.abs(similarity).max() < 0.6
    assert abs(similarity.mean()) < 0.3


def test_towers_share_the_table_and_nothing_else() -> None:
    model = model_of(hidden_layers=(16,), initial_projection="independent")
    model(features(BAGS, BAGS, OTHER))
    assert [variable.shape.as_list() for variable in model.table_variables] == [[NUM_TOKENS, 8]]
    product, query = (
        {variable.ref() for variable in tower.trainable_variables}
        for tower in (model.product_tower, model.query_user_tower)
    )
    assert {reference.deref().shape.as_list()[0] for reference in product & query} == {NUM_TOKENS}
    assert len(product & query) == 1
    kinds = [*model.table_variables, *model.dense_variables]
    assert len(kinds) == len(model.trainable_variables) == len({variable.ref() for variable in kinds})
    first, second = (tower.trainable_variables for tower in (model.product_tower, model.query_user_tower))
    kernels = [
        [v.numpy() for v in part if len(v.shape) == 2 and v.shape[1] == 8 and v.shape[0] == 16]
        for part in (first, second)
    ]
    assert not np.allclose(kernels[0][0], kernels[1][0]), "independent towers have kernels of their own"


@pytest.mark.parametrize("projection", ["equal", "independent"])
@pytest.mark.parametrize("hidden", [(), (16,)])
@pytest.mark.parametrize("normalize", [False, True])
def test_rows_without_features_give_no_nan_gradient(projection: str, hidden: tuple[int, ...], normalize: bool) -> None:
    model = model_of(initial_projection=projection, hidden_layers=hidden, normalize_groups=normalize)
    batch = features([[], [1, 2], []], [[3], [], [4]], [[5], [], []])
    with tf.GradientTape() as tape:
        queries, products = model(batch, training=True)
        loss = tf.reduce_sum(tf.matmul(queries, products, transpose_b=True) ** 2 + queries @ tf.ones([8, 1]))
    gradients = tape.gradient(loss, model.trainable_variables)
    assert np.isfinite(queries).all()
    assert np.isfinite(products).all()
    dense = [tf.convert_to_tensor(gradient).numpy() for gradient in gradients]
    assert all(np.isfinite(gradient).all() for gradient in dense)
    assert any(gradient.any() for gradient in dense)


@pytest.mark.parametrize("projection", ["equal", "independent"])
def test_no_features_at_all_give_zero(projection: str) -> None:
    model = model_of(initial_projection=projection)
    queries, products = model(features([[], [1]], [[], [2]], [[], []]))
    assert not queries[0].numpy().any()
    assert not products[0].numpy().any()
    assert queries[1].numpy().any()


@pytest.mark.parametrize("hidden", [(), (16,)])
def test_no_features_stay_zero_after_training(hidden: tuple[int, ...]) -> None:
    """`no features at all give a zero vector` also once the weights have moved: it must not match anything."""
    model = model_of(initial_projection="independent", hidden_layers=hidden)
    batch = features([[1, 2], [3]], [[4], [5]], [[6], [7]])
    optimizer = tf.keras.optimizers.SGD(1.0)
    for _ in range(3):
        with tf.GradientTape() as tape:
            queries, products = model(batch, training=True)
            loss = tf.reduce_sum((queries - products) ** 2)
        optimizer.apply_gradients(
            zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
        )
    queries, _ = model(features([[], [1]], [[2]], [[]]))
    assert queries[1].numpy().any()
    assert not queries[0].numpy().any()


def test_batch_norm_uses_the_batch_in_training_and_its_memory_in_inference() -> None:
    model = model_of(hidden_layers=(16,), initial_projection="independent")
    batch = features(BAGS, BAGS, OTHER)
    _, before = model(batch)
    _, trained = model(batch, training=True)
    assert not np.allclose(before, trained, atol=1e-3)
    _, after = model(batch)
    assert not np.allclose(before, after, atol=1e-6), "moving statistics have moved"
    _, again = model(batch)
    np.testing.assert_array_equal(after, again)
    alone = model(features(BAGS[:1], BAGS[:1], OTHER[:1]))[1]
    np.testing.assert_allclose(alone[0], after[0], atol=1e-5, err_msg="in inference a row does not depend on its batch")


def test_without_batch_norm_training_and_inference_agree() -> None:
    model = model_of(hidden_layers=(16,), initial_projection="independent", batch_norm=False)
    batch = features(BAGS, BAGS, OTHER)
    for trained, inferred in zip(model(batch, training=True), model(batch), strict=True):
        np.testing.assert_array_equal(trained, inferred)
    assert not model.non_trainable_variables


def test_hidden_layers_are_as_configured() -> None:
    def shapes(**settings: Any) -> list[list[int]]:
        model = model_of(initial_projection="independent", **settings)
        model(features(BAGS, BAGS, OTHER))
        return [v.shape.as_list() for v in model.product_tower.trainable_variables if "embeddings" not in v.name]

    assert shapes(hidden_layers=()) == [[16, 8], [8]]
    assert shapes(hidden_layers=(6,), batch_norm=False) == [[16, 6], [6], [6, 8], [8]]
    assert shapes(hidden_layers=(6, 4)) == [[16, 6], [6], [6], [6, 4], [4], [4], [4, 8], [8]]


def test_the_feed_forward_part_of_an_equal_start_learns() -> None:
    """It starts at zero, and its projection's gradient is not zero."""
    model = model_of(hidden_layers=(16,))
    with tf.GradientTape() as tape:
        queries, products = model(features(BAGS, OTHER, BAGS), training=True)
        loss = -tf.reduce_sum(queries * products)
    by_shape = {
        tuple(v.shape): g
        for v, g in zip(model.trainable_variables, tape.gradient(loss, model.trainable_variables), strict=True)
    }
    assert np.abs(by_shape[(16, 8)]).max() > 1e-4


@pytest.mark.parametrize("projection", ["equal", "independent"])
def test_the_same_seed_gives_the_same_model(projection: str) -> None:
    batch = features(BAGS, BAGS, OTHER)
    outputs = [model_of(hidden_layers=(16,), initial_projection=projection)(batch) for _ in range(2)]
    for one, other in zip(*outputs, strict=True):
        np.testing.assert_array_equal(one, other)


def test_idf_start_can_be_switched_off() -> None:
    batch = features(BAGS, BAGS, OTHER)
    with_idf, without = model_of(), model_of(idf_start=False)
    with_idf(batch), without(batch)
    ratio = with_idf.table_variables[0].numpy() / without.table_variables[0].numpy()
    np.testing.assert_allclose(ratio, np.repeat((IDF / IDF.mean())[:, np.newaxis], 8, axis=1), rtol=1e-4)
