"""`uepp relevance`: the grid on STS-B and its JSON, a run from grades to measures, cases, and what is refused."""

import itertools
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import text_encoders
from commands import Call

from uepp.artifacts import check_manifest, read_json, write_json, write_manifest
from uepp.cli.app import result_console
from uepp.data.marketplace import generate
from uepp.errors import InputError
from uepp.relevance.bi_encoder import check_bi_encoder, trained_on
from uepp.relevance.measures import pair_auroc
from uepp.relevance.part_pairs import PartPairs

SIZES = {
    "dim": 16, "num_heads": 2, "num_layers": 1, "intermediate_dim": 16, "max_tokens": 16, "vocabulary_size": 100,
    "batch_size": 8, "pool_size": 16, "max_steps": 6, "evaluate_every_steps": 3, "checkpoint_every_steps": 2,
    "warmup_steps": 1, "learning_rate": 0.01, "encoder": "none",
}  # fmt: skip
COLOURS, THINGS = ("red", "blue", "green", "black"), ("lamp", "chair", "ring", "mug", "bowl")
FIGURES = ("pearson", "pearson_logits", "spearman", "auroc")


def options(**changes: Any) -> list[str]:
    return [part for key, value in (SIZES | changes).items() for part in ("--set", f"relevance.{key}={value}")]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("encoder") / "encoder"
    text_encoders.write_text_encoder(directory)
    return directory


@pytest.fixture(scope="module")
def sts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sts")
    rng = np.random.default_rng(0)
    for split, number in (("train", 40), ("dev", 20)):
        lines = []
        for row in range(number):
            one, other = rng.choice(COLOURS, 2), rng.choice(THINGS, 2)
            grade = 2.5 * (one[0] == one[1]) + 2.5 * (other[0] == other[1])
            first, second = (f"A {one[n]} {other[n]} stands here." for n in range(2))
            lines.append("\t".join(["main", "x", "2012", str(row), f"{grade:.3f}", first, second]))
        (folder / f"sts-{split}.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_the_grid_has_a_row_for_each_and_trains_nothing_twice(
    sts: Path, encoder: Path, tmp_path: Path, call: Call
) -> None:
    out = tmp_path / "grid"
    arguments = ["relevance", "sts", sts, "--samplers", "none,bhns", "--num-negatives", "2,3", "--out", out]
    arguments += ["--bi-encoder", encoder, *options()]
    found = call(*arguments, "--json").json
    assert [(row["sampler"], row["num_negatives"], row["pool_size"]) for row in found["rows"]] == [
        ("none", 2, 16), ("bhns", 2, 16), ("none", 3, 16), ("bhns", 3, 16),
    ]  # fmt: skip
    for row in found["rows"]:
        assert all(-100 <= row[name] <= 100 and row[f"{name}_std"] is None for name in FIGURES)
    assert found["rows"][0]["pearson"] == found["rows"][2]["pearson"], "nothing depends on K"
    assert (found["auroc_threshold"], found["split"], found["num_pairs"]) == (3.0, "dev", 20)
    cells = {path: path.stat().st_mtime_ns for path in out.glob("cells/*/metrics.json")}
    assert len(cells) == 3
    assert not list(out.glob("cells/*/run")), "only figures are kept"

    wider = call(*arguments, "--seeds", "1", "--json")
    assert wider.json == found
    assert "…" not in wider.err, "nothing was trained"
    assert {path: path.stat().st_mtime_ns for path in out.glob("cells/*/metrics.json")} == cells
    for path in list(cells)[:1]:
        path.unlink()
    assert call(*arguments, "--json").json["rows"][0].keys() == found["rows"][0].keys()
    assert sum(path.stat().st_mtime_ns != cells[path] for path in cells) == 1, "only what was missing"

    shown = call(*arguments).out
    assert "Pearson" in shown
    table = (out / "table.md").read_text().splitlines()
    assert table[0].startswith("| sampler | K | pool | seeds | Pearson | Pearson, logits | Spearman | AUROC |")
    assert table[0].endswith("| pairs/s | sampling |")
    assert len(table) == 2 + 4 + 2
    assert "positive from grade 3 of 5" in table[-1]
    assert read_json(out / "results.json")["rows"] == call(*arguments, "--json").json["rows"]


