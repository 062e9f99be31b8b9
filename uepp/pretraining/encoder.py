"""A text encoder as a directory: `encoder.json`, a SavedModel with its tokeniser inside, and a manifest.

docs/architecture.md ("A text encoder") has the contract; `uepp.features.text_encoder` opens what is written here.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

import uepp
from uepp.artifacts import atomic_directory, write_json, write_manifest
from uepp.features.text_encoder import GENERATED
from uepp.pretraining.pieces import in_pieces

HiddenStates = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""Ids int32 [B, S] and which of them are tokens bool [B, S], to float [B, S, d]; of padding, anything."""


class TextEncoder(tf.Module):
    """Strings to vectors: the mean of what a transformer says of the tokens.

    Args:
        tokens: strings [B] to ids int32 [B, T], 0 is padding.
        hidden_states: the transformer, without dropout.
        variables: what it reads, all of it trainable.
        max_tokens: T.
        normalize: scale vectors to length 1.
    """

    # Not the properties of tf.Module: attributes are saved, and so are there in what is loaded.
    variables: Any = ()
    trainable_variables: Any = ()

    def __init__(
        self,
        tokens: tf.Module,
        hidden_states: HiddenStates,
        variables: Sequence[tf.Variable],
        *,
        max_tokens: int,
        normalize: bool = False,
    ) -> None:
        super().__init__()
        self.variables = list(variables)
        self.trainable_variables = list(variables)
        self._tokens = tokens
        self._hidden_states = hidden_states
        self._max_tokens = max_tokens
        self._normalize = normalize

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "texts")])
    def tokenize(self, texts: tf.Tensor) -> tf.Tensor:
        """Ids int32 [B, T]; a text of spaces only is padding only."""
        return tf.ensure_shape(self._tokens(texts), [None, self._max_tokens])

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32, "ids")])
    def encode(self, ids: tf.Tensor) -> tf.Tensor:
        """Masked mean over the tokens of ids int32 [B, S]: float32 [B, d], zeros for a row of padding only."""
        return in_pieces(self._means, ids)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "texts")])
    def __call__(self, texts: tf.Tensor) -> tf.Tensor:
        """Strings [B] to float32 [B, d]."""
        return self.encode(self.tokenize(texts))

    def _means(self, ids: tf.Tensor) -> tf.Tensor:
        is_token = ids != 0
        states = tf.cast(self._hidden_states(ids, is_token), tf.float32)
        weight = tf.cast(is_token, tf.float32)
        total = tf.einsum("bsd,bs->bd", states, weight)
        mean = tf.math.divide_no_nan(total, tf.reduce_sum(weight, axis=1, keepdims=True))
        return tf.math.l2_normalize(mean, axis=1) if self._normalize else mean


def write_text_encoder(
    directory: Path,
    encoder: TextEncoder,
    *,
    kind: str,
    fields: Sequence[str],
    source: dict[str, Any],
    metrics: dict[str, Any],
    generated: pa.Table | None = None,
) -> None:
    """Write the directory, whole or not at all.

    Args:
        directory: where to.
        encoder: what to save.
        kind: in a word.
        fields: product fields that it was pretrained on; empty: none.
        source: where it came from.
        metrics: how well it did what it was trained for.
        generated: `product_id`, `queries` (list of string) of the catalogue, for BM25.
    """
    ids = encoder.tokenize(tf.constant([""]))
    facts = {
        "kind": kind,
        "dim": int(encoder.encode(ids).shape[1]),
        "max_tokens": int(ids.shape[1]),
        "fields": list(fields),
        "created": datetime.now().astimezone().isoformat(),
        "uepp_version": uepp.__version__,
        "source": source,
        "metrics": metrics,
    }
    with atomic_directory(directory) as folder:
        tf.saved_model.save(encoder, str(folder / "model"))
        write_json(folder / "encoder.json", facts)
        if generated is not None:
            pq.write_table(generated, folder / GENERATED)
        write_manifest(folder, uepp_version=uepp.__version__)
