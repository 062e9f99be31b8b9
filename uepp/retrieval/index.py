"""The Faiss index over product vectors, by inner product (UEPPR V): built chunk by chunk, searched."""

import math
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import faiss
import numpy as np
from rich.progress import track
from threadpoolctl import threadpool_limits

from uepp.artifacts import atomic_file
from uepp.index_families import IndexSpec
from uepp.retrieval.vectors import CHUNK_ROWS, ProductVectors

T = TypeVar("T")

_SEED = 1
_TRAINING_ROWS_PER_CELL = 64
_MIN_TRAINING_ROWS = 16_384
_CODE_TRAINING_ROWS = 4_096  # what Faiss takes at most: 256 for each of 16 codes
_GROWN_AT_ONCE = 16_384
_MIN_MATRIX_QUERIES = 20


class TooLongError(Exception):
    """An index was given up, since building it would take longer than allowed.

    Attributes:
        seconds: that it would take, as far as one can say from its beginning.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"{seconds:.0f} s or more")
        self.seconds = seconds


def build_index(
    vectors: ProductVectors, spec: IndexSpec, *, cells: np.ndarray | None = None, max_seconds: float = math.inf
) -> faiss.Index:
    """Index a catalogue.

    One index takes the vectors of all shards, chunk by chunk; one that re-ranks gets its store when its codes are
    there. Beside the index there is one chunk of vectors in memory, and in training its sample. Indexes of shards are
    not merged: Faiss 1.15 writes beyond its arrays where it puts FastScan codes behind a cell that has a multiple of
    32·⌈M/2⌉ entries (`BlockInvertedLists::add_entries` takes that number of bytes for one of entries).

    Args:
        vectors: what to index.
        spec: resolved for these vectors.
        cells: of `train_cells`, where they were trained before; none: they are trained.
        max_seconds: that a graph may grow; the others take minutes at most.

    Raises:
        TooLongError: it would take more than `max_seconds`.
    """
    if spec.codes is not None:
        return with_store(build_index(vectors, spec.codes, cells=cells), vectors, spec)
    index = train_index(vectors, spec, cells)
    if spec.family == "hnsw":
        _grow(index, vectors, spec, max_seconds)
    else:
        add(index, _shown(vectors.chunks(), spec.family, math.ceil(len(vectors) / CHUNK_ROWS)))
    return index


def train_cells(vectors: ProductVectors, number: int) -> np.ndarray:
    """Centres of the cells that a catalogue is divided into, float32 [number, D], the same for the same vectors.

    By the k-means that all families with cells share, of a sample of 64 products a cell, at least 16,384.
    """
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(vectors.dim), vectors.dim, number, faiss.METRIC_INNER_PRODUCT)
    _seed(index.cp)
    index.train(vectors.sample(max(_TRAINING_ROWS_PER_CELL * number, _MIN_TRAINING_ROWS), _SEED))
    centres: np.ndarray = index.quantizer.reconstruct_n(0, number)
    return centres


def train_index(vectors: ProductVectors, spec: IndexSpec, cells: np.ndarray | None = None) -> faiss.Index:
    """An empty index that products can be added to, the same for the same vectors and spec.

    Args:
        vectors: what cells and codes are learned from.
        spec: resolved, of a family that does not re-rank.
        cells: see `build_index`.
    """
    index = _untrained(spec, vectors.dim)
    set_search(index, spec)
    ivf = _ivf(index)
    if ivf is None:
        return index
    if cells is None:
        cells = train_cells(vectors, spec.number("nlist"))
    ivf.quantizer.add(np.pad(cells, [(0, 0), (0, ivf.d - vectors.dim)]))
    # Cells that are there are not trained again, so what is left are codes, if any.
    if "subquantizers" not in spec.values:
        index.train(cells)
        return index
    _seed(ivf.pq.cp)
    with threadpool_limits(1):  # a k-means of 16 centres for each part: threads would only wait for each other
        index.train(vectors.sample(_CODE_TRAINING_ROWS, _SEED))
    return index


def with_store(codes: faiss.Index, vectors: ProductVectors, spec: IndexSpec) -> faiss.Index:
    """An index that re-ranks what its codes find (UEPPR V).

    Args:
        codes: the index of `spec.codes`, with all products; it becomes part of the new one.
        vectors: the same.
        spec: resolved, of a family that re-ranks.
    """
    store: faiss.Index
    if spec.values["store"] == "flat":
        store = faiss.IndexFlatIP(vectors.dim)
    else:
        store = faiss.IndexScalarQuantizer(vectors.dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    add(store, vectors.chunks())
    index = faiss.IndexRefine(codes, store)
    set_search(index, spec)
    return index


def add(index: faiss.Index, chunks: Iterable[np.ndarray]) -> None:
    """Add products, chunk by chunk, float32 [n, D] each."""
    for chunk in chunks:
        index.add(np.ascontiguousarray(chunk, np.float32))


def set_search(index: Any, spec: IndexSpec) -> None:
    """Let an index search as a spec says; the one place where search parameters reach Faiss.

    They are set on the index, not given with a call: some of Faiss' indexes ignore what comes with a call.
    """
    values = spec.values
    ivf = _ivf(index)
    if "ef_search" in values:
        index.hnsw.efSearch = spec.number("ef_search")
    if "nprobe" in values and ivf is not None:
        ivf.nprobe = spec.number("nprobe")
    if "rerank" in values:
        index.k_factor = float(values["rerank"])


def write_index(index: faiss.Index, path: Path) -> None:
    """Write an index file, whole or not at all."""
    with atomic_file(path) as temporary:
        faiss.write_index(index, str(temporary))


def read_index(path: Path) -> faiss.Index:
    """Read an index. Check the export's manifest first: Faiss loads damaged files without complaint."""
    return faiss.read_index(str(path))