def test_a_grid_that_is_run_in_parts_has_one_table(sts: Path, encoder: Path, tmp_path: Path, call: Call) -> None:
    """The table had only what the last call asked for."""
    out = tmp_path / "grid"

    def rows(*arguments: object) -> list[tuple[str, int, int, int]]:
        given = ["relevance", "sts", sts, "--out", out, "--bi-encoder", encoder, *options(max_steps=2), *arguments]
        found = call(*given, "--json").json
        assert found == read_json(out / "results.json")
        return [(row["sampler"], row["num_negatives"], row["pool_size"], row["num_seeds"]) for row in found["rows"]]

    first = [("none", 2, 16, 1), ("vns", 2, 16, 1), ("hns", 2, 16, 1)]
    assert rows("--samplers", "vns,none,hns", "--num-negatives", "2") == first, "in the order of the paper's table"
    assert rows("--samplers", "none", "--num-negatives", "2") == first
    more = [("none", 2, 16, 1), ("vns", 2, 16, 2), ("hns", 2, 16, 1), ("none", 3, 16, 1), ("hns", 3, 16, 1)]
    rows("--samplers", "hns", "--num-negatives", "3")
    assert rows("--samplers", "vns", "--num-negatives", "2", "--seeds", "2") == more
    assert "from scratch, 1 layers of 16, 2 steps" in (out / "table.md").read_text()
    # Of other settings they are another table.
    assert rows("--samplers", "vns", "--num-negatives", "2", "--set", "relevance.max_steps=1") == [("vns", 2, 16, 1)]


def test_a_cell_that_begins_with_a_preset_is_known_by_what_is_in_it(sts: Path, tmp_path: Path, call: Call) -> None:
    """A BERT as KerasHub saves it; from a copy elsewhere it is the same cell, with other weights another one."""
    import keras_hub

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "stands", "here", *COLOURS, *THINGS]
    sizes = {"num_layers": 2, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 8, "max_sequence_length": 16}
    for name in ("preset", "other"):
        keras_hub.models.BertBackbone(vocabulary_size=len(words), **sizes).save_to_preset(str(tmp_path / name))
        keras_hub.models.BertTokenizer(words, lowercase=True).save_to_preset(str(tmp_path / name))
    shutil.copytree(tmp_path / "preset", tmp_path / "copy")
    arguments = ["relevance", "sts", sts, "--samplers", "none", "--out", tmp_path / "grid", *options(max_steps=1)]
    cells = []
    for name in ("preset", "copy", "other"):
        assert call(*arguments, "--encoder", tmp_path / name, "--layers", "1").code == 0
        cells.append(len(list((tmp_path / "grid").glob("cells/*/metrics.json"))))
    assert cells == [1, 1, 2]
    assert "num_layers = 3: must be 1 to 2" in call(*arguments, "--encoder", tmp_path / "copy", "--layers", "3").error


def test_spread_is_over_seeds(sts: Path, tmp_path: Path, call: Call) -> None:
    """`none` needs no bi-encoder, so none is looked for."""
    arguments = ["relevance", "sts", sts, "--samplers", "none", "--out", tmp_path, *options(max_steps=2)]
    (row,) = call(*arguments, "--seeds", "2", "--bi-encoder", tmp_path / "nothing", "--json").json["rows"]
    cells = [read_json(path) for path in tmp_path.glob("cells/*/metrics.json")]
    assert row["num_seeds"] == len(cells) == 2
    for name in FIGURES:
        values = [cell[name] for cell in cells]
        assert row[name] == pytest.approx(np.mean(values))
        assert row[f"{name}_std"] == pytest.approx(np.std(values, ddof=1))


