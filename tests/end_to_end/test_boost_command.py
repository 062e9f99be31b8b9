"""`uepp boost` on a market whose buyers choose by quality among what is similar, and on one where they do not.

The towers are stand-ins: a query's text is its vector, so that the test knows what is similar to what.
"""

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from commands import Call
from files import digests
from stand_in_run import DIM, STRINGS, TIMESTAMP, T, begin_run, finish_run, unit, write_requests

from uepp.artifacts import check_manifest, read_json, write_json, write_manifest
from uepp.config import ExportConfig, HistoryConfig
from uepp.errors import InputError
from uepp.evaluation import baselines
from uepp.evaluation.baselines import Towers
from uepp.features.requests import RawRequests
from uepp.pipeline import boosting, stored
from uepp.retrieval.boosting import read_boosting, write_boosting
from uepp.retrieval.export import rebuild_index
from uepp.retrieval.index import search_exact

NUM_PRODUCTS, NUM_KNOWN, NUM_SUBJECTS, K = 400, 380, 10, 5


def write_run(run: Path, *, quality_counts: bool = True, has_quality: bool = True, late: bool = False) -> Path:
    """A finished run: 10 subjects with 40 products each, 200 requests a window, each with one purchase."""
    rng = np.random.default_rng(7)
    subjects = unit(rng.standard_normal((NUM_SUBJECTS, DIM)))
    subject = np.arange(NUM_PRODUCTS) % NUM_SUBJECTS
    vectors = unit(subjects[subject] + 0.25 * rng.standard_normal((NUM_PRODUCTS, DIM)))
    quality = rng.standard_normal(NUM_PRODUCTS)
    settings = {"evaluation": {"recall_at": [1, K]}, "boosting": {"at": K, "num_trials": 14, "max_boost": 4.0}}
    export = begin_run(run, "run 9", settings)

    # Products: the last ones came after T; one quality column says what counts, another one is noise.
    created = [T - timedelta(days=NUM_KNOWN - row - 0.5) for row in range(NUM_PRODUCTS)]
    columns: dict[str, Any] = {
        "product_id": [f"{row:04}" for row in range(NUM_PRODUCTS)],
        "title": [f"product {row}" for row in range(NUM_PRODUCTS)],
        "tags": pa.array([[]] * NUM_PRODUCTS, STRINGS),
        **{name: pa.nulls(NUM_PRODUCTS, pa.string()) for name in ("category", "description", "shop_id")},
        "attributes": pa.nulls(NUM_PRODUCTS, pa.map_(pa.string(), STRINGS)),
        "created_at": pa.array(created if has_quality else [None] * NUM_PRODUCTS, TIMESTAMP),
        "quality_as_of": pa.array([T + timedelta(days=late)] * NUM_PRODUCTS, TIMESTAMP),
    }
    if has_quality:
        columns["quality_stars"] = 4 + 0.3 * quality
        columns["quality_noise"] = rng.standard_normal(NUM_PRODUCTS)

    # Requests: of the twelve most similar products, buyers take one by quality, or any.
    queries, bought = [], []
    for number in range(400):
        query = subjects[number % NUM_SUBJECTS] + 0.15 * rng.standard_normal(DIM)
        seen = NUM_KNOWN + 1 + number // 100  # one new product a day
        similar = np.argsort(-(vectors[:seen] @ query))[:12]
        chance = np.exp(2.0 * quality[similar] * quality_counts)
        queries.append(query)
        bought.append(columns["product_id"][rng.choice(similar, p=chance / chance.sum())])
    texts = write_requests(run, queries, bought)

    # Queries of the first subject were asked before T, the others never.
    asked = texts[::NUM_SUBJECTS]
    pq.write_table(pa.table({"query": asked, "count": [1] * len(asked)}), export / "query_counts.parquet")
    graph = {"query": pa.string(), "product_id": pa.string()} | dict.fromkeys(
        ("clicks", "carts", "purchases"), pa.int64()
    )
    pq.write_table(pa.schema(list(graph.items())).empty_table(), export / "graph.parquet")
    write_json(
        export / "windows.json", {"train_end": T.isoformat(), "selection_end": (T + timedelta(days=2)).isoformat()}
    )
    write_json(export / "bm25.json", {"k1": 1.0, "b": 0.5, "weights": {"word": 1.0}})
    finish_run(run, "run 9", columns, vectors)
    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("quality counts") / "run")


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A run of its own, to boost."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def vectors_of(run: Path) -> np.ndarray:
    return np.load(run / "export" / "vectors" / "part-00000.npy")


