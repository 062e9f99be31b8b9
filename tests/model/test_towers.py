"""The two towers: unit vectors, how they start, and what training changes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_model
import tensorflow as tf

from uepp.config import load_config, save_config
from uepp.features.entries import Features
from uepp.model.towers import Tower, TwoTower

NUM_TOKENS = small_model.NUM_TOKENS
TOKENS_ONLY = {"product_encoders": ("tokens",), "query_encoders": ("tokens",)}


def model_of(groups: tuple = (("title",), ("description",)), **model: Any) -> TwoTower:
    return small_model.make_model(features={"groups": groups}, model=TOKENS_ONLY | model)


def features(queries: list[list[int]], *groups: list[list[int]]) -> Features:
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

    assert shapes(hidden_layers=()) == [[16, 8]]
    assert shapes(hidden_layers=(6,), batch_norm=False) == [[16, 6], [6], [6, 8]]
    assert shapes(hidden_layers=(6, 4)) == [[16, 6], [6], [6], [6, 4], [4], [4], [4, 8], [8]]


def test_the_feed_forward_part_of_an_equal_start_learns() -> None:
    """It starts at zero, by the scale of its last normalisation, whose gradient is not zero."""
    model = model_of(hidden_layers=(16,))
    with tf.GradientTape() as tape:
        queries, products = model(features(BAGS, OTHER, BAGS), training=True)
        loss = -tf.reduce_sum(queries * products)
    variables = [v for v in model.trainable_variables if "gamma" in v.name and tuple(v.shape) == (8,)]
    assert len(variables) == 2, "one a tower"
    assert not any(np.any(v) for v in variables)
    assert all(np.abs(gradient).max() > 1e-4 for gradient in tape.gradient(loss, variables))


def test_after_a_short_training_the_moving_averages_are_those_of_the_batches() -> None:
    """They start at variance 1; with Keras' momentum of .99 a tenth of that is left after 230 steps."""
    model = small_model.make_model(
        model=TOKENS_ONLY | {"hidden_layers": (16,)}, training={"max_steps": 100}, features={"groups": (("title",),)}
    )
    batch = features(BAGS, BAGS)
    for _ in range(100):
        trained = model(batch, training=True)
    for one, other in zip(trained, model(batch), strict=True):
        assert (np.sum(one.numpy() * other.numpy(), axis=1) > 0.999).all()


@pytest.mark.parametrize("hidden", [(), (16,)])
@pytest.mark.parametrize(
    ("product", "query"), [(("shop",), ("tokens",)), (("location", "shop"), ("tokens",)), (("tokens",), ("history",))]
)
def test_a_tower_learns_without_an_encoder_that_starts_alike(
    product: tuple[str, ...], query: tuple[str, ...], hidden: tuple[int, ...]
) -> None:
    """In an equal start their blocks are without effect, and a tower of such blocks alone would stay zeros for ever."""
    model = small_model.make_model(
        model={"product_encoders": product, "query_encoders": query, "hidden_layers": hidden}
    )
    with tf.GradientTape() as tape:
        queries, products = model(small_model.batch().features(), training=True)
        loss = tf.reduce_sum(tf.matmul(queries, products, transpose_b=True)[:, 0])
    for output in (queries, products):
        assert np.linalg.norm(output, axis=1).max() == pytest.approx(1, abs=1e-5)
    towers = (model.product_tower, model.query_user_tower)
    dense = [[v for v in tower.trainable_variables if "embeddings" not in v.name] for tower in towers]
    for gradients in tape.gradient(loss, dense):
        assert max(np.abs(gradient).max() for gradient in gradients) > 1e-5


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
    idf = small_model.vocabulary(NUM_TOKENS).inverse_document_frequency()
    np.testing.assert_allclose(ratio, np.repeat((idf / idf.mean())[:, np.newaxis], 8, axis=1), rtol=1e-4)


# With every encoder


EVERYTHING = {"hidden_layers": (16,)}


