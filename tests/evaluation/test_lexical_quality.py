"""BM25 × quality: what it ranks, and what its strength is tuned on."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from uepp.evaluation import lexical_quality
from uepp.evaluation.baselines import Lexical
from uepp.evaluation.lexical_quality import Quality
from uepp.evaluation.requests import Requests, Targets
from uepp.features.requests import RawRequests
from uepp.lexical.bm25 import BM25
from uepp.retrieval.quality import QualityFeature

NUM_PRODUCTS = 60
RNG = np.random.default_rng(5)
WORDS = ["red", "blue", "gold", "oak", "lamp", "ring"]
TITLES = [" ".join(RNG.choice(WORDS, RNG.integers(2, 6))) for _ in range(NUM_PRODUCTS)]
VALUES = RNG.standard_normal((NUM_PRODUCTS, 2)).astype(np.float32).clip(-3, 3)
QUERIES = [" ".join(RNG.choice(WORDS, 2, replace=False)) for _ in range(40)]


@pytest.fixture
def quality(monkeypatch: pytest.MonkeyPatch) -> Quality:
    """Two features, `sales` and `noise`, as they are after standardisation."""
    features = [QualityFeature(name, "identity", 0.0, 1.0, 0.0) for name in ("sales", "noise")]
    columns = {"sales": VALUES[:, 0].astype(float), "noise": VALUES[:, 1].astype(float)}
    monkeypatch.setattr(lexical_quality, "read_quality", lambda export, names: (columns, NUM_PRODUCTS))
    monkeypatch.setattr(lexical_quality, "fit_quality", lambda values, num_known: features)
    return Quality(Path("export"))


@pytest.fixture(scope="module")
def index() -> BM25:
    return BM25.build({"title": TITLES}, "stemmed")


def products_by_hand(index: BM25, query: str, multiplier: np.ndarray, limit: int) -> list[int]:
    """All products that match, best first."""
    rows, scores = index.search([query], NUM_PRODUCTS)
    known = {int(row): float(score) for row, score in zip(rows[0], scores[0], strict=True) if 0 <= row < limit}
    return sorted(known, key=lambda row: (-known[row] * float(multiplier[row]), row))


def requests_for(targets: list[list[int]]) -> Requests:
    pairs = [(request, product) for request, products in enumerate(targets) for product in products]
    return Requests(
        RawRequests(QUERIES[: len(targets)]),
        np.array(["mon"] * len(targets)),
        np.full(len(targets), NUM_PRODUCTS),
        Targets(*np.array(pairs, np.int64).T),
        np.zeros(len(pairs), bool),
        np.zeros(len(targets), bool),
    )


def test_scores_are_multiplied_over_the_whole_catalogue(quality: Quality, index: BM25) -> None:
    multiplier = quality.multiplier({"sales": 0.8, "noise": 0.1})
    np.testing.assert_allclose(multiplier, np.exp(VALUES @ np.array([0.8, 0.1])), rtol=1e-5)
    plain, boosted = Lexical(index), Lexical(index, multiplier)
    changed = 0
    for limit in (NUM_PRODUCTS, 25):
        ours = boosted.rank(RawRequests(QUERIES), 7, limit)
        for query, row in zip(QUERIES, ours.tolist(), strict=True):
            expected = products_by_hand(index, query, multiplier, limit)[:7]
            assert row == expected + [-1] * (7 - len(expected))
        changed += int((plain.rank(RawRequests(QUERIES), 7, limit) != ours).sum())
    assert changed > 50
    np.testing.assert_array_equal(quality.multiplier({}), np.ones(NUM_PRODUCTS))


def test_quality_that_people_buy_by_is_found(quality: Quality, index: BM25) -> None:
    """Targets are the best sellers among what matches: `sales` gets weight, `noise` less, and recall is as said."""
    truth = quality.multiplier({"sales": 0.8})
    requests = requests_for([products_by_hand(index, query, truth, NUM_PRODUCTS)[:2] for query in QUERIES])
    chosen = quality.tune(index, requests, k=5)
    assert chosen["weights"]["sales"] > chosen["weights"]["noise"]
    assert chosen["weights"]["sales"] >= 0.2
    assert chosen["num_requests"] == len(QUERIES)
    recalls = [
        np.mean([target in row for target in wanted])
        for row, wanted in zip(
            Lexical(index, quality.multiplier(chosen["weights"])).rank(requests.raw, 5, NUM_PRODUCTS),
            requests.target_lists(),
            strict=True,
        )
    ]
    assert chosen["recall@5"] == pytest.approx(np.mean(recalls))
    assert chosen["recall@5"] > chosen["tried"][0]["recall"] + 0.05


def test_quality_that_says_nothing_is_left_out(quality: Quality, index: BM25) -> None:
    """Where BM25's own order is right, every weight only harms; a target that the catalogue lacks is a miss."""
    targets = [[*products_by_hand(index, query, np.ones(NUM_PRODUCTS), NUM_PRODUCTS)[:5], -1] for query in QUERIES]
    chosen = quality.tune(index, requests_for(targets), k=5)
    assert chosen["weights"] == {"sales": 0.0, "noise": 0.0}
    assert chosen["recall@5"] == pytest.approx(np.mean([(len(row) - 1) / len(row) for row in targets]))
    assert len(chosen["tried"]) > 10


def test_without_selection_requests_nothing_is_weighed(quality: Quality, index: BM25) -> None:
    empty = Requests(
        RawRequests([]),
        np.empty(0, str),
        np.empty(0, np.int64),
        Targets(np.empty(0, np.int64), np.empty(0, np.int64)),
        np.empty(0, bool),
        np.empty(0, bool),
    )
    chosen = quality.tune(index, empty)
    assert chosen["weights"] == {"sales": 0.0, "noise": 0.0}
    assert chosen["num_requests"] == 0


def test_features_come_from_an_export(tmp_path: Path) -> None:
    """Names, standardisation and T are those of `uepp boost`."""
    import pyarrow.parquet as pq

    from uepp.artifacts import write_json

    products = pa.table(
        {
            "product_id": ["a", "b", "c"],
            "shop_id": pa.array([None, None, None], pa.string()),
            "created_at": pa.array([None, None, None], pa.timestamp("us", "UTC")),
            "quality_rating": [1.0, 2.0, 3.0],
            "quality_as_of": pa.array([None, None, None], pa.timestamp("us", "UTC")),
        }
    )
    pq.write_table(products, tmp_path / "products.parquet")
    graph = pa.table({"product_id": pa.array([], pa.string()), "clicks": pa.array([], pa.int64())})
    pq.write_table(graph.append_column("purchases", graph["clicks"]), tmp_path / "graph.parquet")
    write_json(tmp_path / "windows.json", {"train_end": "2024-05-01T00:00:00+00:00"})
    made = Quality(tmp_path)
    assert [feature.name for feature in made.features] == ["quality_rating"]
    multiplier = made.multiplier({"quality_rating": 0.5})
    step = 0.5 * np.sqrt(3 / 2)
    np.testing.assert_allclose(multiplier, np.exp([-step, 0, step]), rtol=1e-5)
