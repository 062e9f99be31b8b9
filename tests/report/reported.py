"""A small run that was evaluated, written by hand: 40 products, 60 requests of three days, and two systems."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from uepp.config import Config, DataConfig
from uepp.evaluation.measures import measure
from uepp.evaluation.recall import report, without_nan
from uepp.evaluation.requests import Requests, Targets
from uepp.evaluation.segments import Segments
from uepp.evaluation.slices import slices_of
from uepp.features.requests import PastEvents, RawRequests
from uepp.relevance.ranker import towers_key
from uepp.report.gather import Facts, Training
from uepp.report.sample import Sample, draw, rank

NUM_PRODUCTS, NUM_REQUESTS = 40, 60
NASTY = '<script>alert("1")</script> & <b>„Lampe“</b> {{ 7 * 7 }} 赤い $x_1$'
KS = (1, 5, 20)


class Shifted:
    """Ranks the products after the number in the query, in order; `skip` of them stand behind all others."""

    def __init__(self, skip: int) -> None:
        self._skip = skip

    def rank(self, requests: RawRequests, k: int, num_products: int) -> np.ndarray:
        rows = []
        for query in requests.queries:
            start = int(query.split()[-1])
            order = [(start + place) % num_products for place in range(num_products)]
            rows.append((order[self._skip :] + order[: self._skip])[:k])
        return np.array(rows, np.int64).reshape(len(requests.queries), -1)


def products(*, has_places: bool = True) -> pa.Table:
    columns: dict[str, Any] = {
        "product_id": [f"p{row}" for row in range(NUM_PRODUCTS)],
        "title": [NASTY if row % 5 == 0 else f"lamp {row}" for row in range(NUM_PRODUCTS)],
    }
    if has_places:
        columns |= {
            "country": ["DE" if row % 2 else "FR" for row in range(NUM_PRODUCTS)],
            "latitude": [float(row) if row % 7 else None for row in range(NUM_PRODUCTS)],
            "longitude": [10.0 if row % 7 else None for row in range(NUM_PRODUCTS)],
        }
    return pa.table(columns)


def requests(*, has_places: bool = True) -> Requests:
    rng = np.random.default_rng(7)
    starts = rng.integers(0, NUM_PRODUCTS, NUM_REQUESTS)
    # mostly what comes first, sometimes what the other system has first, once something that the catalogue lacks
    away = np.where(np.arange(NUM_REQUESTS) % 4 == 3, 6 + np.arange(NUM_REQUESTS) % 3, np.arange(NUM_REQUESTS) % 3)
    bought = (starts + away) % NUM_PRODUCTS
    bought[11] = -1
    places = {
        "country": pa.array(["DE"] * NUM_REQUESTS), "region": pa.array(["<i>BY</i>"] * NUM_REQUESTS),
        "language": pa.nulls(NUM_REQUESTS, pa.string()), "zip": pa.nulls(NUM_REQUESTS, pa.string()),
        "latitude": pa.array([48.0 if has_places else None] * NUM_REQUESTS, pa.float64()),
        "longitude": pa.array([11.0 if has_places else None] * NUM_REQUESTS, pa.float64()),
    }  # fmt: skip
    edges = np.stack([np.zeros(NUM_REQUESTS, np.int64), np.arange(NUM_REQUESTS) // 5 % 3], axis=1)
    past = PastEvents(
        {
            "recent_searches": np.array(["first <u>search</u>", "second search"], object),
            "recent_shops": np.array(["s", "s"], object),
            "recent_titles": np.array([NASTY, "clicked lamp"], object),
            "purchased_tags": np.array(["", ""], object),
        }
    )
    return Requests(
        raw=RawRequests(
            [f"<em>lamp</em> & {start}" for start in starts],
            pa.table(places),
            dict.fromkeys(("searches", "clicks", "purchases"), edges),
            past,
        ),
        day=np.array([f"2024-05-0{6 + row % 3}" for row in range(NUM_REQUESTS)]),
        num_products=np.where(np.arange(NUM_REQUESTS) % 3 == 0, NUM_PRODUCTS - 2, NUM_PRODUCTS),
        targets=Targets(np.arange(NUM_REQUESTS), bought),
        is_repeat=np.arange(NUM_REQUESTS) % 10 == 0,
        is_signed_in=np.arange(NUM_REQUESTS) % 2 == 0,
    )


SYSTEMS = {"uepp": Shifted(0), "bm25": Shifted(6), "random_walk": Shifted(1)}


def sample_of(asked: Requests, table: pa.Table, num: int = 50) -> Sample:
    return rank({name: SYSTEMS[name] for name in ("uepp", "bm25")}, asked, draw(asked, num), table, depth=30)


MANIFEST = {"run_id": "r", "uepp_version": "0.1.0", "num_products": NUM_PRODUCTS, "files": {}}
TOWERS = towers_key(MANIFEST)


def metrics_of(asked: Requests) -> dict[str, Any]:
    labels = np.array(["head", "torso", "tail"])[np.arange(len(asked)) % 3]
    slices = slices_of(asked, Segments(labels, "by hand"), num_known=NUM_PRODUCTS - 4)
    measured = {name: measure(system, asked, slices, KS) for name, system in SYSTEMS.items()}
    return {
        "run_id": "r",
        "export": {"towers": TOWERS, "boosting": None, "ranker": None},
        **without_nan(report(measured, slices, asked.day, asked.queries)),
        "segments": "by hand, <b>not</b> by count",
        "num_requests": len(asked),
        "num_days": 3,
        "missing_target_share": asked.missing_target_share,
    }


def cell(seed: int, recall: float) -> dict[str, Any]:
    scores = {"all": {"recall@1": recall / 2, "recall@5": recall, "recall@100": recall}, "head": {"recall@5": recall}}
    return {"seed": seed, "seconds": {"train": 61.0}, "report": scores, "selection": scores}


STUDY = {
    "description": "A <b>study</b>",
    "uepp_version": "0.1.0",
    "variants": {
        "all encoders": [cell(1, 0.80), cell(2, 0.84)],
        "Without  Graph": [cell(1, 0.75), cell(2, 0.80)],
        NASTY: [cell(1, 0.5)],
    },
    "references": {"Without  Graph": "all encoders", NASTY: "all encoders"},
    "opponents": {"bm25": {"report": cell(1, 0.6)["report"], "selection": {}}},
}
BOOSTING = {
    "is_boosted": True,
    "features": [{"name": "quality_<b>stars</b>", "weight": 0.02}, {"name": "freshness", "weight": 0.03}],
    "bound": {"max_boost": 0.5, "allowed_boost_range": 0.2, "boost_range": 0.13},
    "tuned_on": {"window": "selection", "measure": "recall@5", "num_requests": 20, "scale": 0.5},
    "report": {
        "all": {
            "num_requests": 60,
            "recall@5": {"before": 0.5, "after": 0.6, "difference": 0.1, "interval": [0.02, 0.15], "p_value": 0.01},
        },
        "tail": {
            "num_requests": 0,
            "recall@5": dict.fromkeys(("before", "after", "difference", "interval", "p_value")),
        },
    },
    "trade_off": [
        {"scale": at, "boost_range": at * 0.2, "all": 0.5 + at / 10, "head": 0.5, "tail": None, "overlap": 1 - at / 2}
        for at in (0.0, 0.5, 1.0, 1.5)
    ],
}
POINT = {
    "index": "flat", "label": "tuned", "overlap@5": 1.0, "recall@5": 0.5, "recall_loss@5": 0.0, "p50_ms": 0.3,
    "p99_ms": 0.5, "queries_per_second": 460.0, "bytes_per_vector": 512.0, "build_seconds": 0.03,
}  # fmt: skip
TUNING = {
    "chosen": "flat", "at": 5, "budget_ms": 2.0, "num_trials": 40, "num_products": 40, "faiss_version": "1.15.1",
    "num_cores": 2, "num_requests": {"tuned_on": 20, "held_out": 10, "report": 60}, "held_out": [],
    "report": [POINT, POINT | {"label": "Faiss: hnsw", "index": "hnsw:ef_search=16", "overlap@5": 0.7, "p99_ms": 0.1}],
}  # fmt: skip


def facts_of(directory: Path, metrics: dict[str, Any], **changes: Any) -> Facts:
    facts = Facts(
        run_dir=directory / "a <b>run</b>",
        manifest=MANIFEST,
        run={"created": "2024-05-12T10:00:00+00:00", "data": "/data of 'mine'"},
        config=Config(data=DataConfig(report_days=3)),
        metrics=metrics,
        windows={
            name: datetime(2024, 5, day, tzinfo=UTC)
            for day, name in enumerate(
                ("graph_start", "examples_start", "train_end", "selection_end", "report_end"), start=1
            )
        },
        data={"name": "<b>lamps</b>", "licence": "none & all"},
        num_events=1_234,
        num_examples=567,
        training=Training(100, 3_700.0, 13.8),
        costs={
            "seconds": {"mining": 12.0, "features": 30.0, "training": 3_720.0},
            "peak_memory_bytes": 2_345_678_901,
            "query": {"index": "flat", "p50_ms": 4.321, "p99_ms": 9.876, "num_requests": 200},
        },
        served="flat",
        sizes={"vectors": 20_480, "index": 999},
        boosting=None,
        tuning=None,
        studies={},
        made=datetime(2024, 5, 12, 12, 34, tzinfo=UTC),
    )
    return replace(facts, **changes)
