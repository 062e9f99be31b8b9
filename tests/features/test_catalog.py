"""The resident catalogue on tables that can be checked by eye."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import oracles
import pyarrow as pa
import pytest
import tensorflow as tf
from conftest import START, Toy

from uepp.config import FeaturesConfig
from uepp.features.catalog import build_catalog, build_vocabulary, num_products_before, product_texts
from uepp.features.text import TEXT_FIELDS

_TAGS = pa.list_(pa.string())
_ATTRIBUTES = pa.map_(pa.string(), pa.list_(pa.string()))


def table(**changes: pa.Array | list) -> pa.Table:
    columns = {
        "product_id": ["007", "b"],
        "title": ["Red box", "Straße"],
        "tags": pa.array([["gift box", "red"], None], _TAGS),
        "category": ["Home > Box", None],
        "attributes": pa.array([[("color", ["red", "dark blue"]), ("size", ["10: 5"])], None], _ATTRIBUTES),
        "description": [None, "long\ntext"],
        "created_at": pa.array([None, START], pa.timestamp("us", "UTC")),
    } | changes
    return pa.table(columns)


def test_product_texts_of_a_known_table() -> None:
    assert product_texts(table()) == {
        "title": ["Red box", "Straße"],
        "tags": ["gift box\nred", ""],
        "category": ["Home > Box", ""],
        "attributes": ["color: red\ncolor: dark blue\nsize: 10: 5", ""],
        "description": ["", "long\ntext"],
    }


def test_product_texts_of_awkward_values() -> None:
    texts = product_texts(
        table(
            title=["", None],
            tags=pa.array([[], [""]], _TAGS),
            attributes=pa.array([[("a", None), ("b", []), ("c", ["", "x\ny: z"])], []], _ATTRIBUTES),
        )
    )
    assert tuple(texts) == TEXT_FIELDS
    assert texts["title"] == ["", ""]
    assert texts["tags"] == ["", ""]
    assert texts["attributes"] == ["c: x y: z", ""]


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (START - timedelta(days=1), 2),
        (START, 2),
        (START + timedelta(microseconds=1), 3),
        (START + timedelta(days=1), 3),
        (START + timedelta(days=2), 4),
        (START + timedelta(days=9), 5),
    ],
)
def test_catalogue_as_of_a_moment_is_a_prefix(moment: object, expected: int) -> None:
    created = [None, None, START, START + timedelta(days=1), START + timedelta(days=2)]
    products = pa.table({"created_at": pa.array(created, pa.timestamp("us", "UTC"))})
    assert num_products_before(products, moment) == expected


def test_no_day_at_all_means_always_there() -> None:
    products = pa.table({"created_at": pa.array([None, None], pa.timestamp("us", "UTC"))})
    assert num_products_before(products, START) == 2
    assert num_products_before(products.slice(0, 0), START) == 0


def test_catalogue_holds_the_ids_of_the_oracle_tokens(toy: Toy) -> None:
    texts = product_texts(toy.products)
    table = toy.vocabulary.lookup_table()
    assert toy.catalog.product_ids == toy.products.column("product_id").to_pylist()
    assert toy.catalog.titles == texts["title"]
    assert toy.config.features.groups == (("title", "tags"), ("category", "attributes"), ("description",))
    assert [len(store) for store in toy.catalog.groups] == [len(toy.catalog)] * 3
    assert all(isinstance(store.values, np.memmap) for store in toy.catalog.groups)
    for row in range(len(toy.catalog)):
        tags = [token for tag in texts["tags"][row].split("\n") for token in oracles.text_tokens(tag)]
        expected = [
            oracles.text_tokens(texts["title"][row]) + tags,
            oracles.category_tokens(texts["category"][row]) + oracles.attribute_tokens(texts["attributes"][row]),
            oracles.text_tokens(texts["description"][row]),
        ]
        for store, tokens in zip(toy.catalog.groups, expected, strict=True):
            ids = table.lookup(tf.constant(tokens, tf.string)).numpy().tolist()
            assert store.gather(np.array([row])).values.tolist() == ids


def test_vocabulary_counts_texts_with_a_token() -> None:
    config = FeaturesConfig(min_count=1, num_oov_buckets=3, groups=(("title", "tags"), ("attributes",)))
    vocabulary = build_vocabulary(config, table(), ["red gift", "red"], 2)
    count = dict(zip(vocabulary.tokens, vocabulary.counts.tolist(), strict=True))
    assert vocabulary.num_texts == 2 + 2
    assert count[b"red"] == 3
    assert count[b"gift box"] == 1
    assert count[b"#attr_color_dark_blue"] == 1
    assert count[b"strasse"] == 1
    assert not {b"text", b"#category_home"} & set(vocabulary.tokens), "fields outside the groups are not read"


def test_vocabulary_does_not_see_later_products() -> None:
    only_first = build_vocabulary(FeaturesConfig(min_count=1, groups=(("title",),)), table(), [], 1)
    assert b"box" in only_first.tokens
    assert b"strasse" not in only_first.tokens
    assert only_first.num_texts == 1


def test_tokens_of_later_products_are_hashed(toy: Toy) -> None:
    """Products after the end of training are in the catalogue; their own words get no rows."""
    last = toy.catalog.groups[0].gather(np.array([len(toy.catalog) - 1])).values
    assert last.max() >= len(toy.vocabulary.tokens)
    assert last.min() < len(toy.vocabulary.tokens)
    assert last.max() < toy.vocabulary.size


def test_catalogue_in_several_batches_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy: Toy) -> None:
    monkeypatch.setattr("uepp.features.catalog._BATCH", 20)
    assert len(toy.catalog) == 48
    config = FeaturesConfig(groups=(("title", "tags"),))
    (again,) = build_catalog(config, toy.vocabulary, toy.products, tmp_path).groups
    np.testing.assert_array_equal(again.splits, toy.catalog.groups[0].splits)
    np.testing.assert_array_equal(again.values, toy.catalog.groups[0].values)
