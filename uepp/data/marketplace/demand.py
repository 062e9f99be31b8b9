"""What people ask for: sessions around something they have in mind, and its queries in buyers' words."""

from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from uepp.data.marketplace.buyers import Buyers
from uepp.data.marketplace.catalogue import Catalogue
from uepp.data.marketplace.queries import Queries, pack
from uepp.data.marketplace.relevance import (
    INTENT_COLUMNS,
    LEVEL_DEPARTMENT,
    LEVEL_GROUP,
    LEVEL_LEAF,
    LEVEL_NONE,
    MAX_CONCEPTS,
)
from uepp.data.marketplace.words import CONCEPTS, FACETS
from uepp.data.marketplace.world import (
    CONCEPT_FACET,
    LEAF_DEPARTMENT,
    LEAF_GROUP,
    LOG_START,
    NUM_GROUPS,
    NUM_LEAVES,
    World,
    pick,
    pick_rows,
)

MAX_SEARCHES = 5
_CONTINUE = 0.52  # chance of another search after each
_SPECIALISE, _REFORMULATE = 0.45, 0.28  # what the next search is; else a new subject

# First searches of a subject: share and how much of the thing in mind they say.
_KINDS = {
    "occasion": 0.10,
    "recipient": 0.035,
    "department": 0.03,
    "group": 0.10,
    "leaf": 0.25,
    "leaf_1": 0.26,
    "leaf_2": 0.10,
    "leaf_3": 0.02,
    "group_1": 0.05,
    "concept": 0.03,
}
_SEASON_LIFT = 0.10  # more of "occasion" when every occasion is near
# Which facet a buyer names first, next …
_FACET_CHOICE = {"material": 1.0, "colour": 0.9, "style": 0.8, "motif": 1.3, "feature": 0.5}

_INTEREST_SHARE = 0.5  # of subjects come from a person's three groups
_WISH_SHARE = 0.2  # of named concepts are the person's own wish, not those of the thing in mind
_THIRD_CONCEPT = 0.35  # of those who named two concepts name a third; the others only say it differently
_REBUY_SHARE, _FAVOURITE_SHOP_SHARE = 0.12, 0.10
_BUYERS_WORDS = 0.65  # of phrases are buyers' own, the rest sellers'
_FIRST_PHRASE = 0.8
_ENGLISH_SHARE = 0.3  # of the searches of people of other languages
_TYPO_SHARE, _FILLER_SHARE, _RECIPIENT_SHARE, _REVERSED_SHARE = 0.025, 0.025, 0.04, 0.10
_NUM_TYPOS = 7


@dataclass(frozen=True)
class Searches:
    """The searches of a day, in the order of sessions and of their steps."""

    session: np.ndarray  # [R] int64, counted from 0 within the day
    step: np.ndarray  # [R] int64
    user: np.ndarray  # [R] int64
    query: np.ndarray  # [R] int64, rows of `Queries`
    visit: np.ndarray  # [R] int64, a product the person's account page offers (bought before, known shop), or -1


