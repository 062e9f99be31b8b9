"""A run's directory: where it may be, what is in it from the start, and where its data comes from."""

import resource
import shutil
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from uepp.artifacts import locked_directory, make_directory, nearest_existing, read_json, write_json
from uepp.config import Config, load_config, save_config
from uepp.data.marketplace import generate
from uepp.data.schema import Report, validate
from uepp.errors import InputError

COSTS = "costs.json"
"""Of a run: `seconds` by stage, and `peak_memory_bytes` of the process."""


def check_run(config: Config, run_dir: Path, command: str, *, resume: bool, fixed: Sequence[str], free: str) -> None:
    """Refuse a directory that this run cannot have, before anything is written.

    Args:
        config: of the run.
        run_dir: a new or empty directory; with `resume` one that has a run.
        command: `train`, `pretrain` or `relevance train`, whose run it is.
        resume: whether to go on with what is there.
        fixed: stages of the configuration that a resumed run keeps.
        free: the other ones in words.

    Raises:
        InputError: it is in use, or there is nothing to resume, or it is another command's, or a fixed stage differs.
    """
    exists = (run_dir / "config.yaml").exists()
    if resume and not exists:
        raise InputError(
            f"{run_dir}: nothing to resume, it has no config.yaml; leave out --resume to start a run there"
        )
    if set("*?[]") & set(str(run_dir)):
        raise InputError(f"{run_dir}: TensorFlow takes * ? [ ] in a path for a pattern; name another --run directory")
    if run_dir.exists() and not run_dir.is_dir():
        raise InputError(f"{run_dir}: is a file; give a new or empty directory with --run")
    if not resume and run_dir.exists() and not all(map(_is_of_no_run, run_dir.iterdir())):
        raise InputError(f"{run_dir}: not empty; give --resume to continue a run, or another --run directory")
    if not (above := nearest_existing(run_dir)).is_dir():
        raise InputError(f"{run_dir}: cannot be made, {above} is a file; name another directory with --run")
    if resume:
        _refuse_other_command(run_dir, command)
        kept = _kept_config(run_dir)
        for stage in fixed:
            _refuse_other_settings(config, kept, run_dir, stage, (), free)


def open_run(config: Config, run_dir: Path, command: str, *, resume: bool) -> None:
    """Write `config.yaml`, in which the data's path holds wherever one stands, and in a new run `run.json`."""
    make_directory(run_dir)
    if not resume:  # before config.yaml, which makes a directory a run: whose it is stays unknown at no time
        created = datetime.now().astimezone().isoformat()
        write_json(run_dir / "run.json", {"run_id": uuid.uuid4().hex, "command": command, "created": created})
    save_config(_with_absolute_path(config), run_dir / "config.yaml")


def _is_of_no_run(path: Path) -> bool:
    """Whether all that a file tells is that a run was killed before its settings were written."""
    is_before = path.name == "run.json" or (path.name.startswith(".") and path.name.endswith(".tmp"))
    return is_before and not (path.parent / "config.yaml").exists()


def refuse_changes(config: Config, run_dir: Path, stage: str, free: Sequence[str]) -> None:
    """Refuse other settings of a stage than its run's checkpoints were made with.

    Args:
        config: with which the run is to be resumed.
        run_dir: the run.
        stage: of the configuration.
        free: settings that may change.

    Raises:
        InputError: another one differs.
    """
    _refuse_other_settings(config, _kept_config(run_dir), run_dir, stage, free, ", ".join(free))


def _kept_config(run_dir: Path) -> Config:
    return load_config(str(run_dir / "config.yaml"))


def _refuse_other_settings(
    config: Config, kept: Config, run_dir: Path, stage: str, free: Sequence[str], in_words: str
) -> None:
    old, new = (getattr(_with_absolute_path(each), stage).model_dump() for each in (kept, config))
    for key in (key for key in old if key not in free):
        if old[key] != new[key]:
            raise InputError(
                f"{run_dir}: --resume with {stage}.{key} = {new[key]!r}, the run has {old[key]!r}; only "
                f"{in_words} may change in a run, start a new one with --run"
            )


