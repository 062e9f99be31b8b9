"""Both keys of UEPPR V, with a clock that stands still until it is moved."""

import threading
from typing import Any

import numpy as np
import pytest

from uepp.serving.cache import RankingCache
from uepp.serving.ranking import Question, Ranking
from uepp.serving.requests import Features, Request


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def cache_of(strategy: Any, clock: Clock, size: int = 100, num_bytes: int = 1 << 20) -> RankingCache:
    return RankingCache(
        strategy, size=size, num_bytes=num_bytes, user_ttl_seconds=60, features_ttl_seconds=3_600, clock=clock
    )


def asked(query: str = "lamp", searches: tuple[str, ...] = (), **about: Any) -> tuple[Request, Question]:
    """A request, and a question as a `Searcher` would make of it."""
    options = {"depth": 200, "fusion": False, "boosted": False, "min_similarity": None}
    options |= {name: about.pop(name) for name in list(options) if name in about}
    features = Features({"query": query, "recent_searches": searches, **about.get("context", {})})
    return Request(query, recent_searches=searches, **about), Question(features, **options)


def ranking(row: int = 0, depth: int = 1) -> Ranking:
    ranks, scores = np.ones(depth, np.int32), np.ones(depth, np.float32)
    return Ranking(np.full(depth, row, np.int64), scores, scores, ranks, ranks)


def known(cache: RankingCache, *args: Any, **about: Any) -> tuple[int, str, float, bool] | None:
    """Row, layer, age and whether it is stale of what the cache answers."""
    found = cache.get(*asked(*args, **about))
    if found is None:
        return None
    return int(found.ranking.rows[0]), found.layer, found.age_seconds, found.is_stale


def test_features_answer_whoever_looks_the_same(clock: Clock) -> None:
    cache = cache_of("features", clock)
    assert known(cache, user="anna") is None
    cache.put(*asked(user="anna"), ranking(7))
    clock.now = 30
    assert known(cache, user="anna") == (7, "features", 30, False)
    assert known(cache, user="bert") == (7, "features", 30, False)
    assert known(cache, user="anna", searches=("mug",)) is None, "other features"


def test_who_asks_is_answered_though_they_did_something_since(clock: Clock) -> None:
    cache = cache_of("user", clock)
    cache.put(*asked(user="anna"), ranking(7))
    clock.now = 30
    assert known(cache, user="anna") == (7, "user", 30, False)
    assert known(cache, user="anna", searches=("mug",)) == (7, "user", 30, True)
    assert known(cache, user="bert") is None


@pytest.mark.parametrize("strategy", ["user", "layered"])
def test_nobody_is_never_answered_with_what_is_somebodys(clock: Clock, strategy: str) -> None:
    cache = cache_of(strategy, clock)
    cache.put(*asked(user="anna", searches=("secret",)), ranking(7))
    cache.put(*asked(searches=("mug",)), ranking(8))
    assert known(cache) is None
    assert known(cache, searches=("lamp",)) is None
    found = known(cache, searches=("mug",))
    assert found is not None
    assert (found[0], found[3]) == (8, False)


@pytest.mark.parametrize("strategy", ["features", "user", "layered"])
@pytest.mark.parametrize(
    "other",
    [
        {"query": "mug"}, {"depth": 400}, {"fusion": True}, {"boosted": True}, {"min_similarity": 0.2},
        {"context": {"country": "DE"}},
    ],
)  # fmt: skip
def test_another_question_is_another_key(clock: Clock, strategy: str, other: dict[str, Any]) -> None:
    cache = cache_of(strategy, clock)
    cache.put(*asked(user="anna"), ranking(7))
    assert known(cache, user="anna") is not None
    assert known(cache, **{"user": "anna", **other}) is None


def test_a_visit_and_its_person_are_told_apart(clock: Clock) -> None:
    cache = cache_of("user", clock)
    cache.put(*asked(user="anna", session="1"), ranking(1))
    cache.put(*asked(user="anna", session="2"), ranking(2))
    cache.put(*asked(session="anna"), ranking(3))
    assert [known(cache, user="anna", session=visit)[0] for visit in "12"] == [1, 2]
    assert known(cache, user="anna") is None
    assert known(cache, session="anna")[0] == 3


