"""The server's interface, asked as anybody would."""

import asyncio
import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from compass import make_rose, make_run
from fastapi.testclient import TestClient
from starlette.types import Message

from uepp.config import ServingConfig
from uepp.serving.app import create_app
from uepp.serving.guard import HEALTH, Guard
from uepp.serving.metrics import Metrics
from uepp.serving.requests import Request
from uepp.serving.schemas import SearchRequest, SearchResponse
from uepp.serving.search import Searcher
from uepp.serving.service import Service

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports")
    make_rose(folder / "old")
    make_rose(folder / "new", first=100)
    return folder


@contextmanager
def served(run_dir: Path, *, token: str | None = None, **about: Any) -> Iterator[TestClient]:
    options = {name: about.pop(name) for name in ("hosts", "may_reload") if name in about}
    service = Service(run_dir, ServingConfig(**{"max_batch": 4, **about}), Metrics())
    with TestClient(create_app(service, token=token, **options), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def client(exports: Path) -> Iterator[TestClient]:
    with served(exports / "old") as client:
        yield client


@pytest.fixture
def run_dir(exports: Path, tmp_path: Path) -> Path:
    shutil.copytree(exports / "old", tmp_path / "run")
    return tmp_path / "run"


def ids(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [hit["product_id"] for hit in answer.json()["hits"]]


def problem(answer: Any) -> tuple[int, str]:
    """Every problem has one line, and nothing else."""
    body = answer.json()
    assert list(body) == ["detail"]
    assert "\n" not in body["detail"]
    return answer.status_code, body["detail"]


# Search


def test_the_answer_has_the_documented_shape(client: TestClient) -> None:
    answer = client.post("/search", json={"query": "chair lamp", "k": 5, "fusion": True, "user": "zoe"})
    assert answer.headers["content-type"] == "application/json"
    body = SearchResponse.model_validate(answer.json(), extra="forbid")
    assert set(answer.json()) == set(SearchResponse.model_fields)
    assert (body.query, len(body.hits), body.known_user, body.run_id) == ("chair lamp", 5, False, "rose")
    assert body.seconds > 0
    assert body.hits[0].title.startswith("<i>Chair</i> number "), "as it is in the catalogue"
    assert any(hit.towers_rank is not None and hit.lexical_rank is not None for hit in body.hits)


def test_hits_are_those_of_a_searcher(client: TestClient, exports: Path) -> None:
    about: dict[str, Any] = {
        "query": "east", "k": 4, "offset": 1, "latitude": 10.0, "longitude": 20.0, "recent_searches": ["赤い", "mug"],
        "clicked_products": ["p004"], "purchased_products": ["p001"], "exclude": ["p002"], "min_similarity": 0.5,
    }  # fmt: skip
    context = {name: about[name] for name in ("latitude", "longitude")}
    rest = {name: value for name, value in about.items() if name not in context}
    expected = [
        {**vars(hit), "similarity": pytest.approx(hit.similarity), "score": pytest.approx(hit.score)}
        for hit in Searcher(exports / "old").search(**rest, context=context)
    ]
    assert len(expected) == 4
    assert client.post("/search", json=about).json()["hits"] == expected
    assert client.get("/search", params=about).json()["hits"] == expected, "the same in the address"


def test_who_asks_counts(client: TestClient) -> None:
    nobody, anna, north = (
        ids(client.post("/search", json={"query": "somewhere", "k": 3, **who}))
        for who in ({}, {"user": "anna"}, {"country": "赤い"})
    )
    assert north == ["p018", "p017", "p019"] or set(north) == {"p017", "p018", "p019"}
    assert anna == north, "anna's last search was 赤い"
    assert nobody != north


def test_an_empty_place_is_no_place(client: TestClient) -> None:
    assert client.post("/search", json={"query": "east", "country": ""}).status_code == 200


def test_the_second_time_it_is_cached(client: TestClient) -> None:
    first, second = (client.get("/search", params={"query": "cached", "k": 1}).json() for _ in range(2))
    assert first["cache"] == {"layer": None, "age_seconds": None}
    assert second["cache"]["layer"] == "features"
    assert second["cache"]["age_seconds"] >= 0
    assert first["hits"] == second["hits"]


def test_the_threshold_is_a_setting_and_a_request_may_change_it(exports: Path) -> None:
    everything = [f"p{number:03d}" for number in range(24)]
    with served(exports / "old", min_similarity="auto") as client:

        def found(**about: Any) -> list[str]:
            return ids(client.post("/search", json={"query": "east", "k": 100, **about}))

        assert found() == found(min_similarity="auto") == everything[:16], "cos 75° > .2 > cos 80°"
        assert found(min_similarity="off") == everything
        assert found(min_similarity=0.9) == everything[:6]
    with served(exports / "old") as client:
        assert ids(client.get("/search", params={"query": "east", "k": 100})) == everything
        assert (
            ids(client.get("/search", params={"query": "east", "k": 100, "min_similarity": "auto"}))
            == (everything[:16])
        )


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({}, 422, "query: Field required"),
        ({"query": ""}, 422, "query '': no word in it; give letters or digits"),
        ({"query": "?!"}, 422, r"query '\?!': no word in it; give letters or digits"),
        ({"query": 7}, 422, "query 7: Input should be a valid string"),
        ({"query": "a" * 1_001}, 422, "query 'aaa.*…: String should have at most 1000 characters"),
        ({"query": "a", "k": 0}, 422, "k 0: Input should be greater than or equal to 1"),
        ({"query": "a", "k": "ten"}, 422, "k 'ten': Input should be a valid integer"),
        ({"query": "a", "k": 990, "offset": 11}, 422, r"offset 11 \+ k 990: must be at most 1000 \(serving.max_res"),
        ({"query": "a", "offset": -1}, 422, "offset -1: Input should be greater"),
        ({"query": "a", "kk": 3}, 422, r"^unknown field kk; did you mean k\?$"),
        ({"query": "a", "countri": "US"}, 422, r"^unknown field countri; did you mean country\?$"),
        ({"query": "a", "zzzzqqqq": "US"}, 422, "^unknown field zzzzqqqq$"),
        ({"query": "a", "latitude": 1.0}, 422, "latitude and longitude: give both or neither"),
        ({"query": "a", "latitude": 91, "longitude": 0}, 422, "latitude 91: Input should be less than or equal to 90"),
        ({"query": "a", "min_similarity": 2}, 422, "min_similarity 2.0: must be between -1 and 1"),
        ({"query": "a", "min_similarity": "most"}, 422, "min_similarity.* 'most': Input should be"),
        ({"query": "a", "user": ""}, 422, "user '': String should have at least 1 character"),
        ({"query": "a", "exclude": ["x"] * 1_001}, 422, "exclude .*…: List should have at most 1000 items"),
        ({"query": "a", "recent_searches": ["x"] * 101}, 422, "recent_searches .*…: List should have at most 100"),
        ({"query": "a", "recent_searches": "mug"}, 422, "recent_searches 'mug': Input should be a valid list"),
        ({"query": "a", "a\nb\r\nc": 1}, 422, "^unknown field a b c$"),
        ([], 422, r"body \[\]: Input should be a valid dictionary"),
        ("text", 422, "body 'text': Input should be a valid dictionary"),
    ],
)
def test_a_bad_request_is_answered_in_one_line(client: TestClient, body: Any, status: int, detail: str) -> None:
    got_status, got_detail = problem(client.post("/search", json=body))
    assert got_status == status
    assert re.match(detail, got_detail), got_detail
    assert len(got_detail) < 250


