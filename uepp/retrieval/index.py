"""The Faiss index over product vectors, by inner product (UEPPR V): built in chunks, merged, searched."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import faiss
import numpy as np
from rich.progress import track

from uepp.artifacts import atomic_file
from uepp.index_families import FAMILIES, IndexSpec
from uepp.retrieval.vectors import CHUNK_ROWS, ProductVectors

T = TypeVar("T")

_SEED = 1
_TRAINING_ROWS_PER_CELL = 64
_MIN_TRAINING_ROWS = 16_384
_MIN_MATRIX_QUERIES = 20


def build_index(vectors: ProductVectors, spec: IndexSpec) -> faiss.Index:
    """Index a catalogue.

    Each shard becomes an index of its own that is put behind those before it (what processes of their own can do
    likewise, with `train_index`, `add` and `merge`); a family that cannot be merged grows in one piece. Beside the
    index there is one chunk of vectors in memory, and in training its sample.

    Args:
        vectors: what to index.
        spec: resolved for these vectors.
    """
    empty = train_index(vectors, spec)
    if not FAMILIES[spec.family].merges:
        add(empty, _shown(vectors.chunks(), spec.family, len(vectors) / CHUNK_ROWS))
        return empty
    index = faiss.clone_index(empty)
    for begin, end in _shown(vectors.parts, spec.family, len(vectors.parts)):
        part = faiss.clone_index(empty)
        add(part, vectors.chunks(begin, end))
        merge(index, part)
    return index


def train_index(vectors: ProductVectors, spec: IndexSpec) -> faiss.Index:
    """An empty index that products can be added to, the same for the same vectors and spec.

    Cells and codes are learned from a sample of 64 products a cell, at least 16,384.
    """
    index = _untrained(spec, vectors.dim)
    set_search(index, spec)
    ivf = _ivf(index)
    if ivf is None:
        return index
    clusterings = [ivf.cp, ivf.pq.cp] if "subquantizers" in spec.values else [ivf.cp]
    for clustering in clusterings:
        clustering.seed = _SEED
        clustering.min_points_per_centroid = 1  # few products are no reason for a warning on standard error
    number = max(_TRAINING_ROWS_PER_CELL * spec.number("nlist"), _MIN_TRAINING_ROWS)
    index.train(vectors.sample(number, _SEED))
    return index


def add(index: faiss.Index, chunks: Iterable[np.ndarray]) -> None:
    """Add products, chunk by chunk, float32 [n, D] each."""
    for chunk in chunks:
        index.add(np.ascontiguousarray(chunk, np.float32))


def merge(index: Any, part: Any) -> None:
    """Put the products of `part` behind those of `index`; `part` is empty then.

    Both must come from one trained index of a family that merges.
    """
    first = index.ntotal
    if isinstance(index, faiss.IndexRefine):
        merge(faiss.downcast_index(index.base_index), faiss.downcast_index(part.base_index))
        merge(faiss.downcast_index(index.refine_index), faiss.downcast_index(part.refine_index))
        index.ntotal, part.ntotal = index.base_index.ntotal, 0
    elif _ivf(index) is None:
        index.merge_from(part)  # products of a plain list are numbered by their place
    else:
        index.merge_from(part, first)


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
    coded = faiss.index_factory(dim, codes, faiss.METRIC_INNER_PRODUCT)
    if spec.family == "ivf-pq-fastscan":
        return coded
    store: faiss.Index
    if spec.values["store"] == "flat":
        store = faiss.IndexFlatIP(dim)
    else:
        store = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    return faiss.IndexRefine(coded, store)


def _ivf(index: faiss.Index) -> Any:
    """The inverted file within an index; none: it has none."""
    if isinstance(index, faiss.IndexRefine):
        return _ivf(faiss.downcast_index(index.base_index))
    if isinstance(index, faiss.IndexPreTransform):
        return _ivf(faiss.downcast_index(index.index))
    return index if isinstance(index, faiss.IndexIVF) else None
