"""What a run and its export hold, for the stories that begin with one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from uepp.artifacts import read_json
from uepp.config import Config, load_config
from uepp.errors import InputError
from uepp.evaluation.requests import REQUEST_COLUMNS, Requests, load_requests
from uepp.features.requests import load_past_events
from uepp.features.text_encoder import GENERATED
from uepp.index_families import parse_spec
from uepp.relevance.ranker import MODEL, RANKER, towers_key
from uepp.retrieval.boosting import BOOSTING
from uepp.retrieval.export import check_is_run


def read_run(run_dir: Path) -> tuple[Config, dict[str, Any], Path]:
    """Configuration of a trained run, its `run.json`, and its mined tables.

    Raises:
        InputError: not a run, or one that was not trained.
    """
    check_is_run(run_dir)
    facts = read_json(run_dir / "run.json")
    if "mined" not in facts or not (run_dir / "checkpoints").is_dir():
        raise InputError(
            f"{run_dir}: this run has not been trained; finish it with: uepp train --run {run_dir} --resume"
        )
    return load_config(str(run_dir / "config.yaml")), facts, run_dir / "mined" / facts["mined"]


def read_windows(run_dir: Path) -> dict[str, Requests]:
    """The requests of a run's windows `selection` and `report`, with the catalogue of its export."""
    _, _, mined = read_run(run_dir)
    products = pq.read_table(run_dir / "export" / "products.parquet", columns=list(REQUEST_COLUMNS))
    past = load_past_events(mined, products)
    return {
        window: load_requests(mined / "requests.parquet", window, products, past) for window in ("selection", "report")
    }


def config_with_index(run_dir: Path, index: str | None) -> Config:
    """A run's configuration, with the index that was asked for by `--index`; none: its own.

    Raises:
        InputError: no such index.
    """
    if index is None:
        return load_config(str(run_dir / "config.yaml"))
    try:
        parse_spec(index)
    except ValueError as error:
        raise InputError(f"--index {index!r}: {error}") from None
    return load_config(str(run_dir / "config.yaml"), [f"export.index={index}"])


def generated_queries(directory: Path) -> pa.Table | None:
    """Generated queries that a text encoder or an export came with."""
    path = directory / GENERATED
    return pq.read_table(path) if path.exists() else None


def parts_of_export(manifest: Mapping[str, Any]) -> dict[str, str | None]:
    """What figures of an export depend on, as its checked manifest has it.

    Returns:
        A digest each of `towers`, `boosting` and `ranker`; none: it has none.
    """
    files = manifest["files"]
    return {
        "towers": towers_key(manifest),
        "boosting": files.get(BOOSTING),
        "ranker": files.get(f"{RANKER}/{MODEL}"),
    }
