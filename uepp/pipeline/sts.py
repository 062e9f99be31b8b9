"""The story of `uepp relevance sts`: samplers × K × pools × seeds on the STS Benchmark (BHNS Table 2), cell by cell."""

import gc
import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.special
import tensorflow as tf
from rich.console import Console

import uepp
from uepp.artifacts import atomic_directory, atomic_file, fingerprint, nearest_existing, read_json, sha256, write_json
from uepp.config import BLIND_SAMPLERS, SAMPLER_NAMES, RelevanceConfig
from uepp.errors import InputError
from uepp.pipeline.relevance import embeddings_of, speed
from uepp.pretraining.bert import locate
from uepp.relevance.bi_encoder import Embeddings, check_bi_encoder, no_embeddings
from uepp.relevance.candidates import LabelledPairs
from uepp.relevance.cross_encoder import check_depth, learn_vocabulary, make_cross_encoder
from uepp.relevance.measures import correlations
from uepp.relevance.pairs import TextPairs
from uepp.relevance.samplers import configured_sampler
from uepp.relevance.steps import Steps
from uepp.relevance.sts import AUROC_GRADE, MAX_GRADE, POSITIVE_ABOVE, known_beside, read_sts
from uepp.relevance.training import fit, logits_of
from uepp.runs.directory import announced, made_alone, read_costs
from uepp.runs.strategies import choose_strategy

MEASURES = ("pearson", "pearson_logits", "spearman", "auroc")
PAPER = {
    2: {"vns": (67.61, 77.05, 90.18), "hns": (66.74, 74.57, 89.24), "star": (59.95, 72.04, 88.28),
        "false": (70.56, 77.10, 90.12), "cet": (75.87, 75.21, 88.96), "bhns": (78.32, 77.37, 90.64)},
    4: {"vns": (67.53, 76.67, 89.99), "hns": (67.09, 74.11, 88.93), "star": (62.93, 72.30, 88.52),
        "false": (70.76, 76.55, 89.76), "cet": (75.78, 75.12, 88.91), "bhns": (77.97, 76.91, 90.34)},
    8: {"vns": (67.49, 76.12, 89.90), "hns": (71.76, 74.81, 89.19), "star": (65.57, 73.01, 88.56),
        "false": (71.85, 76.07, 89.43), "cet": (76.53, 75.45, 89.07), "bhns": (77.30, 76.37, 90.05)},
}  # fmt: skip
"""Pearson, Spearman and AUROC of the paper's Table 2, by K and sampler; on the test split, it seems."""

_METRICS = "metrics.json"
_OF_OTHER_DATA = {
    "fields", "grade_levels", "truth_levels", "judged_queries", "judged_products", "random_share", "evaluation_share",
    "validation_share", "patience", "evaluate_every_steps", "checkpoint_every_steps", "keep_checkpoints", "encoder",
    "bi_encoder",
}  # fmt: skip
"""Settings that change nothing of a cell, or are known by their content."""


_OWN = ("sampler", "num_negatives", "pool_size", "seed")
"""Settings in which the cells of one table differ."""


