"""Signals that ask a training to stop."""

import signal

import pytest

from uepp.runs.signals import stop_signal


def test_a_second_signal_is_not_held_back() -> None:
    """Who presses Ctrl-C twice does not want to wait."""
    shell_may_ignore_it = signal.signal(signal.SIGINT, signal.default_int_handler)
    before = signal.getsignal(signal.SIGINT)
    with stop_signal() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.is_asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    signal.signal(signal.SIGINT, shell_may_ignore_it)
