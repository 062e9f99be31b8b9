"""Which requests, and which of their targets, a row of figures is about."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from uepp.evaluation.requests import Judgments, Requests, Targets
from uepp.evaluation.segments import NAMES as SEGMENTS
from uepp.evaluation.segments import Segments
from uepp.features.text import query_numbers

ALL, JUDGED = "all", "judged"
NAMES = (
    ALL, *SEGMENTS, "signed_in", "anonymous", "with_history", "without_history", "non_repeat", "repeat", "new_products",
    "domestic", "foreign", JUDGED,
)  # fmt: skip
"""All that there may be, see `slices_of`."""


@dataclass(frozen=True)
class Wanted:
    """What counts as relevant.

    Attributes:
        among: pairs that a system's ranking is looked through for.
        pairs: int64 [p], those of them that count.
        gains: float64 [p], of NDCG, which then is the only measure; none: a purchase is a purchase.
    """

    among: Targets
    pairs: np.ndarray
    gains: np.ndarray | None = None

    @property
    def request(self) -> np.ndarray:
        """int64 [p]."""
        return self.among.request[self.pairs]

    @property
    def product_index(self) -> np.ndarray:
        """int64 [p]."""
        return self.among.product_index[self.pairs]


@dataclass(frozen=True)
class Slice:
    """Some requests, and what is wanted of them.

    Attributes:
        wanted: key in `Slices.wanted`.
        rows: int64 [r] requests that want something.
        num_queries: distinct queries of theirs (`query_numbers`).
    """

    wanted: str
    rows: np.ndarray
    num_queries: int


@dataclass(frozen=True)
class Slices:
    """All slices by name, in the order that they are reported in, and what is wanted in them."""

    wanted: dict[str, Wanted]
    by_name: dict[str, Slice]


def slices_of(
    requests: Requests,
    segments: Segments,
    num_known: int | None = None,
    judgments: Judgments | None = None,
    abroad: np.ndarray | None = None,
) -> Slices:
    """Cut requests, or their targets.

    * requests: `all`; `head`, `torso`, `tail`; `signed_in`, `anonymous` (whether the log knows who asked);
      `with_history`, `without_history` (whether who asked had searched, clicked or bought before that moment);
    * targets, and the requests that have one: `non_repeat`, `repeat` (whether the user had bought it before);
      `new_products` (in the catalogue since T or later); `domestic`, `foreign` (whether the product is of the person's
      country, UEPPR VI-B-1); `judged`: products with a human grade for the query.

    Args:
        requests: R requests.
        segments: head, torso and tail.
        num_known: leading products that were there before T; none: not known, and no `new_products`.
        judgments: human grades; none: no `judged`.
        abroad: int8 [P], of `uepp.evaluation.locality.is_abroad`; none: no `domestic` and `foreign`.
    """
    targets = requests.targets
    kept = {ALL: np.ones(len(targets.request), bool), "non_repeat": ~requests.is_repeat, "repeat": requests.is_repeat}
    if num_known is not None:
        kept["new_products"] = (targets.product_index >= num_known) & requests.has_target
    if abroad is not None:
        kept |= {"domestic": abroad == 0, "foreign": abroad == 1}
    wanted = {name: Wanted(targets, np.flatnonzero(is_kept)) for name, is_kept in kept.items()}
    if judgments is not None:
        gains = np.maximum(judgments.grades, 0.0)
        wanted[JUDGED] = Wanted(judgments.pairs, np.arange(len(gains)), gains)
    of_requests: dict[str, Any] = {ALL: np.ones(len(requests), bool)}
    of_requests |= {name: segments.labels == name for name in SEGMENTS}
    of_requests |= {"signed_in": requests.is_signed_in, "anonymous": ~requests.is_signed_in}
    of_requests |= {"with_history": requests.has_history, "without_history": ~requests.has_history}
    query = query_numbers(requests.queries)

    def cut(name: str, is_in: np.ndarray) -> Slice:
        worth = wanted[name].gains
        counted = wanted[name].request if worth is None else wanted[name].request[worth > 0]
        rows = np.flatnonzero(is_in & (np.bincount(counted, minlength=len(requests)) > 0))
        return Slice(name, rows, len(np.unique(query[rows])))

    by_name = {name: cut(ALL, np.asarray(is_in, bool)) for name, is_in in of_requests.items()}
    by_name |= {name: cut(name, of_requests[ALL]) for name in wanted if name != ALL}
    return Slices(wanted, by_name)
