"""`uepp export --data`: a changed catalogue with the same weights; a full export of it is the oracle."""

import asyncio
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from commands import Call
from conftest import TRAIN_END, Toy
from rich.console import Console
from text_encoders import write_text_encoder

from uepp import pipeline
from uepp.artifacts import check_manifest, read_json, write_json, write_manifest
from uepp.config import Config, ServingConfig, load_config, save_config
from uepp.data.schema import read_products
from uepp.errors import InputError
from uepp.evaluation.baselines import lexical_texts
from uepp.features.fitted import Fitted
from uepp.features.inputs import ProductFeatures, QueryFeatures
from uepp.features.raw import as_tensors, table_inputs
from uepp.features.requests import RawRequests
from uepp.lexical.bm25 import BM25, BM25Settings
from uepp.model.towers import TwoTower, build_two_tower
from uepp.pipeline import refreshing
from uepp.retrieval import refresh as refresh_module
from uepp.retrieval.boosting import write_boosting
from uepp.retrieval.embed import embed_queries, load_tower, read_vectors
from uepp.retrieval.export import rebuild_index, write_export
from uepp.retrieval.index import read_index
from uepp.retrieval.product_index import ProductIndex, tuned_key
from uepp.retrieval.quality import fit_quality, read_quality, standardized_quality
from uepp.serving.metrics import Metrics
from uepp.serving.requests import Request
from uepp.serving.service import Answer, Service

QUIET = Console(quiet=True)
SECONDS = 240.0  # a test that hangs fails
TYPES = {"price": pa.float64(), "quality_stars": pa.float64(), "quality_as_of": pa.timestamp("us", "UTC")}
GONE, COMES_BACK = ("001", "020"), "010"
ENCODED = {"003": "title", "005": "country", "006": "tags"}
LEXICAL = BM25Settings(k1=0.9, b=0.4, weights={"word": 1.0, "joined": 0.2, "trigram": 0.3, "generated": 1.0})
GENERATED = {f"{number:03d}": [f"gift number {number}"] for number in range(0, 48, 2)}


def old_rows(toy: Toy) -> list[dict[str, Any]]:
    """The toy catalogue with ratings, and without a product that the graph knows."""
    rows = [
        {**row, "price": 1.0 + n, "quality_stars": 3.0 + n % 5 / 2, "quality_as_of": TRAIN_END}
        for n, row in enumerate(toy.products.to_pylist())
    ]
    return [row for row in rows if row["product_id"] != COMES_BACK]


def new_rows(toy: Toy) -> list[dict[str, Any]]:
    """Two are gone, three added, three read otherwise, one has another price and a rating newer than T; shuffled."""
    late = TRAIN_END + timedelta(days=9)
    rows = {row["product_id"]: dict(row) for row in old_rows(toy) if row["product_id"] not in GONE}
    rows["003"]["title"] = "Something else entirely"
    rows["004"] |= {"price": 99.0, "quality_stars": 1.0, "quality_as_of": late, "created_at": None}
    rows["005"]["country"] = "JP"
    rows["006"]["tags"] = ["kept secret"]
    back = next(row for row in toy.products.to_pylist() if row["product_id"] == COMES_BACK)
    rows[COMES_BACK] = {**back, **dict.fromkeys(TYPES)}
    empty = dict.fromkeys(rows["003"])
    rows["new 1"] = {**empty, "title": "A fresh red lamp", "created_at": late, "shop_id": "shop 2"}
    rows["new 2"] = {**empty, "title": "Novelty", "quality_stars": 5.0, "quality_as_of": late}
    named = [{**row, "product_id": product_id} for product_id, row in rows.items()]
    return [named[row] for row in np.random.default_rng(7).permutation(len(named))]


def write_data(directory: Path, rows: list[dict[str, Any]], toy: Toy) -> Path:
    directory.mkdir(parents=True)
    schema = toy.products.schema
    for name, type_ in TYPES.items():
        schema = schema.append(pa.field(name, type_))
    pq.write_table(pa.Table.from_pylist(rows, schema), directory / "products.parquet")
    return directory


