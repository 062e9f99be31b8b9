"""What the report reads and concludes: files that it refuses, figures beside the paper's, and the words for them."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from reported import MANIFEST, STUDY, cell, facts_of, metrics_of, requests

from uepp.config import Config, Given, TrainingConfig, load_config, merge_settings, shipped_studies
from uepp.errors import InputError
from uepp.evaluation.systems import SYSTEMS
from uepp.report import answer, content, gather, paper, records, wording
from uepp.report.figures import Point
from uepp.study import load_study


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """What `gather` reads of a run."""
    directory = tmp_path / "run"
    write(directory / "metrics.json", metrics_of(requests()))
    write(directory / "export" / "manifest.json", MANIFEST)
    write(directory / "export" / "windows.json", {"train_end": "2024-05-04T00:00:00+00:00"})
    write(directory / "export" / "serving.json", {"index": "flat"})
    write(directory / "export" / "vectors" / "part-00000.npy", "x" * 100)
    write(
        directory / "logs" / "training.csv",
        "step,loss,examples_per_second\n10,1.0,512\n20,1.0,256\n20,1.0,256\n25,1.0,0\n30,1.0,512\n",
    )
    return directory


def gathered(run: Path, *studies: Path) -> gather.Facts:
    return gather.gather(run, run / "export", Config(), {"data": str(run)}, run / "mined", studies)


def test_what_was_recorded_is_read(run: Path) -> None:
    write(run / "dataset.json", {"name": "shop"})
    facts = gathered(run)
    # 10 steps at 512, 10 at 256 examples a second, told twice; 5 of unknown speed; 5 at 512; batches of 512
    assert facts.training == gather.Training(25, 10 + 20 + 5, 25 * 512 / 35)
    assert facts.sizes["vectors"] == 100
    assert facts.data == {"name": "shop"}
    assert (facts.num_events, facts.boosting, facts.tuning, facts.studies) == (None, None, None, {})
    assert (facts.ks, facts.main_k) == ([1, 5, 20], 5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (None, "no such file, the run is not evaluated yet"),
        ({"comparisons": None}, "written by an earlier version, it has no comparisons"),
        ({"days": None}, "written by an earlier version, it has no days"),
        ({"export": None}, "written by an earlier version, it has no export"),
        ({"run_id": "other"}, "of another export"),
        ({"export": {"towers": "before"}}, "the export's towers changed since"),
        ({"comparisons": {"random_walk": {}}}, "does not compare with tuned BM25"),
    ],
)
def test_metrics_that_do_not_fit_are_refused(run: Path, change: dict[str, Any] | None, said: str) -> None:
    path = run / "metrics.json"
    if change is None:
        path.unlink()
    else:
        changed = json.loads(path.read_text(encoding="utf-8")) | change
        write(path, {key: value for key, value in changed.items() if value is not None})
    with pytest.raises(InputError, match=said) as refused:
        gathered(run)
    assert str(refused.value).endswith(f"run: uepp evaluate {run}")
    assert "\n" not in str(refused.value)


def test_a_study_without_variants_is_refused(run: Path, tmp_path: Path) -> None:
    write(tmp_path / "empty" / "results.json", {"variants": {}})
    with pytest.raises(InputError, match="not the results of a study"):
        gathered(run, tmp_path / "empty")
    with pytest.raises(InputError, match="no such file"):
        gathered(run, tmp_path / "nowhere")


def test_a_study_goes_by_the_name_of_its_folder(run: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "encoders" / "results.json", STUDY)
    other = write(tmp_path / "other" / "encoders" / "results.json", STUDY)
    assert list(gathered(run, file.parent).studies) == ["encoders"]
    assert len(gathered(run, file, other.parent).studies) == 2, "two of the same name are both there"


def test_boosting_that_was_taken_away_is_not_told(run: Path) -> None:
    write(run / "boosting" / "report.json", {"is_boosted": True, "run_id": "r"})
    assert gathered(run).boosting is None
    write(run / "export" / "boosting.json", {})
    assert gathered(run).boosting == {"is_boosted": True, "run_id": "r"}
    write(run / "boosting" / "report.json", {"is_boosted": False, "run_id": "r"})
    assert gathered(run).boosting is None


def test_a_report_of_other_weights_is_not_told(run: Path) -> None:
    """The export is published first, and the report takes minutes."""
    features = [{"name": "stars", "weight": 0.25}, {"name": "noise", "weight": 0.0}]
    report = {"is_boosted": True, "run_id": "r", "features": features}
    write(run / "boosting" / "report.json", report)
    write(run / "export" / "boosting.json", {"features": features[:1]})
    assert gathered(run).boosting == report
    for other in ({"name": "stars", "weight": 0.5}, {"name": "sales", "weight": 0.25}):
        write(run / "export" / "boosting.json", {"features": [other]})
        assert gathered(run).boosting is None
    write(run / "export" / "boosting.json", {"features": [features[0], {"name": "sales", "weight": 0.1}]})
    assert gathered(run).boosting is None


def test_reports_of_another_run_are_not_told(run: Path) -> None:
    report = {"run_id": "r", "chosen": "hnsw:ef_search=16"}
    write(run / "tuning" / "report.json", report)
    write(run / "export" / "serving.json", {"index": "hnsw:ef_search=16"})
    assert gathered(run).tuning == report
    write(run / "export" / "serving.json", {"index": "flat"})
    assert gathered(run).tuning is None, "it is served otherwise since"
    write(run / "export" / "serving.json", {"index": "hnsw:ef_search=16"})
    write(run / "tuning" / "report.json", report | {"run_id": "other"})
    assert gathered(run).tuning is None


def test_the_time_of_an_index_that_no_longer_serves_is_not_told(tmp_path: Path) -> None:
    """After `uepp export --index` the page went on to show the time of the index before."""
    line = "query through tower and index, p50 and p99"
    facts = facts_of(tmp_path, metrics_of(requests()))
    assert dict(records.costs(facts))[line] == "4.32 and 9.88 ms, each alone"
    for changed in (
        replace(facts, served="hnsw:links=32,ef_construction=200,ef_search=512"),
        replace(facts, costs={"seconds": {}, "query": {"p50_ms": 1.0, "p99_ms": 2.0}}),
    ):
        assert dict(records.costs(changed))[line] == "not recorded (uepp evaluate measures it)"


def test_figures_of_another_boosting_are_refused(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    metrics["systems"]["uepp_boost"] = metrics["systems"]["uepp"]
    metrics["export"]["boosting"] = "before"
    write(run / "metrics.json", metrics)
    write(run / "export" / "manifest.json", MANIFEST | {"files": {"boosting.json": "now"}})
    with pytest.raises(InputError, match="the export's boosting changed since"):
        gathered(run)
    write(run / "export" / "manifest.json", MANIFEST | {"files": {"boosting.json": "before"}})
    assert gathered(run).metrics == metrics


def test_changed_settings_are_those_that_differ() -> None:
    config = Config(training=TrainingConfig(max_steps=7))
    assert gather.changed_settings(config) == [("training.max_steps", Config().training.max_steps, 7)]
    assert gather.changed_settings(Config()) == []


def test_groups_are_those_of_the_metrics(tmp_path: Path) -> None:
    metrics = metrics_of(requests())
    groups = answer.groups(facts_of(tmp_path, metrics))
    assert groups[0].name == "all"
    assert {"head", "torso", "tail", "signed_in", "anonymous", "non_repeat", "repeat"} <= {one.name for one in groups}
    for group in groups:
        compared = metrics["comparisons"]["bm25"][group.name]["recall@5"]
        assert group.difference == compared["difference"] == pytest.approx(group.ours.value - group.theirs.value)
        assert group.num_requests == metrics["systems"]["uepp"][group.name]["num_requests"] > 0
        if metrics["systems"]["uepp"][group.name]["num_queries"] < 10:
            assert (group.interval, group.verdict) == ([None, None], "undecided")
            continue
        low, high = group.interval
        is_sure = compared["p_value"] <= 0.05
        verdict = "ahead" if low > 0 and is_sure else "behind" if high < 0 and is_sure else "undecided"
        assert group.verdict == verdict


def p_value(low: float, high: float) -> float:
    """What fits an interval."""
    return 0.5 if low <= 0 <= high else 0.001


def group(name: str, difference: float, low: float, high: float, size: int = 10) -> answer.Group:
    ours, theirs = Point(0.5 + difference, None, None), Point(0.5, None, None)
    return answer.Group(name, name, "", size, ours, theirs, difference, [low, high], p_value(low, high))


def test_the_sentences_say_where_the_run_is_not_ahead() -> None:
    ahead = [group("all", 0.2, 0.1, 0.3), group("head", 0.3, 0.2, 0.4), group("tail", 0.1, 0.05, 0.2)]
    assert answer.for_whom(ahead) == ["Ahead of tuned BM25 in each of the 2 groups."]
    assert answer.extremes(ahead) == [
        "The difference is largest for head (+30.0 points) and smallest for tail (+10.0)."
    ]
    assert answer.extremes(ahead[:2]) == []
    lucky = ahead[1]._replace(p_value=1.0)
    assert lucky.verdict == "undecided", "one lucky query has an interval above 0 as well"
    mixed = [*ahead, group("new", -0.1, -0.2, -0.05, 1_234), group("few", 0.0, -0.2, 0.2, 3)]
    said = answer.for_whom(mixed)
    assert said[0] == "Ahead of tuned BM25 in 2 of the 4 groups."
    assert said[1] == "Behind for new (1,234 requests)."
    assert said[2] == "Not to be told from chance for few (3 requests)."
    assert len(said) == 3
    (widest,) = answer.extremes(mixed)
    assert widest.endswith("smallest for new (−10.0).")
    assert answer.for_whom(ahead[:1]) == []


def other(name: str, recall: float, low: float, high: float) -> answer.Other:
    return answer.Other(name, name, recall, (low + high) / 2, [low, high], p_value(low, high))


def test_a_system_that_is_better_than_the_run_is_named() -> None:
    bm25, good, same = other("bm25", 0.4, 0.1, 0.3), other("walk", 0.7, -0.3, -0.1), other("twin", 0.5, -0.1, 0.1)
    assert answer.against_others([good, same, bm25]) == [
        "Of the other systems, walk (.700) finds more than this run.",
        "Not to be told from this run: twin (.500).",
    ]
    weak = other("plain", 0.3, 0.2, 0.3)
    assert answer.against_others([bm25, weak]) == ["The only other system is plain with .300."]
    assert answer.against_others([weak, weak]) == ["The best of the 2 other systems is plain with .300."]
    assert answer.against_others([bm25]) == ["No other system was compared."]


def test_what_is_not_known_is_said(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, metrics_of(requests()))
    said = " ".join(answer.not_known(facts))
    assert "one training, of seed 1" in said
    assert "generated marketplace" not in said
    generated = facts_of(tmp_path, facts.metrics, data={"name": "marketplace", "seed": 1}, studies={"a": STUDY})
    said = " ".join(answer.not_known(generated))
    assert "generated marketplace" in said
    assert "spread over seeds in the studies" in said
    assert "not in the catalogue" in " ".join(answer.how_sure(facts)), "one purchase is of a product that is gone"
    for tuned_on, said in ((10, "BM25 was tuned on the days between."), (0, "BM25 has its default settings")):
        sure = answer.how_sure(facts_of(tmp_path, metrics_of(requests()) | {"bm25": {"num_requests": tuned_on}}))
        assert said in sure[0]


def test_changes_are_relative_and_paired_by_seed() -> None:
    (one,) = paper.changes({"encoders": STUDY})
    assert (one.source, one.theirs, one.variants) == ("Table III", 0.15, ("all encoders", "Without  Graph"))
    assert one.ours == pytest.approx(0.82 / 0.775 - 1)
    first, second = 0.80 / 0.75 - 1, 0.84 / 0.80 - 1
    assert one.spread == pytest.approx(abs(first - second) / math.sqrt(2))
    assert one.num_seeds == 2
    alone = {"variants": {"all encoders": [cell(1, 0.8)], "without graph": [cell(2, 0.4)]}}
    (one,) = paper.changes({"x": alone})
    assert (one.ours, one.spread, one.num_seeds) == (pytest.approx(1.0), None, 1)
    assert paper.changes({"x": {"variants": {"all encoders": [cell(1, 0.8)]}}}) == []


def test_the_paper_has_a_figure_in_every_column() -> None:
    table = paper.figures()["systems"]
    assert {row["name"]: row["figures"] for row in table["rows"]}["UEPPR"] == [0.674, 0.71, 0.69, 0.82]
    assert all(len(row["figures"]) == len(table["columns"]) for row in table["rows"])
    assert {row["change"] for row in paper.figures()["changes"]} >= {0.03, 0.093, 0.11, 0.01, 0.039, 0.063, 0.15, 0.08}
    assert all(len(pair) == 2 for row in paper.figures()["changes"] for pair in row["ours"])


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("etsy", {}, "UEPPR no T5"),
        ("demo", {}, "UEPPR no T5"),
        ("base", {}, None),
        # The paper's own: its hinge, random and in-batch negatives; and what is none of them.
        ("demo", {"loss": {"kind": "hinge"}}, "UEPPR rand"),
        ("demo", {"loss": {"kind": "hinge"}, "negatives": {"in_batch": "hardest", "num_in_batch": 8}}, "UEPPR no T5"),
        ("demo", {"negatives": {"in_batch_weight": [0.0, 0.0]}}, "UEPPR rand"),
        ("demo", {"negatives": {"in_batch_weight": [0.0, 0.0], "dynamic_pool": 64}}, "UEPPR no T5"),
        (
            "demo",
            {"negatives": {"in_batch_weight": [0.0, 0.0], "dynamic_pool": 64, "dynamic_weight": [0.0, 0.0]}},
            "UEPPR rand",
        ),
    ],
)
def test_which_of_the_papers_systems_a_run_is(name: str, changes: dict[str, Any], expected: str | None) -> None:
    assert paper.own_name(load_config(name, given=[Given("test", changes)])) == expected


def test_a_run_and_the_study_call_the_same_settings_the_same() -> None:
    """A variant of `table1` is of the row of the paper that a run with its settings is of."""
    study = load_study("table1")
    rows = {row["name"]: row["ours"] for row in paper.figures()["systems"]["rows"]}
    for variant in ("UEPPR", "UEPPR no T5", "UEPPR rand"):
        settings = merge_settings(study.settings, study.variants[variant])
        config = load_config(study.config, given=[Given(variant, settings)])
        assert paper.own_name(config) == variant
        assert rows[variant] == [variant]
    for variant in ("Base", "Large vocab", "UEPPR not personalised"):
        changes = dict(study.variants[variant])
        base = changes.pop("config", study.config)
        config = load_config(base, given=[Given(variant, merge_settings(study.settings, changes))])
        assert paper.own_name(config) is None


def test_every_name_of_ours_is_a_systems_or_a_row_of_a_shipped_study() -> None:
    """What no study calls so would never be found."""
    studies = [load_study(name) for name in shipped_studies()]
    variants = {variant for study in studies for variant in study.variants}
    boosted = {f"{variant}, boosted" for study in studies if "uepp_boost" in study.also for variant in study.variants}
    table = paper.figures()
    assert {name for row in table["systems"]["rows"] for name in row["ours"]} <= SYSTEMS.keys() | variants | boosted
    assert {name for row in table["changes"] for pair in row["ours"] for name in pair} <= variants


def test_a_boosted_study_is_the_papers_boosted_system(tmp_path: Path) -> None:
    study = {"variants": {"UEPPR no T5": [cell(1, 0.4)], "UEPPR no T5, boosted": [cell(1, 0.7)]}}
    rows = {row[0]: row for row in paper.systems(facts_of(tmp_path, metrics_of(requests()), studies={"t": study}))}
    assert rows["UEPPR boost"][2] == "UEPPR no T5, boosted (t)"
    assert rows["UEPPR boost"][3][0] == pytest.approx(0.7)


def test_systems_of_the_paper_are_found_among_ours(tmp_path: Path) -> None:
    study = {
        "variants": {"base": [cell(1, 0.4), cell(2, 0.6)]},
        "opponents": {"bm25": {"report": cell(1, 0.3)["report"]}},
    }
    metrics = metrics_of(requests())
    facts = facts_of(tmp_path, metrics, config=load_config("demo"), studies={"main": study})
    *rows, last = paper.systems(facts)
    found = {row[0]: row for row in rows}
    assert found["Base"][2] == "base (main)"
    assert found["Base"][3][0] == pytest.approx(0.5), "Recall@100 of all requests, mean over seeds"
    assert found["Base"][3][2] is None, "tail was not measured there"
    # BM25 was the run's, on other data maybe, and Base could stand below it though it is above it in its study
    assert found["BM25"][2:] == ("BM25, tuned (main)", [pytest.approx(0.3), None, None, None])
    assert found["Random-walk"][2] == found["UEPPR no T5"][2] == "", "the run has them, the study has not"
    assert last[:3] == ("", [None] * 4, "this run (UEPPR no T5)")
    assert last[3][0] == metrics["systems"]["uepp"]["all"].get("recall@100")
    grid = content.paper_grid(facts)
    assert {len(row) for row in grid.rows} == {len(grid.heads)}


def test_without_a_study_the_run_is_beside_the_paper(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, metrics_of(requests()), config=load_config("demo"))
    rows = {row[0]: row[2] for row in paper.systems(facts)}
    assert rows["Random-walk"] == "random_walk"
    assert rows["UEPPR no T5"] == "this run, without T5"
    assert rows["Base"] == rows["UEPPR boost"] == ""
    study = {"variants": {"all encoders": [cell(1, 0.4)]}, "opponents": {"bm25": {"report": cell(1, 0.3)["report"]}}}
    facts = facts_of(tmp_path, metrics_of(requests()), config=load_config("demo"), studies={"encoders": study})
    assert {row[0]: row[2] for row in paper.systems(facts)} == rows, "a study of other things gives no row"


def test_the_study_that_has_most_of_the_papers_systems_gives_them(tmp_path: Path) -> None:
    """`UEPPR no T5` came from whichever study was given first, and stood beside another study's `UEPPR`."""
    studies = {
        "personalisation": {"variants": {"UEPPR no T5": [cell(1, 0.2)]}},
        "table1": {"variants": {name: [cell(1, 0.4)] for name in ("UEPPR", "UEPPR no T5", "Base")}},
        "large": {"variants": {"Large vocab": [cell(1, 0.3)], "Base": [cell(1, 0.1)]}},
    }
    rows = paper.systems(facts_of(tmp_path, metrics_of(requests()), config=load_config("base"), studies=studies))
    ours = {row[0]: row[2] for row in rows}
    assert [ours[name] for name in ("UEPPR", "UEPPR no T5", "Base")] == [
        "UEPPR (table1)", "UEPPR no T5 (table1)", "Base (table1)"
    ]  # fmt: skip
    assert ours["Large vocab"] == ""


