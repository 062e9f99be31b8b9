"""People as a server knows them are people as they are evaluated."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from compass import make_rose

from uepp.config import HistoryConfig
from uepp.data.histories import KINDS
from uepp.features.requests import RawRequests, load_past_events
from uepp.serving.catalogue import Catalogue, matching
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
    assert people.last_places() == []


def test_what_begins_with_the_text_comes_before_what_holds_it() -> None:
    values = ["red lamp", "Lamp", "lamps", "mug", "old LAMP"]
    assert matching(values, "lamp", 9) == ["Lamp", "lamps", "red lamp", "old LAMP"]
    assert matching(values, "lamp", 3) == ["Lamp", "lamps", "red lamp"]
    assert matching(values, "lamp", 1) == ["Lamp"]
    assert matching(values, "", 2) == ["red lamp", "Lamp"]
    assert matching(values, "x", 2) == []
