"""Places: what gets a row, which row it is, where the centroids are, and what survives a save."""

import json
import math
import subprocess
import sys
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from uepp.config import FeaturesConfig
from uepp.errors import InputError
from uepp.features import location as location_module
from uepp.features.location import Locations

Place = tuple[str | None, str | None, str | None, str | None, float | None, float | None]
NOWHERE: Place = (None, None, None, None, None, None)
NAN = float("nan")


def config(*buckets: int) -> FeaturesConfig:
    return FeaturesConfig(location_buckets=buckets)


def table(places: Sequence[Place], users: Sequence[str | None] | None = None) -> pa.Table:
    names = ("country", "region", "language", "zip", "latitude", "longitude")
    types = (pa.string(),) * 4 + (pa.float64(),) * 2
    columns = {
        name: pa.array([place[nth] for place in places], type_)
        for nth, (name, type_) in enumerate(zip(names, types, strict=True))
    }
    return pa.table({"user_id": pa.array(users, pa.string()), **columns} if users is not None else columns)


def at(latitude: float | None, longitude: float | None) -> Place:
    return (None, None, None, None, latitude, longitude)


def tensors(places: Sequence[Place]) -> list[tf.Tensor]:
    """Arguments of a layer: nulls are empty or NaN."""
    columns = [[place[nth] for place in places] for nth in range(6)]
    names = [tf.constant([name or "" for name in column], tf.string, [len(places)]) for column in columns[:4]]
    degrees = [[NAN if value is None else value for value in column] for column in columns[4:]]
    return names + [tf.constant(column, tf.float32, [len(places)]) for column in degrees]


def rows_of(locations: Locations, places: Sequence[Place]) -> tuple[list[list[int]], list[list[int]]]:
    """Ids and zip prefixes of each place."""
    found = {name: value.numpy() for name, value in locations.layer()(*tensors(places)).items()}
    assert {value.dtype for value in found.values()} == {np.dtype(np.int32)}
    assert found["location/ids"].shape == (len(places), locations.num_kinds)
    zips = tf.RaggedTensor.from_row_lengths(found["zip/values"], found["zip/lengths"])
    return found["location/ids"].tolist(), zips.to_list()


# Oracle: slow, from the definitions


def fold(name: str | None) -> str:
    """Compatibility-normalised and case-folded; runs of blanks and control characters are one space."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name or "").casefold())
    return " ".join("".join(" " if unicodedata.category(c)[0] in "ZC" else c for c in text).split())


def prefixes_of(zip_code: str | None) -> list[str]:
    kept = "".join(c for c in fold(zip_code) if unicodedata.category(c)[0] in "LN").upper()[:10]
    return [kept[:length] for length in range(1, len(kept) + 1)]


def expected_names(places: Sequence[Place]) -> dict[str, set[tuple[str, ...]]]:
    """What is seen at least twice; regions and zip prefixes with their country."""
    seen: dict[str, Counter[tuple[str, ...]]] = {kind: Counter() for kind in ("country", "region", "language", "zip")}
    for country, region, language, zip_code, *_ in places:
        seen["country"][(fold(country),)] += 1
        seen["region"][(fold(country), fold(region))] += 1
        seen["language"][(fold(language),)] += 1
        seen["zip"].update((fold(country), prefix) for prefix in prefixes_of(zip_code))
    return {kind: {key for key, n in counts.items() if n >= 2 and key[-1]} for kind, counts in seen.items()}


def haversine(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Angle between two places (degrees) as seen from the centre of the Earth."""
    (a, b), (c, d) = ([math.radians(value) for value in place] for place in (one, other))
    half_chord = math.sin((c - a) / 2) ** 2 + math.cos(a) * math.cos(c) * math.sin((d - b) / 2) ** 2
    return 2 * math.asin(min(1.0, math.sqrt(half_chord)))


def degrees_of(point: Sequence[float]) -> tuple[float, float]:
    return math.degrees(math.atan2(point[2], math.hypot(point[0], point[1]))), math.degrees(
        math.atan2(point[1], point[0])
    )


