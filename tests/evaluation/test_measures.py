"""Slices, measures and comparisons of an evaluation, against loops over requests."""

import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from uepp.evaluation.locality import FIGURES, FirstResults, Places
from uepp.evaluation.measures import daily, measure, measure_names
from uepp.evaluation.recall import report, without_nan
from uepp.evaluation.requests import Judgments, Requests, Targets
from uepp.evaluation.segments import Segments
from uepp.evaluation.slices import NAMES, Slices, slices_of
from uepp.evaluation.table import headline, markdown, print_table
from uepp.features.requests import RawRequests
from uepp.features.text import query_numbers
from uepp.metrics import Part, middle, resampled_means

NUM_REQUESTS, NUM_PRODUCTS, NUM_KNOWN = 28, 12, 8
DAY = np.array(["mon"] * 12 + ["tue"] * 16)
SEGMENT = np.array(["head", "tail"] * 14)
SEEN = np.array([10] * 12 + [12] * 16)
SIGNED_IN = np.array([True, False, True, True, False, True, True] * 4)
HISTORY = np.array([[0, 2], [0, 0], [3, 3], [2, 3], [0, 0], [1, 2], [4, 4]] * 4)
KS = (2, 5)


class Fixed:
    """Gives each request its own ranking, in the catalogue of the day."""

    def __init__(self, rankings: dict[str, list[int]]) -> None:
        self._rankings = rankings

    def rank(self, requests: RawRequests, k: int, num_products: int) -> np.ndarray:
        rows = [[row for row in self._rankings[query] if row < num_products] for query in requests.queries]
        return np.array([(row + [-1] * k)[:k] for row in rows])


class Case:
    """Requests with one to three targets of which some are repeats, and two systems."""

    def __init__(self, seed: int = 1) -> None:
        rng = np.random.default_rng(seed)
        self.wanted = [rng.choice(NUM_PRODUCTS, rng.integers(1, 4), replace=False).tolist() for _ in DAY]
        self.wanted[3].append(-1)
        self.wanted[9] = [-1]
        pairs = [(request, product) for request, products in enumerate(self.wanted) for product in products]
        self.is_repeat = rng.random(len(pairs)) < 0.3
        targets = Targets(*np.array(pairs, np.int64).T)
        queries = [f"q{n // 2}" if n < 4 else f"q{n}" for n in range(NUM_REQUESTS)]
        pointers = {"searches": np.zeros((NUM_REQUESTS, 2), np.int64), "clicks": HISTORY}
        raw = RawRequests(queries, pointers=pointers)
        self.requests = Requests(raw, DAY, SEEN, targets, self.is_repeat, SIGNED_IN)
        self.pairs = [(*pair, bool(again)) for pair, again in zip(pairs, self.is_repeat, strict=True)]
        self.rankings = [
            {query: rng.permutation(NUM_PRODUCTS)[: rng.integers(3, 10)].tolist() for query in queries}
            for _ in range(2)
        ]
        self.systems = [Fixed(ranking) for ranking in self.rankings]

    def slices(self, judgments: Judgments | None = None) -> Slices:
        is_abroad = np.array([abroad(request, product) for request, product, _ in self.pairs])
        return slices_of(self.requests, Segments(SEGMENT, "by hand"), NUM_KNOWN, judgments, is_abroad)

    def values(self, system: int, measure_of: Any, keep: Any = lambda request, product, again: True) -> list[float]:
        """A measure of each request, of the targets that are kept; NaN without one."""
        values = []
        for request, query in enumerate(self.requests.queries):
            wanted = [p for r, p, again in self.pairs if r == request and keep(r, p, again)]
            ranked = [row for row in self.rankings[system][query] if row < SEEN[request]][: max(KS)]
            values.append(measure_of(ranked, wanted, SEEN[request]) if wanted else np.nan)
        return values


def abroad(request: int, product: int) -> int:
    """Some pairs are, some are not, of some it is not known."""
    return (request + product) % 3 - 1


def recall(k: int) -> Any:
    return lambda ranked, wanted, size: sum(p in ranked[:k] for p in wanted) / len(wanted)


def area(ranked: list[int], wanted: list[int], size: int) -> float:
    """How often a target beats another product; what is not listed is tied, what the catalogue lacks loses."""
    others = [row for row in range(size) if row not in wanted]
    wins = 0.0
    for target in wanted:
        for other in others:
            places = [ranked.index(row) if row in ranked else 99 for row in (target, other)]
            if target in range(size):
                wins += (places[0] < places[1]) + 0.5 * (places[0] == places[1])
    return wins / len(wanted) / len(others)


