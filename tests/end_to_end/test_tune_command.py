"""`uepp tune` on a run whose towers are stand-ins: a query's text is its vector."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from commands import Call
from stand_in_run import DIM, STRINGS, TIMESTAMP, begin_run, finish_run, unit, write_requests

from uepp.artifacts import check_manifest, read_json, write_json
from uepp.config import ExportConfig
from uepp.index_families import FAMILIES, parse_spec
from uepp.pipeline import tuning
from uepp.retrieval.boosting import write_boosting
from uepp.retrieval.export import rebuild_index
from uepp.retrieval.index import search_exact
from uepp.retrieval.product_index import ProductIndex

N, AT = 900, 20


def write_run(run: Path) -> Path:
    """900 products around thirty directions, 240 requests of two windows, each with one purchase."""
    rng = np.random.default_rng(3)
    centers = unit(rng.standard_normal((30, DIM)))
    vectors = unit(centers[rng.integers(0, 30, N)] + 0.3 * rng.standard_normal((N, DIM)))
    begin_run(run, "run 5", {})
    ids = [f"{row:04}" for row in range(N)]
    products = {"product_id": ids, "title": [f"product {row}" for row in range(N)]}
    products |= {"tags": pa.array([[]] * N, STRINGS), "shop_id": pa.nulls(N, pa.string())}
    products |= {"created_at": pa.nulls(N, TIMESTAMP)}
    queries, bought = [], []
    for number in range(240):
        query = centers[number % 30] + 0.3 * rng.standard_normal(DIM)
        queries.append(query)
        bought.append(ids[rng.choice(np.argsort(-(vectors @ query))[:AT])])
    write_requests(run, queries, bought)
    finish_run(run, "run 5", products, vectors)
    return run


@pytest.fixture(scope="module")
def untuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("untuned") / "run")


@pytest.fixture
def run(untuned: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(untuned, tmp_path / "run"))


QUICK = ("--at", AT, "--budget-ms", 10_000, "--families", "flat,ivf-flat,hnsw")


def test_the_tuned_point_is_served_and_reported(run: Path, call: Call) -> None:
    outcome = call("tune", run, *QUICK, "--trials", 12)
    assert outcome.code == 0, outcome.err
    assert "Serves with: " in outcome.out
    assert "12/12 " in outcome.err
    tuning = run / "tuning"
    result = read_json(tuning / "report.json")
    assert result["num_requests"]["report"] == 120
    assert result["num_requests"]["tuned_on"] + result["num_requests"]["held_out"] == 120
    assert 10 < result["num_requests"]["held_out"] < 70
    assert (result["num_trials"], result["num_products"], result["is_boosted"]) == (12, N, False)
    assert len((tuning / "trials.jsonl").read_text().splitlines()) == 12
    assert {file.name for file in tuning.iterdir()} == {
        "indexes", "pareto.png", "pareto.svg", "report.json", "report.md", "trials.jsonl",
    }  # fmt: skip

    served = read_json(run / "export" / "serving.json")
    assert served["index"] == served["tuned"]["index"] == result["chosen"]
    assert served["tuned"]["measured_on"] == "report"
    assert {"budget_ms", "at", "p99_ms", "overlap@20", "recall_loss@20", "num_requests", "when"} <= served[
        "tuned"
    ].keys()
    assert served["tuned"]["overlap@20"] > 0.99, "with so much time nothing has to be lost"
    assert yaml.safe_load((run / "config.yaml").read_text())["export"]["index"] == "auto"
    check_manifest(run / "export")
    index = ProductIndex.open(run / "export")
    vectors = np.load(run / "export" / "vectors" / "part-00000.npy")
    exact, _ = search_exact(vectors[:50], vectors, AT)
    found = index.search(vectors[:50], AT).rows
    assert np.mean([len(set(a) & set(b)) / AT for a, b in zip(found, exact, strict=True)]) > 0.98


def test_it_tunes_for_what_serving_searches(run: Path, call: Call) -> None:
    """And says so where it is told another number."""
    few = ("--budget-ms", 10_000, "--families", "flat", "--trials", 1)
    outcome = call("tune", run, *few)
    assert (outcome.code, read_json(run / "tuning" / "report.json")["at"]) == (0, 200), outcome.err
    assert "note:" not in outcome.err
    outcome = call("tune", run, *few, "--at", 300)
    assert read_json(run / "export" / "serving.json")["tuned"]["at"] == 300
    note = "note: tuned for the first 300 products, but serving searches for 200 (serving.depth): --at 200"
    assert note in outcome.err
    (run / "config.yaml").write_text("serving: {depth: 5000}\n")
    assert call("tune", run, *few).code == 0
    assert read_json(run / "tuning" / "report.json")["at"] == N, "there are no more"


def test_auto_means_the_tuned_point_until_the_vectors_are_others(run: Path, call: Call) -> None:
    assert call("tune", run, "--at", AT, "--budget-ms", 10_000, "--families", "ivf-flat", "--trials", 3).code == 0
    tuned = read_json(run / "export" / "serving.json")["tuned"]
    assert parse_spec(tuned["index"]).family == "ivf-flat"
    assert call("export", run, "--index", "hnsw:ef_search=30").code == 0
    served = read_json(run / "export" / "serving.json")
    assert (served["index"], served["tuned"]) == ("hnsw:neighbors=32,ef_construction=80,ef_search=30", tuned)
    assert call("export", run, "--index", "auto").code == 0
    assert read_json(run / "export" / "serving.json")["index"] == tuned["index"]

    quality = np.random.default_rng(1).standard_normal((N, 1)).astype(np.float32)
    facts = {"features": [{"name": "stars", "weight": 0.1}]}
    rebuild_index(run / "export", ExportConfig(index="auto"), lambda folder: write_boosting(folder, quality, facts))
    assert read_json(run / "export" / "serving.json") == {"index": "flat", "tuned": None}
    outcome = call("tune", run, *QUICK, "--trials", 4, "--json")
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    assert (result["is_boosted"], result["dim"], result["num_trials"]) == (True, DIM + 1, 4)
    assert len(list((run / "tuning" / "indexes").iterdir())) == 1, "what was built of other vectors is gone"
    assert ProductIndex.open(run / "export").faiss_index.d == DIM + 1


def test_nothing_is_built_for_an_export_that_was_replaced(
    run: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Indexes of the old vectors stood under the key of the new ones, and the next call published them."""
    path = run / "export" / "vectors" / "part-00000.npy"
    find = tuning.load_references

    def reverse(folder: Path) -> None:
        new = folder / "vectors" / path.name
        vectors = np.load(new)
        new.unlink()  # it is a link to the old one
        np.save(new, vectors[::-1])

    def meanwhile(*given: Any, **about: Any) -> Any:
        found = find(*given, **about)
        rebuild_index(run / "export", ExportConfig(), reverse)
        return found

    first = np.load(path)[0]
    few = (*QUICK[:4], "--families", "ivf-flat", "--trials", 2)
    with monkeypatch.context() as patch:
        patch.setattr(tuning, "load_references", meanwhile)
        assert "was replaced meanwhile; do it again" in call("tune", run, *few).error
    assert not list(run.glob("tuning/**/*.faiss"))
    assert not (run / "tuning" / "trials.jsonl").exists()
    assert call("tune", run, *few).code == 0
    found = ProductIndex.open(run / "export").search(np.load(path)[[0, N - 1]], 1).rows
    assert found.tolist() == [[0], [N - 1]]
    np.testing.assert_array_equal(np.load(path)[N - 1], first)


