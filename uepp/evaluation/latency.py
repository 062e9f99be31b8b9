"""How long one request takes: the tower, and the served index."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from uepp.evaluation.baselines import Towers
from uepp.features.requests import RawRequests
from uepp.retrieval.product_index import ProductIndex

_NUM_REQUESTS = 200
_WARM_UP = 10


def query_latency(export: Path, towers: Towers, requests: RawRequests, depth: int, seed: int = 0) -> dict[str, Any]:
    """Time requests one after another, as they come to a server: each alone, in the index that the export has.

    Args:
        export: of the run.
        towers: the run.
        requests: R, of which at most 200 are drawn.
        depth: products that are searched for, as a server does.
        seed: of the draw.

    Returns:
        `index`, the spec that was searched; `p50_ms` and `p99_ms` of tower and index together, `tower_p50_ms`,
        `index_p50_ms`, `num_requests`.
    """
    index = ProductIndex.open(export)
    drawn = np.random.default_rng(seed).permutation(len(requests))[:_NUM_REQUESTS]
    for row in drawn[:_WARM_UP]:
        index.search(towers.embed(requests.take(np.array([row]))), depth)
    moments = []
    for row in drawn:
        one = requests.take(np.array([row]))
        begin = time.perf_counter()
        vectors = towers.embed(one)
        between = time.perf_counter()
        index.search(vectors, depth)
        moments.append((begin, between, time.perf_counter()))
    of_tower, of_index = 1_000 * np.diff(np.array(moments)).T
    p50, p99 = np.percentile(of_tower + of_index, [50, 99])
    return {
        "index": str(index.spec),
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "tower_p50_ms": float(np.median(of_tower)),
        "index_p50_ms": float(np.median(of_index)),
        "num_requests": len(drawn),
    }
