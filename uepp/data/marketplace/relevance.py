"""The truth that drives the log: how well a product serves a query, and how much it appeals to a person."""

from dataclasses import dataclass

import numpy as np

from uepp.data.marketplace.geography import CITY_COUNTRY
from uepp.data.marketplace.world import (
    FIRST_COLUMN,
    GROUP_DEPARTMENT,
    LEAF_DEPARTMENT,
    LEAF_GROUP,
    SECOND_COLUMN,
    World,
)

LEVEL_NONE, LEVEL_DEPARTMENT, LEVEL_GROUP, LEVEL_LEAF = range(4)
MAX_CONCEPTS = 3
INTENT_COLUMNS = ("level", "node", "occasion", "recipient", "concept_1", "concept_2", "concept_3")
"""An intent is a row of these; -1 stands for none."""

# Leaf wanted: same leaf, same group, same department, elsewhere. Group and department wanted: inside, near, elsewhere.
_LEAF_FIT = (1.0, 0.25, 0.05, 0.0)
_GROUP_FIT = (1.0, 0.08, 0.0)
_DEPARTMENT_FIT = (1.0, 0.0)
_RECIPIENT_FIT = (1.0, 0.6, 0.15)  # made for them, for anyone, for somebody else
# The more concepts a query names, the less strictly each is meant: the exponent of their fits, by their number.
_STRICTNESS = (1.0, 1.0, 0.75, 0.6)
_OCCASION_FIT = (1.0, 0.75)  # made for the occasion, for any


@dataclass(frozen=True)
class Latents:
    """What a product truly is, as the buyers perceive it; one row a product."""

    leaf: np.ndarray  # [N] int16
    concepts: np.ndarray  # [N, 6] int16, -1 for none; columns as in CONCEPT_COLUMNS
    recipient: np.ndarray  # [N] int8, -1 for anyone
    occasion: np.ndarray  # [N] int8, -1 for any
    shop: np.ndarray  # [N] int32
    city: np.ndarray  # [N] int16, the shop's
    language: np.ndarray  # [N] int8, of the text
    price_level: np.ndarray  # [N] float32, log price against the group's median
    quality: np.ndarray  # [N] float32, standard normal


@dataclass(frozen=True)
class Persons:
    """What a person likes; one row a user."""

    taste: np.ndarray  # [U, concepts + 1] int8, sixteenths; the last column is 0
    price_band: np.ndarray  # [U] float32, in units of `price_level`
    city: np.ndarray  # [U] int16
    language: np.ndarray  # [U] int8
    shops: np.ndarray  # [U, 3] int32, favourite shops, -1 for none


def relevance(world: World, latents: Latents, intents: np.ndarray, products: np.ndarray) -> np.ndarray:
    """How well products serve intents, [B, C] float32 in [0, 1].

    Category fit x (product of the concepts' fits) ^ strictness x occasion fit x recipient fit; an empty intent fits
    nothing.

    Args:
        world: the market.
        latents: of all products.
        intents: [B, 7] int16, `INTENT_COLUMNS`.
        products: [B, C] rows of `latents`.
    """
    leaf = latents.leaf[products]
    fit = _category_fit(intents[:, 0:1], intents[:, 1:2], leaf)
    strictness = np.array(_STRICTNESS, np.float32)[(intents[:, 4:] >= 0).sum(axis=1)]
    for column in range(4, 4 + MAX_CONCEPTS):
        rows = np.flatnonzero(intents[:, column] >= 0)
        if rows.size:
            wanted = intents[rows, column]
            first = latents.concepts[products[rows], FIRST_COLUMN[wanted][:, None]]
            second = latents.concepts[products[rows], SECOND_COLUMN[wanted][:, None]]
            by_first = world.substitution[wanted[:, None], first]
            concept_fit = np.maximum(by_first, world.substitution[wanted[:, None], second])
            fit[rows] *= concept_fit ** strictness[rows, None]
    rows = np.flatnonzero(intents[:, 2] >= 0)
    if rows.size:
        occasion = intents[rows, 2]
        made_for = latents.occasion[products[rows]] == occasion[:, None]
        fit[rows] *= world.occasion_affinity[occasion[:, None], leaf[rows]] * np.where(made_for, *_OCCASION_FIT)
    recipient = intents[:, 3].copy()
    rows = np.flatnonzero((recipient < 0) & (intents[:, 2] >= 0))
    recipient[rows] = world.occasion_recipient[intents[rows, 2]]
    rows = np.flatnonzero(recipient >= 0)
    if rows.size:
        wanted = recipient[rows][:, None]
        offered = latents.recipient[products[rows]]
        for_them = np.select([offered == wanted, offered < 0], _RECIPIENT_FIT[:2], _RECIPIENT_FIT[2])
        fit[rows] *= for_them.astype(np.float32)
        # The recipient alone says what to give; beside a category it only shades it.
        alone = np.flatnonzero((intents[rows, 3] >= 0) & (intents[rows, 0] == LEVEL_NONE) & (intents[rows, 2] < 0))
        fit[rows[alone]] *= world.recipient_affinity[wanted[alone], leaf[rows[alone]]]
    empty = (intents[:, 0] == LEVEL_NONE) & (intents[:, 2:] < 0).all(axis=1)
    fit[empty] = 0.0
    return fit


