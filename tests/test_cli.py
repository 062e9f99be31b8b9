"""The command line: what it refuses, in one line each, and how it starts and prints."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from commands import Call
from files import everything_below

from uepp.cli import app
from uepp.config import Config, save_config

ROOT = Path(__file__).parents[1]
DAY = datetime(2024, 5, 1, tzinfo=UTC)
HEAVY = (
    "tensorflow",
    "tensorflow_text",
    "tensorflow_recommenders",
    "tf_keras",
    "faiss",
    "ibis",
    "duckdb",
    "skopt",
    "sklearn",
)


# Data sets with one thing wrong


def products(**changes: Any) -> dict[str, Any]:
    columns = {"product_id": ["1", "2"], "title": ["lamp", "mug"], "latitude": [1.0, None], "longitude": [2.0, None]}
    return columns | changes


def events(**changes: Any) -> dict[str, Any]:
    columns = {
        "timestamp": pa.array([DAY + timedelta(days=day) for day in range(10)], pa.timestamp("us", "UTC")),
        "type": ["search", *["purchase"] * 9],
        "query": ["lamp"] * 10,
        "product_id": [None, *["1", "2", "1"] * 3],
    }
    return columns | changes


def table(columns: dict[str, Any]) -> pa.Table:
    return pa.table({name: values for name, values in columns.items() if values is not None})


def data_set(directory: Path, products_: dict[str, Any] | None = None, events_: dict[str, Any] | None = None) -> Path:
    directory.mkdir()
    pq.write_table(table(products_ or products()), directory / "products.parquet")
    pq.write_table(table(events_ or events()), directory / "events.parquet")
    return directory


def emptied(directory: Path, name: str) -> Path:
    (data_set(directory) / name).write_bytes(b"")
    return directory


def truncated(directory: Path, name: str) -> Path:
    file = data_set(directory) / name
    file.write_bytes(file.read_bytes()[:-20])
    return directory


@dataclass(frozen=True)
class BadData:
    """What makes the data set, and what the line must name."""

    make: Callable[[Path], Path]
    expected: tuple[str, ...]


BAD_DATA = {
    "a missing column": BadData(lambda d: data_set(d, products(title=None)), ("products.parquet", "title")),
    "a missing column of events": BadData(
        lambda d: data_set(d, events_=events(query=None)), ("events.parquet", "missing column query")
    ),
    "a bad type": BadData(
        lambda d: data_set(d, products(product_id=[1, 2])), ("products.parquet", "product_id", "int64", "string")
    ),
    "a duplicate product": BadData(
        lambda d: data_set(d, products(product_id=["1", "1"])), ("products.parquet", "product_id", "row 1", "'1'")
    ),
    "an unknown product": BadData(
        lambda d: data_set(d, events_=events(product_id=[None, "1", "77", *["1"] * 7])),
        ("events.parquet", "product_id", "row 2", "'77'"),
    ),
    "NaN coordinates": BadData(
        lambda d: data_set(d, products(latitude=[1.0, float("nan")], longitude=[2.0, 2.0])),
        ("products.parquet", "latitude", "row 1", "nan", "-90 to 90"),
    ),
    "an unknown event type": BadData(
        lambda d: data_set(d, events_=events(type=["search", *["bought"] * 9])),
        ("events.parquet", "type", "row 1", "'bought'", "search, impression, click, cart, purchase"),
    ),
    "an empty file": BadData(lambda d: emptied(d, "events.parquet"), ("events.parquet", "0 bytes")),
    "an empty catalogue": BadData(
        lambda d: data_set(d, {name: pa.array([], pa.string()) for name in ("product_id", "title")}),
        ("products.parquet", "0 rows"),
    ),
    "a truncated file": BadData(lambda d: truncated(d, "products.parquet"), ("products.parquet", "truncated")),
    "no such directory": BadData(lambda d: d, ("data", "no such directory")),
    "a missing file": BadData(
        lambda d: (data_set(d) / "events.parquet").unlink() or d, ("events.parquet", "no such file")
    ),
    "a broken dataset.json": BadData(
        lambda d: (data_set(d) / "dataset.json").write_text("{") and d, ("dataset.json", "not a readable JSON")
    ),
    "an unknown end of training": BadData(
        lambda d: (data_set(d) / "dataset.json").write_text('{"train_end": "May"}') and d, ("dataset.json", "'May'")
    ),
}  # fmt: skip


def assert_refused(result: tuple[int, str, str], expected: tuple[str, ...]) -> None:
    """Exit code 2, nothing on stdout, and one last line on stderr that says what is wrong."""
    code, out, err = result
    lines = err.splitlines()
    assert code == 2, err
    assert out == ""
    assert "Traceback" not in err
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
    for part in expected:
        assert part in lines[-1]


@pytest.mark.parametrize("bad", BAD_DATA.values(), ids=BAD_DATA.keys())
@pytest.mark.parametrize("command", ["validate", "train"])
def test_bad_data_is_refused_and_nothing_written(call: Call, tmp_path: Path, command: str, bad: BadData) -> None:
    data = bad.make(tmp_path / "data")
    before = everything_below(tmp_path)
    arguments = [data] if command == "validate" else ["demo", "--data", data, "--run", tmp_path / "run"]
    result = call(command, *arguments)
    assert_refused(result, bad.expected)
    if command == "validate":
        assert len(result[2].splitlines()) == 1
    assert everything_below(tmp_path) == before


def test_data_without_anything_to_learn_from_is_refused_and_nothing_written(call: Call, tmp_path: Path) -> None:
    data = data_set(tmp_path / "data", events_=events(type=["search", *["impression"] * 9]))
    before = everything_below(tmp_path)
    expected = ("events.parquet", "no click, cart or purchase in the example window")
    assert_refused(call("train", "--data", data, "--run", tmp_path / "run"), expected)
    assert everything_below(tmp_path) == before


def test_a_catalogue_that_comes_after_training_is_refused_and_nothing_written(call: Call, tmp_path: Path) -> None:
    """The moment of an upload in place of the product's own; nothing could be a candidate."""
    late = pa.array([DAY + timedelta(days=900)] * 2, pa.timestamp("us", "UTC"))
    data = data_set(tmp_path / "data", products(created_at=late))
    before = everything_below(tmp_path)
    expected = ("column created_at: no product was there before T", "leave it out, or set data.train_end")
    assert_refused(call("train", "--data", data, "--run", tmp_path / "run"), expected)
    assert everything_below(tmp_path) == before