def unit(latitude: float, longitude: float) -> np.ndarray:
    a, b = math.radians(latitude), math.radians(longitude)
    return np.array([math.cos(a) * math.cos(b), math.cos(a) * math.sin(b), math.sin(a)])


def direction(points: Sequence[tuple[float, float]]) -> np.ndarray:
    """The middle of some places, on the sphere."""
    mean = np.mean([unit(*point) for point in points], axis=0)
    return mean / np.linalg.norm(mean)


def expected_rows(
    locations: Locations, places: Sequence[Place], fitted_on: Sequence[Place]
) -> tuple[list[list[int]], list[list[int]]]:
    """Ranges one after another, in each: missing, unknown, then the sorted names; or missing, then the centroids."""
    known = expected_names(fitted_on)
    firsts, first = {}, 0
    for kind in ("country", "region", "language"):
        firsts[kind], first = first, first + 2 + len(known[kind])
    for k, centroids in locations.centroids.items():
        firsts[f"bucket_{k}"], first = first, first + 1 + len(centroids)
    assert locations.kinds == tuple(firsts)
    assert locations.num_rows == first + len(known["zip"])

    def named(kind: str, *key: str) -> int:
        if not key[-1]:
            return firsts[kind]
        return firsts[kind] + (2 + sorted(known[kind]).index(key) if key in known[kind] else 1)

    ids, zips = [], []
    for country, region, language, zip_code, latitude, longitude in places:
        row = [named("country", fold(country)), named("region", fold(country), fold(region))]
        row.append(named("language", fold(language)))
        for k, centroids in locations.centroids.items():
            nearest = -1
            if len(centroids) and latitude is not None and longitude is not None:
                place = float(np.float32(latitude)), float(np.float32(longitude))
                if abs(place[0]) <= 90 and abs(place[1]) <= 180:
                    nearest = int(np.argmin([haversine(place, degrees_of(point)) for point in centroids]))
            row.append(firsts[f"bucket_{k}"] + 1 + nearest)
        ids.append(row)
        keys = [(fold(country), prefix) for prefix in prefixes_of(zip_code)]
        zips.append([first + sorted(known["zip"]).index(key) for key in keys if key in known["zip"]])
    return ids, zips


TOWNS: list[Place] = [
    ("US", "Texas", "en", "54321", 30.3, -97.7),
    ("us", "texas ", "EN", "54322-1234", 32.8, -96.8),
    ("US", "Ohio", "en", "4", 40.0, -83.0),
    ("DE", "Baden-Württemberg", "de", "54321", 48.8, 9.2),
    ("de", "BADEN-WÜRTTEMBERG", "de-CH", "54 3", 48.7, 9.1),
    ("GB", "Scotland", "en", "eh1 1yz", 55.95, -3.2),
    (" gb ", None, "en", "EH1 1YZ", 55.9, -3.1),
    ("JP", "東京都", "ja", "１００-0001", 35.7, 139.7),
    ("JP", "東京都", "ja", "100-0001", 35.6, 139.8),
    ("FJ", None, "en", None, -17.0, 179.9),
    ("FJ", None, "en", None, -17.0, -179.9),
    (None, "Texas", None, "54321", None, None),
    (None, "Texas", None, "54321", 91.0, 0.0),
    NOWHERE,
    NOWHERE,
]
ODD_PLACES: list[Place] = [
    NOWHERE,
    ("", "", "", "", NAN, NAN),
    ("  \t\n", "\x00", "\u3000", " - ", 0.0, NAN),
    ("US", "Texas", "en", "54399", 30.0, -97.0),
    ("US", "Bayern", "xx", "99999", 90.0, 180.0),
    ("XX", "Texas", "en", "54321", -90.0, -180.0),
    ("Us", " TEXAS\u00a0", "eN", "５４３２１", 0.0, 0.0),
    ("DE", "Baden-Wu\u0308rttemberg", "DE", "54321 7890 1234 5678", 48.0, 9.0),
    ("GB", "Scotland", "en", "EH", 1e30, 0.0),
    ("GB", "scotland", "en", "ＥＨ１", 0.0, float("-inf")),
    ("👟", "🏔" * 500, "東京都", "東京都", 90.001, 0.0),
    ("JP", "東京都", "ja", "x" * 10_000, 35.0, 180.5),
]


