"""Rows of tokens in the order of their lengths, so that little of what a transformer reads is padding."""

from collections.abc import Callable

import tensorflow as tf

_MOST_PIECES = 4
_LEAST_ROWS = 16  # of a piece: with fewer a transformer's layers cost more than the padding


def in_pieces(encode: Callable[..., tf.Tensor], ids: tf.Tensor, *others: tf.Tensor) -> tf.Tensor:
    """What `encode` says of rows, asked about a few of them at a time, those of like length together.

    A piece is as wide as its longest row, and smaller arrays stay nearer to the processor.

    Args:
        encode: ids [b, s] and the others [b, s] to float32 [b, d]; of each row alone, and padding changes nothing.
        ids: int32 [B, S]; 0 is padding, at the end of rows.
        others: more columns of the tokens.

    Returns:
        float32 [B, d].
    """
    num_rows = tf.shape(ids)[0]
    lengths = tf.math.count_nonzero(ids, 1, dtype=tf.int32)
    order = tf.argsort(lengths, stable=True)
    lengths, *columns = (tf.gather(column, order) for column in (lengths, ids, *others))
    widths: list[tf.TensorShape] = []  # of what `encode` gives, which a loop forgets
    num_pieces = tf.clip_by_value(num_rows // _LEAST_ROWS, 1, _MOST_PIECES)

    def add(piece: tf.Tensor, parts: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        rows = slice(piece * num_rows // num_pieces, (piece + 1) * num_rows // num_pieces)
        longest = tf.maximum(1, tf.reduce_max(lengths[rows]))
        part = encode(*(column[rows, :longest] for column in columns))
        widths.append(part.shape[1:])
        return piece + 1, parts.write(piece, part)

    parts = tf.TensorArray(tf.float32, num_pieces, infer_shape=False)
    _, parts = tf.while_loop(lambda piece, _: piece < num_pieces, add, [0, parts], parallel_iterations=1)
    return tf.ensure_shape(tf.gather(parts.concat(), tf.argsort(order)), [None, *widths[0]])
