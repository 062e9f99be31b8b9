"""Tasks in processes of their own, as many at once as cores and memory allow."""

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from rich.console import Console

from uepp.errors import InputError

_LOOK_AGAIN = 10.0  # seconds after which memory is looked at again


class Task(NamedTuple):
    """What is to be done.

    Attributes:
        log: file that all it prints is added to.
        function: takes the arguments and a console that writes to the log; of a module's top level.
        arguments: that can be pickled.
    """

    log: Path
    function: Callable[..., None]
    arguments: tuple[Any, ...]


def run_all(
    tasks: Sequence[Task], on_end: Callable[[int, str | None], int | None], *, jobs: int | None = None, peak: int = 0
) -> None:
    """Run tasks beside each other, each in a process of its own.

    One that fails, or that is killed, takes no other along. On an interruption the running ones are told to stop
    (SIGTERM) and waited for; they stop by themselves too where this process is gone.

    Args:
        tasks: in the order in which they begin.
        on_end: is given the number of a task that has ended, and what went wrong, none: nothing; returns its peak of
            memory in bytes, none: unknown.
        jobs: how many at once; none: as many as there are cores, while memory has room for the largest peak so far;
            before the first peak is known, one.
        peak: bytes, of such tasks before; 0: unknown.
    """
    waiting, running = deque(enumerate(tasks)), dict[int, tuple[int, _Process]]()
    try:
        while waiting or running:
            while waiting and _has_room([process for _, process in running.values()], jobs, peak):
                number, task = waiting.popleft()
                process = _Process(task)
                running[process.sentinel] = (number, process)
            for sentinel in wait(list(running), timeout=_LOOK_AGAIN if waiting else None):
                assert isinstance(sentinel, int)
                number, process = running.pop(sentinel)
                peak = max(peak, on_end(number, process.error()) or 0)
    finally:
        _end([process for _, process in running.values()])


def run_one(task: Task) -> None:
    """Run a task in a process of its own.

    Raises:
        InputError: what went wrong.
    """
    errors: list[str | None] = []
    run_all([task], lambda _, error: errors.append(error))
    if errors[0] is not None:
        raise InputError(errors[0])


def _has_room(running: "list[_Process]", jobs: int | None, peak: int) -> bool:
    """Whether one more may begin."""
    if not running:
        return True
    if jobs is not None:
        return len(running) < jobs
    if not peak or len(running) >= (os.cpu_count() or 1):
        return False
    growth = sum(max(peak - process.memory(), 0) for process in running)
    return bool(psutil.virtual_memory().available - growth >= 1.1 * peak)


def _end(processes: "Sequence[_Process]") -> None:
    """Tell them to stop, and wait; a second interruption kills them."""
    try:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
    except KeyboardInterrupt:
        for process in processes:
            process.kill()
        raise


class _Process:
    """A task that runs, in a session of its own: only this process passes an interruption on."""

    def __init__(self, task: Task) -> None:
        context = multiprocessing.get_context("spawn")
        self._errors, sender = context.Pipe(duplex=False)
        self._process = context.Process(target=_run, args=(sender, task))
        self._process.start()
        sender.close()
        self.sentinel = self._process.sentinel
        self.terminate, self.kill, self.join = self._process.terminate, self._process.kill, self._process.join

    def memory(self) -> int:
        """Bytes that it holds now."""
        try:
            return int(psutil.Process(self._process.pid).memory_info().rss)
        except psutil.Error:
            return 0

    def error(self) -> str | None:
        """What went wrong; it has ended."""
        self._process.join()
        code = self._process.exitcode or 0
        try:
            if self._errors.poll():
                return str(self._errors.recv())
        except EOFError:
            pass
        if code < 0:
            name = signal.Signals(-code).name
            return f"killed by {name}" + (": out of memory?" if name == "SIGKILL" else "")
        return f"exit code {code}" if code else None


def _run(errors: "Connection[str, str]", task: Task) -> None:
    """In the new process."""
    os.setsid()
    threading.Thread(target=_stop_without_parent, daemon=True).start()
    task.log.parent.mkdir(parents=True, exist_ok=True)
    log = task.log.open("a", encoding="utf-8")
    os.dup2(log.fileno(), sys.stdout.fileno())
    os.dup2(log.fileno(), sys.stderr.fileno())
    try:
        task.function(*task.arguments, Console(file=log, width=120))
    except Exception as error:
        if not isinstance(error, InputError):
            traceback.print_exc()
        errors.send(" ".join(str(error).split()) or type(error).__name__)
        sys.exit(1)


def _stop_without_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
