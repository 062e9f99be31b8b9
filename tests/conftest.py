"""What all tests share: the slow marker, the exempted warnings, and one toy catalogue with its examples."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

import uepp  # chooses Keras 2 before any test module imports TensorFlow

if TYPE_CHECKING:
    from uepp.config import Config
    from uepp.features.bags import BagStore
    from uepp.features.catalog import Catalog
    from uepp.features.examples import BatchMaker, Examples
    from uepp.features.vocabulary import Vocabulary

assert uepp.__version__

# pyproject.toml turns every warning into an error. An exemption is (filter, why it is not ours to fix).
_EXEMPTIONS: tuple[tuple[str, str], ...] = ()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="also run tests that take minutes")


def pytest_configure(config: pytest.Config) -> None:
    for warning_filter, _ in _EXEMPTIONS:
        config.addinivalue_line("filterwarnings", warning_filter)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--run-slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="takes minutes; --run-slow runs it"))


START = datetime(2024, 5, 1, tzinfo=UTC)
_COLORS = ("red", "blue", "green", "black", "white", "golden")
_THINGS = ("lamp", "chair", "ring", "scarf", "mug", "poster", "belt", "bowl")


def toy_products() -> pa.Table:
    """48 products in product-index order: one a colour and thing, the first without a day, then one a day."""
    names = [(color, thing) for color in _COLORS for thing in _THINGS]
    number = range(len(names))
    return pa.table(
        {
            "product_id": [f"{position:03d}" for position in number],
            "title": [f"Handmade {color} {thing} number {n}" for n, (color, thing) in enumerate(names)],
            "tags": pa.array([[color, f"{thing} gift"] for color, thing in names], pa.list_(pa.string())),
            "category": [f"Home > {thing}" if n % 3 else None for n, (_, thing) in enumerate(names)],
            "attributes": pa.array(
                [[("color", [color])] for color, _ in names], pa.map_(pa.string(), pa.list_(pa.string()))
            ),
            "description": [
                f"a {thing} made of {color} things" if n % 2 else None for n, (color, thing) in enumerate(names)
            ],
            "created_at": pa.array([None] + [START + timedelta(days=n) for n in number[1:]], pa.timestamp("us", "UTC")),
        }
    )


@dataclass(frozen=True)
class Toy:
    """A catalogue small enough to check by eye, and examples on it."""

    config: "Config"
    products: pa.Table
    vocabulary: "Vocabulary"
    catalog: "Catalog"
    examples: "Examples"
    query_tokens: "BagStore"
    num_seen_products: int

    def batch_maker(self, config: "Config | None" = None, batch_size: int | None = None) -> "BatchMaker":
        from uepp.features.examples import BatchMaker

        training = (config or self.config).training
        return BatchMaker(
            self.examples,
            self.query_tokens,
            self.catalog,
            self.num_seen_products,
            training,
            batch_size or training.batch_size,
        )


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """Queries `colour thing` and `thing`; each colour's query was answered by its product, `thing` by several."""
    import numpy as np

    from uepp.config import Config
    from uepp.features.bags import Bags, BagStore
    from uepp.features.catalog import build_catalog, build_vocabulary
    from uepp.features.examples import Examples, tokenize_queries

    directory: Path = tmp_path_factory.mktemp("toy")
    config = Config.model_validate(
        {
            "features": {"num_oov_buckets": 7, "min_count": 2},
            "model": {"token_dim": 12, "output_dim": 12},
            "training": {
                "batch_size": 8, "max_steps": 12, "num_uniform_negatives": 6, "checkpoint_every_steps": 5, "seed": 3,
            },
        }
    )  # fmt: skip
    products = toy_products()
    num_seen = 44
    things = len(_THINGS)
    queries = [f"{color} {thing}" for color in _COLORS for thing in _THINGS][:num_seen] + list(_THINGS)
    pairs = [(row, row) for row in range(num_seen)]
    pairs += [(num_seen + thing, thing + things * color) for thing in range(things) for color in range(3)]
    types = [row % 3 for row in range(len(pairs))]
    # The graph knows one more product of each `thing` than the examples do.
    known = sorted([*pairs, *((num_seen + thing, thing + things * 3) for thing in range(things))])
    lengths = np.bincount([row for row, _ in known], minlength=len(queries)).astype(np.int32)
    examples = Examples(
        queries=queries,
        query_rows=np.array([row for row, _ in pairs], np.int32),
        product_index=np.array([product for _, product in pairs], np.int32),
        type_ids=np.array(types, np.int32),
        known_positives=BagStore.concatenate([Bags(np.array([product for _, product in known], np.int32), lengths)]),
    )
    vocabulary = build_vocabulary(config.features, products, queries, num_seen)
    catalog = build_catalog(config.features, vocabulary, products, directory)
    query_tokens = tokenize_queries(config.features, vocabulary, queries)
    return Toy(config, products, vocabulary, catalog, examples, query_tokens, num_seen)
