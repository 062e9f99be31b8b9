"""Studies: which cells there are, that each is run once and kept, and what the table says."""

import fcntl
import json
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console
from scipy import stats
from text_encoders import write_text_encoder

from uepp import study
from uepp.artifacts import write_json
from uepp.config import load_config, shipped_studies
from uepp.data import marketplace
from uepp.errors import InputError
from uepp.evaluation.systems import OPPONENTS, needs_tuned_bm25
from uepp.study import running

QUIET = Console(quiet=True)
SMALL = {
    "features": {"vocabulary_size": 300, "num_oov_buckets": 5},
    "model": {"product_encoders": ["tokens"], "query_encoders": ["tokens"], "token_dim": 8, "output_dim": 8},
    "negatives": {"num_uniform": 4},
    "training": {"batch_size": 16, "max_steps": 3, "warmup_steps": 1},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("study") / "data"
    marketplace.generate(directory, num_products=80, num_events=4_000, seed=1, progress=False)
    return directory


def written(path: Path, **content: object) -> str:
    path.write_text(yaml.safe_dump({"settings": SMALL, **content}, sort_keys=False), encoding="utf-8")
    return str(path)


def test_cells_are_variants_times_seeds_and_seed_by_seed(data: Path, tmp_path: Path) -> None:
    read = study.load_study(
        written(tmp_path / "s.yaml", variants={"one": {}, "two": {"loss": {"power": 1}}}, seeds=[4, 7])
    )
    cells = study.cells_of(read, tmp_path, data, [], [])
    assert [(cell.variant, cell.seed) for cell in cells] == [("one", 4), ("two", 4), ("one", 7), ("two", 7)]
    assert [(cell.config.loss.power, cell.config.training.seed) for cell in cells] == [(2, 4), (1, 4), (2, 7), (1, 7)]
    assert cells[0].config.training.max_steps == 3
    assert len({cell.key for cell in cells}) == 4
    some = study.cells_of(read, tmp_path, data, [7], ["two"])
    assert [cell.key for cell in some] == [cells[3].key]


def refused(source: str, out: Path, data: Path, seeds: list[int]) -> str:
    with pytest.raises(InputError) as caught:
        study.cells_of(study.load_study(source), out, data, seeds, [])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_message_names_the_part_of_the_study_that_is_wrong(data: Path, tmp_path: Path) -> None:
    """Not the configuration that it starts from, which nobody has touched."""
    path = tmp_path / "s.yaml"
    wrong = {"training": {"max_step": 5}}
    hint = "unknown key training.max_step; did you mean training.max_steps?"
    source = written(path, variants={"good": {}, "bad": wrong})
    assert refused(source, tmp_path, data, []) == f"{path}: variant bad: {hint}"
    source = written(path, variants={"v": {}}, settings=wrong)
    assert refused(source, tmp_path, data, []) == f"{path}: settings: {hint}"
    uses = {"model": {"product_encoders": ["text"]}, "text": {"encoder": "t5"}}
    source = written(path, variants={"v": uses}, encoders={"t5": {"settings": {"pretraining": {"dims": 5}}}})
    assert refused(source, tmp_path, data, []).startswith(f"{path}: encoders.t5: unknown key pretraining.dims")
    source = written(path, variants={"v": {}}, seeds=[-1])
    assert refused(source, tmp_path, data, []).startswith(f"{path}: seeds: training.seed = -1: ")
    assert refused(source, tmp_path, data, [-2]).startswith("--seeds: training.seed = -2: ")


def test_a_study_is_read_with_care(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variant that is there twice was dropped; a mistyped path was read as the shipped study of that name."""
    path = tmp_path / "s.yaml"
    path.write_text("variants:\n  one: {loss: {power: 1}}\n  two: {}\n  one: {}\n")
    with pytest.raises(InputError, match=r"s\.yaml: line 4: key one is there a second time$"):
        study.load_study(str(path))
    monkeypatch.chdir(tmp_path)
    name = shipped_studies()[0]
    mistyped = str(tmp_path / f"{name}.yaml")
    with pytest.raises(InputError, match=f"^{mistyped}: no such file"):
        study.load_study(mistyped)
    assert (
        study.load_study(f"configs/studies/{name}.yaml") == study.load_study(name) == study.load_study(f"{name}.yaml")
    )


def test_a_cell_is_known_by_what_it_is(data: Path, tmp_path: Path) -> None:
    """Two studies share it, whatever they call it; another place of the same data does not matter, other data does."""
    one = study.load_study(written(tmp_path / "one.yaml", variants={"a": {"loss": {"power": 1}}}, seeds=[1]))
    two = study.load_study(
        written(tmp_path / "two.yaml", variants={"b": {}}, seeds=[1], settings={**SMALL, "loss": {"power": 1}})
    )
    (a,) = study.cells_of(one, tmp_path, data, [], [])
    (b,) = study.cells_of(two, tmp_path, data, [], [])
    assert a.key == b.key
    shutil.copytree(data, tmp_path / "moved")
    (c,) = study.cells_of(one, tmp_path, tmp_path / "moved", [], [])
    assert c.key == a.key
    marketplace.generate(tmp_path / "other", num_products=80, num_events=4_000, seed=2, progress=False)
    (d,) = study.cells_of(one, tmp_path, tmp_path / "other", [], [])
    assert d.key != a.key


def test_a_cell_depends_on_the_windows_and_the_grades_of_its_data(data: Path, tmp_path: Path) -> None:
    """Both decide its figures, and neither lies in the products or the events."""
    read = study.load_study(written(tmp_path / "s.yaml", variants={"v": {}}, seeds=[1]))
    keys = [study.cells_of(read, tmp_path, data, [], [])[0].key]
    for name, text in (("dataset.json", '{"train_end": "2024-05-01"}'), ("judgments.parquet", "grades")):
        shutil.copytree(data, tmp_path / name)
        (tmp_path / name / name).write_text(text)
        keys.append(study.cells_of(read, tmp_path, tmp_path / name, [], [])[0].key)
    assert len(set(keys)) == 3


def test_an_encoder_that_is_brought_along_counts_by_its_content(data: Path, tmp_path: Path) -> None:
    brought = tmp_path / "brought"
    variants = {"v": {"model": {"product_encoders": ["tokens", "text"]}, "text": {"encoder": "mine"}}}
    encoders = {"mine": {"from": str(brought)}}
    read = study.load_study(written(tmp_path / "s.yaml", variants=variants, seeds=[1], encoders=encoders))
    keys = []
    for content in ("one", "two", "one"):
        brought.mkdir(exist_ok=True)
        (brought / "vocab.txt").write_text(content)
        keys.append(study.cells_of(read, tmp_path, data, [], [])[0].key)
    assert keys[0] == keys[2] != keys[1]


def test_a_preset_counts_by_its_content(data: Path, tmp_path: Path) -> None:
    """A folder that was filled anew gave the same keys, so that cells of the old encoder were shown for it."""
    preset = tmp_path / "t5"
    preset.mkdir()
    variants = {"v": {"model": {"product_encoders": ["tokens", "text"]}, "text": {"encoder": "mine"}}}
    encoders = {"mine": {"settings": {"pretraining": {"preset": str(preset)}}}}
    read = study.load_study(written(tmp_path / "s.yaml", variants=variants, seeds=[1], encoders=encoders))
    keys = []
    for content in ("one", "two", "one"):
        (preset / "model.weights.h5").write_text(content)
        (encoder,) = study.encoders_of(read, tmp_path, data, [])
        keys.append((encoder.key, study.cells_of(read, tmp_path, data, [], [])[0].key))
    assert keys[0] == keys[2]
    assert not set(keys[0]) & set(keys[1])


def test_bm25_with_written_queries_is_of_the_cells_that_have_some(data: Path, tmp_path: Path) -> None:
    text = {"model": {"product_encoders": ["tokens", "text"]}}
    variants = {"none": {}, "silent": {**text, "text": {"encoder": "t5"}}, "wrote": {**text, "text": {"encoder": "w"}}}
    encoders = {"t5": {}, "w": {"settings": {"pretraining": {"generated_queries": 2}}}}
    also = ["fusion", "bm25_expanded"]
    read = study.load_study(written(tmp_path / "s.yaml", variants=variants, seeds=[1], encoders=encoders, also=also))
    cells = study.cells_of(read, tmp_path, data, [], [])
    assert [cell.also for cell in cells] == [("fusion",), ("fusion",), ("fusion", "bm25_expanded")]


def test_what_is_told_less_is_of_the_cells_that_read_more(data: Path, tmp_path: Path) -> None:
    """A cell was trained and exported before it failed, since its query tower reads the query alone."""
    reads = {"query": ["tokens"], "place": ["tokens", "location"], "all": ["tokens", "location", "history"]}
    variants = {name: {"model": {"query_encoders": encoders}} for name, encoders in reads.items()}
    also = ["uepp_query", "uepp_place", "fusion"]
    read = study.load_study(written(tmp_path / "s.yaml", variants=variants, seeds=[1], also=also))
    cells = study.cells_of(read, tmp_path, data, [], [])
    assert [cell.also for cell in cells] == [("fusion",), ("uepp_query", "fusion"), tuple(also)]


def test_bm25_is_tuned_only_where_its_settings_are_read() -> None:
    reading = {name for name in (*OPPONENTS, "uepp") if needs_tuned_bm25(name)}
    assert {"bm25", "fusion", "bm25_quality", "bm25_expanded"} <= reading
    assert not reading & {"uepp", "uepp_boost", "uepp_query", "uepp_place", "random_walk", "popularity"}


def test_a_run_that_a_kill_left_beside_its_figures_is_removed(data: Path, tmp_path: Path) -> None:
    read = study.load_study(written(tmp_path / "s.yaml", variants={"v": {}}, seeds=[1], against=[]))
    (cell,) = study.cells_of(read, tmp_path, data, [], [])
    directory = tmp_path / "cells" / cell.name
    windows = {window: {"systems": {"uepp": scores(0.25, None)}} for window in ("selection", "report")}
    write_json(directory / "metrics.json", {**windows, "seconds": {"train": 1.0}})
    write_json(directory / "run" / "checkpoints" / "large.json", {})
    results = study.run_study("s", read, [cell], tmp_path, QUIET)
    assert results["variants"]["v"][0]["report"]["all"]["recall@10"] == 0.25
    assert [path.name for path in directory.iterdir()] == ["metrics.json"]


def test_a_cell_that_another_process_makes_is_waited_for(data: Path, tmp_path: Path) -> None:
    """Another study is at it: this one takes what that one leaves."""
    read = study.load_study(written(tmp_path / "s.yaml", variants={"v": {}}, seeds=[1], against=[]))
    (cell,) = study.cells_of(read, tmp_path, data, [], [])
    directory = tmp_path / "cells" / cell.name
    directory.mkdir(parents=True)
    lock = os.open(directory, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)

    def other() -> None:
        deadline = time.monotonic() + 120
        while "waiting for it" not in ((directory / "log.txt").read_text() if (directory / "log.txt").exists() else ""):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        systems = {"uepp": scores(0.25, None)}
        windows = {window: {"systems": systems} for window in ("selection", "report")}
        write_json(directory / "metrics.json", {**windows, "seconds": {"train": 1.0}})
        os.close(lock)

    thread = threading.Thread(target=other)
    thread.start()
    results = study.run_study("s", read, [cell], tmp_path, QUIET)
    thread.join()
    assert results["variants"]["v"][0]["report"]["all"]["recall@10"] == 0.25
    assert not (directory / "run").exists()


def test_the_table_has_what_another_process_made_meanwhile(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two `uepp study --only` side by side, the last to end wrote a table without the other's cells."""
    variants = {"mine": {}, "theirs": {"loss": {"power": 1}}, "late": {"training": {"max_steps": 4}}}
    read = study.load_study(written(tmp_path / "s.yaml", variants=variants, seeds=[1]))
    asked = study.cells_of(read, tmp_path, data, [], ["mine"])
    shown = study.with_other_cells(read, tmp_path, data, asked)
    windows = {window: {"systems": {"uepp": scores(0.25, None)}} for window in ("selection", "report")}
    directories = {cell.variant: tmp_path / "cells" / cell.name for cell in shown}

    def run_all(tasks: Any, on_end: Any, **_: Any) -> None:
        for name in ("mine", "theirs"):
            write_json(directories[name] / "metrics.json", {**windows, "seconds": {"train": 1.0}})
        on_end(0, None)

    def opponents(*_: Any) -> dict[str, Any]:
        write_json(directories["late"] / "metrics.json", {**windows, "seconds": {"train": 1.0}})
        return {}

    monkeypatch.setattr(running, "run_all", run_all)
    monkeypatch.setattr(running, "_opponents", opponents)
    results = study.run_study("s", read, asked, tmp_path, QUIET, shown=shown)
    assert list(results["variants"]) == ["mine", "theirs", "late"]
    assert json.loads((tmp_path / "s" / "results.json").read_text()) == json.loads(json.dumps(results))


def test_a_text_encoder_counts_by_its_content(data: Path, tmp_path: Path) -> None:
    keys = []
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        write_text_encoder(tmp_path / name, seed=seed)
        changes = {"text": {"encoder": str(tmp_path / name)}, "model": {"product_encoders": ["tokens", "text"]}}
        read = study.load_study(written(tmp_path / f"{name}.yaml", variants={"v": changes}, seeds=[1]))
        keys += [cell.key for cell in study.cells_of(read, tmp_path, data, [], [])]
    assert keys[0] != keys[2]


def test_a_study_makes_its_text_encoders_once(data: Path, tmp_path: Path) -> None:
    """Two variants take one encoder, which is pretrained on the study's data; a third has none."""
    tiny = {
        "vocabulary_size": 60, "dim": 8, "num_layers": 1, "num_heads": 2, "intermediate_dim": 8, "max_tokens": 8,
        "batch_size": 8, "max_steps": 0, "held_out_share": 0.3,
    }  # fmt: skip
    with_text = {"model": {"product_encoders": ["tokens", "text"]}, "text": {"encoder": "t5"}}
    variants = {
        "none": {},
        "frozen": with_text,
        "trained": {**with_text, "text": {"encoder": "t5", "trainable": True}},
    }
    encoders = {"t5": {"settings": {"pretraining": tiny}}, "unused": {"from": "nowhere"}}
    read = study.load_study(written(tmp_path / "s.yaml", variants=variants, seeds=[1], encoders=encoders))
    out = tmp_path / "out"
    (encoder,) = study.encoders_of(read, out, data, [])
    assert study.encoders_of(read, out, data, ["none"]) == []
    study.make_encoders([encoder], out, QUIET)
    facts = json.loads((encoder.path(out) / "encoder.json").read_text())
    assert facts["dim"] == 8
    assert facts["source"]["steps"] == 0
    made_at = (encoder.path(out) / "encoder.json").stat().st_mtime_ns
    study.make_encoders([encoder], out, QUIET)
    assert (encoder.path(out) / "encoder.json").stat().st_mtime_ns == made_at
    assert sorted(path.name for path in (out / "cells" / encoder.key).iterdir()) == [
        "encoder", "log.txt", "metrics.json",
    ]  # fmt: skip
    paths = [cell.config.text.encoder for cell in study.cells_of(read, out, data, [], [])]
    assert paths == [None, str(encoder.path(out)), str(encoder.path(out))]


def test_a_text_encoder_that_cannot_be_made_is_named(data: Path, tmp_path: Path) -> None:
    variants = {"v": {"model": {"product_encoders": ["tokens", "text"]}, "text": {"encoder": "mine"}}}
    encoders = {"mine": {"from": str(tmp_path / "nowhere")}}
    read = study.load_study(written(tmp_path / "s.yaml", variants=variants, seeds=[1], encoders=encoders))
    with pytest.raises(InputError, match=r"text encoder mine: could not be made \(.*nowhere"):
        study.make_encoders(study.encoders_of(read, tmp_path / "out", data, []), tmp_path / "out", QUIET)


@pytest.mark.parametrize("name", shipped_studies())
def test_shipped_studies_are_of_distinct_cells(name: str, data: Path, tmp_path: Path) -> None:
    read = study.load_study(name)
    assert read.description
    cells = study.cells_of(read, tmp_path, data, [], [])
    assert len(read.seeds) == 3
    assert len({cell.key for cell in cells}) == len(cells) == 3 * len(read.variants)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("variants: {}", "variants: .*at least 1"),
        ("variants: {a: {}}\nseed: [1]", "seed: Extra inputs are not permitted; got"),
        ("variants: {a: {}}\nseeds: [one]", "seeds.0: .*integer"),
        ("variants: [", "not valid YAML"),
        ("variants: {a: {}}\nreferences: [b]", "references: .*b is not one of the variants"),
        ("variants: {a: {}}\nalso: [fusion, uepp_boost, fusion]", "also: .*fusion is there a second time"),
        ("variants: {a: {}}\nseeds: [1, 1]", "seeds: .*1 is there a second time"),
        ("variants: {a: {}}\ncolumns: {x: [tial, recall@100]}", "columns: .*tial is no slice; slices are all, head, "),
        ("variants: {a: {}}\ncolumns: {x: [tail, recal@100]}", "columns: .*recal@100 is no measure; .* recall@K, "),
        ("variants: {a: {}}\ncolumns: {x: [locality, p50]}", "columns: .*p50 is not measured of locality, but dist"),
        ("variants: {a: {}}\nagainst: [bm25, fusion]", "against: fusion is made of a run, .* put it in also"),
    ],
)
def test_a_wrong_study_is_named(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(content)
    with pytest.raises(InputError, match=message):
        study.load_study(str(tmp_path / "s.yaml"))


def test_what_is_not_there_is_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="table9: no such study; give a YAML file or one of: encoders"):
        study.load_study("table9")
    read = study.load_study(written(tmp_path / "s.yaml", variants={"a": {"loss": {"power": 3}}}))
    with pytest.raises(InputError, match="--only b: no such variant; the study has a"):
        study.cells_of(read, tmp_path, data, [], ["b"])
    with pytest.raises(InputError, match=r"loss\.power = 3"):
        study.cells_of(read, tmp_path, data, [], [])
    good = study.load_study(written(tmp_path / "good.yaml", variants={"a": {}}))
    with pytest.raises(InputError, match=r"products\.parquet: no such file"):
        study.cells_of(good, tmp_path, tmp_path / "nowhere", [], [])