def _category_fit(level: np.ndarray, node: np.ndarray, leaf: np.ndarray) -> np.ndarray:
    """Fit of leaves [B, C] to wanted nodes [B, 1]."""
    group, department = LEAF_GROUP[leaf], LEAF_DEPARTMENT[leaf]
    as_leaf, as_group = np.minimum(node, len(LEAF_GROUP) - 1), np.minimum(node, len(GROUP_DEPARTMENT) - 1)
    leaf_fit = np.select(
        [leaf == node, group == LEAF_GROUP[as_leaf], department == LEAF_DEPARTMENT[as_leaf]],
        _LEAF_FIT[:3],
        _LEAF_FIT[3],
    )
    group_fit = np.select([group == node, department == GROUP_DEPARTMENT[as_group]], _GROUP_FIT[:2], _GROUP_FIT[2])
    department_fit = np.where(department == node, *_DEPARTMENT_FIT)
    fit: np.ndarray = np.select(
        [level == LEVEL_LEAF, level == LEVEL_GROUP, level == LEVEL_DEPARTMENT],
        [leaf_fit, group_fit, department_fit],
        1.0,
    )
    return fit.astype(np.float32)


def appeal(
    world: World,
    latents: Latents,
    persons: Persons,
    users: np.ndarray,
    products: np.ndarray,
    city: np.ndarray | None = None,
) -> np.ndarray:
    """How much products appeal to people, apart from any query, [B, C] float32: log-odds.

    taste + quality + price fit + nearness + language + favourite shops. Sigmoid of it is the personal part of truth.

    Args:
        world: the market.
        latents: of all products.
        persons: all users.
        users: [B] rows of `persons`.
        products: [B, C] rows of `latents`.
        city: [B] where they are now; none: their homes.
    """
    city = persons.city[users] if city is None else city
    concepts = latents.concepts[products]
    taste = np.zeros(products.shape, np.float32)
    for column in range(concepts.shape[2]):
        # -1 reaches the last column, which is no concept and always 0.
        taste += persons.taste[users[:, None], concepts[:, :, column]]
    score = taste * np.float32(1.1 / 16)
    score += np.float32(0.6) * latents.quality[products]
    mismatch = (latents.price_level[products] - persons.price_band[users][:, None]) / np.float32(0.5)
    score -= np.minimum(np.float32(0.4) * mismatch**2, np.float32(3.0))
    shop_city = latents.city[products]
    score -= np.float32(0.3) * np.log1p(world.distance[city[:, None], shop_city] / np.float32(50.0))
    score += np.float32(1.1) * (CITY_COUNTRY[shop_city] == CITY_COUNTRY[city][:, None])
    language = latents.language[products]
    score -= np.float32(0.8) * ((language != persons.language[users][:, None]) & (language != 0))
    shops = latents.shop[products]
    for column in range(persons.shops.shape[1]):
        score += np.float32(1.6) * (shops == persons.shops[users, column][:, None])
    return score


def sigmoid(values: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x))."""
    result: np.ndarray = 1.0 / (1.0 + np.exp(-values))
    return result
