"""The market's structure as arrays: popularity, seasons, affinities, and how much one concept stands in for another."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from uepp.data.marketplace.geography import distance_table
from uepp.data.marketplace.taxonomy import TAXONOMY
from uepp.data.marketplace.words import CONCEPTS, FACETS, OCCASIONS, RECIPIENTS, Purpose

TRAIN_END = datetime(2024, 5, 4, tzinfo=UTC)
LOG_DAYS_BEFORE, LOG_DAYS_AFTER = 400, 7
LOG_START = TRAIN_END - timedelta(days=LOG_DAYS_BEFORE)
NUM_DAYS = LOG_DAYS_BEFORE + LOG_DAYS_AFTER
IMPRESSION_DAYS = 30 + LOG_DAYS_AFTER
"""Impressions are kept for this many last days of the log."""

NUM_LEAVES, NUM_GROUPS, NUM_DEPARTMENTS = len(TAXONOMY.leaves), len(TAXONOMY.groups), len(TAXONOMY.departments)
NUM_CONCEPTS, NUM_RECIPIENTS, NUM_OCCASIONS = len(CONCEPTS), len(RECIPIENTS), len(OCCASIONS)
LEAF_GROUP = np.array(TAXONOMY.leaf_group, np.int16)
GROUP_DEPARTMENT = np.array(TAXONOMY.group_department, np.int16)
LEAF_DEPARTMENT = GROUP_DEPARTMENT[LEAF_GROUP]
CONCEPT_FACET = np.array([FACETS.index(concept.facet) for concept in CONCEPTS], np.int16)

# A product's concept columns: one a facet, and a second motif.
CONCEPT_COLUMNS = ("material", "colour", "style", "motif", "motif", "feature")
FIRST_COLUMN = np.array([CONCEPT_COLUMNS.index(FACETS[facet]) for facet in CONCEPT_FACET], np.int16)
SECOND_COLUMN = np.array(
    [FIRST_COLUMN[c] + (FACETS[CONCEPT_FACET[c]] == "motif") for c in range(NUM_CONCEPTS)], np.int16
)

# Cells: what the engine counts behaviour by; leaves first, so that a leaf is its own cell.
CELL_GROUP, CELL_DEPARTMENT = NUM_LEAVES, NUM_LEAVES + NUM_GROUPS
CELL_OCCASION = CELL_DEPARTMENT + NUM_DEPARTMENTS
CELL_RECIPIENT = CELL_OCCASION + NUM_OCCASIONS
CELL_ANY = CELL_RECIPIENT + NUM_RECIPIENTS
NUM_CELLS = CELL_ANY + 1

_SUBSTITUTE, _MISMATCH = 0.5, 0.2
_SEASON_MONTHS = {
    "": (),
    "winter": (11, 12, 1, 2),
    "summer": (5, 6, 7, 8),
    "spring": (3, 4, 5, 6),
    "xmas": (11, 12),
}
_SEASON_LIFT = {"": 1.0, "winter": 1.9, "summer": 1.7, "spring": 1.7, "xmas": 2.2}
_RAMP_DAYS = {"wedding": 60.0, "graduation": 25.0, "christmas": 25.0}
_DEFAULT_RAMP_DAYS = 14.0


def stream(seed: int, *path: int) -> np.random.Generator:
    """A random stream of its own for every part of the simulation, so that no part's draws shift another's."""
    return np.random.default_rng([seed, *path])


def zipf(count: int, exponent: float, rng: np.random.Generator) -> np.ndarray:
    """Probabilities of `count` things whose ranks, in random order, follow a power law."""
    weights = (rng.permutation(count) + 1.0) ** -exponent
    probabilities: np.ndarray = weights / weights.sum()
    return probabilities


def pick(cumulative: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Indices drawn from one cumulative distribution (its last value is the total)."""
    found = np.searchsorted(cumulative, uniform * cumulative[-1], side="right")
    chosen: np.ndarray = np.minimum(found, len(cumulative) - 1)
    return chosen


