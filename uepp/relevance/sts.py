"""STS Benchmark: pairs of sentences with grades from 0 to 5 (BHNS 4.1)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from uepp.errors import InputError
from uepp.features.text import query_keys
from uepp.relevance.pairs import TextPairs, rows_of

MAX_GRADE = 5.0
AUROC_GRADE = 3.0
"""Pairs of at least this grade are positives of AUROC; BHNS does not say which. 3: "roughly equivalent"."""

POSITIVE_ABOVE = 0.0
"""Labels above it are positive in θ and for FALSE. A grade of 0 is "unrelated" here and any other one says how much,
which Eq. 6 weighs by; and what is like a sentence of some grade is no negative of grade 0 either."""

SPLITS = ("dev", "test")
_COLUMNS = "genre, file, year, id, grade, sentence 1, sentence 2"
_GRADE, _FIRST, _SECOND = 4, 5, 6


def read_sts(directory: Path, split: str) -> TextPairs:
    """Sentence 1 is the query, sentence 2 the product; the grade is that of the file, 0 to 5.

    Args:
        directory: holds `sts-train.csv`, `sts-dev.csv`, `sts-test.csv` as published: tabs, no header, no quoting.
        split: train, dev or test.

    Raises:
        InputError: the file is missing, or a line is not of this form.
    """
    path = directory / f"sts-{split}.csv"
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the folder of the STS Benchmark, as its files are published")
    first, second, grades = [], [], []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error.reason} at byte {error.start})") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        cells = line.rstrip("\r").split("\t")
        if len(cells) <= _SECOND:
            raise InputError(f"{path}: line {number} has {len(cells)} columns; expected {_COLUMNS}, between tabs")
        grades.append(_grade(cells[_GRADE], path, number))
        first.append(cells[_FIRST].strip())
        second.append(cells[_SECOND].strip())
    if not grades:
        raise InputError(f"{path}: has no pairs")
    queries, query = rows_of(first)
    products, product = rows_of(second)
    return TextPairs(queries, products, products, query, product, np.array(grades))


def known_beside(pairs: TextPairs) -> tuple[np.ndarray, np.ndarray]:
    """Pairs that are no negatives although no line of the file has them: (s, s), and (b, a) where (a, b) is graded.

    Both sides are numbered on their own, and one sentence may stand on either; yet a sentence means what it says, and
    similarity has no direction. Sentences of one key (`query_keys`) are one here, so another spelling of (a, b) is
    known too.

    Args:
        pairs: of `read_sts`.

    Returns:
        Rows of queries and of products, int64 [M] each.
    """
    of_query, of_product = query_keys(pairs.queries), query_keys(pairs.products)
    queries_of, products_of = _rows_by_key(of_query), _rows_by_key(of_product)
    graded = set(zip(pairs.query.tolist(), pairs.product.tolist(), strict=True))
    known = {(key, key) for key in of_query}
    for query, product in graded:
        one, other = of_query[query], of_product[product]
        known |= {(one, other), (other, one)}
    rows = {
        (query, product)
        for one, other in known
        for query in queries_of.get(one, ())
        for product in products_of.get(other, ())
    }
    found = np.array(sorted(rows - graded), np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _rows_by_key(keys: Sequence[str]) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    return rows


def _grade(text: str, path: Path, number: int) -> float:
    try:
        grade = float(text)
    except ValueError:
        grade = -1.0
    if not 0 <= grade <= MAX_GRADE:
        raise InputError(f"{path}: line {number}: grade is {text!r}; it must be a number from 0 to {MAX_GRADE:g}")
    return grade
