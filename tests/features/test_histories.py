"""Users' histories: what is read of them, how much, in which order, and that nothing in them is from later."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import TRAIN_END, Toy, history_rows, write_mined
from hypothesis import given, settings
from hypothesis import strategies as st

from uepp.config import DataConfig, HistoryConfig, TrainingConfig
from uepp.data.histories import KINDS
from uepp.data.mining import mine
from uepp.features.bags import Bags, BagStore
from uepp.features.examples import load_examples
from uepp.features.histories import Histories, load_histories
from uepp.features.vocabulary import Vocabulary

PRODUCTS = ["a", "b", "c", "d"]
SHOPS = Vocabulary([b"big", b"small"], np.array([2, 1]), 4, 0)
SHOP_OF = {"a": "big", "b": "small", "c": "unknown shop", "d": None, "gone": None}
TITLES = [[10, 11], [], [30], [40, 41, 42]]
TAGS = [[1], [2, 3], [], [4, 4]]
MOMENT = TRAIN_END - timedelta(days=10)


def store(rows: list[list[int]]) -> BagStore:
    values = np.array([value for row in rows for value in row], np.int32)
    return BagStore.concatenate([Bags(values, np.array([len(row) for row in rows], np.int32))])


def lists(entries: dict[str, np.ndarray], name: str) -> list[list[int]]:
    values, lengths = entries[f"{name}/values"], entries[f"{name}/lengths"]
    assert values.dtype == lengths.dtype == np.int32
    left = iter(values.tolist())
    rows = [[next(left) for _ in range(length)] for length in lengths]
    assert next(left, None) is None
    return rows


def at(hours: int) -> datetime:
    return MOMENT + timedelta(hours=hours)


class Events:
    """History rows by kind, and the requests that look back on them."""

    def __init__(self, rows: dict[str, list[tuple[Any, ...]]], requests: list[tuple[str | None, datetime]]) -> None:
        self.rows = {kind: sorted(rows.get(kind, []), key=lambda row: [str(value) for value in row]) for kind in KINDS}
        self.requests = requests

    def load(self, directory: Path) -> Histories:
        write_mined(directory, [], [], self.rows)
        edges = {kind: [history_rows(self.rows[kind], *request) for request in self.requests] for kind in KINDS}
        pointers = {kind: np.array(pairs, np.int64).reshape(-1, 2) for kind, pairs in edges.items()}
        return load_histories(directory, pointers, PRODUCTS, SHOPS)

    def found(self, directory: Path, config: HistoryConfig, requests: list[int]) -> dict[str, list[list[Any]]]:
        return readable(self.load(directory), config, np.array(requests, np.int64))

    def expected(self, config: HistoryConfig, requests: list[int]) -> dict[str, list[list[Any]]]:
        made: dict[str, list[list[Any]]] = {"searches": [], "shops": [], "clicked": [], "purchased": []}
        for request in requests:
            user, moment = self.requests[request]
            before: dict[str, list[tuple[Any, ...]]] = {}
            for kind in KINDS:
                own = [row for row in self.rows[kind] if user is not None and row[0] == user and row[1] < moment]
                before[kind] = own[::-1]
            made["searches"].append([query for _, _, query in before["searches"][: config.num_searches] if query])
            shops = [shop for *_, shop in before["clicks"][: config.num_shops]]
            made["shops"].append([shop for shop in shops if shop in ("big", "small")])
            clicked = [product for _, _, product, _ in before["clicks"][: config.num_clicked_products]]
            purchased = [product for _, _, product in before["purchases"][: config.num_purchased_products]]
            for name, products, terms in (("clicked", clicked, TITLES), ("purchased", purchased, TAGS)):
                known = [product for product in products if product in PRODUCTS]
                made[name].append([term for product in known for term in terms[PRODUCTS.index(product)]])
        return made


def readable(histories: Histories, config: HistoryConfig, requests: np.ndarray) -> dict[str, list[list[Any]]]:
    """The entries of a batch, with the words for the ids of searches and shops."""
    tokens = store([[100 + row] * (row % 3) + [row] for row in range(len(histories.queries))])
    entries = histories.entries(requests, config, tokens, {"title": store(TITLES), "tags": store(TAGS)})
    searches = lists(entries, "searches")
    assert len({tuple(row) for row in searches}) == len(searches), "each distinct search once"
    local = lists(entries, "history/searches")
    used = {place for row in local for place in row}
    assert used == set(range(len(searches))), "and only those that the batch needs"
    return {
        "searches": [[histories.queries[searches[place][-1]] for place in row] for row in local],
        "shops": [[SHOPS.tokens[place].decode() for place in row] for row in lists(entries, "history/shops")],
        "clicked": lists(entries, "history/clicked"),
        "purchased": lists(entries, "history/purchased"),
    }


users = st.sampled_from(["u", "v", "w"])
moments = st.integers(-5, 5).map(at)
products = st.sampled_from([*PRODUCTS, "gone"])
clicks = st.builds(lambda user, moment, product: (user, moment, product, SHOP_OF[product]), users, moments, products)
event_rows = st.fixed_dictionaries(
    {
        "searches": st.lists(st.tuples(users, moments, st.sampled_from(["lamp", "red lamp", "mug", ""])), max_size=12),
        "clicks": st.lists(clicks, max_size=12),
        "purchases": st.lists(st.tuples(users, moments, products), max_size=12),
    }
)


@settings(deadline=None, max_examples=60)
@given(
    event_rows,
    st.lists(st.tuples(st.sampled_from(["u", "v", "w", "new", None]), moments), min_size=1, max_size=5),
    st.tuples(*[st.integers(1, 5)] * 4),
    st.data(),
)
def test_entries_are_the_oracle(
    tmp_path_factory: pytest.TempPathFactory,
    rows: dict[str, list[tuple[Any, ...]]],
    requests: list[tuple[str | None, datetime]],
    numbers: tuple[int, int, int, int],
    data: st.DataObject,
) -> None:
    names = ("num_searches", "num_shops", "num_clicked_products", "num_purchased_products")
    config = HistoryConfig(**dict(zip(names, numbers, strict=True)))
    chosen = data.draw(st.lists(st.integers(0, len(requests) - 1), max_size=8))
    events = Events(rows, requests)
    assert events.found(tmp_path_factory.mktemp("mined"), config, chosen) == events.expected(config, chosen)


def test_latest_first_and_no_more_than_the_limit(tmp_path: Path) -> None:
    queries = ["one", "two", "three", "four"]
    rows = {
        "searches": [("u", at(hour), query) for hour, query in enumerate(queries)],
        "clicks": [("u", at(hour), product, SHOP_OF[product]) for hour, product in enumerate("aacb")],
        "purchases": [("u", at(hour), product) for hour, product in enumerate("bda")],
    }
    events = Events(rows, [("u", at(4)), ("u", at(2))])
    config = HistoryConfig(num_searches=3, num_shops=3, num_clicked_products=2, num_purchased_products=2)
    assert events.found(tmp_path, config, [0, 1]) == {
        "searches": [["four", "three", "two"], ["two", "one"]],
        "shops": [["small", "big"], ["big", "big"]],  # c's shop has no row, and is one of the three looked at
        "clicked": [[30], [10, 11, 10, 11]],  # of the latest two, b has no title
        "purchased": [[1, 4, 4], [4, 4, 2, 3]],
    }


def test_nothing_at_or_after_the_moment(tmp_path: Path) -> None:
    rows = {
        "searches": [("u", at(hour), f"at {hour}") for hour in (-1, 0, 1)],
        "clicks": [("u", at(hour), product, SHOP_OF[product]) for hour, product in ((-1, "a"), (0, "b"), (1, "c"))],
        "purchases": [("u", at(hour), product) for hour, product in ((-1, "a"), (0, "b"), (1, "d"))],
    }
    events = Events(rows, [("u", at(0)), ("u", at(0) + timedelta(microseconds=1)), ("u", at(-1))])
    found = events.found(tmp_path, HistoryConfig(), [0, 1, 2])
    assert found["searches"] == [["at -1"], ["at 0", "at -1"], []]
    assert found["shops"] == [["big"], ["small", "big"], []]
    assert found["clicked"] == [[10, 11], [10, 11], []]
    assert found["purchased"] == [[1], [2, 3, 1], []]


def test_nobody_and_a_newcomer_have_no_history(tmp_path: Path) -> None:
    rows = {
        "searches": [("u", at(-1), "lamp")],
        "clicks": [("u", at(-1), "a", "big")],
        "purchases": [("u", at(-1), "a")],
    }
    found = Events(rows, [(None, at(0)), ("new", at(0))]).found(tmp_path, HistoryConfig(), [0, 1, 1])
    assert found == {"searches": [[]] * 3, "shops": [[]] * 3, "clicked": [[]] * 3, "purchased": [[]] * 3}


def test_no_history_at_all(tmp_path: Path) -> None:
    events = Events({}, [("u", at(0))])
    for requests in ([0], []):
        nothing: list[list[Any]] = [[] for _ in requests]
        found = events.found(tmp_path, HistoryConfig(), requests)
        assert found == {"searches": nothing, "shops": nothing, "clicked": nothing, "purchased": nothing}


def test_what_has_no_row_is_minus_one_and_left_out(tmp_path: Path) -> None:
    clicks = [("u", at(-hours), product, SHOP_OF[product]) for hours, product in enumerate("abcd", start=1)]
    clicks.append(("u", at(-9), "gone", "big"))
    histories = Events(
        {"clicks": clicks, "purchases": [("u", at(-1), "gone"), ("u", at(-2), "d")]}, [("u", at(0))]
    ).load(tmp_path)
    assert histories.clicked.tolist() == [-1, 3, 2, 1, 0]
    assert histories.shop_rows.tolist() == [0, -1, -1, 1, 0]
    assert histories.purchased.tolist() == [3, -1]
    one = np.array([0])
    assert histories.latest("clicks", histories.shop_rows, one, 3).values.tolist() == [0, 1]
    assert histories.latest("clicks", histories.shop_rows, one, 3).lengths.tolist() == [2]
    assert histories.latest("purchases", histories.purchased, one, 1).lengths.tolist() == [0]


@pytest.mark.parametrize(
    ("switch", "entry"),
    [
        ("num_searches", "searches"),
        ("num_shops", "shops"),
        ("num_clicked_products", "clicked"),
        ("num_purchased_products", "purchased"),
    ],
)
def test_a_part_that_is_off_has_no_entry(tmp_path: Path, switch: str, entry: str) -> None:
    rows = {
        "searches": [("u", at(-1), "lamp")],
        "clicks": [("u", at(-1), "a", "big")],
        "purchases": [("u", at(-1), "a")],
    }
    histories = Events(rows, [("u", at(0))]).load(tmp_path)
    terms = {"title": store(TITLES), "tags": store(TAGS)}
    unused = {"clicked": "title", "purchased": "tags"}.get(entry)
    all_entries = set(histories.entries(np.array([0]), HistoryConfig(), store([[7]]), terms))
    without = histories.entries(
        np.array([0]),
        HistoryConfig(**{switch: 0}),
        store([[7]]),
        {field: bags for field, bags in terms.items() if field != unused},
    )
    gone = {f"history/{entry}/values", f"history/{entry}/lengths"}
    if entry == "searches":
        gone |= {"searches/values", "searches/lengths"}
    assert set(without) == all_entries - gone
    assert gone < all_entries


# From the log


def test_histories_of_mined_requests_are_what_the_log_holds(tmp_path: Path) -> None:
    """Real mining, and an oracle that reads nothing but the log."""
    rng = np.random.default_rng(4)
    types = ("search", "impression", "click", "purchase")
    log = [
        {
            "timestamp": TRAIN_END - timedelta(days=12) + timedelta(hours=int(rng.integers(0, 24 * 14))),
            "user_id": [None, "u", "v", "w"][rng.integers(0, 4)],
            "session_id": f"s{rng.integers(0, 30)}",
            "type": types[rng.integers(0, 4)],
            "query": ["lamp", "red lamp", "mug"][rng.integers(0, 3)],
            "product_id": PRODUCTS[rng.integers(0, 4)],
        }
        for _ in range(400)
    ]
    for row in log:
        row["product_id"] = None if row["type"] == "search" else row["product_id"]
    log = list({(row["user_id"], row["type"], row["timestamp"]): row for row in log}.values())  # no ties
    data = tmp_path / "data"
    data.mkdir()
    schema = {"timestamp": pa.timestamp("us", "UTC")}
    columns = {name: pa.array([row[name] for row in log], schema.get(name, pa.string())) for name in log[0]}
    pq.write_table(pa.table(columns), data / "events.parquet")
    catalogue = {"product_id": PRODUCTS, "title": PRODUCTS, "shop_id": [SHOP_OF[product] for product in PRODUCTS]}
    pq.write_table(pa.table(catalogue), data / "products.parquet")
    mined = mine(data, DataConfig(train_end=TRAIN_END), tmp_path / "cache")
    examples = load_examples(mined, PRODUCTS, TrainingConfig())
    table = pq.read_table(mined / "examples.parquet").to_pylist()
    assert len(table) == len(examples) > 100

    rows: dict[str, list[tuple[Any, ...]]] = {kind: [] for kind in KINDS}
    for row in log:
        if row["user_id"] is not None:
            about = row["user_id"], row["timestamp"]
            if row["type"] == "search":
                rows["searches"].append((*about, row["query"]))
            elif row["type"] == "click":
                rows["clicks"].append((*about, row["product_id"], SHOP_OF[row["product_id"]]))
            elif row["type"] == "purchase":
                rows["purchases"].append((*about, row["product_id"]))
    first: dict[tuple[Any, ...], datetime] = {}
    for row in sorted(log, key=lambda row: row["timestamp"]):
        first.setdefault((row["session_id"], row["user_id"], row["query"]), row["timestamp"])
    requests = [(row["user_id"], first[row["session_id"], row["user_id"], row["query"]]) for row in table]
    events = Events(rows, requests)
    config = HistoryConfig(num_searches=3, num_shops=2, num_clicked_products=4, num_purchased_products=5)
    expected = events.expected(config, list(range(len(requests))))
    assert all(max(map(len, expected[name])) > 1 for name in expected)

    pointers = {
        kind: np.stack([np.asarray(examples.contexts.column(f"{kind}_{edge}")) for edge in ("begin", "end")], 1)
        for kind in KINDS
    }
    histories = load_histories(mined, pointers, PRODUCTS, SHOPS)
    assert readable(histories, config, examples.request_rows.astype(np.int64)) == expected


def test_toy_has_requests_with_and_without_history(toy: Toy) -> None:
    """What other tests rely on."""
    arrays, _ = toy.batch_maker(batch_size=60).make(0)
    for name in ("history/searches", "history/shops", "history/clicked", "history/purchased"):
        lengths = arrays[f"{name}/lengths"]
        assert 0 < np.mean(lengths == 0) < 1
    assert arrays["history/searches/lengths"].max() == toy.config.history.num_searches
    assert arrays["history/shops/lengths"].max() == toy.config.history.num_shops
