"""The feature dictionary that towers read: its bags, and the rows of some of its products."""

import tensorflow as tf

from uepp.features.entries import Features
from uepp.model.embedding import TokenBags

_PRODUCT = "product/"
_SHARED_BY_PRODUCTS = "graph/"


def bags_of(features: Features, name: str) -> TokenBags:
    """The bag `name` of a feature dictionary."""
    return TokenBags(features[f"{name}/values"], features[f"{name}/lengths"])


def take_rows(features: Features, rows: tf.Tensor | slice) -> Features:
    """What the product tower reads of some of a batch's products.

    Args:
        features: the batch.
        rows: int32 [r], rows in [0, C) in any order, also repeated; or a slice without step, whose bounds may be
            tensors, for which nothing but the slice is touched.

    Returns:
        Every `product/…` entry with the chosen rows only, and `graph/…` as it is; nothing else.
    """
    taken = {name: value for name, value in features.items() if name.startswith(_SHARED_BY_PRODUCTS)}
    for name, value in features.items():
        if not name.startswith(_PRODUCT) or name.endswith("/values"):
            continue
        bag = name.removesuffix("/lengths")
        if bag == name:
            taken[name] = value[rows] if isinstance(rows, slice) else tf.gather(value, rows)
        else:
            taken[f"{bag}/values"], taken[name] = take_bags(bags_of(features, bag), rows)
    return taken


def take_bags(bags: TokenBags, rows: tf.Tensor | slice) -> TokenBags:
    """Some bags of many: rows int32 [r], or a slice without step."""
    if isinstance(rows, slice):
        lengths = bags.lengths[rows]
        begin = tf.reduce_sum(bags.lengths[: rows.start]) if rows.start is not None else 0
        return TokenBags(bags.values[begin : begin + tf.reduce_sum(lengths)], lengths)
    lengths = tf.gather(bags.lengths, rows)
    # Where each taken bag begins in the old values, less where it begins in the new ones.
    shift = tf.gather(tf.cumsum(bags.lengths), rows) - tf.cumsum(lengths)
    position = tf.range(tf.reduce_sum(lengths)) + tf.repeat(shift, lengths)
    return TokenBags(tf.gather(bags.values, position), lengths)
