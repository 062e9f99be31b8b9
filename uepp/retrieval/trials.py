"""Operating points that were measured, their log, and the rules by which one is taken."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uepp.errors import InputError
from uepp.index_families import IndexSpec, parse_spec

MIN_GAIN = 0.001
"""Overlap that is not worth time: of points within it of the best, the fastest is taken."""
GIVE_UP = 3.0
"""What takes so many times the budget is not measured in full."""


@dataclass(frozen=True)
class Trial:
    """One operating point, measured on the requests that are tuned on.

    Attributes:
        spec: resolved.
        budget_ms: of the tuning that made it.
        is_default: whether it is Faiss' own choice of parameters.
        measured: `overlap@K`, `p99_ms` and more; no overlap where it was given up as far too slow.
    """

    spec: IndexSpec
    budget_ms: float
    is_default: bool
    measured: dict[str, Any]

    @property
    def p99_ms(self) -> float:
        """99th percentile of the time of a query."""
        return float(self.measured["p99_ms"])

    def says_enough(self, at: int, budget_ms: float) -> bool:
        """Whether a budget need not measure it: its overlap is known, or it took longer than that budget has patience.

        What an earlier call with a smaller budget gave up may be just right for a larger one.
        """
        return self.measured.get(f"overlap@{at}") is not None or self.p99_ms > GIVE_UP * budget_ms

    def overlap(self, at: int) -> float:
        """Overlap@K with exact search; 0 where it was given up."""
        value = self.measured.get(f"overlap@{at}")
        return 0.0 if value is None else float(value)


class TrialLog:
    """Trials in a file, a JSON line each, written as they happen; those of the same key are read again.

    Args:
        path: `trials.jsonl`.
        key: what the measurements depend on besides the point: vectors, requests, K, machine.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._path = path
        self._key = key
        self.trials: list[Trial] = []
        lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                if row["key"] == key:
                    self.trials.append(
                        Trial(parse_spec(row["index"]), row["budget_ms"], row["is_default"], row["measured"])
                    )
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{path}: line {number} is not a trial ({error}); remove the line or the file"
                ) from None

    def append(self, trial: Trial, **about: Any) -> None:
        """Record a trial. A line that a killed process left unfinished is overwritten."""
        row = {
            "key": self._key,
            "index": str(trial.spec),
            "budget_ms": trial.budget_ms,
            "is_default": trial.is_default,
            **about,
            "measured": trial.measured,
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab+") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
            file.write(json.dumps(row).encode() + b"\n")
        self.trials.append(trial)


def choose(points: Sequence[dict[str, Any]], at: int, budget_ms: float) -> int | None:
    """Place of the operating point to serve with; none: all are over the budget.

    Of those within the budget: the highest overlap with exact search; and of those within .001 of it, the fastest.

    Args:
        points: measured ones, `overlap@K` and `p99_ms` each.
        at: K.
        budget_ms: p99 that must not be exceeded.
    """
    within = [place for place, point in enumerate(points) if point["p99_ms"] <= budget_ms]
    if not within:
        return None
    best = max(points[place][f"overlap@{at}"] for place in within)
    good = [place for place in within if points[place][f"overlap@{at}"] >= best - MIN_GAIN]
    return min(good, key=lambda place: points[place]["p99_ms"])


def shortlist(trials: Sequence[Trial], at: int, budget_ms: float, number: int) -> list[IndexSpec]:
    """Points within a budget that are worth measuring again: the best ones that no faster one equals.

    Args:
        trials: all of them.
        at: K.
        budget_ms: p99 that must not be exceeded.
        number: at most so many.

    Returns:
        Specs, highest overlap first.
    """
    front: list[Trial] = []
    for trial in sorted(trials, key=lambda trial: (trial.p99_ms, -trial.overlap(at))):
        if trial.p99_ms <= budget_ms and (not front or trial.overlap(at) > front[-1].overlap(at)):
            front.append(trial)
    return [trial.spec for trial in front[::-1][:number]]