class Cell(NamedTuple):
    """One training.

    Attributes:
        key: what it is known by.
        config: of the cell.
    """

    key: str
    config: RelevanceConfig


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
        out: gets `cells/KEY/`, `results.json` and `table.md`, written anew after each cell; started again, what is
            there is kept.
        console: for progress.
        split: what is reported, dev or test.
        samplers: by name.
        numbers: K.
        pool_sizes: of the pools, in labelled pairs.
        num_seeds: seeds from `config.seed` on.
        verbose: progress of a training, see `uepp.relevance.training.fit`.

    Returns:
        What `results.json` holds; `rows` has means (0 to 100) and standard deviations over seeds, of all cells that are
        there of this data and these settings, also of samplers, K, pools and seeds that were not asked for now. None
        where a signal stopped a training: the next call goes on with it.

    Raises:
        InputError: bad data or settings.
    """
    _refuse(config, out, samplers, num_seeds)
    train, reported = read_sts(directory, "train"), read_sts(directory, split)
    digests = [sha256(directory / f"sts-{name}.csv") for name in ("train", split)]
    content = _content(config, digests, needs_bi_encoder=not BLIND_SAMPLERS.issuperset(samplers))
    grid = _cells(config, content, samplers, numbers, pool_sizes, num_seeds)
    missing = list({cell.key: cell for cell in grid if not _metrics(out, cell).is_file()}.values())

    def written() -> dict[str, Any]:
        results = {
            "rows": _rows(config, content, out),
            "split": split,
            "auroc_threshold": AUROC_GRADE,
            "num_train_pairs": len(train),
            "num_pairs": len(reported),
            "encoder": _encoder_text(config),
            "bi_encoder": config.bi_encoder,
            "max_steps": config.max_steps,
            "learning_rate": config.peak_learning_rate,
            "uepp_version": uepp.__version__,
        }
        write_json(out / "results.json", results)
        with atomic_file(out / "table.md") as path:
            path.write_text(markdown(results), encoding="utf-8")
        return results

    if missing:
        strategy = choose_strategy()
        embeddings = _embeddings(missing, train, digests, out, console)
        vocabulary = _vocabulary(config, train, digests, out)
        for number, cell in enumerate(missing, 1):
            settings = cell.config
            name = f"{settings.sampler}, K = {settings.num_negatives}, pool {settings.pool_size}, seed {settings.seed}"
            console.print(f"[bold]{number} of {len(missing)}[/bold] {name} …", highlight=False)
            with made_alone(out / "cells" / cell.key, console):
                found = read_json(_metrics(out, cell)) if _metrics(out, cell).is_file() else None
                found = found or _train(cell, train, reported, embeddings, vocabulary, out, strategy, verbose)
            if found is None:
                return None
            figures = "  ".join(f"{measure} {_figure(found[measure], None)}" for measure in MEASURES)
            console.print(f"  {figures}  ({found['seconds']:.0f} s)", highlight=False)
            written()
    return written()


def headings() -> list[str]:
    """Of the table of results."""
    names = ["sampler", "K", "pool", "seeds", "Pearson", "Pearson, logits", "Spearman", "AUROC", "paper: P / S / A"]
    return [*names, "pairs/s", "sampler"]


def lines(results: dict[str, Any]) -> list[list[str]]:
    """Cells of the table of results."""
    found = []
    for row in results["rows"]:
        figures = [_figure(row[measure], row[f"{measure}_std"]) for measure in MEASURES]
        paper = PAPER.get(row["num_negatives"], {}).get(row["sampler"])
        beside = "–" if paper is None else " / ".join(f"{value:.2f}" for value in paper)
        place = [row["sampler"], str(row["num_negatives"]), str(row["pool_size"]), str(row["num_seeds"])]
        share = row["sampler_share"]
        costs = ["–" if row["pairs_per_second"] is None else f"{row['pairs_per_second']:.0f}"]
        costs.append("–" if share is None else f"{100 * share:.1f}%")
        found.append([*place, *figures, beside, *costs])
    return found


def markdown(results: dict[str, Any]) -> str:
    """The table as Markdown."""
    names = headings()
    text = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    text += ["| " + " | ".join(line) + " |" for line in lines(results)]
    text += ["", caption(results)]
    return "\n".join(text) + "\n"


def caption(results: dict[str, Any]) -> str:
    """What the table is of."""
    return (
        f"{results['num_pairs']:,} pairs of sts-{results['split']}, trained on {results['num_train_pairs']:,}; 0 to "
        "100, mean ± standard deviation over seeds. Pearson is of sigmoid outputs; AUROC: positive from grade "
        f"{results['auroc_threshold']:g} of 5 on. `none` is the same for all K and pools. Cross-encoder: "
        f"{results['encoder']}, {results['max_steps']:,} steps at rate {results['learning_rate']:g}; negatives by "
        f"{results['bi_encoder'] or 'no bi-encoder'}. sampler: its share of a step."
    )


def _encoder_text(config: RelevanceConfig) -> str:
    if config.encoder is None:
        return f"from scratch, {config.num_layers} layers of {config.dim}"
    return f"the first {config.num_layers} layers of {config.encoder}"


def _refuse(config: RelevanceConfig, out: Path, samplers: Sequence[str], num_seeds: int) -> None:
    """What a cell could not have."""
    if not (there := nearest_existing(out)).is_dir():
        raise InputError(f"--out {out}: {there} is a file; give a directory")
    if config.bi_encoder is None and (seeing := [name for name in samplers if name not in BLIND_SAMPLERS]):
        raise InputError(f"--samplers {seeing[0]}: looks at similarities; relevance.bi_encoder is none")
    if config.seed + num_seeds > 2**32:
        raise InputError(
            f"--seeds {num_seeds}: from relevance.seed = {config.seed} on, so at most {2**32 - config.seed}; seeds end "
            "at 2³² − 1"
        )


class _Content(NamedTuple):
    """What all cells of a table have in common, by its content.

    Attributes:
        data: digests of both splits.
        encoder: of what the cross-encoder begins with.
        bi_encoder: of what guides the sampling; none: there is none, or no sampler wants it and it is not there.
    """

    data: tuple[str, ...]
    encoder: str
    bi_encoder: str | None


def _content(config: RelevanceConfig, digests: Sequence[str], *, needs_bi_encoder: bool) -> _Content:
    encoder, bi_encoder = "scratch", None
    if config.encoder is not None:
        published = locate(config.encoder, "relevance.encoder =")
        check_depth(published, config.num_layers)
        encoder = published.digest()
    if config.bi_encoder is not None:
        try:
            bi_encoder = check_bi_encoder(config.bi_encoder)
        except InputError:
            if needs_bi_encoder:
                raise
    return _Content(tuple(digests), encoder, bi_encoder)


def _cells(
    config: RelevanceConfig,
    content: _Content,
    samplers: Sequence[str],
    numbers: Sequence[int],
    pool_sizes: Sequence[int],
    num_seeds: int,
) -> list[Cell]:
    """The cells that are asked for, seed by seed; without negatives K and pool make no difference."""
    cells = []
    for seed, number, pool_size, name in itertools.product(
        range(config.seed, config.seed + num_seeds), numbers, pool_sizes, samplers
    ):
        own = {"sampler": name, "num_negatives": number, "pool_size": pool_size, "seed": seed}
        if name == "none":
            own |= {"num_negatives": numbers[0], "pool_size": pool_sizes[0]}
        settings = RelevanceConfig.model_validate(config.model_dump() | own)
        cells.append(Cell(_key(settings, content), settings))
    return cells


def _key(settings: RelevanceConfig, content: _Content) -> str:
    counts = settings.model_dump(mode="json", exclude=_OF_OTHER_DATA)
    if settings.sampler == "none":
        del counts["num_negatives"], counts["pool_size"]
    if settings.sampler != "false":
        del counts["max_similarity"]
    seen = None if settings.sampler in BLIND_SAMPLERS else content.bi_encoder
    rate = settings.peak_learning_rate
    # 4: what a sampler does not read is no part of its cells.
    return fingerprint("sts", 4, counts, rate, content.encoder, seen, list(content.data), uepp.__version__)


def _metrics(out: Path, cell: Cell) -> Path:
    return out / "cells" / cell.key / _METRICS


def _embeddings(
    missing: Sequence[Cell], train: TextPairs, digests: Sequence[str], out: Path, console: Console
) -> Embeddings:
    """Vectors of the training sentences, kept beside the cells; none where no sampler looks at them."""
    sources = {cell.config.bi_encoder for cell in missing if cell.config.sampler not in BLIND_SAMPLERS}
    if not sources:
        return no_embeddings(train)
    (source,) = sources
    assert source is not None  # a configuration with such a sampler has one
    folder = out / "vectors" / fingerprint(check_bi_encoder(source), digests[0])
    if not folder.is_dir():
        console.print("bi-encoder …")
    return embeddings_of(source, train, folder)


def _vocabulary(config: RelevanceConfig, train: TextPairs, digests: Sequence[str], out: Path) -> Path:
    """Words of the training sentences, from scratch."""
    folder = out / "vocabularies" / fingerprint(config.vocabulary_size, digests[0])
    if config.encoder is None and not folder.is_dir():
        with atomic_directory(folder) as temporary:
            learn_vocabulary([*train.queries, *train.products], temporary, config.vocabulary_size)
    return folder


def _train(
    cell: Cell,
    train: TextPairs,
    reported: TextPairs,
    embeddings: Embeddings,
    vocabulary: Path,
    out: Path,
    strategy: tf.distribute.Strategy,
    verbose: int,
) -> dict[str, Any] | None:
    """Train and measure one cell; its run is thrown away then, its figures stay. None: stopped by a signal."""
    settings = cell.config
    run_dir = out / "cells" / cell.key / "run"
    labelled = LabelledPairs(
        train.query, train.product, train.grades / MAX_GRADE, *embeddings,
        positive_above=POSITIVE_ABOVE if settings.positive_above is None else settings.positive_above,
        also_known=known_beside(train),
    )  # fmt: skip
    steps = Steps(
        labelled, train.queries, train.products, configured_sampler(settings),
        batch_size=settings.batch_size, pool_size=settings.pool_size, seed=settings.seed,
    )  # fmt: skip
    run_dir.mkdir(parents=True, exist_ok=True)
    with announced(Console(quiet=True), "training", run_dir=run_dir, adds=True):
        fitted = fit(
            lambda seed: make_cross_encoder(settings, vocabulary, seed),
            steps, settings, run_dir, strategy=strategy, resume=True, verbose=verbose,
        )  # fmt: skip
    if not fitted.is_complete:
        return None
    logits = logits_of(
        fitted.encoder,
        [reported.queries[row] for row in reported.query],
        [reported.products[row] for row in reported.product],
    ).astype(np.float64)
    is_positive = reported.grades >= AUROC_GRADE
    of_scores = correlations(scipy.special.expit(logits), reported.grades, is_positive)
    of_logits = correlations(logits, reported.grades, is_positive)
    figures = (of_scores.pearson, of_logits.pearson, of_logits.spearman, of_logits.auroc)
    found: dict[str, Any] = {
        **{name: _number(100 * value) for name, value in zip(MEASURES, figures, strict=True)},
        "steps": fitted.step,
        "seconds": read_costs(run_dir)["seconds"]["training"],
        **speed(run_dir / "logs"),
        "settings": settings.model_dump(mode="json"),
    }
    write_json(_metrics(out, cell), found)
    shutil.rmtree(run_dir)
    del fitted
    gc.collect()  # graphs refer to themselves, and a grid makes many
    return found


def _kept(config: RelevanceConfig, content: _Content, out: Path) -> list[tuple[RelevanceConfig, dict[str, Any]]]:
    """Cells that differ from the configuration in sampler, K, pool and seed alone, with their figures."""
    found = []
    for path in sorted(out.glob(f"cells/*/{_METRICS}")):
        metrics = read_json(path)
        try:
            theirs = RelevanceConfig.model_validate(metrics["settings"])
        except (KeyError, TypeError, ValueError):  # of a version with other settings
            continue
        own = {name: getattr(theirs, name) for name in _OWN}
        settings = RelevanceConfig.model_validate(config.model_dump() | own)
        if path.parent.name == _key(settings, content):
            found.append((settings, metrics))
    return found


def _rows(config: RelevanceConfig, content: _Content, out: Path) -> list[dict[str, Any]]:
    """By K, pool and sampler; `none`, which has neither, is beside all of them."""
    cells = _kept(config, content, out)
    by_place: dict[tuple[int, int, str], list[dict[str, Any]]] = {}
    places = sorted({(one.num_negatives, one.pool_size) for one, _ in cells if one.sampler != "none"})
    places = places or sorted({(one.num_negatives, one.pool_size) for one, _ in cells})[:1]
    for (number, pool_size), name in itertools.product(places, SAMPLER_NAMES):
        for one, metrics in sorted(cells, key=lambda cell: cell[0].seed):
            if one.sampler == name and (name == "none" or (one.num_negatives, one.pool_size) == (number, pool_size)):
                by_place.setdefault((number, pool_size, name), []).append(metrics)
    rows = []
    for (number, pool_size, name), found in by_place.items():
        row: dict[str, Any] = {
            "sampler": name, "num_negatives": number, "pool_size": pool_size, "num_seeds": len(found),
        }  # fmt: skip
        for measure in (*MEASURES, "pairs_per_second", "sampler_share", "seconds"):
            values = np.array([metrics[measure] for metrics in found if metrics.get(measure) is not None], np.float64)
            row[measure] = _number(values.mean()) if len(values) else None
            row[f"{measure}_std"] = _number(values.std(ddof=1)) if len(values) > 1 else None
        rows.append(row)
    return rows


def _number(value: float) -> float | None:
    """JSON has no NaN: an encoder that says the same of all pairs has no correlation."""
    return float(value) if np.isfinite(value) else None


def _figure(mean: float | None, spread: float | None) -> str:
    if mean is None:
        return "–"
    return f"{mean:.2f}" if spread is None else f"{mean:.2f} ± {spread:.2f}"
