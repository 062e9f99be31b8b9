"""The vocabulary: the most frequent tokens have rows of their own, the rest share hashed rows."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from uepp.artifacts import atomic_file, read_json, write_json

_TOKENS = "tokens.txt"
_COUNTS = "counts.npy"
_SIZES = "sizes.json"


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by id.

    Attributes:
        tokens: the V kept tokens, most frequent first; a token's position is its id.
        counts: int64 [V], number of texts that hold the token.
        num_texts: number of texts counted.
        num_oov_buckets: rows [V, V + num_oov_buckets) that every other token is hashed into; 0: it has no row.
    """

    tokens: list[bytes]
    counts: np.ndarray
    num_texts: int
    num_oov_buckets: int

    @property
    def size(self) -> int:
        """Rows of a table of these tokens: V + num_oov_buckets, and never none."""
        return max(len(self.tokens) + self.num_oov_buckets, 1)

    def inverse_document_frequency(self) -> np.ndarray:
        """ln(1 + n / n_t), float32 [size]; a hashed row counts as a token that was seen once."""
        seen = np.concatenate([self.counts, np.ones(self.size - len(self.tokens), np.int64)])
        return np.log1p(self.num_texts / np.maximum(seen, 1)).astype(np.float32)

    def save(self, directory: Path) -> None:
        """Write the three files of a vocabulary into an existing directory."""
        with atomic_file(directory / _TOKENS) as temporary:
            temporary.write_bytes(b"".join(token + b"\n" for token in self.tokens))
        np.save(directory / _COUNTS, self.counts)
        write_json(directory / _SIZES, {"num_texts": self.num_texts, "num_oov_buckets": self.num_oov_buckets})

    @classmethod
    def load(cls, directory: Path) -> "Vocabulary":
        """Read what `save` wrote."""
        sizes = read_json(directory / _SIZES)
        tokens = (directory / _TOKENS).read_bytes().split(b"\n")[:-1]
        return cls(tokens, np.load(directory / _COUNTS), sizes["num_texts"], sizes["num_oov_buckets"])

    def lookup_table(self) -> tf.lookup.StaticVocabularyTable | tf.lookup.StaticHashTable:
        """Token strings to int64 ids in the graph (-1 where a token has no row); travels inside a SavedModel."""
        ids = tf.range(len(self.tokens), dtype=tf.int64)
        known = tf.lookup.KeyValueTensorInitializer(tf.constant(self.tokens, tf.string), ids)
        if self.num_oov_buckets == 0:
            if not self.tokens:  # a table without keys cannot be made
                known = tf.lookup.KeyValueTensorInitializer(tf.constant([""]), tf.constant([-1], tf.int64))
            return tf.lookup.StaticHashTable(known, default_value=-1)
        if not self.tokens:  # everything is hashed
            known = None
        return tf.lookup.StaticVocabularyTable(known, self.num_oov_buckets, lookup_key_dtype=tf.string)


class VocabularyCounter:
    """Counts in how many texts each token occurs, one batch of bags at a time."""

    def __init__(self) -> None:
        self._counts: Counter[bytes] = Counter()
        self._num_texts = 0

    def add(self, bags: Iterable[np.ndarray]) -> None:
        """Count bags of tokens (arrays of bytes); a token counts once a bag."""
        for bag in bags:
            self._counts.update(set(bag.tolist()))
            self._num_texts += 1

    def vocabulary(self, size: int, min_count: int, num_oov_buckets: int) -> Vocabulary:
        """Keep the `size` most frequent tokens that occur at least `min_count` times, ties by token."""
        kept = [(token, count) for token, count in self._counts.items() if count >= min_count]
        kept = sorted(kept, key=lambda pair: (-pair[1], pair[0]))[:size]
        counts = np.array([count for _, count in kept], np.int64)
        return Vocabulary([token for token, _ in kept], counts, self._num_texts, num_oov_buckets)
