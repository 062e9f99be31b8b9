"""Dropout under a distribution strategy: each replica draws for its own rows."""

from collections.abc import Iterable

import tensorflow as tf

_DRAWS = 16  # of a layer in a step, at most: pieces of a batch (`in_pieces`)


def dropout_states(variables: Iterable[tf.Variable]) -> list[tf.Variable]:
    """The states of Keras 3's seed generators among a model's variables, int64 [2]: seed, and number of the draw."""
    return [variable for variable in variables if variable.name.split("/")[-1].startswith("seed_generator_state")]


def draw_for_replica(states: Iterable[tf.Variable], step: tf.Variable) -> None:
    """Call it on a replica before a step's first draw: with several, each goes on from a number of its own.

    Keras 3 keeps a seed generator alike on all replicas, so they would drop the same places of their rows. With P
    replicas the next draw of a layer is number (step · P + replica) · 16, whatever was drawn before; so a resumed run
    goes on exactly, though replicas may draw a different number of times and a checkpoint has only the first one's
    state. One replica goes on from where it is.

    Args:
        states: of `dropout_states`.
        step: steps done, int64.
    """
    context = tf.distribute.get_replica_context()
    num_replicas = context.num_replicas_in_sync
    if num_replicas == 1:
        return
    element = step.read_value() * num_replicas + tf.cast(context.replica_id_in_sync_group, tf.int64)
    for state in states:
        state.assign(tf.stack([state.read_value()[0], element * _DRAWS]))
