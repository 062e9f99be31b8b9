"""Bags of ids: gather, drop and memory-mapped stores, against lists of lists."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uepp.features.bags import Bags, BagStore

rows_of_ids = st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=6), max_size=12)


def bags(rows: list[list[int]]) -> Bags:
    return Bags(
        np.array([value for row in rows for value in row], np.int32), np.array([len(r) for r in rows], np.int32)
    )


def lists(made: Bags) -> list[list[int]]:
    assert made.values.dtype == made.lengths.dtype == np.int32
    values = iter(made.values.tolist())
    rows = [[next(values) for _ in range(length)] for length in made.lengths]
    assert next(values, None) is None, "lengths sum to the number of values"
    return rows


@settings(deadline=None, max_examples=100)
@given(rows_of_ids, st.data())
def test_gather_is_the_slow_loop(rows: list[list[int]], data: st.DataObject) -> None:
    store = BagStore.concatenate([bags(rows)])
    assert len(store) == len(rows)
    wanted = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=20)) if rows else []
    gathered = store.gather(np.array(wanted, np.int64))
    assert lists(gathered) == [rows[row] for row in wanted]


@settings(deadline=None, max_examples=50)
@given(st.lists(rows_of_ids, max_size=4))
def test_concatenate_keeps_all_rows_in_order(parts: list[list[list[int]]]) -> None:
    store = BagStore.concatenate([bags(part) for part in parts])
    everything = [row for part in parts for row in part]
    assert lists(store.gather(np.arange(len(everything)))) == everything


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_gather_takes_any_order_repeats_and_empty_rows(dtype: type) -> None:
    rows = [[1, 2], [], [3], [], [4, 5, 6]]
    store = BagStore.concatenate([bags(rows)])
    wanted = [4, 1, 1, 0, 4, 3]
    assert lists(store.gather(np.array(wanted, dtype))) == [rows[row] for row in wanted]
    assert lists(store.gather(np.array([1, 3], dtype))) == [[], []]
    assert lists(store.gather(np.array([], dtype))) == []


def is_subsequence(part: list[int], whole: list[int]) -> bool:
    remaining = iter(whole)
    return all(value in remaining for value in part)


@settings(deadline=None, max_examples=100)
@given(rows_of_ids, st.floats(0, 0.99), st.integers(0, 1_000))
def test_drop_thins_rows_and_never_empties_one(rows: list[list[int]], share: float, seed: int) -> None:
    dropped = lists(bags(rows).drop(share, np.random.default_rng(seed)))
    assert len(dropped) == len(rows)
    for before, after in zip(rows, dropped, strict=True):
        assert bool(after) == bool(before)
        assert is_subsequence(after, before)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_drop_drops_about_the_share(share: float) -> None:
    rows = [list(range(200))] * 100
    dropped = bags(rows).drop(share, np.random.default_rng(1))
    assert dropped.lengths.sum() / 20_000 == pytest.approx(1 - share, abs=0.02)
    assert len(set(map(tuple, lists(dropped)))) == 100, "rows are thinned independently"


def test_drop_nothing_and_determinism() -> None:
    made = bags([[1, 2, 3], [], [4] * 50])
    assert lists(made.drop(0.0, np.random.default_rng(1))) == lists(made)
    once, twice = (lists(made.drop(0.5, np.random.default_rng(7))) for _ in range(2))
    assert once == twice
    assert once != lists(made)
    assert lists(bags([[], []]).drop(0.5, np.random.default_rng(1))) == [[], []]


def test_which_id_survives_a_short_row_is_even() -> None:
    """With nearly everything dropped, each of two ids is the survivor half of the time."""
    survivors = bags([[1, 2]] * 2_000).drop(0.99, np.random.default_rng(1)).values
    assert (survivors == 1).mean() == pytest.approx(0.5, abs=0.05)


def test_save_and_load_memory_mapped(tmp_path: Path) -> None:
    rows = [[1, 2], [], [2**31 - 1]]
    BagStore.concatenate([bags(rows)]).save(tmp_path / "group.0")
    loaded = BagStore.load(tmp_path / "group.0")
    assert isinstance(loaded.values, np.memmap)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["group.0.splits.npy", "group.0.values.npy"]
    gathered = loaded.gather(np.array([2, 0, 1]))
    assert lists(gathered) == [rows[2], rows[0], rows[1]]
    assert not isinstance(gathered.values, np.memmap) or gathered.values.flags.owndata


def test_save_and_load_without_any_value(tmp_path: Path) -> None:
    BagStore.concatenate([bags([[], []])]).save(tmp_path / "empty")
    loaded = BagStore.load(tmp_path / "empty")
    assert len(loaded) == 2
    assert lists(loaded.gather(np.array([0, 1]))) == [[], []]