def test_quality_known_only_later_is_refused_and_nothing_written(call: Call, tmp_path: Path) -> None:
    late = pa.array([DAY + timedelta(days=9)] * 2, pa.timestamp("us", "UTC"))
    data = data_set(tmp_path / "data", products(quality_rating=[1.0, 2.0], quality_as_of=late))
    before = everything_below(tmp_path)
    assert_refused(call("train", "--data", data, "--run", tmp_path / "run"), ("quality_as_of", "leakage"))
    assert everything_below(tmp_path) == before


def test_interactions_that_the_log_lacks_are_refused_and_nothing_written(call: Call, tmp_path: Path) -> None:
    """Found after the data was checked and mined; on the way, a column's name is printed as it is."""
    clicked = {**events(), "type": ["click" if name == "purchase" else name for name in events()["type"]]}
    data = data_set(tmp_path / "data", {**products(), "[/bold]": ["x", "y"]}, clicked)
    before = everything_below(tmp_path)
    result = call("train", "--data", data, "--run", tmp_path / "run", "--set", "training.positive_types=[purchase]")
    assert_refused(result, ("training.positive_types = ['purchase']", "click"))
    assert "ignored unknown columns: [/bold]" in result[2]
    assert everything_below(tmp_path) == before


def test_a_good_data_set_is_accepted(call: Call, tmp_path: Path) -> None:
    """The data sets above are refused for what is wrong in them, not for something else."""
    data = data_set(tmp_path / "data", products(colour=["red", "blue"]))
    code, out, _ = call("validate", data, "--json")
    assert code == 0
    assert json.loads(out)["rows"] == {"products": 2, "events": 10}
    code, out, _ = call("validate", data)
    assert code == 0
    assert "ignored unknown columns: colour" in out


# Settings, runs, sources and destinations


def yaml_file(directory: Path, text: str) -> Path:
    (directory / "mine.yaml").write_text(text, encoding="utf-8")
    return directory / "mine.yaml"


def occupied(directory: Path) -> Path:
    (directory / "occupied").mkdir()
    (directory / "occupied" / "note.txt").write_text("mine")
    return directory / "occupied"