class Demand:
    """Draws each day's searches."""

    def __init__(self, world: World, catalogue: Catalogue, buyers: Buyers) -> None:
        """Prepare the tables that do not change from day to day."""
        self._world, self._catalogue, self._buyers = world, catalogue, buyers
        self.queries = Queries()
        self.last_bought = np.full(len(buyers), -1, np.int64)
        leaf = catalogue.latents.leaf
        # Products by leaf, the oldest first: those alive on a day are a prefix of each leaf's.
        self._by_leaf = np.argsort(leaf, kind="stable")
        self._leaf_start = np.searchsorted(leaf[self._by_leaf], np.arange(NUM_LEAVES))
        self._by_shop = np.argsort(catalogue.latents.shop, kind="stable")
        # The last shop may have no product, and still be somebody's favourite.
        num_shops = int(max(catalogue.latents.shop.max(), buyers.persons.shops.max())) + 1
        self._shop_start = np.searchsorted(catalogue.latents.shop[self._by_shop], np.arange(num_shops + 1))
        self._facet_choice = np.array([_FACET_CHOICE[facet] for facet in FACETS])
        self._facet_concepts = np.zeros((len(FACETS), len(CONCEPTS)))
        for facet in range(len(FACETS)):
            self._facet_concepts[facet] = np.cumsum(world.concept_demand * (facet == CONCEPT_FACET))

    def alive_in_leaf(self, num_alive: int) -> np.ndarray:
        """How many products of each leaf exist, [leaves]."""
        return np.bincount(self._catalogue.latents.leaf[:num_alive], minlength=NUM_LEAVES)

    def from_leaves(self, leaf: np.ndarray, alive: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """A random living product of each given leaf, -1 where it has none."""
        count = alive[leaf]
        row = self._leaf_start[leaf] + np.minimum((uniform * count).astype(np.int64), np.maximum(count - 1, 0))
        return np.where(count > 0, self._by_leaf[np.minimum(row, len(self._by_leaf) - 1)], -1)

    def draw(self, day: int, num_sessions: int, rng: np.random.Generator) -> Searches:
        """The searches of a day."""
        n = num_sessions
        user = self._buyers.draw(day, n, rng)
        num_alive = self._catalogue.num_alive(day)
        alive = self.alive_in_leaf(num_alive)
        moment = LOG_START + timedelta(days=day)
        occasion_weights = self._world.occasion_weights(moment)
        leaf_weights = self._world.leaf_demand * self._world.leaf_season[moment.month] * (alive > 0)
        typing = np.where(rng.random(n) < _ENGLISH_SHARE, 0, self._buyers.persons.language[user]).astype(np.int64)

        going = np.arange(n)
        intents = np.zeros((n, len(INTENT_COLUMNS)), np.int64)
        mind = np.full(n, -1, np.int64)
        visit = np.full(n, -1, np.int64)
        steps = []
        for step in range(MAX_SEARCHES):
            move = rng.random(len(going))
            fresh = going[(move >= _SPECIALISE + _REFORMULATE) | (step == 0)]
            narrower = going[(move < _SPECIALISE) & (step > 0)]
            mind[fresh], visit[fresh], occasion = self._subjects(
                user[fresh], num_alive, alive, leaf_weights, occasion_weights, rng
            )
            intents[fresh] = self._first_intents(user[fresh], mind[fresh], occasion, occasion_weights, rng)
            intents[narrower] = self._specialised(user[narrower], mind[narrower], intents[narrower], rng)
            keys = pack(self._phrases(intents[going], typing[going], rng))
            steps.append((going, np.full(len(going), step), keys, visit[going]))
            going = going[rng.random(len(going)) < _CONTINUE]
            if not len(going):
                break
        session, order, keys, visits = (np.concatenate(columns) for columns in zip(*steps, strict=True))
        sort = np.lexsort((order, session))
        session = session[sort]
        return Searches(session, order[sort], user[session], self.queries.number(keys[sort]), visits[sort])

    def _subjects(
        self,
        user: np.ndarray,
        num_alive: int,
        alive: np.ndarray,
        leaf_weights: np.ndarray,
        occasion_weights: np.ndarray,
        rng: np.random.Generator,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The thing each person has in mind [B], what their account offers [B], and the occasion [B] (-1 for none)."""
        n = len(user)
        share = _KINDS["occasion"] + _SEASON_LIFT * min(1.0, occasion_weights.sum() / 60.0)
        occasion = np.where(rng.random(n) < share, pick(np.cumsum(occasion_weights), rng.random(n)), -1)
        leaf = pick(np.cumsum(leaf_weights), rng.random(n))
        interest = self._buyers.interests[user, rng.integers(0, 3, n)]
        in_group = LEAF_GROUP[None, :] == np.arange(NUM_GROUPS)[:, None]
        by_group = np.cumsum(np.where(in_group, leaf_weights, 1e-12), axis=1)
        leaf = np.where(rng.random(n) < _INTEREST_SHARE, pick_rows(by_group, interest, rng.random(n)), leaf)
        by_occasion = np.cumsum(self._world.occasion_affinity * (leaf_weights**0.5), axis=1)
        leaf = np.where(occasion >= 0, pick_rows(by_occasion, np.maximum(occasion, 0), rng.random(n)), leaf)

        # Of three things of that kind, what the person would like best.
        options = np.stack([self.from_leaves(leaf, alive, rng.random(n)) for _ in range(3)], axis=1)
        concepts = self._catalogue.latents.concepts[options]
        liking = self._buyers.persons.taste[user[:, None, None], concepts].sum(axis=2)
        mind = options[np.arange(n), liking.argmax(axis=1)]

        visit = np.full(n, -1, np.int64)
        chance = rng.random(n)
        again = (chance < _REBUY_SHARE) & (self.last_bought[user] >= 0)
        visit[again] = self.last_bought[user[again]]
        shop = self._buyers.persons.shops[user, 0].astype(np.int64)
        known = (chance >= _REBUY_SHARE) & (chance < _REBUY_SHARE + _FAVOURITE_SHOP_SHARE) & (shop >= 0)
        start, stop = self._shop_start[np.maximum(shop, 0)], self._shop_start[np.maximum(shop, 0) + 1]
        row = start + (rng.random(n) * (stop - start)).astype(np.int64)
        of_shop = self._by_shop[np.minimum(row, len(self._by_shop) - 1)]
        known &= (stop > start) & (of_shop < num_alive)
        visit[known] = of_shop[known]
        mind = np.where(visit >= 0, visit, mind)
        return mind, visit, np.where(visit >= 0, -1, occasion)

    def _first_intents(
        self,
        user: np.ndarray,
        mind: np.ndarray,
        occasion: np.ndarray,
        occasion_weights: np.ndarray,
        rng: np.random.Generator,
    ) -> np.ndarray:
        n = len(user)
        names = list(_KINDS)[1:]
        kind = pick(np.cumsum([_KINDS[name] for name in names]), rng.random(n))
        is_kind = {name: (kind == i) & (occasion < 0) for i, name in enumerate(names)}
        leaf = self._catalogue.latents.leaf[mind].astype(np.int64)
        intents = np.full((n, len(INTENT_COLUMNS)), -1, np.int64)
        intents[:, 0] = LEVEL_LEAF
        intents[:, 1] = leaf
        for name, level, node in (
            ("group", LEVEL_GROUP, LEAF_GROUP[leaf]),
            ("group_1", LEVEL_GROUP, LEAF_GROUP[leaf]),
            ("department", LEVEL_DEPARTMENT, LEAF_DEPARTMENT[leaf]),
        ):
            intents[is_kind[name], 0] = level
            intents[is_kind[name], 1] = node[is_kind[name]]
        recipient_weights = self._world.recipient_affinity.T[leaf]
        recipient = pick_rows(np.cumsum(recipient_weights.astype(np.float64), axis=1), np.arange(n), rng.random(n))
        without_node = is_kind["recipient"] | is_kind["concept"] | (occasion >= 0)
        intents[without_node, 0] = LEVEL_NONE
        intents[without_node, 1] = -1
        intents[:, 2] = occasion
        says_recipient = is_kind["recipient"] | ((rng.random(n) < _RECIPIENT_SHARE) & (intents[:, 0] == LEVEL_LEAF))
        intents[says_recipient, 3] = recipient[says_recipient]
        wanted = np.zeros(n, np.int64)
        for name, count in (("leaf_1", 1), ("group_1", 1), ("concept", 1), ("leaf_2", 2), ("leaf_3", 3)):
            wanted[is_kind[name]] = count
        for count in range(1, MAX_CONCEPTS + 1):
            rows = np.flatnonzero(wanted >= count)
            intents[rows] = self._with_concept(user[rows], mind[rows], intents[rows], rng)
        # Who has nothing to name asks for the category after all.
        nothing = is_kind["concept"] & (intents[:, 4] < 0)
        intents[nothing, 0] = LEVEL_LEAF
        intents[nothing, 1] = leaf[nothing]
        return intents

    def _specialised(
        self, user: np.ndarray, mind: np.ndarray, intents: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """The same subject said more narrowly: a narrower category, else one more concept."""
        n = len(user)
        narrower = intents.copy()
        leaf = self._catalogue.latents.leaf[mind].astype(np.int64)
        broad = intents[:, 0] != LEVEL_LEAF
        to_group = (intents[:, 0] == LEVEL_DEPARTMENT) & (rng.random(n) < 0.4)
        narrower[broad, 0] = LEVEL_LEAF
        narrower[broad, 1] = leaf[broad]
        narrower[to_group, 0] = LEVEL_GROUP
        narrower[to_group, 1] = LEAF_GROUP[leaf[to_group]]
        # Half of those with an occasion name it still.
        forget = broad & (rng.random(n) < 0.5)
        narrower[forget, 2] = -1
        named = (intents[:, 4:] >= 0).sum(axis=1)
        rows = np.flatnonzero(~broad & ((named < 2) | (rng.random(n) < _THIRD_CONCEPT)))
        narrower[rows] = self._with_concept(user[rows], mind[rows], intents[rows], rng)
        return narrower

    def _with_concept(
        self, user: np.ndarray, mind: np.ndarray, intents: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """One more concept: of the thing in mind, or the person's wish; facets are not named twice."""
        n = len(user)
        result = intents.copy()
        if not n:
            return result
        offered = self._catalogue.latents.concepts[mind][:, [0, 1, 2, 3, 5]].astype(np.int64)
        favourite = self._buyers.favourites[user, :, 0].astype(np.int64)
        popular = np.stack([pick(row, rng.random(n)) for row in self._facet_concepts], axis=1)
        wish = np.where(rng.random((n, len(FACETS))) < 0.5, favourite, popular)
        wish[:, 0] = offered[:, 0]  # people know what things are made of
        options = np.where(rng.random((n, len(FACETS))) < _WISH_SHARE, wish, offered)
        weights = self._facet_choice * rng.random((n, len(FACETS))) * (options >= 0)
        named = result[:, 4:]
        for column in range(MAX_CONCEPTS):
            rows = np.flatnonzero(named[:, column] >= 0)
            weights[rows, CONCEPT_FACET[named[rows, column]]] = 0.0
        facet = weights.argmax(axis=1)
        concept = options[np.arange(n), facet]
        free = (named >= 0).sum(axis=1)
        rows = np.flatnonzero((weights.max(axis=1) > 0) & (free < MAX_CONCEPTS))
        result[rows, 4 + free[rows]] = concept[rows]
        # One order of concepts, so that the same wish is the same query: sorted, absent ones last.
        absent = np.int64(1 << 20)
        ordered = np.sort(np.where(result[:, 4:] < 0, absent, result[:, 4:]), axis=1)
        result[:, 4:] = np.where(ordered == absent, -1, ordered)
        return result

    @staticmethod
    def _phrases(intents: np.ndarray, typing: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
        n = len(intents)
        fields = {name: intents[:, i] for i, name in enumerate(INTENT_COLUMNS)}

        def choice(present: np.ndarray) -> np.ndarray:
            sellers = 2 * (rng.random(n) >= _BUYERS_WORDS)
            return np.where(present, sellers + (rng.random(n) >= _FIRST_PHRASE), 0)

        fields["language"] = typing
        fields["node_phrase"] = choice(intents[:, 0] != LEVEL_NONE)
        fields["purpose_phrase"] = choice((intents[:, 2] >= 0) | (intents[:, 3] >= 0))
        for i in range(1, MAX_CONCEPTS + 1):
            fields[f"phrase_{i}"] = choice(intents[:, 3 + i] >= 0)
        fields["reversed"] = ((rng.random(n) < _REVERSED_SHARE) & (intents[:, 4] >= 0)).astype(np.int64)
        fields["typo"] = np.where(rng.random(n) < _TYPO_SHARE, 1 + rng.integers(0, _NUM_TYPOS, n), 0)
        fields["filler"] = np.where(rng.random(n) < _FILLER_SHARE, 1 + rng.integers(0, 15, n), 0)
        return fields
