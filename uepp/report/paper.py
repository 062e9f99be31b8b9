"""The paper's own figures beside those of a run and of studies.

`paper.json` holds them. A row names ours in `ours`: systems of an evaluation, or variants of a study by their name; of
a change, pairs of variants, with and without. A study takes part by naming its variants so, or by being named there.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

import numpy as np

from uepp.config import Config
from uepp.evaluation.systems import LABELS
from uepp.report.gather import Facts

MILE_KM = 1.609344


class Change(NamedTuple):
    """One change that the paper measured, and a study did too.

    Attributes:
        source: table or section.
        what: was changed.
        measure: of which figure.
        theirs: relative change that the paper gives.
        study: its name.
        variants: with, without.
        ours: relative change of the mean.
        spread: standard deviation over seeds that both have; none: fewer than two.
        num_seeds: of the fewer.
    """

    source: str
    what: str
    measure: str
    theirs: float
    study: str
    variants: tuple[str, str]
    ours: float
    spread: float | None
    num_seeds: int


@cache
def figures() -> Any:
    """Content of `paper.json`."""
    return json.loads((resources.files("uepp.report") / "paper.json").read_text(encoding="utf-8"))


def changes(studies: Mapping[str, dict[str, Any]]) -> list[Change]:
    """What studies measured that the paper did too, in the paper's order."""
    found = []
    for row in figures()["changes"]:
        for name, results in studies.items():
            variants = {_plain(variant): (variant, cells) for variant, cells in results["variants"].items()}
            for pair in row["ours"]:
                if all(_plain(one) in variants for one in pair):
                    (after, cells), (before, other) = (variants[_plain(one)] for one in pair)
                    measure, part = row["measure"], row.get("slice", "all")
                    change = _change(by_seed(cells, measure, part), by_seed(other, measure, part))
                    if change is not None:
                        about = row["source"], row["what"], measure, row["change"]
                        found.append(Change(*about, name, (after, before), *change))
    return found


def systems(facts: Facts) -> list[tuple[str, list[float | None], str, list[float | None]]]:
    """The paper's systems: name, its figures, which of ours, our figures (none: not measured).

    Levels on two data sets do not compare, so all of ours are of one: the study with the most rows of the table among
    its variants, its opponents with them, and the run itself in a last row without the paper's figures. Without such a
    study they are the run's.
    """
    table, own = figures()["systems"], own_name(facts.config)
    study = _with_most_rows(facts.studies, table["rows"])
    ours = _of_run(facts, own) if study is None else _of_study(study, facts.studies[study])
    nothing: tuple[str, list[dict[str, Any]]] = ("", [])
    rows = []
    for row in table["rows"]:
        name, scores = next((ours[one] for one in map(_plain, row["ours"]) if one in ours), nothing)
        rows.append((row["name"], row["figures"], name, [_figure(scores, column) for column in table["columns"]]))
    if study is not None:
        values = [_figure([facts.metrics["systems"]["uepp"]], column) for column in table["columns"]]
        rows.append(("", [None] * len(values), "this run" if own is None else f"this run ({own})", values))
    return rows


def own_name(config: Config) -> str | None:
    """Which of the paper's systems a run is nearest to; none where an encoder other than T5 is missing.

    `UEPPR rand` "only uses random and in-batch negatives" (VI-B): nothing looks for hard ones. A softmax over in-batch
    negatives does, since each of them counts by how similar it is (docs/deviations.md).
    """
    product, query = set(config.model.product_encoders), set(config.model.query_encoders)
    if not {"tokens", "location", "graph"} <= product or not {"tokens", "location", "history"} <= query:
        return None
    negatives = config.negatives
    is_dynamic = negatives.dynamic_pool > 0 and max(negatives.dynamic_weight) > 0
    is_hard_in_batch = negatives.in_batch == "hardest" or config.loss.kind == "softmax"
    if not is_dynamic and not (is_hard_in_batch and max(negatives.in_batch_weight) > 0):
        return "UEPPR rand"
    return "UEPPR" if "text" in product else "UEPPR no T5"


def by_seed(cells: list[dict[str, Any]], measure: str, part: str = "all") -> dict[int, float]:
    """A measure of the report window by seed."""
    values = {cell["seed"]: cell["report"].get(part, {}).get(measure) for cell in cells}
    return {seed: value for seed, value in values.items() if value is not None}


def _change(after: dict[int, float], before: dict[int, float]) -> tuple[float, float | None, int] | None:
    if not after or not before or not np.mean(list(before.values())):
        return None
    relative = float(np.mean(list(after.values())) / np.mean(list(before.values())) - 1)
    seeds = after.keys() & before.keys()
    own = [after[seed] / before[seed] - 1 for seed in sorted(seeds) if before[seed]]
    spread = float(np.std(own, ddof=1)) if len(own) > 1 else None
    return relative, spread, min(len(after), len(before))


def _with_most_rows(studies: Mapping[str, dict[str, Any]], rows: Sequence[dict[str, Any]]) -> str | None:
    """The study with the most of a table's rows among its variants; none: no study has any."""

    def num_rows(name: str) -> int:
        variants = {_plain(variant) for variant in studies[name]["variants"]}
        return sum(any(_plain(one) in variants for one in row["ours"]) for row in rows)

    best = max(studies, key=num_rows, default=None)
    return best if best is not None and num_rows(best) else None


_Named = dict[str, tuple[str, list[dict[str, Any]]]]
"""By plain name: what it is called on the page, and its scores by slice, one a seed."""


def _of_study(name: str, results: dict[str, Any]) -> _Named:
    variants = {variant: [cell["report"] for cell in cells] for variant, cells in results["variants"].items()}
    opponents = {opponent: [one["report"]] for opponent, one in results.get("opponents", {}).items()}
    both = opponents | variants
    return {_plain(row): (f"{LABELS.get(row, row)} ({name})", scores) for row, scores in both.items()}


def _of_run(facts: Facts, own: str | None) -> _Named:
    found: _Named = {system: (system, [scores]) for system, scores in facts.metrics["systems"].items()}
    if own is not None:
        name = "this run" if "text" in facts.config.model.product_encoders else "this run, without T5"
        found[_plain(own)] = name, [facts.metrics["systems"]["uepp"]]
    return found


def _figure(scores: list[dict[str, Any]], column: dict[str, Any]) -> float | None:
    values = [one.get(column["slice"], {}).get(f"recall@{column['k']}") for one in scores]
    return None if not values or None in values else float(np.mean(values))


def _plain(name: str) -> str:
    return " ".join(name.casefold().split())
