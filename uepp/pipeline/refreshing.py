"""The story of `uepp export --data`: a changed catalogue → vectors of what changed → indexes → published as one."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console

from uepp.artifacts import MANIFEST, read_json, write_manifest
from uepp.config import save_config
from uepp.data.schema import read_products, validate_products
from uepp.evaluation.baselines import lexical_texts
from uepp.features.text_encoder import GENERATED
from uepp.lexical.bm25 import BM25
from uepp.pipeline.stored import config_with_index, generated_queries
from uepp.retrieval.boosting import BOOSTING
from uepp.retrieval.export import LEXICAL, check_is_run, open_export
from uepp.retrieval.product_index import carried_point, choose_spec, write_product_index
from uepp.retrieval.quality import check_has_quality
from uepp.retrieval.refresh import copy_fitted, write_catalogue
from uepp.retrieval.replacing import replacing
from uepp.retrieval.vectors import ProductVectors
from uepp.runs.directory import announced


def refresh(run_dir: Path, data: Path, console: Console, *, index: str | None = None) -> dict[str, Any]:
    """Give a run's export another catalogue, with the weights that it has.

    Everything that was fitted or tuned stays: towers, vocabularies, places, graph, BM25's parameters, quality's weights
    and constants, the tuned operating point. What depends on the catalogue is made to fit the new one.

    Args:
        run_dir: a run with an export.
        data: data set whose `products.parquet` is the new catalogue; its events are not read.
        console: for progress.
        index: spec of the index, which becomes the run's; none: the run's.

    Returns:
        The new manifest without its files (`catalogue` has the changes), and `seconds`.

    Raises:
        InputError: no export, a damaged one, a catalogue that is not valid, or one that the index or the boosting does
            not fit.
    """
    begin = time.perf_counter()
    check_is_run(run_dir)
    config = config_with_index(run_dir, index)
    for note in validate_products(data).notes:
        console.print(f"  note: {note}", markup=False, highlight=False, soft_wrap=True)
    export_dir = run_dir / "export"
    with replacing(export_dir) as folder:
        manifest = read_json(open_export(run_dir) / MANIFEST)
        manifest.pop("files")
        products = read_products(data)
        # before the long part, too: an index that does not fit
        tuned, dim = carried_point(export_dir, export_dir), ProductVectors.open(export_dir).dim
        choose_spec(config.export.index, products.num_rows, dim, tuned)
        if (export_dir / BOOSTING).exists():
            check_has_quality(products, read_json(export_dir / BOOSTING)["features"])

        with announced(console, "what changed, and its vectors"):
            copy_fitted(export_dir, folder)
            changes = write_catalogue(export_dir, folder, products, config)
        generated = generated_queries(export_dir)
        if generated is not None:
            _note_missing(generated, products, console)
        if (export_dir / LEXICAL).is_dir():
            with announced(console, "BM25"):
                _index_texts(export_dir, folder, products, generated)
        with announced(console, "index"):
            write_product_index(folder, config.export.index, tuned)

        number = manifest.get("catalogue", {}).get("refresh", 0) + 1
        when = datetime.now(UTC).isoformat(timespec="seconds")
        manifest |= {
            "num_products": products.num_rows,
            "catalogue": {"refresh": number, "when": when, **changes._asdict()},
        }
        write_manifest(folder, **manifest)
    if index is not None:
        save_config(config, run_dir / "config.yaml")
    return {**manifest, "seconds": round(time.perf_counter() - begin, 1)}


def _index_texts(export_dir: Path, folder: Path, products: pa.Table, generated: pa.Table | None) -> None:
    """BM25 as it was tuned, over the new texts."""
    tuned = BM25.load(export_dir / LEXICAL)
    has_generated = bool(tuned.settings.weights.get("generated"))
    texts = lexical_texts(products, generated if has_generated else None)
    BM25.build(texts, tuned.strength, tuned.settings).save(folder / LEXICAL)


def _note_missing(generated: pa.Table, products: pa.Table, console: Console) -> None:
    """Generated queries stay those of training: nothing writes new ones here."""
    have = set(generated.column("product_id").to_pylist())
    missing = sum(product_id not in have for product_id in products.column("product_id").to_pylist())
    if missing:
        console.print(
            f"  note: {missing:,} products have no generated queries ({GENERATED}); BM25 finds them by their own texts",
            highlight=False,
            soft_wrap=True,
        )