@pytest.fixture(scope="module")
def towns() -> Locations:
    return Locations.fit(config(1, 3, 100), table(TOWNS), 5)


# Rows


def test_every_place_has_the_rows_of_the_definition(towns: Locations) -> None:
    places = TOWNS + ODD_PLACES
    ids, zips = rows_of(towns, places)
    assert (ids, zips) == expected_rows(towns, places, TOWNS)
    assert len({tuple(row) for row in ids}) > 10
    assert max(map(len, zips)) > 5


_ALPHABET = "aAäÄßσΣς1１٣-. \t\n\u00a0\u0308İ東Ⅷ\x00"
_names = st.none() | st.sampled_from(["US", "us", "a", "Ä"]) | st.text(_ALPHABET, max_size=12)
_degrees = st.none() | st.floats(-200, 200, width=32) | st.sampled_from([-180.0, 180.0, -90.0, 90.0, NAN])
_places = st.lists(st.tuples(_names, _names, _names, _names, _degrees, _degrees), min_size=1, max_size=12)


@settings(deadline=None, max_examples=60)
@given(fitted_on=_places, others=_places)
def test_any_place_has_the_rows_of_the_definition(fitted_on: list[Place], others: list[Place]) -> None:
    locations = Locations.fit(config(2, 7), table(fitted_on), 1)
    ids, zips = rows_of(locations, fitted_on + others)
    expected_ids, expected_zips = expected_rows(locations, fitted_on + others, fitted_on)
    assert zips == expected_zips
    for found, expected, place in zip(ids, expected_ids, fitted_on + others, strict=True):
        assert found[:3] == expected[:3]
        for k, one, other in zip((2, 7), found[3:], expected[3:], strict=True):
            if one != other:  # between two centroids, either one is right
                first = locations.rows(f"bucket_{k}").start + 1
                here = float(np.float32(place[4] or 0)), float(np.float32(place[5] or 0))
                assert min(one, other) >= first
                distances = [haversine(here, degrees_of(locations.centroids[k][row - first])) for row in (one, other)]
                assert distances[0] == pytest.approx(distances[1], abs=1e-7)


def test_ranges_follow_each_other_and_hold_their_ids(towns: Locations) -> None:
    assert towns.kinds == ("country", "region", "language", "bucket_1", "bucket_3", "bucket_100")
    ranges = [towns.rows(kind) for kind in (*towns.kinds, "zip")]
    assert [row for rows in ranges for row in rows] == list(range(towns.num_rows))
    ids, zips = rows_of(towns, TOWNS + ODD_PLACES)
    for row, prefixes in zip(ids, zips, strict=True):
        assert all(one in rows for one, rows in zip(row, ranges[:-1], strict=True))
        assert all(prefix in ranges[-1] for prefix in prefixes)


def test_missing_and_unknown_have_rows_of_their_own(towns: Locations) -> None:
    (missing, unknown, known), zips = rows_of(towns, [NOWHERE, ("Atlantis", "Deep", "tlh", "0", None, None), TOWNS[0]])
    firsts = [towns.rows(kind).start for kind in towns.kinds]
    assert missing == firsts
    assert unknown[:3] == [first + 1 for first in firsts[:3]]
    assert unknown[3:] == firsts[3:]
    assert all(row >= first + 2 for row, first in zip(known[:3], firsts[:3], strict=True))
    assert all(row > first for row, first in zip(known[3:], firsts[3:], strict=True))
    assert zips[:2] == [[], []]


def test_no_places(towns: Locations) -> None:
    found = towns.layer()(*tensors([]))
    assert {name: value.shape.as_list() for name, value in found.items()} == {
        "location/ids": [0, 6],
        "zip/values": [0],
        "zip/lengths": [0],
    }


