"""Requests that got better and worse than with BM25, chosen by a fixed rule."""

import math
from typing import NamedTuple

import numpy as np

from uepp.report.sample import SEED, Sample

NUM_EACH = 4
POOL_SHARE = 0.2
_FIRST = 5
_PLACE = ("country", "region", "zip", "language")


class Example(NamedTuple):
    """One request and one product that was bought in it.

    Attributes:
        query: as it was typed.
        place: what is known of it, in words; empty: nothing.
        searches: recent ones, latest first.
        clicked: titles of recently clicked products, latest first.
        title: of the bought product.
        ranks: by system, from 1; none: beyond the depth.
        first: by system, the first titles, and whether it is the bought product.
    """

    query: str
    place: str
    searches: list[str]
    clicked: list[str]
    title: str
    ranks: dict[str, int | None]
    first: dict[str, list[tuple[str, bool]]]


class Examples(NamedTuple):
    """Equally many of both kinds, and the numbers that the rule is stated with.

    Attributes:
        better: bought product is ranked higher than by the other system.
        worse: lower.
        num_pairs: of request and bought product.
        num_better: of these.
        num_worse: of these; the rest stands at the same rank, or is found by neither.
        pools: how many pairs each kind was drawn among.
    """

    better: list[Example]
    worse: list[Example]
    num_pairs: int
    num_better: int
    num_worse: int
    pools: tuple[int, int]


def choose(sample: Sample, ours: str, theirs: str, num_each: int = NUM_EACH, seed: int = SEED) -> Examples:
    """Draw examples.

    Pairs of request and bought product are ordered by the ratio of the product's two ranks, each request with its
    furthest pair only. Of the fifth that is furthest in a direction, so many are drawn.

    Args:
        sample: ranked requests.
        ours: the system that is better or worse.
        theirs: the other.
        num_each: of each kind at most; as many as the rarer kind has.
        seed: of the draw.
    """
    gain = np.log(sample.ranks[theirs]) - np.log(sample.ranks[ours])
    both = [_furthest(sample.pair, sign * gain) for sign in (1, -1)]
    number = min(num_each, *(len(pairs) for pairs in both))
    rng = np.random.default_rng(seed)
    pools, drawn = [], []
    for pairs in both:
        pool = pairs[: max(number, math.ceil(POOL_SHARE * len(pairs)))]
        pools.append(len(pool))
        chosen = np.sort(rng.choice(len(pool), number, replace=False)) if number else np.empty(0, np.int64)
        drawn.append([_described(sample, int(pool[place])) for place in chosen])
    return Examples(drawn[0], drawn[1], len(gain), int(np.sum(gain > 0)), int(np.sum(gain < 0)), (pools[0], pools[1]))


def _furthest(request: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Pairs of positive gain, furthest first, one a request; ties as they come."""
    order = np.argsort(-gain, kind="stable")
    order = order[gain[order] > 0]
    _, first = np.unique(request[order], return_index=True)
    return order[np.sort(first)]


def _described(sample: Sample, pair: int) -> Example:
    place, bought = int(sample.pair[pair]), int(sample.bought[pair])
    row = int(sample.rows[place])
    titles = sample.products.column("title")

    def title(product: int) -> str:
        return str(titles[product].as_py())

    ranks = {name: int(of_system[pair]) for name, of_system in sample.ranks.items()}
    return Example(
        query=sample.requests.queries[row],
        place=_place(sample, row),
        searches=_latest(sample, row, "searches", "recent_searches"),
        clicked=_latest(sample, row, "clicks", "recent_titles"),
        title=title(bought),
        ranks={name: rank if rank <= sample.depth else None for name, rank in ranks.items()},
        first={
            name: [(title(product), int(product) == bought) for product in ranking[place, :_FIRST] if product >= 0]
            for name, ranking in sample.rankings.items()
        },
    )


def _place(sample: Sample, row: int) -> str:
    contexts = sample.requests.raw.contexts
    if contexts is None:
        return ""
    values = [contexts.column(name)[row].as_py() for name in _PLACE if name in contexts.column_names]
    return ", ".join(str(value) for value in values if value)


def _latest(sample: Sample, row: int, kind: str, name: str, num: int = 3) -> list[str]:
    raw = sample.requests.raw
    if raw.pointers is None or raw.past is None:
        return []
    begin, end = (int(edge) for edge in raw.pointers[kind][row])
    texts = raw.past.texts[name][max(begin, end - num) : end][::-1]
    return [str(text) for text in texts if text]
