"""The table of a study."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from uepp.evaluation.systems import LABELS

_COLUMNS = (
    ("report", "all", "recall@10", "R@10"),
    ("report", "all", "recall@100", "R@100"),
    ("report", "all", "recall@1000", "R@1000"),
    ("report", "head", "recall@100", "head R@100"),
    ("report", "tail", "recall@100", "tail R@100"),
    ("report", "non_repeat", "recall@100", "new R@100"),
    ("selection", "all", "recall@100", "R@100, selection"),
)
"""Window, segment, metric and heading of each column of quality."""
_COSTS = (("step", 1_000.0, "ms a step"), ("train", 1.0, "train, s"), ("export", 1.0, "export, s"))
"""Key in `seconds`, units in a second, and heading of each column of cost."""


def _quality_columns(results: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """The columns of quality, with those that the study adds."""
    return [*_COLUMNS, *(("report", *place, heading) for heading, place in results.get("columns", {}).items())]


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
    """

    name: str
    num_seeds: int
    quality: list[tuple[float, float] | None]
    costs: list[float | None]


def summary(results: dict[str, Any]) -> list[Row]:
    """Rows of a study's table: its variants, then its opponents."""
    columns = [column[:3] for column in _quality_columns(results)]
    rows = [
        Row(name, len(cells), [_spread(cells, *column) for column in columns], [_cost(cells, *c[:2]) for c in _COSTS])
        for name, cells in results["variants"].items()
    ]
    for name, scores in results.get("opponents", {}).items():
        quality = [_spread([scores], *column) for column in columns]
        rows.append(Row(LABELS.get(name, name), 0, quality, [None] * len(_COSTS)))
    return rows


def _cost(cells: Sequence[dict[str, Any]], key: str, per_second: float) -> float | None:
    values = [cell["seconds"].get(key) for cell in cells]
    return None if any(value is None for value in values) else float(np.mean(values)) * per_second


def _spread(cells: Sequence[dict[str, Any]], window: str, segment: str, metric: str) -> tuple[float, float] | None:
    values = [cell[window].get(segment, {}).get(metric) for cell in cells]
    if any(value is None for value in values):
        return None
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def markdown(results: dict[str, Any]) -> str:
    """The table as Markdown."""
    names = headings(results)
    lines = ["| variant | seeds | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    lines += ["| " + " | ".join(_texts(row)) + " |" for row in summary(results)]
    return "\n".join(lines) + "\n"


def print_study(results: dict[str, Any], console: Console) -> None:
    """The table on a terminal."""
    table = Table(title=results["description"] or None, caption="mean ± standard deviation over seeds")
    for heading in ("variant", "seeds", *headings(results)):
        table.add_column(heading, justify="left" if heading == "variant" else "right")
    for row in summary(results):
        table.add_row(*_texts(row))
    console.print(table)


def _texts(row: Row) -> list[str]:
    quality = ["–" if value is None else _figure(*value) for value in row.quality]
    costs = ["–" if value is None else f"{value:.0f}" for value in row.costs]
    return [row.name, str(row.num_seeds or "–"), *quality, *costs]


def _figure(mean: float, deviation: float) -> str:
    text = f"{mean:.3f}".lstrip("0")
    return text if np.isnan(deviation) else f"{text} ± {deviation:.3f}".replace("± 0.", "± .")
