"""Connections that ask for nothing do not stay for ever."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import uvicorn

from uepp.serving.connections import closing_silent

SECONDS = 60.0  # a test that hangs fails
LIMIT = 0.2
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def slow(scope: Any, receive: Any, send: Any) -> None:
    """Answers `/slow` after three times the limit."""
    await asyncio.sleep(3 * LIMIT if scope["path"] == "/slow" else 0)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def served(test: Callable[[Callable[[], Coroutine[Any, Any, Connection]]], Coroutine[Any, Any, None]]) -> None:
    """Run a test with a server, and what opens a connection to it."""

    async def main() -> None:
        options: dict[str, Any] = {"http": closing_silent(LIMIT), "lifespan": "off", "log_level": "warning", "port": 0}
        server = uvicorn.Server(uvicorn.Config(slow, timeout_keep_alive=30, **options))
        serving = asyncio.ensure_future(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        await test(lambda: asyncio.open_connection("127.0.0.1", port))
        server.should_exit = True
        await serving

    asyncio.run(asyncio.wait_for(main(), SECONDS))


def asking(path: str) -> bytes:
    return b"GET " + path.encode() + b" HTTP/1.1\r\nhost: here\r\n\r\n"


async def answer(reader: asyncio.StreamReader) -> bytes:
    await reader.readuntil(b"\r\n\r\n")
    return await reader.readexactly(2)


def test_a_connection_that_says_nothing_is_closed() -> None:
    async def test(connect: Any) -> None:
        reader, writer = await connect()
        assert await reader.read() == b""
        writer.close()

    served(test)


def test_headers_that_never_end_are_not_waited_for() -> None:
    """Each byte of them would start uvicorn's clock anew, if it had one for them."""

    async def test(connect: Any) -> None:
        reader, writer = await connect()
        ended = asyncio.ensure_future(reader.read())
        loop = asyncio.get_running_loop()
        begin = loop.time()
        for byte in asking("/" + "x" * 10_000):
            writer.write(bytes([byte]))
            await asyncio.sleep(0.02)
            if ended.done():
                break
        assert await ended == b""
        assert loop.time() - begin >= 0.9 * LIMIT
        writer.close()

    served(test)


def test_headers_of_a_later_request_have_no_more_time() -> None:
    async def test(connect: Any) -> None:
        reader, writer = await connect()
        writer.write(asking("/"))
        assert await answer(reader) == b"ok"
        writer.write(asking("/")[:-5])
        assert await reader.read() == b"", "though an idle connection would be kept for 30 s"
        writer.close()

    served(test)


def test_an_answer_may_take_longer_and_a_kept_connection_may_be_idle() -> None:
    async def test(connect: Any) -> None:
        reader, writer = await connect()
        for path in ("/slow", "/", "/slow"):
            writer.write(asking(path))
            assert await answer(reader) == b"ok"
            await asyncio.sleep(2 * LIMIT)
        writer.close()

    served(test)
