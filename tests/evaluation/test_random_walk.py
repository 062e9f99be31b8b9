"""The random walk against a walk by dense matrices, and who enters the graph where."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uepp.evaluation import random_walk
from uepp.evaluation.random_walk import RandomWalk, WalkSettings
from uepp.evaluation.requests import Requests, Targets
from uepp.features.requests import RawRequests

PRODUCTS = pa.table({"product_id": [f"p{n}" for n in range(6)]})
EDGES = [
    # query, product, clicks, carts, purchases
    ("red lamp", "p0", 4, 0, 1),
    ("Red  LAMP", "p1", 2, 0, 0),
    ("blue chair", "p1", 1, 1, 0),
    ("blue chair", "p2", 0, 0, 2),
    ("blue table", "p3", 5, 0, 0),
    ("blue table", "gone", 9, 9, 9),
    ("garden", "p4", 1, 0, 0),
]


@pytest.fixture
def export(tmp_path: Path) -> Path:
    columns = dict(zip(("query", "product_id", "clicks", "carts", "purchases"), zip(*EDGES, strict=True), strict=True))
    pq.write_table(pa.table({name: list(column) for name, column in columns.items()}), tmp_path / "graph.parquet")
    return tmp_path


def by_hand(start: dict[str, float]) -> np.ndarray:
    """Probability to stop at each product, three looks at products, half of the walkers stop at each."""
    names = ["red lamp", "blue chair", "blue table", "garden"]
    weights = np.zeros((4, 6))
    for query, product, clicks, carts, purchases in EDGES:
        if product != "gone":
            weights[names.index(" ".join(query.lower().split())), int(product[1])] += clicks + 3 * carts + 9 * purchases
    to_products = weights / weights.sum(axis=1, keepdims=True)
    total = weights.sum(axis=0)[:, None]
    to_queries = np.divide(weights.T, total, out=np.zeros_like(weights.T), where=total > 0)
    at = np.array([start.get(name, 0.0) for name in names]) @ to_products
    stopped = np.zeros(6)
    for nth in range(3):
        stopped += 0.5**nth * 0.5 * at
        at = at @ to_queries @ to_products
    return stopped


def ranking(scores: np.ndarray, k: int) -> list[int]:
    best = [row for row in np.lexsort((np.arange(len(scores)), -scores)) if scores[row] > 0][:k]
    return best + [-1] * (k - len(best))


@pytest.mark.parametrize("query", ["red lamp", "Blue chair", "BLUE table", "garden"])
def test_a_known_query_starts_at_its_node(export: Path, query: str) -> None:
    walk = RandomWalk(export, PRODUCTS)
    expected = ranking(by_hand({query.lower(): 1.0}), 5)
    assert walk.rank(RawRequests([query]), 5, 6)[0].tolist() == expected


def test_others_start_at_queries_of_the_same_words(export: Path) -> None:
    walk = RandomWalk(export, PRODUCTS)
    (blue,) = walk.rank(RawRequests(["blue sofa"]), 6, 6)
    # Both queries with "blue" have two words, so they are alike.
    assert blue.tolist() == ranking(by_hand({"blue chair": 0.5, "blue table": 0.5}), 6)
    ranks = walk.rank(RawRequests(["zebra", "", "!", "red lamp", "zebra"]), 2, 6)
    assert ranks.tolist() == [[-1, -1]] * 3 + [[0, 1], [-1, -1]]


def test_only_products_of_the_day_are_ranked(export: Path) -> None:
    walk = RandomWalk(export, PRODUCTS)
    everything = walk.rank(RawRequests(["blue chair"]), 6, 6)[0]
    some = walk.rank(RawRequests(["blue chair"]), 6, 2)[0]
    assert [row for row in everything if 0 <= row < 2] == [row for row in some if row >= 0]
    assert (some < 2).all()


def test_a_walk_keeps_the_likeliest_places(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_walk, "_KEPT", 1)
    walk = RandomWalk(export, PRODUCTS)
    assert walk.rank(RawRequests(["red lamp"]), 6, 6)[0].tolist() == [0, -1, -1, -1, -1, -1]


def requests(asked: list[tuple[str, int]], num_products: int = 6) -> Requests:
    n = len(asked)
    return Requests(
        raw=RawRequests([query for query, _ in asked]),
        day=np.array(["2024-05-01"] * n),
        num_products=np.full(n, num_products),
        targets=Targets(np.arange(n), np.array([product for _, product in asked], np.int64)),
        is_repeat=np.zeros(n, bool),
        is_signed_in=np.zeros(n, bool),
    )


def test_tuning_finds_what_the_selection_days_want(export: Path) -> None:
    # After "blue chair" p1 was clicked and put into the cart, p2 bought: a purchase that weighs 9 puts p2 first.
    walk = RandomWalk(export, PRODUCTS, WalkSettings(stop=1.0))
    assert walk.rank(RawRequests(["blue chair"]), 1, 6).tolist() == [[2]]
    chosen = walk.tune(requests([("blue chair", 1)] * 3), k=1)
    assert {name: chosen[name] for name in ("weights", "stop", "recall@1", "num_requests")} == {
        "weights": (1.0, 1.0, 1.0), "stop": 1.0, "recall@1": 1.0, "num_requests": 3,
    }  # fmt: skip
    assert chosen["tried"][0] == {"setting": "start", "value": None, "recall": 0.0}
    # It is left as it was chosen, not as it was tried last.
    assert walk.settings == WalkSettings((1.0, 1.0, 1.0), 1.0)
    assert walk.rank(RawRequests(["blue chair"]), 1, 6).tolist() == [[1]]


def test_what_gains_nothing_is_not_chosen(export: Path) -> None:
    walk = RandomWalk(export, PRODUCTS)
    assert {**walk.tune(requests([("blue chair", 2)]), k=3), "tried": []}["weights"] == WalkSettings().weights
    assert walk.settings == WalkSettings()


def test_without_requests_nothing_is_tuned(export: Path) -> None:
    walk = RandomWalk(export, PRODUCTS)
    assert walk.tune(requests([])) == {
        "weights": (1.0, 3.0, 9.0), "stop": 0.5, "steps": 3, "entries": 10,
        "recall@100": None, "num_requests": 0, "tried": [],
    }  # fmt: skip


def test_a_query_that_was_only_clicked_on_stays_when_clicks_weigh_nothing(export: Path) -> None:
    walk = RandomWalk(export, PRODUCTS, WalkSettings(weights=(0.0, 1.0, 1.0)))
    assert walk.rank(RawRequests(["garden", "red lamp"]), 2, 6).tolist() == [[-1, -1], [0, -1]]


def test_an_empty_graph_finds_nothing(export: Path) -> None:
    table = pq.read_table(export / "graph.parquet")
    pq.write_table(table.slice(0, 0), export / "graph.parquet")
    assert RandomWalk(export, PRODUCTS).rank(RawRequests(["red lamp"]), 3, 6).tolist() == [[-1, -1, -1]]
