"""From trials to what is served, on real indexes over few vectors; times come from a formula, not from the machine."""

import dataclasses
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from uepp.errors import InputError
from uepp.index_families import FAMILIES, IndexSpec, faiss_defaults
from uepp.retrieval import ann, operating_point
from uepp.retrieval.ann import Builds, Reference
from uepp.retrieval.ann_report import as_markdown, plot_trials, print_result, verdicts
from uepp.retrieval.index import TooLongError
from uepp.retrieval.operating_point import AS_FAST, HELD_OUT, REPORT, TUNED_ON, Decision, Task, decide, run_trials
from uepp.retrieval.trials import MIN_GAIN, TrialLog
from uepp.retrieval.vectors import ProductVectors

N, DIM, AT = 3_000, 16, 200
FEW = ("flat", "hnsw", "ivf-flat")


def clustered(number: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(9).standard_normal((60, DIM))
    vectors = centers[rng.integers(0, 60, number)] + 0.4 * rng.standard_normal((number, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


VECTORS = ProductVectors([clustered(N, 1)])


def reference(number: int, seed: int) -> Reference:
    """Each request bought the product at the place of its number in the exact results."""
    if not number:
        return Reference.none()
    none = np.empty(0, np.int64)
    known = Reference.make(clustered(number, seed), VECTORS, None, none, none, AT)
    request = np.arange(number)
    return Reference(known.queries, known.exact, request, known.exact[request, request % AT])


def cost_ms(spec: IndexSpec) -> float:
    """What a query would take if only comparisons counted."""
    values = spec.values
    if spec.family == "flat":
        return 3.0
    if spec.family == "hnsw":
        return 0.05 + float(values["ef_search"]) * float(values["neighbors"]) / 16_000
    return (3 * float(values["nlist"]) + N * float(values["nprobe"]) / float(values["nlist"])) / 1_000


@pytest.fixture(autouse=True, scope="module")
def formula() -> Iterator[None]:
    def timed(index: Any, queries: np.ndarray, k: int, passes: int = 1, give_up_ms: float | None = None) -> np.ndarray:
        cost = cost_ms(index.spec)
        return np.full((1 if give_up_ms is not None and cost > give_up_ms else passes, len(queries)), cost)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ann, "time_queries", timed)
        patched.setattr(operating_point, "time_queries", timed)
        yield


def make_task(folder: Path, budget_ms: float, num_report: int = 60) -> Task:
    references = {TUNED_ON: reference(80, 2), HELD_OUT: reference(50, 3), REPORT: reference(num_report, 4)}
    return Task(Builds(folder / "indexes", VECTORS, None), references, N, DIM, AT, budget_ms, FEW)


def tuned(
    folder: Path, budget_ms: float, num_trials: int = 40, num_report: int = 60
) -> tuple[Task, TrialLog, Decision]:
    task = make_task(folder, budget_ms, num_report)
    log = TrialLog(folder / "trials.jsonl", "key")
    run_trials(task, log, num_trials)
    return task, log, decide(task, log)


Outcome = tuple[Task, TrialLog, Decision]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory, formula: None) -> Outcome:
    return tuned(tmp_path_factory.mktemp("tuned"), 0.6)


def test_the_choice_meets_the_budget_and_nothing_that_was_tried_is_better(outcome: Outcome) -> None:
    task, log, decision = outcome
    assert len(log.trials) == 40
    assert decision.reported_on == REPORT
    assert decision.row["index"] == str(decision.spec)
    assert decision.row["label"] == "tuned"
    assert decision.row["p99_ms"] == pytest.approx(cost_ms(decision.spec))
    assert decision.row["p99_ms"] <= 0.6
    held_out = task.references[HELD_OUT]
    for trial in log.trials:
        if trial.p99_ms <= 0.6:
            found = task.builds.index(trial.spec).search(held_out.queries, AT).rows
            overlap = np.mean([len(set(a) & set(b)) / AT for a, b in zip(found, held_out.exact, strict=True)])
            chosen = next(row for row in decision.tables[HELD_OUT] if row["label"] == "tuned")
            assert chosen[f"overlap@{AT}"] >= overlap - MIN_GAIN - 0.01
    assert decision.row[f"overlap@{AT}"] > 0.8


def test_it_is_compared_with_faiss_defaults_on_both_sets_of_requests(outcome: Outcome) -> None:
    _, _, decision = outcome
    assert [versus["family"] for versus in decision.defaults] == ["hnsw", "ivf-flat"]
    for rows in decision.tables.values():
        by_index = {row["index"]: row for row in rows}
        for versus in decision.defaults:
            default = faiss_defaults(versus["family"], N, DIM)
            assert versus["default"] == str(default)
            assert by_index[str(default)]["label"] == f"Faiss: {versus['family']}"
            better = by_index[versus["tuned"]]
            assert better["p99_ms"] <= by_index[str(default)]["p99_ms"]
            is_better = better[f"overlap@{AT}"] > by_index[str(default)][f"overlap@{AT}"]
            assert is_better == versus["ok"] or rows is decision.tables[HELD_OUT]
    assert all(versus["ok"] for versus in decision.defaults)


def test_a_budget_that_exact_search_meets_is_met_by_exact_results(tmp_path: Path) -> None:
    _, log, decision = tuned(tmp_path, 5.0, 12)
    assert decision.row[f"overlap@{AT}"] >= 1 - MIN_GAIN
    assert decision.row["p99_ms"] <= 3.0
    assert any(row["label"] in ("exact", "tuned") and row["index"] == "flat" for row in decision.tables[REPORT])
    assert not any(math.isnan(value) for trial in log.trials for value in trial.measured.values())


def test_a_budget_that_nothing_meets_is_refused_in_one_line(tmp_path: Path) -> None:
    task = make_task(tmp_path, 0.01)
    log = TrialLog(tmp_path / "trials.jsonl", "key")
    run_trials(task, log, 12)
    with pytest.raises(InputError) as caught:
        decide(task, log)
    fastest = min(log.trials, key=lambda trial: trial.p99_ms)
    assert str(caught.value).startswith(
        f"--budget-ms 0.01: the index stays as it was; none of 12 trials meets it, the fastest is {fastest.spec}, p99 "
    )
    assert "\n" not in str(caught.value)


def test_what_is_far_over_the_budget_is_not_searched_in_full(tmp_path: Path) -> None:
    log = TrialLog(tmp_path / "trials.jsonl", "key")
    run_trials(make_task(tmp_path, 0.3), log, 12)
    given_up = [trial for trial in log.trials if f"overlap@{AT}" not in trial.measured]
    assert [trial.spec.family for trial in given_up if trial.is_default] == ["flat"]
    assert all(trial.p99_ms > 0.9 for trial in given_up)


def test_without_a_report_window_the_held_out_requests_are_reported(tmp_path: Path) -> None:
    _, _, decision = tuned(tmp_path, 0.6, 8, num_report=0)
    assert decision.reported_on == HELD_OUT
    assert decision.tables[REPORT] == []
    assert decision.row in decision.tables[HELD_OUT]


def test_a_second_call_only_adds_what_is_missing(tmp_path: Path) -> None:
    tuned(tmp_path, 0.6, 12)
    lines: list[str] = []
    log = TrialLog(tmp_path / "trials.jsonl", "key")
    run_trials(make_task(tmp_path, 0.6), log, 15, say=lines.append, when=lambda: "today")
    assert [line.split()[0] for line in lines] == ["13/15", "14/15", "15/15"]
    assert json.loads((tmp_path / "trials.jsonl").read_text().splitlines()[-1])["when"] == "today"
    run_trials(make_task(tmp_path, 0.6), log, 15, say=lines.append)
    assert len(lines) == 3


def test_when_it_is_late_only_the_defaults_are_measured(tmp_path: Path) -> None:
    log = TrialLog(tmp_path / "trials.jsonl", "key")
    run_trials(make_task(tmp_path, 0.6), log, 20, left=lambda: -1.0)
    assert [trial.spec for trial in log.trials] == [faiss_defaults(family, N, DIM) for family in FEW]


def test_a_graph_that_there_is_no_time_for_is_passed_over_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faiss' default of it, too; the choice is made of the rest."""
    lines: list[str] = []

    def index(self: Builds, spec: IndexSpec, max_seconds: float = math.inf, index: Any = Builds.index) -> Any:
        if spec.family == "hnsw" and max_seconds < 100:
            raise TooLongError(1_234.5)
        return index(self, spec, max_seconds)

    monkeypatch.setattr(Builds, "index", index)
    task, log = make_task(tmp_path, 0.6), TrialLog(tmp_path / "trials.jsonl", "key")
    run_trials(task, log, 12, left=lambda: 50.0, say=lines.append)
    over = [line for line in lines if "passed over" in line]
    assert over[0] == (
        "passed over: building would take 1234 s or more, it may take 50 s  hnsw:neighbors=32,ef_construction=40"
    )
    assert len(set(over)) == len(over), "each build is tried once"
    assert {trial.spec.family for trial in log.trials} == {"flat", "ivf-flat"}
    assert len(log.trials) == 12
    decision = decide(task, log)
    assert [versus["family"] for versus in decision.defaults] == ["ivf-flat"]
    run_trials(task, log, 13, left=lambda: 500.0)
    assert any(trial.spec.family == "hnsw" and trial.is_default for trial in log.trials), (
        "with more time it is measured"
    )
    lines.clear()
    late = TrialLog(tmp_path / "late.jsonl", "key")
    run_trials(task, late, 12, left=lambda: 240.0, say=lines.append)
    assert all(trial.is_default for trial in late.trials if trial.spec.family == "hnsw"), "others have a third of it"
    assert any("it may take 80 s" in line for line in lines)


def test_a_trial_that_ends_after_the_time_says_so(tmp_path: Path) -> None:
    lines: list[str] = []
    left = iter([9.0, 9.0, 9.0, 9.0, 9.0, 8.0, 2.0, -7.4, *[-8.0] * 9])
    run_trials(
        make_task(tmp_path, 0.6),
        TrialLog(tmp_path / "trials.jsonl", "key"),
        20,
        left=lambda: next(left),
        say=lines.append,
    )
    late = [line for line in lines if "the time was up" in line]
    assert late == ["the time was up 7 s before this trial was done"]
    assert lines[-1] == late[0]


def test_of_what_was_built_the_finalists_stay(tmp_path: Path) -> None:
    task, log = make_task(tmp_path, 0.6), TrialLog(tmp_path / "trials.jsonl", "key")
    small = Builds(tmp_path / "indexes", VECTORS, None, max_bytes=1)
    run_trials(dataclasses.replace(task, builds=small), log, 16)
    built = {path.name for path in (tmp_path / "indexes").glob("*.faiss")}
    tried = {task.builds.path(trial.spec).name for trial in log.trials}
    assert built < tried
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "indexes").glob("*.faiss")}
    decision = decide(task, log)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert set((tmp_path / "indexes").glob("*.faiss")) == set(before), "nothing had to be built again"
    assert task.builds.path(decision.spec) in before


