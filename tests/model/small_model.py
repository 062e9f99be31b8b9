"""A batch written out as plain Python, the features of it, and fitted parts of matching sizes."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

import uepp

assert uepp.__version__
import tensorflow as tf  # noqa: E402

from uepp.config import Config  # noqa: E402
from uepp.features.fitted import Fitted  # noqa: E402
from uepp.features.vocabulary import Vocabulary  # noqa: E402
from uepp.model.towers import TwoTower, build_two_tower  # noqa: E402

NUM_TOKENS, NUM_OWN, NUM_SHOPS, NUM_LOCATIONS, NUM_KINDS = 30, 12, 7, 20, 3
DIM = 8

Ids = list[int]


@dataclass
class Product:
    groups: tuple[Ids, ...] = ((), ())
    shop: int = -1
    location: Ids = field(default_factory=lambda: [0, 4, 8])
    zip: Ids = field(default_factory=list)
    neighbors: Ids = field(default_factory=list)  # positions in Batch.graph


@dataclass
class Request:
    query: Ids = field(default_factory=list)
    location: Ids = field(default_factory=lambda: [0, 4, 8])
    zip: Ids = field(default_factory=list)
    searches: Ids = field(default_factory=list)  # positions in Batch.searches
    shops: Ids = field(default_factory=list)
    clicked: Ids = field(default_factory=list)
    purchased: Ids = field(default_factory=list)


@dataclass
class Batch:
    """Queries and products, and the texts that their positions mean."""

    requests: list[Request]
    products: list[Product]
    graph: list[Ids] = field(default_factory=list)
    searches: list[Ids] = field(default_factory=list)

    def features(self) -> dict[str, tf.Tensor]:
        """Every entry of the contract that a tower reads."""
        made: dict[str, tf.Tensor] = {}
        bags: dict[str, list[Ids]] = {
            "product/zip": [product.zip for product in self.products],
            "product/graph": [product.neighbors for product in self.products],
            "graph": self.graph,
            "query": [request.query for request in self.requests],
            "user/zip": [request.zip for request in self.requests],
            "history/searches": [request.searches for request in self.requests],
            "searches": self.searches,
            "history/shops": [request.shops for request in self.requests],
            "history/clicked": [request.clicked for request in self.requests],
            "history/purchased": [request.purchased for request in self.requests],
        }
        for group in range(len(self.products[0].groups) if self.products else 2):
            bags[f"product/{group}"] = [list(product.groups[group]) for product in self.products]
        for name, rows in bags.items():
            made[f"{name}/values"] = tf.constant([id_ for row in rows for id_ in row], tf.int32)
            made[f"{name}/lengths"] = tf.constant([len(row) for row in rows], tf.int32)
        made["product/shop"] = tf.constant([product.shop for product in self.products], tf.int32)
        for prefix, rows in (("product", self.products), ("user", self.requests)):
            ids = np.array([row.location for row in rows], np.int32).reshape(-1, NUM_KINDS)
            made[f"{prefix}/location/ids"] = tf.constant(ids)
        return made


def batch() -> Batch:
    """Three requests and five products; something is missing in every place where it can be."""
    return Batch(
        requests=[
            Request([1, 2], [1, 5, 9], [12, 13], [0, 2], [3, 3, 1], [4, 5], [6]),
            Request([3], [0, 4, 8], [], [], [], [], []),
            Request([], [2, 6, 10], [14], [1], [], [7, 7], [8, 9, 1]),
        ],
        products=[
            Product(([1, 2, 2], [5]), 3, [1, 5, 9], [12], [0, 1]),
            Product(([4], []), -1, [0, 4, 8], [], []),
            Product(([], [6, 7]), 0, [2, 7, 11], [13, 14], [2, 0, 3]),
            Product(([8, 9], [1]), 3, [3, 5, 8], [15], [1]),
            Product(([2], [10, 11]), 6, [1, 6, 9], [12, 13, 14], [0, 0]),
        ],
        graph=[[1, 3], [20], [], [21, 22, 23]],
        searches=[[1], [24, 25], [26, 26, 2]],
    )


def vocabulary(num_rows: int) -> Vocabulary:
    """Of made-up tokens; two of its rows are hashed ones."""
    known = num_rows - 2
    return Vocabulary([b"t%d" % n for n in range(known)], np.arange(known, 0, -1), 40, 2)


def fitted(config: Config) -> Fitted:
    """Fitted parts without data."""
    names = {"shared": NUM_TOKENS} | dict.fromkeys(config.features.own_tables, NUM_OWN)
    return Fitted(
        groups=config.features.groups,
        vocabularies={name: vocabulary(size) for name, size in names.items()},
        shops=Vocabulary([b"s%d" % n for n in range(NUM_SHOPS)], np.ones(NUM_SHOPS, np.int64), 40, 0),
        locations=SimpleNamespace(num_rows=NUM_LOCATIONS, num_kinds=NUM_KINDS),  # type: ignore[arg-type]
    )


def make_config(**stages: dict[str, Any]) -> Config:
    """Small sizes; `stages` win."""
    settings: dict[str, dict[str, Any]] = {
        "features": {"groups": (("title",), ("description",))},
        "history": {"num_searches": 2, "num_shops": 3, "num_heads": 2, "feed_forward_dim": 10},
        "model": {"token_dim": DIM, "location_dim": 4, "output_dim": DIM},
        "training": {"seed": 5},
    }
    for stage, values in stages.items():
        settings[stage] = settings.get(stage, {}) | values
    return Config.model_validate(settings)


def make_model(**stages: dict[str, Any]) -> TwoTower:
    """The towers of `make_config`."""
    config = make_config(**stages)
    return build_two_tower(config, fitted(config))


def table(model: TwoTower, name: str) -> tf.Variable:
    """A table by its name."""
    (found,) = [variable for variable in model.table_variables if variable.name.startswith(f"{name}_embeddings")]
    return found


def dense(gradient: Any, variable: tf.Variable) -> np.ndarray:
    """A gradient as an array; none: zeros."""
    return np.zeros(variable.shape) if gradient is None else tf.convert_to_tensor(gradient).numpy()
