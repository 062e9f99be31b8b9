"""The report's figures, each drawn from plain numbers."""

import textwrap
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

import numpy as np

from uepp.report.drawing import FOURTH, INK, LINE, OURS, SOFT, THEIRS, THIRD, Drawn, canvas

NUM_DOTS = 400
"""Of a panel of the map: more would hide each other, and weigh more than the rest of the page."""
MOST_DAYS = 21
"""Days whose points are joined; of more, means of seven are."""
_MOST_TICKS = 7
_ROW = 22.0  # units of height a row
_TALL_ROW = 31.0  # the same where a label takes two lines
_LINE = 30  # letters of a line of a label
_APART = 0.4  # rows between the lines of a label
_RINGS = (10.0, 100.0, 500.0, 2_000.0, 5_000.0, 10_000.0)  # km


class Point(NamedTuple):
    """A figure with its interval; the ends may be none."""

    value: float
    low: float | None
    high: float | None


class Compared(NamedTuple):
    """A row with two systems on the same requests."""

    label: str
    ours: Point
    theirs: Point


def systems_by_k(rows: Sequence[tuple[str, Mapping[int, Point]]], ks: Sequence[int], ours: int, theirs: int) -> Drawn:
    """Recall at every K that was measured, a row a system, a shape a K.

    Args:
        rows: label, and recall by K.
        ks: increasing.
        ours: row of the run.
        theirs: row of the opponent.
    """
    title = "Recall by K of all systems, with 95% intervals"
    with canvas("systems", title, 62 + _height([label for label, _ in rows])) as one:
        axes = one.figure.add_subplot()
        shapes = dict(zip(ks, _shapes(len(ks)), strict=True))
        for place, (_, recalls) in enumerate(rows):
            color = OURS if place == ours else THEIRS if place == theirs else SOFT
            axes.plot([recalls[k].value for k in ks], [place] * len(ks), color=LINE, linewidth=1, zorder=1)
            for k in ks:
                _point(axes, recalls[k], place, color, shapes[k])
        for k in ks:
            axes.plot([], [], shapes[k], color=SOFT, label=f"@{k:,}", markersize=5.5)
        _rows(axes, [label for label, _ in rows], bold=(ours,))
        _shares(axes)
        axes.set_xlabel("recall at K")
        one.figure.legend(loc="outside upper right", ncols=len(ks), handletextpad=0.1, columnspacing=1.2)
    return one.done()


def two_systems(name: str, title: str, rows: Sequence[Compared], xlabel: str) -> Drawn:
    """Two systems a row, joined, with intervals."""
    with canvas(name, title, 62 + _height([row.label for row in rows])) as one:
        axes = one.figure.add_subplot()
        for place, row in enumerate(rows):
            axes.plot([row.ours.value, row.theirs.value], [place, place], color=LINE, linewidth=3, zorder=1)
            _point(axes, row.ours, place - 0.14, OURS, "o")  # apart, so that equal ones do not hide each other
            _point(axes, row.theirs, place + 0.14, THEIRS, "s")
        _rows(axes, [row.label for row in rows])
        _shares(axes)
        axes.set_xlabel(xlabel)
        axes.plot([], [], "o", color=OURS, label="this run", markersize=6)
        axes.plot([], [], "s", color=THEIRS, label="tuned BM25", markersize=6)
        one.figure.legend(loc="outside upper right", ncols=2, handletextpad=0.1, columnspacing=1.2)
    return one.done()


