"""What all tests share: the slow marker, the exempted warnings, and one toy catalogue with its mined tables."""

import gc
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import Call, run_command
from hypothesis import settings

import uepp  # chooses Keras 2 before any test module imports TensorFlow

if TYPE_CHECKING:
    from uepp.config import Config
    from uepp.features.bags import BagStore
    from uepp.features.batches import BatchMaker
    from uepp.features.catalog import Catalog
    from uepp.features.examples import Examples
    from uepp.features.fitted import Fitted
    from uepp.features.vocabulary import Vocabulary

assert uepp.__version__

# The same examples in every run: what a change breaks is seen with it, and nothing else fails beside it.
# To look for new ones: pytest --hypothesis-profile=explore
settings.register_profile("explore", derandomize=False, deadline=None)
settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")

# pyproject.toml turns every warning into an error. An exemption is (filter, why it is not ours to fix).
_EXEMPTIONS: tuple[tuple[str, str], ...] = (
    (
        r"ignore:Layer '.*' \(of type T5MultiHeadAttention\) was passed an input with a mask:UserWarning",
        "KerasHub names an ordinary argument `mask`; uepp/pretraining/t5.py says why nothing is lost",
    ),
    (
        r"ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
        "Keras 3.15 saves TensorFlow 2.21's variables through NumPy 2",
    ),
    (
        r"ignore:unclosed file .*vocabulary.spm:ResourceWarning",
        "KerasHub 0.32 leaves the closing of a preset's SentencePiece file to Python",
    ),
)


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


def pytest_collection_finish() -> None:
    """Modules stay to the end: the collector need not look through them again, and every trace of a graph wakes it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a `uepp` command in this process."""
    return lambda *arguments: run_command(capsys, *arguments)


START = datetime(2024, 5, 1, tzinfo=UTC)
NUM_SEEN_PRODUCTS = 44
TRAIN_END = START + timedelta(days=NUM_SEEN_PRODUCTS)
_COLORS = ("red", "blue", "green", "black", "white", "golden")
_THINGS = ("lamp", "chair", "ring", "scarf", "mug", "poster", "belt", "bowl")
_TIMESTAMP = pa.timestamp("us", "UTC")
_TYPES = ("click", "cart", "purchase")

_PLACES: tuple[dict[str, Any], ...] = (
    {"country": "US", "region": "CA", "language": "en-US", "zip": "94103", "latitude": 37.8, "longitude": -122.4},
    {"country": "US", "region": "NY", "language": "en-US", "zip": "10001", "latitude": 40.7, "longitude": -74.0},
    {"country": "DE", "region": "Berlin", "language": "de-DE", "zip": "10115", "latitude": 52.5, "longitude": 13.4},
    {"country": "DE", "language": "de-DE", "zip": "80331"},
    {"latitude": -33.9, "longitude": 151.2},
    {},
)
_PLACE_TYPES = {name: pa.string() for name in ("country", "region", "language", "zip")} | {
    name: pa.float64() for name in ("latitude", "longitude")
}
HISTORY_COLUMNS = {
    "searches": ("user_id", "timestamp", "query"),
    "clicks": ("user_id", "timestamp", "product_id", "shop_id"),
    "purchases": ("user_id", "timestamp", "product_id"),
}
_EVENTS_OF_USERS = {"u0": (12, 9, 5), "u1": (2, 0, 1), "u2": (1, 3, 0), "u3": (0, 1, 2)}
"""Searches, clicks and purchases; every fourth request is anonymous, and `u4` never did anything before."""


def toy_products() -> pa.Table:
    """48 products in product-index order: one a colour and thing, the first without a day, then one a day.

    Seven shops and five places, both missing for some; the last product is of a shop of its own.
    """
    names = [(color, thing) for color in _COLORS for thing in _THINGS]
    number = range(len(names))
    shops = [None if n % 6 == 5 else f"shop {n % 7}" for n in number[:-1]] + ["late shop"]
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
            "shop_id": pa.array(shops, pa.string()),
            "created_at": pa.array([None] + [START + timedelta(days=n) for n in number[1:]], _TIMESTAMP),
        }
        | _places([_PLACES[n % len(_PLACES)] for n in number])
    )