@pytest.mark.parametrize(("strategy", "seconds"), [("user", 60), ("features", 3_600)])
def test_time_is_over_when_it_is_over(clock: Clock, strategy: str, seconds: float) -> None:
    cache = cache_of(strategy, clock)
    cache.put(*asked(user="anna"), ranking(7))
    clock.now = seconds - 0.1
    assert known(cache, user="anna") is not None, "asking does not prolong it, but it is still there"
    clock.now = seconds
    assert known(cache, user="anna") is None
    assert set(cache.sizes.values()) == {0}


def test_layers_ask_who_first_and_then_features(clock: Clock) -> None:
    cache = cache_of("layered", clock)
    cache.put(*asked(user="anna"), ranking(7))
    clock.now = 10
    assert known(cache, user="anna") == (7, "user", 10, False)
    assert known(cache, user="bert") == (7, "features", 10, False)
    clock.now = 20
    assert known(cache, user="bert") == (7, "user", 20, False), "bert's own by now, and as old as it is"
    assert known(cache, user="bert", searches=("mug",)) == (7, "user", 20, True)
    clock.now = 75
    assert known(cache, user="bert", searches=("mug",)) is None, "60 seconds after it became bert's"
    assert known(cache, user="anna") == (7, "features", 75, False)


def ranked(*rows: int) -> Ranking:
    ranks, scores = np.ones(len(rows), np.int32), np.ones(len(rows), np.float32)
    return Ranking(np.array(rows), scores, scores, ranks, ranks)


@pytest.mark.parametrize("strategy", ["user", "layered"])
def test_a_deeper_page_goes_on_with_the_list_that_was_shown(clock: Clock, strategy: Any) -> None:
    """Beyond the depth that was kept it was of another list, of the features of then: a product was on two pages."""
    cache = cache_of(strategy, clock)
    first, deep = asked(user="anna", depth=4), asked(user="anna", searches=("mug",), depth=8)
    assert cache.put(*first, ranked(1, 2, 3, 4)).rows.tolist() == [1, 2, 3, 4]
    clock.now = 10
    assert cache.get(*deep) is None
    assert cache.put(*deep, ranked(9, 1, 5, 4, 6, 2, 7, 8)).rows.tolist() == [1, 2, 3, 4, 9, 5, 6, 7]
    clock.now = 65
    for searches, depth in (((), 4), ((), 8), (("mug",), 8)):
        found = cache.get(*asked(user="anna", searches=searches, depth=depth))
        assert found is not None
        assert found.ranking.rows.tolist() == [1, 2, 3, 4, 9, 5, 6, 7]
        assert (found.layer, found.age_seconds, found.is_stale) == ("user", 65, True), "some of it, at least"
    clock.now = 75
    assert known(cache, user="anna", depth=4, searches=("hat",)) is None, "60 seconds after its last page was computed"


def test_a_list_goes_on_with_what_others_have_made_known(clock: Clock) -> None:
    cache = cache_of("layered", clock)
    cache.put(*asked(user="anna", depth=4), ranked(1, 2, 3, 4))
    cache.put(*asked(user="bert", searches=("mug",), depth=8), ranked(9, 1, 5, 4, 6, 2, 7, 8))
    deep = asked(user="anna", searches=("mug",), depth=8)
    for layer in ("features", "user"):
        found = cache.get(*deep)
        assert found is not None
        assert (found.layer, found.is_stale) == (layer, True)
        assert found.ranking.rows.tolist() == [1, 2, 3, 4, 9, 5, 6, 7]
    of_bert = cache.get(*asked(user="bert", searches=("mug",), depth=8))
    assert of_bert is not None
    assert of_bert.ranking.rows.tolist() == [9, 1, 5, 4, 6, 2, 7, 8], "and bert's own is as it was"


def test_nothing_is_kept_without_a_cache(clock: Clock) -> None:
    cache = cache_of("none", clock)
    cache.put(*asked(), ranking())
    assert known(cache) is None
    assert cache.sizes == {}


def test_what_was_asked_for_longest_ago_goes_first(clock: Clock) -> None:
    cache = cache_of("features", clock, size=2)
    cache.put(*asked("one"), ranking(1))
    cache.put(*asked("two"), ranking(2))
    assert known(cache, "one") is not None
    cache.put(*asked("three"), ranking(3))
    assert known(cache, "two") is None
    assert [known(cache, query)[0] for query in ("one", "three")] == [1, 3]
    assert cache.sizes == {"features": 2}


