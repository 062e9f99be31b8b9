"""Which products a refreshed catalogue makes the tower encode; the tower is a hash of what it reads."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_mined

from uepp.artifacts import write_json
from uepp.config import Config
from uepp.data.columns import ATTRIBUTES, STRINGS, TIMESTAMP
from uepp.data.schema import read_products
from uepp.retrieval import refresh
from uepp.retrieval.embed import read_vectors
from uepp.retrieval.refresh import Changes, write_catalogue

T = datetime(2024, 5, 1, tzinfo=UTC)
DIM = 5
READ = ("title", "tags", "attributes", "country", "latitude", "longitude", "neighbor_queries")
GRAPH = [("red lamp", "a", 3, 0, 2), ("lamp", "a", 1, 0, 0), ("mug", "c", 1, 0, 1), ("old mug", "back", 4, 1, 0)]
NEIGHBORS = {"a": ["red lamp", "lamp"], "c": ["mug"], "back": ["old mug"]}
CONFIG = Config.model_validate({"export": {"embed_batch_size": 2}})
TYPES = {
    "product_id": pa.string(), "title": pa.string(), "tags": STRINGS, "description": pa.string(),
    "category": pa.string(), "attributes": ATTRIBUTES, "shop_id": pa.string(), "price": pa.float64(),
    "created_at": TIMESTAMP, "country": pa.string(), "latitude": pa.float64(), "longitude": pa.float64(),
    "quality_stars": pa.float64(), "quality_as_of": TIMESTAMP,
}  # fmt: skip
Row = dict[str, Any]


def product(product_id: str, **about: Any) -> Row:
    number = ord(product_id[0]) - ord("a")
    about = {"title": f"product {product_id}", "created_at": T + timedelta(days=number - 6), **about}
    return {**dict.fromkeys(TYPES), "product_id": product_id, **about}


FIRST = [
    product("a", tags=["x", "y"], country="DE", latitude=1.5, longitude=2.5, quality_stars=4.5, quality_as_of=T),
    product("b", description="long", attributes=[("color", ["red"])], quality_stars=3.0, quality_as_of=T),
    product("c", price=1.0, created_at=None),
    product("d", shop_id="s", category="x > y"),
    *(product(name) for name in "efgh"),
]


class Tower:
    """Stands in for an exported one: a vector is drawn by what is read of a product."""

    def __init__(self) -> None:
        self.structured_input_signature = ((), dict.fromkeys(READ))
        self.structured_outputs = {"embedding": SimpleNamespace(shape=(None, DIM))}
        self.batches: list[list[str]] = []

    @property
    def seen(self) -> set[str]:
        """Titles of what was encoded, each at most once."""
        titles = [title for batch in self.batches for title in batch]
        assert len(titles) == len(set(titles))
        return set(titles)

    def __call__(self, **inputs: Any) -> dict[str, Any]:
        assert set(inputs) == set(READ)
        columns = {name: value.numpy().tolist() for name, value in inputs.items()}
        self.batches.append([title.decode() for title in columns["title"]])
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        for row in rows:
            row["neighbor_queries"] = [text for text in row["neighbor_queries"] if text]
        return {"embedding": SimpleNamespace(numpy=lambda: np.stack([drawn(row) for row in rows]))}


def drawn(row: Row) -> np.ndarray:
    text = repr([row[name] for name in READ]).encode()
    seed = int.from_bytes(hashlib.sha256(text).digest()[:8], "little")
    return np.random.default_rng(seed).standard_normal(DIM).astype(np.float32)


def by_hand(row: Row) -> Row:
    """What a tower reads of a product."""
    lines = [f"{key}: {value}" for key, values in row["attributes"] or () for value in values]
    places = ("latitude", "longitude")
    degrees = {name: float("nan") if row[name] is None else float(np.float32(row[name])) for name in places}
    texts = {
        "title": row["title"], "tags": "\n".join(row["tags"] or ()), "attributes": "\n".join(lines),
        "country": row["country"] or "",
    }  # fmt: skip
    encoded = {name: text.encode() for name, text in texts.items()}
    neighbors = [query.encode() for query in NEIGHBORS.get(row["product_id"], ())]
    return {**encoded, **degrees, "neighbor_queries": neighbors}


def in_order(rows: Sequence[Row]) -> list[Row]:
    """By product index."""
    never = datetime(1, 1, 1, tzinfo=UTC)
    return sorted(rows, key=lambda row: (row["created_at"] or never, row["product_id"]))


def catalogue(directory: Path, rows: Sequence[Row]) -> pa.Table:
    """The rows of a data set as a run reads them."""
    directory.mkdir(parents=True)
    columns = {name: pa.array([row[name] for row in rows], type_) for name, type_ in TYPES.items()}
    pq.write_table(pa.table(columns), directory / "products.parquet")
    return read_products(directory)


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """Of `FIRST`, with vectors that no tower makes, so that a copy can be told from an encoding."""
    folder = write_mined(tmp_path / "export", [], GRAPH)
    products = catalogue(tmp_path / "first", FIRST)
    pq.write_table(products, folder / "products.parquet")
    pq.write_table(products.select(["product_id"]), folder / "product_ids.parquet")
    ids = products["product_id"].to_pylist()
    neighbors = pa.array([NEIGHBORS.get(product_id, []) for product_id in ids], STRINGS)
    pq.write_table(pa.table({"product_id": ids, "queries": neighbors}), folder / "neighbors.parquet")
    (folder / "vectors").mkdir()
    vectors = np.random.default_rng(1).standard_normal((len(ids), DIM)).astype(np.float32)
    np.save(folder / "vectors" / "part-00000.npy", vectors[:5])
    np.save(folder / "vectors" / "part-00001.npy", vectors[5:])
    return folder


@pytest.fixture
def tower(monkeypatch: pytest.MonkeyPatch) -> Tower:
    tower = Tower()
    monkeypatch.setattr(refresh, "load_tower", lambda _: tower)
    return tower


def refreshed(export: Path, rows: Sequence[Row]) -> tuple[Changes, Path]:
    """The new export's folder; every vector is the old one's bits, or the tower's."""
    folder = write_mined(export.parent / "folder", [], GRAPH)
    for name in ("boosting.json", "windows.json"):
        if (export / name).exists():
            (folder / name).write_bytes((export / name).read_bytes())
    changes = write_catalogue(export, folder, catalogue(export.parent / "data", rows), CONFIG)
    return changes, folder


