"""Many requests at once, and an export that is replaced while they are under way."""

import asyncio
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from compass import make_rose

from uepp import artifacts
from uepp.config import ServingConfig
from uepp.errors import InputError
from uepp.serving.batching import UnavailableError
from uepp.serving.metrics import Metrics
from uepp.serving.requests import Request
from uepp.serving.search import Searcher
from uepp.serving.service import Answer, RefusedError, Service

SECONDS = 120.0  # a test that hangs fails


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs to copy: `old` and `new` are exports of one run with other products, `foreign` is of another run."""
    folder = tmp_path_factory.mktemp("exports")
    make_rose(folder / "old")
    make_rose(folder / "new", first=100)
    make_rose(folder / "foreign", first=200, run_id="foreign")
    return folder


@pytest.fixture
def run_dir(exports: Path, tmp_path: Path) -> Path:
    shutil.copytree(exports / "old", tmp_path / "run")
    return tmp_path / "run"


class Gate:
    """Holds rankings back."""

    def __init__(self) -> None:
        self.is_closed = False
        self.sizes: list[int] = []
        self._open = threading.Semaphore(0)
        self._started = threading.Semaphore(0)

    def close(self) -> None:
        self.is_closed = True
        self.sizes.clear()

    def pass_through(self, size: int) -> None:
        if self.is_closed:
            self.sizes.append(size)
            self._started.release()
            assert self._open.acquire(timeout=SECONDS)

    async def has_started(self) -> None:
        assert await asyncio.to_thread(self._started.acquire, timeout=SECONDS)

    def open(self) -> None:
        self.is_closed = False
        for _ in range(100):
            self._open.release()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    gate, rank = Gate(), Searcher.rank

    def held(self: Searcher, questions: Sequence[Any]) -> Any:
        gate.pass_through(len(questions))
        return rank(self, questions)

    monkeypatch.setattr(Searcher, "rank", held)
    return gate


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), SECONDS))


@asynccontextmanager
async def serving(run_dir: Path, **settings: Any) -> AsyncIterator[Service]:
    service = Service(run_dir, ServingConfig(**{"max_batch": 4, **settings}), Metrics())
    await service.start()
    try:
        yield service
    finally:
        await service.close()


def replace(run_dir: Path, export: Path) -> None:
    shutil.rmtree(run_dir / "export")
    shutil.copytree(export / "export", run_dir / "export")


def asking(service: Service, *requests: Request) -> list[asyncio.Task[Answer]]:
    return [asyncio.ensure_future(service.search(request)) for request in requests]


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def ids(answer: Answer) -> list[str]:
    return [hit.product_id for hit in answer.hits]


def value(service: Service, name: str, **labels: str) -> float:
    return service.metrics.registry.get_sample_value(name, labels) or 0.0


# Search


def test_answers_are_those_of_a_searcher(run_dir: Path) -> None:
    requests = [
        Request("east", 3),
        Request("chair lamp", 5, offset=2, fusion=True),
        Request("east", 4, user="anna", exclude=["p003"]),
        Request("east", 4, context={"latitude": 3.0, "longitude": 4.0}, min_similarity=0.9),
    ]
    expected = Searcher(run_dir).search_many(requests)

    async def test() -> None:
        async with serving(run_dir) as service:
            answers = await asyncio.gather(*asking(service, *requests))
            assert [ids(answer) for answer in answers] == [[hit.product_id for hit in hits] for hits in expected]
            scores = [[hit.score for hit in hits] for hits in expected]
            assert [[hit.score for hit in answer.hits] for answer in answers] == [pytest.approx(one) for one in scores]
            assert {answer.run_id for answer in answers} == {"rose"}
            assert [answer.is_known_user for answer in answers] == [None, None, True, None]
            assert {answer.cache_layer for answer in answers} == {None}

    run(test)


def test_a_second_time_comes_from_the_cache_and_is_counted(run_dir: Path) -> None:
    async def test() -> None:
        async with serving(run_dir, cache="layered") as service:
            first = await service.search(Request("east", 3, user="anna"))
            again = await service.search(Request("east", 3, user="anna"))
            other = await service.search(Request("east", 3, user="anna", recent_searches=["mug"]))
            assert first.hits == again.hits == other.hits
            assert (first.cache_layer, again.cache_layer, other.cache_layer) == (None, "user", "user")
            assert first.cache_age_seconds is None
            assert again.cache_age_seconds is not None
            assert again.cache_age_seconds >= 0
            assert value(service, "uepp_cache_lookups_total", layer="none") == 1
            assert value(service, "uepp_cache_lookups_total", layer="user") == 2
            assert value(service, "uepp_cache_stale_hits_total") == 1, "of the last one: anna searched since"
            assert value(service, "uepp_cache_hit_age_seconds_count", layer="user") == 2
            service.refresh_gauges()
            assert value(service, "uepp_cache_rankings", layer="features") == 1

    run(test)


def test_parts_and_batches_are_counted_without_the_warm_up(run_dir: Path, gate: Gate) -> None:
    async def test() -> None:
        async with serving(run_dir) as service:
            gate.close()
            first = asking(service, Request("east"))
            await gate.has_started()
            rest = asking(service, Request("one"), Request("two"), Request("chair", fusion=True))
            await gate.has_started()  # what is fused has a thread of its own
            service.refresh_gauges()
            assert value(service, "uepp_waiting_requests") == 2
            gate.open()
            await asyncio.gather(*first, *rest)
            assert gate.sizes == [1, 1]
            assert value(service, "uepp_batch_size_count") == 3
            assert value(service, "uepp_batch_size_sum") == 4
            counts = {"features": 4, "queue": 4, "tower": 3, "index": 3, "lexical": 1, "hits": 4}
            for part, count in counts.items():
                assert value(service, "uepp_part_seconds_count", part=part) == count, part

    run(test)


def test_the_same_question_is_computed_once(run_dir: Path, gate: Gate) -> None:
    async def test() -> None:
        async with serving(run_dir) as service:
            gate.close()
            asked = asking(service, *[Request("east", k) for k in (1, 2, 3)], Request("east", 4, exclude=["p000"]))
            await gate.has_started()
            asked += asking(service, Request("east", 5))
            await turn()
            gate.open()
            answers = await asyncio.gather(*asked)
            assert gate.sizes == [1]
            assert ids(answers[4]) == [*ids(answers[2]), "p003", "p004"]
            assert value(service, "uepp_cache_joined_total") == 4
            assert value(service, "uepp_batch_size_sum") == 1

    run(test)


def test_everybody_who_waited_for_an_answer_is_known_the_next_time(run_dir: Path, gate: Gate) -> None:
    """Of those who asked the same at once, the cache by who asks knew the first only."""

    async def test() -> None:
        async with serving(run_dir, cache="user") as service:
            gate.close()
            visits = [Request("east", 3, session=name) for name in ("one", "two", "three")]
            asked = asking(service, *visits)
            await gate.has_started()
            await turn()
            gate.open()
            await asyncio.gather(*asked)
            assert value(service, "uepp_cache_joined_total") == 2
            again = [await service.search(visit) for visit in visits]
            assert [answer.cache_layer for answer in again] == ["user"] * 3

    run(test)


@pytest.mark.parametrize("cache", ["user", "layered"])
def test_pages_of_one_who_searches_on_are_of_one_list(run_dir: Path, cache: Any) -> None:
    async def test() -> None:
        async with serving(run_dir, cache=cache, depth=4) as service:
            first = await service.search(Request("somewhere", 4, user="anna"))
            rest = [
                ids(await service.search(Request("somewhere", 4, offset, user="anna", recent_searches=["east"])))
                for offset in (4, 8, 12, 0)
            ]
            assert rest[-1] == ids(first)
            assert len({product for page in rest for product in page}) == 16, "none is on two pages"
            by_now = await service.search(Request("somewhere", 4, user="bert", recent_searches=["east"]))
            assert ids(by_now) != ids(first), "else there was nothing to keep"

    run(test)


def test_nobody_waits_for_bm25_who_did_not_ask_for_it(run_dir: Path, gate: Gate) -> None:
    """It takes many times as long as all the rest, and held up whoever was in the same batch, and the next."""

    async def test() -> None:
        async with serving(run_dir) as service:
            gate.close()
            fused = asking(service, *[Request(f"chair {number}", 2, fusion=True) for number in range(5)])
            await gate.has_started()
            gate.is_closed = False  # the others pass
            first = await service.search(Request("east", 2))
            are_done = [task.done() for task in fused]
            service.refresh_gauges()
            num_waiting = value(service, "uepp_waiting_requests")
            gate.open()
            assert all(len(answer.hits) == 2 for answer in await asyncio.gather(*fused))
            assert ids(first) == ["p000", "p001"]
            assert (are_done, gate.sizes, num_waiting) == ([False] * 5, [4], 1)

    run(test)


def test_who_gives_up_takes_nothing_from_the_others(run_dir: Path, gate: Gate) -> None:
    async def test() -> None:
        async with serving(run_dir) as service:
            gate.close()
            gone, stays = asking(service, Request("east", 2), Request("east", 2))
            await gate.has_started()
            gone.cancel()
            await turn()
            gate.open()
            assert ids(await stays) == ["p000", "p001"]
            assert gone.cancelled()

    run(test)


def test_what_nobody_waits_for_any_more_is_not_computed(run_dir: Path, gate: Gate) -> None:
    async def test() -> None:
        async with serving(run_dir) as service:
            gate.close()
            first = asking(service, Request("east"))
            await gate.has_started()
            gone = asking(service, Request("one"), Request("one"))
            await turn()
            for one in gone:
                one.cancel()
            await turn()
            gate.open()
            await first[0]
            assert value(service, "uepp_batch_size_sum") == 1
            assert ids(await service.search(Request("one", 1))), "and can be asked for again"

    run(test)


def test_too_many_are_turned_away(run_dir: Path, gate: Gate) -> None:
    async def test() -> None:
        async with serving(run_dir, max_waiting=1) as service:
            gate.close()
            first = asking(service, Request("east"))
            await gate.has_started()
            second = asking(service, Request("one"))
            await turn()
            with pytest.raises(UnavailableError, match="wait already"):
                await service.search(Request("two"))
            gate.open()
            await asyncio.gather(*first, *second)

    run(test)


def test_new_people_search_as_nobody(run_dir: Path) -> None:
    async def test() -> None:
        async with serving(run_dir) as service:
            nobody = await service.search(Request("east", 3))
            new = await service.search(Request("east", 3, user="zoe", clicked_products=["x"]))
            known = await service.search(Request("east", 3, user="anna"))
            assert new.hits == nobody.hits != known.hits
            assert (new.is_known_user, known.is_known_user) == (False, True)
            assert new.unknown_products == ["x"]

    run(test)


def test_nothing_is_answered_before_it_is_loaded(run_dir: Path) -> None:
    async def test() -> None:
        service = Service(run_dir, ServingConfig(), Metrics())
        assert not service.is_ready
        with pytest.raises(UnavailableError, match="being loaded"):
            await service.search(Request("east"))
        with pytest.raises(UnavailableError, match="being loaded"):
            await service.reload()
        await service.close()

    run(test)


# Another export


def test_requests_under_way_end_with_the_old_export(run_dir: Path, exports: Path, gate: Gate) -> None:
    async def test() -> None:
        async with serving(run_dir) as service:
            gate.close()
            old = asking(service, Request("east", 2), Request("one", 2))
            await gate.has_started()
            replace(run_dir, exports / "new")
            reloading = asyncio.ensure_future(service.reload())
            while not service._loading.locked():
                await asyncio.sleep(0)
            with pytest.raises(RefusedError, match="under way already"):
                await service.reload()
            gate.open()  # loading a new export answers queries too, to warm it up
            assert await reloading is True
            assert service.searcher.catalogue.row("p100") == 0
            assert ids((await asyncio.gather(*old))[0]) == ["p000", "p001"]
            assert ids(await service.search(Request("east", 2))) == ["p100", "p101"]
            assert value(service, "uepp_reloads_total", result="loaded") == 1

    run(test)


def test_the_old_export_is_let_go_of_when_its_last_request_is_answered(
    run_dir: Path, exports: Path, gate: Gate
) -> None:
    async def test() -> None:
        async with serving(run_dir) as service:
            before = service._current()
            held = threading.Semaphore(0)
            rank = before.batcher._work
            started = asyncio.Event()
            loop = asyncio.get_running_loop()

            def slow(questions: Sequence[Any]) -> Any:
                loop.call_soon_threadsafe(started.set)
                assert held.acquire(timeout=SECONDS)
                return rank(questions)

            before.batcher._work = slow
            old = asking(service, Request("east", 2))
            await started.wait()
            replace(run_dir, exports / "new")
            assert await service.reload()
            assert ids(await service.search(Request("east", 1))) == ["p100"], "the new one answers already"
            assert before.is_retired
            assert not before.is_free.is_set()
            held.release()
            assert ids(await old[0]) == ["p000", "p001"]
            await asyncio.gather(*service._closing)
            with pytest.raises(RuntimeError, match="shutdown"):
                await before.batcher.run(lambda: None)

    run(test)


def test_what_was_cached_of_the_old_export_is_forgotten(run_dir: Path, exports: Path) -> None:
    async def test() -> None:
        async with serving(run_dir) as service:
            await service.search(Request("east", 1))
            assert (await service.search(Request("east", 1))).cache_layer == "features"
            replace(run_dir, exports / "new")
            assert await service.reload()
            answer = await service.search(Request("east", 1))
            assert (answer.cache_layer, ids(answer)) == (None, ["p100"])

    run(test)


def damage(run_dir: Path, exports: Path) -> None:
    replace(run_dir, exports / "new")
    path = run_dir / "export" / "index.faiss"
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def remove_manifest(run_dir: Path, exports: Path) -> None:
    (run_dir / "export" / "manifest.json").unlink()


def spoil_tower(run_dir: Path, exports: Path) -> None:
    """A file that fits its manifest, and yet cannot be read."""
    from uepp.artifacts import write_manifest

    replace(run_dir, exports / "new")
    (run_dir / "export" / "query_tower" / "saved_model.pb").write_bytes(b"no model")
    write_manifest(run_dir / "export", run_id="rose")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (damage, "index.faiss: differs from its SHA-256"),
        (remove_manifest, "manifest.json: no such file"),
        (spoil_tower, "export: does not load .*saved_model.pb"),
        (lambda run_dir, exports: replace(run_dir, exports / "foreign"), "of run foreign, served is rose"),
    ],
)
def test_what_does_not_fit_is_refused_and_the_old_one_serves_on(
    run_dir: Path, exports: Path, change: Callable[[Path, Path], None], reason: str
) -> None:
    async def test() -> None:
        async with serving(run_dir) as service:
            change(run_dir, exports)
            with pytest.raises(RefusedError, match=reason) as caught:
                await service.reload()
            assert "\n" not in str(caught.value)
            assert ids(await service.search(Request("east", 2))) == ["p000", "p001"]
            assert value(service, "uepp_reloads_total", result="refused") == 1
            assert value(service, "uepp_export_info", run_id="rose", uepp_version="0") == 1
            replace(run_dir, exports / "new")
            assert await service.reload(), "a good one is taken afterwards"

    run(test)


def test_an_export_of_another_run_is_taken_where_that_is_meant(run_dir: Path, exports: Path) -> None:
    async def test() -> None:
        async with serving(run_dir) as service:
            replace(run_dir, exports / "foreign")
            assert await service.reload(any_run=True)
            answer = await service.search(Request("east", 1))
            assert (answer.run_id, ids(answer)) == ("foreign", ["p200"])

    run(test)


def test_an_export_that_is_replaced_while_it_is_loaded_is_refused(
    run_dir: Path, exports: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else files of two exports could be mixed."""
    from uepp.serving import service as module

    class Slow(Searcher):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            replace(run_dir, exports / "foreign")

    async def test() -> None:
        async with serving(run_dir) as service:
            replace(run_dir, exports / "new")
            monkeypatch.setattr(module, "Searcher", Slow)
            with pytest.raises(RefusedError, match="was replaced while it was loaded"):
                await service.reload()
            assert ids(await service.search(Request("east", 1))) == ["p000"]

    run(test)


