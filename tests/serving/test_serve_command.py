"""`uepp serve` as a process: how it starts, what it refuses, and how it ends."""

import asyncio
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import Call
from compass import make_rose

from uepp.config import ServingConfig
from uepp.errors import InputError
from uepp.serving import server

SECONDS = 180  # a process that has not done it by then hangs


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports")
    make_rose(folder / "old")
    make_rose(folder / "new", first=100)
    make_rose(folder / "foreign", first=200, run_id="foreign")
    return folder


@pytest.fixture(autouse=True)
def hang_up() -> Iterator[None]:
    """The command changes what SIGHUP does in its process, which here is that of the tests."""
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


# What it refuses


def refused(run_dir: Path, *, page: bool = True, **about: Any) -> str:
    options: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "token": None, "watch": False}
    with pytest.raises(InputError) as caught:
        server.serve(run_dir, ServingConfig(page=page), **{**options, **about}, announce=print, report=print)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_port_in_use_is_refused(exports: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert refused(exports / "old", port=port).startswith(f"--host 127.0.0.1 --port {port}: cannot listen there (")


def test_an_address_that_is_not_here_is_refused(exports: Path) -> None:
    assert "--host 203.0.113.7" in refused(exports / "old", host="203.0.113.7", token="t")
    assert "--host no.such.host.invalid" in refused(exports / "old", host="no.such.host.invalid", token="t")


def test_what_is_not_an_exported_run_is_refused(tmp_path: Path) -> None:
    assert "not a run directory" in refused(tmp_path)
    (tmp_path / "config.yaml").write_text("{}\n")
    assert refused(tmp_path) == (f"{tmp_path}: this run has no export yet; make it with: uepp export {tmp_path}")


def test_peoples_histories_are_not_shown_to_a_network_without_a_token(exports: Path) -> None:
    assert "anybody" not in refused(exports / "old", host="0.0.0.0")
    assert "give --token-file or UEPP_TOKEN, or leave the page out with --no-page" in (
        refused(exports / "old", host="0.0.0.0")
    )
    assert "--no-page" in refused(exports / "old", host="::")


@pytest.mark.parametrize(
    ("host", "allowed", "expected"),
    [
        ("127.0.0.1", (), {"localhost", "127.0.0.1", "::1"}),
        ("127.0.0.1", ("Shop.example",), {"localhost", "127.0.0.1", "::1", "shop.example"}),
        ("127.0.0.1", ("*",), None),
        ("0.0.0.0", (), None),
        ("0.0.0.0", ("shop.example",), {"localhost", "127.0.0.1", "::1", "0.0.0.0", "shop.example"}),
    ],
)
def test_names_the_server_may_be_called_by(host: str, allowed: tuple[str, ...], expected: set[str] | None) -> None:
    settings = ServingConfig(allowed_hosts=allowed)
    assert server._hosts(host, settings, server._is_loopback(host)) == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("10.0.0.1", False), ("localhost.evil.example", False)],
)  # fmt: skip
def test_what_is_loopback(host: str, expected: bool) -> None:
    assert server._is_loopback(host) is expected


def test_answers_are_sent_at_once() -> None:
    """Answers to kept connections took 44 ms: Nagle's algorithm held the body back until the headers were acknowledged.

    asyncio switches it off, but only on sockets that name their protocol.
    """

    async def accepted() -> int:
        options: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            options.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listener = server._bind("127.0.0.1", 0)
        async with await asyncio.start_server(connected, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname())
            found = await options
            writer.close()
            await writer.wait_closed()
            return found

    assert asyncio.run(accepted()) != 0


@pytest.mark.parametrize("content", ["", " \n", "two words", "schlüssel", "tab\tin it"])
def test_a_file_without_a_token_is_refused(tmp_path: Path, content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match="holds no token"):
        server.read_token(tmp_path / "token")
    monkeypatch.setenv("UEPP_TOKEN", content)
    with pytest.raises(InputError, match="UEPP_TOKEN: holds no token"):
        server.read_token(None)


def test_where_the_token_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UEPP_TOKEN", raising=False)
    assert server.read_token(None) is None
    monkeypatch.setenv("UEPP_TOKEN", "of-the-environment")
    assert server.read_token(None) == "of-the-environment"
    (tmp_path / "token").write_text("of-a-file\n")
    assert server.read_token(tmp_path / "token") == "of-a-file"
    with pytest.raises(InputError, match=r"--token-file .*none: cannot be read"):
        server.read_token(tmp_path / "none")