def test_boost_evaluate_and_off(run: Path, call: Call) -> None:
    before = digests(run / "export")
    result = call("boost", run, "--json").json

    # What counts is found, within the bound, and holds on days that nothing was tuned on.
    weights = {feature["name"]: feature["weight"] for feature in result["features"]}
    assert weights.keys() == {"quality_stars", "quality_noise", "freshness"}
    assert result["is_boosted"]
    assert weights["quality_stars"] > 3 * max(weights["quality_noise"], weights["freshness"])
    assert result["bound"]["boost_range"] <= result["bound"]["allowed_boost_range"] + 1e-6
    assert result["tuned_on"]["num_trials"] == 3 * 14
    assert result["tuned_on"]["num_requests"] == 200
    whole = result["report"]["all"]
    assert whole["num_requests"] == 200
    gain = whole[f"recall@{K}"]
    assert gain["interval"][0] > 0.03
    assert gain["interval"][0] < gain["difference"] == pytest.approx(gain["after"] - gain["before"])
    assert sum(result["report"][segment]["num_requests"] for segment in ("head", "torso", "tail")) == 200
    assert result["report"]["tail"]["num_requests"] == 180
    assert result["report"]["torso"][f"recall@{K}"]["before"] is None, "nobody is in it"

    # The cheap way of the trade-off is the plain way of the table, with the weights and without.
    curve = {row["scale"]: row for row in result["trade_off"]}
    scale = result["tuned_on"]["scale"]
    assert curve[0.0]["all"] == pytest.approx(gain["before"])
    assert curve[scale]["all"] == pytest.approx(gain["after"])
    assert curve[0.0]["overlap"] == 1
    assert curve[0.0]["largest_loss"] == 0
    rows = result["trade_off"]
    assert rows[-1]["boost_range"] > result["bound"]["allowed_boost_range"]
    assert all(row["largest_loss"] <= row["boost_range"] + 1e-6 for row in rows)
    similarities = [row["similarity"] for row in rows]
    assert similarities == sorted(similarities, reverse=True)
    assert similarities[-1] < similarities[0] - 0.001
    files = {path.name: path.stat().st_size for path in (run / "boosting").iterdir()}
    assert files.keys() == {"report.json", "trials.json", "tradeoff.svg", "tradeoff.png"}
    assert min(files.values()) > 1_000
    assert read_json(run / "boosting" / "report.json") == result

    # The export: boosted as a whole, the cosine part as it was.
    export = run / "export"
    check_manifest(export)
    after = digests(export)
    assert after.keys() - before.keys() == {"boosting.json", "quality.npy"}
    changed = {name for name in before if before[name] != after[name]}
    assert changed <= {"index.faiss", "manifest.json", "serving.json"}
    boosting = read_boosting(export)
    assert boosting is not None
    assert set(boosting.features) == {name for name, weight in weights.items() if weight > 0}
    facts = read_json(export / "boosting.json")
    assert (facts["run_id"], facts["clip"]) == ("run 9", 3.0)
    stars = next(feature for feature in facts["features"] if feature["name"] == "quality_stars")
    column = pq.read_table(export / "products.parquet")["quality_stars"].to_numpy()
    assert stars["mean"] == pytest.approx(column[:NUM_KNOWN].mean())
    assert stars["std"] == pytest.approx(column[:NUM_KNOWN].std())
    f = np.clip((column - stars["mean"]) / stars["std"], -3, 3)
    np.testing.assert_allclose(boosting.quality[:, boosting.features.index("quality_stars")], f, atol=1e-5)

    # The index: S(q, p) = p · q + w · f(p).
    vectors, queries = vectors_of(run), unit(np.random.default_rng(1).standard_normal((20, DIM)))
    index = faiss.read_index(str(export / "index.faiss"))
    scores, rows_found = index.search(boosting.queries(queries), K)
    expected = queries @ vectors.T + boosting.quality @ boosting.weights
    np.testing.assert_allclose(scores, np.sort(expected, axis=1)[:, ::-1][:, :K], atol=1e-5)
    similarity = scores - boosting.bonus(rows_found)
    np.testing.assert_allclose(similarity, np.take_along_axis(queries @ vectors.T, rows_found, axis=1), atol=1e-5)
    assert (rows_found != search_exact(queries, vectors, K)[0]).any()

    # Evaluation has both, and they are those of the table.
    systems = call("evaluate", run, "--json").json["systems"]
    assert list(systems)[:2] == ["uepp", "uepp_boost"]
    assert systems["uepp"]["all"][f"recall@{K}"] == pytest.approx(gain["before"])
    assert systems["uepp_boost"]["all"][f"recall@{K}"] == pytest.approx(gain["after"])
    assert call("evaluate", run, "--against", "uepp_boost", "--json").json["systems"] == {
        name: systems[name] for name in ("uepp", "uepp_boost")
    }

    # Again: from the vectors, not from the boosted index, so the same comes out.
    again = call("boost", run, "--json").json
    assert again == result

    # And off: as if it had never been.
    assert call("boost", run, "--off", "--json").json == {"was_boosted": True}
    assert digests(export) == before
    assert call("boost", run, "--off", "--json").json == {"was_boosted": False}
    assert "uepp_boost" not in call("evaluate", run, "--json").json["systems"]
    assert "has no boosting" in call("evaluate", run, "--against", "uepp_boost").error


