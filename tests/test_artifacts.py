"""Files and directories that appear whole or not at all."""

import hashlib
import json
import os
import sys
from pathlib import Path

import pytest

from uepp import artifacts
from uepp.artifacts import (
    MANIFEST,
    atomic_directory,
    atomic_file,
    check_manifest,
    fingerprint,
    link,
    read_json,
    sha256,
    write_json,
    write_manifest,
)
from uepp.errors import InputError


def names(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    with atomic_file(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent == path.parent, "a rename must not cross file systems"
    assert path.read_text() == "new"
    assert names(path.parent) == ["file.txt"]


def test_a_failed_file_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError), atomic_file(path) as temporary:
        temporary.write_text("half\udcff")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_a_failed_first_file_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), atomic_file(tmp_path / "file.txt"):
        raise ZeroDivisionError
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "file.txt"):
        pass  # the block wrote nothing
    assert names(tmp_path) == []


def test_a_directory_replaces_the_old_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "export"
    for content in ("one", "two"):
        with atomic_directory(path) as temporary:
            (temporary / f"{content}.txt").write_text(content)
            (temporary / "sub").mkdir()
            (temporary / "sub" / "file").write_text(content)
            assert not (path / f"{content}.txt").exists()
        assert (
            names(path) == [f"{content}.txt", "sub", "sub/file"] if content < "sub" else ["sub", "sub/file", "two.txt"]
        )
    assert (path / "sub" / "file").read_text() == "two"
    assert [name for name in names(tmp_path) if "/" not in name] == ["export"]


def test_a_failed_directory_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "export"
    path.mkdir()
    (path / "old.txt").write_text("old")
    with pytest.raises(UnicodeEncodeError), atomic_directory(path) as temporary:
        (temporary / "new.txt").write_text("half\udcff")
    assert names(tmp_path) == ["export", "export/old.txt"]
    assert (path / "old.txt").read_text() == "old"


def test_a_directory_starts_empty_after_a_crash(tmp_path: Path) -> None:
    """What a killed process of the same id left behind is not taken for new content."""
    with atomic_directory(tmp_path / "export") as temporary:
        left_behind = temporary
    left_behind.mkdir()
    (left_behind / "stale.txt").write_text("stale")
    with atomic_directory(tmp_path / "export") as temporary:
        (temporary / "new.txt").write_text("new")
    assert names(tmp_path) == ["export", "export/new.txt"]


