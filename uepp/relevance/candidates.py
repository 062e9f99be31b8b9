"""What is labelled, and the pools of products that negatives are sampled from (BHNS 2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray

from uepp.errors import InputError
from uepp.relevance.false_negatives import Floats, false_negative_estimate

Seed = int | Sequence[int]
"""Whatever is drawn is a function of it alone; (seed, step) gives each step draws of its own."""

_POOL_STREAM = 1  # a pool and a sampler that share a seed must not share draws


class LabelledPairs:
    """All labelled pairs of query and product, and the frozen bi-encoder's embeddings of both.

    Pairs are sorted by query, then product. A pair that was labelled several times has the mean of its grades
    (BHNS 4.2.1).

    Attributes:
        queries: int64 [N], row of `query_embeddings`.
        products: int64 [N], row of `product_embeddings`.
        grades: float32 [N], r in [0, 1].
        query_embeddings: float32 [Nq, D], length 1, or zeros.
        product_embeddings: float32 [Np, D], likewise.
        positive_above: grades above it say that query and product are positively related.
    """

    def __init__(
        self,
        queries: ArrayLike,
        products: ArrayLike,
        grades: ArrayLike,
        query_embeddings: ArrayLike,
        product_embeddings: ArrayLike,
        *,
        positive_above: float = 0.0,
        also_known: tuple[ArrayLike, ArrayLike] = ((), ()),
    ) -> None:
        """Check and sort.

        Args:
            queries: int [N], row of `query_embeddings`. The same text must be the same row: known answers are kept
                from being negatives by row.
            products: int [N], row of `product_embeddings`, likewise.
            grades: float [N] in [0, 1].
            query_embeddings: float [Nq, D], of any length.
            product_embeddings: float [Np, D], of any length.
            positive_above: in [0, 1).
            also_known: rows of queries and of products, int [M] each, of pairs whose answer is known without a grade of
                their own: no negatives, nor trained on.

        Raises:
            InputError: a value is out of its range.
        """
        if not 0 <= positive_above < 1:
            raise InputError(f"positive_above = {positive_above}: must be at least 0 and below 1")
        self.positive_above = positive_above
        self.query_embeddings = _unit_rows(query_embeddings, "query")
        self.product_embeddings = _unit_rows(product_embeddings, "product")
        if self.query_embeddings.shape[1] != self.product_embeddings.shape[1]:
            dims = self.query_embeddings.shape[1], self.product_embeddings.shape[1]
            raise InputError(
                f"embeddings of queries have {dims[0]} dimensions, of products {dims[1]}; expected the same"
            )
        query, product = np.asarray(queries, np.int64), np.asarray(products, np.int64)
        grade = np.asarray(grades, np.float64)
        if not query.shape == product.shape == grade.shape or query.ndim != 1:
            raise InputError(
                f"labelled pairs: {query.shape}, {product.shape} and {grade.shape} values; expected as many"
            )
        _refuse_outside(query, len(self.query_embeddings), "query")
        _refuse_outside(product, len(self.product_embeddings), "product")
        is_wrong = ~((grade >= 0) & (grade <= 1))
        if is_wrong.any():
            first = int(is_wrong.argmax())
            raise InputError(f"labelled pair {first}: grade {grade[first]}; must be 0 to 1")
        # One number a pair sorts faster than two, and 2^63 is beyond any catalogue times any log.
        num_products = max(1, len(self.product_embeddings))
        pair, inverse = np.unique(query * num_products + product, return_inverse=True)
        self.queries, self.products = np.divmod(pair, num_products)
        total = np.bincount(inverse, weights=grade, minlength=len(pair))
        self.grades = (total / np.maximum(np.bincount(inverse, minlength=len(pair)), 1)).astype(np.float32)
        self._by_query = _ByQuery(self.queries, len(self.query_embeddings))
        other_query, other_product = (np.asarray(rows, np.int64) for rows in also_known)
        _refuse_outside(other_query, len(self.query_embeddings), "also known query")
        _refuse_outside(other_product, len(self.product_embeddings), "also known product")
        known = np.union1d(pair, other_query * num_products + other_product)
        known_queries, self._known_products = np.divmod(known, num_products)
        self._known_by_query = _ByQuery(known_queries, len(self.query_embeddings))

    def __len__(self) -> int:
        """Number of pairs, N."""
        return len(self.queries)

    def of(self, queries: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All pairs of some queries: positions in `queries` and positions among the pairs, int64 [T] each."""
        return self._by_query.of(queries)

    def known_of(self, queries: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What is no negative of some queries: positions in `queries` and rows of products, int64 [T] each."""
        row, place = self._known_by_query.of(queries)
        return row, self._known_products[place]


class _ByQuery:
    """Where the pairs of each query are, among pairs that are sorted by it."""

    def __init__(self, queries: NDArray[np.int64], num_queries: int) -> None:
        self._begin = np.concatenate([[0], np.cumsum(np.bincount(queries, minlength=num_queries))])

    def of(self, queries: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions in `queries` and positions among the pairs, int64 [T] each."""
        begin, end = self._begin[queries], self._begin[queries + 1]
        lengths = end - begin
        row = np.repeat(np.arange(len(queries)), lengths)
        return row, np.arange(len(row)) + (begin - (np.cumsum(lengths) - lengths))[row]


@dataclass(frozen=True, eq=False)
class Pool:
    """The queries that get negatives, the products these are chosen from, and what is known between them.

    What a sampler needs is computed when it is first asked for, so that random sampling costs no similarity.

    Attributes:
        labelled: everything that is labelled, in this pool or not.
        queries: int64 [B], distinct.
        products: int64 [C], distinct and increasing.
        related_queries: int64 [Q], distinct: the queries t of Eq. 6, by way of which θ is estimated.
    """

    labelled: LabelledPairs
    queries: NDArray[np.int64]
    products: NDArray[np.int64]
    related_queries: NDArray[np.int64]

    @cached_property
    def is_candidate(self) -> NDArray[np.bool_]:
        """Bool [B, C], True where nobody has labelled the pair: P − P⁺ᵢ. A label of 0 is a label."""
        mask = np.ones((len(self.queries), len(self.products)), bool)
        row, product = self.labelled.known_of(self.queries)
        column, is_here = self._columns(product)
        mask[row[is_here], column[is_here]] = False
        return mask

    @cached_property
    def similarity(self) -> Floats:
        """float32 [B, C], cosine of each query and product (BHNS Eq. 2)."""
        return self._embedded_queries @ self._embedded_products.T

    @cached_property
    def theta(self) -> Floats:
        """float32 [B, C], θ (BHNS Eq. 6); without meaning where the pair is labelled."""
        row, column, grade = self._labels(self.related_queries)
        is_positive = grade > self.labelled.positive_above
        relevance = scipy.sparse.csr_array(
            (grade[is_positive], (row[is_positive], column[is_positive])),
            shape=(len(self.related_queries), len(self.products)),
        )
        return false_negative_estimate(
            self._embedded_queries @ self.labelled.query_embeddings[self.related_queries].T, relevance
        )

    @cached_property
    def similarity_to_positives(self) -> Floats:
        """float32 [B, C], cosine of each product and the query's nearest positive; −inf for a query without one."""
        row, pair = self.labelled.of(self.queries)
        is_positive = self.labelled.grades[pair] > self.labelled.positive_above
        row, pair = row[is_positive], pair[is_positive]
        nearest = np.full((len(self.queries), len(self.products)), -np.inf, np.float32)
        if len(row):
            positive, place = np.unique(self.labelled.products[pair], return_inverse=True)
            similarity = self.labelled.product_embeddings[positive] @ self._embedded_products.T
            first = np.flatnonzero(np.diff(row, prepend=-1))
            nearest[row[first]] = np.maximum.reduceat(similarity[place], first, axis=0)
        return nearest

    @cached_property
    def _embedded_queries(self) -> Floats:
        return self.labelled.query_embeddings[self.queries]

    @cached_property
    def _embedded_products(self) -> Floats:
        return self.labelled.product_embeddings[self.products]

    def _labels(self, queries: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
        """Labels between some queries and the pool's products: row, column and grade, [T] each."""
        row, pair = self.labelled.of(queries)
        column, is_here = self._columns(self.labelled.products[pair])
        return row[is_here], column[is_here], self.labelled.grades[pair[is_here]]

    def _columns(self, products: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The column of each product, int64 [T], and whether it has one."""
        if not len(self.products):
            return np.zeros(len(products), np.int64), np.zeros(len(products), bool)
        column = np.minimum(np.searchsorted(self.products, products), len(self.products) - 1)
        return column, self.products[column] == products


def draw_pool(labelled: LabelledPairs, batch: ArrayLike, pool_size: int, seed: Seed) -> Pool:
    """The pool of a batch: its own pairs, and others drawn uniformly without replacement.

    Pairs bring their queries with them, so θ knows every product by at least one query, where its grade is positive.
    With as many as the batch has it is the paper's in-batch sampling; the larger the pool, the harder the hardest, and
    the more of them are false negatives.

    Args:
        labelled: all labelled pairs.
        batch: int [n], positions of the batch's pairs, distinct.
        pool_size: pairs in the pool, the batch's own included; all pairs where it is more than there are.
        seed: of the draw.

    Returns:
        The pool; its queries are the batch's distinct ones, increasing.

    Raises:
        InputError: the pool is smaller than the batch, or a position is out of range or there twice.
    """
    own = np.unique(np.asarray(batch, np.int64))
    if len(own) != np.size(batch):
        raise InputError(f"batch: {np.size(batch)} positions, {len(own)} of them distinct; expected all distinct")
    _refuse_outside(own, len(labelled), "pair")
    if pool_size < len(own):
        raise InputError(f"pool_size = {pool_size}: must be at least {len(own)}, the pairs of the batch")
    num_others = len(labelled) - len(own)
    drawn = generator(seed, _POOL_STREAM).choice(
        num_others, min(pool_size - len(own), num_others), replace=False, shuffle=False
    )
    # Place k among the others is pair k plus as many pairs of the batch as lie before it.
    others = drawn + np.searchsorted(own - np.arange(len(own)), drawn, side="right")
    pairs = np.concatenate([own, others])
    return Pool(
        labelled,
        queries=np.unique(labelled.queries[own]),
        products=np.unique(labelled.products[pairs]),
        related_queries=np.unique(labelled.queries[pairs]),
    )


def generator(seed: Seed, stream: int) -> np.random.Generator:
    """Random numbers of a seed, others for each stream."""
    numbers = [seed] if isinstance(seed, int | np.integer) else seed
    # NumPy takes missing numbers for zeros, so without their number 3 and (3, 0) would be one seed.
    return np.random.default_rng([stream, len(numbers), *numbers])


def _unit_rows(embeddings: ArrayLike, name: str) -> Floats:
    rows = np.asarray(embeddings, np.float32)
    if rows.ndim != 2:
        raise InputError(f"{name} embeddings: {rows.ndim} dimensions; expected rows of numbers")
    if not np.isfinite(rows).all():
        first = int((~np.isfinite(rows)).any(axis=1).argmax())
        raise InputError(f"{name} embeddings: row {first} is not finite")
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)


def _refuse_outside(values: NDArray[np.int64], size: int, name: str) -> None:
    is_wrong = (values < 0) | (values >= size)
    if is_wrong.any():
        first = int(is_wrong.argmax())
        raise InputError(f"{name} at {first}: {values[first]}; must be 0 to {size - 1}")
