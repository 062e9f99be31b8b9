"""The story of `uepp evaluate`: an export and its opponents on the same requests."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from uepp.artifacts import fingerprint, read_json, write_json
from uepp.config import Config, load_config
from uepp.data.mining import mine, mine_requests
from uepp.data.schema import validate, validate_events
from uepp.errors import InputError
from uepp.evaluation.baselines import BoostedTowers, CategoryPopularity, Fusion, Lexical, Popularity, System, Towers
from uepp.evaluation.random_walk import RandomWalk
from uepp.evaluation.recall import evaluate, without_nan
from uepp.evaluation.requests import Requests, load_requests
from uepp.evaluation.segments import assign_segments
from uepp.features.text_encoder import GENERATED
from uepp.lexical.bm25 import BM25Settings
from uepp.pipeline.stored import generated_queries, read_run
from uepp.retrieval.boosting import BOOSTING
from uepp.retrieval.export import open_export
from uepp.runs.directory import announced

_BM25S = ("bm25", "bm25_stemmed", "bm25_plain")
_EXPANDED = "bm25_expanded"
_BOOSTED = "uepp_boost"
OPPONENTS = (_BOOSTED, "fusion", *_BM25S, _EXPANDED, "random_walk", "category_popularity", "popularity")
"""Systems that `--against` takes."""


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
        against: opponents; none: the run with boosting where it has some, the three BM25s, and category popularity
            where products have categories.
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


def _opponents(against: Sequence[str] | None, products: pa.Table, export_dir: Path) -> tuple[str, ...]:
    has_generated, has_boosting = (export_dir / GENERATED).exists(), (export_dir / BOOSTING).exists()
    if against is None:
        has_categories = products.column("category").null_count < products.num_rows
        own = [name for name, is_there in ((_BOOSTED, has_boosting), (_EXPANDED, has_generated)) if is_there]
        by_category = ("category_popularity",) if has_categories else ()
        return (*own, *_BM25S, "random_walk", *by_category)
    for name in against:
        if name not in OPPONENTS:
            raise InputError(f"--against {name}: unknown system; known are {', '.join(OPPONENTS)}")
        if name == _EXPANDED and not has_generated:
            raise InputError(
                f"--against {name}: {export_dir} has no generated queries; they come with the text encoder "
                "of a run of uepp pretrain"
            )
        if name == _BOOSTED and not has_boosting:
            raise InputError(
                f"--against {name}: {export_dir} has no boosting; make it with: uepp boost {export_dir.parent}"
            )
    return tuple(against)


def _system(name: str, export_dir: Path, products: pa.Table, config: Config) -> System:

    def tuned(of: str) -> BM25Settings:
        chosen = read_json(export_dir / f"{of}.json")
        return BM25Settings(chosen["k1"], chosen["b"], chosen["weights"])

    makers: dict[str, Callable[[], System]] = {
        "uepp": lambda: Towers(export_dir, config.history),
        _BOOSTED: lambda: BoostedTowers(export_dir, config.history),
        "bm25": lambda: Lexical(products, "tuned", tuned("bm25")),
        _EXPANDED: lambda: Lexical(products, "tuned", tuned(_EXPANDED), generated_queries(export_dir)),
        "bm25_stemmed": lambda: Lexical(products, "stemmed"),
        "bm25_plain": lambda: Lexical(products, "plain"),
        "fusion": lambda: Fusion(
            [Towers(export_dir, config.history), Lexical(products, "tuned", tuned("bm25"))],
            max(1_000, *config.evaluation.recall_at),
        ),
        "random_walk": lambda: RandomWalk(export_dir, products),
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
        _, _, mined = read_run(run_dir)
        path = mined / "requests.parquet"
        target = run_dir / ("metrics.json" if window == "report" else "metrics_selection.json")
    requests = load_requests(path, window, products)
    if not len(requests):
        raise InputError(
            f"{events or data or path}: no request in the {window} window has a relevant interaction "
            f"(data.relevant_types = {list(config.data.relevant_types)})"
        )
    return requests, target
