"""The stories of `uepp relevance train` and `evaluate`: judged pairs → bi-encoder → cross-encoder → measures."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf
import tensorflow_text  # noqa: F401  registers the operations of the tokeniser
from rich.console import Console

import uepp
from uepp.artifacts import atomic_directory, check_manifest, read_json, write_json, write_manifest
from uepp.config import Config, RelevanceConfig, load_config
from uepp.data.schema import read_products
from uepp.errors import InputError
from uepp.relevance.bi_encoder import Embeddings, check_bi_encoder, embed_pairs, no_embeddings, trained_on
from uepp.relevance.cross_encoder import CrossEncoder, learn_vocabulary, make_cross_encoder
from uepp.relevance.judged import Judged, read_judged
from uepp.relevance.measures import NDCG_AT, pair_auroc, query_ndcg
from uepp.relevance.pair_scores import FACTS, RUN_FOLDER, TRAINED_QUERIES, written_again
from uepp.relevance.pairs import EVALUATION, TRAIN, VALIDATION, TextPairs
from uepp.relevance.part_pairs import PartPairs, part_pairs
from uepp.relevance.samplers import configured_sampler
from uepp.relevance.steps import Steps, check_batch
from uepp.relevance.training import fit, logits_of
from uepp.runs.directory import (
    add_facts,
    announced,
    check_run,
    checked_data,
    nothing_left,
    open_run,
    read_costs,
    refuse_changes,
)
from uepp.runs.strategies import batch_of_replica, choose_strategy, refuse_several_workers

COMMAND = "relevance train"
VECTORS = "bi_encoder"
"""Of a run: vectors of its texts."""
_QUERIES, _PRODUCTS, _IS_TRAINED = "queries.npy", "products.npy", "is_trained.npy"
_FREE = ("max_steps", "evaluate_every_steps", "checkpoint_every_steps", "keep_checkpoints")


class Trained(NamedTuple):
    """How a training ended.

    Attributes:
        step: steps done since the start of the run.
        is_complete: False where a signal stopped it; resume it to go on.
        metrics: what `metrics.json` holds; none before the end.
    """

    step: int
    is_complete: bool
    metrics: dict[str, Any] | None


def train_relevance(
    config: Config, run_dir: Path, console: Console, *, resume: bool = False, verbose: int = 1
) -> Trained:
    """Data → judged pairs → the bi-encoder's vectors → cross-encoder → measures on held-out queries, in `run_dir`.

    Raises:
        InputError: bad data, settings or directory.
    """
    refuse_several_workers("uepp relevance")
    strategy = choose_strategy()
    settings = config.relevance
    batch_of_replica(strategy, "relevance.batch_size", settings.batch_size)
    check_run(config, run_dir, COMMAND, resume=resume, fixed=("marketplace", "data"), free="relevance.*")
    if resume:
        refuse_changes(config, run_dir, "relevance", _FREE)
    elif settings.encoder is not None:
        make_cross_encoder(settings, run_dir / "vocabulary", settings.seed)  # before hours of anything

    # ------------------------------------------------------------------------------------------ data
    with announced(console, "data", run_dir=run_dir):
        if (run_dir / "pairs.parquet").is_file():
            pairs = PartPairs.load(run_dir / "pairs.parquet")
            open_run(config, run_dir, COMMAND, resume=True)
        else:
            data_dir, _ = checked_data(config, run_dir, console)
            pairs = part_pairs(judged_pairs(data_dir, config), settings)
            check_batch(settings.batch_size, len(pairs.rows(TRAIN)))
            if settings.bi_encoder is not None:
                check_bi_encoder(settings.bi_encoder)
            open_run(config, run_dir, COMMAND, resume=resume)  # only now: bad data leaves no half-made run behind
            add_facts(run_dir, data=str(data_dir.resolve()))
            pairs.save(run_dir / "pairs.parquet")
        console.print(f"  {sizes_text(pairs)}", highlight=False)

    with nothing_left(run_dir, resume):
        # -------------------------------------------------------------------------------- bi-encoder
        with announced(console, "bi-encoder", run_dir=run_dir):
            embeddings = embeddings_of(settings.bi_encoder, pairs.texts, run_dir / VECTORS)

        # ------------------------------------------------------------------------------------- words
        if settings.encoder is None:
            with announced(console, "words", run_dir=run_dir):
                learn_words(settings, pairs, run_dir / "vocabulary")
                words = (run_dir / "vocabulary" / "vocab.txt").read_text(encoding="utf-8").splitlines()
                console.print(f"  {len(words):,} words", highlight=False)
        labelled = pairs.labelled(TRAIN, embeddings, settings.positive_above)
        steps = Steps(
            labelled, pairs.texts.queries, pairs.texts.products, configured_sampler(settings),
            batch_size=settings.batch_size, pool_size=settings.pairs_in_pool, seed=settings.seed,
        )  # fmt: skip

    # -------------------------------------------------------------------------------------- training
    with announced(console, "training", run_dir=run_dir, adds=resume):
        validated = pairs.rows(VALIDATION)
        fitted = fit(
            lambda seed: make_cross_encoder(settings, run_dir / "vocabulary", seed),
            steps,
            settings,
            run_dir,
            strategy=strategy,
            validate=(lambda encoder: ndcg_at_10(encoder, pairs, validated)) if len(validated) else None,
            resume=resume,
            verbose=verbose,
        )
        if not fitted.is_complete:
            return Trained(fitted.step, False, None)

    # -------------------------------------------------------------------------------------- export
    with announced(console, "export", run_dir=run_dir):
        _write_cross_encoder(fitted.encoder, settings, pairs, run_dir)
    seconds = read_costs(run_dir)["seconds"]["training"]
    write_json(
        run_dir / "training.json",
        {"steps": fitted.step, "best_step": fitted.best_step, "seconds": seconds, **speed(run_dir / "logs")},
    )
    return Trained(fitted.step, True, evaluate_relevance(run_dir, console))


def evaluate_relevance(run_dir: Path, console: Console) -> dict[str, Any]:
    """Measures on the run's held-out queries: of its cross-encoder, and of the bi-encoder alone (BHNS Table 3).

    Towers may have been trained on what held-out queries led to. The bi-encoder is measured on the others then, and the
    cross-encoder beside it on the same ones too.

    Returns:
        What `metrics.json` holds: `systems` by name, `bi_encoder` (what is known of its training), numbers of queries
        and pairs, and facts of the training.

    Raises:
        InputError: not a finished run.
    """
    config, pairs = read_relevance_run(run_dir)
    embeddings = embeddings_of(config.relevance.bi_encoder, pairs.texts, run_dir / VECTORS)
    with announced(console, "evaluation"):
        score = load_cross_encoder_scores(run_dir / RUN_FOLDER)
        rows = pairs.rows(EVALUATION)
        texts = pairs.texts
        query, product = texts.query[rows], texts.product[rows]
        gains = pairs.evaluation_labels[rows]
        scores = score([texts.queries[row] for row in query], [texts.products[row] for row in product])
        is_random = pairs.is_random[rows]
        systems = {"cross_encoder": measures_of(scores, gains, query, is_random)}
        bi_encoder: dict[str, Any] | None = None
        if config.relevance.bi_encoder is not None:
            cosines = _cosines(embeddings, query, product)
            is_trained = read_trained(run_dir / VECTORS, len(texts.queries))
            is_new = np.ones(len(rows), bool) if is_trained is None else ~is_trained[query]
            num_trained = None if is_trained is None else len(np.unique(query[~is_new]))
            bi_encoder = {"num_trained_queries": num_trained, "new_queries": None}
            both = {
                name: measures_of(values[is_new], gains[is_new], query[is_new], is_random[is_new])
                for name, values in (("cross_encoder", scores), ("bi_encoder", cosines))
                if is_new.any()
            }
            if is_new.all():
                systems = both
            elif both:
                numbers = {"num_queries": len(np.unique(query[is_new])), "num_pairs": int(is_new.sum())}
                bi_encoder["new_queries"] = {**numbers, "systems": both}
        metrics = {
            "systems": systems,
            "bi_encoder": bi_encoder,
            "sampler": config.relevance.sampler,
            "num_queries": len(np.unique(query)),
            "num_pairs": len(rows),
            "num_random_pairs": int(is_random.sum()),
            "share_relevant": float((gains >= 0.5).mean()),
            "training": read_json(run_dir / "training.json"),
        }
        write_json(run_dir / "metrics.json", metrics)
    return metrics


def load_cross_encoder_scores(directory: Path) -> Callable[[Sequence[str], Sequence[str]], np.ndarray]:
    """The logits of a saved cross-encoder: texts of queries and products [P] each, to float32 [P].

    Raises:
        InputError: it is not there, or a file differs from its manifest.
    """
    if not (directory / "saved_model.pb").is_file():
        raise InputError(
            f"{directory}: no cross-encoder; finish the run: uepp relevance train --run {directory.parent} --resume"
        )
    check_manifest(directory, written_again(directory))
    model = tf.saved_model.load(str(directory))
    return lambda queries, products: logits_of(model, queries, products)


def speed(logs: Path) -> dict[str, float]:
    """Pairs a second, and the sampler's share of a step, of a training's log.

    The share is processor time of drawing the pool and choosing from it, over the wall time of a step; the sampler
    works beside the step, so it is what it would cost if it did not.
    """
    with (logs / "training.csv").open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if float(row["step_seconds"]) > 0]
    if not rows:
        return {}
    step = float(np.median([float(row["step_seconds"]) for row in rows]))
    sampler = float(np.median([float(row["sampler_seconds"]) for row in rows]))
    return {
        "pairs_per_second": float(np.median([float(row["pairs_per_second"]) for row in rows])),
        "step_seconds": step,
        "sampler_seconds": sampler,
        "sampler_share": sampler / step,
    }


def judged_pairs(data_dir: Path, config: Config) -> Judged:
    """What is judged in a data set, with a marketplace's events before T."""
    return read_judged(data_dir, read_products(data_dir), config.data, config.relevance)