@pytest.mark.parametrize("has_export", [False, True])
def test_an_index_that_does_not_fit_is_refused_at_once(run: Path, call: Call, has_export: bool) -> None:
    """After minutes, and it stood in the configuration: the next export was refused, too."""
    facts = read_json(run / "run.json")
    write_json(run / "run.json", facts | {"data": str(run)})
    if not has_export:
        (run / "export" / "products.parquet").rename(run / "products.parquet")
        shutil.rmtree(run / "export")
    before = (run / "config.yaml").read_text()
    error = call("export", run, "--index", "ivf-flat:nlist=1000").error
    assert f"nlist=1000: must be at most the {N} products" in error, "and not: there are no features"
    assert (run / "config.yaml").read_text() == before


def test_a_second_call_goes_on(run: Path, call: Call) -> None:
    assert call("tune", run, *QUICK, "--trials", 5).code == 0
    before = (run / "tuning" / "trials.jsonl").read_text()
    built = {file: file.stat().st_mtime_ns for file in (run / "tuning" / "indexes").rglob("*.faiss")}
    outcome = call("tune", run, *QUICK, "--trials", 7, "--json")
    assert json.loads(outcome.out)["num_trials"] == 7
    assert (run / "tuning" / "trials.jsonl").read_text().startswith(before)
    assert all(file.stat().st_mtime_ns == when for file, when in built.items())
    assert call("tune", run, *QUICK, "--trials", 7, "--seconds", 0).code == 0
    assert len((run / "tuning" / "trials.jsonl").read_text().splitlines()) == 7


def test_a_budget_that_nothing_meets_changes_nothing(run: Path, call: Call) -> None:
    before = (run / "export" / "manifest.json").read_text()
    outcome = call("tune", run, "--at", AT, "--budget-ms", "1e-6", "--families", "flat,ivf-flat", "--trials", 3)
    assert outcome.code == 2
    assert outcome.out == ""
    last = outcome.err.strip().splitlines()[-1]
    assert last.startswith(
        "error: --budget-ms 1e-06: the index stays as it was; none of 3 trials meets it, the fastest"
    )
    assert (run / "export" / "manifest.json").read_text() == before
    assert (run / "config.yaml").read_text() == "{}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--at", N + 1], f"--at {N + 1}: must be from 1 to the number of products, {N}"),
        (["--at", 0], "--at 0: must be from 1"),
        (["--at", AT, "--budget-ms", 0], "--budget-ms 0: must be a number above 0"),
        (["--at", AT, "--budget-ms", "nan"], "--budget-ms nan: must be a number above 0"),
        (["--at", AT, "--budget-ms", "inf"], "--budget-ms inf: must be a number above 0"),
        (["--at", AT, "--families", "flat,annoy"], f"--families annoy: unknown; known are {', '.join(FAMILIES)}"),
        (["--at", AT, "--families", " , "], "--families: name at least one of flat, hnsw"),
    ],
)
def test_what_cannot_be_tuned_is_refused(untuned: Path, call: Call, arguments: list[Any], message: str) -> None:
    outcome = call("tune", untuned, *arguments)
    assert outcome.code == 2
    assert outcome.err.strip().splitlines()[-1].startswith(f"error: {message}")
    assert not (untuned / "tuning").exists()


def test_a_run_without_requests_to_tune_on_is_refused(run: Path, call: Call) -> None:
    requests = run / "mined" / "0123" / "requests.parquet"
    pq.write_table(pq.read_table(requests).slice(120), requests)
    outcome = call("tune", run, *QUICK)
    assert outcome.code == 2
    assert f"{run}: 0 requests with a target in the selection window" in outcome.err
