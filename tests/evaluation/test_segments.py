"""Head, torso and tail against thirds counted by hand and by loop."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uepp.artifacts import write_json
from uepp.data.schema import read_products
from uepp.evaluation.segments import assign_segments

T = datetime(2024, 5, 4, tzinfo=UTC)


def write_export(directory: Path, counts: dict[str, int], words: dict[str, int] | None = None) -> Path:
    table = {"query": pa.array(counts.keys(), pa.string()), "count": pa.array(counts.values(), pa.int64())}
    pq.write_table(pa.table(table), directory / "query_counts.parquet")
    titles = [word.upper() for word, count in (words or {}).items() for _ in range(count)]
    later = ["lamp"] * 500  # came after T
    made = [None] * len(titles) + [T + timedelta(seconds=1)] * len(later)
    columns = {"product_id": [f"p{n}" for n in range(len(made))], "title": [*titles, *later], "created_at": made}
    pq.write_table(pa.table(columns), directory / "products.parquet")
    pq.write_table(read_products(directory), directory / "products.parquet")
    write_json(directory / "windows.json", {"train_end": T.isoformat()})
    return directory


def thirds_oracle(counts: Sequence[int]) -> tuple[int, int]:
    """Walk down from the most frequent query until a third (two thirds) of the requests are covered."""
    thresholds = []
    for share in (Fraction(1, 3), Fraction(2, 3)):
        covered = 0
        for count in sorted(counts, reverse=True):
            covered += count
            if covered >= share * sum(counts):
                thresholds.append(count)
                break
    return thresholds[0], thresholds[1]


def segment_oracle(count: int, head: int, torso: int) -> str:
    if count >= head:
        return "head"
    return "torso" if count >= torso else "tail"


def test_thirds_of_the_traffic(tmp_path: Path) -> None:
    """30 requests: `gift` makes 10 of them; `ring` and `mug` the next 10; the tail is the rest and the unseen."""
    counts = {"gift": 10, "ring": 6, "mug": 4} | {f"rare {number}": 2 for number in range(5)}
    queries = ["mug", "never asked", "gift", "rare 3", "ring", "gift", "gifts"]
    segments = assign_segments(queries, write_export(tmp_path, counts), by="query_count")
    assert segments.labels.tolist() == ["torso", "tail", "head", "tail", "torso", "head", "tail"]
    assert "head ≥ 10" in segments.rule
    assert "torso ≥ 4" in segments.rule


def test_queries_that_differ_in_case_accents_or_punctuation_are_one(tmp_path: Path) -> None:
    """Together they make a third of the 30 requests, as one query in the graph; signs alone are told apart."""
    counts = {"Café mug": 4, "cafe mug": 4, "cafe-mug!": 3, "ring": 9, "♥": 2, "★": 1} | {f"r {n}": 1 for n in range(7)}
    export = write_export(tmp_path, counts)
    queries = ["CAFE MUG", "café  mug", "ring", "Ring", "♥", "★", "☆", "r 3"]
    segments = assign_segments(queries, export, by="query_count")
    assert segments.labels.tolist() == ["head", "head", "torso", "torso", *["tail"] * 4]
    assert "head ≥ 11, torso ≥ 9" in segments.rule
    assert "training window" in assign_segments(["CAFE MUG", *["unseen"] * 9], export).rule, "a tenth was seen"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=12))
def test_thirds_are_the_oracle(tmp_path_factory: pytest.TempPathFactory, counts: list[int]) -> None:
    named = {f"query {number}": count for number, count in enumerate(counts)}
    export = write_export(tmp_path_factory.mktemp("export"), named)
    segments = assign_segments([*named, "unseen"], export, by="query_count")
    expected = [segment_oracle(count, *thirds_oracle(counts)) for count in [*counts, 0]]
    assert segments.labels.tolist() == expected


def test_the_proxy_counts_a_querys_rarest_word(tmp_path: Path) -> None:
    words = {"lamp": 90, "red": 80, "oak": 50, "drill": 40, "stuhl": 8, "cordless": 5}
    export = write_export(tmp_path, {"gift": 7}, words)
    queries = ["red lamp", "LAMP", "oak lamp", "cordless drill", "zzz lamp", "Stühl"]
    segments = assign_segments(queries, export, by="rarest_word")
    # rarest words: 80, 90, 50, 5, 0 (unknown), 8 (accents and case are folded); thirds at 6 and 60
    assert segments.labels.tolist() == ["head", "head", "torso", "tail", "tail", "torso"]
    assert "proxy" in segments.rule


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcdefgz"), max_size=4).map(" ".join), min_size=1, max_size=12))
def test_the_proxy_is_the_oracle(tmp_path_factory: pytest.TempPathFactory, queries: list[str]) -> None:
    words = {letter: 2**place for place, letter in enumerate("abcdefg")}
    export = write_export(tmp_path_factory.mktemp("export"), {}, words)
    labels = assign_segments(queries, export, by="rarest_word").labels.tolist()
    rarest = [min((words.get(word, 0) for word in query.split()), default=0) for query in queries]
    low, high = np.quantile(rarest, 1 / 3), np.quantile(rarest, 2 / 3)
    assert labels == ["head" if value > high else "torso" if value > low else "tail" for value in rarest]


def test_auto_takes_the_traffic_from_a_tenth_of_seen_requests_on(tmp_path: Path) -> None:
    export = write_export(tmp_path, {"gift": 7}, {"gift": 3})
    unseen = [f"unseen {number}" for number in range(9)]
    assert "training window" in assign_segments([*unseen, "gift"], export).rule
    assert "proxy" in assign_segments([*unseen, "unseen", "gift"], export).rule


def test_auto_uses_the_proxy_without_any_traffic(tmp_path: Path) -> None:
    segments = assign_segments(["gift", "mug"], write_export(tmp_path, {}, {"gift": 3, "mug": 9}))
    assert "proxy" in segments.rule
    assert segments.labels[1] == "head"


def test_without_counted_queries_everything_is_tail(tmp_path: Path) -> None:
    segments = assign_segments(["gift", "mug"], write_export(tmp_path, {}), by="query_count")
    assert segments.labels.tolist() == ["tail", "tail"]
