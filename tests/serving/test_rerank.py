"""Search with a ranker: its order, retrieval's scores, and everything else of serving as it was."""

import asyncio
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from compass import NUM_DIRECTIONS, make_run
from fastapi.testclient import TestClient
from ranked import TOP, make_ranked, rewrite_manifest

from uepp.artifacts import read_json, write_json
from uepp.config import ServingConfig
from uepp.errors import InputError
from uepp.relevance.ranker import FACTS, MODEL, RANKER, read_ranker
from uepp.retrieval.product_index import Found
from uepp.serving.app import create_app
from uepp.serving.cache import RankingCache
from uepp.serving.metrics import Metrics
from uepp.serving.requests import Request
from uepp.serving.search import Hit, Searcher
from uepp.serving.service import Service

OWN = {"ranker_rank"}


@pytest.fixture(scope="module")
def ranked_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_ranked(tmp_path_factory.mktemp("ranked") / "run")


@pytest.fixture(scope="module")
def searcher(ranked_run: Path) -> Searcher:
    return Searcher(ranked_run)


@pytest.fixture
def run_dir(ranked_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ranked_run, tmp_path / "run"))


def ids(hits: list[Hit]) -> list[str]:
    return [hit.product_id for hit in hits]


def retrieved(hit: Hit) -> dict[str, Any]:
    return {name: value for name, value in vars(hit).items() if name not in OWN}


def test_the_ranker_orders_the_first_and_scores_stay_those_of_retrieval(searcher: Searcher) -> None:
    plain = searcher.search("east", NUM_DIRECTIONS)
    ranked = searcher.search("east", NUM_DIRECTIONS, rerank=True)
    assert searcher.has_ranker
    assert {hit.ranker_rank for hit in plain} == {None}
    assert [hit.ranker_rank for hit in ranked] == [*range(1, TOP + 1), *[None] * (NUM_DIRECTIONS - TOP)]
    assert ids(ranked[TOP:]) == ids(plain[TOP:])
    by_id = {hit.product_id: retrieved(hit) for hit in plain}
    assert all(by_id[hit.product_id] == retrieved(hit) for hit in ranked)
    assert set(ids(ranked[:TOP])) == set(ids(plain[:TOP]))
    # east's first ten are p000 … p009; p009 is the dearest, and prices rise
    assert ids(plain[:TOP]) == [f"p{n:03d}" for n in range(10)]
    assert ids(ranked)[0] == "p009"
    known = [hit.price for hit in ranked[:TOP] if hit.price is not None]
    assert np.corrcoef(known, range(len(known)))[0, 1] < -0.9


def test_the_order_is_that_of_the_stored_ranker(searcher: Searcher, ranked_run: Path) -> None:
    """Read again, asked by hand with the same products, it says the same."""
    ranker = read_ranker(ranked_run / "export")
    assert ranker is not None
    about: dict[str, Any] = {"clicked_products": ["p004", "p004"], "recent_shops": ["east"], "country": "de"}
    context = {"country": about.pop("country")}
    request = Request("east", NUM_DIRECTIONS, context=context, rerank=True, **about)
    question = searcher.question(request)
    assert question.asked is not None
    plain = searcher.search("east", TOP, context=context, **about)
    rows = np.array([[searcher.catalogue.row(hit.product_id) for hit in plain]])
    order = ranker.order(question.asked, rows, np.array([[hit.similarity for hit in plain]], np.float32))
    expected = [plain[place].product_id for place in order[0]]
    assert ids(searcher.search_many([request])[0])[:TOP] == expected
    assert expected[0] == "p004"


