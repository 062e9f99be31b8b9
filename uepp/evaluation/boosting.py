"""What boosting does: recall with and without it on the same requests, and recall against similarity as it grows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from uepp.evaluation.baselines import System
from uepp.evaluation.measures import recalls as recalls_of
from uepp.evaluation.requests import Requests
from uepp.evaluation.segments import NAMES, Segments
from uepp.evaluation.table import p_value
from uepp.features.text import query_numbers
from uepp.metrics import mean_over_days, paired_interval, paired_p_values, recall_at, target_positions
from uepp.retrieval.boost_candidates import BoostCandidates, Ranking
from uepp.retrieval.boost_weights import WeightSpace

_NUM_SCALES = 25
_BEYOND = 1.5  # how far past the bound the trade-off is followed


class Window(NamedTuple):
    """Requests of a window, and their candidates."""

    requests: Requests
    candidates: BoostCandidates

    def recalls(self, ranking: Ranking) -> np.ndarray:
        """Recall of each request at the ranking's width, float64 [R]."""
        targets = self.requests.targets
        positions = target_positions(ranking.rows, targets.request, targets.product_index)
        return recall_at(ranking.rows.shape[1], positions, targets.request, len(self.requests))

    def boosted_recalls(self, weights: np.ndarray, is_asked: np.ndarray) -> np.ndarray:
        """Recall with weights float [F] of the requests that are asked for, bool [R]; float64 [R], NaN elsewhere."""
        return np.where(is_asked, self.recalls(self.candidates.rank(weights, is_asked)), np.nan)


