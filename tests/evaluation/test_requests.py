"""Evaluation requests: which products could be found on a day, which targets nobody could find, and who asked."""

import math
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uepp.config import HistoryConfig
from uepp.errors import InputError
from uepp.evaluation.measures import measure
from uepp.evaluation.requests import load_judgments, load_requests
from uepp.evaluation.segments import Segments
from uepp.evaluation.slices import slices_of
from uepp.features.requests import RawRequests

US = pa.timestamp("us", "UTC")
MONDAY, TUESDAY = date(2024, 5, 6), date(2024, 5, 7)
CREATED = {
    "old": None,
    "before": datetime(2024, 5, 5, 23, 59, 59, 999_999, UTC),
    "midnight": datetime(2024, 5, 6, tzinfo=UTC),
    "evening": datetime(2024, 5, 6, 23, 59, 59, 999_999, UTC),
    "next": datetime(2024, 5, 7, tzinfo=UTC),
    "later": datetime(2024, 5, 8, tzinfo=UTC),
}
STRINGS = pa.list_(pa.string())
PRODUCTS = pa.table(
    {
        "product_id": list(CREATED),
        "created_at": pa.array(CREATED.values(), US),
        "title": [f"{name} lamp" for name in CREATED],
        "tags": pa.array([["a", "b c"], [], None, ["d"], [], []], STRINGS),
    }
)
PLACE = {name: pa.string() for name in ("country", "region", "language", "zip")} | {
    name: pa.float64() for name in ("latitude", "longitude")
}
POINTERS = [f"{kind}_{edge}" for kind in ("searches", "clicks", "purchases") for edge in ("begin", "end")]
HISTORIES = {
    "searches": {"query": ["one", "two", "three", "of bert"]},
    "clicks": {"product_id": ["old", "unknown", "before", "old"], "shop_id": ["s1", None, "s2", "of bert"]},
    "purchases": {"product_id": ["old", "midnight", "unknown", "evening"]},
}
"""The first three rows of each are anna's, day by day."""


def write_requests(path: Path, rows: list[dict[str, Any]]) -> Path:
    schema = pa.schema(
        [("window", pa.string()), ("day", pa.date32()), ("query", pa.string()), ("user_id", pa.string()),
         ("targets", STRINGS),
         ("non_repeat_targets", STRINGS), *PLACE.items(), *((name, pa.int64()) for name in POINTERS)]
    )  # fmt: skip
    pq.write_table(pa.Table.from_pylist([dict.fromkeys(POINTERS, 0) | row for row in rows], schema), path)
    days = pa.array([datetime(2024, 5, 1 + row, tzinfo=UTC) for row in (0, 1, 2, 0)], US)
    for kind, columns in HISTORIES.items():
        arrays = {name: pa.array(values, pa.string()) for name, values in columns.items()}
        table = pa.table({"user_id": ["anna"] * 3 + ["bert"], "timestamp": days, **arrays})
        pq.write_table(table, path.parent / f"history_{kind}.parquet")
    return path


def request(query: str, targets: list[str], new: list[str] | None = None, **changes: Any) -> dict[str, Any]:
    row = {"window": "report", "day": MONDAY, "query": query, "targets": targets}
    return row | {"non_repeat_targets": targets if new is None else new} | changes


def test_requests_targets_and_days(tmp_path: Path) -> None:
    path = write_requests(
        tmp_path / "requests.parquet",
        [
            request("lamp", ["old", "next"], ["next"], user_id="anna"),
            request("chosen", ["old"], window="selection"),
            request("lamp", ["unknown", "midnight"], [], day=TUESDAY),
            request("Stühle ", ["before"]),
        ],
    )
    requests = load_requests(path, "report", PRODUCTS)
    assert len(requests) == 3
    assert requests.queries == ["lamp", "lamp", "Stühle "]
    assert requests.day.tolist() == ["2024-05-06", "2024-05-07", "2024-05-06"]
    assert requests.targets.request.tolist() == [0, 0, 1, 1, 2]
    assert requests.targets.product_index.tolist() == [0, 4, -1, 2, 1]
    assert requests.target_lists() == [[0, 4], [-1, 2], [1]]
    assert requests.is_repeat.tolist() == [True, False, True, True, False]
    assert requests.is_signed_in.tolist() == [True, False, False]
    assert requests.missing_target_share == 0.4  # one that there never is, and one from the next day on
    assert load_requests(path, "selection", PRODUCTS).queries == ["chosen"]


