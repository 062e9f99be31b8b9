"""Search over exports whose towers are a lookup, so that the right answer is known by eye."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from compass import HALF, NUM_DIRECTIONS, PRODUCTS, Traveller, directions, make_rose, make_run

from uepp.errors import InputError
from uepp.lexical.bm25 import BM25
from uepp.retrieval.product_index import Found
from uepp.serving import search
from uepp.serving.cache import RankingCache
from uepp.serving.requests import Request, words_of
from uepp.serving.search import Hit, Searcher


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("search") / "run")


@pytest.fixture(scope="module")
def compass(run: Path) -> Searcher:
    return Searcher(run)


@pytest.fixture(scope="module")
def travels(tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    """Search that depends on who asks."""
    return Searcher(make_run(tmp_path_factory.mktemp("travels") / "run", Traveller()))


@pytest.fixture(scope="module")
def rose_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rose(tmp_path_factory.mktemp("rose") / "run")


@pytest.fixture(scope="module")
def rose(rose_run: Path) -> Searcher:
    """24 products in a fan, with words, shops and prices."""
    return Searcher(rose_run)


def found(hits: list[Hit]) -> list[tuple[str, str, Any]]:
    return [(hit.product_id, hit.title, hit.similarity) for hit in hits]


def hit(name: str, similarity: float) -> tuple[str, str, Any]:
    return (*PRODUCTS[name], pytest.approx(similarity, abs=1e-6))


def ids(hits: list[Hit]) -> list[str]:
    return [hit.product_id for hit in hits]


def test_the_most_similar_products_come_first(compass: Searcher) -> None:
    assert found(compass.search("east", 3)) == [hit("east", 1), hit("north-east", HALF), hit("north", 0)]
    assert found(compass.search("赤い", 2)) == [hit("north", 1), hit("north-east", HALF)]


@pytest.mark.parametrize("index", ["flat", "hnsw"])
def test_more_results_than_products(tmp_path: Path, index: str) -> None:
    hits = Searcher(make_run(tmp_path / "run", index=index)).search("east", 1_000)
    assert found(hits) == [hit("east", 1), hit("north-east", HALF), hit("north", 0)]


def test_a_hit_shows_the_product(rose: Searcher) -> None:
    first, second = rose.search("east", 2)
    assert first == Hit(
        "p000", "<i>Chair</i> number 0", pytest.approx(1), pytest.approx(1), "赤い", None, "DE", None, 1, None
    )
    assert (second.shop_id, second.price, second.country, second.region) == ("east", 1.5, "US", "CA")


def test_a_catalogue_without_shops_and_prices_is_shown_without(compass: Searcher) -> None:
    only = compass.search("east", 1)[0]
    assert (only.shop_id, only.price, only.country, only.region) == (None, None, None, None)


@pytest.mark.parametrize("query", ["", " ", "?!", "…"])
def test_a_query_without_a_word_is_refused(compass: Searcher, query: str) -> None:
    with pytest.raises(InputError, match="no word in it"):
        compass.search(query)


def test_a_query_that_is_not_text_is_refused(compass: Searcher) -> None:
    """What a shell passes on that is not UTF-8 arrives as lone surrogates."""
    with pytest.raises(InputError, match=r"query 'ring .udcff': not valid UTF-8"):
        compass.search("ring \udcff")


def test_space_around_words_is_nothing(travels: Searcher) -> None:
    assert travels.search("  east\n", 1) == travels.search("east", 1)


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        ({"k": 0}, "k 0: must be at least 1"),
        ({"k": -1}, "k -1: must be at least 1"),
        ({"offset": -1}, "offset -1: must be at least 0"),
        ({"min_similarity": 1.1}, "min_similarity 1.1: must be between -1 and 1"),
        ({"min_similarity": float("nan")}, "min_similarity nan: must be between -1 and 1"),
        ({"fusion": True}, "fusion: this export has no BM25 index (lexical/); export the run again"),
        ({"recent_searches": "east"}, "recent_searches 'east': expected a list of texts"),
        ({"exclude": "001"}, "exclude '001': expected a list of texts"),
        ({"context": {"town": "Ulm"}}, "context town: unknown; known are country, region, language, zip, latitude, "
         "longitude"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(travels: Searcher, about: dict[str, Any], expected: str) -> None:
    assert refused(travels, **about) == expected


# Who asks


def first(searcher: Searcher, query: str = "somewhere", **who: Any) -> str:
    """Name of the first product; `nowhere` where nothing is known that leads anywhere."""
    best, second, *_ = searcher.search(query, 3, **who)
    if best.similarity == second.similarity:
        return "nowhere"
    return next(name for name, about in PRODUCTS.items() if about[0] == best.product_id)


@pytest.mark.parametrize(
    ("user", "expected"),
    # cleo's last click was in shop `east`, on the product titled Ünïcödé; dora's last purchase is tagged 赤い.
    [("anna", "east"), ("bert", "north"), ("cleo", "east"), ("dora", "north"), ("emil", "nowhere"), (None, "nowhere")],
)
def test_the_latest_events_of_the_user_count(travels: Searcher, user: str | None, expected: str) -> None:
    assert first(travels, user=user) == expected


@pytest.mark.parametrize("name", ["country", "region", "language", "zip"])
def test_a_place_counts(travels: Searcher, name: str) -> None:
    assert first(travels, context={name: "east"}) == "east"
    assert first(travels, context={name: "赤い"}) == "north"


def test_coordinates_count(travels: Searcher) -> None:
    assert first(travels, context={"latitude": 60.0, "longitude": 0.0}) == "north"
    assert first(travels, context={"latitude": 0, "longitude": 180}) == "east"
    assert first(travels, context={"latitude": 0.0, "longitude": 0.0}) == "nowhere"


def test_query_user_and_place_count_together(travels: Searcher) -> None:
    assert first(travels, "east", user="anna", context={"country": "赤い"}) == "north-east"
    assert first(travels, "east", user="anna", context={"country": "east"}) == "east"
    assert first(travels, "east", user="bert") == "north-east"
    assert first(travels, "east") == "east", "the search before leaves nothing behind"


@pytest.mark.parametrize(
    ("past", "expected"),
    [
        ({"recent_searches": ["赤い", "east"]}, "north"),
        ({"recent_searches": ["east", "赤い"]}, "east"),
        ({"recent_shops": ["east"]}, "east"),
        ({"purchased_products": ["2", "001"]}, "north"),  # by its tags
        ({"purchased_products": ["gone"]}, "nowhere"),
        ({"recent_searches": []}, "nowhere"),
    ],
)
def test_a_history_can_come_with_the_request(travels: Searcher, past: dict[str, Any], expected: str) -> None:
    assert first(travels, **past) == expected


def test_what_comes_with_the_request_replaces_that_part_of_the_history(travels: Searcher) -> None:
    assert first(travels, user="anna") == "east"
    assert first(travels, user="anna", recent_searches=["赤い"]) == "north"
    assert first(travels, user="anna", recent_searches=[]) == "nowhere"
    assert first(travels, user="anna", purchased_products=["2"]) == "north-east", "the searches are still there"


def test_clicked_products_bring_their_shops_and_titles(rose: Searcher) -> None:
    texts = rose.reader.read(Request("lamp", clicked_products=["p004", "p001", "p003"], user="anna")).values
    assert texts["recent_shops"] == ("赤い", "east", "")
    assert texts["recent_titles"] == ("Lamp number 4", "Lamp number 1", "<i>Chair</i> number 3")
    assert texts["recent_searches"] == ("赤い", "east")
    own = rose.reader.read(Request("lamp", clicked_products=["p004"], recent_shops=["east"])).values
    assert own["recent_shops"] == ("east",)


def test_only_what_the_tower_reads_is_a_feature(rose: Searcher, compass: Searcher) -> None:
    """So two people who look alike to the tower share what is cached."""
    long = [f"search {number}" for number in range(20)]
    short, longer = (rose.reader.read(Request("lamp", recent_searches=texts)) for texts in (long[:8], long))
    assert short.values["recent_searches"] == tuple(long[:8])
    assert short.digest == longer.digest
    assert short.digest != rose.reader.read(Request("lamp", recent_searches=long[1:])).digest
    assert list(compass.reader.read(Request("lamp")).values) == ["query"]


def test_no_two_features_are_written_alike(rose: Searcher) -> None:
    """Texts that only differ in where one ends and the next begins are different."""
    pasts = (["a", "b"], ["a b"], ["a,b"], ["a', 'b"], ["ab", ""], [])
    digests = {rose.reader.read(Request("lamp", recent_searches=past)).digest for past in pasts}
    digests |= {rose.reader.read(Request("lamp", recent_shops=past)).digest for past in pasts}
    assert len(digests) == 2 * len(pasts) - 1


def test_unknown_products_are_named(rose: Searcher) -> None:
    request = Request("lamp", clicked_products=["p001", "x"], purchased_products=["x", "y"])
    assert rose.reader.unknown_products(request) == ["x", "y"]


def test_who_asks_is_refused_where_the_tower_would_not_look(compass: Searcher) -> None:
    assert refused(compass, user="bert") == "user bert: this run's query tower has no history encoder"
    assert refused(compass, context={"country": "赤い"}) == "country: this run's query tower has no location encoder"
    assert refused(compass, recent_shops=["1"]) == "recent_shops: this run's query tower has no history encoder"


def refused(searcher: Searcher, **about: Any) -> str:
    with pytest.raises(InputError) as caught:
        searcher.search("east", **about)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_unknown_user_is_refused(travels: Searcher) -> None:
    assert refused(travels, user="zoe") == "user zoe: no events of this user before the end of training"


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        ({"latitude": 90.1, "longitude": 0.0}, "latitude 90.1: must be between -90 and 90 degrees"),
        ({"latitude": 0.0, "longitude": -181}, "longitude -181: must be between -180 and 180 degrees"),
        ({"latitude": float("nan"), "longitude": 0.0}, "latitude nan: must be between -90 and 90 degrees"),
        ({"latitude": 0.0, "longitude": float("inf")}, "longitude inf: must be between -180 and 180 degrees"),
        ({"latitude": "north", "longitude": 0.0}, "latitude north: must be between -90 and 90 degrees"),
        ({"latitude": 1.0}, "latitude and longitude: give both or neither"),
        ({"longitude": 1.0, "country": "US"}, "latitude and longitude: give both or neither"),
    ],
)
def test_bad_coordinates_are_refused(travels: Searcher, context: dict[str, Any], expected: str) -> None:
    assert refused(travels, context=context) == expected


# What of the ranking


def test_pages_are_one_ranking(rose: Searcher) -> None:
    whole = ids(rose.search("east", NUM_DIRECTIONS))
    assert whole == [f"p{number:03d}" for number in range(NUM_DIRECTIONS)]
    for k, offset in ((5, 0), (5, 5), (7, 20), (3, NUM_DIRECTIONS)):
        assert ids(rose.search("east", k, offset=offset)) == whole[offset : offset + k]


@pytest.mark.parametrize("depth", [1, 4, 200])
def test_pages_do_not_depend_on_how_deep_is_ranked(rose_run: Path, depth: int) -> None:
    shallow = Searcher(rose_run, depth=depth)
    assert ids(shallow.search("east", 3, offset=5)) == ["p005", "p006", "p007"]
    assert ids(shallow.search("east", 2, exclude=["p000", "p001", "p004"])) == ["p002", "p003"]


def test_excluded_products_make_room_for_others(rose: Searcher) -> None:
    gone = ["p000", "p002", "unheard of"]
    assert ids(rose.search("east", 3, exclude=gone)) == ["p001", "p003", "p004"]
    assert ids(rose.search("east", 2, offset=2, exclude=gone)) == ["p004", "p005"]
    assert rose.search("east", 3, exclude=[f"p{number:03d}" for number in range(NUM_DIRECTIONS)]) == []


def test_the_threshold_leaves_out_what_is_less_similar(rose: Searcher) -> None:
    """The cosine of 60° is the last one that is similar enough."""
    hits = rose.search("east", 100, min_similarity=0.499)
    assert ids(hits) == [f"p{number:03d}" for number in range(13)]
    assert len(rose.search("east", 100)) == NUM_DIRECTIONS


def test_the_configuration_says_what_negatives_stay_below(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert Searcher(run).threshold == 0.2
    (run / "config.yaml").write_text("loss: {threshold_negative: 0.3}\n")
    assert Searcher(run).threshold == 0.3
    (run / "config.yaml").write_text("loss: {kind: softmax}\n")
    assert Searcher(run).threshold is None, "a softmax trains no threshold"


def test_fused_pages_are_one_ranking(rose_run: Path) -> None:
    """A fusion of other depths is another ranking, so the depth does not follow the page."""
    whole = ids(Searcher(rose_run).search("chair east", NUM_DIRECTIONS, fusion=True))
    shallow = Searcher(rose_run, depth=2)
    pages = [ids(shallow.search("chair east", 4, offset=offset, fusion=True)) for offset in range(0, 24, 4)]
    assert [one for page in pages for one in page] == whole[:24]
    without = [one for one in whole if one not in whole[1:3]]
    assert ids(shallow.search("chair east", 5, exclude=whole[1:3], fusion=True)) == without[:5]


def moody(searcher: Searcher) -> Searcher:
    """With an index that gives other products for every depth, as a re-ranked one may."""
    search = searcher.index.search

    def moody_search(queries: np.ndarray, k: int, *, boosted: bool = True) -> Found:
        whole = search(queries, NUM_DIRECTIONS, boosted=boosted)
        order = np.random.default_rng(k).permutation(NUM_DIRECTIONS)[:k]
        return Found(*(part[:, order] for part in whole))

    searcher.index.search = moody_search  # type: ignore[method-assign]
    return searcher


@pytest.mark.parametrize("about", [{}, {"fusion": True}, {"exclude": ["p003", "p010"]}, {"min_similarity": 0.2}])
def test_pages_fit_each_other_whatever_the_index_does(
    rose_run: Path, monkeypatch: pytest.MonkeyPatch, about: dict[str, Any]
) -> None:
    """Page 21 showed products of page 20 again: the first 200 of 400 are not the 200 that were asked for."""
    monkeypatch.setattr(search, "FUSION_DEPTH", 6)
    searcher = moody(Searcher(rose_run, depth=3))
    shown = [one for offset in range(0, 30, 2) for one in ids(searcher.search("chair", 2, offset=offset, **about))]
    assert len(shown) == len(set(shown))
    whole = {f"p{number:03d}" for number in range(NUM_DIRECTIONS)} - set(about.get("exclude", ()))
    if "min_similarity" in about:
        assert set(shown) < whole
    else:
        assert set(shown) == whole


def test_fusion_is_that_of_both_rankings_by_hand(rose: Searcher, rose_run: Path) -> None:
    lexical = BM25.load(rose_run / "export" / "lexical").search(["chair east"], NUM_DIRECTIONS)[0][0]
    by_words = [int(row) for row in lexical if row >= 0]
    assert by_words == list(range(0, NUM_DIRECTIONS, 3)), "the chairs"
    way = np.array([7, 30]) / np.linalg.norm([7, 30])
    similarity = directions() @ way
    towers = np.argsort(-similarity).tolist()
    assert len(set(np.round(similarity, 4))) == NUM_DIRECTIONS, "no ties"

    def score(row: int) -> float:
        lexical_part = 1 / (40 + by_words.index(row) + 1) if row in by_words else 0
        return 1.5 / (40 + towers.index(row) + 1) + lexical_part

    hits = rose.search("chair east", 10, fusion=True, context={"latitude": 30.0, "longitude": 7.0})
    expected = sorted(range(NUM_DIRECTIONS), key=lambda row: -score(row))[:10]
    assert [hit.score for hit in hits] == pytest.approx([score(row) for row in expected], rel=1e-6)
    for one in hits:
        row = int(one.product_id[1:])
        assert one.score == pytest.approx(score(row), rel=1e-6)
        assert one.towers_rank == towers.index(row) + 1
        assert one.lexical_rank == (by_words.index(row) + 1 if row in by_words else None)
        assert one.similarity == pytest.approx(similarity[row], abs=1e-5)


def test_the_threshold_is_for_what_the_towers_find(rose: Searcher) -> None:
    """What BM25 finds stays in: where words are rare, the towers are who errs."""
    hits = rose.search("chair east", NUM_DIRECTIONS, fusion=True, min_similarity=0.99, context={"country": "east"})
    by_towers = {hit.product_id for hit in hits if hit.towers_rank}
    by_words = {hit.product_id for hit in hits if hit.lexical_rank}
    assert by_towers == {"p000", "p001"}
    assert by_words == {f"p{number:03d}" for number in range(0, NUM_DIRECTIONS, 3)}
    for hit in hits:
        assert hit.similarity == pytest.approx(directions()[int(hit.product_id[1:]), 0], abs=1e-5)


def test_the_threshold_is_for_similarity_not_for_what_quality_adds(tmp_path: Path) -> None:
    """UEPPR III-E, IV: p006 is boosted to the front, and p011 to where it is still not similar enough."""
    quality = [0.0] * NUM_DIRECTIONS
    quality[6], quality[11] = 0.5, 0.9
    rose = Searcher(make_rose(tmp_path / "run", quality=quality))
    assert rose.has_boosting
    boosted = rose.search("east", 4)
    assert ids(boosted) == ["p011", "p006", "p000", "p001"]
    cosines = directions()[:, 0]
    for hit in boosted:
        row = int(hit.product_id[1:])
        assert hit.similarity == pytest.approx(cosines[row], abs=1e-5)
        assert hit.score == pytest.approx(cosines[row] + quality[row], abs=1e-5)
    assert ids(rose.search("east", 4, min_similarity=0.8)) == ["p006", "p000", "p001", "p002"]
    plain = rose.search("east", NUM_DIRECTIONS, boosted=False)
    assert ids(plain) == [f"p{number:03d}" for number in range(NUM_DIRECTIONS)]
    assert [hit.score for hit in plain] == pytest.approx(cosines.tolist(), abs=1e-5)


def test_boosted_and_not_boosted_are_asked_together(tmp_path: Path) -> None:
    rose = Searcher(make_rose(tmp_path / "run", quality=[*[0.0] * 5, 2.0, *[0.0] * 18]))
    requests = [Request("east", 2, boosted=boosted, fusion=fusion) for boosted in (True, False) for fusion in (0, 1)]
    answers = rose.search_many(requests)
    assert [ids(hits)[0] for hits in (answers[0], answers[2])] == ["p005", "p000"]
    assert answers == [rose.search_many([request])[0] for request in requests]


def test_without_a_boosting_it_is_all_the_same(rose: Searcher) -> None:
    one, other = (rose.question(Request("east", boosted=boosted)) for boosted in (True, False))
    assert one.key == other.key, "and so is what is cached"


# Many at once, and the cache


def test_many_at_once_are_each_alone(rose: Searcher) -> None:
    requests = [
        Request("east", 3),
        Request("赤い", 2, fusion=False),
        Request("chair", 4, fusion=True),
        Request("east", 3, user="anna"),
        Request("east", 3, context={"latitude": 10.0, "longitude": 20.0}),
        Request("east", 3, recent_searches=["赤い"] * 5),
        Request("east", 2, offset=1, min_similarity=0.9),
        Request("east", 3),
    ]
    together = rose.search_many(requests)
    for request, hits in zip(requests, together, strict=True):
        alone = rose.search_many([request])[0]
        assert ids(hits) == ids(alone)
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in alone], abs=1e-6)
    assert ids(together[0]) != ids(together[3])
    assert rose.search_many([]) == []


def test_what_is_cached_is_not_ranked_again(rose_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searcher = Searcher(rose_run, cache=RankingCache("features"))
    ranked: list[int] = []
    rank = searcher.rank

    def counted(questions: Any) -> Any:
        ranked.append(len(questions))
        return rank(questions)

    monkeypatch.setattr(searcher, "rank", counted)
    first_page = searcher.search_many([Request("east", 3), Request("east", 2), Request("赤い", 2)])
    assert ranked == [2], "the first two are one question"
    assert searcher.search_many([Request("east", 3), Request("east", 2), Request("赤い", 2)]) == first_page
    assert ids(searcher.search("east", 4, offset=3, exclude=["p004"])) == ["p003", "p005", "p006", "p007"]
    assert sum(ranked) == 2, "pages and exclusions are of the same ranking"
    searcher.search("east", user="anna")
    assert sum(ranked) == 3


def test_everybody_who_asks_at_once_is_known_the_next_time(rose_run: Path) -> None:
    """Of two who asked the same in one call, the cache knew the first only."""
    searcher = Searcher(rose_run, cache=RankingCache("user"))
    both = [Request("east", 3, session="one"), Request("east", 3, session="two")]
    searcher.search_many(both)
    assert searcher._cache is not None
    assert [searcher._cache.get(request, searcher.question(request)) is not None for request in both] == [True] * 2


def test_exclusions_that_are_no_products_do_not_make_it_deeper(rose_run: Path) -> None:
    searcher = Searcher(rose_run, depth=2)
    assert searcher.question(Request("east", 2, exclude=[f"x{n}" for n in range(9)])).depth == 2
    assert searcher.question(Request("east", 2, exclude=["p001", "p001", "p002", "x"])).depth == 4


@pytest.mark.parametrize("query", ["Lamp", " LAMP! ", "ｌａｍｐ", "lámp"])
def test_a_word_is_the_same_feature_however_it_is_written(rose: Searcher, tmp_path: Path, query: str) -> None:
    """The tokens of a query are of its normalised words, so the tower cannot tell these apart; a text encoder may."""
    one, other = (rose.reader.read(Request(text)) for text in ("lamp", query))
    assert one.digest == other.digest
    assert other.query == query.strip(), "what the tower is given is what was written"
    assert one.digest != rose.reader.read(Request("lamps")).digest
    run = make_rose(tmp_path / "run")
    (run / "config.yaml").write_text("model: {query_encoders: [tokens, text]}\ntext: {encoder: somewhere}\n")
    cased = Searcher(run).reader
    assert cased.read(Request("lamp")).digest != cased.read(Request(query)).digest
    assert cased.read(Request("lamp")).digest == cased.read(Request(" lamp ")).digest


@pytest.mark.parametrize(
    "query", ["Red  lamp, 3/4-inch!", "a\tb\x00c", "x1y2", "~#de", "İstanbul", "赤い ランプ", "½ ß", ""]
)
def test_words_are_those_of_the_towers_tokens(query: str) -> None:
    from uepp.features.text import normalize

    assert words_of(query) == normalize(tf.constant(query)).numpy().decode()


# What cannot be searched


def test_what_is_not_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{tmp_path}: not a run directory"):
        Searcher(tmp_path)


def test_a_damaged_index_is_refused(tmp_path: Path) -> None:
    """Faiss itself loads a damaged index without complaint."""
    index = make_run(tmp_path / "run") / "export" / "index.faiss"
    content = bytearray(index.read_bytes())
    content[-1] ^= 1
    index.write_bytes(content)
    with pytest.raises(InputError, match=f"{index}: differs from its SHA-256"):
        Searcher(tmp_path / "run")


def test_an_export_of_another_run_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "run.json").write_text(json.dumps({"run_id": "compass"}))
    Searcher(run)
    (run / "run.json").write_text(json.dumps({"run_id": "another"}))
    with pytest.raises(
        InputError, match=r"an export of run compass, but .*run\.json says another; export this run again"
    ):
        Searcher(run)
