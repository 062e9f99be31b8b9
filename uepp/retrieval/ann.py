"""What an approximate index loses and what it costs, against exact search (UEPPR V)."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from uepp.artifacts import atomic_file, read_json, write_json
from uepp.index_families import IndexSpec
from uepp.metrics import recall_at, target_positions
from uepp.retrieval.boosting import Boosting
from uepp.retrieval.index import (
    build_index,
    read_index,
    search_exact_chunks,
    set_search,
    train_cells,
    with_store,
    write_index,
)
from uepp.retrieval.product_index import ProductIndex
from uepp.retrieval.vectors import ProductVectors

_EXACT_CHUNK_ROWS = 262_144
_SEARCHED_AT_ONCE = 256
_WARM_UP = 10
_LOOK_AHEAD = 20
_KEPT_BYTES = 10 * 2**30
_FLOAT_BYTES = 4


@dataclass(frozen=True)
class Reference:
    """R requests with what exact search finds for them.

    Attributes:
        queries: float32 [R, d], of length 1.
        exact: int64 [R, K] product indexes by exact search over the vectors that are indexed.
        request: int64 [P], request of each pair of request and bought product.
        product_index: int64 [P]; -1 for a product that the catalogue lacks.
    """

    queries: np.ndarray
    exact: np.ndarray
    request: np.ndarray
    product_index: np.ndarray

    def __len__(self) -> int:
        """R."""
        return len(self.queries)

    @classmethod
    def make(
        cls,
        queries: np.ndarray,
        vectors: ProductVectors,
        boosting: Boosting | None,
        request: np.ndarray,
        product_index: np.ndarray,
        at: int,
    ) -> "Reference":
        """Search exactly for the first `at` products of each query."""
        asked = queries if boosting is None else boosting.queries(queries)
        exact, _ = search_exact_chunks(asked, vectors.chunks(rows=_EXACT_CHUNK_ROWS), at)
        return cls(queries, exact, request, product_index)

    @classmethod
    def none(cls) -> "Reference":
        """No requests."""
        pairs = np.empty(0, np.int64)
        return cls(np.empty((0, 0), np.float32), np.empty((0, 0), np.int64), pairs, pairs)

    def purchase_recall(self, rows: np.ndarray, k: int) -> float:
        """Mean share of a request's bought products among the first k of its ranking; NaN where nobody bought."""
        positions = target_positions(rows, self.request, self.product_index)
        shares = recall_at(k, positions, self.request, len(self))
        return float(np.nanmean(shares)) if len(self.request) else float("nan")


def accuracy(found: np.ndarray, reference: Reference, ks: Sequence[int]) -> dict[str, float]:
    """What a ranking has of the exact one, in two ways, for each K.

    Args:
        found: int [R, K] product indexes; -1: none.
        reference: of the same requests.
        ks: K.

    Returns:
        `overlap@K`: mean share of the exact first K that are among the found first K. `recall@K`: of purchases.
        `recall_loss@K`: the share of exact search's purchase recall that is lost, (exact − found) / exact; below 0
        where the index happens to find more. NaN where there is nothing to lose.
    """
    figures: dict[str, float] = {}
    for k in ks:
        exact = reference.exact[:, :k]
        shares = [
            np.isin(wanted[wanted >= 0], got).mean() if (wanted >= 0).any() else 1.0
            for wanted, got in zip(exact, found[:, :k], strict=True)
        ]
        before, after = reference.purchase_recall(exact, k), reference.purchase_recall(found[:, :k], k)
        figures[f"overlap@{k}"] = float(np.mean(shares))
        figures[f"recall@{k}"] = after
        figures[f"recall_loss@{k}"] = (before - after) / before if before else float("nan")
    return figures


def search_all(index: ProductIndex, queries: np.ndarray, k: int) -> tuple[np.ndarray, float]:
    """Search for all queries on all cores: product indexes int64 [R, k], and queries a second."""
    parts = [queries[begin : begin + _SEARCHED_AT_ONCE] for begin in range(0, len(queries), _SEARCHED_AT_ONCE)]
    begin = time.perf_counter()
    rows = [index.search(part, k).rows for part in parts]
    return np.concatenate(rows), len(queries) / (time.perf_counter() - begin)