def _places(places: Sequence[dict[str, Any]]) -> dict[str, pa.Array]:
    return {name: pa.array([place.get(name) for place in places], type_) for name, type_ in _PLACE_TYPES.items()}


def write_mined(
    directory: Path,
    examples: Sequence[dict[str, Any]],
    graph: Sequence[tuple[Any, ...]] = (),
    histories: dict[str, Sequence[tuple[Any, ...]]] | None = None,
) -> Path:
    """Mined tables with all their columns, from rows in any order.

    Args:
        directory: where to.
        examples: rows of `examples.parquet`; `query`, `product_id` and `type` have to be there. Without `request_id`
            each is a request by itself. Pointers come from `user_id` and `request_timestamp`.
        graph: query, product id, clicks, carts, purchases and, where it is not 1, the number of requests.
        histories: rows by kind, in the order of `HISTORY_COLUMNS`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    sorted_histories = {
        kind: sorted((histories or {}).get(kind, ()), key=_by_user_and_time) for kind in HISTORY_COLUMNS
    }
    for kind, columns in HISTORY_COLUMNS.items():
        rows = sorted_histories[kind]
        types = {"timestamp": _TIMESTAMP}
        arrays = {
            name: pa.array([row[n] for row in rows], types.get(name, pa.string())) for n, name in enumerate(columns)
        }
        pq.write_table(pa.table(arrays), directory / f"history_{kind}.parquet")

    about = [
        {"request_id": n, "user_id": None, "request_timestamp": TRAIN_END, **row} for n, row in enumerate(examples)
    ]
    texts = {
        name: [row.get(name) for row in about] for name in ("query", "product_id", "type", "user_id", "session_id")
    }
    moments = [row["request_timestamp"] for row in about]
    table = {
        "request_id": pa.array([row["request_id"] for row in about], pa.int64()),
        **{name: pa.array(values, pa.string()) for name, values in texts.items()},
        "timestamp": pa.array(moments, _TIMESTAMP),
        "request_timestamp": pa.array(moments, _TIMESTAMP),
        **_places(about),
    }
    for kind, rows in sorted_histories.items():
        edges = [history_rows(rows, row["user_id"], row["request_timestamp"]) for row in about]
        table[f"{kind}_begin"] = pa.array([begin for begin, _ in edges], pa.int64())
        table[f"{kind}_end"] = pa.array([end for _, end in edges], pa.int64())
    pq.write_table(pa.table(table), directory / "examples.parquet")

    names = ("query", "product_id", "clicks", "carts", "purchases", "requests")
    edges = sorted((*row, 1)[:6] for row in graph)
    columns = {
        name: pa.array([row[n] for row in edges], pa.string() if n < 2 else pa.int64()) for n, name in enumerate(names)
    }
    pq.write_table(pa.table(columns), directory / "graph.parquet")
    return directory


def history_rows(rows: Sequence[tuple[Any, ...]], user: str | None, moment: datetime) -> tuple[int, int]:
    """[begin, end) of a user's rows strictly before a moment, in a sorted history table."""
    own = [n for n, row in enumerate(rows) if row[0] == user]
    if not own:
        return 0, 0
    return own[0], own[0] + sum(rows[n][1] < moment for n in own)