def test_a_place_does_not_depend_on_the_others(towns: Locations) -> None:
    places = TOWNS + ODD_PLACES
    together, alone = rows_of(towns, places), [rows_of(towns, [place]) for place in places]
    assert together == ([ids[0] for ids, _ in alone], [zips[0] for _, zips in alone])


def test_bytes_that_are_not_text_are_unknown_names_and_no_part_of_a_zip(towns: Locations) -> None:
    broken = tf.constant([b"\xff\xfe", b"US\xff", b"\xf0\x9f"])
    zeros = tf.zeros([3])
    found = towns.layer()(broken, broken, broken, broken, zeros, zeros)
    assert found["location/ids"][:, :3].numpy().tolist() == [[towns.rows(kind)[1] for kind in towns.kinds[:3]]] * 3
    united_states = tf.constant(["US"] * 3)
    one, other = (
        towns.layer()(united_states, broken, broken, tf.constant(zips), zeros, zeros)
        for zips in ([b"54\xff32", b"\xc35", b"\xff"], [b"5432", b"5", b""])
    )
    assert one["zip/lengths"].numpy().tolist() == [4, 1, 0]
    assert one["zip/values"].numpy().tolist() == other["zip/values"].numpy().tolist()


# Names


def test_names_seen_once_have_no_row() -> None:
    places: list[Place] = [
        ("US", "Texas", "en", "54321", None, None),
        ("us", "Ohio", "EN", "54999", None, None),
        ("CA", "Texas", "fr", "54321", None, None),
    ]
    names = Locations.fit(config(), table(places), 1).names
    assert names == {"country": ["us"], "region": [], "language": ["en"], "zip": ["us\n5", "us\n54"]}


def test_products_add_names_only() -> None:
    users = table([("US", "Texas", "en", "543", 10.0, 10.0)])
    products = table([("US", "Texas", None, "541", 60.0, 60.0), ("SE", "Skåne", "sv", "1", -60.0, 0.0)] * 2)
    locations = Locations.fit(config(5), users, 1, products)
    assert locations.names == {
        "country": ["se", "us"],
        "region": ["se\nskåne", "us\ntexas"],
        "language": ["sv"],
        "zip": ["se\n1", "us\n5", "us\n54", "us\n541"],
    }
    np.testing.assert_allclose(locations.centroids[5], [unit(10, 10)], atol=1e-6)


def test_one_region_name_in_two_countries_is_two_regions() -> None:
    places: list[Place] = [(country, "Limburg", None, "6211", None, None) for country in ("NL", "BE", "", "NL", "BE")]
    locations = Locations.fit(config(), table(places), 1)
    ids, zips = rows_of(locations, places)
    assert ids[0][1] != ids[1][1]
    assert not set(zips[0]) & set(zips[1])
    assert len(zips[0]) == len(zips[1]) == 4
    assert ids[2][1] == locations.rows("region")[1], "without a country, it was seen once"
    assert zips[2] == []


def test_an_unknown_zip_falls_back_on_its_known_prefixes() -> None:
    places: list[Place] = [("US", None, None, zip_code, None, None) for zip_code in ("54321", "54321", "54399", "7")]
    asked = ["54321", "54322", "54400", "5", "65432", "7", "543210000000", "", "5-4 3"]
    locations = Locations.fit(config(), table(places), 1)
    _, zips = rows_of(locations, [("US", None, None, zip_code, None, None) for zip_code in asked])
    known = [name.split("\n")[1] for name in locations.names["zip"]]
    first = locations.rows("zip").start
    assert [[known[row - first] for row in prefixes] for prefixes in zips] == [
        ["5", "54", "543", "5432", "54321"],
        ["5", "54", "543", "5432"],
        ["5", "54"],
        ["5"],
        [],
        [],
        ["5", "54", "543", "5432", "54321"],
        [],
        ["5", "54", "543"],
    ]


