"""Which strategy, and which worker prepares which elements."""

import json

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from uepp.errors import InputError
from uepp.runs import strategies

HOSTS = ["localhost:1", "localhost:2", "localhost:3"]


def elements(worker: int, num_workers: int, num_replicas: int, first: int, number: int) -> list[int]:
    context = tf.distribute.InputContext(num_workers, worker, num_replicas)
    return list(strategies.elements_of_steps(context, first, number).as_numpy_iterator())


def test_elements_of_two_workers_by_eye() -> None:
    """4 replicas: each worker has two of them."""
    assert elements(0, 2, 4, 0, 3) == [0, 1, 4, 5, 8, 9]
    assert elements(1, 2, 4, 0, 3) == [2, 3, 6, 7, 10, 11]
    assert elements(1, 2, 4, 5, 1) == [22, 23]
    assert elements(0, 1, 4, 5, 2) == list(range(20, 28))


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 50), st.integers(0, 5))
def test_each_step_is_one_global_batch(workers: int, replicas: int, first: int, number: int) -> None:
    """Replica by replica, W workers of r replicas meet what one worker of W·r replicas meets."""
    total = workers * replicas
    parts = [elements(worker, workers, total, first, number) for worker in range(workers)]
    for step in range(number):
        met = [element for part in parts for element in part[step * replicas : (step + 1) * replicas]]
        assert met == [(first + step) * total + replica for replica in range(total)]
    assert all(len(part) == number * replicas for part in parts)


def test_one_process_without_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in (None, "{}", json.dumps({"cluster": {}}), tf_config({"worker": HOSTS[:1]}, "worker", 0)):
        monkeypatch.delenv("TF_CONFIG", raising=False)
        if text is not None:
            monkeypatch.setenv("TF_CONFIG", text)
        strategy = strategies.choose_strategy()
        assert type(strategy) is tf.distribute.MirroredStrategy
        assert strategy.num_replicas_in_sync == max(1, len(tf.config.list_logical_devices("GPU")))
        assert strategies.is_chief(strategy)
        assert strategies.gather_numbers(strategy, 7) == [7]


def tf_config(cluster: object, kind: object = "worker", index: object = 0) -> str:
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "not JSON"),
        ("", "not JSON"),
        ("[]", "[]: expected a mapping with cluster and task"),
        ('{"cluster": ["a:1"]}', 'cluster = ["a:1"]: expected a mapping'),
        (tf_config({"ps": HOSTS}), "cluster.ps: unknown kind of task; allowed are chief, worker"),
        (tf_config({"worker": "a:1"}), 'cluster.worker = "a:1": expected a list of "host:port"'),
        (tf_config({"worker": ["a:1", "b"]}), 'cluster.worker = ["a:1", "b"]: expected a list of "host:port"'),
        (tf_config({"worker": []}), "cluster.worker = []: expected a list"),
        (tf_config({"chief": HOSTS}), "expected one address"),
        (json.dumps({"cluster": {"worker": HOSTS}}), "task.type = null: expected one of worker"),
        (json.dumps({"cluster": {"worker": HOSTS}, "task": 3}), "task = 3: expected a mapping"),
        (tf_config({"worker": HOSTS}, "chief"), 'task.type = "chief": expected one of worker'),
        (tf_config({"worker": HOSTS}, "worker", 3), "task.index = 3: expected 0 to 2, cluster.worker has 3 addresses"),
        (tf_config({"worker": HOSTS}, "worker", -1), "task.index = -1: expected 0 to 2"),
        (tf_config({"worker": HOSTS}, "worker", "x"), 'task.index = "x": expected 0 to 2'),
        (tf_config({"worker": HOSTS}, "worker", None), "task.index = null: expected 0 to 2"),
    ],
)
def test_a_bad_cluster_is_refused(text: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(InputError) as caught:
        strategies.choose_strategy()
    message = str(caught.value)
    assert message.startswith("TF_CONFIG: ")
    assert expected in message
    assert "\n" not in message
