"""One step: the loss is the papers' formula, each source does its part, and replicas agree."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
import tensorflow as tf

from uepp.config import Config
from uepp.model.towers import TwoTower
from uepp.training.trainer import Trainer

Features = dict[str, tf.Tensor]

NUM_PRODUCTS, NUM_QUERIES, DIM = 60, 12, 5
BATCH, UNIFORM, POOL = 6, 8, 40
THRESHOLDS = (0.7, 0.8, 0.9)


class LookupTower(tf.keras.layers.Layer):
    """A tower that knows each id by heart, and remembers how often it was asked for how many."""

    def __init__(self, feature: str, rows: np.ndarray) -> None:
        super().__init__()
        self._feature = feature
        self.table = tf.Variable(rows, dtype=tf.float32, name="embeddings")
        self.calls: list[tuple[list[int], bool]] = []

    def call(self, features: Features, training: bool = False) -> tf.Tensor:
        ids = features[self._feature]
        if tf.executing_eagerly():
            self.calls.append((ids.numpy().tolist(), training))
        return tf.math.l2_normalize(tf.gather(self.table, ids), axis=1)


def vectors(seed: int, rows: int) -> np.ndarray:
    """All in one half of space, so that similarities reach over thresholds."""
    return np.random.default_rng(seed).normal(0.4, 1.0, (rows, DIM)).astype(np.float32)


def build() -> TwoTower:
    return TwoTower(LookupTower("product/shop", vectors(1, NUM_PRODUCTS)), LookupTower("query/id", vectors(2, 40)))


def configured(**stages: dict[str, Any]) -> Config:
    negatives = {"num_uniform": UNIFORM, "in_batch_weight": [0.7, 0.7], "uniform_weight": [0.3, 0.3]}
    loss = {"threshold_negative": 0.1}
    return Config.model_validate(
        {"negatives": negatives | stages.get("negatives", {}), "loss": loss | stages.get("loss", {})}
    )


def dynamic(**settings: Any) -> dict[str, Any]:
    return {"dynamic_pool": POOL, "num_dynamic": 3, "dynamic_chunk": 16, "dynamic_weight": [0.9, 0.9], **settings}


def make_batch(config: Config, *, seed: int = 0, known: list[list[int]] | None = None) -> Features:
    """Six queries; products come from a small catalogue, so that every source holds known positives."""
    rng = np.random.default_rng(seed)
    candidates = rng.integers(0, NUM_PRODUCTS, BATCH + config.negatives.num_uniform + config.negatives.dynamic_pool)
    candidates[1] = candidates[4]
    if known is None:
        known = [rng.choice(NUM_PRODUCTS, 12, replace=False).tolist() for _ in range(BATCH)]
    known = [sorted({int(own), *answers}) for own, answers in zip(candidates, known, strict=False)]
    return {
        "query/id": tf.constant(rng.permutation(40)[:BATCH], tf.int32),
        "product/shop": tf.constant(candidates, tf.int32),
        "candidates": tf.constant(candidates, tf.int32),
        "type_ids": tf.constant(rng.integers(0, 3, BATCH), tf.int32),
        "known_positives/values": tf.constant([product for answers in known for product in answers], tf.int32),
        "known_positives/lengths": tf.constant([len(answers) for answers in known], tf.int32),
        "log_expected_count": tf.constant(rng.uniform(-5, 1, BATCH + config.negatives.num_uniform), tf.float32),
        "element": tf.constant(seed, tf.int64),
    }


def known_of(batch: Features) -> list[list[int]]:
    ragged = tf.RaggedTensor.from_row_lengths(batch["known_positives/values"], batch["known_positives/lengths"])
    return ragged.to_list()


class Expected:
    """The step in NumPy."""

    def __init__(self, config: Config, model: TwoTower, batch: Features, weights: dict[str, float]) -> None:
        settings = config.negatives
        unit = lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)  # noqa: E731
        self.products = unit(model.product_tower.table.numpy())
        queries = unit(model.query_user_tower.table.numpy()[batch["query/id"].numpy()])
        candidates = batch["candidates"].numpy()
        in_batch, uniform = candidates[:BATCH], candidates[BATCH : BATCH + settings.num_uniform]
        known = known_of(batch)
        self.similarity = {"in_batch": queries @ self.products[in_batch].T}
        self.is_known = {"in_batch": oracles.known_positives(in_batch, known)}
        self.is_negative = {"in_batch": ~self.is_known["in_batch"]}
        if settings.num_in_batch:
            score = self.similarity["in_batch"]
            if settings.false_negative_temperature:
                relevance = self.is_known["in_batch"].astype(float)
                theta = oracles.false_negative_estimate(queries @ queries.T, relevance)
                score = oracles.regularized_similarity(score, theta, settings.false_negative_temperature)
            self.is_negative["in_batch"] = oracles.highest(score, self.is_negative["in_batch"], settings.num_in_batch)
        if settings.num_uniform:
            self.similarity["uniform"] = queries @ self.products[uniform].T
            self.is_known["uniform"] = oracles.known_positives(uniform, known)
            self.is_negative["uniform"] = ~self.is_known["uniform"]
        self.hardest: list[list[int]] = []
        if settings.dynamic_pool:
            pool = sorted(set(candidates[BATCH + settings.num_uniform :].tolist()))
            embeddings = {product: self.products[product] for product in pool}
            self.hardest = oracles.hardest_of_pool(queries, embeddings, known, settings.num_dynamic)
            if not weights["dynamic"]:
                self.hardest = [[] for _ in known]
            self.similarity["dynamic"] = queries @ self.products[pool].T
            self.is_known["dynamic"] = oracles.known_positives(pool, known)
            self.is_negative["dynamic"] = np.array([[product in line for product in pool] for line in self.hardest])
        self.positive_similarity = np.diag(self.similarity["in_batch"])
        loss = config.loss
        if loss.kind == "hinge":
            self.positive = oracles.positive_hinge(
                self.positive_similarity, batch["type_ids"].numpy(), THRESHOLDS, loss.power
            )
            self.parts = {
                name: oracles.negative_hinge(
                    self.similarity[name], self.is_negative[name], loss.threshold_negative, loss.power
                )
                for name in self.similarity
            }
            self.loss = np.mean(self.positive + sum(weights[name] * part for name, part in self.parts.items()))
        else:
            counts = [batch["log_expected_count"].numpy()]
            if settings.in_batch == "hardest":
                counts[0] = np.where(np.arange(len(counts[0])) < BATCH, 0, counts[0])  # chosen, not drawn
            if settings.dynamic_pool:
                counts.append(np.zeros(self.similarity["dynamic"].shape[1]))
            self.loss = np.mean(
                oracles.sampled_softmax(
                    np.concatenate(list(self.similarity.values()), axis=1),
                    range(BATCH),
                    np.concatenate(list(self.is_negative.values()), axis=1),
                    np.concatenate(counts),
                    np.concatenate([np.full(part.shape[1], weights[name]) for name, part in self.similarity.items()]),
                    loss.temperature,
                )
            )


def gradients(
    config: Config, batch: Features, step: int = 0, *, graph: bool = False
) -> tuple[np.ndarray, np.ndarray, Trainer]:
    """Gradients into the rows of products and of queries."""
    model = build()
    trainer = Trainer(model, config, tf.Variable(step, dtype=tf.int64))
    tables = [model.product_tower.table, model.query_user_tower.table]

    def compute() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = trainer.compute_loss(batch, training=True)
        return [tf.convert_to_tensor(gradient) for gradient in tape.gradient(loss, tables)]

    products, queries = (tf.function(compute) if graph else compute)()
    return products.numpy(), queries.numpy(), trainer


def reported(trainer: Trainer) -> dict[str, float]:
    return {metric.name: float(metric.result()) for metric in trainer.metrics}


# The loss


@pytest.mark.parametrize(
    ("negatives", "loss"),
    [
        ({}, {}),
        ({}, {"power": 1}),
        ({"num_uniform": 0}, {}),
        ({"in_batch": "hardest", "num_in_batch": 2}, {}),
        ({"in_batch": "hardest", "num_in_batch": 2, "false_negative_temperature": 2.0}, {}),
        (dynamic(), {}),
        (dynamic(num_uniform=0, in_batch="hardest", num_in_batch=2, dynamic_chunk=7), {"power": 1}),
        ({}, {"kind": "softmax", "temperature": 0.2}),
        (dynamic(in_batch="hardest", num_in_batch=3), {"kind": "softmax", "temperature": 0.2}),
    ],
)
def test_the_loss_is_the_oracle(negatives: dict[str, Any], loss: dict[str, Any]) -> None:
    config = configured(negatives=negatives, loss=loss)
    weights = {"in_batch": 0.7, "uniform": 0.3, "dynamic": 0.9}
    model = build()
    trainer = Trainer(model, config, tf.Variable(0, dtype=tf.int64))
    in_a_graph = tf.function(trainer.compute_loss, reduce_retracing=True)
    for seed in range(3):
        batch = make_batch(config, seed=seed)
        got = float(in_a_graph(batch))
        expected = Expected(config, model, batch, weights)
        assert got == pytest.approx(expected.loss, rel=1e-4)
        assert got == pytest.approx(float(trainer.compute_loss(batch)), rel=1e-5), "eager and graph agree"
        assert all(is_known.sum() > 2 for is_known in expected.is_known.values()), "each source's mask hits something"
        assert all(is_negative.sum() > 2 for is_negative in expected.is_negative.values())


def test_the_metrics_are_the_oracle() -> None:
    config = configured(negatives=dynamic(in_batch="hardest", num_in_batch=3))
    batch, model = make_batch(config, seed=4), build()
    weights = {"in_batch": 0.7, "uniform": 0.3, "dynamic": 0.9}
    expected = Expected(config, model, batch, weights)
    trainer = Trainer(model, config, tf.Variable(0, dtype=tf.int64))
    loss = trainer.compute_loss(batch)
    got = reported(trainer)
    assert got.pop("loss") == pytest.approx(float(loss), rel=1e-4)
    assert got.pop("positive_loss") == pytest.approx(expected.positive.mean(), rel=1e-4)
    assert got.pop("positive_similarity") == pytest.approx(expected.positive_similarity.mean(), rel=1e-4)
    for name in ("in_batch", "uniform", "dynamic"):
        similarity, is_negative = expected.similarity[name], expected.is_negative[name]
        is_known = expected.is_known[name]
        if name == "in_batch":  # a query's own column says nothing of the mask
            is_known = is_known[~np.eye(BATCH, dtype=bool)]
        assert got.pop(f"{name}_count") == pytest.approx(is_negative.sum() / BATCH)
        assert got.pop(f"{name}_active") == pytest.approx((is_negative & (similarity > 0.1)).sum() / BATCH)
        assert got.pop(f"{name}_masked_share") == pytest.approx(is_known.mean())
        assert got.pop(f"{name}_similarity") == pytest.approx(similarity[is_negative].mean(), rel=1e-4)
        assert got.pop(f"{name}_loss") == pytest.approx(expected.parts[name].mean(), rel=1e-4)
        assert got.pop(f"{name}_weight") == pytest.approx(weights[name])
    assert not got


@pytest.mark.parametrize("kind", ["hinge", "softmax"])
def test_only_what_is_configured_is_reported(kind: str) -> None:
    config = configured(negatives={"num_uniform": 0}, loss={"kind": kind})
    trainer = Trainer(build(), config, tf.Variable(0, dtype=tf.int64))
    trainer.compute_loss(make_batch(config))
    losses = {"positive_loss", "in_batch_loss"} if kind == "hinge" else set()
    assert set(reported(trainer)) == losses | {"loss", "positive_similarity"} | {
        f"in_batch_{name}" for name in ("count", "active", "masked_share", "similarity", "weight")
    }


# Choices


def test_in_batch_negatives_drawn_uniformly_change_with_the_element() -> None:
    config = configured(negatives={"in_batch": "uniform", "num_in_batch": 2, "num_uniform": 0}, loss={"power": 1})
    batch = make_batch(config, known=[[]] * BATCH)
    losses = {}
    for element in (1, 1, 2, 3):
        trainer = Trainer(build(), config, tf.Variable(0, dtype=tf.int64))
        losses.setdefault(element, []).append(
            float(trainer.compute_loss(batch | {"element": tf.constant(element, tf.int64)}))
        )
        assert reported(trainer)["in_batch_count"] == 2
    assert losses[1][0] == losses[1][1]
    assert len({values[0] for values in losses.values()}) == 3


def test_some_drawn_in_batch_negatives_stand_for_all_of_them_in_a_softmax() -> None:
    """Σ w exp sᶜ over the drawn ones has the expectation of the sum over all."""

    def sums(num_in_batch: int | None, elements: int) -> np.ndarray:
        negatives = {"num_in_batch": num_in_batch, "num_uniform": 0}
        config = configured(negatives=negatives, loss={"kind": "softmax", "temperature": 0.5})
        batch = make_batch(config, known=[[]] * BATCH)
        trainer = Trainer(build(), config, tf.Variable(0, dtype=tf.int64))
        source, of_queries = trainer._softmax, []
        trainer._softmax = lambda *arguments: of_queries.append(source(*arguments)) or of_queries[-1]

        @tf.function
        def losses(element: tf.Tensor) -> tf.Tensor:
            trainer.compute_loss(batch | {"element": element})
            return of_queries.pop()

        found = [losses(tf.constant(element, tf.int64)) for element in range(elements)]
        return np.exp(np.array(found)) - 1  # of the negatives, in units of the positive

    every, some = sums(None, 1)[0], sums(2, 400)
    assert some.std(axis=0).min() > 0
    np.testing.assert_allclose(some.mean(axis=0), every, rtol=0.1)


@pytest.mark.parametrize("choice", [{}, {"in_batch": "hardest", "num_in_batch": 3}])
def test_without_the_batch_a_softmax_is_that_of_uniform_draws(choice: dict[str, Any]) -> None:
    """The positive is as rare there as any product, however often it is a positive: a plain softmax."""
    negatives = choice | {"in_batch_weight": (0, 0), "uniform_weight": (1, 1), "num_uniform": 9}
    config = configured(negatives=negatives, loss={"kind": "softmax", "temperature": 0.5})
    batch, model = make_batch(config, known=[[]] * BATCH), build()
    of_positives = batch["log_expected_count"][:BATCH]
    batch |= {"log_expected_count": tf.concat([of_positives, tf.fill([9], -2.0)], axis=0)}
    expected = Expected(config, model, batch, {"in_batch": 0.0, "uniform": 1.0})
    positive = np.exp(expected.positive_similarity / 0.5)
    others = np.where(expected.is_negative["uniform"], np.exp(expected.similarity["uniform"] / 0.5), 0).sum(axis=1)
    got = Trainer(model, config, tf.Variable(0, dtype=tf.int64)).compute_loss(batch)
    assert float(got) == pytest.approx(np.mean(np.log((positive + others) / positive)), rel=1e-4)


@pytest.mark.parametrize("loss", [{}, {"kind": "softmax"}])
def test_a_known_positive_has_exactly_no_gradient(loss: dict[str, Any]) -> None:
    """One product stands in all three sources; it moves when it is a negative, and not at all when it is known."""
    config = configured(negatives=dynamic(), loss=loss | {"threshold_negative": -1.0})
    batch = make_batch(config, known=[[]] * BATCH)
    product = NUM_PRODUCTS - 1
    candidates = np.minimum(batch["candidates"].numpy(), product - 1)
    candidates[[BATCH, -1]] = product
    batch |= {"candidates": tf.constant(candidates), "product/shop": tf.constant(candidates)}
    unmasked, *_ = gradients(config, batch)
    assert np.abs(unmasked[product]).max() > 0
    known = [sorted({product, *answers}) for answers in known_of(batch)]
    batch |= {
        "known_positives/values": tf.constant(np.concatenate(known), tf.int32),
        "known_positives/lengths": tf.constant([len(answers) for answers in known], tf.int32),
    }
    masked, *_ = gradients(config, batch)
    assert (masked[product] == 0).all()
    assert (np.abs(masked).sum(axis=1) > 0).sum() > BATCH


@pytest.mark.parametrize("loss", [{}, {"power": 1}, {"kind": "softmax"}])
def test_queries_that_know_everything_only_pull_their_positives(loss: dict[str, Any]) -> None:
    config = configured(negatives=dynamic(), loss=loss)
    batch = make_batch(config, known=[list(range(NUM_PRODUCTS))] * BATCH)
    products, queries, trainer = gradients(config, batch)
    assert np.isfinite(products).all()
    assert np.isfinite(queries).all()
    values = reported(trainer)
    for source in ("in_batch", "uniform", "dynamic"):
        assert values[f"{source}_count"] == 0
        assert values[f"{source}_masked_share"] == 1
        assert values[f"{source}_similarity"] == 0
    touched = set(np.flatnonzero(np.abs(products).sum(axis=1)).tolist())
    if loss.get("kind") == "softmax":
        assert not touched
    else:
        assert touched
        assert touched <= set(batch["candidates"].numpy()[:BATCH].tolist())


def test_a_batch_without_any_known_positive_but_its_own_masks_just_those() -> None:
    config = configured(negatives={"num_uniform": 0})
    batch = make_batch(config, known=[[]] * BATCH)
    trainer = Trainer(build(), config, tf.Variable(0, dtype=tf.int64))
    trainer.compute_loss(batch)
    values = reported(trainer)
    # Queries 1 and 4 have the same positive.
    assert values["in_batch_count"] == pytest.approx((4 * (BATCH - 1) + 2 * (BATCH - 2)) / BATCH)
    assert values["in_batch_masked_share"] == pytest.approx(2 / (BATCH * (BATCH - 1)))


# Dynamic negatives


def test_dynamic_negatives_are_encoded_again_once_a_distinct_product() -> None:
    config = configured(negatives=dynamic(num_dynamic=3, dynamic_chunk=9))
    batch, model = make_batch(config, seed=2), build()
    expected = Expected(config, model, batch, {"in_batch": 0.7, "uniform": 0.3, "dynamic": 0.9})
    Trainer(model, config, tf.Variable(0, dtype=tf.int64)).compute_loss(batch, training=True)
    *chunks, last = model.product_tower.calls
    distinct = sorted({product for line in expected.hardest for product in line})
    assert len(distinct) < sum(map(len, expected.hardest)), "queries share some"
    assert last[0][: BATCH + UNIFORM] == batch["candidates"].numpy()[: BATCH + UNIFORM].tolist()
    assert sorted(last[0][BATCH + UNIFORM :]) == distinct
    assert last[1], "with gradient, in training mode"
    assert not any(training for _, training in chunks)
    assert max(len(products) for products, _ in chunks) == 9
    pool = batch["candidates"].numpy()[BATCH + UNIFORM :].tolist()
    assert sorted(product for products, _ in chunks for product in products) == sorted(set(pool))


def test_only_chosen_products_of_the_pool_have_a_gradient() -> None:
    config = configured(
        negatives=dynamic(num_uniform=0, in_batch_weight=[0, 0]), loss={"power": 1, "threshold_negative": -1.0}
    )
    batch = make_batch(config, seed=3)
    products, queries, trainer = gradients(config, batch)
    weights = {"in_batch": 0.0, "dynamic": 0.9}
    expected = Expected(config, trainer.two_tower, batch, weights)
    chosen = {product for line in expected.hardest for product in line}
    positives = set(batch["candidates"].numpy()[:BATCH].tolist())
    touched = set(np.flatnonzero(np.abs(products).sum(axis=1)).tolist())
    assert chosen <= touched <= chosen | positives
    assert len(set(batch["candidates"].numpy()[BATCH:].tolist()) - touched) > 5
    assert np.abs(queries).sum() > 0
    np.testing.assert_allclose(products, gradients(config, batch, graph=True)[0], atol=1e-6)


@pytest.mark.parametrize("chunk", [1, 7, 40, 1_000])
def test_the_chunk_changes_nothing(chunk: int) -> None:
    config, whole = (configured(negatives=dynamic(dynamic_chunk=size)) for size in (chunk, 16))
    batch = make_batch(config, seed=5)
    for got, expected in zip(gradients(config, batch)[:2], gradients(whole, batch)[:2], strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_the_order_of_the_pool_changes_nothing() -> None:
    config = configured(negatives=dynamic())
    batch = make_batch(config, seed=6)
    candidates = batch["candidates"].numpy()
    first = BATCH + UNIFORM
    order = np.concatenate([np.arange(first), first + np.random.default_rng(0).permutation(POOL)])
    assert (candidates[order] != candidates).any()
    shuffled = batch | {name: tf.constant(candidates[order]) for name in ("candidates", "product/shop")}
    for got, expected in zip(gradients(config, shuffled)[:2], gradients(config, batch)[:2], strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_more_dynamic_negatives_than_the_pool_holds() -> None:
    config = configured(negatives=dynamic(dynamic_pool=4, num_dynamic=9))
    batch, model = make_batch(config), build()
    trainer = Trainer(model, config, tf.Variable(0, dtype=tf.int64))
    loss = float(trainer.compute_loss(batch))
    expected = Expected(config, model, batch, {"in_batch": 0.7, "uniform": 0.3, "dynamic": 0.9})
    assert loss == pytest.approx(expected.loss, rel=1e-4)
    assert 0 < reported(trainer)["dynamic_count"] <= 4


# Schedules

SCHEDULED = {
    "uniform_weight": [1.0, 0.2], "in_batch_weight": [0.0, 0.5], "dynamic_weight": [0.0, 0.8],
    "warmup_steps": 3, "ramp_steps": 4,
}  # fmt: skip


@pytest.mark.parametrize(
    ("step", "uniform", "in_batch", "dynamic_weight"),
    [(0, 1.0, 0.0, 0.0), (3, 1.0, 0.0, 0.0), (5, 0.6, 0.25, 0.4), (7, 0.2, 0.5, 0.8), (1_000, 0.2, 0.5, 0.8)],
)
def test_weights_follow_the_step(step: int, uniform: float, in_batch: float, dynamic_weight: float) -> None:
    config = configured(negatives=dynamic(**SCHEDULED))
    batch, model = make_batch(config), build()
    trainer = Trainer(model, config, tf.Variable(step, dtype=tf.int64))
    weights = {"in_batch": in_batch, "uniform": uniform, "dynamic": dynamic_weight}
    expected = Expected(config, model, batch, weights)
    assert float(trainer.compute_loss(batch)) == pytest.approx(expected.loss, rel=1e-4)
    values = reported(trainer)
    assert {name: values[f"{name}_weight"] for name in weights} == pytest.approx(weights)


def test_the_pool_is_not_searched_while_its_weight_is_zero() -> None:
    config = configured(negatives=dynamic(**SCHEDULED))
    batch, model = make_batch(config), build()
    step = tf.Variable(3, dtype=tf.int64)
    trainer = Trainer(model, config, step)
    trainer.compute_loss(batch, training=True)
    assert [len(products) for products, _ in model.product_tower.calls] == [BATCH + UNIFORM]
    assert reported(trainer)["dynamic_count"] == 0
    step.assign(4)
    model.product_tower.calls.clear()
    trainer.compute_loss(batch, training=True)
    assert len(model.product_tower.calls) > 2


@pytest.mark.parametrize("kind", ["hinge", "softmax"])
def test_a_source_of_weight_zero_has_no_gradient(kind: str) -> None:
    """In the warm-up nothing but uniform negatives pushes."""
    config = configured(negatives=dynamic(**SCHEDULED), loss={"kind": kind, "threshold_negative": -1.0})
    batch = make_batch(config, known=[[]] * BATCH)
    candidates = np.arange(BATCH + UNIFORM + POOL) % NUM_PRODUCTS
    batch |= {name: tf.constant(candidates, tf.int32) for name in ("candidates", "product/shop")}
    batch |= {"known_positives/values": tf.range(BATCH), "known_positives/lengths": tf.ones([BATCH], tf.int32)}
    products, _, trainer = gradients(config, batch, step=0)
    assert np.flatnonzero(np.abs(products).sum(axis=1)).max() == BATCH + UNIFORM - 1
    unit = lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)  # noqa: E731
    own = unit(trainer.two_tower.query_user_tower.table.numpy()[batch["query/id"].numpy()])
    # A positive moves only towards its own query: its gradient has no other query's direction.
    direction = (
        own
        - np.sum(own * unit(vectors(1, NUM_PRODUCTS))[:BATCH], axis=1, keepdims=True)
        * unit(vectors(1, NUM_PRODUCTS))[:BATCH]
    )
    moved = np.linalg.norm(products[:BATCH], axis=1) > 0
    assert moved.sum() > 2
    cosine = np.sum(unit(direction[moved]) * unit(products[:BATCH][moved]), axis=1)
    np.testing.assert_allclose(cosine, -1, atol=1e-3)
    later, *_ = gradients(config, batch, step=7)
    assert np.flatnonzero(np.abs(later).sum(axis=1)).max() > BATCH + UNIFORM - 1


def test_the_step_is_a_variable_or_a_function_and_no_weight_of_the_model() -> None:
    config = configured(negatives=SCHEDULED)
    batch = make_batch(config)
    step = tf.Variable(5, dtype=tf.int64, name="step")
    by_variable, by_function = Trainer(build(), config, step), Trainer(build(), config, lambda: tf.constant(5))
    assert float(by_variable.compute_loss(batch)) == float(by_function.compute_loss(batch))
    assert not [variable for variable in by_variable.variables if variable is step]
    run = tf.function(by_variable.compute_loss)
    first = float(run(batch))
    step.assign(7)
    assert float(run(batch)) != pytest.approx(first), "a step that was traced still reads the variable"


def test_steps_lower_the_loss() -> None:
    """`fit` with everything on: the same batches again and again."""
    config = configured(negatives=dynamic(in_batch="hardest", num_in_batch=3, false_negative_temperature=1.0))
    trainer = Trainer(build(), config, tf.Variable(0, dtype=tf.int64))
    trainer.compile(optimizer=tf.keras.optimizers.Adam(0.05))
    batches = [make_batch(config, seed=seed, known=[[]] * BATCH) for seed in range(3)]
    before = [float(trainer.compute_loss(batch)) for batch in batches]
    specs = {name: tf.TensorSpec([None] * tensor.shape.rank, tensor.dtype) for name, tensor in batches[0].items()}
    data = tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=specs).repeat()
    trainer.fit(data, steps_per_epoch=60, epochs=1, verbose=0)
    after = [float(trainer.compute_loss(batch)) for batch in batches]
    assert sum(after) < sum(before) / 2


# Replicas: one strategy a process

_REPLICAS = """
import sys
from pathlib import Path
import uepp, tensorflow as tf
replicas = int(sys.argv[1])
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
import numpy as np
from uepp.config import Config
from uepp.features.fitted import Fitted
from uepp.features.location import Locations
from uepp.features.vocabulary import Vocabulary
from uepp.model.towers import build_two_tower
from uepp.training.trainer import Trainer

