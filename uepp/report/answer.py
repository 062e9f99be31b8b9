"""The answer: how much better than tuned BM25, for whom, and how sure."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from uepp.evaluation.slices import ALL
from uepp.evaluation.systems import LABELS
from uepp.metrics import MIN_GROUPS, direction
from uepp.report import wording
from uepp.report.figures import Compared, Point
from uepp.report.gather import OPPONENT, Facts

OURS = "uepp"
GROUPS = {
    ALL: ("all requests", ""),
    "head": ("frequent queries (head)", ""),
    "torso": ("middle queries (torso)", ""),
    "tail": ("rare queries (tail)", ""),
    "signed_in": ("signed in", "the log knows who asked"),
    "anonymous": ("anonymous", "the log does not"),
    "with_history": ("with history", "who asked had searched, clicked or bought before"),
    "without_history": ("without history", "nothing was known of who asked but the place"),
    "non_repeat": ("first purchases", "products that who asked had not bought before"),
    "repeat": ("bought again", "products that who asked had bought before"),
    "new_products": ("new products", "in the catalogue since the end of training, so never trained on"),
    "domestic": ("domestic products", "of the country of who asked"),
    "foreign": ("foreign products", "of another country"),
}
"""Heading and meaning of each slice, in the order of the page."""


class Group(NamedTuple):
    """One slice of the requests.

    Attributes:
        name: of the slice.
        label: in words.
        meaning: in words.
        num_requests: with a target.
        ours: Recall@K of the run, with its interval.
        theirs: of tuned BM25.
        difference: ours minus theirs.
        interval: of the difference; ends are none where there are too few queries for one.
        p_value: of the paired test.
    """

    name: str
    label: str
    meaning: str
    num_requests: int
    ours: Point
    theirs: Point
    difference: float
    interval: list[float | None]
    p_value: float

    @property
    def verdict(self) -> str:
        """`ahead`, `behind`, or `undecided` where it may be chance (`uepp.metrics.direction`)."""
        return verdict(self.interval, self.p_value)

    @property
    def compared(self) -> Compared:
        """As a row of a figure."""
        return Compared(self.label, self.ours, self.theirs)


class Other(NamedTuple):
    """Another system on all requests; `difference` is the run's minus its."""

    name: str
    label: str
    recall: float
    difference: float
    interval: list[float | None]
    p_value: float

    @property
    def verdict(self) -> str:
        """Of the run against it, see `Group.verdict`."""
        return verdict(self.interval, self.p_value)


def verdict(interval: Sequence[float | None], p_value: float) -> str:
    """Of a difference with this interval and this p-value."""
    return {1: "ahead", -1: "behind", 0: "undecided"}[direction(interval, p_value)]


def groups(facts: Facts) -> list[Group]:
    """All slices that have a request, the first of them all requests."""
    key, metrics = f"recall@{facts.main_k}", facts.metrics
    found = []
    for name, (label, meaning) in GROUPS.items():
        compared = metrics["comparisons"][OPPONENT].get(name, {}).get(key)
        if compared is None or compared["difference"] is None:
            continue
        ours, theirs = (metrics["systems"][system][name] for system in (OURS, OPPONENT))
        points = point(ours, key), point(theirs, key)
        figures = compared["difference"], compared["interval"], compared["p_value"]
        found.append(Group(name, label, meaning, ours["num_requests"], *points, *figures))
    return [group for group in found if not _is_all_again(group, found)]


def _is_all_again(group: Group, found: Sequence[Group]) -> bool:
    """Whether a slice is all requests under another name, as `with_history` where everybody has one."""
    first = found[0]
    return group is not first and group[3:] == first[3:]


def point(scores: dict[str, Any], key: str) -> Point:
    """A measure of a system in a slice, with its interval where it has one."""
    low, high = scores.get("intervals", {}).get(key) or (None, None)
    return Point(scores[key], low, high)


def others(facts: Facts) -> list[Other]:
    """The other systems, best first; tuned BM25 is among them."""
    key, found = f"recall@{facts.main_k}", []
    for name, compared in facts.metrics["comparisons"].items():
        one, recall = compared[ALL][key], facts.metrics["systems"][name][ALL][key]
        if recall is not None and one["difference"] is not None:
            found.append(
                Other(name, LABELS.get(name, name), recall, one["difference"], one["interval"], one["p_value"])
            )
    return sorted(found, key=lambda other: -other.recall)