def test_no_zip_prefix_is_longer_than_ten_characters() -> None:
    places: list[Place] = [("US", None, None, "東" * 12, None, None)] * 2
    locations = Locations.fit(config(), table(places), 1)
    assert locations.names["zip"] == ["us\n" + "東" * length for length in range(1, 11)]
    assert len(rows_of(locations, places)[1][0]) == 10


# Centroids


def test_each_users_place_counts_once() -> None:
    """Neither many requests of one user nor the order of requests moves a centroid; a second user does."""
    here, there = (10.0, 20.0), (30.0, 60.0)
    users = ["a"] * 50 + ["b"] + ["c"] * 3
    places = [here] * 50 + [there] + [there] * 3
    expected = direction([here, there, there])
    for order in (slice(None), slice(None, None, -1)):
        contexts = table([at(*place) for place in places[order]], users[order])
        np.testing.assert_allclose(Locations.fit(config(1), contexts, 1).centroids[1], [expected], atol=1e-6)
    without_users = table([at(*place) for place in places])
    nobody = table([at(*place) for place in places], [None] * len(places))
    for contexts in (without_users, nobody):
        centroids = Locations.fit(config(1), contexts, 1).centroids[1]
        np.testing.assert_allclose(centroids, [direction([here, there])], atol=1e-6)


def test_one_user_in_two_places_counts_in_both() -> None:
    contexts = table([at(0.0, 0.0), at(0.0, 90.0), at(0.0, 0.0)], ["a", "a", "b"])
    expected = direction([(0, 0), (0, 0), (0, 90)])
    np.testing.assert_allclose(Locations.fit(config(1), contexts, 1).centroids[1], [expected], atol=1e-6)


def scattered(seed: int, *middles: tuple[float, float], size: int = 40) -> list[tuple[float, float]]:
    """Places within some degrees of each middle; longitudes run on over the date line."""
    rng = np.random.default_rng(seed)
    places = [(a + x, (b + y + 180) % 360 - 180) for a, b in middles for x, y in rng.normal(0, 1.5, (size, 2))]
    return [(float(a), float(b)) for a, b in places]


def test_clusters_are_found() -> None:
    middles = ((50, 10), (-30, 140), (40, -100), (0, 30))
    places = scattered(3, *middles)
    centroids = Locations.fit(config(4), table([at(*place) for place in places]), 7).centroids[4]
    expected = [direction(places[nth * 40 : (nth + 1) * 40]) for nth in range(4)]
    assert centroids.shape == (4, 3)
    np.testing.assert_allclose(sorted(centroids.tolist()), sorted(map(list, expected)), atol=1e-6)


def test_the_date_line_is_no_border() -> None:
    places = scattered(4, (-17, 180), (-17, 120), (50, 10))
    assert {place[1] > 0 for place in places[:40]} == {True, False}
    locations = Locations.fit(config(3), table([at(*place) for place in places]), 2)
    ids, _ = rows_of(locations, [at(-17.0, 179.99), at(-17.0, -179.99), at(-16.0, 180.0), at(-16.0, -180.0)])
    assert len({row[3] for row in ids}) == 1
    found = locations.centroids[3][ids[0][3] - locations.rows("bucket_3").start - 1]
    np.testing.assert_allclose(found, direction(places[:40]), atol=1e-6)


def test_the_pole_is_one_place() -> None:
    around = [at(89.0, longitude) for longitude in (-135.0, -45.0, 45.0, 135.0)]
    locations = Locations.fit(config(2), table([*around, at(-50.0, 10.0)]), 2)
    ids, _ = rows_of(locations, [*around, at(90.0, 7.0), at(60.0, -170.0)])
    assert len({row[3] for row in ids}) == 1
    assert np.abs(locations.centroids[2] - [0, 0, 1]).max(axis=1).min() < 1e-6
    same = Locations.fit(config(5), table([at(90.0, 0.0), at(90.0, 120.0), at(0.0, 180.0), at(0.0, -180.0)]), 2)
    assert len(same.centroids[5]) == 2


