"""The resident catalogue on tables that can be checked by eye."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import oracles
import pyarrow as pa
import pytest
import tensorflow as tf
from conftest import START, Toy, eagerly

from uepp.config import Config
from uepp.features.bags import BagStore
from uepp.features.catalog import Catalog, build_catalog, load_catalog, num_products_before
from uepp.features.fitted import Fitted
from uepp.features.raw import table_inputs
from uepp.features.text import TEXT_FIELDS
from uepp.features.vocabulary import Vocabulary

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
        "shop_id": ["s", None],
        "created_at": pa.array([None, START], pa.timestamp("us", "UTC")),
        "latitude": [1.25, None],
        "longitude": pa.array([None, 181], pa.int64()),
    } | changes
    return pa.table(columns)


# Columns as the towers take them


def test_table_inputs_of_a_known_table() -> None:
    assert table_inputs(table(), TEXT_FIELDS) == {
        "title": ["Red box", "Straße"],
        "tags": ["gift box\nred", ""],
        "category": ["Home > Box", ""],
        "attributes": ["color: red\ncolor: dark blue\nsize: 10: 5", ""],
        "description": ["", "long\ntext"],
    }
    assert table_inputs(table(), ["shop_id"]) == {"shop_id": ["s", ""]}


def test_table_inputs_of_awkward_values() -> None:
    texts = table_inputs(
        table(
            title=["", None],
            tags=pa.array([[], [""]], _TAGS),
            attributes=pa.array([[("a", None), ("b", []), ("c", ["", "x\ny: z"])], []], _ATTRIBUTES),
        ),
        ["title", "tags", "attributes"],
    )
    assert texts == {"title": ["", ""], "tags": ["", ""], "attributes": ["c: x y: z", ""]}


def test_missing_coordinates_are_nan() -> None:
    found = table_inputs(table(), ["latitude", "longitude"])
    assert [values.dtype for values in found.values()] == [np.float32, np.float32]
    np.testing.assert_array_equal(found["latitude"], np.array([1.25, np.nan], np.float32))
    np.testing.assert_array_equal(found["longitude"], np.array([np.nan, 181], np.float32))


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


# Ids


def bag(column: BagStore | np.ndarray, row: int) -> list[int]:
    assert isinstance(column, BagStore)
    return column.gather(np.array([row])).values.tolist()


def ids_of(vocabulary: Vocabulary, tokens: list[str]) -> list[int]:
    return vocabulary.lookup_table().lookup(tf.constant(tokens, tf.string)).numpy().tolist()


def test_catalogue_holds_the_ids_of_the_oracle_tokens(toy: Toy) -> None:
    texts = table_inputs(toy.products, TEXT_FIELDS)
    lookup = toy.vocabulary.lookup_table()
    assert toy.catalog.product_ids == toy.products.column("product_id").to_pylist()
    assert toy.catalog.titles == texts["title"]
    assert toy.config.features.groups == (("title", "tags"), ("category", "attributes"), ("description",))
    assert set(toy.catalog.columns) == {
        "product/0", "product/1", "product/2", "product/shop", "product/location/ids", "product/zip",
    }  # fmt: skip
    for row in range(len(toy.catalog)):
        title = oracles.text_tokens(texts["title"][row])
        tags = [token for tag in texts["tags"][row].split("\n") for token in oracles.text_tokens(tag)]
        expected = {
            "product/0": title + tags,
            "product/1": oracles.category_tokens(texts["category"][row])
            + oracles.attribute_tokens(texts["attributes"][row]),
            "product/2": oracles.text_tokens(texts["description"][row]),
        }
        expected_terms = {"title": title, "tags": tags}
        for found, tokens_of in ((toy.catalog.columns, expected), (toy.catalog.terms, expected_terms)):
            for name, tokens in tokens_of.items():
                assert bag(found[name], row) == lookup.lookup(tf.constant(tokens, tf.string)).numpy().tolist()


def test_columns_have_a_row_a_product_and_stay_on_disk(toy: Toy) -> None:
    stores = [*toy.catalog.columns.values(), *toy.catalog.terms.values()]
    assert [len(store) for store in stores] == [len(toy.catalog)] * len(stores)
    for store in stores:
        array = store.values if isinstance(store, BagStore) else store
        assert isinstance(array, np.memmap)
        assert array.dtype == np.int32


def test_shop_rows(toy: Toy) -> None:
    shops = [shop.decode() for shop in toy.fitted.shops.tokens]
    expected = [shops.index(shop) if shop in shops else -1 for shop in toy.products.column("shop_id").to_pylist()]
    assert toy.catalog.columns["product/shop"].tolist() == expected
    assert expected[-1] == -1, "a shop that only came after the end of training"
    assert expected.count(-1) > 1
    assert set(expected) == {-1, *range(len(shops))}


def test_tokens_of_later_products_are_hashed(toy: Toy) -> None:
    """Products after the end of training are in the catalogue; their own words get no rows."""
    last = bag(toy.catalog.columns["product/0"], len(toy.catalog) - 1)
    assert min(last) < len(toy.vocabulary.tokens) <= max(last) < toy.vocabulary.size


def changed(toy: Toy, **stages: dict) -> Config:
    settings = toy.config.model_dump()
    return Config.model_validate(settings | {name: settings[name] | values for name, values in stages.items()})


def same_column(one: BagStore | np.ndarray, other: BagStore | np.ndarray) -> bool:
    if isinstance(one, BagStore) and isinstance(other, BagStore):
        return np.array_equal(one.splits, other.splits) and np.array_equal(one.values, other.values)
    return isinstance(one, np.ndarray) and isinstance(other, np.ndarray) and np.array_equal(one, other)


def same(one: Catalog, other: Catalog) -> bool:
    assert one.columns.keys() == other.columns.keys()
    assert one.terms.keys() == other.terms.keys()
    pairs = [(one.columns[name], other.columns[name]) for name in one.columns]
    pairs += [(one.terms[name], other.terms[name]) for name in one.terms]
    return all(same_column(*pair) for pair in pairs)


def test_catalogue_in_several_batches_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy: Toy) -> None:
    """And as a traced function: the toy's is made without tracing."""
    monkeypatch.setattr("uepp.features.raw._PRODUCTS_AT_ONCE", 20)
    assert len(toy.catalog) == 48
    config = changed(
        toy,
        features={"groups": (("title", "tags"),)},
        model={"product_encoders": ("tokens", "shop")},
        history={"num_purchased_products": 0},
    )
    fitted = replace(toy.fitted, groups=config.features.groups)
    catalog = build_catalog(config, fitted, toy.products, tmp_path / "new")
    assert (set(catalog.columns), set(catalog.terms)) == ({"product/0", "product/shop"}, {"title"})
    assert all(same_column(column, toy.catalog.columns[name]) for name, column in catalog.columns.items())
    assert same_column(catalog.terms["title"], toy.catalog.terms["title"])