def test_an_unknown_field_in_the_address_has_a_hint_too(client: TestClient) -> None:
    answer = client.get("/search", params={"query": "east", "countri": "US"})
    assert problem(answer) == (422, "unknown field countri; did you mean country?")


def test_an_unknown_field_of_a_reload_has_a_hint_of_its_own(exports: Path) -> None:
    with served(exports / "old", may_reload=True) as client:
        assert problem(client.post("/reload", json={"query": "a"})) == (422, "unknown field query")
        assert problem(client.post("/reload", json={"anyrun": True})) == (
            422, "unknown field anyrun; did you mean any_run?"
        )  # fmt: skip


@pytest.mark.parametrize(
    ("content", "headers", "status", "detail"),
    [
        (b'{"query": ', JSON, 400, "body: not JSON"),
        (b"\xff\xfe", JSON, 400, ""),
        (b'{"query": "a"}', {}, 422, "body: send JSON, with the header content-type: application/json"),
        (b'{"query": "\\ud800"}', JSON, 422, "query"),
        (b'{"query": "a", "latitude": NaN, "longitude": 1}', JSON, 422, "latitude nan"),
        (b"", JSON, 422, "body: Field required"),
    ],
)
def test_what_is_no_json_is_answered_in_one_line(
    client: TestClient, content: bytes, headers: dict[str, str], status: int, detail: str
) -> None:
    got_status, got_detail = problem(client.post("/search", content=content, headers=headers))
    assert (got_status, got_detail[: len(detail)]) == (status, detail)