def embeddings_of(bi_encoder: str | None, texts: TextPairs, folder: Path | None) -> Embeddings:
    """All vectors, from the folder where it has them already, else kept there.

    Raises:
        InputError: what `embed_pairs` refuses, or the folder is damaged.
    """
    if bi_encoder is None:
        return no_embeddings(texts)
    if folder is not None and folder.is_dir():
        numbers = {_QUERIES: len(texts.queries), _PRODUCTS: len(texts.products)}
        return Embeddings(*(_kept(folder / name, number, 2) for name, number in numbers.items()))
    embeddings = embed_pairs(bi_encoder, texts)
    if folder is not None:
        is_trained = trained_on(bi_encoder, texts.queries)
        with atomic_directory(folder) as temporary:
            np.save(temporary / _QUERIES, embeddings.queries)
            np.save(temporary / _PRODUCTS, embeddings.products)
            if is_trained is not None:
                np.save(temporary / _IS_TRAINED, is_trained)
    return embeddings


def read_trained(folder: Path, num_queries: int) -> np.ndarray | None:
    """Of the vectors kept in a folder: whether the bi-encoder was trained on each query; none: not known.

    Raises:
        InputError: the folder is damaged.
    """
    path = folder / _IS_TRAINED
    return _kept(path, num_queries, 1) if path.is_file() else None


