"""Small exports whose towers are a lookup, so that the right answer is known by eye."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from uepp.artifacts import write_json, write_manifest
from uepp.index_families import parse_spec, resolve
from uepp.lexical.bm25 import BM25
from uepp.retrieval.boosting import write_boosting
from uepp.retrieval.index import build_index, write_index
from uepp.retrieval.vectors import ProductVectors

PRODUCTS = {
    "east": ("001", "Lamp, facing east"),
    "north": ("2", "Ünïcödé 赤い ランプ"),
    "north-east": ("03", "[bold]Brackets[/bold] & [gift]"),
}
HALF = float(np.sqrt(0.5))
VECTORS = np.array([[1, 0], [0, 1], [HALF, HALF]], np.float32)
NOW = datetime(2024, 5, 1, tzinfo=UTC)
_COLUMNS = {"searches": ("query",), "clicks": ("product_id", "shop_id"), "purchases": ("product_id",)}
HISTORIES: dict[str, list[tuple[Any, ...]]] = {
    "searches": [("anna", 0, "赤い"), ("anna", 1, "east"), ("bert", 0, "east"), ("bert", 1, "赤い")],
    "clicks": [("cleo", 0, "001", "赤い"), ("cleo", 1, "2", "east")],
    "purchases": [("dora", 0, "001"), ("dora", 1, "2"), ("emil", 0, "gone")],
}
"""Users, days, and what they did."""


class Compass(tf.Module):
    """`east` is (1, 0), `赤い` is (0, 1), and any other text has no word in it."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "query")])
    def serve(self, query: tf.Tensor) -> dict[str, tf.Tensor]:
        east, north = (tf.cast(query == word, tf.float32) for word in ("east", "赤い"))
        return {"embedding": tf.stack([east, north], axis=1)}


def _direction(words: tf.Tensor) -> tf.Tensor:
    """Words to their sum, [R] or [R, n] strings to [R, 2]."""
    words = tf.reshape(words, [tf.shape(words)[0], -1])
    parts = [tf.reduce_sum(tf.cast(words == word, tf.float32), axis=1) for word in ("east", "赤い")]
    return tf.stack(parts, axis=1)


_TEXT, _NUMBER = tf.TensorSpec([None], tf.string), tf.TensorSpec([None], tf.float32)
_PAST = tf.TensorSpec([None, None], tf.string)
_WHO = {
    "query": _TEXT, "country": _TEXT, "region": _TEXT, "language": _TEXT, "zip": _TEXT,
    "latitude": _NUMBER, "longitude": _NUMBER,
    "recent_searches": _PAST, "recent_shops": _PAST, "recent_titles": _PAST, "purchased_tags": _PAST,
}  # fmt: skip


