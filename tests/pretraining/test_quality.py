"""Perplexity of a unigram model, and reciprocal ranks."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uepp.data.schema import read_products
from uepp.lexical.bm25 import BM25
from uepp.pretraining.quality import first_words, reciprocal_ranks, searched_texts, unigram_perplexity


def test_unigram_perplexity_by_hand() -> None:
    trained = np.array([[3, 3, 1, 0], [4, 1, 0, 0]])  # 3: 2, 1: 2, 4: 1, five in all, V = 6
    held_out = np.array([[3, 1, 0], [5, 1, 0]])
    expected = math.exp(-(math.log(3 / 11) + 2 * math.log(3 / 11) + math.log(1 / 11)) / 4)
    assert unigram_perplexity(trained, held_out, 6) == pytest.approx(expected)


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary() -> None:
    assert unigram_perplexity(np.zeros((1, 3), int), np.array([[2, 5]]), 7) == pytest.approx(7)


TITLES = ["red lamp", "blue lamp", "red lamp large", "mug", "red lamp"]


def test_reciprocal_ranks_by_hand() -> None:
    bm25 = BM25.build({"title": TITLES}, "plain")
    queries = ["mug", "mug", "blue lamp", "red lamp", "lamp", "", "large"]
    targets = np.array([3, 0, 1, 4, 1, 0, 2])
    # "red lamp": the first and the last title alone, both the same. "lamp": the three titles of two words.
    expected = [1, 0, 1, 1 / 1.5, 1 / 2, 0, 1]
    np.testing.assert_allclose(reciprocal_ranks(bm25, queries, targets, 5), expected)


def test_products_that_are_not_there_yet_are_not_ranked() -> None:
    bm25 = BM25.build({"title": TITLES}, "plain")
    assert reciprocal_ranks(bm25, ["red lamp", "red lamp"], np.array([0, 4]), 4).tolist() == [1, 0]


def test_products_are_looked_for_without_their_title_where_there_is_more(tmp_path: Path) -> None:
    products = {"product_id": ["a", "b"], "title": ["red lamp", "mug"]}
    pq.write_table(pa.table(products), tmp_path / "products.parquet")
    assert list(searched_texts(read_products(tmp_path))) == ["title_and_tags"]
    more = {"tags": [["lamp", "gift"], None], "description": [None, "of clay"]}
    pq.write_table(pa.table(products | more), tmp_path / "products.parquet")
    assert searched_texts(read_products(tmp_path)) == {
        "title_and_tags": {"title": ["red lamp", "mug"], "tags": ["lamp gift", ""]},
        "without_title": {"tags": ["lamp gift", "of clay"]},
    }


def test_first_words() -> None:
    assert first_words("  Red   lamp of\tglass ") == "Red lamp of"
    assert first_words("") == ""
