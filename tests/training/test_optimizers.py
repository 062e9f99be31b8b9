"""Sparse rows move and nothing else does, by Adagrad's formula, on any number of replicas; dense weights move too.

Run as a script, it takes the steps of `REPLICA_GRADIENTS` on some replicas: `test_optimizers.py REPLICAS`.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
from fresh_process import printed_by

import uepp

assert uepp.__version__
import tensorflow as tf  # noqa: E402

from uepp.config import Config  # noqa: E402
from uepp.model.embedding import EmbeddingTable, TokenBags  # noqa: E402
from uepp.model.encoders.base import Block  # noqa: E402
from uepp.model.towers import Tower, TwoTower  # noqa: E402
from uepp.training.optimizers import SparseAdagrad, build_optimizer  # noqa: E402

NUM_TOKENS, DIM = 20, 4
TOUCHED = [1, 2, 4, 7]
UNTOUCHED = [row for row in range(NUM_TOKENS) if row not in TOUCHED]


class BagEncoder(tf.keras.layers.Layer):
    """The average of one bag."""

    blocks = (Block(DIM, 1.0),)

    def __init__(self, table: EmbeddingTable, feature: str) -> None:
        super().__init__()
        self._table, self._feature = table, feature

    def call(self, features: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        return self._table(TokenBags(features[f"{self._feature}/values"], features[f"{self._feature}/lengths"]))


def built(
    *, warmup_steps: int = 0, max_steps: int = 10**7, rowwise: bool = False, **tower: Any
) -> tuple[TwoTower, tf.keras.optimizers.Optimizer]:
    """By default with learning rates that stay at their peak."""
    rates = {"table_learning_rate": 0.1, "dense_learning_rate": 0.01}
    kind = "rowwise_adagrad" if rowwise else "adagrad"
    steps = {"warmup_steps": warmup_steps, "max_steps": max_steps}
    config = Config.model_validate({"training": {"table_optimizer": kind, **steps, **rates}})
    table = EmbeddingTable(NUM_TOKENS, DIM, "shared", None, seed=1)
    settings = {"output_dim": 4, "hidden_layers": [6], "batch_norm": True, "equal_projection": True} | tower
    product, query = (
        Tower([BagEncoder(table, name)], precision="float32", seed=1, name=f"{name}_tower", **settings)
        for name in ("product", "query")
    )
    model = TwoTower(product, query)
    model(batch())
    return model, build_optimizer(model, config.training)


def batch() -> dict[str, tf.Tensor]:
    return {
        "query/values": tf.constant([1, 2, 2, 4]),
        "query/lengths": tf.constant([1, 3]),
        "product/values": tf.constant([7, 7, 1]),
        "product/lengths": tf.constant([2, 1]),
    }


def step(model: TwoTower, optimizer: tf.keras.optimizers.Optimizer) -> None:
    with tf.GradientTape() as tape:
        queries, products = model(batch(), training=True)
        loss = tf.reduce_mean(tf.matmul(queries, products, transpose_b=True) * tf.constant([[-1.0, 2.0], [3.0, -1.0]]))
    gradients = tape.gradient(loss, model.trainable_variables)
    assert isinstance(
        gradients[[v.ref() for v in model.trainable_variables].index(model.table_variables[0].ref())], tf.IndexedSlices
    )
    optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))


def slots(optimizer: tf.keras.optimizers.Optimizer) -> list[tf.Variable]:
    """Accumulators of the tables."""
    parts = getattr(optimizer, "optimizers", [optimizer])
    return [v for part in parts if isinstance(part, SparseAdagrad) for v in part.variables if "accumulator" in v.name]


# What moves


@pytest.mark.parametrize("rowwise", [False, True])
def test_only_touched_rows_and_their_slots_move(rowwise: bool) -> None:
    model, optimizer = built(rowwise=rowwise)
    step(model, optimizer)  # makes the slots
    (table,), (slot,) = model.table_variables, slots(optimizer)
    assert slot.shape.as_list() == ([NUM_TOKENS] if rowwise else [NUM_TOKENS, DIM])
    rows, accumulated = table.numpy(), slot.numpy()
    dense = [variable.numpy() for variable in model.dense_variables]
    step(model, optimizer)
    assert (np.abs(table.numpy() - rows)[TOUCHED].max(axis=1) > 1e-4).all()
    assert ((slot.numpy() - accumulated).reshape(NUM_TOKENS, -1)[TOUCHED].max(axis=1) > 0).all()
    np.testing.assert_array_equal(table.numpy()[UNTOUCHED], rows[UNTOUCHED])
    np.testing.assert_array_equal(slot.numpy()[UNTOUCHED], accumulated[UNTOUCHED])
    assert accumulated[UNTOUCHED].max() < 1e-6, "rows that were never seen have an empty slot"
    assert len(dense) > 4
    for before, variable in zip(dense, model.dense_variables, strict=True):
        assert not np.array_equal(before, variable.numpy()), f"{variable.name} did not move"


@pytest.mark.parametrize("equal_projection", [True, False])
def test_a_model_without_hidden_layers_trains_too(equal_projection: bool) -> None:
    model, optimizer = built(hidden_layers=[], equal_projection=equal_projection)
    before = [variable.numpy() for variable in model.trainable_variables]
    assert len(before) >= 3
    step(model, optimizer)
    for old, variable in zip(before, model.trainable_variables, strict=True):
        assert not np.array_equal(old, variable.numpy())


# The formula


def adagrad(rows: np.ndarray, accumulator: np.ndarray, gradient: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Learning rate 0.1; the accumulator's shape says whether it is one number a row."""
    if accumulator.ndim == 2:
        return oracles.adagrad_rows(rows, accumulator, gradient, 0.1)
    rows, accumulator = rows.astype(float).copy(), accumulator.astype(float).copy()
    for row in range(len(rows)):
        accumulator[row] += np.mean(gradient[row] ** 2)
        rows[row] -= 0.1 * gradient[row] / np.sqrt(accumulator[row])
    return rows, accumulator


