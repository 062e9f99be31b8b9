"""Home Depot Product Search Relevance (Kaggle, 2016): graded query-product pairs, without users and without time."""

import math
import unicodedata
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from uepp.data.adapters import tables
from uepp.data.schema import TIMESTAMP, Report
from uepp.errors import InputError

NAME = "home-depot"
LICENCE = "Home Depot Product Search Relevance, Kaggle competition rules: local use only, no redistribution"
PROTOCOL = (
    "Grades become events: at least 2.67 purchase, 2.33 cart, 2.0 click, below none. A stable hash of the query sends "
    "a share of the queries to evaluation: two sevenths of them to the selection days, the rest to the report days; "
    "the others are the training window's last day. Spellings of one query (case, accents, punctuation and spaces "
    "aside) go together, with the one of the smallest hash. Relevant in evaluation: purchase or cart."
)
TRAIN_END = datetime(2016, 1, 1, tzinfo=UTC)
"""T. The data has no time: any moment would do, this one is near its publication."""

_THRESHOLDS = ((2.67, "purchase"), (2.33, "cart"), (2.0, "click"))
_PAIR_COLUMNS = ("product_uid", "product_title", "search_term", "relevance")
_EVALUATION_DAYS = 7
_CATALOGUE = {
    "products": ("product_uid", "product_title"),
    "test": ("product_uid", "product_title"),
    "product_descriptions": ("product_uid", "product_description"),
}
"""Files beside the pairs that say something of products, and the columns that they need."""


def import_data(source: Path, directory: Path, *, eval_fraction: float = 0.2) -> Report:
    """Write the data set.

    Args:
        source: folder with `train.csv` (or one other csv file with the columns product_uid, product_title,
            search_term and relevance); or that file itself. The catalogue is of the titles in `products.csv`
            (product_uid, product_title, optionally product_description), in the pairs and in Kaggle's `test.csv`, the
            first of a product; `product_descriptions.csv` adds descriptions. Any of them may end in `.csv.gz`. The
            notes name files beside that are not used.
        directory: new data set.
        eval_fraction: share of the queries that are for evaluation, 0 to 1.

    Raises:
        InputError: missing or malformed files, columns or values. Nothing is written then.
    """
    if not 0 <= eval_fraction <= 1:
        raise InputError(f"eval_fraction is {eval_fraction}; allowed is 0 to 1")
    tables.refuse_occupied(directory)
    pairs_path = _find(source)
    beside, unused = _files_beside(pairs_path)
    pairs = tables.read_csv(pairs_path)
    tables.refuse_empty(pairs_path, pairs, ("product_uid", "search_term"))
    grades = tables.parse(pairs_path, pairs, "relevance", _grade, "a number from 1 to 3", pa.float64())
    judgments = pa.table({"query": pairs["search_term"], "product_id": pairs["product_uid"], "grade": grades})
    # A pair that was judged twice has the mean of its grades.
    judgments = judgments.group_by(["query", "product_id"]).aggregate([("grade", "mean")])
    judgments = judgments.rename_columns(["query", "product_id", "grade"]).sort_by(
        [("query", "ascending"), ("product_id", "ascending")]
    )
    data = {
        "products": _products(pairs, beside),
        "events": _events(judgments, eval_fraction),
        "judgments": judgments,
    }
    facts = {
        "name": NAME,
        "licence": LICENCE,
        "protocol": PROTOCOL,
        "train_end": TRAIN_END.isoformat(),
        "eval_fraction": eval_fraction,
        "relevant_types": ["purchase", "cart"],
        "notes": [f"{name} is not used" for name in unused],
    }
    return tables.write_data_set(directory, data, facts)


def evaluation_day(query: str, eval_fraction: float) -> int | None:
    """The day after T (0 to 6) on which a query is evaluated, or None for a training query.

    It depends on the query's text only, so it is the same on every machine; a larger fraction only adds queries.
    """
    share, day = divmod(_draw(query), 2**32)
    return day % _EVALUATION_DAYS if share < eval_fraction * 2**32 else None


def evaluation_days(queries: Iterable[str], eval_fraction: float) -> dict[str, int | None]:
    """The `evaluation_day` of each query, the same for all its spellings: that of the one with the smallest draw.

    So no query is trained on in one spelling and evaluated in another, and a larger fraction still only adds queries.
    """
    key_of = {query: _key(query) for query in queries}
    first: dict[str, str] = {}
    for query, key in key_of.items():
        first[key] = min(first.get(key, query), query, key=_draw)
    return {query: evaluation_day(first[key], eval_fraction) for query, key in key_of.items()}


def _draw(query: str) -> int:
    return int.from_bytes(blake2b(query.encode(), digest_size=8).digest(), "big")