def test_some_requests_are_numbered_anew(tmp_path: Path) -> None:
    rows = [
        request("a", ["old", "before"], ["before"], user_id="anna"),
        request("b", ["old"], ["old"], day=TUESDAY),
        request("c", []),
        request("d", ["later", "old", "next"], ["next"], day=TUESDAY),
    ]
    path = write_requests(tmp_path / "requests.parquet", rows)
    every = load_requests(path, "report", PRODUCTS)
    for taken in ([0, 1, 2, 3], [3, 0], [2], []):
        (tmp_path / "some").mkdir(exist_ok=True)
        alone = load_requests(
            write_requests(tmp_path / "some" / "requests.parquet", [rows[row] for row in taken]), "report", PRODUCTS
        )
        some = every.take(np.array(taken, np.int64))
        assert some.queries == alone.queries == [rows[row]["query"] for row in taken]
        pairs = [
            sorted(zip(one.targets.request, one.targets.product_index, one.is_repeat, strict=True))
            for one in (some, alone)
        ]
        assert pairs[0] == pairs[1]
        for name in ("day", "num_products", "is_signed_in"):
            np.testing.assert_array_equal(getattr(some, name), getattr(alone, name))


def test_the_catalogue_is_that_of_the_day(tmp_path: Path) -> None:
    """A product created on the next day cannot be found, one created on the day's last evening can."""
    rows = [request("lamp", ["old"]), request("lamp", ["old"], day=TUESDAY)]
    requests = load_requests(write_requests(tmp_path / "requests.parquet", rows), "report", PRODUCTS)
    assert [list(CREATED)[:number] for number in requests.num_products] == [
        ["old", "before", "midnight", "evening"],
        ["old", "before", "midnight", "evening", "next"],
    ]


def test_a_target_that_its_day_lacks_is_missing(tmp_path: Path) -> None:
    """It counts as a miss, as one does that the catalogue never has; neither is a new product that could be found."""
    rows = [request("lamp", ["next", "old", "gone"]), request("lamp", ["next"], day=TUESDAY)]
    requests = load_requests(write_requests(tmp_path / "requests.parquet", rows), "report", PRODUCTS)
    assert requests.missing_target_share == 0.5
    assert requests.has_target.tolist() == [False, True, False, True]
    new = slices_of(requests, Segments(np.array(["head"] * 2), "by hand"), num_known=2).by_name["new_products"]
    assert new.rows.tolist() == [1]


def test_no_requests(tmp_path: Path) -> None:
    path = write_requests(tmp_path / "requests.parquet", [request("lamp", ["old"])])
    requests = load_requests(path, "selection", PRODUCTS)
    assert len(requests) == 0
    assert requests.missing_target_share == 0.0
    assert requests.target_lists() == []
    assert len(requests.targets.request) == len(requests.num_products) == 0


def test_rows_of_several_chunks_keep_their_requests(tmp_path: Path) -> None:
    """Parquet files come in row groups; a pair's request counts over all of them."""
    rows = [request(str(number), ["old"] * (number % 3) + ["next"]) for number in range(10)]
    path = write_requests(tmp_path / "one.parquet", rows)
    table = pq.read_table(path)
    pq.write_table(table, tmp_path / "many.parquet", row_group_size=3)
    one, many = (load_requests(tmp_path / f"{name}.parquet", "report", PRODUCTS) for name in ("one", "many"))
    assert many.target_lists() == one.target_lists() == [[0] * (number % 3) + [4] for number in range(10)]


