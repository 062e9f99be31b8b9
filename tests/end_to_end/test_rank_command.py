"""`uepp relevance rank` where buyers choose by price among what is similar, or by what only a cross-encoder knows."""

import shutil
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from commands import Call
from files import digests
from stand_in_run import DIM, STRINGS, TIMESTAMP, T, begin_run, finish_run, unit, write_requests

from uepp.artifacts import check_manifest, read_json, write_json, write_manifest
from uepp.errors import InputError
from uepp.pipeline import ranking
from uepp.relevance.ranker import read_ranker
from uepp.relevance.ranking_features import Asked
from uepp.retrieval.export import changed_copy
from uepp.serving.search import Searcher

NUM_PRODUCTS, NUM_SUBJECTS, TOP = 400, 10, 20


class Judge(tf.Module):
    """A stand-in for a cross-encoder: the last number of the product's text is what it thinks, whatever was asked."""

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.string, "query"), tf.TensorSpec([None], tf.string, "product")]
    )
    def score(self, query: tf.Tensor, product: tf.Tensor) -> dict[str, tf.Tensor]:
        logit = tf.strings.to_number(tf.strings.split(product)[:, -1:].to_tensor())[:, 0]
        return {"logit": logit + 0.0 * tf.cast(tf.strings.length(query), tf.float32), "score": tf.sigmoid(logit)}