def check_vectors(export: Path, folder: Path, rows: Sequence[Row], tower: Tower) -> None:
    """Bits of the old export where nothing was encoded, else those of the tower, in product-index order."""
    order = in_order(rows)
    assert pq.read_table(folder / "product_ids.parquet")["product_id"].to_pylist() == [
        row["product_id"] for row in order
    ]
    known = pq.read_table(export / "product_ids.parquet")["product_id"].to_pylist()
    before = dict(zip(known, read_vectors(export), strict=True))
    expected = [
        drawn(by_hand(row)) if row["title"] in tower.seen else before[row["product_id"]] for row in order
    ]  # fmt: skip
    found = read_vectors(folder)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.stack(expected))


@pytest.mark.parametrize(
    ("product_id", "change", "is_encoded"),
    [
        ("e", {"title": "new title"}, True),
        ("a", {"tags": ["y", "x"]}, True),
        ("a", {"tags": []}, True),
        ("b", {"attributes": [("color", ["blue"])]}, True),
        ("a", {"country": None}, True),
        ("a", {"latitude": 1.50001}, True),
        ("d", {"latitude": 0.0, "longitude": 0.0}, True),
        ("b", {"description": "not read"}, False),
        ("d", {"shop_id": "t", "category": None}, False),
        ("c", {"price": 2.0}, False),
        ("a", {"quality_stars": 1.0}, False),
        ("a", {"created_at": None}, False),
        ("c", {"created_at": T + timedelta(days=99)}, False),
        ("d", {"tags": []}, False),
        ("d", {"country": ""}, False),
    ],
    ids=str,
)
def test_what_the_tower_reads_decides(
    export: Path, tower: Tower, product_id: str, change: Row, is_encoded: bool
) -> None:
    rows = [{**row, **change} if row["product_id"] == product_id else row for row in FIRST]
    changes, folder = refreshed(export, rows)
    changed = next(row["title"] for row in rows if row["product_id"] == product_id)
    assert tower.seen == ({changed} if is_encoded else set())
    assert changes == Changes(added=0, changed=int(is_encoded), unchanged=len(FIRST) - is_encoded, gone=0)
    check_vectors(export, folder, rows, tower)
    table = pq.read_table(folder / "products.parquet")
    assert table.select(list(TYPES)).to_pylist() == in_order(
        [{**row, "tags": row["tags"] or [], "country": row["country"] or None} for row in rows]
    ), "what search shows is new in any case"  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_rows_is_no_change(export: Path, tower: Tower, seed: int) -> None:
    rows = [FIRST[row] for row in np.random.default_rng(seed).permutation(len(FIRST))]
    changes, folder = refreshed(export, rows)
    assert tower.batches == []
    assert changes == Changes(0, 0, len(FIRST), 0)
    np.testing.assert_array_equal(read_vectors(folder), read_vectors(export))