def test_streets_are_told_apart() -> None:
    """Centroids 200 m apart: cosines of their angles are equal in float32."""
    places = [at(48.2, 16.37 + 0.0027 * nth) for nth in range(20)]
    locations = Locations.fit(config(20), table(places), 1)
    ids, zips = rows_of(locations, places)
    assert (ids, zips) == expected_rows(locations, places, places)
    assert len({row[3] for row in ids}) == 20


def test_as_many_centroids_as_places_when_k_is_larger() -> None:
    places = [at(10.0, 10.0), at(20.0, 20.0), at(10.0, 10.0), at(None, 5.0), at(5.0, None), at(95.0, 0.0), at(0.0, NAN)]
    locations = Locations.fit(config(2, 3, 500), table(places), 1)
    for k in (2, 3, 500):
        np.testing.assert_allclose(
            sorted(locations.centroids[k].tolist()), sorted([unit(10, 10).tolist(), unit(20, 20).tolist()]), atol=1e-6
        )
    ids, _ = rows_of(locations, places)
    assert ids[0][3:] == ids[2][3:] != ids[1][3:]
    assert ids[3] == ids[4] == ids[5] == ids[6] == [locations.rows(kind).start for kind in locations.kinds]


def test_without_coordinates_every_bucket_is_missing() -> None:
    for places in ([("US", None, None, None, None, None)] * 2, []):
        locations = Locations.fit(config(50, 100), table(places), 1)
        assert [len(points) for points in locations.centroids.values()] == [0, 0]
        ids, _ = rows_of(locations, [at(10.0, 10.0), NOWHERE])
        assert ids[0] == ids[1] == [locations.rows(kind).start for kind in locations.kinds]
        assert locations.num_rows == 2 * 3 + len(locations.names["country"]) + 2


def test_without_clusterings_coordinates_are_not_read() -> None:
    locations = Locations.fit(config(), table(TOWNS), 1)
    assert locations.kinds == ("country", "region", "language")
    assert rows_of(locations, TOWNS) == expected_rows(locations, TOWNS, TOWNS)


def test_columns_without_any_value() -> None:
    names = ("user_id", "country", "region", "language", "zip", "latitude", "longitude")
    locations = Locations.fit(config(3), pa.table({name: pa.nulls(4) for name in names}), 1)
    assert set(map(tuple, locations.names.values())) == {()}
    assert len(locations.centroids[3]) == 0


def test_opposite_places_have_a_bucket_all_the_same() -> None:
    """Their mean is the centre of the Earth, which lies in no direction."""
    locations = Locations.fit(config(1), table([at(0.0, 0.0), at(0.0, 180.0)]), 1)
    assert np.linalg.norm(locations.centroids[1], axis=1) == pytest.approx([1.0])


def test_centroids_depend_on_the_seed_and_on_nothing_else() -> None:
    rng = np.random.default_rng(9)
    places = [at(*pair) for pair in zip(rng.uniform(-60, 60, 3_000), rng.uniform(-180, 180, 3_000), strict=True)]
    users = [f"u{nth % 700}" for nth in range(3_000)]
    order = rng.permutation(3_000)
    contexts = table(places, users)
    one, again, shuffled, other = (
        Locations.fit(config(40), rows, seed)
        for rows, seed in ((contexts, 1), (contexts, 1), (contexts.take(pa.array(order)), 1), (contexts, 2))
    )
    assert one.centroids[40].tobytes() == again.centroids[40].tobytes() == shuffled.centroids[40].tobytes()
    assert one.centroids[40].tobytes() != other.centroids[40].tobytes()
    assert np.linalg.norm(one.centroids[40], axis=1) == pytest.approx(np.ones(40))