def write_run(run: Path, *, by_price: bool, late: bool = False, quality: str = "quality_stars") -> Path:
    """A finished run: of the eight most similar products, buyers take the cheapest, or the one of the highest worth.

    With another name of `quality` the worth is known in that column at T, and `late`: as it is years later.
    """
    rng = np.random.default_rng(3)
    subjects = unit(rng.standard_normal((NUM_SUBJECTS, DIM)))
    vectors = unit(subjects[np.arange(NUM_PRODUCTS) % NUM_SUBJECTS] + 0.25 * rng.standard_normal((NUM_PRODUCTS, DIM)))
    worth, price = rng.standard_normal(NUM_PRODUCTS), np.round(rng.uniform(1, 99, NUM_PRODUCTS), 2)
    settings = {
        "evaluation": {"recall_at": [1, 5], "segments": "query_count"},
        "ranker": {"top": TOP, "max_trees": 60, "patience": 15, "min_products_in_leaf": 20, "learning_rate": 0.1},
    }
    export = begin_run(run, "run 5", settings)
    products: dict[str, Any] = {
        "product_id": [f"{row:04}" for row in range(NUM_PRODUCTS)],
        "title": [f"product of {value:.4f}" for value in worth],
        "tags": pa.array([[]] * NUM_PRODUCTS, STRINGS),
        **{name: pa.nulls(NUM_PRODUCTS, pa.string()) for name in ("category", "description", "shop_id", "country")},
        "attributes": pa.nulls(NUM_PRODUCTS, pa.map_(pa.string(), STRINGS)),
        "price": price,
        "created_at": pa.nulls(NUM_PRODUCTS, TIMESTAMP),
    }
    is_told = late or quality != "quality_stars"
    as_of = T.replace(year=2030) if late else T
    products["quality_as_of"] = pa.array([as_of if is_told else None] * NUM_PRODUCTS, TIMESTAMP)
    if is_told:
        products[quality] = worth
    queries, bought = [], []
    for number in range(240):
        query = unit(subjects[[number % NUM_SUBJECTS]] + 0.15 * rng.standard_normal((1, DIM)))[0]
        nearest = np.argsort(-(vectors @ query))[:8]
        queries.append(query)
        bought.append(f"{nearest[np.argmin(price[nearest]) if by_price else np.argmax(worth[nearest])]:04}")
    write_requests(run, queries, bought)
    windows = {"train_end": T.isoformat(), "selection_end": (T + timedelta(days=2)).isoformat()}
    write_json(export / "windows.json", windows)
    write_json(run / "mined" / "0123" / "windows.json", windows)
    graph = {"query": ["a"], "product_id": ["0000"], "clicks": [3], "carts": [0], "purchases": [1], "requests": [3]}
    pq.write_table(pa.table(graph), export / "graph.parquet")
    pq.write_table(pa.table({"query": ["a"], "count": [3]}), export / "query_counts.parquet")
    for kind in ("searches", "clicks", "purchases"):
        name = f"history_{kind}.parquet"
        shutil.copyfile(run / "mined" / "0123" / name, export / name)
    finish_run(run, "run 5", products, vectors)
    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("by price") / "run", by_price=True)


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_rank_search_and_off(run: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digests(run / "export")
    result = call("relevance", "rank", run, "--json").json

    # What counts is found on the selection window, and holds on days that nothing was trained on.
    assert result["chosen"] == "ranker"
    assert list(result["systems"]) == ["retrieval", "ranker"]
    gains = result["rankers"]["ranker"]["gains"]
    assert gains["price"] + gains["price_gap"] > 0.5
    plain, ranked = (result["systems"][name]["all"] for name in ("retrieval", "ranker"))
    assert (result["num_requests"], result["num_days"], result["top"]) == (120, 2, TOP)
    assert result["trained_on"]["num_requests"] == 120
    for name in (f"auc@{TOP}", f"mrr@{TOP}", "ndcg@5", "ndcg@10", "ndcg@20", "precision@5"):
        low, high = ranked["intervals"][name]
        assert low - 1e-6 <= ranked[name] <= high + 1e-6
        compared = result["comparisons"]["ranker"]["retrieval"][name]
        assert compared["difference"] == pytest.approx(ranked[name] - plain[name])
        assert compared["interval"][0] > 0
        assert compared["p_value"] < 0.01
    assert plain[f"recall@{TOP}"] == ranked[f"recall@{TOP}"] == 1.0
    held_out = result["held_out"]
    assert held_out["ranker"]["ndcg@10"] > held_out["retrieval"]["ndcg@10"] + 0.1
    ahead = held_out["ranker"]["ahead_of"]
    assert list(ahead) == ["retrieval"]
    assert ahead["retrieval"]["interval"][0] > 0
    assert ahead["retrieval"]["p_value"] < 0.01
    assert read_json(run / "ranking" / "report.json") == result

    # The export: whole, the ranker within, everything else as it was.
    after = digests(run / "export")
    check_manifest(run / "export")
    assert after.keys() - before.keys() == {"ranker/model.txt", "ranker/ranker.json"}
    assert {name for name in before if after[name] != before[name]} == {"manifest.json"}
    manifest = read_json(run / "export" / "manifest.json")
    assert manifest["files"]["ranker/model.txt"] == after["ranker/model.txt"]
    assert manifest["run_id"] == "run 5"

    # Search uses it: the same order as the stored ranker gives, by hand.
    query = pq.read_table(run / "mined" / "0123" / "requests.parquet").column("query")[200].as_py()
    hits = call("search", run, query, "--rerank", "--k", "30", "--json").json["hits"]
    found = call("search", run, query, "--k", "30", "--json").json["hits"]
    assert [hit["ranker_rank"] for hit in hits] == [*range(1, TOP + 1), *[None] * 10]
    ranker = read_ranker(run / "export")
    assert ranker is not None
    nobody = np.empty(0, np.int64)
    asked = Asked([query], [nobody], [nobody], [nobody], [""], [""], np.array([np.nan]), np.array([np.nan]))
    first = found[:TOP]
    rows = np.array([[int(hit["product_id"]) for hit in first]])
    order = ranker.order(asked, rows, np.array([[hit["similarity"] for hit in first]], np.float32))[0]
    assert [hit["product_id"] for hit in hits[:TOP]] == [first[place]["product_id"] for place in order]
    assert [hit["product_id"] for hit in hits] != [hit["product_id"] for hit in found]

    # Evaluation of the whole search says the same of the first products as the report of their lists does.
    systems = call("evaluate", run, "--against", "uepp_rerank", "--json").json["systems"]
    assert systems["uepp"]["all"]["ndcg@5"] == pytest.approx(plain["ndcg@5"])
    assert systems["uepp_rerank"]["all"]["ndcg@5"] == pytest.approx(ranked["ndcg@5"])
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "lightgbm", None)
        assert 'pip install "uepp[rank]"' in call("evaluate", run, "--against", "uepp_rerank").error

    # A second call gives the very same ranker; and it goes as it came.
    assert call("relevance", "rank", run, "--json").json == result
    assert digests(run / "export") == after
    assert call("relevance", "rank", run, "--off", "--json").json == {"had_ranker": True}
    assert digests(run / "export") == before
    assert call("relevance", "rank", run, "--off", "--json").json == {"had_ranker": False}
    assert "has no ranker" in call("search", run, query, "--rerank").error
    assert "has no ranker" in call("evaluate", run, "--against", "uepp_rerank").error


