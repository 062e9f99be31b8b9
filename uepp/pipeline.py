"""The stories that the commands tell: each function puts stages together in the order of the data."""

import shutil
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from uepp.artifacts import atomic_directory, fingerprint, read_json, write_json
from uepp.config import Config, TrainingConfig, load_config, save_config
from uepp.data.mining import mine, mine_requests
from uepp.data.schema import check_quality, read_products, validate, validate_events
from uepp.data.windows import resolve_windows
from uepp.errors import InputError
from uepp.evaluation.baselines import CategoryPopularity, Lexical, Popularity, System, Towers, lexical_texts
from uepp.evaluation.recall import evaluate, without_nan
from uepp.evaluation.requests import Requests, load_requests
from uepp.evaluation.segments import assign_segments
from uepp.features.bags import Bags
from uepp.features.batches import batch_dataset, build_batch_maker
from uepp.features.catalog import build_catalog, load_catalog, num_products_before
from uepp.features.examples import Examples, load_examples, title_span, with_weak_examples
from uepp.features.fitted import TEXT_ENCODER, Fitted, fit_features
from uepp.features.inputs import QueryFeatures
from uepp.features.text_encoder import GENERATED, check_text_encoder, copy_text_encoder
from uepp.lexical.bm25 import BM25, BM25Settings
from uepp.model.towers import build_two_tower
from uepp.retrieval.export import check_is_run, open_export, rebuild_index, write_export
from uepp.runs.directory import announced, check_run, checked_data, open_run
from uepp.runs.strategies import choose_strategy, gather_numbers, is_chief
from uepp.training.loop import fit, restore

_BM25S = ("bm25", "bm25_stemmed", "bm25_plain")
_EXPANDED = "bm25_expanded"
OPPONENTS = (*_BM25S, _EXPANDED, "category_popularity", "popularity")
"""Systems that `--against` takes."""
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
    if is_chief(strategy):
        _prepare(config, run_dir, console, resume)
    gather_numbers(strategy, 0)

    # -------------------------------------------------------------------------------------- training
    with announced(console, "training"):
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
        batch_size = config.training.batch_size // strategy.num_replicas_in_sync
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
    check_run(config, run_dir, "train", resume=resume, fixed=_FIXED, free="training.*, export.* and evaluation.*")

    # ------------------------------------------------------------------------------------------ data
    with announced(console, "data"):
        data_dir, report = checked_data(config, run_dir, console)
        windows = resolve_windows(data_dir, config.data)
        products = read_products(data_dir)
        check_quality(products, windows.train_end)
        if config.text.encoder is not None and not resume:
            check_text_encoder(Path(config.text.encoder))
        open_run(config, run_dir, "train", resume=resume)  # only now: bad data leaves no half-made run behind
        rows = ", ".join(f"{count:,} {name}" for name, count in report.rows.items())
        console.print(f"  {data_dir}: {rows}", markup=False, soft_wrap=True)

    # ---------------------------------------------------------------------------------------- mining
    with announced(console, "mining"):
        mined = mine(data_dir, config.data, run_dir / "mined")
        facts = read_json(run_dir / "run.json")
        if facts.get("mined", mined.name) != mined.name:
            raise InputError(f"{data_dir}: has changed since this run began; start a new one with --run")
        write_json(run_dir / "run.json", {**facts, "data": str(data_dir.resolve()), "mined": mined.name})
        try:
            examples = load_examples(mined, products.column("product_id").to_pylist(), config.training)
        except InputError:
            if not resume:
                shutil.rmtree(run_dir)
            raise
        console.print(
            f"  {len(examples):,} examples of {len(examples.queries):,} queries before {windows.train_end:%F}"
        )

    # -------------------------------------------------------------------------------------- features
    with announced(console, "features"):
        num_seen = num_products_before(products, windows.train_end)
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