def test_the_same_export_is_not_loaded_again(run_dir: Path) -> None:
    async def test() -> None:
        async with serving(run_dir) as service:
            searcher = service.searcher
            assert await service.reload() is False
            assert service.searcher is searcher
            assert value(service, "uepp_reloads_total", result="unchanged") == 1

    run(test)


def test_new_exports_are_watched_for(run_dir: Path, exports: Path) -> None:
    async def test() -> None:
        async with serving(run_dir, watch_seconds=0.01) as service:
            said: list[str] = []
            spoken = asyncio.Event()

            def report(line: str) -> None:
                said.append(line)
                spoken.set()

            watching = asyncio.ensure_future(service.watch(report))
            replace(run_dir, exports / "foreign")
            await spoken.wait()
            assert "not reloaded" in said[0]
            await asyncio.sleep(0.1)
            assert len(said) == 1, "said once"
            spoken.clear()
            replace(run_dir, exports / "new")
            while not (said and said[-1] == "reloaded: 24 products"):
                await spoken.wait()
                spoken.clear()
            assert ids(await service.search(Request("east", 1))) == ["p100"]
            watching.cancel()

    run(test)


@pytest.mark.parametrize(
    "problem", [MemoryError(), OSError(24, "Too many open files"), InputError("index.faiss: cannot be read")]
)
def test_what_fails_for_no_fault_of_the_export_is_tried_again(
    run_dir: Path, exports: Path, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    """The old export was served until the manifest changed once more, though the new one was good."""
    from uepp.serving import service as module

    attempts: list[float] = []

    class Failing(Searcher):
        def __init__(self, *args: Any, **options: Any) -> None:
            attempts.append(asyncio.run(_now()))
            if len(attempts) <= 3:
                try:
                    raise OSError(24, "Too many open files")
                except OSError:
                    raise problem from None  # as files are read: an InputError of an OSError
            super().__init__(*args, **options)

    async def test() -> None:
        async with serving(run_dir, watch_seconds=0.01) as service:
            said: list[str] = []
            monkeypatch.setattr(module, "Searcher", Failing)
            watching = asyncio.ensure_future(service.watch(said.append))
            replace(run_dir, exports / "new")
            while not (said and said[-1].startswith("reloaded")):
                assert not watching.done()
                await asyncio.sleep(0.01)
            watching.cancel()
            assert len(attempts) == 4
            assert [line.rsplit("; ", 1)[-1] for line in said[:3]] == [
                f"tried again in {seconds} s" for seconds in ("0.01", "0.02", "0.04")
            ]
            assert ids(await service.search(Request("east", 1))) == ["p100"]
            assert value(service, "uepp_reloads_total", result="refused") == 3

    run(test)


async def _now() -> float:
    return asyncio.get_running_loop().time()


def test_a_watch_waits_for_another_reload_and_then_looks_itself(
    run_dir: Path, exports: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reload that was under way, and then failed, was taken for a verdict about the export."""
    from uepp.serving import service as module

    is_loading, may_fail = threading.Event(), threading.Event()

    class First(Searcher):
        def __init__(self, *args: Any, **options: Any) -> None:
            monkeypatch.setattr(module, "Searcher", Searcher)
            is_loading.set()
            assert may_fail.wait(SECONDS)
            raise MemoryError

    async def test() -> None:
        async with serving(run_dir, watch_seconds=0.01) as service:
            replace(run_dir, exports / "new")
            monkeypatch.setattr(module, "Searcher", First)
            by_hand = asyncio.ensure_future(service.reload())
            assert await asyncio.to_thread(is_loading.wait, SECONDS)
            said: list[str] = []
            watching = asyncio.ensure_future(service.watch(said.append))
            await asyncio.sleep(0.1)
            assert said == []
            may_fail.set()
            with pytest.raises(RefusedError, match=r"does not load .MemoryError") as caught:
                await by_hand
            assert not caught.value.is_final
            while not said:
                await asyncio.sleep(0.01)
            watching.cancel()
            assert said == ["reloaded: 24 products"]

    run(test)


def test_closing_answers_what_is_under_way(run_dir: Path, gate: Gate) -> None:
    async def test() -> None:
        service = Service(run_dir, ServingConfig(), Metrics())
        await service.start()
        gate.close()
        asked = asking(service, Request("east", 1))
        await gate.has_started()
        closing = asyncio.ensure_future(service.close())
        await turn()
        assert not closing.done()
        gate.open()
        await closing
        assert ids(await asked[0]) == ["p000"]
        with pytest.raises(UnavailableError):
            await service.search(Request("east"))

    run(test)


def test_a_start_that_is_given_up_is_not_waited_for(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that was told to end while it checked a large export went on to its last byte."""
    is_reading = threading.Event()
    read: list[Path] = []

    def endless(path: Path, go_on: Callable[[], None]) -> str:
        is_reading.set()
        for _ in range(1_000):
            go_on()
            time.sleep(0.01)
        read.append(path)
        return ""

    monkeypatch.setattr(artifacts, "sha256", endless)

    async def test() -> None:
        starting = asyncio.ensure_future(Service(run_dir, ServingConfig(), Metrics()).start())
        assert await asyncio.to_thread(is_reading.wait, SECONDS)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting

    run(test)  # which waits for all threads
    assert read == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [(damage, "index.faiss: differs from its SHA-256"), (spoil_tower, "export: does not load .*saved_model.pb")],
)
def test_a_run_that_cannot_be_searched_is_not_served(
    run_dir: Path, exports: Path, change: Callable[[Path, Path], None], reason: str
) -> None:
    """What is no bad input by itself was raised as it is, and the server took it for nothing."""
    change(run_dir, exports)

    async def test() -> None:
        service = Service(run_dir, ServingConfig(), Metrics())
        with pytest.raises(InputError, match=reason) as caught:
            await service.start()
        assert "\n" not in str(caught.value)
        assert not service.is_ready
        await service.close()

    run(test)
