"""A run of the compass with a ranker."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from compass import make_rose

from uepp.artifacts import MANIFEST, read_json, write_json, write_manifest
from uepp.config import RankerConfig
from uepp.relevance.ranker import Lists, towers_key, train_ranker, write_ranker
from uepp.relevance.ranking_features import RankingFeatures

TOP = 10


def model_of(features: RankingFeatures, **telling: float) -> str:
    """A ranker that has learned to order by a weighted sum of features; nothing else differed."""
    names = features.names("similarity")
    rng = np.random.default_rng(1)
    values = np.zeros((1_000, 8, len(names)), np.float32)
    for name in telling:
        drawn = rng.integers(0, 12, values.shape[:2])
        values[..., names.index(name)] = drawn + 0.25 if name == "price" else drawn == 0
    worth = sum(weight * values[..., names.index(name)] for name, weight in telling.items())
    is_bought = worth == np.max(worth, axis=1, keepdims=True)
    lists = Lists(values, np.ones_like(is_bought), is_bought, [str(n) for n in range(len(values))])
    settings = RankerConfig(min_products_in_leaf=5, max_trees=80, patience=80, learning_rate=0.2, l2=0)
    return train_ranker(lists, names, settings, 1).model


def rewrite_manifest(export: Path) -> None:
    facts = read_json(export / MANIFEST)
    write_manifest(export, **{name: value for name, value in facts.items() if name != "files"})


def make_ranked(directory: Path) -> Path:
    """24 products every 5 degrees; the ranker puts what was clicked first, then what was bought, then dear things."""
    run = make_rose(directory)
    export = run / "export"
    ends = {"train_end": datetime(2024, 5, 3, tzinfo=UTC), "selection_end": datetime(2024, 5, 5, tzinfo=UTC)}
    write_json(export / "windows.json", {name: end.isoformat() for name, end in ends.items()})
    graph = {"query": ["east"], "product_id": ["p003"], "clicks": [2], "purchases": [1]}
    pq.write_table(pa.table(graph), export / "graph.parquet")
    rewrite_manifest(export)
    features = RankingFeatures(export)
    facts = {
        "run_id": "rose", "towers": towers_key(read_json(export / MANIFEST)), "top": TOP, "relevance": "similarity",
        "quality": [], "features": list(features.names("similarity")),
    }  # fmt: skip
    write_ranker(export, model_of(features, clicked=500, bought=100, price=1), facts)
    rewrite_manifest(export)
    return run
