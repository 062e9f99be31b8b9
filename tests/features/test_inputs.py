"""Raw strings to ids: what serving computes is what training read, for every entry of a batch."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from conftest import TRAIN_END, Toy, make_toy
from hypothesis import given, settings
from hypothesis import strategies as st

from uepp.config import Config
from uepp.features.batches import permuted
from uepp.features.graph import load_neighbors
from uepp.features.inputs import ProductFeatures, QueryFeatures
from uepp.features.raw import PLACE, as_tensors, table_inputs
from uepp.features.readers.history import history_inputs
from uepp.features.requests import load_past_events, load_raw_requests

Entries = dict[str, np.ndarray]
_LISTED = {"product/graph": "graph", "history/searches": "searches"}
"""Bags of rows of another list of bags."""


def readable(entries: Entries) -> dict[str, list[Any]]:
    """One value a row and entry: bags as lists, and lists of texts as lists of the texts' tokens."""
    assert {entry.dtype for name, entry in entries.items()} <= {np.dtype(np.int32)}
    bags = {}
    for name in [name.removesuffix("/lengths") for name in entries if name.endswith("/lengths")]:
        values = iter(entries[f"{name}/values"].tolist())
        bags[name] = [[next(values) for _ in range(length)] for length in entries[f"{name}/lengths"]]
        assert next(values, None) is None
    rows = {name: bag for name, bag in bags.items() if name not in _LISTED.values()}
    for name in rows.keys() & _LISTED.keys():
        texts = bags[_LISTED[name]]
        rows[name] = [[texts[place] for place in row] for row in rows[name]]
    dense = {name: entry.tolist() for name, entry in entries.items() if not name.endswith(("/values", "/lengths"))}
    return rows | dense


def computed(encode: Any, inputs: dict[str, tf.Tensor]) -> dict[str, list[Any]]:
    return readable({name: value.numpy() for name, value in encode(inputs).items()})