# The report


@pytest.fixture
def result(outcome: Outcome) -> dict[str, Any]:
    _, log, decision = outcome
    return {
        "num_products": N, "dim": DIM, "is_boosted": True, "num_trials": len(log.trials), "when": "2026-11-21",
        "faiss_version": "1", "num_cores": 2, "num_requests": {TUNED_ON: 80, HELD_OUT: 50, REPORT: 60},
        "chosen": str(decision.spec), "budget_ms": 0.6, "at": AT, "defaults": decision.defaults, **decision.tables,
    }  # fmt: skip


def test_the_report_has_every_row_and_says_what_was_chosen(result: dict[str, Any]) -> None:
    text = as_markdown(result)
    assert f"Serves with **{result['chosen']}**" in text
    assert "3,000 products of 16 dimensions, boosted" in text
    for name in (REPORT, HELD_OUT):
        for row in result[name]:
            overlaps = " | ".join(f"{row[f'overlap@{k}']:.4f}" for k in (100, AT))
            losses = " | ".join(f"{100 * row[f'recall_loss@{k}']:.2f}%" for k in (100, AT))
            times = " | ".join(f"{row[name]:.3g}" for name in ("p50_ms", "p99_ms", "p99_all_ms"))
            assert f"| {row['label']} | {row['index']} | {overlaps} | {losses} | {times} |" in text
    assert "| p99 ms, best of 3 | p99 ms, all |" in text
    assert "| index bytes/vector | memory bytes/vector |" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in tables}) == 1
    assert [line.split(": ")[:2] for line in verdicts(result)] == [["ok", "hnsw"], ["ok", "ivf-flat"]]


