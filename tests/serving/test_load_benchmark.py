"""The load test of benchmarks/: what it asks is what the log says, and what it measures is what clients wait for."""

import asyncio
import importlib
import json
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from compass import make_rose

from uepp.config import ServingConfig
from uepp.serving.metrics import Metrics
from uepp.serving.search import Searcher

START = datetime(2024, 5, 6, tzinfo=UTC)
TRAIN_END = START - timedelta(days=2)


def _modules() -> Iterator[ModuleType]:
    folder = str(Path(__file__).parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        yield from map(importlib.import_module, ("serving_stream", "serving_client", "serving_parts", "serving"))
    finally:
        sys.path.remove(folder)


stream, client, parts, benchmark = _modules()


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    return Searcher(make_rose(tmp_path_factory.mktemp("load") / "run"))


def event(second: float, kind: str, query: str = "east", position: int | None = None, **who: Any) -> dict[str, Any]:
    about = {"user_id": "anna", "session_id": "s1", **dict.fromkeys(stream.PLACE), **who}
    return {"timestamp": START + timedelta(seconds=second), "type": kind, "query": query, "position": position, **about}


def seen(events: list[dict[str, Any]], **sizes: int) -> list[tuple[float, str, int]]:
    views = stream.views_of(events, **{"page_size": 10, "max_results": 1_000, **sizes})
    return [((view.moment - START).total_seconds(), view.kind, view.body["offset"]) for view in views]


# What is asked


def test_a_click_after_a_click_came_back_and_one_further_down_turned_the_page() -> None:
    events = [event(0, "search"), event(1, "click", position=3), event(2, "click", position=0),
              event(3, "cart", position=0), event(4, "click", position=12), event(5, "click", position=2)]  # fmt: skip
    assert seen(events) == [(0, "search", 0), (2, "back", 0), (4, "page", 10), (5, "page", 0)]


def test_a_search_starts_anew_and_requests_do_not_mix() -> None:
    events = [event(0, "search"), event(1, "click", position=0), event(2, "search", "lamp"),
              event(3, "click", "lamp", 1), event(4, "click", position=1), event(5, "search"),
              event(6, "click", position=1), event(7, "click", position=1, session_id="s2")]  # fmt: skip
    assert seen(events) == [
        (0, "search", 0), (2, "search", 0), (4, "back", 0), (5, "search", 0), (7, "search", 0),
    ]  # fmt: skip


def test_a_log_without_searches_positions_or_people() -> None:
    nobody = {"user_id": None, "session_id": None}
    events = [event(0, "click"), event(1, "click"), event(2, "click", **nobody), event(3, "click", **nobody)]
    assert seen(events) == [(0, "search", 0), (1, "back", 0), (2, "search", 0), (3, "search", 0)]


def test_no_page_ends_beyond_what_a_server_ranks() -> None:
    assert seen([event(0, "search"), event(1, "click", position=99)], max_results=45) == [
        (0, "search", 0), (1, "page", 30),
    ]  # fmt: skip


def test_a_view_sends_who_and_where_and_nothing_that_is_unknown() -> None:
    (view,) = stream.views_of([event(0, "search", country="US", zip="", latitude=1.5, longitude=2.0)], 10, 1_000)
    assert view.body == {
        "query": "east", "k": 10, "offset": 0, "user": "anna", "session": "s1", "country": "US", "latitude": 1.5,
        "longitude": 2.0,
    }  # fmt: skip


@pytest.fixture(scope="module")
def mined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Anna searched before T, and bought and searched since; bert did nothing since."""
    folder = tmp_path_factory.mktemp("mined")
    rows: dict[str, list[tuple[str, float, str]]] = {
        "searches": [("anna", -400_000, "old"), ("anna", -10, "new"), ("anna", 0, "now"), ("bert", -400_000, "old")],
        "clicks": [("anna", -400_000, "p000"), ("bert", -400_000, "p001")],
        "purchases": [("anna", -5, "p002"), ("anna", 50, "p003")],
    }
    for kind, events in rows.items():
        columns = {
            "user_id": [user for user, _, _ in events],
            "timestamp": pa.array([START + timedelta(seconds=s) for _, s, _ in events], pa.timestamp("us", "UTC")),
            "query" if kind == "searches" else "product_id": [text for _, _, text in events],
        }
        pq.write_table(pa.table(columns), folder / f"history_{kind}.parquet")
    return folder


def test_a_past_that_has_grown_is_sent_as_it_was_before_the_moment(mined: Path, searcher: Searcher) -> None:
    events = [event(0, "search"), event(1, "search", user_id="bert"), event(60, "search", "lamp", user_id=None)]
    views = stream.views_of(events, 10, 1_000)
    anna, bert, nobody = (view.body for view in stream.with_past(views, mined, TRAIN_END, searcher.reader))
    assert anna["recent_searches"] == ["new", "old"]  # the search of that very moment is not in it
    assert anna["purchased_products"] == ["p002"]
    assert "clicked_products" not in anna  # the export has it
    assert set(bert) == {"query", "k", "offset", "user", "session"}
    assert set(nobody) == {"query", "k", "offset", "session"}


def test_drawn_queries_follow_their_frequencies() -> None:
    views = stream.views_of([event(0, "search"), event(1, "search", "lamp", user_id="bert")], 10, 1_000)
    counts = pa.table({"query": ["a", "b", "c"], "count": [70, 30, 0]})
    asked = stream.drawn(views, counts, 4_000, np.random.default_rng(1))
    texts = [view.query for view in asked]
    assert texts.count("a") / 4_000 == pytest.approx(0.7, abs=0.03)
    assert "c" not in texts
    assert {view.body["user"] for view in asked} == {"anna", "bert"}


@pytest.mark.parametrize("exponent", [0.6, 1.0])
def test_the_exponent_of_a_law_is_found_again(exponent: float) -> None:
    weights = np.arange(1.0, 301) ** -exponent
    texts = np.random.default_rng(1).choice(300, 60_000, p=weights / weights.sum()).astype(str)
    assert stream.zipf_exponent(texts) == pytest.approx(exponent, abs=0.05)
    assert stream.zipf_exponent(["a", "b", "b"]) is None
    assert stream.distinct_share(["a", "b", "b", "a"]) == 0.5


# What is measured


@asynccontextmanager
async def slow_server(seconds: float, *, closes_after: int | None = None) -> AsyncIterator[str]:
    """Answers one request at a time, in so many seconds each; it may hang up after some of a connection."""
    turn = asyncio.Lock()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answered = 0
        while answered != closes_after and (head := await reader.readline()):
            size = 0
            while (line := await reader.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    size = int(line.split(b":")[1])
            body = await reader.readexactly(size)
            async with turn:
                await asyncio.sleep(seconds)
            text = json.dumps({"asked": head.split()[1].decode(), "body": body.decode()}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(text) + text)
            answered += 1
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


def questions(number: int) -> list[Any]:
    return [client.Question(f"/search?{n}", str(n).encode()) for n in range(number)]


@pytest.mark.parametrize("closes_after", [None, 2])
def test_every_question_gets_its_own_answer(closes_after: int | None) -> None:
    async def ask() -> Any:
        async with slow_server(0.001, closes_after=closes_after) as address:
            closed = await client.closed_loop(address, questions(7), 3)
            return closed, await client.open_loop(address, questions(7), 200.0, np.random.default_rng(1))

    for replies in asyncio.run(ask()):
        assert [reply.status for reply in replies] == [200] * 7
        answers = [json.loads(reply.body) for reply in replies]
        assert answers == [{"asked": f"/search?{n}", "body": str(n)} for n in range(7)]


def test_a_connection_that_nobody_answers_is_no_answer() -> None:
    async def ask() -> Any:
        async with slow_server(0.0, closes_after=0) as address:
            return await client.closed_loop(address, questions(2), 1)

    assert [reply.status for reply in asyncio.run(ask())] == [0, 0]


def test_an_open_loop_counts_the_time_in_which_questions_pile_up() -> None:
    """20 questions arrive at once where each takes 10 ms: the n-th to be answered waits 10 n."""

    async def ask() -> Any:
        async with slow_server(0.01) as address:
            begin = time.perf_counter()
            arrived = await client.open_loop(address, questions(20), 1e6, np.random.default_rng(1))
            return arrived, time.perf_counter() - begin

    arrived, whole = asyncio.run(ask())
    waited = sorted(reply.seconds for reply in arrived)
    assert all(seconds >= 0.0095 * n for n, seconds in enumerate(waited, 1))
    assert waited[-1] <= whole
    assert all(0 <= reply.late_seconds <= reply.seconds for reply in arrived)


def test_a_load_is_summed_up() -> None:
    replies = [client.Reply(0.001 * n, 0.0, 200 if n < 100 else 503, b"{}") for n in range(1, 101)]
    load = client.Load(2.0, replies, client_seconds=0.1)
    assert (load.per_second, load.milliseconds(50), load.problems()) == (50.0, pytest.approx(50.5), {503: 1})
    assert len(load.answers()) == 99


def test_parts_are_timed_of_every_view_and_pass(mined: Path, searcher: Searcher) -> None:
    views = stream.views_of([event(n, "search", query) for n, query in enumerate(("east", "lamp", "赤い"))], 10, 1_000)
    times = parts.time_parts(searcher, views, 20, None, passes=2, fusion=True)
    assert {way: set(found) for way, found in times.items()} == {
        parts.BARE: {"tower", "index", "all"},
        parts.SEARCH: {"features", "tower", "index", "hits", "all"},
        parts.CACHED: {"features", "cache", "hits", "all"},
        parts.FUSED: {"features", "tower", "index", "lexical", "fusion", "hits", "all"},
    }
    for found in times.values():
        assert {len(seconds) for seconds in found.values()} == {6}
        # BM25 works beside the tower
        inner = np.sum([seconds for part, seconds in found.items() if part not in {"all", "lexical"}], axis=0)
        assert (inner > 0).all()
        assert (inner <= found["all"]).all()
        assert (np.asarray(found.get("lexical", 0)) <= found["all"]).all()
    assert parts.summary([0.001, 0.004, 0.003, 0.002], passes=2) == {
        "p50": pytest.approx(2.5), "p99": pytest.approx(3.97), "least": pytest.approx(1.99),
    }  # fmt: skip


def test_what_a_server_spent_in_each_part_is_read_from_its_counters() -> None:
    """All that was counted before the load is none of it."""
    metrics = Metrics()
    server = client.Server(None, "")
    times = [0.0015 + 0.0001 * n for n in range(40)]  # 1.5 to 5.4 ms, in buckets up to 2, 5 and 10 ms

    def counters() -> dict[str, float]:
        lines = [line.rsplit(" ", 1) for line in metrics.text().decode().splitlines() if line[0] != "#"]
        return {name: float(value) for name, value in lines}

    metrics.part("tower", 7.0)
    metrics.part("cache", 7.0)
    server.counters = counters
    before = server.counters()
    for seconds in times:
        metrics.part("tower", seconds)
    metrics.part("index", 100.0)
    after = {name: value - before.get(name, 0.0) for name, value in server.counters().items()}
    found = client.Load(1.0, [], 0.0, server=after).parts()
    assert set(found) == {"tower", "index"}, "the cache was not asked meanwhile"
    assert found["tower"]["count"] == 40
    assert found["tower"]["mean"] == pytest.approx(1_000 * np.mean(times))
    # 6 of them are in (1, 2], 30 in (2, 5], 4 in (5, 10]
    assert found["tower"]["p50"] == pytest.approx(2 + 3 * (20 - 6) / 30)
    assert found["tower"]["p99"] == pytest.approx(5 + 5 * (39.6 - 36) / 4)
    assert found["index"] == {"count": 1, "mean": 100_000, "p50": 10_000, "p99": 10_000}, "no bucket is that large"


def test_a_cache_lives_by_the_logs_clock(searcher: Searcher) -> None:
    """The same page again within a minute, after it, and by somebody who looks the same to the tower."""
    events = [event(0, "search"), event(30, "search"), event(200, "search"),
              event(210, "search", session_id="s9"), event(7_000, "search")]  # fmt: skip
    views = stream.views_of(events, 10, 1_000)
    hits = {strategy: parts.replay(searcher, views, strategy, ServingConfig()) for strategy in ("user", "features")}
    assert hits["user"]["all"] == {"views": 5, "hit_rate": 1 / 5, "stale_rate": 0.0}
    assert hits["features"]["search"] == {"views": 5, "hit_rate": 3 / 5, "stale_rate": 0.0}


def test_a_hit_for_other_features_is_stale(searcher: Searcher) -> None:
    first, second = stream.views_of([event(0, "search"), event(5, "search")], 10, 1_000)
    second.body["recent_searches"] = ["lamp"]
    found = {s: parts.replay(searcher, [first, second], s, ServingConfig())["all"] for s in ("user", "features")}
    assert (found["user"]["hit_rate"], found["user"]["stale_rate"]) == (0.5, 0.5)
    assert found["features"]["hit_rate"] == 0


# The whole of it


@pytest.fixture
def logged(tmp_path: Path) -> Path:
    """A run that can be searched, and the log of ten days that it could have been trained on."""
    run, data = make_rose(tmp_path / "run"), tmp_path / "data"
    data.mkdir()
    (data / "products.parquet").symlink_to(run / "export" / "products.parquet")
    rng = np.random.default_rng(1)
    events = []
    for number in range(300):
        user = ("anna", "new", None, None)[rng.integers(0, 4)]  # those without a name look alike to the tower
        about = {"user_id": user, "session_id": f"s{number}", "country": "US"}
        query = str(rng.choice(["east", "lamp", "chair lamp"]))
        second = number * 10 * 86_400 / 300
        product = f"p{rng.integers(0, 24):03d}"
        events.append(event(second, "search", query, **about) | {"product_id": None})
        events.append(event(second + 5, "click", query, int(rng.integers(0, 25)), **about) | {"product_id": product})
        events.append(event(second + 9, "purchase", query, **about) | {"product_id": product})
    kinds = {"position": pa.int32(), "latitude": pa.float64(), "longitude": pa.float64()}
    columns = {
        name: pa.array([one[name] for one in events], kinds.get(name, None if name == "timestamp" else pa.string()))
        for name in events[0]
    }
    pq.write_table(pa.table(columns), data / "events.parquet")
    (run / "run.json").write_text(json.dumps({"run_id": "rose", "data": str(data)}))
    return run


def test_the_load_test_runs_from_end_to_end(
    logged: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With servers of their own, as it is run, on next to nothing."""
    wanted = (benchmark._PLAIN, "no cache", "cache by features")
    monkeypatch.setattr(benchmark, "_CONFIGURATIONS", {name: benchmark._CONFIGURATIONS[name] for name in wanted})
    options = ["--requests", "12", "--clients", "2", "--passes", "1", "--rate", "200", "--json"]
    monkeypatch.setattr(sys, "argv", ["serving.py", str(logged), *options])
    benchmark.main()
    result = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in result["rows"]} >= {"search in this process, p99 ms", "questions without an answer"}
    (unanswered,) = (row["value"] for row in result["rows"] if row["name"] == "questions without an answer")
    assert unanswered == 0
    assert result["stream"]["asked"] == 48
    assert set(result["parts"]) == {parts.BARE, parts.SEARCH, parts.CACHED, parts.FUSED}
    assert set(result["parts"][parts.CACHED]) == {"features", "cache", "hits", "all"}
    assert set(result["caches"]) == {"features", "user"}
    loads = result["loads"]
    assert len(loads) == 2 + len(wanted) * 2 * 3  # health; of each, fused or not: one client, two, arrivals
    for load in loads[2:]:
        expected = {"features", "hits"} | ({"cache"} if load["hit_rate"] else {"queue", "tower", "index"})
        assert expected <= set(load["parts"]), load
        assert ("lexical" in load["parts"]) <= load["fusion"]
        assert load["parts"]["features"]["count"] == 12
        assert 0 < load["parts"]["features"]["p50"] <= load["parts"]["features"]["p99"]
    assert any(load["hit_rate"] for load in loads if load["configuration"] == "cache by features")
    assert any("lexical" in load["parts"] for load in loads)

    monkeypatch.setattr(benchmark, "_CONFIGURATIONS", {})
    benchmark.show({}, result["rows"], result["stream"], result["parts"], result["caches"], loads)
    assert "in the server by part" in capsys.readouterr().out
