"""The one order of the parts, who may import what, and what answers at once."""

import ast
import configparser
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "uepp"

# docs/architecture.md: a part imports only from parts of an earlier row, or from itself.
ORDER = (
    ("errors", "tensorflow_import", "terminal"),
    ("index_families",),
    ("config", "artifacts", "metrics"),
    ("data",),
    ("runs",),
    ("features",),
    ("lexical",),
    ("pretraining",),
    ("model",),
    ("training",),
    ("retrieval",),
    ("relevance",),
    ("serving",),
    ("evaluation",),
    ("pipeline",),
    ("study",),
    ("report",),
    ("cli",),
)
RANK = {part: rank for rank, parts in enumerate(ORDER) for part in parts}
# Settings are written as a file, and a manifest is of the settings: these know each other.
SAME_ROW = {("config", "artifacts")}


def sources() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """Full names of everything a file imports, wherever in the file, and the line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = path.relative_to(ROOT).parent.parts
                base = ".".join([*parents[: len(parents) - node.level + 1], *([base] if base else [])])
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def violations(path: Path) -> list[str]:
    part, found = part_of(path), []
    for name, line in imported(path):
        package, _, rest = name.partition(".")
        target = rest.split(".")[0]
        if package != "uepp" or target not in RANK or target == part or (part, target) in SAME_ROW:
            continue
        if RANK[target] >= RANK[part]:
            found.append(f"{path.relative_to(ROOT)}:{line} imports {name}, but {part} comes before {target}")
    return found


def test_every_part_has_its_place_in_the_order() -> None:
    parts = {part_of(path) for path in sources()} - {"__init__", "__main__", "configs"}
    assert parts <= RANK.keys()
    assert {"config", "data", "features", "model", "training"} <= parts


def test_imports_follow_the_order() -> None:
    inner = [
        name
        for path in sources()
        for name, _ in imported(path)
        if name.startswith("uepp.") and name.split(".")[1] != part_of(path)
    ]
    assert len(inner) > 30, "imports are found at all"
    assert [violation for path in sources() if part_of(path) in RANK for violation in violations(path)] == []


@pytest.mark.parametrize(
    "line",
    [
        "from uepp.training.trainer import fit",
        "import uepp.model.towers",
        "from uepp import cli",
        "from ..serving import x",
    ],
)
def test_a_wrong_import_would_be_found(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path / "uepp")
    wrong = tmp_path / "uepp" / "features" / "wrong.py"
    wrong.parent.mkdir(parents=True)
    wrong.write_text(f"def late():\n    {line}\n")
    assert len(violations(wrong)) == 1


def users_of(*packages: str) -> set[str]:
    return {
        str(path.relative_to(PACKAGE))
        for path in sources()
        for name, _ in imported(path)
        if name.split(".")[0] in packages
    }


def test_recommenders_stay_in_two_modules() -> None:
    assert users_of("tensorflow_recommenders") == {"training/trainer.py", "training/optimizers.py"}


def test_an_encoder_knows_no_other() -> None:
    """Adding one, or taking one away, touches its own file and the table of encoders."""
    encoders = {path.stem: path for path in (PACKAGE / "model" / "encoders").glob("*.py")}
    names = encoders.keys() - {"__init__", "base"}
    assert {"tokens", "shop", "location", "graph", "history"} <= names
    for name in names:
        used = {module.removeprefix("uepp.model.encoders.").split(".")[0] for module, _ in imported(encoders[name])}
        assert not used & (names - {name}), name
        users = {
            str(path.relative_to(PACKAGE))
            for path in sources()
            for module, _ in imported(path)
            if module.startswith(f"uepp.model.encoders.{name}.")
        }
        assert users == {"model/encoders/__init__.py"}, name


def test_keras_3_is_in_its_folders_only() -> None:
    users = users_of("keras", "keras_hub", "keras_nlp", "keras_rs")
    assert {user for user in users if not user.startswith("pretraining/")} == {"relevance/cross_encoder.py"}
    assert len(users) > 1


def test_negatives_are_sampled_without_tensorflow() -> None:
    """A process that loads data may sample them."""
    assert loaded_after("import uepp.relevance.samplers") == []


def test_what_a_text_encoder_is_written_and_opened_with_knows_no_keras_3() -> None:
    for module in ("uepp.features.text_encoder", "uepp.pretraining.encoder", "uepp.pretraining.pairs"):
        assert not {"keras", "keras_hub"} & set(loaded_after(f"import {module}")), module


HEAVY = (
    "tensorflow", "tensorflow_text", "tensorflow_recommenders", "tf_keras", "keras", "keras_hub", "faiss", "skopt",
    "sklearn", "pyspark",
)  # fmt: skip


def loaded_after(statement: str) -> list[str]:
    code = f"import json, sys\n{statement}\nprint(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert finished.returncode == 0, finished.stderr[-2_000:]
    return json.loads(finished.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize("module", ["uepp", "uepp.config", "uepp.cli", "uepp.data.schema"])
def test_what_answers_at_once_loads_nothing_heavy(module: str) -> None:
    assert loaded_after(f"import {module}") == []


def test_heavy_modules_would_be_seen() -> None:
    assert loaded_after("import faiss") == ["faiss"]


# Keras 2 (uepp/tensorflow_import.py). A stand-in keeps these fast: only its place in sys.modules matters.

_FAKE = "import os, sys, types; sys.modules['tensorflow'] = types.ModuleType('tensorflow'); "


def imported_uepp(before: str) -> subprocess.CompletedProcess[str]:
    code = f"import os; os.environ.pop('TF_USE_LEGACY_KERAS', None); {before}"
    code += "import uepp; print(os.environ['TF_USE_LEGACY_KERAS'])"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def test_uepp_chooses_keras_2() -> None:
    assert imported_uepp("").stdout.strip() == "1"
    assert imported_uepp("os.environ['TF_USE_LEGACY_KERAS'] = '0'; ").stdout.strip() == "1"


@pytest.mark.parametrize("value", [None, "0"])
def test_tensorflow_with_keras_3_before_uepp_is_refused(value: str | None) -> None:
    finished = imported_uepp(_FAKE + (f"os.environ['TF_USE_LEGACY_KERAS'] = {value!r}; " if value else ""))
    assert finished.returncode == 1
    assert "ImportError: TensorFlow was imported before uepp" in finished.stderr
    assert "TF_USE_LEGACY_KERAS=1" in finished.stderr


def test_tensorflow_with_keras_2_before_uepp_is_fine() -> None:
    finished = imported_uepp(_FAKE + "os.environ['TF_USE_LEGACY_KERAS'] = '1'; ")
    assert finished.returncode == 0, finished.stderr


def test_tensorflow_here_is_with_keras_2() -> None:
    import tensorflow as tf

    assert tf.keras.Model.__module__.startswith("tf_keras.")


def test_every_package_is_installed() -> None:
    """A folder that setup.cfg does not list is in a clone, but not in a wheel."""
    read = configparser.ConfigParser()
    read.read(ROOT / "setup.cfg")
    listed = set(read["options"]["packages"].split())
    folders = {path.parent.relative_to(ROOT) for path in sources() if path.name == "__init__.py"}
    assert listed == {".".join(folder.parts) for folder in folders} | {"uepp.configs"}


# What TensorFlow prints when it is loaded (uepp/tensorflow_import.py). A stand-in prints what it prints.

_PRINTS = """
import os
os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\\n")
os.write(2, b"I0000 00:00:1.2    33 cudart_stub.cc:31] Could not find cuda drivers on your machine\\n")
os.write(2, b"E0000 00:00:1.3    33 cuda.cc:1] Unable to register\\n")
{then}
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def imported(then: str = "", level: str | None = None) -> subprocess.CompletedProcess[str]:
        (tmp_path / "tensorflow.py").write_text(_PRINTS.format(then=then))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
        environment |= {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"} | (
            {"TF_CPP_MIN_LOG_LEVEL": level} if level else {}
        )
        return subprocess.run(
            [sys.executable, "-c", "import uepp, tensorflow, sys; print('after', file=sys.stderr)"],
            cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip

    return imported


def test_only_problems_are_printed_when_tensorflow_is_loaded(stand_in: Any) -> None:
    finished = stand_in()
    assert finished.stderr.splitlines() == ["E0000 00:00:1.3    33 cuda.cc:1] Unable to register", "after"]


def test_everything_is_printed_for_who_asks(stand_in: Any) -> None:
    assert len(stand_in(level="0").stderr.splitlines()) == 4


def test_a_failed_import_keeps_its_reason(stand_in: Any) -> None:
    finished = stand_in(then="raise ImportError('no such library')")
    assert finished.returncode == 1
    assert finished.stderr.startswith("E0000")
    assert finished.stderr.endswith("ImportError: no such library\n")
