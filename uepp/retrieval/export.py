"""The export of a run: two SavedModels that take raw strings, vectors, the index, and a manifest."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tensorflow as tf

import uepp
from uepp.artifacts import check_manifest, link, read_json, write_json, write_manifest
from uepp.config import Config, ExportConfig
from uepp.data.places import write_last_places
from uepp.errors import InputError
from uepp.features.fitted import Fitted
from uepp.features.graph import load_neighbors
from uepp.features.inputs import Inputs, ProductFeatures, QueryFeatures
from uepp.features.readers.text import TEXT_VECTORS
from uepp.features.text_encoder import GENERATED
from uepp.lexical.bm25 import BM25
from uepp.lexical.fusion import FUSION
from uepp.model.towers import Tower, TwoTower
from uepp.retrieval.embed import load_tower, write_vectors
from uepp.retrieval.product_index import carried_point, choose_spec, write_product_index
from uepp.retrieval.replacing import replacing
from uepp.runs.directory import command_of

_CONTEXT_TABLES = ("graph", "query_counts")
_HISTORY_TABLES = ("history_searches", "history_clicks", "history_purchases")

_SERVING = "serving_default"

LEXICAL = "lexical"
"""Folder of the BM25 index that rankings of the towers can be fused with."""


class TowerModule(tf.Module):
    """A tower as it is served: every signature takes inputs by name and gives `embedding` float32 [R, d].

    Args:
        tower: trained.
        features: inputs to what the tower reads, by the name of the signature that takes them.
    """

    def __init__(self, tower: Tower, features: Mapping[str, Inputs]) -> None:
        super().__init__()
        self._tower = tower
        self._features = dict(features)
        self.serve = {name: self._signature(one) for name, one in features.items()}

    def _signature(self, features: Inputs) -> tf.types.experimental.ConcreteFunction:
        @tf.function
        def serve(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"embedding": self._tower(features(inputs))}

        return serve.get_concrete_function(**features.signature)


def write_export(
    directory: Path,
    *,
    model: TwoTower,
    config: Config,
    fitted: Fitted,
    products: pa.Table,
    mined: Path,
    bm25: dict[str, dict[str, Any]],
    generated: pa.Table | None,
    run_id: str,
    lexical: BM25 | None = None,
    tune_fusion: Callable[[Path], dict[str, Any]] | None = None,
    text_vectors: np.ndarray | None = None,
) -> None:
    """Write `export/`, whole or not at all.

    Args:
        directory: the run's `export/`.
        model: trained towers.
        config: of the run.
        fitted: of the run.
        products: the catalogue in product-index order.
        mined: folder of mined tables.
        bm25: settings of each tuned BM25 by name, chosen on the selection window.
        generated: queries that a model generated for the products; none: there are none.
        run_id: of the run; the manifest repeats it.
        lexical: the BM25 to fuse with at serving; none: no fusion.
        tune_fusion: of the folder with towers and vectors what `fusion.json` says; none: the defaults hold.
        text_vectors: float32 [N, d], what a frozen text encoder makes of the products; none: it encodes them, again.

    Raises:
        InputError: an index that does not fit these products, or another writer.
    """
    with replacing(directory) as folder:
        of_query = QueryFeatures(config, fitted, model.text_encoder)
        of_product = ProductFeatures(config, fitted, model.text_encoder)
        product_inputs: dict[str, Inputs] = {_SERVING: of_product}
        if text_vectors is not None:
            product_inputs[TEXT_VECTORS] = of_product.with_text_vectors()
        modules = {
            "query_tower": TowerModule(model.query_user_tower, {_SERVING: of_query}),
            "product_tower": TowerModule(model.product_tower, product_inputs),
        }
        for name, module in modules.items():
            tf.saved_model.save(module, str(folder / name), signatures=module.serve)
        # before the long part: an index that does not fit
        tuned = carried_point(directory, folder)
        choose_spec(config.export.index, products.num_rows, config.model.output_dim, tuned)
        pq.write_table(products, folder / "products.parquet")
        pq.write_table(products.select(["product_id"]), folder / "product_ids.parquet")
        neighbors = write_neighbors(folder, config, products, mined)
        tower = load_tower(folder / "product_tower", _SERVING if text_vectors is None else TEXT_VECTORS)
        batch_size = config.export.embed_batch_size
        write_vectors(tower, products, neighbors, folder, batch_size, text_vectors=text_vectors)
        _copy_context(mined, folder)
        fitted.save(folder)
        for name, settings in bm25.items():
            write_json(folder / f"{name}.json", settings)
        if lexical is not None:
            lexical.save(folder / LEXICAL)
        if tune_fusion is not None:
            write_json(folder / FUSION, tune_fusion(folder))
        if generated is not None:
            pq.write_table(generated, folder / GENERATED)
        write_product_index(folder, config.export.index, tuned)
        write_manifest(folder, run_id=run_id, uepp_version=uepp.__version__, num_products=products.num_rows)


def write_neighbors(folder: Path, config: Config, products: pa.Table, mined: Path) -> list[list[str]] | None:
    """Write `neighbors.parquet`: every product's `graph.num_neighbors` queries with the most interactions.

    Args:
        folder: what is to become an export.
        config: of the run.
        products: the catalogue in product-index order.
        mined: where `graph.parquet` is; a product that it does not know has no neighbours.

    Returns:
        Neighbours by product index; none: no tower reads them.
    """
    if "graph" not in config.model.product_encoders:
        return None
    product_ids = products.column("product_id").to_pylist()
    graph = load_neighbors(mined, product_ids)
    neighbors = graph.fixed(np.arange(len(product_ids)), config.graph.num_neighbors)
    table = pa.table({"product_id": product_ids, "queries": pa.array(neighbors, pa.list_(pa.string()))})
    pq.write_table(table, folder / "neighbors.parquet")
    return neighbors


def _copy_context(mined: Path, folder: Path) -> None:
    """What baselines, segments and personal search need to know of the time before the end of training."""
    for name in _CONTEXT_TABLES:
        shutil.copyfile(mined / f"{name}.parquet", folder / f"{name}.parquet")
    shutil.copyfile(mined / "windows.json", folder / "windows.json")
    write_last_places(mined, folder)
    train_end = pa.scalar(datetime.fromisoformat(read_json(mined / "windows.json")["train_end"]))
    for name in _HISTORY_TABLES:
        history = pq.read_table(mined / f"{name}.parquet")
        is_before = pc.less(history.column("timestamp"), train_end.cast(history.schema.field("timestamp").type))
        pq.write_table(history.filter(is_before), folder / f"{name}.parquet")


def rebuild_index(
    directory: Path,
    config: ExportConfig,
    change: Callable[[Path], None] | None = None,
    *,
    tuned: dict[str, Any] | None = None,
    built: Path | None = None,
    seen: dict[str, Any] | None = None,
) -> None:
    """Build another index over the vectors of an export; everything else stays as it is.

    Args:
        directory: the export.
        config: of the index.
        change: done to the new folder before its index is built (boosting comes or goes).
        tuned: operating point that was tuned for these vectors; none: the one that the export has, if it still holds.
        built: file of this very index, built before; none: build it.
        seen: manifest of the export that `change`, `tuned` and `built` were made for; none: they fit any.

    Raises:
        InputError: a damaged export, another writer, or one that has replaced it since.
    """
    with changed_copy(directory, seen) as folder:
        if change is not None:
            change(folder)
        write_product_index(folder, config.index, tuned or carried_point(directory, folder), built)


@contextmanager
def changed_copy(directory: Path, seen: dict[str, Any] | None = None) -> Iterator[Path]:
    """A copy of an export to change; when the block ends it gets a manifest of its own and replaces the export.

    What stays is neither copied nor read again: its files are links to those of the export (`link`), so whoever changes
    one puts a new file in its place.

    Args:
        directory: the export.
        seen: manifest of the export that the change was made for, which was checked then; none: it fits any.

    Raises:
        InputError: a damaged export, another writer, or one that has replaced it since.
    """
    with replacing(directory, seen) as folder:
        facts = dict(check_manifest(directory) if seen is None else seen)
        files: dict[str, str] = facts.pop("files")
        shutil.copytree(directory, folder, dirs_exist_ok=True, copy_function=link)
        before = {name: _identity(folder / name) for name in files}
        yield folder
        known = {name: digest for name, digest in files.items() if _identity(folder / name) == before[name]}
        write_manifest(folder, known, **facts)


def _identity(path: Path) -> tuple[int, int, int] | None:
    """What is another one as soon as a file has another content; none: there is no such file."""
    try:
        about = path.stat()
    except FileNotFoundError:
        return None
    return about.st_ino, about.st_size, about.st_mtime_ns


def check_is_run(run_dir: Path) -> None:
    """Raise `InputError` when a directory is not a run of `uepp train`."""
    if not (run_dir / "config.yaml").is_file():
        raise InputError(f"{run_dir}: not a run directory (it has no config.yaml); make one with: uepp train --run DIR")
    if (own := command_of(run_dir)) != "train":
        raise InputError(f"{run_dir}: is a run of uepp {own}; give one of uepp train")


def open_export(run_dir: Path, go_on: Callable[[], None] = lambda: None) -> Path:
    """The checked `export/` of a run.

    Args:
        run_dir: of the run.
        go_on: see `check_manifest`.

    Raises:
        InputError: not a run, not exported yet, or a file that differs from the manifest.
    """
    check_is_run(run_dir)
    if not (run_dir / "export").is_dir():
        raise InputError(f"{run_dir}: this run has no export yet; make it with: uepp export {run_dir}")
    check_manifest(run_dir / "export", go_on=go_on)
    return run_dir / "export"