def export(run_dir: Path, console: Console, *, tune: bool = True) -> None:
    """Newest checkpoint → SavedModels, vectors, index, the tuned BM25's settings, manifest, in `run_dir/export`.

    Args:
        run_dir: a trained run.
        console: for progress.
        tune: whether to tune BM25; without, the export cannot be compared with it.
    """
    config, facts, mined = _read_run(run_dir)
    products = read_products(Path(facts["data"]))
    fitted = Fitted.load(run_dir / "features", config.features)
    generated = None if fitted.text_encoder is None else _generated(fitted.text_encoder)
    bm25 = {}
    if tune:
        with announced(console, "tuning of BM25"):
            selection = load_requests(mined / "requests.parquet", "selection", products)
            bm25["bm25"] = _tune_bm25(products, selection)
            if generated is not None:
                bm25[_EXPANDED] = _tune_bm25(products, selection, generated)
    with announced(console, "export"):
        model = restore(lambda: build_two_tower(config, fitted), config, run_dir)
        write_export(
            run_dir / "export",
            model=model,
            config=config,
            fitted=fitted,
            products=products,
            mined=mined,
            bm25=bm25,
            generated=generated,
            run_id=facts["run_id"],
        )


def export_index(run_dir: Path, index: str, console: Console) -> None:
    """Give an existing export another index; without an export, make one with it."""
    config, _, _ = _read_run(run_dir)
    config = load_config(str(run_dir / "config.yaml"), [f"export.index={index}"])
    save_config(config, run_dir / "config.yaml")
    if (run_dir / "export").is_dir():
        with announced(console, f"index: {index}"):
            rebuild_index(run_dir / "export", config.export)
    else:
        export(run_dir, console)


def evaluate_run(
    run_dir: Path,
    console: Console,
    *,
    data: Path | None = None,
    events: Path | None = None,
    against: Sequence[str] | None = None,
    window: Literal["selection", "report"] = "report",
) -> tuple[dict[str, Any], Path]:
    """Recall@K of an export and its opponents; returns the metrics and the JSON file that holds them.

    Args:
        run_dir: a run with an export.
        console: for progress.
        data: evaluate the report window of this data set instead of the run's own.
        events: evaluate every request of this events table.
        against: opponents; none: the three BM25s, and category popularity where products have categories.
        window: which of the run's own requests; those of selection are what something may have been tuned on.
    """
    export_dir = open_export(run_dir)
    config = load_config(str(run_dir / "config.yaml"))
    products = pq.read_table(export_dir / "products.parquet")
    names = _opponents(against, products, export_dir)
    with announced(console, "requests"):
        requests, target = _requests(run_dir, export_dir, config, products, data, events, window)
        segments = assign_segments(requests.queries, export_dir, config.evaluation.segments)
        console.print(
            f"  {len(requests):,} requests; {requests.missing_target_share:.1%} of targets not in the catalogue"
        )
    systems: dict[str, Any] = {}
    for name in ("uepp", *names):
        with announced(console, f"evaluation of {name}"):
            system = _system(name, export_dir, products, config)
            systems[name] = evaluate(system, requests, segments, config.evaluation.recall_at)
    metrics = {
        "run_id": read_json(export_dir / "manifest.json")["run_id"],
        "systems": without_nan(systems),
        "segments": segments.rule,
        "num_requests": len(requests),
        "num_days": len(set(requests.day.tolist())),
        "missing_target_share": requests.missing_target_share,
        "bm25": read_json(export_dir / "bm25.json") if (export_dir / "bm25.json").exists() else None,
    }
    write_json(target, metrics)
    return metrics, target


def _read_run(run_dir: Path) -> tuple[Config, dict[str, Any], Path]:
    check_is_run(run_dir)
    facts = read_json(run_dir / "run.json")
    if "mined" not in facts or not (run_dir / "checkpoints").is_dir():
        raise InputError(
            f"{run_dir}: this run has not been trained; finish it with: uepp train --run {run_dir} --resume"
        )
    return load_config(str(run_dir / "config.yaml")), facts, run_dir / "mined" / facts["mined"]


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


