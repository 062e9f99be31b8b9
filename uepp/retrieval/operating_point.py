"""From trials to the operating point that is served: chosen on held-out requests, compared with Faiss' defaults."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from uepp.errors import InputError
from uepp.index_families import FAMILIES, IndexSpec, faiss_defaults
from uepp.retrieval.ann import Builds, Reference, accuracy, compare, latency, search_all, time_queries
from uepp.retrieval.index import TooLongError
from uepp.retrieval.trials import GIVE_UP, Trial, TrialLog, choose, shortlist
from uepp.retrieval.tuning import Tuner

TUNED_ON = "tuned_on"
HELD_OUT = "held_out"
REPORT = "report"
AS_FAST = "as fast as "
"""Begins the label of a point that is in the table to be compared with a default of Faiss."""

_TIMED = 300
_PASSES = 3
_MARGINS = (0.9, 0.8, 0.65)
_SHARE_OF_GRAPH = 1 / 3


@dataclass(frozen=True)
class Task:
    """What is to be tuned.

    Attributes:
        builds: of the vectors.
        references: requests to tune on, to choose on and to report on, by `TUNED_ON`, `HELD_OUT`, `REPORT`; the last
            may be empty.
        num_products: N.
        dim: of the indexed vectors.
        at: K of the overlap with exact search that is maximised.
        budget_ms: p99 of a query on one thread that must not be exceeded.
        families: which to try.
    """

    builds: Builds
    references: dict[str, Reference]
    num_products: int
    dim: int
    at: int
    budget_ms: float
    families: tuple[str, ...] = tuple(FAMILIES)

    @property
    def ks(self) -> list[int]:
        """K that are measured."""
        return sorted({min(100, self.at), self.at})


@dataclass(frozen=True)
class Decision:
    """What tuning came to.

    Attributes:
        spec: to serve with.
        defaults: for each `family` its `default` of Faiss, the point `tuned` that takes no longer (none: none was
            found), and `ok`: whether that is better in both overlap and p99 on the requests that are reported.
        tables: rows of `compare` with a `label`, by `HELD_OUT` and `REPORT`.
    """

    spec: IndexSpec
    defaults: list[dict[str, Any]]
    tables: dict[str, list[dict[str, Any]]]

    @property
    def reported_on(self) -> str:
        """Requests whose figures count: those of the report window, where it has some."""
        return REPORT if self.tables[REPORT] else HELD_OUT

    @property
    def row(self) -> dict[str, Any]:
        """Figures of the chosen point."""
        return next(row for row in self.tables[self.reported_on] if row["index"] == str(self.spec))


def run_trials(
    task: Task,
    log: TrialLog,
    num_trials: int,
    *,
    left: Callable[[], float] = lambda: math.inf,
    say: Callable[[str], None] = lambda _: None,
    **about: Any,
) -> None:
    """Measure operating points until there are `num_trials` of this budget; Faiss' defaults are measured in any case.

    Only a graph is passed over that would take longer to build than a third of the time that is left, or, as Faiss'
    default, than all of it: nothing else takes long, and one graph shall not cost all other trials.

    Args:
        task: what is tuned.
        log: of trials, also of earlier calls.
        num_trials: of this budget, those of earlier calls included.
        left: seconds in which further trials may begin.
        say: is told a line for each.
        about: facts to record with each, or functions that give them.
    """
    tuner = Tuner(log, task.num_products, task.dim, task.at, task.budget_ms, task.families)
    done = sum(trial.budget_ms == task.budget_ms for trial in log.trials)
    for spec, is_default in tuner.proposals():
        seconds = left()
        if not is_default and (seconds <= 0 or done >= num_trials):
            break
        allowed = max(seconds, 0.0) * (1.0 if is_default else _SHARE_OF_GRAPH)
        try:
            task.builds.index(spec, allowed)
        except TooLongError as error:
            tuner.skip(spec)
            say(f"passed over: building would take {error}, it may take {allowed:.0f} s  {spec.only('build')}")
            continue
        # Faiss' defaults are measured however long they take, but for exact search.
        give_up_ms = None if is_default and spec.values else GIVE_UP * task.budget_ms
        measured = _measure(task, spec, give_up_ms)
        facts = {name: value() if callable(value) else value for name, value in about.items()}
        log.append(Trial(spec, task.budget_ms, is_default, measured), **facts)
        done += 1
        overlap = measured.get(f"overlap@{task.at}")
        found = "given up, too slow" if overlap is None else f"overlap@{task.at} {overlap:.4f}"
        say(f"{done}/{max(done, num_trials)}  {found}  p99 {measured['p99_ms']:.3g} ms  {spec}")
        if (over := -left()) > 0 < seconds:
            say(f"the time was up {over:.0f} s before this trial was done")
        task.builds.trim(_finalists(task, log).specs)


def decide(task: Task, log: TrialLog, on_step: Callable[[], None] = lambda: None) -> Decision:
    """Choose on the held-out requests among the best trials, and measure on requests that nothing was tuned on.

    Args:
        task: what was tuned.
        log: of trials.
        on_step: called after each index that was measured.

    Raises:
        InputError: no trial, or none on the held-out requests, meets the budget.
    """
    at = task.at
    finalists = _finalists(task, log)
    wanted, exact, versus, specs = finalists.wanted, finalists.exact, finalists.versus, finalists.specs
    if not wanted:
        _refuse_budget(task, finalists.trials)
    rows = compare(specs, task.builds, task.references[HELD_OUT], task.ks, on_step=on_step)
    held_out = {row["index"]: row for row in rows}
    place = choose([held_out[str(spec)] for spec in wanted], at, task.budget_ms)
    if place is None:
        _refuse_budget(task, finalists.trials, min(held_out[str(spec)]["p99_ms"] for spec in wanted))
    picks = {
        family: _pick([held_out[str(spec)] for spec in found], held_out[str(versus[family])], at)
        for family, found in finalists.faster.items()
    }
    labels = _labels(wanted[place], exact, versus, picks)
    told = [spec for spec in _distinct([wanted[place], *specs]) if str(spec) in labels]
    tables = {HELD_OUT: [held_out[str(spec)] for spec in told], REPORT: []}
    if len(task.references[REPORT]):
        tables[REPORT] = compare(told, task.builds, task.references[REPORT], task.ks, on_step=on_step)
    tables = {name: [{"label": labels[row["index"]], **row} for row in rows] for name, rows in tables.items()}
    shown = {row["index"]: row for row in tables[REPORT] or tables[HELD_OUT]}
    defaults = [_verdict(family, str(spec), picks[family], shown, at) for family, spec in versus.items()]
    return Decision(wanted[place], defaults, tables)


class _Finalists(NamedTuple):
    """Points that are measured again, on requests that nothing was tuned on.

    Attributes:
        trials: that say something of this budget and these families.
        wanted: points to choose from.
        exact: exact search, where it meets the budget.
        versus: the default of Faiss by family, as far as it was measured.
        faster: for each, points that take no longer.
    """

    trials: list[Trial]
    wanted: list[IndexSpec]
    exact: list[IndexSpec]
    versus: dict[str, IndexSpec]
    faster: dict[str, list[IndexSpec]]

    @property
    def specs(self) -> list[IndexSpec]:
        """All of them."""
        faster = (spec for found in self.faster.values() for spec in found)
        return _distinct([*self.wanted, *self.versus.values(), *faster])


def _finalists(task: Task, log: TrialLog) -> _Finalists:
    at = task.at
    trials = [
        trial for trial in log.trials if trial.spec.family in task.families and trial.says_enough(at, task.budget_ms)
    ]
    exact = [trial.spec for trial in trials if trial.spec.family == "flat" and trial.p99_ms <= task.budget_ms]
    measured = {str(trial.spec) for trial in trials}
    defaults = {
        family: faiss_defaults(family, task.num_products, task.dim)
        for family in task.families
        if FAMILIES[family].parameters
    }
    versus = {family: spec for family, spec in defaults.items() if str(spec) in measured}
    faster = {family: _faster(trials, spec, at) for family, spec in versus.items()}
    return _Finalists(trials, _distinct([*_candidates(trials, at, task.budget_ms), *exact]), exact, versus, faster)


def _measure(task: Task, spec: IndexSpec, give_up_ms: float | None) -> dict[str, Any]:
    index, reference = task.builds.index(spec), task.references[TUNED_ON]
    times = time_queries(index, reference.queries[:_TIMED], task.at, _PASSES, give_up_ms)
    measured: dict[str, Any] = {**latency(times), **task.builds.facts(spec)}
    if len(times) < _PASSES:
        return measured
    found, queries_per_second = search_all(index, reference.queries, task.at)
    figures = {**accuracy(found, reference, task.ks), **measured, "queries_per_second": queries_per_second}
    return {name: None if value != value else value for name, value in figures.items()}  # JSON knows no NaN


def _refuse_budget(task: Task, trials: Sequence[Trial], held_out_ms: float | None = None) -> NoReturn:
    stays = f"--budget-ms {task.budget_ms:g}: the index stays as it was;"
    if held_out_ms is not None:
        raise InputError(
            f"{stays} what met it in the trials took p99 {held_out_ms:.3g} ms and more on the held-out requests; is "
            "the machine busy with other work?"
        )
    if not trials:
        raise InputError(f"{stays} nothing could be measured in the time; give --seconds more, or other --families")
    fastest = min(trials, key=lambda trial: trial.p99_ms)
    raise InputError(
        f"{stays} none of {len(trials)} trials meets it, the fastest is {fastest.spec}, p99 {fastest.p99_ms:.3g} ms, "
        f"overlap@{task.at} {fastest.overlap(task.at):.4f}"
    )


def _candidates(trials: Sequence[Trial], at: int, budget_ms: float) -> list[IndexSpec]:
    """Points to measure again for the choice: the best within the budget, and within parts of it, since times vary."""
    best = shortlist(trials, at, budget_ms, 3)
    return _distinct([*best, *(spec for part in _MARGINS for spec in shortlist(trials, at, part * budget_ms, 1))])


def _faster(trials: Sequence[Trial], default: IndexSpec, at: int) -> list[IndexSpec]:
    """Points that take no longer than a default of Faiss, and some that take clearly less, since times vary."""
    p99 = next(trial.p99_ms for trial in trials if str(trial.spec) == str(default))
    others = [trial for trial in trials if str(trial.spec) != str(default)]
    return _distinct([*shortlist(others, at, p99, 2), *shortlist(others, at, 0.8 * p99, 1)])


def _pick(rows: Sequence[dict[str, Any]], default: dict[str, Any], at: int) -> str | None:
    """Of these, the one of the highest overlap that takes no longer than a default and has more; none: none does."""
    name = f"overlap@{at}"
    better = [row for row in rows if row["p99_ms"] <= default["p99_ms"] and row[name] > default[name]]
    return max(better, key=lambda row: float(row[name]))["index"] if better else None


def _verdict(family: str, default: str, tuned: str | None, shown: dict[str, Any], at: int) -> dict[str, Any]:
    """A default of Faiss beside what tuning has at no more time, and whether it is better in both on these requests."""
    name = f"overlap@{at}"
    is_better = tuned is not None and (
        shown[tuned][name] > shown[default][name] and shown[tuned]["p99_ms"] <= shown[default]["p99_ms"]
    )
    return {"family": family, "default": default, "tuned": tuned, "ok": is_better}


def _labels(
    chosen: IndexSpec, exact: Sequence[IndexSpec], versus: dict[str, IndexSpec], picks: dict[str, str | None]
) -> dict[str, str]:
    """What the rows of the table are, by spec."""
    labels = {str(chosen): "tuned"}
    for spec in exact:
        labels.setdefault(str(spec), "exact")
    for family, default in versus.items():
        labels.setdefault(str(default), f"Faiss: {family}")
    for pick in dict.fromkeys(pick for pick in picks.values() if pick is not None):
        beaten = ", ".join(family for family, other in picks.items() if other == pick)
        labels.setdefault(pick, f"{AS_FAST}{beaten}")
    return labels


def _distinct(specs: Sequence[IndexSpec]) -> list[IndexSpec]:
    return list({str(spec): spec for spec in specs}.values())