@dataclass(frozen=True)
class Made:
    """A run of untrained towers that are boosted, of the `old` data set, and what it was made of."""

    run: Path
    old: Path
    new: Path
    config: Config
    fitted: Fitted
    towers: TwoTower
    mined: Path

    def export(self, directory: Path, data: Path, run_id: str = "run 7") -> None:
        """All of it, by the towers."""
        products = read_products(data)
        generated = pa.table({"product_id": list(GENERATED), "queries": list(GENERATED.values())})
        write_export(
            directory,
            model=self.towers,
            config=self.config,
            fitted=self.fitted,
            products=products,
            mined=self.mined,
            bm25={"bm25": {"strength": "tuned", "k1": 1.0, "b": 0.5, "weights": {"word": 1.0}}},
            generated=generated,
            run_id=run_id,
            lexical=BM25.build(lexical_texts(products, generated), "tuned", LEXICAL),
        )


@pytest.fixture(scope="module")
def made(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("refresh")
    settings = toy.config.model_dump()
    encoders = ("tokens", "shop", "location", "graph", "text")
    settings["model"] |= {"product_encoders": encoders, "query_encoders": ("tokens",)}
    settings["text"] |= {"encoder": str(root / "text_encoder")}
    config = Config.model_validate(settings)
    write_text_encoder(root / "text_encoder")
    fitted = replace(toy.fitted, text_encoder=root / "text_encoder")
    towers = build_two_tower(config, fitted)
    products = ProductFeatures(config, fitted, towers.text_encoder)
    some = as_tensors(table_inputs(toy.products.slice(0, 3), products.columns))
    towers.product_tower(products({**some, "neighbor_queries": tf.constant([["lamp"], ["mug"], [""]])}))
    queries = QueryFeatures(config, fitted, towers.text_encoder)
    towers.query_user_tower(queries(RawRequests(["red lamp"]).inputs(tuple(queries.signature), config.history)))
    rng = np.random.default_rng(5)
    for variable in towers.variables:
        is_variance = "variance" in variable.name
        variable.assign(rng.uniform(0.5, 1.5, variable.shape) if is_variance else rng.normal(0, 0.3, variable.shape))

    old, new = (write_data(root / name, rows, toy) for name, rows in (("old", old_rows(toy)), ("new", new_rows(toy))))
    run = root / "run"
    shutil.copytree(toy.mined, run / "mined" / "0123")
    (run / "checkpoints").mkdir()
    save_config(config, run / "config.yaml")
    write_json(run / "run.json", {"run_id": "run 7", "mined": "0123", "data": str(old)})
    made = Made(run, old, new, config, fitted, towers, toy.mined)
    made.export(run / "export", old)
    values, num_known = read_quality(run / "export", ("quality_stars", "purchases", "freshness"))
    features = fit_quality(values, num_known)
    facts = {"features": [{**feature.to_json(), "weight": 0.1 + n / 10} for n, feature in enumerate(features)]}
    quality = standardized_quality(values, features)

    def tuned(folder: Path) -> None:
        write_boosting(folder, quality, facts)
        write_json(folder / "fusion.json", {"weight": 3.0, "constant": 5.0})

    rebuild_index(run / "export", config.export, tuned)
    return made


@pytest.fixture
def run(made: Made, tmp_path: Path) -> Path:
    """A run of its own, to refresh."""
    return Path(shutil.copytree(made.run, tmp_path / "run"))


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Titles of what the product tower was called for."""
    titles: list[str] = []

    class Counting:
        def __init__(self, directory: Path) -> None:
            self._tower = load_tower(directory)
            self.structured_input_signature = self._tower.structured_input_signature
            self.structured_outputs = self._tower.structured_outputs

        def __call__(self, **inputs: tf.Tensor) -> Any:
            titles.extend(title.decode() for title in inputs["title"].numpy())
            return self._tower(**inputs)

    monkeypatch.setattr(refresh_module, "load_tower", Counting)
    return titles


def contents(directory: Path) -> dict[str, str]:
    files = [path for path in sorted(directory.rglob("*")) if path.is_file()]
    return {str(file.relative_to(directory)): sha256(file.read_bytes()).hexdigest() for file in files}


def ids_of(export: Path) -> list[str]:
    return pq.read_table(export / "product_ids.parquet")["product_id"].to_pylist()


COUNTS = {"added": 3, "changed": 3, "unchanged": 42, "gone": 2}


def test_a_refresh_is_a_full_export_of_the_new_catalogue(
    made: Made, run: Path, tmp_path: Path, encoded: list[str], call: Call
) -> None:
    before, export = contents(run / "export"), run / "export"
    vectors_before = dict(zip(ids_of(export), np.array(read_vectors(export)), strict=True))
    outcome = call("export", run, "--data", made.new, "--json")
    result = outcome.json
    assert {name: result["catalogue"][name] for name in COUNTS} == COUNTS
    assert (result["run_id"], result["num_products"], result["catalogue"]["refresh"]) == ("run 7", 48, 1)
    assert "note: 25 products have no generated queries" in outcome.err
    manifest = check_manifest(export)
    assert {**manifest, "seconds": result["seconds"]} == {**result, "files": manifest["files"]}

    # The tower, and with it the text encoder, saw what was added or changed, each once.
    made.export(tmp_path / "oracle", made.new)
    products = {row["product_id"]: row for row in read_products(made.new).to_pylist()}
    added = {COMES_BACK, "new 1", "new 2"}
    assert sorted(encoded) == sorted(products[product_id]["title"] for product_id in [*ENCODED, *added])

    # All else is a copy, bit by bit; the oracle has computed all of it anew.
    ids = ids_of(export)
    assert ids == ids_of(tmp_path / "oracle")
    vectors = read_vectors(export)
    kept = [row for row, product_id in enumerate(ids) if product_id not in {*ENCODED, *added}]
    np.testing.assert_array_equal(vectors[kept], np.stack([vectors_before[ids[row]] for row in kept]))
    np.testing.assert_allclose(vectors, read_vectors(tmp_path / "oracle"), atol=1e-6)
    for product_id in ENCODED:
        assert np.abs(vectors[ids.index(product_id)] - vectors_before[product_id]).max() > 1e-3
    for name in ("products", "neighbors"):
        one, other = (pq.read_table(folder / f"{name}.parquet") for folder in (export, tmp_path / "oracle"))
        assert one.equals(other)
    assert pq.read_table(export / "neighbors.parquet")["queries"].to_pylist()[ids.index(COMES_BACK)]

    # BM25 and the index: the same answers. Quality counts, with the constants that it was tuned for.
    queries = ["red lamp", "gift number 4", "novelty", "something else"]
    one, other = (BM25.load(folder / "lexical") for folder in (export, tmp_path / "oracle"))
    for found, expected in zip(one.search(queries, 9), other.search(queries, 9), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert one.settings == LEXICAL
    asked = embed_queries(load_tower(export / "query_tower"), RawRequests(queries), made.config.history)
    quality = np.load(export / "quality.npy")
    weights = np.array([feature["weight"] for feature in read_json(export / "boosting.json")["features"]])
    scores = asked @ read_vectors(tmp_path / "oracle").T + quality @ weights
    found = ProductIndex.open(export).search(asked, 48)
    np.testing.assert_allclose(found.scores, -np.sort(-scores, axis=1), atol=1e-5)
    assert quality[ids.index("004"), 0] < quality[ids.index("000"), 0] < quality[ids.index("new 2"), 0]

    # What does not depend on the catalogue is what it was.
    after = contents(export)
    assert after.keys() == before.keys() > {"fusion.json"}
    changed = {name.split("/")[0] for name in before if before[name] != after[name]}
    tables = {"products.parquet", "product_ids.parquet", "neighbors.parquet", "quality.npy"}
    assert changed == {*tables, "vectors", "lexical", "index.faiss", "manifest.json"}


def test_there_and_back_again(made: Made, run: Path, encoded: list[str], call: Call) -> None:
    """What was gone is encoded anew, and the export before comes out; each refresh can be told from the others.

    The tuned point stays, since towers and boosting do.
    """
    export = run / "export"
    before, ids = np.array(read_vectors(export)), ids_of(export)
    tuned = {"index": "ivf-flat:nlist=3,nprobe=2", "key": tuned_key(export), "budget_ms": 5}
    write_json(export / "serving.json", {"index": "flat", "tuned": tuned})
    write_manifest(export, run_id="run 7", uepp_version="0", num_products=47)
    save_config(load_config(str(run / "config.yaml"), ["export.index=auto"]), run / "config.yaml")
    outcome = call("export", run, "--data", made.new)
    assert "48 products: 3 added, 3 changed, 42 unchanged, 2 gone" in outcome.out
    assert f"Export: {export}" in outcome.out.replace("\n", "")
    assert read_json(export / "serving.json") == {"index": "ivf-flat:nlist=3,nprobe=2", "tuned": tuned}
    assert read_index(export / "index.faiss").ntotal == 48
    del encoded[:]
    shuffled = read_products(made.old).take(np.random.default_rng(1).permutation(len(ids)))
    (run / "data").mkdir()
    pq.write_table(shuffled, run / "data" / "products.parquet")
    result = call("export", run, "--data", run / "data", "--index", "hnsw:neighbors=6", "--json").json
    assert len(encoded) == 5
    assert {name: result["catalogue"][name] for name in COUNTS} == {
        "added": 2, "changed": 3, "unchanged": 42, "gone": 3,
    }  # fmt: skip
    assert ids_of(export) == ids
    np.testing.assert_allclose(read_vectors(export), before, atol=1e-6)
    assert result["catalogue"]["refresh"] == 2
    served = {"index": "hnsw:neighbors=6,ef_construction=80,ef_search=128", "tuned": tuned}
    assert read_json(export / "serving.json") == served
    assert load_config(str(run / "config.yaml")).export.index == "hnsw:neighbors=6"
    del encoded[:]
    again = call("export", run, "--data", made.old, "--json").json
    assert encoded == []
    assert again["catalogue"]["unchanged"] == 47
    assert again["catalogue"]["refresh"] == 3
    assert read_json(export / "serving.json") == served, "the run's index stays"


def damaged(run: Path, data: Path) -> str:
    (run / "export" / "bm25.json").write_text("{}")
    return "bm25.json: differs from its SHA-256"


def without_export(run: Path, data: Path) -> str:
    shutil.rmtree(run / "export")
    return "this run has no export yet"


def without_products(run: Path, data: Path) -> str:
    (data / "products.parquet").unlink()
    return "products.parquet: no such file"


def twice(run: Path, data: Path) -> str:
    table = pq.read_table(data / "products.parquet")
    pq.write_table(pa.concat_tables([table, table.slice(0, 1)]), data / "products.parquet")
    return "is a duplicate of row 0; allowed is one row a product"


def without_stars(run: Path, data: Path) -> str:
    table = pq.read_table(data / "products.parquet").drop_columns(["quality_stars"])
    pq.write_table(table, data / "products.parquet")
    return "products.parquet: no column quality_stars, which this run is boosted by"


@pytest.mark.parametrize("change", [damaged, without_export, without_products, twice, without_stars])
def test_what_does_not_fit_is_refused_and_nothing_changes(
    made: Made, run: Path, tmp_path: Path, call: Call, change: Callable[[Path, Path], str]
) -> None:
    data = Path(shutil.copytree(made.new, tmp_path / "data"))
    expected = change(run, data)
    before = contents(run)
    assert expected in call("export", run, "--data", data, "--index", "hnsw").error
    assert contents(run) == before
    assert not [path for path in run.iterdir() if path.name.startswith(".")]


def test_options_that_do_not_fit(made: Made, run: Path, tmp_path: Path, call: Call) -> None:
    assert "no such directory" in call("export", run, "--data", tmp_path / "nowhere").error
    assert "not a run directory" in call("export", tmp_path, "--data", made.new).error
    assert "--index 'nonsense': unknown family" in call("export", run, "--data", made.new, "--index", "nonsense").error
    before = contents(run)
    outcome = call("export", run, "--data", made.new, "--index", "ivf-flat:nlist=4000")
    assert "nlist=4000: must be at most the 48 products" in outcome.error
    assert contents(run) == before


@pytest.mark.parametrize("step", ["write_catalogue", "_index_texts", "write_product_index", "write_manifest"])
def test_a_refresh_that_fails_leaves_the_old_export(
    made: Made, run: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(run)

    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    for name in ("write_catalogue", "_index_texts", "write_product_index", "write_manifest"):
        if step != "write_catalogue" or name == step:
            monkeypatch.setattr(
                refreshing, name, fail if name == step else lambda *_, **__: refresh_module.Changes(0, 0, 0, 0)
            )
    with pytest.raises(OSError, match="no space left"):
        pipeline.refresh(run, made.new, QUIET)
    assert contents(run) == before
    assert not [path for path in run.iterdir() if path.name.startswith(".")]


def write_events(path: Path, days: int) -> None:
    """Somebody buys a new product, somebody one that is gone; and somebody looks at both."""
    rows = [
        ("lamp", "new 1", "purchase"),
        ("chair", "001", "purchase"),
        ("lamp", "new 1", "click"),
        ("mug", None, "search"),
    ]
    moments = [TRAIN_END + timedelta(days=days, hours=n) for n in range(len(rows))]
    columns = {
        "timestamp": pa.array(moments, pa.timestamp("us", "UTC")),
        **{name: [row[n] for row in rows] for n, name in enumerate(("query", "product_id", "type"))},
    }
    pq.write_table(pa.table(columns), path)


def test_evaluation_after_a_refresh(made: Made, run: Path, tmp_path: Path, call: Call) -> None:
    """Later requests meet the new catalogue; the run's own ones belong to the one before, and are refused."""
    assert call("export", run, "--data", made.new).code == 0
    before = contents(run)
    assert "its catalogue was refreshed on 20" in call("evaluate", run).error
    assert "needs the one that the run was trained with: uepp export" in call("boost", run).error
    write_events(tmp_path / "early.parquet", 2)
    message = call("evaluate", run, "--events", tmp_path / "early.parquet", "--against", "uepp_boost").error
    assert "which would be leakage; leave uepp_boost out" in message
    assert contents(run / "export") == {
        name.removeprefix("export/"): digest for name, digest in before.items() if name.startswith("export/")
    }
    write_events(tmp_path / "late.parquet", 20)
    for name in ("early", "late"):
        against = "bm25" if name == "early" else "bm25,uepp_boost"
        metrics = call("evaluate", run, "--events", tmp_path / f"{name}.parquet", "--against", against, "--json").json
        expected = 0.0 if name == "early" else 0.5  # the new product was not there yet; the other one is gone
        assert (metrics["num_requests"], metrics["missing_target_share"]) == (2, 1 - expected)
        assert metrics["systems"]["uepp"]["all"]["recall@100"] == expected
        assert list(metrics["systems"]) == ["uepp", *against.split(",")]
    assert call("boost", run, "--off", "--json").json == {"was_boosted": True}
    assert check_manifest(run / "export")["catalogue"]["refresh"] == 1, "another index is no other catalogue"


def test_a_boosting_that_was_tuned_for_the_export_before_is_not_published(made: Made, run: Path) -> None:
    """`uepp boost` and `uepp tune` take long; a refresh meanwhile would get rows of another catalogue."""
    seen = read_json(run / "export" / "manifest.json")
    facts = {name: seen[name] for name in ("run_id", "uepp_version", "num_products")}
    write_manifest(run / "export", **facts, catalogue={"refresh": 1})
    before = contents(run)
    with pytest.raises(InputError, match="was replaced meanwhile"):
        rebuild_index(run / "export", made.config.export, lambda _: None, seen=seen)
    assert contents(run) == before


def test_a_server_takes_up_a_refresh_and_no_request_fails(made: Made, run: Path) -> None:
    old, new = set(ids_of(run / "export")), set(read_products(made.new)["product_id"].to_pylist())

    async def test() -> None:
        service = Service(run, ServingConfig(max_batch=4, watch_seconds=0.02, cache="none"), Metrics())
        await service.start()
        said: list[str] = []
        watching = asyncio.ensure_future(service.watch(said.append))
        answers: list[Answer] = []

        async def ask() -> None:
            requests = [
                Request(query, 100, fusion=n % 2 == 0) for n, query in enumerate(("red lamp", "mug", "novelty"))
            ]
            answers.extend(await asyncio.gather(*map(service.search, requests)))

        await ask()
        refreshing = asyncio.ensure_future(asyncio.to_thread(pipeline.refresh, run, made.new, QUIET))
        while not said:
            await ask()
        await refreshing
        await ask()
        watching.cancel()
        assert len(said) == 1
        assert said[0].startswith("reloaded: 48 products, catalogue refreshed on 20")
        found = [{hit.product_id for hit in answer.hits} for answer in answers]
        assert all(products in (old, new) for products in found), "an answer is of one catalogue"
        assert found[0] == old
        assert found[-3:] == [new, new, new]
        assert new - old == {COMES_BACK, "new 1", "new 2"}
        assert old - new == set(GONE)
        assert {answer.run_id for answer in answers} == {"run 7"}
        assert service.metrics.registry.get_sample_value("uepp_reloads_total", {"result": "refused"}) in (None, 0)
        await service.close()

    asyncio.run(asyncio.wait_for(test(), SECONDS))
    assert pc.max(read_products(made.new)["quality_as_of"]).as_py() > TRAIN_END
