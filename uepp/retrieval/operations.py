"""Which TensorFlow operations a SavedModel uses, and whether a stock TensorFlow Serving runs them.

It links TensorFlow's own operations and kernels, and all of tensorflow-text's. Their names are kept in a file, since
the process that exports has registered whatever it has imported: `tests/retrieval/registered_operations.py` makes it.
"""

from functools import cache
from importlib import resources
from pathlib import Path

from tensorflow.core.protobuf import saved_model_pb2

OPERATIONS = "serving_operations.txt"


def operations_of(directory: Path) -> set[str]:
    """Names of the operations of a SavedModel, in its graph and in every function of its library.

    Calls of the library's own functions are no operations.
    """
    model = saved_model_pb2.SavedModel()
    model.ParseFromString((directory / "saved_model.pb").read_bytes())
    names: set[str] = set()
    for graph in model.meta_graphs:
        library = graph.graph_def.library.function
        used = {node.op for node in graph.graph_def.node}
        used |= {node.op for function in library for node in function.node_def}
        names |= used - {function.signature.name for function in library}
    return names


def not_in_tensorflow_serving(directory: Path) -> list[str]:
    """Operations of a SavedModel that a stock TensorFlow Serving lacks, sorted; none: it can be served as it is."""
    return sorted(operations_of(directory) - _linked())


@cache
def _linked() -> frozenset[str]:
    lines = (resources.files("uepp.retrieval") / OPERATIONS).read_text(encoding="utf-8").splitlines()
    return frozenset(line for line in lines if not line.startswith("#"))
