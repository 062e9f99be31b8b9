"""Places on the real map: cities with coordinates, countries, languages, postal codes and distances.

Coordinates and postal prefixes are the cities' own, rounded; weights are rough populations of the metropolitan
areas in millions, multiplied by how much each country shops and sells here (our choice).
"""

from dataclasses import dataclass

import numpy as np

# city | country | region | language | latitude | longitude | postal prefix and pattern (# digit, @ letter) | millions
_CITIES = """
New York|US|NY|en|40.71|-74.01|10###|19.5
Los Angeles|US|CA|en|34.05|-118.24|90###|12.9
Chicago|US|IL|en|41.88|-87.63|606##|9.4
Dallas|US|TX|en|32.78|-96.80|752##|7.9
Houston|US|TX|en|29.76|-95.37|770##|7.3
Washington|US|DC|en|38.91|-77.04|200##|6.3
Philadelphia|US|PA|en|39.95|-75.17|191##|6.2
Atlanta|US|GA|en|33.75|-84.39|303##|6.2
Miami|US|FL|en|25.76|-80.19|331##|6.1
Phoenix|US|AZ|en|33.45|-112.07|850##|5.0
Boston|US|MA|en|42.36|-71.06|021##|4.9
San Francisco|US|CA|en|37.77|-122.42|941##|4.6
Detroit|US|MI|en|42.33|-83.05|482##|4.3
Seattle|US|WA|en|47.61|-122.33|981##|4.0
Minneapolis|US|MN|en|44.98|-93.27|554##|3.7
Tampa|US|FL|en|27.95|-82.46|336##|3.3
San Diego|US|CA|en|32.72|-117.16|921##|3.3
Denver|US|CO|en|39.74|-104.99|802##|3.0
St Louis|US|MO|en|38.63|-90.20|631##|2.8
Charlotte|US|NC|en|35.23|-80.84|282##|2.8
Portland|US|OR|en|45.52|-122.68|972##|2.5
Austin|US|TX|en|30.27|-97.74|787##|2.4
Pittsburgh|US|PA|en|40.44|-80.00|152##|2.3
Nashville|US|TN|en|36.16|-86.78|372##|2.1
Kansas City|US|MO|en|39.10|-94.58|641##|2.2
Salt Lake City|US|UT|en|40.76|-111.89|841##|1.3
New Orleans|US|LA|en|29.95|-90.07|701##|1.3
Asheville|US|NC|en|35.60|-82.55|288##|0.5
Boise|US|ID|en|43.62|-116.20|837##|0.8
Omaha|US|NE|en|41.26|-95.93|681##|1.0
Honolulu|US|HI|en|21.31|-157.86|968##|1.0
Anchorage|US|AK|en|61.22|-149.90|995##|0.4
Albuquerque|US|NM|en|35.08|-106.65|871##|0.9
Toronto|CA|ON|en|43.65|-79.38|M5@ #@#|6.2
Montreal|CA|QC|fr|45.50|-73.57|H2@ #@#|4.3
Vancouver|CA|BC|en|49.28|-123.12|V6@ #@#|2.6
Calgary|CA|AB|en|51.04|-114.07|T2@ #@#|1.5
Ottawa|CA|ON|en|45.42|-75.70|K1@ #@#|1.4
Halifax|CA|NS|en|44.65|-63.58|B3@ #@#|0.5
London|GB|ENG|en|51.51|-0.13|E# #@@|9.6
Birmingham|GB|ENG|en|52.49|-1.89|B# #@@|2.6
Manchester|GB|ENG|en|53.48|-2.24|M# #@@|2.8
Leeds|GB|ENG|en|53.80|-1.55|LS# #@@|1.9
Bristol|GB|ENG|en|51.45|-2.59|BS# #@@|0.7
Brighton|GB|ENG|en|50.82|-0.14|BN# #@@|0.5
Newcastle|GB|ENG|en|54.98|-1.61|NE# #@@|0.8
Glasgow|GB|SCT|en|55.86|-4.25|G# #@@|1.7
Edinburgh|GB|SCT|en|55.95|-3.19|EH# #@@|0.6
Cardiff|GB|WLS|en|51.48|-3.18|CF# #@@|0.5
Belfast|GB|NIR|en|54.60|-5.93|BT# #@@|0.6
Dublin|IE|L|en|53.35|-6.26|D0# @###|1.4
Cork|IE|M|en|51.90|-8.47|T12 @###|0.3
Sydney|AU|NSW|en|-33.87|151.21|20##|5.3
Melbourne|AU|VIC|en|-37.81|144.96|30##|5.1
Brisbane|AU|QLD|en|-27.47|153.03|40##|2.6
Perth|AU|WA|en|-31.95|115.86|60##|2.1
Adelaide|AU|SA|en|-34.93|138.60|50##|1.4
Auckland|NZ|AUK|en|-36.85|174.76|10##|1.7
Wellington|NZ|WGN|en|-41.29|174.78|60##|0.4
Berlin|DE|BE|de|52.52|13.41|10###|4.7
Hamburg|DE|HH|de|53.55|9.99|20###|3.2
Munich|DE|BY|de|48.14|11.58|80###|2.9
Cologne|DE|NW|de|50.94|6.96|50###|2.1
Frankfurt|DE|HE|de|50.11|8.68|60###|2.3
Stuttgart|DE|BW|de|48.78|9.18|70###|2.8
Leipzig|DE|SN|de|51.34|12.37|04###|1.1
Dresden|DE|SN|de|51.05|13.74|01###|1.3
Bremen|DE|HB|de|53.08|8.80|28###|1.2
Vienna|AT|W|de|48.21|16.37|10##|2.9
Graz|AT|ST|de|47.07|15.44|80##|0.6
Zurich|CH|ZH|de|47.37|8.54|80##|1.4
Geneva|CH|GE|fr|46.20|6.14|12##|0.6
Paris|FR|IDF|fr|48.86|2.35|750##|11.1
Lyon|FR|ARA|fr|45.76|4.84|690##|2.3
Marseille|FR|PAC|fr|43.30|5.37|130##|1.8
Toulouse|FR|OCC|fr|43.60|1.44|310##|1.4
Bordeaux|FR|NAQ|fr|44.84|-0.58|330##|1.3
Nantes|FR|PDL|fr|47.22|-1.55|440##|1.0
Lille|FR|HDF|fr|50.63|3.06|590##|1.5
Strasbourg|FR|GES|fr|48.57|7.75|670##|0.8
Brussels|BE|BRU|fr|50.85|4.35|10##|2.1
Madrid|ES|MD|es|40.42|-3.70|280##|6.7
Barcelona|ES|CT|es|41.39|2.17|080##|5.6
Valencia|ES|VC|es|39.47|-0.38|460##|1.6
Seville|ES|AN|es|37.39|-5.98|410##|1.5
Bilbao|ES|PV|es|43.26|-2.93|480##|1.0
Malaga|ES|AN|es|36.72|-4.42|290##|1.0
Mexico City|MX|CMX|es|19.43|-99.13|06###|9.2
Guadalajara|MX|JAL|es|20.67|-103.35|44###|5.3
Istanbul|TR|34|en|41.01|28.98|34###|6.0
Athens|GR|I|en|37.98|23.73|10###|3.6
Vilnius|LT|VL|en|54.69|25.28|01###|0.7
Kyiv|UA|30|en|50.45|30.52|01###|3.0
Delhi|IN|DL|en|28.61|77.21|1100##|8.0
Tel Aviv|IL|TA|en|32.09|34.78|61#####|2.0
Hong Kong|HK|HK|en|22.32|114.17|999077|3.0
Tokyo|JP|13|en|35.68|139.69|100-00##|6.0
"""

