"""Rows of a place (UEPPR III-B-2)."""

from uepp.features.entries import Features
from uepp.features.raw import PLACE
from uepp.features.readers.base import Reader, Sources


class Place(Reader):
    """Names and coordinates of a place.

    Args:
        sources: what names are looked up in.
        of: `product` or `user`.
    """

    columns = PLACE

    def __init__(self, sources: Sources, of: str) -> None:
        super().__init__()
        self._places = sources.places
        self._of = of

    def __call__(self, inputs: Features) -> Features:
        """`<of>/location/ids` int32 [R, S] and the bag `<of>/zip`."""
        found = self._places(*(inputs[name] for name in PLACE))
        return {f"{self._of}/{name}": value for name, value in found.items()}


def product_place(sources: Sources) -> Place:
    """Where the product is."""
    return Place(sources, "product")


def user_place(sources: Sources) -> Place:
    """Where the user is."""
    return Place(sources, "user")