def pick_rows(cumulative: np.ndarray, rows: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Indices drawn from the cumulative distribution of each of the given rows of [rows, choices]."""
    # Rows are laid end to end with offsets, so that one search serves all of them.
    num_choices = cumulative.shape[1]
    stacked = (cumulative / cumulative[:, -1:] + np.arange(len(cumulative))[:, None]).ravel()
    found = np.searchsorted(stacked, rows + uniform, side="right") - rows * num_choices
    chosen: np.ndarray = np.clip(found, 0, num_choices - 1)
    return chosen


def concept_substitution() -> np.ndarray:
    """How well a product's concept serves a query's, [concepts, concepts + 1] float32 in (0, 1].

    1 for the same, 0.5 within a family (navy for sky blue), 0.2 otherwise; the last column, which index -1 reaches,
    is a product without a concept of that facet.
    """
    table = np.full((NUM_CONCEPTS, NUM_CONCEPTS + 1), _MISMATCH, np.float32)
    for i, wanted in enumerate(CONCEPTS):
        for j, offered in enumerate(CONCEPTS):
            if wanted.facet == offered.facet and wanted.family and wanted.family == offered.family:
                table[i, j] = _SUBSTITUTE
        table[i, i] = 1.0
    return table


def purpose_affinity(purposes: tuple[Purpose, ...], rng: np.random.Generator) -> np.ndarray:
    """How well each leaf serves each recipient or occasion, [purposes, leaves] float32 in [0, 1].

    The groups a purpose names fit from 1.0 (first) down to 0.6 (last), times a leaf's own factor in [0.5, 1];
    every other leaf fits at 0.06.
    """
    group_names = [group.name for group in TAXONOMY.groups]
    table = np.full((len(purposes), NUM_LEAVES), 0.06, np.float32)
    leaf_factor = rng.uniform(0.5, 1.0, table.shape)
    for row, purpose in enumerate(purposes):
        for rank, name in enumerate(purpose.groups):
            in_group = group_names.index(name) == LEAF_GROUP
            level = 1.0 - 0.4 * rank / max(1, len(purpose.groups) - 1)
            table[row, in_group] = level * leaf_factor[row, in_group]
    return table


@dataclass(frozen=True)
class World:
    """Everything about the market that is not a product, a shop, a user or a query."""

    leaf_demand: np.ndarray  # [leaves], probabilities
    leaf_season: np.ndarray  # [13, leaves], multiplier by month
    concept_demand: np.ndarray  # [concepts], probabilities within each facet
    occasion_affinity: np.ndarray  # [occasions, leaves]
    recipient_affinity: np.ndarray  # [recipients, leaves]
    occasion_recipient: np.ndarray  # [occasions], recipient or -1
    substitution: np.ndarray  # [concepts, concepts + 1]
    cell_leaf: np.ndarray  # [cells, leaves], cumulative: where the engine's category guess for a cell falls
    distance: np.ndarray  # [cities, cities], kilometres

    def occasion_weights(self, day: datetime) -> np.ndarray:
        """Relative demand for each occasion on a day, [occasions]."""
        weights = []
        for occasion in OCCASIONS:
            if occasion.day is None:
                weights.append(occasion.weight * 0.35)
                continue
            date = datetime(day.year, *occasion.day, tzinfo=UTC)
            if date < day - timedelta(days=1):
                date = datetime(day.year + 1, *occasion.day, tzinfo=UTC)
            ramp = _RAMP_DAYS.get(occasion.key, _DEFAULT_RAMP_DAYS)
            weights.append(occasion.weight * (0.02 + np.exp(-max(0, (date - day).days) / ramp)))
        return np.array(weights)


def make_world(seed: int) -> World:
    """Draw the market's structure."""
    rng = stream(seed, 0)
    leaf_demand = zipf(NUM_LEAVES, 0.75, rng)
    concept_demand = np.zeros(NUM_CONCEPTS)
    for facet in range(len(FACETS)):
        members = np.flatnonzero(facet == CONCEPT_FACET)
        concept_demand[members] = zipf(len(members), 0.7, rng)
    season = np.ones((13, NUM_LEAVES))
    for leaf in range(NUM_LEAVES):
        name = TAXONOMY.group_season[LEAF_GROUP[leaf]]
        for month in _SEASON_MONTHS[name]:
            season[month, leaf] = _SEASON_LIFT[name]
    occasion_affinity = purpose_affinity(OCCASIONS, rng)
    recipient_affinity = purpose_affinity(RECIPIENTS, rng)
    recipient_keys = [recipient.key for recipient in RECIPIENTS]
    return World(
        leaf_demand=leaf_demand,
        leaf_season=season,
        concept_demand=concept_demand,
        occasion_affinity=occasion_affinity,
        recipient_affinity=recipient_affinity,
        occasion_recipient=np.array(
            [recipient_keys.index(o.recipient) if o.recipient else -1 for o in OCCASIONS], np.int16
        ),
        substitution=concept_substitution(),
        cell_leaf=_cell_leaves(leaf_demand, occasion_affinity, recipient_affinity),
        distance=distance_table(),
    )


def _cell_leaves(demand: np.ndarray, occasions: np.ndarray, recipients: np.ndarray) -> np.ndarray:
    """Cumulative leaf distribution of every cell: the engine's own, imperfect, category classifier."""
    same_group = LEAF_GROUP[:, None] == LEAF_GROUP[None, :]
    table = np.zeros((NUM_CELLS, NUM_LEAVES))
    # A leaf query is sent to its leaf 85 times in 100, else to a sibling.
    table[:NUM_LEAVES] = 0.85 * np.eye(NUM_LEAVES) + 0.15 * same_group / same_group.sum(axis=1, keepdims=True)
    for group in range(NUM_GROUPS):
        table[CELL_GROUP + group] = demand * (group == LEAF_GROUP)
    for department in range(NUM_DEPARTMENTS):
        table[CELL_DEPARTMENT + department] = demand * (department == LEAF_DEPARTMENT)
    table[CELL_OCCASION:CELL_RECIPIENT] = occasions * demand**0.5
    table[CELL_RECIPIENT:CELL_ANY] = recipients * demand**0.5
    table[CELL_ANY] = demand
    cumulative: np.ndarray = np.cumsum(table, axis=1)
    return cumulative