def test_a_default_that_was_not_beaten_is_said_to_be(result: dict[str, Any]) -> None:
    one, other = result["defaults"]
    result["defaults"] = [{**one, "tuned": None, "ok": False}, {**other, "ok": False}]
    first, second = verdicts(result)
    assert first.endswith("; nothing as fast was found that is better")
    assert second.endswith(" (not better in both on these requests)")
    assert first.startswith("not ok: hnsw: ")
    assert second.startswith("not ok: ivf-flat: ")


def test_the_terminal_gets_a_narrower_table(result: dict[str, Any]) -> None:
    console = Console(file=io.StringIO(), width=80)
    print_result(result, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "Faiss: ivf-flat" in text
    assert AS_FAST not in text
    assert max(len(line) for line in text.split("ok: hnsw: Faiss")[0].splitlines()) <= 80
    assert "best of 3" in text
    assert "(all)" in text


def test_the_picture_is_the_same_for_the_same_trials(tmp_path: Path, outcome: Outcome, result: dict[str, Any]) -> None:
    trials = outcome[1].trials
    for name in ("one", "two"):
        plot_trials(trials, result["chosen"], AT, 0.6, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert (tmp_path / "one.png").read_bytes()[:4] == b"\x89PNG"
    svg = (tmp_path / "one.svg").read_text()
    assert all(f">{family}</text>" in svg for family in ("hnsw", "ivf-flat"))
    assert ">ivf-pq-fastscan</text>" not in svg
    assert set(FEW) < set(FAMILIES)
