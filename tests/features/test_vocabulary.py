"""The vocabulary: who gets a row, where the others go, and what survives a save."""

import math
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from uepp.errors import InputError
from uepp.features.vocabulary import Vocabulary, VocabularyCounter


def counted(*bags: str) -> VocabularyCounter:
    """Bags given as comma-separated tokens."""
    counter = VocabularyCounter()
    counter.add([np.array([token.encode() for token in bag.split(",") if token], object) for bag in bags])
    return counter


def test_most_frequent_first_ties_by_token() -> None:
    vocabulary = counted("b,a,c", "b,a", "b,d", "d,c").vocabulary(size=10, min_count=1, num_oov_buckets=2)
    assert vocabulary.tokens == [b"b", b"a", b"c", b"d"]
    assert vocabulary.counts.tolist() == [3, 2, 2, 2]
    assert vocabulary.num_texts == 4
    assert vocabulary.size == 4 + 2


def test_a_token_counts_once_a_text() -> None:
    vocabulary = counted("a,a,a,b", "b").vocabulary(size=10, min_count=1, num_oov_buckets=1)
    assert dict(zip(vocabulary.tokens, vocabulary.counts.tolist(), strict=True)) == {b"b": 2, b"a": 1}


def test_order_of_texts_does_not_matter() -> None:
    bags = ["b,a,c", "b,a", "b,d", "d,c", ""]
    forward, backward = (counted(*order).vocabulary(3, 1, 1) for order in (bags, bags[::-1]))
    assert forward.tokens == backward.tokens
    assert forward.num_texts == backward.num_texts == 5


def test_min_count_and_size_cut() -> None:
    counter = counted("a,b,c", "a,b", "a")
    assert counter.vocabulary(size=10, min_count=2, num_oov_buckets=1).tokens == [b"a", b"b"]
    assert counter.vocabulary(size=1, min_count=1, num_oov_buckets=1).tokens == [b"a"]


def test_known_tokens_get_their_position_and_others_a_hashed_row() -> None:
    vocabulary = counted("deck over,deck,東京", "deck over,deck", "deck").vocabulary(10, 1, 5)
    table = vocabulary.lookup_table()
    assert table.lookup(tf.constant(["deck", "deck over", "東京"])).numpy().tolist() == [0, 1, 2]
    unknown = tf.constant([f"unknown {number}" for number in range(200)])
    ids = table.lookup(unknown).numpy()
    assert set(ids.tolist()) == set(range(3, 3 + 5)), "every bucket is used and no known row"
    assert vocabulary.lookup_table().lookup(unknown).numpy().tolist() == ids.tolist()
    assert table.lookup(tf.constant(["deck ", ""])).numpy().min() >= 3


def test_hashed_rows_are_the_same_forever() -> None:
    """Fingerprint64 modulo the buckets: what TensorFlow documents, so saved models and later runs agree."""
    vocabulary = counted("a", "b").vocabulary(10, 1, 1_000)
    words = [f"word{number}" for number in range(20)]
    expected = tf.strings.to_hash_bucket_fast(words, 1_000).numpy() + 2
    assert vocabulary.lookup_table().lookup(tf.constant(words)).numpy().tolist() == expected.tolist()


def test_inverse_document_frequency_is_the_formula() -> None:
    vocabulary = counted("a,b", "a", "a", "").vocabulary(10, 1, 2)
    expected = [math.log(1 + 4 / 3), math.log(1 + 4 / 1), math.log(1 + 4 / 1), math.log(1 + 4 / 1)]
    got = vocabulary.inverse_document_frequency()
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_save_and_load(tmp_path: Path) -> None:
    saved = counted("deck over,~#de,#category_a.b,東京", "deck over,東京,é ü").vocabulary(10, 1, 3)
    saved.save(tmp_path)
    loaded = Vocabulary.load(tmp_path)
    assert loaded.tokens == saved.tokens
    assert b"deck over" in loaded.tokens
    assert loaded.counts.tolist() == saved.counts.tolist()
    assert (loaded.num_texts, loaded.num_oov_buckets, loaded.size) == (2, 3, saved.size)
    queries = tf.constant(["deck over", "é ü", "東京", "never seen"])
    assert (
        loaded.lookup_table().lookup(queries).numpy().tolist() == saved.lookup_table().lookup(queries).numpy().tolist()
    )


def test_load_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"sizes\.json: no such file"):
        Vocabulary.load(tmp_path)


def test_a_vocabulary_without_tokens_hashes_everything(tmp_path: Path) -> None:
    """min_count above every count, as on a handful of products."""
    empty = counted("a,b", "c").vocabulary(10, 5, 4)
    assert empty.tokens == []
    empty.save(tmp_path)
    for vocabulary in (empty, Vocabulary.load(tmp_path)):
        assert vocabulary.size == 4
        assert set(vocabulary.lookup_table().lookup(tf.constant(["a", "b", "c", "d"])).numpy()) <= set(range(4))
        assert vocabulary.inverse_document_frequency().shape == (4,)