class Traveller(tf.Module):
    """Goes where words of the query, the place and the latest events lead; north by latitude and east by longitude."""

    def __init__(self) -> None:
        super().__init__()
        self.serve = tf.function(self._serve).get_concrete_function(
            **{name: tf.TensorSpec(spec.shape, spec.dtype, name) for name, spec in _WHO.items()}
        )

    def _serve(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        way = tf.zeros([tf.shape(inputs["query"])[0], 2])
        for name, value in inputs.items():
            if value.dtype == tf.string:
                way += _direction(value[:, :1] if name.startswith(("recent", "purchased")) else value)
        degrees = tf.stack([inputs["longitude"], inputs["latitude"]], axis=1)
        way += tf.where(tf.math.is_nan(degrees), 0.0, degrees)
        return {"embedding": tf.math.l2_normalize(way, axis=1)}


def make_run(directory: Path, tower: tf.Module | None = None, *, run_id: str = "compass", index: str = "flat") -> Path:
    """A run with three products.

    Args:
        directory: where to.
        tower: none: a `Compass`.
        run_id: of the export.
        index: its spec.
    """
    products = {"product_id": [one for one, _ in PRODUCTS.values()], "title": [title for _, title in PRODUCTS.values()]}
    tags = pa.array([["east", "of"], ["赤い"], None], pa.list_(pa.string()))
    export = _start(directory, tower or Compass(), pa.table({**products, "tags": tags}), HISTORIES)
    return _finish(directory, export, VECTORS, run_id, index)


NUM_DIRECTIONS = 24


def make_rose(
    directory: Path, *, run_id: str = "rose", first: int = 0, index: str = "flat", quality: Sequence[float] = ()
) -> Path:
    """A run of a `Traveller` with 24 products, one every 5 degrees from 0 (east) to 115, with shops, prices and words.

    Args:
        directory: where to.
        run_id: of the export.
        first: number of the first product, so that two exports can be told apart.
        index: its spec.
        quality: of each product, of weight 1; none: nothing is boosted.
    """
    numbers = range(first, first + NUM_DIRECTIONS)
    text = pa.string()
    products = pa.table(
        {
            "product_id": [f"p{number:03d}" for number in numbers],
            "title": [f"{'Lamp' if n % 3 else '<i>Chair</i>'} number {n}" for n in numbers],
            "tags": pa.array([["east"] if n % 2 else ["赤い"] for n in numbers], pa.list_(text)),
            "shop_id": pa.array(["赤い" if n % 4 == 0 else "east" if n % 4 == 1 else None for n in numbers], text),
            "price": [n + 0.5 if n % 5 else None for n in numbers],
            "country": pa.array(["US" if n % 2 else "DE" for n in numbers], text),
            "region": pa.array(["CA" if n % 4 == 1 else None for n in numbers], text),
        }
    )
    histories = {
        "searches": [("anna", 0, "east"), ("anna", 1, "赤い"), ("bert", 0, "east")],
        "clicks": [("anna", 0, f"p{first:03d}", "赤い"), ("bert", 0, f"p{first + 1:03d}", None)],
        "purchases": [("anna", 0, f"p{first + 2:03d}"), ("bert", 1, "gone")],
    }
    export = _start(directory, Traveller(), products, histories)
    places = {"user_id": ["anna"], "country": ["赤い"], "region": ["CA"], "language": ["en"], "zip": [None]}
    degrees = {name: pa.array([None], pa.float64()) for name in ("latitude", "longitude")}
    pq.write_table(pa.table({**places, **degrees}), export / "places.parquet")
    counts = {"query": ["east", "lamp", "chair lamp"], "count": [3, 7, 7]}
    pq.write_table(pa.table(counts), export / "query_counts.parquet")
    titles = products.column("title").to_pylist()
    BM25.build({"title": titles}, "tuned").save(export / "lexical")
    write_json(export / "fusion.json", {"weight": 1.5, "constant": 40.0})
    if quality:
        facts = {"features": [{"name": "quality_sales", "weight": 1.0}]}
        write_boosting(export, np.array(quality, np.float32)[:, np.newaxis], facts)
    return _finish(directory, export, directions(), run_id, index)


def directions() -> np.ndarray:
    """Vectors of `make_rose`'s products, float32 [24, 2]."""
    angles = np.deg2rad(5.0 * np.arange(NUM_DIRECTIONS))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def _start(
    directory: Path, tower: tf.Module, products: pa.Table, histories: dict[str, Sequence[tuple[Any, ...]]]
) -> Path:
    export = directory / "export"
    export.mkdir(parents=True)
    (directory / "config.yaml").write_text("{}\n")
    tf.saved_model.save(tower, str(export / "query_tower"), signatures={"serving_default": tower.serve})
    pq.write_table(products, export / "products.parquet")
    for kind, rows in histories.items():
        columns = {"user_id": [row[0] for row in rows], "timestamp": [NOW + timedelta(days=row[1]) for row in rows]}
        columns |= {name: [row[2 + n] for row in rows] for n, name in enumerate(_COLUMNS[kind])}
        schema = pa.schema([("user_id", pa.string()), ("timestamp", pa.timestamp("us", "UTC"))])
        for name in _COLUMNS[kind]:
            schema = schema.append(pa.field(name, pa.string()))
        pq.write_table(pa.table(columns, schema), export / f"history_{kind}.parquet")
    return export


def _finish(directory: Path, export: Path, vectors: np.ndarray, run_id: str, index: str) -> Path:
    (export / "vectors").mkdir()
    np.save(export / "vectors" / "part-00000.npy", vectors)
    hydrated = ProductVectors.open(export)
    spec = resolve(parse_spec(index), len(hydrated), hydrated.dim)
    write_index(build_index(hydrated, spec), export / "index.faiss")
    write_json(export / "serving.json", {"index": str(spec)})
    write_manifest(export, run_id=run_id, uepp_version="0", num_products=len(vectors))
    return directory