def test_what_the_tower_does_not_read_is_refused(tmp_path: Path) -> None:
    with served(make_run(tmp_path / "run")) as client:
        assert ids(client.post("/search", json={"query": "east", "k": 1, "user": "anna"})) == ["001"]
        expected = (422, "country: this run's query tower has no location encoder")
        assert problem(client.post("/search", json={"query": "east", "country": "DE"})) == expected
        about = client.get("/about").json()
        assert (about["reads_places"], about["reads_histories"], about["has_fusion"]) == (False, False, False)
        status, detail = problem(client.post("/search", json={"query": "east", "fusion": True}))
        assert (status, "no BM25 index" in detail) == (422, True)


# Limits


def test_large_bodies_are_refused_whether_they_say_so_or_not(exports: Path) -> None:
    with served(exports / "old", max_body_bytes=2_000) as client:
        large = json.dumps({"query": "a", "exclude": ["x" * 100] * 30}).encode()
        assert problem(client.post("/search", content=large, headers=JSON))[0] == 413

        def chunks() -> Iterator[bytes]:
            for begin in range(0, len(large), 500):
                yield large[begin : begin + 500]

        status, detail = problem(client.post("/search", content=chunks(), headers=JSON))
        assert (status, detail) == (413, "body: larger than 2000 bytes (serving.max_body_bytes)")
        assert ids(client.post("/search", json={"query": "east", "k": 1})) == ["p000"]


def through_guard(receive: Callable[[], Any], **about: Any) -> tuple[list[Message], list[Message]]:
    """What is sent, and what the application received."""
    sent: list[Message] = []
    received: list[Message] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        received.append(await receive())
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def send(message: Message) -> None:
        sent.append(message)

    guard = Guard(
        application, metrics=Metrics(), token=None, hosts=None, max_body_bytes=10,
        **{"timeout_seconds": 30.0, "max_requests": 10, **about},
    )  # fmt: skip
    scope = {"type": "http", "method": "POST", "path": "/search", "headers": []}
    asyncio.run(guard(scope, receive, send))
    return sent, received


def test_who_is_slow_to_say_what_they_want_is_not_waited_for() -> None:
    async def never() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    sent, received = through_guard(never, timeout_seconds=0.01)
    assert sent[0]["status"] == 408
    assert received == []
    assert b"not there after 0.01 s (serving.timeout_seconds)" in sent[1]["body"]


