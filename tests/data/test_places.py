"""Where people were last, against a loop over the examples."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from conftest import TRAIN_END, write_mined

from uepp.data.places import PLACES, write_last_places

COLUMNS = ("country", "region", "language", "zip", "latitude", "longitude")


def example(user: str | None, day: int, **place: Any) -> dict[str, Any]:
    moment = TRAIN_END - timedelta(days=30 - day)
    return {
        "query": "lamp", "product_id": "001", "type": "click", "user_id": user, "request_timestamp": moment, **place,
    }  # fmt: skip


EXAMPLES = [
    example("anna", 3, country="DE", zip="10115", latitude=52.5, longitude=13.4),
    example("anna", 1, country="US"),
    example("anna", 4),  # nothing is known of where she was then
    example("bert", 2, language="de-DE"),
    example("bert", 5, latitude=0.0, longitude=0.0),
    example("cleo", 2),
    example(None, 6, country="FR"),
    example("", 1, country="IT"),
]


def by_a_loop(examples: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    last: dict[str, dict[str, Any]] = {}
    for row in sorted(examples, key=lambda row: row["request_timestamp"]):
        place = {name: row.get(name) for name in COLUMNS}
        if row["user_id"] is not None and any(value is not None for value in place.values()):
            last[row["user_id"]] = place
    return last


def test_the_latest_place_of_each_person_is_kept_whole(tmp_path: Path) -> None:
    for examples in (EXAMPLES, EXAMPLES[::-1]):
        write_last_places(write_mined(tmp_path / "mined", examples), tmp_path)
        rows = pq.read_table(tmp_path / PLACES).to_pylist()
        assert {row.pop("user_id"): row for row in rows} == by_a_loop(examples)
        assert len(rows) == 3, "anna, bert, and whoever has no name"


def test_nobody_is_no_problem(tmp_path: Path) -> None:
    write_last_places(write_mined(tmp_path / "mined", [example(None, 1, country="FR")]), tmp_path)
    table = pq.read_table(tmp_path / PLACES)
    assert table.num_rows == 0
    assert table.column_names == ["user_id", *COLUMNS]