def test_a_directory_whose_publication_fails_keeps_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rename of the new directory fails after the old one was moved aside: the old one comes back."""
    path = tmp_path / "export"
    path.mkdir()
    (path / "old.txt").write_text("old")
    rename, calls = os.rename, []

    def failing(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise OSError("disk trouble")
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    monkeypatch.setattr(artifacts, "_exchange", lambda *_: False)
    with pytest.raises(OSError, match="disk trouble"), atomic_directory(path) as temporary:
        (temporary / "new.txt").write_text("new")
    assert len(calls) >= 2
    assert names(tmp_path) == ["export", "export/old.txt"]


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_directory_is_replaced_by_an_exchange_where_the_system_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_exchange: bool
) -> None:
    """An exchange leaves no instant without the directory; two renames do, so they are for other systems only."""
    if can_exchange and sys.platform != "linux":
        pytest.skip("no exchange of names here")
    path, renamed, rename = tmp_path / "export", [], os.rename
    path.mkdir()
    (path / "old.txt").write_text("old")
    monkeypatch.setattr(os, "rename", lambda source, target: (renamed.append(source), rename(source, target)))
    if not can_exchange:
        monkeypatch.setattr(artifacts, "_exchange", lambda *_: False)
    with atomic_directory(path) as temporary:
        (temporary / "new.txt").write_text("new")
    assert names(tmp_path) == ["export", "export/new.txt"]
    assert len(renamed) == (0 if can_exchange else 2)


def test_json_round_trip(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None], "ü": "東京"}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value
    assert "東京" in (tmp_path / "x.json").read_text(encoding="utf-8")
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", {"path": tmp_path})
    assert read_json(tmp_path / "x.json") == value
    assert names(tmp_path) == ["x.json"]


@pytest.mark.parametrize(
    ("content", "problem"), [(None, "no such file"), (b"{", "not a readable JSON"), (b"\xff\xfe", "not a readable")]
)
def test_json_that_cannot_be_read(tmp_path: Path, content: bytes | None, problem: str) -> None:
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=problem) as caught:
        read_json(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sha256_of_a_file_larger_than_a_chunk(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5_000
    (tmp_path / "big").write_bytes(content)
    assert sha256(tmp_path / "big") == hashlib.sha256(content).hexdigest()


@pytest.fixture
def published(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.bin").write_bytes(b"a" * 10)
    (tmp_path / "sub" / "b.bin").write_bytes(b"")
    write_manifest(tmp_path, run_id="r1", versions={"uepp": "0"})
    return tmp_path


def test_manifest_lists_every_file(published: Path) -> None:
    manifest = check_manifest(published)
    assert manifest["run_id"] == "r1"
    assert manifest["files"] == {
        "a.bin": hashlib.sha256(b"a" * 10).hexdigest(),
        "sub/b.bin": hashlib.sha256(b"").hexdigest(),
    }
    write_manifest(published, run_id="r2")
    assert check_manifest(published)["files"] == manifest["files"], "a manifest does not list itself"


def test_what_is_known_of_a_file_is_not_computed_again(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr(artifacts, "sha256", lambda path: read.append(path.name) or sha256(path))
    write_manifest(published, {"a.bin": "1234", "gone.bin": "5678"}, run_id="r2")
    files = json.loads((published / MANIFEST).read_text())["files"]
    assert files == {"a.bin": "1234", "sub/b.bin": hashlib.sha256(b"").hexdigest()}
    assert read == ["b.bin"]


@pytest.mark.parametrize("has_links", [True, False])
def test_a_link_is_the_same_file_where_there_are_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("not here")

    if not has_links:
        monkeypatch.setattr(os, "link", refuse)
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("content")
    other.write_text("what was there")
    link(one, other)
    assert other.read_text() == "content"
    assert one.samefile(other) == has_links
    with atomic_file(other) as temporary:
        temporary.write_text("new")
    assert (one.read_text(), other.read_text()) == ("content", "new")


def test_manifest_finds_one_changed_byte(published: Path) -> None:
    (published / "a.bin").write_bytes(b"a" * 9 + b"b")
    with pytest.raises(InputError, match=r"a\.bin: differs from its SHA-256"):
        check_manifest(published)


def test_a_check_can_be_ended(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "_CHUNK_BYTES", 1)
    calls: list[None] = []

    def go_on() -> None:
        calls.append(None)
        if len(calls) == 4:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        check_manifest(published, go_on=go_on)
    assert len(calls) == 4, "of the ten bytes of a.bin"


def test_manifest_finds_a_truncated_file(published: Path) -> None:
    (published / "a.bin").write_bytes(b"a" * 9)
    with pytest.raises(InputError, match=r"a\.bin: differs"):
        check_manifest(published)


def test_manifest_finds_a_missing_file(published: Path) -> None:
    (published / "sub" / "b.bin").unlink()
    with pytest.raises(InputError, match=r"b\.bin: listed in manifest\.json but missing"):
        check_manifest(published)


@pytest.mark.parametrize("content", [None, b"", b"[1]", b"{}"])
def test_a_manifest_that_is_none(published: Path, content: bytes | None) -> None:
    (published / MANIFEST).unlink()
    if content is not None:
        (published / MANIFEST).write_bytes(content)
    with pytest.raises(InputError, match=r"manifest\.json") as caught:
        check_manifest(published)
    assert "\n" not in str(caught.value)


def test_fingerprints_are_stable_and_tell_apart() -> None:
    assert fingerprint({"a": 1, "b": [2]}, "x") == fingerprint({"b": [2], "a": 1}, "x")
    assert fingerprint({"a": 1}) == hashlib.sha256(json.dumps([{"a": 1}]).encode()).hexdigest()[:16]
    keys = [fingerprint(part) for part in ({"a": 1}, {"a": 2}, {"b": 1}, ["a", 1], "a", Path("a/b"))]
    assert len(set(keys)) == len(keys)