def saved_and_loaded(encode: ProductFeatures | QueryFeatures, directory: Path) -> Any:
    """The module as a SavedModel holds it: with the tables and centroids that its function uses."""

    class Served(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode = encode

        @tf.function
        def __call__(self, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            return self.encode(inputs)

    served = Served()
    tf.saved_model.save(served, str(directory), signatures=served.__call__.get_concrete_function(encode.signature))
    return tf.saved_model.load(str(directory))


def padded(rows: Sequence[Sequence[str]], width: int = 1) -> tf.Tensor:
    width = max([width, *map(len, rows)])
    return tf.constant([[*row, *[""] * (width - len(row))] for row in rows], tf.string, [len(rows), width])


# Two catalogues with traffic: the toy, and one where everything is odd

_TAGS = pa.list_(pa.string())
_ATTRIBUTES = pa.map_(pa.string(), pa.list_(pa.string()))
ODD_TEXTS = ("", "!", "Lamp", "LAMP!", "lamp", "lámp", "東京 タワー", "x" * 300, "a > b", "c: red", " \t ", "unseen")
ODD_SHOPS = (None, "", "big", "line\nbreak", "ünï", "BIG", " big", "late")
ODD_PLACES: tuple[dict[str, Any], ...] = (
    {},
    {"country": "", "region": "x", "zip": "12 345", "latitude": 1.0},
    {"country": "us", "region": "CA", "language": "EN", "zip": "941-03", "latitude": 91.0, "longitude": 0.0},
    {"country": " US", "region": "ca ", "language": "en", "zip": "94117", "latitude": 37.8, "longitude": -122.4},
    {"country": "Elsewhere", "zip": "東京123456789012345", "latitude": -90.0, "longitude": 180.0},
    {"longitude": 5.0, "latitude": float("nan")},
)


def odd_market(directory: Path) -> Toy:
    """48 products and requests of texts, shops and places that nobody likes; half of the shops come after training."""
    number, seen = range(48), 24
    texts = [ODD_TEXTS[n % len(ODD_TEXTS)] for n in number]
    places = [ODD_PLACES[n % len(ODD_PLACES)] for n in number]
    shops = [ODD_SHOPS[n % 7] if n < seen else ODD_SHOPS[n % 8] for n in number]
    columns: dict[str, Any] = {
        "product_id": [f"p{n:02d}" for n in number],
        "title": texts,
        "tags": pa.array([[text, texts[n // 2]] if n % 5 else None for n, text in enumerate(texts)], _TAGS),
        "category": [texts[n // 3] if n % 4 else None for n in number],
        "attributes": pa.array(
            [[(texts[n // 2], [text, None, ""]), ("k", None)] if n % 3 else None for n, text in enumerate(texts)],
            _ATTRIBUTES,
        ),
        "description": [texts[-n] if n % 2 else None for n in number],
        "shop_id": pa.array(shops, pa.string()),
        "created_at": pa.array([None] * seen + [TRAIN_END] * (48 - seen), pa.timestamp("us", "UTC")),
    }
    for name in PLACE:
        type_ = pa.float64() if name in ("latitude", "longitude") else pa.string()
        columns[name] = pa.array([place.get(name) for place in places], type_)
    rows = [
        {
            "request_id": n, "query": texts[n], "product_id": f"p{n % seen:02d}", "type": "click",
            "request_timestamp": TRAIN_END - timedelta(hours=n), "user_id": f"u{n % 5}", **places[n // 2],
        }
        for n in number
    ]  # fmt: skip
    graph = [(text, f"p{n:02d}", 1 + n % 3, 0, 0) for n in range(0, 48, 2) for text in ODD_TEXTS[n % 7 : n % 9 + 2]]
    moments = [TRAIN_END - timedelta(hours=2 * n) for n in number]
    histories: dict[str, list[tuple[Any, ...]]] = {
        "searches": [(f"u{n % 4}", moment, texts[5 * n % 48]) for n, moment in enumerate(moments)],
        "clicks": [
            (f"u{n % 4}", moment, *(("gone", None) if n % 7 == 6 else (f"p{n:02d}", shops[n])))
            for n, moment in enumerate(moments)
        ],
        "purchases": [(f"u{n % 4}", moment, f"p{5 * n % 53:02d}") for n, moment in enumerate(moments)],
    }
    config = Config.model_validate(
        {
            "features": {
                "num_oov_buckets": 3, "own_tables": ("category",), "location_buckets": (3,), "max_shops": 100,
                "category_text": True,
            },
            "graph": {"num_neighbors": 3},
            "history": {"num_searches": 5, "num_shops": 2, "num_clicked_products": 4, "num_purchased_products": 3},
            "negatives": {"num_uniform": 6},
            "training": {"batch_size": 8},
        }
    )  # fmt: skip
    return make_toy(directory, config, pa.table(columns), rows, graph, histories, seen)


@pytest.fixture(scope="module", params=["toy", "odd"])
def market(request: pytest.FixtureRequest, toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return toy if request.param == "toy" else odd_market(tmp_path_factory.mktemp("odd"))


def test_products_as_served_are_the_catalogue(market: Toy) -> None:
    encode = ProductFeatures(market.config, market.fitted)
    neighbors = load_neighbors(market.mined, market.catalog.product_ids)
    inputs = as_tensors(table_inputs(market.products, encode.columns))
    inputs["neighbor_queries"] = padded(neighbors.fixed(np.arange(48), 3))
    assert inputs.keys() == encode.signature.keys()
    found = computed(encode, inputs)
    trained = readable(market.catalog.gather(np.arange(48), 0.0, np.random.default_rng(0)))
    assert {name: rows for name, rows in found.items() if name != "product/graph"} == trained
    assert set(trained) == {
        "product/0", "product/1", "product/2", "product/shop", "product/location/ids", "product/zip",
    }  # fmt: skip
    for name, rows in trained.items():
        assert len({str(row) for row in rows}) > 3, f"{name} differs between products"


def test_neighbours_as_served_are_those_of_a_batch(market: Toy) -> None:
    """With n above every degree a batch gives all neighbours but the target query, as an export does."""
    settings = market.config.model_dump()
    settings["graph"] |= {"num_neighbors": 50}
    settings["negatives"] |= {"num_uniform": 200}
    arrays, _ = market.batch_maker(Config.model_validate(settings)).make(0)
    drawn = arrays["candidates"][8:]
    assert set(drawn) == set(range(market.num_seen_products))
    names = ("product/graph/values", "product/graph/lengths", "graph/values", "graph/lengths")
    trained = readable({name: arrays[name] for name in names})["product/graph"][8:]

    encode = ProductFeatures(market.config, market.fitted)
    neighbors = load_neighbors(market.mined, market.catalog.product_ids)
    inputs = as_tensors(table_inputs(market.products.take(drawn), encode.columns))
    found = computed(encode, inputs | {"neighbor_queries": padded(neighbors.fixed(drawn, 50))})["product/graph"]
    assert found == trained
    assert {len(row) for row in trained} > {1, 2}


def test_requests_as_served_are_those_of_a_batch(market: Toy) -> None:
    """One batch of every example: query, place and history from raw strings are what training was given."""
    size = len(market.examples)
    arrays, _ = market.batch_maker(batch_size=size).make(0)
    names = [name for name in arrays if name.startswith(("query/", "user/", "history/", "searches/"))]
    trained = readable({name: arrays[name] for name in names})
    assert set(trained) == {
        "query", "user/location/ids", "user/zip",
        "history/searches", "history/shops", "history/clicked", "history/purchased",
    }  # fmt: skip

    order = permuted(np.arange(size), size, market.config.training.seed << 32)
    assert arrays["candidates"][:size].tolist() == market.examples.product_index[order].tolist()
    past = load_past_events(market.mined, market.products)
    requests = load_raw_requests(pq.read_table(market.mined / "examples.parquet").take(order), past)
    encode = QueryFeatures(market.config, market.fitted)
    inputs = requests.inputs(encode.signature, market.config.history)
    assert inputs.keys() == encode.signature.keys()
    found = computed(encode, inputs)
    assert found == trained
    for name, rows in trained.items():
        assert len({str(row) for row in rows}) > 3, f"{name} differs between requests"


def test_saved_models_compute_the_same(toy: Toy, tmp_path: Path) -> None:
    """The tables and centroids travel with the module."""
    past = load_past_events(toy.mined, toy.products)
    requests = load_raw_requests(pq.read_table(toy.mined / "examples.parquet"), past)
    for_query = QueryFeatures(toy.config, toy.fitted)
    query_inputs = requests.inputs(for_query.signature, toy.config.history)
    settings = toy.config.model_dump()
    settings["features"] |= {"groups": (("title",), ("attributes",))}
    config = Config.model_validate(settings)
    for_product = ProductFeatures(config, replace(toy.fitted, groups=config.features.groups))
    product = as_tensors(table_inputs(toy.products, for_product.columns))
    product["neighbor_queries"] = padded([["lamp"], ["", "!", "red  Lamp"]] * 24)
    for name, encode, inputs in (("query", for_query, query_inputs), ("product", for_product, product)):
        assert computed(saved_and_loaded(encode, tmp_path / name), inputs) == computed(encode, inputs)


# What is given, and what is not


def encoder(toy: Toy, **stages: dict[str, Any]) -> QueryFeatures:
    settings = toy.config.model_dump()
    config = Config.model_validate(settings | {name: settings[name] | values for name, values in stages.items()})
    return QueryFeatures(config, toy.fitted)


HISTORY_ENTRIES = {
    "recent_searches": {"history/searches/values", "history/searches/lengths", "searches/values", "searches/lengths"},
    "recent_shops": {"history/shops/values", "history/shops/lengths"},
    "recent_titles": {"history/clicked/values", "history/clicked/lengths"},
    "purchased_tags": {"history/purchased/values", "history/purchased/lengths"},
}
SWITCHES = {
    "recent_searches": "num_searches",
    "recent_shops": "num_shops",
    "recent_titles": "num_clicked_products",
    "purchased_tags": "num_purchased_products",
}


def one_request(names: Sequence[str], number: int = 2) -> dict[str, tf.Tensor]:
    """Something in every input."""
    inputs: dict[str, tf.Tensor] = {}
    for name in names:
        if name in SWITCHES:
            words = "shop" if name == "recent_shops" else "red lamp"
            inputs[name] = tf.constant([[f"{words} {n}" for n in range(number)]])
        else:
            inputs[name] = tf.constant([1.0] if name in ("latitude", "longitude") else ["us"])
    return inputs


@pytest.mark.parametrize("off", [*SWITCHES, *[("recent_searches", "purchased_tags"), tuple(SWITCHES)]])
def test_a_history_part_that_is_off_has_no_input_and_no_entry(toy: Toy, off: str | tuple[str, ...]) -> None:
    off = (off,) if isinstance(off, str) else off
    whole, part = encoder(toy), encoder(toy, history={SWITCHES[name]: 0 for name in off})
    assert set(part.signature) == set(whole.signature) - set(off)
    entries = part(one_request(list(part.signature)))
    gone = set().union(*(HISTORY_ENTRIES[name] for name in off))
    all_entries = set(whole(one_request(list(whole.signature))))
    assert gone < all_entries
    assert set(entries) == all_entries - gone


@pytest.mark.parametrize(
    ("encoders", "inputs", "entries"),
    [
        (("tokens",), {"query"}, {"query"}),
        (("location",), {"query", *PLACE}, {"query", "user/location/ids", "user/zip"}),
        (
            ("tokens", "history"),
            {"query", *SWITCHES},
            {"query", "history/searches", "history/shops", "history/clicked", "history/purchased"},
        ),
    ],
)
def test_query_encoders_say_what_is_read(
    toy: Toy, encoders: tuple[str, ...], inputs: set[str], entries: set[str]
) -> None:
    encode = encoder(toy, model={"query_encoders": encoders})
    assert set(encode.signature) == inputs
    assert set(computed(encode, one_request(list(inputs)))) == entries


@pytest.mark.parametrize(
    ("encoders", "inputs", "entries"),
    [
        (
            ("tokens",),
            {"title", "tags", "category", "attributes", "description"},
            {"product/0", "product/1", "product/2"},
        ),
        (("shop",), {"shop_id"}, {"product/shop"}),
        (("location", "shop"), {"shop_id", *PLACE}, {"product/shop", "product/location/ids", "product/zip"}),
        (("graph",), {"neighbor_queries"}, {"product/graph"}),
    ],
)
def test_product_encoders_say_what_is_read(
    toy: Toy, encoders: tuple[str, ...], inputs: set[str], entries: set[str]
) -> None:
    settings = toy.config.model_dump()
    settings["model"] |= {"product_encoders": encoders}
    encode = ProductFeatures(Config.model_validate(settings), toy.fitted)
    assert set(encode.signature) == inputs
    given_inputs = as_tensors(table_inputs(toy.products, encode.columns))
    if "graph" in encoders:
        given_inputs["neighbor_queries"] = padded([["lamp"]] * 48)
    assert set(computed(encode, given_inputs)) == entries


def test_history_inputs_are_the_limits_of_the_configuration(toy: Toy) -> None:
    assert history_inputs(toy.config.history) == {
        "recent_searches": 4,
        "recent_shops": 3,
        "recent_titles": 2,
        "purchased_tags": 3,
    }


# Padding


@pytest.fixture(scope="module")
def encode(toy: Toy) -> Any:
    """Query features as they are served."""
    made = encoder(toy)
    return tf.function(made.__call__, input_signature=[made.signature])


TEXTS = ("red lamp", "lamp", "!", "shop 1", "shop 2", "no shop", "mug\nlamp")
some_texts = st.lists(st.sampled_from(TEXTS), max_size=6)


@settings(deadline=None, max_examples=25)
@given(st.lists(some_texts, min_size=1, max_size=4), st.integers(0, 5))
def test_padding_of_histories_changes_nothing(encode: Any, rows: list[list[str]], more: int) -> None:
    nobody = {"query": tf.constant(["lamp"] * len(rows))}
    nobody |= {name: tf.constant([""] * len(rows)) for name in ("country", "region", "language", "zip")}
    nobody |= {name: tf.constant([float("nan")] * len(rows)) for name in ("latitude", "longitude")}
    tight = nobody | {name: padded(rows) for name in SWITCHES}
    loose = nobody | {name: padded(rows, max(map(len, rows)) + more) for name in SWITCHES}
    found = computed(encode, tight)
    assert computed(encode, loose) == found
    for row, texts in enumerate(rows):
        alone = {name: value[row : row + 1] for name, value in nobody.items()} | {
            name: padded([texts]) for name in SWITCHES
        }
        assert computed(encode, alone) == {name: [values[row]] for name, values in found.items()}


@settings(deadline=None, max_examples=25)
@given(some_texts, some_texts)
def test_no_more_of_a_history_is_read_than_training_looked_at(encode: Any, texts: list[str], more: list[str]) -> None:
    limits = {"recent_searches": 4, "recent_shops": 3, "recent_titles": 2, "purchased_tags": 3}
    request = one_request(["query", *PLACE])
    short = request | {name: padded([texts[:number]]) for name, number in limits.items()}
    full = request | {name: padded([texts[:number] + more * (len(texts) >= number)]) for name, number in limits.items()}
    assert computed(encode, full) == computed(encode, short)


def test_a_history_in_words(toy: Toy, encode: Any) -> None:
    lookup = {token.decode(): row for row, token in enumerate(toy.vocabulary.tokens)}
    inputs = one_request(["query", *PLACE]) | {
        "recent_searches": tf.constant([["", "lamp", "lamp"]]),
        "recent_shops": tf.constant([["shop 6", "late shop", "shop 0"]]),
        "recent_titles": tf.constant([["lamp", "mug"]]),
        "purchased_tags": tf.constant([["lamp\nmug", ""]]),
    }
    found = computed(encode, inputs)
    lamp = [lookup[token] for token in ("lamp", "~#la", "~lam", "~amp", "~mp#")]
    mug = [lookup[token] for token in ("mug", "~#mu", "~mug", "~ug#")]
    assert found["history/searches"] == [[lamp, lamp]]
    assert found["history/clicked"] == [lamp + mug]
    assert found["history/purchased"] == [lamp + mug], "no bigram across tags"
    assert found["history/shops"] == [[toy.fitted.shops.tokens.index(shop) for shop in (b"shop 6", b"shop 0")]]
    assert encode(inputs)["searches/lengths"].shape == (1,), "each text is tokenised once"


def test_no_requests_at_all(toy: Toy, encode: Any) -> None:
    """A batch of none, as an evaluation without requests makes."""
    inputs = {name: tf.zeros([0] * spec.shape.rank, spec.dtype) for name, spec in encoder(toy).signature.items()}
    inputs = {name: tf.fill(value.shape, "") if value.dtype == tf.string else value for name, value in inputs.items()}
    found = encode(inputs)
    assert all(value.shape[0] == 0 for value in found.values())