def test_what_somebody_did_counts(searcher: Searcher) -> None:
    """`bert` clicked p001, says the export; what comes with the request replaces that."""
    clicked = searcher.search("east", NUM_DIRECTIONS, clicked_products=["p003", "gone"], rerank=True)
    assert ids(clicked)[0] == "p003"
    bought = searcher.search("east", NUM_DIRECTIONS, purchased_products=["p001"], rerank=True)
    assert ids(bought)[0] == "p001"
    assert ids(searcher.search("east", 1, user="bert", rerank=True)) == ["p001"]
    assert ids(searcher.search("east", 1, user="bert", clicked_products=[], rerank=True)) == ["p009"]
    assert ids(searcher.search("east", 1, user="bert", clicked_products=["p002"], rerank=True)) == ["p002"]


def test_pages_are_of_one_order(searcher: Searcher, ranked_run: Path) -> None:
    whole = ids(searcher.search("east", NUM_DIRECTIONS, rerank=True))
    pages = [searcher.search("east", 5, offset=offset, rerank=True) for offset in range(0, NUM_DIRECTIONS, 5)]
    assert [product for page in pages for product in ids(page)] == whole
    shallow = Searcher(ranked_run, depth=1)
    assert ids(shallow.search("east", 3, rerank=True)) == whole[:3], "the first page is ranked among the first ten, too"


@pytest.mark.parametrize("about", [{}, {"min_similarity": 0.5}])
def test_the_ranker_is_not_asked_about_later_pages(ranked_run: Path, about: dict[str, Any]) -> None:
    """Where an index finds other products when it is asked for more, the first page stays what it was."""
    searcher = Searcher(ranked_run, depth=TOP)
    find = searcher.index.search

    def odd_ones_later(queries: np.ndarray, k: int, *, boosted: bool = True) -> Found:
        whole = find(queries, NUM_DIRECTIONS, boosted=boosted)
        order = np.r_[0:NUM_DIRECTIONS:2, 1:NUM_DIRECTIONS:2] if k == TOP else np.arange(NUM_DIRECTIONS)
        return Found(*(part[:, order[:k]] for part in whole))

    searcher.index.search = odd_ones_later  # type: ignore[method-assign]
    first = searcher.search("east", TOP, rerank=True, **about)
    whole = searcher.search("east", NUM_DIRECTIONS, rerank=True, **about)
    assert {int(one[1:]) % 2 for one in ids(first)} == {0}
    assert ids(whole)[: len(first)] == ids(first)
    assert [hit.ranker_rank for hit in whole] == [*range(1, len(first) + 1), *[None] * (len(whole) - len(first))]
    assert len(whole) > len(first)
    assert len(set(ids(whole))) == len(whole)


def test_what_is_left_out_stays_out(searcher: Searcher) -> None:
    far = searcher.search("east", NUM_DIRECTIONS, rerank=True, min_similarity=0.95)
    assert set(ids(far)) == {"p000", "p001", "p002", "p003"}  # cos 15° = .966, cos 20° = .940
    assert [hit.ranker_rank for hit in far] == [1, 2, 3, 4]
    without = searcher.search("east", 3, rerank=True, exclude=["p009"])
    assert "p009" not in ids(without)
    assert without[0].ranker_rank == 2, "it is left out of the page, not of the ranking"
    nothing = searcher.search("nowhere to go", 3, rerank=True, min_similarity=0.99)
    assert nothing == []


def test_fusion_comes_first(searcher: Searcher) -> None:
    plain = searcher.search("chair 赤い", NUM_DIRECTIONS, fusion=True)
    ranked = searcher.search("chair 赤い", NUM_DIRECTIONS, fusion=True, rerank=True)
    assert set(ids(plain[:TOP])) == set(ids(ranked[:TOP]))
    assert ids(plain[TOP:]) == ids(ranked[TOP:])
    assert ids(plain) != ids(ranked)
    assert any(hit.lexical_rank for hit in ranked[:TOP])
    assert sorted(map(repr, map(retrieved, plain))) == sorted(map(repr, map(retrieved, ranked)))


