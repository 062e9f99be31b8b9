"""The page: figures and words, put into one HTML file that asks for nothing outside."""

from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from uepp.evaluation.slices import ALL
from uepp.evaluation.systems import LABELS
from uepp.report import answer, content, examples, figures, paper, records, wording
from uepp.report.drawing import Drawn
from uepp.report.gather import OPPONENT, Facts
from uepp.report.sample import SEED, Sample
from uepp.study.table import DIFFERENCES


def render(facts: Facts, sample: Sample) -> tuple[str, list[Drawn]]:
    """The page, and its figures.

    Args:
        facts: what was recorded.
        sample: requests that were ranked for it.
    """
    drawn: dict[str, Drawn] = {}
    groups, others = answer.groups(facts), answer.others(facts)
    key, k = f"recall@{facts.main_k}", facts.main_k

    names = [answer.OURS, *(other.name for other in others)]
    ordered = sorted(names, key=lambda name: -facts.metrics["systems"][name][ALL][key])
    by_k = [(LABELS.get(name, name), _by_k(facts, name)) for name in ordered]
    drawn["systems"] = figures.systems_by_k(by_k, facts.ks, ordered.index(answer.OURS), ordered.index(OPPONENT))
    drawn["groups"] = figures.two_systems(
        "groups", f"Recall@{k:,} by group of requests, with 95% intervals", [group.compared for group in groups],
        f"recall@{k:,}",
    )  # fmt: skip
    drawn["days"] = _by_day(facts, key)

    places = content.distances(sample, answer.acted(facts))
    if places is not None:
        drawn["distance"] = figures.distances(places.km, content.FIRST)
        drawn["map"] = figures.around(places.km, places.bearings, content.FIRST)
    studied = content.studies(facts)
    for place, study in enumerate(studied):
        measure = f"recall@{int(study.key.partition('@')[2]):,}"  # a study may have other K than the run
        drawn[f"study-{place}"] = figures.ablation(
            f"study-{place + 1}", f"{study.name}: {measure} of each variant", study.rows, study.opponents,
            f"{measure}, report days",
        )  # fmt: skip
    boosting = facts.boosting
    if boosting is not None and boosting.get("trade_off"):
        at = int(boosting["tuned_on"]["measure"].partition("@")[2])
        drawn["boosting"] = figures.trade_off(
            boosting["trade_off"], boosting["tuned_on"]["scale"] or 0.0, boosting["bound"]["allowed_boost_range"], at
        )
    if facts.tuning is not None:
        drawn["index"] = _index(facts.tuning)

    template = _environment().get_template("report.html")
    html = template.render(
        facts=facts, k=k, groups=groups, others=others, best=others[0] if others else None,
        for_whom=answer.for_whom(groups), extremes=answer.extremes(groups),
        against_others=answer.against_others(others),
        how_sure=answer.how_sure(facts), not_known=answer.not_known(facts), is_generated=answer.is_generated(facts),
        figures=drawn, systems=content.systems_grid(facts), judged=content.judged(facts), days=content.days_grid(facts),
        most_days=figures.MOST_DAYS,
        examples=examples.choose(sample, answer.OURS, OPPONENT), depth=sample.depth, num_drawn=len(sample.rows),
        seed=SEED, pool_share=examples.POOL_SHARE, places=places, first=content.FIRST, num_dots=figures.NUM_DOTS,
        studies=studied, differences_caption=DIFFERENCES,
        changes=content.changes_grid(facts), paper=paper.figures(), paper_systems=content.paper_grid(facts),
        boosting=boosting, boosting_grid=None if boosting is None else content.boosting_grid(boosting),
        weights=None if boosting is None else content.weights_grid(boosting), tuning=facts.tuning,
        tuning_grid=None if facts.tuning is None else content.tuning_grid(facts.tuning), costs=records.costs(facts),
        data=records.data_lines(facts), settings=records.settings_grid(facts), versions=records.versions(facts),
        acted=answer.acted(facts), commands=records.commands(facts), title=facts.run_dir.resolve().name,
    )  # fmt: skip
    return html, list(drawn.values())


def _by_k(facts: Facts, name: str) -> dict[int, figures.Point]:
    scores = facts.metrics["systems"][name][ALL]
    return {k: answer.point(scores, f"recall@{k}") for k in facts.ks}


def _by_day(facts: Facts, key: str) -> Drawn:
    days = sorted(facts.metrics["days"])
    lines = {
        label: [facts.metrics["days"][day]["systems"][name][key] for day in days]
        for name, label in ((answer.OURS, "this run"), (OPPONENT, "tuned BM25"))
    }
    return figures.by_day(days, lines, facts.main_k)


def _index(tuning: dict[str, Any]) -> Drawn:
    rows = tuning["report"] or tuning["held_out"]
    at = tuning["at"]
    points = [(row["label"], row["p99_ms"], row[f"overlap@{at}"]) for row in rows]
    chosen = next((row["label"] for row in rows if row["index"] == tuning["chosen"]), "")
    return figures.index_points(points, chosen, at)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("uepp.report", "page"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"w": wording, "asset": _asset}
    return environment


def _asset(name: str) -> Markup:
    """A file of the package, to be part of the page."""
    return Markup((resources.files("uepp.report") / "page" / name).read_text(encoding="utf-8"))