def trained(directory: Path) -> Path:
    """What a trained run looks like to a command that has not opened its checkpoint yet."""
    (directory / "trained" / "checkpoints").mkdir(parents=True)
    save_config(Config(), directory / "trained" / "config.yaml")
    (directory / "trained" / "run.json").write_text('{"run_id": "1", "mined": "key", "data": "elsewhere"}')
    return directory / "trained"


def started(directory: Path) -> Path:
    """A run whose training never began."""
    run = trained(directory)
    (run / "run.json").write_text('{"run_id": "1"}')
    return run


def exported(directory: Path) -> Path:
    """What a run with an export looks like before the export is opened."""
    run = trained(directory)
    (run / "export").mkdir()
    (run / "export" / "manifest.json").write_text("{}")
    return run


def csv_file(directory: Path, header: str = "product_uid,product_title,search_term,relevance") -> Path:
    (directory / "train.csv").write_text(f"{header}\n1,lamp,red lamp,3\n")
    return directory / "train.csv"


REFUSED: dict[str, tuple[Callable[[Path], list[object]], tuple[str, ...]]] = {
    "an unknown key": (
        lambda d: ["train", yaml_file(d, "training: {max_stepz: 5}")],
        ("mine.yaml", "training.max_stepz", "did you mean training.max_steps?"),
    ),
    "an unknown stage": (lambda d: ["train", yaml_file(d, "trainin: {}")], ("mine.yaml", "did you mean training?")),
    "an unknown key of --set": (
        lambda d: ["train", "--set", "training.max_stepz=5"],
        ("training.max_stepz", "did you mean training.max_steps?"),
    ),
    "a wrong value": (lambda d: ["train", yaml_file(d, "training: {max_steps: 0}")], ("training.max_steps = 0", "1")),
    "a wrong value of --set": (
        lambda d: ["train", "--set", "training.max_steps=many"],
        ("training.max_steps = 'many'", "integer"),
    ),
    "a wrong choice": (
        lambda d: ["train", "--set", "data.relevant_types=[bought]"],
        ("data.relevant_types", "'bought'", "'click', 'cart' or 'purchase'"),
    ),
    "a setting without a value": (lambda d: ["train", "--set", "training.max_steps"], ("training.max_steps", "=")),
    "a setting that is not YAML": (lambda d: ["train", "--set", "data.path=[1"], ("data.path=[1", "YAML")),
    "a setting below a setting": (lambda d: ["train", "--set", "data.path.x=1"], ("data.path",)),
    "no such configuration": (lambda d: ["train", "dmo"], ("dmo", "demo")),
    "a configuration that is no mapping": (lambda d: ["train", yaml_file(d, "- 1")], ("mine.yaml", "mapping")),
    "a configuration that is not YAML": (lambda d: ["train", yaml_file(d, "a: [")], ("mine.yaml", "YAML")),
    "a key twice": (
        lambda d: ["train", yaml_file(d, "training:\n  max_steps: 5\ntraining:\n  seed: 1")],
        ("mine.yaml: line 3: key training", "second time"),
    ),
    "the 13th month": (
        lambda d: ["train", "--set", "data.train_end=2024-13-01"], ("--set data.train_end=2024-13-01", "month must be")
    ),
    "a number as a time": (lambda d: ["train", "--set", "data.train_end=20240420"], ("data.train_end = 20240420", "Z")),
    "a boolean as a number": (
        lambda d: ["train", "--set", "training.max_steps=true"], ("training.max_steps = True", "a whole number")
    ),
    "a mistyped path with a shipped name": (
        lambda d: ["train", "my/base.yaml"], ("my/base.yaml: no such file", "demo")
    ),
    "a wrong sampler": (
        lambda d: ["relevance", "train", "--sampler", "bsns"], ("error: --sampler: relevance.sampler = 'bsns'",)
    ),
    "a sampler that needs the bi-encoder": (
        lambda d: ["relevance", "sts", "none", "--bi-encoder", "none"], ("error: --bi-encoder: relevance", "bhns")
    ),
    "a wrong cache": (
        lambda d: ["serve", exported(d), "--cache", "lru"], ("error: --cache: serving.cache = 'lru'", "'layered'")
    ),
    "a boost at nothing": (
        lambda d: ["boost", exported(d), "--at", "0"], ("error: --at: boosting.at = 0", "greater than or equal to 1")
    ),
    "an unknown key of a variant": (
        lambda d: ["study", yaml_file(d, "{config: base, variants: {mine: {training: {max_step: 5}}}}")],
        ("mine.yaml: variant mine: unknown key training.max_step", "did you mean training.max_steps?"),
    ),
    "resume without --run": (lambda d: ["train", "--resume"], ("--resume", "--run")),
    "resume without a run": (lambda d: ["train", "--resume", "--run", d / "none"], ("none", "nothing to resume")),
    "resume of another directory": (
        lambda d: ["train", "--resume", "--run", occupied(d)], ("occupied", "nothing to resume")
    ),
    "resume with another model": (
        lambda d: ["train", "--resume", "--run", trained(d), "--set", "model.output_dim=7"], ("trained", "model")
    ),
    "resume with other negatives": (
        lambda d: ["train", "--resume", "--run", trained(d), "--set", "negatives.num_uniform=7"],
        ("trained", "--resume with negatives.num_uniform = 7, the run has", "only settings of training"),
    ),
    "resume with another history": (
        lambda d: ["train", "--resume", "--run", trained(d), "--set", "history.num_shops=7"], ("trained", "history")
    ),
    "resume with another graph": (
        lambda d: ["train", "--resume", "--run", trained(d), "--set", "graph.num_neighbors=7"], ("trained", "graph")
    ),
    "an encoder of the other tower": (
        lambda d: ["train", "--set", "model.query_encoders=[tokens, shop]"],
        ("model.query_encoders.1 = 'shop'", "'tokens', 'location', 'history' or 'text'"),
    ),
    "a run directory below a file": (lambda d: ["train", "--run", csv_file(d) / "run"], ("train.csv is a file",)),
    "an occupied run directory": (lambda d: ["train", "--run", occupied(d)], ("occupied", "not empty")),
    "a run directory that is a file": (lambda d: ["train", "--run", csv_file(d)], ("train.csv",)),
    # TensorFlow takes such a path for a pattern and does not find its own checkpoint there.
    "a run directory that reads as a pattern": (
        lambda d: ["train", "--run", d / "run [1]", "--data", d / "none"], ("run [1]", "* ? [ ]")
    ),
    "search of no run": (lambda d: ["search", d / "none", "lamp"], ("none", "not a run directory")),
    "search of another directory": (lambda d: ["search", occupied(d), "lamp"], ("occupied", "not a run directory")),
    "search before export": (lambda d: ["search", trained(d), "lamp"], ("trained", "no export yet")),
    "no results wanted": (lambda d: ["search", trained(d), "lamp", "--k", "0"], ("--k 0", "at least 1")),
    "fewer than no results wanted": (lambda d: ["search", trained(d), "lamp", "--k", "-3"], ("--k -3", "at least 1")),
    "evaluation of another directory": (lambda d: ["evaluate", occupied(d)], ("occupied", "not a run directory")),
    "evaluation before export": (lambda d: ["evaluate", trained(d)], ("trained", "no export yet")),
    "export of another directory": (lambda d: ["export", occupied(d)], ("occupied", "not a run directory")),
    "export before training": (lambda d: ["export", started(d)], ("trained", "has not been trained")),
    "export without its data": (lambda d: ["export", trained(d)], ("elsewhere",)),
    "an unknown index": (
        lambda d: ["export", trained(d), "--index", "foo"], ("--index 'foo': unknown", "known are flat, hnsw, ivf-flat")
    ),
    "an unknown index of another directory": (
        lambda d: ["export", occupied(d), "--index", "foo"], ("occupied", "not a run directory")
    ),
    "an unknown adapter": (
        lambda d: ["import", "amazon", csv_file(d), d / "new"], ("amazon", "home-depot", "open-ecommerce")
    ),
    "a missing source": (lambda d: ["import", "home-depot", d / "none", d / "new"], ("none", "no such file")),
    "a source with other columns": (
        lambda d: ["import", "open-ecommerce", csv_file(d), d / "new"], ("train.csv", "missing column")
    ),
    "a source without a grade": (
        lambda d: ["import", "home-depot", csv_file(d, "product_uid,product_title,search_term,grade"), d / "new"],
        ("train.csv", "relevance"),
    ),
    "an occupied destination": (
        lambda d: ["import", "home-depot", csv_file(d), occupied(d)], ("occupied", "not an empty directory")
    ),
    "a share above 1": (
        lambda d: ["import", "home-depot", csv_file(d), d / "new", "--eval-fraction", "1.5"], ("1.5", "0 to 1")
    ),
    "a share where there is none": (
        lambda d: ["import", "open-ecommerce", csv_file(d), d / "new", "--eval-fraction", "0.5"], ("--eval-fraction",)
    ),
    "an occupied place for a marketplace": (lambda d: ["generate", occupied(d)], ("occupied", "not empty")),
    "too few products": (lambda d: ["generate", d / "new", "--products", "3"], ("num_products = 3", "50")),
    "too few events": (lambda d: ["generate", d / "new", "--events", "3"], ("num_events = 3", "1000")),
    "a negative seed": (lambda d: ["generate", d / "new", "--seed", "-1"], ("seed = -1",)),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "expected"), REFUSED.values(), ids=REFUSED.keys())