def _generated(directory: Path) -> pa.Table | None:
    """Generated queries that a text encoder or an export came with."""
    path = directory / GENERATED
    return pq.read_table(path) if path.exists() else None


def _tune_bm25(products: pa.Table, selection: Requests, generated: pa.Table | None = None) -> dict[str, Any]:
    index = BM25.build(lexical_texts(products, generated), "tuned")
    if not len(selection):
        return {"strength": "tuned", "k1": index.settings.k1, "b": index.settings.b, "weights": index.settings.weights}
    limit = int(selection.num_products.max())
    requests = list(zip(selection.queries, selection.target_lists(), strict=True))
    return index.tune(requests, limit=limit)


def _opponents(against: Sequence[str] | None, products: pa.Table, export_dir: Path) -> tuple[str, ...]:
    has_generated = (export_dir / GENERATED).exists()
    if against is None:
        has_categories = products.column("category").null_count < products.num_rows
        expanded = (_EXPANDED,) if has_generated else ()
        return (*expanded, *_BM25S, "category_popularity") if has_categories else (*expanded, *_BM25S)
    for name in against:
        if name not in OPPONENTS:
            raise InputError(f"--against {name}: unknown system; known are {', '.join(OPPONENTS)}")
        if name == _EXPANDED and not has_generated:
            raise InputError(
                f"--against {name}: {export_dir} has no generated queries; they come with the text encoder "
                "of a run of uepp pretrain"
            )
    return tuple(against)


def _system(name: str, export_dir: Path, products: pa.Table, config: Config) -> System:

    def tuned(of: str) -> BM25Settings:
        chosen = read_json(export_dir / f"{of}.json")
        return BM25Settings(chosen["k1"], chosen["b"], chosen["weights"])

    makers: dict[str, Callable[[], System]] = {
        "uepp": lambda: Towers(export_dir, config.history),
        "bm25": lambda: Lexical(products, "tuned", tuned("bm25")),
        _EXPANDED: lambda: Lexical(products, "tuned", tuned(_EXPANDED), _generated(export_dir)),
        "bm25_stemmed": lambda: Lexical(products, "stemmed"),
        "bm25_plain": lambda: Lexical(products, "plain"),
        "category_popularity": lambda: CategoryPopularity(export_dir, products, config.data.relevant_types),
        "popularity": lambda: Popularity(export_dir, products, config.data.relevant_types),
    }
    return makers[name]()


def _requests(
    run_dir: Path,
    export_dir: Path,
    config: Config,
    products: pa.Table,
    data: Path | None,
    events: Path | None,
    window: Literal["selection", "report"],
) -> tuple[Requests, Path]:
    """The requests to evaluate, and where their metrics go."""
    if data is not None and events is not None:
        raise InputError("--data and --events: give one of them")
    if events is not None:
        validate_events(events)
        folder = run_dir / "evaluations" / fingerprint(str(events.resolve()))
        mine_requests(events, export_dir, config.data, folder / "mined")
        path, target = folder / "mined" / "requests.parquet", folder / "metrics.json"
    elif data is not None:
        validate(data)
        folder = run_dir / "evaluations" / fingerprint(str(data.resolve()))
        path, target = mine(data, config.data, folder / "mined") / "requests.parquet", folder / "metrics.json"
    else:
        _, _, mined = _read_run(run_dir)
        path = mined / "requests.parquet"
        target = run_dir / ("metrics.json" if window == "report" else "metrics_selection.json")
    requests = load_requests(path, window, products)
    if not len(requests):
        raise InputError(
            f"{events or data or path}: no request in the {window} window has a relevant interaction "
            f"(data.relevant_types = {list(config.data.relevant_types)})"
        )
    return requests, target
