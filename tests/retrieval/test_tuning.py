"""Tuning in a world whose overlap and time are formulas, so that the best point is known."""

import functools
import itertools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from uepp.errors import InputError
from uepp.index_families import FAMILIES, IndexSpec, faiss_defaults, parse_spec, resolve
from uepp.retrieval import tuning
from uepp.retrieval.optimizers import Axis, SkoptOptimizer
from uepp.retrieval.trials import Trial, TrialLog, choose, shortlist
from uepp.retrieval.tuning import Tuner

N, DIM, AT = 200_000, 64, 1_000


def world(spec: IndexSpec) -> dict[str, Any]:
    """A market where cells are searched in proportion, and re-ranking mends codes; 10 ms are an exact search."""
    values = spec.values
    if spec.family == "flat":
        return point(1.0, 10.0)
    if spec.family == "hnsw":
        reached = float(values["ef_search"]) * math.log2(float(values["neighbors"]) * float(values["ef_construction"]))
        return point(reached / (reached + 4_000), 0.05 + float(values["ef_search"]) / 250)
    nlist, nprobe = float(values["nlist"]), float(values["nprobe"])
    share = nprobe / nlist
    found = 1 - (1 - share) * math.exp(-20 * share * math.log10(nlist))
    cells_ms = 0.01 + nlist / 40_000
    if spec.family == "ivf-flat":
        return point(found, cells_ms + 10 * share)
    codes = 0.75 + 0.1 * bool(values["residual"]) + 0.05 * float(values["subquantizers"]) / DIM
    scan_ms = 1.5 * share * float(values["subquantizers"]) / DIM
    if spec.family == "ivf-pq-fastscan":
        return point(found * codes, cells_ms + scan_ms)
    rerank = float(values["rerank"])
    return point(found * (1 - (1 - codes) / rerank**2), cells_ms + scan_ms + 0.2 * rerank)


def point(overlap: float, p99_ms: float) -> dict[str, Any]:
    return {f"overlap@{AT}": overlap, "p99_ms": p99_ms}


def tuned(
    log: TrialLog,
    budget_ms: float,
    number: int,
    families: tuple[str, ...] = tuple(FAMILIES),
    measure: Callable[[IndexSpec], dict[str, Any]] = world,
) -> list[Trial]:
    """The trials of one call."""
    before = len(log.trials)
    tuner = Tuner(log, N, DIM, AT, budget_ms, families)
    for spec, is_default in itertools.islice(tuner.proposals(), number):
        log.append(Trial(spec, budget_ms, is_default, measure(spec)))
    return log.trials[before:]


class Chance:
    """An optimiser that learns nothing: what must hold holds without luck, and at once."""

    def __init__(self, axes: Sequence[Axis], seed: int, **_: Any) -> None:
        self._axes = axes
        self._rng = np.random.default_rng(seed)

    def suggest(self) -> dict[str, Any]:
        return {axis.name: self._draw(axis) for axis in self._axes}

    def observe(self, params: dict[str, Any], value: float) -> None:
        assert params.keys() >= {axis.name for axis in self._axes}
        assert math.isfinite(value)

    def _draw(self, axis: Axis) -> Any:
        if axis.values:
            return axis.values[int(self._rng.integers(len(axis.values)))]
        value = math.exp(self._rng.uniform(math.log(axis.low), math.log(axis.high)))
        return round(value) if axis.is_whole else round(value, 2)


@pytest.fixture(autouse=True)
def by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "SkoptOptimizer", Chance)


@pytest.fixture
def log(tmp_path: Path) -> TrialLog:
    return TrialLog(tmp_path / "trials.jsonl", "key")


def best(trials: list[Trial], budget_ms: float) -> float:
    return max((trial.overlap(AT) for trial in trials if trial.p99_ms <= budget_ms), default=0.0)


# What is proposed


def test_every_proposal_is_new_and_fits_the_data(log: TrialLog) -> None:
    trials = tuned(log, 2.0, 45)
    assert len({str(trial.spec) for trial in trials}) == len(trials) == 45
    for trial in trials:
        assert resolve(trial.spec, N, DIM) == trial.spec
        assert parse_spec(str(trial.spec)) == trial.spec
    builds = {str(trial.spec.only("build")) for trial in trials}
    assert len(builds) < 20, "a build is searched in several ways"


def test_faiss_defaults_come_first(log: TrialLog) -> None:
    trials = tuned(log, 2.0, 9)
    assert [trial.is_default for trial in trials] == [True] * 5 + [False] * 4
    assert [trial.spec for trial in trials[:5]] == [faiss_defaults(family, N, DIM) for family in FAMILIES]