def write_judge(saved: Path, trained: list[str] | None) -> Path:
    """The SavedModel of a run of `uepp relevance train`, with the record of its queries, or without."""
    judge = Judge()
    tf.saved_model.save(judge, str(saved), signatures={"serving_default": judge.score})
    write_json(saved / "cross_encoder.json", {"fields": ["title"]})
    if trained is not None:
        pq.write_table(pa.table({"query": pa.array(trained, pa.string())}), saved / "trained_queries.parquet")
    write_manifest(saved, run_id="judge")
    return saved


def asked(run: Path) -> dict[str, list[str]]:
    """Queries of the requests of both windows."""
    requests = pq.read_table(run / "mined" / "0123" / "requests.parquet").to_pylist()
    return {name: [one["query"] for one in requests if one["window"] == name] for name in ("selection", "report")}


def test_queries_that_a_cross_encoder_was_trained_on_are_left_out(tmp_path: Path, call: Call) -> None:
    """Of both windows and for all systems; the record goes with the model into the export, and tells it there again."""
    run = write_run(tmp_path / "run", by_price=False)
    queries = asked(run)
    seen = [f" {query.upper()} " for query in queries["selection"][:40] + queries["report"][::2]]
    saved = write_judge(tmp_path / "relevance run" / "cross_encoder", [*seen, "never asked"])
    outcome = call("relevance", "rank", run, "--cross-encoder", saved.parent)
    line = "trained on their queries: 40 of 120 selection and 60 of 120 report requests"
    assert line in " ".join(outcome.out.split())
    assert line in " ".join(outcome.err.split())
    result = read_json(run / "ranking" / "report.json")
    assert result["cross_encoder"] == {
        "num_trained_queries": 101,
        "requests": {
            "selection": {"num_requests": 120, "num_left_out": 40},
            "report": {"num_requests": 120, "num_left_out": 60},
        },
    }
    assert result["trained_on"]["num_requests"] == 80
    assert result["num_requests"] == 60
    assert {one["all"]["num_requests"] for one in result["systems"].values()} == {60}

    # An evaluation has all requests, so it does not compare the ranker.
    why = "the ranker's cross-encoder was trained on the queries of 60 of 120 requests"
    assert why in call("evaluate", run, "--against", "uepp_rerank").error
    assert f"not compared: uepp_rerank; {why}" in " ".join(call("evaluate", run).err.split())
    assert "uepp_rerank" not in read_json(run / "metrics.json")["comparisons"]

    # What those requests led to is in nothing: with other purchases there all figures are the same.
    assert result["chosen"] == "ranker_both"
    model = (run / "export" / "ranker" / "model.txt").read_text()
    path = run / "mined" / "0123" / "requests.parquet"
    requests = pq.read_table(path)
    rows = requests.to_pylist()
    known = {" ".join(query.lower().split()) for query in seen}
    for row in rows:
        if " ".join(row["query"].lower().split()) in known:
            row["targets"] = row["non_repeat_targets"] = ["0000"]
    pq.write_table(pa.Table.from_pylist(rows, requests.schema), path)
    shutil.rmtree(saved.parent)
    copied = run / "export" / "ranker" / "cross_encoder"
    again = call("relevance", "rank", run, "--cross-encoder", copied, "--json").json
    assert again == result
    assert (run / "export" / "ranker" / "model.txt").read_text() == model


def test_a_cross_encoder_that_was_trained_on_all_is_refused(run: Path, tmp_path: Path, call: Call) -> None:
    queries, before = asked(run), digests(run / "export")
    for number, (trained, expected) in enumerate(
        (
            (queries["selection"][:-4], "of 116 of 120 requests of the selection window, 4 other queries are left"),
            (queries["report"], "of 120 of 120 requests of the report window, 0 other queries are left"),
        )
    ):
        saved = write_judge(tmp_path / f"judge {number}", trained)
        assert expected in call("relevance", "rank", run, "--cross-encoder", saved).error
    assert digests(run / "export") == before


def test_a_cross_encoder_without_a_record_is_unknown(tmp_path: Path, call: Call) -> None:
    run = write_run(tmp_path / "run", by_price=False)
    saved = write_judge(tmp_path / "judge", None)
    outcome = call("relevance", "rank", run, "--cross-encoder", saved)
    assert "It is not known which queries the cross-encoder was trained on" in " ".join(outcome.out.split())
    about = read_json(run / "ranking" / "report.json")["cross_encoder"]
    assert about["num_trained_queries"] is None
    assert {one["num_left_out"] for one in about["requests"].values()} == {0}


