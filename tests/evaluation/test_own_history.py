"""A person's own products, then what is like them, against a loop over the catalogue."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uepp.evaluation.own_history import OwnHistory
from uepp.features.requests import PastEvents, RawRequests

SHOPS = ["a", "a", "b", None, "b", "c", "c", "a"]
CATEGORIES = ["ring", "lamp", "ring", "mug", None, "mug", "lamp", "lamp"]
POPULARITY = [0.0, 5.0, 2.0, 9.0, 0.0, 1.0, 0.0, 3.0]
PRODUCTS = pa.table({"product_id": [f"p{n}" for n in range(8)], "shop_id": SHOPS, "category": CATEGORIES})


class _Popularity:
    """Only what it is asked for."""

    scores = np.array(POPULARITY)


def rank(people: list[tuple[list[int], list[int]]], k: int, num_products: int) -> list[list[int]]:
    """Rankings for people with purchases and clicks; rows of other people stand between theirs."""
    tables: dict[str, list[int]] = {"purchases": [], "clicks": []}
    pointers: dict[str, list[tuple[int, int]]] = {"purchases": [], "clicks": [], "searches": []}
    for purchases, clicks in people:
        for kind, events in (("purchases", purchases), ("clicks", clicks)):
            tables[kind].append(6)  # somebody else's
            pointers[kind].append((len(tables[kind]), len(tables[kind]) + len(events)))
            tables[kind] += [*events, 3]
        pointers["searches"].append((0, 0))
    requests = RawRequests(
        ["whatever"] * len(people),
        pointers={kind: np.array(edges, np.int64) for kind, edges in pointers.items()},
        past=PastEvents({}, {kind: np.array(rows, np.int64) for kind, rows in tables.items()}),
    )
    system = OwnHistory(PRODUCTS, _Popularity())  # type: ignore[arg-type]
    return system.rank(requests, k, num_products).tolist()


def oracle(purchases: list[int], clicks: list[int], k: int, num_products: int) -> list[int]:
    bought, clicked = ([row for row in rows if 0 <= row < num_products] for rows in (purchases, clicks))
    own = sorted({*bought, *clicked}, key=lambda row: (-bought.count(row), -clicked.count(row), row))
    scores = {}
    for row in range(num_products):
        alike = sum(SHOPS[other] == SHOPS[row] is not None for other in bought + clicked)
        alike += sum(CATEGORIES[other] == CATEGORIES[row] is not None for other in bought + clicked)
        scores[row] = alike * (POPULARITY[row] + 1e-3)
    alike = [row for row in sorted(scores, key=lambda row: (-scores[row], row)) if scores[row] > 0 and row not in own]
    popular = sorted(range(num_products), key=lambda row: (-POPULARITY[row], row))
    popular = [row for row in popular if POPULARITY[row] > 0 and row not in own and row not in alike]
    return ([*own, *alike, *popular] + [-1] * k)[:k]


def test_own_products_then_those_alike_then_popular_ones() -> None:
    # bought 0 (shop a, ring), clicked 2 twice (shop b, ring): 0, 2, then shop a: 1 and 7 by popularity, b: 4; then 3, 5
    assert rank([([0], [2, 2])], 8, 8) == [[0, 2, 1, 7, 4, 3, 5, -1]]


def test_a_stranger_gets_what_is_popular() -> None:
    popular = [3, 1, 7, 2, 5, -1, -1, -1]
    assert rank([([], [])], 8, 8) == [popular]
    system = OwnHistory(PRODUCTS, _Popularity())  # type: ignore[arg-type]
    assert system.rank(RawRequests(["x", "y"]), 8, 8).tolist() == [popular] * 2


def test_the_catalogue_of_the_day_and_products_that_are_gone() -> None:
    """What came later, or is not there any more, is neither listed nor looked at."""
    assert rank([([7, -1], [])], 8, 5) == [[3, 1, 2, -1, -1, -1, -1, -1]]
    assert rank([([7, 0], [])], 3, 5) == [oracle([7, 0], [], 3, 5)]


_EVENTS = st.lists(st.integers(-1, 7), max_size=6)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(_EVENTS, _EVENTS), min_size=1, max_size=4), st.integers(1, 10), st.integers(0, 8))
def test_rankings_are_the_oracles(people: list[tuple[list[int], list[int]]], k: int, num_products: int) -> None:
    found = rank(people, k, num_products)
    assert found == [oracle(purchases, clicks, k, num_products) for purchases, clicks in people]


def test_products_of_the_history_tables_are_catalogue_rows(tmp_path: Path) -> None:
    """From the files that mining writes."""
    pq = pytest.importorskip("pyarrow.parquet")
    from uepp.features.requests import load_past_events

    tables = {
        "searches": {"query": ["x"]},
        "clicks": {"product_id": ["p2", "gone"], "shop_id": ["b", None]},
        "purchases": {"product_id": ["p7"]},
    }
    for kind, columns in tables.items():
        pq.write_table(pa.table(columns), tmp_path / f"history_{kind}.parquet")
    products = PRODUCTS.append_column("title", pa.array(["t"] * 8))
    products = products.append_column("tags", pa.array([[]] * 8, pa.list_(pa.string())))
    past = load_past_events(tmp_path, products)
    assert {kind: rows.tolist() for kind, rows in past.products.items()} == {"clicks": [2, -1], "purchases": [7]}
