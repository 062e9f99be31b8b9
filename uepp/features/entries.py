"""Entries of the feature dictionary, made from tensors.

An entry is a dense tensor with one row a query or product, or a bag: the pair `<name>/values` int32 [T] and
`<name>/lengths` int32 [R]. docs/architecture.md lists the names.
"""

import tensorflow as tf

from uepp.features.text import Tokenizer

Features = dict[str, tf.Tensor]


def ragged_entries(name: str, rows: tf.RaggedTensor) -> Features:
    """Ragged rows as a bag."""
    return {f"{name}/values": rows.values, f"{name}/lengths": tf.cast(rows.row_lengths(), tf.int32)}


def token_entries(name: str, tokens: tf.RaggedTensor, table: tf.lookup.StaticHashTable) -> Features:
    """Tokens of R texts as a bag of their ids."""
    return ragged_entries(name, tokens.with_values(tf.cast(table.lookup(tokens.values), tf.int32)))


def listed_texts(
    name: str, listed: str, texts: tf.Tensor, tokenizer: Tokenizer, table: tf.lookup.StaticHashTable
) -> Features:
    """[R, n] texts as rows `name` of one list of bags `listed`, which has each text once however often it occurs."""
    rows = without_empty(texts)
    distinct, position = tf.unique(rows.values)
    return ragged_entries(name, rows.with_values(position)) | token_entries(listed, tokenizer.text(distinct), table)


def without_empty(texts: tf.Tensor) -> tf.RaggedTensor:
    """[R, n] strings padded with empty ones to ragged rows without them."""
    return tf.ragged.boolean_mask(texts, texts != "")
