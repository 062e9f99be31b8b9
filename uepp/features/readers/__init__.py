"""Readers: each turns raw inputs into what one encoder reads.

An encoder that needs something new of its inputs has a file here and a row in one of the tables below.
"""

from collections.abc import Callable

from uepp.config import ProductEncoder, QueryEncoder
from uepp.features.readers.base import Reader, Sources
from uepp.features.readers.graph import ProductNeighbors
from uepp.features.readers.history import UserHistory
from uepp.features.readers.location import product_place, user_place
from uepp.features.readers.shop import ProductShop
from uepp.features.readers.text import ProductText, QueryText
from uepp.features.readers.tokens import ProductTokens, QueryTokens

PRODUCT_READERS: dict[ProductEncoder, Callable[[Sources], Reader]] = {
    "tokens": ProductTokens,
    "shop": ProductShop,
    "location": product_place,
    "graph": ProductNeighbors,
    "text": ProductText,
}
QUERY_READERS: dict[QueryEncoder, Callable[[Sources], Reader]] = {
    "tokens": QueryTokens,
    "location": user_place,
    "history": UserHistory,
    "text": QueryText,
}
