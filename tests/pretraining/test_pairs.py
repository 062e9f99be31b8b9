"""Products and their most purchased queries."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uepp.config import PretrainingConfig
from uepp.errors import InputError
from uepp.pretraining.pairs import Pairs, load_pairs

Edge = tuple[str, str, int, int, int]
IDS = [f"{number:02d}" for number in range(40)][::-1]


def write_graph(directory: Path, edges: Sequence[Edge]) -> Path:
    names = ("query", "product_id", "clicks", "carts", "purchases")
    columns = {
        name: pa.array([edge[n] for edge in edges], pa.string() if n < 2 else pa.int64())
        for n, name in enumerate(names)
    }
    directory.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), directory / "graph.parquet")
    return directory


def load(directory: Path, edges: Sequence[Edge], **changes: Any) -> Pairs:
    config = PretrainingConfig(**{"held_out_share": 0.3, **changes})
    return load_pairs(write_graph(directory, edges), IDS, config)


def by_product(pairs: Pairs) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row, query in zip(pairs.product_index, pairs.queries, strict=True):
        found.setdefault(IDS[row], []).append(query)
    return found


def fill(product: str) -> list[Edge]:
    """Products that keep the split from being empty."""
    return [("other", name, 1, 1, 1) for name in IDS if name != product]


def test_the_most_purchased_query_wins_then_carts_clicks_and_text(tmp_path: Path) -> None:
    product = IDS[0]
    cases: list[tuple[list[Edge], str]] = [
        ([("a", product, 9, 9, 1), ("b", product, 0, 0, 2)], "b"),
        ([("a", product, 9, 1, 1), ("b", product, 0, 2, 1)], "b"),
        ([("a", product, 1, 1, 1), ("b", product, 2, 1, 1)], "b"),
        ([("b", product, 1, 1, 1), ("a", product, 1, 1, 1)], "a"),
        ([("b", product, 1, 0, 0), ("a", product, 0, 1, 0)], "a"),
        ([("  ", product, 9, 9, 9), ("a", product, 1, 0, 0)], "a"),
    ]
    for edges, expected in cases:
        found = by_product(load(tmp_path, edges + fill(product)))
        assert found[product] == [expected]
        assert found.keys() == set(IDS)


def test_spellings_of_a_query_are_counted_together(tmp_path: Path) -> None:
    """As in the graph and in splits: "Red Mug" 2 and "red mug" 2 are more than "cup" 3."""
    product = next(name for name in IDS if name not in held_out_by_hand(0.3))
    edges = [("red mug", product, 0, 0, 2), ("Red Mug", product, 1, 0, 2), ("cup", product, 0, 0, 3),
             ("Red  mug!", product, 0, 9, 0), ("?!", product, 0, 0, 1), ("Cup", product, 0, 1, 0)]  # fmt: skip
    for number, expected in ((1, ["Red Mug"]), (3, ["Red Mug", "cup", "?!"])):
        assert by_product(load(tmp_path, edges + fill(product), queries_per_product=number))[product] == expected
    even = [("Cup", product, 0, 0, 1), ("cup", product, 0, 0, 1), ("mug", product, 0, 2, 2), ("Mug", product, 3, 0, 0)]
    found = by_product(load(tmp_path, even + fill(product), queries_per_product=3))[product]
    assert found == ["mug", "Cup"], "ties go by carts, clicks and text"


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcde"), st.sampled_from(IDS[:6]), st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)
        ),
        max_size=30,
        unique_by=lambda edge: edge[:2],
    ),
    st.sampled_from(["click", "cart", "purchase"]),
    st.integers(1, 3),
)
def test_pairs_are_those_of_a_plain_loop(
    tmp_path_factory: pytest.TempPathFactory, edges: list[Edge], weakest: str, number: int
) -> None:
    edges += fill("none")[6:]
    pairs = load(
        tmp_path_factory.mktemp("graph"), edges, weakest_interaction=weakest, queries_per_product=number
    )  # fmt: skip
    held_out = {IDS[row] for row, is_out in zip(pairs.product_index, pairs.is_held_out, strict=True) if is_out}
    expected = {}
    for product in IDS:
        own = []
        for query, name, clicks, carts, purchases in edges:
            strong = purchases + (carts if weakest != "purchase" else 0) + (clicks if weakest == "click" else 0)
            if name == product and strong:
                own.append((-purchases, -carts, -clicks, query))
        if own:
            expected[product] = [best[-1] for best in sorted(own)][: 1 if product in held_out else number]
    assert by_product(pairs) == expected
    assert pairs.product_index.tolist() == sorted(pairs.product_index)


def test_held_out_products_depend_on_nothing_but_their_id(tmp_path: Path) -> None:
    def held_out(edges: Sequence[Edge], **changes: Any) -> set[str]:
        pairs = load(tmp_path, edges, **changes)
        return {IDS[row] for row, is_out in zip(pairs.product_index, pairs.is_held_out, strict=True) if is_out}

    all_edges = fill("none")
    drawn = held_out(all_edges)
    assert 4 < len(drawn) < 20
    assert held_out(all_edges, seed=5, queries_per_product=2) == drawn
    assert held_out(all_edges[5:]) == drawn & {edge[1] for edge in all_edges[5:]}
    assert drawn < held_out(all_edges, held_out_share=0.6)


def test_the_products_that_are_reported_do_not_choose(tmp_path: Path) -> None:
    """About half of the held-out ones, by their id alone, whatever share is held out."""

    def reported(edges: Sequence[Edge], **changes: Any) -> set[str]:
        pairs = load(tmp_path, edges, **changes)
        assert not (pairs.is_reported & ~pairs.is_held_out).any()
        return {IDS[row] for row, is_told in zip(pairs.product_index, pairs.is_reported, strict=True) if is_told}

    all_edges = fill("none")
    drawn = {name for name in IDS if hashlib.md5(name.encode()).digest()[8] % 2}
    assert 12 < len(drawn) < 28
    assert reported(all_edges, held_out_share=0.9) < drawn
    assert reported(all_edges) == reported(all_edges, held_out_share=0.9) & held_out_by_hand(0.3)
    assert reported(all_edges[3:]) == reported(all_edges) & {edge[1] for edge in all_edges[3:]}


def held_out_by_hand(share: float) -> set[str]:
    return {name for name in IDS if int(hashlib.md5(name.encode()).hexdigest()[:16], 16) / 2**64 < share}


def test_no_product_is_on_both_sides(tmp_path: Path) -> None:
    edges = [(f"{name} {n}", name, 1, 1, 1 + n) for name in IDS for n in range(3)]
    pairs = load(tmp_path, edges, queries_per_product=3)
    inside, outside = (set(pairs.product_index[pairs.is_held_out == is_out].tolist()) for is_out in (False, True))
    assert inside
    assert outside
    assert not inside & outside
    assert len(pairs) == 3 * len(inside) + len(outside)


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no purchase with a query before the end of training"):
        load(tmp_path, [("a", name, 1, 1, 0) for name in IDS], weakest_interaction="purchase")
    with pytest.raises(InputError, match=r"held_out_share = 0.001: keeps 0 of 40 products"):
        load(tmp_path, fill("none"), held_out_share=0.001)
    with pytest.raises(InputError, match=r"held_out_share = 0.999: keeps 40 of 40 products"):
        load(tmp_path, fill("none"), held_out_share=0.999)
    # Two products are held out, and both fall to the same half.
    told = sorted(name for name in held_out_by_hand(0.3) if hashlib.md5(name.encode()).digest()[8] % 2)[:2]
    others = [edge for edge in fill("none") if edge[1] not in held_out_by_hand(0.3) or edge[1] in told]
    with pytest.raises(InputError, match=rf"keeps 2 of {len(others)} products with a query, 2 of them to report; at"):
        load(tmp_path, others)
