"""The report of a tuning: a table as Markdown, and all trials as a picture."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Column, Table

from uepp.artifacts import atomic_file
from uepp.index_families import FAMILIES
from uepp.retrieval.operating_point import AS_FAST
from uepp.retrieval.trials import Trial

# Okabe and Ito's colours, which differ for those who do not see red or green.
_COLORS = dict(zip(FAMILIES, ("#000000", "#D55E00", "#009E73", "#56B4E9", "#0072B2"), strict=True))
_LEAST_LOSS = 1e-4


def columns(ks: Sequence[int]) -> dict[str, str]:
    """Heads of the table by the name of what is under them."""
    accuracy = {f"overlap@{k}": f"overlap @{k:,}" for k in ks}
    accuracy |= {f"recall_loss@{k}": f"recall lost @{k:,}" for k in ks}
    return {
        "label": "", "index": "index", **accuracy, "p50_ms": "p50 ms, best of 3", "p99_ms": "p99 ms, best of 3",
        "p99_all_ms": "p99 ms, all", "queries_per_second": "queries/s", "bytes_per_vector": "index bytes/vector",
        "memory_per_vector": "memory bytes/vector", "build_seconds": "build s",
    }  # fmt: skip


def shown(name: str, value: Any) -> str:
    """A figure as the table has it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, str):
        return value
    if name.startswith("overlap"):
        return f"{value:.4f}"
    if name.startswith("recall_loss"):
        return f"{100 * value:.2f}%"
    if name.endswith("_ms"):
        return f"{value:.3g}" if value < 100 else f"{value:.0f}"
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def as_markdown(result: dict[str, Any]) -> str:
    """The report of `uepp tune` as text."""
    ks = sorted({min(100, result["at"]), result["at"]})
    heads = columns(ks)
    lines = [
        "# Tuning of the index",
        "",
        f"{result['num_products']:,} products of {result['dim']} dimensions"
        f"{', boosted' if result['is_boosted'] else ''}; {result['num_trials']} trials on "
        f"{result['num_requests']['tuned_on']:,} requests of the selection window; {result['when']}, "
        f"Faiss {result['faiss_version']}, {result['num_cores']} cores.",
        "",
        f"Serves with **{result['chosen']}**: of the points within p99 {result['budget_ms']:g} ms, the highest overlap "
        f"with exact search at K = {result['at']:,} (of those within .001 of it, the fastest).",
    ]
    tables = (
        ("report", "Report window", "that nothing was tuned on"),
        ("held_out", "Held-out requests of the selection window", "that the choice was made on, and no trial"),
    )
    for name, title, which in tables:
        rows = result[name]
        if rows:
            lines += ["", f"## {title}: {result['num_requests'][name]:,} requests {which}", ""]
            lines += [f"| {' | '.join(heads.values())} |", f"|{'---|' * len(heads)}"]
            lines += [f"| {' | '.join(shown(head, row.get(head)) for head in heads)} |" for row in rows]
    lines += ["", "## Against Faiss' defaults", ""]
    lines += [f"- {sentence}" for sentence in verdicts(result)]
    lines += [
        "",
        "Overlap: share of exact search's first K that the index finds among its own. Recall lost: share of exact",
        "search's purchase recall @K that is lost; below 0 the index happens to find more. p50 and p99: a query alone",
        "on one thread, without the tower. Best of 3: the least of its three times, so that other work on the machine",
        "counts little; this is what the budget is compared with. All: every single time. Queries/s: in batches, on",
        "all cores. Index bytes: of the file. Memory bytes: of all that searches read, the vectors too where the",
        "index's own scores are not exact. Build: on all cores, from nothing. Faiss: its defaults, where it is told",
        "nothing that it need not be told, with 4·√N cells. ok: more is found in no more time, on the requests of the",
        "first table.",
        "",
    ]
    return "\n".join(lines)


