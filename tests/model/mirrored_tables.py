"""Run as a script: two replicas take gradients and normalise by the batch of both. Prints what was seen as JSON."""

import json

import numpy as np
import small_model
import tensorflow as tf

from uepp.model.features import take_rows


def normalised_by_the_batch(
    strategy: tf.distribute.Strategy, features: dict[str, tf.Tensor]
) -> tuple[list[list[float]], list[list[float]]]:
    """Product embeddings of one replica, and of two that have two and three of the products."""
    settings = {"hidden_layers": (6,), "initial_projection": "independent"}
    with strategy.scope():
        model = small_model.make_model(model=settings)
    alone = small_model.make_model(model=settings)
    numbers = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(context.replica_id_in_sync_group)
    )

    @tf.function
    def encode(number: tf.Tensor) -> tf.Tensor:
        rows = tf.where(number == 0, tf.constant([0, 2]), tf.constant([2, 5]))
        return model.product_tower(take_rows(features, slice(rows[0], rows[1])), training=True)

    split = strategy.experimental_local_results(strategy.run(encode, (numbers,)))
    return alone.product_tower(features, training=True).numpy().tolist(), np.concatenate(split).tolist()


def main() -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
    features = small_model.batch().features()
    with strategy.scope():
        model = small_model.make_model(graph={"gradient": "shared"}, model={"initial_projection": "independent"})
        outside = [output.numpy().tolist() for output in model(features)]
    tables = model.table_variables
    kinds: list[str] = []

    def gradients() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            queries, products = model(features, training=True)
            loss = tf.reduce_sum(tf.matmul(queries, products, transpose_b=True) ** 2)
        slices = tape.gradient(loss, tables)
        kinds.extend(type(one).__name__ for one in slices)
        rows = [table.shape[0] for table in tables]
        return [tf.math.unsorted_segment_sum(s.values, s.indices, n) for s, n in zip(slices, rows, strict=True)]

    step = tf.function(lambda: strategy.run(gradients))
    graph = step.get_concrete_function().graph
    shapes = {tuple(table.shape) for table in tables}
    per_replica = [[part.numpy() for part in strategy.experimental_local_results(one)] for one in step()]
    inside = strategy.run(tf.function(lambda: model(features)))
    whole, halves = normalised_by_the_batch(strategy, features)
    seen = {
        "whole": whole,
        "halves": halves,
        "kinds": kinds,
        "num_tables": len(tables),
        "num_gathers": sum(operation.type == "ResourceGather" for operation in graph.get_operations()),
        "whole_reads": [
            operation.name
            for operation in graph.get_operations()
            if operation.type == "ReadVariableOp" and tuple(operation.outputs[0].shape) in shapes
        ],
        "replicas_agree": bool(all(np.allclose(*parts, atol=1e-5) for parts in per_replica)),
        "not_zero": bool(all(parts[0].any() for parts in per_replica)),
        "outside": outside,
        "inside": [strategy.experimental_local_results(output)[1].numpy().tolist() for output in inside],
    }
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
