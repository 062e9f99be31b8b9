"""How far results are from the person who asked, and how many are of the person's own country (UEPPR VI-B-1)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from uepp.features.distance import bearing, distance_km

PERCENTILES = (50, 90, 98)
FIGURES = (*(f"distance_km_p{percentile}" for percentile in PERCENTILES), "own_country_share", "num_results")
"""Names in `FirstResults.figures`."""
"""The paper gives the 98th."""


class Places(NamedTuple):
    """Where people or products are.

    Attributes:
        latitude: float64 [R] degrees, NaN where unknown.
        longitude: float64 [R] degrees, NaN where unknown.
        country: object [R], whatever its case and the blanks around it, as in the towers; empty where unknown.
    """

    latitude: np.ndarray
    longitude: np.ndarray
    country: np.ndarray


class Locality(NamedTuple):
    """Of results of several requests; pairs of person and product of which one place is unknown are left out.

    Attributes:
        percentiles: km, by percentile; NaN without a pair.
        num_pairs: pairs with a distance.
        num_unknown: pairs without.
        own_country_share: of the pairs with both countries, those that have the same; NaN without a pair.
        num_countries: pairs with both countries.
        num_unknown_country: pairs without.
    """

    percentiles: dict[int, float]
    num_pairs: int
    num_unknown: int
    own_country_share: float
    num_countries: int
    num_unknown_country: int


def places_of(table: pa.Table | None, size: int) -> Places:
    """Places of people or products, as their tables have them.

    Args:
        table: with `latitude`, `longitude` and `country`, or without some; none: nothing is known.
        size: rows.
    """
    names = set() if table is None else set(table.column_names)

    def numbers(name: str) -> np.ndarray:
        if table is None or name not in names:
            return np.full(size, np.nan)
        return np.asarray(table.column(name).cast(pa.float64()).to_numpy(), np.float64)

    country = np.full(size, "", object)
    if table is not None and "country" in names:
        country = np.array([(value or "").strip().casefold() for value in table.column("country").to_pylist()], object)
    return Places(numbers("latitude"), numbers("longitude"), country)


def is_abroad(people: Places, products: Places, person: np.ndarray, product: np.ndarray) -> np.ndarray:
    """Whether a pair's product is of another country than the person: 1 yes, 0 no, -1 not known, int8 [P]."""
    its = np.maximum(product, 0)
    is_known = (product >= 0) & _is_named(people.country)[person] & _is_named(products.country)[its]
    return np.where(is_known, people.country[person] != products.country[its], -1).astype(np.int8)


class FirstResults:
    """Collects where the first results of a system are, part by part.

    Args:
        people: of all requests.
        products: of the catalogue.
        k: results of each request that count.
    """

    def __init__(self, people: Places, products: Places, k: int = 100) -> None:
        self._people, self._products, self._k = people, products, k
        self._pairs = [(np.empty(0, np.int64), np.empty(0, np.int64))]

    def add(self, rows: np.ndarray, ranking: np.ndarray) -> None:
        """Rankings, int [B, n] product indexes, of the requests `rows`, int64 [B]."""
        place, product = first_pairs(ranking, self._k)
        self._pairs.append((rows[place], product))

    def figures(self) -> dict[str, float]:
        """`distance_km_p50`, … and `own_country_share`, NaN where no place is known; `num_results`."""
        person, product = (np.concatenate(part) for part in zip(*self._pairs, strict=True))
        found = of_pairs(self._people, self._products, person, product)
        kilometres = {f"distance_km_p{percentile}": km for percentile, km in found.percentiles.items()}
        return {**kilometres, "own_country_share": found.own_country_share, "num_results": float(len(product))}


def pair_distances(people: Places, products: Places, person: np.ndarray, product: np.ndarray) -> np.ndarray:
    """Distance of each pair.

    Args:
        people: R places.
        products: N places.
        person: int64 [P], row of `people`.
        product: int64 [P], row of `products`; negative: none, as where a ranking is short.

    Returns:
        float64 [P] km, NaN where a place is unknown or there is no product.
    """
    return _of_each(distance_km, people, products, person, product)


def pair_bearings(people: Places, products: Places, person: np.ndarray, product: np.ndarray) -> np.ndarray:
    """Direction from person to product of each pair, as `pair_distances`: float64 [P] degrees, 0 is north, 90 east."""
    return _of_each(bearing, people, products, person, product)


def of_pairs(
    people: Places,
    products: Places,
    person: np.ndarray,
    product: np.ndarray,
    percentiles: Sequence[int] = PERCENTILES,
) -> Locality:
    """Summary of some pairs; see `pair_distances`. A pair without a product is no pair, and counts as nothing."""
    is_pair = product >= 0
    person, product = person[is_pair], product[is_pair]
    km = pair_distances(people, products, person, product)
    km = km[~np.isnan(km)]
    known = np.percentile(km, percentiles) if len(km) else np.full(len(percentiles), np.nan)
    is_named = _is_named(people.country)[person] & _is_named(products.country)[product]
    is_own = (people.country[person] == products.country[product])[is_named]
    return Locality(
        percentiles=dict(zip(percentiles, np.asarray(known).tolist(), strict=True)),
        num_pairs=len(km),
        num_unknown=len(person) - len(km),
        own_country_share=float(np.mean(is_own)) if len(is_own) else float("nan"),
        num_countries=len(is_own),
        num_unknown_country=len(person) - len(is_own),
    )


def first_pairs(ranking: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of a ranking's first results.

    Args:
        ranking: int [R, n] product indexes, best first; -1 where there are fewer.
        k: results of each request that count.

    Returns:
        Row of the request and product index of each, int64 [P] both.
    """
    first = np.asarray(ranking, np.int64)[:, :k]
    person = np.repeat(np.arange(len(first)), first.shape[1])
    product = first.ravel()
    return person[product >= 0], product[product >= 0]


def _of_each(
    function: Callable[..., np.ndarray], people: Places, products: Places, person: np.ndarray, product: np.ndarray
) -> np.ndarray:
    values = function(
        people.latitude[person], people.longitude[person], products.latitude[product], products.longitude[product]
    )
    return np.where(product >= 0, values, np.nan)


def _is_named(countries: np.ndarray) -> np.ndarray:
    return np.asarray([bool(country) for country in countries], bool)
