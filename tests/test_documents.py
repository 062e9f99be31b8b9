"""What the documents say of settings is what the code does."""

import re
from pathlib import Path

import pytest
import yaml

from uepp.config import Config, load_config, shipped_configs
from uepp.evaluation.systems import LABELS
from uepp.study import load_study

ROOT = Path(__file__).parents[1]


def settings_in_the_table() -> dict[str, str]:
    rows = re.findall(r"^\| `(\w+\.\w+)` \| (.*?) \| .* \| .* \|$", (ROOT / "docs/architecture.md").read_text(), re.M)
    return {key: default for key, default in rows if key.split(".")[0] in Config.model_fields}


def test_the_table_of_settings_holds_every_key_with_its_default() -> None:
    table = settings_in_the_table()
    defaults = {
        f"{stage}.{key}": value
        for stage, keys in Config().model_dump(mode="json").items()
        for key, value in keys.items()
    }
    assert table.keys() == defaults.keys()
    for key, text in table.items():
        value = None if text == "none" else yaml.safe_load(text)
        assert value == defaults[key], key


@pytest.mark.parametrize("name", ["base", "large_vocab", "etsy"])
def test_what_is_beyond_the_paper_is_off_in_its_configurations(name: str) -> None:
    config = load_config(name)
    assert config.loss.power == 1
    assert config.model.initial_projection == "independent"
    assert not config.model.idf_start
    assert not config.model.normalize_groups
    assert config.training.title_query_share == 0
    assert config.training.token_dropout == 0
    assert "click" not in config.training.positive_types


@pytest.mark.parametrize("name", shipped_configs())
def test_a_shipped_configuration_says_its_command(name: str) -> None:
    text = (ROOT / "configs" / f"{name}.yaml").read_text()
    command = "uepp relevance sts" if name == "sts" else "uepp train"
    assert command in text.split("\n\n")[0]
    load_config(name)


def test_the_readme_has_the_test_command_that_ci_runs() -> None:
    readme = (ROOT / "README.md").read_text()
    block = re.search(r"<!-- tests -->\n```bash\n(.+)\n```\n<!-- /tests -->", readme)
    assert block is not None
    assert "-m pytest" in block.group(1)


def test_the_readme_has_the_closing_table_as_it_is_written() -> None:
    """`table.md` of a run, pasted: headings, names of systems, and the best of each column in bold."""
    readme = (ROOT / "README.md").read_text()
    block = re.search(r"<!-- table.md -->\n(.+?)\n<!-- /table.md -->", readme, re.S)
    assert block is not None
    heading, _, *lines = block.group(1).splitlines()
    assert heading == "| system | R@10 | R@100 | R@1000 | head R@100 | torso R@100 | tail R@100 | new R@100 |"
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert {row[0] for row in rows} <= set(LABELS.values())
    for column in list(zip(*rows, strict=True))[1:]:
        best = max(float(cell.strip("*")) for cell in column)
        assert all(
            cell == (f"**{best:.3f}**" if float(cell.strip("*")) == best else cell.strip("*")) for cell in column
        )


@pytest.mark.parametrize("name", ["public_home_depot", "public_open_ecommerce"])
def test_the_readme_has_the_table_of_a_public_study_as_it_is_written(name: str) -> None:
    """`table.md` of the study, without some columns: its variants, each with what `also` makes of it, its opponents."""
    readme = (ROOT / "README.md").read_text()
    block = re.search(rf"<!-- {name} -->\n(.+?)\n<!-- /{name} -->", readme, re.S)
    assert block is not None
    assert f"uepp study {name} --data DIR" in readme
    heading, _, *lines = block.group(1).splitlines()
    assert heading.startswith("| variant | seeds | R@10 | R@100 | R@1000 | R@100, 95% |")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    study = load_study(name)
    ours = [row for variant in study.variants for row in (variant, f"{variant}, with tuned BM25 (RRF)")]
    assert [row[0] for row in rows] == [*ours, *(LABELS[one] for one in study.against)]
    for row in rows:
        assert row[1] == (str(len(study.seeds)) if row[0] in ours else "–")
        assert ("±" in row[3]) == (row[0] in ours)
        low, high = (float(end) for end in row[5].split(" to "))
        assert low < float(row[3].split()[0]) < high
