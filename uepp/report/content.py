"""The tables of the page's sections, as plain cells for the template."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from uepp.evaluation.locality import PERCENTILES, Locality, first_pairs, of_pairs, pair_bearings, pair_distances
from uepp.evaluation.measures import MEASURES
from uepp.evaluation.slices import ALL, JUDGED
from uepp.evaluation.systems import LABELS
from uepp.report import paper, wording
from uepp.report.answer import OURS
from uepp.report.gather import OPPONENT, Facts
from uepp.report.sample import Sample, people_of, products_of
from uepp.retrieval.ann_report import columns as index_columns
from uepp.retrieval.ann_report import shown as index_figure
from uepp.study.table import difference_table, main_key, recall_keys, with_spread

FIRST = 100
"""Results that distances are of."""


class Cell(NamedTuple):
    """A cell of a table: what it shows, what it is sorted by, and whether it is the best of its column."""

    text: str
    value: float | None = None
    is_best: bool = False


class Grid(NamedTuple):
    """A table.

    Attributes:
        heads: of the columns; the first one's cells are the heads of the rows.
        rows: cells.
    """

    heads: list[str]
    rows: list[list[Cell]]


def systems_grid(facts: Facts) -> Grid:
    """All systems with all measures, on all requests."""
    of_all = facts.metrics["systems"][OURS][ALL]
    return _systems_grid(facts, ALL, [key for name in MEASURES for key in of_all if key.startswith(f"{name}@")])


class Judged(NamedTuple):
    """What human grades say.

    Attributes:
        grid: NDCG with the grades as gains, a row a system.
        num_requests: of a query with a grade above 0.
        num_queries: different ones of these.
    """

    grid: Grid
    num_requests: int
    num_queries: int


def judged(facts: Facts) -> Judged | None:
    """All systems on judged requests; none where no query that was asked is judged."""
    found = facts.metrics["systems"][OURS].get(JUDGED)
    if not found or not found["num_requests"]:
        return None
    keys = [key for key in found if key.startswith("ndcg@")]
    return Judged(_systems_grid(facts, JUDGED, keys), found["num_requests"], found["num_queries"])


def _systems_grid(facts: Facts, part: str, keys: Sequence[str]) -> Grid:
    systems = facts.metrics["systems"]
    best = {
        key: max((one[part][key] for one in systems.values() if one[part][key] is not None), default=None)
        for key in keys
    }
    short = {"recall": "R", "ndcg": "NDCG", "precision": "P", "mrr": "MRR", "auroc": "AUROC"}
    heads = [f"{short[key.partition('@')[0]]} @{int(key.partition('@')[2]):,}" for key in keys]
    rows = []
    for name, one in systems.items():
        cells = [Cell(LABELS.get(name, name))]
        for key in keys:
            value = one[part][key]
            cells.append(Cell(wording.measure(key, value), value, value is not None and value == best[key]))
        rows.append(cells)
    return Grid(["system", *heads], rows)


def days_grid(facts: Facts) -> Grid:
    """Requests and recall of each day, of the run and of tuned BM25."""
    key = f"recall@{facts.main_k}"
    rows = [
        [
            Cell(day),
            Cell(wording.count(one["num_requests"]), one["num_requests"]),
            *(Cell(wording.recall(one["systems"][name][key])) for name in (OURS, OPPONENT)),
        ]
        for day, one in sorted(facts.metrics["days"].items())
    ]
    return Grid(["day", "requests", "this run", "tuned BM25"], rows)


class Distances(NamedTuple):
    """What the section on distances shows.

    Attributes:
        grid: percentiles, own country and unknown places, a row a system.
        km: distances by label, for the figures.
        bearings: directions of the same pairs, degrees from north.
        paper: the paper's sentence.
        num_requests: that were ranked.
    """

    grid: Grid
    km: dict[str, np.ndarray]
    bearings: dict[str, np.ndarray]
    paper: str
    num_requests: int


def distances(sample: Sample, acted: str) -> Distances | None:
    """Of the first results of both systems, and of what people took; none where no pair of places is known.

    Args:
        sample: ranked requests.
        acted: what they did with it, in words.
    """
    people, products = people_of(sample), products_of(sample)
    labels = {OURS: "this run", OPPONENT: "tuned BM25"}
    pairs = {label: first_pairs(sample.rankings[name], FIRST) for name, label in labels.items()}
    pairs[f"what was {acted}"] = (sample.pair, sample.bought)
    found = {label: of_pairs(people, products, *pair) for label, pair in pairs.items()}
    if not any(one.num_pairs for one in found.values()):
        return None
    km = {label: pair_distances(people, products, *pair) for label, pair in pairs.items()}
    bearings = {label: pair_bearings(people, products, *pair) for label, pair in pairs.items()}
    heads = ["", *(f"{percent}% within" for percent in PERCENTILES), "own country", "pairs", "place unknown"]
    rows = [[Cell(label), *_locality(one)] for label, one in found.items()]
    told = paper.figures()["distance"]
    with_location, without = (f"{miles:,} miles ({miles * paper.MILE_KM:,.0f} km)" for miles in told["miles"])
    sentence = (
        f"In the paper ({told['source']}) the 98th percentile is {with_location} with location, {without} without."
    )
    return Distances(
        Grid(heads, rows),
        {label: values[~np.isnan(values)] for label, values in km.items()},
        {label: values[~np.isnan(km[label])] for label, values in bearings.items()},
        sentence,
        len(sample.rows),
    )


def _locality(one: Locality) -> list[Cell]:
    return [
        *(Cell(wording.kilometres(value), value) for value in one.percentiles.values()),
        Cell(wording.share(one.own_country_share), one.own_country_share),
        Cell(wording.count(one.num_pairs), one.num_pairs),
        Cell(wording.count(one.num_unknown), one.num_unknown),
    ]


class Study(NamedTuple):
    """One study.

    Attributes:
        name: of it.
        description: what it asks.
        rows: variants with a figure a seed, for the figure.
        opponents: label and figure, also for the figure; variants without towers are among them, with their mean.
        grid: mean ± deviation.
        apart: differences seed by seed; none: no two variants have two seeds in common.
        num_seeds: the most that a variant has.
        key: the measure.
    """

    name: str
    description: str
    rows: list[tuple[str, list[float]]]
    opponents: dict[str, float]
    grid: Grid
    apart: Grid | None
    num_seeds: int
    key: str


def studies(facts: Facts) -> list[Study]:
    """All studies that have figures."""
    found = []
    for name, results in facts.studies.items():
        variants = results["variants"]
        keys = recall_keys(results)
        if not keys:
            continue
        main = main_key(keys, facts.main_k)
        columns = [("all", key, f"R@{int(key.partition('@')[2]):,}") for key in keys]
        columns += [(part, main, f"{part} R@{int(main.partition('@')[2]):,}") for part in ("head", "tail")]
        columns += [(part, key, heading) for heading, (part, key) in results.get("columns", {}).items()]
        seeds = {variant: list(paper.by_seed(cells, main).values()) for variant, cells in variants.items()}
        # Those without towers may be far below, and would squeeze all others in the figure.
        lexical = {variant: seeds.pop(variant) for variant in results.get("lexical", ())}
        grid = [
            [
                Cell(variant),
                Cell(str(len(cells)), len(cells)),
                *(_spread(key, list(paper.by_seed(cells, key, part).values())) for part, key, _ in columns),
                _seconds(cells),
            ]
            for variant, cells in variants.items()
        ]
        opponents = {variant: float(np.mean(values)) for variant, values in lexical.items() if values}
        for opponent, windows in results.get("opponents", {}).items():
            scores = windows["report"]
            value = scores["all"].get(main)
            label = LABELS.get(opponent, opponent)
            if value is not None:
                opponents[label] = value
            figures = (_spread(key, [scores.get(part, {}).get(key)]) for part, key, _ in columns)
            grid.append([Cell(label), Cell(wording.MISSING), *figures, Cell(wording.MISSING)])
        apart = difference_table(results)
        found.append(
            Study(
                name,
                results.get("description", ""),
                [row for row in seeds.items() if row[1]],
                opponents,
                Grid(["variant", "seeds", *(head for *_, head in columns), "training"], grid),
                apart and Grid(apart[0], [[Cell(text) for text in row] for row in apart[1]]),
                max(len(cells) for cells in variants.values()),
                main,
            )
        )
    return found


def _spread(measure: str, values: Sequence[float | None]) -> Cell:
    numbers = [value for value in values if value is not None]
    if not numbers:
        return Cell(wording.MISSING)
    mean = float(np.mean(numbers))
    deviation = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else float("nan")
    return Cell(with_spread(measure, mean, deviation), mean)


def _seconds(cells: Sequence[dict[str, Any]]) -> Cell:
    known = [cell["seconds"]["train"] for cell in cells if "train" in cell.get("seconds", {})]
    return Cell(wording.duration(float(np.mean(known))), float(np.mean(known))) if known else Cell(wording.MISSING)


_CHANGED = {"distance_km_p98": "98th percentile of the distance"}
"""What a changed figure is called, where its name with a capital letter does not do."""


def changes_grid(facts: Facts) -> Grid | None:
    """The paper's relative changes beside those of the studies; none where no study has one."""
    rows = [
        [
            Cell(f"{one.what} ({one.source})"),
            Cell(_CHANGED.get(one.measure, one.measure.capitalize())),
            Cell(wording.points(one.theirs) + "%", one.theirs),
            Cell(
                wording.points(one.ours) + "%" + (f" ± {100 * one.spread:.1f}" if one.spread is not None else ""),
                one.ours,
            ),
            Cell(one.study),
            Cell(f"{one.variants[0]} – {one.variants[1]}"),
            Cell(str(one.num_seeds), one.num_seeds),
        ]
        for one in paper.changes(facts.studies)
    ]
    heads = ["change", "of", "paper", "here", "study", "variants (with – without)", "seeds"]
    return Grid(heads, rows) if rows else None