def test_a_body_in_pieces_arrives_whole() -> None:
    pieces = [{"type": "http.request", "body": part, "more_body": part != b"c"} for part in (b"a", b"b", b"c")]

    async def receive() -> Message:
        return pieces.pop(0)

    sent, received = through_guard(receive)
    assert sent[0]["status"] == 204
    assert received == [{"type": "http.request", "body": b"a", "more_body": True}]


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Rankings wait until it is set; the warm-up does not."""
    go, rank = threading.Event(), Searcher.rank

    def slow(self: Searcher, questions: Any) -> Any:
        if questions[0].features.query != "warm up":
            assert go.wait(60)
        return rank(self, questions)

    monkeypatch.setattr(Searcher, "rank", slow)
    yield go
    go.set()


def test_what_takes_too_long_is_given_up(exports: Path, held: threading.Event) -> None:
    with served(exports / "old", timeout_seconds=0.05) as client:
        status, detail = problem(client.post("/search", json={"query": "east"}))
        assert (status, detail) == (504, "not answered within 0.05 s (serving.timeout_seconds)")
        held.set()


def test_who_closes_the_connection_is_not_waited_for(exports: Path, held: threading.Event) -> None:
    """Their search was computed all the same, and stood in the way of others'."""

    async def test() -> None:
        service = Service(exports / "old", ServingConfig(max_batch=1), Metrics())
        await service.start()
        app, is_gone, sent = create_app(service), asyncio.Event(), []
        messages: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive() -> Message:
            if not messages:
                await is_gone.wait()
            return messages.pop() if messages else {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)

        async def until(condition: Callable[[], bool]) -> None:
            while not condition():
                await asyncio.sleep(0.01)

        def num_computed() -> float | None:
            return service.metrics.registry.get_sample_value("uepp_batch_size_sum")

        generation = service._current()
        scope = {"type": "http", "method": "GET", "path": "/search", "query_string": b"query=gone", "headers": []}
        first = asyncio.ensure_future(service.search(Request("first")))
        await until(lambda: num_computed() == 1)
        asked = asyncio.ensure_future(app(scope, receive, send))
        await until(lambda: generation.num_waiting == 1)
        is_gone.set()
        await asked
        await until(lambda: generation.num_waiting == 0)
        held.set()
        await first
        assert sent[0]["status"] == 499
        assert num_computed() == 1
        await service.close()

    asyncio.run(asyncio.wait_for(test(), 60))


