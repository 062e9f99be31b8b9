"""One writer of an export at a time, and what a killed one leaves behind."""

import subprocess
import sys
from pathlib import Path

import pytest

from uepp.artifacts import read_json, write_manifest
from uepp.errors import InputError
from uepp.retrieval.replacing import replacing

_KILLED = """
import os, sys
from pathlib import Path
from uepp import artifacts
from uepp.retrieval.replacing import replacing
exchange = artifacts._exchange
def killed(one, other):
    if sys.argv[2] == "after":
        assert exchange(one, other), "this system cannot exchange names"
    os._exit(9)
artifacts._exchange = killed
with replacing(Path(sys.argv[1])) as folder:
    (folder / "new").write_text("new")
    if sys.argv[2] == "while":
        os._exit(9)
"""


def names(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


@pytest.fixture
def export(tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "export"
    folder.mkdir(parents=True)
    (folder / "old").write_text("old")
    write_manifest(folder, run_id="one")
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere two renames take the place of an exchange")
@pytest.mark.parametrize(
    ("moment", "left"), [("while", ["manifest.json", "old"]), ("before", ["manifest.json", "old"]), ("after", ["new"])]
)
def test_a_kill_leaves_the_old_or_the_new_and_the_next_one_tidies_up(
    export: Path, moment: str, left: list[str]
) -> None:
    ended = subprocess.run([sys.executable, "-c", _KILLED, str(export), moment], capture_output=True, check=False)
    assert ended.returncode == 9, ended.stderr
    assert names(export) == left
    assert len(list(export.parent.iterdir())) == 2, "and what was half-written, or the old one"
    with replacing(export) as folder:
        (folder / "next").write_text("next")
    assert names(export.parent) == ["export/next"]


def test_two_do_not_write_at_once(export: Path) -> None:
    with replacing(export) as folder:
        with pytest.raises(InputError, match="another process is writing it"), replacing(export):
            pass
        (folder / "new").write_text("new")
    assert names(export.parent) == ["export/new"]
    with replacing(export) as folder:
        (folder / "newer").write_text("newer")
    assert names(export) == ["newer"]


def test_what_was_made_for_another_export_does_not_replace_this_one(export: Path) -> None:
    seen = read_json(export / "manifest.json")
    with replacing(export, seen) as folder:
        write_manifest(folder, run_id="one", catalogue={"refresh": 1})
    with pytest.raises(InputError, match="was replaced meanwhile"), replacing(export, seen):
        pass
    assert names(export.parent) == ["export/manifest.json"]
    assert read_json(export / "manifest.json")["catalogue"] == {"refresh": 1}
