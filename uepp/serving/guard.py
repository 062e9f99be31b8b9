"""What stands before the server: who may ask, how much, how long, and what a browser may do with the answers."""

import asyncio
import hmac
import json
import time
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from uepp.serving.metrics import Metrics

PUBLIC = ("/healthz", "/readyz", "/", "/page/")
"""Paths that need no token: whether the server is well, and the page's own files, which hold no data."""
HEALTH = ("/healthz", "/readyz")
"""Paths that are answered however many ask for others: who looks after the server must not take it for dead."""

_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


class Guard:
    """ASGI middleware; what it refuses never reaches the application.

    Args:
        app: the application.
        metrics: counts every answer.
        token: bearer token that all but `PUBLIC` needs; none: nothing needs one.
        hosts: names that requests may be for, against DNS rebinding; none: any.
        max_body_bytes: of a request.
        timeout_seconds: until its body is there.
        max_requests: under way at once, from their headers to the end of their answer; `HEALTH` does not count.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        token: str | None,
        hosts: Collection[str] | None,
        max_body_bytes: int,
        timeout_seconds: float,
        max_requests: int,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._token = token
        self._hosts = hosts
        self._max_body_bytes = max_body_bytes
        self._timeout_seconds = timeout_seconds
        self._max_requests = max_requests
        self._num_requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let it pass."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, status = time.perf_counter(), 500
        counts = scope["path"] not in HEALTH

        async def finish(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        self._num_requests += counts
        try:
            # nobody reads a body that is sent to health
            body = self._refusal(scope) or (await self._read(scope, receive) if counts else receive)
            if isinstance(body, _Refusal):
                await body.send(finish)
            else:
                await self._app(scope, body, finish)
        finally:
            self._num_requests -= counts
            path = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - begin)

    def _refusal(self, scope: Scope) -> "_Refusal | None":
        if self._num_requests > self._max_requests and scope["path"] not in HEALTH:
            reason = f"{self._max_requests} requests are under way (serving.max_connections); try again later"
            return _Refusal(503, reason, {"retry-after": "1"})
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._hosts is not None and _name(host) not in self._hosts:
            return _Refusal(400, f"host {host!r}: not a name of this server (serving.allowed_hosts)")
        origin = headers.get("origin")
        if scope["method"] not in ("GET", "HEAD") and origin is not None and not self._is_own(origin, host):
            return _Refusal(403, f"origin {origin!r}: another site's pages may not do this")
        if self._token is not None and not _is_public(scope["path"]):
            scheme, _, given = headers.get("authorization", "").partition(" ")
            is_right = hmac.compare_digest(given.strip().encode(), self._token.encode())
            if scheme.lower() != "bearer" or not is_right:
                return _Refusal(401, "a bearer token is needed", {"www-authenticate": "Bearer"})
        return None

    def _is_own(self, origin: str, host: str) -> bool:
        try:
            netloc = urlsplit(origin).netloc
        except ValueError:  # http://[
            return False
        return bool(netloc) and (netloc == host or (self._hosts is not None and _name(netloc) in self._hosts))

    async def _read(self, scope: Scope, receive: Receive) -> "Receive | _Refusal":
        """The whole body, as something to receive it from."""
        declared = Headers(scope=scope).get("content-length", "")
        too_large = _Refusal(413, f"body: larger than {self._max_body_bytes} bytes (serving.max_body_bytes)")
        if declared.isdecimal() and int(declared) > self._max_body_bytes:
            return too_large
        messages: list[Message] = []
        size, is_more = 0, True
        try:
            async with asyncio.timeout(self._timeout_seconds):
                while is_more:
                    messages.append(await receive())
                    size += len(messages[-1].get("body", b""))
                    is_more = messages[-1].get("more_body", False)
                    if size > self._max_body_bytes:
                        return too_large
        except TimeoutError:
            return _Refusal(408, f"body: not there after {self._timeout_seconds:g} s (serving.timeout_seconds)")
        messages.reverse()

        async def again() -> Message:
            return messages.pop() if messages else await receive()

        return again


class _Refusal:
    """An answer in the form of all the others: `detail`, one line."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        self._status = status
        self._body = json.dumps({"detail": detail}).encode()
        self._headers = {"content-type": "application/json", "content-length": str(len(self._body)), **(headers or {})}
        if status in (408, 413, 503):
            self._headers["connection"] = "close"  # the rest of the body is not read

    async def send(self, send: Send) -> None:
        headers = [(name.encode(), value.encode()) for name, value in self._headers.items()]
        start: dict[str, Any] = {"type": "http.response.start", "status": self._status, "headers": headers}
        await send(start)
        await send({"type": "http.response.body", "body": self._body})


def _is_public(path: str) -> bool:
    return any(path == public or (public == "/page/" and path.startswith(public)) for public in PUBLIC)


def _name(host: str) -> str:
    """The name in `name:port`, in lower case, without the brackets of an IPv6 address."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