def _key(query: str) -> str:
    """What spellings of one query share: `uepp.features.text.query_keys`, but for invisible characters."""
    text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", query).casefold())
    text = unicodedata.normalize("NFKC", "".join(letter for letter in text if not "\u0300" <= letter <= "\u036f"))
    words = "".join(letter if unicodedata.category(letter)[0] in "LNM" else " " for letter in text).split()
    return " ".join(words) or query


def _find(source: Path) -> Path:
    """The file of pairs."""
    files = tables.csv_files(source)
    if source.is_dir():
        complete = [file for file in files if set(_PAIR_COLUMNS) <= set(tables.read_header(file))]
        named = [file for file in files if file.name in ("train.csv", "train.csv.gz")]
        files = named or complete
        if not files:
            raise InputError(f"{source}: no csv file in it has the columns {', '.join(_PAIR_COLUMNS)}")
        if len(files) > 1:
            raise InputError(
                f"{source}: {', '.join(file.name for file in files)} all hold pairs; name one of them as the source"
            )
    _require(files[0], _PAIR_COLUMNS)
    return files[0]


def _files_beside(pairs: Path) -> tuple[dict[str, Path], list[str]]:
    """Files of products beside the pairs, by name, and the names of the other ones."""
    found: dict[str, Path] = {}
    unused = []
    for file in tables.csv_files(pairs.parent):
        name = file.name.removesuffix(".gz").removesuffix(".csv")
        if file == pairs:
            continue
        if name == "products":
            _require(file, _CATALOGUE[name])
        if name in _CATALOGUE and name not in found and set(_CATALOGUE[name]) <= set(tables.read_header(file)):
            found[name] = file
        else:
            unused.append(file.name)
    return found, unused


def _require(path: Path, names: tuple[str, ...]) -> None:
    found = tables.read_header(path)
    missing = [name for name in names if name not in found]
    if missing:
        raise InputError(f"{path}: missing column {missing[0]}; found: {', '.join(found)}")


def _grade(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or not 1 <= value <= 3:
        raise ValueError
    return value


def _products(pairs: pa.Table, files: dict[str, Path]) -> pa.Table:
    names = {"product_uid": "product_id", "product_title": "title", "product_description": "description"}

    def of_catalogue(table: pa.Table) -> pa.Table:
        return pa.table({ours: table[theirs] for theirs, ours in names.items() if theirs in table.column_names})

    def read(name: str) -> list[pa.Table]:
        if name not in files:
            return []
        table = tables.read_csv(files[name])
        tables.refuse_empty(files[name], table, ("product_uid",))
        return [of_catalogue(table)]

    listed = [*read("products"), of_catalogue(pairs.select(_PAIR_COLUMNS)), *read("test")]
    products = _first_rows(pa.concat_tables(listed, promote_options="default"))
    for described in read("product_descriptions"):
        rows = pc.index_in(products["product_id"], described["product_id"].combine_chunks())
        texts = described["description"].combine_chunks().take(rows.combine_chunks())
        if "description" in products.column_names:
            own = products["description"].combine_chunks()
            texts = pc.if_else(pc.fill_null(pc.equal(own, ""), True), texts, own)
            products = products.drop_columns(["description"])
        products = products.append_column("description", texts)
    return products


def _first_rows(products: pa.Table) -> pa.Table:
    """One row a product, the first."""
    numbered = products.append_column("row", pa.array(range(products.num_rows), pa.int64()))
    rows = numbered.group_by("product_id").aggregate([("row", "min")])["row_min"]
    return products.take(rows.take(pc.sort_indices(rows)))


def _events(judgments: pa.Table, eval_fraction: float) -> pa.Table:
    """A session a query, at noon of its day: the search, and a second later what its grades stand for."""
    columns: dict[str, list[object]] = {name: [] for name in ("timestamp", "session_id", "type", "query", "product_id")}

    def add(moment: datetime, kind: str, query: str, product_id: str | None) -> None:
        session = blake2b(query.encode(), digest_size=8).hexdigest()
        for column, value in zip(columns.values(), (moment, session, kind, query, product_id), strict=True):
            column.append(value)

    previous = None
    days = evaluation_days(judgments["query"].unique().to_pylist(), eval_fraction)
    for judgment in judgments.to_pylist():
        query = judgment["query"]
        day = days[query]
        search = TRAIN_END + timedelta(days=-1 if day is None else day, hours=12)
        if query != previous:
            add(search, "search", query, None)
            previous = query
        kind = next((kind for threshold, kind in _THRESHOLDS if judgment["grade"] >= threshold), None)
        if kind is not None:
            add(search + timedelta(seconds=1), kind, query, judgment["product_id"])
    types = {"timestamp": TIMESTAMP}
    return pa.table({name: pa.array(values, types.get(name, pa.string())) for name, values in columns.items()})