def test_options_become_settings(call: Call, exports: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started: dict[str, Any] = {}

    def serve(run_dir: Path, settings: ServingConfig, **about: Any) -> None:
        started.update(about, run_dir=run_dir, settings=settings)
        about["announce"]("http://here")

    monkeypatch.setattr(server, "serve", serve)
    monkeypatch.delenv("UEPP_TOKEN", raising=False)
    (tmp_path / "token").write_text("t0ken")
    code, out, _ = call(
        "serve", exports / "old", "--port", "0", "--cache", "user", "--max-batch", "7", "--watch", "--no-page",
        "--token-file", tmp_path / "token", "--set", "serving.user_ttl_seconds=5",
    )  # fmt: skip
    assert code == 0
    assert out == f"Serving {exports / 'old'} at http://here\n"
    settings = started["settings"]
    assert (settings.cache, settings.max_batch, settings.page, settings.user_ttl_seconds) == ("user", 7, False, 5)
    assert (started["host"], started["port"], started["token"], started["watch"]) == ("127.0.0.1", 0, "t0ken", True)
    call("serve", exports / "old")
    assert started["settings"] == ServingConfig()
    assert (started["port"], started["token"], started["watch"]) == (8080, None, False)


@pytest.mark.parametrize(
    "problem", [BrokenPipeError(32, "Broken pipe"), OSError(5, "Input/output error")], ids=["reader", "terminal"]
)
def test_a_server_serves_on_where_nobody_reads_what_it_says(
    call: Call, exports: Path, monkeypatch: pytest.MonkeyPatch, problem: OSError
) -> None:
    """With the reader of its output gone it ended at the next reload; with its terminal closed it reloaded no more."""

    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise problem

    def serve(run_dir: Path, settings: ServingConfig, **about: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", Gone())
            about["report"]("reloaded")
        about["report"]("reloaded again")

    monkeypatch.setattr(server, "serve", serve)
    assert call("serve", exports / "old").err.splitlines()[-1] == "reloaded again"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--set", "training.seed=2"], "--set training.seed=2: a server has the serving settings only"),
        (["--set", "serving.cash=user"], "--set: unknown key serving.cash; did you mean serving.cache?"),
        (["--cache", "redis"], "serving.cache = 'redis': input should be 'features', 'user', 'layered' or 'none'"),
        (["--max-batch", "0"], "serving.max_batch = 0: input should be greater than or equal to 1"),
    ],
)
def test_bad_options_are_refused_in_one_line(call: Call, exports: Path, options: list[str], expected: str) -> None:
    code, out, err = call("serve", exports / "old", *options)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].endswith(expected)


def test_a_missing_package_is_named_with_the_extra_that_brings_it(exports: Path) -> None:
    code = (
        "import sys\n"
        "sys.modules['fastapi'] = None\n"  # as if it were not installed
        "from uepp import cli\n"
        f"sys.argv = ['uepp', 'serve', {str(exports / 'old')!r}]\n"
        "cli.main()\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert finished.returncode == 2
    assert finished.stderr.splitlines()[-1] == 'error: uepp serve needs fastapi: pip install "uepp[serve]"'


# A whole life


class Process:
    """A running `uepp serve`."""

    def __init__(self, run_dir: Path, *options: str, while_loading: int | None = None, **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "uepp.cli", "serve", str(run_dir), "--port", "0", *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment},
        )  # fmt: skip
        self.errors: list[str] = []
        self._reader = threading.Thread(target=self._read_errors)
        self._reader.start()
        if while_loading is not None:
            self.wait_for_line("loading ")
            self.signal(while_loading)
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line.startswith(f"Serving {run_dir} at http://127.0.0.1:"), (line, self.errors)
        self.address = line.rsplit(" ", 1)[-1]

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.errors.append(line.rstrip())

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.address}{path}", timeout=SECONDS) as answer:
            return json.load(answer)

    def first(self) -> str:
        return self.get("/search?query=east&k=1")["hits"][0]["product_id"]

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait_for_line(self, text: str) -> str:
        """A line on standard error."""
        waiting = threading.Event()
        for _ in range(SECONDS * 20):
            found = [line for line in self.errors if text in line]
            if found:
                return found[-1]
            waiting.wait(0.05)
        raise AssertionError(f"{text!r} was never said: {self.errors}")

    def end(self) -> int:
        code = self._process.wait(SECONDS)
        self._reader.join()
        assert self._process.stdout is not None
        assert self._process.stdout.read() == "", "standard output had the address, and nothing else"
        self._close()
        return code

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
            self._close()

    def _close(self) -> None:
        self._reader.join()
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    started: list[Process] = []
    yield started
    for process in started:
        process.kill()


def replace(run_dir: Path, export: Path) -> None:
    shutil.rmtree(run_dir / "export")
    shutil.copytree(export / "export", run_dir / "export")


