"""Every system that can be compared, by name: what it is called, what it needs, and how it is fitted.

One interface for all: `SYSTEMS[name].fit(known)` learns from what was known before T and gives a `System`, whose `rank`
answers requests. A new baseline is a class with `rank` and a row here; `--against`, studies and tables then know it.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from uepp.artifacts import MANIFEST, fingerprint, read_json, write_json
from uepp.config import Config
from uepp.errors import InputError
from uepp.evaluation.baselines import Fusion, LessPersonal, Lexical, RankedTowers, System, Towers, lexical_texts
from uepp.evaluation.lexical_quality import Quality
from uepp.evaluation.own_history import OwnHistory
from uepp.evaluation.popularity import CategoryPopularity, Popularity
from uepp.evaluation.random_walk import RandomWalk, WalkSettings
from uepp.evaluation.requests import Requests
from uepp.features.text_encoder import GENERATED
from uepp.lexical.bm25 import BM25, BM25Settings
from uepp.lexical.fusion import DEPTH, FusionSettings
from uepp.relevance.ranker import has_ranker, load_lightgbm
from uepp.retrieval.boosting import BOOSTING


class Known:
    """What systems are fitted on: an export, which holds nothing after T, and the requests that settings are chosen on.

    What several systems share is made once.

    Args:
        export: checked.
        config: of the run.
        selection: reads the requests of the run's selection window.
        chosen_in: folder that keeps what was chosen on them, so that it is chosen once.
        version: of the export and of these requests; what was chosen for another is chosen anew.
    """

    def __init__(
        self, export: Path, config: Config, selection: Callable[[], Requests], chosen_in: Path, version: str
    ) -> None:
        self.export = export
        self.config = config
        self.products = pq.read_table(export / "products.parquet")
        self._selection = selection
        self._chosen_in = chosen_in
        self._version = version
        self.used: dict[str, Any] = {}
        """Settings that systems chose on the selection window, by system."""

    def has(self, name: str) -> bool:
        """Whether the export has a file."""
        return (self.export / name).exists()

    @cached_property
    def selection(self) -> Requests:
        """The requests that settings are chosen on."""
        return self._selection()

    @cached_property
    def towers(self) -> Towers:
        """The run itself."""
        return Towers(self.export, self.config.history)

    @cached_property
    def boosted_towers(self) -> Towers:
        """The run with its boosting."""
        return Towers(self.export, self.config.history, is_boosted=True, like=self.towers)

    @cached_property
    def tuned_bm25(self) -> BM25:
        """BM25 of all fields, with the export's settings."""
        return BM25.build(lexical_texts(self.products), "tuned", self.exported_settings("bm25"))

    @cached_property
    def popularity(self) -> Popularity:
        """Of products before T."""
        return Popularity(self.export, self.products, self.config.data.relevant_types)

    def exported_settings(self, name: str) -> BM25Settings:
        """Of a BM25 that was tuned when the run was exported."""
        return settings_of(read_json(self.export / f"{name}.json"))

    def chosen(self, name: str, choose: Callable[[Requests], dict[str, Any]]) -> dict[str, Any]:
        """A system's settings: as they were chosen for this export before, else chosen now, and kept."""
        path = self._chosen_in / f"{name}.json"
        version = fingerprint(self._version, name)
        kept = read_json(path) if path.exists() else {}
        if kept.get("version") != version:
            kept = {"version": version, **choose(self.selection)}
            path.parent.mkdir(exist_ok=True)
            write_json(path, kept)
        self.used[name] = {key: value for key, value in kept.items() if key != "version"}
        return self.used[name]


def settings_of(facts: dict[str, Any]) -> BM25Settings:
    """The settings in a file of `BM25.tune`."""
    return BM25Settings(facts["k1"], facts["b"], facts["weights"])


@dataclass(frozen=True)
class Entry:
    """A system that can be compared.

    Attributes:
        label: in tables.
        fit: makes it.
        lacks: why this export cannot have it; none: it can.
        by_default: whether it is compared where nobody says with what, if it can be.
    """

    label: str
    fit: Callable[[Known], System]
    lacks: Callable[[Known], str | None] = lambda known: None
    by_default: Callable[[Known], bool] = lambda known: False


