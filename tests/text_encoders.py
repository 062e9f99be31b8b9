"""A small text encoder in the form that plugs into a tower: average of the rows of a text's hashed words."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from uepp.artifacts import write_json, write_manifest
from uepp.features.text_encoder import GENERATED

DIM = 6
MAX_TOKENS = 4
_NUM_ROWS = 50


class WordAverage(tf.Module):
    """Strings [R] to float32 [R, 6]; ids 1 to 49, 0 is padding, the fifth word and later ones are cut off."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        rows = np.random.default_rng(seed).standard_normal((_NUM_ROWS, DIM)).astype(np.float32)
        self.rows = tf.Variable(rows, name="token_embeddings")
        self.scale = tf.Variable(tf.ones([DIM]), name="scale")

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def tokenize(self, texts: tf.Tensor) -> tf.Tensor:
        """int32 [R, 4]."""
        words = tf.strings.split(tf.strings.lower(texts))
        ids = words.with_values(tf.strings.to_hash_bucket_fast(words.values, _NUM_ROWS - 1) + 1)
        return tf.cast(ids.to_tensor(0, shape=[None, MAX_TOKENS]), tf.int32)

    @tf.function(input_signature=[tf.TensorSpec([None, MAX_TOKENS], tf.int32)])
    def encode(self, ids: tf.Tensor) -> tf.Tensor:
        """float32 [R, 6]; zeros for padding only."""
        is_token = tf.cast(ids > 0, tf.float32)[:, :, tf.newaxis]
        total = tf.reduce_sum(tf.gather(self.rows, ids) * is_token, axis=1)
        return self.scale * tf.math.divide_no_nan(total, tf.reduce_sum(is_token, axis=1))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, texts: tf.Tensor) -> tf.Tensor:
        """Both."""
        return self.encode(self.tokenize(texts))


def write_text_encoder(directory: Path, *, seed: int = 0, generated: dict[str, list[str]] | None = None) -> WordAverage:
    """Write the encoder to a new directory, with the queries that were generated for some products."""
    module = WordAverage(seed)
    reusable = tf.train.Checkpoint(variables=[module.rows, module.scale])
    reusable.trainable_variables = [module.rows, module.scale]
    reusable.tokenize, reusable.encode = module.tokenize, module.encode
    reusable.__call__ = module.__call__
    directory.mkdir(parents=True)
    tf.saved_model.save(reusable, str(directory / "model"))
    write_json(directory / "encoder.json", {"kind": "words", "dim": DIM, "max_tokens": MAX_TOKENS, "fields": []})
    if generated is not None:
        table = pa.table({"product_id": list(generated), "queries": list(generated.values())})
        pq.write_table(table, directory / GENERATED)
    write_manifest(directory)
    return module
