"""What an evaluation prints: the answer in a line, then a row a system."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from uepp.evaluation.recall import REFERENCE
from uepp.evaluation.slices import ALL
from uepp.evaluation.systems import LABELS

_OWN = ("uepp_boost", "uepp_rerank", "fusion")
"""What else a run serves; each has a line of its own under the answer."""
_SLICES = (("head", "head"), ("torso", "torso"), ("tail", "tail"), ("non_repeat", "new"))
"""Slices that have a column, and its heading."""
_NAMES = {"recall": "Recall", "ndcg": "NDCG", "precision": "Precision", "mrr": "MRR", "auroc": "AUROC"}


def headline(metrics: dict[str, Any]) -> str | None:
    """The answer in a line: recall of the run, of tuned BM25, and the difference; none without that opponent."""
    compared = metrics["comparisons"].get(REFERENCE)
    key = main_key(metrics, "recall")
    if compared is None or compared[ALL][key]["difference"] is None:
        return None
    ours, theirs = (metrics["systems"][name][ALL][key] for name in ("uepp", REFERENCE))
    one = compared[ALL][key]
    low, high = one["interval"]
    interval = "too few queries for an interval" if low is None else f"95% interval {_signed(low)} to {_signed(high)}"
    return (
        f"{key.capitalize()}: this run {_plain(key, ours)}, tuned BM25 {_plain(key, theirs)}; difference "
        f"{_signed(one['difference'])} ({interval}, {p_clause(one['p_value'])}){_ratio(metrics, 'uepp', key)}"
    )


def _ratio(metrics: dict[str, Any], name: str, key: str) -> str:
    """How many times what tuned BM25 finds; empty where that is not known, as in figures of an earlier version."""
    one = metrics.get("over_bm25", {}).get(name, {}).get(ALL, {}).get(key)
    if one is None or one["ratio"] is None:
        return ""
    low, high = one["ratio_interval"]
    interval = "" if low is None else f" ({low:.2f} to {high:.2f})"
    return f", {one['ratio']:.2f} times{interval}"


def print_table(metrics: dict[str, Any], console: Console, measures: Sequence[str] = ("recall",)) -> None:
    """The closing table: the answer, then systems by a measure, for all requests and by segment.

    Args:
        metrics: of `metrics.json`.
        console: to print on.
        measures: some of `MEASURES`, a table each.
    """
    answer = headline(metrics)
    if answer is not None:
        console.print(answer, style="bold", markup=False, highlight=False, soft_wrap=True)
        key = main_key(metrics, "recall")
        for name in _OWN:
            if ratio := _ratio(metrics, name, key):
                text = f"  {LABELS[name]} {_plain(key, metrics['systems'][name][ALL][key])}{ratio}"
                console.print(text, markup=False, highlight=False, soft_wrap=True)
    for measure in measures:
        console.print(_table(metrics, measure))


def main_key(metrics: dict[str, Any], measure: str) -> str:
    """The measure at the K that segments are shown at: 100, else the middle one."""
    keys = _keys(metrics, measure)
    return next((key for key in keys if key.endswith("@100")), keys[len(keys) // 2])


def markdown(metrics: dict[str, Any], measures: Sequence[str] = ("recall",)) -> str:
    """The closing table as Markdown, the best of each column in bold; arguments as of `print_table`."""
    lines = []
    for measure in measures:
        columns, rows = _grid(metrics, measure)
        headings = ["system", *(" ".join(column.lines) for column in columns)]
        lines += ["| " + " | ".join(headings) + " |", "|---" * len(headings) + "|"]
        for label, values in rows:
            cells = [f"**{text}**" if is_best else text for text, is_best in values]
            lines.append("| " + " | ".join([label, *cells]) + " |")
        lines.append("")
    return "\n".join(lines)


class _Column(NamedTuple):
    """Of a table: the slice, the measure, and the lines of its heading."""

    part: str
    key: str
    lines: tuple[str, ...]


def _grid(metrics: dict[str, Any], measure: str) -> tuple[list[_Column], list[tuple[str, list[tuple[str, bool]]]]]:
    """Columns, and of each system its name and the figures, each with whether it is its column's best."""
    systems: dict[str, Any] = metrics["systems"]
    of_run = next(iter(systems.values()))
    main = main_key(metrics, measure)
    columns = [_Column(ALL, key, (_heading(key),)) for key in _keys(metrics, measure)]
    columns += [_Column(name, main, (heading, _heading(main))) for name, heading in _shown(of_run)]
    rows = [[scores[column.part][column.key] for column in columns] for scores in systems.values()]
    best = [max((value for value in column if value is not None), default=None) for column in zip(*rows, strict=True)]
    texts = [
        [("–" if value is None else _plain(column.key, value), value is not None and value == highest)
         for column, value, highest in zip(columns, values, best, strict=True)]
        for values in rows
    ]  # fmt: skip
    return columns, [(LABELS.get(name, name), cells) for name, cells in zip(systems, texts, strict=True)]