def test_a_change_may_be_of_another_slice_than_all_requests() -> None:
    """The paper's 98th percentile of the distance, with location and without."""

    def near(seed: int, far: float) -> dict[str, Any]:
        return {"seed": seed, "report": {"all": {"recall@100": 0.5}, "locality": {"distance_km_p98": far}}}

    study = {"variants": {"all encoders": [near(1, 4_000.0)], "without location": [near(1, 5_000.0)]}}
    recall, distance = paper.changes({"location": study})
    assert (recall.measure, recall.ours) == ("recall@100", 0.0)
    assert (distance.measure, distance.source) == ("distance_km_p98", "VI-B-1")
    assert distance.ours == pytest.approx(-0.2)
    assert distance.theirs == pytest.approx(2_600 / 4_200 - 1, abs=1e-3)


def test_a_change_names_its_study(tmp_path: Path) -> None:
    """Two studies have variants of these names, and gave two rows that looked the same."""
    pair = {"all encoders": [cell(1, 0.8)], "without location": [cell(1, 0.7)]}
    facts = facts_of(tmp_path, metrics_of(requests()), studies={name: {"variants": pair} for name in ("one", "two")})
    grid = content.changes_grid(facts)
    assert grid is not None
    assert [row[grid.heads.index("study")].text for row in grid.rows] == ["one", "two"]