def test_what_stands_behind_the_ranked_products_is_measured_too(run: Path, call: Call) -> None:
    """Lists ended at `--top`: NDCG@10 and @20, the choice of the ranker too, were of searches that give no more."""
    whole, part = (call("relevance", "rank", run, "--top", top, "--json").json for top in (TOP, 5))
    assert part["listed_share"]["report"] < 1, "purchases stand behind the first five"
    assert part["held_out"]["retrieval"] == whole["held_out"]["retrieval"]
    retrieval, ranker = (part["systems"][name]["all"] for name in ("retrieval", "ranker"))
    for k in (5, 10, 20):
        for name in (f"ndcg@{k}", f"precision@{k}", f"recall@{k}"):
            assert retrieval[name] == pytest.approx(whole["systems"]["retrieval"]["all"][name])
    assert {"auc@5", "mrr@5"} <= retrieval.keys()
    for name in ("recall@5", "recall@20"):
        assert ranker[name] == pytest.approx(retrieval[name]), "the first five are the same ones in another order"
    assert part["chosen"] == "ranker"
    found = call("evaluate", run, "--against", "uepp_rerank", "--json").json["systems"]["uepp_rerank"]["all"]
    assert found["ndcg@5"] == pytest.approx(ranker["ndcg@5"])


def test_a_column_of_any_name_is_ranked_by_and_served(tmp_path: Path, call: Call) -> None:
    """`rank` published a model that search then refused, since LightGBM had taken the blank out of the name."""
    run = write_run(tmp_path / "run", by_price=False, quality="quality_star rating")
    result = call("relevance", "rank", run, "--json").json
    assert result["chosen"] == "ranker"
    assert result["rankers"]["ranker"]["gains"]["quality_star rating"] > 0.3
    hits = call("search", run, asked(run)["report"][0], "--rerank", "--k", "5", "--json").json["hits"]
    assert [hit["ranker_rank"] for hit in hits] == [1, 2, 3, 4, 5]