def _title_bm25(known: Known) -> Lexical:
    titles = {"title": lexical_texts(known.products)["title"]}

    def choose(selection: Requests) -> dict[str, Any]:
        index = BM25.build(titles, "tuned")
        if not len(selection):
            start = index.settings
            return {"k1": start.k1, "b": start.b, "weights": dict(start.weights)}
        requests = list(zip(selection.queries, selection.target_lists(), strict=True))
        return index.tune(requests, limit=int(selection.num_products.max()))

    return Lexical(BM25.build(titles, "tuned", settings_of(known.chosen("bm25_title", choose))))


def _quality_bm25(known: Known) -> Lexical:
    quality = Quality(known.export, known.config.boosting.features)
    chosen = known.chosen("bm25_quality", lambda selection: quality.tune(known.tuned_bm25, selection))
    return Lexical(known.tuned_bm25, quality.multiplier(chosen["weights"]))


def _expanded_bm25(known: Known) -> Lexical:
    texts = lexical_texts(known.products, pq.read_table(known.export / GENERATED))
    return Lexical(BM25.build(texts, "tuned", known.exported_settings("bm25_expanded")))


def _random_walk(known: Known) -> RandomWalk:
    walk = RandomWalk(known.export, known.products)
    chosen = known.chosen("random_walk", walk.tune)
    walk.set(WalkSettings(tuple(chosen["weights"]), chosen["stop"], chosen["steps"], chosen["entries"]))
    return walk


def _fusion(known: Known) -> Fusion:
    depth = max(DEPTH, *known.config.evaluation.recall_at)
    settings = FusionSettings.read(known.export)
    known.used["fusion"] = asdict(settings)
    is_expanded = known.has("lexical") and BM25.load(known.export / "lexical").settings.weights.get("generated")
    by_words = _expanded_bm25(known) if is_expanded else Lexical(known.tuned_bm25)
    return Fusion(known.towers, by_words, depth, settings)


def _ranked(known: Known) -> RankedTowers:
    return RankedTowers(known.export, known.boosted_towers if known.has(BOOSTING) else known.towers)


def _without_bm25(known: Known) -> str | None:
    if known.has("bm25.json"):
        return None
    return f"{known.export} has no tuned BM25; make it with: uepp export {known.export.parent}"


def _without_quality(known: Known) -> str | None:
    if "catalogue" in read_json(known.export / MANIFEST):
        return f"{known.export}: its catalogue was refreshed; the quality of products as of T is not there any more"
    return _without_bm25(known)


def _without_generated(known: Known) -> str | None:
    if known.has(GENERATED) and known.has("bm25_expanded.json"):
        return None
    return f"{known.export} has no generated queries; they come with the text encoder of a run of uepp pretrain"


def _without_boosting(known: Known) -> str | None:
    if known.has(BOOSTING):
        return None
    return f"{known.export} has no boosting; make it with: uepp boost {known.export.parent}"


def _without_ranker(known: Known) -> str | None:
    if not has_ranker(known.export):
        return f"{known.export} has no ranker; make it with: uepp relevance rank {known.export.parent}"
    try:
        load_lightgbm()
    except InputError as error:
        return str(error)
    return None


def told_less(query_encoders: Sequence[str]) -> set[str]:
    """Which of `uepp_query` and `uepp_place` differ from the towers themselves, by `model.query_encoders`."""
    read = {"location", "history"} & set(query_encoders)
    return {"uepp_query", "uepp_place"} if len(read) == 2 else {"uepp_query"} if read else set()


def needs_tuned_bm25(name: str) -> bool:
    """Whether a system reads the settings of BM25 that an export tunes."""
    return name == "fusion" or name.startswith("bm25")


def _impersonal(known: Known) -> str | None:
    if "uepp_query" in told_less(known.config.model.query_encoders):
        return None
    return f"{known.export}: the query tower reads the query alone (model.query_encoders), as uepp itself does"