def test_grades_of_the_queries_that_are_asked(tmp_path: Path) -> None:
    """Each request of a judged query has all of its products, those that the catalogue lacks too."""
    graded = {"query": ["lamp", "other", "lamp", "mug"], "product_id": ["next", "old", "gone", "old"]}
    pq.write_table(pa.table({**graded, "grade": [3.0, 2.0, 1.0, 0.5]}), tmp_path / "judgments.parquet")
    judgments = load_judgments(tmp_path / "judgments.parquet", ["lamp", "Lamp", "mug", "lamp"], PRODUCTS)
    assert judgments is not None
    found = sorted(zip(judgments.pairs.request, judgments.pairs.product_index, judgments.grades, strict=True))
    assert found == [(0, -1, 1.0), (0, 4, 3.0), (2, 0, 0.5), (3, -1, 1.0), (3, 4, 3.0)]
    assert load_judgments(tmp_path / "judgments.parquet", ["unknown"], PRODUCTS) is None


def test_a_product_that_is_graded_twice_is_refused(tmp_path: Path) -> None:
    """Its gain would count twice among what is found, and NDCG exceed 1. Two queries may grade the same product."""
    graded = {"query": ["lamp", "mug", "lamp", "lamp"], "product_id": ["next", "next", "old", "next"]}
    table = pa.table({**graded, "grade": [3.0, 2.0, 1.0, 3.0]})
    path = tmp_path / "judgments.parquet"
    pq.write_table(table, path)
    said = r"judgments\.parquet: column query, product_id, row 3: 'lamp', 'next' is a duplicate of an earlier row; all"
    with pytest.raises(InputError, match=said):
        load_judgments(path, ["lamp"], PRODUCTS)
    with pytest.raises(InputError, match=said):
        load_judgments(path, ["mug"], PRODUCTS)
    pq.write_table(table.slice(0, 3), path)
    assert load_judgments(path, ["lamp"], PRODUCTS) is not None


# Who asked


def pointers(end: int, begin: int = 0) -> dict[str, int]:
    return {name: end if name.endswith("end") else begin for name in POINTERS}


def inputs(raw: RawRequests, **numbers: int) -> dict[str, list[Any]]:
    names = ("query", *PLACE, "recent_searches", "recent_shops", "recent_titles", "purchased_tags")
    made = raw.inputs(names, HistoryConfig(**numbers))
    texts = {name: value.numpy().tolist() for name, value in made.items()}

    def decoded(value: Any) -> Any:
        if isinstance(value, list):
            return [decoded(part) for part in value]
        return value.decode() if isinstance(value, bytes) else value

    return {name: decoded(value) for name, value in texts.items()}


def test_who_asked(tmp_path: Path) -> None:
    """Histories are the rows that a request points at, and most recent first; places are as they were written."""
    place = {"country": "US", "zip": "02134", "latitude": 42.5, "longitude": -71.25}
    rows = [
        request("lamp", ["old"], **pointers(2), **place),
        request("anybody", ["old"]),
        request("mug", ["old"], **pointers(3), region="CA", language="en"),
        request("bert's", ["old"], **pointers(4, begin=3)),
    ]
    raw = load_requests(write_requests(tmp_path / "requests.parquet", rows), "report", PRODUCTS).raw
    found = inputs(raw)
    assert found["query"] == ["lamp", "anybody", "mug", "bert's"]
    assert found["country"] == ["US", "", "", ""]
    assert found["region"] == ["", "", "CA", ""]
    assert found["language"] == ["", "", "en", ""]
    assert found["zip"] == ["02134", "", "", ""]
    assert found["latitude"][0] == 42.5
    assert found["longitude"][0] == -71.25
    assert all(math.isnan(value) for name in ("latitude", "longitude") for value in found[name][1:])
    assert found["recent_searches"] == [["two", "one", ""], ["", "", ""], ["three", "two", "one"], ["of bert", "", ""]]
    assert found["recent_shops"] == [["", "s1", ""], ["", "", ""], ["s2", "", "s1"], ["of bert", "", ""]]
    titles = [["", "old lamp", ""], ["", "", ""], ["before lamp", "", "old lamp"], ["old lamp", "", ""]]
    assert found["recent_titles"] == titles
    assert found["purchased_tags"] == [["", "a\nb c", ""], ["", "", ""], ["", "", "a\nb c"], ["d", "", ""]]


