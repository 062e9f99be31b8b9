"""Requests as the exported query tower takes them, against plain Python on the rows of the mined tables."""

import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from conftest import TRAIN_END, write_mined

from uepp.config import HistoryConfig
from uepp.features.raw import COORDINATES, PLACE, PLACE_NAMES
from uepp.features.requests import RawRequests, load_past_events, load_raw_requests

HISTORY = HistoryConfig(num_searches=3, num_shops=2, num_clicked_products=4, num_purchased_products=2)
LIMITS = {"recent_searches": 3, "recent_shops": 2, "recent_titles": 4, "purchased_tags": 2}
NAMES = ("query", *PLACE, *LIMITS)
TITLES = {"a": "Red lamp", "b": "", "c": "Mug"}
TAGS = {"a": ["lamp", "gift"], "b": None, "c": []}
SHOP_OF = {"a": "big", "b": None, "c": "", "gone": "small"}


def products() -> pa.Table:
    return pa.table(
        {
            "product_id": list(TITLES),
            "title": list(TITLES.values()),
            "tags": pa.array(TAGS.values(), pa.list_(pa.string())),
        }
    )


def at(hours: int) -> Any:
    return TRAIN_END + timedelta(hours=hours)


def event_rows() -> dict[str, list[tuple[Any, ...]]]:
    """U did much and v little; "gone" is no product of the catalogue."""
    rng = np.random.default_rng(2)
    sequence = ["gone", *rng.choice(list(SHOP_OF), 11).tolist()]
    texts = ["lamp", "red lamp", "", "mug"]
    return {
        "searches": [("u", at(n), texts[n % 4]) for n in range(12)] + [("v", at(5), "desk")],
        "clicks": [("u", at(n), product, SHOP_OF[product]) for n, product in enumerate(sequence)]
        + [("v", at(0), "a", "big"), ("v", at(1), "gone", "small")],
        "purchases": [("u", at(2 * n), product) for n, product in enumerate(sequence)] + [("v", at(2), "gone")],
    }


ASKED = [
    {"query": "lamp", "user_id": "u", "request_timestamp": at(0), "country": "US", "latitude": 1.5, "longitude": -2.0},
    {"query": "", "user_id": "u", "request_timestamp": at(9), "zip": "10115", "region": "", "language": "de"},
    {"query": "mug", "user_id": "v", "request_timestamp": at(5), "latitude": 12.345678901, "longitude": None},
    {"query": "lamp", "user_id": None, "request_timestamp": at(9)},
    {"query": "desk", "user_id": "v", "request_timestamp": at(30)},
    {"query": "desk", "user_id": "new", "request_timestamp": at(30)},
    {"query": "mug", "user_id": "u", "request_timestamp": at(40)},
]


def expected_latest(name: str, request: dict[str, Any]) -> list[str]:
    """The latest texts before the request, most recent first."""
    kind = {"recent_searches": "searches", "purchased_tags": "purchases"}.get(name, "clicks")
    texts = {
        "recent_searches": lambda row: row[2],
        "recent_shops": lambda row: row[3] or "",
        "recent_titles": lambda row: TITLES.get(row[2], ""),
        "purchased_tags": lambda row: "\n".join(TAGS.get(row[2]) or []),
    }
    own = [
        row
        for row in sorted(event_rows()[kind], key=lambda row: row[1])
        if row[0] == request["user_id"] and row[1] < request["request_timestamp"]
    ]
    return [texts[name](row) for row in own[::-1][: LIMITS[name]]]


def expected(name: str, requests: list[dict[str, Any]]) -> list[Any]:
    if name == "query" or name in PLACE_NAMES:
        return [request.get(name) or "" for request in requests]
    if name in COORDINATES:
        return [math.nan if request.get(name) is None else float(np.float32(request[name])) for request in requests]
    return [expected_latest(name, request) for request in requests]


def unpadded(rows: list[list[bytes]], lengths: list[int]) -> list[list[str]]:
    """Rows without what fills them up to the longest, which has to be empty."""
    for row, length in zip(rows, lengths, strict=True):
        assert not any(row[length:])
    return [[text.decode() for text in row[:length]] for row, length in zip(rows, lengths, strict=True)]


