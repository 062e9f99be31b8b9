"""Dropout of Keras 3 on replicas: each draws for its own rows, and what it draws follows from the step."""

import json

import pytest
from fresh_process import printed_by

Masks = list[list[list[int]]]
PROGRAM = """
import json, sys
import uepp, tensorflow as tf
from uepp.pretraining.dropout import draw_for_replica, dropout_states
import keras

number = int(sys.argv[1])
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * number)
strategy = tf.distribute.MirroredStrategy([f"/cpu:{n}" for n in range(number)])
with strategy.scope():
    model = keras.Sequential([keras.layers.Dropout(0.5, seed=3)])
    model.build((None, 64))
    step = tf.Variable(0, dtype=tf.int64, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA)
states = dropout_states(variable.value for variable in model.variables)
assert len(states) == 1


def on_replica():
    draw_for_replica(states, step)
    return tf.concat([model(tf.ones([1, 64]), training=True) for _ in range(2)], axis=0)


@tf.function
def draw():
    return strategy.run(on_replica)


for value in map(int, sys.argv[2:]):
    step.assign(value)
    drawn = strategy.experimental_local_results(draw())
    print(json.dumps([(each.numpy() != 0).astype(int).tolist() for each in drawn]))
"""


def drawn(replicas: int, *steps: int) -> list[Masks]:
    """By step, replica and draw: what is kept."""
    return [json.loads(line) for line in printed_by("-c", PROGRAM, replicas, *steps) if line.startswith("[[")]


def test_replicas_draw_masks_of_their_own_that_follow_from_the_step() -> None:
    """A generator of Keras 3 is the same on all replicas, so all of them dropped the same places."""
    first, second, again = drawn(2, 0, 1, 0)
    assert again == first, "whatever was drawn between"
    masks = [tuple(mask) for step in (first, second) for replica in step for mask in replica]
    assert len(set(masks)) == len(masks) == 8
    for mask in masks:
        assert sum(mask) / 64 == pytest.approx(0.5, abs=0.25)


def test_one_replica_goes_on_from_its_own_state() -> None:
    """Which a checkpoint holds."""
    masks = [tuple(mask) for step in drawn(1, 0, 0) for replica in step for mask in replica]
    assert len(set(masks)) == len(masks) == 4
