"""What an encoder is to a tower."""

from typing import NamedTuple, Protocol

import tensorflow as tf

from uepp.features.entries import Features


class Block(NamedTuple):
    """Neighbouring columns of an encoder's output that belong together.

    Attributes:
        dim: number of columns.
        scale: of the block's part in an equal initial projection; 0: starts without effect, and learns
            (unless that is all that the tower has).
    """

    dim: int
    scale: float


class Encoder(Protocol):
    """What a tower pools: a callable layer that knows the blocks of its output."""

    blocks: tuple[Block, ...]

    def __call__(self, features: Features, training: bool) -> tf.Tensor:
        """Feature dictionary to float32 [R, Σ dims]; what is missing gives zeros."""
        ...


def unit_rows(rows: tf.Tensor, normalize: bool) -> tf.Tensor:
    """Rows at length 1 where `normalize` is on; zeros stay zeros."""
    return tf.math.l2_normalize(rows, axis=1) if normalize else rows
