"""Evaluation requests: which products could be found on a day, and which targets nobody could find."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from uepp.evaluation.requests import load_requests

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
PRODUCTS = pa.table({"product_id": list(CREATED), "created_at": pa.array(CREATED.values(), US)})


def write_requests(path: Path, rows: list[dict[str, Any]]) -> Path:
    strings = pa.list_(pa.string())
    schema = pa.schema(
        [("window", pa.string()), ("day", pa.date32()), ("query", pa.string()), ("targets", strings),
         ("non_repeat_targets", strings)]
    )  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows, schema), path)
    return path


def request(query: str, targets: list[str], new: list[str] | None = None, **changes: Any) -> dict[str, Any]:
    row = {"window": "report", "day": MONDAY, "query": query, "targets": targets}
    return row | {"non_repeat_targets": targets if new is None else new} | changes


def test_requests_targets_and_days(tmp_path: Path) -> None:
    path = write_requests(
        tmp_path / "requests.parquet",
        [
            request("lamp", ["old", "next"], ["next"]),
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
    assert requests.non_repeat_targets.request.tolist() == [0, 2]
    assert requests.non_repeat_targets.product_index.tolist() == [4, 1]
    assert requests.missing_target_share == 0.2
    assert load_requests(path, "selection", PRODUCTS).queries == ["chosen"]


def test_the_catalogue_is_that_of_the_day(tmp_path: Path) -> None:
    """A product created on the next day cannot be found, one created on the day's last evening can."""
    rows = [request("lamp", ["old"]), request("lamp", ["old"], day=TUESDAY)]
    requests = load_requests(write_requests(tmp_path / "requests.parquet", rows), "report", PRODUCTS)
    assert [list(CREATED)[:number] for number in requests.num_products] == [
        ["old", "before", "midnight", "evening"],
        ["old", "before", "midnight", "evening", "next"],
    ]


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