def time_queries(
    index: ProductIndex, queries: np.ndarray, k: int, passes: int = 1, give_up_ms: float | None = None
) -> np.ndarray:
    """Milliseconds of each query alone, on one thread, after a warm-up.

    Args:
        index: searched.
        queries: float32 [R, d].
        k: results a query.
        passes: how often each query is timed; all of them once, then all of them again.
        give_up_ms: where the median of the first twenty is above it, only these are timed.

    Returns:
        float64 [passes, R], or [1, 20] where it was given up.
    """

    def one(row: int) -> float:
        begin = time.perf_counter()
        index.search(queries[row : row + 1], k)
        return 1_000 * (time.perf_counter() - begin)

    with threadpool_limits(1):
        for row in range(min(_WARM_UP, len(queries))):
            one(row)
        if give_up_ms is not None:
            first = np.array([one(row) for row in range(min(_LOOK_AHEAD, len(queries)))])
            if np.median(first) > give_up_ms:
                return first[np.newaxis]
        return np.array([[one(row) for row in range(len(queries))] for _ in range(passes)])


def latency(milliseconds: np.ndarray) -> dict[str, float]:
    """Percentiles over queries, each with the least of its passes, so that what another process takes does not count.

    Args:
        milliseconds: float [passes, R].

    Returns:
        `p50_ms`, `p99_ms`; `p99_all_ms`, over every single time.
    """
    of_query = milliseconds.min(axis=0)
    p50, p99 = np.percentile(of_query, [50, 99])
    return {"p50_ms": float(p50), "p99_ms": float(p99), "p99_all_ms": float(np.percentile(milliseconds, 99))}


