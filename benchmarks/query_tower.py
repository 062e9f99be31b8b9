"""What does a request cost in the query tower, and does it depend on what the product tower is made of?

    python benchmarks/query_tower.py RUN [RUN …] [--requests 300] [--rounds 3] [--json]

Each RUN has an export. The first one's report requests, each alone, go through all query towers turn by turn. A tower
that holds a text encoder (`text` in `model.query_encoders`) shows it in its size; one beside a product tower that
holds one does not.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from uepp.config import load_config
from uepp.evaluation.requests import load_requests
from uepp.pipeline.stored import read_run
from uepp.retrieval.embed import load_tower, tower_inputs
from uepp.retrieval.export import open_export

_WARM_UP = 20


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    export = open_export(arguments.runs[0])
    _, _, mined = read_run(arguments.runs[0])
    requests = load_requests(mined / "requests.parquet", "report", pq.read_table(export / "products.parquet"))
    drawn = np.random.default_rng(1).permutation(len(requests))[: arguments.requests]
    towers = [_Tower(run) for run in arguments.runs]
    inputs = [
        [requests.raw.take(drawn[i : i + 1]).inputs(t.names, t.history) for i in range(len(drawn))] for t in towers
    ]
    times: list[list[np.ndarray]] = [[] for _ in towers]
    for turn in range(arguments.rounds + 1):
        for place, tower in enumerate(towers):
            of_turn = inputs[place] if turn else inputs[place][:_WARM_UP]
            measured = np.array([tower.milliseconds(one) for one in of_turn])
            if turn:
                times[place].append(measured)
    rows: list[dict[str, Any]] = []
    for run, tower, measured in zip(arguments.runs, towers, times, strict=True):
        best = np.min(measured, axis=0)
        p50, p99 = np.percentile(best, [50, 99])
        rows.append(
            {
                "run": str(run), "product_encoders": list(tower.product_encoders), "p50_ms": float(p50),
                "p99_ms": float(p99), "megabytes": tower.megabytes,
            }
        )  # fmt: skip
    for row in rows:
        row["p50_ratio"] = row["p50_ms"] / rows[0]["p50_ms"]
    if arguments.json:
        print(json.dumps({"num_requests": len(drawn), "rows": rows}, indent=2))
        return
    table = Table("run", "product encoders", "p50 ms", "× first", "p99 ms", "query tower, MB")
    for row in rows:
        figures = (f"{row[name]:.2f}" for name in ("p50_ms", "p50_ratio", "p99_ms", "megabytes"))
        table.add_row(row["run"], ", ".join(row["product_encoders"]), *figures)
    Console(width=120).print(table)


class _Tower:
    def __init__(self, run: Path) -> None:
        directory = open_export(run) / "query_tower"
        config = load_config(str(run / "config.yaml"))
        self._serve = load_tower(directory)
        self.names = tower_inputs(self._serve)
        self.history = config.history
        self.product_encoders = config.model.product_encoders
        self.megabytes = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file()) / 1e6

    def milliseconds(self, inputs: dict[str, Any]) -> float:
        begin = time.perf_counter()
        self._serve(**inputs)["embedding"].numpy()
        return 1_000 * (time.perf_counter() - begin)


if __name__ == "__main__":
    main()