def test_too_many_at_once_are_told_to_come_back(
    exports: Path, held: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, rank = threading.Event(), Searcher.rank

    def telling(self: Searcher, questions: Any) -> Any:
        if questions[0].features.query == "one":
            begun.set()
        return rank(self, questions)

    monkeypatch.setattr(Searcher, "rank", telling)
    with served(exports / "old", max_waiting=1, max_batch=1) as client:
        answers: list[Any] = []

        def ask(query: str) -> threading.Thread:
            thread = threading.Thread(target=lambda: answers.append(client.get("/search", params={"query": query})))
            thread.start()
            return thread

        threads = [ask("one")]
        assert begun.wait(60), "else it would be the one that waits"
        threads += [ask("two"), ask("three"), ask("four")]
        while len(answers) < 2:  # one is being answered, one waits
            threads[0].join(0.01)
        for answer in answers[:2]:
            status, detail = problem(answer)
            assert (status, "1 requests wait already" in detail) == (503, True)
            assert answer.headers["retry-after"] == "1"
        held.set()
        for thread in threads:
            thread.join()
        assert sorted(answer.status_code for answer in answers) == [200, 200, 503, 503]


def test_health_is_answered_however_many_ask(exports: Path, held: threading.Event) -> None:
    """The limit of uvicorn answered in plain text, and to health checks too: a busy server was taken for a dead one."""
    with served(exports / "old", max_connections=2) as client:

        def ask(query: str) -> None:
            while client.get("/search", params={"query": query}).status_code == 503:
                time.sleep(0.01)  # what looks whether both are there may have taken a place

        threads = [threading.Thread(target=ask, args=(query,)) for query in ("one", "two")]
        for thread in threads:
            thread.start()
        while (refused := client.get("/about")).status_code == 200:  # until both are there
            threads[0].join(0.01)
        reason = "2 requests are under way (serving.max_connections); try again later"
        assert problem(refused) == (503, reason)
        assert (refused.headers["retry-after"], refused.headers["connection"]) == ("1", "close")
        assert problem(client.post("/search", json={"query": "x"})) == (503, reason)
        assert [client.get(path).status_code for path in HEALTH] == [200, 200]
        assert client.post("/healthz", content=b"x" * 999).status_code == 405, "its body is nobody's"
        held.set()
        for thread in threads:
            thread.join()
        assert client.get("/about").status_code == 200
        assert 'uepp_requests_total{endpoint="other",status="503"}' in client.get("/metrics").text


def test_what_breaks_in_the_server_is_said_in_one_line_too(
    exports: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    rank = Searcher.rank

    def broken(self: Searcher, questions: Any) -> Any:
        if any(question.features.query == "secret" for question in questions):
            raise RuntimeError("secret")
        return rank(self, questions)

    monkeypatch.setattr(Searcher, "rank", broken)
    with served(exports / "old") as client:
        status, detail = problem(client.post("/search", json={"query": "secret"}))
        assert (status, "secret" in detail) == (500, False)
        assert 'uepp_requests_total{endpoint="/search",status="500"} 1.0' in client.get("/metrics").text
        assert ids(client.post("/search", json={"query": "east", "k": 1})) == ["p000"], "and it goes on"


# Who may ask

GUARDED = (
    ("GET", "/search?query=east"), ("POST", "/search"), ("GET", "/about"), ("GET", "/people"),
    ("GET", "/person?user=anna"), ("GET", "/suggest?kind=query"), ("GET", "/products?id=p000"), ("GET", "/metrics"),
    ("POST", "/reload"), ("GET", "/openapi.json"), ("GET", "/nothing"), ("GET", "/pages"), ("GET", "/healthz/x"),
)  # fmt: skip


@pytest.fixture(scope="module")
def locked(exports: Path) -> Iterator[TestClient]:
    with served(exports / "old", token="open-sesame") as client:
        yield client


@pytest.mark.parametrize(("method", "path"), GUARDED)
@pytest.mark.parametrize("given", [None, "", "Bearer", "Bearer open", "Basic open-sesame", "Bearer öpen-sesame"])
def test_without_the_token_nothing_is_told(locked: TestClient, method: str, path: str, given: str | None) -> None:
    headers = {} if given is None else {"authorization": given.encode("latin-1")}
    answer = locked.request(method, path, headers=headers)
    assert problem(answer) == (401, "a bearer token is needed")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/", "/page/app.js", "/page/style.css"])
def test_health_and_the_pages_files_need_no_token(locked: TestClient, path: str) -> None:
    assert locked.get(path).status_code == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_with_the_token_all_is_as_without_one(locked: TestClient, scheme: str) -> None:
    headers = {"authorization": f"{scheme} open-sesame"}
    assert ids(locked.get("/search", params={"query": "east", "k": 1}, headers=headers)) == ["p000"]
    assert locked.post("/reload", json={}, headers=headers).json()["reloaded"] is False


def test_every_path_is_guarded_or_known_to_be_public(client: TestClient) -> None:
    paths = set(client.get("/openapi.json").json()["paths"])
    assert paths == {path.partition("?")[0] for _, path in GUARDED if path.partition("?")[0] in paths} | {
        "/healthz", "/readyz",
    }  # fmt: skip


def test_only_known_hosts_are_served(exports: Path) -> None:
    """Else a page of evil.example whose name points here could read what it likes (DNS rebinding)."""
    with served(exports / "old", hosts={"localhost", "::1", "shop.example"}) as client:

        def status(host: str) -> int:
            return client.get("/healthz", headers={"host": host}).status_code

        hosts = ["localhost", "localhost:8080", "LOCALHOST", "[::1]:80", "shop.example:443"]
        assert [status(host) for host in hosts] == [200] * len(hosts)
        others = ["evil.example", "localhost.evil.example", "", "[::1", "127.0.0.1"]
        assert [status(host) for host in others] == [400] * len(others)


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://testserver", 200), ("http://evil.example", 403), ("null", 403),
        ("http://testserver.evil.example", 403), ("http://[", 403), ("http://[testserver", 403),
    ],
)  # fmt: skip
def test_other_sites_pages_may_not_post(client: TestClient, origin: str, status: int) -> None:
    assert client.post("/reload", json={}, headers={"origin": origin}).status_code == status


# Health, metrics, reload


