"""uepp: end-to-end training, indexing and evaluation of personalised product retrieval.

TensorFlow Recommenders needs Keras 2 (`tf_keras`). That choice has to be made before TensorFlow
is imported for the first time, so it is made here; importing uepp does not import TensorFlow.
"""

import os
import sys

__version__ = "0.1.0"


def _choose_keras_2() -> None:
    """Set `TF_USE_LEGACY_KERAS` for this process; refuse when TensorFlow already took Keras 3."""
    if "tensorflow" in sys.modules and os.environ.get("TF_USE_LEGACY_KERAS") != "1":
        raise ImportError(
            "TensorFlow was imported before uepp, with Keras 3. Import uepp first, or set the environment "
            "variable TF_USE_LEGACY_KERAS=1 before TensorFlow is imported."
        )
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    # Only what is fatal: level 2 still has a line of CUDA errors at each start where there is no GPU.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


_choose_keras_2()
