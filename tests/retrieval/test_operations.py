"""What a SavedModel would ask of TensorFlow Serving."""

import subprocess
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_text

from uepp.retrieval.operations import OPERATIONS, not_in_tensorflow_serving, operations_of


class Model(tf.Module):
    """Operations in a nested function, a branch and a text operation; with `calls_back`, one in Python."""

    def __init__(self, calls_back: bool) -> None:
        super().__init__()
        self._calls_back = calls_back

    @tf.function
    def _lower(self, texts: tf.Tensor) -> tf.Tensor:
        return tensorflow_text.normalize_utf8(tensorflow_text.case_fold_utf8(texts), "NFKD")

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, texts: tf.Tensor) -> tf.Tensor:
        if tf.size(texts) > 2:
            return tf.strings.length(self._lower(texts))
        if self._calls_back:
            return tf.numpy_function(lambda batch: np.zeros(len(batch), np.int32), [texts], tf.int32)
        return tf.strings.unicode_script(tf.zeros_like(texts, tf.int32))


def saved(directory: Path, calls_back: bool) -> Path:
    tf.saved_model.save(Model(calls_back), str(directory))
    return directory


def test_operations_are_found_in_every_function(tmp_path: Path) -> None:
    found = operations_of(saved(tmp_path / "plain", calls_back=False))
    assert found >= {"CaseFoldUTF8", "NormalizeUTF8", "StringLength", "UnicodeScript", "StatefulPartitionedCall"}
    assert not [name for name in found if name.startswith("__inference")]


def test_python_and_what_nobody_registers_are_named(tmp_path: Path) -> None:
    assert not_in_tensorflow_serving(saved(tmp_path / "plain", calls_back=False)) == []
    python = saved(tmp_path / "python", calls_back=True)
    (called,) = not_in_tensorflow_serving(python)
    assert called in ("PyFunc", "EagerPyFunc", "PyFuncStateless")
    graph = (python / "saved_model.pb").read_bytes()
    renamed = graph.replace(b"NormalizeUTF8", b"NormalizeUTFX")
    assert renamed != graph
    (python / "saved_model.pb").write_bytes(renamed)
    assert not_in_tensorflow_serving(python) == ["NormalizeUTFX", called]


def test_what_is_registered_here_need_not_be_linked_there(tmp_path: Path) -> None:
    """The check compared with what the exporting process had registered, so nearly nothing could fail it."""

    class Here(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
        def __call__(self, values: tf.Tensor) -> tf.Tensor:
            return tf.gather(values, tf.raw_ops.TPUOrdinalSelector())

    tf.saved_model.save(Here(), str(tmp_path / "here"))
    assert not_in_tensorflow_serving(tmp_path / "here") == ["TPUOrdinalSelector"]


def test_the_kept_operations_are_those_of_the_bare_packages() -> None:
    """In a process of its own, where nothing of uepp is imported; another version of TensorFlow needs a new file."""
    script = Path(__file__).with_name("registered_operations.py")
    made = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=True).stdout
    kept = (resources.files("uepp.retrieval") / OPERATIONS).read_text(encoding="utf-8")
    assert made == kept, f"make {OPERATIONS} again: python {script.name} > uepp/retrieval/{OPERATIONS}"
    assert tf.__version__ in kept.splitlines()[1]
    assert len(kept.splitlines()) > 1_000
    assert {"CaseFoldUTF8", "TFText>NgramsStringJoin", "ResourceGather", "StatefulPartitionedCall"} <= set(kept.split())
