"""A finished run whose towers are stand-ins: a query's text is its vector, so a test knows what is similar to what."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf
import yaml

from uepp.artifacts import write_json, write_manifest
from uepp.config import ExportConfig
from uepp.retrieval.export import rebuild_index

T = datetime(2024, 5, 1, tzinfo=UTC)
DIM = 8
TIMESTAMP = pa.timestamp("us", "UTC")
STRINGS = pa.list_(pa.string())
_POINTERS = [f"{kind}_{edge}" for kind in ("searches", "clicks", "purchases") for edge in ("begin", "end")]


class QueryTower(tf.Module):
    """A query is the numbers of its vector."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="query")])
    def serve(self, query: tf.Tensor) -> dict[str, tf.Tensor]:
        numbers = tf.strings.to_number(tf.strings.split(query).to_tensor("0"))
        return {"embedding": tf.math.l2_normalize(tf.reshape(numbers, [-1, DIM]), axis=1)}


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def begin_run(run: Path, run_id: str, settings: dict[str, Any]) -> Path:
    """The directories, the settings and histories of nobody; the export's directory."""
    export, mined = run / "export", run / "mined" / "0123"
    (export / "vectors").mkdir(parents=True)
    mined.mkdir(parents=True)
    (run / "checkpoints").mkdir()
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    write_json(run / "run.json", {"run_id": run_id, "mined": mined.name, "data": str(run)})
    kinds = {"searches": ("query",), "clicks": ("product_id", "shop_id"), "purchases": ("product_id",)}
    for kind, names in kinds.items():
        columns = [("user_id", pa.string()), ("timestamp", TIMESTAMP), *((name, pa.string()) for name in names)]
        pq.write_table(pa.schema(columns).empty_table(), mined / f"history_{kind}.parquet")
    return export


def write_requests(run: Path, queries: Sequence[np.ndarray], bought: Sequence[str]) -> list[str]:
    """Requests of four days, each with one purchase: the first two are the selection window; the queries' texts."""
    texts = [" ".join(f"{value:.4f}" for value in query) for query in queries]
    rows = []
    for number, (text, product) in enumerate(zip(texts, bought, strict=True)):
        day = 4 * number // len(texts)
        rows.append(
            {"request_id": number, "window": "selection" if day < 2 else "report", "day": (T + timedelta(day)).date(),
             "query": text, "targets": [product], "non_repeat_targets": [product]}
            | dict.fromkeys(_POINTERS, 0)
        )  # fmt: skip
    schema = {"request_id": pa.int64(), "window": pa.string(), "day": pa.date32(), "query": pa.string()}
    schema |= {"targets": STRINGS, "non_repeat_targets": STRINGS, **dict.fromkeys(_POINTERS, pa.int64())}
    schema |= dict.fromkeys(("country", "region", "language", "zip"), pa.string())
    schema |= dict.fromkeys(("latitude", "longitude"), pa.float64())
    path = run / "mined" / "0123" / "requests.parquet"
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(list(schema.items()))), path)
    return texts


def finish_run(run: Path, run_id: str, products: dict[str, Any], vectors: np.ndarray) -> None:
    """Products, vectors, query tower, index, manifest."""
    export = run / "export"
    pq.write_table(pa.table(products), export / "products.parquet")
    tower = QueryTower()
    tf.saved_model.save(tower, str(export / "query_tower"), signatures={"serving_default": tower.serve})
    np.save(export / "vectors" / "part-00000.npy", vectors)
    write_manifest(export, run_id=run_id, uepp_version="0", num_products=len(vectors))
    rebuild_index(export, ExportConfig())
