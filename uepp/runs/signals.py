"""Stopping a training from outside without losing anything."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """Whether a signal asked to stop."""

    is_asked = False


@contextmanager
def stop_signal() -> Iterator[Stop]:
    """SIGTERM or SIGINT only asks to stop, the first time; handlers are as before afterwards."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # Python sets handlers in the main thread only
        return

    def put_back() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def ask(_: int, __: FrameType | None) -> None:
        stop.is_asked = True
        put_back()

    numbers = (signal.SIGTERM, signal.SIGINT)
    # None: a handler that was not set from Python and cannot be put back.
    previous = {number: signal.getsignal(number) or signal.SIG_DFL for number in numbers}
    for number in numbers:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        put_back()
