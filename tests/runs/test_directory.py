"""Where a run may be, and what it keeps of its settings."""

from pathlib import Path

import pytest

from uepp.artifacts import read_json
from uepp.config import Config, load_config
from uepp.errors import InputError
from uepp.runs import directory
from uepp.runs.directory import check_run, open_run

FREE = "settings of training"


def of_data(path: str, **stages: dict[str, int]) -> Config:
    return Config.model_validate({"data": {"path": path}, **stages})


def resumed(config: Config, run: Path) -> None:
    check_run(config, run, "train", resume=True, fixed=("data", "negatives"), free=FREE)


def test_a_run_goes_on_however_its_data_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    open_run(of_data("data"), run, "train", resume=False)
    resumed(of_data(str(tmp_path / "data")), run)
    resumed(of_data("data/../data"), run)
    monkeypatch.chdir(tmp_path / "data")
    resumed(load_config(str(run / "config.yaml")), run)
    resumed(of_data("../data"), run)
    with pytest.raises(
        InputError, match=rf"--resume with data\.path = .*elsewhere.*, the run has .*data.*; only {FREE}"
    ):
        resumed(of_data("elsewhere"), run)
    with pytest.raises(InputError, match=r"--resume with negatives\.num_uniform = 7, the run has \d+"):
        resumed(of_data("../data", negatives={"num_uniform": 7}), run)


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"run: cannot be made, .*file is a file"):
        check_run(Config(), tmp_path / "file" / "deep" / "run", "train", resume=False, fixed=(), free=FREE)
    with pytest.raises(InputError, match=r"run: cannot be made \(Not a directory\)"):
        open_run(Config(), tmp_path / "file" / "run", "train", resume=False)


def test_a_run_that_is_killed_as_it_begins_is_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its two files a run of another command passed for one of uepp train, and none of its own went on."""

    def killed(_: Config, path: Path) -> None:
        path.with_name(".config.yaml.7.tmp").write_text("")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(directory, "save_config", killed)
        with pytest.raises(KeyboardInterrupt):
            open_run(Config(), tmp_path, "pretrain", resume=False)
    with pytest.raises(InputError, match=r"nothing to resume, .*; leave out --resume to start a run there"):
        check_run(Config(), tmp_path, "pretrain", resume=True, fixed=(), free=FREE)
    check_run(Config(), tmp_path, "relevance train", resume=False, fixed=(), free=FREE)
    open_run(Config(), tmp_path, "relevance train", resume=False)
    assert read_json(tmp_path / "run.json")["command"] == "relevance train"
    with pytest.raises(InputError, match="not empty; give --resume"):
        check_run(Config(), tmp_path, "relevance train", resume=False, fixed=(), free=FREE)