def search_exact(queries: np.ndarray, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k products of highest inner product, by comparing with every vector; the reference for every index.

    Args:
        queries: float32 [B, d].
        vectors: float32 [N, d].
        k: results a query.

    Returns:
        product_index int64 [B, k], best first, -1 where k > N; scores float32 [B, k], -inf there.
    """
    width = min(k, len(vectors))
    product_index = np.full((len(queries), k), -1, np.int64)
    scores = np.full((len(queries), k), -np.inf, np.float32)
    if len(queries) and width:
        queries, vectors = np.ascontiguousarray(queries), np.ascontiguousarray(vectors)
        with _matrix_products(_MIN_MATRIX_QUERIES * queries.shape[1]):
            found = faiss.knn(queries, vectors, width, metric=faiss.METRIC_INNER_PRODUCT)
        scores[:, :width], product_index[:, :width] = found
    return product_index, scores


@contextmanager
def _matrix_products(least: int) -> Iterator[None]:
    """Let Faiss multiply matrices (BLAS) from `least` numbers in the queries on.

    Since 1.15 (facebookresearch/faiss#5022) it does so from 128,000 numbers only, 1,000 queries of 128, which suits
    many cores: on few a day's requests would take five times as long. Other searches keep Faiss' own threshold: below
    it, a query's scores do not depend on what else is in its batch.
    """
    usual = faiss.cvar.distance_compute_blas_threshold
    faiss.cvar.distance_compute_blas_threshold = least
    try:
        yield
    finally:
        faiss.cvar.distance_compute_blas_threshold = usual


def search_exact_chunks(queries: np.ndarray, chunks: Iterable[np.ndarray], k: int) -> tuple[np.ndarray, np.ndarray]:
    """`search_exact` over vectors that come in chunks, in order, of which one is in memory at a time."""
    best_rows = np.full((len(queries), k), -1, np.int64)
    best_scores = np.full((len(queries), k), -np.inf, np.float32)
    first = 0
    for chunk in chunks:
        rows, scores = search_exact(queries, chunk, k)
        rows = np.where(rows >= 0, rows + first, -1)
        rows, scores = np.concatenate([best_rows, rows], axis=1), np.concatenate([best_scores, scores], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        best_rows, best_scores = np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)
        first += len(chunk)
    return best_rows, best_scores


def _grow(index: faiss.Index, vectors: ProductVectors, spec: IndexSpec, max_seconds: float) -> None:
    """Add all products to a graph, as long as it seems to be done in time: each costs a walk, of log(n) steps."""
    begin, number = time.monotonic(), len(vectors)
    for chunk in _shown(vectors.chunks(rows=_GROWN_AT_ONCE), spec.family, number / _GROWN_AT_ONCE):
        add(index, [chunk])
        done = index.ntotal
        if done < number:
            seconds = (time.monotonic() - begin) * number * math.log(number) / (done * math.log(done))
            if seconds > max_seconds:
                raise TooLongError(seconds)


def _seed(clustering: Any) -> None:
    clustering.seed = _SEED
    clustering.min_points_per_centroid = 1  # few products are no reason for a warning on standard error


def _shown(things: Iterable[T], what: str, number: float) -> Iterable[T]:
    """With a bar, where somebody looks."""
    return track(things, what, number, transient=True, disable=not sys.stdout.isatty())


def _untrained(spec: IndexSpec, dim: int) -> faiss.Index:
    """The Faiss index of a resolved spec, without products."""
    if spec.family == "flat":
        return faiss.IndexFlatIP(dim)
    if spec.family == "hnsw":
        hnsw = faiss.IndexHNSWFlat(dim, spec.number("neighbors"), faiss.METRIC_INNER_PRODUCT)
        hnsw.hnsw.efConstruction = spec.number("ef_construction")
        return hnsw
    cells = f"IVF{spec.number('nlist')}"
    if spec.family == "ivf-flat":
        return faiss.index_factory(dim, f"{cells},Flat", faiss.METRIC_INNER_PRODUCT)
    parts = spec.number("subquantizers")
    # All parts have the same width; zeros behind the vector change no inner product.
    padding = f"Pad{-(-dim // parts) * parts}," if dim % parts else ""
    codes = f"{padding}{cells},PQ{parts}x4fs{'r' if spec.values['residual'] else ''}"
    return faiss.index_factory(dim, codes, faiss.METRIC_INNER_PRODUCT)


def _ivf(index: faiss.Index) -> Any:
    """The inverted file within an index; none: it has none."""
    if isinstance(index, faiss.IndexRefine):
        return _ivf(faiss.downcast_index(index.base_index))
    if isinstance(index, faiss.IndexPreTransform):
        return _ivf(faiss.downcast_index(index.index))
    return index if isinstance(index, faiss.IndexIVF) else None