def compare(
    before: System, after: System, requests: Requests, segments: Segments, ks: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """Two systems on the same requests.

    Returns:
        By segment (`all`, `head`, `torso`, `tail`) `num_requests` and for each K `recall@K`: `before`, `after`,
        `difference`, its 95% bootstrap `interval`, a list of two (NaN with too few queries), and its `p_value`
        (`paired_p_values`).
    """
    results = [recalls_of(system, requests, ks) for system in (before, after)]
    query = query_numbers(requests.queries)
    compared: dict[str, dict[str, Any]] = {}
    for name in ("all", *NAMES):
        is_in = np.ones(len(requests), bool) if name == "all" else segments.labels == name
        compared[name] = {"num_requests": int(is_in.sum())}
        for k in ks:
            recalls = [np.where(is_in, one[k], np.nan) for one in results]
            means = [mean_over_days(values, requests.day) for values in recalls]
            difference = recalls[1] - recalls[0]
            compared[name][f"recall@{k}"] = {
                "before": means[0],
                "after": means[1],
                "difference": means[1] - means[0],
                "interval": list(paired_interval(difference, requests.day, query)),
                "p_value": float(paired_p_values(difference[:, np.newaxis], requests.day, query)[0]),
            }
    return compared


def trade_off(
    window: Window, segments: Segments, space: WeightSpace, weights: np.ndarray, chosen: float
) -> list[dict[str, float]]:
    """Recall@K and relevance as the weights grow, from none to beyond the bound.

    Args:
        window: requests to follow; K is that of its candidates.
        segments: of these requests.
        space: with the bound.
        weights: float [F], not all zero; a scale of 1 is these.
        chosen: the scale that was taken, so that there is a row of it.

    Returns:
        A row a scale: `scale`, `boost_range`, `all`, `head`, `torso`, `tail` (Recall@K), `similarity` (mean of the
        first K), `overlap` (share of the unboosted first K that stays), and `largest_loss` (the most that a product of
        the first K is less similar than the K-th without boosting).
    """
    full = space.boost_range(weights)
    furthest = _BEYOND * max(1.0, space.bound / full)
    scales = np.unique(np.append(np.linspace(0.0, furthest, _NUM_SCALES), [chosen, 1.0, space.bound / full]))
    window.candidates.cover(furthest * full)
    plain = window.candidates.rank(np.zeros_like(weights))
    last = np.nanmin(plain.similarity, axis=1)
    rows = []
    for scale in scales.tolist():
        ranking = window.candidates.rank(scale * weights)
        recalls = window.recalls(ranking)
        row = {"scale": scale, "boost_range": scale * full, "all": mean_over_days(recalls, window.requests.day)}
        for name in NAMES:
            of_segment = np.where(segments.labels == name, recalls, np.nan)
            row[name] = mean_over_days(of_segment, window.requests.day)
        row["similarity"] = float(np.nanmean(ranking.similarity))
        row["overlap"] = _overlap(plain.rows, ranking.rows)
        row["largest_loss"] = float(np.max(last - np.nanmin(ranking.similarity, axis=1), initial=0.0))
        rows.append(row)
    return rows


def _overlap(before: np.ndarray, after: np.ndarray) -> float:
    """Mean share of a row's products that are in the other's row."""
    shares = [
        len(np.intersect1d(one[one >= 0], other)) / max(1, int((one >= 0).sum()))
        for one, other in zip(before, after, strict=True)
    ]
    return float(np.mean(shares))


def plot_trade_off(rows: list[dict[str, float]], chosen: float, bound: float, k: int, stem: Path) -> None:
    """Draw the trade-off as `stem`.svg and `stem`.png.

    Args:
        rows: of `trade_off`.
        chosen: scale that was taken; 0: none.
        bound: largest `boost_range` that is allowed.
        k: K.
        stem: path without its ending.
    """
    from matplotlib.figure import Figure

    at = [row["scale"] for row in rows]
    bound_scale = bound / max(row["boost_range"] / row["scale"] for row in rows if row["scale"])
    figure = Figure(figsize=(7, 7.5), layout="constrained")
    recall, similarity = figure.subplots(2, 1, sharex=True)
    lines = []
    for name, style in (("all", "-"), ("head", "--"), ("torso", ":"), ("tail", "-.")):
        values = np.array([row[name] for row in rows], float)  # null of a segment without requests becomes NaN
        if not np.isnan(values).all():
            lines += recall.plot(at, values, style, label=name, linewidth=2.2 if name == "all" else 1.4)
    recall.set_ylabel(f"Recall@{k}")
    recall.set_title("Report window")
    kept = similarity.twinx()
    lines += similarity.plot(
        at, [row["similarity"] for row in rows], color="tab:purple", label=f"similarity, first {k}"
    )
    lines += kept.plot(at, [row["overlap"] for row in rows], "--", color="tab:gray", label=f"kept of the first {k}")
    similarity.set_ylabel(f"mean similarity of the first {k}")
    kept.set_ylabel(f"share of the unboosted first {k} that stays")
    kept.set_ylim(0, 1.02)
    similarity.set_xlabel("scale of the tuned weights (0: similarity alone)")
    for axes in (recall, similarity):
        marks = [
            axes.axvline(chosen, color="tab:olive", label="chosen"),
            axes.axvline(bound_scale, color="black", linestyle=":", label="bound"),
        ]
        axes.grid(alpha=0.3)
    figure.legend(handles=[*lines, *marks], loc="outside lower center", ncols=4, fontsize="small")
    for ending in ("svg", "png"):
        figure.savefig(stem.with_suffix(f".{ending}"), dpi=120)


def print_comparison(compared: dict[str, dict[str, Any]], title: str, console: Console) -> None:
    """The table of `compare`."""
    table = Table(title=title)
    for name in ("segment", "measure", "without", "boosted", "difference", "95% interval", "p"):
        table.add_column(name, justify="left" if name in ("segment", "measure") else "right")
    for name, scores in compared.items():
        first = f"{name} ({scores['num_requests']:,})"
        for measure in (key for key in scores if key.startswith("recall@")):
            one = scores[measure]
            if one["before"] is None:
                cells = ["–"] * 5
            else:
                low, high = one["interval"]
                cells = [f"{one['before']:.3f}", f"{one['after']:.3f}", f"{one['difference']:+.4f}"]
                interval = "–" if low is None else f"{low:+.4f} to {high:+.4f}"
                cells += [interval, p_value(one["p_value"])]
            table.add_row(first, f"R@{measure[7:]}", *cells)
            first = ""
        table.add_section()
    console.print(table)