def _kept(path: Path, num_rows: int, num_dimensions: int) -> np.ndarray:
    """An array of a folder of vectors, which has no manifest."""
    try:
        rows: np.ndarray = np.load(path)
        is_whole = rows.ndim == num_dimensions and len(rows) == num_rows
    except (OSError, ValueError, EOFError):
        is_whole = False
    if not is_whole:
        raise InputError(f"{path}: missing, damaged or of other texts; delete {path.parent}, it is made again")
    return rows


def learn_words(config: RelevanceConfig, pairs: PartPairs, folder: Path) -> None:
    """Write the words of the queries and products that are trained on."""
    if not folder.is_dir():
        rows = pairs.rows(TRAIN)
        texts = [pairs.texts.queries[row] for row in np.unique(pairs.texts.query[rows])]
        texts += [pairs.texts.products[row] for row in np.unique(pairs.texts.product[rows])]
        with atomic_directory(folder) as temporary:
            learn_vocabulary(texts, temporary, config.vocabulary_size)


def _write_cross_encoder(encoder: CrossEncoder, config: RelevanceConfig, pairs: PartPairs, run_dir: Path) -> None:
    facts = {"fields": list(config.fields), "max_tokens": config.max_tokens, "sampler": config.sampler}
    rows = np.unique(pairs.texts.query[np.concatenate([pairs.rows(TRAIN), pairs.rows(VALIDATION)])])
    with atomic_directory(run_dir / RUN_FOLDER) as folder:
        encoder.save(folder)
        write_json(folder / FACTS, facts)
        pq.write_table(pa.table({"query": [pairs.texts.queries[row] for row in rows]}), folder / TRAINED_QUERIES)
        run_id = read_json(run_dir / "run.json")["run_id"]
        write_manifest(folder, run_id=run_id, uepp_version=uepp.__version__)


