"""The story of `uepp export`: checkpoint → SavedModels → vectors → index."""

from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console

from uepp.config import save_config
from uepp.data.schema import read_products
from uepp.evaluation.baselines import lexical_texts
from uepp.evaluation.requests import Requests, load_requests
from uepp.features.fitted import Fitted
from uepp.lexical.bm25 import BM25
from uepp.model.towers import build_two_tower
from uepp.pipeline.stored import config_with_index, generated_queries, read_run
from uepp.retrieval.boosting import BOOSTING
from uepp.retrieval.export import rebuild_index, write_export
from uepp.retrieval.operations import not_in_tensorflow_serving
from uepp.runs.directory import announced
from uepp.training.loop import restore


def export(run_dir: Path, console: Console, *, tune: bool = True) -> None:
    """Newest checkpoint → SavedModels, vectors, index, the tuned BM25's settings, manifest, in `run_dir/export`.

    Args:
        run_dir: a trained run.
        console: for progress.
        tune: whether to tune BM25; without, the export cannot be compared with it.
    """
    config, facts, mined = read_run(run_dir)
    products = read_products(Path(facts["data"]))
    fitted = Fitted.load(run_dir / "features", config.features)
    generated = None if fitted.text_encoder is None else generated_queries(fitted.text_encoder)
    bm25, lexical = {}, None
    if tune:
        with announced(console, "tuning of BM25", run_dir=run_dir):
            selection = load_requests(mined / "requests.parquet", "selection", products)
            bm25["bm25"], lexical = _tune_bm25(products, selection)
            if generated is not None:
                bm25["bm25_expanded"], expanded = _tune_bm25(products, selection, generated)
                if bm25["bm25_expanded"].get("recall@100", 0) > bm25["bm25"].get("recall@100", 0):
                    lexical = expanded
    was_boosted = (run_dir / "export" / BOOSTING).exists()
    with announced(console, "export", run_dir=run_dir):
        model = restore(lambda: build_two_tower(config, fitted), config, run_dir)
        write_export(
            run_dir / "export",
            model=model,
            config=config,
            fitted=fitted,
            products=products,
            mined=mined,
            bm25=bm25,
            lexical=lexical,
            generated=generated,
            run_id=facts["run_id"],
        )
        for tower in ("query_tower", "product_tower"):
            if missing := not_in_tensorflow_serving(run_dir / "export" / tower):
                console.print(f"  note: TensorFlow Serving lacks operations of {tower}: {', '.join(missing)}")
    if was_boosted:
        note = f"the export was boosted, the new one is not; boost it with: uepp boost {run_dir}"
        console.print(f"  note: {note}", markup=False, soft_wrap=True)


def export_index(run_dir: Path, index: str, console: Console) -> None:
    """Give an existing export another index; without an export, make one with it."""
    read_run(run_dir)
    config = config_with_index(run_dir, index)
    if (run_dir / "export").is_dir():
        with announced(console, f"index: {index}"):
            rebuild_index(run_dir / "export", config.export)
        # only now: an index that does not fit the data leaves it as it was
        save_config(config, run_dir / "config.yaml")
    else:
        save_config(config, run_dir / "config.yaml")
        export(run_dir, console)


def _tune_bm25(
    products: pa.Table, selection: Requests, generated: pa.Table | None = None
) -> tuple[dict[str, Any], BM25]:
    """Chosen settings for `bm25.json`, and the index that has them."""
    index = BM25.build(lexical_texts(products, generated), "tuned")
    if not len(selection):
        start = index.settings
        return {"strength": "tuned", "k1": start.k1, "b": start.b, "weights": start.weights}, index
    limit = int(selection.num_products.max())
    requests = list(zip(selection.queries, selection.target_lists(), strict=True))
    return index.tune(requests, limit=limit), index
