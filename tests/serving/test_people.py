"""People as a server knows them are people as they are evaluated."""

from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from compass import NOW, make_rose

from uepp.config import HistoryConfig
from uepp.data.histories import KINDS
from uepp.features.raw import COORDINATES, PLACE
from uepp.features.requests import RawRequests, load_past_events
from uepp.serving import lookup as lookup_module
from uepp.serving import suggestions
from uepp.serving.catalogue import Catalogue, matching
from uepp.serving.lookup import Lookup
from uepp.serving.people import People
from uepp.serving.requests import FeatureReader, Request

NAMES = (
    "query", "country", "region", "language", "zip", "latitude", "longitude", "recent_searches", "recent_shops",
    "recent_titles", "purchased_tags",
)  # fmt: skip


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rose(tmp_path_factory.mktemp("people") / "run") / "export"


@pytest.fixture(scope="module")
def people(export: Path) -> People:
    return People(export, Catalogue(export).products)


def rows_by_a_loop(export: Path, kind: str, user: str) -> tuple[int, int]:
    users = pq.read_table(export / f"history_{kind}.parquet").column("user_id").to_pylist()
    own = [row for row, other in enumerate(users) if other == user]
    return (own[0], own[-1] + 1) if own else (0, 0)


@pytest.mark.parametrize("history", [HistoryConfig(), HistoryConfig(num_searches=1, num_purchased_products=0)])
def test_a_server_gives_the_tower_what_evaluation_gives_it(
    export: Path, people: People, history: HistoryConfig
) -> None:
    """The same inputs through `RawRequests`, which read the mined tables by pointers."""
    names = tuple(name for name in NAMES if name != "purchased_tags" or history.num_purchased_products)
    catalogue = Catalogue(export)
    reader = FeatureReader(names, history, people, catalogue)
    users = ["anna", "bert", None]
    pointers = {
        kind: np.array([rows_by_a_loop(export, kind, user or "") for user in users], np.int64) for kind in KINDS
    }
    raw = RawRequests(["lamp"] * 3, None, pointers, load_past_events(export, catalogue.products))
    expected = raw.inputs(names, history)
    given = reader.inputs([reader.read(Request("lamp", user=user)) for user in users])
    assert given.keys() == expected.keys() == set(names)
    some = 0
    for name, values in given.items():
        np.testing.assert_array_equal(values.numpy(), expected[name].numpy(), err_msg=name)
        some += int(np.size(values.numpy()) > 3)
    assert some == (0 if history.num_searches == 1 else 1), "anna's two searches are a longer history"


def test_what_they_did_latest_comes_first(people: People) -> None:
    assert people.latest("anna", "recent_searches", 8) == ("赤い", "east")
    assert people.latest("anna", "recent_searches", 1) == ("赤い",)
    assert people.latest("anna", "recent_titles", 8) == ("<i>Chair</i> number 0",)
    assert people.latest("bert", "purchased_tags", 8) == ("",), "a product that is gone"
    assert people.products("bert", "purchases", 8) == ["gone"]
    assert people.latest("zoe", "recent_searches", 8) == ()
    assert people.products("zoe", "clicks", 8) == []


def test_who_is_known(people: People) -> None:
    assert "anna" in people
    assert "zoe" not in people
    assert "" not in people
    assert people.counts("anna") == {"searches": 2, "clicks": 1, "purchases": 1}
    assert people.counts("zoe") == {"searches": 0, "clicks": 0, "purchases": 0}


def test_long_histories_come_first(people: People) -> None:
    assert people.most_active(5) == ["anna", "bert"]
    assert people.most_active(1) == ["anna"]


def test_an_export_without_places_has_people_without_them(export: Path, tmp_path: Path) -> None:
    for kind in KINDS:
        (tmp_path / f"history_{kind}.parquet").symlink_to(export / f"history_{kind}.parquet")
    people = People(tmp_path, Catalogue(export).products)
    assert people.place("anna") == {}
    assert (people.places.num_rows, people.places.column_names) == (0, list(PLACE))


# Many of them, against plain Python


def crowd(seed: int) -> dict[str, list[tuple[Any, ...]]]:
    """Rows of the history tables, sorted as mined ones are; some people have no events of a kind."""
    rng = np.random.default_rng(seed)
    users = [f"{'ü' if number % 7 == 0 else 'u'}{number * 37 % 101:03d}" for number in range(101)]
    rows: dict[str, list[tuple[Any, ...]]] = {"searches": [], "clicks": [], "purchases": []}
    for user in sorted(users):
        for kind, found in rows.items():
            for day in range(rng.integers(0, 5)):
                product = f"p{rng.integers(0, 30):03d}"  # p024 and later are not in the catalogue
                shop = rng.choice(["east", "", None])
                text = f"search {rng.integers(0, 9)}"
                what = {"searches": (text,), "clicks": (product, shop), "purchases": (product,)}[kind]
                found.append((user, NOW + timedelta(days=day), *what))
    return rows


@pytest.fixture(scope="module")
def crowded(export: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[tuple[Any, ...]]]]:
    folder, rows = tmp_path_factory.mktemp("crowded"), crowd(3)
    for kind, names in KINDS.items():
        columns = {name: [row[number] for row in rows[kind]] for number, name in enumerate(names)}
        pq.write_table(pa.table(columns), folder / f"history_{kind}.parquet", row_group_size=20)
    return folder, rows


