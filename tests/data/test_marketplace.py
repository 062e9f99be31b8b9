"""The generated marketplace: its contract, its determinism, and that it behaves as a market does."""

import json
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from files import digests

from uepp.data.marketplace import Truth, generate, log, texts
from uepp.data.marketplace.geography import CITIES, distance_table, postal_code
from uepp.data.marketplace.taxonomy import LANGUAGES, TAXONOMY
from uepp.data.marketplace.words import CONCEPTS, OCCASIONS, RECIPIENTS
from uepp.errors import InputError

NUM_PRODUCTS, NUM_EVENTS = 2_000, 60_000
TRAIN_END = datetime(2024, 5, 4, tzinfo=UTC)


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("generated") / "market"
    generate(directory, num_products=NUM_PRODUCTS, num_events=NUM_EVENTS, seed=3, progress=False)
    return directory


@pytest.fixture(scope="module")
def products(market: Path) -> dict[str, dict[str, Any]]:
    return {row["product_id"]: row for row in pq.read_table(market / "products.parquet").to_pylist()}


@pytest.fixture(scope="module")
def events(market: Path) -> list[dict[str, Any]]:
    return pq.read_table(market / "events.parquet").to_pylist()


@pytest.fixture(scope="module")
def truth(market: Path) -> Truth:
    return Truth.load(market)


# The contract


def test_schemas_are_exact(market: Path) -> None:
    moment = pa.timestamp("us", tz="UTC")
    text, number = pa.string(), pa.float64()
    place = [("country", text), ("region", text), ("language", text), ("zip", text)]
    place += [("latitude", number), ("longitude", number)]
    assert pq.read_schema(market / "products.parquet").equals(
        pa.schema(
            [
                ("product_id", text),
                ("title", text),
                ("tags", pa.list_(text)),
                ("description", text),
                ("category", text),
                ("attributes", pa.map_(text, pa.list_(text))),
                ("shop_id", text),
                ("price", number),
                ("created_at", moment),
                *place,
                ("quality_rating", number),
                ("quality_sales", number),
                ("quality_shop", number),
                ("quality_as_of", moment),
            ]
        )
    )
    assert pq.read_schema(market / "events.parquet").equals(
        pa.schema(
            [
                ("timestamp", moment),
                ("user_id", text),
                ("session_id", text),
                ("type", text),
                ("query", text),
                ("product_id", text),
                ("position", pa.int32()),
                *place,
            ]
        )
    )


def test_dataset_json_says_what_it_is(market: Path) -> None:
    facts = json.loads((market / "dataset.json").read_text())
    assert (facts["name"], facts["version"], facts["seed"]) == ("marketplace", "1", 3)
    assert (facts["num_products"], facts["num_events"]) == (NUM_PRODUCTS, NUM_EVENTS)
    assert datetime.fromisoformat(facts["train_end"]) == TRAIN_END
    assert "restriction" in facts["licence"]
    assert facts["protocol"]


def test_sizes(products: dict[str, dict[str, Any]], events: list[dict[str, Any]]) -> None:
    assert len(products) == NUM_PRODUCTS
    assert abs(len(events) - NUM_EVENTS) <= 0.02 * NUM_EVENTS


@pytest.mark.parametrize(("num_products", "num_events"), [(50, 1_000), (60, 12_345)])
def test_smallest_sizes(tmp_path: Path, num_products: int, num_events: int) -> None:
    generate(tmp_path / "m", num_products=num_products, num_events=num_events, seed=0, progress=False)
    assert pq.read_metadata(tmp_path / "m" / "products.parquet").num_rows == num_products
    assert abs(pq.read_metadata(tmp_path / "m" / "events.parquet").num_rows - num_events) <= 0.02 * num_events


def test_products_are_sound(products: dict[str, dict[str, Any]]) -> None:
    countries = {city.country for city in CITIES}
    paths = {leaf.path for leaf in TAXONOMY.leaves}
    for row in products.values():
        assert row["title"].strip()
        assert 1 <= len(row["tags"]) <= 13
        assert row["category"] is None or row["category"] in paths
        assert row["price"] > 0
        assert row["country"] in countries
        assert row["language"] in LANGUAGES
        assert (row["latitude"] is None) == (row["longitude"] is None)
        assert row["latitude"] is None or (-90 <= row["latitude"] <= 90 and -180 <= row["longitude"] <= 180)
        assert row["quality_as_of"] <= TRAIN_END
        assert all(np.isfinite(row[name]) for name in ("quality_rating", "quality_sales", "quality_shop"))
    assert len({row["language"] for row in products.values()}) == 4
    assert any(row["latitude"] is None for row in products.values())
    assert any(product_id.startswith("0") for product_id in products)
    # The catalogue grows before the log and on every day of it.
    days = Counter(row["created_at"].date() for row in products.values())
    assert min(days) < (TRAIN_END - timedelta(days=400)).date() < max(days)


