"""What the page offers while somebody types."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
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
        self._places = _places(people.places)

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


def _places(contexts: pa.Table) -> dict[str, dict[str, Any]]:
    """By label: a typical context for each country and region, those with most people first.

    Typical is one in the usual language, if possible whole, of many people.

    Args:
        contexts: of people, columns of `PLACE`.
    """
    counted = contexts.group_by(list(PLACE)).aggregate([([], "count_all")])
    counts = np.asarray(counted.column("count_all"), np.float64)
    country, region, language = (_codes(counted.column(name)) for name in ("country", "region", "language"))
    region = _pairs(country, region)
    spoken = _pairs(region, language)
    unknown = np.sum([np.asarray(column.is_null()) for column in counted.select(PLACE).columns], axis=0)
    keys = {
        "place": region,
        "speakers": -np.bincount(spoken, counts)[spoken],
        "unknown": unknown,
        "people": -counts,
        **{name: counted.column(name).cast(pa.string()) for name in PLACE},
    }
    order = np.asarray(pc.sort_indices(pa.table(keys), [(name, "ascending") for name in keys]))
    _, first = np.unique(region[order], return_index=True)
    sizes = np.bincount(region, counts)
    typical = zip(counted.select(PLACE).take(order[first]).to_pylist(), sizes.tolist(), strict=True)
    places = {}
    for context, _ in sorted(typical, key=lambda one: (-one[1], str((one[0]["country"], one[0]["region"]))))[
        :_NUM_PLACES
    ]:
        place = {name: value for name, value in context.items() if value is not None}
        label = " ".join(str(place[name]) for name in ("country", "region", "zip") if name in place)
        places[label or ", ".join(str(value) for value in place.values())] = place
    return places


def _pairs(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Numbers of the pairs that occur."""
    return np.unique(one * np.int64(1 + other.max(initial=0)) + other, return_inverse=True)[1]


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    """Numbers of a column's values, null among them."""
    return np.asarray(column.combine_chunks().dictionary_encode("encode").indices)
