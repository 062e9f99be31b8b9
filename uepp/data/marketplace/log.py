"""The log: day by day, what people searched, were shown, clicked, put in carts and bought."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from uepp.data.marketplace.buyers import Buyers
from uepp.data.marketplace.catalogue import SECONDS_A_DAY, Catalogue
from uepp.data.marketplace.demand import Demand, Searches
from uepp.data.marketplace.engine import EVENT_WEIGHTS, PAGE, Candidates, Engine
from uepp.data.marketplace.geography import CITIES, city_weights, postal_code
from uepp.data.marketplace.relevance import appeal, sigmoid
from uepp.data.marketplace.taxonomy import LANGUAGES
from uepp.data.marketplace.texts import timestamps
from uepp.data.marketplace.world import IMPRESSION_DAYS, LOG_DAYS_BEFORE, NUM_DAYS, World, pick, stream

EVENT_SCHEMA = pa.schema(
    [
        ("timestamp", pa.timestamp("us", tz="UTC")),
        ("user_id", pa.string()),
        ("session_id", pa.string()),
        ("type", pa.string()),
        ("query", pa.string()),
        ("product_id", pa.string()),
        ("position", pa.int32()),
        ("country", pa.string()),
        ("region", pa.string()),
        ("language", pa.string()),
        ("zip", pa.string()),
        ("latitude", pa.float64()),
        ("longitude", pa.float64()),
    ]
)
TYPES = ("search", "impression", "click", "cart", "purchase")
SEARCH, IMPRESSION, CLICK, CART, PURCHASE = range(5)

# Traffic.
GROWTH = 3.0  # times as many sessions at the end of the log as at its start
OLD_SESSIONS_KEPT = 0.25  # sessions older than the window of impressions are kept as this sample of all
WEEKDAY = (1.0, 0.97, 0.95, 0.96, 0.98, 1.04, 1.1)  # Monday to Sunday
IMPRESSIONS_KEPT = 0.08  # of the requests of the last days have their whole page logged
ANONYMOUS_SHARE, TRAVEL_SHARE = 0.2, 0.04
NO_CONTEXT_SHARE, NO_COORDINATES_SHARE = 0.03, 0.10

# What people do with a product that they are shown.
# The chance to look at place k (from 1) is k ** -power; who names more concepts looks further down.
EXAMINATION_POWER = (0.6, 0.5, 0.4, 0.3)  # by the number of concepts
ACCIDENTAL_CLICK = 0.004
CLICK_RATE, CART_RATE, PURCHASE_RATE = 0.46, 0.85, 0.92
RELEVANCE_POWER = 1.2
# How ready people are to buy: who knows what they want buys more often than who looks around.
READINESS = (0.35, 0.3, 0.4, 0.5)  # of who names no category, a department, a group, a leaf
READINESS_A_CONCEPT = 0.25  # more with each concept named

_ROWS_A_GROUP = 131_072
_SECOND = 1_000_000  # microseconds
_HOURS = np.array([3, 2, 1, 1, 1, 1, 2, 3, 4, 5, 6, 6, 7, 7, 6, 6, 6, 7, 8, 9, 10, 10, 8, 5], np.float64)  # local
_LONGEST_SESSION_SECONDS = 1_800


@dataclass(frozen=True)
class Actions:
    """What happened on a day's requests; `kind[r, k]` is the strongest event of request r at place k."""

    products: np.ndarray  # [R, PAGE] int64, -1 where the page is shorter
    kind: np.ndarray  # [R, PAGE] int8, 0 (only shown) or one of CLICK, CART, PURCHASE


@dataclass(frozen=True)
class Sessions:
    """Who searched from where; one row a session of a day."""

    user: np.ndarray  # [S]
    anonymous: np.ndarray  # [S] bool
    city: np.ndarray  # [S], where they are now
    away: np.ndarray  # [S] bool
    context: np.ndarray  # [S], 0 complete, 1 without coordinates and zip, 2 without anything
    jitter: np.ndarray  # [S, 2] degrees, for those away
    postal: np.ndarray  # [S] int64, for those away


@dataclass
class Tally:
    """Counts that outlive the days."""

    purchases: np.ndarray  # [N], before T
    clicks: np.ndarray  # [N], before T
    num_events: int = 0
    num_sessions: int = 0
    num_base_events: int = 0
    num_searches: int = 0


