"""Judged pairs: split by query, random pairs, soft labels; STS-B, human grades and a marketplace's truth."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uepp.config import SAMPLER_NAMES, DataConfig, RelevanceConfig
from uepp.data.adapters import home_depot
from uepp.data.marketplace import generate
from uepp.data.marketplace.truth import Truth
from uepp.data.schema import read_products
from uepp.data.windows import resolve_windows
from uepp.errors import InputError
from uepp.relevance.bi_encoder import Embeddings
from uepp.relevance.candidates import LabelledPairs, draw_pool
from uepp.relevance.judged import Judged, read_judged
from uepp.relevance.pairs import PARTS, TextPairs, grade_levels, random_pairs, soft_labels, split_by_query
from uepp.relevance.part_pairs import PartPairs, part_pairs
from uepp.relevance.sampled import false_negative_shares
from uepp.relevance.samplers import make_sampler
from uepp.relevance.sts import known_beside, read_sts

LEVELS = (2.67, 2.33, 2.0)


def judged(num_queries: int = 60, each: int = 5, num_products: int = 90) -> Judged:
    rng = np.random.default_rng(1)
    query = np.repeat(np.arange(num_queries), each)
    product = np.concatenate([rng.choice(num_products, each, replace=False) for _ in range(num_queries)])
    texts = [f"query {n}" for n in range(num_queries)], [f"{n:03}" for n in range(num_products)]
    products = [f"product {n}" for n in range(num_products)]
    return Judged(
        TextPairs(*texts, products, query, product, rng.choice([1.0, 2.0, 2.33, 2.67, 3.0], len(query))), LEVELS, None
    )


def test_no_query_is_in_two_parts() -> None:
    pairs = part_pairs(judged(), RelevanceConfig(patience=1))
    queries = {part: set(pairs.texts.query[pairs.rows(part)].tolist()) for part in PARTS}
    assert all(queries.values())
    assert sum(len(each) for each in queries.values()) == len(set.union(*queries.values())) == 60
    assert 5 <= len(queries["evaluation"]) <= 20
    assert not set(part_pairs(judged(), RelevanceConfig()).part.tolist()) & {1}, "no validation without patience"


def test_the_split_is_of_text_and_seed() -> None:
    """More queries move none, and spelling moves none either."""
    queries = [f"query {n}" for n in range(400)]
    parts = split_by_query(queries, 0.2, 0.25, 1)
    assert split_by_query(queries[::-1], 0.2, 0.25, 1).tolist() == parts[::-1].tolist()
    assert split_by_query([f"  QUERY   {n} " for n in range(400)], 0.2, 0.25, 1).tolist() == parts.tolist()
    assert split_by_query(queries, 0.2, 0.25, 2).tolist() != parts.tolist()
    np.testing.assert_allclose(np.bincount(parts) / 400, [0.6, 0.2, 0.2], atol=0.07)
    with pytest.raises(InputError, match="none of them falls to"):
        split_by_query(["one"], 0.2, 0.1, 1)


def test_a_fifth_more_random_pairs_labelled_0_that_nobody_judged() -> None:
    data = judged()
    pairs = part_pairs(data, RelevanceConfig(patience=1))
    known = set(zip(data.pairs.query.tolist(), data.pairs.product.tolist(), strict=True))
    for part in PARTS:
        rows = pairs.rows(part)
        is_random = pairs.is_random[rows]
        assert is_random.sum() == round(0.2 * (~is_random).sum()) > 0
        drawn = set(zip(pairs.texts.query[rows[is_random]], pairs.texts.product[rows[is_random]], strict=True))
        assert len(drawn) == is_random.sum()
        assert not drawn & known
        assert (pairs.labels[rows[is_random]] == 0).all()
        assert (pairs.evaluation_labels[rows[is_random]] == 0).all()
        assert np.isnan(pairs.texts.grades[rows[is_random]]).all()
    assert not part_pairs(data, RelevanceConfig(random_share=0)).is_random.any()


def test_what_is_judged_for_another_spelling_is_no_negative() -> None:
    texts = TextPairs(
        ["oak board", "lamp", "Oak  board."], ["1", "2", "3"], ["x", "y", "z"],
        np.array([0, 1, 2]), np.array([0, 1, 2]), np.ones(3),
    )  # fmt: skip
    ones = np.ones(3, np.float32)
    pairs = PartPairs(texts, np.zeros(3, np.int64), np.zeros(3, bool), ones, ones)
    labelled = pairs.labelled("train", Embeddings(np.eye(3), np.eye(3)), None)
    query, product = labelled.known_of(np.arange(3))
    assert set(zip(query.tolist(), product.tolist(), strict=True)) == {(0, 0), (0, 2), (1, 1), (2, 0), (2, 2)}
    assert len(labelled) == 3


def test_a_product_with_the_same_text_is_no_negative() -> None:
    """The cross-encoder reads the text: one pair of strings would be labelled 1 and 0."""
    texts = TextPairs(
        ["oak board", "lamp"], ["1", "2", "3", "4"], ["Oak board, 2 m", "lamp", "oak board 2 m", "desk"],
        np.array([0, 1, 1]), np.array([0, 1, 3]), np.ones(3),
    )  # fmt: skip
    ones = np.ones(3, np.float32)
    pairs = PartPairs(texts, np.zeros(3, np.int64), np.zeros(3, bool), ones, ones)
    labelled = pairs.labelled("train", Embeddings(np.eye(2), np.eye(4)[:, :2]), None)
    query, product = labelled.known_of(np.arange(2))
    assert set(zip(query.tolist(), product.tolist(), strict=True)) == {(0, 0), (0, 2), (1, 1), (1, 3)}
    drawn = {pair for seed in range(20) for pair in zip(*random_pairs(texts, np.arange(2), 1.0, (seed,)), strict=True)}
    assert drawn == {(0, 1), (0, 3), (1, 0), (1, 2)}


def test_random_pairs_end_where_nearly_all_is_judged() -> None:
    """Two queries, two products, three pairs: one is left."""
    pairs = TextPairs(["a", "b"], ["1", "2"], ["x", "y"], np.array([0, 0, 1]), np.array([0, 1, 0]), np.ones(3))
    query, product = random_pairs(pairs, np.arange(2), 1.0, (1, 2))
    assert (query.tolist(), product.tolist()) == ([1], [1])


def test_soft_labels_are_the_papers() -> None:
    train, evaluation = soft_labels(np.array([3.0, 2.67, 2.66, 2.33, 2.0, 1.99, 1.0]), LEVELS)
    np.testing.assert_allclose(train, [1, 1, 0.5, 0.5, 0.2, 0.1, 0.1])
    np.testing.assert_allclose(evaluation, [1, 1, 1, 1, 0.1, 0.1, 0.1])


@pytest.mark.parametrize(
    ("scale", "labels"),
    [
        ([1, 2, 2.33, 2.67, 3], [0.1, 0.2, 0.5, 1, 1]),
        ([0, 1], [0.1, 1]),
        ([0, 1, 2, 3, 4], [0.1, 0.1, 0.2, 0.5, 1]),
        ([1, 2, 3, 4, 5], [0.1, 0.1, 0.2, 0.5, 1]),
        ([-1, 0, 1], [0.1, 0.2, 1]),
    ],
)
def test_levels_of_any_scale_are_where_those_of_1_to_3_are(scale: list[float], labels: list[float]) -> None:
    grades = np.array(scale, np.float32).astype(np.float64)  # as a file may have them
    levels = grade_levels(grades)
    assert levels is not None
    assert levels[0] > levels[1] > levels[2]
    np.testing.assert_allclose(soft_labels(grades, levels)[0], labels)
    if scale[0] == 1 and scale[-1] == 3:
        assert levels == pytest.approx(LEVELS, abs=1e-12)


def test_grades_that_say_nothing_have_no_levels() -> None:
    assert grade_levels(np.full(4, 2.0)) is None


def test_what_became_of_the_grades_is_told() -> None:
    pairs = part_pairs(judged(), RelevanceConfig())
    grades = pairs.texts.grades[~pairs.is_random]
    levels = pairs.levels()
    assert {name: least for name, (_, least) in levels.items()} == {
        "strongly relevant": 2.67,
        "relevant": 2.33,
        "somewhat relevant": 2.0,
        "not relevant": 1.0,
    }
    assert [count for count, _ in levels.values()] == [
        ((grades >= low) & (grades < high)).sum() for low, high in ((2.67, 9), (2.33, 2.67), (2, 2.33), (0, 2))
    ]
    high_or_low = np.where(pairs.labels > 0.1, 1, 0.1).astype(np.float32)
    two = PartPairs(pairs.texts, pairs.part, pairs.is_random, high_or_low, pairs.evaluation_labels)
    assert list(two.levels()) == ["strongly relevant", "not relevant"], "no line about what does not occur"


def test_a_grade_of_float32_is_the_level_that_was_meant(tmp_path: Path) -> None:
    """float32(2.33) is 2.3299999237: it was "somewhat relevant" until levels were as wide as float32 is coarse."""
    grades = np.array([2.67, 2.33, 2.0, 2.3299], np.float32).astype(np.float64)
    assert grades[1] < 2.33
    train, evaluation = soft_labels(grades, LEVELS)
    np.testing.assert_allclose(train, [1, 0.5, 0.2, 0.2])
    np.testing.assert_allclose(evaluation, [1, 1, 0.1, 0.1])
    third = 7 / 3  # a mean of three annotators, with all its digits on both sides
    np.testing.assert_allclose(soft_labels(np.array([third, third - 1e-3]), (2.9, third, 2.0))[0], [0.5, 0.2])

    directory = graded(tmp_path / "data", ["1", "01"], [3.0, 1.0])
    table = pq.read_table(directory / "judgments.parquet")
    stored = table.set_column(2, "grade", pa.array([2.33, 2.32], pa.float32()))
    pq.write_table(stored, directory / "judgments.parquet")
    found = read(directory, RelevanceConfig(grade_levels=LEVELS))
    np.testing.assert_allclose(soft_labels(found.pairs.grades, found.levels)[0], [0.5, 0.2])


def test_positive_is_relevant_or_better(tmp_path: Path) -> None:
    """A judged "not relevant" is .1 in training: more than 0 and no positive, for θ and for FALSE."""
    pairs = part_pairs(judged(), RelevanceConfig())
    embeddings = Embeddings(np.eye(len(pairs.texts.queries), 4), np.eye(len(pairs.texts.products), 4))
    labelled = pairs.labelled("train", embeddings, RelevanceConfig().positive_above)
    is_positive = labelled.grades > labelled.positive_above
    found = [{f"{grade:.1f}" for grade in labelled.grades[which]} for which in (is_positive, ~is_positive)]
    assert found == [{"0.5", "1.0"}, {"0.0", "0.1", "0.2"}], "random ones are 0"
    assert pairs.labelled("train", embeddings, 0.15).positive_above == 0.15


def test_queries_that_were_first_asked_after_t_are_evaluated_and_never_trained_on() -> None:
    queries = [f"query {n}" for n in range(300)]
    by_hash = split_by_query(queries, 0.2, 0.25, 1)
    few, many = ({f"query {n}" for n in range(number)} for number in (30, 90))
    parts = split_by_query([*queries[:150], "  QUERY 3", *queries[150:]], 0.2, 0.25, 1, few)
    assert (parts[:30] == 2).all()
    assert parts[150] == 2, "another spelling of the same query"
    assert 0.15 < (parts == 2).mean() < 0.25, "others make up for what is missing"
    others = np.delete(parts, 150)[30:]
    assert (by_hash[30:][others == 2] == 2).all(), "those that a hash would take first"
    parts = split_by_query(queries, 0.2, 0.25, 1, many)
    assert np.flatnonzero(parts == 2).tolist() == list(range(90)), "enough of them: nobody else"
    assert 0.15 < (parts[90:] == 1).mean() < 0.35
    with pytest.raises(
        InputError, match="2 judged queries, 2 of them first asked at T or later: none of them falls to"
    ):
        split_by_query(["one", "two"], 0.2, 0.1, 1, {"one", "two"})


def test_home_depot_trains_on_none_of_the_queries_that_its_towers_are_evaluated_on(tmp_path: Path) -> None:
    """Its grades are its purchases: a cross-encoder that saw an evaluated query knew what is to be found."""
    lines = ["id,product_uid,product_title,search_term,relevance"]
    lines += [f"{n},{n % 60:03},product {n % 60},query {n // 3},{1 + n % 3}" for n in range(600)]
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "train.csv").write_text("\n".join(lines) + "\n")
    home_depot.import_data(tmp_path / "source", tmp_path / "data")
    products = pq.read_table(tmp_path / "data" / "products.parquet")
    long_ago = DataConfig(train_end=datetime(1990, 1, 1, tzinfo=UTC))
    with pytest.raises(InputError, match=r"no click, .* set data.train_end"):  # later queries were trained on
        read_judged(tmp_path / "data", products, long_ago, RelevanceConfig())
    evaluated = {f"query {n}" for n in range(200) if home_depot.evaluation_day(f"query {n}", 0.2) is not None}
    found = read(tmp_path / "data", RelevanceConfig())
    assert found.later == evaluated
    assert 20 < len(evaluated) < 60
    pairs = part_pairs(found, RelevanceConfig(patience=1))
    of = {part: {pairs.texts.queries[row] for row in pairs.texts.query[pairs.rows(part)]} for part in PARTS}
    assert evaluated <= of["evaluation"]
    assert not evaluated & (of["train"] | of["validation"])
    assert len(of["evaluation"]) <= max(len(evaluated), 55)
    by_hash = part_pairs(Judged(found.pairs, found.levels, None), RelevanceConfig(patience=1))
    trained = {by_hash.texts.queries[row] for row in by_hash.texts.query[by_hash.rows("train")]}
    assert evaluated & trained, "which a split by hash alone would have done"


def test_pairs_are_the_same_after_saving(tmp_path: Path) -> None:
    pairs = part_pairs(judged(), RelevanceConfig(patience=1))
    pairs.save(tmp_path / "pairs.parquet")
    read = PartPairs.load(tmp_path / "pairs.parquet")

    def facts(each: PartPairs) -> list[tuple[object, ...]]:
        texts = each.texts
        queries, products = [texts.queries[n] for n in texts.query], [texts.products[n] for n in texts.product]
        ids = [texts.product_ids[n] for n in texts.product]
        numbers = (each.part, each.is_random, each.labels, each.evaluation_labels, np.nan_to_num(texts.grades))
        return list(zip(queries, ids, products, *(column.tolist() for column in numbers), strict=True))

    assert facts(read) == facts(pairs)
    (tmp_path / "pairs.parquet").write_text("no table")
    with pytest.raises(InputError, match="not a readable table of pairs"):
        PartPairs.load(tmp_path / "pairs.parquet")


def sts_line(grade: str, first: str, second: str) -> str:
    return "\t".join(["main-news", "MSRpar", "2012", "0001", grade, first, second])


def test_sts_is_read_as_published(tmp_path: Path) -> None:
    """Quotes are letters, more columns may follow, and the same sentence is the same row."""
    lines = [sts_line("5.000", 'He said "yes.', "He agreed."), sts_line("0.5", 'He said "yes.', "A dog") + "\tx\ty"]
    (tmp_path / "sts-train.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    pairs = read_sts(tmp_path, "train")
    assert pairs.queries == ['He said "yes.']
    assert [pairs.products[row] for row in pairs.product] == ["He agreed.", "A dog"]
    assert pairs.grades.tolist() == [5.0, 0.5]
    assert pairs.query.tolist() == [0, 0]


def test_a_sentence_and_what_it_was_graded_with_are_no_negatives_of_each_other(tmp_path: Path) -> None:
    """Sides are numbered apart: "a" is the first query and the third product; (b, a) is what (a, b) says, turned."""
    lines = [sts_line("4", "a", "b"), sts_line("1", "b", "c"), sts_line("0", "d", "a"), sts_line("3", "a", "d")]
    (tmp_path / "sts-train.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    pairs = read_sts(tmp_path, "train")
    query, product = known_beside(pairs)
    known = {(pairs.queries[q], pairs.products[p]) for q, p in zip(query, product, strict=True)}
    assert known == {(one, one) for one in "abd"} | {("b", "a")}, "c is no query; (a, d) and (d, a) are graded"
    labelled = LabelledPairs(
        pairs.query, pairs.product, pairs.grades / 5, np.eye(3), np.eye(4, 3), also_known=(query, product)
    )
    pool = draw_pool(labelled, np.arange(4), 4, 1)
    candidates = {(pairs.queries[q], pairs.products[p]) for q, p in np.argwhere(pool.is_candidate)}
    assert candidates == {("a", "c"), ("b", "d"), ("d", "b"), ("d", "c")}


def test_a_sentence_in_another_spelling_is_no_negative_of_itself(tmp_path: Path) -> None:
    """Raw texts were compared: "A dog runs." was sampled as a negative of "a dog runs", with the label 0."""
    first = ["A dog runs.", "a dog runs", "Cafés open", "no"]
    second = ["It rains", "a Dog runs!", "cafes open?", "it rains."]
    lines = [sts_line(grade, *texts) for grade, *texts in zip("4150", first, second, strict=True)]
    (tmp_path / "sts-train.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    pairs = read_sts(tmp_path, "train")
    found = {(pairs.queries[q], pairs.products[p]) for q, p in zip(*known_beside(pairs), strict=True)}
    meaning = dict(zip([*first, *second], ["dog", "dog", "cafe", "no", "rain", "dog", "cafe", "rain"], strict=True))
    graded = set(zip(first, second, strict=True))
    judged = {(meaning[one], meaning[other]) for one, other in graded}
    expected = {
        (one, other)
        for one in first
        for other in second
        if (meaning[one], meaning[other]) in judged
        or (meaning[other], meaning[one]) in judged
        or meaning[one] == meaning[other]
    }
    assert found == expected - graded == {("A dog runs.", "a Dog runs!"), ("a dog runs", "It rains"),
        ("A dog runs.", "it rains."), ("a dog runs", "it rains."), ("no", "It rains")}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"sts-dev.csv: no such file"),
        ("", r"has no pairs"),
        ("a\tb\tc", r"line 1 has 3 columns; expected genre, file"),
        (
            sts_line("5", "x", "y") + "\n" + sts_line("7", "x", "y"),
            r"line 2: grade is '7'; it must be a number from 0 to 5",
        ),
        (sts_line("good", "x", "y"), r"line 1: grade is 'good'"),
    ],
)
def test_what_sts_refuses(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "sts-dev.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_sts(tmp_path, "dev")


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("market") / "market"
    generate(directory, num_products=300, num_events=20_000, seed=1)
    return directory


def read(directory: Path, config: RelevanceConfig) -> Judged:
    return read_judged(directory, read_products(directory), DataConfig(), config)


def test_the_truth_judges_what_was_displayed_most(market: Path) -> None:
    config = RelevanceConfig(judged_queries=40, judged_products=6)
    found = read(market, config)
    pairs, truth = found.pairs, Truth.load(market)
    assert len(pairs.queries) == 40
    assert np.bincount(pairs.query).max() <= 6
    assert found.levels == config.truth_levels
    events = pq.read_table(market / "events.parquet").to_pylist()
    end = resolve_windows(market, DataConfig()).train_end
    for row in (0, 7, 23):
        query = pairs.queries[row]
        shown: dict[str, int] = {}
        for event in events:
            if event["type"] == "impression" and event["query"] == query and event["timestamp"] < end:
                shown[event["product_id"]] = shown.get(event["product_id"], 0) + 1
        most = sorted(shown, key=lambda product: (-shown[product], product))[:6]
        is_here = pairs.query == row
        assert [pairs.product_ids[product] for product in pairs.product[is_here]] == most
        np.testing.assert_allclose(pairs.grades[is_here], truth.relevance(query, most))
    again = read(market, config)
    assert again.pairs.queries == pairs.queries, "drawn by the seed"


def test_false_negatives_are_counted_by_the_truth(market: Path) -> None:
    """With embeddings whose cosine is the true relevance, the hardest of what is not judged are false negatives."""
    config = RelevanceConfig(judged_queries=60, judged_products=8, batch_size=16, pool_size=64)
    found = read(market, config)
    assert found.truth is not None
    pairs = part_pairs(found, config)
    texts = pairs.texts
    relevance = np.array([found.truth.relevance(query, texts.product_ids) for query in texts.queries])
    embeddings = relevance, np.eye(len(texts.products))
    labelled = pairs.labelled("train", embeddings, 0.0)
    measured = labelled, found.is_false_negative, ("vns", "hns"), (2, 4), (32, 64)
    rows = false_negative_shares(*measured, config, 6)
    assert [(row["sampler"], row["num_negatives"], row["pool_size"]) for row in rows] == [
        (name, k, pool) for pool in (32, 64) for k in (2, 4) for name in ("vns", "hns")
    ]
    share = {(row["sampler"], row["num_negatives"], row["pool_size"]): row["share"] for row in rows}
    assert share["hns", 2, 64] > max(share["vns", 2, 64], 0.02)
    assert share["hns", 2, 64] >= share["hns", 4, 64], "the hardest first"
    assert all(row["label_of_false"] in (0.0, None) for row in rows)
    assert all(row["share_std"] is row["label_of_false_std"] is None for row in rows), "one seed has no spread"
    assert all(row["bhns_less"] is row["bhns_less_is_apart"] is None for row in rows)

    # Several seeds: what each gives alone, together.
    others = [
        false_negative_shares(*measured, config.model_copy(update={"seed": config.seed + n}), 6) for n in range(3)
    ]
    for place, row in enumerate(false_negative_shares(*measured, config, 6, num_seeds=3)):
        shares = [one[place]["share"] for one in others]
        assert row["num_seeds"] == 3
        assert row["num_sampled"] == sum(one[place]["num_sampled"] for one in others)
        assert row["share"] == pytest.approx(np.mean(shares))
        assert row["share_std"] == pytest.approx(np.std(shares, ddof=1))
        assert row["bhns_less"] is None, "BHNS is not among them"
    assert len({one[1]["share"] for one in others}) > 1

    # BHNS less another one, seed by seed.
    hardest, ours = false_negative_shares(
        labelled, found.is_false_negative, ("hns", "bhns"), (4,), (64,), config, 6, num_seeds=3
    )
    assert ours["bhns_less"] is None, "of itself"
    assert hardest["bhns_less"] == pytest.approx(ours["share"] - hardest["share"])
    alone = [
        [row["share"] for row in false_negative_shares(
            labelled, found.is_false_negative, ("hns", "bhns"), (4,), (64,),
            config.model_copy(update={"seed": config.seed + n}), 6,
        )]
        for n in range(3)
    ]  # fmt: skip
    gaps = [of_bhns - of_hns for of_hns, of_bhns in alone]
    assert hardest["bhns_less_std"] == pytest.approx(np.std(gaps, ddof=1))
    reach = 4.303 * np.std(gaps, ddof=1) / np.sqrt(3)
    assert hardest["bhns_less_is_apart"] == (abs(np.mean(gaps)) > reach)


def test_by_hand_how_many_are_false(market: Path) -> None:
    found = read(market, RelevanceConfig(judged_queries=30))
    assert found.truth is not None
    query, product = np.array([0, 0, 5]), np.array([1, 2, 3])
    expected = [
        found.truth.relevance(found.pairs.queries[q], [found.pairs.product_ids[p]])[0] >= 0.5
        for q, p in zip(query, product, strict=True)
    ]
    assert found.is_false_negative(query, product).tolist() == expected


def graded(directory: Path, product_ids: list[str], grades: Sequence[float] = (3.0, 1.0)) -> Path:
    directory.mkdir()
    moment = pa.array([datetime(2024, 5, 1, tzinfo=UTC)] * 2, pa.timestamp("us", "UTC"))
    pq.write_table(
        pa.table({"product_id": ["01", "1"], "title": ["Oak  table", "Mug"], "tags": [["wood"], []]}),
        directory / "products.parquet",
    )
    events = {"timestamp": moment, "type": ["click"] * 2, "query": ["table", "mug"], "product_id": ["01", "1"]}
    pq.write_table(pa.table(events), directory / "events.parquet")
    columns = {"query": ["table"] * len(product_ids), "product_id": product_ids, "grade": pa.array(grades, "double")}
    pq.write_table(pa.table(columns), directory / "judgments.parquet")
    return directory


def test_human_grades_are_read_with_the_texts_of_products(tmp_path: Path) -> None:
    found = read(graded(tmp_path / "data", ["1", "01"]), RelevanceConfig(fields=("title", "tags")))
    assert [found.pairs.products[row] for row in found.pairs.product] == ["Mug", "Oak table wood"]
    assert (found.truth, found.levels, found.pairs.grades.tolist()) == (None, pytest.approx(LEVELS), [3.0, 1.0])
    with pytest.raises(ValueError, match="no truth"):
        found.is_false_negative(np.array([0]), np.array([0]))


def test_what_is_refused_of_data_sets(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"product_id '001' is not in .*products.parquet"):
        read(graded(tmp_path / "data", ["01", "001"]), RelevanceConfig())
    (tmp_path / "data" / "judgments.parquet").unlink()
    with pytest.raises(InputError, match=r"nothing is judged; expected judgments\.parquet"):
        read(tmp_path / "data", RelevanceConfig())


def test_grades_that_no_level_fits_are_refused(tmp_path: Path) -> None:
    """0 and 1 were all "not relevant" by levels for 1 to 3, and training went on for half an hour."""
    binary = graded(tmp_path / "binary", ["1", "01"], [0.0, 1.0])
    pairs = read(binary, RelevanceConfig())
    np.testing.assert_allclose(soft_labels(pairs.pairs.grades, pairs.levels)[0], [0.1, 1.0])
    said = r"levels = \[2.67, 2.33, 2.0\]: relevant is at least 2.33, and .*judgments\.parquet has grades of 0 to 1"
    with pytest.raises(InputError, match=said):
        read(binary, RelevanceConfig(grade_levels=(2.67, 2.33, 2.0)))
    same = graded(tmp_path / "same", ["1", "01"], [1.0, 1.0])
    with pytest.raises(InputError, match=r"judgments\.parquet: column grade: 1 in every row; expected grades that dif"):
        read(same, RelevanceConfig())
    assert read(same, RelevanceConfig(grade_levels=(1.0, 0.5, 0.2))).levels == (1.0, 0.5, 0.2), "what is known is taken"
    with pytest.raises(InputError, match=r"judgments\.parquet: has no rows; expected one for each judged query"):
        read(graded(tmp_path / "none", [], []), RelevanceConfig())


def test_every_sampler_of_the_settings_can_be_made() -> None:
    assert len({type(make_sampler(name)) for name in SAMPLER_NAMES}) > 2
