"""The contract: what is refused, with which words, and what is accepted with a remark."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uepp.data import schema
from uepp.errors import InputError

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
US = pa.timestamp("us", "UTC")


def products(**changes: object) -> pa.Table:
    columns = {
        "product_id": ["007", "b", "ç"],
        "title": ["a lamp", "", "Stühle"],
        "tags": pa.array([["x", "y"], [], None], pa.list_(pa.string())),
        "attributes": pa.array([[("colour", ["red", "blue"])], [], None], pa.map_(pa.string(), pa.list_(pa.string()))),
        "price": [1.5, None, 0.0],
        "created_at": pa.array([NOON, None, NOON - timedelta(days=1)], US),
        "latitude": [48.1, None, -90.0],
        "longitude": [11.5, None, 180.0],
    } | changes
    return pa.table({name: values for name, values in columns.items() if values is not None})


def events(**changes: object) -> pa.Table:
    columns = {
        "timestamp": pa.array([NOON + timedelta(seconds=second) for second in range(4)], US),
        "user_id": ["u", None, "u", "v"],
        "session_id": ["s", "s", None, "t"],
        "type": ["search", "impression", "click", "purchase"],
        "query": ["lamp", "lamp", "", "stühle"],
        "product_id": [None, "007", "b", "ç"],
        "latitude": [1.0, None, 2.0, 3.0],
        "longitude": [1.0, None, 2.0, 3.0],
    } | changes
    return pa.table({name: values for name, values in columns.items() if values is not None})


def write(directory: Path, **tables: pa.Table) -> Path:
    for name, table in ({"products": products(), "events": events()} | tables).items():
        pq.write_table(table, directory / f"{name}.parquet")
    return directory


def test_a_good_data_set_is_counted(tmp_path: Path) -> None:
    judgments = pa.table({"query": ["lamp"], "product_id": ["b"], "grade": [2]})
    report = schema.validate(write(tmp_path, judgments=judgments))
    assert report == schema.Report({"products": 3, "events": 4, "judgments": 1})
    assert schema.validate_events(tmp_path / "events.parquet").rows == {"events": 4}


def test_only_the_required_columns_are_required(tmp_path: Path) -> None:
    few_products = products().select(["product_id", "title"])
    few_events = events().select(["timestamp", "type", "query", "product_id"])
    assert schema.validate(write(tmp_path, products=few_products, events=few_events)).notes == ()


def test_lossless_types_are_accepted(tmp_path: Path) -> None:
    write(
        tmp_path,
        products=products(
            product_id=pa.array(["007", "b", "ç"]).dictionary_encode(),
            title=pa.array(["a", "b", "c"], pa.large_string()),
            price=pa.array([1, 2, None], pa.int64()),
            description=pa.nulls(3),
            created_at=pa.array([1, 2, 3], pa.timestamp("ms", "America/New_York")),
        ),
        events=events(
            timestamp=pa.array([1, 2, 3, 4], pa.timestamp("ns")), position=[1.0, None, 0.0, 7.0], extra=[1] * 4
        ),
    )
    assert schema.validate(tmp_path).notes == (
        "events.parquet: ignored unknown columns: extra",
        "events.parquet: column timestamp has no time zone; taken as UTC",
    )


def test_an_empty_text_is_null_where_it_may_be(tmp_path: Path) -> None:
    shops = pa.array(["", "s", None])
    write(tmp_path, products=products(shop_id=shops, country=["", "US", None], title=["", "b", "c"]))
    schema.validate(tmp_path)
    read = schema.read_products(tmp_path)
    rows = {row["product_id"]: row for row in read.to_pylist()}
    assert sorted(str(row["shop_id"]) for row in rows.values()) == ["None", "None", "s"]
    assert sorted(str(row["country"]) for row in rows.values()) == ["None", "None", "US"]
    assert "" in read["title"].to_pylist()


BAD_PRODUCTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "missing column": ({"title": None}, ["missing column title", "product_id"]),
    "integer ids": ({"product_id": [7, 8, 9]}, ["column product_id has type int64", "string"]),
    "price as text": ({"price": ["1", "2", "3"]}, ["column price has type string", "a finite number of at least 0"]),
    "tags as text": ({"tags": ["a", "b", "c"]}, ["column tags has type string", "list of strings"]),
    "tag null": ({"tags": [["a"], [], ["b", None]]}, ["column tags, row 2: ['b', None]", "without nulls"]),
    "empty id": ({"product_id": ["a", "", "c"]}, ["column product_id, row 1: ''", "non-empty"]),
    "null id": ({"product_id": ["a", None, "c"]}, ["column product_id, row 1: None", "not null"]),
    "null title": ({"title": ["a", "b", None]}, ["column title, row 2: None"]),
    "negative price": ({"price": [1.0, -0.5, 2.0]}, ["column price, row 1: -0.5", "at least 0"]),
    "NaN price": ({"price": [float("nan"), 1.0, 1.0]}, ["column price, row 0: nan"]),
    "NaN latitude": ({"latitude": [1.0, None, float("nan")]}, ["column latitude, row 2: nan", "-90 to 90"]),
    "infinite longitude": ({"longitude": [1.0, None, float("inf")]}, ["column longitude, row 2: inf", "-180 to 180"]),
    "latitude 91": ({"latitude": [91.0, None, 1.0]}, ["column latitude, row 0: 91.0", "-90 to 90"]),
    "half a place": ({"longitude": [1.0, None, None]}, ["column longitude, row 2: None", "where latitude is given"]),
    "no longitude": ({"longitude": None}, ["column latitude without column longitude"]),
    "undated quality": ({"quality_sales": [1.0, 2.0, 3.0]}, ["quality_sales without column quality_as_of"]),
    "quality date null": (
        {"quality_sales": [1.0, None, 3.0], "quality_as_of": pa.array([NOON, None, None], US)},
        ["column quality_as_of, row 2: None", "quality_sales"],
    ),
    "infinite quality": (
        {"quality_sales": [1.0, None, float("-inf")], "quality_as_of": pa.array([NOON] * 3, US)},
        ["column quality_sales, row 2: -inf", "finite"],
    ),
    "far future": ({"created_at": pa.array([0, 1, 2**60], pa.timestamp("ms", "UTC"))}, ["created_at, row 2: 11529"]),
    "duplicate": ({"product_id": ["a", "b", "a"]}, ["column product_id, row 2: 'a' is a duplicate of row 0"]),
}


@pytest.mark.parametrize("name", BAD_PRODUCTS)
def test_bad_products_are_refused(tmp_path: Path, name: str) -> None:
    changes, expected = BAD_PRODUCTS[name]
    write(tmp_path, products=products(**changes))
    assert_refused(tmp_path, ["products.parquet", *expected])


BAD_EVENTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "missing column": ({"query": None}, ["missing column query"]),
    "dates as text": ({"timestamp": ["2024-05-01"] * 4}, ["column timestamp has type string", "a timestamp"]),
    "unknown type": (
        {"type": ["search", "impression", "view", "click"]},
        ["column type, row 2: 'view'", "search, impression, click, cart, purchase"],
    ),
    "null type": ({"type": ["search", None, "click", "click"]}, ["column type, row 1: None", "not null"]),
    "null query": ({"query": ["a", "b", None, "d"]}, ["column query, row 2: None"]),
    "null moment": ({"timestamp": pa.array([NOON, NOON, NOON, None], US)}, ["column timestamp, row 3: None"]),
    "no product": (
        {"product_id": [None, "b", None, "b"]},
        ["column product_id, row 2: None", "only where type is search"],
    ),
    "NaN place": ({"latitude": [1.0, None, float("nan"), 1.0]}, ["column latitude, row 2: nan"]),
    "half a position": ({"position": [1.0, 2.5, 3.0, 4.0]}, ["column position, row 1: 2.5", "whole number"]),
    "unknown product": (
        {"product_id": [None, "007", "zz", "yy"]},
        ["column product_id, row 2: 'zz' is unknown", "products.parquet"],
    ),
}


@pytest.mark.parametrize("name", BAD_EVENTS)
def test_bad_events_are_refused(tmp_path: Path, name: str) -> None:
    changes, expected = BAD_EVENTS[name]
    write(tmp_path, events=events(**changes))
    assert_refused(tmp_path, ["events.parquet", *expected])


def test_a_product_that_is_graded_twice_for_a_query_is_refused(tmp_path: Path) -> None:
    graded = {"query": ["lamp", "mug", "lamp", "lamp", "mug"], "product_id": ["b", "b", "ç", "b", "b"]}
    table = pa.table({**graded, "grade": [1.0, 2.0, 3.0, 2.5, 2.0]})
    write(tmp_path, judgments=table)
    expected = "column query, product_id, row 3: 'lamp', 'b' is a duplicate of row 0; allowed is one row a query and"
    assert_refused(tmp_path, ["judgments.parquet", expected])
    write(tmp_path, judgments=table.slice(0, 3))
    assert schema.validate(tmp_path).rows["judgments"] == 3


def test_the_row_is_counted_over_batches(tmp_path: Path) -> None:
    many = pa.concat_tables([events()] * 50_000 + [events(type=["search", "click", "cart", "none"])])
    write(tmp_path)
    pq.write_table(many, tmp_path / "events.parquet", row_group_size=30_000)
    assert_refused(tmp_path, ["events.parquet", "column type, row 200003: 'none'"])


def test_a_lone_events_file_may_have_unknown_products(tmp_path: Path) -> None:
    write(tmp_path, events=events(product_id=[None, "p", "q", "r"]))
    assert schema.validate_events(tmp_path / "events.parquet").rows == {"events": 4}


@pytest.mark.parametrize("name", ["products", "events", "judgments"])
@pytest.mark.parametrize("damage", ["empty", "truncated", "text", "no rows"])
def test_damaged_files_are_refused(tmp_path: Path, name: str, damage: str) -> None:
    judgments = pa.table({"query": ["lamp"], "product_id": ["b"], "grade": [2.5]})
    write(tmp_path, judgments=judgments)
    path = tmp_path / f"{name}.parquet"
    content = path.read_bytes()
    if damage == "no rows":
        pq.write_table(pq.read_table(path).slice(0, 0), path)
    else:
        path.write_bytes({"empty": b"", "truncated": content[: len(content) // 2], "text": b"id,title\n1,a\n"}[damage])
    said = {"empty": "0 bytes", "no rows": "0 rows", "text": "not a Parquet file", "truncated": "truncated or damaged"}
    assert_refused(tmp_path, [path.name, said[damage]])


def test_text_beside_a_missing_table_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "products.parquet").rename(tmp_path / "products.csv")
    assert_refused(tmp_path, ["products.parquet: no such file; products.csv beside it is text"])


def test_how_many_events_are_of_unknown_products(tmp_path: Path) -> None:
    write(tmp_path, events=events(product_id=[None, "p", "q", "p"]))
    assert_refused(tmp_path, ["row 1: 'p' is unknown", "3 events of 2 products: leave them out"])


def test_a_damaged_page_is_refused(tmp_path: Path) -> None:
    """The footer of this file is whole; only reading the values shows the damage."""
    write(tmp_path)
    path = tmp_path / "events.parquet"
    pq.write_table(pa.concat_tables([events()] * 5_000), path, compression="zstd", use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[len(content) // 4 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 4)
    path.write_bytes(content)
    assert_refused(tmp_path, ["events.parquet", "truncated or damaged"])


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    title = pa.array([b"ok", b"\xff\xfe", b"ok"]).view(pa.string())
    write(tmp_path, products=products(title=title))
    assert_refused(tmp_path, ["products.parquet", "UTF8"])


def test_missing_files_are_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path / "nowhere", ["nowhere", "no such directory"])
    write(tmp_path)
    (tmp_path / "events.parquet").unlink()
    assert_refused(tmp_path, ["events.parquet", "no such file"])
    (tmp_path / "events.parquet").mkdir()
    assert_refused(tmp_path, ["events.parquet", "not a file"])


def test_a_path_with_pattern_characters_is_taken_literally(tmp_path: Path) -> None:
    folder = tmp_path / "data [v1] *"
    folder.mkdir()
    assert schema.validate(write(folder)).rows["events"] == 4


@pytest.mark.parametrize("content", ["[]", "{", '{"train_end": "soon"}', '{"train_end": 7}'])
def test_bad_facts_are_refused(tmp_path: Path, content: str) -> None:
    write(tmp_path)
    (tmp_path / "dataset.json").write_text(content)
    assert_refused(tmp_path, ["dataset.json"])


def test_facts_give_the_end_of_training_in_utc(tmp_path: Path) -> None:
    assert schema.read_dataset_facts(tmp_path) == {}
    (tmp_path / "dataset.json").write_text(json.dumps({"name": "n", "train_end": "2024-05-01T02:00:00+02:00"}))
    facts = schema.read_dataset_facts(tmp_path)
    assert facts["train_end"].isoformat() == "2024-05-01T00:00:00+00:00"


def test_products_are_read_in_canonical_form_and_order(tmp_path: Path) -> None:
    write(tmp_path, products=products(product_id=pa.array(["z", "b", "a"]).dictionary_encode(), extra=[1, 2, 3]))
    table = schema.read_products(tmp_path)
    assert table.column_names == [column.name for column in schema.PRODUCTS]
    assert [field.type for field in table.schema] == [column.type for column in schema.PRODUCTS]
    # b has no time; a is a day older than z: the catalogue as of a day is a prefix.
    assert table["product_id"].to_pylist() == ["b", "a", "z"]
    assert table["tags"].to_pylist() == [[], [], ["x", "y"]]
    assert table["attributes"].to_pylist() == [[], None, [("colour", ["red", "blue"])]]
    assert table["shop_id"].to_pylist() == [None] * 3


def test_products_with_the_same_time_are_ordered_by_id(tmp_path: Path) -> None:
    write(tmp_path, products=products(created_at=None))
    table = schema.read_products(tmp_path)
    assert table["product_id"].to_pylist() == ["007", "b", "ç"]
    assert table["created_at"].null_count == 3


def test_quality_known_after_training_is_leakage(tmp_path: Path) -> None:
    quality = {"quality_sales": [1, 2, 3], "quality_as_of": pa.array([NOON, NOON - timedelta(days=1), NOON], US)}
    schema.validate(write(tmp_path, products=products(**quality)))
    table = schema.read_products(tmp_path)
    assert table["quality_sales"].type == pa.float64()
    schema.check_quality(table, NOON)
    schema.check_quality(table, NOON.replace(tzinfo=None))
    with pytest.raises(InputError, match=r"quality_as_of, product_id 'ç': 2024-05-01T12:00:00\+00:00 is later"):
        schema.check_quality(table, NOON - timedelta(microseconds=1))


def test_events_are_opened_with_every_column(tmp_path: Path) -> None:
    write(
        tmp_path, events=events(timestamp=pa.array([1_000, 2_000, 3_000, 4_400], pa.timestamp("ns", "UTC")), zip=None)
    )
    con = schema.connect()
    table = schema.open_events(con, tmp_path / "events.parquet").to_pyarrow()
    con.disconnect()
    assert table.column_names == [column.name for column in schema.EVENTS]
    assert table.schema.field("timestamp").type == US
    assert [moment.microsecond for moment in table["timestamp"].to_pylist()] == [1, 2, 3, 4]
    assert table["zip"].to_pylist() == [None] * 4
    assert table["product_id"].to_pylist() == [None, "007", "b", "ç"]


def assert_refused(directory: Path, parts: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        schema.validate(directory)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
