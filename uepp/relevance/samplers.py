"""Negative samplers of BHNS and of those it is compared with; a sampler only chooses pairs and labels.

| Name | Chooses | Labels | |
|---|---|---|---|
| `none` | nothing | | "w/o NS" |
| `vns` | at random | 0 | BHNS Eq. 3 |
| `hns` | the most similar | 0 | Eq. 4 |
| `regularized` | the most similar, times (1 − θ)^τ | 0 | Eq. 7 alone |
| `pseudo_labels` | the most similar | θ | Eq. 8 alone |
| `bhns` | the most similar, times (1 − θ)^τ | θ | Eq. 7 and 8 |
| `star`, `false` | see their classes | 0 | baselines of 4.1.3 |
| `cet` | at random; the step weighs them | 0 | baseline of 4.1.3, see `uepp.relevance.training.pair_weights` |

Each gives a query K distinct products that nobody has labelled for it, or as many as the pool has. Ties are broken at
random, by the seed. Nothing here loops over queries.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from uepp.config import SAMPLER_NAMES, RelevanceConfig
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
    """

    queries: NDArray[np.int64]
    products: NDArray[np.int64]
    labels: Floats


class Sampler(Protocol):
    """Negatives of each query of a pool, as a function of pool and seed."""

    def __call__(self, pool: Pool, seed: Seed) -> SampledPairs:
        """Choose."""


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
    query's neighbourhood is the pool. What is drawn at random is seldom near to a positive, so this differs little from
    `RandomSampler`: on STS-B (pool 256, MiniLM) in .01% of the pairs at a threshold of .7, .1% at .5, 5% at .3.

    Attributes:
        num_negatives: K.
        max_similarity: the threshold, which BHNS does not give; in [−1, 1].
    """

    num_negatives: int = 4
    max_similarity: float = 0.3

    def __call__(self, pool: Pool, seed: Seed) -> SampledPairs:
        """Choose."""
        is_candidate = pool.is_candidate & (pool.similarity_to_positives <= self.max_similarity)
        return _pairs(pool, _choose(None, is_candidate, self.num_negatives, _draws(pool, seed)))


def make_sampler(
    name: str,
    *,
    num_negatives: int = 4,
    temperature: float = 2.0,
    max_similarity: float = 0.3,
) -> Sampler:
    """The sampler of a name; settings that it does not have are ignored.

    Args:
        name: one of `SAMPLER_NAMES`.
        num_negatives: K ≥ 1.
        temperature: τ ≥ 0, of `regularized` and `bhns`.
        max_similarity: in [−1, 1], of `false`.

    Raises:
        InputError: an unknown name, or a value out of its range.
    """
    if name not in SAMPLER_NAMES:
        raise InputError(f"sampler {name!r}: must be one of {', '.join(SAMPLER_NAMES)}")
    if num_negatives < 1:
        raise InputError(f"num_negatives = {num_negatives}: must be at least 1")
    if not 0 <= temperature < float("inf"):
        raise InputError(f"temperature = {temperature}: must be at least 0")
    if not -1 <= max_similarity <= 1:
        raise InputError(f"max_similarity = {max_similarity}: must be -1 to 1")
    if name == "none":
        return RandomSampler(num_negatives=0)
    if name in ("vns", "cet"):
        return RandomSampler(num_negatives=num_negatives)
    if name == "star":
        return StarSampler(num_negatives=num_negatives)
    if name == "false":
        return FalseSampler(num_negatives=num_negatives, max_similarity=max_similarity)
    return HardSampler(
        num_negatives=num_negatives,
        is_regularized=name in ("regularized", "bhns"),
        has_pseudo_labels=name in ("pseudo_labels", "bhns"),
        temperature=temperature,
    )


def configured_sampler(config: RelevanceConfig) -> Sampler:
    """The sampler of a configuration."""
    return make_sampler(
        config.sampler,
        num_negatives=config.num_negatives,
        temperature=config.temperature,
        max_similarity=config.max_similarity,
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
    return SampledPairs(pool.queries[row], pool.products[column], label)
