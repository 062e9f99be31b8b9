"""Tasks in processes of their own: what ends one, how many there are at once, and what stops them."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from uepp.errors import InputError
from uepp.runs.processes import Task, run_all, run_one

PATIENCE = 120.0  # seconds until a test gives up


def says(text: str, console: Console) -> None:
    console.print(text)
    print("beside the console", flush=True)


def refuses(console: Console) -> None:
    raise InputError("table.parquet: a column\n is missing")


def breaks(console: Console) -> None:
    raise ZeroDivisionError


def is_killed(console: Console) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leaves(console: Console) -> None:
    sys.exit(3)


def meets(mine: Path, other: Path, console: Console) -> None:
    """Ends once the other has begun too."""
    mine.touch()
    wait_for(other.exists)


def is_alone(folder: Path, console: Console) -> None:
    (folder / "busy").mkdir()
    time.sleep(0.05)
    (folder / "busy").rmdir()


def waits(folder: Path, name: str, console: Console) -> None:
    signal.signal(signal.SIGTERM, lambda *_: (folder / f"{name}.stopped").touch())
    (folder / f"{name}.pid").write_text(str(os.getpid()))
    wait_for((folder / f"{name}.stopped").exists)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_one_that_ends_badly_takes_no_other_along(tmp_path: Path) -> None:
    functions = (refuses, is_killed, breaks, leaves)
    tasks = [Task(tmp_path / f"{function.__name__}.txt", function, ()) for function in functions]
    tasks.append(Task(tmp_path / "new" / "says.txt", says, ("hello",)))
    ended: dict[int, str | None] = {}
    run_all(tasks, ended.__setitem__, jobs=1)
    assert list(ended.items()) == [
        (0, "table.parquet: a column is missing"),
        (1, "killed by SIGKILL: out of memory?"),
        (2, "ZeroDivisionError"),
        (3, "exit code 3"),
        (4, None),
    ]
    assert (tmp_path / "new" / "says.txt").read_text() == "hello\nbeside the console\n"
    assert (tmp_path / "refuses.txt").read_text() == ""
    assert "Traceback" in (tmp_path / "breaks.txt").read_text()


def test_one_alone_says_what_went_wrong(tmp_path: Path) -> None:
    run_one(Task(tmp_path / "log.txt", says, ("hello",)))
    with pytest.raises(InputError, match="a column is missing"):
        run_one(Task(tmp_path / "log.txt", refuses, ()))


def test_as_many_at_once_as_asked(tmp_path: Path) -> None:
    pair = [(tmp_path / "a", tmp_path / "b"), (tmp_path / "b", tmp_path / "a")]
    errors: list[str | None] = []
    run_all([Task(tmp_path / "log.txt", meets, both) for both in pair], lambda _, e: errors.append(e), jobs=2)
    run_all([Task(tmp_path / "log.txt", is_alone, (tmp_path,))] * 3, lambda _, e: errors.append(e), jobs=1)
    assert errors == [None] * 5


def test_as_many_at_once_as_memory_has_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first peak is waited for; then there are as many as there are cores, or one, where it is too large."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    alone = Task(tmp_path / "log.txt", is_alone, (tmp_path,))
    pair = [Task(tmp_path / "log.txt", meets, (tmp_path / a, tmp_path / b)) for a, b in ("ab", "ba")]
    errors: list[str | None] = []

    def on_end(number: int, error: str | None) -> int:
        errors.append(error)
        return 1_000

    run_all([alone, *pair], on_end)
    run_all([alone] * 3, on_end, peak=10**18)
    assert errors == [None] * 6


def test_an_interruption_stops_what_runs_and_begins_nothing_more(tmp_path: Path) -> None:
    def on_end(number: int, error: str | None) -> None:
        raise KeyboardInterrupt

    names = ("first", "second", "third")
    tasks = [
        Task(tmp_path / "log.txt", says, ("hello",)),
        *(Task(tmp_path / "log.txt", waits, (tmp_path, name)) for name in names),
    ]
    with pytest.raises(KeyboardInterrupt):
        run_all(tasks, on_end, jobs=2)
    assert not (tmp_path / "second.pid").exists()
    assert not (tmp_path / "third.pid").exists()


def test_without_its_parent_a_task_is_told_to_stop(tmp_path: Path) -> None:
    code = f"""
        import sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import test_processes as here
        if __name__ == "__main__":
            here.run_one(here.Task(Path("log.txt"), here.waits, (Path("."), "one")))
    """
    (tmp_path / "parent.py").write_text(textwrap.dedent(code))
    root = str(Path(__file__).parents[1])
    parent = subprocess.Popen(
        [sys.executable, "parent.py"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": root}, start_new_session=True
    )
    wait_for((tmp_path / "one.pid").exists)
    parent.kill()
    parent.wait()
    wait_for((tmp_path / "one.stopped").exists)
