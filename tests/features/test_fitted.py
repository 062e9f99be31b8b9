"""What features learn before any model: what counts, what does not, and what survives a save."""

from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pyarrow as pa
import pytest
import tensorflow as tf
from conftest import START, Toy, eagerly

from uepp.config import FeaturesConfig
from uepp.features.fitted import Fitted, fit_features

_TAGS = pa.list_(pa.string())
_ATTRIBUTES = pa.map_(pa.string(), pa.list_(pa.string()))
_NAMES = ("country", "region", "language", "zip")


def products(number: int = 4, **changes: Any) -> pa.Table:
    """The first of them are seen in training."""
    columns = {
        "product_id": ["a", "b", "c", "d"],
        "title": ["Red box", "Red Straße", "box", "future words"],
        "tags": pa.array([["gift box", "red"], None, [], ["later tag"]], _TAGS),
        "category": ["Home > Box", None, "Home", "Later"],
        "attributes": pa.array([[("color", ["red", "dark blue"])], None, [], [("late", ["attribute"])]], _ATTRIBUTES),
        "description": [None, "long text of a box", "text", "future text"],
        "shop_id": ["big", "big", "small", "future shop"],
        "created_at": pa.array([None, START, START, START + timedelta(days=9)], pa.timestamp("us", "UTC")),
        "country": ["US", "US", "DE", "XX"],
        "region": ["CA", "CA", None, "XX"],
        "language": ["en", "en", "de", "xx"],
        "zip": ["94103", "94110", None, "99999"],
        "latitude": [10.0, None, 50.0, 77.0],
        "longitude": [20.0, None, 10.0, 77.0],
    } | changes
    return pa.table(columns).slice(0, number)


def contexts(*rows: tuple[Any, ...]) -> pa.Table:
    """User, four names, two coordinates."""
    names = ("user_id", *_NAMES, "latitude", "longitude")
    types = (pa.string(),) * 5 + (pa.float64(),) * 2
    return pa.table({name: pa.array([row[n] for row in rows], types[n]) for n, name in enumerate(names)})


SOMEONE = ("u", "US", "NY", "en", "10001", 40.0, -74.0)
NOBODY = (None,) * 7


def fit(
    config: FeaturesConfig,
    table: pa.Table | None = None,
    queries: tuple[str, ...] = ("red gift", "red"),
    who: pa.Table | None = None,
    seen: int = 3,
) -> Fitted:
    with eagerly():
        return fit_features(
            config, table or products(), queries, contexts(SOMEONE, NOBODY) if who is None else who, seen, seed=1
        )


def counts_of(fitted: Fitted, name: str = "shared") -> dict[str, int]:
    vocabulary = fitted.vocabularies[name]
    return {token.decode(): int(count) for token, count in zip(vocabulary.tokens, vocabulary.counts, strict=True)}


def text_of(row: int, field: str) -> list[str]:
    """Tokens of a seen product's field, by hand."""
    table = products().to_pylist()[row]
    if field in ("title", "description"):
        return oracles.text_tokens(table[field] or "")
    if field == "tags":
        return [token for tag in table[field] or [] for token in oracles.text_tokens(tag)]
    if field == "category":
        return oracles.category_tokens(table[field] or "")
    lines = [f"{key}: {value}" for key, values in table["attributes"] or [] for value in values]
    return oracles.attribute_tokens("\n".join(lines))


def counted(texts: list[list[str]]) -> dict[str, int]:
    """In how many texts each token occurs."""
    return dict(Counter(token for text in texts for token in set(text)))


ALL_FIELDS = ("title", "tags", "category", "attributes", "description")


# Tokens


def test_a_token_counts_once_a_product_or_query() -> None:
    fitted = fit(FeaturesConfig(min_count=1))
    texts = [[token for field in ALL_FIELDS for token in text_of(row, field)] for row in range(3)]
    texts += [oracles.text_tokens(query) for query in ("red gift", "red")]
    assert counts_of(fitted) == counted(texts)
    assert fitted.vocabularies["shared"].num_texts == 3 + 2
    assert counts_of(fitted)["red"] == 4
    assert set(fitted.vocabularies) == {"shared"}
    assert [fitted.table_of_group(group) for group in range(3)] == ["shared"] * 3


def test_fields_outside_the_groups_are_not_read() -> None:
    fitted = fit(FeaturesConfig(min_count=1, groups=(("title", "tags"), ("attributes",))))
    texts = [[token for field in ("title", "tags", "attributes") for token in text_of(row, field)] for row in range(3)]
    assert counts_of(fitted) == counted([*texts, oracles.text_tokens("red gift"), oracles.text_tokens("red")])


def test_a_group_with_its_own_table_has_its_own_tokens() -> None:
    config = FeaturesConfig(
        min_count=1,
        groups=(("title",), ("category", "attributes"), ("tags", "description")),
        own_tables=("category", "tags"),
    )
    fitted = fit(config)
    assert set(fitted.vocabularies) == {"shared", "category", "tags"}
    assert [fitted.table_of_group(group) for group in range(3)] == ["shared", "category", "tags"]
    titles = [text_of(row, "title") for row in range(3)]
    queries = [oracles.text_tokens("red gift"), oracles.text_tokens("red")]
    assert counts_of(fitted) == counted(titles + queries)
    for one, other in (("category", "attributes"), ("tags", "description")):
        assert counts_of(fitted, one) == counted([text_of(row, one) + text_of(row, other) for row in range(3)])
    assert {name: vocabulary.num_texts for name, vocabulary in fitted.vocabularies.items()} == {
        "shared": 5,
        "category": 3,
        "tags": 3,
    }


