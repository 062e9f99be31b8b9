"""`uepp serve`: the server's process, from its socket to its end."""

import asyncio
import gc
import ipaddress
import math
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn

from uepp.artifacts import MANIFEST
from uepp.config import ServingConfig
from uepp.errors import InputError
from uepp.retrieval.export import check_is_run
from uepp.serving.app import create_app
from uepp.serving.connections import closing_silent
from uepp.serving.metrics import Metrics
from uepp.serving.service import RefusedError, Service

_HEADER_BYTES = 1 << 14  # beside an address that holds as much as a body may
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def serve(
    run_dir: Path,
    settings: ServingConfig,
    *,
    host: str,
    port: int,
    token: str | None,
    watch: bool,
    announce: Callable[[str], None],
    report: Callable[[str], None],
) -> None:
    """Serve a run until SIGTERM or SIGINT; SIGHUP takes up a new export.

    Args:
        run_dir: a run with an export.
        settings: of serving.
        host: address to listen on.
        port: 0: any that is free.
        token: bearer token; none: everybody who reaches the server may ask.
        watch: take up new exports as they appear.
        announce: is told the server's address when it is ready.
        report: is told what happens later.

    Raises:
        InputError: not a run with an export, a port in use, or people's histories open to a network.
    """
    check_is_run(run_dir)
    if not (run_dir / "export" / MANIFEST).is_file():
        raise InputError(f"{run_dir}: this run has no export yet; make it with: uepp export {run_dir}")
    is_local = _is_loopback(host)
    if settings.page and token is None and not is_local:
        raise InputError(
            f"--host {host}: without a token everybody there could read people's histories; give --token-file or "
            "UEPP_TOKEN, or leave the page out with --no-page"
        )
    listener = _bind(host, port)
    _limit_tensorflow(settings.threads)
    process = _Process(Service(run_dir, settings, Metrics()), listener, watch, announce, report)
    app = create_app(
        process.service,
        token=token,
        hosts=_hosts(host, settings, is_local),
        may_reload=token is not None or is_local,
        run=process.beside,
    )
    # What TensorFlow and the rest have made by now stays for good, and is most of what there is: to look through it for
    # garbage takes a fifth of a second in which nobody is answered.
    gc.collect()
    gc.freeze()
    process.run(app)


class _Process:
    """uvicorn around the application, and what goes on beside it."""

    def __init__(
        self,
        service: Service,
        listener: socket.socket,
        watch: bool,
        announce: Callable[[str], None],
        report: Callable[[str], None],
    ) -> None:
        self.service = service
        self._listener = listener
        self._watch = watch
        self._announce, self._report = announce, report
        self._problem: Exception | None = None
        self._server: uvicorn.Server | None = None

    def run(self, app: object) -> None:
        """Until a signal; requests under way are answered first, for a limited time."""
        settings = self.service.settings
        config = uvicorn.Config(
            app,  # type: ignore[arg-type]
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="on",
            http=closing_silent(settings.timeout_seconds),
            # else longer ones are answered if they come in one piece, and refused if they come in several
            h11_max_incomplete_event_size=_HEADER_BYTES + settings.max_body_bytes,
            timeout_graceful_shutdown=math.ceil(settings.shutdown_seconds),
        )
        self._server = uvicorn.Server(config)
        # uvicorn raises the signal again when it has shut down, which would end the process before its time
        numbers = (signal.SIGTERM, signal.SIGINT)
        previous = {number: signal.signal(number, lambda *_: None) for number in numbers}
        try:
            self._server.run(sockets=[self._listener])
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            self._listener.close()
        if self._problem is not None:
            raise self._problem

    async def beside(self) -> None:
        """Load, then wait for new exports. Nobody awaits this, so what goes wrong here ends the server."""
        assert self._server is not None
        try:
            await self._load_and_reload()
        except Exception as error:
            self._problem = error
            self._server.should_exit = True

    async def _load_and_reload(self) -> None:
        is_asked = asyncio.Event()
        # before anything is loaded: a signal that nobody handles ends the process
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, is_asked.set)
        await self.service.start()
        self._announce(_address(self._listener))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._reload_when(is_asked))
            if self._watch:
                tasks.create_task(self.service.watch(self._report))

    async def _reload_when(self, is_asked: asyncio.Event) -> None:
        """Reload whenever it is asked for; what is asked for meanwhile is done afterwards, once."""
        while True:
            await is_asked.wait()
            is_asked.clear()
            try:
                is_new = await self.service.reload(wait=True)
            except RefusedError as error:
                self._report(f"not reloaded: {error}")
            else:
                self._report("reloaded" if is_new else "not reloaded: the export is the one that is served")


def read_token(path: Path | None) -> str | None:
    """The bearer token: of a file, else of the environment variable UEPP_TOKEN, else none.

    Raises:
        InputError: no such file, or no token that fits into a header in it.
    """
    if path is None:
        token, source = os.environ.get("UEPP_TOKEN"), "UEPP_TOKEN"
        if token is None:
            return None
    else:
        source = str(path)
        try:
            token = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--token-file {path}: cannot be read ({error})") from None
    token = token.strip()
    if not (token and token.isascii() and token.isprintable() and " " not in token):
        raise InputError(f"{source}: holds no token; a token is printable ASCII without spaces")
    return token


def _bind(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        family, kind, protocol, _, address = found
        # asyncio sends small parts of an answer at once (TCP_NODELAY) only on sockets that say that they speak TCP; on
        # others an answer waits 40 ms for the acknowledgement of its headers
        listener = socket.socket(family, kind, protocol)
    except (OSError, OverflowError, UnicodeError) as error:
        raise InputError(f"--host {host} --port {port}: {error}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except (OSError, OverflowError) as error:
        listener.close()
        raise InputError(f"--host {host} --port {port}: cannot listen there ({error})") from None
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _hosts(host: str, settings: ServingConfig, is_local: bool) -> set[str] | None:
    """Names that requests may be for; none: any, since a server in a network has names that it does not know."""
    if "*" in settings.allowed_hosts or not (is_local or settings.allowed_hosts):
        return None
    return {*_LOOPBACK, host.lower(), *(name.lower() for name in settings.allowed_hosts)}


def _limit_tensorflow(threads: int | None) -> None:
    if threads is not None:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