def test_load_what_was_built(toy: Toy) -> None:
    again = load_catalog(toy.products, toy.mined.parent / "catalog")
    assert same(again, toy.catalog)
    assert (again.product_ids, again.titles) == (toy.catalog.product_ids, toy.catalog.titles)


@pytest.mark.parametrize(
    ("changes", "columns", "terms"),
    [
        ({"model": {"product_encoders": ("shop",), "query_encoders": ("tokens",)}}, {"product/shop"}, set()),
        ({"model": {"product_encoders": ("graph",)}}, set(), {"title", "tags"}),
        (
            {"model": {"product_encoders": ("location",)}, "history": {"num_clicked_products": 0}},
            {"product/location/ids", "product/zip"},
            {"tags"},
        ),
        (
            {"model": {"product_encoders": ("tokens",)}, "history": {"num_purchased_products": 0}},
            {"product/0", "product/1", "product/2"},
            {"title"},
        ),
    ],
)
def test_only_what_is_read_is_kept(
    toy: Toy, tmp_path: Path, changes: dict[str, dict], columns: set[str], terms: set[str]
) -> None:
    with eagerly():
        catalog = build_catalog(changed(toy, **changes), toy.fitted, toy.products, tmp_path)
    assert (set(catalog.columns), set(catalog.terms)) == (columns, terms)
    assert len(catalog) == 48


def test_a_group_with_a_table_of_its_own(toy: Toy, tmp_path: Path) -> None:
    """Other groups, and titles for histories, stay with the shared vocabulary."""
    config = changed(toy, features={"own_tables": ("description",)})
    own = Vocabulary([b"of", b"a"], np.array([2, 1]), 2, 3)
    fitted = Fitted(
        config.features.groups,
        {"shared": toy.vocabulary, "description": own},
        toy.fitted.shops,
        toy.fitted.locations,
    )
    with eagerly():
        catalog = build_catalog(config, fitted, toy.products, tmp_path)
    text = toy.products.column("description").to_pylist()[1]
    assert bag(catalog.columns["product/2"], 1) == ids_of(own, oracles.text_tokens(text))
    assert set(bag(catalog.columns["product/2"], 1)) == {0, 1, 2, 3, 4}
    for name in ("product/0", "product/1"):
        assert same_column(catalog.columns[name], toy.catalog.columns[name])
    assert same_column(catalog.terms["title"], toy.catalog.terms["title"])


def test_dropout_thins_text_and_nothing_else(toy: Toy) -> None:
    rows = np.arange(40)
    whole = toy.catalog.gather(rows, 0.0, np.random.default_rng(1))
    thinned = toy.catalog.gather(rows, 0.5, np.random.default_rng(1))
    assert whole.keys() == thinned.keys()
    for name, entry in whole.items():
        if name.startswith(("product/0/", "product/1/", "product/2/")):
            assert thinned[name].sum() < 0.8 * entry.sum()
        else:
            np.testing.assert_array_equal(thinned[name], entry)
    assert {"product/shop", "product/zip/values", "product/location/ids"} < whole.keys()
