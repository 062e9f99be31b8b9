"""Shops and what their products are. Their texts are written in `texts.py`."""

from dataclasses import dataclass

import numpy as np

from uepp.data.marketplace.geography import CITIES, city_weights
from uepp.data.marketplace.relevance import Latents
from uepp.data.marketplace.taxonomy import LANGUAGES, TAXONOMY
from uepp.data.marketplace.words import CONCEPTS, FACETS
from uepp.data.marketplace.world import (
    CONCEPT_FACET,
    LEAF_GROUP,
    NUM_DAYS,
    NUM_GROUPS,
    World,
    pick,
    pick_rows,
    stream,
)

PRODUCTS_PER_SHOP = 20
SHARE_BEFORE_LOG = 0.55  # of the catalogue exists when the log starts; the rest is spread evenly over the log
YEARS_BEFORE_LOG = 4
SECONDS_A_DAY = 86_400

# Share of products that have a concept of each facet (a material only where the group has one).
_HAS = {"material": 0.92, "colour": 0.85, "style": 0.7, "motif": 0.62, "feature": 0.22}
_HAS_SECOND_MOTIF = 0.12
_HAS_RECIPIENT, _HAS_OCCASION = 0.3, 0.12


@dataclass(frozen=True)
class Shops:
    """One row a shop."""

    city: np.ndarray  # [S] int16
    latitude: np.ndarray  # [S] float64
    longitude: np.ndarray  # [S] float64
    postal: np.ndarray  # [S] int64, digits of the postal code
    quality: np.ndarray  # [S] float32
    price_level: np.ndarray  # [S] float32
    groups: np.ndarray  # [S, 3] int16, what it mainly sells
    styles: np.ndarray  # [S, 2] int16, concepts
    weight: np.ndarray  # [S] float64, share of the catalogue
    writes_buyers_words: np.ndarray  # [S] float32, share of phrases in buyers' words


@dataclass(frozen=True)
class Catalogue:
    """Products in the order of their creation; `created` in seconds from the start of the log (negative: before)."""

    latents: Latents
    created: np.ndarray  # [N] int64
    price: np.ndarray  # [N] float64
    product_number: np.ndarray  # [N] int64, the digits of product_id

    def __len__(self) -> int:
        """How many products there are."""
        return len(self.created)

    def num_alive(self, day: int) -> int:
        """How many products exist when a day of the log starts: they are the first rows."""
        return int(np.searchsorted(self.created, day * SECONDS_A_DAY, side="right"))

    def product_ids(self) -> np.ndarray:
        """All product ids, [N] of str: eight digits, leading zeros kept."""
        return np.char.mod("%08d", self.product_number)


def shuffled_numbers(count: int, rng: np.random.Generator) -> np.ndarray:
    """Distinct numbers that say nothing about the order, [count] int64."""
    return rng.permutation(10 * count)[:count] if count <= 2_000_000 else rng.permutation(count)


