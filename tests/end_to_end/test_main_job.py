"""The main job on a tiny generated marketplace: from nothing to a run that is searched and evaluated, by command."""

import dataclasses
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import yaml
from as_of import COORDINATES, NUMBERS, PLACE_NAMES, inputs_of, requests_in
from commands import Call, Outcome, run_command
from files import everything_below

from uepp import pipeline
from uepp.config import HistoryConfig
from uepp.evaluation.requests import load_requests
from uepp.evaluation.systems import LABELS, SYSTEMS
from uepp.features.requests import RawRequests
from uepp.pipeline import evaluation
from uepp.serving import search

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "marketplace": {"num_products": 300, "num_events": 12_000, "seed": 1},
    "features": {
        "groups": [["title", "tags"], ["category", "attributes"]],
        "num_oov_buckets": 50,
        "location_buckets": [3, 10],
    },
    "model": {"token_dim": 16, "output_dim": 16},
    "negatives": {"num_uniform": 16},
    "training": {"max_steps": 10, "batch_size": 32, "checkpoint_every_steps": 5},
}
SEGMENTS = (
    "all", "head", "torso", "tail", "signed_in", "anonymous", "with_history", "without_history", "non_repeat", "repeat",
    "new_products", "domestic", "foreign",
)  # fmt: skip
MEASURES = [f"{name}@{k}" for name in ("recall", "ndcg", "precision") for k in (10, 100, 1000)] + [
    "mrr@1000", "auroc@1000",
]  # fmt: skip
BM25S = ("bm25", "bm25_quality", "bm25_stemmed", "bm25_plain")
BY_DEFAULT = ("fusion", *BM25S, "random_walk", "category_popularity", "own_history")


class _Streams:
    """Stands in for capsys, which a fixture of the module cannot have."""

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch) -> None:
        self._files = [(directory / name).open("w+", encoding="utf-8") for name in ("out", "err")]
        for name, file in zip(("stdout", "stderr"), self._files, strict=True):
            patch.setattr(sys, name, file)

    def readouterr(self) -> tuple[str, str]:
        texts = []
        for file in self._files:
            file.seek(0)
            texts.append(file.read())
            file.close()
        return texts[0], texts[1]


@dataclass(frozen=True)
class Job:
    """The run, the data set that was generated beside it, and what the command printed."""

    run: Path
    data: Path
    config: Path
    outcome: Outcome

    @property
    def metrics(self) -> dict[str, Any]:
        return json.loads((self.run / "metrics.json").read_text(encoding="utf-8"))

    @property
    def train_end(self) -> datetime:
        return datetime.fromisoformat(json.loads((self.data / "dataset.json").read_text())["train_end"])

    @property
    def events(self) -> list[dict[str, Any]]:
        return pq.read_table(self.data / "events.parquet").to_pylist()

    @property
    def products(self) -> pa.Table:
        """In product-index order."""
        return pq.read_table(self.run / "export" / "products.parquet")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """`uepp train CONFIG --run RUN`, as a newcomer would call it."""
    root = tmp_path_factory.mktemp("job")
    config = root / "tiny.yaml"
    config.write_text(yaml.safe_dump(SETTINGS), encoding="utf-8")
    run = root / "runs" / "Straße 1"
    with pytest.MonkeyPatch.context() as patch:
        outcome = run_command(_Streams(root, patch), "train", config, "--run", run)
    assert outcome.code == 0, outcome.err
    return Job(run, root / "runs" / "marketplace-300-12000-1", config, outcome)


@pytest.fixture(scope="module")
def query_tower(job: Job) -> Any:
    """The exported query tower, as anybody loads it."""
    return tf.saved_model.load(str(job.run / "export" / "query_tower"))


@pytest.fixture(scope="module")
def searcher(job: Job) -> search.Searcher:
    return search.Searcher(job.run)


