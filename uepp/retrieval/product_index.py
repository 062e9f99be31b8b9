"""A catalogue's index as search uses it: query vectors in; product indexes, scores and similarities out."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np

from uepp.artifacts import fingerprint, link, read_json, sha256, write_json
from uepp.errors import InputError
from uepp.index_families import AUTO, IndexSpec, choose_family, parse_spec, resolve
from uepp.retrieval.boosting import BOOSTING, Boosting, read_boosting
from uepp.retrieval.index import build_index, read_index, set_search, write_index
from uepp.retrieval.vectors import ProductVectors

INDEX = "index.faiss"
SERVING = "serving.json"
_QUERIES_A_THREAD = 8


class Found(NamedTuple):
    """The K best products of each of B queries, best first.

    Attributes:
        rows: int64 [B, K] product indexes; -1: an approximate index, or a small catalogue, gave fewer.
        scores: float32 [B, K], what is ranked by; -inf where there is no product.
        similarities: float32 [B, K] cosines; the scores where nothing is boosted.
    """

    rows: np.ndarray
    scores: np.ndarray
    similarities: np.ndarray

    def continued(self, deeper: "Found") -> "Found":
        """These products, then those that only a deeper search found, in its order: as many as that one has, K.

        Args:
            deeper: of the same queries, [B, K].
        """
        again = [np.isin(found, known) for found, known in zip(deeper.rows, self.rows, strict=True)]
        rows = np.concatenate([self.rows, np.where(again, -1, deeper.rows)], axis=1)
        places = np.argsort(rows < 0, axis=1, kind="stable")[:, : deeper.rows.shape[1]]
        rows = np.take_along_axis(rows, places, axis=1)
        both = (np.concatenate(parts, axis=1) for parts in zip(self[1:], deeper[1:], strict=True))
        scores, similarities = (np.where(rows < 0, -np.inf, np.take_along_axis(a, places, axis=1)) for a in both)
        return Found(rows, scores, similarities)


class ProductIndex:
    """An index with the vectors that it was built of and their boosting.

    Searching is safe from many threads. Faiss uses a core for every eight queries of a call, at most all;
    `threadpoolctl.threadpool_limits`, in the thread that searches, gives it fewer.

    Args:
        index: built from `vectors`.
        spec: what it was built and is searched with, resolved.
        vectors: of the catalogue.
        boosting: of the vectors; none: they are not hydrated.
    """

    def __init__(
        self, index: faiss.Index, spec: IndexSpec, vectors: ProductVectors, boosting: Boosting | None = None
    ) -> None:
        self.spec = spec
        self.num_products = len(vectors)
        self.faiss_index = index
        self._vectors = vectors
        self._boosting = boosting

    @classmethod
    def open(cls, export: Path) -> "ProductIndex":
        """The index of an export whose manifest was checked.

        Raises:
            InputError: an index of another number of products than there are vectors, or another version's.
        """
        served = read_serving(export)
        index, vectors = read_index(export / INDEX), ProductVectors.open(export)
        if (index.ntotal, index.d) != (len(vectors), vectors.dim):
            raise InputError(
                f"{export / INDEX}: {index.ntotal:,} products of {index.d} dimensions, but vectors/ has "
                f"{len(vectors):,} of {vectors.dim}; build the index again with: uepp export RUN --index SPEC"
            )
        spec = parse_spec(served["index"])
        set_search(index, spec)
        return cls(index, spec, vectors, read_boosting(export))

    def search(self, queries: np.ndarray, k: int, *, boosted: bool = True) -> Found:
        """The best products.

        Args:
            queries: float32 [B, d], of length 1.
            k: K, results a query.
            boosted: whether quality counts, where the export is boosted.
        """
        bonus, asked = None, queries
        if self._boosting is not None:
            asked = self._boosting.queries(queries)
            if not boosted:
                asked[:, queries.shape[1] :] = 0
        width = min(k, self.num_products)
        with _threads_for(len(asked)):
            scores, rows = self.faiss_index.search(np.ascontiguousarray(asked, np.float32), width)
        scores[rows < 0] = -np.inf
        if self._boosting is not None and boosted:
            bonus = self._boosting.bonus(rows)
        if self.spec.has_exact_scores:
            similarities = scores if bonus is None else scores - bonus
        else:
            similarities = self._vectors.similarities(queries, rows)
            scores = similarities if bonus is None else similarities + bonus
            order = np.argsort(-scores, axis=1, kind="stable")
            rows, scores, similarities = (np.take_along_axis(a, order, axis=1) for a in (rows, scores, similarities))
        return Found(_wide(rows, k, -1), _wide(scores, k, -np.inf), _wide(similarities, k, -np.inf))

    def search_on(self, queries: np.ndarray, depths: Sequence[int], *, boosted: bool = True) -> Found:
        """The best products of the last depth, which begin with those of each depth before.

        An approximate index that is asked for 400 need not begin with the 200 that it gives when it is asked for these
        (it re-ranks, or walks, further), and equal scores are ordered anyhow. So each depth is searched, and what only
        a deeper one finds stands behind the others, whatever its score.

        Args:
            queries: float32 [B, d], of length 1.
            depths: increasing; the last is K.
            boosted: as of `search`.
        """
        found = self.search(queries, depths[0], boosted=boosted)
        for depth in depths[1:]:
            found = found.continued(self.search(queries, depth, boosted=boosted))
        return found


def read_serving(export: Path) -> dict[str, Any]:
    """`serving.json` of an export: the index, and the operating point that was tuned.

    Raises:
        InputError: none, or not of this version.
    """
    served = read_json(export / SERVING)
    try:
        parse_spec(served["index"])
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputError(
            f"{export / SERVING}: names no index that this version knows; build it with: uepp export RUN --index SPEC"
        ) from None
    return served


def write_product_index(
    folder: Path, index: str, tuned: dict[str, Any] | None = None, built: Path | None = None
) -> None:
    """Put the index and `serving.json` into a folder that has vectors, and is to become an export.

    Args:
        folder: with `vectors/`, and `boosting.json` where it is boosted.
        index: spec; `auto`: the tuned one, else by the number of products (`choose_family`).
        tuned: operating point that holds for these vectors; none: nothing was tuned.
        built: file of this very index, built before; none: build it.

    Raises:
        InputError: a parameter that does not fit these vectors.
    """
    vectors = ProductVectors.open(folder)
    spec = choose_spec(index, len(vectors), vectors.dim, tuned)
    if built is None:
        write_index(build_index(vectors, spec), folder / INDEX)
    else:
        link(built, folder / INDEX)
    write_json(folder / SERVING, {"index": str(spec), "tuned": tuned})


def choose_spec(index: str, num_products: int, dim: int, tuned: dict[str, Any] | None = None) -> IndexSpec:
    """The resolved spec that some vectors are indexed with; arguments and errors as of `write_product_index`."""
    spec = parse_spec(index)
    if spec.family == AUTO:
        spec = parse_spec(choose_family(num_products) if tuned is None else tuned["index"])
    return resolve(spec, num_products, dim)


def carried_point(old: Path, new: Path) -> dict[str, Any] | None:
    """The operating point that was tuned for an export, where it holds for another one: same towers, same boosting."""
    try:
        tuned: dict[str, Any] = read_json(old / SERVING)["tuned"]
        parse_spec(tuned["index"])
        return tuned if tuned["key"] == tuned_key(new) else None
    except (InputError, KeyError, TypeError, ValueError, AttributeError):
        return None  # nothing tuned, or damaged: that is what an export mends


def tuned_key(export: Path) -> str:
    """What a tuned operating point belongs to: the weights of both towers, and the boosting.

    Not the catalogue: a point stays good while products come and go (UEPPR V tunes when the model changes).
    """
    files = sorted(export.glob("*_tower/variables/variables.data-*"))
    files += [path for path in (export / BOOSTING,) if path.exists()]
    return fingerprint({str(path.relative_to(export)): sha256(path) for path in files})


@contextmanager
def _threads_for(number: int) -> Iterator[None]:
    """Let Faiss use only as many threads as so many queries are worth.

    Each further thread must be waited for until a core is free for it, and OpenMP waits by spinning: where other
    threads are busy (the tower's, the server's) one query takes many times as long on two threads as on one.
    """
    allowed = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(max(1, min(allowed, number // _QUERIES_A_THREAD)))
    try:
        yield
    finally:
        faiss.omp_set_num_threads(allowed)


def _wide(found: np.ndarray, k: int, missing: float) -> np.ndarray:
    """K columns: the found ones, then what marks a missing one."""
    if found.shape[1] == k:
        return found
    filling = np.full((len(found), k - found.shape[1]), missing, found.dtype)
    return np.concatenate([found, filling], axis=1)