def make_shops(world: World, num_products: int, seed: int) -> Shops:
    """Draw the shops of a catalogue of the given size."""
    rng = stream(seed, 1)
    count = max(5, num_products // PRODUCTS_PER_SHOP)
    city = pick(np.cumsum(city_weights(1)), rng.random(count)).astype(np.int16)
    group_demand = np.bincount(LEAF_GROUP, world.leaf_demand**0.7, NUM_GROUPS)
    style = np.flatnonzero(FACETS.index("style") == CONCEPT_FACET)
    style_cumulative = np.cumsum(world.concept_demand[style] ** 0.7)
    return Shops(
        city=city,
        latitude=np.array([CITIES[c].latitude for c in city]) + rng.normal(0, 0.12, count),
        longitude=np.array([CITIES[c].longitude for c in city]) + rng.normal(0, 0.12, count),
        postal=rng.integers(0, 10**6, count),
        quality=rng.normal(0, 0.6, count).astype(np.float32),
        price_level=rng.normal(0, 0.35, count).astype(np.float32),
        groups=pick(np.cumsum(group_demand), rng.random((count, 3))).astype(np.int16),
        styles=style[pick(style_cumulative, rng.random((count, 2)))].astype(np.int16),
        weight=rng.pareto(1.3, count) + 0.3,
        writes_buyers_words=rng.beta(1.0, 4.0, count).astype(np.float32),
    )


def make_catalogue(world: World, shops: Shops, num_products: int, seed: int) -> Catalogue:
    """Draw the products' latents, prices and dates."""
    rng = stream(seed, 2)
    n = num_products
    shop = pick(np.cumsum(shops.weight), rng.random(n)).astype(np.int32)
    leaf = _draw_leaves(world, shops, shop, rng)
    group = LEAF_GROUP[leaf]
    concepts = _draw_concepts(world, shops, shop, group, rng)
    city = shops.city[shop]
    level = shops.price_level[shop] + rng.normal(0, 0.35, n)
    level += np.where(np.isin(concepts[:, 0], [_key("gold"), _key("silver"), _key("silk"), _key("leather")]), 0.25, 0.0)
    latents = Latents(
        leaf=leaf,
        concepts=concepts,
        recipient=np.where(
            rng.random(n) < _HAS_RECIPIENT, _draw_purposes(world.recipient_affinity, leaf, rng), -1
        ).astype(np.int8),
        occasion=np.where(rng.random(n) < _HAS_OCCASION, _draw_purposes(world.occasion_affinity, leaf, rng), -1).astype(
            np.int8
        ),
        shop=shop,
        city=city,
        language=_draw_languages(city, rng),
        price_level=level.astype(np.float32),
        quality=(shops.quality[shop] + rng.normal(0, 0.8, n)).astype(np.float32),
    )
    median = np.array(TAXONOMY.group_price)[group]
    price = np.maximum(1.0, median * np.exp(level))
    ending = np.array([0.0, 0.5, 0.95, 0.99])[rng.integers(0, 4, n)]
    return Catalogue(latents, _draw_created(n, rng), np.floor(price) + ending, shuffled_numbers(n, rng))


def _key(name: str) -> int:
    return next(i for i, concept in enumerate(CONCEPTS) if concept.key == name)


def _draw_leaves(world: World, shops: Shops, shop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Eight in ten products are of the shop's main groups; leaves within a group follow damped demand."""
    n = len(shop)
    supply = world.leaf_demand**0.7
    by_group = np.cumsum(np.where(LEAF_GROUP[None, :] == np.arange(NUM_GROUPS)[:, None], supply, 0.0), axis=1)
    group = shops.groups[shop, rng.integers(0, 3, n)]
    of_group = pick_rows(by_group, group, rng.random(n))
    anywhere = pick(np.cumsum(supply), rng.random(n))
    leaves: np.ndarray = np.where(rng.random(n) < 0.8, of_group, anywhere).astype(np.int16)
    return leaves


def _draw_concepts(
    world: World, shops: Shops, shop: np.ndarray, group: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """[N, 6] int16: supply follows demand, damped; materials follow the group, styles often the shop."""
    n = len(shop)
    columns = np.full((n, 6), -1, np.int16)
    supply = world.concept_demand**0.7
    materials = np.zeros((NUM_GROUPS, len(CONCEPTS)))
    for row, keys in enumerate(TAXONOMY.group_materials):
        for key in keys:
            materials[row, _key(key)] = supply[_key(key)]
    columns[:, 0] = pick_rows(np.cumsum(materials, axis=1), group, rng.random(n))
    for column, facet in enumerate(FACETS[1:], start=1):
        members = np.flatnonzero(FACETS.index(facet) == CONCEPT_FACET)
        target = 5 if facet == "feature" else column
        cumulative = np.cumsum(supply[members])
        columns[:, target] = members[pick(cumulative, rng.random(n))]
        if facet == "motif":
            columns[:, 4] = members[pick(cumulative, rng.random(n))]
    of_shop = rng.random(n) < 0.6
    columns[of_shop, 2] = shops.styles[shop[of_shop], rng.integers(0, 2, int(of_shop.sum()))]
    shares = [_HAS["material"], _HAS["colour"], _HAS["style"], _HAS["motif"], _HAS_SECOND_MOTIF, _HAS["feature"]]
    columns[rng.random((n, 6)) >= np.array(shares)] = -1
    columns[(columns[:, 3] < 0) | (columns[:, 3] == columns[:, 4]), 4] = -1
    return columns


def _draw_purposes(affinity: np.ndarray, leaf: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A recipient or occasion for each product, as its leaf suits them."""
    return pick_rows(np.cumsum(affinity.T.astype(np.float64), axis=1), leaf.astype(np.int64), rng.random(len(leaf)))


def _draw_languages(city: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sellers write in their city's language, three in ten of the foreign ones in English."""
    own = np.array([LANGUAGES.index(place.language) for place in CITIES], np.int8)[city]
    return np.where(rng.random(len(city)) < 0.3, 0, own).astype(np.int8)


def _draw_created(n: int, rng: np.random.Generator) -> np.ndarray:
    """Sorted creation times: more than half before the log, growing towards it, then evenly every day."""
    before = rng.random(n) < SHARE_BEFORE_LOG
    early = -np.floor(YEARS_BEFORE_LOG * 365 * SECONDS_A_DAY * rng.random(n) ** 1.5) - 1
    late = np.floor(NUM_DAYS * SECONDS_A_DAY * rng.random(n))
    created = np.sort(np.where(before, early, late).astype(np.int64))
    # Nothing may be empty on the first day, however small the catalogue.
    created[: max(10, n // 4)] = np.minimum(created[: max(10, n // 4)], -1)
    return np.sort(created)