def test_an_answer_from_the_cache_is_the_one_that_would_be_computed(searcher: Searcher, ranked_run: Path) -> None:
    """Both bought something tagged `east`, which is all that the tower sees; the ranker sees which."""
    requests = [Request("east", 5, purchased_products=[name], rerank=rerank)
                for name in ("p001", "p003") for rerank in (False, True)]  # fmt: skip
    plain_one, ranked_one, plain_other, ranked_other = (searcher.question(request) for request in requests)
    assert plain_one.key == plain_other.key
    assert len({plain_one.key, ranked_one.key, ranked_other.key}) == 3
    assert ranked_one.key == searcher.question(requests[1]).key
    cache = RankingCache("layered")
    cached = Searcher(ranked_run, cache=cache)
    for _ in range(2):
        for request in requests:
            assert cached.search_many([request]) == searcher.search_many([request])
    assert cache.sizes["features"] == 3


def test_who_asks_again_sees_the_same_list(searcher: Searcher, ranked_run: Path) -> None:
    """The layer `user`: a click in between changes the features, not the key; with and without the ranker are apart."""
    cache = RankingCache("user")
    cached = Searcher(ranked_run, cache=cache)
    before = cached.search("east", 5, session="s", rerank=True)
    after = Request("east", 5, session="s", clicked_products=["p003"], rerank=True)
    assert cached.search_many([after])[0] == before != searcher.search_many([after])[0]
    found = cache.get(after, cached.question(after))
    assert found is not None
    assert found.is_stale
    assert cached.search("east", 5, session="s") == searcher.search("east", 5)


def test_the_ranker_has_queries_of_the_same_words_apart(searcher: Searcher) -> None:
    """It reads the query as it is written; by who asks they shared a ranking all the same."""
    cache = RankingCache("user")
    one, other = (Request(query, 5, user="anna", rerank=True) for query in ('3/4" lamp', "3 4 LAMP!"))
    cache.put(one, searcher.question(one), searcher.rank([searcher.question(one)])[0])
    assert cache.get(one, searcher.question(one)) is not None
    assert cache.get(other, searcher.question(other)) is None


def test_the_server_answers_with_it(ranked_run: Path, searcher: Searcher) -> None:
    service = Service(ranked_run, ServingConfig(max_batch=4), Metrics())
    with TestClient(create_app(service), raise_server_exceptions=False) as client:
        assert client.get("/about").json()["has_ranker"] is True
        asked = {"query": "east", "k": 12, "clicked_products": ["p003"], "rerank": True}
        body = client.post("/search", json=asked).json()
        expected = searcher.search("east", 12, clicked_products=["p003"], rerank=True)
        assert body["hits"] == json.loads(json.dumps([vars(hit) for hit in expected]))
        address = client.get("/search?query=east&k=12&clicked_products=p003&rerank=true").json()
        assert address["hits"] == body["hits"]
        assert address["cache"]["layer"] == "features"
        plain = client.get("/search?query=east&k=12").json()
        assert {hit["ranker_rank"] for hit in plain["hits"]} == {None}
        assert "rerank" in client.get("/openapi.json").json()["components"]["schemas"]["SearchRequest"]["properties"]
        assert 'uepp_part_seconds_count{part="ranker"}' in client.get("/metrics").text


def test_questions_in_one_batch_keep_their_own_order(ranked_run: Path, searcher: Searcher) -> None:
    requests = [
        Request("east" if n % 2 else "赤い", 6, clicked_products=[f"p{n:03d}"], rerank=n % 3 > 0, fusion=n % 4 == 0)
        for n in range(12)
    ]

    async def ask() -> list[list[Hit]]:
        service = Service(ranked_run, ServingConfig(max_batch=12, cache="none"), Metrics())
        await service.start()
        try:
            answers = await asyncio.gather(*(service.search(request) for request in requests))
        finally:
            await service.close()
        assert service.metrics.registry.get_sample_value("uepp_batch_size_sum") == len(requests)
        return [answer.hits for answer in answers]

    for hits, request in zip(asyncio.run(asyncio.wait_for(ask(), 120)), requests, strict=True):
        assert ids(hits) == ids(searcher.search_many([request])[0])