def test_events_refer_to_products_that_exist_at_that_time(
    products: dict[str, dict[str, Any]], events: list[dict[str, Any]]
) -> None:
    start, stop = TRAIN_END - timedelta(days=400), TRAIN_END + timedelta(days=7)
    for row in events:
        assert start <= row["timestamp"] < stop
        assert row["session_id"]
        assert row["query"]
        if row["type"] == "search":
            assert row["product_id"] is None
            assert row["position"] is None
        else:
            assert row["type"] in ("impression", "click", "cart", "purchase")
            assert 0 <= row["position"] < 20
            assert products[row["product_id"]]["created_at"] <= row["timestamp"]
    assert {row["timestamp"].date() for row in events} == {(start + timedelta(days=d)).date() for d in range(407)}


def test_sessions_are_one_person_in_one_place_and_start_with_a_search(events: list[dict[str, Any]]) -> None:
    sessions: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in sorted(events, key=lambda row: row["timestamp"]):
        sessions[row["session_id"]].append(row)
    lengths = Counter()
    for rows in sessions.values():
        assert rows[0]["type"] == "search"
        for name in ("user_id", "country", "region", "language", "zip", "latitude", "longitude"):
            assert len({row[name] for row in rows}) == 1
        times = [row["timestamp"] for row in rows if row["type"] == "search"]
        assert len(set(times)) == len(times)
        lengths[len(times)] += 1
        current = None
        for row in rows:
            current = row["query"] if row["type"] == "search" else current
            assert row["query"] == current
    assert lengths[1] > lengths[2] > lengths[4] > 0
    anonymous = np.mean([rows[0]["user_id"] is None for rows in sessions.values()])
    assert 0.15 < anonymous < 0.25
    unplaced = np.mean([rows[0]["latitude"] is None for rows in sessions.values()])
    assert 0.08 < unplaced < 0.18


# Determinism