def test_a_servers_life(exports: Path, tmp_path: Path, processes: list[Process]) -> None:
    """Started, asked by many, reloaded by SIGHUP (which killed it while it was loading), and ended by SIGTERM.

    Connections that ask for nothing are in nobody's way.
    """
    run_dir = tmp_path / "run"
    shutil.copytree(exports / "old", run_dir)
    process = Process(run_dir, "--set", "serving.max_connections=16", while_loading=signal.SIGHUP)
    processes.append(process)
    port = int(process.address.rsplit(":", 1)[1])
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    assert process.get("/readyz")["run_id"] == "rose"
    assert process.first() == "p000"

    for connection in silent:
        connection.close()

    excluded = "".join(f"&exclude=no-such-product-{number:06}" for number in range(1_000))
    with socket.create_connection(("127.0.0.1", port)) as connection:
        asking = f"GET /search?query=east&k=1{excluded} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        for part in (asking[:20_000], asking[20_000:]):
            connection.sendall(part.encode())
            time.sleep(0.1)  # so that it comes in two pieces: it was refused then
        assert connection.makefile("rb").readline().startswith(b"HTTP/1.1 200")

    replace(run_dir, exports / "foreign")
    process.signal(signal.SIGHUP)
    assert "of run foreign, served is rose" in process.wait_for_line("not reloaded")
    assert process.first() == "p000"
    replace(run_dir, exports / "new")
    process.signal(signal.SIGHUP)
    process.wait_for_line("reloaded")
    while process.first() != "p100":  # what was said before may have been the refusal
        pass

    answers: list[int] = []
    cut_off: list[BaseException] = []
    is_ending = threading.Event()
    under_way = threading.Barrier(9)

    def ask(number: int) -> None:
        for turn in range(10_000):
            if turn == 3:
                under_way.wait(SECONDS)
            try:
                answers.append(len(process.get(f"/search?query=query+{number}+{turn}&k=2")["hits"]))
            except urllib.error.HTTPError as error:
                cut_off.append(error)
                return
            except (urllib.error.URLError, ConnectionError) as error:
                # a connection that the closed socket never took, or one it had taken but not yet read from
                reason = getattr(error, "reason", error)
                if not (is_ending.is_set() and isinstance(reason, ConnectionError)):
                    cut_off.append(error)
                return
            except Exception as error:
                cut_off.append(error)
                return

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    under_way.wait(SECONDS)
    is_ending.set()
    process.signal(signal.SIGTERM)
    assert process.end() == 0
    for thread in threads:
        thread.join(SECONDS)
    assert cut_off == []
    assert len(answers) >= 24
    assert set(answers) == {2}, "every answer is whole"
    assert not [line for line in process.errors if "Traceback" in line]


class Loading:
    """Stands in for a `Service`: a start that waits, and reloads that are counted."""

    def __init__(self) -> None:
        self.may_start = asyncio.Event()
        self.has_started = False
        self.reloads: list[bool] = []
        self.has_reloaded = asyncio.Event()

    async def start(self) -> None:
        await self.may_start.wait()
        self.has_started = True

    async def reload(self, *, wait: bool) -> bool:
        self.reloads.append(self.has_started)
        self.has_reloaded.set()
        return True


def test_a_reload_that_is_asked_for_while_loading_is_done_afterwards() -> None:
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)

    async def test() -> None:
        service, said = Loading(), []
        with server._bind("127.0.0.1", 0) as listener:
            process = server._Process(service, listener, False, said.append, said.append)  # type: ignore[arg-type]
            process._server = server.uvicorn.Server(server.uvicorn.Config(lambda: None))
            beside = asyncio.ensure_future(process.beside())
            await asyncio.sleep(0)
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGHUP)
                await asyncio.sleep(0.05)
            assert (service.reloads, said) == ([], [])
            service.may_start.set()
            await asyncio.wait_for(service.has_reloaded.wait(), SECONDS)
            await asyncio.sleep(0.05)
            assert service.reloads == [True], "once, when the start had ended"
            assert said == [server._address(listener), "reloaded"]
            beside.cancel()
            await asyncio.gather(beside, return_exceptions=True)

    try:
        asyncio.run(test())
    finally:
        signal.signal(signal.SIGHUP, previous)


class Broken(Loading):
    """A start, or a reload, that fails as nobody expected."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self._where = where
        self.may_start.set()

    async def start(self) -> None:
        if self._where == "start":
            raise ZeroDivisionError(self._where)
        await super().start()

    async def watch(self, report: Any) -> None:
        raise ZeroDivisionError(self._where)


@pytest.mark.parametrize("where", ["start", "watch"])
def test_what_goes_wrong_beside_the_server_ends_it(where: str) -> None:
    """It was lost: the server said that the export is being loaded for ever, or took up no other, and said nothing."""
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    said: list[str] = []

    async def test(process: server._Process) -> None:
        process._server = server.uvicorn.Server(server.uvicorn.Config(lambda: None))
        await asyncio.wait_for(process.beside(), SECONDS)
        assert process._server.should_exit

    try:
        with server._bind("127.0.0.1", 0) as listener:
            process = server._Process(Broken(where), listener, True, said.append, said.append)  # type: ignore[arg-type]
            asyncio.run(test(process))
    finally:
        signal.signal(signal.SIGHUP, previous)
    assert isinstance(process._problem, ZeroDivisionError if where == "start" else ExceptionGroup)
    assert len(said) == (where == "watch"), "the address, when it is ready"


def test_a_damaged_export_ends_the_start_with_one_line(exports: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(exports / "old", run_dir)
    index = run_dir / "export" / "index.faiss"
    index.write_bytes(index.read_bytes()[:-1] + b"x")
    finished = subprocess.run(
        [sys.executable, "-m", "uepp.cli", "serve", str(run_dir), "--port", "0"],
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert (finished.returncode, finished.stdout) == (2, "")
    assert finished.stderr.splitlines()[-1].startswith(f"error: {index}: differs from its SHA-256")
    assert "Traceback" not in finished.stderr