def mean_of_days(values: list[float], is_in: np.ndarray) -> float:
    days = []
    for day in ("mon", "tue"):
        kept = [value for n, value in enumerate(values) if is_in[n] and DAY[n] == day and not np.isnan(value)]
        if kept:
            days.append(np.mean(kept))
    return float(np.mean(days)) if days else float("nan")


EVERY = np.ones(NUM_REQUESTS, bool)
HAS_HISTORY = HISTORY[:, 1] > HISTORY[:, 0]
CUTS = {
    "all": EVERY,
    "head": SEGMENT == "head",
    "torso": SEGMENT == "torso",
    "tail": SEGMENT == "tail",
    "signed_in": SIGNED_IN,
    "anonymous": ~SIGNED_IN,
    "with_history": HAS_HISTORY,
    "without_history": ~HAS_HISTORY,
}
KEPT = {
    "non_repeat": lambda request, product, again: not again,
    "repeat": lambda request, product, again: again,
    "new_products": lambda request, product, again: product >= NUM_KNOWN,
    "domestic": lambda request, product, again: abroad(request, product) == 0,
    "foreign": lambda request, product, again: abroad(request, product) == 1,
}


def test_every_slice_is_that_of_a_loop() -> None:
    case = Case()
    slices = case.slices()
    assert list(slices.by_name) == [*CUTS, *KEPT] == list(NAMES[:-1])
    measured = measure(case.systems[0], case.requests, slices, KS)
    seen = set()
    for name, part in slices.by_name.items():
        keep = KEPT.get(name, lambda *_: True)
        is_in = CUTS.get(name, EVERY)
        for k in KS:
            values = case.values(0, recall(k), keep)
            found = measured.mean(slices, name, f"recall@{k}", DAY)
            np.testing.assert_allclose(found, mean_of_days(values, is_in))
            seen.add(found)
        rows = [n for n, value in enumerate(values) if is_in[n] and not np.isnan(value)]
        assert part.rows.tolist() == rows
        assert part.num_queries == len({case.requests.queries[n] for n in rows})
        areas = case.values(0, area, keep)
        np.testing.assert_allclose(measured.mean(slices, name, "auroc@5", DAY), mean_of_days(areas, is_in))
    assert len(seen) > 10, "slices differ"
    assert 0 < len(slices.by_name["repeat"].rows) < NUM_REQUESTS
    assert 0 < len(slices.by_name["new_products"].rows) < NUM_REQUESTS


def test_the_first_results_of_every_request_are_looked_at() -> None:
    case = Case()
    anywhere = Places(np.zeros(NUM_PRODUCTS), np.zeros(NUM_PRODUCTS), np.full(NUM_PRODUCTS, "US", object))
    people = Places(np.zeros(NUM_REQUESTS), np.zeros(NUM_REQUESTS), np.full(NUM_REQUESTS, "US", object))
    measured = measure(case.systems[0], case.requests, case.slices(), KS, FirstResults(people, anywhere, k=3))
    ranked = [[p for p in case.rankings[0][q] if p < seen] for q, seen in zip(case.requests.queries, SEEN, strict=True)]
    assert measured.locality["num_results"] == sum(min(len(products), 3) for products in ranked)
    assert measured.locality["own_country_share"] == 1.0
    assert tuple(measured.locality) == FIGURES
    assert measure(case.systems[0], case.requests, case.slices(), KS).locality == {}


def test_parts_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case()
    slices = case.slices()
    whole = measure(case.systems[0], case.requests, slices, KS)
    monkeypatch.setattr("uepp.evaluation.measures._RANKED_AT_ONCE", 3)
    parts = measure(case.systems[0], case.requests, slices, KS)
    for wanted, values in whole.values.items():
        assert list(values) == measure_names(KS)
        for name, column in values.items():
            np.testing.assert_array_equal(column, parts.values[wanted][name])


