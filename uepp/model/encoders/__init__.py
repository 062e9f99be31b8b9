"""Encoders: each turns some features of a query or a product into one vector; a tower pools them.

A new encoder is a file here, a row in one of the tables below, and its name in `uepp/config/base.py`.
"""

from collections.abc import Callable

from uepp.config import Config, ProductEncoder, QueryEncoder
from uepp.model.encoders.base import Encoder
from uepp.model.encoders.graph import product_graph
from uepp.model.encoders.history import query_history
from uepp.model.encoders.location import product_location, user_location
from uepp.model.encoders.shop import product_shop
from uepp.model.encoders.text import product_text, query_text
from uepp.model.encoders.tokens import product_tokens, query_tokens
from uepp.model.tables import Tables

Builder = Callable[[Config, Tables], Encoder]

PRODUCT_ENCODERS: dict[ProductEncoder, Builder] = {
    "tokens": product_tokens,
    "shop": product_shop,
    "location": product_location,
    "graph": product_graph,
    "text": product_text,
}
QUERY_ENCODERS: dict[QueryEncoder, Builder] = {
    "tokens": query_tokens,
    "location": user_location,
    "history": query_history,
    "text": query_text,
}
