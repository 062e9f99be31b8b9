"""Negative samplers of BHNS and of those it is compared with; a sampler only chooses pairs and labels.

| Name | Chooses | Labels | |
|---|---|---|---|
| `none` | nothing | | "w/o NS" |
| `vns` | at random | 0 | BHNS Eq. 3 |
| `hns` | the most similar | 0 | Eq. 4 |
| `regularized` | the most similar, times (1 − θ)^τ | 0 | Eq. 7 alone |
| `pseudo_labels` | the most similar | θ | Eq. 8 alone |
| `bhns` | the most similar, times (1 − θ)^τ | θ | Eq. 7 and 8 |
| `star`, `false`, `cet` | see their classes | 0 | baselines of 4.1.3 |

Each gives a query K distinct products that nobody has labelled for it, or as many as the pool has. Ties are broken at
random, by the seed. Nothing here loops over queries.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from uepp.errors import InputError
from uepp.relevance.candidates import Pool, Seed, generator
from uepp.relevance.false_negatives import Floats, regularized_similarity

_SAMPLER_STREAM = 2


class SampledPairs(NamedTuple):
    """Negatives, query by query, in the order in which they were chosen.

    Attributes:
        queries: int64 [P], rows of the labelled queries.
        products: int64 [P], rows of the labelled products.
        labels: float32 [P] in [0, 1], r̃.
        weights: float32 [P] in [0, 1], of the pair's loss.
    """

    queries: NDArray[np.int64]
    products: NDArray[np.int64]
    labels: Floats
    weights: Floats


class Sampler(Protocol):
    """Negatives of each query of a pool, as a function of pool and seed."""

    def __call__(self, pool: Pool, seed: Seed) -> SampledPairs:
        """Choose."""


Observer = Callable[[NDArray[np.int64], NDArray[np.int64]], Floats]
"""Rows of queries and of products, [P] each, to the estimated probability that they are false negatives, [P]."""


@dataclass(frozen=True, kw_only=True)
class RandomSampler:
    """VNS: K of the products that are not labelled, each with the same chance; r̃ = 0 (BHNS Eq. 3).

    Attributes:
        num_negatives: K.
    """

    num_negatives: int = 4

    def __call__(self, pool: Pool, seed: Seed) -> SampledPairs:
        """Choose."""
        return _pairs(pool, _choose(None, pool.is_candidate, self.num_negatives, _draws(pool, seed)))


@dataclass(frozen=True, kw_only=True)
class HardSampler:
    """HNS and BHNS: the K of the products that are not labelled that are most similar (BHNS Eq. 4).

    Attributes:
        num_negatives: K.
        is_regularized: similarity times (1 − θ)^τ (Eq. 7). It is at least 0, and ties at 0 are broken at random.
        has_pseudo_labels: r̃ = θ (Eq. 8) instead of r̃ = 0.
        temperature: τ ≥ 0.
    """

    num_negatives: int = 4
    is_regularized: bool = False
    has_pseudo_labels: bool = False
    temperature: float = 2.0

    def __call__(self, pool: Pool, seed: Seed) -> SampledPairs:
        """Choose."""
        score = pool.similarity
        if self.is_regularized:
            score = regularized_similarity(score, pool.theta, self.temperature)
        chosen = _choose(score, pool.is_candidate, self.num_negatives, _draws(pool, seed))
        return _pairs(pool, chosen, pool.theta if self.has_pseudo_labels else None)


@dataclass(frozen=True, kw_only=True)
class StarSampler:
    """STAR (Zhan et al. 2021): hard negatives made stable by random ones; r̃ = 0.

    Zhan et al. train a bi-encoder on the loss of static hard negatives (the top of a retriever that does not change)
    plus that of random ones. BHNS transfers "their strategy of performing combination" to the cross-encoder and says no
    more. Here half of the K are the most similar (Eq. 4, by the frozen bi-encoder), and the others are random among the
    rest; of an odd K the larger half is hard. Both count the same in the loss.

    Attributes:
        num_negatives: K.
    """

    num_negatives: int = 4

    def __call__(self, pool: Pool, seed: Seed) -> SampledPairs:
        """Choose."""
        draws = _draws(pool, seed)
        num_random = self.num_negatives // 2
        hard = _choose(pool.similarity, pool.is_candidate, self.num_negatives - num_random, draws)
        is_left = pool.is_candidate.copy()
        row, place = np.nonzero(hard >= 0)
        is_left[row, hard[row, place]] = False
        return _pairs(pool, np.concatenate([hard, _choose(None, is_left, num_random, draws)], axis=1))


@dataclass(frozen=True, kw_only=True)
class FalseSampler:
    """FALSE (Zhang et al. 2022): products too similar to a positive of the query are no negatives; r̃ = 0.

    Zhang et al. take samples that resemble the anchor for false negatives, in contrastive learning of images. BHNS
    adopts "their idea of capturing false negatives based on inter-sample similarity", and does not count it among the
    methods with hard negatives. So: a candidate whose cosine with any positive of the query passes a threshold is
    dropped, and of the others K are random. A query without a positive drops nothing. Fewer than K are left where the
    query's neighbourhood is the pool.

    Attributes:
        num_negatives: K.
        max_similarity: the threshold, which BHNS does not give; in [−1, 1].
    """

    num_negatives: int = 4
    max_similarity: float = 0.7

    def __call__(self, pool: Pool, seed: Seed) -> SampledPairs:
        """Choose."""
        is_candidate = pool.is_candidate & (pool.similarity_to_positives <= self.max_similarity)
        return _pairs(pool, _choose(None, is_candidate, self.num_negatives, _draws(pool, seed)))


@dataclass(frozen=True, kw_only=True)
class CoupledSampler:
    """CET (Cai et al. 2022): random negatives, weighted by what a second cross-encoder thinks of them; r̃ = 0.

    Cai et al. train a relevance model and a model of the labelling together, each on a loss that is weighted by the
    other's estimates; BHNS calls the second one the observer. What is asked of it here is the probability o that an
    unlabelled pair is relevant after all; the pair's loss has weight 1 − o. Training the observer beside the
    cross-encoder is the caller's. It is asked about the chosen pairs only, since it reads each pair as a whole.

    Attributes:
        observer: estimates o in [0, 1].
        num_negatives: K.
    """

    observer: Observer
    num_negatives: int = 4

    def __call__(self, pool: Pool, seed: Seed) -> SampledPairs:
        """Choose.

        Raises:
            ValueError: the observer's answers are not one probability a pair.
        """
        pairs = RandomSampler(num_negatives=self.num_negatives)(pool, seed)
        estimate = np.asarray(self.observer(pairs.queries, pairs.products), np.float32)
        if estimate.shape != pairs.labels.shape or not ((estimate >= 0) & (estimate <= 1)).all():
            raise ValueError(f"observer: {estimate.shape} estimates; expected {pairs.labels.shape} numbers of 0 to 1")
        return pairs._replace(weights=1 - estimate)


NAMES = ("none", "vns", "hns", "star", "false", "cet", "regularized", "pseudo_labels", "bhns")


def make_sampler(
    name: str,
    *,
    num_negatives: int = 4,
    temperature: float = 2.0,
    max_similarity: float = 0.7,
    observer: Observer | None = None,
) -> Sampler:
    """The sampler of a name; settings that it does not have are ignored.

    Args:
        name: one of `NAMES`.
        num_negatives: K ≥ 1.
        temperature: τ ≥ 0, of `regularized` and `bhns`.
        max_similarity: in [−1, 1], of `false`.
        observer: of `cet`, which needs one.

    Raises:
        InputError: an unknown name, or a value out of its range.
    """
    if name not in NAMES:
        raise InputError(f"sampler {name!r}: must be one of {', '.join(NAMES)}")
    if num_negatives < 1:
        raise InputError(f"num_negatives = {num_negatives}: must be at least 1")
    if not 0 <= temperature < float("inf"):
        raise InputError(f"temperature = {temperature}: must be at least 0")
    if not -1 <= max_similarity <= 1:
        raise InputError(f"max_similarity = {max_similarity}: must be -1 to 1")
    if name == "none":
        return RandomSampler(num_negatives=0)
    if name == "vns":
        return RandomSampler(num_negatives=num_negatives)
    if name == "star":
        return StarSampler(num_negatives=num_negatives)
    if name == "false":
        return FalseSampler(num_negatives=num_negatives, max_similarity=max_similarity)
    if name == "cet":
        if observer is None:
            raise InputError("sampler 'cet': needs an observer, which estimates false negatives")
        return CoupledSampler(observer=observer, num_negatives=num_negatives)
    return HardSampler(
        num_negatives=num_negatives,
        is_regularized=name in ("regularized", "bhns"),
        has_pseudo_labels=name in ("pseudo_labels", "bhns"),
        temperature=temperature,
    )


def _draws(pool: Pool, seed: Seed) -> NDArray[np.uint32]:
    """One draw for each query and product."""
    shape = len(pool.queries), len(pool.products)
    return generator(seed, _SAMPLER_STREAM).integers(0, 1 << 32, shape, np.uint32)


def _choose(
    score: Floats | None, is_allowed: NDArray[np.bool_], number: int, draws: NDArray[np.uint32]
) -> NDArray[np.int64]:
    """Columns of the highest scores of each row, int64 [B, k], best first; −1 where there are fewer.

    Score and draw are one integer, the score in its upper half, so that ties are exact and fall to the higher draw.
    Without scores everything ties.
    """
    number = min(number, is_allowed.shape[1])
    if not number:
        return np.zeros((len(is_allowed), 0), np.int64)
    key = draws.astype(np.uint64) + np.uint64(1 << 32)
    if score is not None:
        bits = (score + np.float32(0)).view(np.uint32)  # −0 becomes 0, as it has to tie with it
        # Floats are ordered as integers are, once negative ones are turned around; never 0 for a number.
        ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
        key = (ordered.astype(np.uint64) << np.uint64(32)) | draws
    key[~is_allowed] = 0
    column = np.argpartition(key, -number, axis=1)[:, -number:]
    best = np.take_along_axis(key, column, axis=1)
    order = np.argsort(best, axis=1)[:, ::-1]
    column = np.take_along_axis(column, order, axis=1)
    return np.where(np.take_along_axis(best, order, axis=1) > 0, column, -1)


def _pairs(pool: Pool, chosen: NDArray[np.int64], labels: Floats | None = None) -> SampledPairs:
    row, place = np.nonzero(chosen >= 0)
    column = chosen[row, place]
    label = np.zeros(len(row), np.float32) if labels is None else labels[row, column]
    return SampledPairs(pool.queries[row], pool.products[column], label, np.ones(len(row), np.float32))