@pytest.mark.parametrize("projection", ["equal", "independent"])
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("training", [False, True])
def test_all_encoders_give_unit_vectors_in_float32(projection: str, precision: str, training: bool) -> None:
    model = small_model.make_model(model=EVERYTHING | {"initial_projection": projection, "precision": precision})
    for output in model(small_model.batch().features(), training=training):
        assert output.dtype == tf.float32
        lengths = np.linalg.norm(output, axis=1)
        assert (np.isclose(lengths, 1, atol=1e-5) | (lengths == 0)).all()
        assert (lengths > 0).sum() >= len(lengths) - 1
    assert {variable.dtype for variable in model.variables} == {tf.float32}


def test_mixed_precision_is_close_to_float32() -> None:
    settings = EVERYTHING | {"initial_projection": "independent"}
    exact, mixed = (
        small_model.make_model(model=settings | {"precision": precision}) for precision in ("float32", "mixed_bfloat16")
    )
    batch = small_model.batch().features()
    outputs, gradients = [], []
    for model in (exact, mixed):
        model(batch)
        with tf.GradientTape() as tape:
            queries, products = model(batch)
            loss = tf.reduce_sum(tf.matmul(queries, products, transpose_b=True)[:, :2])
        outputs.append(np.concatenate([queries, products]))
        slices = tape.gradient(loss, model.table_variables)
        assert all(isinstance(one, tf.IndexedSlices) for one in slices)
        gradients.append(np.concatenate([tf.convert_to_tensor(one).numpy().ravel() for one in slices]))
    cosines = (outputs[0] * outputs[1]).sum(axis=1)
    assert cosines.min() > 0.999
    assert not np.array_equal(*outputs), "something is computed in bfloat16"
    assert np.corrcoef(*gradients)[0, 1] > 0.99
    assert tf.keras.mixed_precision.global_policy().name == "float32"


def projection_of(tower: Tower) -> tf.Variable:
    (kernel,) = [v for v in tower.trainable_variables if v.name.startswith("two_tower/product_tower/dense")]
    return kernel


@pytest.mark.parametrize("projection", ["equal", "independent"])
def test_weights_have_the_same_names_in_every_model_of_a_process(projection: str) -> None:
    """So that an export's files, and what is kept for them, are the same whoever made it from a checkpoint."""
    models = [small_model.make_model(model=EVERYTHING | {"initial_projection": projection}) for _ in range(2)]
    names = []
    for model in models:
        model(small_model.batch().features())
        names.append([variable.name for variable in model.variables])
    assert names[0] == names[1]


