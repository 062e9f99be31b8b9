"""How far two places are from each other, and in which direction."""

import numpy as np

EARTH_RADIUS_KM = 6_371.0088
"""Mean radius (IUGG)."""


def distance_km(
    latitude: np.ndarray, longitude: np.ndarray, other_latitude: np.ndarray, other_longitude: np.ndarray
) -> np.ndarray:
    """Great-circle distance on a sphere, 2 r · arcsin √hav (haversine, which is exact for near points too).

    Args:
        latitude: degrees, float64 of any shape.
        longitude: likewise.
        other_latitude: of a shape that broadcasts with it.
        other_longitude: likewise.

    Returns:
        km in [0, π r], NaN where a coordinate is.
    """
    north, other_north = np.radians(latitude), np.radians(other_latitude)
    by_latitude = np.sin((other_north - north) / 2) ** 2
    by_longitude = np.sin(np.radians(np.asarray(other_longitude) - longitude) / 2) ** 2
    haversine = by_latitude + np.cos(north) * np.cos(other_north) * by_longitude
    return 2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.clip(haversine, 0.0, 1.0)))


def bearing(
    latitude: np.ndarray, longitude: np.ndarray, other_latitude: np.ndarray, other_longitude: np.ndarray
) -> np.ndarray:
    """Direction in which the great circle to the other place begins, of places as in `distance_km`.

    Returns:
        Degrees in [0, 360), 0 is north and 90 east; 0 for the same place, NaN where a coordinate is.
    """
    north, other_north = np.radians(latitude), np.radians(other_latitude)
    east = np.radians(np.asarray(other_longitude) - longitude)
    to_north = np.cos(north) * np.sin(other_north) - np.sin(north) * np.cos(other_north) * np.cos(east)
    degrees = np.degrees(np.arctan2(np.sin(east) * np.cos(other_north), to_north)) % 360.0
    return np.where(degrees == 360.0, 0.0, degrees)  # what an angle just below 0 is rounded to
