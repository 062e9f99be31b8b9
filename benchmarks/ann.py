"""What do approximate indexes lose, and what do they take, on the vectors of a trained model?

    python benchmarks/ann.py RUN [--at 1000] [--index SPEC …] [--timed 500] [--json]

RUN has an export; its vectors are indexed (hydrated, where it is boosted) and asked with the requests of its report
window, at most 2,000. Without `--index`: exact search; HNSW as it is by default and following K and 2·K candidates;
IVFFlat; FastScan; FastScan with 2·K and 5·K re-ranked (the paper's); and what the run serves with, if that is another.
All are timed turn by turn. Goals: the paper's p99 of 20 ms, and 1% of exact search's purchase recall @K lost (the
paper's loss is below 4%). Prints a table, or one JSON object of rows {name, value, goal, ok} and all figures.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import faiss
from rich.console import Console
from rich.table import Table

import uepp
from uepp.evaluation.recall import without_nan
from uepp.index_families import parse_spec, resolve
from uepp.pipeline.tuning import load_references
from uepp.retrieval.ann import Builds, compare
from uepp.retrieval.ann_report import columns, shown
from uepp.retrieval.boosting import read_boosting
from uepp.retrieval.export import open_export
from uepp.retrieval.operating_point import REPORT
from uepp.retrieval.product_index import read_serving
from uepp.retrieval.vectors import ProductVectors

_GOAL_MS = 20.0
_GOAL_LOSS = 0.01


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--at", type=int, default=1_000)
    parser.add_argument("--index", action="append", default=[])
    parser.add_argument("--timed", type=int, default=500)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    at, export = arguments.at, open_export(arguments.run)
    vectors, boosting = ProductVectors.open(export), read_boosting(export)
    texts = arguments.index or [
        "flat", "hnsw", f"hnsw:ef_search={at}", f"hnsw:ef_construction=200,ef_search={2 * at}", "ivf-flat",
        "ivf-pq-fastscan", "ivf-pq-fastscan-rerank:rerank=2", "ivf-pq-fastscan-rerank", read_serving(export)["index"],
    ]  # fmt: skip
    specs = {str(spec): spec for spec in (resolve(parse_spec(text), len(vectors), vectors.dim) for text in texts)}
    reference = load_references(arguments.run, at, [REPORT])[REPORT]
    ks = sorted({min(100, at), at})
    with tempfile.TemporaryDirectory() as folder:
        builds = Builds(Path(folder), vectors, boosting)
        points = compare(list(specs.values()), builds, reference, ks, timed=arguments.timed)
    rows: list[dict[str, Any]] = []
    for point in points:
        for name, goal in (("p99_ms", _GOAL_MS), (f"recall_loss@{at}", _GOAL_LOSS)):
            value = point[name]
            rows.append({"name": f"{point['index']}: {name}", "value": value, "goal": goal, "ok": value <= goal})
    if arguments.json:
        about = {
            "uepp": uepp.__version__, "faiss": faiss.__version__, "cores": os.cpu_count(), "load": os.getloadavg()[0],
            "products": len(vectors), "dim": vectors.dim, "requests": len(reference), "at": at,
        }  # fmt: skip
        print(json.dumps({**about, "rows": without_nan_rows(rows), "points": without_nan_rows(points)}, indent=2))
        return
    heads = {name: head for name, head in columns(ks).items() if name != "label"}
    table = Table(*heads.values(), title=f"{len(vectors):,} products, {len(reference):,} requests")
    for point in points:
        table.add_row(*(shown(name, point[name]) for name in heads))
    Console(width=200).print(table)


def without_nan_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """JSON knows no NaN."""
    return [without_nan(row) for row in rows]


if __name__ == "__main__":
    main()
