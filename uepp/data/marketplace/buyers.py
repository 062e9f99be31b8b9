"""The people: homes, languages, tastes, price bands, interests, favourite shops and how often they come."""

from dataclasses import dataclass

import numpy as np

from uepp.data.marketplace.catalogue import Shops, shuffled_numbers
from uepp.data.marketplace.geography import CITIES, CITY_COUNTRY, city_weights
from uepp.data.marketplace.relevance import Persons
from uepp.data.marketplace.taxonomy import LANGUAGES
from uepp.data.marketplace.words import FACETS
from uepp.data.marketplace.world import (
    CONCEPT_FACET,
    LEAF_GROUP,
    NUM_CONCEPTS,
    NUM_DAYS,
    NUM_GROUPS,
    World,
    pick,
    stream,
)

EVENTS_PER_USER = 40
_SHARE_JOINED_AT_START = 0.5
_FAVOURITES = 2  # concepts of each facet that a person likes most
_FAVOURITE_SHOPS = 3
_MOST_ACTIVE = 40.0  # cap of the Pareto weights of activity, whose mean is about 2.5
# How much a facet matters to people.
_FACET_WEIGHT = {"material": 0.6, "colour": 0.8, "style": 1.0, "motif": 1.0, "feature": 0.3}


@dataclass(frozen=True)
class Buyers:
    """One row a user, in the order in which they joined."""

    persons: Persons
    favourites: np.ndarray  # [U, facets, 2] int16, concepts
    interests: np.ndarray  # [U, 3] int16, groups
    activity: np.ndarray  # [U] float64, cumulative
    latitude: np.ndarray  # [U] float64
    longitude: np.ndarray  # [U] float64
    postal: np.ndarray  # [U] int64
    user_number: np.ndarray  # [U] int64, the digits of user_id

    def __len__(self) -> int:
        """How many users there are."""
        return len(self.interests)

    def user_ids(self) -> np.ndarray:
        """All user ids, [U] of str."""
        return np.char.mod("u%07d", self.user_number)

    def draw(self, day: int, count: int, rng: np.random.Generator) -> np.ndarray:
        """Users who come on a day, [count]: only those who have joined, the active ones more often."""
        share = _SHARE_JOINED_AT_START + (1 - _SHARE_JOINED_AT_START) * (day + 1) / NUM_DAYS
        return pick(self.activity[: max(1, int(share * len(self)))], rng.random(count))


def make_buyers(world: World, shops: Shops, num_events: int, seed: int) -> Buyers:
    """Draw the people of a log of the given size."""
    rng = stream(seed, 5)
    count = max(20, num_events // EVENTS_PER_USER)
    city = pick(np.cumsum(city_weights(0)), rng.random(count)).astype(np.int16)
    own = np.array([LANGUAGES.index(place.language) for place in CITIES], np.int8)[city]
    favourites, taste = _draw_tastes(world, count, rng)
    group_demand = np.bincount(LEAF_GROUP, world.leaf_demand, NUM_GROUPS)
    persons = Persons(
        taste=taste,
        price_band=rng.normal(0, 0.4, count).astype(np.float32),
        city=city,
        # One in twenty speaks English where others do not.
        language=np.where(rng.random(count) < 0.05, 0, own).astype(np.int8),
        shops=_draw_shops(world, shops, city, rng),
    )
    return Buyers(
        persons=persons,
        favourites=favourites,
        interests=pick(np.cumsum(group_demand), rng.random((count, 3))).astype(np.int16),
        activity=np.cumsum(np.minimum(rng.pareto(1.4, count) + 0.15, _MOST_ACTIVE)),
        latitude=np.array([place.latitude for place in CITIES])[city] + rng.normal(0, 0.15, count),
        longitude=np.array([place.longitude for place in CITIES])[city] + rng.normal(0, 0.15, count),
        postal=rng.integers(0, 10**6, count),
        user_number=shuffled_numbers(count, rng),
    )


def _draw_tastes(world: World, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Favourites [U, facets, 2], and a weight for every concept [U, concepts + 1] int8 (sixteenths)."""
    taste = np.zeros((count, NUM_CONCEPTS + 1), np.int8)
    favourites = np.zeros((count, len(FACETS), _FAVOURITES), np.int16)
    users = np.arange(count)
    for facet, name in enumerate(FACETS):
        members = np.flatnonzero(facet == CONCEPT_FACET)
        cumulative = np.cumsum(world.concept_demand[members] ** 0.7)
        scale = 16 * _FACET_WEIGHT[name]
        taste[:, members] = np.rint(rng.normal(0, 0.3 * scale, (count, len(members))))
        disliked = members[pick(cumulative, rng.random(count))]
        taste[users, disliked] = np.int8(-scale)
        for place, strength in enumerate((1.25, 0.9)):
            chosen = members[pick(cumulative, rng.random(count))]
            favourites[:, facet, place] = chosen
            taste[users, chosen] = np.int8(scale * strength)
    return favourites, taste


def _draw_shops(world: World, shops: Shops, city: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Up to three shops that people know: half of them domestic, most of them large."""
    count = len(city)
    chosen = np.full((count, _FAVOURITE_SHOPS), -1, np.int32)
    everywhere = np.cumsum(shops.weight)
    country_of_shop = CITY_COUNTRY[shops.city]
    for column, share in enumerate((0.7, 0.5, 0.3)):
        shop = pick(everywhere, rng.random(count))
        domestic, uniform = rng.random(count) < 0.5, rng.random(count)
        for country in np.unique(CITY_COUNTRY[city]):
            candidates = np.flatnonzero(country_of_shop == country)
            rows = np.flatnonzero(domestic & (CITY_COUNTRY[city] == country))
            if candidates.size and rows.size:
                shop[rows] = candidates[pick(np.cumsum(shops.weight[candidates]), uniform[rows])]
        chosen[:, column] = np.where(rng.random(count) < share, shop, -1)
    return chosen
