"""What the page offers while somebody types."""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq

from uepp.features.raw import PLACE
from uepp.serving.catalogue import Catalogue, matching
from uepp.serving.people import People

Kind = Literal["query", "shop", "product", "place"]
_NUM_QUERIES = 50_000
_NUM_PLACES = 500


class Suggestions:
    """Queries, shops, products and places of an export by a part of their name, the most frequent first.

    Args:
        export: checked.
        catalogue: of it.
        people: of it, for where they are.
    """

    def __init__(self, export: Path, catalogue: Catalogue, people: People) -> None:
        self._catalogue = catalogue
        self._texts = {"query": _queries(export / "query_counts.parquet"), "shop": catalogue.common("shop_id")}
        self._places = _places(people)

    def of(self, kind: Kind, part: str, number: int) -> list[dict[str, Any]]:
        """Suggestions with a text in their name, each with `label` and what it stands for.

        Args:
            kind: a query has `query`, a shop `shop_id`, a product what is shown of one, a place `context`.
            part: whatever its case.
            number: at most so many.
        """
        if kind == "product":
            found = self._catalogue.titled(part, number)
            return [{"label": product["title"], "product": product} for product in found]
        if kind == "place":
            return [
                {"label": label, "context": self._places[label]} for label in matching(list(self._places), part, number)
            ]
        name = "query" if kind == "query" else "shop_id"
        return [{"label": text, name: text} for text in matching(self._texts[kind], part, number)]


def _queries(path: Path) -> list[str]:
    if not path.exists():
        return []
    table = pq.read_table(path, columns=["query", "count"])
    table = table.sort_by([("count", "descending"), ("query", "ascending")]).slice(0, _NUM_QUERIES)
    return table.column("query").to_pylist()


def _places(people: People) -> dict[str, dict[str, Any]]:
    """By label: a typical context for each country and region, those with most people first."""
    contexts = Counter(tuple(place.get(name) for name in PLACE) for place in people.last_places())
    by_region: dict[tuple[Any, ...], list[tuple[Any, ...]]] = defaultdict(list)
    sizes: Counter[tuple[Any, ...]] = Counter()
    for context, count in contexts.items():
        by_region[context[:2]].append(context)
        sizes[context[:2]] += count
    places = {}
    for region in sorted(by_region, key=lambda region: (-sizes[region], str(region)))[:_NUM_PLACES]:
        typical = _typical({context: contexts[context] for context in by_region[region]})
        place = {name: value for name, value in zip(PLACE, typical, strict=True) if value is not None}
        label = " ".join(str(place[name]) for name in ("country", "region", "zip") if name in place)
        places[label or ", ".join(str(value) for value in place.values())] = place
    return places


def _typical(counts: dict[tuple[Any, ...], int]) -> tuple[Any, ...]:
    """Of contexts and how many people have them: one in the usual language, if possible whole, of many people."""
    language = PLACE.index("language")
    speakers: Counter[Any] = Counter()
    for context, count in counts.items():
        speakers[context[language]] += count

    def key(context: tuple[Any, ...]) -> tuple[Any, ...]:
        return (-speakers[context[language]], context.count(None), -counts[context], str(context))

    return min(counts, key=key)