def _by_user_and_time(row: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(str(value or "") for value in row)


def _toy_examples() -> list[dict[str, Any]]:
    """44 requests for a colour's thing, answered by that product, then 8 for a thing, each answered by three."""
    queries = [f"{color} {thing}" for color in _COLORS for thing in _THINGS][:NUM_SEEN_PRODUCTS]
    pairs = [(n, query, n) for n, query in enumerate(queries)]
    for thing, name in enumerate(_THINGS):
        pairs += [(len(queries) + thing, name, thing + len(_THINGS) * color) for color in range(3)]
    return [
        {
            "request_id": request,
            "query": query,
            "product_id": f"{product:03d}",
            "type": _TYPES[row % 3],
            "request_timestamp": TRAIN_END + timedelta(days=-20, hours=6 * request),
            "user_id": None if request % 4 == 3 else f"u{request % 5}",
            "session_id": f"s{request}",
            **_PLACES[(5 * request + 2) % len(_PLACES)],
        }
        for row, (request, query, product) in enumerate(pairs)
    ]


def _toy_graph(examples: Sequence[dict[str, Any]]) -> list[tuple[str, str, int, int, int]]:
    """All examples, one more product of each `thing`, and for the first products queries that no example has."""
    rows = [(row["query"], row["product_id"], 1 + n % 4, n % 3, n % 2) for n, row in enumerate(examples)]
    rows += [(name, f"{thing + len(_THINGS) * 3:03d}", 1, 0, 0) for thing, name in enumerate(_THINGS)]
    for product, name in enumerate(_THINGS):
        others = (f"{name} gift", f"old {name}", f"RED  {name}!", f"tiny {name}")
        rows += [(query, f"{product:03d}", 1, 0, n) for n, query in enumerate(others)]
    return rows


def _toy_histories() -> dict[str, list[tuple[Any, ...]]]:
    """An event every 36 hours; some are before any request, and some at the very moment of one."""
    histories: dict[str, list[tuple[Any, ...]]] = {kind: [] for kind in HISTORY_COLUMNS}
    shops = toy_products().column("shop_id").to_pylist()
    for number, (user, sizes) in enumerate(_EVENTS_OF_USERS.items()):
        for kind, size in zip(HISTORY_COLUMNS, sizes, strict=True):
            for event in range(size):
                moment = TRAIN_END + timedelta(days=-26, hours=36 * event)
                product = (7 * number + 5 * event) % NUM_SEEN_PRODUCTS
                about: tuple[Any, ...] = (f"{product:03d}",)
                if kind == "searches":
                    about = (f"{_COLORS[event % 6]} {_THINGS[(number + event) % 8]}",)
                elif kind == "clicks":
                    about = (f"{product:03d}", shops[product])
                histories[kind].append((user, moment, *about))
    return histories


@contextmanager
def eagerly() -> Iterator[None]:
    """Run what features are prepared with without tracing it, which takes far longer than a toy's few rows."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


@dataclass(frozen=True)
class Toy:
    """A catalogue small enough to check by eye, and what was mined of its traffic.

    Attributes:
        mined: folder of mined tables.
        query_tokens: token ids of `examples.queries`.
        kept: what `batch_maker` and `catalog_of` made before.
    """

    config: "Config"
    products: pa.Table
    mined: Path
    fitted: "Fitted"
    catalog: "Catalog"
    examples: "Examples"
    query_tokens: "BagStore"
    num_seen_products: int
    kept: dict[Any, Any] = field(default_factory=dict, repr=False)

    @property
    def vocabulary(self) -> "Vocabulary":
        """Tokens of queries, titles and tags."""
        return self.fitted.vocabularies["shared"]

    def batch_maker(self, config: "Config | None" = None, batch_size: int | None = None) -> "BatchMaker":
        """What `build_batch_maker` makes; `config` may differ from `self.config` in anything but the features.

        What takes long is kept for the next one.
        """
        from uepp.features.batches import BatchMaker, load_request_features, tokenize_queries
        from uepp.features.graph import load_neighbors

        config = config or self.config
        assert config.features == self.config.features, "the catalogue is made for other features"
        catalog = self.catalog_of(config)
        graph = None
        if "graph" in config.model.product_encoders:
            if "graph" not in self.kept:
                neighbors = load_neighbors(self.mined, catalog.product_ids)
                with eagerly():
                    tokens = tokenize_queries(config.features, self.vocabulary, neighbors.queries)
                self.kept["graph"] = neighbors, tokens
            graph = self.kept["graph"]
        who = config.model.query_encoders
        if who not in self.kept:
            with eagerly():
                self.kept[who] = load_request_features(config, self.fitted, self.examples, self.mined, catalog)
        return BatchMaker(
            self.examples,
            self.query_tokens,
            catalog,
            self.num_seen_products,
            config,
            batch_size or config.training.batch_size,
            graph=graph,
            requests=self.kept[who],
        )

    def catalog_of(self, config: "Config") -> "Catalog":
        """The catalogue with the entries that a configuration's encoders read."""
        from uepp.features.catalog import build_catalog

        def reads(config: "Config") -> tuple[Any, ...]:
            return (config.model.product_encoders, config.model.query_encoders, config.history)

        if reads(config) == reads(self.config):
            return self.catalog
        if reads(config) not in self.kept:
            directory = self.mined.parent / f"catalog-{len(self.kept)}"
            with eagerly():
                self.kept[reads(config)] = build_catalog(config, self.fitted, self.products, directory)
        return self.kept[reads(config)]


def make_toy(
    directory: Path,
    config: "Config",
    products: pa.Table,
    rows: Sequence[dict[str, Any]],
    graph: Sequence[tuple[str, str, int, int, int]],
    histories: dict[str, list[tuple[Any, ...]]],
    num_seen_products: int,
) -> Toy:
    """Everything that comes before training, on tables that `write_mined` takes."""
    from uepp.artifacts import write_json
    from uepp.data.windows import Windows
    from uepp.features.batches import tokenize_queries
    from uepp.features.catalog import build_catalog
    from uepp.features.examples import load_examples
    from uepp.features.fitted import fit_features

    mined = write_mined(directory / "mined", rows, graph, histories)
    write_json(mined / "windows.json", Windows.around(TRAIN_END, config.data).to_json())
    counts = Counter(query for _, query in {(row["request_id"], row["query"]) for row in rows})
    table = {"query": sorted(counts), "count": pa.array([counts[query] for query in sorted(counts)], pa.int64())}
    pq.write_table(pa.table(table), mined / "query_counts.parquet")
    examples = load_examples(mined, products.column("product_id").to_pylist(), config.training)
    with eagerly():
        fitted = fit_features(
            config.features, products, examples.queries, examples.contexts, num_seen_products, config.training.seed
        )
        catalog = build_catalog(config, fitted, products, directory / "catalog")
        query_tokens = tokenize_queries(config.features, fitted.vocabularies["shared"], examples.queries)
    return Toy(config, products, mined, fitted, catalog, examples, query_tokens, num_seen_products)


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """Queries `colour thing` and `thing`; each colour's query was answered by its product, `thing` by several.

    All encoders, small sizes, and histories longer than what is read of them.
    """
    from uepp.config import Config

    config = Config.model_validate(
        {
            "features": {"num_oov_buckets": 7, "min_count": 2, "location_buckets": (2, 4)},
            "graph": {"num_neighbors": 3},
            "history": {
                "num_searches": 4, "num_shops": 3, "num_clicked_products": 2, "num_purchased_products": 3,
                "num_heads": 2, "feed_forward_dim": 16,
            },
            "model": {"token_dim": 12, "location_dim": 4, "output_dim": 12},
            "negatives": {"num_uniform": 6},
            "training": {"batch_size": 8, "max_steps": 12, "checkpoint_every_steps": 5, "seed": 3},
        }
    )  # fmt: skip
    rows = _toy_examples()
    directory = tmp_path_factory.mktemp("toy")
    return make_toy(directory, config, toy_products(), rows, _toy_graph(rows), _toy_histories(), NUM_SEEN_PRODUCTS)
