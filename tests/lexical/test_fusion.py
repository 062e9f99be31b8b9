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
    for at in ((10, 14), (3,)):
        tuned = tune(towers, by_words, targets, at)
        assert tuned["num_requests"] == 29
        assert len(tuned["tried"]) == 72
        for row in tuned["tried"]:
            for depth in at:
                found = FusionSettings(row["weight"], row["constant"]).fuse(towers, by_words, depth)[0]
                recalls = [
                    len(set(targets[n]) & set(found[n].tolist()) - {-1}) / len({*targets[n]})
                    for n in range(30)
                    if targets[n]
                ]
                assert row[f"recall@{depth}"] == pytest.approx(np.mean(recalls), abs=1e-4)
        means = [np.mean([row[f"recall@{depth}"] for depth in at]) for row in tuned["tried"]]
        chosen = [row for row in tuned["tried"] if row.items() <= tuned.items()]
        assert len(chosen) == 1
        assert np.mean([tuned[f"recall@{depth}"] for depth in at]) == pytest.approx(max(means), abs=1e-4)
        assert max(means) > means[0] + 0.002, "the defaults are not the best here"
    alone = [
        len({*targets[n]} & {*row[:3].tolist()}) / len({*targets[n]}) for n, row in enumerate(towers) if targets[n]
    ]
    expected = np.mean(alone)
    assert tuned["towers"]["recall@3"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("last_of_towers", "last_of_words", "heavier"), [(7, 12, True), (12, 7, False)])
def test_the_better_ranking_weighs_more(last_of_towers: int, last_of_words: int, heavier: bool) -> None:
    rng = np.random.default_rng(4)
    wanted = rng.integers(0, 40, 200)
    towers, by_words = rankings_of(rng, wanted, last_of_towers), rankings_of(rng, wanted, last_of_words)
    tuned = tune(towers, by_words, [[int(target)] for target in wanted], (4,))
    assert (tuned["weight"] > 1) == heavier
    assert tuned["recall@4"] > max(row["recall@4"] for row in tuned["tried"] if row["weight"] == 1)


def test_the_defaults_stay_where_little_is_gained() -> None:
    """One of n requests is found by the towers' ranking only: with 999 it is worth a change, with 2,000 it is not."""
    one, other = np.array([[1, 2]]), np.array([[2, 1]])
    for others, stays in ((600, False), (2_000, True)):
        towers = np.concatenate([one, np.full((others, 2), 3)])
        towers[1:, 1] = 4
        by_words = np.concatenate([other, towers[1:]])
        tuned = tune(towers[:, ::-1], by_words[:, ::-1], [[1], *[[4]] * others], (1,))
        assert ((tuned["weight"], tuned["constant"]) == (1, 60)) == stays, others
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
