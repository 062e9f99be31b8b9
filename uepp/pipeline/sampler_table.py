"""What a grid of samplers says: means over seeds, differences seed by seed, and the tables of both."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from uepp.config import SAMPLER_NAMES, RelevanceConfig
from uepp.metrics import seed_difference_row

COSTS = ("pairs_per_second", "sampler_share", "seconds")
DIFFERENCES = (
    "bhns less each other sampler, seed by seed, mean ± standard deviation; *: 0 is outside of the 95% interval over "
    "seeds (that other pairs could have been measured is not in it)."
)
"""What the table of differences shows."""
_COMPARED = "bhns"


class Trained(NamedTuple):
    """A cell that is there.

    Attributes:
        settings: of the cell.
        metrics: its measures and costs by name; none where one has no value.
    """

    settings: RelevanceConfig
    metrics: dict[str, Any]


def rows(cells: Sequence[Trained], measures: Sequence[str]) -> list[dict[str, Any]]:
    """By K, pool and sampler, in the paper's order: means (0 to 100) and standard deviations over seeds."""
    return [
        {"sampler": name, **place, "num_seeds": len(found)}
        | _spread([cell.metrics for cell in found], (*measures, *COSTS))
        for place, by_name in _by_place(cells)
        for name, found in by_name.items()
    ]


def differences(cells: Sequence[Trained], measures: Sequence[str]) -> list[dict[str, Any]]:
    """`bhns` less each other sampler of the same K and pool, of two seeds or more that both have.

    Cells of one seed begin with the same weights and see the same labelled pairs in the same order.
    """
    found = []
    for place, by_name in _by_place(cells):
        ours = {cell.settings.seed: cell.metrics for cell in by_name.pop(_COMPARED, [])}
        for name, others in by_name.items():
            both = [(ours[seed], metrics) for (settings, metrics) in others if (seed := settings.seed) in ours]
            if len(both) > 1:
                row = {"sampler": _COMPARED, "less": name, **place, "num_seeds": len(both)}
                found.append(row | _difference(both, measures))
    return found


def headings(results: dict[str, Any]) -> list[str]:
    """Of the table of results."""
    names = ["sampler", "K", "pool", "seeds", *results["measures"].values(), results["paper_heading"]]
    return [*names, "pairs/s", "sampling"]


def lines(results: dict[str, Any]) -> list[list[str]]:
    """Cells of the table of results."""
    found = []
    for row in results["rows"]:
        figures = [figure(row[measure], row[f"{measure}_std"]) for measure in results["measures"]]
        paper = results["paper"].get(str(row["num_negatives"]), {}).get(row["sampler"])
        beside = "–" if paper is None else " / ".join(f"{value:.2f}" for value in paper)
        speed, share = row["pairs_per_second"], row["sampler_share"]
        costs = ["–" if speed is None else f"{speed:.0f}", "–" if share is None else f"{100 * share:.1f}%"]
        found.append([row["sampler"], *_place(row), *figures, beside, *costs])
    return found


def difference_table(results: dict[str, Any]) -> tuple[list[str], list[list[str]]] | None:
    """Headings and cells of the table of differences; none: nothing has two seeds in common."""
    if not results["differences"]:
        return None
    head = [_COMPARED + " less", "K", "pool", "seeds", *results["measures"].values()]
    return head, [
        [row["less"], *_place(row), *(_gap(row, measure) for measure in results["measures"])]
        for row in results["differences"]
    ]


def markdown(results: dict[str, Any]) -> str:
    """The tables as Markdown."""
    text = [*_markdown(headings(results), lines(results)), "", results["caption"]]
    if apart := difference_table(results):
        text += ["", *_markdown(*apart), "", DIFFERENCES.replace("*", "\\*")]
    return "\n".join(text) + "\n"


def figure(mean: float | None, spread: float | None) -> str:
    """A mean with its spread, as the tables show it."""
    if mean is None:
        return "–"
    return f"{mean:.2f}" if spread is None else f"{mean:.2f} ± {spread:.2f}"


def _by_place(cells: Sequence[Trained]) -> Iterator[tuple[dict[str, int], dict[str, list[Trained]]]]:
    """By K and pool, then by sampler; `none`, which has neither, stands beside all of them."""

    def place_of(cell: Trained) -> tuple[int, int]:
        return cell.settings.num_negatives, cell.settings.pairs_in_pool

    everywhere = [cell for cell in cells if cell.settings.sampler == "none"]
    others = [cell for cell in cells if cell.settings.sampler != "none"]
    places = sorted(set(map(place_of, others))) or sorted(set(map(place_of, everywhere)))[:1]
    for number, pool_size in places:
        here = [*everywhere, *(cell for cell in others if place_of(cell) == (number, pool_size))]
        by_name = {name: [cell for cell in here if cell.settings.sampler == name] for name in SAMPLER_NAMES}
        place = {"num_negatives": number, "pool_size": pool_size}
        yield place, {name: found for name, found in by_name.items() if found}


def _spread(cells: Sequence[dict[str, Any]], measures: Sequence[str]) -> dict[str, float | None]:
    """Mean and standard deviation of each measure, over the cells that have it."""
    found: dict[str, float | None] = {}
    for measure in measures:
        values = np.array([cell[measure] for cell in cells if cell.get(measure) is not None], np.float64)
        found[measure] = float(values.mean()) if len(values) else None
        found[f"{measure}_std"] = float(values.std(ddof=1)) if len(values) > 1 else None
    return found


def _difference(both: Sequence[tuple[dict[str, Any], dict[str, Any]]], measures: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for measure in measures:
        values = [(ours[measure], theirs[measure]) for ours, theirs in both]
        known = not any(value is None for pair in values for value in pair)
        found |= seed_difference_row(measure, [ours - theirs for ours, theirs in values] if known else None)
    return found


def _place(row: dict[str, Any]) -> list[str]:
    return [str(row[name]) for name in ("num_negatives", "pool_size", "num_seeds")]


def _gap(row: dict[str, Any], measure: str) -> str:
    if row[measure] is None:
        return "–"
    text = f"{row[measure]:+.2f} ± {row[f'{measure}_std']:.2f}{'*' if row[f'{measure}_is_apart'] else ''}"
    return text.replace("-", "−")


def _markdown(head: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(head) + " |",
        "|---" * len(head) + "|",
        *("| " + " | ".join(text.replace("*", "\\*") for text in line) + " |" for line in cells),
    ]