def paper_grid(facts: Facts) -> Grid:
    """The paper's systems beside ours."""
    heads = [column["heading"] for column in paper.figures()["systems"]["columns"]]
    rows = []
    for name, theirs, ours, values in paper.systems(facts):
        cells = [Cell(name), Cell(LABELS.get(ours, ours) or wording.MISSING)]
        for figure, value in zip(theirs, values, strict=True):
            cells += [Cell(wording.recall(figure), figure), Cell(wording.recall(value), value)]
        rows.append(cells)
    return Grid(["paper", "here", *(text for head in heads for text in (f"{head} paper", f"{head} here"))], rows)


def boosting_grid(boosting: dict[str, Any]) -> Grid:
    """Recall with and without boosting."""
    rows = []
    for part, scores in (boosting["report"] or {}).items():  # none where nothing was boosted
        for key in (key for key in scores if key.startswith("recall@")):
            one = scores[key]
            p_value = one.get("p_value")  # a boosting of an earlier version has none
            if one["before"] is not None:
                rows.append(
                    [
                        Cell(f"{part}, R@{int(key.partition('@')[2]):,}"),
                        Cell(wording.recall(one["before"]), one["before"]),
                        Cell(wording.recall(one["after"]), one["after"]),
                        Cell(wording.signed(one["difference"]), one["difference"]),
                        Cell(wording.signed_between(one["interval"])),
                        Cell(wording.p_value(p_value), p_value),
                    ]
                )
    return Grid(["requests", "without", "boosted", "difference", "95% interval", "p"], rows)


def weights_grid(boosting: dict[str, Any]) -> Grid:
    """Weights of the quality features."""
    features = sorted(boosting["features"], key=lambda feature: -feature["weight"])
    rows = [[Cell(one["name"]), Cell(f"{one['weight']:.4f}", one["weight"])] for one in features]
    return Grid(["feature (of variance 1)", "weight"], rows)


def tuning_grid(tuning: dict[str, Any]) -> Grid:
    """Operating points of the index on requests that nothing was tuned on."""
    heads = index_columns(sorted({min(100, tuning["at"]), tuning["at"]}))
    rows = tuning["report"] or tuning["held_out"]
    cells = [[Cell(index_figure(key, row.get(key)), _number(row.get(key))) for key in heads] for row in rows]
    return Grid([head or "point" for head in heads.values()], cells)


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) else None