def test_a_ranker_that_does_not_load_is_not_published(run: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call("relevance", "rank", run, "--json").json["chosen"] == "ranker"
    before = digests(run / "export")
    learned = ranking.train_ranker
    monkeypatch.setattr(ranking, "train_ranker", lambda *given: learned(*given)._replace(model="tree"))
    assert "not a model of LightGBM" in call("relevance", "rank", run).error
    assert digests(run / "export") == before


def test_a_cross_encoder_that_knows_more_is_kept_with_its_ranker(tmp_path: Path, call: Call) -> None:
    run = write_run(tmp_path / "run", by_price=False)
    saved = write_judge(tmp_path / "relevance run" / "cross_encoder", [])
    outcome = call("relevance", "rank", run, "--cross-encoder", saved.parent)
    assert outcome.code == 0, outcome.err
    for heading in ("AUC", "MRR", "NDCG@5", "NDCG@20", "Precision@20", "Recall@20", "no re-ranking"):
        assert heading in outcome.out
    result = read_json(run / "ranking" / "report.json")
    assert list(result["systems"]) == ["retrieval", "ranker", "ranker_cross_encoder", "ranker_both"]
    assert result["comparisons"].keys() == {"ranker", "ranker_cross_encoder", "ranker_both"}
    ahead = result["comparisons"]["ranker_cross_encoder"]
    assert ahead.keys() == {"retrieval", "ranker"}
    assert ahead["ranker"][f"auc@{TOP}"]["interval"][0] > 0.03
    gains = result["rankers"]["ranker_cross_encoder"]["gains"]
    assert gains["cross_encoder"] + gains["cross_encoder_gap"] > 0.5
    assert "similarity" not in gains, "one score replaces the other"

    # Buyers look for the highest worth among what is similar: who knows both is the best.
    assert result["chosen"] == "ranker_both"
    gains = result["rankers"]["ranker_both"]["gains"]
    assert {"similarity", "similarity_gap", "cross_encoder", "cross_encoder_gap"} <= gains.keys()
    ahead = result["comparisons"]["ranker_both"]
    assert ahead.keys() == {"retrieval", "ranker", "ranker_cross_encoder"}
    assert all(one["ndcg@5"]["interval"][0] > 0 for one in ahead.values())
    assert result["held_out"]["ranker_both"]["ahead_of"].keys() == {"retrieval", "ranker"}
    assert read_json(run / "export" / "ranker" / "ranker.json")["relevance"] == "both"

    # What the ranker reads came along: the export serves by itself.
    shutil.rmtree(saved.parent)
    files = read_json(run / "export" / "manifest.json")["files"]
    assert "ranker/cross_encoder/saved_model.pb" in files
    assert "ranker/cross_encoder/cross_encoder.json" in files
    query = pq.read_table(run / "mined" / "0123" / "requests.parquet").column("query")[230].as_py()
    searcher = Searcher(run)
    found, ranked = (searcher.search(query, TOP, rerank=rerank) for rerank in (False, True))
    before, after = ([float(hit.title.split()[-1]) for hit in hits] for hits in (found, ranked))
    assert sorted(before) == sorted(after)
    assert after[0] in sorted(before)[-3:]
    falling = [float(np.corrcoef(worth, np.arange(TOP))[0, 1]) for worth in (before, after)]
    assert falling[1] < min(-0.6, falling[0] - 0.1)


def test_a_cross_encoder_that_knows_nothing_new_costs_no_search(run: Path, tmp_path: Path, call: Call) -> None:
    """Buyers take the cheapest of what is similar, which the ranker without a cross-encoder sees as well."""
    saved = write_judge(tmp_path / "judge", [])
    outcome = call("relevance", "rank", run, "--cross-encoder", saved)
    assert "None with a cross-encoder is surely ahead of it" in outcome.out
    result = read_json(run / "ranking" / "report.json")
    ahead = result["held_out"]["ranker_both"]["ahead_of"]
    assert ahead["retrieval"]["interval"][0] > 0
    assert ahead["ranker"]["interval"][0] < 0 or ahead["ranker"]["p_value"] > 0.05
    assert result["chosen"] == "ranker"
    assert not (run / "export" / "ranker" / "cross_encoder").exists()


def test_a_ranker_that_is_not_ahead_of_retrieval_is_not_kept(
    run: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Buyers take the most similar product; the one that was kept before goes."""
    assert call("relevance", "rank", run, "--json").json["chosen"] == "ranker"
    path = run / "mined" / "0123" / "requests.parquet"
    requests, vectors = pq.read_table(path), np.load(run / "export" / "vectors" / "part-00000.npy")
    queries = np.array([[float(value) for value in text.split()] for text in requests.column("query").to_pylist()])
    first = pa.array([[f"{row:04}"] for row in np.argmax(queries @ vectors.T, axis=1)], STRINGS)
    for name in ("targets", "non_repeat_targets"):
        requests = requests.set_column(requests.schema.get_field_index(name), name, first)
    pq.write_table(requests, path)

    with monkeypatch.context() as patch:  # unless it is one that somebody else made meanwhile
        choose = ranking._choose

        def meanwhile(*given: Any) -> Any:
            with changed_copy(run / "export") as folder:
                write_json(folder / "ranker" / "theirs.json", {})
            return choose(*given)

        patch.setattr(ranking, "_choose", meanwhile)
        assert "was replaced meanwhile; do it again" in call("relevance", "rank", run).error
    assert (run / "export" / "ranker" / "theirs.json").exists()

    result = call("relevance", "rank", run, "--json").json
    assert result["held_out"]["retrieval"]["ndcg@10"] == 1
    assert result["chosen"] is None
    assert result["systems"].keys() == {"retrieval", "ranker"}
    assert not (run / "export" / "ranker").exists()
    check_manifest(run / "export")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--top", "1"), "--top: ranker.top = 1: input should be greater than or equal to 2"),
        (("--top", "10001"), "--top: ranker.top = 10001: input should be less than or equal to 10000"),
        (("--top", "20", "--off"), "--off: takes the ranker away; leave out --cross-encoder and --top"),
        (("--cross-encoder", "nowhere"), "nowhere: no saved_model.pb there; a cross-encoder is a SavedModel"),
    ],
)
def test_what_makes_no_sense_is_refused(run: Path, call: Call, options: tuple[str, ...], expected: str) -> None:
    assert expected in call("relevance", "rank", run, *options).error


def test_quality_that_was_measured_later_is_leakage(tmp_path: Path, call: Call) -> None:
    run = write_run(tmp_path / "run", by_price=True, late=True)
    assert "quality_as_of" in call("relevance", "rank", run).error
    assert not (run / "export" / "ranker").exists()


def test_a_ranker_of_another_run_is_refused(run: Path, tmp_path: Path, call: Call) -> None:
    other = write_run(tmp_path / "other", by_price=False)
    assert call("relevance", "rank", run, "--json").json["chosen"] == "ranker"
    shutil.copytree(run / "export" / "ranker", other / "export" / "ranker")
    path = other / "export" / "ranker" / "ranker.json"
    write_json(path, {**read_json(path), "run_id": "run 4"})
    with pytest.raises(InputError, match="a ranker of run run 4, but the export is of run 5"):
        Searcher(other)
