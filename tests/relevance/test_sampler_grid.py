"""What a cell of a grid is known by: what changes it, and nothing that its sampler does not read."""

from typing import Any

import pytest

from uepp.config import SAMPLER_NAMES, RelevanceConfig
from uepp.pipeline.sampler_grid import Content, grid_key


def key(sampler: str, bi_encoder: str = "a", **settings: Any) -> list[Any]:
    return grid_key(RelevanceConfig(sampler=sampler, **settings), set(), Content("scratch", bi_encoder))


@pytest.mark.parametrize(
    ("changes", "readers"),
    [
        ({"num_negatives": 8, "sampled_weight": 0.25}, set(SAMPLER_NAMES) - {"none"}),
        ({"pool_size": 256}, set(SAMPLER_NAMES) - {"none"}),
        ({"sampled_weight": 1.0}, set(SAMPLER_NAMES) - {"none"}),
        ({"bi_encoder": "b"}, set(SAMPLER_NAMES) - {"none", "vns", "cet"}),
        ({"temperature": 8.0}, {"regularized", "bhns"}),
        ({"max_similarity": 0.5}, {"false"}),
        ({"positive_above": 0.0}, {"false", "regularized", "pseudo_labels", "bhns"}),
        ({"seed": 2}, set(SAMPLER_NAMES)),
        ({"dropout": 0.2}, set(SAMPLER_NAMES)),
    ],
)
def test_a_cell_is_another_for_those_who_read_what_changed(changes: dict[str, Any], readers: set[str]) -> None:
    assert {name for name in SAMPLER_NAMES if key(name) != key(name, **changes)} == readers


def test_when_it_is_validated_matters_where_that_can_stop_it() -> None:
    assert key("bhns") == key("bhns", evaluate_every_steps=100)
    assert key("bhns", patience=2) != key("bhns", patience=2, evaluate_every_steps=100)


@pytest.mark.parametrize("sizes", [{"dim": 64}, {"num_heads": 2}, {"intermediate_dim": 64}, {"vocabulary_size": 99}])
def test_sizes_matter_from_scratch_alone(sizes: dict[str, int]) -> None:
    assert key("bhns") != key("bhns", **sizes)
    assert key("bhns", encoder="minilm") == key("bhns", encoder="minilm", **sizes)
    assert key("bhns", encoder="minilm") != key("bhns", encoder="minilm", num_layers=3)


def test_a_default_is_what_it_comes_to() -> None:
    """1 / K, the batch and the rate of a few layers, written out or not."""
    assert key("bhns") == key("bhns", sampled_weight=0.25, pool_size=32, learning_rate=0.0005)
    assert key("bhns", num_negatives=8) == key("bhns", num_negatives=8, sampled_weight=0.125)
