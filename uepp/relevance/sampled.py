"""What samplers choose, looked at: cases (BHNS Table 4), and how many of them are false negatives in truth."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uepp.config import RelevanceConfig
from uepp.metrics import seed_difference_row
from uepp.relevance.candidates import LabelledPairs, draw_pool, generator
from uepp.relevance.samplers import SampledPairs, Sampler, configured_sampler
from uepp.relevance.steps import Steps

IsFalseNegative = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]]
"""Rows of queries and products of unlabelled pairs, to whether they are relevant in truth."""

FIGURES = ("share", "label_of_false", "label_of_true")
"""Of `false_negative_shares`, each with its `…_std`."""
_COMPARED = "bhns"
_CASE_STREAM = 1 << 40  # beyond the steps of any training


def sampled_for(
    labelled: LabelledPairs, queries: NDArray[np.int64], names: Sequence[str], config: RelevanceConfig
) -> dict[str, SampledPairs]:
    """What each sampler chooses for some queries, all from one pool.

    As in a training step a query is there with one of its pairs, drawn; the rest of the pool is pairs of any query.

    Args:
        labelled: pairs that are trained on.
        queries: rows of labelled queries.
        names: of samplers.
        config: K, τ, size of the pool (at least a pair of each query), and the seed.
    """
    seed = (config.seed, _CASE_STREAM)
    row, pairs = labelled.of(queries)
    order = generator(seed, _CASE_STREAM).permutation(len(pairs))
    _, first = np.unique(row[order], return_index=True)
    batch = pairs[order][first]
    pool = draw_pool(labelled, batch, max(config.pairs_in_pool, len(batch)), seed)
    return {name: _sampler(config, name, config.num_negatives)(pool, seed) for name in names}


def false_negative_shares(
    labelled: LabelledPairs,
    is_false_negative: IsFalseNegative,
    names: Sequence[str],
    numbers: Sequence[int],
    pool_sizes: Sequence[int],
    config: RelevanceConfig,
    num_steps: int,
    num_seeds: int = 1,
) -> list[dict[str, Any]]:
    """How many of the sampled negatives are relevant in truth, in the first steps of a training.

    A seed decides the order of the pairs, the pools, and what is drawn from them; the spread over seeds says how
    much of a share is chance.

    Args:
        labelled: pairs that are trained on.
        is_false_negative: the truth, asked once for each pair.
        names: of samplers.
        numbers: K.
        pool_sizes: of the pools.
        config: batch size, τ, and the first seed.
        num_steps: steps that are looked at, of each seed.
        num_seeds: from the first seed on.

    Returns:
        A row for each sampler, K and pool size: `num_seeds`; `num_sampled`, of all seeds; `share` of false negatives
        among them; `label_of_false` and `label_of_true`, the mean label that the sampler gave to false and to true
        negatives. These three are means over the seeds that sampled any such, none without one, each with its standard
        deviation (`share_std`, …), none with less than two. `bhns_less`, `bhns_less_std` and `bhns_less_is_apart`: by
        how much the share of BHNS differs from this one, seed by seed, and whether 0 is outside of the 95% interval
        over seeds; none for BHNS itself, without it, and with one seed.
    """
    rows = []
    known: dict[tuple[int, int], bool] = {}
    for pool_size in pool_sizes:
        for number in numbers:
            shares: dict[str, list[float]] = {}
            here = []
            for name in names:
                num_sampled = 0
                figures: dict[str, list[float]] = {name: [] for name in FIGURES}
                for seed in range(config.seed, config.seed + num_seeds):
                    steps = Steps(
                        labelled, [""] * len(labelled.query_embeddings), [""] * len(labelled.product_embeddings),
                        _sampler(config, name, number), batch_size=min(config.batch_size, len(labelled)),
                        pool_size=pool_size, seed=seed,
                    )  # fmt: skip
                    found = [steps.pairs(step) for step in range(num_steps)]
                    query, product, label = (
                        np.concatenate([pairs[place][pairs.is_sampled] for pairs in found]) for place in range(3)
                    )
                    is_false = _looked_up(query, product, is_false_negative, known)
                    num_sampled += len(query)
                    for figure, values in zip(FIGURES, (is_false, label[is_false], label[~is_false]), strict=True):
                        if len(values):
                            figures[figure].append(float(values.mean()))
                shares[name] = figures["share"]
                place = {"sampler": name, "num_negatives": number, "pool_size": pool_size, "num_seeds": num_seeds}
                here.append({**place, "num_sampled": num_sampled, **_over_seeds(figures)})
            rows += [row | _bhns_less(name, shares) for name, row in zip(names, here, strict=True)]
    return rows


def _sampler(config: RelevanceConfig, name: str, number: int) -> Sampler:
    return configured_sampler(config.model_copy(update={"sampler": name, "num_negatives": number}))


def _looked_up(
    query: NDArray[np.int64],
    product: NDArray[np.int64],
    is_false_negative: IsFalseNegative,
    known: dict[tuple[int, int], bool],
) -> NDArray[np.bool_]:
    pairs = list(zip(query.tolist(), product.tolist(), strict=True))
    new = list({pair for pair in pairs if pair not in known})
    if new:
        rows = np.array(new, np.int64)
        known.update(zip(new, is_false_negative(rows[:, 0], rows[:, 1]).tolist(), strict=True))
    return np.array([known[pair] for pair in pairs], bool)


def _over_seeds(figures: dict[str, list[float]]) -> dict[str, float | None]:
    """Mean and standard deviation of each figure."""
    found: dict[str, float | None] = {}
    for name, values in figures.items():
        found[name] = float(np.mean(values)) if values else None
        found[f"{name}_std"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return found


def _bhns_less(name: str, shares: dict[str, list[float]]) -> dict[str, float | bool | None]:
    """The share of BHNS less that of another sampler, which a seed gives the same batches and pools."""
    ours, theirs = shares.get(_COMPARED, []), shares[name]
    known = name != _COMPARED and len(ours) == len(theirs) > 1
    return seed_difference_row("bhns_less", np.subtract(ours, theirs).tolist() if known else None)