@pytest.mark.parametrize("strategy", ["user", "features", "layered"])
def test_deep_rankings_do_not_fill_the_memory(clock: Clock, strategy: Any) -> None:
    """The cache held 10,000 rankings however deep: with pages far down and long exclusions that was 900 MB."""
    cache = cache_of(strategy, clock, num_bytes=100_000)
    assert ranking(depth=1_000).num_bytes == 24_000
    for number in range(20):
        cache.put(*asked(f"query {number}", user="anna"), ranking(number, depth=1_000))
    assert all(75_000 < num_bytes <= 100_000 for num_bytes in cache.num_bytes.values())
    assert set(cache.sizes.values()) == {4}
    assert known(cache, "query 15", user="anna") is None
    assert known(cache, "query 19", user="anna") is not None
    cache.put(*asked("deeper than there is room", user="anna"), ranking(depth=5_000))
    assert known(cache, "deeper than there is room", user="anna") is None
    assert known(cache, "query 19", user="anna") is not None, "and nothing had to go for it"


def test_the_same_again_takes_nobodys_place(clock: Clock) -> None:
    cache = cache_of("features", clock, size=2)
    for query in ("one", "two", "two", "two"):
        cache.put(*asked(query), ranking())
    assert known(cache, "one") is not None


# Texts that mean the same


def read_as(
    words: str | None, query: str, *, fusion: bool = False, user: str | None = None
) -> tuple[Request, Question]:
    features = Features({"query": query}, words)
    return Request(query, user=user), Question(features, 200, fusion, False, None)


@pytest.mark.parametrize("strategy", ["user", "features", "layered"])
def test_queries_of_the_same_words_are_one_where_words_are_all_that_is_read(clock: Clock, strategy: Any) -> None:
    cache = cache_of(strategy, clock)
    cache.put(*read_as("red lamp", "Red Lamp!", user="anna"), ranking(7))
    assert cache.get(*read_as("red lamp", "red lamp", user="anna")) is not None
    assert cache.get(*read_as("red lamps", "red lamps", user="anna")) is None


@pytest.mark.parametrize("strategy", ["user", "features", "layered"])
def test_a_tower_that_reads_cased_text_has_them_apart(clock: Clock, strategy: Any) -> None:
    cache = cache_of(strategy, clock)
    cache.put(*read_as(None, "US Polo", user="anna"), ranking(7))
    assert cache.get(*read_as(None, "us polo", user="anna")) is None
    assert cache.get(*read_as(None, "US Polo", user="anna")) is not None


@pytest.mark.parametrize("strategy", ["user", "features", "layered"])
def test_bm25_reads_signs_but_no_cases(clock: Clock, strategy: Any) -> None:
    """3/4" is no 3 4 to it; and of other alphabets it is not known here what it folds."""
    cache = cache_of(strategy, clock)
    cache.put(*read_as("3 4 pipe", '3/4" Pipe', fusion=True, user="anna"), ranking(7))
    assert cache.get(*read_as("3 4 pipe", '3/4" pipe', fusion=True, user="anna")) is not None
    assert cache.get(*read_as("3 4 pipe", "3 4 pipe", fusion=True, user="anna")) is None
    assert cache.get(*read_as("3 4 pipe", '3/4" pipe', user="anna")) is None, "another question without fusion"
    cache.put(*read_as("lampe", "Lämpe", fusion=True, user="anna"), ranking(8))
    assert cache.get(*read_as("lampe", "lämpe", fusion=True, user="anna")) is None


def test_several_threads_share_it(clock: Clock) -> None:
    """A `TTLCache` alone breaks its list of links when two threads change it."""
    cache = cache_of("layered", clock, size=8)
    problems: list[Exception] = []
    start = threading.Barrier(4)

    def work(number: int) -> None:
        start.wait()
        try:
            for turn in range(500):
                about = asked(f"query {(turn * (number + 3)) % 17}", user=f"u{turn % 5}")
                if cache.get(*about) is None:
                    cache.put(*about, ranking(turn))
                clock.now += 0.5
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert all(size <= 8 for size in cache.sizes.values())
