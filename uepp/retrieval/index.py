"""The Faiss index over product vectors, by inner product (UEPPR V)."""

from pathlib import Path

import faiss
import numpy as np

from uepp.artifacts import atomic_file
from uepp.config import ExportConfig


def build_index(vectors: np.ndarray, config: ExportConfig) -> faiss.Index:
    """Index unit vectors.

    Args:
        vectors: float32 [N, d].
        config: `flat` (exact) or `hnsw` with its parameters.
    """
    dim = vectors.shape[1]
    index: faiss.Index
    if config.index == "flat":
        index = faiss.IndexFlatIP(dim)
    else:
        index = faiss.IndexHNSWFlat(dim, config.hnsw_neighbors, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = config.hnsw_ef_construction
        index.hnsw.efSearch = config.hnsw_ef_search
    index.add(np.ascontiguousarray(vectors, np.float32))
    return index


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
        found = faiss.knn(
            np.ascontiguousarray(queries), np.ascontiguousarray(vectors), width, metric=faiss.METRIC_INNER_PRODUCT
        )
        scores[:, :width], product_index[:, :width] = found
    return product_index, scores
