"""A saved cross-encoder as a score of the products that were found for a query."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from uepp.artifacts import MANIFEST, check_manifest, read_json
from uepp.errors import InputError
from uepp.features.text import query_keys

FACTS = "cross_encoder.json"
"""Beside a SavedModel of `uepp relevance train`: `fields` of products that it reads; without, it reads the title."""
TRAINED_QUERIES = "trained_queries.parquet"
"""Beside it too: `query`, what it was trained or validated on."""
RUN_FOLDER = "cross_encoder"
"""Of a run of `uepp relevance train`, with the SavedModel: strings `query`, `product` in, `score` and `logit` out."""
_AT_ONCE = 512


class PairScores:
    """A SavedModel with strings `query` and `product` in and `logit` out (`CrossEncoder.save`), over a catalogue.

    Args:
        directory: of the SavedModel, or of the run of `uepp relevance train` that has it.
        export: with `products.parquet`.

    Attributes:
        directory: of the SavedModel.

    Raises:
        InputError: it is not there, is damaged, does not load, or is something else.
    """

    def __init__(self, directory: Path, export: Path) -> None:
        import tensorflow as tf
        import tensorflow_text  # noqa: F401  registers the operations of its tokeniser

        from uepp.features.text import product_texts

        self.directory = directory / RUN_FOLDER if (directory / RUN_FOLDER / "saved_model.pb").is_file() else directory
        expected = "a cross-encoder is a SavedModel with strings query and product in, logit out (uepp relevance train)"
        if not (self.directory / "saved_model.pb").is_file():
            raise InputError(f"{directory}: no saved_model.pb there; {expected}")
        if (self.directory / MANIFEST).is_file():
            check_manifest(self.directory, written_again(self.directory))
        try:
            model: Any = tf.saved_model.load(str(self.directory))
            self._serve = model.signatures["serving_default"]
        except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
            raise InputError(f"{self.directory}: does not load ({' '.join(str(error).split())}); {expected}") from None
        self._model = model  # the signature does not keep it alive
        takes, gives = set(self._serve.structured_input_signature[1]), set(self._serve.structured_outputs)
        if takes != {"query", "product"} or "logit" not in gives:
            raise InputError(f"{self.directory}: takes {sorted(takes)}, gives {sorted(gives)}; {expected}")
        facts = self.directory / FACTS
        fields = [str(name) for name in read_json(facts)["fields"]] if facts.is_file() else ["title"]
        products = pq.read_table(export / "products.parquet", columns=fields)
        self._texts = np.array(product_texts(products, fields), object)
        self._lengths = np.array([len(text) for text in self._texts], np.int64)

    def logits(self, queries: Sequence[str], rows: np.ndarray) -> np.ndarray:
        """Of each query with its products.

        Args:
            queries: [B].
            rows: product indexes int [B, K]; -1: none.

        Returns:
            float32 [B, K], NaN where there is no product.
        """
        import tensorflow as tf

        logits = np.full(rows.shape, np.nan, np.float32)
        request, place = np.nonzero(rows >= 0)
        product = rows[request, place]
        asked = np.array(queries, object)
        order = np.argsort(self._lengths[product], kind="stable")  # a batch is as wide as its longest pair
        for begin in range(0, len(order), _AT_ONCE):
            part = order[begin : begin + _AT_ONCE]
            found = self._serve(
                query=tf.constant(asked[request[part]], tf.string),
                product=tf.constant(self._texts[product[part]], tf.string),
            )
            logits[request[part], place[part]] = found["logit"].numpy()
        return logits

    @staticmethod
    def copy(directory: Path, target: Path) -> None:
        """Copy the SavedModel, and what is said beside it, into a new folder."""
        target.mkdir()
        for name in ("saved_model.pb", "fingerprint.pb", FACTS, TRAINED_QUERIES):
            if (directory / name).exists():
                shutil.copyfile(directory / name, target / name)
        for name in ("variables", "assets"):
            if (directory / name).is_dir():
                shutil.copytree(directory / name, target / name, copy_function=shutil.copyfile)


def written_again(directory: Path) -> str:
    """What writes a run's SavedModel again, for a message."""
    return f"write it again with: uepp relevance train --run {directory.parent} --resume"


def trained_queries(directory: Path) -> frozenset[str] | None:
    """Keys (`query_keys`) of what a SavedModel was trained or validated on; none where that is not known."""
    path = directory / TRAINED_QUERIES
    if not path.is_file():
        return None
    return frozenset(query_keys(pq.read_table(path, columns=["query"]).column("query").to_pylist()))
