"""The story of `uepp relevance cases`: what samplers choose, and how much of it is wrong."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from uepp.artifacts import read_json
from uepp.config import BLIND_SAMPLERS, SAMPLER_NAMES, Config, RelevanceConfig
from uepp.data.marketplace.truth import Truth
from uepp.errors import InputError
from uepp.pipeline.relevance import VECTORS, embeddings_of, judged_pairs, read_relevance_run
from uepp.relevance.candidates import LabelledPairs
from uepp.relevance.judged import Judged
from uepp.relevance.pairs import TRAIN
from uepp.relevance.part_pairs import PartPairs, part_pairs
from uepp.relevance.sampled import false_negative_shares, sampled_for
from uepp.relevance.steps import check_pools
from uepp.runs.directory import announced, checked_data


def cases(
    console: Console,
    *,
    run_dir: Path | None = None,
    config: Config | None = None,
    queries: Sequence[str] = (),
    number: int = 3,
    samplers: Sequence[str] = ("vns", "hns", "bhns"),
    numbers: Sequence[int] = (2, 4, 8),
    pool_sizes: Sequence[int] = (),
    num_steps: int = 50,
    num_seeds: int = 1,
) -> dict[str, Any]:
    """Sampled negatives of some training queries (BHNS Table 4); on a marketplace, the share of false negatives.

    Args:
        console: for progress.
        run_dir: a run of `uepp relevance train`; none: `config` and its data.
        config: where there is no run.
        queries: training queries by text; none: `number` are drawn by the seed.
        number: how many.
        samplers: by name.
        numbers: K of the shares.
        pool_sizes: of the shares; none: the configuration's.
        num_steps: steps of which negatives are counted.
        num_seeds: of the counted steps, from `relevance.seed` on; the pairs are the same for all.

    Returns:
        `cases`: for each query and sampler the negatives with label, and `relevance` where the truth is known;
        `false_negatives`: rows of `uepp.relevance.sampled.false_negative_shares`, where it is.

    Raises:
        InputError: unknown queries or samplers, bad data or settings.
    """
    for name in samplers:
        if name not in SAMPLER_NAMES:
            raise InputError(f"--samplers {name}: must be some of {', '.join(SAMPLER_NAMES)}")
    if run_dir is not None:
        config, pairs = read_relevance_run(run_dir)
    assert config is not None
    settings = config.relevance
    _refuse(settings, samplers, pool_sizes)
    if run_dir is not None:
        data_dir = Path(read_json(run_dir / "run.json")["data"])
        has_truth = (data_dir / "truth" / "world.json").is_file()
        judged = Judged(pairs.texts, settings.truth_levels, Truth.load(data_dir) if has_truth else None)
    else:
        with announced(console, "data"):
            data_dir, _ = checked_data(config, Path("runs") / "cases", console)
            read = judged_pairs(data_dir, config)
            pairs = part_pairs(read, settings)
            judged = Judged(pairs.texts, settings.truth_levels, read.truth)
    chosen = _chosen(pairs, queries, number, settings.seed)
    with announced(console, "bi-encoder"):
        folder = None if run_dir is None else run_dir / VECTORS
        embeddings = embeddings_of(settings.bi_encoder, pairs.texts, folder)
    labelled = pairs.labelled(TRAIN, embeddings, settings.positive_above)
    found: dict[str, Any] = {"cases": _cases(pairs, judged, labelled, chosen, samplers, settings)}
    if judged.truth is not None:
        with announced(console, "false negatives"):
            found["false_negatives"] = false_negative_shares(
                labelled, judged.is_false_negative, samplers, numbers, pool_sizes or [settings.pairs_in_pool], settings,
                num_steps, num_seeds,
            )  # fmt: skip
    return found


def _refuse(settings: RelevanceConfig, samplers: Sequence[str], pool_sizes: Sequence[int]) -> None:
    """What no case could have."""
    if settings.bi_encoder is None and (seeing := set(samplers) - BLIND_SAMPLERS):
        raise InputError(f"--samplers {sorted(seeing)[0]}: looks at similarities; relevance.bi_encoder is none")
    check_pools(pool_sizes, settings.batch_size)


def _chosen(pairs: PartPairs, queries: Sequence[str], number: int, seed: int) -> np.ndarray:
    """Rows of the training queries that are asked for, each once and in that order, or of some that are drawn."""
    known = np.unique(pairs.texts.query[pairs.rows(TRAIN)])
    if not queries:
        return np.sort(np.random.default_rng([4, seed]).choice(known, min(number, len(known)), replace=False))
    row_of = {pairs.texts.queries[row]: row for row in known}
    for query in queries:
        if query not in row_of:
            raise InputError(f"--query {query!r}: is no training query of these data")
    return np.array([row_of[query] for query in dict.fromkeys(queries)])


def _cases(
    pairs: PartPairs,
    judged: Judged,
    labelled: LabelledPairs,
    chosen: np.ndarray,
    samplers: Sequence[str],
    config: RelevanceConfig,
) -> list[dict[str, Any]]:
    texts = pairs.texts
    sampled = sampled_for(labelled, chosen, samplers, config)
    found = []
    for row in chosen:
        for name in samplers:
            is_own = sampled[name].queries == row
            negatives = []
            for product, label in zip(sampled[name].products[is_own], sampled[name].labels[is_own], strict=True):
                product_id = texts.product_ids[product]
                negative = {"product_id": product_id, "product": texts.products[product], "label": float(label)}
                if judged.truth is not None:
                    negative["relevance"] = float(judged.truth.relevance(texts.queries[row], [product_id])[0])
                negatives.append(negative)
            found.append({"query": texts.queries[row], "sampler": name, "negatives": negatives})
    return found
