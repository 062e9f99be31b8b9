"""Queries: what they mean, how they are put in words, and their numbers."""

import numpy as np

from uepp.data.marketplace.relevance import (
    INTENT_COLUMNS,
    LEVEL_DEPARTMENT,
    LEVEL_GROUP,
    LEVEL_LEAF,
    LEVEL_NONE,
    MAX_CONCEPTS,
)
from uepp.data.marketplace.taxonomy import LANGUAGES, TAXONOMY, Words
from uepp.data.marketplace.texts import misspell
from uepp.data.marketplace.words import BUYER_FILLER, CONCEPTS, OCCASIONS, RECIPIENTS
from uepp.data.marketplace.world import CELL_ANY, CELL_DEPARTMENT, CELL_GROUP, CELL_OCCASION, CELL_RECIPIENT

# Fields of a packed query, lowest bits first: name and number of bits.
_FIELDS = (
    *((name, bits) for name, bits in zip(INTENT_COLUMNS, (2, 8, 4, 4, 7, 7, 7), strict=True)),
    ("language", 2),
    ("node_phrase", 2),
    ("purpose_phrase", 2),
    ("phrase_1", 2),
    ("phrase_2", 2),
    ("phrase_3", 2),
    ("reversed", 1),
    ("typo", 3),
    ("filler", 4),
)


class Queries:
    """All distinct queries so far: text, intent and the engine's cell, by number."""

    def __init__(self) -> None:
        """Start empty."""
        self.texts: list[str] = []
        self._intents = np.zeros((1024, len(INTENT_COLUMNS)), np.int16)
        self._by_key: dict[int, int] = {}
        self._by_text: dict[str, int] = {}

    def __len__(self) -> int:
        """How many distinct queries there are."""
        return len(self.texts)

    def number(self, keys: np.ndarray) -> np.ndarray:
        """Numbers of packed queries; new ones are rendered. Equal texts share the first one's intent."""
        distinct, inverse = np.unique(keys, return_inverse=True)
        numbers = np.array([self._by_key.get(key, -1) for key in distinct.tolist()], np.int64)
        new = np.flatnonzero(numbers < 0)
        fields = {name: column.tolist() for name, column in unpack(distinct[new]).items()}
        for i, row in enumerate(new.tolist()):
            number = self._add({name: column[i] for name, column in fields.items()})
            self._by_key[int(distinct[row])] = numbers[row] = number
        result: np.ndarray = numbers[inverse]
        return result

    def _add(self, values: dict[str, int]) -> int:
        text = render(values)
        found = self._by_text.get(text)
        if found is None:
            found = self._by_text[text] = len(self.texts)
            self.texts.append(text)
            if found == len(self._intents):
                self._intents = np.concatenate([self._intents, np.zeros_like(self._intents)])
            self._intents[found] = [values[name] for name in INTENT_COLUMNS]
        return found

    def intents(self, numbers: np.ndarray) -> np.ndarray:
        """Intents of the given queries, [B, 7] int16."""
        intents: np.ndarray = self._intents[numbers]
        return intents


def cells(intents: np.ndarray) -> np.ndarray:
    """The cell whose behaviour the engine uses for each intent, [B]: the category if there is one, else the purpose."""
    level, node, occasion, recipient = (intents[:, column].astype(np.int64) for column in range(4))
    return np.select(
        [
            level == LEVEL_LEAF,
            occasion >= 0,
            level == LEVEL_GROUP,
            level == LEVEL_DEPARTMENT,
            recipient >= 0,
        ],
        [node, CELL_OCCASION + occasion, CELL_GROUP + node, CELL_DEPARTMENT + node, CELL_RECIPIENT + recipient],
        CELL_ANY,
    )


def pack(fields: dict[str, np.ndarray]) -> np.ndarray:
    """One integer a query; intents are shifted by one so that -1 becomes 0."""
    key = np.zeros(len(fields["level"]), np.int64)
    shift = 0
    for name, bits in _FIELDS:
        value = fields[name].astype(np.int64) + (1 if name in INTENT_COLUMNS[1:] else 0)
        key |= value << shift
        shift += bits
    return key


def unpack(keys: np.ndarray) -> dict[str, np.ndarray]:
    """The inverse of `pack`."""
    fields, shift = {}, 0
    for name, bits in _FIELDS:
        fields[name] = ((keys >> shift) & ((1 << bits) - 1)) - (1 if name in INTENT_COLUMNS[1:] else 0)
        shift += bits
    return fields


def render(values: dict[str, int]) -> str:
    """The text of a query."""
    language = LANGUAGES[values["language"]]

    def phrase(thing: Words, choice: int) -> str:
        words = thing.buyers if choice < 2 else thing.sellers
        options: tuple[str, ...] = words[language]
        return options[(choice % 2) % len(options)]

    parts = [
        phrase(CONCEPTS[values[f"concept_{i}"]], values[f"phrase_{i}"])
        for i in range(1, MAX_CONCEPTS + 1)
        if values[f"concept_{i}"] >= 0
    ]
    nodes = {LEVEL_DEPARTMENT: TAXONOMY.departments, LEVEL_GROUP: TAXONOMY.groups, LEVEL_LEAF: TAXONOMY.leaves}
    if values["level"] != LEVEL_NONE:
        node = phrase(nodes[values["level"]][values["node"]], values["node_phrase"])
        # English and German put what describes before the thing, French and Spanish after it; people vary.
        before = (language in ("en", "de")) != bool(values["reversed"])
        parts.insert(len(parts) if before else 0, node)
    if values["occasion"] >= 0:
        parts.insert(0, phrase(OCCASIONS[values["occasion"]], values["purpose_phrase"]))
    if values["recipient"] >= 0:
        parts.append(phrase(RECIPIENTS[values["recipient"]], values["purpose_phrase"]))
    filler = BUYER_FILLER[language]
    if values["filler"]:
        parts.append(filler[(values["filler"] - 1) % len(filler)])
    words = " ".join(parts).split(" ")
    if values["typo"]:
        longest = max(range(len(words)), key=lambda i: len(words[i]))
        kind = values["typo"] - 1
        words[longest] = misspell(words[longest], kind % 4, 0.15 + 0.3 * (kind // 2) / 2)
    return " ".join(words)