def write_log(
    world: World,
    catalogue: Catalogue,
    buyers: Buyers,
    demand: Demand,
    engine: Engine,
    num_events: int,
    seed: int,
    path: Path,
    days: Iterable[int],
) -> Tally:
    """Simulate all days and write `events.parquet`, about a row group at a time.

    Args:
        world: the market.
        catalogue: products.
        buyers: people.
        demand: draws searches; remembers what people bought last.
        engine: shows products; learns from behaviour.
        num_events: rows to write; met up to a fraction of a session.
        seed: of the marketplace.
        path: the file.
        days: 0 to NUM_DAYS - 1 in order (an iterable, so that the caller can show progress).
    """
    n = len(catalogue)
    tally = Tally(np.zeros(n, np.int64), np.zeros(n, np.int64))
    product_ids = pa.array(catalogue.product_ids().tolist(), pa.string())
    user_ids = pa.array(buyers.user_ids().tolist(), pa.string())
    pending: list[pa.Table] = []
    with pq.ParquetWriter(path, EVENT_SCHEMA, compression="zstd") as writer:
        for day in days:
            rng = stream(seed, 7, day)
            budget = num_events - tally.num_events
            last = day == NUM_DAYS - 1
            count = _num_sessions(day, budget, tally)
            if count > 0:
                # On the last day more sessions than needed are drawn, and those that fit are kept.
                searches = demand.draw(day, 2 * count + 5 if last else count, rng)
                sessions = _draw_sessions(buyers, searches, rng)
                actions = _act(world, catalogue, buyers, engine, searches, sessions, day, rng)
                events = _events(searches, actions, sessions, day, rng)
                if last:
                    events = _fitting(events, searches, budget)
                _remember(searches, actions, events, demand, engine, tally, day)
                context = _context(sessions, buyers, user_ids, day)
                pending.append(_table(events, searches, actions, context, demand.queries.texts, product_ids, day))
            if sum(map(len, pending)) >= _ROWS_A_GROUP or (last and pending):
                writer.write_table(pa.concat_tables(pending), row_group_size=_ROWS_A_GROUP)
                pending = []
    return tally


def _traffic(day: int) -> float:
    """Relative number of sessions that the log keeps of a day."""
    kept = 1.0 if day >= NUM_DAYS - IMPRESSION_DAYS else OLD_SESSIONS_KEPT
    growth: float = GROWTH ** (day / NUM_DAYS)
    return kept * growth * WEEKDAY[(day + 4) % 7]


def _num_sessions(day: int, budget: int, tally: Tally) -> int:
    """Sessions of a day, so that what is left of the log's rows lasts for the days to come."""
    # Prior guesses, worth fifty sessions, until the log itself tells.
    searches = (tally.num_searches + 50 * 2.0) / (tally.num_sessions + 50)
    base = (tally.num_base_events + 50 * 3.6) / (tally.num_sessions + 50)
    with_impressions = base + searches * IMPRESSIONS_KEPT * PAGE
    ahead = sum(
        _traffic(later) * (with_impressions if later >= NUM_DAYS - IMPRESSION_DAYS else base)
        for later in range(day, NUM_DAYS)
    )
    return max(0, round(budget * _traffic(day) / ahead))


def _draw_sessions(buyers: Buyers, searches: Searches, rng: np.random.Generator) -> Sessions:
    first = np.flatnonzero(searches.step == 0)
    user = searches.user[first]
    n = len(user)
    away = rng.random(n) < TRAVEL_SHARE
    elsewhere = pick(np.cumsum(city_weights(0)), rng.random(n))
    chance = rng.random(n)
    return Sessions(
        user=user,
        anonymous=rng.random(n) < ANONYMOUS_SHARE,
        city=np.where(away, elsewhere, buyers.persons.city[user]).astype(np.int64),
        away=away,
        context=np.where(
            chance < NO_CONTEXT_SHARE, 2, np.where(chance < NO_CONTEXT_SHARE + NO_COORDINATES_SHARE, 1, 0)
        ),
        jitter=rng.normal(0, 0.1, (n, 2)),
        postal=rng.integers(0, 10**6, n),
    )