def test_health_and_readiness(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ok", "run_id": "rose"}
    about = client.get("/about").json()
    expected = {
        "run_id": "rose", "num_products": 24, "reads_places": True, "reads_histories": True, "has_fusion": True,
        "has_boosting": False, "threshold": 0.2, "cache": "features",
    }  # fmt: skip
    assert {name: about[name] for name in expected} == expected


def test_it_lives_before_it_is_ready(exports: Path) -> None:
    async def never() -> None:
        await asyncio.Event().wait()

    service = Service(exports / "old", ServingConfig(), Metrics())
    with TestClient(create_app(service, run=never)) as client:
        assert client.get("/healthz").status_code == 200
        for answer in (client.get("/readyz"), client.get("/search", params={"query": "a"}), client.get("/people")):
            assert problem(answer) == (503, "the export is being loaded; try again later")
            assert answer.headers["retry-after"] == "1"
        assert client.get("/").status_code == 200


def test_metrics_are_prometheus_text(exports: Path) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    with served(exports / "old") as client:
        for path in ("/search?query=east", "/search?query=east", "/search?query=", "/nothing/here", "/nothing/there"):
            client.get(path)
        answer = client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        samples = {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }

        def value(name: str, **labels: str) -> float:
            return samples[(name, *sorted(labels.items()))]

        assert value("uepp_requests_total", endpoint="/search", status="200") == 2
        assert value("uepp_requests_total", endpoint="/search", status="422") == 1
        assert value("uepp_requests_total", endpoint="other", status="404") == 2, "no label a made-up path"
        assert value("uepp_cache_lookups_total", layer="features") == 1
        assert value("uepp_cache_lookups_total", layer="none") == 1
        assert value("uepp_request_seconds_count", endpoint="/search") == 3
        assert value("uepp_products") == 24
        assert value("uepp_export_info", run_id="rose", uepp_version="0") == 1
        assert value("process_resident_memory_bytes") > 0


def test_two_servers_count_for_themselves(exports: Path) -> None:
    with served(exports / "old") as one, served(exports / "old") as other:
        one.get("/search", params={"query": "east"})
        assert 'uepp_cache_lookups_total{layer="none"} 1.0' in one.get("/metrics").text
        assert "uepp_cache_lookups_total{" not in other.get("/metrics").text


def test_reloading(run_dir: Path, exports: Path) -> None:
    with served(run_dir) as client:
        assert client.post("/reload", json={}).json() == {"reloaded": False, "run_id": "rose", "num_products": 24}
        shutil.rmtree(run_dir / "export")
        status, detail = problem(client.post("/reload", json={}))
        assert (status, "manifest.json: no such file" in detail) == (409, True)
        assert ids(client.get("/search", params={"query": "east", "k": 1})) == ["p000"]
        shutil.copytree(exports / "new" / "export", run_dir / "export")
        assert client.post("/reload", json={}).json()["reloaded"] is True
        assert ids(client.get("/search", params={"query": "east", "k": 1})) == ["p100"]
        assert client.get("/people").json()[0]["user"] == "anna", "the page's data is the new export's"
        assert problem(client.post("/reload", json={"run": "x"}))[0] == 422


def test_where_nobody_may_reload_there_is_nothing_to_ask(exports: Path) -> None:
    with served(exports / "old", may_reload=False) as client:
        assert client.post("/reload", json={}).status_code == 404


# For the page


def test_people(client: TestClient) -> None:
    assert client.get("/people").json() == [
        {"user": "anna", "searches": 2, "clicks": 1, "purchases": 1},
        {"user": "bert", "searches": 1, "clicks": 1, "purchases": 1},
    ]
    assert len(client.get("/people", params={"limit": 1}).json()) == 1


def test_a_person_as_the_export_knows_them(client: TestClient) -> None:
    anna = client.get("/person", params={"user": "anna"}).json()
    assert anna["recent_searches"] == ["赤い", "east"]
    assert anna["recent_shops"] == ["赤い"]
    assert anna["place"] == {"country": "赤い", "region": "CA", "language": "en"}
    assert [product["product_id"] for product in anna["clicked_products"]] == ["p000"]
    assert anna["purchased_products"] == client.get("/products", params={"id": ["p002", "x"]}).json()
    bert = client.get("/person", params={"user": "bert"}).json()
    assert (bert["place"], bert["recent_shops"], bert["purchased_products"]) == ({}, [], [])
    assert problem(client.get("/person", params={"user": "zoe"}))[0] == 422


def test_suggestions(client: TestClient) -> None:
    def labels(kind: str, part: str = "", **about: Any) -> list[str]:
        found = client.get("/suggest", params={"kind": kind, "part": part, **about}).json()
        return [one["label"] for one in found]

    assert labels("query") == ["chair lamp", "lamp", "east"], "most asked first, ties by text"
    assert labels("query", "LAMP") == ["lamp", "chair lamp"], "what begins so comes first"
    assert labels("shop") == ["east", "赤い"]
    assert labels("product", "chair", limit=2) == ["<i>Chair</i> number 0", "<i>Chair</i> number 3"]
    assert labels("product", ".*") == [], "a text, not a pattern"
    assert labels("place") == ["赤い CA"]
    assert problem(client.get("/suggest", params={"kind": "town"}))[0] == 422


def test_what_the_page_searches_with_is_what_the_person_is(client: TestClient) -> None:
    """The page sends the history in full; that must find what their id finds."""
    anna = client.get("/person", params={"user": "anna", "limit": 50}).json()
    written_out = {
        "recent_searches": anna["recent_searches"],
        "recent_shops": anna["recent_shops"],
        "clicked_products": [product["product_id"] for product in anna["clicked_products"]],
        "purchased_products": [product["product_id"] for product in anna["purchased_products"]],
    }
    one, other = (client.post("/search", json={"query": "somewhere", **who}) for who in ({"user": "anna"}, written_out))
    assert ids(one) == ids(other)


def test_without_the_page_there_is_the_interface_alone(exports: Path) -> None:
    with served(exports / "old", page=False) as client:
        assert ids(client.get("/search", params={"query": "east", "k": 1})) == ["p000"]
        for path in ("/", "/page/app.js", "/people", "/person?user=anna", "/suggest?kind=query", "/products?id=p000"):
            assert client.get(path).status_code == 404, path


def test_the_pages_files(client: TestClient) -> None:
    for path, kind in (("/", "text/html"), ("/page/app.js", "text/javascript"), ("/page/style.css", "text/css")):
        answer = client.get(path)
        assert answer.headers["content-type"].startswith(kind)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        again = client.get(path, headers={"if-none-match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert client.get("/page/nothing.js").status_code == 404
    assert client.get("/page/..%2fapp.py").status_code == 404
    assert client.get("/search", params={"query": "east"}).headers["cache-control"] == "no-store"


def test_every_file_of_the_page_is_served(client: TestClient) -> None:
    names = {file.name for file in (resources.files("uepp.serving") / "page").iterdir()}
    assert {"index.html", "app.js", "style.css"} <= names
    for name in names:
        assert client.get(f"/page/{name}").status_code == 200, name


def test_the_page_has_no_outside_assets_and_makes_no_markup_of_strings() -> None:
    for file in (resources.files("uepp.serving") / "page").iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z]+\.|@import|url\(", text), file.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text), file.name


def test_the_document_names_every_field_and_path(client: TestClient) -> None:
    text = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    for name in SearchRequest.model_fields:
        assert f"`{name}`" in text, name
    for path in client.get("/openapi.json").json()["paths"]:
        assert f"{path}`" in text or f"`{path}`" in text or path == "/search", path
    assert "GET /search?" in text


def test_the_description_holds_without_outside_pages(client: TestClient) -> None:
    description = client.get("/openapi.json").json()
    assert {"/search", "/healthz", "/readyz", "/metrics", "/reload"} <= set(description["paths"])
    assert "HTTPBearer" in description["components"]["securitySchemes"]
    properties = description["components"]["schemas"]["SearchRequest"]["properties"]
    assert set(properties) == set(SearchRequest.model_fields)
    assert "what BM25 finds stays, however low" in properties["min_similarity"]["description"]
    assert "brings back" in properties["fusion"]["description"]
    assert client.get("/docs").status_code == 404
