"""BM25's settings of an export: chosen once for the same products and requests, and anew for others."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from uepp.artifacts import fingerprint, read_json
from uepp.evaluation.requests import Requests, Targets
from uepp.features.requests import RawRequests
from uepp.lexical.bm25 import BM25
from uepp.pipeline.exporting import _tune_bm25

N = 40
NAMES = [f"{first}{second}o" for first in "bcdfghjk" for second in "aeiou"]
TEXT = pa.string()


def catalogue() -> tuple[pa.Table, pa.Table]:
    """Products whose names are in what was generated for them alone."""
    ids = [f"p{row:02}" for row in range(N)]
    empty = {name: pa.nulls(N, TEXT) for name in ("category", "description")}
    products = {"product_id": ids, "title": [f"thing {row % 7}" for row in range(N)], **empty}
    products |= {"tags": pa.array([[]] * N, pa.list_(TEXT))}
    products |= {"attributes": pa.nulls(N, pa.map_(TEXT, pa.list_(TEXT)))}
    products |= {"created_at": pa.array([datetime(2024, 1, 1, tzinfo=UTC)] * N, pa.timestamp("us", "UTC"))}
    generated = pa.table({"product_id": ids, "queries": pa.array([[name] for name in NAMES], pa.list_(TEXT))})
    return pa.table(products), generated


def requests() -> Requests:
    raw = RawRequests([f"thing {name}" for name in NAMES])
    targets = Targets(np.arange(N), np.arange(N))
    return Requests(raw, np.array(["mon"] * N), np.full(N, N), targets, np.zeros(N, bool), np.zeros(N, bool))


@pytest.fixture
def tunings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A number for each call of `BM25.tune`, and ten results count, of forty products."""
    calls: list[int] = []
    tune = BM25.tune

    def counted(self: BM25, *arguments: Any, **rest: Any) -> dict[str, Any]:
        calls.append(len(calls))
        chosen = tune(self, *arguments, k=10, **rest)
        return {**chosen, "recall@100": chosen["recall@10"]}

    monkeypatch.setattr(BM25, "tune", counted)
    return calls


def test_what_was_chosen_holds_for_the_same_and_is_chosen_anew_for_others(tmp_path: Path, tunings: list[int]) -> None:
    """As soon as it is chosen: what interrupts the export afterwards does not take it away."""
    (products, generated), selection, folder = catalogue(), requests(), tmp_path / "baselines"
    first, index = _tune_bm25(folder, "one", products, selection, generated)
    assert len(tunings) == 2
    assert list(first) == ["bm25", "bm25_expanded"]
    assert first["bm25_expanded"]["recall@100"] == 1.0 > first["bm25"]["recall@100"]
    assert first["bm25"]["version"] == "one"
    assert index.settings.weights["generated"] > 0, "the better one is indexed"

    again, same = _tune_bm25(folder, "one", products, selection, generated)
    assert len(tunings) == 2, "nothing is tuned again"
    assert again == first
    for name, settings in first.items():
        assert read_json(folder / f"{name}.json") == settings | {"digest": fingerprint(settings)}
    for one, other in zip(index.search(NAMES, 5), same.search(NAMES, 5), strict=True):
        np.testing.assert_array_equal(one, other)
    for number, name in enumerate(("bm25_expanded", "bm25"), 3):  # interrupted between the two
        (folder / f"{name}.json").unlink()
        rest, found = _tune_bm25(folder, "one", products, selection, generated)
        assert len(tunings) == number
        assert (list(rest), rest) == (list(first), first)
        np.testing.assert_array_equal(found.search(NAMES, 5)[0], index.search(NAMES, 5)[0])
    alone, plain = _tune_bm25(folder, "one", products, selection, None)
    assert len(tunings) == 4
    assert (list(alone), plain.settings.weights.get("generated", 0)) == (["bm25"], 0)

    assert _tune_bm25(folder, "two", products, selection, generated)[0]["bm25"]["version"] == "two"
    assert len(tunings) == 6


@pytest.mark.parametrize("damage", ["changed", "not JSON", "gone", "[]", "{}"])
def test_what_somebody_changed_is_chosen_anew(tmp_path: Path, tunings: list[int], damage: str) -> None:
    (products, _), selection, folder = catalogue(), requests(), tmp_path / "baselines"
    _tune_bm25(folder, "one", products, selection, None)
    path = folder / "bm25.json"
    if damage == "changed":
        path.write_text(path.read_text().replace('"word": 1.0', '"word": 0.5'))
    elif damage == "gone":
        path.unlink()
    else:
        path.write_text("{" if damage == "not JSON" else damage)
    chosen, _ = _tune_bm25(folder, "one", products, selection, None)
    assert len(tunings) == 2
    assert chosen["bm25"]["weights"]["word"] == 1.0
