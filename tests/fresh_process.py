"""Python in a process of its own: strategies collide in one."""

import os
import subprocess
import sys
from pathlib import Path


def printed_by(*arguments: object, timeout: float = 240) -> list[str]:
    """Run Python with what this process can import, until it ends well.

    Args:
        arguments: of the interpreter.
        timeout: seconds.

    Returns:
        Lines of standard output.
    """
    paths = [str(Path(__file__).parents[1]), *(path for path in sys.path if path)]
    finished = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-2_000:]
    return finished.stdout.splitlines()
