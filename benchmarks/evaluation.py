"""What does evaluation cost beside the exact search that it cannot do without?

    python benchmarks/evaluation.py [--products 20000] [--requests 5000] [--passes 3] [--seed 1]
    python benchmarks/evaluation.py --run RUN

The same query vectors against the same product vectors: bare `faiss.knn` in one call, and an evaluation by
exact search with everything that it does beside it (requests in parts, the catalogue of each day, all measures in all
slices, bootstrap intervals). The embedding of queries is in neither. The two take turns, and the least of the passes
counts, so that other work on the machine counts little; the ratio of processor time depends on it even less.
Comparing two systems, with tests, is timed beside them.
Prints one JSON object of rows {name, value or ratio, goal, ok}; the goal is at most 1.3 for one system.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from uepp.evaluation.measures import Measured, measure
from uepp.evaluation.recall import report
from uepp.evaluation.requests import Requests, Targets
from uepp.evaluation.segments import NAMES, Segments
from uepp.evaluation.slices import Slices, slices_of
from uepp.features.requests import RawRequests
from uepp.retrieval.index import search_exact

KS = (10, 100, 1_000)
DIM = 128
NUM_DAYS = 5


class Exact:
    """Exact search with query vectors that are known already, by the text of the request."""

    def __init__(self, queries: np.ndarray, vectors: np.ndarray) -> None:
        self._queries, self._vectors = queries, vectors

    def rank(self, requests: RawRequests, k: int, num_products: int) -> np.ndarray:
        """See `uepp.evaluation.baselines.System`."""
        rows = np.array(requests.queries).astype(np.int64)
        return search_exact(self._queries[rows], self._vectors[:num_products], k)[0]


def unit(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Random unit vectors."""
    vectors = rng.standard_normal((rows, DIM), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def generated(
    rng: np.random.Generator, num_products: int, num_requests: int
) -> tuple[np.ndarray, np.ndarray, Requests]:
    """Products, queries near the product that is bought, and requests of five days."""
    vectors = unit(rng, num_products)
    bought = rng.integers(0, num_products // 2, num_requests)
    queries = vectors[bought] + 4.0 * unit(rng, num_requests)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    day = np.sort(rng.integers(0, NUM_DAYS, num_requests))
    pointers = {"clicks": np.array([[0, 1], [0, 0]])[rng.integers(0, 2, num_requests)]}
    requests = Requests(
        RawRequests([str(row) for row in range(num_requests)], pointers=pointers),
        np.array([f"2024-05-{1 + number:02}" for number in day]),
        num_products - (NUM_DAYS - 1 - day) * (num_products // 1_000),
        Targets(np.arange(num_requests), bought),
        rng.random(num_requests) < 0.1,
        rng.random(num_requests) < 0.8,
    )
    return vectors, queries, requests


def of_run(run: Path) -> tuple[np.ndarray, np.ndarray, Requests]:
    """Vectors and report requests of a run; queries are embedded once, outside of what is timed."""
    import dataclasses

    import pyarrow.parquet as pq

    from uepp.artifacts import read_json
    from uepp.config import load_config
    from uepp.evaluation.requests import load_requests
    from uepp.retrieval.embed import embed_queries, load_tower, read_vectors

    products = pq.read_table(run / "export" / "products.parquet")
    mined = run / "mined" / read_json(run / "run.json")["mined"]
    requests = load_requests(mined / "requests.parquet", "report", products)
    history = load_config(str(run / "config.yaml")).history
    queries = embed_queries(load_tower(run / "export" / "query_tower"), requests.raw, history)
    numbered = dataclasses.replace(requests.raw, queries=[str(row) for row in range(len(requests))])
    return np.array(read_vectors(run / "export")), queries, dataclasses.replace(requests, raw=numbered)


def evaluated(system: Exact, requests: Requests, segments: Segments) -> tuple[Slices, Measured, dict[str, Any]]:
    """One system, all that `uepp evaluate` does for it once it has requests and vectors."""
    slices = slices_of(requests, segments, int(requests.num_products.min()))
    measured = measure(system, requests, slices, KS)
    return slices, measured, report({"uepp": measured}, slices, requests.day, requests.queries)


def seconds(work: Callable[..., Any], *arguments: Any) -> tuple[Any, np.ndarray]:
    """The result, and how long it took: wall time and processor time."""
    start = np.array([time.perf_counter(), time.process_time()])
    result = work(*arguments)
    return result, np.array([time.perf_counter(), time.process_time()]) - start


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="A run with an export; else vectors are generated.")
    parser.add_argument("--products", type=int, default=20_000)
    parser.add_argument("--requests", type=int, default=5_000)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    if arguments.run is not None:
        vectors, queries, requests = of_run(arguments.run)
    else:
        vectors, queries, requests = generated(rng, arguments.products, arguments.requests)
    segments = Segments(rng.choice(NAMES, len(requests)), "drawn")
    system = Exact(queries, vectors)

    def bare() -> Any:
        return faiss.knn(queries, vectors, min(max(KS), len(vectors)), metric=faiss.METRIC_INNER_PRODUCT)

    times: dict[str, list[np.ndarray]] = {"knn": [], "evaluation": [], "measures": [], "comparison": []}
    for _ in range(arguments.passes):
        times["knn"].append(seconds(bare)[1])
        (slices, measured, found), duration = seconds(evaluated, system, requests, segments)
        times["evaluation"].append(duration)
        times["measures"].append(seconds(report, {"uepp": measured}, slices, requests.day, requests.queries)[1])
        other = {"uepp": measured, "other": measured}
        times["comparison"].append(seconds(report, other, slices, requests.day, requests.queries)[1])
    recall = found["systems"]["uepp"]["all"]["recall@100"]
    assert 0 < recall < 1, "nothing was measured"
    least = {name: np.min(values, axis=0).tolist() for name, values in times.items()}
    wall, processor = ({name: both[which] for name, both in least.items()} for which in (0, 1))
    rows: list[dict[str, Any]] = [
        {"name": "evaluation / bare faiss.knn", "ratio": wall["evaluation"] / wall["knn"], "goal": 1.3},
        {"name": "the same, processor time", "ratio": processor["evaluation"] / processor["knn"], "goal": 1.3},
        {"name": "bare faiss.knn, seconds", "value": wall["knn"]},
        {"name": "evaluation, seconds", "value": wall["evaluation"]},
        {"name": "of that means and intervals, seconds", "value": wall["measures"]},
        {"name": "means, intervals and tests of two systems, seconds", "value": wall["comparison"]},
        {"name": "Recall@100", "value": recall},
    ]
    for row in rows:
        if "ratio" in row:
            row["ok"] = row["ratio"] <= row["goal"]
    print(json.dumps({"products": len(vectors), "requests": len(requests), "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
