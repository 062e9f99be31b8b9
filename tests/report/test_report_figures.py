"""What is drawn: every row under its own name, and days that can be read however many there are."""

import re
from datetime import date, timedelta

import pytest

from uepp.config import shipped_studies
from uepp.evaluation.systems import LABELS
from uepp.report import figures
from uepp.report.drawing import Drawn
from uepp.study import load_study


def words(drawn: Drawn) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", drawn.svg)


@pytest.mark.parametrize("name", shipped_studies())
def test_every_row_of_a_study_has_its_own_name(name: str) -> None:
    """Names were cut at 30 letters: three rows of `loss` were all "short fields: softmax with lo…"."""
    study = load_study(name)
    systems = [f"{variant}, with tuned BM25 (RRF)" for variant in study.variants if "fusion" in study.also]
    rows = [*study.variants, *systems, *(LABELS[name] for name in study.against)]
    drawn = figures.ablation("study", name, [(row, [0.5, 0.6]) for row in rows], {}, "recall")
    assert "…" not in "".join(words(drawn))
    assert "".join(rows).replace(" ", "") in "".join(words(drawn)).replace(" ", "").replace("&lt;", "<")


def test_a_name_beyond_two_lines_keeps_its_end() -> None:
    long = "one and the same beginning of all these variants of a study, but number "
    drawn = figures.ablation("s", "s", [(f"{long}{number}", [0.5]) for number in (1, 2)], {}, "recall")
    said = words(drawn)
    assert sum(text.startswith("one and the same") and text.endswith("…") for text in said) == 2
    assert [text[-1] for text in said if text.endswith(("number 1", "number 2"))] == ["1", "2"]


def test_opponents_that_are_near_are_named_in_the_figure_of_a_study() -> None:
    """They were lines of one colour and kind, and nobody could say whose each was."""
    near = {"BM25, tuned": 0.80, "random walk": 0.86}
    drawn = figures.ablation("s", "s", [("a", [0.8, 0.82]), ("b", [0.9])], {**near, "popularity": 0.1}, "recall")
    shown = [text for text in words(drawn) if text in {"a", "b", *near, "popularity"}]
    assert shown == ["a", "b", *near], "a row each; one that is far below would squeeze the others"


@pytest.mark.parametrize("num_days", [1, 5, 10, 21, 22, 150])
def test_days_are_not_written_over_each_other(num_days: int) -> None:
    days = [str(date(2024, 1, 1) + timedelta(days=day)) for day in range(num_days)]
    drawn = figures.by_day(days, {"this run": [0.41] * num_days, "tuned BM25": [0.4] * num_days}, 100)
    ticks = [text for text in words(drawn) if re.fullmatch(r"\d\d-\d\d", text)]
    assert ticks[0] == "01-01"
    assert len(ticks) == num_days if num_days < 8 else 5 <= len(ticks) <= 7
    found = re.findall(r'<text[^>]* x="(\S+)" y="(\S+)"[^>]*>([^<]*)<', drawn.svg)
    places = {text: (x, y) for x, y, text in found}
    assert places["this run"] != places["tuned BM25"], "equal lines had their names at the same place"


def test_of_many_days_the_means_of_seven_are_joined() -> None:
    num_days = 150
    days = [str(date(2024, 1, 1) + timedelta(days=day)) for day in range(num_days)]
    values = [None if day == 70 else 0.2 + 0.1 * (day % 7) for day in range(num_days)]
    drawn = figures.by_day(days, {"this run": values}, 100)
    drawn_lines = [re.findall(r'<use [^>]*y="([\d.]+)"', part) for part in drawn.svg.split('<g id="line2d_')]
    (dots,) = (points for points in drawn_lines if len(points) == num_days - 1)
    (means,) = (points for points in drawn_lines if len(points) == 22)
    assert len(set(dots)) == 7
    of_whole = [mean for seven, mean in enumerate(means) if seven not in (10, 21)]
    assert len(set(of_whole)) == 1
    assert float(of_whole[0]) == pytest.approx(float(dots[3])), ".5, as the fourth day of each"
    assert float(means[10]) < float(of_whole[0]) < float(means[21]), "without .2 it is higher; .2, .3 and .4 are left"