def test_every_group_with_its_own_table_leaves_the_queries() -> None:
    fitted = fit(FeaturesConfig(min_count=1, groups=(("title",),), own_tables=("title",)))
    assert counts_of(fitted) == counted([oracles.text_tokens("red gift"), oracles.text_tokens("red")])
    assert counts_of(fitted, "title") == counted([text_of(row, "title") for row in range(3)])


# Shops


def shop_tokens(fitted: Fitted) -> list[str]:
    return [shop.decode() for shop in fitted.shops.tokens]


def test_shops_with_the_most_products_first() -> None:
    table = products(shop_id=["small", "big", "big", "big"])
    assert shop_tokens(fit(FeaturesConfig(), table)) == ["big", "small"]
    assert fit(FeaturesConfig(), table).shops.counts.tolist() == [2, 1]
    assert shop_tokens(fit(FeaturesConfig(max_shops=1), table)) == ["big"]
    tied = products(shop_id=["b", "ä", "a", None])
    assert shop_tokens(fit(FeaturesConfig(), tied)) == ["a", "b", "ä"]


def test_shops_that_have_no_row(tmp_path: Path) -> None:
    """None, the empty id (which towers take for none) and an id with a line break, which no file of lines can hold."""
    fitted = fit(FeaturesConfig(), products(shop_id=["line\nbreak", "", "fine", None]))
    assert shop_tokens(fitted) == ["fine"]
    fitted.save(tmp_path)
    lookup = Fitted.load(tmp_path, FeaturesConfig()).shops.lookup_table()
    found = lookup.lookup(tf.constant(["fine", "line\nbreak", "", "break", "Fine"]))
    assert found.numpy().tolist() == [0, -1, -1, -1, -1]


def test_a_catalogue_without_shops(tmp_path: Path) -> None:
    fitted = fit(FeaturesConfig(), products(shop_id=pa.nulls(4, pa.string())))
    assert shop_tokens(fitted) == []
    assert fitted.shops.size == 1, "a table has at least a row"
    fitted.save(tmp_path)
    lookup = Fitted.load(tmp_path, FeaturesConfig()).shops.lookup_table()
    assert lookup.lookup(tf.constant(["", "any"])).numpy().tolist() == [-1, -1]


# Time


def test_nothing_of_later_products_counts() -> None:
    """Whatever the products after the end of training are, the fit is the same."""
    config = FeaturesConfig(min_count=1, own_tables=("description",), location_buckets=(2,))
    without, with_later = fit(config, products(3)), fit(config, products(4))
    assert counts_of(with_later) == counts_of(without)
    assert counts_of(with_later, "description") == counts_of(without, "description")
    assert shop_tokens(with_later) == shop_tokens(without)
    assert with_later.locations.names == without.locations.names
    np.testing.assert_array_equal(with_later.locations.centroids[2], without.locations.centroids[2])
    everything = fit(config, products(4), seen=4)
    assert "future" in counts_of(everything)
    assert "future shop" in shop_tokens(everything)
    assert "future" not in counts_of(with_later)


def test_the_first_product_only() -> None:
    fitted = fit(FeaturesConfig(min_count=1, groups=(("title",),)), queries=(), seen=1)
    assert counts_of(fitted) == counted([text_of(0, "title")])
    assert fitted.vocabularies["shared"].num_texts == 1


# Places


def test_places_are_of_users_and_seen_products_but_centroids_of_users_only() -> None:
    who = contexts(SOMEONE, SOMEONE, ("v", "FR", None, "fr", None, 48.0, 2.0), ("w", "FR", None, "fr", None, 48.0, 2.0))
    locations = fit(FeaturesConfig(location_buckets=(5,)), who=who).locations
    assert locations.names["country"] == ["fr", "us"], "seen twice: among users, products, or both"
    assert locations.names["region"] == ["us\nca", "us\nny"]
    assert "us\n941" in locations.names["zip"]
    assert len(locations.centroids[5]) == 2, "where u and where v and w were, and no product's place"


# Files


@pytest.mark.parametrize("own_tables", [(), ("category", "description")])
def test_save_and_load(tmp_path: Path, own_tables: tuple[str, ...]) -> None:
    config = FeaturesConfig(min_count=1, own_tables=own_tables, location_buckets=(2, 3), num_oov_buckets=3)
    saved = fit(config)
    saved.save(tmp_path)
    loaded = Fitted.load(tmp_path, config)
    assert loaded.groups == saved.groups == config.groups
    assert set(loaded.vocabularies) == {"shared", *own_tables}
    pairs = [(saved.vocabularies[name], loaded.vocabularies[name]) for name in loaded.vocabularies]
    for before, after in [*pairs, (saved.shops, loaded.shops)]:
        assert after.tokens == before.tokens
        assert after.counts.tolist() == before.counts.tolist()
        assert (after.num_texts, after.num_oov_buckets) == (before.num_texts, before.num_oov_buckets)
    assert loaded.locations.names == saved.locations.names
    for k in (2, 3):
        np.testing.assert_array_equal(loaded.locations.centroids[k], saved.locations.centroids[k])
    assert [loaded.table_of_group(group) for group in range(3)] == [saved.table_of_group(group) for group in range(3)]


def test_the_toy_is_fitted_on_what_training_knows(toy: Toy) -> None:
    """What other tests rely on: a shop and words that only later products have are unknown."""
    assert b"late shop" not in toy.fitted.shops.tokens
    assert toy.products.column("shop_id").to_pylist()[-1] == "late shop"
    assert b"47" not in toy.vocabulary.tokens
    assert toy.vocabulary.num_texts == toy.num_seen_products + len(toy.examples.queries)
