"""Who asked, and what was known of them, from events alone and in plain Python."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Key = tuple[str | None, str | None, str]
"""Session, user and query of a request."""

PLACE_NAMES = ("country", "region", "language", "zip")
COORDINATES = ("latitude", "longitude")
NUMBERS = {"recent_searches": 8, "recent_shops": 8, "recent_titles": 8, "purchased_tags": 50}
"""Entries of a history that are read by default."""


@dataclass
class Asked:
    """A request.

    Attributes:
        moment: of its first event of any type.
        context: of its first event that has any.
        bought: purchased products, and when.
    """

    moment: datetime
    context: dict[str, Any] = field(default_factory=dict)
    bought: list[tuple[datetime, str]] = field(default_factory=list)


def requests_in(events: Sequence[dict[str, Any]]) -> dict[Key, Asked]:
    """Every request of a log whose events all have a session."""
    requests: dict[Key, Asked] = {}
    for event in sorted(events, key=lambda event: event["timestamp"]):
        key = (event["session_id"], event["user_id"], event["query"])
        asked = requests.setdefault(key, Asked(event["timestamp"]))
        context = {name: event[name] for name in (*PLACE_NAMES, *COORDINATES)}
        if not asked.context and any(value is not None for value in context.values()):
            asked.context = context
        if event["type"] == "purchase":
            asked.bought.append((event["timestamp"], event["product_id"]))
    return requests


def inputs_of(
    query: str,
    user: str | None,
    moment: datetime,
    context: dict[str, Any],
    events: Sequence[dict[str, Any]],
    products: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Inputs of the query tower for one request: the user's events strictly before its moment, latest first."""
    catalogue = {product["product_id"]: product for product in products}

    def before(kind: str, *order: str) -> list[dict[str, Any]]:
        own = [event for event in events if event["type"] == kind and event["user_id"] == user is not None]
        own = [event for event in own if event["timestamp"] < moment]
        return sorted(own, key=lambda event: [event["timestamp"], *(event[name] for name in order)])[::-1]

    clicked = [catalogue[event["product_id"]] for event in before("click", "product_id")]
    purchased = [catalogue[event["product_id"]] for event in before("purchase", "product_id")]
    histories = {
        "recent_searches": [event["query"] for event in before("search", "query")],
        "recent_shops": [product["shop_id"] or "" for product in clicked],
        "recent_titles": [product["title"] for product in clicked],
        "purchased_tags": ["\n".join(product["tags"] or ()) for product in purchased],
    }
    names = {name: context.get(name) or "" for name in PLACE_NAMES}
    degrees = {name: math.nan if context.get(name) is None else context[name] for name in COORDINATES}
    return {"query": query, **names, **degrees, **{name: histories[name][:number] for name, number in NUMBERS.items()}}