B, U, M, TOKENS, SHOPS, TEXTS = 8, 8, 24, 30, 5, 10  # of one global batch
fitted = Fitted(
    groups=(("title",),),
    vocabularies={"shared": Vocabulary([b"t%d" % n for n in range(TOKENS)], np.ones(TOKENS, np.int64), 50, 0)},
    shops=Vocabulary([b"s%d" % n for n in range(SHOPS)], np.ones(SHOPS, np.int64), 50, 0),
    locations=Locations({}, {}),
)
rng = np.random.default_rng(7)
halves = lambda first, size: np.split(np.arange(first, first + size), 2)
rows = {
    "query": halves(0, B),
    "product": [np.concatenate(parts) for parts in zip(halves(0, B), halves(B, U), halves(B + U, M))],
    "drawn": [np.concatenate(parts) for parts in zip(halves(0, B), halves(B, U))],
}
lengths = lambda size: rng.integers(1, 5, size)
bag = lambda size, ids: [rng.integers(0, ids, length) for length in lengths(size)]
# Drawn products are 0 to 9, so that they repeat and are known to several queries; the pool's are 100 and more.
candidates = np.concatenate([rng.integers(0, 10, B + U), 100 + np.arange(M)])
own_pool = [set(candidates[half].tolist()) for half in halves(B + U, M)]
known = [
    {int(candidates[i]), *rng.choice(10, 3).tolist(), *own_pool[1 - i // (B // 2)], *rng.choice(100 + np.arange(M), 2)}
    for i in range(B)
]
bags = {
    "query": ("query", bag(B, TOKENS)),
    "known_positives": ("query", [np.array(sorted(answers)) for answers in known]),
    "product/0": ("product", bag(B + U + M, TOKENS)),
    "product/graph": ("product", bag(B + U + M, TEXTS)),
    "graph": (None, bag(TEXTS, TOKENS)),
}
dense = {
    "product/shop": ("product", rng.integers(-1, SHOPS, B + U + M)),
    "candidates": ("product", candidates),
    "type_ids": ("query", rng.integers(0, 3, B)),
}
log_expected_count = rng.uniform(-4, 0, B + U).astype(np.float32)

def features(part):
    # All of the batch, or the share of one of two replicas.
    chosen = lambda kind, size: np.arange(size) if part is None or kind is None else rows[kind][part]
    made = {"element": tf.constant(0, tf.int64)}
    for name, (kind, lists) in bags.items():
        taken = [lists[row] for row in chosen(kind, len(lists))]
        made[name + "/values"] = tf.constant(np.concatenate(taken), tf.int32)
        made[name + "/lengths"] = tf.constant([len(ids) for ids in taken], tf.int32)
    for name, (kind, values) in dense.items():
        made[name] = tf.constant(values[chosen(kind, len(values))], tf.int32)
    # A replica draws a share of the batch, so it expects each product less often.
    count = log_expected_count[chosen("drawn", B + U)] - np.log(1 if part is None else replicas)
    made["log_expected_count"] = tf.constant(count, tf.float32)
    return made

def settings(negatives, loss):
    dynamic = negatives.get("dynamic_pool", 0)
    return Config.model_validate({
        "features": {"groups": [["title"]]},
        "graph": {"gradient": "shared"},
        "model": {
            "product_encoders": ["tokens", "shop", "graph"], "query_encoders": ["tokens"], "token_dim": 6,
            "output_dim": 6, "hidden_layers": [40], "initial_projection": "independent",
        },
        "negatives": {
            "gather": True, "in_batch_weight": [0.7, 0.7], "uniform_weight": [0.4, 0.4], "dynamic_weight": [0.6, 0.6],
            "num_dynamic": 2, "dynamic_chunk": 5, **negatives,
            "num_uniform": U // replicas, "dynamic_pool": dynamic // replicas,
        },
        "loss": {"threshold_negative": 0.0, "temperature": 0.2, **loss},
    })

scenarios = {
    "all": ({}, {}),
    "hardest": ({"in_batch": "hardest", "num_in_batch": 2, "false_negative_temperature": 1.0}, {}),
    "dynamic": ({"dynamic_pool": M}, {}),
    "dynamic_softmax": ({"dynamic_pool": M}, {"kind": "softmax"}),
    "alone": ({"gather": False}, {}),
}
strategy = tf.distribute.MirroredStrategy([f"/cpu:{number}" for number in range(replicas)])
results = {}
for name, (negatives, loss) in scenarios.items():
    config = settings(negatives, loss)
    parts = [None] if replicas == 1 else [0, 1]
    batches = [features(part) for part in parts]
    if not config.negatives.dynamic_pool:
        for part, batch in zip(parts, batches):
            small = B + U if part is None else (B + U) // 2
            batch["candidates"] = batch["candidates"][:small]
            batch["product/shop"] = batch["product/shop"][:small]
            for group in ("product/0", "product/graph"):
                batch[group + "/lengths"] = batch[group + "/lengths"][:small]
                total = tf.reduce_sum(batch[group + "/lengths"])
                batch[group + "/values"] = batch[group + "/values"][:total]
    with strategy.scope():
        model = build_two_tower(config, fitted)
        model(batches[0])
        trainer = Trainer(model, config, tf.Variable(0, dtype=tf.int64))
    distributed = {
        key: strategy.experimental_distribute_values_from_function(
            lambda context: batches[context.replica_id_in_sync_group][key]
        )
        for key in batches[0]
    }

    @tf.function
    def step(batch):
        def replica_step(inputs):
            with tf.GradientTape() as tape:
                loss = trainer.compute_loss(inputs, training=True)
            gradients = tape.gradient(loss, model.trainable_variables)
            return loss, [tf.convert_to_tensor(gradient) for gradient in gradients]
        loss, gradients = strategy.run(replica_step, args=(batch,))
        add = lambda value: strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None)
        return add(loss), [add(gradient) for gradient in gradients]

    loss, gradients = step(distributed)
    results[f"{name}/loss"] = loss.numpy()
    for position, (variable, gradient) in enumerate(zip(model.trainable_variables, gradients)):
        results[f"{name}/gradient/{position}"] = gradient.numpy()
    for position, variable in enumerate(model.non_trainable_variables):
        results[f"{name}/moving/{position}"] = variable.numpy()
    for metric in trainer.metrics:
        results[f"{name}/metric/{metric.name}"] = metric.result().numpy()
np.savez(sys.argv[2], **results)
"""


@pytest.fixture(scope="module")
def replica_results(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, np.ndarray]]:
    """Sums of gradients over the replicas for one global batch, on one device and on two."""
    directory, root = tmp_path_factory.mktemp("replicas"), Path(__file__).parents[2]
    results = {}
    for replicas in (1, 2):
        path = directory / f"{replicas}.npz"
        finished = subprocess.run(
            [sys.executable, "-c", _REPLICAS, str(replicas), str(path)],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr[-3_000:]
        results[replicas] = dict(np.load(path))
    return results


@pytest.mark.parametrize("scenario", ["all", "hardest", "dynamic", "dynamic_softmax"])
def test_gradients_do_not_depend_on_the_number_of_replicas(
    replica_results: dict[int, dict[str, np.ndarray]], scenario: str
) -> None:
    """Synchronised batch normalisation, gathered candidates: two halves of a batch are the batch.

    Each replica searches its own half of the pool; on one device the other half is masked, so that the choice is
    the same. (The hidden layer is wide: with few units several products came out in one direction, and rounding chose.)
    """
    one, two = replica_results[1], replica_results[2]
    names = [name for name in one if name.startswith(f"{scenario}/")]
    gradients = [name for name in names if "/gradient/" in name]
    assert len(gradients) >= 8
    assert all(np.abs(one[name]).max() > 1e-3 for name in gradients)
    for name in names:
        if "/metric/" in name:
            continue
        np.testing.assert_allclose(two[name], one[name], atol=1e-4 * np.abs(one[name]).max(), rtol=0, err_msg=name)
    for metric in ("in_batch_count", "uniform_count", "in_batch_masked_share", "uniform_masked_share"):
        name = f"{scenario}/metric/{metric}"
        assert two[name] == pytest.approx(one[name])
        assert one[name] > 0
    if scenario.startswith("dynamic"):
        name = f"{scenario}/metric/dynamic_count"
        assert one[name] == two[name] == 2


def test_without_gathering_a_query_meets_only_its_own_replicas_candidates(
    replica_results: dict[int, dict[str, np.ndarray]],
) -> None:
    one, two = replica_results[1], replica_results[2]
    assert two["alone/metric/in_batch_count"] < one["alone/metric/in_batch_count"] / 1.5
    assert two["alone/metric/uniform_count"] < one["alone/metric/uniform_count"] / 1.5
    assert np.abs(two["alone/gradient/0"] - one["alone/gradient/0"]).max() > 1e-3
    assert one["alone/loss"] == pytest.approx(one["all/loss"])
    assert two["all/metric/in_batch_count"] == pytest.approx(one["all/metric/in_batch_count"])