def test_of_many_places_a_sample_is_clustered(monkeypatch: pytest.MonkeyPatch) -> None:
    places = scattered(5, (50, 10), (-30, 140), size=500)
    contexts = table([at(*place) for place in places])
    whole = Locations.fit(config(2, 1_000), contexts, 1)
    monkeypatch.setattr(location_module, "_MAX_POINTS", 100)
    shuffled = contexts.take(pa.array(np.random.default_rng(1).permutation(len(places))))
    sampled, again, other = (
        Locations.fit(config(2, 1_000), rows, seed) for rows, seed in ((contexts, 1), (shuffled, 1), (contexts, 2))
    )
    assert (len(whole.centroids[1_000]), len(sampled.centroids[1_000])) == (1_000, 100)
    assert {tuple(point) for point in sampled.centroids[1_000]} < {tuple(point) for point in whole.centroids[1_000]}
    assert sampled.centroids[2].tobytes() == again.centroids[2].tobytes()
    assert sampled.centroids[1_000].tobytes() != other.centroids[1_000].tobytes()
    np.testing.assert_allclose(sorted(sampled.centroids[2].tolist()), sorted(whole.centroids[2].tolist()), atol=0.02)


# Files


def test_save_and_load(towns: Locations, tmp_path: Path) -> None:
    towns.save(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["locations.json", "locations_centroids.npz"]
    loaded = Locations.load(tmp_path)
    assert loaded.names == towns.names
    assert "jp\n東京都" in loaded.names["region"]
    assert loaded.kinds == towns.kinds
    for k, centroids in towns.centroids.items():
        np.testing.assert_array_equal(loaded.centroids[k], centroids)
    assert rows_of(loaded, TOWNS + ODD_PLACES) == rows_of(towns, TOWNS + ODD_PLACES)


def test_save_and_load_of_nothing(tmp_path: Path) -> None:
    Locations.fit(config(50), table([]), 1).save(tmp_path)
    assert rows_of(Locations.load(tmp_path), [TOWNS[0]]) == ([[1, 3, 5, 6]], [[]])


def test_the_same_locations_are_the_same_files(towns: Locations, tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        towns.save(tmp_path / name)
    for name in ("locations.json", "locations_centroids.npz"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_load_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"locations\.json: no such file"):
        Locations.load(tmp_path)


# SavedModels


class Served(tf.Module):
    def __init__(self, locations: Locations) -> None:
        super().__init__()
        self._layer = locations.layer()

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.string, name) for name in ("country", "region", "language", "zip")]
        + [tf.TensorSpec([None], tf.float32, name) for name in ("latitude", "longitude")]
    )
    def serve(self, *place: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._layer(*place)


_FRESH_PROCESS = """
import json, sys
import numpy as np
import tensorflow as tf
import tensorflow_text
model, inputs, output = sys.argv[1:]
with open(inputs, encoding="utf-8") as file:
    inputs = json.load(file)
serve = tf.saved_model.load(model).signatures["serving_default"]
types = {name: tf.float32 if name in ("latitude", "longitude") else tf.string for name in inputs}
found = serve(**{name: tf.constant(values, types[name]) for name, values in inputs.items()})
assert not any(module.partition(".")[0] in ("uepp", "sklearn") for module in sys.modules)
np.savez(output, **{name: values.numpy() for name, values in found.items()})
"""


def test_a_fresh_process_without_uepp_gives_the_same_rows(towns: Locations, tmp_path: Path) -> None:
    served, places = Served(towns), TOWNS + ODD_PLACES
    tf.saved_model.save(served, str(tmp_path / "model"), signatures={"serving_default": served.serve})
    names = ("country", "region", "language", "zip", "latitude", "longitude")
    inputs: dict[str, Any] = {}
    for name, values in zip(names, tensors(places), strict=True):
        inputs[name] = [value.decode() if isinstance(value, bytes) else float(value) for value in values.numpy()]
    (tmp_path / "inputs.json").write_text(json.dumps(inputs), encoding="utf-8")
    arguments = [str(tmp_path / name) for name in ("model", "inputs.json", "found.npz")]
    finished = subprocess.run(
        [sys.executable, "-c", _FRESH_PROCESS, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    expected_ids, expected_zips = expected_rows(towns, places, TOWNS)
    found = np.load(tmp_path / "found.npz")
    assert found["location/ids"].tolist() == expected_ids
    assert found["zip/lengths"].tolist() == [len(prefixes) for prefixes in expected_zips]
    assert found["zip/values"].tolist() == [row for prefixes in expected_zips for row in prefixes]
