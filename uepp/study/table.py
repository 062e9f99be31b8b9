"""The tables of a study: its variants, and how they differ from what they are compared with."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from uepp.evaluation.systems import LABELS
from uepp.evaluation.table import decimals, fixed
from uepp.metrics import SeedDifference, seed_difference
from uepp.terminal import in_parts

_PARTS = (("head", "head"), ("tail", "tail"), ("non_repeat", "new"))
"""Segments with a column, and their names in its heading."""
_COSTS = (("step", 1_000.0, "ms a step"), ("train", 1.0, "train, s"), ("export", 1.0, "export, s"))
"""Key in `seconds`, units in a second, and heading of each column of cost."""


def recall_keys(results: dict[str, Any]) -> list[str]:
    """`recall@K` of every K that a cell has, by K."""
    cells = [cell for cells in results["variants"].values() for cell in cells]
    measured = {key for cell in cells for key in cell["report"]["all"] if key.startswith("recall@")}
    return sorted(measured, key=lambda key: int(key.partition("@")[2]))


def main_key(keys: Sequence[str], k: int = 100) -> str:
    """Of `recall_keys`, which are not none: the one of K, else the middle one."""
    return f"recall@{k}" if f"recall@{k}" in keys else keys[len(keys) // 2]


def _quality_columns(results: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Window, segment, metric and heading of each column of quality, with those that the study adds."""
    keys = recall_keys(results)
    columns = [("report", "all", key, _heading(key)) for key in keys]
    if keys:
        main = main_key(keys)
        columns += [("report", part, main, f"{name} {_heading(main)}") for part, name in _PARTS]
        columns.append(("selection", "all", main, f"{_heading(main)}, selection"))
    return [*columns, *(("report", *place, heading) for heading, place in results.get("columns", {}).items())]


def _heading(key: str) -> str:
    return f"R@{key.partition('@')[2]}"


def headings(results: dict[str, Any]) -> list[str]:
    """Of the columns of quality and of cost, without the variant's name and its number of seeds."""
    return [*(column[-1] for column in _quality_columns(results)), *(cost[-1] for cost in _COSTS)]


class Row(NamedTuple):
    """A row of a study's table.

    Attributes:
        name: of a variant or an opponent.
        num_seeds: cells; 0 for an opponent.
        quality: mean and standard deviation over seeds (nan with one), a column each; none: no value.
        costs: means over seeds, a column each; none: no value.
        interval: 95%, of the main recall, over the queries that could have been asked: each end's mean over seeds;
            none: it has none.
    """

    name: str
    num_seeds: int
    quality: list[tuple[float, float] | None]
    costs: list[float | None]
    interval: tuple[float, float] | None = None


def summary(results: dict[str, Any]) -> list[Row]:
    """Rows of a study's table: its variants, then its opponents."""
    columns = [column[:3] for column in _quality_columns(results)]
    rows = []
    for name, cells in results["variants"].items():
        quality, costs = [_spread(cells, *column) for column in columns], [_cost(cells, *cost[:2]) for cost in _COSTS]
        rows.append(Row(name, len(cells), quality, costs, _interval(cells, results)))
    for name, scores in results.get("opponents", {}).items():
        quality = [_spread([scores], *column) for column in columns]
        rows.append(Row(LABELS.get(name, name), 0, quality, [None] * len(_COSTS), _interval([scores], results)))
    return rows


def _interval(cells: Sequence[dict[str, Any]], results: dict[str, Any]) -> tuple[float, float] | None:
    keys = recall_keys(results)
    found = [cell["report"]["all"].get("intervals", {}).get(main_key(keys)) for cell in cells] if keys else [None]
    ends = [end for ends in found for end in (ends or [None])]
    if any(end is None for end in ends):
        return None
    low, high = np.reshape(ends, (-1, 2)).mean(axis=0)
    return float(low), float(high)


class Difference(NamedTuple):
    """How a variant differs from its reference, seed by seed.

    Attributes:
        name: of the variant.
        reference: what it is compared with.
        num_seeds: that both have; at least 2.
        quality: of each column; none: no value.
    """

    name: str
    reference: str
    num_seeds: int
    quality: list[SeedDifference | None]


def differences(results: dict[str, Any]) -> list[Difference]:
    """Of the variants that have at least two seeds in common with what they are compared with."""
    columns = [column[:3] for column in _quality_columns(results)]
    found = []
    for name, reference in results.get("references", {}).items():
        ours, theirs = ({cell["seed"]: cell for cell in results["variants"].get(row, ())} for row in (name, reference))
        seeds = sorted(ours.keys() & theirs.keys())
        if len(seeds) > 1:
            both = [(ours[seed], theirs[seed]) for seed in seeds]
            found.append(Difference(name, reference, len(seeds), [_difference(both, *column) for column in columns]))
    return found