def test_only_as_much_of_a_history_as_the_tower_reads(tmp_path: Path) -> None:
    rows = [request("lamp", ["old"], **pointers(3)), request("mug", ["old"], **pointers(1))]
    raw = load_requests(write_requests(tmp_path / "requests.parquet", rows), "report", PRODUCTS).raw
    found = inputs(raw, num_searches=2, num_shops=1, num_clicked_products=5, num_purchased_products=1)
    assert found["recent_searches"] == [["three", "two"], ["one", ""]]
    assert found["recent_shops"] == [["s2"], ["s1"]]
    assert [len(row) for row in found["recent_titles"]] == [3, 3]
    assert found["purchased_tags"] == [[""], ["a\nb c"]]


def test_some_requests_keep_what_is_theirs(tmp_path: Path) -> None:
    rows = [request(str(n), ["old"], country=f"c{n}", **pointers(n % 4)) for n in range(6)]
    raw = load_requests(write_requests(tmp_path / "requests.parquet", rows), "report", PRODUCTS).raw
    every, some = inputs(raw), inputs(raw.take(np.array([5, 1, 3])))
    for name in ("query", "country"):
        assert some[name] == [every[name][row] for row in (5, 1, 3)]
    assert some["recent_searches"] == [every["recent_searches"][row] for row in (5, 1, 3)]
    assert [row[0] for row in some["recent_searches"]] == ["one", "one", "three"]


class _Clairvoyant:
    """Finds what a request's country says, for requests that have the history they should have."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, list[str]]] = []

    def rank(self, requests: RawRequests, k: int, num_products: int) -> np.ndarray:
        self.asked.append((num_products, requests.queries))
        found = inputs(requests)
        product = [list(CREATED).index(country) for country in found["country"]]
        is_own = [row[0] == query for row, query in zip(found["recent_searches"], found["query"], strict=True)]
        ranking = np.full((len(requests), k), -1)
        ranking[:, 0] = np.where(is_own, product, -1)
        return ranking


def test_systems_are_given_who_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests of two days in turn, ranked a few at a time: place, history and targets stay together."""
    monkeypatch.setattr("uepp.evaluation.measures._RANKED_AT_ONCE", 2)
    last = {1: "one", 2: "two", 3: "three"}
    rows = [
        request(last[1 + n % 3], [name], country=name, day=(MONDAY, TUESDAY)[n % 2], **pointers(1 + n % 3))
        for n, name in enumerate(("old", "before", "midnight", "evening", "old", "next", "old"))
    ]
    rows.append(request("one", ["old"], country="old", day=MONDAY))  # without its history: a miss
    requests = load_requests(write_requests(tmp_path / "requests.parquet", rows), "report", PRODUCTS)
    system = _Clairvoyant()
    slices = slices_of(requests, Segments(np.array(["head"] * 8), "all"))
    measured = measure(system, requests, slices, [1])
    assert measured.mean(slices, "all", "recall@1", requests.day) == pytest.approx((4 / 5 + 3 / 3) / 2)
    assert [(number, len(queries)) for number, queries in system.asked] == [(4, 2), (4, 2), (4, 1), (5, 2), (5, 1)]