def check(inputs: dict[str, tf.Tensor], requests: list[dict[str, Any]]) -> None:
    assert set(inputs) == set(NAMES)
    for name, found in inputs.items():
        wanted = expected(name, requests)
        if name in COORDINATES:
            assert found.dtype == tf.float32
            np.testing.assert_array_equal(found.numpy(), wanted)
        elif name in LIMITS:
            assert found.shape == (len(requests), max(1, *map(len, wanted)) if wanted else 1)
            assert unpadded(found.numpy().tolist(), [len(row) for row in wanted]) == wanted
        else:
            assert [text.decode() for text in found.numpy().tolist()] == wanted


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> RawRequests:
    directory = tmp_path_factory.mktemp("mined")
    asked = [{"product_id": "a", "type": "click", **request} for request in ASKED]
    write_mined(directory, asked, histories=event_rows())
    return load_raw_requests(pq.read_table(directory / "examples.parquet"), load_past_events(directory, products()))


def test_inputs_are_the_oracle(requests: RawRequests) -> None:
    assert len(requests) == len(ASKED)
    check(requests.inputs(NAMES, HISTORY), ASKED)
    wanted = {name: expected(name, ASKED) for name in LIMITS}
    assert all([] in rows and max(map(len, rows)) == LIMITS[name] for name, rows in wanted.items())


def test_a_product_that_the_catalogue_lacks_is_an_empty_text(requests: RawRequests) -> None:
    """It keeps its place, as in training: what was looked at is the same."""
    inputs = requests.inputs(NAMES, HISTORY)
    assert inputs["recent_titles"].numpy().tolist()[2][:2] == [b"", b"Red lamp"]
    assert inputs["recent_shops"].numpy().tolist()[2] == [b"small", b"big"]
    assert set(inputs["purchased_tags"].numpy().tolist()[4]) == {b""}


@pytest.mark.parametrize("rows", [[6, 2, 2, 0], [3], [5, 3], []])
def test_take(requests: RawRequests, rows: list[int]) -> None:
    taken = requests.take(np.array(rows, np.int64))
    assert len(taken) == len(rows)
    check(taken.inputs(NAMES, HISTORY), [ASKED[row] for row in rows])


def test_only_the_inputs_that_are_asked_for(requests: RawRequests) -> None:
    assert set(requests.inputs(["query", "recent_shops"], HISTORY)) == {"query", "recent_shops"}


def test_queries_of_whom_nothing_is_known() -> None:
    inputs = RawRequests(["lamp", "Mug"]).inputs(NAMES, HISTORY)
    assert inputs["query"].numpy().tolist() == [b"lamp", b"Mug"]
    for name in PLACE_NAMES:
        assert inputs[name].numpy().tolist() == [b"", b""]
    for name in COORDINATES:
        assert np.isnan(inputs[name].numpy()).all()
        assert inputs[name].dtype == tf.float32
    for name in LIMITS:
        assert inputs[name].numpy().tolist() == [[b""], [b""]]
    assert len(RawRequests(["lamp", "Mug"]).take(np.array([1, 1, 0]))) == 3


def test_without_any_past_event(tmp_path: Path) -> None:
    asked = [{"product_id": "a", "type": "click", **request} for request in ASKED]
    write_mined(tmp_path, asked)
    past = load_past_events(tmp_path, products())
    assert {name: len(texts) for name, texts in past.texts.items()} == dict.fromkeys(LIMITS, 0)
    loaded = load_raw_requests(pq.read_table(tmp_path / "examples.parquet"), past)
    inputs = loaded.inputs(NAMES, HISTORY)
    assert all(inputs[name].numpy().tolist() == [[b""]] * len(ASKED) for name in LIMITS)


def test_ids_of_either_string_type(tmp_path: Path) -> None:
    """Ids of history files and of the catalogue may be large strings in one and plain ones in the other."""
    write_mined(tmp_path, [], histories=event_rows())
    large = products().set_column(0, "product_id", pa.array(list(TITLES), pa.large_string()))
    one, other = load_past_events(tmp_path, products()), load_past_events(tmp_path, large)
    for name, texts in one.texts.items():
        assert texts[:].tolist() == other.texts[name][:].tolist()
        assert any(texts[:])
        some = np.array([3, 0, 3])
        assert texts[some].tolist() == [texts[:][row] for row in some]
