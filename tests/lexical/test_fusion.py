"""Reciprocal rank fusion against a loop over its definition."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uepp.errors import InputError
from uepp.lexical.fusion import FusionSettings, fuse, tune


def by_definition(rankings: list[list[int]], weights: list[float], constant: float) -> list[tuple[int, float]]:
    """One query: (product, score), best first."""

    def place(ranking: list[int], product: int) -> float:
        return ranking.index(product) + 1 if product in ranking else float("inf")

    products = {product for ranking in rankings for product in ranking if product >= 0}
    score = {
        product: sum(
            weight / (constant + place(ranking, product)) for ranking, weight in zip(rankings, weights, strict=True)
        )
        for product in products
    }
    # places before product index; scores that differ by rounding only would be a tie of the definition
    key = {product: (-score[product], *(place(ranking, product) for ranking in rankings), product) for product in score}
    return [(product, score[product]) for product in sorted(products, key=key.__getitem__)]


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[list[int]], int]:
    rankings = []
    for _ in range(draw(st.integers(1, 3))):
        size = draw(st.integers(0, 6))
        ranking = draw(st.permutations(range(9)))[:size]
        rankings.append([*ranking, *[-1] * (6 - size)])
    return rankings, draw(st.integers(1, 12))


@settings(deadline=None, max_examples=60)
@given(problems())
def test_it_is_the_definition(problem: tuple[list[list[int]], int]) -> None:
    rankings, k = problem
    found, scores = fuse([np.array([ranking]) for ranking in rankings], k)
    assert found.shape == scores.shape == (1, k)
    expected = by_definition(rankings, [1.0] * len(rankings), 60)[:k]
    num_found = int((found >= 0).sum())
    assert num_found == len(expected)
    assert found[0, :num_found].tolist() == [product for product, _ in expected]
    assert scores[0, :num_found] == pytest.approx([score for _, score in expected], rel=1e-6)
    assert (found[0, num_found:] == -1).all()
    assert (scores[0, num_found:] == 0).all()


def test_the_formula_by_hand() -> None:
    towers, lexical = np.array([[7, 3]]), np.array([[3, 5]])
    found, scores = fuse([towers, lexical], 3)
    assert found.tolist() == [[3, 7, 5]]
    assert scores[0] == pytest.approx([1 / 62 + 1 / 61, 1 / 61, 1 / 62])


def test_a_tie_goes_to_the_first_ranking() -> None:
    found, scores = fuse([np.array([[9]]), np.array([[2]])], 2)
    assert scores[0, 0] == scores[0, 1]
    assert found.tolist() == [[9, 2]]


def test_a_weight_turns_the_order() -> None:
    rankings = [np.array([[9]]), np.array([[2]])]
    assert fuse(rankings, 2, weights=[1, 2])[0].tolist() == [[2, 9]]


def test_queries_do_not_mix() -> None:
    one, other = np.array([[1, 2], [3, -1]]), np.array([[2, 4, 6], [-1, -1, -1]])
    found, _ = fuse([one, other], 4)
    assert found.tolist() == [[2, 1, 4, 6], [3, -1, -1, -1]]
    assert fuse([one[1:], other[1:]], 4)[0].tolist() == [[3, -1, -1, -1]]


def test_no_queries() -> None:
    found, scores = fuse([np.empty((0, 3), int)], 2)
    assert found.shape == scores.shape == (0, 2)


@pytest.mark.parametrize(
    ("rankings", "options"),
    [
        ([], {}),
        ([[[1]], [[1], [2]]], {}),
        ([[[1]]], {"k": 0}),
        ([[[1]]], {"weights": [1, 1]}),
        ([[[1]]], {"weights": [0]}),
        ([[[1]]], {"constant": -1}),
    ],
)
def test_what_makes_no_sense_is_refused(rankings: list[Any], options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        fuse([np.array(ranking) for ranking in rankings], **{"k": 1, **options})


def rankings_of(rng: np.random.Generator, targets: np.ndarray, last: int) -> np.ndarray:
    """Of 40 products, 12 of each request, with its target at a place up to `last`."""
    rows = np.array([rng.permutation(40)[:12] for _ in targets])
    for row, target, place in zip(rows, targets, rng.integers(0, last, len(targets)), strict=True):
        row[row == target] = row[place]
        row[place] = target
    return rows


def test_recall_of_each_setting_is_that_of_its_fusion() -> None:
    rng = np.random.default_rng(3)
    wanted = rng.integers(0, 40, 30)
    towers, by_words = rankings_of(rng, wanted, 12), rankings_of(rng, wanted, 12)
    by_words[:5, 6:] = -1
    targets = [[int(target), 39] for target in wanted]
    targets[4].append(-1)  # a miss
    targets[7] = []  # says nothing
    tuned = tune(towers, by_words, targets, k=14)
    assert tuned["num_requests"] == 29
    assert len(tuned["tried"]) == 54
    for row in tuned["tried"]:
        for depth in (10, 14):
            found = FusionSettings(row["weight"], row["constant"]).fuse(towers, by_words, depth)[0]
            recalls = [
                len(set(targets[n]) & set(found[n].tolist()) - {-1}) / len({*targets[n]})
                for n in range(30)
                if targets[n]
            ]
            assert row[f"recall@{depth}"] == pytest.approx(np.mean(recalls), abs=1e-4)
    best = max(row["recall@14"] for row in tuned["tried"])
    assert tuned["recall@14"] >= best - 0.0031
    chosen = next(
        row for row in tuned["tried"] if (row["weight"], row["constant"]) == (tuned["weight"], tuned["constant"])
    )
    assert tuned["recall@10"] == chosen["recall@10"]


@pytest.mark.parametrize(("last_of_towers", "last_of_words", "heavier"), [(7, 12, True), (12, 7, False)])
def test_the_better_ranking_weighs_more(last_of_towers: int, last_of_words: int, heavier: bool) -> None:
    rng = np.random.default_rng(4)
    wanted = rng.integers(0, 40, 200)
    towers, by_words = rankings_of(rng, wanted, last_of_towers), rankings_of(rng, wanted, last_of_words)
    tuned = tune(towers, by_words, [[int(target)] for target in wanted], k=4)
    assert (tuned["weight"] > 1) == heavier
    assert tuned["recall@4"] > max(row["recall@4"] for row in tuned["tried"] if row["weight"] == 1)


def test_the_defaults_stay_where_nothing_is_better() -> None:
    same = np.array([[1, 2, 3]] * 4)
    assert {"weight": 1.0, "constant": 60.0}.items() <= tune(same, same, [[1], [2], [3], [9]]).items()
    nobody = tune(np.zeros((0, 0), int), np.zeros((0, 0), int), [])
    assert nobody == {"weight": 1.0, "constant": 60.0, "num_requests": 0}


def test_settings_are_read_or_refused(tmp_path: Path) -> None:
    assert FusionSettings.read(tmp_path) == FusionSettings(1.0, 60.0)
    (tmp_path / "fusion.json").write_text('{"weight": 2, "constant": 5.0, "num_requests": 3}')
    assert FusionSettings.read(tmp_path) == FusionSettings(2.0, 5.0)
    for text in ('{"weight": 0, "constant": 5}', '{"weight": 1}', "[]"):
        (tmp_path / "fusion.json").write_text(text)
        with pytest.raises(InputError, match=r"fusion.json: "):
            FusionSettings.read(tmp_path)