def test_the_table(run: Path, call: Call) -> None:
    outcome = call("boost", run, "--at", "3", "--trials", "6", "--max-boost", "5")
    assert outcome.code == 0, outcome.err
    assert "quality_stars" in outcome.out
    assert "recall@3 on held-out selection requests" in outcome.out
    assert "interval" in outcome.out
    assert "torso (0)" in outcome.out
    report = read_json(run / "boosting" / "report.json")
    assert report["bound"]["max_boost"] == 5
    assert report["tuned_on"]["num_trials"] == len(read_json(run / "boosting" / "trials.json")) == 18
    assert "boosting" in (run / "config.yaml").read_text(), "the run's own settings stay"
    assert yaml.safe_load((run / "config.yaml").read_text())["boosting"]["at"] == K


def test_what_is_large_is_read_once(run: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """For both windows, and with and without boosting: vectors, tower and histories."""
    read: list[str] = []

    def noting(module: Any, name: str) -> None:
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *arguments: read.append(name) or original(*arguments))

    noting(baselines, "read_vectors")
    noting(baselines, "load_tower")
    noting(stored, "load_past_events")
    assert call("boost", run, "--trials", "6", "--json").json["is_boosted"]
    assert sorted(read) == ["load_past_events", "load_tower", "read_vectors"]