def by_day(days: Sequence[str], lines: Mapping[str, Sequence[float | None]], k: int) -> Drawn:
    """Recall of each day: points, joined by straight lines; of many days small dots, and the means of seven joined.

    Args:
        days: ISO dates, increasing.
        lines: by label, a value a day; the run, then the opponent, then what else is of interest.
        k: K.
    """
    title = f"Recall@{k:,} by day"
    at = np.array([date.fromisoformat(day).toordinal() for day in days])
    span = int(at[-1] - at[0])
    with canvas("days", title, 205) as one:
        axes = one.figure.add_subplot()
        for (label, values), color, shape in zip(lines.items(), (OURS, THEIRS, THIRD, FOURTH), "osD^", strict=False):
            place, numbers = at, np.array(values, float)
            if len(days) > MOST_DAYS:
                axes.plot(at, numbers, "o", color=color, markersize=2.2, alpha=0.45, markeredgewidth=0)
                place, numbers = _by_sevens(at, numbers)
            axes.plot(place, numbers, f"-{shape}", color=color, markersize=5, linewidth=1.2, label=label)
        ticks = range(at[0], at[-1] + 1, span // _MOST_TICKS + 1)
        axes.set_xticks(ticks, [f"{date.fromordinal(tick):%m-%d}" for tick in ticks])
        margin = max(0.3, 0.015 * span)
        axes.set_xlim(at[0] - margin, at[-1] + margin)
        axes.grid(axis="y")
        axes.grid(visible=False, axis="x")
        axes.set_ylim(0, 1)
        axes.set_ylabel(f"recall@{k:,}")
        axes.tick_params(axis="y", labelcolor=SOFT)
        one.figure.legend(loc="outside upper right", ncols=len(lines), handletextpad=0.4, columnspacing=1.2)
    return one.done()


def _by_sevens(at: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean day and mean value of every seven days from the first on; days without a value (NaN) do not count."""
    is_value = ~np.isnan(values)
    seven = (at[is_value] - at[0]) // 7
    numbers = np.bincount(seven)
    is_any = numbers > 0
    day, mean = (np.bincount(seven, one[is_value])[is_any] / numbers[is_any] for one in (at, values))
    return day, mean


def distances(km: Mapping[str, np.ndarray], k: int) -> Drawn:
    """Share of pairs within a distance, exactly (a step at every pair).

    Args:
        km: by label, distances without NaN: the run's, the opponent's, the purchases'.
        k: results of a request that count.
    """
    title = f"Distance between who asked and the first {k:,} results: share within so many kilometres"
    with canvas("distance", title, 235) as one:
        axes = one.figure.add_subplot()
        longest = max(1.0, *(float(values.max(initial=0.0)) for values in km.values()))
        for (label, values), color, style in zip(km.items(), (OURS, THEIRS, THIRD), ("-", "--", ":"), strict=False):
            if not len(values):
                continue
            ordered = np.sort(values)
            places = np.unique(np.linspace(0, len(ordered) - 1, min(len(ordered), 600)).astype(int))
            axes.plot(
                [0, *ordered[places], longest], [0, *((places + 1) / len(ordered)), 1], style, color=color,
                drawstyle="steps-post", label=label, linewidth=2.2 if style == ":" else 1.8,
            )  # fmt: skip
        axes.set_xlim(0, longest)
        axes.set_ylim(0, 1.01)
        axes.grid(axis="both")
        axes.tick_params(axis="y", labelcolor=SOFT)
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}%")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.set_xlabel("kilometres")
        axes.set_ylabel("share within")
        one.figure.legend(loc="outside upper left", ncols=3, columnspacing=1.2)
    return one.done()


def around(km: Mapping[str, np.ndarray], bearings: Mapping[str, np.ndarray], k: int) -> Drawn:
    """A map with who asked in the middle: where the results of some pairs lie, north up.

    Args:
        km: by label, distances without NaN: the run's, the opponent's, the purchases'.
        bearings: directions of the same pairs, degrees from north.
        k: results of a request that count.
    """
    title = f"The first {k:,} results around who asked: a dot a result, north is up"
    furthest = max(1.0, *(float(values.max(initial=0.0)) for values in km.values()))
    rings = [ring for ring in _RINGS if ring < furthest][-4:] or [furthest]
    dots = {}
    for label, values in km.items():
        drawn = np.random.default_rng(1).permutation(len(values))[:NUM_DOTS]
        angle, radius = np.radians(bearings[label][drawn]), np.sqrt(values[drawn])
        dots[label] = radius * np.sin(angle), radius * np.cos(angle)
    edge = 1.06 * np.sqrt(furthest)
    lowest = 1.06 * max(np.sqrt(rings[-1]), *(-y.min(initial=0.0) for _, y in dots.values()))
    with canvas("map", title, 142) as one:
        panels = one.figure.subplots(1, len(km))
        round_it = np.radians(np.arange(0, 361, 6))
        for (label, (x, y)), axes, color in zip(dots.items(), panels, (OURS, THEIRS, THIRD), strict=True):
            for ring in np.sqrt(rings):
                axes.plot(ring * np.sin(round_it), ring * np.cos(round_it), color=LINE, linewidth=0.8)
            axes.plot(x, y, "o", color=color, markersize=1.8, alpha=0.45, markeredgewidth=0)
            for ring in rings[-2:]:
                text = f"{ring:,.0f}" + (" km" if ring == rings[-1] else "")
                axes.annotate(text, (0, -np.sqrt(ring)), ha="center", va="center", fontsize=6.5, color=SOFT)
            axes.set_xlim(-edge, edge)
            axes.set_ylim(-lowest, edge)
            axes.set_aspect("equal")
            axes.set_axis_off()
            axes.set_title(label)
    return one.done()


def ablation(
    name: str, title: str, rows: Sequence[tuple[str, Sequence[float]]], opponents: Mapping[str, float], xlabel: str
) -> Drawn:
    """A study: every seed a small ring, the mean a dot, a bar of one standard deviation to each side.

    Args:
        name: of its files.
        title: what it shows.
        rows: variant, and a figure a seed.
        opponents: their figures; each that does not squeeze the variants gets a row, and a line up to the top.
        xlabel: of the figures.
    """
    values = [value for _, seeds in rows for value in seeds]
    low, high = min(values), max(values)
    near = {label: value for label, value in opponents.items() if value > low - 0.5 * max(high - low, 0.01)}
    labels = [*(label for label, _ in rows), *near]
    with canvas(name, title, 50 + _height(labels)) as one:
        axes = one.figure.add_subplot()
        for place, (_, seeds) in enumerate(rows):
            mean = float(np.mean(seeds))
            if len(seeds) > 1:
                spread = float(np.std(seeds, ddof=1))
                axes.plot([mean - spread, mean + spread], [place, place], color=OURS, linewidth=2.2, zorder=2)
            axes.plot(seeds, [place] * len(seeds), "o", color="none", markeredgecolor=SOFT, markersize=4.5, zorder=3)
            axes.plot([mean], [place], "o", color=OURS, markersize=6.5, zorder=4)
        axes.axvline(float(np.mean(rows[0][1])), color=SOFT, linewidth=1, linestyle=":", zorder=0)
        for place, value in enumerate(near.values(), len(rows)):
            axes.plot([value, value], [-0.6, place], color=THEIRS, linewidth=1.2, linestyle="--", zorder=0)
            axes.plot([value], [place], "s", color=THEIRS, markersize=6, zorder=4)
        _rows(axes, labels)
        digits = 3 if high - low > 0.01 else 4
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.{digits}f}".replace("0.", ".", 1))
        axes.xaxis.set_major_locator(_few_ticks())
        axes.set_xlabel(xlabel)
    return one.done()


def trade_off(rows: Sequence[Mapping[str, float]], chosen: float, bound: float, k: int) -> Drawn:
    """Boosting: recall against how much of the ranking by similarity stays, as the weights grow.

    Args:
        rows: of `trade_off` in the report of boosting.
        chosen: scale that was taken.
        bound: largest `boost_range` that is allowed.
        k: K.
    """
    title = f"Boosting: recall@{k:,} and kept results as quality counts more"
    with canvas("boosting", title, 270) as one:
        recall, kept = one.figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        at = [row["scale"] for row in rows]
        for name, color, style in (("all", OURS, "-"), ("head", THIRD, "--"), ("tail", FOURTH, "-.")):
            values = [np.nan if row.get(name) is None else row[name] for row in rows]
            if not np.isnan(values).all():
                recall.plot(at, values, style, color=color, label=name)
        kept.plot(at, [row["overlap"] for row in rows], color=INK, linewidth=1.4)
        limit = bound / max((row["boost_range"] / row["scale"] for row in rows if row["scale"]), default=1.0)
        for axes in (recall, kept):
            axes.axvline(chosen, color=SOFT, linewidth=1.2)
            axes.axvline(limit, color=SOFT, linewidth=1.2, linestyle=":")
            axes.grid(axis="both")
            axes.tick_params(axis="y", labelcolor=SOFT)
        recall.set_ylabel(f"recall@{k:,}")
        kept.set_ylabel(f"first {k:,} kept")
        kept.set_ylim(0, 1.03)
        kept.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}%")
        kept.set_xlabel("scale of the weights (line: chosen; dotted: the bound)")
        one.figure.legend(loc="outside upper right", ncols=3)
    return one.done()


def index_points(points: Sequence[tuple[str, float, float]], chosen: str, at: int) -> Drawn:
    """Index families: overlap with exact search against the time of a query.

    Args:
        points: label, p99 in ms, overlap.
        chosen: label of what serves.
        at: K.
    """
    title = f"Index: overlap@{at:,} with exact search against p99 of a query"
    with canvas("index", title, 62 + _height([label for label, *_ in points], 26.0)) as one:
        overlap, times = one.figure.subplots(1, 2, sharey=True)
        for place, (label, p99, share) in enumerate(points):
            color = OURS if label == chosen else SOFT
            overlap.plot([0, share], [place, place], color=color, linewidth=5, solid_capstyle="butt")
            times.plot([0, p99], [place, place], color=color, linewidth=5, solid_capstyle="butt")
        _rows(overlap, [label for label, *_ in points])
        overlap.set_xlim(0, 1)
        overlap.set_xticks([0, 0.5, 1], ["0", "50%", "100%"])
        overlap.set_xlabel(f"overlap@{at:,}")
        times.set_xlim(left=0)
        times.set_xlabel("p99 (ms)")
        times.xaxis.set_major_locator(_few_ticks())
    return one.done()


def _point(axes: Any, point: Point, place: float, color: str, shape: str) -> None:
    if point.low is not None and point.high is not None:
        axes.plot([point.low, point.high], [place, place], color=color, linewidth=2, zorder=2)
    axes.plot([point.value], [place], shape, color=color, markersize=6, zorder=3)


def _shapes(number: int) -> list[str]:
    return (["o", "s", "D", "^", "v", "P", "X"] * (1 + number // 7))[:number]


def _rows(axes: Any, labels: Sequence[str], bold: Sequence[int] = ()) -> None:
    """Label the rows. Each line of a label is a tick of its own, so that it ends at the axis in any letters."""
    ticks = []
    for place, label in enumerate(labels):
        lines = _lines(label)
        middle = (len(lines) - 1) / 2
        ticks += [(place, place + _APART * (line - middle), text) for line, text in enumerate(lines)]
    axes.set_yticks([at for _, at, _ in ticks], [text for *_, text in ticks])
    axes.set_ylim(len(labels) - 0.4, -0.6)
    for (place, *_), text in zip(ticks, axes.get_yticklabels(), strict=True):
        if place in bold:
            text.set_fontweight("bold")


def _height(labels: Sequence[str], row: float = _ROW) -> float:
    """Of all rows together, each as high as the highest."""
    return len(labels) * max([row, *(_TALL_ROW for label in labels if len(_lines(label)) > 1)])


def _lines(label: str) -> list[str]:
    """A label in at most two lines; one that does not fit is cut in the middle, since variants differ at the end."""
    if len(label) <= _LINE:
        return [label]
    for width in range(_LINE // 2, _LINE + 1):
        lines = textwrap.wrap(label, width, break_on_hyphens=False)
        if len(lines) <= 2:
            return lines
    return [f"{label[: _LINE - 1]}…", label[-_LINE:]]


def _shares(axes: Any) -> None:
    axes.set_xlim(-0.015, 1.015)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(4)
