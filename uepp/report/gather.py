"""All that a run, its boosting, its tuning and some studies have recorded, in one plain structure."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from uepp.artifacts import MANIFEST, read_json
from uepp.config import Config
from uepp.errors import InputError
from uepp.evaluation.slices import ALL
from uepp.pipeline.stored import parts_of_export
from uepp.retrieval.boosting import BOOSTING
from uepp.retrieval.product_index import read_serving
from uepp.runs.directory import read_costs

OPPONENT = "bm25"
"""The system that the answer compares with: tuned BM25."""


class Training(NamedTuple):
    """What the log of a training says of its time; preparation and export are not in it.

    Attributes:
        steps: that were taken.
        seconds: of these, from the logged speed.
        examples_per_second: over all of them.
    """

    steps: int
    seconds: float
    examples_per_second: float


@dataclass(frozen=True)
class Facts:
    """What was recorded.

    Attributes:
        run_dir: the run.
        manifest: of its export.
        run: content of `run.json`.
        config: resolved.
        metrics: content of `metrics.json`.
        windows: content of `windows.json`, moments.
        data: content of `dataset.json`, empty without one.
        num_events: rows of the log; none: the data set is not where it was.
        num_examples: training examples.
        training: of the log; none: there is none.
        costs: content of `costs.json`, empty without one.
        served: spec of the index that the export serves with.
        sizes: bytes on disk by what it is.
        boosting: of `uepp boost`, none: not boosted.
        tuning: of `uepp tune`, none: not tuned, or served otherwise since.
        studies: by name, content of `results.json`.
        made: now.
    """

    run_dir: Path
    manifest: dict[str, Any]
    run: dict[str, Any]
    config: Config
    metrics: dict[str, Any]
    windows: dict[str, datetime]
    data: dict[str, Any]
    num_events: int | None
    num_examples: int | None
    training: Training | None
    costs: dict[str, Any]
    served: str
    sizes: dict[str, int]
    boosting: dict[str, Any] | None
    tuning: dict[str, Any] | None
    studies: dict[str, dict[str, Any]]
    made: datetime

    @property
    def main_k(self) -> int:
        """K of the answer: 100, else the middle one."""
        ks = self.ks
        return 100 if 100 in ks else ks[len(ks) // 2]

    @property
    def ks(self) -> list[int]:
        """K of the evaluation, increasing."""
        names = next(iter(self.metrics["systems"].values()))[ALL]
        return sorted(int(name.partition("@")[2]) for name in names if name.startswith("recall@"))


def gather(
    run_dir: Path, export: Path, config: Config, run: dict[str, Any], mined: Path, studies: Sequence[Path]
) -> Facts:
    """Read everything that the page tells, except what it ranks itself.

    Args:
        run_dir: a run.
        export: of the run, checked.
        config: of the run.
        run: content of `run.json`.
        mined: the run's mined tables.
        studies: directories with `results.json`.

    Raises:
        InputError: figures are missing, of an older form, or of another export.
    """
    manifest = read_json(export / MANIFEST)
    metrics = _metrics(run_dir, manifest)
    data, served = Path(run.get("data", run_dir)), read_serving(export)["index"]
    about = read_json(data / "dataset.json") if (data / "dataset.json").is_file() else {}
    return Facts(
        run_dir=run_dir,
        manifest=manifest,
        run=run,
        config=config,
        metrics=metrics,
        windows={name: datetime.fromisoformat(at) for name, at in read_json(export / "windows.json").items()},
        data=about,
        num_events=_num_rows(data / "events.parquet"),
        num_examples=_num_rows(mined / "examples.parquet"),
        training=_training(run_dir / "logs" / "training.csv", config.training.batch_size),
        costs=read_costs(run_dir),
        served=served,
        sizes=_sizes(run_dir, export),
        boosting=_boosting(run_dir, export, manifest["run_id"]),
        tuning=_tuning(run_dir, manifest["run_id"], served),
        studies=_studies(studies),
        made=datetime.now(UTC),
    )


def changed_settings(config: Config) -> list[tuple[str, Any, Any]]:
    """Settings that differ from the defaults: key, default, value. Where the data lie is no setting of that kind."""
    defaults, values = Config().model_dump(mode="json"), config.model_dump(mode="json")
    return [
        (f"{stage}.{key}", default, values[stage][key])
        for stage, keys in defaults.items()
        for key, default in keys.items()
        if values[stage][key] != default and (stage, key) != ("data", "path")
    ]


def _metrics(run_dir: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    run_id = manifest["run_id"]
    path, again = run_dir / "metrics.json", f"run: uepp evaluate {run_dir}"
    if not path.is_file():
        raise InputError(f"{path}: no such file, the run is not evaluated yet; {again}")
    metrics = read_json(path)
    for key in ("systems", "comparisons", "days", "export"):
        if not isinstance(metrics, dict) or key not in metrics:
            raise InputError(f"{path}: written by an earlier version, it has no {key}; {again}")
    if metrics.get("run_id") != run_id:
        raise InputError(f"{path}: of another export (run_id {metrics.get('run_id')}, not {run_id}); {again}")
    now = parts_of_export(manifest)
    read = {"towers": ["uepp"], "boosting": ["uepp_boost", "uepp_rerank"], "ranker": ["uepp_rerank"]}
    for part, systems in read.items():
        if metrics["systems"].keys() & systems and metrics["export"][part] != now[part]:
            raise InputError(f"{path}: the export's {part} changed since; {again}")
    if OPPONENT not in metrics["comparisons"]:
        raise InputError(f"{path}: does not compare with tuned BM25 (--against had no {OPPONENT}); {again}")
    return metrics


def _of_run(path: Path, run_id: str) -> dict[str, Any] | None:
    """A report, unless it is of another run (whose directory was taken for this one)."""
    found = read_json(path) if path.is_file() else None
    return found if found is not None and found.get("run_id") == run_id else None


def _boosting(run_dir: Path, export: Path, run_id: str) -> dict[str, Any] | None:
    """The report of boosting, unless that was taken away again, or the export has other weights by now."""
    found, path = _of_run(run_dir / "boosting" / "report.json", run_id), export / BOOSTING
    if found is None or found["is_boosted"] != path.exists():
        return None
    return found if not path.exists() or _weights(found) == _weights(read_json(path)) else None


def _weights(boosting: dict[str, Any]) -> dict[str, float]:
    """What counts, by name; a report also has the features that do not."""
    weights = {feature["name"]: feature["weight"] for feature in boosting.get("features", ())}
    return {name: weight for name, weight in weights.items() if weight}


def _tuning(run_dir: Path, run_id: str, served: str) -> dict[str, Any] | None:
    """The report of tuning, where the export serves with what it chose."""
    found = _of_run(run_dir / "tuning" / "report.json", run_id)
    return found if found is not None and found.get("chosen") == served else None


def _num_rows(path: Path) -> int | None:
    return pq.read_metadata(path).num_rows if path.is_file() else None


def _training(path: Path, batch_size: int) -> Training | None:
    if not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8") as stream:
        rows = [(int(row["step"]), float(row["examples_per_second"])) for row in csv.DictReader(stream)]
    before, steps, seconds = 0, 0, 0.0
    for step, speed in rows:
        if speed > 0 and step > before:  # a resumed log may tell of a step twice
            steps += step - before
            seconds += (step - before) * batch_size / speed
        before = max(before, step)
    return Training(steps, seconds, steps * batch_size / seconds) if seconds else None


def _sizes(run_dir: Path, export: Path) -> dict[str, int]:
    parts = {
        "query tower": export / "query_tower",
        "product tower": export / "product_tower",
        "vectors": export / "vectors",
        "index": export / "index.faiss",
        "BM25's index": export / "lexical",
    }
    sizes = {name: _bytes(path) for name, path in parts.items() if path.exists()}
    sizes["other files of the export"] = _bytes(export) - sum(sizes.values())
    for name in ("checkpoints", "features", "mined"):
        if (run_dir / name).exists():
            sizes[f"{name} (not needed to serve)"] = _bytes(run_dir / name)
    return sizes


def _bytes(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _studies(paths: Sequence[Path]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for path in paths:
        file = path if path.is_file() else path / "results.json"
        results = read_json(file)
        if not isinstance(results, dict) or not results.get("variants"):
            raise InputError(f"{file}: not the results of a study, it has no variants")
        name = file.parent.resolve().name
        found[name if name not in found else str(path)] = results
    return found
