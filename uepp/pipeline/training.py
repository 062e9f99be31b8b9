"""The story of `uepp train`: data → mining → features → training."""

from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from rich.console import Console

from uepp.artifacts import atomic_directory, read_json, sha256
from uepp.config import Config, TrainingConfig
from uepp.data.mining import mine
from uepp.data.schema import check_quality, read_products
from uepp.data.windows import resolve_windows
from uepp.errors import InputError
from uepp.evaluation.baselines import lexical_texts
from uepp.features.bags import Bags
from uepp.features.batches import batch_dataset, build_batch_maker
from uepp.features.catalog import build_catalog, load_catalog, num_products_before
from uepp.features.examples import Examples, load_examples, title_span, with_weak_examples
from uepp.features.fitted import TEXT_ENCODER, Fitted, fit_features
from uepp.features.inputs import QueryFeatures
from uepp.features.text_encoder import check_text_encoder_fits, copy_text_encoder
from uepp.lexical.bm25 import BM25
from uepp.model.towers import build_two_tower
from uepp.runs.directory import add_facts, announced, check_run, checked_data, nothing_left, open_run
from uepp.runs.strategies import batch_of_replica, choose_strategy, gather_numbers, is_chief
from uepp.training.loop import fit

_FIXED = ("marketplace", "data", "features", "graph", "history", "text", "model", "loss", "negatives")
"""Stages that a resumed run keeps: its checkpoint and features were made with them."""


class Trained(NamedTuple):
    """How a training ended.

    Attributes:
        step: steps done since the start of the run.
        is_complete: False where a signal stopped it; resume it to go on.
        is_chief: whether this process goes on with the run (of several workers, one does).
    """

    step: int
    is_complete: bool
    is_chief: bool


def train(config: Config, run_dir: Path, console: Console, *, resume: bool = False, verbose: int = 1) -> Trained:
    """Data → examples → features → two towers → checkpoints, in `run_dir`.

    A new run refuses a directory that already holds one; a resumed run continues its own. Of several workers
    (`TF_CONFIG`), which all see `run_dir`, the chief prepares data and features and the others wait for it.
    """
    strategy = choose_strategy()  # first: workers cannot be connected once TensorFlow is in use
    batch_size = batch_of_replica(strategy, "training.batch_size", config.training.batch_size)
    if is_chief(strategy):
        _prepare(config, run_dir, console, resume)
    gather_numbers(strategy, 0)

    # -------------------------------------------------------------------------------------- training
    with announced(console, "training", run_dir=run_dir if is_chief(strategy) else None, adds=resume):
        facts = read_json(run_dir / "run.json")
        mined = run_dir / "mined" / facts["mined"]
        products = read_products(Path(facts["data"]))
        fitted = Fitted.load(run_dir / "features", config.features)
        catalog = load_catalog(products, run_dir / "features")
        num_seen = num_products_before(products, _train_end(mined))
        examples = load_examples(mined, catalog.product_ids, config.training)
        if config.training.teacher_queries:
            examples = _taught(examples, products.slice(0, num_seen), config.training)
            console.print(f"  {len(examples):,} examples with those of BM25")
        maker = build_batch_maker(config, fitted, catalog, examples, mined, num_seen, batch_size)
        encode = QueryFeatures(config, fitted)
        result = fit(
            lambda: build_two_tower(config, fitted),
            lambda elements: batch_dataset(maker, encode, elements),
            config,
            run_dir,
            strategy=strategy,
            resume=resume,
            verbose=verbose,
        )
    return Trained(result.step, result.is_complete, is_chief(strategy))


def _prepare(config: Config, run_dir: Path, console: Console, resume: bool) -> None:
    """Everything before training: checked data, mined tables and features, on disk."""
    check_run(
        config, run_dir, "train", resume=resume, fixed=_FIXED, free="settings of training and of what comes after it"
    )

    # ------------------------------------------------------------------------------------------ data
    with announced(console, "data"):
        data_dir, report = checked_data(config, run_dir, console)
        windows = resolve_windows(data_dir, config.data)
        products = read_products(data_dir)
        check_quality(products, windows.train_end)
        num_seen = num_products_before(products, windows.train_end)
        if not num_seen:
            raise InputError(
                f"{data_dir / 'products.parquet'}: column created_at: no product was there before T, "
                f"{windows.train_end.isoformat()}, the first one from {products['created_at'][0].as_py().isoformat()}; "
                "it says since when a product can be found: leave it out, or set data.train_end"
            )
        if config.text.encoder is not None and not resume:
            check_text_encoder_fits(config, data_dir / "events.parquet", windows.train_end)
        open_run(config, run_dir, "train", resume=resume)  # only now: bad data leaves no half-made run behind
        rows = ", ".join(f"{count:,} {name}" for name, count in report.rows.items())
        console.print(f"  {data_dir}: {rows}", markup=False, soft_wrap=True)

    # ---------------------------------------------------------------------------------------- mining
    with announced(console, "mining", run_dir=run_dir, adds=resume):
        mined = mine(data_dir, config.data, run_dir / "mined")
        facts = read_json(run_dir / "run.json")
        if facts.get("mined", mined.name) != mined.name:
            raise InputError(f"{data_dir}: has changed since this run began; start a new one with --run")
        catalogue = sha256(data_dir / "products.parquet")
        add_facts(run_dir, data=str(data_dir.resolve()), mined=mined.name, products_sha256=catalogue)
        with nothing_left(run_dir, resume):
            examples = load_examples(mined, products.column("product_id").to_pylist(), config.training)
        console.print(
            f"  {len(examples):,} examples of {len(examples.queries):,} queries before {windows.train_end:%F}"
        )

    # -------------------------------------------------------------------------------------- features
    with announced(console, "features", run_dir=run_dir, adds=resume):
        if not (run_dir / "features").exists():
            with atomic_directory(run_dir / "features") as folder:
                fitted = fit_features(
                    config.features, products, examples.queries, examples.contexts, num_seen, config.training.seed
                )
                fitted.save(folder)
                if config.text.encoder is not None:
                    copy_text_encoder(Path(config.text.encoder), folder / TEXT_ENCODER)
                    fitted = Fitted.load(folder, config.features)
                build_catalog(config, fitted, products, folder)
        fitted = Fitted.load(run_dir / "features", config.features)
        sizes = [f"{vocabulary.size:,} {name} token rows" for name, vocabulary in fitted.vocabularies.items()]
        console.print(f"  {', '.join(sizes)}, {len(fitted.shops.tokens):,} shops")


def _train_end(mined: Path) -> datetime:
    return datetime.fromisoformat(read_json(mined / "windows.json")["train_end"])


def _taught(examples: Examples, products: pa.Table, config: TrainingConfig) -> Examples:
    """Weak examples from BM25, untuned: its best products for training queries and for spans of titles."""
    rng = np.random.default_rng(config.seed)
    titles = products.column("title").to_pylist()
    sources: dict[str, list[int]] = {query: [] for query in examples.queries}
    for row in rng.integers(0, len(titles), config.teacher_queries).tolist():
        sources.setdefault(title_span(titles[row], rng), []).append(row)
    queries = list(sources)
    found, _ = BM25.build(lexical_texts(products), "tuned").search(queries, config.teacher_depth)
    answers = Bags(found[found >= 0], (found >= 0).sum(axis=1).astype(np.int32))
    cut_from = [np.array(rows, np.int32) for rows in sources.values()]
    own = Bags(np.concatenate(cut_from), np.array([len(rows) for rows in cut_from], np.int32))
    return with_weak_examples(examples, queries, answers, own)
