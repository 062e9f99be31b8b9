"""What a training step reads: labelled pairs and the negatives sampled for their queries (BHNS 2.1.2, 3).

A step is a function of (seed, step): which pairs it has, the pool, and what the sampler draws. So a resumed run goes on
with the very pairs that it would have had, and nothing here knows TensorFlow.
"""

import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from uepp.errors import InputError
from uepp.features.batches import endless_order
from uepp.relevance.candidates import LabelledPairs, draw_pool
from uepp.relevance.samplers import Sampler


class StepPairs(NamedTuple):
    """The pairs of a step, P of them; the labelled ones first.

    Attributes:
        queries: int64 [P], rows of the labelled queries.
        products: int64 [P], rows of the labelled products.
        labels: float32 [P] in [0, 1].
        is_sampled: bool [P], whether the sampler chose the pair.
    """

    queries: NDArray[np.int64]
    products: NDArray[np.int64]
    labels: NDArray[np.float32]
    is_sampled: NDArray[np.bool_]


def check_batch(batch_size: int, num_pairs: int) -> None:
    """Raise `InputError` where the pairs that are trained on do not fill a step."""
    if num_pairs < batch_size:
        raise InputError(
            f"relevance.batch_size = {batch_size}: must be at most {num_pairs}, the pairs that are trained on"
        )


def check_pools(pool_sizes: Sequence[int], batch_size: int) -> None:
    """Raise `InputError` where a pool of `--pool-size` does not hold the pairs of a step."""
    for size in pool_sizes:
        if size < batch_size:
            raise InputError(f"--pool-size {size}: must be at least relevance.batch_size = {batch_size}")


class Steps:
    """All steps of a training.

    Args:
        labelled: pairs to train on, with the bi-encoder's embeddings.
        query_texts: [Nq] of the labelled queries.
        product_texts: [Np] of the labelled products.
        sampler: chooses negatives.
        batch_size: labelled pairs a step.
        pool_size: labelled pairs whose products are candidates.
        seed: of order, pools and sampler.

    Raises:
        InputError: there are fewer pairs than a step takes.
    """

    def __init__(
        self,
        labelled: LabelledPairs,
        query_texts: Sequence[str],
        product_texts: Sequence[str],
        sampler: Sampler,
        *,
        batch_size: int,
        pool_size: int,
        seed: int,
    ) -> None:
        check_batch(batch_size, len(labelled))
        self._labelled = labelled
        self._query_texts = _bytes(query_texts)
        self._product_texts = _bytes(product_texts)
        self._sampler = sampler
        self._batch_size = batch_size
        self._pool_size = pool_size
        self._seed = seed
        self._lock = threading.Lock()
        self._seconds = 0.0
        self._num_timed = 0

    @property
    def batch_size(self) -> int:
        """Labelled pairs a step."""
        return self._batch_size

    def pairs(self, step: int) -> StepPairs:
        """The pairs of a step; a function of (seed, step)."""
        batch = self.batch(step)
        begin = time.thread_time()
        pool = draw_pool(self._labelled, batch, self._pool_size, (self._seed, step))
        sampled = self._sampler(pool, (self._seed, step))
        seconds = time.thread_time() - begin
        with self._lock:
            self._seconds += seconds
            self._num_timed += 1
        labelled = self._labelled
        return StepPairs(
            np.concatenate([labelled.queries[batch], sampled.queries]),
            np.concatenate([labelled.products[batch], sampled.products]),
            np.concatenate([labelled.grades[batch], sampled.labels]),
            np.arange(len(batch) + len(sampled.labels)) >= len(batch),
        )

    def batch(self, step: int) -> NDArray[np.int64]:
        """Positions of the labelled pairs of a step, distinct.

        Each epoch is in an order of its own. What is left at its end and would not fill a step is left out, so that no
        step holds a pair of two epochs twice.
        """
        each, size = len(self._labelled) // self._batch_size, len(self._labelled)
        epoch, within = divmod(step, each)
        places = epoch * size + within * self._batch_size + np.arange(self._batch_size)
        return endless_order(places, size, self._seed << 64)

    def texts(self, pairs: StepPairs) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
        """UTF-8 of queries and products, [P] each."""
        return self._query_texts[pairs.queries], self._product_texts[pairs.products]

    def sampler_seconds(self) -> float:
        """Processor time of pool and sampler, the mean of all steps that were made; 0 without one.

        Not since a row of the log: the input runs ahead of the steps that a row is of.
        """
        with self._lock:
            return self._seconds / self._num_timed if self._num_timed else 0.0


def _bytes(texts: Sequence[str]) -> NDArray[np.object_]:
    found = np.empty(len(texts), object)
    found[:] = [text.encode() for text in texts]
    return found
