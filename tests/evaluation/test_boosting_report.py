"""What boosting is said to do, against loops over requests and products."""

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from uepp.evaluation.boosting import Window, compare, plot_trade_off, print_comparison, trade_off
from uepp.evaluation.requests import Requests, Targets
from uepp.evaluation.segments import Segments
from uepp.features.requests import RawRequests
from uepp.retrieval.boost_candidates import BoostCandidates
from uepp.retrieval.boost_weights import WeightSpace

NUM_REQUESTS, NUM_PRODUCTS, K = 12, 40, 4
DAY = np.array(["mon"] * 5 + ["tue"] * 7)
SEGMENT = np.array(["head", "tail", "tail", "head"] * 3)
SEEN = np.array([40] * 5 + [30] * 5 + [3] * 2)


class Fixed:
    """A system that answers the same, whoever asks."""

    def __init__(self, rankings: dict[str, list[int]]) -> None:
        self._rankings = rankings

    def rank(self, requests: RawRequests, k: int, num_products: int) -> np.ndarray:
        rows = [(self._rankings[query] + [-1] * k)[:k] for query in requests.queries]
        return np.array([[row if row < num_products else -1 for row in ranking] for ranking in rows])


def unit(rng: np.random.Generator, rows: int) -> np.ndarray:
    vectors = rng.standard_normal((rows, 5)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def make_requests(wanted: list[list[int]]) -> Requests:
    pairs = [(request, product) for request, products in enumerate(wanted) for product in products]
    targets = Targets(np.array([request for request, _ in pairs]), np.array([product for _, product in pairs]))
    raw = RawRequests([f"q{request}" for request in range(NUM_REQUESTS)])
    return Requests(raw, DAY, SEEN, targets, np.zeros(len(pairs), bool), np.zeros(NUM_REQUESTS, bool))


def recall(ranking: list[int], wanted: list[int], k: int) -> float:
    return sum(product in ranking[:k] for product in wanted) / len(wanted)


def mean_of_days(values: list[float], is_in: np.ndarray) -> float:
    of_day = [[values[n] for n in range(NUM_REQUESTS) if is_in[n] and DAY[n] == day] for day in ("mon", "tue")]
    return float(np.mean([np.mean(day) for day in of_day if day]))


def test_two_systems_on_the_same_requests() -> None:
    rng = np.random.default_rng(1)
    wanted = [[int(row) for row in rng.choice(3, rng.integers(1, 3), replace=False)] for _ in range(NUM_REQUESTS)]
    rankings = [{f"q{n}": [int(row) for row in rng.permutation(3)] for n in range(NUM_REQUESTS)} for _ in range(2)]
    compared = compare(*map(Fixed, rankings), make_requests(wanted), Segments(SEGMENT, "by hand"), (1, 2))
    assert list(compared) == ["all", "head", "torso", "tail"]
    for name, scores in compared.items():
        is_in = np.full(NUM_REQUESTS, True) if name == "all" else name == SEGMENT
        assert scores["num_requests"] == is_in.sum()
        if name == "torso":
            assert all(np.isnan(scores["recall@1"][key]) for key in ("before", "after", "difference"))
            continue
        for k in (1, 2):
            values = [[recall(one[f"q{n}"], wanted[n], k) for n in range(NUM_REQUESTS)] for one in rankings]
            before, after = (mean_of_days(one, is_in) for one in values)
            found = scores[f"recall@{k}"]
            np.testing.assert_allclose([found["before"], found["after"]], [before, after])
            assert found["difference"] == pytest.approx(after - before)
            if name == "all":
                assert found["interval"][0] <= found["difference"] <= found["interval"][1]
                assert found["interval"][0] < found["interval"][1]
            else:
                assert np.isnan(found["interval"]).all(), "too few queries"
            assert 1e-4 <= found["p_value"] <= 1


def test_one_lucky_request_is_told_to_be_chance() -> None:
    """The interval of a Bayesian bootstrap leaves out 0 there."""
    rankings = [{f"q{n}": [0 if n else first, 2] for n in range(NUM_REQUESTS)} for first in (1, 0)]
    compared = compare(*map(Fixed, rankings), make_requests([[0]] * NUM_REQUESTS), Segments(SEGMENT, "by hand"), (1,))
    found = compared["all"]["recall@1"]
    assert found["interval"][0] > 0
    assert found["p_value"] == 1


def make_window() -> tuple[Window, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    queries, vectors = unit(rng, NUM_REQUESTS), unit(rng, NUM_PRODUCTS)
    quality = rng.standard_normal((NUM_PRODUCTS, 2)).astype(np.float32)
    wanted = [[int(rng.integers(0, seen))] for seen in SEEN]
    candidates = BoostCandidates(queries, vectors, SEEN, quality, K)
    return Window(make_requests(wanted), candidates), queries, vectors, quality


def test_the_trade_off_by_loops() -> None:
    window, queries, vectors, quality = make_window()
    weights = np.array([0.05, 0.1])
    bonus = quality @ weights
    space = WeightSpace(quality, 2.5 * float(bonus.max() - bonus.min()))
    rows = trade_off(window, Segments(SEGMENT, "by hand"), space, weights, 0.3)
    scales = [row["scale"] for row in rows]
    assert scales == sorted(scales)
    assert {0.0, 0.3, 1.0} <= set(scales)
    assert any(scale == pytest.approx(2.5) for scale in scales), "the bound"
    assert scales[-1] == pytest.approx(1.5 * 2.5)
    similarity = queries @ vectors.T
    wanted = window.requests.target_lists()
    for row in rows:
        plain, boosted = (
            [sorted(range(SEEN[n]), key=lambda p, n=n: -(similarity[n, p] + scale * bonus[p]))[:K] for n in range(12)]
            for scale in (0.0, row["scale"])
        )
        recalls = [recall(boosted[n], wanted[n], K) for n in range(12)]
        assert row["all"] == pytest.approx(mean_of_days(recalls, np.full(12, True)))
        assert row["head"] == pytest.approx(mean_of_days(recalls, SEGMENT == "head"))
        assert np.isnan(row["torso"])
        assert row["boost_range"] == pytest.approx(row["scale"] * (bonus.max() - bonus.min()), rel=1e-5)
        kept = [len(set(plain[n]) & set(boosted[n])) / len(plain[n]) for n in range(12)]
        assert row["overlap"] == pytest.approx(np.mean(kept))
        found = [similarity[n, product] for n in range(12) for product in boosted[n]]
        assert row["similarity"] == pytest.approx(np.mean(found), abs=1e-6)
        losses = [
            similarity[n, plain[n][-1]] - min(similarity[n, product] for product in boosted[n]) for n in range(12)
        ]
        assert row["largest_loss"] == pytest.approx(max(losses), abs=1e-6)
    assert rows[-1]["overlap"] < rows[0]["overlap"] == 1


def test_pictures_and_table(tmp_path: Path) -> None:
    window, _, _, quality = make_window()
    space = WeightSpace(quality, 0.2)
    rows = trade_off(window, Segments(SEGMENT, "by hand"), space, np.array([0.05, 0.1]), 0.5)
    plot_trade_off(rows, 0.5, space.bound, K, tmp_path / "tradeoff")
    assert (tmp_path / "tradeoff.png").read_bytes()[:4] == b"\x89PNG"
    drawing = (tmp_path / "tradeoff.svg").read_text()
    assert "<svg" in drawing
    none = {"before": None, "after": None, "difference": None, "interval": [None, None], "p_value": None}
    some = {"before": 0.5, "after": 0.625, "difference": 0.125, "interval": [-0.01, 0.26], "p_value": 0.0712}
    sure = {"before": 0.5, "after": 0.625, "difference": 0.125, "interval": [0.01, 0.26], "p_value": 1e-4}
    few = some | {"interval": [None, None]}
    console = Console(width=100)
    with console.capture() as capture:
        print_comparison(
            {
                "all": {"num_requests": 1_234, "recall@10": some, "recall@100": sure},
                "head": {"num_requests": 7, "recall@10": few},
                "torso": {"num_requests": 0, "recall@10": none},
            },
            "A title",
            console,
        )
    text = capture.get()
    for part in (
        "A title",
        "all (1,234)",
        "R@10",
        "0.500",
        "0.625",
        "+0.1250",
        "-0.0100 to +0.2600",
        "torso (0)",
        "–",
        ".0712",
        "≤ .0001",
    ):
        assert part in text
    (line,) = [line for line in text.splitlines() if "head (7)" in line]
    assert [cell.strip() for cell in line.split("│")[5:8]] == ["+0.1250", "–", ".0712"]
