"""Which index, and how it is searched: black-box optimisation of what is found within a time (UEPPR V).

Two levels, since building is what costs. Above, an optimiser chooses what to build: the family and its build
parameters, of a coarse grid. Below, for each build, another one chooses how to search it. A trial is one build searched
one way; its overlap and its time serve every budget, so some trials also aim at the times that Faiss' defaults take.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from uepp.index_families import FAMILIES, IndexSpec, Parameter, Value, faiss_defaults, num_parts, parse_spec, resolve
from uepp.retrieval.optimizers import Axis, Optimizer, Params, SkoptOptimizer
from uepp.retrieval.trials import MIN_GAIN, Trial, TrialLog

_TRIALS_PER_BUILD = 3
_CLOSER_PER_BUILD = 3
_PENALTY = 10.0
_CLEARLY_FASTER = 0.9
_CLOSE = (0.9, 0.95)
_BISECT = (0.3, 0.7)
_HOPED_ODDS = 2.0
_OPTIMISM = 0.5
_MAX_RERANK = 20.0


class Tuner:
    """Proposes operating points, one after the other, from what is known so far.

    Args:
        log: of trials; those of earlier calls count.
        num_products: N.
        dim: of the indexed vectors.
        at: K of the overlap that is maximised.
        budget_ms: p99 of a query that must not be exceeded.
        families: names of those that are tried.
        seed: of all draws.
    """

    def __init__(
        self,
        log: TrialLog,
        num_products: int,
        dim: int,
        at: int,
        budget_ms: float,
        families: Sequence[str] = tuple(FAMILIES),
        seed: int = 1,
    ) -> None:
        self._log = log
        self._num_products = num_products
        self._dim = dim
        self._at = at
        self._budget_ms = budget_ms
        self._families = tuple(families)
        self._seed = seed
        self._skipped: set[str] = set()

    def skip(self, spec: IndexSpec) -> None:
        """Propose nothing more of the build of a spec: it takes too long."""
        self._skipped.add(str(spec.only("build")))

    def proposals(self) -> Iterator[tuple[IndexSpec, bool]]:
        """Resolved specs that were not measured yet, and whether each is Faiss' default.

        Each must be in the log, or skipped, before the next one is asked for. It ends where every build was tried.
        """
        for family in self._families:
            default = self._faiss_default(family)
            if not self._is_known(default):
                yield default, True
        for number, build in enumerate(self._builds(), 1):
            for _ in range(_TRIALS_PER_BUILD - self._num_tried(build)):
                if str(build) not in self._skipped and (spec := self._next_search(build)) is not None:
                    yield spec, False
            for _ in range(_CLOSER_PER_BUILD if number >= self._num_first_builds() else 0):
                if (spec := self._next_closer()) is not None:
                    yield spec, False

    # ------------------------------------------------------------------------------------------------ what to build

    def _builds(self) -> Iterator[IndexSpec]:
        """Faiss' defaults, ours, those of earlier calls, then what the optimiser wants."""
        first = self._first_builds()
        first += [trial.spec for trial in self._trials()]
        grid = {str(build): build for family in self._families for build in self._grid(family)}
        known = dict.fromkeys(str(spec.only("build")) for spec in first)
        for text in known:
            yield parse_spec(text)
        rng = np.random.default_rng(self._seed)
        while left := sorted(grid.keys() - known.keys()):
            aim_ms, family = self._aim_of_build(len(known))
            choices = [text for text in left if family in (None, grid[text].family)] or left
            wanted = self._wanted_build([grid[text] for text in grid if family in (None, grid[text].family)], aim_ms)
            text = wanted if wanted in choices else choices[int(rng.integers(len(choices)))]
            known[text] = None
            yield grid[text]

    def _first_builds(self) -> list[IndexSpec]:
        """Faiss' defaults and ours."""
        ours = [resolve(IndexSpec(family, {}), self._num_products, self._dim) for family in self._families]
        return [*(self._faiss_default(family) for family in self._families), *ours]

    def _num_first_builds(self) -> int:
        return len({str(spec.only("build")) for spec in self._first_builds()})

    def _wanted_build(self, grid: Sequence[IndexSpec], aim_ms: float) -> str:
        """The build of a grid that the optimiser suggests, knowing the best value of every build so far."""
        axes = _build_axes(grid)
        optimizer: Optimizer = SkoptOptimizer(axes, self._seed, estimator="ET")
        best: dict[str, float] = {}
        for trial in self._trials():
            build = str(trial.spec.only("build"))
            value = self._value(trial, aim_ms)
            best[build] = min(value, best.get(build, math.inf))
        for candidate in grid:
            if str(candidate) in best:
                optimizer.observe(_as_point(candidate, axes), best[str(candidate)])
        return str(_as_build(optimizer.suggest()))

    def _grid(self, family: str) -> Iterator[IndexSpec]:
        """All builds of a family that tuning may try."""
        ours = resolve(IndexSpec(family, {}), self._num_products, self._dim)
        builds: list[dict[str, Value]] = [{}]
        for parameter in FAMILIES[family].parameters:
            if parameter.stage == "build":
                values = self._tried(parameter, ours)
                builds = [{**build, parameter.name: value} for build in builds for value in values]
        for build in builds:
            yield IndexSpec(family, build)

    def _tried(self, parameter: Parameter, ours: IndexSpec) -> list[Value]:
        if parameter.default is not None:
            return list(parameter.tried)
        if parameter.name == "subquantizers":
            return sorted({num_parts(self._dim, int(width)) for width in parameter.tried})
        own = ours.number(parameter.name)
        return sorted({max(1, min(self._num_products, round(own * float(ratio)))) for ratio in parameter.tried})

    # --------------------------------------------------------------------------------------------- how to search it

    def _next_search(self, build: IndexSpec) -> IndexSpec | None:
        """The next way to search a build; none: it has no others."""
        axes = self._search_axes(build)
        own = [trial for trial in self._trials() if str(trial.spec.only("build")) == str(build)]
        start = {axis.name: self._start(axis, build) for axis in axes}
        if not any(not trial.is_default for trial in own) and not self._is_known(spec := build.with_values(start)):
            return spec
        if not axes:
            return None
        optimizer: Optimizer = SkoptOptimizer(axes, self._seed + len(self._log.trials), num_random=1)
        for trial in own:
            optimizer.observe(dict(trial.spec.values), self._value(trial, self._budget_ms))
        candidates = [optimizer.suggest()]
        rng = np.random.default_rng([self._seed, len(self._log.trials)])
        candidates += [_drawn(axes, rng) for _ in range(20)]
        for params in candidates:
            spec = build.with_values(params)
            if not self._is_known(spec):
                return spec
        return None

    def _next_closer(self) -> IndexSpec | None:
        """A way to search a known build that should take just the time aimed at; none: no build promises enough.

        It aims at the budget, and in turn at the time of each default of Faiss that is not beaten yet.
        """
        trials = self._trials()
        builds = {str(trial.spec.only("build")): trial.spec.only("build") for trial in trials}
        aims = [(self._budget_ms, 0.0), *((aim_ms, default.overlap(self._at)) for aim_ms, default in self._unbeaten())]
        first = len(trials) % len(aims)
        for aim_ms, least in [*aims[first:], *aims[:first]]:
            reached = max([least, *(trial.overlap(self._at) for trial in trials if trial.p99_ms <= aim_ms)])
            options = []
            for text, build in builds.items():
                own = [trial for trial in trials if str(trial.spec.only("build")) == text]
                promise, params = self._closer(own, self._search_axes(build), aim_ms)
                if params is not None and promise > reached + MIN_GAIN:
                    options.append((promise, build.with_values(params)))
            for _, spec in sorted(options, key=lambda option: -option[0]):
                if not self._is_known(spec):
                    return spec
        return None

    def _closer(self, own: Sequence[Trial], axes: Sequence[Axis], aim_ms: float) -> tuple[float, Params | None]:
        """How a build should be searched to take 95% of a time, and the overlap that this promises.

        Between its best point within the time and its fastest beyond, on logarithmic scales; where there is only one
        of them, as much further, or less far, as the time asks for.
        """
        within = max(
            (trial for trial in own if trial.p99_ms <= aim_ms), key=lambda trial: trial.overlap(self._at), default=None
        )
        beyond = min((trial for trial in own if trial.p99_ms > aim_ms), key=lambda trial: trial.p99_ms, default=None)
        start = within or beyond
        if start is None or not axes or (within is not None and within.p99_ms > _CLOSE[0] * aim_ms):
            return 0.0, None
        room = math.log(aim_ms * _CLOSE[1] / start.p99_ms)
        odds, params = self._log_odds(start) + _HOPED_ODDS * room, _further(axes, start.spec, room)
        if within is not None and beyond is not None:
            share = room / math.log(beyond.p99_ms / within.p99_ms)
            odds = (1 - share) * self._log_odds(within) + share * self._log_odds(beyond) + _OPTIMISM
            # Time does not start at nothing, so the share may be far off: not too near to either end.
            params = _between(axes, within.spec, beyond.spec, min(max(share, _BISECT[0]), _BISECT[1]))
        return 1 / (1 + math.exp(-odds)), params

    def _search_axes(self, build: IndexSpec) -> list[Axis]:
        low: dict[str, float] = {"ef_search": max(1, self._at // 16)}
        high: dict[str, float] = {"ef_search": 8 * self._at, "rerank": _MAX_RERANK}
        if "nlist" in build.values:
            high["nprobe"] = build.number("nlist")
        axes = [
            Axis(one.name, low=low.get(one.name, 1), high=high[one.name], is_whole=one.kind == "int")
            for one in FAMILIES[build.family].parameters
            if one.stage == "search"
        ]
        return [axis for axis in axes if axis.low < axis.high]

    def _start(self, axis: Axis, build: IndexSpec) -> Value:
        """Where the search of a build begins: our default, or K candidates for HNSW."""
        if axis.name == "ef_search":
            return self._at
        value = resolve(build, self._num_products, self._dim).values[axis.name]
        return value

    # ---------------------------------------------------------------------------------------------------- shared

    def _trials(self) -> list[Trial]:
        """What is known, of these families, for this budget."""
        return [
            trial
            for trial in self._log.trials
            if trial.spec.family in self._families and trial.says_enough(self._at, self._budget_ms)
        ]

    def _unbeaten(self) -> list[tuple[float, Trial]]:
        """Faiss' defaults that no point beats which is clearly faster, each with a time that would be."""
        trials = self._trials()
        defaults = [(_CLEARLY_FASTER * one.p99_ms, one) for one in trials if one.is_default and one.spec.values]
        return [
            (min(aim_ms, self._budget_ms), default)
            for aim_ms, default in defaults
            if not any(
                trial.p99_ms <= aim_ms and trial.overlap(self._at) > default.overlap(self._at) + MIN_GAIN
                for trial in trials
            )
        ]

    def _aim_of_build(self, number: int) -> tuple[float, str | None]:
        """The time that a new build is to serve, and the family it has to be of; none: any.

        It is the budget, and for every other build the time of a default of Faiss that is not beaten yet.
        """
        unbeaten = self._unbeaten()
        if number % 2 or not unbeaten:
            return self._budget_ms, None
        aim_ms, default = unbeaten[number // 2 % len(unbeaten)]
        return aim_ms, default.spec.family

    def _value(self, trial: Trial, aim_ms: float) -> float:
        """What is minimised: the logarithm of lost to found; beyond the time aimed at, a penalty that outweighs it."""
        return -self._log_odds(trial) + _PENALTY * max(0.0, math.log(trial.p99_ms / aim_ms))

    def _log_odds(self, trial: Trial) -> float:
        """Logarithm of found to lost; what was given up as too slow counts as finding all."""
        found = trial.overlap(self._at) if trial.measured.get(f"overlap@{self._at}") is not None else 1.0
        found = min(max(found, MIN_GAIN), 1 - MIN_GAIN)
        return math.log(found / (1 - found))

    def _faiss_default(self, family: str) -> IndexSpec:
        return faiss_defaults(family, self._num_products, self._dim)

    def _is_known(self, spec: IndexSpec) -> bool:
        return any(str(trial.spec) == str(spec) for trial in self._trials())

    def _num_tried(self, build: IndexSpec) -> int:
        """Trials of a build, of whatever budget, but for Faiss' default of it."""
        return sum(str(trial.spec.only("build")) == str(build) and not trial.is_default for trial in self._trials())


def _build_axes(grid: Iterable[IndexSpec]) -> list[Axis]:
    """`family`, and each family's build parameters as axes of their own."""
    values: dict[str, list[Any]] = {"family": []}
    for build in grid:
        for name, value in (("family", build.family), *((f"{build.family}.{n}", v) for n, v in build.values.items())):
            of_axis = values.setdefault(name, [])
            if value not in of_axis:
                of_axis.append(value)
    return [Axis(name, tuple(of_axis), is_ordered=name != "family") for name, of_axis in values.items()]


def _as_point(build: IndexSpec, axes: Sequence[Axis]) -> Params:
    """A build in the space of all families; what is not of its family stands in the middle."""
    own = {"family": build.family, **{f"{build.family}.{name}": value for name, value in build.values.items()}}
    return {axis.name: own.get(axis.name, axis.values[len(axis.values) // 2]) for axis in axes}


def _as_build(point: Params) -> IndexSpec:
    family = point["family"]
    prefix = f"{family}."
    values = {name.removeprefix(prefix): value for name, value in point.items() if name.startswith(prefix)}
    return IndexSpec(family, values)


def _drawn(axes: Sequence[Axis], rng: np.random.Generator) -> Params:
    """A point anywhere in the ranges, evenly on their logarithmic scales."""
    return {axis.name: _at(axis, rng.uniform(math.log(axis.low), math.log(axis.high))) for axis in axes}


def _between(axes: Sequence[Axis], one: IndexSpec, other: IndexSpec, share: float) -> Params:
    """The point at a share of the way from one to the other, on logarithmic scales."""
    params: Params = {}
    for axis in axes:
        begin, end = (math.log(float(spec.values[axis.name])) for spec in (one, other))
        params[axis.name] = _at(axis, begin + share * (end - begin))
    return params


def _further(axes: Sequence[Axis], one: IndexSpec, room: float) -> Params:
    """The point with the first parameter that is not at its end e^room times as large: at most that in time."""
    params = {axis.name: float(one.values[axis.name]) for axis in axes}
    for axis in axes:
        if params[axis.name] != (axis.high if room > 0 else axis.low):
            params[axis.name] *= math.exp(room)
            break
    return {axis.name: _at(axis, math.log(params[axis.name])) for axis in axes}


def _at(axis: Axis, log_value: float) -> float | int:
    value = min(max(math.exp(log_value), axis.low), axis.high)
    return round(value) if axis.is_whole else round(value, 2)
