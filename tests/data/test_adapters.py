"""Adapters, on small made-up files of the published shape."""

import csv
import gzip
import io
import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from uepp.config import DataConfig
from uepp.data import mining, schema
from uepp.data.adapters import ADAPTERS, home_depot, open_ecommerce
from uepp.errors import InputError
from uepp.features.text import query_keys

PAIRS_HEADER = ["id", "product_uid", "product_title", "search_term", "relevance"]
PAIRS = [
    ["1", "001", "Lampe, 40 W", "lamp", "3.0"],
    ["2", "002", 'Table 30" wide', "lamp", "2.33"],
    ["3", "003", "Chair", "lamp", "1.67"],
    ["4", "003", "Chair", "chaise longue é", "2.0"],
    ["5", "900", "Only judged", "table", "2.67"],
]
CATALOGUE = [["001", "Lamp listed"], ["002", "Table"], ["003", "Chair"], ["0004", "Never judged"]]

PURCHASES_HEADER = [
    "order_date",
    "unit_price",
    "quantity",
    "ship_state",
    "title",
    "asin",
    "category",
    "user_id",
    "total_value",
]
PURCHASES = [
    ["2021-03-05", "10.5", "1.0", "AK", "Old title", "0007", "ABIS_BOOK", "u1", "10.5"],
    ["2022-04-01", "12", "1.0", "", "New title", "0007", "BOOKS", "u2", "12"],
    ["2021-03-05", "3", "2.0", "AK", "Poêle", "B1", "ABIS_BOOK", "u1", "6"],
    ["2021-03-05", "", "2.0", "AK", "Pan", "B2", "PAN", "u1", "6"],
    ["2022-06-29", "1", "1.0", "WY", "Pan", "B2", "PAN", "u1", "1"],
]


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]], encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO(newline="")
    csv.writer(text).writerows([header, *rows])
    content = text.getvalue().encode(encoding)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def read(directory: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(directory / f"{name}.parquet").to_pylist()
    return rows


@pytest.fixture
def pairs_folder(tmp_path: Path) -> Path:
    write_csv(tmp_path / "source" / "train.csv.gz", PAIRS_HEADER, PAIRS)
    write_csv(tmp_path / "source" / "products.csv.gz", ["product_uid", "product_title"], CATALOGUE)
    return tmp_path / "source"


def test_the_registry_knows_both() -> None:
    assert set(ADAPTERS) == {"home-depot", "open-ecommerce"}
    for name, module in ADAPTERS.items():
        assert name == module.NAME
        assert module.LICENCE
        assert module.PROTOCOL


# Home Depot


def test_grades_become_events_and_judgments(pairs_folder: Path, tmp_path: Path) -> None:
    report = home_depot.import_data(pairs_folder, tmp_path / "d", eval_fraction=0)
    assert report == schema.validate(tmp_path / "d")
    positives = {
        (row["query"], row["product_id"]): row["type"] for row in read(tmp_path / "d", "events") if row["product_id"]
    }
    assert positives == {
        ("lamp", "001"): "purchase",
        ("lamp", "002"): "cart",
        ("chaise longue é", "003"): "click",
        ("table", "900"): "purchase",
    }
    assert {(row["query"], row["product_id"], row["grade"]) for row in read(tmp_path / "d", "judgments")} == {
        (query, product_id, float(grade)) for _, product_id, _, query, grade in PAIRS
    }
    # Every query is searched once, in its own session, before anything is clicked.
    events = read(tmp_path / "d", "events")
    searches = {row["query"]: row for row in events if row["type"] == "search"}
    assert Counter(row["query"] for row in events if row["type"] == "search") == Counter(
        {query: 1 for query in searches}
    )
    assert len({row["session_id"] for row in searches.values()}) == len(searches) == 3
    for row in events:
        assert row["session_id"] == searches[row["query"]]["session_id"]
        assert row["type"] == "search" or row["timestamp"] > searches[row["query"]]["timestamp"]


def test_the_catalogue_is_the_listed_products_and_those_only_judged(pairs_folder: Path, tmp_path: Path) -> None:
    home_depot.import_data(pairs_folder, tmp_path / "d")
    titles = {row["product_id"]: row["title"] for row in read(tmp_path / "d", "products")}
    assert titles == dict(CATALOGUE) | {"900": "Only judged"}


def test_descriptions_are_kept(pairs_folder: Path, tmp_path: Path) -> None:
    (pairs_folder / "products.csv.gz").unlink()
    header = ["product_uid", "product_title", "product_description"]
    write_csv(pairs_folder / "products.csv", header, [["001", "Lamp", "lights,\nthings"]])
    home_depot.import_data(pairs_folder, tmp_path / "d")
    rows = {row["product_id"]: row["description"] for row in read(tmp_path / "d", "products")}
    assert rows == {"001": "lights,\nthings", "002": None, "003": None, "900": None}


def test_the_files_as_kaggle_has_them(tmp_path: Path) -> None:
    """Titles are in two files, descriptions in a third, and what is not read is named."""
    folder = tmp_path / "kaggle"
    write_csv(folder / "train.csv", PAIRS_HEADER, PAIRS)
    write_csv(folder / "test.csv", PAIRS_HEADER[:4], [["7", "001", "Another title", "q"], ["8", "777", "Tested", "q"]])
    write_csv(folder / "product_descriptions.csv", ["product_uid", "product_description"], [["777", "d7"], ["5", "d5"]])
    write_csv(folder / "attributes.csv", ["product_uid", "name", "value"], [["001", "a", "b"]])
    report = home_depot.import_data(folder, tmp_path / "d")
    rows = {row["product_id"]: (row["title"], row["description"]) for row in read(tmp_path / "d", "products")}
    own = {product: (title, None) for _, product, title, *_ in reversed(PAIRS)}
    assert rows == own | {"777": ("Tested", "d7")}
    assert report.notes == ("attributes.csv is not used",)
    # a file of another kind that has such a name is not read; an empty description is none
    write_csv(folder / "test.csv", ["a", "b"], [["1", "2"]])
    header = ["product_uid", "product_title", "product_description"]
    write_csv(folder / "products.csv", header, [["777", "Listed", ""], ["001", "Lamp", "own"]])
    report = home_depot.import_data(folder, tmp_path / "e")
    assert report.notes == ("attributes.csv is not used", "test.csv is not used")
    rows = {row["product_id"]: (row["title"], row["description"]) for row in read(tmp_path / "e", "products")}
    assert (rows["777"], rows["001"]) == (("Listed", "d7"), ("Lamp", "own"))


def test_a_single_file_makes_its_own_catalogue(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "source" / "held out.csv", PAIRS_HEADER[1:], [row[1:] for row in PAIRS])
    home_depot.import_data(path, tmp_path / "d", eval_fraction=1)
    assert [row["product_id"] for row in read(tmp_path / "d", "products")] == ["001", "002", "003", "900"]
    # A folder with one file of another name is the same.
    home_depot.import_data(path.parent, tmp_path / "e", eval_fraction=1)
    assert pq.read_table(tmp_path / "d" / "events.parquet").equals(pq.read_table(tmp_path / "e" / "events.parquet"))


def test_a_pair_judged_twice_has_its_mean_grade(tmp_path: Path) -> None:
    rows = [["1", "a", "A", "q", "3"], ["2", "a", "A", "q", "2"]]
    home_depot.import_data(write_csv(tmp_path / "t.csv", PAIRS_HEADER, rows), tmp_path / "d", eval_fraction=0)
    assert [row["grade"] for row in read(tmp_path / "d", "judgments")] == [2.5]
    assert [row["type"] for row in read(tmp_path / "d", "events")] == ["search", "cart"]


def test_the_published_latin1_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    one = write_csv(tmp_path / "latin.csv", PAIRS_HEADER, PAIRS, encoding="latin-1")
    two = write_csv(tmp_path / "bom.csv", PAIRS_HEADER, PAIRS, encoding="utf-8-sig")
    for path in (one, two):
        home_depot.import_data(path, tmp_path / path.stem)
        assert "chaise longue é" in {row["query"] for row in read(tmp_path / path.stem, "judgments")}


def test_the_split_is_stable_and_only_grows() -> None:
    queries = [f"query {number} é" for number in range(4_000)]
    days = {query: home_depot.evaluation_day(query, 0.2) for query in queries}
    # Written down once: another value means that everybody's evaluation queries have changed.
    assert [days[f"query {number} é"] for number in range(20)] == GOLDEN_DAYS
    evaluated = {query: day for query, day in days.items() if day is not None}
    assert 0.17 < len(evaluated) / len(queries) < 0.23
    counts = Counter(evaluated.values())
    assert set(counts) == set(range(7))
    assert min(counts.values()) > 0.6 * len(evaluated) / 7
    more = {query: home_depot.evaluation_day(query, 0.5) for query in queries}
    assert all(more[query] == day for query, day in evaluated.items())
    assert all(home_depot.evaluation_day(query, 0) is None for query in queries)
    assert all(home_depot.evaluation_day(query, 1) is not None for query in queries)


GOLDEN_DAYS: list[int | None] = [
    6,
    None,
    None,
    None,
    1,
    None,
    None,
    None,
    None,
    6,
    None,
    None,
    None,
    None,
    None,
    None,
    6,
    None,
    None,
    None,
]


@pytest.mark.parametrize("eval_fraction", [0.0, 0.2, 1.0])
def test_every_query_is_in_its_window(tmp_path: Path, eval_fraction: float) -> None:
    rows = [[str(number), str(number % 7), f"T{number % 7}", f"q{number}", "3"] for number in range(60)]
    path = write_csv(tmp_path / "train.csv", PAIRS_HEADER, rows)
    home_depot.import_data(path, tmp_path / "d", eval_fraction=eval_fraction)
    end = schema.read_dataset_facts(tmp_path / "d")["train_end"]
    assert end == home_depot.TRAIN_END == datetime(2016, 1, 1, tzinfo=UTC)
    for row in read(tmp_path / "d", "events"):
        day = home_depot.evaluation_day(row["query"], eval_fraction)
        start = end + timedelta(days=-1 if day is None else day)
        assert start <= row["timestamp"] < start + timedelta(days=1)
    config = DataConfig(relevant_types=("purchase", "cart"))
    if eval_fraction < 1:
        mined = mining.mine(tmp_path / "d", config, tmp_path / "cache")
        found = {row["query"] for row in read(mined, "requests")}
        assert found == {row[3] for row in rows if home_depot.evaluation_day(row[3], eval_fraction) is not None}
        assert bool(found) == bool(eval_fraction)
        assert {row["query"] for row in read(mined, "examples")} == {row[3] for row in rows} - found
    else:
        mining.mine_requests(tmp_path / "d" / "events.parquet", tmp_path / "nothing", config, tmp_path / "out")
        assert len(read(tmp_path / "out", "requests")) == 60


def test_spellings_of_a_query_are_all_evaluated_or_all_trained_on(tmp_path: Path) -> None:
    """On Home Depot 'slide  bolt' was trained on and 'slide bolt' evaluated, with the same products bought."""
    words = [f"slide bolt {number}" for number in range(40)]
    spellings = [spelling for word in words for spelling in (word, word.replace(" ", "  "), f"{word.upper()}.")]
    alone = [home_depot.evaluation_day(query, 0.5) for query in spellings]
    assert any(len(set(alone[first : first + 3])) > 1 for first in range(0, len(alone), 3))
    rows = [[str(row), str(row % 7), f"T{row % 7}", query, "3"] for row, query in enumerate(spellings)]
    path = write_csv(tmp_path / "train.csv", PAIRS_HEADER, rows)
    home_depot.import_data(path, tmp_path / "d", eval_fraction=0.5)
    day_of = {row["query"]: row["timestamp"].date() for row in read(tmp_path / "d", "events")}
    days = [day_of[query] for query in spellings]
    assert len(set(days)) > 4
    assert all(len(set(days[first : first + 3])) == 1 for first in range(0, len(days), 3))
    # Who is evaluated stays so: on its day unless another spelling was drawn before it, and at a larger share.
    less, more = (home_depot.evaluation_days(spellings, share) for share in (0.5, 0.8))
    assert all(less[query] is not None for query, day in zip(spellings, alone, strict=True) if day is not None)
    assert all(more[query] == day for query, day in less.items() if day is not None)


def test_spellings_are_those_of_all_other_splits() -> None:
    queries = ["Slide  BOLT.", "3/4\" x 2' pipe", "Weiß Café", "ﬁve №5 ½", "ỏ अनुभव", "a_b", "…", "", "\u0301e", "ΑΣ σς"]
    assert [home_depot._key(query) for query in queries] == query_keys(queries)


def test_the_facts_are_written_down(pairs_folder: Path, tmp_path: Path) -> None:
    home_depot.import_data(pairs_folder, tmp_path / "d", eval_fraction=0.3)
    facts = json.loads((tmp_path / "d" / "dataset.json").read_text())
    assert facts["name"] == "home-depot"
    assert facts["licence"] == home_depot.LICENCE
    assert facts["protocol"] == home_depot.PROTOCOL
    assert facts["eval_fraction"] == 0.3


BAD_PAIRS = {
    "no grade column": ([row[:4] for row in [PAIRS_HEADER, *PAIRS]], ["missing column relevance", "search_term"]),
    "grade in words": (
        [PAIRS_HEADER, *PAIRS[:2], ["9", "1", "t", "q", "good"]],
        ["relevance, row 2: 'good'", "1 to 3"],
    ),
    "grade NaN": ([PAIRS_HEADER, ["9", "1", "t", "q", "nan"]], ["column relevance, row 0: 'nan'", "1 to 3"]),
    "grade missing": ([PAIRS_HEADER, PAIRS[0], ["9", "1", "t", "q", ""]], ["column relevance, row 1: ''"]),
    "grade too high": ([PAIRS_HEADER, ["9", "1", "t", "q", "4"]], ["column relevance, row 0: '4'"]),
    "no id": ([PAIRS_HEADER, PAIRS[0], ["9", "", "t", "q", "2"]], ["column product_uid, row 1: ''", "non-empty"]),
    "no query": ([PAIRS_HEADER, ["9", "1", "t", "", "2"]], ["column search_term, row 0: ''"]),
    "ragged": ([PAIRS_HEADER, PAIRS[0], ["9", "1"]], ["not a readable csv file", "5 columns"]),
    "only a header": ([PAIRS_HEADER], ["no rows after the header"]),
    "a name twice": ([[*PAIRS_HEADER, "relevance"]], ["column relevance: 2 columns have this name"]),
}


@pytest.mark.parametrize("name", BAD_PAIRS)
def test_bad_pairs_are_refused(tmp_path: Path, name: str) -> None:
    (header, *rows), expected = BAD_PAIRS[name]
    path = write_csv(tmp_path / "train.csv", header, rows)
    assert_refused(home_depot, path, tmp_path / "d", ["train.csv", *expected])


def test_bad_sources_are_refused(pairs_folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "d"
    assert_refused(home_depot, tmp_path / "nowhere", target, ["nowhere", "no such file or directory"])
    (tmp_path / "void").mkdir()
    assert_refused(home_depot, tmp_path / "void", target, ["void", "no csv or csv.gz file"])
    write_csv(tmp_path / "other" / "x.csv", ["a"], [["1"]])
    assert_refused(home_depot, tmp_path / "other", target, ["other", "product_uid, product_title, search_term"])
    write_csv(pairs_folder / "train.csv", PAIRS_HEADER, PAIRS)
    assert_refused(home_depot, pairs_folder, target, ["train.csv, train.csv.gz all hold pairs"])
    (pairs_folder / "train.csv").write_bytes(b"")
    assert_refused(home_depot, pairs_folder / "train.csv", target, ["train.csv: empty file"])
    whole = (pairs_folder / "train.csv.gz").read_bytes()
    (pairs_folder / "train.csv").unlink()
    (pairs_folder / "train.csv.gz").write_bytes(whole[: len(whole) // 2])
    assert_refused(home_depot, pairs_folder, target, ["train.csv.gz: not a readable csv file"])
    (pairs_folder / "train.csv.gz").write_bytes(whole[:20] + bytes(9) + whole[29:])
    assert_refused(home_depot, pairs_folder, target, ["train.csv.gz: not a readable csv file"])


def test_a_bad_catalogue_is_refused(pairs_folder: Path, tmp_path: Path) -> None:
    write_csv(pairs_folder / "products.csv.gz", ["product_uid", "name"], CATALOGUE)
    assert_refused(home_depot, pairs_folder, tmp_path / "d", ["products.csv.gz: missing column product_title"])


def test_a_bad_fraction_is_refused(pairs_folder: Path, tmp_path: Path) -> None:
    for fraction in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match=r"eval_fraction is .*; allowed is 0 to 1"):
            home_depot.import_data(pairs_folder, tmp_path / "d", eval_fraction=fraction)


def test_an_occupied_directory_is_refused(pairs_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    home_depot.import_data(pairs_folder, tmp_path / "d")
    before = sorted((tmp_path / "d").iterdir())
    for adapter in (home_depot, open_ecommerce):
        with pytest.raises(InputError, match="exists and is not an empty directory"):
            adapter.import_data(pairs_folder, tmp_path / "d")
    assert sorted((tmp_path / "d").iterdir()) == before


# Open e-commerce


def test_purchases_become_requests(tmp_path: Path) -> None:
    write_csv(tmp_path / "source" / "purchases.csv.gz", PURCHASES_HEADER, PURCHASES)
    report = open_ecommerce.import_data(tmp_path / "source", tmp_path / "d")
    assert report == schema.validate(tmp_path / "d")
    assert report.rows == {"products": 3, "events": 4 + 5}
    bought = [row for row in read(tmp_path / "d", "events") if row["type"] == "purchase"]
    assert sorted((row["user_id"], row["query"], row["product_id"], row["region"]) for row in bought[:3]) == [
        ("u1", "abis book", "0007", "AK"),
        ("u1", "abis book", "B1", "AK"),
        ("u1", "pan", "B2", "AK"),
    ]
    assert {row["country"] for row in bought} == {"US"}
    assert bought[0]["timestamp"] == datetime(2021, 3, 5, tzinfo=UTC)
    assert bought[0]["session_id"] == "u1|2021-03-05|abis book"
    # Two products of a category on a day are one request; each request is one search.
    searched = [row for row in read(tmp_path / "d", "events") if row["type"] == "search"]
    assert len(searched) == len({row["session_id"] for row in bought}) == 4
    assert {row["session_id"]: row["timestamp"] for row in searched} == {
        row["session_id"]: row["timestamp"] for row in bought
    }


def test_a_product_has_its_first_title_and_last_price(tmp_path: Path) -> None:
    open_ecommerce.import_data(write_csv(tmp_path / "p.csv", PURCHASES_HEADER, PURCHASES), tmp_path / "d")
    rows = {row.pop("product_id"): row for row in read(tmp_path / "d", "products")}
    assert rows == {
        "0007": {"title": "Old title", "category": "abis book", "price": 12.0, "created_at": None},
        "B1": {"title": "Poêle", "category": "abis book", "price": 3.0, "created_at": None},
        "B2": {"title": "Pan", "category": "pan", "price": 1.0, "created_at": None},
    }


def test_the_header_as_published_is_known(tmp_path: Path) -> None:
    published = ["Order Date", "Purchase Price Per Unit", "Quantity", "Shipping Address State", "Title"]
    published += ["ASIN/ISBN (Product Code)", "Category", "Survey ResponseID"]
    one = write_csv(tmp_path / "one.csv", published, [row[:8] for row in PURCHASES])
    two = write_csv(tmp_path / "two.csv", PURCHASES_HEADER, PURCHASES)
    for path in (one, two):
        open_ecommerce.import_data(path, tmp_path / path.stem)
    for name in ("products", "events"):
        tables = [pq.read_table(tmp_path / folder / f"{name}.parquet") for folder in ("one", "two")]
        assert tables[0].equals(tables[1])


def test_incomplete_rows_are_skipped_and_counted(tmp_path: Path) -> None:
    incomplete = [list(PURCHASES[0]) for _ in range(4)]
    for row, column, value in zip(incomplete, (4, 4, 5, 7), ("", "  ", "", ""), strict=True):
        row[column] = value
    path = write_csv(tmp_path / "p.csv", PURCHASES_HEADER, [*incomplete, *PURCHASES])
    report = open_ecommerce.import_data(path, tmp_path / "d")
    notes = (
        "1 rows without asin were skipped",
        "2 rows without title were skipped",
        "1 rows without user_id were skipped",
    )
    assert report.notes == notes
    assert tuple(json.loads((tmp_path / "d" / "dataset.json").read_text())["notes"]) == notes
    assert report.rows["events"] == 9
    assert_refused(
        open_ecommerce,
        write_csv(tmp_path / "q.csv", PURCHASES_HEADER, incomplete),
        tmp_path / "e",
        ["q.csv: no row has"],
    )


@pytest.mark.parametrize(
    ("last", "expected"), [("2022-06-30", "2022-01-01"), ("2022-06-29", "2021-12-01"), ("2023-02-10", "2022-08-01")]
)
def test_training_ends_six_months_before_the_data(tmp_path: Path, last: str, expected: str) -> None:
    rows = [*PURCHASES[:4], [last, *PURCHASES[0][1:]]]
    open_ecommerce.import_data(write_csv(tmp_path / "p.csv", PURCHASES_HEADER, rows), tmp_path / "d")
    assert schema.read_dataset_facts(tmp_path / "d")["train_end"].date().isoformat() == expected


def test_non_repeat_purchases_are_known_after_mining(tmp_path: Path) -> None:
    rows = [*PURCHASES, ["2022-06-29", "1", "1.0", "WY", "Wok", "B3", "PAN", "u1", "1"]]
    open_ecommerce.import_data(write_csv(tmp_path / "p.csv", PURCHASES_HEADER, rows), tmp_path / "d")
    config = DataConfig(train_end=datetime(2022, 1, 1), example_days=1461, selection_days=30, report_days=150)
    mined = mining.mine(tmp_path / "d", config, tmp_path / "cache")
    found = {row["user_id"]: (row["targets"], row["non_repeat_targets"]) for row in read(mined, "requests")}
    # What user u1 bought in 2021 is a repeat in 2022; what is bought on the day itself is not.
    assert found == {"u2": (["0007"], ["0007"]), "u1": (["B2", "B3"], ["B3"])}
    assert len(read(mined, "examples")) == 3


BAD_PURCHASES = {
    "no category": ([row[:6] for row in [PURCHASES_HEADER, *PURCHASES]], ["missing column category"]),
    "bad date": (
        [PURCHASES_HEADER, PURCHASES[0], ["2021-13-05", *PURCHASES[0][1:]]],
        ["order_date, row 1: '2021-13-05'"],
    ),
    "date before all dates": (
        [PURCHASES_HEADER, ["0001-01-01", *PURCHASES[0][1:]]],
        ["order_date, row 0: '0001-01-01'", "1970-01-01 to 2100-12-31"],
    ),
    "bad price": ([PURCHASES_HEADER, [PURCHASES[0][0], "$3", *PURCHASES[0][2:]]], ["column unit_price, row 0: '$3'"]),
    "negative price": ([PURCHASES_HEADER, [PURCHASES[0][0], "-3", *PURCHASES[0][2:]]], ["unit_price, row 0: '-3'"]),
    "only a header": ([PURCHASES_HEADER], ["no rows after the header"]),
}


@pytest.mark.parametrize("name", BAD_PURCHASES)
def test_bad_purchases_are_refused(tmp_path: Path, name: str) -> None:
    (header, *rows), expected = BAD_PURCHASES[name]
    path = write_csv(tmp_path / "source" / "purchases.csv", header, rows)
    assert_refused(open_ecommerce, path.parent, tmp_path / "d", ["purchases.csv", *expected])


def assert_refused(adapter: Any, source: Path, directory: Path, parts: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        adapter.import_data(source, directory)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    assert not directory.exists()
    assert not list(directory.parent.glob(".*"))
