"""The story of `uepp relevance compare`: samplers × seeds on judged queries and products (BHNS Table 3)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from uepp.artifacts import fingerprint
from uepp.config import Config, RelevanceConfig
from uepp.pipeline.relevance import embeddings_of, judged_pairs, learn_words, measures_of, ndcg_at_10, sizes_text
from uepp.pipeline.sampler_grid import Grid, Task, content_of, grid_key
from uepp.relevance.bi_encoder import check_bi_encoder
from uepp.relevance.cross_encoder import CrossEncoder
from uepp.relevance.measures import NDCG_AT
from uepp.relevance.pairs import EVALUATION, TRAIN, VALIDATION
from uepp.relevance.part_pairs import PartPairs, part_pairs
from uepp.relevance.steps import check_batch
from uepp.relevance.training import logits_of
from uepp.runs.directory import announced, checked_data

_MEASURES = {**{f"ndcg@{k}": f"NDCG@{k}" for k in NDCG_AT}, "auroc": "AUROC", "auroc_judged": "AUROC, judged"}
_PAPER = {
    4: {"none": (89.79, 90.88, 92.65, 91.14), "vns": (90.42, 91.43, 93.09, 94.09),
        "hns": (90.62, 91.53, 93.19, 90.34), "bhns": (90.96, 91.91, 93.47, 95.06)},
}  # fmt: skip
"""NDCG@5, 10, 20 and AUROC of the paper's Table 3, of a shop's own annotations."""
_IN_THE_PAIRS = {
    "fields", "grade_levels", "truth_levels", "judged_queries", "judged_products", "random_share", "evaluation_share",
    "split_seed",
}  # fmt: skip
"""Settings that the pairs are made by, which are known by their content."""


def compare_samplers(
    config: Config,
    out: Path,
    console: Console,
    *,
    samplers: Sequence[str],
    numbers: Sequence[int],
    pool_sizes: Sequence[int],
    num_seeds: int,
    verbose: int = 1,
) -> dict[str, Any] | None:
    """Train the cells that `out` lacks, and put all together. All of them have the same pairs in the same parts.

    Args:
        config: of all cells.
        out: see `uepp.pipeline.sampler_grid.Grid`; started again, what is there is kept.
        console: for progress.
        samplers: by name.
        numbers: K.
        pool_sizes: of the pools, in labelled pairs.
        num_seeds: seeds from `relevance.seed` on.
        verbose: progress of a training, see `uepp.relevance.training.fit`.

    Returns:
        What `results.json` holds. None where a signal stopped a training: the next call goes on with it.

    Raises:
        InputError: bad data or settings.
    """
    settings = config.relevance
    content = content_of(settings, samplers)
    with announced(console, "data"):
        data_dir, _ = checked_data(config, out, console)
        pairs = part_pairs(judged_pairs(data_dir, config), settings)
        check_batch(settings.batch_size, len(pairs.rows(TRAIN)))
        console.print(f"  {sizes_text(pairs)}", highlight=False)
    digest = _digest(pairs)
    rows = pairs.rows(EVALUATION)
    num_queries = len(np.unique(pairs.texts.query[rows]))
    num_relevant = int((pairs.evaluation_labels[rows] >= 0.5).sum())
    grid = Grid(
        out, settings,
        key=lambda own: fingerprint("compare", 2, *grid_key(own, _IN_THE_PAIRS, content), digest),
        measures=_MEASURES, paper=_PAPER, paper_heading="paper: NDCG@5 / 10 / 20 / AUROC",
        caption=f"{len(rows):,} pairs of {num_queries:,} queries that were never trained on, "
        f"{int(pairs.is_random[rows].sum()):,} of the pairs random; {num_relevant / len(rows):.0%} relevant.",
        facts={
            "num_train_pairs": len(pairs.rows(TRAIN)), "num_pairs": len(rows), "num_queries": num_queries,
            "num_random_pairs": int(pairs.is_random[rows].sum()), "share_relevant": num_relevant / len(rows),
        },
    )  # fmt: skip
    cells = grid.cells(samplers, numbers, pool_sizes, num_seeds)
    return grid.complete(cells, lambda sees: _task(pairs, settings, digest, out, sees=sees), console, verbose=verbose)


def _task(pairs: PartPairs, config: RelevanceConfig, digest: str, out: Path, *, sees: bool) -> Task:
    bi_encoder, folder = config.bi_encoder if sees else None, None
    if bi_encoder is not None:
        folder = out / "vectors" / fingerprint(check_bi_encoder(bi_encoder), digest)
    embeddings = embeddings_of(bi_encoder, pairs.texts, folder)
    vocabulary = out / "vocabularies" / fingerprint(config.vocabulary_size, digest)
    if config.encoder is None:
        learn_words(config, pairs, vocabulary)
    validated = pairs.rows(VALIDATION)
    return Task(
        pairs.labelled(TRAIN, embeddings, config.positive_above), pairs.texts.queries, pairs.texts.products, vocabulary,
        measure=lambda encoder: _measures(encoder, pairs),
        validate=(lambda encoder: ndcg_at_10(encoder, pairs, validated)) if len(validated) else None,
    )  # fmt: skip


def _measures(encoder: CrossEncoder, pairs: PartPairs) -> dict[str, float | None]:
    rows, texts = pairs.rows(EVALUATION), pairs.texts
    query, product = texts.query[rows], texts.product[rows]
    logits = logits_of(encoder, [texts.queries[row] for row in query], [texts.products[row] for row in product])
    found = measures_of(logits, pairs.evaluation_labels[rows], query, pairs.is_random[rows])
    return {name: None if value is None else 100 * value for name, value in found.items()}


def _digest(pairs: PartPairs) -> str:
    """Of all that is learned and measured."""
    texts = pairs.texts
    columns = (texts.query, texts.product, pairs.part, pairs.is_random, pairs.labels, pairs.evaluation_labels)
    named = texts.queries, texts.product_ids, texts.products
    return fingerprint(*(list(column) for column in named), *(column.tolist() for column in columns))