def _with_absolute_path(config: Config) -> Config:
    if config.data.path is None:
        return config
    data = config.data.model_copy(update={"path": str(Path(config.data.path).resolve())})
    return config.model_copy(update={"data": data})


def add_facts(run_dir: Path, **facts: str) -> None:
    """Add what has become known to a run's `run.json`."""
    write_json(run_dir / "run.json", {**read_json(run_dir / "run.json"), **facts})


@contextmanager
def nothing_left(run_dir: Path, resume: bool) -> Iterator[None]:
    """Bad input that shows late leaves no half-made run behind."""
    try:
        yield
    except InputError:
        if not resume:
            shutil.rmtree(run_dir)
        raise


def command_of(run_dir: Path) -> str:
    """The command whose run a directory is: `train`, `pretrain` or `relevance train`."""
    facts = read_json(run_dir / "run.json") if (run_dir / "run.json").exists() else {}
    return str(facts.get("command", "train"))


def _refuse_other_command(run_dir: Path, command: str) -> None:
    own = command_of(run_dir)
    if own != command:
        raise InputError(f"{run_dir}: is a run of uepp {own}, not of uepp {command}; continue it with uepp {own}")


def data_path(config: Config, run_dir: Path) -> Path:
    """`data.path`; without one a marketplace beside the run, be it there or not."""
    if config.data.path is not None:
        return Path(config.data.path)
    market = config.marketplace
    return run_dir.parent / f"marketplace-{market.num_products}-{market.num_events}-{market.seed}"


def data_directory(config: Config, run_dir: Path) -> Path:
    """`data_path`; a marketplace that is not there yet is generated."""
    directory, market = data_path(config, run_dir), config.marketplace
    if config.data.path is None and not directory.exists():
        generate(directory, num_products=market.num_products, num_events=market.num_events, seed=market.seed)
    return directory


def checked_data(config: Config, run_dir: Path, console: Console) -> tuple[Path, Report]:
    """`data_directory`, validated; what validation notes is printed.

    Raises:
        InputError: the first thing that is wrong with the data.
    """
    directory = data_directory(config, run_dir)
    report = validate(directory)
    for note in report.notes:
        console.print(f"  note: {note}", markup=False, highlight=False, soft_wrap=True)
    return directory, report


@contextmanager
def announced(console: Console, name: str, *, run_dir: Path | None = None, adds: bool = False) -> Iterator[None]:
    """Say what begins and how long it took, and keep it in the run's `costs.json`.

    Args:
        console: for progress.
        name: of the stage.
        run_dir: the run whose stage it is; none: nothing is kept.
        adds: to the time that the stage took before, which it goes on with.
    """
    console.print(f"[bold]{name}[/bold] …")
    begin = time.perf_counter()
    yield
    seconds = time.perf_counter() - begin
    console.print(f"  {name}: {seconds:.0f} s", highlight=False)
    if run_dir is not None:
        _keep_cost(run_dir, name, seconds, adds)


@contextmanager
def made_alone(directory: Path, console: Console) -> Iterator[None]:
    """Only one process at a time makes what a directory is to hold; the others wait, and look at what is there then."""
    make_directory(directory)
    with locked_directory(directory, lambda: console.print("another process is making this; waiting for it …")):
        yield


def add_cost(run_dir: Path, **figures: Any) -> None:
    """Keep other figures in the run's `costs.json`."""
    write_json(run_dir / COSTS, {**read_costs(run_dir), **figures})


def read_costs(run_dir: Path) -> dict[str, Any]:
    """What `costs.json` of a run holds; `seconds` is empty where nothing was kept yet."""
    path = run_dir / COSTS
    return read_json(path) if path.exists() else {"seconds": {}}


def _keep_cost(run_dir: Path, name: str, seconds: float, adds: bool) -> None:
    costs = read_costs(run_dir)
    before = costs["seconds"].get(name, 0) if adds else 0
    costs["seconds"][name] = round(before + seconds, 1)
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    costs["peak_memory_bytes"] = max(costs.get("peak_memory_bytes", 0), peak)
    write_json(run_dir / COSTS, costs)