class Builds:
    """Indexes by what they were built with, on disk, so that each is built once.

    What several of them have in common is made once: the cells of every family, and the codes that are re-ranked.

    Args:
        folder: where they are kept; the vectors must stay what they are.
        vectors: what is indexed.
        boosting: of the vectors.
        max_bytes: what `trim` leaves.
    """

    def __init__(
        self, folder: Path, vectors: ProductVectors, boosting: Boosting | None, max_bytes: int = _KEPT_BYTES
    ) -> None:
        self._folder = folder
        self._vectors = vectors
        self._boosting = boosting
        self._max_bytes = max_bytes
        self._loaded: tuple[str, Any] | None = None

    def index(self, spec: IndexSpec, max_seconds: float = math.inf) -> ProductIndex:
        """The index of a resolved spec; one is in memory at a time.

        Args:
            spec: resolved.
            max_seconds: see `build_index`.

        Raises:
            TooLongError: it is not built yet, and would take longer.
        """
        path = self.path(spec)
        if self._loaded is None or self._loaded[0] != path.name:
            self._loaded = None  # before the next one is there
            self._loaded = (path.name, self._load(spec, max_seconds))
        index = self._loaded[1]
        set_search(index, spec)
        return ProductIndex(index, spec, self._vectors, self._boosting)

    def facts(self, spec: IndexSpec) -> dict[str, float]:
        """What an index costs.

        Returns:
            `build_seconds` on all cores, from nothing; `bytes_per_vector` of the index file; `memory_per_vector`, all
            bytes that searches read: the index, bonuses, and the vectors where the index's own scores are not exact.
        """
        self.index(spec)
        facts = read_json(self._about(spec))
        size = facts["bytes_per_vector"]
        vector = 0 if spec.has_exact_scores else _FLOAT_BYTES * self._vectors.own_dim
        bonus = 0 if self._boosting is None else _FLOAT_BYTES
        return {
            "build_seconds": facts["build_seconds"],
            "bytes_per_vector": size,
            "memory_per_vector": size + vector + bonus,
        }

    def path(self, spec: IndexSpec) -> Path:
        """The index file of a resolved spec."""
        name = str(spec.only("build")).replace(":", "-").replace(",", "-").replace("=", "")
        return self._folder / f"{name}.faiss"

    def trim(self, kept: Iterable[IndexSpec]) -> None:
        """Remove index files, the oldest first, until there are `max_bytes` of them, but none of some specs.

        Args:
            kept: resolved; the index that is loaded stays, too.
        """
        names = {self.path(spec).name for spec in kept} | ({self._loaded[0]} if self._loaded else set())
        files = sorted(self._folder.glob("*.faiss"), key=lambda path: path.stat().st_mtime)
        excess = sum(path.stat().st_size for path in files) - self._max_bytes
        for path in files:
            if excess > 0 and path.name not in names:
                excess -= path.stat().st_size
                path.with_suffix(".json").unlink(missing_ok=True)  # first: it says that the index is there
                path.unlink()

    def _about(self, spec: IndexSpec) -> Path:
        return self.path(spec).with_suffix(".json")

    def _load(self, spec: IndexSpec, max_seconds: float = math.inf) -> Any:
        path, about = self.path(spec), self._about(spec)
        if about.exists():  # written last
            return read_index(path)
        index, seconds = self._build(spec, max_seconds)
        write_index(index, path)
        size = path.stat().st_size / len(self._vectors)
        write_json(about, {"index": str(spec.only("build")), "build_seconds": seconds, "bytes_per_vector": size})
        return index

    def _build(self, spec: IndexSpec, max_seconds: float) -> tuple[Any, float]:
        """An index, and the seconds that it would have taken from nothing."""
        if spec.codes is not None:
            codes = self._load(spec.codes)
            before: float = read_json(self._about(spec.codes))["build_seconds"]
            begin = time.perf_counter()
            index = with_store(codes, self._vectors, spec)
            return index, before + time.perf_counter() - begin
        cells, before = self._cells(spec.number("nlist")) if "nlist" in spec.values else (None, 0.0)
        begin = time.perf_counter()
        index = build_index(self._vectors, spec, cells=cells, max_seconds=max_seconds)
        return index, before + time.perf_counter() - begin

    def _cells(self, number: int) -> tuple[np.ndarray, float]:
        """`train_cells`, and the seconds that it took."""
        path = self._folder / f"cells-{number}.npz"
        if path.exists():
            with np.load(path) as kept:
                return kept["cells"], float(kept["seconds"])
        begin = time.perf_counter()
        cells = train_cells(self._vectors, number)
        seconds = time.perf_counter() - begin
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, cells=cells, seconds=seconds)
        return cells, seconds


def compare(
    specs: Sequence[IndexSpec],
    builds: Builds,
    reference: Reference,
    ks: Sequence[int],
    *,
    timed: int = 500,
    rounds: int = 3,
    on_step: Callable[[], None] = lambda: None,
) -> list[dict[str, Any]]:
    """Measure operating points on the same requests, turn by turn, so that none has the quiet minutes to itself.

    Args:
        specs: resolved.
        builds: where their indexes are.
        reference: requests.
        ks: of recall and overlap; the largest is searched for.
        timed: queries that are timed alone.
        rounds: times that each of these is timed.
        on_step: called after each index and round.

    Returns:
        A row for each spec, in their order: `index`, what `accuracy` and `latency` give, `queries_per_second`,
        and `facts` of the build.
    """
    k = max(ks)
    by_build = sorted(range(len(specs)), key=lambda number: builds.path(specs[number]).name)
    times: dict[int, list[np.ndarray]] = {number: [] for number in by_build}
    rows: dict[int, dict[str, Any]] = {}
    for turn in range(rounds):
        for number in by_build if turn % 2 == 0 else reversed(by_build):
            index = builds.index(specs[number])
            if turn == 0:
                found, queries_per_second = search_all(index, reference.queries, k)
                rows[number] = {
                    "index": str(specs[number]),
                    **accuracy(found, reference, ks),
                    "queries_per_second": queries_per_second,
                    **builds.facts(specs[number]),
                }
            times[number].append(time_queries(index, reference.queries[:timed], k))
            on_step()
    return [{**rows[number], **latency(np.concatenate(times[number]))} for number in range(len(specs))]
