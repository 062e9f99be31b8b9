"""Connections as the server holds them: those that say nothing, or never finish their headers, are closed."""

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol


def closing_silent(seconds: float) -> type[asyncio.Protocol]:
    """The protocol of uvicorn for a connection, with a limit of time.

    uvicorn closes a connection that stays idle after an answer, and else waits for ever: before the first request, and
    for the rest of headers that have begun to come.

    Args:
        seconds: that a connection may be open, or send headers, without a request.
    """

    class Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def _wait(self) -> None:
            """The time runs as long as no request is under way."""
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop()
            elif self._deadline is None:
                self._deadline = self.loop.call_later(seconds, self.transport.close)

        def _stop(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    return Protocol
