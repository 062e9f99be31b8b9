"""Which TensorFlow operations a SavedModel uses, and whether TensorFlow Serving has them.

TensorFlow Serving links TensorFlow's own operations and kernels, and those of tensorflow-text (`ops_lib`, all that the
Python package registers). What calls back into Python runs in no server.
"""

from pathlib import Path

import tensorflow_text  # noqa: F401  registers its operations
from tensorflow.core.framework import op_def_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.client import pywrap_tf_session

_PYTHON = frozenset({"PyFunc", "PyFuncStateless", "EagerPyFunc", "NumpyFunction"})


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
    return sorted(operations_of(directory) - (_registered() - _PYTHON))


def _registered() -> set[str]:
    """What TensorFlow and tensorflow-text register; nothing else that uepp imports registers any."""
    listed = op_def_pb2.OpList()
    listed.ParseFromString(pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList()))
    return {operation.name for operation in listed.op}
