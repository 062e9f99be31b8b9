"""The tables of a grid of samplers: what is put together over seeds, and what is compared with what."""

from collections.abc import Sequence

import numpy as np
import pytest

from uepp.config import RelevanceConfig
from uepp.pipeline import sampler_table
from uepp.pipeline.sampler_table import Trained

MEASURES = {"ndcg@5": "NDCG@5", "auroc": "AUROC"}


def cells(sampler: str, values: Sequence[float | None], *, first_seed: int = 1, k: int = 4) -> list[Trained]:
    """A seed each; the second measure is ten times the first."""
    found = []
    for seed, value in enumerate(values, first_seed):
        settings = RelevanceConfig(sampler=sampler, num_negatives=k, pool_size=256, seed=seed)
        figures = {"ndcg@5": value, "auroc": None if value is None else 10 * value}
        found.append(Trained(settings, {**figures, "pairs_per_second": 100.0, "sampler_share": 0.001, "seconds": 60.0}))
    return found


def results_of(trained: Sequence[Trained]) -> dict[str, object]:
    return {
        "rows": sampler_table.rows(trained, list(MEASURES)),
        "differences": sampler_table.differences(trained, list(MEASURES)),
        "measures": MEASURES,
        "paper": {"4": {"bhns": [1.0, 2.0]}},
        "paper_heading": "paper",
        "caption": "What it is of.",
    }


def test_a_row_is_a_mean_over_seeds_in_the_order_of_the_paper() -> None:
    trained = [*cells("bhns", [3.0, 5.0]), *cells("vns", [1.0], k=2), *cells("none", [2.0]), *cells("hns", [None])]
    rows = sampler_table.rows(trained, list(MEASURES))
    places = [(row["sampler"], row["num_negatives"], row["num_seeds"]) for row in rows]
    assert places == [("none", 2, 1), ("vns", 2, 1), ("none", 4, 1), ("hns", 4, 1), ("bhns", 4, 2)]
    assert rows[-1]["ndcg@5"] == 4
    assert rows[-1]["ndcg@5_std"] == pytest.approx(np.sqrt(2))
    assert rows[-1]["seconds"] == 60
    assert rows[3]["auroc"] is None
    assert rows[3]["auroc_std"] is None


def test_differences_are_of_the_seeds_that_both_have() -> None:
    """Seeds 2, 3 and 4 are those of both; 2, 2 and 3 more than `vns` have a t-interval of 1.1 to 3.8."""
    trained = [*cells("bhns", [9.0, 5.0, 6.0, 8.0]), *cells("vns", [3.0, 4.0, 5.0, 9.0], first_seed=2)]
    trained += [*cells("none", [6.0, 5.0, 4.0]), *cells("hns", [1.0], first_seed=4), *cells("vns", [1.0, 2.0], k=8)]
    of_none, of_vns = sampler_table.differences(trained, list(MEASURES))
    assert (of_vns["sampler"], of_vns["less"], of_vns["num_negatives"], of_vns["num_seeds"]) == ("bhns", "vns", 4, 3)
    assert of_vns["ndcg@5"] == pytest.approx(7 / 3)
    assert of_vns["auroc_std"] == pytest.approx(10 * np.std([2, 2, 3], ddof=1))
    assert of_vns["ndcg@5_is_apart"] is True
    assert (of_none["less"], of_none["num_seeds"]) == ("none", 3)
    assert of_none["ndcg@5_is_apart"] is False, "3, 0 and 2"


def test_a_difference_without_a_value_is_none() -> None:
    (row,) = sampler_table.differences([*cells("bhns", [1.0, 2.0]), *cells("vns", [None, 1.0])], list(MEASURES))
    assert row["ndcg@5"] is None
    assert row["ndcg@5_is_apart"] is None


def test_both_tables_are_written() -> None:
    text = sampler_table.markdown(results_of([*cells("vns", [1.0, 1.5, 1.0]), *cells("bhns", [3.0, 3.5, 3.25])]))
    lines = text.splitlines()
    assert lines[0] == "| sampler | K | pool | seeds | NDCG@5 | AUROC | paper | pairs/s | sampling |"
    assert lines[3] == "| bhns | 4 | 256 | 3 | 3.25 ± 0.25 | 32.50 ± 2.50 | 1.00 / 2.00 | 100 | 0.1% |"
    assert lines[5] == "What it is of."
    assert lines[7] == "| bhns less | K | pool | seeds | NDCG@5 | AUROC |"
    assert lines[9] == "| vns | 4 | 256 | 3 | +2.08 ± 0.14\\* | +20.83 ± 1.44\\* |"
    assert "seed by seed" in lines[11]


def test_one_seed_has_no_differences() -> None:
    results = results_of([*cells("vns", [1.0]), *cells("bhns", [3.0])])
    assert sampler_table.difference_table(results) is None
    assert sampler_table.markdown(results).splitlines()[-1] == "What it is of."
