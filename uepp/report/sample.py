"""Some requests that the report ranks itself, with the towers and with tuned BM25: for distances and examples."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from uepp.evaluation.baselines import System
from uepp.evaluation.locality import Places, places_of
from uepp.evaluation.requests import Requests
from uepp.metrics import target_positions

SEED = 1
NUM_REQUESTS = 400
DEPTH = 1_000


@dataclass(frozen=True)
class Sample:
    """R drawn requests, ranked.

    Attributes:
        requests: all of the window.
        rows: int64 [R], those that were drawn.
        products: the catalogue.
        rankings: by system, int [R, K] product indexes.
        pair: int64 [P], place in `rows` of each (request, bought product) pair that the catalogue has.
        bought: int64 [P], product index.
        ranks: by system, int64 [P], from 1; K + 1 where it is not among the K.
    """

    requests: Requests
    rows: np.ndarray
    products: pa.Table
    rankings: dict[str, np.ndarray]
    pair: np.ndarray
    bought: np.ndarray
    ranks: dict[str, np.ndarray]

    @property
    def depth(self) -> int:
        """K."""
        return next(iter(self.rankings.values())).shape[1]


def draw(requests: Requests, num: int = NUM_REQUESTS, seed: int = SEED) -> np.ndarray:
    """Rows of a uniform draw without replacement, increasing; all, where there are no more."""
    if len(requests) <= num:
        return np.arange(len(requests))
    return np.sort(np.random.default_rng(seed).choice(len(requests), num, replace=False))


def rank(
    systems: dict[str, System], requests: Requests, rows: np.ndarray, products: pa.Table, depth: int = DEPTH
) -> Sample:
    """Rank the drawn requests with each system.

    Args:
        systems: by name.
        requests: all of the window.
        rows: int64 [R], of `draw`.
        products: the catalogue in product-index order.
        depth: K.
    """
    depth = min(depth, int(requests.num_products[rows].max(initial=1)))
    rankings = {name: _ranking(system, requests, rows, depth) for name, system in systems.items()}
    place = np.full(len(requests), -1, np.int64)
    place[rows] = np.arange(len(rows))
    targets = requests.targets
    is_in = (place[targets.request] >= 0) & (targets.product_index >= 0)
    pair, bought = place[targets.request[is_in]], targets.product_index[is_in]
    found = {name: target_positions(ranking, pair, bought) for name, ranking in rankings.items()}
    ranks = {name: np.minimum(positions, depth) + 1 for name, positions in found.items()}
    return Sample(requests, rows, products, rankings, pair, bought, ranks)


def _ranking(system: System, requests: Requests, rows: np.ndarray, depth: int) -> np.ndarray:
    ranking = np.full((len(rows), depth), -1, np.int64)
    for num_products in np.unique(requests.num_products[rows]):
        part = np.flatnonzero(requests.num_products[rows] == num_products)
        found = system.rank(requests.raw.take(rows[part]), depth, int(num_products))
        ranking[part, : found.shape[1]] = found
    return ranking


def people_of(sample: Sample) -> Places:
    """Where the drawn requests came from, R places."""
    contexts = sample.requests.raw.contexts
    return places_of(None if contexts is None else contexts.take(sample.rows), len(sample.rows))


def products_of(sample: Sample) -> Places:
    """Where products are, N places."""
    return places_of(sample.products, sample.products.num_rows)
