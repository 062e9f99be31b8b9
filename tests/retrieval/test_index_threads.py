"""A search takes as many threads as its queries are worth, and leaves the caller's number as it was.

One query on two threads took 50 ms instead of 0.7 on two cores that were busy with other work (2026-11-21): the second
thread had to be waited for.
"""

from collections.abc import Iterator

import faiss
import numpy as np
import pytest

from uepp.index_families import parse_spec, resolve
from uepp.retrieval.index import build_index
from uepp.retrieval.product_index import ProductIndex
from uepp.retrieval.vectors import ProductVectors

VECTORS = np.eye(4, dtype=np.float32)


class Watched:
    """An index that remembers how many threads it could have used."""

    def __init__(self, index: faiss.Index) -> None:
        self._index = index
        self.threads: list[int] = []
        self.is_broken = False

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        self.threads.append(faiss.omp_get_max_threads())
        if self.is_broken:
            raise RuntimeError("broken")
        return self._index.search(queries, k)


@pytest.fixture
def index() -> Iterator[ProductIndex]:
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(3)
    vectors = ProductVectors([VECTORS])
    spec = resolve(parse_spec("flat"), *VECTORS.shape)
    yield ProductIndex(Watched(build_index(vectors, spec)), spec, vectors)
    faiss.omp_set_num_threads(before)


@pytest.mark.parametrize(("number", "threads"), [(1, 1), (15, 1), (16, 2), (24, 3), (200, 3)])
def test_threads_of_a_search(index: ProductIndex, number: int, threads: int) -> None:
    queries = np.tile(VECTORS, (50, 1))[:number]
    found = index.search(queries, 1)
    assert found.rows[:, 0].tolist() == [n % 4 for n in range(number)]
    assert index.faiss_index.threads == [threads]
    assert faiss.omp_get_max_threads() == 3


def test_a_search_that_fails_leaves_the_number_as_it_was(index: ProductIndex) -> None:
    index.faiss_index.is_broken = True
    with pytest.raises(RuntimeError, match="broken"):
        index.search(VECTORS[:1], 1)
    assert index.faiss_index.threads == [1]
    assert faiss.omp_get_max_threads() == 3
