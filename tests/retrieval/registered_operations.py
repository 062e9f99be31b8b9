"""Print what `uepp/retrieval/serving_operations.txt` holds; a script, since nothing else may have been imported.

    python tests/retrieval/registered_operations.py > uepp/retrieval/serving_operations.txt

A stock TensorFlow Serving links TensorFlow's operations and kernels and all of tensorflow-text's: `ops_lib`, in
`tensorflow_serving/model_servers/BUILD` and `tensorflow_text/BUILD`. The Python packages of both register the same, and
TensorFlow's also what calls Python, and what is for XLA, TPUs or its own tests. That is left out here, and what has no
kernel for processors.
"""

import re

import tensorflow as tf
from tensorflow.core.framework import op_def_pb2
from tensorflow.python.client import pywrap_tf_session
from tensorflow.python.framework import kernels

_DEVICES = ("CPU", "DEFAULT")
_NOT_LINKED = re.compile(r"_.*|.*PyFunc.*|NumpyFunction|.*(Xla|TPU|Tpu|Nccl|Test|DTensor).*")


def _registered() -> set[str]:
    listed = op_def_pb2.OpList()
    listed.ParseFromString(pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList()))
    with_kernel = {
        kernel.op for kernel in kernels.get_all_registered_kernels().kernel if kernel.device_type in _DEVICES
    }
    return {operation.name for operation in listed.op} & with_kernel


def _main() -> None:
    core = {name for name in _registered() if not _NOT_LINKED.fullmatch(name)}
    import tensorflow_text

    text = _registered() - core
    text = {name for name in text if not _NOT_LINKED.fullmatch(name)}
    print("# Operations that a stock TensorFlow Serving runs; made by tests/retrieval/registered_operations.py of")
    print(f"# TensorFlow {tf.__version__}, tensorflow-text {tensorflow_text.__version__}")
    print("\n".join(sorted(core | text)))


if __name__ == "__main__":
    _main()