@pytest.mark.parametrize("shard_rows", [3, 100])
def test_products_come_and_go(export: Path, tower: Tower, shard_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows move, shards have other borders, and only what is missing is encoded, in batches."""
    monkeypatch.setattr("uepp.retrieval.embed._SHARD_ROWS", shard_rows)
    monkeypatch.setattr("uepp.retrieval.embed.CHUNK_ROWS", 2)
    monkeypatch.setattr("uepp.retrieval.refresh._AT_ONCE", 4)
    kept = [row for row in FIRST if row["product_id"] not in "aeg"]
    changed = {"b": {"title": "changed b"}, "h": {"created_at": None}}
    rows = [{**row, **changed.get(row["product_id"], {})} for row in kept]
    rows += [product("back"), product("e2", created_at=None), product("z"), product("B")]
    changes, folder = refreshed(export, rows)
    assert tower.seen == {"changed b", "product back", "product e2", "product z", "product B"}
    assert max(map(len, tower.batches)) == 2
    assert changes == Changes(added=4, changed=1, unchanged=4, gone=3)
    check_vectors(export, folder, rows, tower)
    kept_neighbors = {
        row["product_id"]: row["queries"] for row in pq.read_table(folder / "neighbors.parquet").to_pylist()
    }
    assert list(kept_neighbors) == [row["product_id"] for row in in_order(rows)]
    assert {name: queries for name, queries in kept_neighbors.items() if queries} == {
        "c": ["mug"], "back": ["old mug"],
    }, "the graph knows it from before"  # fmt: skip
    assert len(list((folder / "vectors").iterdir())) == -(-len(rows) // shard_rows)


def test_another_neighbourhood_is_a_change(export: Path, tower: Tower) -> None:
    """An export of before may have been made with another number of neighbours."""
    table = pq.read_table(export / "neighbors.parquet").to_pylist()
    for row in table:
        row["queries"] = row["queries"][:1]
    pq.write_table(pa.Table.from_pylist(table), export / "neighbors.parquet")
    changes, folder = refreshed(export, FIRST)
    assert tower.seen == {"product a"}
    assert changes.changed == 1
    check_vectors(export, folder, FIRST, tower)


def test_nothing_may_stay(export: Path, tower: Tower) -> None:
    rows = [product("x"), product("y")]
    changes, folder = refreshed(export, rows)
    assert changes == Changes(added=2, changed=0, unchanged=0, gone=len(FIRST))
    check_vectors(export, folder, rows, tower)


def test_quality_is_standardised_as_at_training(export: Path, tower: Tower) -> None:
    """New values, counts of the time before T, old constants; a rating may be newer than T."""
    features: list[Row] = [
        {
            "name": "quality_stars",
            "transform": "identity",
            "mean": 4.0,
            "std": 0.5,
            "missing_share": 0.1,
            "weight": 0.2,
        },
        {"name": "purchases", "transform": "log", "mean": 0.1, "std": 0.4, "missing_share": 0.0, "weight": 0.1},
        {"name": "freshness", "transform": "log", "mean": -2.0, "std": 1.5, "missing_share": 0.0, "weight": 0.1},
    ]
    write_json(export / "boosting.json", {"features": features})
    np.save(export / "quality.npy", np.zeros((len(FIRST), len(features)), np.float32))
    write_json(export / "windows.json", {"train_end": T.isoformat()})
    late = T + timedelta(days=30)
    rows = [{**FIRST[0], "quality_stars": 4.2, "quality_as_of": late}, *FIRST[1:4]]
    rows += [product("z", quality_stars=9.0, quality_as_of=late), product("back", created_at=None)]
    _, folder = refreshed(export, rows)
    bought = {"a": 2, "c": 1}
    expected = []
    for row in in_order(rows):
        stars = 0.0 if row["quality_stars"] is None else np.clip((row["quality_stars"] - 4.0) / 0.5, -3, 3)
        is_late = row["created_at"] is not None and row["created_at"] >= T
        purchases = 0.0 if is_late else (np.log1p(bought.get(row["product_id"], 0)) - 0.1) / 0.4
        age = None if row["created_at"] is None else max((T - row["created_at"]) / timedelta(days=1), 0)
        freshness = 0.0 if age is None else (-np.log1p(age) + 2.0) / 1.5
        expected.append([stars, purchases, freshness])
    found = np.load(folder / "quality.npy")
    np.testing.assert_allclose(found, np.clip(expected, -3, 3), atol=1e-6)
    assert found.dtype == np.float32
    assert (found[:, 0] == 3).any(), "something is cut"


# What is told apart, against plain Python


def told_apart(row: Row, names: Sequence[str]) -> str:
    """What the digest is of: null is empty, a coordinate float32."""
    means = {
        "title": row["title"], "country": row["country"] or "", "tags": row["tags"] or [],
        "attributes": [(key, values or []) for key, values in row["attributes"] or []],
        "latitude": None if row["latitude"] is None else float(np.float32(row["latitude"])),
        "longitude": None if row["longitude"] is None else float(np.float32(row["longitude"])),
        "neighbor_queries": row["neighbors"],
    }  # fmt: skip
    return repr([means[name] for name in names])


def drawn_rows(number: int) -> list[Row]:
    """Short texts of few characters, so that many rows are the same, or the same when they are written in one piece."""
    rng = np.random.default_rng(5)

    def text() -> str | None:
        return rng.choice(["", "a", "b", "ab", "1:a", "a\n", "\0", "ü", None], p=[0.2, *[0.1] * 8])  # type: ignore[no-any-return]

    def texts() -> list[str] | None:
        return None if rng.random() < 0.2 else [text() or "" for _ in range(rng.integers(0, 3))]

    rows = []
    for row in range(number):
        pairs = None if rng.random() < 0.3 else [(text() or "", texts()) for _ in range(rng.integers(0, 2))]
        degrees = rng.choice([None, 0.0, 1.0, 1 + 1e-12, 2.0, -0.0])
        rows.append(
            {"product_id": f"{row:05}", "title": text() or "", "tags": texts(), "attributes": pairs,
             "country": text(), "latitude": degrees, "longitude": degrees, "neighbors": texts() or []}
        )  # fmt: skip
    return rows


def test_rows_have_the_same_digest_where_the_tower_reads_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uepp.retrieval.refresh._AT_ONCE", 700)
    rows = drawn_rows(3_000)
    columns = {name: pa.array([row[name] for row in rows], TYPES[name]) for name in rows[0] if name in TYPES}
    pq.write_table(pa.table(columns), tmp_path / "products.parquet", row_group_size=999)
    neighbors = pa.table({"queries": pa.array([row["neighbors"] for row in rows], STRINGS)})
    pq.write_table(neighbors, tmp_path / "neighbors.parquet")
    for names in (READ, ("title", "country"), ("tags",), ("neighbor_queries",), ("latitude",)):
        digests = [row.tobytes() for row in refresh._digests(tmp_path, names)]
        meant = [told_apart(row, names) for row in rows]
        assert len(digests) == len(rows)
        assert len(set(zip(digests, meant, strict=True))) == len(set(digests)) == len(set(meant)), names
        assert 2 < len(set(meant)) < len(rows), "some are the same, and some are not"