def test_grades_are_the_gains_of_judged_requests() -> None:
    """Only NDCG, over judged products instead of purchases; a grade below 0 is worth as much as none."""
    case = Case()
    pairs = Targets(np.array([0, 0, 0, 5, 5, 7]), np.array([3, 4, -1, 1, 2, 6]))
    grades = np.array([3.0, 1.0, 2.0, -1.0, 2.0, 0.0])
    slices = case.slices(Judgments(pairs, grades))
    measured = measure(case.systems[0], case.requests, slices, KS)
    assert list(measured.values["judged"]) == ["ndcg@2", "ndcg@5"]
    assert slices.by_name["judged"].rows.tolist() == [0, 5]
    values = []
    for request, gains in ((0, {3: 3.0, 4: 1.0, -1: 2.0}), (5, {2: 2.0})):
        ranked = [row for row in case.rankings[0][case.requests.queries[request]] if row < SEEN[request]][:5]
        reached = sum(gains.get(row, 0.0) / np.log2(2 + place) for place, row in enumerate(ranked))
        ideal = sum(gain / np.log2(2 + place) for place, gain in enumerate(sorted(gains.values(), reverse=True)))
        values.append(reached / ideal)
    assert any(values)
    assert measured.mean(slices, "judged", "ndcg@5", DAY) == pytest.approx(np.mean(values))
    assert measured.mean(slices, "all", "ndcg@5", DAY) != pytest.approx(np.mean(values))


def test_days_are_means_of_their_requests() -> None:
    case = Case()
    measured = measure(case.systems[0], case.requests, case.slices(), KS)
    found = daily(measured, DAY)
    values = np.array(case.values(0, recall(5)))
    assert list(found) == ["mon", "tue"]
    for day in found:
        assert found[day]["recall@5"] == pytest.approx(values[day == DAY].mean())


def reported(case: Case) -> dict[str, Any]:
    slices = case.slices()
    names = ("uepp", "bm25")
    measured = {name: measure(one, case.requests, slices, KS) for name, one in zip(names, case.systems, strict=True)}
    return report(measured, slices, DAY, case.requests.queries)


def test_the_report_compares_the_first_system_with_the_others() -> None:
    case = Case()
    found = reported(case)
    assert list(found) == ["systems", "comparisons", "over_bm25", "days"]
    assert list(found["comparisons"]) == ["bm25"]
    ours, theirs = (found["systems"][name] for name in ("uepp", "bm25"))
    for name, compared in found["comparisons"]["bm25"].items():
        shown = measure_names(KS) if name == "all" else ["recall@2", "recall@5"]
        assert list(compared) == list(ours[name]["intervals"]) == shown
        for key, one in compared.items():
            if not ours[name]["num_requests"]:
                assert np.isnan([one["difference"], *one["interval"], one["p_value"]]).all()
                continue
            assert one["difference"] == pytest.approx(ours[name][key] - theirs[name][key])
            assert 0 < one["p_value"] <= 1
            low, high = ours[name]["intervals"][key]
            if ours[name]["num_queries"] < 10:
                assert np.isnan([low, high, *one["interval"]]).all()
                continue
            assert low - 1e-6 <= ours[name][key] <= high + 1e-6
            assert one["interval"][0] - 1e-6 <= one["difference"] <= one["interval"][1] + 1e-6
    assert ours["torso"]["num_requests"] == 0
    assert 0 < ours["anonymous"]["num_queries"] < 10
    for day, number in (("mon", 12), ("tue", 16)):
        assert found["days"][day]["num_requests"] == number
    mean = np.mean([found["days"][day]["systems"]["bm25"]["ndcg@5"] for day in ("mon", "tue")])
    assert mean == pytest.approx(theirs["all"]["ndcg@5"])


def test_each_system_is_compared_with_bm25() -> None:
    """Paired: with the same draws of queries, of which the ratio is taken, not of two intervals."""
    case = Case()
    slices = case.slices()
    ours, theirs = (measure(one, case.requests, slices, KS) for one in case.systems)
    texts = case.requests.queries
    found = report({"uepp": ours, "bm25": theirs, "fusion": ours, "same": theirs}, slices, DAY, texts)
    over, systems = found["over_bm25"], found["systems"]
    assert list(over) == ["uepp", "fusion", "same"]
    assert without_nan(over["uepp"]) == without_nan(over["fusion"])
    for name, compared in over["uepp"].items():
        for key, one in compared.items():
            both = found["comparisons"]["bm25"][name][key]
            assert without_nan({part: one[part] for part in both}) == without_nan(both)
            means = [systems[system][name][key] for system in ("uepp", "bm25")]
            if systems["uepp"][name]["num_queries"] >= 10 and means[1]:
                assert one["ratio"] == pytest.approx(means[0] / means[1])
    one = over["uepp"]["all"]["recall@5"]
    assert one["ratio_interval"][0] < one["ratio"] < one["ratio_interval"][1]
    same = over["same"]["all"]["recall@5"]
    assert (same["ratio"], same["ratio_interval"], same["p_value"]) == (1.0, [1.0, 1.0], 1.0)
    query = query_numbers(texts)
    of_systems = np.stack([one.values["all"]["recall@5"] for one in (ours, theirs)], axis=1)
    (draws,) = resampled_means([Part(of_systems, DAY, query)], 1_000)
    np.testing.assert_allclose(one["ratio_interval"], middle(draws[:, 0] / draws[:, 1]), atol=1e-6)
    assert report({"uepp": ours}, slices, DAY, texts)["over_bm25"] == {}


