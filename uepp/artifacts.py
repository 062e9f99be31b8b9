"""Files and directories that appear whole or not at all, and the manifest that proves them.

Writers fill a temporary neighbour, flush it to disk and rename it into place, so a reader never
meets a half-written file. A manifest lists the SHA-256 of every file of a directory.
"""

import ctypes
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from uepp.errors import InputError

MANIFEST = "manifest.json"
_CHUNK_BYTES = 1 << 20
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux' renameat2


def _temporary_neighbour(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def nearest_existing(path: Path) -> Path:
    """The path itself, or the first above it that is there."""
    return next(each for each in (path, *path.absolute().parents) if each.exists())


def make_directory(path: Path) -> None:
    """Make a directory and those above it, where they are not there yet.

    Raises:
        InputError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be made ({error.strerror}); name another directory") from None


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path; when the block ends without an error, it becomes `path`."""
    make_directory(path.parent)
    temporary = _temporary_neighbour(path)
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary directory; when the block ends without an error, it replaces `path`.

    Where the system can exchange two names (Linux, on most file systems), an old directory is there until the very
    moment that the new one is. Elsewhere it is moved aside for the instant between two renames.
    """
    temporary = _temporary_neighbour(path)
    shutil.rmtree(temporary, ignore_errors=True)
    make_directory(temporary)
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _sync(file)
        if not path.exists():
            os.rename(temporary, path)
        elif not _exchange(temporary, path):
            retired = path.with_name(f".{path.name}.{os.getpid()}.old")
            os.rename(path, retired)
            try:
                os.rename(temporary, path)
            except OSError:
                os.rename(retired, path)
                raise
            shutil.rmtree(retired)
        _sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Let two directories change places, so that neither name is missing for a moment; False: it was not done."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # not Linux, or an old C library
        return False
    names = os.fsencode(one), os.fsencode(other)
    return bool(renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises `InputError` naming the file when it is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: not a readable JSON file ({error})") from None


def sha256(path: Path, go_on: Callable[[], None] = lambda: None) -> str:
    """Hex SHA-256 of a file, read in chunks; `go_on` is called after each, and ends it by raising."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
            go_on()
    return digest.hexdigest()


def link(source: Path | str, target: Path | str) -> None:
    """Give a file a second name, or a copy where the file system has no such links; what bears the name goes.

    Neither may be written in place any more: a new content is a new file (`atomic_file`).
    """
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def write_manifest(directory: Path, known: Mapping[str, str] | None = None, **facts: Any) -> None:
    """Write `manifest.json`: the given facts (run id, versions) and the SHA-256 of every other file.

    Args:
        directory: to describe.
        known: SHA-256 of files that need not be read, by path.
        facts: what else it says.
    """
    write_json(directory / MANIFEST, {**facts, "files": file_digests(directory, known)})


def file_digests(directory: Path, known: Mapping[str, str] | None = None) -> dict[str, str]:
    """SHA-256 of every file of a directory but its manifest, by path; of those that are known, without reading them."""
    known = known or {}
    names = {
        str(file.relative_to(directory)) for file in directory.rglob("*") if file.is_file() and file.name != MANIFEST
    }
    return {name: known[name] if name in known else sha256(directory / name) for name in sorted(names)}


def check_manifest(
    directory: Path, remedy: str = "export again", go_on: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Check every file of a directory against its manifest and return the manifest.

    Args:
        directory: with its manifest.
        remedy: what makes it whole again, for the message.
        go_on: called now and then, since large files take long; what it raises ends the check.

    Raises:
        InputError: the manifest is missing, or a file is missing or differs.
    """
    manifest: dict[str, Any] = read_json(directory / MANIFEST)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise InputError(f"{directory / MANIFEST}: not a manifest, it lists no files; {remedy}")
    for name, expected in manifest["files"].items():
        file = directory / name
        if not file.is_file():
            raise InputError(f"{file}: listed in {MANIFEST} but missing; {remedy}")
        if sha256(file, go_on) != expected:
            raise InputError(f"{file}: differs from its SHA-256 in {MANIFEST}; it was changed or damaged, {remedy}")
    return manifest


@contextmanager
def locked_directory(directory: Path, on_busy: Callable[[], None]) -> Iterator[bool]:
    """Hold the lock of a directory, which is there, until the block ends; no file tells of it.

    Args:
        directory: any; one lock for all processes.
        on_busy: called where another process holds it; the lock is waited for if it returns.

    Yields:
        Whether it is held: False where the file system has no locks.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        yield _is_locked(descriptor, on_busy)
    finally:
        os.close(descriptor)


def _is_locked(descriptor: int, on_busy: Callable[[], None]) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        on_busy()
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        return False
    return True


def fingerprint(*parts: Any) -> str:
    """A short stable key of JSON-serialisable parts, for cache folders."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]