@pytest.fixture(scope="module")
def grades(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 queries, each with three products: its own, one of the same thing, and another."""
    directory = tmp_path_factory.mktemp("grades") / "data"
    directory.mkdir()
    names = [f"{colour} {thing}" for colour in COLOURS for thing in THINGS]
    ids = [f"{n:02d}" for n in range(len(names))]
    titles = {"product_id": ids, "title": [f"{name} by hand" for name in names]}
    pq.write_table(pa.table(titles), directory / "products.parquet")
    moment = pa.array([datetime(2024, 5, 1, tzinfo=UTC)], pa.timestamp("us", "UTC"))
    events = {"timestamp": moment, "type": ["click"], "query": [names[0]], "product_id": ["00"]}
    pq.write_table(pa.table(events), directory / "events.parquet")
    rows = [
        (query, ids[(n + step) % len(ids)], grade)
        for n, name in enumerate(names)
        for query in (name, f"{name} sale")
        for step, grade in ((0, 3.0), (len(THINGS), 2.33), (1, 1.0))
    ]
    columns = dict(zip(("query", "product_id", "grade"), zip(*rows, strict=True), strict=True))
    pq.write_table(pa.table({name: list(column) for name, column in columns.items()}), directory / "judgments.parquet")
    return directory


@pytest.fixture(scope="module")
def finished(grades: Path, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from rich.console import Console

    from uepp.config import Given, load_config
    from uepp.pipeline.relevance import train_relevance

    run = tmp_path_factory.mktemp("finished") / "run"
    given = {"data": {"path": str(grades)}, "relevance": {"bi_encoder": str(encoder), "patience": 2}}
    config = load_config(None, options()[1::2], [Given("test", given)])
    assert train_relevance(config, run, Console(quiet=True), verbose=0).is_complete
    return run


def test_the_run_directory(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {
        "config.yaml", "run.json", "pairs.parquet", "bi_encoder", "vocabulary", "checkpoints", "logs", "training.json",
        "cross_encoder", "metrics.json", "costs.json",
    }  # fmt: skip
    metrics = read_json(finished / "metrics.json")
    assert set(metrics["systems"]) == {"cross_encoder", "bi_encoder"}
    for values in metrics["systems"].values():
        assert list(values) == ["ndcg@5", "ndcg@10", "ndcg@20", "auroc", "auroc_judged"]
        assert all(0 <= value <= 1 for value in values.values())
    pairs = pq.read_table(finished / "pairs.parquet").to_pylist()
    evaluated = [pair for pair in pairs if pair["part"] == "evaluation"]
    assert metrics["num_pairs"] == len(evaluated)
    assert metrics["num_random_pairs"] == sum(pair["is_random"] for pair in evaluated) > 0
    parts = {part: {pair["query"] for pair in pairs if pair["part"] == part} for part in ("train", "evaluation")}
    assert not parts["train"] & parts["evaluation"]
    words = (finished / "vocabulary" / "vocab.txt").read_text().splitlines()
    assert "lamp" in words
    assert metrics["training"]["steps"] == 6
    assert metrics["training"]["sampler_share"] > 0


def test_the_saved_model_scores_strings(finished: Path) -> None:
    assert check_manifest(finished / "cross_encoder")["run_id"] == read_json(finished / "run.json")["run_id"]
    fields = read_json(finished / "cross_encoder" / "cross_encoder.json")["fields"]
    assert fields == ["title", "tags", "category", "attributes"], "also where the catalogue has only titles"
    serve = tf.saved_model.load(str(finished / "cross_encoder")).signatures["serving_default"]
    found = serve(query=tf.constant(["red lamp"]), product=tf.constant(["red lamp by hand"]))
    assert found["score"].shape == (1,)
    np.testing.assert_allclose(found["score"], tf.sigmoid(found["logit"]), atol=1e-6)


def test_evaluate_says_what_training_said(finished: Path, call: Call) -> None:
    before = read_json(finished / "metrics.json")
    assert call("relevance", "evaluate", finished, "--json").json == before
    shown = call("relevance", "evaluate", finished).out
    assert "cross-encoder (bhns)" in shown
    assert "bi-encoder alone" in shown
    assert "pairs/s" in shown


def test_auroc_of_judged_pairs_leaves_out_the_random_ones() -> None:
    from uepp.pipeline.relevance import measures_of

    scores, gains = np.array([3.0, 1.0, 2.0, 0.0]), np.array([1.0, 1.0, 0.1, 0.0])
    found = measures_of(scores, gains, np.zeros(4, np.int64), np.array([False, False, False, True]))
    assert (found["auroc"], found["auroc_judged"]) == (0.75, 0.5)
    found = measures_of(scores, gains, np.zeros(4, np.int64), np.array([False, False, True, True]))
    assert found["auroc_judged"] is None, "nobody judged anything less than relevant"


def test_the_record_of_what_it_was_trained_on_is_beside_the_model(finished: Path) -> None:
    """Validation chose its weights, so it counts."""
    pairs = pq.read_table(finished / "pairs.parquet").to_pylist()
    seen = {pair["query"] for pair in pairs if pair["part"] in ("train", "validation")}
    assert {pair["query"] for pair in pairs if pair["part"] == "validation"} <= seen
    stored = pq.read_table(finished / "cross_encoder" / "trained_queries.parquet").column("query").to_pylist()
    assert sorted(stored) == sorted(seen)
    assert "trained_queries.parquet" in read_json(finished / "cross_encoder" / "manifest.json")["files"]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_bi_encoder_is_measured_on_queries_that_it_was_not_trained_on(
    finished: Path, tmp_path: Path, call: Call, share: float
) -> None:
    """And the cross-encoder on the same ones beside it; on all it stays where it was."""
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    before = read_json(run / "metrics.json")
    assert before["bi_encoder"] == {"num_trained_queries": None, "new_queries": None}, "a text encoder does not say"
    assert "not known which queries the bi-encoder" in call("relevance", "evaluate", run).out
    pairs = PartPairs.load(run / "pairs.parquet")
    evaluated = np.unique(pairs.texts.query[pairs.rows("evaluation")])
    known = evaluated[: int(share * len(evaluated))]
    np.save(run / "bi_encoder" / "is_trained.npy", np.isin(np.arange(len(pairs.texts.queries)), known))
    found = call("relevance", "evaluate", run, "--json").json
    shown = call("relevance", "evaluate", run).out
    assert found["systems"]["cross_encoder"] == before["systems"]["cross_encoder"]
    about = found["bi_encoder"]
    assert about["num_trained_queries"] == len(known)
    if share == 0:
        assert found["systems"] == before["systems"]
        assert about["new_queries"] is None
        return
    assert found["systems"].keys() == {"cross_encoder"}
    assert f"was trained on {len(known)} of these queries" in shown
    if share == 1:
        assert about["new_queries"] is None
        assert "it is not measured" in shown
        return
    new = about["new_queries"]
    is_new = np.isin(pairs.texts.query, np.setdiff1d(evaluated, known))
    assert (new["num_queries"], new["num_pairs"]) == (len(evaluated) - len(known), int(is_new.sum()))
    vectors = [np.load(run / "bi_encoder" / f"{name}.npy") for name in ("queries", "products")]
    query, product = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in vectors)
    rows = np.flatnonzero(is_new)
    cosines = (query[pairs.texts.query[rows]] * product[pairs.texts.product[rows]]).sum(axis=1)
    expected = pair_auroc(cosines, pairs.evaluation_labels[rows] >= 0.5)
    assert new["systems"]["bi_encoder"]["auroc"] == pytest.approx(expected, abs=1e-3)
    assert "bi-encoder alone, new queries" in shown


def test_towers_were_trained_on_the_queries_of_their_graph(tmp_path: Path) -> None:
    export = tmp_path / "run" / "export"
    export.mkdir(parents=True)
    pq.write_table(pa.table({"query": ["red lamp", "red lamp", "mug"]}), export / "graph.parquet")
    pq.write_table(pa.table({"query": ["lamp", "mug"], "count": [1, 2]}), export / "query_counts.parquet")
    write_json(export / "windows.json", {"graph_start": "2024-01-01T00:00:00+00:00", "examples_start": "2024-01-01"
        "T00:00:00+00:00"})  # fmt: skip
    found = trained_on(str(tmp_path / "run"), ["Red  LAMP ", "lamp", "mug"])
    assert found is not None
    assert found.tolist() == [True, False, True]
    assert trained_on(str(tmp_path), ["mug"]) is None
    nothing = trained_on("minilm", ["mug"])
    assert nothing is not None
    assert not nothing.any()


def test_towers_were_trained_on_the_queries_of_a_longer_window_than_their_graphs_too(tmp_path: Path) -> None:
    """Examples of the days before the graph's first one were taken for new queries."""
    export = tmp_path / "export"
    export.mkdir()
    pq.write_table(pa.table({"query": ["red lamp"]}), export / "graph.parquet")
    pq.write_table(pa.table({"query": ["red lamp", "Blue mug!"], "count": [1, 2]}), export / "query_counts.parquet")
    for start, is_known in (("2024-01-02", True), ("2024-01-01", False)):
        windows = {"graph_start": f"{start}T00:00:00+00:00", "examples_start": "2024-01-01T00:00:00+00:00"}
        write_json(export / "windows.json", windows)
        found = trained_on(str(tmp_path), ["red lamp", "blue mug", "ring"])
        assert found is not None
        assert found.tolist() == [True, is_known, False]


def test_damaged_towers_guide_no_sampling(tmp_path: Path) -> None:
    """Altered vectors guided it without a word, and a damaged tower ended in TensorFlow's traceback."""
    export = tmp_path / "export"
    (export / "vectors").mkdir(parents=True)
    np.save(export / "vectors" / "part-00000.npy", np.eye(3, dtype=np.float32))
    write_manifest(export, run_id="towers")
    known = check_bi_encoder(str(tmp_path))
    np.save(export / "vectors" / "part-00000.npy", np.eye(3, dtype=np.float32)[::-1])
    with pytest.raises(InputError, match=r"part-00000.npy: differs from its SHA-256"):
        check_bi_encoder(str(tmp_path))
    np.save(export / "vectors" / "part-00000.npy", np.eye(3, dtype=np.float32))
    assert check_bi_encoder(str(tmp_path)) == known
    shutil.rmtree(export / "vectors")
    with pytest.raises(InputError, match=r"part-00000.npy: listed in manifest.json but missing"):
        check_bi_encoder(str(tmp_path))


def test_damaged_vectors_of_a_run_are_refused(finished: Path, tmp_path: Path, call: Call) -> None:
    """They ended in NumPy's traceback; what is deleted is made again."""
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    queries, products = (run / "bi_encoder" / f"{name}.npy" for name in ("queries", "products"))
    whole = queries.read_bytes()
    for content in (b"", b"vectors", whole[:-8], products.read_bytes()):
        queries.write_bytes(content)
        assert "queries.npy: missing, damaged or of other texts; delete" in call("relevance", "evaluate", run).error
    queries.unlink()
    assert "queries.npy: missing, damaged" in call("relevance", "cases", run).error
    queries.write_bytes(whole)
    np.save(run / "bi_encoder" / "is_trained.npy", np.ones(3, bool))
    assert "is_trained.npy: missing, damaged" in call("relevance", "evaluate", run).error
    shutil.rmtree(run / "bi_encoder")
    assert call("relevance", "evaluate", run, "--json").json == read_json(finished / "metrics.json")


def test_a_damaged_cross_encoder_is_written_again(finished: Path, tmp_path: Path, call: Call) -> None:
    """The message said to export again, which is another command's, and no cure."""
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    (run / "cross_encoder" / "saved_model.pb").write_bytes(b"damaged")
    refused = call("relevance", "evaluate", run).error
    assert "saved_model.pb: differs from its SHA-256" in refused
    assert refused.endswith(f"write it again with: uepp relevance train --run {run} --resume")
    assert call("relevance", "train", "--run", run, "--resume", "--json").code == 0
    assert call("relevance", "evaluate", run, "--json").code == 0


def test_runs_of_another_command_are_told_apart(finished: Path, tmp_path: Path, call: Call) -> None:
    """Each message advised a command that refuses the directory."""
    for command in (("relevance", "rank", finished), ("search", finished, "lamp"), ("export", finished)):
        assert call(*command).error.endswith(f"{finished}: is a run of uepp relevance train; give one of uepp train")
    write_json(tmp_path / "run.json", {"command": "train"})
    assert call("relevance", "evaluate", tmp_path).error.endswith("make one with: uepp relevance train --run DIR")
    write_json(tmp_path / "run.json", {"command": "relevance train"})
    assert call("relevance", "evaluate", tmp_path).error.endswith(f"relevance train --run {tmp_path} --resume")


def test_a_finished_run_that_is_resumed_trains_no_more(finished: Path, call: Call) -> None:
    before = read_json(finished / "metrics.json")
    again = call("relevance", "train", "--run", finished, "--resume", "--json").json
    assert again["systems"] == before["systems"]
    refused = call("relevance", "train", "--run", finished, "--resume", "--set", "relevance.num_negatives=2").error
    assert "--resume with relevance.num_negatives = 2, the run has 4; only max_steps" in refused


def test_cases_of_a_run(finished: Path, call: Call) -> None:
    found = call("relevance", "cases", finished, "--queries", "2", "--samplers", "vns,bhns", "--json").json
    assert "false_negatives" not in found, "grades know no truth"
    assert [case["sampler"] for case in found["cases"]] == ["vns", "bhns"] * 2
    known = {(pair["query"], pair["product_id"]) for pair in pq.read_table(finished / "pairs.parquet").to_pylist()}
    for case in found["cases"]:
        assert 0 < len(case["negatives"]) <= 4
        for negative in case["negatives"]:
            assert (case["query"], negative["product_id"]) not in known
            assert 0 <= negative["label"] <= 1
    query = found["cases"][0]["query"]
    shown = call("relevance", "cases", finished, "--query", query, "--samplers", "hns").out
    assert query in shown
    assert "is no training query" in call("relevance", "cases", finished, "--query", "zither").error


def test_several_workers_are_refused_by_all(
    sts: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The studies went on, and each worker waited at the lock of a cell for another one at its barrier."""
    cluster = {"cluster": {"worker": ["localhost:1", "localhost:2"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    grid = ["relevance", "sts", sts, "--samplers", "none", "--out", tmp_path / "grid", *options()]
    for arguments in (grid, ["relevance", "train", "--run", tmp_path / "run", *options()]):
        assert "TF_CONFIG: describes several workers; uepp relevance runs on one machine" in call(*arguments).error


def test_cases_fit_a_narrow_screen(finished: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text of a product had the screen's width less what stands beside it, and so none."""
    monkeypatch.setattr(result_console, "width", 30)
    assert call("relevance", "cases", finished, "--queries", "1", "--samplers", "vns").code == 0


def test_a_query_that_is_asked_for_twice_is_one_case(finished: Path, call: Call) -> None:
    """It ended in "batch: 12 positions, 6 of them distinct"; and cases stand in the order that was asked for."""
    drawn = call("relevance", "cases", finished, "--queries", "2", "--samplers", "vns", "--json").json["cases"]
    one, other = (case["query"] for case in drawn)
    for first, second in ((one, other), (other, one)):
        asked = ["--query", first, "--query", second, "--query", first]
        found = call("relevance", "cases", finished, *asked, "--samplers", "hns", "--json").json
        assert [case["query"] for case in found["cases"]] == [first, second]


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("generated") / "market"
    generate(directory, num_products=300, num_events=20_000, seed=1)
    return directory


def test_the_truth_of_a_marketplace_is_trained_on(market: Path, tmp_path: Path, call: Call) -> None:
    """It has no annotators: its truth judges the products that were displayed most, and a fifth as many are random."""
    run = tmp_path / "run"
    sizes = options(judged_queries=40, judged_products=8, sampler="vns", bi_encoder="null")
    done = call("relevance", "train", "--data", market, "--run", run, *sizes, "--json")
    assert done.code == 0, done.err
    pairs = pq.read_table(run / "pairs.parquet").to_pylist()
    judged = [pair for pair in pairs if not pair["is_random"]]
    assert len({pair["query"] for pair in judged}) == 40
    assert len(judged) / 40 <= 8
    assert (len(pairs) - len(judged)) / len(judged) == pytest.approx(0.2, abs=0.02)
    truth: dict[float, list[float]] = {}
    for pair in judged:
        truth.setdefault(round(pair["label"], 6), []).append(pair["grade"])
    assert truth.keys() <= {1.0, 0.5, 0.2, 0.1}
    levels = [truth[label] for label in sorted(truth)]
    assert all(max(lower) < min(upper) for lower, upper in itertools.pairwise(levels)), "levels of the truth"
    metrics = read_json(run / "metrics.json")
    parts = {name: {pair["query"] for pair in pairs if pair["part"] == name} for name in ("train", "evaluation")}
    assert metrics["num_queries"] == len(parts["evaluation"]) > 0
    assert not parts["train"] & parts["evaluation"]
    assert metrics["bi_encoder"] is None
    assert 0 <= metrics["systems"]["cross_encoder"]["ndcg@10"] <= 1


def test_cases_of_a_marketplace_count_false_negatives(market: Path, tmp_path: Path, encoder: Path, call: Call) -> None:
    sizes = options(judged_queries=40, judged_products=8, pool_size=64)
    arguments = ["relevance", "cases", "--data", market, "--bi-encoder", encoder, *sizes]
    arguments += ["--samplers", "vns,hns", "--num-negatives", "2,4", "--steps", "3"]
    found = call(*arguments, "--json").json
    assert [(row["sampler"], row["num_negatives"]) for row in found["false_negatives"]] == [
        ("vns", 2), ("hns", 2), ("vns", 4), ("hns", 4),
    ]  # fmt: skip
    assert all(0 <= row["share"] <= 1 and row["num_sampled"] > 0 for row in found["false_negatives"])
    assert all(0 <= negative["relevance"] <= 1 for case in found["cases"] for negative in case["negatives"])
    assert "relevant in truth" in call(*arguments).out
    assert all(row["num_seeds"] == 1 and row["share_std"] is None for row in found["false_negatives"])
    over = call(*arguments, "--seeds", "3", "--json").json["false_negatives"]
    assert all(row["num_seeds"] == 3 and row["share_std"] >= 0 for row in over)
    assert over[0]["num_sampled"] > 2 * found["false_negatives"][0]["num_sampled"]
    shown = call(*arguments, "--seeds", "3").out
    assert "± standard deviation over 3 seeds" in shown
    assert f"{over[1]['share']:.3f} ± {over[1]['share_std']:.3f}" in shown
    assert "less it" not in shown, "bhns was not asked for"
    against = [*arguments[: arguments.index("--samplers")], "--samplers", "bhns,hns", "--seeds", "2", "--steps", "3"]
    (_, hardest), shown = call(*against, "--num-negatives", "2", "--json").json["false_negatives"], call(*against).out
    assert f"{hardest['bhns_less']:+.4f}".replace("-", "−") in shown
    assert "less it" in shown
    assert [path.name for path in market.parent.iterdir()] == ["market"], "nothing is written"
    assert not list(tmp_path.iterdir())


def test_what_comes_next_works_without_a_bi_encoder(grades: Path, tmp_path: Path, call: Call) -> None:
    """The command that was printed ended in "looks at similarities; relevance.bi_encoder is none"."""
    run = tmp_path / "run"
    arguments = ["--sampler", "cet", "--set", "relevance.bi_encoder=null", "--run", run, "--data", grades]
    done = call("relevance", "train", *arguments, *options(max_steps=1, seed=2**32 - 1))  # the observer's seed is above
    assert done.code == 0
    printed = done.out.replace("\n", " ").split("Next: uepp ")[1].split()
    assert call(*printed).code == 0


def test_a_cell_without_a_correlation_is_json_all_the_same(sts: Path, tmp_path: Path, call: Call) -> None:
    """It held NaN, which only Python reads."""
    shutil.copy(sts / "sts-train.csv", tmp_path)
    lines = [line.split("\t") for line in (sts / "sts-dev.csv").read_text().splitlines()]
    same = ["\t".join([*line[:4], "4.0", *line[5:]]) for line in lines]
    (tmp_path / "sts-dev.csv").write_text("\n".join(same) + "\n")
    arguments = ["relevance", "sts", tmp_path, "--samplers", "none", "--out", tmp_path / "out", *options(max_steps=1)]
    assert call(*arguments, "--json").json["rows"][0]["pearson"] is None
    (cell,) = (tmp_path / "out").glob("cells/*/metrics.json")
    assert json.loads(cell.read_text(), parse_constant=pytest.fail)["pearson"] is None
    assert call(*arguments, "--json").json["rows"][0]["spearman"] is None


def test_a_cell_that_diverges_is_not_kept(sts: Path, tmp_path: Path, call: Call) -> None:
    diverging = options(learning_rate=1e30, max_gradient_norm=1e30, warmup_steps=0)
    refused = call("relevance", "sts", sts, "--samplers", "none", "--out", tmp_path, *diverging).error
    assert "start a new one with relevance.learning_rate below 1e+30" in refused
    assert not list(tmp_path.glob("cells/*/metrics.json"))


def test_what_no_cell_can_have_is_refused_in_one_line(sts: Path, tmp_path: Path, call: Call) -> None:
    (tmp_path / "file").write_text("")
    no_eyes = options(sampler="vns", bi_encoder="null")
    for arguments, message in (
        (["--samplers", "none,bhns", *no_eyes], "--samplers bhns: looks at similarities; relevance.bi_encoder is none"),
        (["--samplers", "none", *options(seed=2**32 - 1), "--seeds", "2"], "--seeds 2: from relevance.seed = 42949672"),
        (["--samplers", "none", *options(), "--out", tmp_path / "file"], "file is a file; give a directory"),
        (["--samplers", "none", *options(), "--out", tmp_path / "file" / "sts"], "file is a file; give a directory"),
    ):
        assert message in call("relevance", "sts", sts, *arguments).error


def test_samplers_are_compared_on_the_same_pairs(grades: Path, encoder: Path, tmp_path: Path, call: Call) -> None:
    """Table 3; a seed of a training is not one of the split, else each would be measured on other queries."""
    out = tmp_path / "grid"
    arguments = ["relevance", "compare", "--data", grades, "--out", out, "--bi-encoder", encoder, *options(max_steps=2)]
    arguments += ["--samplers", "none,bhns"]
    found = call(*arguments, "--seeds", "2", "--json").json
    assert [(row["sampler"], row["num_negatives"], row["num_seeds"]) for row in found["rows"]] == [
        ("none", 4, 2), ("bhns", 4, 2),
    ]  # fmt: skip
    cells = [read_json(path) for path in sorted(out.glob("cells/*/metrics.json"))]
    assert len(cells) == 4
    for row in found["rows"]:
        of_row = [cell for cell in cells if cell["settings"]["sampler"] == row["sampler"]]
        for name in ("ndcg@5", "ndcg@10", "ndcg@20", "auroc", "auroc_judged"):
            values = [cell[name] for cell in of_row]
            assert all(0 <= value <= 100 for value in values)
            assert row[name] == pytest.approx(np.mean(values))
            assert row[f"{name}_std"] == pytest.approx(np.std(values, ddof=1))
        assert row["pairs_per_second"] > 0
    assert found == read_json(out / "results.json") == call(*arguments, "--seeds", "1", "--json").json
    shown = call(*arguments, "--samplers", "none", "--seeds", "1")
    assert "NDCG@20" in shown.out, "a terminal of 80 columns gets the table in parts"
    assert all(f"{row['ndcg@10']:.2f}" in shown.out for row in found["rows"])
    assert "…" not in shown.err.replace("data …", ""), "nothing was trained"
    said = " ".join(shown.err.split())
    assert "judged: strongly relevant 33.3% (from 3), relevant 33.3% (from 2.33), not relevant 33.3% (from 1)" in said
    table = (out / "table.md").read_text().splitlines()
    assert table[0].startswith("| sampler | K | pool | seeds | NDCG@5 | NDCG@10 | NDCG@20 | AUROC | AUROC, judged | ")
    assert "90.96 / 91.91 / 93.47 / 95.06" in table[3]
    assert "never trained on" in table[5]
    (apart,) = found["differences"]
    assert f"{apart['ndcg@5']:+.2f} ± {apart['ndcg@5_std']:.2f}".replace("-", "−") in table[9]
    assert "bhns less" in shown.out

    # What a run of the same settings and seed measures is what its cell says.
    run = call(
        "relevance", "train", "--data", grades, "--run", tmp_path / "run", "--bi-encoder", encoder,
        "--sampler", "bhns", *options(max_steps=2), "--json",
    ).json  # fmt: skip
    (cell,) = (one for one in cells if (one["settings"]["sampler"], one["settings"]["seed"]) == ("bhns", 1))
    assert run["systems"]["cross_encoder"]["ndcg@10"] == pytest.approx(cell["ndcg@10"] / 100, abs=1e-6)
    assert (run["num_queries"], run["num_pairs"]) == (found["num_queries"], found["num_pairs"])
    # Another split is another table.
    other = call(*arguments, "--samplers", "none", "--seeds", "1", "--set", "relevance.split_seed=2", "--json").json
    assert [row["num_seeds"] for row in other["rows"]] == [1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sts", "nowhere"], "nowhere/sts-train.csv: no such file"),
        (["sts", ".", "--split", "train"], "--split train: must be one of dev, test"),
        (["sts", ".", "--samplers", "bhn"], "--samplers bhn: must be some of none, vns"),
        (["sts", ".", "--num-negatives", "2,x"], "--num-negatives 2,x: must be whole numbers of at least 1"),
        (["sts", ".", "--pool-size", "8"], "--pool-size 8: must be at least relevance.batch_size = 32"),
        (["train", "--resume"], "--resume: give the run to continue with --run DIR"),
        (["train", "--sampler", "bhn"], "relevance.sampler = 'bhn': input should be 'none', 'vns'"),
        (["train", "--set", "relevance.pool_size=8"], "pool_size = 8: must be at least batch_size = 32"),
        (["train", "--set", "relevance.temprature=1"], "did you mean relevance.temperature?"),
        (["evaluate", "nowhere"], "nowhere: not a run of uepp relevance train"),
        (["cases"], "give either a run or --data DIR"),
    ],
)
def test_what_is_refused(arguments: list[str], message: str, call: Call) -> None:
    assert message in call("relevance", *arguments).error


def test_bad_input_that_shows_late_leaves_no_run_behind(grades: Path, tmp_path: Path, call: Call) -> None:
    common = ["relevance", "train", "--data", grades, "--run", tmp_path / "run", *options()]
    refused = call(*common, "--bi-encoder", tmp_path).error
    assert "must be minilm, a text encoder (uepp pretrain), or an exported run" in refused
    refused = call(*common, "--sampler", "vns", "--set", "relevance.bi_encoder=null", "--encoder", tmp_path / "x").error
    assert "relevance.encoder = " in refused
    assert "no such directory" in refused
    assert not (tmp_path / "run").exists()


def test_what_is_wrong_anyway_is_refused_before_anything_is_embedded(
    grades: Path, finished: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hours of vectors went with the run that had a wrong --encoder, or waited for a typing error in --query."""

    def embedded(*_: Any) -> None:
        raise AssertionError("embedded")

    monkeypatch.setattr("uepp.pipeline.relevance.embed_pairs", embedded)
    data = ["--data", grades]
    for arguments, message in (
        (["train", *data, "--run", tmp_path / "run", "--encoder", tmp_path / "x"], "no such directory"),
        (
            ["train", *data, "--run", tmp_path / "run", *options(batch_size=200, pool_size=200)],
            "batch_size = 200: must",
        ),
        (["cases", *data, *options(), "--query", "zither"], "is no training query"),
        (["cases", *data, *options(sampler="vns", bi_encoder="null")], "bhns: looks at similarities"),
        (["cases", *data, *options(), "--pool-size", "4"], "--pool-size 4: must be at least relevance.batch_size = 8"),
        (["cases", finished, "--pool-size", "4"], "--pool-size 4: must be at least relevance.batch_size = 8"),
    ):
        assert message in call("relevance", *arguments).error
    assert not (tmp_path / "run").exists()


def test_help_says_how_to_begin(call: Call) -> None:
    for command in ((), ("sts",), ("train",), ("evaluate",), ("cases",)):
        assert "sampl" in call("relevance", *command, "--help").out
