"""Distances against the law of cosines and hand-made maps; what is unknown is left out and counted."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from uepp.evaluation.locality import (
    FirstResults,
    Places,
    first_pairs,
    is_abroad,
    of_pairs,
    pair_bearings,
    pair_distances,
    places_of,
)
from uepp.features.distance import EARTH_RADIUS_KM, bearing, distance_km

QUARTER = math.pi / 2 * 6_371.0088


def places(*rows: tuple[float | None, float | None, str | None]) -> Places:
    latitude, longitude, country = zip(*rows, strict=True)
    return Places(np.array(latitude, float), np.array(longitude, float), np.array(country, object))


def chord_oracle(one: tuple[float, float], other: tuple[float, float]) -> float:
    """The arc over the straight line between two points of the sphere."""
    points = [
        (
            math.cos(math.radians(north)) * math.cos(math.radians(east)),
            math.cos(math.radians(north)) * math.sin(math.radians(east)),
            math.sin(math.radians(north)),
        )
        for north, east in (one, other)
    ]
    return 2 * 6_371.0088 * math.asin(min(1.0, math.dist(*points) / 2))


DEGREES = st.tuples(st.floats(-90, 90), st.floats(-180, 180))


@settings(deadline=None, max_examples=60)
@given(DEGREES, DEGREES)
def test_a_distance_is_the_arc_over_the_chord(one: tuple[float, float], other: tuple[float, float]) -> None:
    found = distance_km(np.array([one[0]]), np.array([one[1]]), np.array([other[0]]), np.array([other[1]]))[0]
    # both lose digits next to the antipode, where a metre of chord is kilometres of arc
    assert found == pytest.approx(chord_oracle(one, other), abs=1.0, rel=1e-9)
    assert 0 <= found <= math.pi * EARTH_RADIUS_KM + 1e-6


@settings(deadline=None, max_examples=60)
@example((0.0, 1e-74), (1.0, 0.0))
@given(st.tuples(st.floats(-80, 80), st.floats(-180, 180)), st.tuples(st.floats(-80, 80), st.floats(-180, 180)))
def test_who_goes_that_far_in_that_direction_is_there(one: tuple[float, float], other: tuple[float, float]) -> None:
    pair = [np.array([value]) for value in (*one, *other)]
    km, degrees = float(distance_km(*pair)[0]), float(bearing(*pair)[0])
    assert 0 <= degrees < 360
    assume(10 < km < 2 * QUARTER - 100)
    north, arc, course = math.radians(one[0]), km / EARTH_RADIUS_KM, math.radians(degrees)
    reached = math.asin(math.sin(north) * math.cos(arc) + math.cos(north) * math.sin(arc) * math.cos(course))
    to_east = math.sin(course) * math.sin(arc) * math.cos(north)
    east = math.radians(one[1]) + math.atan2(to_east, math.cos(arc) - math.sin(north) * math.sin(reached))
    assert chord_oracle((math.degrees(reached), math.degrees(east)), other) < 1.0


def test_known_directions() -> None:
    zero, there = np.zeros(4), np.array([1.0, 0.0, -1.0, 0.0])
    np.testing.assert_allclose(bearing(zero, zero, there, np.array([0.0, 1.0, 0.0, -1.0])), [0, 90, 180, 270])
    assert bearing(np.array([5.0]), np.array([6.0]), np.array([5.0]), np.array([6.0]))[0] == 0
    assert bearing(np.array([0.0]), np.array([179.0]), np.array([0.0]), np.array([-179.0]))[0] == pytest.approx(90)
    people, products = places((0.0, 0.0, None), (None, 0.0, None)), places((0.0, 1.0, None))
    found = pair_bearings(people, products, np.array([0, 1, 0]), np.array([0, 0, -1]))
    np.testing.assert_allclose(found, [90, np.nan, np.nan])


def test_known_distances() -> None:
    km = distance_km(np.array([0.0, 0.0, 52.52, 90.0]), np.array([0.0, 179.0, 13.405, 0.0]),
                     np.array([0.0, 0.0, 48.8566, -90.0]), np.array([90.0, -179.0, 2.3522, 77.0]))  # fmt: skip
    assert km[0] == pytest.approx(QUARTER)
    assert km[1] == pytest.approx(2 / 90 * QUARTER), "over the date line"
    assert km[2] == pytest.approx(878, abs=2), "Berlin to Paris"
    assert km[3] == pytest.approx(2 * QUARTER), "from pole to pole"


def test_near_points_are_told_apart() -> None:
    metre = 1e-3 / QUARTER * 90
    assert distance_km(np.array([45.0]), np.array([9.0]), np.array([45.0 + metre]), np.array([9.0]))[
        0
    ] == pytest.approx(1e-3, rel=1e-6)


PEOPLE = places((0, 0, "DE"), (None, None, "FR"), (0, 90, ""))
PRODUCTS = places((0, 90, "DE"), (0, 0, "FR"), (None, None, None), (90, 0, "DE"))


def test_short_rankings_have_fewer_pairs() -> None:
    person, product = first_pairs(np.array([[2, 1, 0], [3, -1, -1]]), 2)
    assert person.tolist() == [0, 0, 1]
    assert product.tolist() == [2, 1, 3]


def test_a_pair_without_a_place_has_no_distance() -> None:
    km = pair_distances(PEOPLE, PRODUCTS, np.array([0, 0, 0, 1, 0]), np.array([0, 1, 2, 0, -1]))
    assert km[:2] == pytest.approx([QUARTER, 0.0])
    assert np.isnan(km[2:]).all()


def test_what_is_unknown_is_left_out_and_counted() -> None:
    ranking = np.array([[0, 1, 2, 3], [0, 1, 2, -1], [0, 3, -1, -1]])
    found = of_pairs(PEOPLE, PRODUCTS, *first_pairs(ranking, 4))
    # 0: quarter, 0, unknown, quarter; 1: nothing known; 2: 0 and quarter
    km = sorted([QUARTER, 0.0, QUARTER, 0.0, QUARTER])
    assert found.num_pairs == 5
    assert found.num_unknown == 4
    for percent, value in found.percentiles.items():
        place = percent / 100 * 4
        below, above = km[math.floor(place)], km[math.ceil(place)]
        assert value == pytest.approx(below + (place - math.floor(place)) * (above - below)), percent
    # countries: 0: own, other, unknown, own; 1: other, own, unknown; 2: not known where
    assert found.num_countries == 5
    assert found.num_unknown_country == 4
    assert found.own_country_share == pytest.approx(3 / 5)


def test_only_the_first_results_count() -> None:
    near, far = (
        of_pairs(PEOPLE, PRODUCTS, *first_pairs(np.array([[1, 0]]), 1)),
        of_pairs(PEOPLE, PRODUCTS, *first_pairs(np.array([[0, 1]]), 1)),
    )
    assert near.percentiles[98] == pytest.approx(0.0)
    assert far.percentiles[98] == pytest.approx(QUARTER)
    assert (near.own_country_share, far.own_country_share) == (0.0, 1.0)


def test_nothing_known_is_no_number() -> None:
    found = of_pairs(PEOPLE, PRODUCTS, *first_pairs(np.array([[2]]), 1))
    assert found.num_pairs == 0
    assert all(math.isnan(value) for value in found.percentiles.values())
    assert math.isnan(found.own_country_share)
    empty = of_pairs(PEOPLE, PRODUCTS, *first_pairs(np.empty((0, 3), np.int64), 3))
    assert (empty.num_pairs, empty.num_unknown, empty.num_countries) == (0, 0, 0)


def test_abroad_is_another_known_country() -> None:
    people = places((None, None, "US"), (None, None, ""))
    products = places((None, None, "US"), (None, None, "DE"), (None, None, None))
    person, product = np.array([0, 0, 0, 0, 1]), np.array([0, 1, 2, -1, 1])
    assert is_abroad(people, products, person, product).tolist() == [0, 1, -1, -1, -1]


def test_first_results_come_together_from_parts() -> None:
    people = places((0.0, 0.0, "US"), (0.0, 90.0, "DE"), (None, None, "US"))
    products = places((0.0, 0.0, "US"), (0.0, 90.0, "DE"), (0.0, 180.0, "US"))
    first = FirstResults(people, products, k=2)
    assert first.figures()["num_results"] == 0
    first.add(np.array([2, 0]), np.array([[1, 0, 2], [0, 1, 2]]))
    first.add(np.array([1]), np.array([[2, -1, -1]]))
    figures = first.figures()
    assert figures["num_results"] == 5
    assert figures["own_country_share"] == pytest.approx(2 / 5)
    assert figures["distance_km_p50"] == pytest.approx(QUARTER)  # of 0, a quarter, a quarter
    whole = of_pairs(people, products, np.array([2, 2, 0, 0, 1]), np.array([1, 0, 0, 1, 2]))
    assert figures["distance_km_p98"] == pytest.approx(whole.percentiles[98])


def test_places_of_tables_with_and_without_columns() -> None:
    table = pa.table({"latitude": pa.array([1.5, None], pa.float32()), "country": [" US", None]})
    found = places_of(table, 2)
    assert found.latitude[0] == 1.5
    assert np.isnan(found.latitude[1])
    assert np.isnan(found.longitude).all()
    assert found.country.tolist() == ["us", ""], "as the towers read it"
    assert places_of(None, 3).country.tolist() == ["", "", ""]