def test_each_cell_is_run_once_and_a_failed_one_does_not_take_the_others_along(data: Path, tmp_path: Path) -> None:
    """A study with a variant that cannot train; then one that asks less of the other, when nothing is left to do.

    Its table has what is there of the variants that were not asked for, and none of what cannot be had.
    """
    out = tmp_path / "out"
    variants = {"good": {}, "bad": {"data": {"train_end": "2001-01-01"}}}
    also = ["uepp_boost", "fusion"]
    settings = {**SMALL, "boosting": {"num_trials": 3, "max_boost": 3.0}}
    read = study.load_study(
        written(tmp_path / "s.yaml", settings=settings, variants=variants, seeds=[1], also=also, against=[])
    )
    cells = study.cells_of(read, out, data, [], [])
    with pytest.raises(InputError, match="1 of 2 cells failed; run the study again"):
        study.run_study("s", read, cells, out, QUIET)
    kept = out / "cells" / f"{cells[0].key}-fusion-uepp_boost"
    assert sorted(path.name for path in kept.iterdir()) == ["config.yaml", "log.txt", "metrics.json"]
    assert load_config(str(kept / "config.yaml")) == cells[0].config
    rows = json.loads((out / "s" / "results.json").read_text())["variants"]
    assert list(rows) == ["good", "good, boosted", "good, with tuned BM25 (RRF)"]
    assert rows["good"][0]["report"]["all"] != rows["good, with tuned BM25 (RRF)"][0]["report"]["all"]
    before = (kept / "metrics.json").stat().st_mtime_ns

    columns = {"NDCG@10": ["all", "ndcg@10"]}
    no_encoder = {"model": {"product_encoders": ["tokens", "text"]}, "text": {"encoder": str(tmp_path / "nowhere")}}
    variants = {"good": {}, "no encoder": no_encoder, "again": {}}
    less = study.load_study(
        written(tmp_path / "less.yaml", settings=settings, variants=variants, seeds=[1], columns=columns)
    )
    asked = study.cells_of(less, out, data, [], ["again"])
    shown = study.with_other_cells(less, out, data, asked)
    results = study.run_study("less", less, asked, out, QUIET, shown=shown)
    assert (kept / "metrics.json").stat().st_mtime_ns == before
    assert json.loads((out / "less" / "results.json").read_text()) == json.loads(json.dumps(results))
    (cell,) = results["variants"]["again"]
    assert cell["seed"] == 1
    assert 0 <= cell["report"]["all"]["recall@100"] <= 1
    assert cell["selection"] != cell["report"]
    assert results["opponents"]["bm25"]["report"]["all"]["recall@100"] > 0
    table = (out / "less" / "table.md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in table[2:]] == ["| good", "| again", "| BM25, tuned"]
    assert "| NDCG@10 |" in table[0]
    assert f"{cell['report']['all']['ndcg@10']:.3f}".lstrip("0") in table[2]


def scores(recall: float, tail: float | None) -> dict[str, dict[str, float | None]]:
    both = dict.fromkeys(("recall@10", "recall@100", "recall@1000"), recall)
    return {"all": both, "head": both, "tail": {"recall@100": tail}, "non_repeat": both}


def test_the_table_has_means_and_deviations_over_seeds() -> None:
    cells = [
        {
            "seed": seed,
            "seconds": {"train": 10.0 * seed, "step": 0.125},
            "report": scores(recall, None),
            "selection": scores(0.5, 0.1),
        }
        for seed, recall in ((1, 0.25), (2, 0.75))
    ]
    opponent = {"report": scores(0.125, 1.0), "selection": scores(0.5, 0.1)}
    results = {"description": "", "variants": {"v": cells}, "opponents": {"bm25": opponent}}
    lines = study.markdown(results).splitlines()
    assert lines[0].startswith("| variant | seeds | R@10 | R@100 | R@1000 | head R@100 | tail R@100 |")
    assert len({line.count("|") for line in lines}) == 1
    spread = ".500 ± .354"
    assert (
        lines[2] == f"| v | 2 | {spread} | {spread} | {spread} | {spread} | – | {spread} | .500 ± .000 | 125 | 15 | – |"
    )
    assert lines[3] == "| BM25, tuned | – | .125 | .125 | .125 | .125 | 1.000 | .125 | .500 | – | – | – |"


def test_the_table_has_the_interval_of_the_main_recall() -> None:
    """Of the variants the mean of the seeds' ends, of an opponent its own; a row of too few queries has none."""

    def cell(seed: int, low: float | None) -> dict[str, Any]:
        ends = [low, None if low is None else low + 0.25]
        found = {"all": {"recall@10": 0.25, "recall@100": 0.5, "intervals": {"recall@10": [0, 1], "recall@100": ends}}}
        return {"seed": seed, "seconds": {}, "report": found, "selection": found}

    variants = {"v": [cell(1, 0.25), cell(2, 0.5)], "few": [cell(1, 0.25), cell(2, None)]}
    results = {"description": "", "variants": variants, "opponents": {"bm25": cell(0, 0.125)}}
    head, _, *rows = study.markdown(results).splitlines()
    assert head.startswith("| variant | seeds | R@10 | R@100 | R@100, 95% | head R@100 |")
    assert [row.split(" | ")[4] for row in rows] == [".375 to .625", "–", ".125 to .375"]
    assert len({row.count("|") for row in (head, *rows)}) == 1


def test_the_table_has_the_ks_of_the_study() -> None:
    """They were 10, 100 and 1,000 whatever was measured: columns of nothing."""
    found = {"all": {"recall@5": 0.3, "recall@50": 0.5, "ndcg@5": 0.1}, "head": {"recall@50": 0.25}}
    cell = {"seed": 1, "seconds": {}, "report": found, "selection": found}
    head, _, row = study.markdown({"description": "", "variants": {"v": [cell]}}).splitlines()
    heads = "| variant | seeds | R@5 | R@50 | head R@50 | tail R@50 | new R@50 | R@50, selection |"
    assert head.startswith(heads)
    assert row.startswith("| v | 1 | .300 | .500 | .250 | – | – | .500 |")


def test_kilometres_and_small_precisions_are_written_as_such() -> None:
    """Kilometres had three places, and so had a precision at 1,000."""

    def cell(seed: int, far: float) -> dict[str, Any]:
        found = {"all": {"recall@10": 0.5, "precision@1000": far / 2e6}, "locality": {"distance_km_p50": far}}
        return {"seed": seed, "seconds": {}, "report": found, "selection": found}

    columns = {"km": ["locality", "distance_km_p50"], "P@1000": ["all", "precision@1000"]}
    variants = {"here": [cell(1, 1_000.2), cell(2, 1_000.4)], "away": [cell(1, 4_183.7), cell(2, 4_185.1)]}
    results = {"description": "", "columns": columns, "variants": variants, "references": {"away": "here"}}
    lines = study.markdown(results).splitlines()
    assert "| 4,184 ± 1 | .0021 ± .0000 |" in next(line for line in lines if line.startswith("| away | 2 |"))
    assert lines[-1].replace("\\*", "*").endswith("| +3,184 ± 1* | +.0016 ± .0000* |")


def test_a_variant_is_compared_with_the_latest_reference_before_it(data: Path, tmp_path: Path) -> None:
    read = study.load_study(
        str(written(tmp_path / "s.yaml", variants={name: {} for name in "abcde"}, references=["b", "d"]))
    )
    assert {name: read.reference_of(name) for name in "abcde"} == {"a": "b", "b": None, "c": "b", "d": None, "e": "d"}
    read = study.load_study(str(written(tmp_path / "s.yaml", variants={"a": {}, "b": {}})))
    assert {name: read.reference_of(name) for name in "ab"} == {"a": None, "b": "a"}


def test_differences_are_of_the_seeds_that_both_have() -> None:
    def cell(seed: int, recall: float, tail: float | None) -> dict[str, Any]:
        return {"seed": seed, "seconds": {}, "report": scores(recall, tail), "selection": scores(recall, 0.5)}

    results = {
        "description": "",
        "variants": {
            "plain": [cell(1, 0.50, 0.1), cell(2, 0.60, 0.1), cell(3, 0.40, 0.1), cell(9, 0.0, 0.1)],
            "better": [cell(3, 0.42, None), cell(1, 0.51, 0.1), cell(2, 0.63, 0.1)],
            "other": [cell(1, 0.60, 0.1), cell(2, 0.55, 0.1)],
            "alone": [cell(1, 0.60, 0.1)],
        },
        "references": {"better": "plain", "other": "plain", "alone": "plain"},
    }
    better, other = study.differences(results)
    assert (better.name, better.reference, better.num_seeds) == ("better", "plain", 3)
    mean, deviation, apart = better.quality[0]
    gaps = [0.01, 0.03, 0.02]
    assert (mean, deviation) == pytest.approx((np.mean(gaps), np.std(gaps, ddof=1)))
    assert apart == (stats.ttest_1samp(gaps, 0).pvalue < 0.05)
    assert better.quality[4] is None, "the tail has no figure in one of the cells"
    assert not other.quality[0][2]
    lines = study.markdown(results).splitlines()
    row = next(line for line in lines if line.startswith("| better | plain |"))
    assert row.startswith("| better | plain | 3 | +.020 ± .010 | ")
    assert next(line for line in lines if line.startswith("| other | plain |")).startswith(
        "| other | plain | 2 | +.025 ± .106 | "
    )
    assert not any(line.startswith("| alone | plain") for line in lines)


def test_what_a_study_says_is_text() -> None:
    one = {"seed": 1, "seconds": {}, "report": scores(0.5, 0.5), "selection": scores(0.5, 0.5)}
    results = {"description": "groups [tags] and [title]", "columns": {"[new]": ["tail", "recall@100"]}}
    console = Console(width=300)
    with console.capture() as capture:
        study.print_study(results | {"variants": {"[bold]v": [one]}}, console)
    assert all(text in capture.get() for text in ("groups [tags] and [title]", "[new]", "[bold]v"))


def test_a_narrow_terminal_gets_the_table_in_parts() -> None:
    def cells(recall: float) -> list[dict[str, Any]]:
        return [
            {"seed": seed, "seconds": {"step": 1.491}, "report": scores(0.5, recall), "selection": scores(0.5, 0.125)}
            for seed in (1, 2)
        ]

    variants = {"a variant with a long name, a": cells(0.25), "a variant with a long name, b": cells(0.75)}
    references = {"a variant with a long name, b": "a variant with a long name, a"}
    results = {"description": "", "columns": {}, "variants": variants, "references": references}
    figures = [row.split(" | ") for row in study.markdown(results).splitlines() if row.startswith("| a variant")]
    expected = sorted(" ".join(row[1:]).replace("\\*", "*").replace("|", " ") for row in figures)
    assert any("+.500 ± .000*" in row for row in expected)
    for width in (40, 60, 80, 400):
        console = Console(width=width)
        with console.capture() as capture:
            study.print_study(results, console)
        text = capture.get()
        assert all(len(line) <= width for line in text.splitlines())
        for figure in (".250 ± .000", ".750 ± .000", "+.500 ± .000*", "1491"):
            assert text.count(figure) == sum(row.count(figure) for row in expected), (width, figure)
        assert (text.count("┏") == 2) == (width == 400)