def test_everybody_has_what_is_theirs(export: Path, crowded: tuple[Path, dict[str, list[tuple[Any, ...]]]]) -> None:
    folder, rows = crowded
    catalogue = pq.read_table(export / "products.parquet").to_pylist()
    titles = {row["product_id"]: row["title"] for row in catalogue}
    tags = {row["product_id"]: "\n".join(row["tags"]) for row in catalogue}
    indexes = {row["product_id"]: index for index, row in enumerate(catalogue)}
    people = People(folder, Catalogue(export).products)
    read = {
        "recent_searches": ("searches", lambda row: row[2]),
        "recent_shops": ("clicks", lambda row: row[3] or ""),
        "recent_titles": ("clicks", lambda row: titles.get(row[2], "")),
        "purchased_tags": ("purchases", lambda row: tags.get(row[2], "")),
    }
    users = sorted({row[0] for events in rows.values() for row in events})
    sizes = {user: [sum(row[0] == user for row in rows[kind]) for kind in KINDS] for user in users}
    assert any(0 in size for size in sizes.values())
    for user in [*users, "nobody", ""]:
        assert (user in people) == (user in sizes)
        assert list(people.counts(user).values()) == sizes.get(user, [0, 0, 0])
        for name, (kind, text) in read.items():
            own = [row for row in rows[kind] if row[0] == user][::-1]
            assert people.latest(user, name, 3) == tuple(text(row) for row in own[:3]), (user, name)
            if kind != "searches":
                assert people.products(user, kind, 2) == [row[2] for row in own[:2]]
                assert people.rows(user, kind).tolist() == [indexes[row[2]] for row in own[::-1] if row[2] in indexes]
    by_activity = sorted(users, key=lambda user: (-min(sizes[user]), -sum(sizes[user]), user))
    assert people.most_active(40) == by_activity[:40]
    assert people.most_active(1_000) == by_activity


def places_by_a_loop(contexts: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By label: for each country and region a context in its usual language, with the fewest gaps, of most people."""
    counts = Counter(tuple(context[name] for name in PLACE) for context in contexts)
    regions: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
    for context in counts:
        regions.setdefault(context[:2], []).append(context)

    def people_of(region: tuple[Any, ...]) -> int:
        return sum(counts[context] for context in regions[region])

    places = {}
    for region in sorted(regions, key=lambda region: (-people_of(region), str(region))):
        speakers: Counter[Any] = Counter()
        for context in regions[region]:
            speakers[context[2]] += counts[context]
        typical = min(
            regions[region],
            key=lambda one, spoken=speakers: (-spoken[one[2]], one.count(None), -counts[one], str(one)),
        )
        place = {name: value for name, value in zip(PLACE, typical, strict=True) if value is not None}
        label = " ".join(str(place[name]) for name in ("country", "region", "zip") if name in place)
        places[label or ", ".join(str(value) for value in place.values())] = place
    return places


@pytest.mark.parametrize("seed", range(5))
def test_typical_places_are_those_of_a_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = {
        "country": ["US", "DE", None], "region": ["CA", "BY", None], "language": ["en", "de", "fr", None],
        "zip": ["90001", "9", None], "latitude": [1.5, 10.25, None], "longitude": [-3.0, 7.125, None],
    }  # fmt: skip
    contexts = [{name: rng.choice(np.array(some, object)) for name, some in values.items()} for _ in range(400)]
    kinds = [(name, pa.float64() if name in COORDINATES else pa.string()) for name in PLACE]
    found = suggestions._places(pa.Table.from_pylist(contexts, pa.schema(kinds)))
    expected = places_by_a_loop(contexts)
    assert list(found.items()) == list(expected.items())
    assert len(found) == 9, "three countries, of which nobody may know, with three regions"
    assert suggestions._places(pa.schema(kinds).empty_table()) == {}


def test_a_text_is_found_among_many() -> None:
    rng = np.random.default_rng(1)
    texts = [f"{'x' * int(rng.integers(0, 40))}{number}ü" for number in range(3_000)] + [""]
    lookup = Lookup(pa.chunked_array([texts[:100], texts[100:]]))
    asked = [texts[number] for number in rng.permutation(len(texts))] + ["nothing", "\udcff"]
    assert lookup.rows(asked).tolist() == [texts.index(text) if text in texts else -1 for text in asked]
    assert (lookup.row("x"), lookup.row("")) == (-1, 3_000)
    assert Lookup(pa.array(texts)[5:9]).rows(texts[4:10]).tolist() == [-1, 0, 1, 2, 3, -1]
    assert Lookup(pa.array([], pa.string())).rows(["a"]).tolist() == [-1]


def test_texts_of_the_same_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup_module, "_PRIME", 2)  # every text has the hash 0 or 1
    texts = [chr(97 + number) for number in range(20)]
    assert Lookup(pa.array(texts)).rows([*texts[::-1], "x!"]).tolist() == [*range(19, -1, -1), -1]


def test_what_begins_with_the_text_comes_before_what_holds_it() -> None:
    values = ["red lamp", "Lamp", "lamps", "mug", "old LAMP"]
    assert matching(values, "lamp", 9) == ["Lamp", "lamps", "red lamp", "old LAMP"]
    assert matching(values, "lamp", 3) == ["Lamp", "lamps", "red lamp"]
    assert matching(values, "lamp", 1) == ["Lamp"]
    assert matching(values, "", 2) == ["red lamp", "Lamp"]
    assert matching(values, "x", 2) == []
