"""The story of `uepp relevance sts`: samplers × K × pools × seeds on the STS Benchmark (BHNS Table 2)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.special
from rich.console import Console

from uepp.artifacts import atomic_directory, fingerprint, sha256
from uepp.config import RelevanceConfig
from uepp.pipeline.relevance import embeddings_of
from uepp.pipeline.sampler_grid import Grid, Task, content_of, grid_key
from uepp.relevance.bi_encoder import check_bi_encoder
from uepp.relevance.candidates import LabelledPairs
from uepp.relevance.cross_encoder import CrossEncoder, learn_vocabulary
from uepp.relevance.measures import correlations
from uepp.relevance.pairs import TextPairs
from uepp.relevance.sts import AUROC_GRADE, MAX_GRADE, POSITIVE_ABOVE, known_beside, read_sts
from uepp.relevance.training import logits_of

_MEASURES = {"pearson": "Pearson", "pearson_logits": "Pearson, logits", "spearman": "Spearman", "auroc": "AUROC"}
_PAPER = {
    2: {"vns": (67.61, 77.05, 90.18), "hns": (66.74, 74.57, 89.24), "star": (59.95, 72.04, 88.28),
        "false": (70.56, 77.10, 90.12), "cet": (75.87, 75.21, 88.96), "bhns": (78.32, 77.37, 90.64)},
    4: {"vns": (67.53, 76.67, 89.99), "hns": (67.09, 74.11, 88.93), "star": (62.93, 72.30, 88.52),
        "false": (70.76, 76.55, 89.76), "cet": (75.78, 75.12, 88.91), "bhns": (77.97, 76.91, 90.34)},
    8: {"vns": (67.49, 76.12, 89.90), "hns": (71.76, 74.81, 89.19), "star": (65.57, 73.01, 88.56),
        "false": (71.85, 76.07, 89.43), "cet": (76.53, 75.45, 89.07), "bhns": (77.30, 76.37, 90.05)},
}  # fmt: skip
"""Pearson, Spearman and AUROC of the paper's Table 2, by K and sampler; on the test split, it seems."""
_OF_OTHER_DATA = {
    "fields", "grade_levels", "truth_levels", "judged_queries", "judged_products", "random_share", "evaluation_share",
    "validation_share", "patience", "split_seed",
}  # fmt: skip


def run_sts(
    directory: Path,
    config: RelevanceConfig,
    out: Path,
    console: Console,
    *,
    split: str = "dev",
    samplers: Sequence[str],
    numbers: Sequence[int],
    pool_sizes: Sequence[int],
    num_seeds: int,
    verbose: int = 1,
) -> dict[str, Any] | None:
    """Train the cells that `out` lacks, and put all together.

    Nothing of the split that is reported is looked at before the last step: a cell trains for `max_steps`.

    Args:
        directory: of the STS Benchmark.
        config: of all cells.
        out: see `uepp.pipeline.sampler_grid.Grid`; started again, what is there is kept.
        console: for progress.
        split: what is reported, dev or test.
        samplers: by name.
        numbers: K.
        pool_sizes: of the pools, in labelled pairs.
        num_seeds: seeds from `config.seed` on.
        verbose: progress of a training, see `uepp.relevance.training.fit`.

    Returns:
        What `results.json` holds. None where a signal stopped a training: the next call goes on with it.

    Raises:
        InputError: bad data or settings.
    """
    train, reported = read_sts(directory, "train"), read_sts(directory, split)
    digests = [sha256(directory / f"sts-{name}.csv") for name in ("train", split)]
    config = config.model_copy(update={"patience": 0})
    content = content_of(config, samplers)
    grid = Grid(
        out, config,
        # 4: what a sampler does not read is no part of its cells.
        key=lambda settings: fingerprint("sts", 4, *grid_key(settings, _OF_OTHER_DATA, content), digests),
        measures=_MEASURES, paper=_PAPER, paper_heading="paper: P / S / A",
        caption=f"{len(reported):,} pairs of sts-{split}, trained on {len(train):,}. Pearson is of sigmoid outputs; "
        f"AUROC: positive from grade {AUROC_GRADE:g} of 5 on.",
        facts={
            "split": split, "auroc_threshold": AUROC_GRADE, "num_train_pairs": len(train), "num_pairs": len(reported),
        },
    )  # fmt: skip

    def task(sees: bool) -> Task:
        return Task(
            _labelled(config, train, digests[0], out, console, sees=sees),
            train.queries, train.products, _vocabulary(config, train, digests[0], out),
            measure=lambda encoder: measures(encoder, reported),
        )  # fmt: skip

    cells = grid.cells(samplers, numbers, pool_sizes, num_seeds)
    return grid.complete(cells, task, console, verbose=verbose)


def _labelled(
    config: RelevanceConfig, train: TextPairs, digest: str, out: Path, console: Console, *, sees: bool
) -> LabelledPairs:
    """Training pairs with vectors of their sentences, which are kept; zeros where no sampler looks at them."""
    bi_encoder, folder = config.bi_encoder if sees else None, None
    if bi_encoder is not None:
        folder = out / "vectors" / fingerprint(check_bi_encoder(bi_encoder), digest)
        if not folder.is_dir():
            console.print("bi-encoder …")
    return LabelledPairs(
        train.query, train.product, train.grades / MAX_GRADE, *embeddings_of(bi_encoder, train, folder),
        positive_above=POSITIVE_ABOVE if config.positive_above is None else config.positive_above,
        also_known=known_beside(train),
    )  # fmt: skip


def _vocabulary(config: RelevanceConfig, train: TextPairs, digest: str, out: Path) -> Path:
    """Words of the training sentences, from scratch."""
    folder = out / "vocabularies" / fingerprint(config.vocabulary_size, digest)
    if config.encoder is None and not folder.is_dir():
        with atomic_directory(folder) as temporary:
            learn_vocabulary([*train.queries, *train.products], temporary, config.vocabulary_size)
    return folder


def measures(encoder: CrossEncoder, reported: TextPairs) -> dict[str, float | None]:
    """Pearson of sigmoids and of logits, Spearman and AUROC of what a cross-encoder says of graded pairs, 0 to 100."""
    logits = logits_of(
        encoder,
        [reported.queries[row] for row in reported.query],
        [reported.products[row] for row in reported.product],
    ).astype(np.float64)
    is_positive = reported.grades >= AUROC_GRADE
    of_scores = correlations(scipy.special.expit(logits), reported.grades, is_positive)
    of_logits = correlations(logits, reported.grades, is_positive)
    figures = (of_scores.pearson, of_logits.pearson, of_logits.spearman, of_logits.auroc)
    # JSON has no NaN: an encoder that says the same of all pairs has no correlation.
    return {name: 100 * value if np.isfinite(value) else None for name, value in zip(_MEASURES, figures, strict=True)}