def test_figures_do_not_depend_on_who_else_is_compared() -> None:
    case = Case()
    slices = case.slices()
    measured = {name: measure(one, case.requests, slices, KS) for name, one in zip("ab", case.systems, strict=True)}
    texts = case.requests.queries
    both, alone = report(measured, slices, DAY, texts), report({"a": measured["a"]}, slices, DAY, texts)
    assert without_nan(alone["systems"]["a"]) == without_nan(both["systems"]["a"])
    assert alone["comparisons"] == {}
    again = report({"a": measured["a"], "same": measured["a"]}, slices, DAY, case.requests.queries)
    same = again["comparisons"]["same"]["all"]["recall@2"]
    assert same == {"difference": 0.0, "interval": [0.0, 0.0], "p_value": 1.0}


def test_what_is_printed() -> None:
    case = Case()
    metrics = without_nan(reported(case)) | {"segments": "by hand", "num_requests": 28, "num_days": 2}
    console = Console(record=True, width=120, file=io.StringIO())
    print_table(metrics, console, ("recall", "mrr"))
    text = console.export_text()
    one = metrics["comparisons"]["bm25"]["all"]["recall@5"]
    answer = headline(metrics)
    assert answer is not None
    assert text.startswith(answer)
    assert f"{one['difference']:+.3f}".replace("-", "−") in answer
    ours = metrics["systems"]["uepp"]
    for key in ("recall@2", "recall@5", "mrr@5"):
        assert f"{ours['all'][key]:.3f}" in text
    for word in ("R@2", "MRR on", "head", "tail", "new", "BM25, tuned", "by hand"):
        assert word in text
    assert "torso" not in text, "a segment without requests has no column"
    lines = markdown(metrics, ("recall", "mrr")).splitlines()
    assert lines[:2] == ["| system | R@2 | R@5 | head R@5 | tail R@5 | new R@5 |", "|---" * 6 + "|"]
    tables = [lines[2:4], lines[7:9]]
    for (mine, theirs), key in zip(tables, ("recall@5", "mrr@5"), strict=True):
        assert mine.startswith("| UEPPR (this run) | ")
        assert theirs.startswith("| BM25, tuned | ")
        for line, system in ((mine, "uepp"), (theirs, "bm25")):
            values = [metrics["systems"][name]["all"][key] for name in ("uepp", "bm25")]
            own = metrics["systems"][system]["all"][key]
            assert f" {own:.3f} " in line or (own == max(values) and f" **{own:.3f}** " in line)
    ratio = metrics["over_bm25"]["uepp"]["all"]["recall@5"]
    low, high = ratio["ratio_interval"]
    assert answer.endswith(f", {ratio['ratio']:.2f} times ({low:.2f} to {high:.2f})")
    metrics["systems"]["fusion"], metrics["over_bm25"]["fusion"] = (
        metrics["systems"]["uepp"],
        {"all": {"recall@5": ratio}},
    )
    print_table(metrics, console)
    times = f"{ratio['ratio']:.2f} times ({low:.2f} to {high:.2f})"
    line = f"  UEPPR + tuned BM25 (RRF) {ours['all']['recall@5']:.3f}, {times}"
    assert line in console.export_text().splitlines()
    del metrics["systems"]["fusion"], metrics["over_bm25"]["fusion"]
    one["interval"] = [None, None]
    answer = headline(metrics)
    assert answer is not None
    assert "(too few queries for an interval, p " in answer
    metrics["systems"]["uepp"]["all"]["precision@5"] = 0.00123
    assert "| 0.0012 |" in markdown(metrics, ("precision",)), "with three places most would be the same"
    del metrics["comparisons"]["bm25"]
    assert headline(metrics) is None