def test_same_seed_same_bytes_other_seed_other_market(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        generate(tmp_path / name, num_products=300, num_events=5_000, seed=seed, progress=False)
    first, second, third = (digests(tmp_path / name) for name in "abc")
    assert first == second
    assert len(first) == 7
    assert all(first[name] != third[name] for name in first)


def test_content_does_not_depend_on_how_the_log_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate(tmp_path / "whole", num_products=300, num_events=5_000, seed=5, progress=False)
    monkeypatch.setattr(log, "_ROWS_A_GROUP", 777)
    generate(tmp_path / "cut", num_products=300, num_events=5_000, seed=5, progress=False)
    whole, cut = (pq.ParquetFile(tmp_path / name / "events.parquet") for name in ("whole", "cut"))
    assert cut.num_row_groups > whole.num_row_groups
    assert cut.read().equals(whole.read())


# How a market behaves


def test_the_funnel_narrows_and_every_step_has_the_one_before(events: list[dict[str, Any]]) -> None:
    by_type: dict[str, Counter[tuple[str, str, str]]] = defaultdict(Counter)
    first: dict[tuple[str, str, str, str], datetime] = {}
    with_page = {(row["session_id"], row["query"]) for row in events if row["type"] == "impression"}
    for row in events:
        key = (row["session_id"], row["query"], row["product_id"])
        by_type[row["type"]][key] += 1
        name = (row["type"], *key)
        first[name] = min(first.get(name, row["timestamp"]), row["timestamp"])
    totals = {kind: sum(counts.values()) for kind, counts in by_type.items()}
    assert totals["search"] > totals["click"] * 0.5
    assert totals["click"] > totals["cart"] > totals["purchase"] > 0
    for later, earlier in (("purchase", "cart"), ("cart", "click")):
        for key in by_type[later]:
            assert first[(earlier, *key)] < first[(later, *key)]
    shown_clicks = [key for key in by_type["click"] if key[:2] in with_page]
    assert len(shown_clicks) > 100
    # A query may be searched twice in a session and only one of the two pages be logged.
    assert np.mean([key in by_type["impression"] for key in shown_clicks]) > 0.95
    since = TRAIN_END - timedelta(days=30)
    assert all(row["timestamp"] >= since for row in events if row["type"] == "impression")


def test_first_places_are_clicked_more(events: list[dict[str, Any]]) -> None:
    clicked = {(r["session_id"], r["query"], r["product_id"]) for r in events if r["type"] == "click"}
    shown, hits = np.zeros(20), np.zeros(20)
    for row in events:
        if row["type"] == "impression":
            shown[row["position"]] += 1
            hits[row["position"]] += (row["session_id"], row["query"], row["product_id"]) in clicked
    rate = [hits[span].sum() / shown[span].sum() for span in (slice(0, 2), slice(2, 6), slice(6, 12), slice(12, 20))]
    assert rate == sorted(rate, reverse=True)
    assert rate[0] > 2.5 * rate[3]


def test_bought_products_are_far_more_relevant_than_random_ones(
    truth: Truth, products: dict[str, dict[str, Any]], events: list[dict[str, Any]]
) -> None:
    rng = np.random.default_rng(0)
    ids = sorted(products)
    bought = [row for row in events if row["type"] == "purchase" and row["user_id"]]
    plain, personal = [], []
    for i in rng.choice(len(bought), 300, replace=False):
        row = bought[i]
        pair = [row["product_id"], ids[rng.integers(len(ids))]]
        plain.append(truth.relevance(row["query"], pair))
        personal.append(truth.relevance(row["query"], pair, row["user_id"]))
    for values in (np.array(plain), np.array(personal)):
        assert values.min() >= 0
        assert values.max() <= 1
        assert values[:, 0].mean() > 6 * values[:, 1].mean()


def test_purchases_pull_to_near_and_domestic_shops(
    products: dict[str, dict[str, Any]], events: list[dict[str, Any]]
) -> None:
    share = {}
    for kind in ("impression", "purchase"):
        rows = [row for row in events if row["type"] == kind and row["country"]]
        share[kind] = np.mean([products[row["product_id"]]["country"] == row["country"] for row in rows])
    assert share["purchase"] > share["impression"] + 0.05


def test_broad_queries_share_no_word_with_what_is_bought_for_them(
    products: dict[str, dict[str, Any]], events: list[dict[str, Any]]
) -> None:
    phrases = {phrase for occasion in OCCASIONS for phrase in occasion.buyers["en"]}
    searched = Counter(row["query"] for row in events if row["type"] == "search")
    assert phrases & {query for query, _ in searched.most_common(60)}
    disjoint = []
    for row in events:
        if row["type"] == "purchase" and row["query"] in phrases:
            product = products[row["product_id"]]
            words = set(texts.normalised_words(" ".join((product["title"], *product["tags"]))))
            disjoint.append(not words & set(texts.normalised_words(row["query"])))
    assert len(disjoint) > 50
    assert np.mean(disjoint) > 0.5


def test_queries_have_a_heavy_head_and_a_long_tail(events: list[dict[str, Any]]) -> None:
    counts = np.array(sorted(Counter(r["query"] for r in events if r["type"] == "search").values(), reverse=True))
    assert counts[:20].sum() > 0.06 * counts.sum()
    assert (counts == 1).sum() > 0.25 * counts.sum()


def test_people_come_back_and_buy_again(events: list[dict[str, Any]]) -> None:
    by_user = Counter(row["user_id"] for row in events if row["type"] == "purchase" and row["user_id"])
    assert np.mean([count > 1 for count in by_user.values()]) > 0.4


# The truth


def test_truth_knows_every_query_of_the_log(truth: Truth, events: list[dict[str, Any]]) -> None:
    queries = sorted({row["query"] for row in events})[::37]
    assert len(queries) > 100
    for query in queries:
        intent = truth.intent(query)
        assert intent[0] > 0 or (intent[2:] >= 0).any()


def test_truth_reads_queries_that_were_never_asked(truth: Truth, products: dict[str, dict[str, Any]]) -> None:
    ids = sorted(products)
    category = np.array([products[product_id]["category"] or "" for product_id in ids])
    for query, leaf in (
        ("please show me this jewelry organizr", "Home & Living > Storage > Jewelry Boxes"),
        ("zzz strickmütze zzz", "Clothing > Knit Accessories > Beanies"),
    ):
        values = truth.relevance(query, ids)
        assert values.shape == (len(ids),)
        assert (values == 1.0).sum() >= 3
        # Three categories in a hundred are wrong, two are missing.
        assert (category[values == 1.0] == leaf).mean() > 0.7
    # A typo a word is read; more are not.
    assert np.array_equal(truth.intent("dog colllar"), truth.intent("dog collar"))


def test_truth_of_a_precise_query_needs_each_of_its_parts(truth: Truth, market: Path) -> None:
    latents = pq.read_table(market / "truth" / "products.parquet")
    ids, leaf = latents.column("product_id").to_pylist(), latents.column("leaf").to_numpy()
    colour = np.stack(latents.column("concepts").to_numpy())[:, 1]
    wanted_leaf = int(np.bincount(leaf).argmax())
    in_leaf = np.flatnonzero((leaf == wanted_leaf) & (colour >= 0))
    wanted = int(np.bincount(colour[in_leaf]).argmax())
    query = f"{CONCEPTS[wanted].sellers['en'][0]} {TAXONOMY.leaves[wanted_leaf].sellers['en'][0]}"
    values = truth.relevance(query, ids)
    assert np.allclose(values[(leaf == wanted_leaf) & (colour == wanted)], 1.0)
    assert values[(leaf == wanted_leaf) & (colour != wanted)].max() <= 0.5
    assert values[leaf != wanted_leaf].max() <= 0.25


def test_truth_of_an_unknown_query_is_zero_everywhere(truth: Truth, products: dict[str, dict[str, Any]]) -> None:
    for query in ("", "qqqqq xxxxxxx", "!!!", "日本語"):
        assert not truth.relevance(query, sorted(products)).any()


def test_truth_with_a_person_is_lower_and_differs_between_people(truth: Truth, market: Path) -> None:
    users = pq.read_table(market / "truth" / "users.parquet").column("user_id").to_pylist()[:2]
    ids = pq.read_table(market / "products.parquet").column("product_id").to_pylist()
    plain = truth.relevance("mug", ids)
    one, other = (truth.relevance("mug", ids, user) for user in users)
    assert (one <= plain).all()
    assert (one[plain > 0] < plain[plain > 0]).all()
    assert not np.allclose(one, other)
    assert truth.relevance("mug", [], users[0]).shape == (0,)


def test_truth_refuses_unknown_ids_and_missing_folders(truth: Truth, market: Path, tmp_path: Path) -> None:
    some = pq.read_table(market / "products.parquet").column("product_id")[0].as_py()
    with pytest.raises(InputError, match="unknown product_id 'nope'"):
        truth.relevance("mug", ["nope"])
    with pytest.raises(InputError, match="unknown user_id 'nobody'"):
        truth.relevance("mug", [some], "nobody")
    with pytest.raises(InputError, match=r"world\.json"):
        Truth.load(tmp_path)


# Bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_products": 49}, "num_products = 49"),
        ({"num_events": 999}, "num_events = 999"),
        ({"num_products": -1}, "num_products = -1"),
        ({"seed": -1}, "seed = -1"),
    ],
)
def test_bad_sizes_are_refused(tmp_path: Path, settings: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        generate(tmp_path / "market", progress=False, **settings)
    assert not list(tmp_path.iterdir())


def test_a_favourite_shop_may_have_no_product(tmp_path: Path) -> None:
    """Of these two the last shop has none, and somebody likes it best."""
    generate(tmp_path / "one", num_products=50, num_events=5_000, seed=13, progress=False)
    generate(tmp_path / "two", num_products=1_000, num_events=20_000, seed=8, progress=False)
    assert len(pq.read_table(tmp_path / "two" / "events.parquet")) == 20_000


def test_a_directory_that_is_not_empty_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="not empty"):
        generate(tmp_path, progress=False)
    with pytest.raises(InputError, match="is a file"):
        generate(tmp_path / "mine.txt", progress=False)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_nothing_is_left_behind_by_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> float:
        raise RuntimeError("disk full")

    monkeypatch.setattr(log, "_table", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        generate(tmp_path / "market", num_products=60, num_events=1_000, progress=False)
    assert not list(tmp_path.iterdir())


# The word lists and the map


def test_words_are_complete_and_buyers_have_words_of_their_own() -> None:
    things = [*TAXONOMY.departments, *TAXONOMY.groups, *TAXONOMY.leaves, *CONCEPTS, *RECIPIENTS, *OCCASIONS]
    for thing in things:
        for language in LANGUAGES:
            assert thing.sellers[language]
            assert thing.buyers[language]
            assert all(phrase == phrase.strip() for phrase in thing.sellers[language] + thing.buyers[language])
    assert 150 <= len(TAXONOMY.leaves) <= 300
    gap = [set(leaf.sellers["en"]) != set(leaf.buyers["en"]) for leaf in TAXONOMY.leaves]
    assert all(gap)


def test_distances_are_those_of_the_globe() -> None:
    names = [city.name for city in CITIES]
    table = distance_table()
    for left, right, kilometres in (
        ("Paris", "London", 344),
        ("New York", "Los Angeles", 3936),
        ("Sydney", "Perth", 3290),
    ):
        assert table[names.index(left), names.index(right)] == pytest.approx(kilometres, rel=0.01)
    assert np.allclose(table, table.T, atol=0.5)
    assert not table.diagonal().any()


def test_postal_codes_follow_their_pattern() -> None:
    assert postal_code("10###", 321) == "10123"
    assert postal_code("SW# #@@", 12) == "SW2 1AA"
