"""Pairs of query and product as texts, with what people said of them; the split by query, and random pairs."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uepp.artifacts import fingerprint
from uepp.errors import InputError
from uepp.features.text import query_keys, query_numbers

POSITIVE_ABOVE = 0.4
"""Soft labels above it say that query and product are positively related (BHNS 3.1): relevant or better, as in the
evaluation labels and where false negatives are counted. "Not relevant" is .1, so more than 0 says nothing."""
SOFT_LABELS = {
    "strongly relevant": (1.0, 1.0),
    "relevant": (0.5, 1.0),
    "somewhat relevant": (0.2, 0.1),
    "not relevant": (0.1, 0.1),
}
"""By level, the labels of training and of evaluation (BHNS 4.2.1)."""
_LEVELS = (0.835, 0.665, 0.5)  # of the way from the lowest grade to the highest
TRAIN, VALIDATION, EVALUATION = PARTS = ("train", "validation", "evaluation")


@dataclass(frozen=True, eq=False)
class TextPairs:
    """N judged pairs of Nq queries and Np products.

    The same text of a query is the same row, since known answers are known by row; products are told apart by their
    id, or by their text where they have none.

    Attributes:
        queries: [Nq] texts, distinct.
        product_ids: [Np], distinct.
        products: [Np] texts.
        query: int64 [N], row of `queries`.
        product: int64 [N], row of `products`.
        grades: float64 [N], as they were given.
    """

    queries: Sequence[str]
    product_ids: Sequence[str]
    products: Sequence[str]
    query: NDArray[np.int64]
    product: NDArray[np.int64]
    grades: NDArray[np.float64]

    def __len__(self) -> int:
        """N."""
        return len(self.query)


def rows_of(texts: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Distinct texts in the order of their first occurrence, and the row of each text among them."""
    row_of: dict[str, int] = {}
    rows = [row_of.setdefault(text, len(row_of)) for text in texts]
    return list(row_of), np.array(rows, np.int64)


def split_by_query(
    queries: Sequence[str],
    evaluation_share: float,
    validation_share: float,
    seed: int,
    later: Collection[str] = (),
) -> NDArray[np.int64]:
    """The part of each query, so that no query is trained on and evaluated.

    Queries that were first asked at T or later are evaluated, all of them: the towers are evaluated on them, so what is
    learned here must not have them either, or a ranker of both would know the answers. Where these are fewer than
    `evaluation_share`, others make up for it, by a hash of text and seed. Without later queries a part depends on a
    query's own text and the seed only, so more data moves no query. Queries of one key go to the same part.

    Args:
        queries: [Nq] texts.
        evaluation_share: of all queries, in (0, 1), about.
        validation_share: of the others, in [0, 1).
        seed: of the split.
        later: keys (`query_keys`) of what was first asked at T or later.

    Returns:
        int64 [Nq], position in `PARTS`.

    Raises:
        InputError: a part that is wanted has no query.
    """
    keys = query_keys(queries)
    draws = np.array([_draw(key, seed) for key in keys])
    is_later = np.array([key in later for key in keys], bool)
    num_others = max(1, len(keys) - int(is_later.sum()))
    drawn_share = max(0.0, (evaluation_share * len(keys) - int(is_later.sum())) / num_others)
    is_evaluated = is_later | (draws < drawn_share)
    within = (draws - drawn_share) / (1 - drawn_share)
    parts = np.where(is_evaluated, 2, np.where(within < validation_share, 1, 0)).astype(np.int64)
    for part, share in ((0, 1.0), (1, validation_share), (2, evaluation_share)):
        if share and not (parts == part).any():
            late = f", {int(is_later.sum())} of them first asked at T or later" if is_later.any() else ""
            raise InputError(
                f"{len(queries)} judged queries{late}: none of them falls to {PARTS[part]}; more are needed"
            )
    return parts


def random_pairs(
    judged: TextPairs, queries: NDArray[np.int64], share: float, seed: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Queries and products that were drawn independently of each other, to be labelled 0 (BHNS 4.2.1).

    What somebody judged is drawn again, and so is what was drawn before.

    Args:
        judged: all pairs.
        queries: rows that may be drawn, of one part of the split.
        share: how many, in relation to the part's own pairs.
        seed: of the draws.

    Returns:
        Rows of queries and of products, int64 [round(share · pairs of the part)]; fewer where nearly all is judged.
    """
    is_wanted = np.zeros(len(judged.queries), bool)
    is_wanted[queries] = True
    number = round(share * int(is_wanted[judged.query].sum()))
    # What is judged for another spelling of the query, or of a product with the same text, is judged.
    key, text = query_numbers(judged.queries), query_numbers(judged.products)
    taken = set(zip(key[judged.query].tolist(), text[judged.product].tolist(), strict=True))
    rng = np.random.default_rng([len(seed), *seed])
    drawn: list[tuple[int, int]] = []
    for _ in range(20):
        several = max(1, number - len(drawn))
        some = rng.choice(queries, several), rng.integers(0, len(judged.products), several)
        for query, product in zip(*(rows.tolist() for rows in some), strict=True):
            pair = int(key[query]), int(text[product])
            if len(drawn) < number and pair not in taken:
                taken.add(pair)
                drawn.append((query, product))
    found = np.array(drawn, np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def grade_levels(grades: NDArray[np.float64]) -> tuple[float, float, float] | None:
    """Least grade of strongly relevant, relevant and somewhat relevant, by the range of the grades.

    Of Home Depot's 1 to 3: 2.67, 2.33 and 2 (see `soft_labels`). Of any other scale the same shares of the way from the
    lowest grade to the highest, so of 0 and 1 a 1 is strongly relevant and a 0 is not relevant.

    Args:
        grades: [N], at least one.

    Returns:
        Levels that fall; none where all grades are the same, which says nothing of their scale.
    """
    lowest, highest = float(grades.min()), float(grades.max())
    if not lowest < highest:
        return None
    first, second, third = (lowest + share * (highest - lowest) for share in _LEVELS)
    return first, second, third


def is_at_least(grades: NDArray[np.float64], level: float | NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether grades reach a level. A file with float32 holds a little less than 2.33; that is 2.33 all the same."""
    return (grades >= level) | np.isclose(grades, level, rtol=1e-6, atol=0)


def soft_labels(
    grades: NDArray[np.float64], levels: tuple[float, float, float]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Grades to the paper's `SOFT_LABELS`.

    The paper's annotators name one of these, and it averages the labels of several. Home Depot's grades are means of
    several annotators already, from 1 to 3, in thirds mostly. Mapped with `levels` = 2.67, 2.33 and 2 (`grade_levels`):
    at least 2.67 (of three annotators one is less than content) is strongly relevant, 2.33 relevant, 2 somewhat
    relevant, below not relevant. These are the adapter's thresholds of purchase, cart and click, so "relevant" is the
    same everywhere.

    Args:
        grades: [N]; as near to a level as float32 can tell is that level.
        levels: least grade of the first three.

    Returns:
        Labels for training and for evaluation, float32 [N] each.
    """
    level = is_at_least(grades[:, np.newaxis], np.array(levels)).sum(axis=1)
    train, evaluation = np.array([*SOFT_LABELS.values()], np.float32)[::-1].T
    return train[level], evaluation[level]


def _draw(text: str, seed: int) -> float:
    """A number in [0, 1) of a text and a seed."""
    return int(fingerprint("split", seed, text)[:13], 16) / 16**13
