"""Devices and workers: which distribution strategy, and which elements of the stream each worker prepares."""

import json
import os
from collections.abc import Callable
from functools import cache
from typing import Any

import tensorflow as tf

from uepp.errors import InputError

_JOBS = ("chief", "worker")


def choose_strategy() -> tf.distribute.Strategy:
    """Several workers where `TF_CONFIG` describes them, else all visible GPUs mirrored, else the CPU.

    Workers have to be set up before anything else initialises TensorFlow: call this first. It waits until
    all workers have been started.

    Raises:
        InputError: `TF_CONFIG` does not describe a cluster and this worker's place in it.
    """
    if num_workers() > 1:
        try:
            return tf.distribute.MultiWorkerMirroredStrategy()
        except tf.errors.OpError as error:
            reason = " ".join(str(error.message).split())
            raise InputError(f"TF_CONFIG: the workers cannot be connected ({reason})") from None
    gpus = tf.config.list_logical_devices("GPU")
    return tf.distribute.MirroredStrategy([gpu.name for gpu in gpus] or ["/cpu:0"])


def batch_of_replica(strategy: tf.distribute.Strategy, key: str, batch_size: int) -> int:
    """The share of a batch that each device takes.

    Raises:
        InputError: the batch does not split over the devices; `key` is the setting's name.
    """
    num_replicas = strategy.num_replicas_in_sync
    if batch_size % num_replicas:
        raise InputError(f"{key} = {batch_size}: must divide by the {num_replicas} devices")
    return batch_size // num_replicas


def refuse_several_workers(command: str) -> None:
    """For commands that train on one machine.

    Raises:
        InputError: TF_CONFIG describes several workers.
    """
    if num_workers() > 1:
        raise InputError(f"TF_CONFIG: describes several workers; {command} runs on one machine, unset TF_CONFIG")


def num_workers() -> int:
    """How many workers `TF_CONFIG` describes; 1 without it.

    Raises:
        InputError: as `choose_strategy`.
    """
    return _num_workers(os.environ.get("TF_CONFIG", "{}"))


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes what all workers share: checkpoints and logs."""
    resolver = _resolver(strategy)
    if resolver is None:
        return True
    return resolver.task_id == 0 and (resolver.task_type == "chief" or "chief" not in resolver.cluster_spec().jobs)


def gather_numbers(strategy: tf.distribute.Strategy, number: int) -> list[int]:
    """A number of each worker, in the order of workers; all of them call this at the same moment.

    With a single worker, nothing is exchanged.
    """
    if _resolver(strategy) is None:
        return [number]
    return _gather(strategy)(tf.constant([number], tf.int64)).numpy().tolist()


def elements_of_steps(context: tf.distribute.InputContext, first_step: int, num_steps: int) -> tf.data.Dataset:
    """Numbers of the stream's elements that one worker prepares, in the order in which its replicas take them.

    With P replicas, step s is made of the elements s·P … s·P + P − 1, one a replica; worker w, which has r of the
    replicas, takes s·P + w·r … s·P + w·r + r − 1. So the global batch of a step does not depend on how many workers
    the replicas belong to.

    Args:
        context: place of the worker, w, and number of replicas, P.
        first_step: where to start.
        num_steps: how many steps.

    Returns:
        int64 scalars.
    """
    num_replicas = context.num_replicas_in_sync
    num_own = num_replicas // context.num_input_pipelines
    first_own = context.input_pipeline_id * num_own
    steps = tf.data.Dataset.range(first_step * num_own, (first_step + num_steps) * num_own)
    # Parallelism is fixed here, so there is nothing to tune. The tuner would hold up the end of a training: it sleeps
    # up to a minute between two looks, and an iterator waits for it when it is given up.
    options = tf.data.Options()
    options.autotune.enabled = False
    steps = steps.with_options(options)
    return steps.map(lambda position: position // num_own * num_replicas + first_own + position % num_own)


@cache
def _gather(strategy: tf.distribute.Strategy) -> Callable[[tf.Tensor], tf.Tensor]:
    """One graph a strategy, since this is asked again and again."""
    return tf.function(lambda own: strategy.gather(strategy.run(tf.identity, args=(own,)), axis=0))


def _resolver(strategy: tf.distribute.Strategy) -> tf.distribute.cluster_resolver.ClusterResolver | None:
    """None: one worker."""
    is_distributed = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    return strategy.cluster_resolver if is_distributed else None


def _num_workers(text: str) -> int:
    """Number of workers in a `TF_CONFIG`; 1 without a cluster."""
    try:
        settings = json.loads(text)
    except ValueError as error:
        raise InputError(f"TF_CONFIG: not JSON ({error})") from None
    if not isinstance(settings, dict):
        raise InputError(f"TF_CONFIG: {text}: expected a mapping with cluster and task")
    cluster = _mapping(settings, "cluster")
    if not cluster:
        return 1
    for job, addresses in cluster.items():
        if job not in _JOBS:
            raise InputError(f"TF_CONFIG: cluster.{job}: unknown kind of task; allowed are {', '.join(_JOBS)}")
        if not isinstance(addresses, list) or not addresses or not all(map(_is_address, addresses)):
            raise InputError(f'TF_CONFIG: cluster.{job} = {json.dumps(addresses)}: expected a list of "host:port"')
    if len(cluster.get("chief", ())) > 1:
        raise InputError(f"TF_CONFIG: cluster.chief = {json.dumps(cluster['chief'])}: expected one address")
    task = _mapping(settings, "task")
    kind, index = task.get("type"), task.get("index")
    if kind not in cluster:
        raise InputError(f"TF_CONFIG: task.type = {json.dumps(kind)}: expected one of {', '.join(cluster)}")
    if isinstance(index, str) and index.isdecimal():
        index = int(index)
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(cluster[kind]):
        raise InputError(
            f"TF_CONFIG: task.index = {json.dumps(index)}: expected 0 to {len(cluster[kind]) - 1}, "
            f"cluster.{kind} has {len(cluster[kind])} addresses"
        )
    return sum(map(len, cluster.values()))


def _mapping(settings: dict[str, Any], key: str) -> dict[str, Any]:
    value = settings.get(key, {})
    if not isinstance(value, dict):
        raise InputError(f"TF_CONFIG: {key} = {json.dumps(value)}: expected a mapping")
    return value


def _is_address(address: Any) -> bool:
    return isinstance(address, str) and address.rpartition(":")[0] != "" and address.rpartition(":")[2].isdecimal()
