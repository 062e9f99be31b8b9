"""The story of `uepp export`: checkpoint → SavedModels → vectors → index."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console

import uepp
from uepp.artifacts import fingerprint, read_json, sha256, write_json
from uepp.config import Config, save_config
from uepp.data.schema import read_products
from uepp.errors import InputError
from uepp.evaluation.baselines import Lexical, Towers, lexical_texts
from uepp.evaluation.requests import Requests, load_requests
from uepp.evaluation.systems import settings_of
from uepp.features.catalog import read_text_vectors
from uepp.features.fitted import Fitted
from uepp.features.text_encoder import GENERATED
from uepp.lexical import fusion
from uepp.lexical.bm25 import BM25
from uepp.model.towers import build_two_tower
from uepp.pipeline.stored import config_with_index, generated_queries, read_run
from uepp.relevance.ranker import has_ranker
from uepp.retrieval.boosting import BOOSTING
from uepp.retrieval.export import rebuild_index, write_export
from uepp.retrieval.operations import not_in_tensorflow_serving
from uepp.retrieval.product_index import choose_spec
from uepp.runs.directory import announced
from uepp.training.loop import restore

_FUSED_REQUESTS = 1_000  # that fusion is tuned on, at most: each is compared with the whole catalogue


def export(run_dir: Path, console: Console, *, tune: bool = True, index: str | None = None) -> None:
    """Newest checkpoint → SavedModels, vectors, index, the tuned BM25 and fusion, manifest, in `run_dir/export`.

    Args:
        run_dir: a trained run.
        console: for progress.
        tune: whether to tune BM25 and its fusion with the towers; without, the export has neither.
        index: spec of the index, which becomes the run's; none: the run's.

    Raises:
        InputError: a run that was not trained, another catalogue than then, or an index that does not fit it.
    """
    _, facts, mined = read_run(run_dir)
    config = config_with_index(run_dir, index)
    _refuse_other_catalogue(run_dir, facts)
    products = read_products(Path(facts["data"]))
    # before the long part; a tuned point, which belongs to the towers, is looked at when these are there
    choose_spec(config.export.index, products.num_rows, config.model.output_dim)
    fitted = Fitted.load(run_dir / "features", config.features)
    generated = None if fitted.text_encoder is None else generated_queries(fitted.text_encoder)
    bm25: dict[str, dict[str, Any]] = {}
    lexical: BM25 | None = None
    tune_fusion: Callable[[Path], dict[str, Any]] | None = None
    if tune:
        with announced(console, "tuning of BM25", run_dir=run_dir):
            selection = load_requests(mined / "requests.parquet", "selection", products)
            made_of = [Path(facts["data"]) / "products.parquet", mined / "requests.parquet"]
            if fitted.text_encoder is not None and generated is not None:
                made_of.append(fitted.text_encoder / GENERATED)
            version = fingerprint("bm25", [sha256(path) for path in made_of], uepp.__version__)
            bm25, lexical = _tune_bm25(run_dir / "baselines", version, products, selection, generated)
            if not len(selection):
                console.print("  note: no request on the selection days, so BM25 has its default settings")
        tune_fusion = partial(_tune_fusion, config=config, lexical=lexical, selection=selection, console=console)
    was_boosted, had_ranker = (run_dir / "export" / BOOSTING).exists(), has_ranker(run_dir / "export")
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
            tune_fusion=tune_fusion,
            generated=generated,
            run_id=facts["run_id"],
            text_vectors=read_text_vectors(config, run_dir / "features"),
        )
        for tower in ("query_tower", "product_tower"):
            if missing := not_in_tensorflow_serving(run_dir / "export" / tower):
                console.print(f"  note: TensorFlow Serving lacks operations of {tower}: {', '.join(missing)}")
    if index is not None:
        save_config(config, run_dir / "config.yaml")
    if was_boosted:
        note = f"the export was boosted, the new one is not; boost it with: uepp boost {run_dir}"
        console.print(f"  note: {note}", markup=False, soft_wrap=True)
    if had_ranker:
        note = f"the export had a ranker, the new one has none; make it with: uepp relevance rank {run_dir}"
        console.print(f"  note: {note}", markup=False, soft_wrap=True)


def _refuse_other_catalogue(run_dir: Path, facts: dict[str, Any]) -> None:
    """What a run exports is the catalogue that it was trained with: all that it is measured on belongs to that one."""
    path = Path(facts["data"]) / "products.parquet"
    if not path.is_file():
        raise InputError(f"{path}: no such file; the run was trained with it")
    if facts.get("products_sha256") not in (None, sha256(path)):
        way = "start a new run"
        if (run_dir / "export").is_dir():
            way = f"its export takes another catalogue with: uepp export {run_dir} --data {path.parent}"
        raise InputError(f"{path}: has changed since the run was trained; {way}")


def export_index(run_dir: Path, index: str, console: Console) -> None:
    """Give an existing export another index; without an export, make one with it."""
    if not (run_dir / "export").is_dir():
        export(run_dir, console, index=index)
        return
    read_run(run_dir)  # refuses what is none
    config = config_with_index(run_dir, index)
    with announced(console, f"index: {index}"):
        rebuild_index(run_dir / "export", config.export)
    # only now: an index that does not fit the data leaves it as it was
    save_config(config, run_dir / "config.yaml")


def _tune_bm25(
    folder: Path, version: str, products: pa.Table, selection: Requests, generated: pa.Table | None
) -> tuple[dict[str, dict[str, Any]], BM25]:
    """What is chosen for `bm25.json`, with generated queries also for `bm25_expanded.json`, and the better one's index.

    Args:
        folder: where a choice is kept as soon as it is made, and holds where its version is the same.
        version: of all that the choice depends on.
        products: the catalogue.
        selection: requests to choose on.
        generated: queries that a model generated for the products; none: there are none.
    """
    names = ["bm25"] if generated is None else ["bm25", "bm25_expanded"]
    kept = _kept(folder, names, version)
    missing = [name for name in names if name not in kept]
    indexes: dict[str, BM25] = {}
    if missing:
        indexes["bm25"] = BM25.build(lexical_texts(products, generated), "tuned")
        if generated is not None:
            indexes["bm25_expanded"] = indexes["bm25"]
            indexes["bm25_expanded"].analyze_all()
            indexes["bm25"] = indexes["bm25_expanded"].without("generated")
    for name in missing:
        kept[name] = {"version": version, **_choose(indexes[name], selection)}
        write_json(folder / f"{name}.json", {**kept[name], "digest": fingerprint(kept[name])})
    chosen = {name: kept[name] for name in names}
    better = _better(chosen)
    if better in missing:
        return chosen, indexes[better]
    texts = lexical_texts(products, generated if better == "bm25_expanded" else None)
    return chosen, BM25.build(texts, "tuned", settings_of(chosen[better]))


def _tune_fusion(
    folder: Path, *, config: Config, lexical: BM25, selection: Requests, console: Console
) -> dict[str, Any]:
    """What `fusion.json` says: how towers and BM25 are fused, chosen on at most 1,000 selection requests.

    Args:
        folder: what is to become an export, with towers and vectors.
        config: of the run.
        lexical: the export's BM25.
        selection: requests to choose on.
        console: is told.
    """
    selection = selection.take(selection.drawn(_FUSED_REQUESTS))
    if not len(selection):
        return fusion.tune(np.zeros((0, 0), np.int64), np.zeros((0, 0), np.int64), [])
    limit = int(selection.num_products.max())
    towers, by_words = (
        system.rank(selection.raw, fusion.DEPTH, limit) for system in (Towers(folder, config.history), Lexical(lexical))
    )
    chosen = fusion.tune(towers, by_words, selection.target_lists(), config.export.fusion_at)
    if chosen["num_requests"]:
        names = [f"recall@{k}" for k in config.export.fusion_at]
        figures = [
            ", ".join(f"{one[name]:.3f}" for name in names) for one in (chosen, chosen["towers"], chosen["bm25"])
        ]
        console.print(
            f"  fused with BM25, the towers weigh {chosen['weight']:g} at constant {chosen['constant']:g}: "
            f"{', '.join(names)} on the selection days {figures[0]}; the towers alone {figures[1]}, BM25 {figures[2]}",
            highlight=False,
            soft_wrap=True,
        )
    return chosen


def _kept(folder: Path, names: list[str], version: str) -> dict[str, dict[str, Any]]:
    """What was chosen before, by name, where it holds and is as it was written."""
    kept = {}
    for name in names:
        try:
            one = read_json(folder / f"{name}.json")
            digest = one.pop("digest")
        except (InputError, KeyError, TypeError, AttributeError):  # not there, or damaged
            continue
        if one.get("version") == version and digest == fingerprint(one):
            kept[name] = one
    return kept


def _choose(index: BM25, selection: Requests) -> dict[str, Any]:
    """Settings for an index, which has them then."""
    if not len(selection):
        start = index.settings
        return {"strength": "tuned", "k1": start.k1, "b": start.b, "weights": start.weights, "num_requests": 0}
    requests = list(zip(selection.queries, selection.target_lists(), strict=True))
    return index.tune(requests, limit=int(selection.num_products.max()))


def _better(chosen: dict[str, dict[str, Any]]) -> str:
    """Which one found more on the selection days; of equal ones the first, which needs no generated queries."""
    return max(chosen, key=lambda name: float(chosen[name].get("recall@100", 0)))
