"""What does the final ranker add to a search, and what a cross-encoder?

    python benchmarks/reranking.py RUN [--cross-encoder DIR] [--requests 160] [--at-once 1,16] [--threads N] [--seed 1]
                                   [--json]

RUN has a ranker (`uepp relevance rank RUN`). Queries are drawn by their frequency in the training window and asked by
nobody in particular, one at a time and as many at once as the server may put together. Three ways take turns at every
group of them: the search, the search with the ranker, and the cross-encoder alone on the products that the ranker
ranks, which is what it adds where a ranker reads its score. How well it was trained makes no difference to its cost, so
`uepp relevance train --set relevance.max_steps=1` is enough. Without `--cross-encoder` it is that of RUN's own ranker,
and is left out where that has none.

Prints milliseconds a group (p50, p99), processor time a request, of all threads, and the ratio of both to the search
alone; or one JSON object.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uepp  # noqa: F401  isort: skip  chooses Keras 2 before TensorFlow is imported
import faiss
import numpy as np
import pyarrow.parquet as pq
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from uepp.errors import InputError
from uepp.relevance.pair_scores import PairScores
from uepp.relevance.ranker import CROSS_ENCODER, RANKER, read_ranker
from uepp.serving.requests import Request
from uepp.serving.search import Searcher

SEARCH, RANKED, PAIRS = "search", "search with the ranker", "cross-encoder alone"


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    if arguments.threads is not None:
        tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
        tf.config.threading.set_inter_op_parallelism_threads(arguments.threads)
        faiss.omp_set_num_threads(arguments.threads)
    export = arguments.run / "export"
    searcher, ranker = Searcher(arguments.run), read_ranker(export)
    if ranker is None:
        raise InputError(f"{export}: no ranker; make one with: uepp relevance rank {arguments.run}")
    own = export / RANKER / CROSS_ENCODER
    directory = arguments.cross_encoder or (own if own.is_dir() else None)
    pairs = None if directory is None else PairScores(directory, export)
    counts = pq.read_table(export / "query_counts.parquet")
    frequency = counts.column("count").to_numpy().astype(float)
    queries = np.random.default_rng(arguments.seed).choice(
        counts.column("query").to_pylist(), arguments.requests, p=frequency / frequency.sum()
    )
    searcher.warm_up(max(arguments.at_once))
    rows = []
    for number in arguments.at_once:
        groups = [queries[begin : begin + number].tolist() for begin in range(0, len(queries) - number + 1, number)]
        rows += measured(searcher, ranker.top, pairs, groups)
    about = {"products": len(searcher.catalogue), "top": ranker.top, "requests": len(queries)}
    if arguments.json:
        print(json.dumps({**about, "rows": rows}, indent=2))
        return
    table = Table(
        "at once", "way", "p50 ms", "p99 ms", "p50 / search", "processor ms a request", "/ search",
        title=", ".join(f"{value:,} {name}" for name, value in about.items()),
    )  # fmt: skip
    for row in rows:
        table.add_row(
            str(row["at_once"]), row["way"], f"{row['p50_ms']:.1f}", f"{row['p99_ms']:.1f}", f"{row['ratio']:.2f}",
            f"{row['cpu_ms']:.1f}", f"{row['cpu_ratio']:.2f}", end_section=row["way"] == rows[-1]["way"],
        )  # fmt: skip
    Console(highlight=False).print(table)


def measured(searcher: Searcher, top: int, pairs: PairScores | None, groups: list[list[str]]) -> list[dict[str, Any]]:
    """A row for each way, over groups of queries that are asked together."""
    spent: dict[str, list[tuple[float, float]]] = {SEARCH: [], RANKED: []} | ({} if pairs is None else {PAIRS: []})
    for number, group in enumerate(groups):
        plain = [Request(query, top) for query in group]
        ranked = [Request(query, top, rerank=True) for query in group]
        found = [[searcher.catalogue.row(hit.product_id) for hit in hits] for hits in searcher.search_many(plain)]
        rows = np.array([one + [-1] * (top - len(one)) for one in found])
        ways: dict[str, Callable[[], Any]] = {
            SEARCH: lambda plain=plain: searcher.search_many(plain),
            RANKED: lambda ranked=ranked: searcher.search_many(ranked),
        }
        if pairs is not None:
            ways[PAIRS] = lambda group=group, rows=rows: pairs.logits(group, rows)
        names = list(ways)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            begin = time.perf_counter(), time.process_time()
            ways[name]()
            spent[name].append((time.perf_counter() - begin[0], time.process_time() - begin[1]))
    size = len(groups[0])
    figures = {}
    for name, seconds in spent.items():
        wall, processor = 1_000 * np.array(seconds).T
        p50, p99 = np.percentile(wall, [50, 99])
        figures[name] = {"p50_ms": float(p50), "p99_ms": float(p99), "cpu_ms": float(np.median(processor)) / size}
    base = figures[SEARCH]
    return [
        {
            "at_once": size, "way": name, **one,
            "ratio": one["p50_ms"] / base["p50_ms"], "cpu_ratio": one["cpu_ms"] / base["cpu_ms"],
        }
        for name, one in figures.items()
    ]  # fmt: skip


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--cross-encoder", type=Path)
    parser.add_argument("--requests", type=int, default=160)
    parser.add_argument(
        "--at-once", type=lambda text: [int(part) for part in text.split(",")], default=[1, 16], help="by comma"
    )
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if min(arguments.at_once) < 1 or max(arguments.at_once) > arguments.requests:
        parser.error(f"--at-once: must be 1 to --requests {arguments.requests}")
    return arguments


if __name__ == "__main__":
    main()