def for_whom(found: Sequence[Group]) -> list[str]:
    """In which groups the run is ahead, behind, or neither, in sentences."""
    parts = found[1:]
    if not parts:
        return []
    sentences = []
    ahead, behind, undecided = (
        [group for group in parts if group.verdict == name] for name in ("ahead", "behind", "undecided")
    )
    if len(ahead) == len(parts):
        sentences.append(f"Ahead of tuned BM25 in each of the {len(parts)} groups.")
    else:
        sentences.append(f"Ahead of tuned BM25 in {len(ahead)} of the {len(parts)} groups.")
    if behind:
        sentences.append(f"Behind for {wording.listed([_with_size(group) for group in behind])}.")
    if undecided:
        names = wording.listed([_with_size(group) for group in undecided])
        sentences.append(f"Not to be told from chance for {names}.")
    return sentences


def extremes(found: Sequence[Group]) -> list[str]:
    """For which group the difference is largest and smallest, a sentence; none where there are not two."""
    ordered = sorted(found[1:], key=lambda group: group.difference)
    if len(ordered) < 2:
        return []
    return [
        f"The difference is largest for {ordered[-1].label} ({wording.points(ordered[-1].difference)} points) and "
        f"smallest for {ordered[0].label} ({wording.points(ordered[0].difference)})."
    ]


def _with_size(group: Group) -> str:
    return f"{group.label} ({wording.count(group.num_requests)} requests)"


def against_others(found: Sequence[Other]) -> list[str]:
    """What the other systems say, in sentences."""
    rest = [other for other in found if other.name != OPPONENT]
    if not rest:
        return ["No other system was compared."]
    better = [other for other in rest if other.verdict == "behind"]
    equal = [other for other in rest if other.verdict == "undecided"]
    sentences = []
    if better:
        names = wording.listed([f"{other.label} ({wording.recall(other.recall)})" for other in better])
        sentences.append(f"Of the other systems, {names} find{'s' if len(better) == 1 else ''} more than this run.")
    if equal:
        names = wording.listed([f"{other.label} ({wording.recall(other.recall)})" for other in equal])
        sentences.append(f"Not to be told from this run: {names}.")
    if not better and not equal:
        which = f"The best of the {len(rest)} other systems is" if len(rest) > 1 else "The only other system is"
        sentences.append(f"{which} {rest[0].label} with {wording.recall(rest[0].recall)}.")
    return sentences


def _tuned_on(facts: Facts) -> str:
    settings = facts.metrics.get("bm25")
    if settings is None or settings.get("num_requests"):
        return "BM25 was tuned on the days between."
    return f"BM25 has its default settings, since on the days between nothing was {acted(facts)}."


def how_sure(facts: Facts) -> list[str]:
    """What the figures rest on, in sentences."""
    metrics = facts.metrics
    of_all = metrics["systems"][OURS][ALL]
    days = sorted(metrics["days"])
    span = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    unit = "day" if len(days) == 1 else "days"
    sentences = [
        f"{wording.count(of_all['num_requests'])} requests with {wording.count(of_all['num_queries'])} different "
        f"queries, on {len(days)} {unit} ({span}) that neither training nor tuning has seen. {_tuned_on(facts)}",
        "Intervals come from random weights of these days' queries (bootstrap), each for all of its requests, "
        "p-values from a paired randomisation test. Each is for its own comparison, not corrected for the number of "
        f"groups and systems that are looked at. A figure that rests on fewer than {MIN_GROUPS} queries has no "
        "interval.",
    ]
    if metrics["missing_target_share"]:
        sentences.append(
            f"{wording.share(metrics['missing_target_share'])} of what was {acted(facts)} is not in the catalogue, and "
            "counts as missed by everybody."
        )
    return sentences


def not_known(facts: Facts) -> list[str]:
    """What the figures do not say, in sentences."""
    sentences = [
        f"This is one training, of seed {facts.config.training.seed}. Another seed gives somewhat other figures; "
        "the intervals do not hold that. "
        + (
            "The spread over seeds in the studies below is an idea of how much."
            if any(len(cells) > 1 for results in facts.studies.values() for cells in results["variants"].values())
            else "How much, uepp study tells."
        ),
        "Other weeks may differ; a season, a sale or a new assortment is not in these days.",
        "People chose among what they were shown. What they would have taken from other results is not known: this "
        "favours whatever resembles the search that was running.",
    ]
    if is_generated(facts):
        sentences.insert(
            0, "The data are a generated marketplace. They show that everything works, not what a real shop gains."
        )
    return sentences


def acted(facts: Facts) -> str:
    """What people did with the products that count, in words: `bought`, or what else `data.relevant_types` says."""
    words = {"click": "clicked", "cart": "put in the cart", "purchase": "bought"}
    return " or ".join(words[one] for one in facts.config.data.relevant_types)


def is_generated(facts: Facts) -> bool:
    """Whether the data are those of `uepp generate`."""
    return facts.data.get("name") == "marketplace" and "seed" in facts.data
