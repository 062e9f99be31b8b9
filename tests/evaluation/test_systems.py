"""Which systems there are for an export, how they are fitted, and that what they choose is chosen once."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from uepp import study
from uepp.artifacts import write_json
from uepp.config import Config
from uepp.errors import InputError
from uepp.evaluation.requests import Requests, Targets
from uepp.evaluation.systems import LABELS, OPPONENTS, SYSTEMS, Known, chosen_opponents
from uepp.features.requests import PastEvents, RawRequests
from uepp.lexical.bm25 import BM25, DEFAULT_SETTINGS, BM25Settings
from uepp.lexical.fusion import FusionSettings

MOMENT = pa.timestamp("us", "UTC")
WITHOUT_TOWERS = ("bm25", "bm25_quality", "bm25_stemmed", "bm25_plain", "bm25_title", "random_walk")
BY_COUNTS = ("category_popularity", "own_history", "popularity")
REQUESTS = RawRequests(
    ["gold ring", "mug"],
    pointers={kind: np.array([[0, 1], [0, 0]]) for kind in ("searches", "clicks", "purchases")},
    past=PastEvents({}, {"clicks": np.array([4]), "purchases": np.array([1])}),
)


def write_export(directory: Path, *, category: bool = True, people: bool = True, **manifest: Any) -> Path:
    directory.mkdir()
    kinds = ["ring", "ring", "lamp", "lamp", "mug", "mug"]
    products = pa.table(
        {
            "product_id": [f"p{row}" for row in range(6)],
            "title": ["gold ring", "silver ring", "red lamp", "gold lamp", "mug", "mug of gold"],
            "tags": pa.array([["gift"]] * 6, pa.list_(pa.string())),
            "category": pa.array(kinds if category else [None] * 6, pa.string()),
            "attributes": pa.array([None] * 6, pa.map_(pa.string(), pa.list_(pa.string()))),
            "description": pa.array([None] * 6, pa.string()),
            "shop_id": pa.array([None] * 6, pa.string()),
            "created_at": pa.array([None] * 6, MOMENT),
            "quality_rating": [1.0, 5.0, 2.0, 3.0, 4.0, 2.5],
            "quality_as_of": pa.array([None] * 6, MOMENT),
        }
    )
    pq.write_table(products, directory / "products.parquet")
    graph = {"query": ["gold", "mug"], "product_id": ["p3", "p4"], "clicks": [3, 1], "carts": [0, 0]}
    pq.write_table(pa.table({**graph, "purchases": [2, 1]}), directory / "graph.parquet")
    write_json(directory / "windows.json", {"train_end": "2024-05-01T00:00:00+00:00"})
    start = DEFAULT_SETTINGS["tuned"]
    write_json(directory / "bm25.json", {"k1": start.k1, "b": start.b, "weights": dict(start.weights)})
    write_json(directory / "manifest.json", {"files": {}, **manifest})
    for kind in ("clicks", "purchases"):
        table = pa.table({"product_id": pa.array(["p1"] if people else [], pa.string())})
        pq.write_table(table, directory / f"history_{kind}.parquet")
    return directory


def selection() -> Requests:
    raw = RawRequests(["gold", "ring", "mug"])
    targets = Targets(np.array([0, 1, 2]), np.array([3, 1, 4]))
    return Requests(raw, np.array(["mon"] * 3), np.full(3, 6), targets, np.zeros(3, bool), np.zeros(3, bool))


def known(export: Path, chosen_in: Path, version: str = "1", requests: Any = selection) -> Known:
    return Known(export, Config(), requests, chosen_in, version)


def test_every_system_has_a_label_of_its_own() -> None:
    assert set(OPPONENTS) | {"uepp"} == SYSTEMS.keys() == LABELS.keys()
    assert next(iter(SYSTEMS)) == "uepp"
    assert len(set(LABELS.values())) == len(LABELS)


def test_what_is_compared_by_default_is_what_the_data_allow(tmp_path: Path) -> None:
    full = known(write_export(tmp_path / "full"), tmp_path)
    lexical = ("bm25", "bm25_quality", "bm25_stemmed", "bm25_plain")
    names = (*lexical, "random_walk", "category_popularity", "own_history")
    assert chosen_opponents(None, full) == ("fusion", *names)
    bare = known(write_export(tmp_path / "bare", category=False, people=False), tmp_path)
    assert chosen_opponents(None, bare) == ("fusion", *names[:-2])
    (tmp_path / "bare" / "bm25.json").unlink()
    assert chosen_opponents(None, bare) == ("bm25_stemmed", "bm25_plain", "random_walk")
    for name in ("generated_queries.parquet", "bm25_expanded.json", "boosting.json"):
        (tmp_path / "full" / name).touch()
    assert chosen_opponents(None, full) == ("uepp_boost", "fusion", "bm25_expanded", *names)
    (tmp_path / "full" / "ranker").mkdir()
    (tmp_path / "full" / "ranker" / "ranker.json").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("uepp.evaluation.systems.load_lightgbm", lambda: None)
        assert chosen_opponents(None, full) == ("uepp_boost", "uepp_rerank", "fusion", "bm25_expanded", *names)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "lightgbm", None)
        assert "uepp_rerank" not in chosen_opponents(None, full)
    assert chosen_opponents(("popularity", "own_history"), bare) == ("popularity", "own_history")
    refreshed = known(write_export(tmp_path / "new", catalogue={"refresh": 1}), tmp_path)
    assert "bm25_quality" not in chosen_opponents(None, refreshed)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("elastic", "unknown system; known are uepp_boost, uepp_rerank, uepp_query"),
        ("uepp", "unknown system"),
        ("bm25", "has no tuned BM25; make it with: uepp export"),
        ("fusion", "has no tuned BM25"),
        ("bm25_expanded", "has no generated queries; they come with"),
        ("uepp_boost", "has no boosting; make it with: uepp boost"),
        ("uepp_rerank", "has no ranker; make it with: uepp relevance rank"),
        ("bm25_quality", "its catalogue was refreshed"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    export = write_export(tmp_path / "export", catalogue={"refresh": 1})
    (export / "bm25.json").unlink()
    with pytest.raises(InputError, match=rf"^--against {name}: .*{reason}"):
        chosen_opponents(("popularity", name), known(export, tmp_path))


def test_a_study_refuses_it_before_anything_is_trained(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump({"variants": {"v": {}}, "against": ["bm25", "elastic"]}), encoding="utf-8")
    with pytest.raises(InputError, match=r"s\.yaml: against: elastic: unknown system; known are "):
        study.load_study(str(path))


@pytest.mark.parametrize("name", [*WITHOUT_TOWERS, *BY_COUNTS])
def test_every_baseline_is_fitted_and_ranks(tmp_path: Path, name: str) -> None:
    of = known(write_export(tmp_path / "export"), tmp_path / "baselines")
    system = SYSTEMS[name].fit(of)
    for num_products in (6, 2):
        ranking = system.rank(REQUESTS, 4, num_products)
        assert ranking.shape == (2, 4)
        assert np.issubdtype(ranking.dtype, np.integer)
        assert ranking.max() < num_products
        for row in ranking.tolist():
            found = [product for product in row if product >= 0]
            assert len(set(found)) == len(found)
            assert row == found + [-1] * (4 - len(found))
    assert (system.rank(REQUESTS, 4, 6) >= 0).any(axis=1).all()
    first = system.rank(REQUESTS, 1, 6)[0, 0]
    assert first == {"category_popularity": 3, "popularity": 3, "own_history": 1, "random_walk": 3}.get(name, 0)


def test_titles_alone_know_no_tags(tmp_path: Path) -> None:
    of = known(write_export(tmp_path / "export"), tmp_path / "baselines")
    gift = RawRequests(["gift"])
    assert (SYSTEMS["bm25"].fit(of).rank(gift, 6, 6) >= 0).all()
    assert (SYSTEMS["bm25_title"].fit(of).rank(gift, 6, 6) == -1).all()


@pytest.mark.parametrize("name", ["bm25_quality", "bm25_title"])
def test_settings_are_chosen_once_for_an_export(tmp_path: Path, name: str) -> None:
    export, folder = write_export(tmp_path / "export"), tmp_path / "baselines"
    asked = []

    def requests() -> Requests:
        asked.append(1)
        return selection()

    one = known(export, folder, requests=requests)
    SYSTEMS[name].fit(one)
    kept = json.loads((folder / f"{name}.json").read_text())
    assert kept.pop("version")
    assert one.used == {name: kept}
    again = known(export, folder, requests=requests)
    SYSTEMS[name].fit(again)
    assert again.used == one.used
    assert len(asked) == 1
    SYSTEMS[name].fit(known(export, folder, version="2", requests=requests))
    assert len(asked) == 2


def test_without_selection_requests_settings_are_the_start(tmp_path: Path) -> None:
    empty = Targets(np.empty(0, np.int64), np.empty(0, np.int64))
    nobody = Requests(
        RawRequests([]), np.empty(0, str), np.empty(0, np.int64), empty, np.empty(0, bool), np.empty(0, bool)
    )
    of = known(write_export(tmp_path / "export"), tmp_path / "baselines", requests=lambda: nobody)
    SYSTEMS["bm25_title"].fit(of)
    assert of.used["bm25_title"]["weights"] == dict(DEFAULT_SETTINGS["tuned"].weights)
    plain, times_quality = (SYSTEMS[name].fit(of).rank(REQUESTS, 6, 6) for name in ("bm25", "bm25_quality"))
    np.testing.assert_array_equal(plain, times_quality)


@pytest.mark.parametrize("expanded", [False, True])
def test_the_fusion_is_the_servers(tmp_path: Path, expanded: bool) -> None:
    """With the export's weight and constant, and the BM25 that it serves: "loud" is only in a generated query."""
    export = write_export(tmp_path / "export")
    write_json(export / "fusion.json", {"weight": 0.4, "constant": 1.0})
    titles = pq.read_table(export / "products.parquet")["title"].to_pylist()
    generated = ["", "", "", "", "", "loud mug"]
    pq.write_table(
        pa.table({"product_id": [f"p{row}" for row in range(6)], "queries": [[text] for text in generated]}),
        export / "generated_queries.parquet",
    )
    weights = {"word": 1.0, "generated": 2.0} if expanded else {"word": 1.0}
    write_json(export / "bm25.json", {"k1": 1.0, "b": 0.5, "weights": {"word": 1.0}})
    write_json(export / "bm25_expanded.json", {"k1": 1.0, "b": 0.5, "weights": {"word": 1.0, "generated": 2.0}})
    texts = {"title": titles, "generated": generated}
    index = BM25.build(texts, "tuned", BM25Settings(1.0, 0.5, weights))
    index.save(export / "lexical")
    towers = np.array([[3, 2, 0, -1], [1, 4, 5, 0]])

    class Stub:
        def rank(self, requests: RawRequests, k: int, num_products: int) -> np.ndarray:
            return towers

    fitted = known(export, tmp_path)
    fitted.__dict__["towers"] = Stub()
    queries = ["gold", "loud mug"]
    found = SYSTEMS["fusion"].fit(fitted).rank(RawRequests(queries), 4, 6)
    by_words = index.search(queries, 6)[0]
    assert found.tolist() == FusionSettings(0.4, 1.0).fuse(towers, by_words, 4)[0].tolist()
    assert found.tolist() != FusionSettings().fuse(towers, by_words, 4)[0].tolist()
    assert fitted.used["fusion"] == {"weight": 0.4, "constant": 1.0}