def test_the_change_by_the_transformer_is_of_variants_that_differ_in_it_alone() -> None:
    """It was taken of `without history`, which also drops terms of clicked products and tags of purchases."""
    study = load_study("encoders")
    (pair,) = next(row["ours"] for row in paper.figures()["changes"] if row["source"] == "III-C")
    whole, without = (
        load_config(study.config, given=[Given(name, merge_settings(study.settings, study.variants[name]))])
        for name in pair
    )
    none = {"num_searches": 0, "num_shops": 0}
    assert without == whole.model_copy(update={"history": whole.history.model_copy(update=none)}) != whole


def test_commands_quote_what_has_to_be_quoted(tmp_path: Path) -> None:
    lines = records.commands(facts_of(tmp_path, metrics_of(requests())))
    assert lines[0].startswith("uepp train '")
    assert """'/data of '"'"'mine'"'"''""" in lines[0]
    assert lines[1:] == ["uepp evaluate NEW_RUN --against bm25,random_walk", "uepp report NEW_RUN"]
    about = {"name": "marketplace", "seed": 3, "num_products": 50, "num_events": 1_000}
    lines = records.commands(facts_of(tmp_path, metrics_of(requests()), data=about))
    assert lines[0] == "uepp generate DIR --products 50 --events 1000 --seed 3"
    assert "--data DIR --run NEW_RUN" in lines[1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (wording.recall(0.8657), ".866"), (wording.recall(1.0), "1.000"), (wording.recall(0.99961), "1.000"),
        (wording.recall(0.0), ".000"), (wording.recall(None), "–"), (wording.recall(math.nan), "–"),
        (wording.signed(-0.0123), "−.012"), (wording.signed(0.0001), ".000"), (wording.signed(-0.0001), ".000"),
        (wording.signed(1.0), "+1.000"), (wording.points(0.3649), "+36.5"), (wording.points(-0.0001), "0.0"),
        (wording.p_value(1e-4), "≤ .0001"), (wording.p_value(0.0312), ".0312"), (wording.p_value(1.0), "1.0000"),
        (wording.p_clause(0.5), "p\u00a0=\u00a0.5000"), (wording.share(0.8657), "86.6%"),
        (wording.p_value(None), "–"), (wording.p_clause(1e-4), "p\u00a0≤\u00a0.0001"),
        (wording.measure("precision@1000", 0.00123), ".0012"), (wording.measure("precision@10", 0.1234), ".123"),
        (wording.measure("distance_km_p50", 4_184.213), "4,184"), (wording.measure("num_results", 0.4), "0"),
        (wording.measure("own_country_share", 0.5), ".500"), (wording.measure("ndcg@10", None), "–"),
        (wording.size(999), "999 bytes"), (wording.size(20_480), "20.5 kB"), (wording.size(123_456_789), "123 MB"),
        (wording.size(5e15), "5,000 TB"), (wording.duration(59), "59 s"), (wording.duration(463), "7 min 43 s"),
        (wording.duration(3_700), "1 h 1 min"), (wording.listed(["a", "b", "c"]), "a, b and c"),
        (wording.listed([]), ""), (wording.setting([0.25, None, True]), "[0.25, none, true]"),
        (wording.signed_between([None, None]), "–"), (wording.signed_between([-0.1, 0.2]), "−.100 to +.200"),
    ],
)  # fmt: skip
def test_numbers_are_written_one_way(text: str, expected: str) -> None:
    assert text == expected