def _difference(
    both: Sequence[tuple[dict[str, Any], dict[str, Any]]], window: str, segment: str, metric: str
) -> SeedDifference | None:
    values = [[cell.get(window, {}).get(segment, {}).get(metric) for cell in pair] for pair in both]
    if any(value is None for pair in values for value in pair):
        return None
    return seed_difference([ours - theirs for ours, theirs in values])


def _cost(cells: Sequence[dict[str, Any]], key: str, per_second: float) -> float | None:
    values = [cell["seconds"].get(key) for cell in cells]
    return None if any(value is None for value in values) else float(np.mean(values)) * per_second


def _spread(cells: Sequence[dict[str, Any]], window: str, segment: str, metric: str) -> tuple[float, float] | None:
    values = [cell[window].get(segment, {}).get(metric) for cell in cells]
    if any(value is None for value in values):
        return None
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


_NAMES = {"variant", "less"}
_CAPTION = "mean ± standard deviation over seeds; 95%: over the queries that could have been asked, the seeds' mean"
DIFFERENCES = (
    "Differences seed by seed, mean ± standard deviation; *: 0 is outside of the 95% interval over seeds (that other "
    "requests could have been asked is not in it)"
)
"""What the table of differences shows."""


def markdown(results: dict[str, Any]) -> str:
    """The tables as Markdown."""
    lines = _markdown(*_summary_table(results))
    if apart := difference_table(results):
        lines += ["", f"{DIFFERENCES}:", "", *_markdown(*apart)]
    return "\n".join(lines) + "\n"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(head) + " |",
        "|---" * len(head) + "|",
        *("| " + " | ".join(text.replace("*", "\\*") for text in row) + " |" for row in rows),
    ]


def print_study(results: dict[str, Any], console: Console) -> None:
    """The tables on a terminal, in parts where it is narrower than they are."""
    for table in in_parts(*_summary_table(results), _NAMES, console.width, results["description"] or None, _CAPTION):
        console.print(table)
    if apart := difference_table(results):
        for table in in_parts(*apart, _NAMES, console.width, None, DIFFERENCES):
            console.print(table)


def _summary_table(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of the table of variants."""
    metrics, rows = [column[2] for column in _quality_columns(results)], summary(results)
    shown, texts = headings(results), [_texts(row, metrics) for row in rows]
    if any(row.interval is not None for row in rows):
        keys = recall_keys(results)
        place = len(keys)  # behind what is of all requests
        shown.insert(place, f"{_heading(main_key(keys))}, 95%")
        for row, text in zip(rows, texts, strict=True):
            ends = "–" if row.interval is None else " to ".join(fixed(end, 3) for end in row.interval)
            text.insert(2 + place, ends)
    return ["variant", "seeds", *shown], texts


def difference_table(results: dict[str, Any]) -> tuple[list[str], list[list[str]]] | None:
    """Headings and rows of the table of differences; none: no variant has two seeds in common with its reference."""
    metrics = [column[2] for column in _quality_columns(results)]
    rows = [_difference_texts(row, metrics) for row in differences(results)]
    return (["variant", "less", "seeds", *headings(results)[: -len(_COSTS)]], rows) if rows else None


def _difference_texts(row: Difference, metrics: Sequence[str]) -> list[str]:
    quality = [
        "–" if value is None else _gap(metric, *value) for metric, value in zip(metrics, row.quality, strict=True)
    ]
    return [row.name, row.reference, str(row.num_seeds), *quality]


def _gap(metric: str, mean: float, deviation: float, is_apart: bool) -> str:
    places = decimals(metric, mean)
    sign = "−" if round(mean, places) < 0 else "+"
    return f"{sign}{fixed(abs(mean), places)} ± {fixed(deviation, places)}{'*' if is_apart else ''}"


def _texts(row: Row, metrics: Sequence[str]) -> list[str]:
    quality = [
        "–" if value is None else with_spread(metric, *value)
        for metric, value in zip(metrics, row.quality, strict=True)
    ]
    costs = ["–" if value is None else f"{value:.0f}" for value in row.costs]
    return [row.name, str(row.num_seeds or "–"), *quality, *costs]


def with_spread(metric: str, mean: float, deviation: float) -> str:
    """`.312 ± .004`; without the deviation where it is NaN."""
    places = decimals(metric, mean)
    return fixed(mean, places) + ("" if np.isnan(deviation) else f" ± {fixed(deviation, places)}")