def _act(
    world: World,
    catalogue: Catalogue,
    buyers: Buyers,
    engine: Engine,
    searches: Searches,
    sessions: Sessions,
    day: int,
    rng: np.random.Generator,
) -> Actions:
    """Show every request its page, and let people click, fill carts and buy."""
    distinct, inverse = np.unique(searches.query, return_inverse=True)
    candidates: Candidates = engine.candidates(distinct, day, rng)
    products = candidates.products[inverse]
    liking = appeal(
        world,
        catalogue.latents,
        buyers.persons,
        searches.user,
        np.maximum(products, 0),
        sessions.city[searches.session],
    )
    shown = engine.pages(candidates.scores[inverse], products, liking, rng)
    rows = np.arange(len(shown))[:, None]
    page = products[rows, shown]
    truth = candidates.relevance[inverse[:, None], shown]
    liking = liking[rows, shown]

    # The account's product takes a place on the page; it is what the person has in mind.
    visitors = np.flatnonzero((searches.visit >= 0) & ~sessions.anonymous[searches.session])
    visit = searches.visit[visitors]
    place = rng.integers(0, PAGE // 2, len(visitors))
    page[visitors] = np.where(page[visitors] == visit[:, None], -1, page[visitors])
    page[visitors, place] = visit
    truth[visitors, place] = 1.0
    city = sessions.city[searches.session[visitors]]
    liking[visitors, place] = appeal(
        world, catalogue.latents, buyers.persons, searches.user[visitors], visit[:, None], city
    )[:, 0]

    wanted = truth**RELEVANCE_POWER
    attraction = sigmoid(liking)
    intents = engine.intents(searches.query)
    num_concepts = (intents[:, 4:] >= 0).sum(axis=1)
    examined = np.arange(1, PAGE + 1) ** -np.array(EXAMINATION_POWER)[num_concepts][:, None]
    clicks = rng.random(page.shape) < examined * (ACCIDENTAL_CLICK + CLICK_RATE * wanted * (0.25 + 0.75 * attraction))
    ready = np.minimum(1.0, np.array(READINESS)[intents[:, 0]] + READINESS_A_CONCEPT * num_concepts)[:, None]
    carts = clicks & (rng.random(page.shape) < CART_RATE * ready * np.sqrt(wanted) * (0.1 + 0.9 * attraction))
    purchases = carts & (rng.random(page.shape) < PURCHASE_RATE * (0.1 + 0.9 * attraction))
    kind = np.select([page < 0, purchases, carts, clicks], [0, PURCHASE, CART, CLICK], 0).astype(np.int8)
    return Actions(page, kind)


def _events(
    searches: Searches, actions: Actions, sessions: Sessions, day: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """All events of a day, by time: request row, type, place (-1 for searches), time in microseconds."""
    num_requests = len(searches.query)
    shape = actions.kind.shape
    places = np.arange(shape[1])
    click_at = (3 + 4 * places + 3 * rng.random(shape)) * _SECOND
    cart_at = click_at + (8 + 40 * rng.random(shape)) * _SECOND
    purchase_at = cart_at + (15 + 60 * rng.random(shape)) * _SECOND
    shown_at = np.broadcast_to((300_000 + 1_000 * places), shape)
    logged = rng.random(num_requests) < (IMPRESSIONS_KEPT if day >= NUM_DAYS - IMPRESSION_DAYS else 0.0)

    requests = [np.arange(num_requests)]
    where = [np.full(num_requests, -1)]
    offsets = [np.zeros(num_requests, np.int64)]
    codes = [np.full(num_requests, SEARCH, np.int8)]
    for at, chosen, kind in (
        (shown_at, logged[:, None] & (actions.products >= 0), IMPRESSION),
        (click_at, actions.kind >= CLICK, CLICK),
        (cart_at, actions.kind >= CART, CART),
        (purchase_at, actions.kind >= PURCHASE, PURCHASE),
    ):
        rows, columns = np.nonzero(chosen)
        requests.append(rows)
        where.append(columns)
        offsets.append(at[rows, columns].astype(np.int64))
        codes.append(np.full(len(rows), kind, np.int8))
    request, place = np.concatenate(requests), np.concatenate(where)
    offset, code = np.concatenate(offsets), np.concatenate(codes)

    # A search starts when the one before it in the session is over.
    lasts = np.zeros(num_requests, np.int64)
    np.maximum.at(lasts, request, offset)
    lasts += ((5 + 35 * rng.random(num_requests)) * _SECOND).astype(np.int64)
    ends = np.cumsum(lasts)
    first = np.flatnonzero(searches.step == 0)
    start = ends - lasts - (ends - lasts)[first][searches.session]
    time = (_session_starts(sessions, rng)[searches.session] + start)[request] + offset
    order = np.lexsort((code, time))
    return {"request": request[order], "place": place[order], "time": time[order], "type": code[order]}


def _session_starts(sessions: Sessions, rng: np.random.Generator) -> np.ndarray:
    """Start of each session in the day, microseconds: evenings are busy, by local time."""
    n = len(sessions.user)
    local = (pick(np.cumsum(_HOURS), rng.random(n)) + rng.random(n)) * 3600
    shift = np.array([place.longitude for place in CITIES])[sessions.city] * 240
    # No session runs past midnight, so that a day's events lie within it.
    seconds: np.ndarray = np.mod(local - shift, SECONDS_A_DAY - _LONGEST_SESSION_SECONDS)
    return (seconds * _SECOND).astype(np.int64)


def _fitting(events: dict[str, np.ndarray], searches: Searches, budget: int) -> dict[str, np.ndarray]:
    """Only the sessions that fit into what is left of the log, the earlier drawn ones first."""
    session = searches.session[events["request"]]
    sizes = np.bincount(session, minlength=int(searches.session.max()) + 1)
    kept = np.zeros(len(sizes), bool)
    for i, size in enumerate(sizes.tolist()):
        if size <= budget:
            kept[i] = True
            budget -= size
    chosen = kept[session]
    return {name: values[chosen] for name, values in events.items()}


def _remember(
    searches: Searches,
    actions: Actions,
    events: dict[str, np.ndarray],
    demand: Demand,
    engine: Engine,
    tally: Tally,
    day: int,
) -> None:
    """What later days know of this one."""
    code, request = events["type"], events["request"]
    positive = code >= CLICK
    product = actions.products[request[positive], events["place"][positive]]
    weights = np.array(EVENT_WEIGHTS)[code[positive] - CLICK]
    engine.learn(searches.query[request[positive]], product, weights)
    bought = code[positive] == PURCHASE
    demand.last_bought[searches.user[request[positive][bought]]] = product[bought]
    if day < LOG_DAYS_BEFORE:
        np.add.at(tally.purchases, product[bought], 1)
        np.add.at(tally.clicks, product[code[positive] == CLICK], 1)
    tally.num_events += len(code)
    tally.num_base_events += int((code != IMPRESSION).sum())
    tally.num_searches += int((code == SEARCH).sum())
    tally.num_sessions += len(np.unique(searches.session[request]))


def _table(
    events: dict[str, np.ndarray],
    searches: Searches,
    actions: Actions,
    context: pa.Table,
    texts: list[str],
    product_ids: pa.Array,
    day: int,
) -> pa.Table:
    """The events of a day in the form of `events.parquet`; `context` has a row a session."""
    request, place = events["request"], events["place"]
    is_search = events["type"] == SEARCH
    distinct, inverse = np.unique(searches.query, return_inverse=True)
    queries = pa.array([texts[number] for number in distinct.tolist()], pa.string())
    product = np.where(is_search, 0, actions.products[request, np.maximum(place, 0)])
    columns = {
        "timestamp": timestamps(events["time"] + day * SECONDS_A_DAY * _SECOND),
        "type": pa.array(TYPES).take(pa.array(events["type"])),
        "query": queries.take(pa.array(inverse[request])),
        "product_id": product_ids.take(pa.array(product, mask=is_search)),
        "position": pa.array(place.astype(np.int32), mask=is_search),
    }
    of_session = context.take(pa.array(searches.session[request]))
    columns.update({name: of_session.column(name).combine_chunks() for name in of_session.column_names})
    return pa.Table.from_arrays([columns[name] for name in EVENT_SCHEMA.names], schema=EVENT_SCHEMA)


def _context(sessions: Sessions, buyers: Buyers, user_ids: pa.Array, day: int) -> pa.Table:
    """Who and where, one row a session."""
    places = [CITIES[city] for city in sessions.city.tolist()]
    unknown, no_coordinates = sessions.context == 2, sessions.context >= 1
    latitude = np.array([place.latitude for place in places]) + sessions.jitter[:, 0]
    longitude = np.array([place.longitude for place in places]) + sessions.jitter[:, 1]
    home = ~sessions.away
    latitude[home] = buyers.latitude[sessions.user[home]]
    longitude[home] = buyers.longitude[sessions.user[home]]
    postal = np.where(home, buyers.postal[sessions.user], sessions.postal).tolist()
    codes = [
        None if missing else postal_code(place.postal_pattern, number)
        for place, number, missing in zip(places, postal, no_coordinates.tolist(), strict=True)
    ]
    languages = pa.array(LANGUAGES)
    return pa.table(
        {
            "user_id": user_ids.take(pa.array(sessions.user, mask=sessions.anonymous)),
            "session_id": pa.array([f"{day:03d}-{number:07d}" for number in range(len(places))], pa.string()),
            "country": pa.array([place.country for place in places], pa.string(), mask=unknown),
            "region": pa.array([place.region for place in places], pa.string(), mask=unknown),
            "language": languages.take(pa.array(buyers.persons.language[sessions.user], mask=unknown)),
            "zip": pa.array(codes, pa.string()),
            "latitude": pa.array(latitude.round(3), mask=no_coordinates),
            "longitude": pa.array(longitude.round(3), mask=no_coordinates),
        }
    )
