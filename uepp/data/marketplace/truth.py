"""The latents of a generated marketplace, and the true relevance of any query to any product for any person."""

import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from uepp.artifacts import read_json, write_json
from uepp.data.marketplace.buyers import Buyers
from uepp.data.marketplace.catalogue import Catalogue
from uepp.data.marketplace.queries import Queries
from uepp.data.marketplace.relevance import (
    INTENT_COLUMNS,
    LEVEL_DEPARTMENT,
    LEVEL_GROUP,
    LEVEL_LEAF,
    LEVEL_NONE,
    MAX_CONCEPTS,
    Latents,
    Persons,
    appeal,
    relevance,
    sigmoid,
)
from uepp.data.marketplace.taxonomy import TAXONOMY, Words
from uepp.data.marketplace.words import BUYER_FILLER, CONCEPTS, OCCASIONS, RECIPIENTS
from uepp.data.marketplace.world import World, make_world
from uepp.errors import InputError

_WORD = re.compile(r"[^\W_]+")
_ROWS_A_GROUP = 65_536


def _write(path: Path, ids: pa.Array, id_name: str, latents: Latents | Persons) -> None:
    names = [field.name for field in fields(latents)]
    with pq.ParquetWriter(path, _schema(id_name, latents), compression="zstd") as writer:
        for start in range(0, len(ids), _ROWS_A_GROUP):
            rows = slice(start, start + _ROWS_A_GROUP)
            columns = [ids[rows], *(_column(getattr(latents, name)[rows]) for name in names)]
            writer.write_table(pa.Table.from_arrays(columns, schema=writer.schema))


def _column(values: np.ndarray) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _schema(id_name: str, latents: Latents | Persons) -> pa.Schema:
    columns = [(field.name, _column(getattr(latents, field.name)[:0]).type) for field in fields(latents)]
    return pa.schema([(id_name, pa.string()), *columns])


def write_truth(directory: Path, catalogue: Catalogue, buyers: Buyers, queries: Queries, seed: int) -> None:
    """Write the latents of products, users and queries, and the seed that the market follows from."""
    directory.mkdir()
    write_json(directory / "world.json", {"seed": seed})
    product_ids = pa.array(catalogue.product_ids().tolist(), pa.string())
    user_ids = pa.array(buyers.user_ids().tolist(), pa.string())
    _write(directory / "products.parquet", product_ids, "product_id", catalogue.latents)
    _write(directory / "users.parquet", user_ids, "user_id", buyers.persons)
    intents = queries.intents(np.arange(len(queries)))
    columns = {name: pa.array(intents[:, i]) for i, name in enumerate(INTENT_COLUMNS)}
    table = pa.table({"query": pa.array(queries.texts, pa.string()), **columns})
    pq.write_table(table, directory / "queries.parquet", compression="zstd", row_group_size=_ROWS_A_GROUP)