def read_relevance_run(run_dir: Path) -> tuple[Config, PartPairs]:
    """Configuration and pairs of a run.

    Raises:
        InputError: not a run of `uepp relevance train`.
    """
    facts = read_json(run_dir / "run.json") if (run_dir / "run.json").is_file() else {}
    if facts.get("command") != COMMAND:
        raise InputError(f"{run_dir}: not a run of uepp {COMMAND}; make one with: uepp {COMMAND} --run DIR")
    if not (run_dir / "pairs.parquet").is_file():
        raise InputError(f"{run_dir}: has no pairs yet; finish the run: uepp {COMMAND} --run {run_dir} --resume")
    return load_config(str(run_dir / "config.yaml")), PartPairs.load(run_dir / "pairs.parquet")


def sizes_text(pairs: PartPairs) -> str:
    """Pairs and queries of each part, and what became of the grades, in words."""
    texts = []
    for name in (TRAIN, VALIDATION, EVALUATION):
        rows = pairs.rows(name)
        if len(rows):
            queries = len(np.unique(pairs.texts.query[rows]))
            texts.append(
                f"{name}: {len(rows):,} pairs of {queries:,} queries ({pairs.is_random[rows].mean():.1%} random)"
            )
    levels = pairs.levels()
    number = sum(count for count, _ in levels.values())
    said = ", ".join(f"{name} {count / number:.1%} (from {least:.4g})" for name, (count, least) in levels.items())
    return "; ".join(texts) + f"\n  judged: {said}"


def _cosines(embeddings: Embeddings, query: np.ndarray, product: np.ndarray) -> np.ndarray:
    units = []
    for vectors, rows in ((embeddings.queries, query), (embeddings.products, product)):
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        units.append((vectors / np.maximum(length, 1e-12))[rows])
    return np.einsum("nd,nd->n", *units)


def measures_of(
    scores: np.ndarray, gains: np.ndarray, query: np.ndarray, is_random: np.ndarray
) -> dict[str, float | None]:
    """NDCG@5, 10 and 20, AUROC (BHNS 4.2.3), and AUROC of judged pairs alone.

    Random pairs are told easily, so AUROC of all says less of the difficult ones the more of them there are.

    Args:
        scores: float [N].
        gains: float [N]; at least .5 is relevant.
        query: int64 [N].
        is_random: bool [N].

    Returns:
        By name, 0 to 1; AUROC is none where all pairs are relevant, or none is: JSON has no NaN.
    """
    found: dict[str, float | None] = {f"ndcg@{k}": query_ndcg(scores, gains, query, k) for k in NDCG_AT}
    for name, kept in (("auroc", np.ones(len(query), bool)), ("auroc_judged", ~is_random)):
        auroc = pair_auroc(scores[kept], gains[kept] >= 0.5)
        found[name] = None if np.isnan(auroc) else auroc
    return found


def ndcg_at_10(encoder: CrossEncoder, pairs: PartPairs, rows: np.ndarray) -> float:
    """NDCG@10 of some of the pairs, for early stopping."""
    texts = pairs.texts
    query = texts.query[rows]
    products = [texts.products[row] for row in texts.product[rows]]
    scores = logits_of(encoder, [texts.queries[row] for row in query], products)
    return query_ndcg(scores, pairs.evaluation_labels[rows], query, 10)
