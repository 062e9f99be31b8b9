"""What a run keeps of its stages' time and memory."""

from pathlib import Path

from rich.console import Console

from uepp.artifacts import read_json, write_json
from uepp.runs.directory import COSTS, announced


def test_a_stage_that_goes_on_adds_its_time_and_a_repeated_one_replaces_it(tmp_path: Path) -> None:
    path = tmp_path / COSTS
    write_json(path, {"seconds": {"training": 100.0, "export": 100.0}, "peak_memory_bytes": 2**50})
    with announced(Console(quiet=True), "training", run_dir=tmp_path, adds=True):
        pass
    with announced(Console(quiet=True), "export", run_dir=tmp_path):
        pass
    costs = read_json(path)
    assert costs["seconds"]["training"] >= 100
    assert costs["seconds"]["export"] < 100
    assert costs["peak_memory_bytes"] == 2**50, "the highest of all"


def test_nothing_is_kept_where_no_run_is_named(tmp_path: Path) -> None:
    with announced(Console(quiet=True), "requests"):
        pass
    assert not list(tmp_path.iterdir())
