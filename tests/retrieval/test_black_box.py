"""The black-box optimiser behind its two methods."""

import json
import math
from typing import Any

import pytest

from uepp.retrieval.optimizers import Axis, Optimizer, SkoptOptimizer

NUMBERS = [Axis("nprobe", low=1, high=4_096), Axis("rerank", low=1, high=20, is_whole=False)]


def loss(params: dict[str, Any]) -> float:
    """Lowest at nprobe = 100, rerank = 4."""
    return math.log(params["nprobe"] / 100) ** 2 + math.log(params["rerank"] / 4) ** 2


def best_of(optimizer: Optimizer, number: int) -> float:
    values = []
    for _ in range(number):
        params = optimizer.suggest()
        assert json.loads(json.dumps(params)) == params, "plain numbers"
        assert isinstance(params["nprobe"], int)
        assert 1 <= params["nprobe"] <= 4_096
        assert 1 <= params["rerank"] <= 20
        values.append(loss(params))
        optimizer.observe(params, values[-1])
    return min(values)


def test_it_finds_the_lowest_value_sooner_than_chance() -> None:
    """A draw at random has a loss below .1 once in about a hundred times."""
    assert best_of(SkoptOptimizer(NUMBERS, seed=1), 18) < 0.1


def test_it_learns_which_of_several_values_is_best() -> None:
    axes = [
        Axis("family", ("hnsw", "ivf-flat", "flat"), is_ordered=False),
        Axis("residual", (True, False)),
        Axis("nlist", (64, 128, 256, 512)),
        Axis("only", (7,)),
    ]
    optimizer = SkoptOptimizer(axes, seed=1, estimator="ET")

    def value(params: dict[str, Any]) -> float:
        return (params["family"] != "ivf-flat") + (params["nlist"] != 256) + params["residual"]

    suggested = []
    for _ in range(16):
        params = optimizer.suggest()
        assert params["only"] == 7
        suggested.append(value(params))
        optimizer.observe(params, suggested[-1])
    assert min(suggested) == 0
    assert sum(suggested[8:]) < sum(suggested[:8])


@pytest.mark.parametrize("estimator", ["GP", "ET"])
def test_the_same_observations_give_the_same_suggestion(estimator: str) -> None:
    made = []
    for _ in range(2):
        optimizer = SkoptOptimizer(NUMBERS, seed=3, estimator=estimator)
        for nprobe, rerank in ((1, 1.0), (64, 2.5), (4_096, 20.0)):
            optimizer.observe({"nprobe": nprobe, "rerank": rerank}, loss({"nprobe": nprobe, "rerank": rerank}))
        made.append(optimizer.suggest())
    assert made[0] == made[1]


def test_what_lies_outside_the_range_is_taken_as_its_end() -> None:
    optimizer = SkoptOptimizer(NUMBERS, seed=1)
    optimizer.observe({"nprobe": 10_000, "rerank": 50.0}, 1.0)
    optimizer.observe({"nprobe": 5_000, "rerank": 30.0}, 1.0)
    assert 1 <= optimizer.suggest()["nprobe"] <= 4_096
