"""uepp: end-to-end training, indexing and evaluation of personalised product retrieval.

Importing uepp does not import TensorFlow, but settles how that will be imported (`tensorflow_import.py`).
"""

from uepp.tensorflow_import import choose_keras_2, import_quietly

__version__ = "0.1.0"

choose_keras_2()
import_quietly()