def _without_place(known: Known) -> str | None:
    if "uepp_place" in told_less(known.config.model.query_encoders):
        return None
    return f"{known.export}: the query tower reads no place, or nothing besides (model.query_encoders)"


def _has_categories(known: Known) -> bool:
    return bool(known.products.column("category").null_count < known.products.num_rows)


def _has_people(known: Known) -> bool:
    names = ("history_clicks.parquet", "history_purchases.parquet")
    return any(pq.read_metadata(known.export / name).num_rows for name in names if known.has(name))


def _always(known: Known) -> bool:
    return True


SYSTEMS: dict[str, Entry] = {
    "uepp": Entry("UEPPR (this run)", lambda known: known.towers),
    "uepp_boost": Entry(
        "UEPPR boost (this run)",
        lambda known: known.boosted_towers,
        _without_boosting,
        _always,
    ),
    "uepp_rerank": Entry("UEPPR re-ranked (this run)", _ranked, _without_ranker, _always),
    "uepp_query": Entry(
        "UEPPR (this run), query alone", lambda known: LessPersonal(known.towers, has_place=False), _impersonal
    ),
    "uepp_place": Entry(
        "UEPPR (this run), query and place", lambda known: LessPersonal(known.towers, has_place=True), _without_place
    ),
    "fusion": Entry("UEPPR + tuned BM25 (RRF)", _fusion, _without_bm25, _always),
    "bm25_expanded": Entry("BM25, tuned, with generated queries", _expanded_bm25, _without_generated, _always),
    "bm25": Entry("BM25, tuned", lambda known: Lexical(known.tuned_bm25), _without_bm25, _always),
    "bm25_quality": Entry("BM25, tuned × quality", _quality_bm25, _without_quality, _always),
    "bm25_stemmed": Entry(
        "BM25, stemmed",
        lambda known: Lexical(BM25.build(lexical_texts(known.products), "stemmed")),
        by_default=_always,
    ),
    "bm25_plain": Entry(
        "BM25, plain", lambda known: Lexical(BM25.build(lexical_texts(known.products), "plain")), by_default=_always
    ),
    "bm25_title": Entry("BM25, tuned, title only", _title_bm25),
    "random_walk": Entry("random walk, tuned", _random_walk, by_default=_always),
    "category_popularity": Entry(
        "category + popularity",
        lambda known: CategoryPopularity(known.export, known.products, known.config.data.relevant_types),
        by_default=_has_categories,
    ),
    "own_history": Entry(
        "own history, popularity",
        lambda known: OwnHistory(known.products, known.popularity),
        by_default=_has_people,
    ),
    "popularity": Entry("popularity", lambda known: known.popularity),
}
"""In the order of tables; the run itself comes first."""

OPPONENTS = tuple(name for name in SYSTEMS if name != "uepp")
"""Systems that `--against` takes."""

LABELS = {name: entry.label for name, entry in SYSTEMS.items()}


def check_opponents(names: tuple[str, ...], where: str = "--against") -> None:
    """Refuse a name that is none of `OPPONENTS`.

    Args:
        names: that were given.
        where: option or key that they were given in.

    Raises:
        InputError: naming the first one.
    """
    for name in names:
        if name not in OPPONENTS:
            raise InputError(f"{where} {name}: unknown system; known are {', '.join(OPPONENTS)}")


def chosen_opponents(against: tuple[str, ...] | None, known: Known) -> tuple[str, ...]:
    """The opponents of an evaluation.

    Args:
        against: that were asked for, in this order; none: all that are compared by default, as far as possible.
        known: what there is to fit them on.

    Raises:
        InputError: an unknown one, or one that this export cannot have.
    """
    if against is None:
        return tuple(name for name in OPPONENTS if SYSTEMS[name].by_default(known) and not SYSTEMS[name].lacks(known))
    check_opponents(against)
    for name in against:
        if reason := SYSTEMS[name].lacks(known):
            raise InputError(f"--against {name}: {reason}")
    return against