# How much of a city's population buys and sells here, by country; every other country: (0.15, 0.6).
_COUNTRY_SHARE = {
    "US": (1.0, 0.8),
    "GB": (1.1, 1.2),
    "CA": (0.9, 0.9),
    "AU": (0.7, 0.7),
    "NZ": (0.7, 0.7),
    "IE": (0.8, 0.9),
    "DE": (0.8, 0.9),
    "AT": (0.8, 0.8),
    "CH": (0.7, 0.5),
    "FR": (0.6, 0.8),
    "BE": (0.5, 0.5),
    "ES": (0.5, 0.8),
    "MX": (0.25, 0.4),
}
_EARTH_RADIUS_KM = 6371.0
_LETTERS = "ABCDEFGHJKLNPRSTUVWXY"


@dataclass(frozen=True)
class City:
    """A place where people live and shops are."""

    name: str
    country: str
    region: str
    language: str
    latitude: float
    longitude: float
    postal_pattern: str
    millions: float


def _read_cities() -> tuple[City, ...]:
    cities = []
    for line in _CITIES.strip().splitlines():
        name, country, region, language, latitude, longitude, pattern, millions = line.split("|")
        cities.append(
            City(name, country, region, language, float(latitude), float(longitude), pattern, float(millions))
        )
    return tuple(cities)


CITIES = _read_cities()
COUNTRIES = tuple(sorted({city.country for city in CITIES}))
CITY_COUNTRY = np.array([COUNTRIES.index(city.country) for city in CITIES], np.int16)


def city_weights(role: int) -> np.ndarray:
    """Probability of each city as a home of buyers (role 0) or of shops (role 1)."""
    weights: np.ndarray = np.array(
        [city.millions * _COUNTRY_SHARE.get(city.country, (0.15, 0.6))[role] for city in CITIES]
    )
    # Makers live in small towns too: shops are spread more evenly than people.
    weights = weights**0.7 if role == 1 else weights
    probabilities: np.ndarray = weights / weights.sum()
    return probabilities


def distance_table() -> np.ndarray:
    """Great-circle distances between all cities, [cities, cities] float32, kilometres (haversine)."""
    latitude = np.radians([city.latitude for city in CITIES])
    longitude = np.radians([city.longitude for city in CITIES])
    half_latitude = np.sin((latitude[:, None] - latitude[None, :]) / 2) ** 2
    half_longitude = np.sin((longitude[:, None] - longitude[None, :]) / 2) ** 2
    chord = half_latitude + np.cos(latitude[:, None]) * np.cos(latitude[None, :]) * half_longitude
    distances: np.ndarray = 2 * _EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.clip(chord, 0, 1)))
    return distances.astype(np.float32)


def postal_code(pattern: str, number: int) -> str:
    """Fill a city's postal pattern from a non-negative number: `#` a digit, `@` a letter."""
    filled = []
    for character in pattern:
        if character == "#":
            number, digit = divmod(number, 10)
            filled.append(str(digit))
        elif character == "@":
            number, letter = divmod(number, len(_LETTERS))
            filled.append(_LETTERS[letter])
        else:
            filled.append(character)
    return "".join(filled)