def test_bad_input_is_refused_and_nothing_written(
    call: Call,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: Callable[[Path], list[object]],
    expected: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    made = arguments(tmp_path)
    before = everything_below(tmp_path)
    assert_refused(call(*made), expected)
    assert everything_below(tmp_path) == before


@pytest.mark.parametrize(
    "arguments",
    [["serch"], ["search"], ["search", "run"], ["search", "run", "lamp", "--k", "ten"], ["train", "--sett", "a.b=1"],
     ["search", "run", "lamp", "--latitude", "north"],
     ["generate", "new", "--products", "many"]],
)  # fmt: skip
def test_wrong_usage_has_exit_code_2(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert "Usage:" in err
    assert everything_below(tmp_path) == {}


# What is printed


@dataclass(frozen=True)
class _Hit:
    product_id: str
    title: str
    similarity: float


_HITS = [
    _Hit("007", "Ring [gift] [/bold] :heart: für 赤い", 0.98765),
    _Hit("8", "\n".join(f"word{number}" for number in range(80)), -0.5),
]


@pytest.fixture
def stub_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that prints as chattily as TensorFlow may, and finds two titles that are hard to print."""
    from uepp.serving import search

    class Searcher:
        def __init__(self, run_dir: Path) -> None:
            print(f"loading {run_dir}")

        def search(self, query: str, k: int, *, user: str | None, context: dict[str, Any], **_: bool) -> list[_Hit]:
            print(f"searching {query} for {user} in {context}")
            return _HITS[:k]

    monkeypatch.setattr(search, "Searcher", Searcher)


@pytest.mark.usefixtures("stub_search")
def test_titles_are_printed_as_they_are_one_a_line(call: Call) -> None:
    """Square brackets and colons in a title are text, and no line is broken where a pipe would count it twice."""
    code, out, _ = call("search", "run", "ring")
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == 2
    for line, hit, similarity in zip(lines, _HITS, ("0.988", "-0.500"), strict=True):
        assert line.split() == [similarity, *hit.title.split(), hit.product_id]


@pytest.mark.usefixtures("stub_search")
def test_json_is_all_that_is_on_stdout(call: Call) -> None:
    code, out, err = call("search", "run", "ring", "--k", "1", "--json")
    assert code == 0
    assert json.loads(out) == {"query": "ring", "hits": [vars(_HITS[0])]}
    assert "searching ring" in err


@pytest.mark.usefixtures("stub_search")
@pytest.mark.parametrize(
    ("options", "user", "context"),
    [
        ([], None, {}),
        (["--user", "u 1"], "u 1", {}),
        (["--country", "US", "--region", "CA", "--language", "en-US", "--zip", "02134"], None,
         {"country": "US", "region": "CA", "language": "en-US", "zip": "02134"}),
        (["--latitude", "0", "--longitude=-122.5"], None, {"latitude": 0.0, "longitude": -122.5}),
        (["--latitude", "-90", "--user", "7"], "7", {"latitude": -90.0}),
    ],
)  # fmt: skip
def test_who_searches_is_passed_on(call: Call, options: list[str], user: str | None, context: dict[str, Any]) -> None:
    """Only what was given; 0 degrees were given."""
    code, _, err = call("search", "run", "ring", *options)
    assert code == 0
    assert f"searching ring for {user} in {context}\n" in err


def test_a_marketplace_is_generated(call: Call, tmp_path: Path) -> None:
    data = tmp_path / "market"
    code, out, _ = call("generate", data, "--products", "50", "--events", "1000", "--seed", "3")
    assert code == 0
    assert f"uepp train --data {data}" in out
    assert json.loads((data / "dataset.json").read_text())["seed"] == 3
    assert call("validate", data)[0] == 0


def test_an_import_states_licence_and_protocol(call: Call, tmp_path: Path) -> None:
    code, out, _ = call("import", "home-depot", csv_file(tmp_path), tmp_path / "new", "--eval-fraction", "1")
    assert code == 0
    assert "Licence: Home Depot" in out
    assert "Protocol: Grades become events" in out
    assert call("validate", tmp_path / "new")[0] == 0


def test_a_path_is_printed_in_one_piece(call: Call, tmp_path: Path) -> None:
    """Who copies the next command from the screen, or cuts it out in a script, needs its path unbroken."""
    data = tmp_path / ("long " * 20) / "[b]market"
    code, out, _ = call("generate", data, "--products", "50", "--events", "1000")
    assert code == 0
    first, following = out.splitlines()
    assert first == f"Data set: {data}"
    assert shlex.split(following) == ["Next:", "uepp", "train", "--data", str(data)]


def commands(group: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """All commands below one, by what is typed."""
    if not hasattr(group, "commands"):
        return {path: group}
    return {name: one for part, sub in group.commands.items() for name, one in commands(sub, (*path, part)).items()}


def test_what_is_taken_without_an_option_is_in_the_help(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """In help texts a bracket is a style: `[default: 0.2]` was taken for one, and not shown."""
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("TERMINAL_WIDTH", "400")
    found = {}
    for path, command in commands(typer.main.get_command(app)).items():
        defaults = [
            text for one in command.params for text in re.findall(r"\[default: [^]]+\]", getattr(one, "help", "") or "")
        ]
        if defaults:
            code, out, _ = call(*path, "--help")
            assert code == 0
            shown = " ".join(re.sub("[│╭╰─╮╯]", " ", out).split())
            for default in defaults:
                assert default in shown
            found |= {one.help: one.help.count("[default: ") for one in command.params if getattr(one, "help", None)}
    source = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "uepp" / "cli").glob("*.py"))
    assert sum(found.values()) == source.count("[default: ") > 10, "all of them have been looked at; a shared one once"


# How it starts


def fresh(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['uepp', '--help']\nimport uepp.cli\n"
        "try:\n    uepp.cli.main()\nexcept SystemExit as exit:\n    assert not exit.code\n"
        f"print('heavy:', sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    begin = time.perf_counter()
    finished = fresh("-c", code)
    print(f"uepp --help in a fresh process: {time.perf_counter() - begin:.2f} s")
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines()[-1] == "heavy: []"
    for command in ("train", "export", "evaluate", "search", "serve", "generate", "import", "validate"):
        assert f" {command} " in finished.stdout


def test_a_bad_configuration_imports_nothing_heavy(call: Call) -> None:
    code = (
        "import sys; sys.argv = ['uepp', 'train', '--set', 'training.max_stepz=5']\nimport uepp.cli\n"
        "try:\n    uepp.cli.main()\nexcept SystemExit as exit:\n    assert exit.code == 2\n"
        f"print('heavy:', sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    finished = fresh("-c", code)
    assert finished.stdout == "heavy: []\n"
    assert finished.stderr.count("\n") == 1


@pytest.mark.parametrize(("own", "expected"), [(None, "3"), ("0", "0"), ("2", "2")])
def test_tensorflow_is_quiet_unless_somebody_wants_to_hear_it(own: str | None, expected: str) -> None:
    """Where there is no GPU, level 2 opens each command with lines about CUDA errors."""
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    environment |= {} if own is None else {"TF_CPP_MIN_LOG_LEVEL": own}
    code = "import os, uepp; print(os.environ['TF_CPP_MIN_LOG_LEVEL'])"
    command = [sys.executable, "-c", code]
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert finished.stdout == f"{expected}\n"


@pytest.mark.parametrize(("script", "option"), [("train.py", "--resume"), ("export.py", "--index")])
def test_the_scripts_at_the_top_are_the_commands(script: str, option: str) -> None:
    finished = fresh(ROOT / script, "--help")
    assert finished.returncode == 0, finished.stderr
    assert option in finished.stdout
    refused = fresh(ROOT / script, "--no-such-option")
    assert (refused.returncode, refused.stdout) == (2, "")


def test_the_version(call: Call) -> None:
    import uepp

    assert call("--version")[:2] == (0, f"uepp {uepp.__version__}\n")
