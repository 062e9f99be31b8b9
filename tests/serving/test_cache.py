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


def cache_of(strategy: Any, clock: Clock, size: int = 100) -> RankingCache:
    return RankingCache(strategy, size=size, user_ttl_seconds=60, features_ttl_seconds=3_600, clock=clock)


def asked(query: str = "lamp", searches: tuple[str, ...] = (), **about: Any) -> tuple[Request, Question]:
    """A request, and a question as a `Searcher` would make of it."""
    options = {"depth": 200, "fusion": False, "boosted": False, "min_similarity": None}
    options |= {name: about.pop(name) for name in list(options) if name in about}
    features = Features({"query": query, "recent_searches": searches, **about.get("context", {})})
    return Request(query, recent_searches=searches, **about), Question(features, **options)


def ranking(row: int = 0) -> Ranking:
    ranks = np.ones(1, np.int32)
    return Ranking(np.array([row]), np.ones(1, np.float32), np.ones(1, np.float32), ranks, ranks)


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