def print_result(result: dict[str, Any], console: Console) -> None:
    """Print what is served beside Faiss' defaults on the report window, or the held-out requests; then verdicts."""
    overlap, loss = (f"{name}@{result['at']}" for name in ("overlap", "recall_loss"))
    heads = [f"overlap\n@{result['at']:,}", f"recall\nlost\n@{result['at']:,}", "p99 ms\nbest of 3\n(all)"]
    heads += ["queries\n/s", "memory\nbytes"]
    numbers = (Column(head, justify="right", no_wrap=True) for head in heads)
    table = Table(Column("index", no_wrap=True), *numbers, box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for row in result["report"] or result["held_out"]:
        if not row["label"].startswith(AS_FAST):
            figure = {name: shown(name, value) for name, value in row.items()}
            times = f"{figure['p99_ms']} ({figure.get('p99_all_ms', '–')})"
            others = (figure.get(name, "–") for name in ("queries_per_second", "memory_per_vector"))
            table.add_row(row["label"], figure[overlap], figure[loss], times, *others)
    console.print(table)
    for sentence in verdicts(result):
        console.print(sentence, soft_wrap=True, highlight=False, markup=False)


def verdicts(result: dict[str, Any]) -> list[str]:
    """For each family, what tuning found that takes no longer than Faiss' default of it, and whether it is better."""
    name = "report" if result["report"] else "held_out"
    rows = {row["index"]: row for row in result[name]}
    overlap = f"overlap@{result['at']}"
    sentences = []
    for versus in result["defaults"]:
        default, better = rows[versus["default"]], rows.get(versus["tuned"] or "")
        ok = "ok" if versus["ok"] else "not ok"
        about = f"{ok}: {versus['family']}: Faiss' default has {overlap} {_point(default, overlap)}; "
        if better is None:
            sentences.append(about + "nothing as fast was found that is better")
        else:
            doubt = "" if versus["ok"] else " (not better in both on these requests)"
            sentences.append(f"{about}{better['index']} has {_point(better, overlap)}{doubt}")
    return sentences


def _point(row: dict[str, Any], overlap: str) -> str:
    return f"{row[overlap]:.4f} at p99 {row['p99_ms']:.3g} ms"


def plot_trials(trials: Sequence[Trial], chosen: str, at: int, budget_ms: float, path: Path) -> None:
    """Draw what is lost against what it takes, as `.svg` and `.png`: up and left is better.

    Args:
        trials: measured on the requests that were tuned on.
        chosen: spec that is served with.
        at: K.
        budget_ms: drawn as a line.
        path: without ending.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    measured = [trial for trial in trials if trial.measured.get(f"overlap@{at}") is not None]
    for family, color in _COLORS.items():
        own = [trial for trial in measured if trial.spec.family == family]
        if own:
            axes.scatter(
                [trial.p99_ms for trial in own], [_lost(trial, at) for trial in own], s=26, color=color, alpha=0.75,
                linewidths=0, label=family, zorder=3,
            )  # fmt: skip
    front = _front(measured, at)
    axes.plot(
        [trial.p99_ms for trial in front], [_lost(trial, at) for trial in front], color="#777777", linewidth=1,
        drawstyle="steps-post", zorder=2, label="best so far by time",
    )  # fmt: skip
    defaults = [trial for trial in measured if trial.is_default]
    axes.scatter(
        [trial.p99_ms for trial in defaults], [_lost(trial, at) for trial in defaults], s=110, facecolors="none",
        edgecolors=[_COLORS[trial.spec.family] for trial in defaults], linewidths=1.4, zorder=4, label="Faiss' default",
    )  # fmt: skip
    served = [trial for trial in measured if str(trial.spec) == chosen]
    axes.scatter(
        [trial.p99_ms for trial in served], [_lost(trial, at) for trial in served], s=230, marker="*", color="#F0E442",
        edgecolors="#000000", linewidths=1, zorder=5, label="chosen",
    )  # fmt: skip
    axes.axvline(budget_ms, color="#999999", linewidth=1, linestyle="--", label=f"budget, {budget_ms:g} ms", zorder=1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.invert_yaxis()
    axes.set_xlabel("p99 of a query alone, one thread (ms)")
    axes.set_ylabel(f"lost of exact search's first {at:,}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False)
    with matplotlib.rc_context({"svg.hashsalt": "uepp", "svg.fonttype": "none"}):  # the same trials, the same file
        for ending, metadata in ((".svg", {"Date": None}), (".png", None)):
            with atomic_file(path.with_suffix(ending)) as temporary:
                figure.savefig(temporary, format=ending[1:], dpi=150, metadata=metadata)


def _lost(trial: Trial, at: int) -> float:
    return max(1 - trial.overlap(at), _LEAST_LOSS)


def _front(trials: Sequence[Trial], at: int) -> list[Trial]:
    """Trials that no faster one equals, by time."""
    ordered = sorted(trials, key=lambda trial: (trial.p99_ms, -trial.overlap(at)))
    best = np.maximum.accumulate([trial.overlap(at) for trial in ordered]) if ordered else np.empty(0)
    return [trial for place, trial in enumerate(ordered) if not place or trial.overlap(at) > best[place - 1]]