@pytest.fixture
def loaded(searcher: search.Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that search need not load the run again."""
    monkeypatch.setattr(search, "Searcher", lambda _: searcher)


@pytest.fixture
def copy(job: Job, tmp_path: Path) -> Path:
    """A run of its own, to change."""
    shutil.copytree(job.run, tmp_path / "run")
    return tmp_path / "run"


def vectors_of(run: Path) -> np.ndarray:
    return np.concatenate([np.load(path) for path in sorted((run / "export" / "vectors").iterdir())])


def embed(tower: Any, inputs: dict[str, Any]) -> np.ndarray:
    """One request through an exported tower: a text or number an input, histories as lists."""
    tensors = {
        name: tf.constant([value], tf.float32 if name in COORDINATES else tf.string) for name, value in inputs.items()
    }
    return tower.signatures["serving_default"](**tensors)["embedding"].numpy()[0]


def nobody(query: str) -> dict[str, Any]:
    """Inputs of the query tower for somebody of whom nothing is known."""
    names = dict.fromkeys(PLACE_NAMES, "") | dict.fromkeys(COORDINATES, math.nan)
    return {"query": query, **names, **{name: [] for name in NUMBERS}}


# The run


def test_the_main_job_ends_with_a_table_the_run_and_the_next_command(job: Job, call: Call) -> None:
    """The command to try next is taken from the screen as it stands, and works."""
    lines = [line for line in job.outcome.out.splitlines() if line]
    for part in ("R@10 ", "R@100 ", "R@1000 ", "UEPPR", "BM25, tuned", " head ", " tail ", "this run"):
        assert any(part in line for line in lines), part
    assert any(str(job.run) in line for line in lines)
    program, *arguments = shlex.split(lines[-1].removeprefix("Next: "))
    assert (program, arguments[0]) == ("uepp", "search")
    outcome = call(*arguments)
    assert outcome.code == 0, outcome.err
    assert len(outcome.out.splitlines()) == 10


def test_the_run_directory_is_laid_out_as_documented(job: Job) -> None:
    names = {path.name for path in job.run.iterdir()}
    assert {"config.yaml", "checkpoints", "metrics.json", "table.md", "logs", "export"} <= names
    assert not [name for name in names if name.startswith(".")]
    exported = {path.name for path in (job.run / "export").iterdir()}
    towers = {"query_tower", "product_tower"}
    assert towers | {"product_ids.parquet", "vectors", "index.faiss", "serving.json", "manifest.json"} <= exported
    assert {"lexical", "places.parquet", "fusion.json"} <= exported
    fusion = json.loads((job.run / "export" / "fusion.json").read_text())
    assert fusion["num_requests"] > 0
    assert fusion["weight"] > 0
    assert {"recall@10", "recall@100"} <= fusion.keys() & fusion["tried"][0].keys() & fusion["towers"].keys()
    costs = json.loads((job.run / "costs.json").read_text())
    assert costs["seconds"].keys() == {"mining", "features", "training", "tuning of BM25", "export"}
    assert all(seconds >= 0 for seconds in costs["seconds"].values())
    assert 2**27 < costs["peak_memory_bytes"] < 2**38, "bytes"
    query = costs["query"]
    assert query["index"] == json.loads((job.run / "export" / "serving.json").read_text())["index"]
    assert 0 < query["tower_p50_ms"] + query["index_p50_ms"] <= 2 * query["p50_ms"] <= 2 * query["p99_ms"]
    assert query["num_requests"] == min(200, job.metrics["num_requests"])
    assert list((job.run / "logs").rglob("events.out.tfevents.*"))
    assert tf.train.latest_checkpoint(str(job.run / "checkpoints")).endswith("ckpt-10")
    assert (job.run / "checkpoints" / "ckpt-5.index").is_file()
    resolved = yaml.safe_load((job.run / "config.yaml").read_text())
    for stage, settings in SETTINGS.items():
        assert {key: resolved[stage][key] for key in settings} == settings
    manifest = json.loads((job.run / "export" / "manifest.json").read_text())
    assert manifest["run_id"] == json.loads((job.run / "run.json").read_text())["run_id"] == job.metrics["run_id"]


def assert_shape(metrics: dict[str, Any], systems: tuple[str, ...]) -> None:
    """The stable shape: system → segment → measures, counts and intervals; null where a segment is empty."""
    assert set(metrics["systems"]) == set(systems)
    assert list(metrics["comparisons"]) == [name for name in metrics["systems"] if name != "uepp"]
    for name, scores in metrics["systems"].items():
        assert set(scores) == set(SEGMENTS)
        for segment, values in scores.items():
            recalls = [values[f"recall@{k}"] for k in (10, 100, 1000)]
            assert list(values) == [*MEASURES, "num_queries", "num_requests", "intervals"]
            assert list(values["intervals"]) == (MEASURES if segment == "all" else MEASURES[:3])
            if values["num_requests"]:
                assert 0 <= recalls[0] <= recalls[1] <= recalls[2] <= 1, segment
                assert 0 < values["num_queries"] <= values["num_requests"]
                for key, (low, high) in values["intervals"].items():
                    assert (low is None) == (high is None)
                    if low is not None:  # else there are too few queries
                        assert low - 1e-6 <= values[key] <= high + 1e-6
            else:
                assert recalls == [None] * 3
                assert values["intervals"]["recall@10"] == [None, None]
            if name != "uepp" and values["num_requests"]:
                one = metrics["comparisons"][name][segment]["recall@100"]
                assert one["difference"] == metrics["systems"]["uepp"][segment]["recall@100"] - recalls[1]
                assert 0 < one["p_value"] <= 1
        assert scores["signed_in"]["num_requests"] + scores["anonymous"]["num_requests"] == metrics["num_requests"]
        assert sum(scores[name]["num_requests"] for name in ("head", "torso", "tail")) == metrics["num_requests"]
        assert scores["all"]["num_requests"] == metrics["num_requests"] > 0


def test_metrics_have_the_agreed_shape(job: Job) -> None:
    assert None not in job.metrics["systems"]["uepp"]["all"]["intervals"]["recall@10"]
    assert_shape(job.metrics, ("uepp", *BY_DEFAULT))
    assert sum(day["num_requests"] for day in job.metrics["days"].values()) == job.metrics["num_requests"]
    assert len(job.metrics["days"]) == job.metrics["num_days"]
    assert set(job.metrics["chosen"]) == {"bm25_quality", "fusion", "random_walk"}
    assert job.metrics["num_requests"] > 10
    assert job.metrics["num_days"] <= 5
    assert job.metrics["missing_target_share"] == 0
    for scores in job.metrics["systems"].values():
        assert scores["all"]["recall@1000"] > 0


def test_the_recall_of_the_run_is_that_of_a_loop_over_its_export(job: Job, query_tower: Any) -> None:
    """From the events, the query tower and the vectors alone: no index, no baselines, no mined tables."""
    events, products, vectors = job.events, job.products.to_pylist(), vectors_of(job.run)
    by_day: dict[int, list[float]] = {}
    num_personal = 0
    for (_, user, query), asked in requests_in(events).items():
        day = (asked.moment - job.train_end).days
        wanted = {product for moment, product in asked.bought if 2 <= (moment - job.train_end).days < 7}
        if not wanted or not 2 <= day < 7:
            continue
        inputs = inputs_of(query, user, asked.moment, asked.context, events, products)
        num_personal += bool(inputs["recent_searches"] and inputs["recent_shops"] and inputs["country"])
        embedding = embed(query_tower, inputs)
        last_moment = job.train_end.timestamp() + (day + 1) * 86_400
        there = [
            row for row, product in enumerate(products)
            if product["created_at"] is None or product["created_at"].timestamp() < last_moment
        ]  # fmt: skip
        ranked = sorted(there, key=lambda row: -float(vectors[row] @ embedding))
        found = {products[row]["product_id"] for row in ranked[:10]}
        by_day.setdefault(day, []).append(len(found & wanted) / len(wanted))
    expected = np.mean([np.mean(values) for values in by_day.values()])
    assert job.metrics["num_requests"] == sum(map(len, by_day.values()))
    assert num_personal > 5
    assert 0 < expected < 1
    assert job.metrics["systems"]["uepp"]["all"]["recall@10"] == pytest.approx(expected, abs=1e-3)


def rows_of(raw: RawRequests) -> list[dict[str, Any]]:
    """What the towers are given for each request; histories without their padding."""
    rows: list[dict[str, Any]] = [{} for _ in range(len(raw))]
    for name, tensor in raw.inputs((*nobody("").keys(),), HistoryConfig()).items():
        for row, value in zip(rows, tensor.numpy().tolist(), strict=True):
            if isinstance(value, list):
                texts = [text.decode() for text in value]
                row[name] = texts[: len(texts) - next((n for n, text in enumerate(texts[::-1]) if text), len(texts))]
            else:
                row[name] = value.decode() if isinstance(value, bytes) else value
    return rows


def evaluated_inputs(requests: Path, products: pa.Table) -> dict[Any, dict[str, Any]]:
    """What the towers are given for each request of a mined table, by session, user and query."""
    table = pq.read_table(requests)
    table = table.filter(pc.equal(table["window"], "report"))
    keys = zip(*(table[name].to_pylist() for name in ("session_id", "user_id", "query")), strict=True)
    return dict(zip(keys, rows_of(load_requests(requests, "report", products).raw), strict=True))


def test_evaluation_knows_of_a_person_what_was_known_when_they_asked(job: Job) -> None:
    """Place and history of every evaluated request, from the events by loops."""
    (requests,) = (job.run / "mined").glob("*/requests.parquet")
    events, products = job.events, job.products.to_pylist()
    asked = requests_in(events)
    longest = dict.fromkeys(NUMBERS, 0)
    found = evaluated_inputs(requests, job.products)
    for key, row in found.items():
        _, user, query = key
        expected = inputs_of(query, user, asked[key].moment, asked[key].context, events, products)
        for name in COORDINATES:
            assert row.pop(name) == pytest.approx(expected.pop(name), nan_ok=True)
        assert row == expected
        longest = {name: max(longest[name], len(expected[name])) for name in NUMBERS}
    assert len(found) == job.metrics["num_requests"]
    assert longest["recent_searches"] == NUMBERS["recent_searches"], "some are longer than what is read"
    assert min(longest.values()) > 1
    assert any(user is None for _, user, _ in found)
    during = [event for event in events if event["user_id"] and event["timestamp"] >= job.train_end]
    late = {event["query"] for event in during} - {e["query"] for e in events if e["timestamp"] < job.train_end}
    assert any(set(row["recent_searches"]) & late for row in found.values()), "what they did since training ended"


# Again


def test_evaluating_again_gives_the_same_numbers(job: Job, copy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With what libraries write past Python on standard output, too: only the JSON is there."""
    outcome = run_command(capfd, "evaluate", copy, "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out) == job.metrics
    assert json.loads((copy / "metrics.json").read_text()) == job.metrics


def test_the_same_data_elsewhere_gives_the_same_numbers(job: Job, copy: Path, tmp_path: Path, call: Call) -> None:
    shutil.copytree(job.data, tmp_path / "other")
    outcome = call("evaluate", copy, "--data", tmp_path / "other", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out) == job.metrics
    assert (copy / "metrics.json").read_bytes() == (job.run / "metrics.json").read_bytes()


def test_exporting_again_from_the_checkpoint_gives_the_same_metrics(job: Job, copy: Path, call: Call) -> None:
    shutil.rmtree(copy / "export")
    exported = call("export", copy)
    assert exported.code == 0, exported.err
    assert str(copy / "export") in exported.out.replace("\n", "")
    np.testing.assert_array_equal(vectors_of(copy), vectors_of(job.run))
    assert json.loads(call("evaluate", copy, "--json").out) == job.metrics


def test_a_catalogue_that_has_changed_in_place_is_not_exported(
    job: Job, copy: Path, call: Call, tmp_path: Path
) -> None:
    """What a run exports is what it was trained with; there is a way for another catalogue, and the line says it."""
    facts = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps(facts | {"data": str(tmp_path)}))
    products = pq.read_table(Path(facts["data"]) / "products.parquet")
    pq.write_table(products.slice(1), tmp_path / "products.parquet")
    refused = call("export", copy)
    assert refused.code == 2
    assert "products.parquet: has changed since the run was trained" in refused.err
    assert f"uepp export {copy} --data {tmp_path}" in refused.err
    (tmp_path / "products.parquet").unlink()
    assert "products.parquet: no such file" in call("export", copy).err


def saved_weights(run: Path) -> dict[str, np.ndarray]:
    checkpoint = tf.train.load_checkpoint(str(run / "checkpoints"))
    names = [name for name in checkpoint.get_variable_to_shape_map() if name.startswith("model/")]
    return {name: checkpoint.get_tensor(name) for name in names}


def test_a_run_that_is_told_to_stop_goes_on_where_it_stopped(
    job: Job, copy: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real process, resumed and stopped by SIGTERM; then the command that it printed, taken as it stands."""
    process = subprocess.Popen(
        [sys.executable, ROOT / "train.py", "--run", copy, "--resume", "--set", "training.max_steps=100000"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    deadline = time.monotonic() + 240
    while not (copy / "checkpoints" / "ckpt-15.index").exists():
        assert process.poll() is None, process.communicate()[1][-3_000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, ""), err[-3_000:]
    (line,) = [line for line in err.splitlines() if line.startswith("Stopped")]
    stopped = max(int(path.stem.removeprefix("ckpt-")) for path in (copy / "checkpoints").glob("*.index"))
    saved, _, command = line.partition(" Go on with: ")
    assert saved == f"Stopped and saved at step {stopped:,} of 100,000."
    assert 15 <= stopped < 100_000
    exported = everything_below(job.run / "export")
    assert everything_below(copy / "export") == exported, "nothing is exported before the end"

    # What follows training is tested above, and takes longer.
    monkeypatch.setattr(pipeline, "export", lambda *_: None)
    monkeypatch.setattr(pipeline, "evaluate_run", lambda *_: (job.metrics, copy / "metrics.json"))
    program, *arguments = shlex.split(command)
    assert program == "uepp"
    outcome = call(*arguments, "--set", f"training.max_steps={stopped + 3}", "--json")
    assert outcome.code == 0, outcome.err
    assert "Stopped" not in outcome.err
    assert json.loads(outcome.out) == job.metrics
    assert (copy / "checkpoints" / f"ckpt-{stopped + 3}.index").is_file()
    before, after = saved_weights(job.run), saved_weights(copy)
    assert set(before) == set(after)
    assert any(np.abs(after[name] - before[name]).max() > 1e-6 for name in before)
    assert yaml.safe_load((copy / "config.yaml").read_text())["training"]["max_steps"] == stopped + 3
    assert json.loads((copy / "run.json").read_text())["run_id"] == job.metrics["run_id"]


def test_a_finished_run_is_not_started_over(job: Job, call: Call) -> None:
    before = everything_below(job.run)
    outcome = call("train", job.config, "--run", job.run)
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: {job.run}: not empty; give --resume")
    assert everything_below(job.run) == before


# Another index


def test_another_index_keeps_the_run_and_its_metrics(job: Job, copy: Path, call: Call) -> None:
    outcome = call("export", copy, "--index", "hnsw")
    assert outcome.code == 0, outcome.err
    assert yaml.safe_load((copy / "config.yaml").read_text())["export"]["index"] == "hnsw"
    assert json.loads((copy / "export" / "serving.json").read_text())["index"].startswith("hnsw:neighbors=32")
    assert json.loads(call("evaluate", copy, "--json").out) == job.metrics


def test_an_export_of_a_boosted_run_says_that_it_is_not_boosted(copy: Path, call: Call) -> None:
    (copy / "export" / "boosting.json").write_text("{}")
    outcome = call("export", copy)
    assert outcome.code == 0, outcome.err
    assert f"note: the export was boosted, the new one is not; boost it with: uepp boost {copy}" in outcome.err
    assert not (copy / "export" / "boosting.json").exists()


# Events that the run has not seen


def requests_with_a_purchase(events: pa.Table) -> int:
    """Distinct (session, user, query) that bought something."""
    bought = events.filter(pc.equal(events["type"], "purchase"))
    return bought.select(["session_id", "user_id", "query"]).group_by(["session_id", "user_id", "query"]).aggregate(
        []
    ).num_rows  # fmt: skip


def evaluated(outcome: Outcome, run: Path) -> dict[str, Any]:
    """The metrics on stdout, which are also in a file of their own."""
    assert outcome.code == 0, outcome.err
    metrics = json.loads(outcome.out)
    (stored,) = (run / "evaluations").glob("*/metrics.json")
    assert json.loads(stored.read_text(encoding="utf-8")) == metrics
    return metrics


def test_the_runs_own_events_file(job: Job, copy: Path, call: Call) -> None:
    """Every request of the file counts, not only those of the report window."""
    outcome = call("evaluate", copy, "--events", job.data / "events.parquet", "--json")
    metrics = evaluated(outcome, copy)
    assert_shape(metrics, ("uepp", *BY_DEFAULT))
    seen = metrics["num_requests_before_train_end"], metrics["num_requests_tuned_on"]
    assert min(seen) > 0
    assert sum(seen) + job.metrics["num_requests"] == metrics["num_requests"]
    printed = " ".join(outcome.err.split())
    for number, what in zip(seen, ("which the run was trained on", "that BM25 and whatever else was"), strict=True):
        assert re.search(rf"note: {number:,} of them are of [a-z ]+[-0-9]+,? {what}", printed)
    assert metrics["num_requests"] == requests_with_a_purchase(pq.read_table(job.data / "events.parquet"))
    assert metrics["num_requests"] > job.metrics["num_requests"]
    assert metrics["missing_target_share"] == 0
    assert (copy / "metrics.json").read_bytes() == (job.run / "metrics.json").read_bytes()
    # Histories are those of training and of the file together, and an event of both counts once.
    (mined,) = (job.run / "mined").glob("*/requests.parquet")
    (again,) = (copy / "evaluations").glob("*/mined/requests.parquet")
    expected, found = (evaluated_inputs(requests, job.products) for requests in (mined, again))
    assert expected.keys() < found.keys()
    assert {key: repr(found[key]) for key in expected} == {key: repr(row) for key, row in expected.items()}


def report_events(job: Job) -> pa.Table:
    events = pq.read_table(job.data / "events.parquet")
    first_day = pa.scalar(pc.max(events["timestamp"]).as_py().replace(hour=0, minute=0, second=0, microsecond=0))
    return events.filter(pc.greater_equal(events["timestamp"], first_day.cast(events["timestamp"].type)))


def test_products_that_the_catalogue_lacks_are_counted_misses(job: Job, copy: Path, tmp_path: Path, call: Call) -> None:
    events = report_events(job)
    pq.write_table(events, tmp_path / "known.parquet")
    known = json.loads(call("evaluate", copy, "--events", tmp_path / "known.parquet", "--against", "", "--json").out)
    renamed = pc.if_else(pc.is_valid(events["product_id"]), "unknown", pa.scalar(None, pa.string()))
    strangers = events.set_column(events.schema.get_field_index("product_id"), "product_id", renamed)
    for name in ("session_id", "user_id"):  # of the same people, they would be in each other's histories
        others = pc.binary_join_element_wise(events[name], "x", "")
        strangers = strangers.set_column(events.schema.get_field_index(name), name, others)
    pq.write_table(pa.concat_tables([events, strangers]), tmp_path / "half.parquet")
    outcome = call("evaluate", copy, "--events", tmp_path / "half.parquet", "--against", "", "--json")
    assert outcome.code == 0, outcome.err
    half = json.loads(outcome.out)
    assert half["num_requests"] == 2 * known["num_requests"] > 0
    lost = half["missing_target_share"]
    assert 0.3 < lost <= 0.5
    assert f"{lost:.1%} of targets not in the catalogue" in outcome.err
    for k in (10, 100, 1000):
        name = f"recall@{k}"
        recall = known["systems"]["uepp"]["all"][name]
        assert half["systems"]["uepp"]["all"][name] == pytest.approx(recall / 2, abs=1e-9)
    assert known["systems"]["uepp"]["all"]["recall@1000"] > 0


def test_events_without_any_optional_column(job: Job, copy: Path, tmp_path: Path, call: Call) -> None:
    events = report_events(job).select(["timestamp", "type", "query", "product_id"])
    pq.write_table(events, tmp_path / "few.parquet")
    metrics = evaluated(call("evaluate", copy, "--events", tmp_path / "few.parquet", "--json"), copy)
    assert_shape(metrics, ("uepp", *BY_DEFAULT))
    bought = events.filter(pc.equal(events["type"], "purchase"))
    # without session and user, a request is a query at a moment
    assert metrics["num_requests"] == len({(e["timestamp"], e["query"]) for e in bought.to_pylist()})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda e: e.drop_columns(["query"]), ("missing column query",)),
        (lambda e: e.drop_columns(["type"]).append_column("type", pa.array(["bought"] * len(e))), ("'bought'",)),
        (lambda e: e.slice(0, 0), ("0 rows",)),
        (lambda e: e.filter(pc.equal(e["type"], "click")), ("purchase", "nothing to evaluate")),
    ],
    ids=["missing column", "unknown type", "no rows", "nothing relevant"],
)
def test_events_that_cannot_be_evaluated_are_refused_and_nothing_written(
    job: Job, tmp_path: Path, call: Call, change: Callable[[pa.Table], pa.Table], expected: tuple[str]
) -> None:
    pq.write_table(change(report_events(job)), tmp_path / "bad.parquet")
    before = everything_below(job.run)
    outcome = call("evaluate", job.run, "--events", tmp_path / "bad.parquet")
    assert (outcome.code, outcome.out) == (2, "")
    lines = outcome.err.splitlines()
    assert lines[-1].startswith(f"error: {tmp_path / 'bad.parquet'}: ")
    assert all(part in lines[-1] for part in expected)
    assert everything_below(job.run) == before


def test_data_and_events_exclude_each_other(job: Job, call: Call) -> None:
    outcome = call("evaluate", job.run, "--data", job.data, "--events", job.data / "events.parquet")
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1].startswith("error: --data and --events")


# Opponents


def test_chosen_opponents(job: Job, copy: Path, call: Call) -> None:
    outcome = call("evaluate", copy, "--against", "popularity, bm25_plain, bm25_title, bm25_quality", "--json")
    assert outcome.code == 0, outcome.err
    metrics = json.loads(outcome.out)
    assert_shape(metrics, ("uepp", "popularity", "bm25_plain", "bm25_title", "bm25_quality"))
    for name in ("uepp", "bm25_plain", "bm25_quality"):
        assert metrics["systems"][name] == job.metrics["systems"][name]
    # and the whole evaluation is still there
    kept = json.loads((copy / "metrics.json").read_text())
    assert kept["systems"] == job.metrics["systems"] | metrics["systems"]
    assert kept["comparisons"] == job.metrics["comparisons"] | metrics["comparisons"]
    assert list(kept["systems"]) == [name for name in SYSTEMS if name in kept["systems"]]
    some_day = next(iter(kept["days"]))
    assert set(kept["days"][some_day]["systems"]) == set(kept["systems"])
    assert all(f"| {LABELS[name]} |" in (copy / "table.md").read_text() for name in ("popularity", "random_walk"))
    # what was chosen is kept with the run: of bm25_quality by the training command, of bm25_title by this one
    for name in ("bm25_quality", "bm25_title"):
        kept = json.loads((copy / "baselines" / f"{name}.json").read_text())
        assert kept.pop("version")
        assert kept == metrics["chosen"][name]
    assert not (job.run / "baselines" / "bm25_title.json").exists()


def test_other_measures_are_printed_on_demand(job: Job, copy: Path, call: Call) -> None:
    outcome = call("evaluate", copy, "--against", "bm25", "--metrics", "ndcg,auroc")
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("Recall@100: this run ")
    assert "NDCG on" in outcome.out
    assert "AUROC on" in outcome.out
    assert "Recall on" not in outcome.out
    assert f"{job.metrics['systems']['uepp']['all']['ndcg@10']:.3f}" in outcome.out
    refused = call("evaluate", copy, "--metrics", "recall,f1")
    assert (refused.code, refused.out) == (2, "")
    known = "known are recall, ndcg, precision, mrr, auroc"
    assert refused.err.splitlines()[-1] == f"error: --metrics f1: unknown measure; {known}"


def test_chosen_settings_are_read_not_chosen_again(job: Job, copy: Path, call: Call) -> None:
    path = copy / "baselines" / "bm25_quality.json"
    kept = json.loads(path.read_text())
    changed = {**kept, "weights": dict.fromkeys(kept["weights"], 0.0)}
    path.write_text(json.dumps(changed), encoding="utf-8")
    systems = json.loads(call("evaluate", copy, "--against", "bm25,bm25_quality", "--json").out)["systems"]
    assert systems["bm25_quality"] == systems["bm25"] == job.metrics["systems"]["bm25"]
    path.write_text(json.dumps({**changed, "version": "of another export"}), encoding="utf-8")
    systems = json.loads(call("evaluate", copy, "--against", "bm25_quality", "--json").out)["systems"]
    assert systems["bm25_quality"] == job.metrics["systems"]["bm25_quality"]
    assert json.loads(path.read_text()) == kept


def test_an_interrupted_evaluation_goes_on(job: Job, copy: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """It took an hour at a million products, and kept nothing before its end."""
    measured: list[str] = []
    stop_at: str | None = "random_walk"

    def measure(system: Any, *arguments: Any) -> Any:
        measured.append(type(system).__name__)
        return measure_systems(system, *arguments)

    def interrupted(known: Any) -> Any:
        if stop_at is not None:
            raise KeyboardInterrupt
        return walk.fit(known)

    walk, measure_systems = SYSTEMS["random_walk"], evaluation.measure
    monkeypatch.setitem(SYSTEMS, "random_walk", dataclasses.replace(walk, fit=interrupted))
    monkeypatch.setattr(evaluation, "measure", measure)
    against = ["--against", "bm25_quality,random_walk,popularity", "--json"]
    before = (copy / "metrics.json").read_bytes()
    assert call("evaluate", copy, *against).code != 0
    assert len(measured) == 2
    assert (copy / "metrics.json").read_bytes() == before
    unfinished = copy / "metrics_unfinished"
    assert sorted(path.name for path in unfinished.rglob("*.npz")) == ["bm25_quality.npz", "uepp.npz"]

    stop_at = None
    outcome = call("evaluate", copy, *against)
    assert outcome.code == 0, outcome.err
    assert len(measured) == 4, "the first two are not measured again"
    assert "measured before this evaluation was interrupted" in outcome.err
    assert not unfinished.exists()
    kept = json.loads((copy / "metrics.json").read_text())
    for name in ("uepp", "bm25_quality", "random_walk"):
        assert kept["systems"][name] == job.metrics["systems"][name]
        assert kept["locality"][name] == job.metrics["locality"][name]
    assert kept["chosen"] == job.metrics["chosen"]


def test_an_unknown_opponent_is_refused(job: Job, call: Call) -> None:
    before = everything_below(job.run)
    outcome = call("evaluate", job.run, "--against", "bm25,elastic")
    assert (outcome.code, outcome.out) == (2, "")
    message = outcome.err.splitlines()[-1]
    assert message.startswith("error: --against elastic: unknown system; known are ")
    assert all(name in message for name in (*BM25S, "category_popularity", "popularity"))
    assert everything_below(job.run) == before


# The report


def test_the_report_is_one_page_with_its_figures(job: Job, copy: Path, call: Call) -> None:
    outcome = call("report", copy)
    assert outcome.code == 0, outcome.err
    assert f"Report: {copy / 'report.html'}" in outcome.out
    html = (copy / "report.html").read_text(encoding="utf-8")
    for name in ("uepp", "bm25"):
        assert f"{100 * job.metrics['systems'][name]['all']['recall@100']:.1f}%" in html
    assert "generated marketplace" in html
    assert "training.max_steps" in html
    figures = {path.name for path in (copy / "report").iterdir()}
    assert figures == {
        f"{name}.{ending}" for name in ("systems", "groups", "days", "distance", "map") for ending in ("svg", "png")
    }
    again = copy / "elsewhere" / "page.html"
    assert call("report", copy, "--out", again).code == 0
    drop = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC")
    assert drop.sub("", again.read_text(encoding="utf-8")) == drop.sub("", html), "the same requests and examples"


def test_a_report_of_a_run_that_was_not_evaluated_is_refused(copy: Path, call: Call) -> None:
    (copy / "metrics.json").unlink()
    outcome = call("report", copy)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.splitlines()[-1].endswith(f"run: uepp evaluate {copy}")
    assert not (copy / "report.html").exists()
    refused = call("report", copy, "--out", copy)
    assert (refused.code, refused.err.splitlines()[-1]) == (2, f"error: --out {copy}: name a file that ends in .html")


# Search


@pytest.mark.usefixtures("loaded")
def test_search_prints_titles_with_scores(job: Job, call: Call) -> None:
    products = pq.read_table(job.data / "products.parquet", columns=["product_id", "title"]).to_pylist()
    titles = {product["product_id"]: product["title"] for product in products}
    outcome = call("search", job.run, "gold ring", "--k", "5")
    assert outcome.code == 0, outcome.err
    lines = [line.split() for line in outcome.out.splitlines()]
    assert len(lines) == 5
    for _, *title, product_id in lines:
        assert title == titles[product_id].split()
    scores = [float(score) for score, *_ in lines]
    assert scores == sorted(scores, reverse=True)
    assert all(-1 <= score <= 1 for score in scores)


def test_search_json_is_the_export_searched_by_hand(
    job: Job, query_tower: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    outcome = run_command(capfd, "search", job.run, "gold ring", "--k", "400", "--json")
    assert outcome.code == 0, outcome.err
    answer = json.loads(outcome.out)
    assert answer["query"] == "gold ring"
    assert len(answer["hits"]) == 300
    embedding = embed(query_tower, nobody("gold ring"))
    vectors = vectors_of(job.run)
    ids = pq.read_table(job.run / "export" / "product_ids.parquet")["product_id"].to_pylist()
    expected = dict(zip(ids, (vectors @ embedding).tolist(), strict=True))
    for hit in answer["hits"]:
        assert set(hit) >= {"product_id", "title", "similarity"}
        assert hit["similarity"] == pytest.approx(expected[hit["product_id"]], abs=1e-5)
    similarities = [hit["similarity"] for hit in answer["hits"]]
    assert similarities == sorted(similarities, reverse=True)
    assert len({hit["product_id"] for hit in answer["hits"]}) == 300


@pytest.mark.usefixtures("loaded")
def test_search_for_somebody_is_the_export_searched_by_hand(job: Job, query_tower: Any, call: Call) -> None:
    """The user's history is what they did before the end of training; where they are is what was given."""
    events, products = job.events, job.products.to_pylist()
    bought = [event for event in events if event["type"] == "purchase" and event["timestamp"] < job.train_end]
    user = next(event["user_id"] for event in reversed(bought) if event["user_id"])
    context = {"country": "DE", "zip": "10115", "latitude": 52.5, "longitude": 0.0}
    inputs = inputs_of("gold ring", user, job.train_end, context, events, products)
    assert min(len(inputs[name]) for name in NUMBERS) > 0
    embedding = embed(query_tower, inputs)
    expected = dict(zip(job.products["product_id"].to_pylist(), vectors_of(job.run) @ embedding, strict=True))
    options = [text for name, value in context.items() for text in (f"--{name}", value)]
    outcome = call("search", job.run, "gold ring", "--k", "400", "--user", user, *options, "--json")
    assert outcome.code == 0, outcome.err
    found = {hit["product_id"]: hit["similarity"] for hit in json.loads(outcome.out)["hits"]}
    assert found == pytest.approx(expected, abs=1e-5)
    without = call("search", job.run, "gold ring", "--k", "400", "--json")
    for_nobody = {hit["product_id"]: hit["similarity"] for hit in json.loads(without.out)["hits"]}
    assert max(abs(for_nobody[product] - found[product]) for product in found) > 1e-3


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--user", "zoe"], "user zoe: no events of this user before the end of training"),
        (["--latitude", "91", "--longitude", "0"], "latitude 91.0: must be between -90 and 90 degrees"),
        (["--latitude", "nan", "--longitude", "0"], "latitude nan: must be between -90 and 90 degrees"),
        (["--longitude", "0"], "latitude and longitude: give both or neither"),
    ],
)
def test_unknown_users_and_bad_coordinates_are_refused(job: Job, call: Call, options: list[str], expected: str) -> None:
    outcome = call("search", job.run, "ring", *options)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.splitlines()[-1] == f"error: {expected}"


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize("query", ["", "  ", "?!…"])
def test_a_query_without_a_word_is_refused(job: Job, call: Call, query: str) -> None:
    outcome = call("search", job.run, query)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.splitlines()[-1].startswith("error: query ")


def test_a_damaged_export_is_refused(copy: Path, call: Call) -> None:
    vectors = copy / "export" / "vectors" / "part-00000.npy"
    content = bytearray(vectors.read_bytes())
    content[-1] ^= 1
    vectors.write_bytes(content)
    for arguments in (["search", copy, "ring"], ["evaluate", copy], ["export", copy, "--index", "hnsw"]):
        outcome = call(*arguments)
        assert outcome.code == 2
        assert outcome.err.splitlines()[-1].startswith(f"error: {vectors}: differs from its SHA-256")