def test_the_ranker_reads_what_the_tower_does_not(tmp_path: Path) -> None:
    """A place and a history that would change nothing are refused; with the ranker they change something."""
    reader = Searcher(make_run(tmp_path / "run")).reader
    about: list[dict[str, Any]] = [{"context": {"country": "US"}}, {"user": "cleo"}, {"clicked_products": ["001"]}]
    for one in about:
        with pytest.raises(InputError, match="this run's query tower has no"):
            reader.read(Request("east", **one))
        assert reader.read(Request("east", rerank=True, **one)).values == {"query": "east"}
    with pytest.raises(InputError, match="user nobody: no events of this user"):
        reader.read(Request("east", rerank=True, user="nobody"))


def refused(run: Path, **about: Any) -> str:
    with pytest.raises(InputError) as caught:
        Searcher(run).search("east", 3, rerank=True, **about)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_a_ranker_one_line_says_how_to_make_one(run_dir: Path) -> None:
    shutil.rmtree(run_dir / "export" / RANKER)
    rewrite_manifest(run_dir / "export")
    assert refused(run_dir) == f"rerank: this export has no ranker; make one with: uepp relevance rank {run_dir}"
    with TestClient(create_app(Service(run_dir, ServingConfig(), Metrics()))) as client:
        answer = client.post("/search", json={"query": "east", "rerank": True})
        assert answer.status_code == 422
        assert answer.json()["detail"].startswith("rerank: this export has no ranker")
        assert client.get("/about").json()["has_ranker"] is False


def test_without_lightgbm_all_but_the_ranker_works(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    found = Searcher(run_dir)
    assert not found.has_ranker
    assert ids(found.search("east", 2)) == ["p000", "p001"]
    assert refused(run_dir) == 'rerank: the final ranker needs lightgbm: pip install "uepp[rank]"'


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"run_id": "thorn"}, "a ranker of run thorn, but the export is of rose"),
        ({"towers": "0123"}, "a ranker of other towers than the export's"),
        ({"relevance": "taste"}, "relevance taste, top 10; allowed are similarity, cross_encoder"),
        ({"top": 1}, "relevance similarity, top 1"),
        ({"top": None}, "not a ranker"),
        ({"quality": ["quality_stars"]}, "a model of the features similarity"),
        ({"relevance": "cross_encoder"}, "no saved_model.pb there"),
    ],
)
def test_a_ranker_that_does_not_belong_there_is_refused(run_dir: Path, change: dict[str, Any], expected: str) -> None:
    path = run_dir / "export" / RANKER / FACTS
    write_json(path, {**read_json(path), **change})
    rewrite_manifest(run_dir / "export")
    message = refused(run_dir)
    assert expected in message
    assert str(path.parent) in message


def test_a_damaged_model_is_refused(run_dir: Path) -> None:
    path = run_dir / "export" / RANKER / MODEL
    path.write_text("tree\nnothing", encoding="utf-8")
    assert "differs from its SHA-256" in refused(run_dir)
    rewrite_manifest(run_dir / "export")
    assert f"{path}: not a model of LightGBM" in refused(run_dir)


def test_it_survives_another_catalogue(run_dir: Path) -> None:
    """It belongs to the towers: a product that is gone, or new, is no other ranker."""
    export = run_dir / "export"
    products = pq.read_table(export / "products.parquet")
    price = products.schema.get_field_index("price")
    values = [1_000.0 if n == 4 else value for n, value in enumerate(products.column("price").to_pylist())]
    pq.write_table(products.set_column(price, "price", pa.array(values)), export / "products.parquet")
    rewrite_manifest(export)
    assert ids(Searcher(run_dir).search("east", 1, rerank=True)) != []
    ranker = read_ranker(export)
    assert ranker is not None
    column = ranker.features.names("similarity").index("price")
    asked = Searcher(run_dir).question(Request("east", rerank=True)).asked
    assert asked is not None
    assert ranker.features.matrix(asked, np.array([[4]]), np.zeros((1, 1)))[0, 0, column] == 1_000
