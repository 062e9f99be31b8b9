"""What an evaluation keeps until it has its figures, beside another one of the same run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from uepp.evaluation import unfinished as module
from uepp.evaluation.measures import Measured
from uepp.evaluation.unfinished import Unfinished

MEASURED = Measured({"all": {"recall@10": np.array([0.0, 1.0]), "mrr@10": np.array([0.5, np.nan])}}, {"num_results": 3})
CHOSEN = {"bm25_quality": {"weights": [0.1]}}


def test_what_was_kept_comes_back(tmp_path: Path) -> None:
    Unfinished(tmp_path / "u", "v").put("bm25", MEASURED, CHOSEN)
    found = Unfinished(tmp_path / "u", "v").get("bm25")
    assert found is not None
    assert found[1] == CHOSEN
    assert found[0].locality == MEASURED.locality
    assert list(found[0].values["all"]) == ["recall@10", "mrr@10"]
    for name, values in MEASURED.values["all"].items():
        np.testing.assert_array_equal(found[0].values["all"][name], values)
    assert Unfinished(tmp_path / "u", "other").get("bm25") is None
    assert not (tmp_path / "u" / "v").exists(), "what was measured of something else is removed"


def test_an_evaluation_removes_only_its_own(tmp_path: Path) -> None:
    one, other = (Unfinished(tmp_path / "u", "v") for _ in range(2))
    one.put("uepp", MEASURED, {})
    other.put("bm25", MEASURED, {})
    other.end()
    assert other.get("bm25") is None
    assert Unfinished(tmp_path / "u", "v").get("uepp") is not None, "the other's end removed it"
    last = Unfinished(tmp_path / "u", "v")
    assert last.get("uepp") is not None
    last.end()
    assert not (tmp_path / "u").exists()
    one.end()


def test_the_end_of_another_evaluation_while_a_system_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder went away under the file, and the evaluation ended with a FileNotFoundError."""
    one, other = (Unfinished(tmp_path / "u", "v") for _ in range(2))
    other.put("bm25", MEASURED, {})
    keep = module.atomic_file

    @contextmanager
    def late(path: Path) -> Iterator[Path]:
        monkeypatch.setattr(module, "atomic_file", keep)
        with keep(path) as temporary:
            other.end()
            assert not path.parent.exists()
            yield temporary

    monkeypatch.setattr(module, "atomic_file", late)
    one.put("uepp", MEASURED, {})
    assert one.get("uepp") is not None


@pytest.mark.parametrize("content", [b"", b"PK", b"no archive"], ids=["empty", "cut", "other"])
def test_a_damaged_file_is_measured_again(tmp_path: Path, content: bytes) -> None:
    kept = Unfinished(tmp_path / "u", "v")
    kept.put("bm25", MEASURED, {})
    (tmp_path / "u" / "v" / "bm25.npz").write_bytes(content)
    assert kept.get("bm25") is None
    kept.put("bm25", MEASURED, {})
    assert kept.get("bm25") is not None