def _read(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: not a readable latents file ({' '.join(str(error).split())})") from None


def _array(column: pa.ChunkedArray) -> np.ndarray:
    if pa.types.is_fixed_size_list(column.type):
        flat = column.combine_chunks().flatten().to_numpy()
        shaped: np.ndarray = flat.reshape(len(column), column.type.list_size)
        return shaped
    plain: np.ndarray = column.to_numpy()
    return plain


class Truth:
    """True relevance in a generated marketplace."""

    def __init__(
        self,
        world: World,
        latents: Latents,
        persons: Persons,
        product_rows: dict[str, int],
        user_rows: dict[str, int],
        intents: dict[str, np.ndarray],
    ) -> None:
        """Use `Truth.load`."""
        self._world, self._latents, self._persons = world, latents, persons
        self._product_rows, self._user_rows, self._intents = product_rows, user_rows, intents
        self._phrases = _lexicon()
        self._longest_phrase = max(len(phrase) for phrase in self._phrases)
        self._words = sorted({word for phrase in self._phrases for word in phrase})
        self._known_words = frozenset(self._words)

    @classmethod
    def load(cls, directory: Path) -> "Truth":
        """Read the `truth/` folder of a generated marketplace.

        Raises:
            InputError: the directory has no (readable) truth.
        """
        folder = Path(directory) / "truth"
        seed = int(read_json(folder / "world.json")["seed"])
        products, users, queries = (_read(folder / f"{name}.parquet") for name in ("products", "users", "queries"))
        table = np.stack([_array(queries.column(name)) for name in INTENT_COLUMNS], axis=1)
        return cls(
            make_world(seed),
            Latents(**{field.name: _array(products.column(field.name)) for field in fields(Latents)}),
            Persons(**{field.name: _array(users.column(field.name)) for field in fields(Persons)}),
            {product_id: row for row, product_id in enumerate(products.column("product_id").to_pylist())},
            {user_id: row for row, user_id in enumerate(users.column("user_id").to_pylist())},
            dict(zip(queries.column("query").to_pylist(), table, strict=True)),
        )

    def relevance(self, query: str, product_ids: Sequence[str], user_id: str | None = None) -> np.ndarray:
        """How well products serve a query, and with a user how likely that person is to want them.

        Without a user: category fit x (concept fits) ^ strictness x occasion fit x recipient fit. With one: that,
        times the sigmoid of taste + quality + price fit + nearness of the shop to the person's home + language +
        favourite shops. (Not in it: what the person bought before, and travel.)

        Args:
            query: any text. What the marketplace asked has its exact intent; other text is read with the marketplace's
                own word list (all four languages, sellers' and buyers' words, one typo a word), the longest phrases
                first. A query in which no word is known has relevance 0 everywhere.
            product_ids: products of the marketplace.
            user_id: a user of the marketplace.

        Returns:
            [len(product_ids)] float64 in [0, 1].

        Raises:
            InputError: an unknown product or user.
        """
        try:
            rows = np.array([self._product_rows[product_id] for product_id in product_ids], np.int64)
        except KeyError as error:
            raise InputError(f"truth: unknown product_id {error.args[0]!r}; allowed are this marketplace's") from None
        intents = self.intent(query)[None, :]
        values: np.ndarray = relevance(self._world, self._latents, intents, rows[None, :])[0].astype(np.float64)
        if user_id is not None:
            if user_id not in self._user_rows:
                raise InputError(f"truth: unknown user_id {user_id!r}; allowed are this marketplace's")
            users = np.array([self._user_rows[user_id]])
            values *= sigmoid(appeal(self._world, self._latents, self._persons, users, rows[None, :])[0])
        return values

    def intent(self, query: str) -> np.ndarray:
        """What a query means, [7] int16 in the order of `INTENT_COLUMNS`; -1 for what it does not say."""
        known = self._intents.get(query)
        return self._read_intent(query) if known is None else known

    def _read_intent(self, query: str) -> np.ndarray:
        words = [self._spelled(word) for word in _WORD.findall(query.lower())]
        intent = np.full(len(INTENT_COLUMNS), -1, np.int16)
        intent[0] = LEVEL_NONE
        concepts: list[int] = []
        start = 0
        while start < len(words):
            length, meaning = self._longest_at(words, start)
            start += length
            if meaning is None:
                continue
            kind, number = meaning
            if kind == "filler":
                continue
            if kind == "concept":
                if number not in concepts and len(concepts) < MAX_CONCEPTS:
                    concepts.append(number)
            elif kind in ("occasion", "recipient"):
                intent[2 if kind == "occasion" else 3] = number
            else:
                level = {"department": LEVEL_DEPARTMENT, "group": LEVEL_GROUP, "leaf": LEVEL_LEAF}[kind]
                if level > intent[0]:
                    intent[0], intent[1] = level, number
        intent[4 : 4 + len(concepts)] = concepts
        return intent

    def _longest_at(self, words: list[str], start: int) -> tuple[int, tuple[str, int] | None]:
        """Length and meaning of the longest known phrase from a word on; an unknown word is one long and means None."""
        for length in range(min(self._longest_phrase, len(words) - start), 0, -1):
            meaning = self._phrases.get(tuple(words[start : start + length]))
            if meaning is not None:
                return length, meaning
        return 1, None

    def _spelled(self, word: str) -> str:
        """The word itself if some phrase has it, else the first known word that is one typo away, else itself."""
        if word in self._known_words:
            return word
        return next((known for known in self._words if _one_edit_apart(word, known)), word)


def _lexicon() -> dict[tuple[str, ...], tuple[str, int]]:
    """Meaning of every phrase of the marketplace, by its words; the more specific meaning wins a shared phrase."""
    lexicon: dict[tuple[str, ...], tuple[str, int]] = {}
    meanings: tuple[tuple[str, tuple[Words, ...]], ...] = (
        ("leaf", TAXONOMY.leaves),
        ("occasion", OCCASIONS),
        ("recipient", RECIPIENTS),
        ("concept", CONCEPTS),
        ("group", TAXONOMY.groups),
        ("department", TAXONOMY.departments),
    )
    for kind, things in meanings:
        for number, thing in enumerate(things):
            for side in (thing.buyers, thing.sellers):
                for phrases in side.values():
                    for phrase in phrases:
                        lexicon.setdefault(tuple(_WORD.findall(phrase.lower())), (kind, number))
    for fillers in BUYER_FILLER.values():
        for filler in fillers:
            lexicon.setdefault(tuple(_WORD.findall(filler)), ("filler", 0))
    return lexicon


def _one_edit_apart(left: str, right: str) -> bool:
    """One letter more, less, other, or two neighbours swapped."""
    if abs(len(left) - len(right)) > 1 or len(left) < 4:
        return False
    i = 0
    while i < min(len(left), len(right)) and left[i] == right[i]:
        i += 1
    if left[i:] == right[i + 1 :] or left[i + 1 :] == right[i:] or left[i + 1 :] == right[i + 1 :]:
        return True
    return left[i : i + 2] == right[i : i + 2][::-1] and left[i + 2 :] == right[i + 2 :]