def test_what_starts_without_effect_learns() -> None:
    """Shops, places and histories change nothing at first, and their part of the projection has a gradient."""
    plain = small_model.make_model(model={"product_encoders": ("tokens", "graph"), "query_encoders": ("tokens",)})
    model = small_model.make_model(model={"product_encoders": ("tokens", "graph", "shop", "location")})
    batch = small_model.batch().features()
    for one, other in zip(model(batch), plain(batch), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    with tf.GradientTape() as tape:
        queries, products = model(batch)
        loss = tf.reduce_sum(tf.matmul(queries, products, transpose_b=True)[0] * [1.0, -1, 0.5, 2, -0.3])
    gradient = tape.gradient(loss, projection_of(model.product_tower))
    assert gradient.shape == (3 * 8 + 8 + 4 * 4, 8)
    assert gradient.numpy()[3 * 8 :].any(axis=1).sum() >= 8 + 3 * 4


def test_graph_counts_half_at_the_start() -> None:
    """A product whose neighbours say what the query says is nearer than one without."""
    model = small_model.make_model(model={"token_dim": 64, "output_dim": 64})
    requests = [small_model.Request([1, 2])]
    products = [
        small_model.Product(([10, 11], []), neighbors=[0]),
        small_model.Product(([10, 11], []), neighbors=[1]),
        small_model.Product(([1, 2], []), neighbors=[1]),
    ]
    queries, embeddings = model(small_model.Batch(requests, products, [[1, 2], [20, 21]], []).features())
    asked, other, titled = (queries.numpy() @ embeddings.numpy().T)[0]
    assert titled > asked > other


@pytest.mark.parametrize("hidden", [(), (16,)])
def test_a_row_that_only_reads_what_starts_without_effect_has_no_exploding_gradient(hidden: tuple[int, ...]) -> None:
    """Its output is exactly zero at first: one over its length must not reach the weights."""
    model = small_model.make_model(model={"hidden_layers": hidden})
    batch = small_model.Batch(
        [small_model.Request([]), small_model.Request([1, 2], shops=[3])],
        [small_model.Product(([], []), shop=2), small_model.Product(([3], [4]))],
    ).features()
    with tf.GradientTape() as tape:
        queries, products = model(batch, training=True)
        loss = tf.reduce_sum(tf.matmul(queries + 0.1, products - 0.1, transpose_b=True))
    assert not queries[0].numpy().any()
    assert not products[0].numpy().any()
    for gradient, variable in zip(
        tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True
    ):
        assert np.abs(small_model.dense(gradient, variable)).max() < 100


def test_every_variable_gets_a_finite_gradient() -> None:
    model = small_model.make_model(
        model=EVERYTHING | {"initial_projection": "independent"}, features={"own_tables": ("description",)}
    )
    batch = small_model.batch().features()
    with tf.GradientTape() as tape:
        queries, products = model(batch, training=True)
        loss = tf.reduce_sum(tf.matmul(queries, products, transpose_b=True) ** 2)
    gradients = tape.gradient(loss, model.trainable_variables)
    for gradient, variable in zip(gradients, model.trainable_variables, strict=True):
        assert gradient is not None, variable.name
        assert np.isfinite(small_model.dense(gradient, variable)).all(), variable.name
        is_table = any(variable is table for table in model.table_variables)
        assert isinstance(gradient, tf.IndexedSlices) == is_table, variable.name
    assert len(model.table_variables) == 4


def test_weights_and_settings_travel_through_files(tmp_path: Path) -> None:
    stages = {"model": EVERYTHING, "features": {"own_tables": ["description"]}, "training": {"seed": 6}}
    config = small_model.make_config(**stages)
    save_config(config, tmp_path / "config.yaml")
    assert load_config(str(tmp_path / "config.yaml")) == config
    batch = small_model.batch().features()
    model = small_model.make_model(**stages)
    model(batch)
    for variable in model.trainable_variables:
        variable.assign_add(tf.random.stateless_normal(variable.shape, [1, 2]))
    tf.train.Checkpoint(model=model).write(str(tmp_path / "weights"))
    other = small_model.make_model(**stages | {"training": {"seed": 7}})
    other(batch)
    tf.train.Checkpoint(model=other).read(str(tmp_path / "weights")).assert_consumed()
    for one, same in zip(model(batch), other(batch), strict=True):
        np.testing.assert_array_equal(one, same)


@pytest.mark.parametrize("projection", ["equal", "independent"])
def test_the_same_seed_gives_the_same_full_model_and_another_seed_another(projection: str) -> None:
    batch = small_model.batch().features()
    settings = {"model": EVERYTHING | {"initial_projection": projection}}
    models = [small_model.make_model(**settings, training={"seed": seed}) for seed in (5, 5, 6)]
    for model in models:
        model(batch)
    one, same, other = ([variable.numpy() for variable in model.trainable_variables] for model in models)
    for position, values in enumerate(one):
        np.testing.assert_array_equal(values, same[position])
    assert sum(not np.array_equal(a, b) for a, b in zip(one, other, strict=True)) > len(one) / 3


def test_deep_outputs_have_no_direction_in_common() -> None:
    """With a shift of its own the last layer can make all similarities equal, and training stayed there."""
    model = model_of(hidden_layers=(16,), initial_projection="independent")
    normalization = model.product_tower._hidden[-1]
    assert not normalization.center
    rng = np.random.default_rng(0)
    outputs = normalization(tf.constant(rng.normal(3.0, 1.0, (64, 8)), tf.float32), training=True)
    np.testing.assert_allclose(tf.reduce_mean(outputs, axis=0), np.zeros(8), atol=1e-5)