@pytest.mark.parametrize("budget_ms", [0.3, 1.0, 3.0, 12.0])
def test_it_comes_close_to_the_best_point_there_is(log: TrialLog, budget_ms: float) -> None:
    """The best of a fine grid of everything, some ten thousand points, and of Faiss' defaults."""
    reached = best(tuned(log, budget_ms, 60), budget_ms)
    possible = best(everything(), budget_ms)
    defaults = best([trial for trial in log.trials if trial.is_default and trial.spec.values], budget_ms)
    assert reached > possible - 0.03
    assert reached > defaults


@functools.cache
def everything() -> list[Trial]:
    trials = [Trial(IndexSpec("flat", {}), 0, False, world(IndexSpec("flat", {})))]
    for neighbors, construction, search in itertools.product((16, 32, 64), (40, 80, 200, 400), range(60, 8_000, 200)):
        values = {"neighbors": neighbors, "ef_construction": construction, "ef_search": search}
        trials.append(Trial(IndexSpec("hnsw", values), 0, False, world(IndexSpec("hnsw", values))))
    for nlist, part in itertools.product((128, 512, 1_024, 2_048, 4_096), range(1, 65)):
        cells = {"nlist": nlist, "nprobe": max(1, nlist * part // 64)}
        trials.append(Trial(IndexSpec("ivf-flat", cells), 0, False, world(IndexSpec("ivf-flat", cells))))
        for parts, residual, rerank in itertools.product((16, 32, 64), (True, False), (1, 2, 3, 5, 8)):
            values = {**cells, "subquantizers": parts, "residual": residual}
            coded = IndexSpec("ivf-pq-fastscan", values)
            again = IndexSpec("ivf-pq-fastscan-rerank", {**values, "store": "fp16", "rerank": rerank})
            trials += [Trial(spec, 0, False, world(spec)) for spec in (coded, again)]
    return trials


def test_with_bayesian_optimisation_too(log: TrialLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "SkoptOptimizer", SkoptOptimizer)
    trials = tuned(log, 1.0, 40)
    assert len({str(trial.spec) for trial in trials}) == 40
    assert best(trials, 1.0) > best(everything(), 1.0) - 0.03


@pytest.mark.parametrize("dim", [64, 67, 128, 130, 133, 135, 256, 262])
def test_every_build_that_is_tried_has_codes_of_the_vector_alone(log: TrialLog, dim: int) -> None:
    """Boosting adds a few dimensions: 135 and not 128."""
    grid = list(Tuner(log, N, dim, AT, 2.0)._grid("ivf-pq-fastscan"))
    parts = {build.number("subquantizers") for build in grid}
    assert parts == {dim, math.ceil(dim / 2), math.ceil(dim / 4)}
    for number in parts:
        width = math.ceil(dim / number)
        assert math.ceil(dim / width) == number, "every part has a dimension of the vector"
        assert number * width - dim < 4


def test_it_finds_points_as_fast_as_faiss_defaults_that_are_better(log: TrialLog) -> None:
    trials = tuned(log, 5.0, 60)
    for default in trials[1:5]:
        assert best(trials, default.p99_ms) > default.overlap(AT) + 0.01, str(default.spec)


def test_few_families(log: TrialLog) -> None:
    trials = tuned(log, 2.0, 40, ("flat", "ivf-flat"))
    assert {trial.spec.family for trial in trials} == {"flat", "ivf-flat"}
    assert best(trials, 2.0) > 0.9


def test_it_ends_where_there_is_nothing_else(log: TrialLog) -> None:
    assert [str(trial.spec) for trial in tuned(log, 2.0, 10, ("flat",))] == ["flat"]
    assert tuned(log, 2.0, 10, ("flat",)) == []


def test_what_was_given_up_has_no_overlap_and_is_gone_on_from(log: TrialLog) -> None:
    def impatient(spec: IndexSpec) -> dict[str, Any]:
        measured = world(spec)
        return measured if measured["p99_ms"] < 2.0 else {"p99_ms": measured["p99_ms"]}

    trials = tuned(log, 1.0, 60, measure=impatient)
    assert any(trial.overlap(AT) == 0 for trial in trials)
    assert best(trials, 1.0) > best(everything(), 1.0) - 0.05


# Going on


def test_a_second_call_goes_on_and_repeats_nothing(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    first = tuned(TrialLog(path, "key"), 2.0, 20)
    again = TrialLog(path, "key")
    assert again.trials == first
    second = tuned(again, 2.0, 40)
    specs = [str(trial.spec) for trial in (*first, *second)]
    assert len(set(specs)) == len(specs) == 60
    assert best(again.trials, 2.0) > best(everything(), 2.0) - 0.03


def test_another_budget_knows_the_trials_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    tuned(TrialLog(path, "key"), 8.0, 40)
    log = TrialLog(path, "key")
    trials = tuned(log, 0.5, 30)
    assert not any(trial.is_default for trial in trials)
    assert best(log.trials, 0.5) > best(everything(), 0.5) - 0.03


def test_what_a_small_budget_gave_up_is_unknown_to_a_large_one(log: TrialLog) -> None:
    """1 ms gives up at 3 ms. What took 5 ms may be just right for 20 ms, and what took 70 ms is not."""

    def impatient(spec: IndexSpec) -> dict[str, Any]:
        measured = world(spec)
        return measured if measured["p99_ms"] < 0.3 else {"p99_ms": measured["p99_ms"]}

    first = tuned(log, 0.1, 30, measure=impatient)
    given_up = {str(trial.spec): trial for trial in first if trial.measured.get(f"overlap@{AT}") is None}
    assert "flat" in given_up
    assert any(trial.spec.values for trial in given_up.values())
    second = tuned(log, 3.0, 60)
    again = [str(trial.spec) for trial in second if str(trial.spec) in given_up]
    assert len(set(again)) == len(again) > 0
    assert all(given_up[text].p99_ms <= 9.0 for text in again)
    assert "flat" not in again, "it takes more than three times the new budget, too"
    assert best(second, 3.0) > best(everything(), 3.0) - 0.03
    third = tuned(log, 20.0, 3)
    assert "flat" in [str(trial.spec) for trial in third]
    specs = [str(trial.spec) for trial in (*second, *third)]
    assert len(set(specs)) == len(specs), "what is known is not measured again"


def test_a_skipped_build_is_not_proposed_again(log: TrialLog) -> None:
    tuner = Tuner(log, N, DIM, AT, 2.0)
    seen = []
    for spec, is_default in itertools.islice(tuner.proposals(), 40):
        seen.append(spec)
        if spec.family == "hnsw":
            tuner.skip(spec)
        else:
            log.append(Trial(spec, 2.0, is_default, world(spec)))
    skipped = [str(spec.only("build")) for spec in seen if spec.family == "hnsw"]
    assert len(set(skipped)) == len(skipped) > 1


def test_trials_of_other_vectors_or_machines_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    tuned(TrialLog(path, "key"), 2.0, 7)
    other = TrialLog(path, "other")
    assert other.trials == []
    tuned(other, 2.0, 3)
    assert [len(TrialLog(path, key).trials) for key in ("key", "other")] == [7, 3]


def test_a_line_that_a_kill_left_unfinished_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    tuned(TrialLog(path, "key"), 2.0, 6)
    content = path.read_bytes()
    path.write_bytes(content[:-40])
    log = TrialLog(path, "key")
    assert len(log.trials) == 5
    tuned(log, 2.0, 1)
    assert path.read_bytes() == content
    for line in path.read_text().splitlines():
        json.loads(line)


@pytest.mark.parametrize("line", ["{", '{"key": "key"}', '{"key": "key", "index": "annoy"}', "[]"])
def test_a_line_that_is_no_trial_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "trials.jsonl"
    tuned(TrialLog(path, "key"), 2.0, 2)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(InputError, match=r"trials\.jsonl: line 3 is not a trial"):
        TrialLog(path, "key")


# Which is taken


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([(0.9, 1), (0.99, 3), (1.0, 5)], 1),  # the best within the time
        ([(0.9895, 1), (0.99, 3)], 0),  # a thousandth of overlap is not worth two milliseconds
        ([(0.9885, 1), (0.99, 3)], 1),  # more than a thousandth is
        ([(0.99, 4), (0.5, 2)], 0),  # the budget itself is within it
        ([(0.99, 4.1), (0.5, 4.5)], None),
        ([], None),
    ],
)
def test_the_rule_of_choice(points: list[tuple[float, float]], expected: int | None) -> None:
    assert choose([point(*one) for one in points], AT, budget_ms=4) == expected


def test_a_shortlist_is_the_front_within_the_budget() -> None:
    measured = {"a": (0.5, 1), "b": (0.4, 2), "c": (0.9, 3), "d": (0.9, 4), "e": (0.95, 5), "f": (1.0, 9)}
    trials = [
        Trial(IndexSpec("ivf-flat", {"nprobe": number}), 5, False, point(*one))
        for number, one in enumerate(measured.values())
    ]
    names = {str(trial.spec): name for name, trial in zip(measured, trials, strict=True)}
    assert [names[str(spec)] for spec in shortlist(trials, AT, 5, 9)] == ["e", "c", "a"]
    assert [names[str(spec)] for spec in shortlist(trials, AT, 5, 2)] == ["e", "c"]
    assert shortlist(trials, AT, 0.5, 9) == []