def dense_of(gradients: list[tf.IndexedSlices], shape: tuple[int, ...]) -> np.ndarray:
    """Their sum, every occurrence of a row added up."""
    total = np.zeros(shape)
    for gradient in gradients:
        for row, values in zip(gradient.indices.numpy(), gradient.values.numpy(), strict=True):
            total[row] += values
    return total


def some_slices(rng: np.random.Generator, num_rows: int, dim: int, count: int) -> tf.IndexedSlices:
    """Random rows out of the first half, so that some come more than once and others never."""
    values, rows = rng.standard_normal((count, dim), np.float32), rng.integers(0, num_rows // 2, count)
    return tf.IndexedSlices(tf.constant(values), tf.constant(rows, tf.int32), tf.constant([num_rows, dim]))


def shapes_and_starts() -> Iterator[np.ndarray]:
    rng = np.random.default_rng(3)
    for shape in ((30, 5), (12, 3), (12, 3)):
        yield rng.standard_normal(shape, np.float32)


@pytest.mark.parametrize("rowwise", [False, True])
@pytest.mark.parametrize("in_graph", [False, True])
def test_steps_of_several_tables_are_adagrad_of_the_dense_gradient(rowwise: bool, in_graph: bool) -> None:
    rng = np.random.default_rng(1)
    tables = [tf.Variable(start) for start in shapes_and_starts()]
    optimizer = SparseAdagrad(0.1, 1e-3, rowwise=rowwise)
    expected = [(t.numpy(), np.full(t.shape[:1] if rowwise else t.shape, 1e-3)) for t in tables]
    untouched = [t.numpy()[t.shape[0] // 2 :] for t in tables]

    def apply(gradients: list[tf.IndexedSlices]) -> None:
        optimizer.apply_gradients(zip(gradients, tables, strict=True))

    run = tf.function(apply, reduce_retracing=True) if in_graph else apply
    repeated = 0
    for _ in range(6):
        gradients = [some_slices(rng, *table.shape, 11) for table in tables]
        repeated += sum(len(g.indices) - len(set(g.indices.numpy())) for g in gradients)
        run(gradients)
        expected = [
            adagrad(*state, dense_of([gradient], table.shape))
            for state, gradient, table in zip(expected, gradients, tables, strict=True)
        ]
    assert repeated > 30
    assert int(optimizer.iterations) == 6
    for table, slot, (rows, accumulator), kept in zip(tables, slots(optimizer), expected, untouched, strict=True):
        np.testing.assert_allclose(table, rows, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(slot, accumulator, rtol=1e-4)
        np.testing.assert_array_equal(table.numpy()[len(rows) // 2 :], kept)
        np.testing.assert_array_equal(slot.numpy()[len(rows) // 2 :], np.float32(1e-3))


@pytest.mark.parametrize("rowwise", [False, True])
def test_a_dense_gradient_is_one_of_all_rows(rowwise: bool) -> None:
    start, gradient = np.ones((6, 3), np.float32), np.arange(18, dtype=np.float32).reshape(6, 3) - 7
    table = tf.Variable(start)
    SparseAdagrad(0.1, 1e-3, rowwise=rowwise).apply_gradients([(tf.constant(gradient), table)])
    rows, _ = adagrad(start, np.full((6,) if rowwise else (6, 3), 1e-3), gradient)
    np.testing.assert_allclose(table, rows, rtol=1e-5)


def test_numbers_are_those_of_keras() -> None:
    tables, rng = [tf.Variable(tf.ones([30, 5])) for _ in range(2)], np.random.default_rng(2)
    ours, keras = SparseAdagrad(0.1, 1e-7), tf.keras.optimizers.Adagrad(0.1, 1e-7, epsilon=0.0)
    for _ in range(5):
        gradient = some_slices(rng, 30, 5, 20)
        for optimizer, table in zip((ours, keras), tables, strict=True):
            optimizer.apply_gradients([(gradient, table)])
    assert np.abs(tables[0].numpy() - 1).max() > 0.1
    np.testing.assert_allclose(tables[0], tables[1], rtol=1e-6, atol=1e-6)


def apply_to_table(gradients: list[tf.IndexedSlices], **settings: Any) -> tuple[np.ndarray, np.ndarray]:
    """The table before and after some steps with given gradients."""
    model, optimizer = built(**settings)
    table = model.table_variables[0]
    before = table.numpy()
    for gradient in gradients:
        pairs = [(gradient if v.ref() == table.ref() else tf.zeros_like(v), v) for v in model.trainable_variables]
        optimizer.apply_gradients(pairs)
    return before, table.numpy()


@pytest.mark.parametrize("rowwise", [False, True])
def test_a_row_given_twice_is_one_row_with_the_sum(rowwise: bool) -> None:
    """Adagrad must square the sum: adding the squares of the parts makes the step √2 times too large."""
    twice = tf.IndexedSlices(tf.constant([[0.5] * 4, [0.5] * 4]), tf.constant([7, 7]), [NUM_TOKENS, 4])
    before, after = apply_to_table([twice], rowwise=rowwise)
    np.testing.assert_allclose(after[7] - before[7], -0.1, atol=1e-4)
    np.testing.assert_array_equal(np.delete(after, 7, axis=0), np.delete(before, 7, axis=0))


@pytest.mark.parametrize("size", [1e-1, 1e-2, 1e-3])
def test_the_first_step_of_a_row_has_the_size_of_the_learning_rate(size: float) -> None:
    """Also for the small gradients of a token in one bag of a large batch: η · g / √(1e-7 + g²) is nearly η."""
    once = tf.IndexedSlices(tf.constant([[size] * 4]), tf.constant([7]), [NUM_TOKENS, 4])
    before, after = apply_to_table([once])
    np.testing.assert_allclose(after[7] - before[7], -0.1, rtol=0.1)


def test_a_negligible_gradient_makes_a_small_step() -> None:
    once = tf.IndexedSlices(tf.constant([[1e-5] * 4]), tf.constant([7]), [NUM_TOKENS, 4])
    before, after = apply_to_table([once])
    np.testing.assert_allclose(after[7] - before[7], -0.1 * 1e-5 / np.sqrt(1e-7 + 1e-10), rtol=1e-3)


@pytest.mark.parametrize(("warmup_steps", "max_steps"), [(5, 20), (0, 20), (19, 20), (100, 20)])
def test_learning_rates_rise_then_fall(warmup_steps: int, max_steps: int) -> None:
    """Step n touches row n for the first time, so the row's move is the learning rate of that step."""
    slices = [tf.IndexedSlices(tf.ones([1, 4]), tf.constant([row]), [NUM_TOKENS, 4]) for row in range(NUM_TOKENS)]
    before, after = apply_to_table(slices, warmup_steps=warmup_steps, max_steps=max_steps)
    expected = [0.1 * oracles.learning_rate_share(step, warmup_steps, max_steps) for step in range(NUM_TOKENS)]
    np.testing.assert_allclose((before - after)[:, 0], expected, rtol=1e-3, atol=1e-6)
    assert min(expected) > 0


# Without rows


@pytest.mark.parametrize("rowwise", [False, True])
@pytest.mark.parametrize("nothing", ["none", "no rows"])
def test_a_table_without_gradient_stays_and_learns_later(rowwise: bool, nothing: str) -> None:
    rng = np.random.default_rng(4)
    optimizer = SparseAdagrad(0.1, rowwise=rowwise)
    first, second = (tf.Variable(tf.ones([8, 3])) for _ in range(2))
    empty = None if nothing == "none" else some_slices(rng, 8, 3, 0)
    optimizer.apply_gradients([(some_slices(rng, 8, 3, 5), first), (empty, second)])
    assert not np.array_equal(first, tf.ones([8, 3]))
    np.testing.assert_array_equal(second, tf.ones([8, 3]))
    before = first.numpy()
    optimizer.apply_gradients([(empty, first), (empty, second)])
    np.testing.assert_array_equal(first, before)
    assert int(optimizer.iterations) == 2
    optimizer.apply_gradients([(empty, first), (some_slices(rng, 8, 3, 5), second)])
    np.testing.assert_array_equal(first, before)
    assert not np.array_equal(second, tf.ones([8, 3]))


# Checkpoints


@pytest.mark.parametrize("rowwise", [False, True])
def test_slots_come_back_from_a_checkpoint(rowwise: bool, tmp_path: Path) -> None:
    """Also when they are made after restoring. One more step then goes where the first run goes, to the bit."""

    def parts() -> tuple[TwoTower, tf.keras.optimizers.Optimizer, tf.train.Checkpoint]:
        model, optimizer = built(rowwise=rowwise, warmup_steps=7, max_steps=20)
        return model, optimizer, tf.train.Checkpoint(model=model, optimizer=optimizer)

    model, optimizer, checkpoint = parts()
    for _ in range(3):
        step(model, optimizer)
    path = checkpoint.save(str(tmp_path / "saved"))
    saved_rows, saved_slot = model.table_variables[0].numpy(), slots(optimizer)[0].numpy()
    step(model, optimizer)
    again, restored, other = parts()
    status = other.restore(path)
    np.testing.assert_array_equal(again.table_variables[0], saved_rows)
    assert int(restored.iterations) == 3
    restored.optimizers[0].build(again.table_variables)
    np.testing.assert_array_equal(slots(restored)[0], saved_slot)
    step(again, restored)
    status.assert_consumed()
    for ours, theirs in zip(again.trainable_variables, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(slots(restored)[0], slots(optimizer)[0])
    assert not np.array_equal(slots(restored)[0], saved_slot)


# Replicas


def replica_gradients() -> list[list[list[tf.IndexedSlices]]]:
    """For each of four steps and each of two replicas, the gradients of three tables.

    Replicas have different numbers of rows; the second table has none at all in step 1, and in step 2 on one replica.
    """
    rng = np.random.default_rng(6)
    shapes = [start.shape for start in shapes_and_starts()]

    def num_rows(step: int, replica: int, table: int) -> int:
        empty = table == 1 and (step == 1 or (step == 2 and replica == 0))
        return 0 if empty else int(rng.integers(5, 12))

    return [
        [
            [some_slices(rng, *shape, num_rows(step, replica, table)) for table, shape in enumerate(shapes)]
            for replica in range(2)
        ]
        for step in range(4)
    ]


def joined(parts: list[tf.IndexedSlices]) -> tf.IndexedSlices:
    return tf.IndexedSlices(
        tf.concat([part.values for part in parts], 0),
        tf.concat([part.indices for part in parts], 0),
        parts[0].dense_shape,
    )


def run_on_replicas(num_replicas: int) -> dict[str, Any]:
    """The steps of `replica_gradients`, all of them on one replica or half of them on each of two."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * num_replicas)
    strategy = tf.distribute.MirroredStrategy([f"/cpu:{number}" for number in range(num_replicas)])
    seen: dict[str, Any] = {"whole_reads": [], "num_updates": 0}
    for kind in ("element", "row"):
        with strategy.scope():
            tables = [tf.Variable(start) for start in shapes_and_starts()]
            optimizer = SparseAdagrad(0.1, 1e-3, rowwise=kind == "row")

        def apply(*gradients: tf.IndexedSlices, tables: Any = tables, optimizer: Any = optimizer) -> None:
            # The last table has no gradient, for once.
            optimizer.apply_gradients(zip([*gradients[:2], None], tables, strict=True))

        run = tf.function(lambda gradients, apply=apply: strategy.run(apply, args=gradients), reduce_retracing=True)
        arguments: Any = ()
        for parts in replica_gradients():
            by_table = list(zip(*parts, strict=True))
            arguments = tuple(
                strategy.experimental_distribute_values_from_function(
                    lambda context, per_replica=per_replica: (
                        joined(list(per_replica))
                        if num_replicas == 1
                        else per_replica[context.replica_id_in_sync_group]
                    )
                )
                for per_replica in by_table
            )
            run(arguments)
        graph = run.get_concrete_function(arguments).graph
        sizes = {table.shape[0] for table in tables}
        seen["whole_reads"] += [
            operation.name
            for operation in graph.get_operations()
            if operation.type == "ReadVariableOp"
            and operation.outputs[0].shape[:1].as_list()[:1] in [[n] for n in sizes]
        ]
        seen["num_updates"] += sum(
            operation.type in ("ResourceSparseApplyAdagradV2", "ResourceScatterSub")
            for operation in graph.get_operations()
        )
        variables = [*tables, *slots(optimizer)]
        copies = [[c.numpy().tolist() for c in strategy.experimental_local_results(v)] for v in variables]
        seen[kind] = [copy[0] for copy in copies]
        seen[f"{kind} copies agree"] = all(copy[0] == other for copy in copies for other in copy)
        seen[f"{kind} steps"] = int(optimizer.iterations.numpy())
    return seen


@pytest.fixture(scope="module", params=[1, 2])
def on_replicas(request: pytest.FixtureRequest) -> tuple[int, dict[str, Any]]:
    """What `run_on_replicas` saw; strategies need a process of their own."""
    return request.param, json.loads(printed_by(__file__, request.param)[-1])


@pytest.mark.parametrize("kind", ["element", "row"])
def test_replicas_end_where_one_ends(on_replicas: tuple[int, dict[str, Any]], kind: str) -> None:
    _, seen = on_replicas
    starts = list(shapes_and_starts())
    states = [(start, np.full(start.shape[:1] if kind == "row" else start.shape, 1e-3)) for start in starts]
    for parts in replica_gradients():
        for number, gradients in list(enumerate(zip(*parts, strict=True)))[:2]:
            states[number] = adagrad(*states[number], dense_of(list(gradients), starts[number].shape))
    expected = [rows for rows, _ in states] + [accumulator for _, accumulator in states]
    assert len(seen[kind]) == 6
    for got, wanted in zip(seen[kind], expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(np.float32(seen[kind][2]), starts[2])
    assert seen[f"{kind} copies agree"]
    assert seen[f"{kind} steps"] == 4


def test_a_step_reads_no_table_and_no_slot_whole(on_replicas: tuple[int, dict[str, Any]]) -> None:
    """A whole read of a variable with sparse updates is a copy of it: the cost of a step would grow with the rows."""
    num_replicas, seen = on_replicas
    assert seen["num_updates"] == 2 * 3 * num_replicas
    assert seen["whole_reads"] == []


if __name__ == "__main__":
    print(json.dumps(run_on_replicas(int(sys.argv[1]))))
