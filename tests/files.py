"""What is in a directory, to compare it with what is there later."""

from hashlib import sha256
from pathlib import Path


def digests(directory: Path) -> dict[str, str]:
    """SHA-256 of every file, by its path: pytest takes minutes to show how large contents differ."""
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {str(file.relative_to(directory)): sha256(file.read_bytes()).hexdigest() for file in files}


def everything_below(directory: Path) -> dict[str, str]:
    """The same, and directories too."""
    below = (path for path in directory.rglob("*") if not path.is_file())
    return {**digests(directory), **{str(path.relative_to(directory)): "directory" for path in below}}