def _table(metrics: dict[str, Any], measure: str) -> Table:
    of_run = next(iter(metrics["systems"].values()))
    shown = _shown(of_run)
    sizes = ", ".join(f"{heading} {of_run[name]['num_requests']:,}" for name, heading in shown)
    note = "; new: not bought before" if any(name == "non_repeat" for name, _ in shown) else ""
    table = Table(
        title=f"{_NAMES[measure]} on {metrics['num_requests']:,} requests of {metrics['num_days']} days",
        caption=f"Requests: {sizes}{note}. {metrics['segments']}",
        caption_justify="left",
    )
    columns, rows = _grid(metrics, measure)
    table.add_column("system")  # in a narrow terminal names wrap, figures do not
    for column in columns:
        table.add_column("\n".join(column.lines), justify="right", no_wrap=True)
    for label, cells in rows:
        table.add_row(label, *(f"[bold]{text}[/bold]" if is_best else text for text, is_best in cells))
    return table


def _shown(of_run: dict[str, Any]) -> list[tuple[str, str]]:
    """Slices that get a column, with their headings."""
    return [(name, heading) for name, heading in _SLICES if _says_something(of_run, name)]


def _says_something(scores: dict[str, Any], name: str) -> bool:
    """Whether a slice has requests, and is not all of them again."""
    one = scores.get(name)
    return bool(one and one["num_requests"]) and (name != "non_repeat" or scores["repeat"]["num_requests"] > 0)


def _keys(metrics: dict[str, Any], measure: str) -> list[str]:
    return [key for key in next(iter(metrics["systems"].values()))[ALL] if key.startswith(f"{measure}@")]


def _heading(key: str) -> str:
    name, k = key.split("@")
    return f"R@{k}" if name == "recall" else f"@{k}"


def decimals(measure: str, value: float) -> int:
    """Places after the point of a measure: a small precision has four, kilometres and counts have none."""
    if measure.startswith(("distance_km", "num_")):
        return 0
    return 4 if measure.startswith("precision") and abs(value) < 0.1 else 3


def fixed(value: float, places: int) -> str:
    """So many places after the point, without a 0 before it: `.312`, `4,184`."""
    text = f"{value:,.{places}f}"
    return text[1:] if text.startswith("0.") else text


def _plain(measure: str, value: float) -> str:
    return f"{value:.{decimals(measure, value)}f}"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def p_value(value: float) -> str:
    """`≤ .0001`, the least that the test can give, or `.0312`."""
    return "≤ .0001" if value <= 1e-4 else f"{value:.4f}".replace("0.", ".", 1)


def p_clause(value: float) -> str:
    """`p ≤ .0001` or `p = .0312`."""
    text = p_value(value)
    return f"p {text}" if text.startswith("≤") else f"p = {text}"