def test_many_requests_are_drawn_from(run: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are tuned on, and the trade-off follows, some of them, always the same; the report has all."""
    monkeypatch.setattr(boosting, "_MAX_REQUESTS", 150)
    outcome = call("boost", run, "--trials", "6")
    assert "tuned on 150 of 200, drawn, selection requests; " in outcome.err
    result = read_json(run / "boosting" / "report.json")
    tuned_on = read_json(run / "export" / "boosting.json")["tuned_on"]
    assert tuned_on == result["tuned_on"]
    assert (tuned_on["num_requests"], tuned_on["of_requests"], result["trade_off_requests"]) == (150, 200, 150)
    assert tuned_on["num_candidates"] >= 150 * 4 * K
    assert tuned_on["num_compared"] == 0
    assert result["report"]["all"]["num_requests"] == 200
    assert call("boost", run, "--trials", "6", "--json").json == result


def test_quality_that_does_not_count_is_no_boost(tmp_path: Path, call: Call) -> None:
    """A boosting that was there goes away with it."""
    run = write_run(tmp_path / "run", quality_counts=False)
    before = digests(run / "export")
    quality = np.ones((NUM_PRODUCTS, 1), np.float32)
    np.save(run / "export" / "quality.npy", quality)
    write_json(run / "export" / "boosting.json", {"features": [{"name": "old", "weight": 0.1}]})
    write_manifest(run / "export", **{name: read_json(run / "export" / "manifest.json")[name] for name in (
        "run_id", "uepp_version", "num_products")})  # fmt: skip
    outcome = call("boost", run)
    assert outcome.code == 0, outcome.err
    assert "No weights beat similarity alone" in outcome.out
    result = read_json(run / "boosting" / "report.json")
    assert not result["is_boosted"]
    assert result["tuned_on"]["scale"] == 0
    assert all(feature["weight"] == 0 for feature in result["features"])
    assert digests(run / "export") == before


def test_what_somebody_else_published_stays(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that bring nothing are of the export that was read, not of one that was boosted meanwhile."""
    run = write_run(tmp_path / "run", quality_counts=False)
    assess = boosting._facts

    def meanwhile(*given: Any) -> dict[str, Any]:
        facts = {"features": [{"name": "theirs", "weight": 0.1}]}
        quality = np.random.default_rng(1).standard_normal((NUM_PRODUCTS, 1)).astype(np.float32)
        rebuild_index(run / "export", ExportConfig(), lambda folder: write_boosting(folder, quality, facts))
        return assess(*given)

    monkeypatch.setattr(boosting, "_facts", meanwhile)
    assert "was replaced meanwhile; do it again" in call("boost", run).error
    check_manifest(run / "export")
    theirs = read_boosting(run / "export")
    assert theirs is not None
    assert theirs.features == ("theirs",)


def test_what_cannot_be_boosted_is_refused(run: Path, tmp_path: Path, call: Call) -> None:
    before = digests(run)
    assert "boosting.at = 0" in call("boost", run, "--at", "0").error
    assert "boosting.max_boost = 0.0" in call("boost", run, "--max-boost", "0").error
    assert "leave out --at" in call("boost", run, "--off", "--at", "3").error
    assert "not a run directory" in call("boost", tmp_path).error
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["boosting"]["features"] = ["stars"]
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    assert "boosting.features: stars" in call("boost", run).error
    settings["boosting"].pop("features")
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    assert digests(run) == before
    requests = run / "mined" / "0123" / "requests.parquet"
    table = pq.read_table(requests)
    pq.write_table(table.slice(199), requests)
    assert "1 requests with a target in the selection window" in call("boost", run).error
    plain = write_run(tmp_path / "plain", has_quality=False)
    assert "nothing to boost by" in call("boost", plain).error
    late = write_run(tmp_path / "late", late=True)
    assert "leakage" in call("boost", late).error
    (run / "export" / "vectors" / "part-00000.npy").write_bytes(b"damaged")
    assert "differs from its SHA-256" in call("boost", run).error


def test_without_report_requests_there_is_no_table(run: Path, call: Call) -> None:
    requests = run / "mined" / "0123" / "requests.parquet"
    pq.write_table(pq.read_table(requests).slice(0, 200), requests)
    outcome = call("boost", run, "--trials", "6")
    assert outcome.code == 0, outcome.err
    assert "The report window has no requests." in outcome.out
    assert read_json(run / "boosting" / "report.json")["report"] is None
    assert {path.name for path in (run / "boosting").iterdir()} == {"report.json", "trials.json"}


@pytest.mark.parametrize("num_products", [NUM_PRODUCTS, 100, 3])
def test_the_boosted_system_keeps_to_the_catalogue_of_the_day(run: Path, num_products: int) -> None:
    rng = np.random.default_rng(3)
    queries = unit(rng.standard_normal((6, DIM)))
    raw = RawRequests([" ".join(map(str, query)) for query in queries])
    with pytest.raises(InputError, match="has no boosting; make it with: uepp boost"):
        Towers(run / "export", HistoryConfig(), is_boosted=True)
    quality, weights = rng.standard_normal((NUM_PRODUCTS, 2)).astype(np.float32), [0.1, 0.4]
    named = [{"name": f"quality_{n}", "weight": weight} for n, weight in enumerate(weights)]
    write_boosting(run / "export", quality, {"features": named})
    ranking = Towers(run / "export", HistoryConfig(), is_boosted=True).rank(raw, K, num_products)
    scores = queries @ vectors_of(run)[:num_products].T + quality[:num_products] @ np.array(weights, np.float32)
    order = np.argsort(-scores, axis=1)[:, :K]
    assert ranking.tolist() == [[*row, *[-1] * (K - len(row))] for row in order.tolist()]
    plain = Towers(run / "export", HistoryConfig()).rank(raw, K, num_products)
    assert (plain != ranking).any()
