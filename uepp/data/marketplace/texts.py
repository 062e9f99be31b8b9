"""Products' titles, tags, descriptions and attributes in sellers' words, written to Parquet block by block."""

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from uepp.data.marketplace.catalogue import Catalogue, Shops
from uepp.data.marketplace.geography import CITIES, postal_code
from uepp.data.marketplace.taxonomy import LANGUAGES, TAXONOMY, Words
from uepp.data.marketplace.words import (
    BOILERPLATE,
    CONCEPTS,
    OCCASIONS,
    RECIPIENTS,
    SELLER_FILLER,
)
from uepp.data.marketplace.world import LEAF_GROUP, LOG_START, stream

BLOCK = 4_096
"""Products that share a random stream; the content never depends on how files are cut."""

PRODUCT_SCHEMA = pa.schema(
    [
        ("product_id", pa.string()),
        ("title", pa.string()),
        ("tags", pa.list_(pa.string())),
        ("description", pa.string()),
        ("category", pa.string()),
        ("attributes", pa.map_(pa.string(), pa.list_(pa.string()))),
        ("shop_id", pa.string()),
        ("price", pa.float64()),
        ("created_at", pa.timestamp("us", tz="UTC")),
        ("country", pa.string()),
        ("region", pa.string()),
        ("language", pa.string()),
        ("zip", pa.string()),
        ("latitude", pa.float64()),
        ("longitude", pa.float64()),
        ("quality_rating", pa.float64()),
        ("quality_sales", pa.float64()),
        ("quality_shop", pa.float64()),
        ("quality_as_of", pa.timestamp("us", tz="UTC")),
    ]
)
_QUALITY_COLUMNS = 4
_WORD = re.compile(r"[^\W_]+")
_ATTRIBUTE_KEYS = ("Material", "Color", "Style", "Theme", "Theme", "Features")
_DESCRIPTIONS = {
    "en": "{leaf} {words}. Perfect for your home or as a present.",
    "de": "{leaf} {words}. Mit viel Liebe gemacht.",
    "fr": "{leaf} {words}. Fabriqué avec amour.",
    "es": "{leaf} {words}. Hecho con mucho cariño.",
}
_DRAWS = 160  # uniforms a product's text may use; more than any text needs

# Sellers' habits.
_TITLE_SHARE, _TAG_SHARE, _DESCRIPTION_SHARE, _ATTRIBUTE_SHARE = 0.5, 0.6, 0.7, 0.5
_TYPO_SHARE = 0.012  # of words
_UNRELATED_TAG_SHARE = 0.25  # of products carry a tag that has nothing to do with them
_ENGLISH_TAG_SHARE = 0.35  # of the tags of products that are not in English
_WRONG_CATEGORY_SHARE, _NO_CATEGORY_SHARE, _NO_DESCRIPTION_SHARE = 0.03, 0.02, 0.04
_NO_PLACE_SHARE = 0.05

Draw = Callable[[], float]


class Text(NamedTuple):
    """What a seller writes about one product."""

    title: str
    tags: list[str]
    description: str | None
    category: str | None
    attributes: list[tuple[str, list[str]]]


def normalised_words(text: str) -> list[str]:
    """Lower-case words without a plural s: what the marketplace's own search matches by."""
    words = _WORD.findall(text.lower())
    return [word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word for word in words]


def misspell(word: str, kind: int, at: float) -> str:
    """A typo: 0 swaps two letters, 1 drops one, 2 doubles one, 3 changes a vowel; short words stay as they are."""
    if len(word) < 4:
        return word
    i = 1 + int(at * (len(word) - 2))
    if kind == 0:
        return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    if kind == 1:
        return word[:i] + word[i + 1 :]
    if kind == 2:
        return word[:i] + word[i] + word[i:]
    vowels = "aeiou"
    for j in (*range(i, len(word)), *range(1, i)):
        if word[j] in vowels:
            return word[:j] + vowels[(vowels.index(word[j]) + 1) % 5] + word[j + 1 :]
    return word


def _maybe_misspelled(phrase: str, draw: Draw) -> str:
    # One draw decides for the whole phrase, so that texts stay cheap to write.
    words = phrase.split(" ")
    chance = draw()
    if chance < _TYPO_SHARE * len(words):
        i = int(chance / _TYPO_SHARE)
        words[i] = misspell(words[i], int(draw() * 4), draw())
    return " ".join(words)


class Writer:
    """Writes the texts of a catalogue; every product's text is a function of the seed and its row."""

    def __init__(self, catalogue: Catalogue, shops: Shops, seed: int) -> None:
        """Keep what texts are about."""
        self._catalogue, self._shops, self._seed = catalogue, shops, seed

    def texts(self) -> Iterator[list[Text]]:
        """All texts, a block at a time."""
        for start in range(0, len(self._catalogue), BLOCK):
            count = min(BLOCK, len(self._catalogue) - start)
            uniforms = stream(self._seed, 3, start // BLOCK).random((BLOCK, _DRAWS))
            yield [self._text(start + i, iter(uniforms[i].tolist()).__next__) for i in range(count)]

    def _text(self, product: int, draw: Draw) -> Text:
        latents = self._catalogue.latents
        language = LANGUAGES[latents.language[product]]
        shop = latents.shop[product]
        buyers_share = self._shops.writes_buyers_words[shop]
        concepts = [int(c) for c in latents.concepts[product]]

        def phrase(thing: Words, spoken: str = language) -> str:
            words = thing.buyers if draw() < buyers_share else thing.sellers
            options: tuple[str, ...] = words[spoken]
            return options[0] if draw() < 0.6 else options[-1]

        leaf = int(latents.leaf[product])
        node = TAXONOMY.leaves[leaf]
        known = [c for c in concepts if c >= 0]
        recipient, occasion = int(latents.recipient[product]), int(latents.occasion[product])

        parts = [phrase(CONCEPTS[c]) for c in known if draw() < _TITLE_SHARE]
        shift = int(draw() * (len(parts) + 1))
        parts = parts[shift:] + parts[:shift]
        parts.insert(0 if draw() < 0.25 else len(parts), phrase(node))
        if draw() < 0.3:
            filler = SELLER_FILLER[language]
            parts.insert(0, filler[int(draw() * len(filler))])
        if recipient >= 0 and draw() < 0.45:
            parts.append(phrase(RECIPIENTS[recipient]))
        separator = (" ", ", ", " | ", " - ")[shop % 4] if len(parts) > 3 else " "
        title = _maybe_misspelled(separator.join(parts), draw)
        title = title.title() if shop % 5 < 3 else title[:1].upper() + title[1:]

        tags = self._tags(node, known, recipient, occasion, language, phrase, draw)
        description = self._description(node, known, language, phrase, draw)
        category: str | None = node.path
        chance = draw()
        if chance < _NO_CATEGORY_SHARE:
            category = None
        elif chance < _NO_CATEGORY_SHARE + _WRONG_CATEGORY_SHARE:
            siblings = np.flatnonzero(LEAF_GROUP[leaf] == LEAF_GROUP)
            category = TAXONOMY.leaves[siblings[int(draw() * len(siblings))]].path
        attributes: dict[str, list[str]] = {}
        for key, concept in zip(_ATTRIBUTE_KEYS, concepts, strict=True):
            if concept >= 0 and draw() < _ATTRIBUTE_SHARE:
                spoken = "en" if draw() < 0.7 else language
                attributes.setdefault(key, []).append(phrase(CONCEPTS[concept], spoken))
        if draw() < 0.35:
            attributes["Size"] = [f"{5 + int(draw() * 60)} cm"]
        return Text(title, tags, description, category, list(attributes.items()))

    @staticmethod
    def _tags(
        node: Words,
        known: list[int],
        recipient: int,
        occasion: int,
        language: str,
        phrase: Callable[..., str],
        draw: Draw,
    ) -> list[str]:
        def spoken() -> str:
            return "en" if language != "en" and draw() < _ENGLISH_TAG_SHARE else language

        tags = [phrase(node, spoken())]
        if draw() < 0.5:
            tags.append(phrase(node, spoken()))
        for concept in known:
            if draw() < _TAG_SHARE:
                tag = phrase(CONCEPTS[concept], spoken())
                tags.append(f"{tag} {phrase(node)}" if draw() < 0.35 else tag)
        if recipient >= 0 and draw() < 0.6:
            tags.append(phrase(RECIPIENTS[recipient], spoken()))
        if occasion >= 0 and draw() < 0.5:
            tags.append(phrase(OCCASIONS[occasion], spoken()))
        if draw() < _UNRELATED_TAG_SHARE:
            anything = (*CONCEPTS, *OCCASIONS)
            tags.append(phrase(anything[int(draw() * len(anything))], spoken()))
        return list(dict.fromkeys(_maybe_misspelled(tag, draw) for tag in tags))[:13]

    @staticmethod
    def _description(
        node: Words, known: list[int], language: str, phrase: Callable[..., str], draw: Draw
    ) -> str | None:
        if draw() < _NO_DESCRIPTION_SHARE:
            return None
        words = ", ".join(phrase(CONCEPTS[c]) for c in known if draw() < _DESCRIPTION_SHARE)
        sentences = [_DESCRIPTIONS[language].format(leaf=phrase(node).capitalize(), words=words).replace(" .", ".")]
        boilerplate = BOILERPLATE[language]
        for _ in range(1 + int(draw() * 3)):
            sentences.append(boilerplate[int(draw() * len(boilerplate))])
        if draw() < 0.2:
            others = [TAXONOMY.leaves[int(draw() * len(TAXONOMY.leaves))] for _ in range(2)]
            sentences.append("See also: " + ", ".join(phrase(other) for other in others) + ".")
        return " ".join(sentences)


def write_texts(catalogue: Catalogue, shops: Shops, seed: int, path: Path) -> Iterator[list[list[str]]]:
    """Write all of `products.parquet` but its quality columns; yield each block's searchable words a product."""
    schema = pa.schema(list(PRODUCT_SCHEMA)[:-_QUALITY_COLUMNS])
    ids = catalogue.product_ids()
    start = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for texts in Writer(catalogue, shops, seed).texts():
            rows = np.arange(start, start + len(texts))
            writer.write_table(_table(catalogue, shops, seed, ids[rows], rows, texts, schema), row_group_size=BLOCK)
            yield [normalised_words(" ".join((text.title, *text.tags))) for text in texts]
            start += len(texts)


def _table(
    catalogue: Catalogue,
    shops: Shops,
    seed: int,
    ids: np.ndarray,
    rows: np.ndarray,
    texts: list[Text],
    schema: pa.Schema,
) -> pa.Table:
    latents = catalogue.latents
    shop, city = latents.shop[rows], [CITIES[c] for c in latents.city[rows]]
    no_place = stream(seed, 4, int(rows[0])).random((2, len(rows))) < _NO_PLACE_SHARE
    no_zip = no_place[0] | no_place[1]
    columns = [
        pa.array(ids.tolist(), pa.string()),
        pa.array([text.title for text in texts], pa.string()),
        pa.array([text.tags for text in texts], schema.field("tags").type),
        pa.array([text.description for text in texts], pa.string()),
        pa.array([text.category for text in texts], pa.string()),
        pa.array([text.attributes for text in texts], schema.field("attributes").type),
        pa.array([f"shop{number:06d}" for number in shop], pa.string()),
        pa.array(catalogue.price[rows]),
        timestamps(catalogue.created[rows] * 1_000_000),
        pa.array([place.country for place in city], pa.string()),
        pa.array([place.region for place in city], pa.string()),
        pa.array([LANGUAGES[language] for language in latents.language[rows]], pa.string()),
        pa.array(
            [
                None if missing else postal_code(place.postal_pattern, int(number))
                for place, number, missing in zip(city, shops.postal[shop], no_zip, strict=True)
            ],
            pa.string(),
        ),
        pa.array(shops.latitude[shop].round(4), mask=no_place[0]),
        pa.array(shops.longitude[shop].round(4), mask=no_place[0]),
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def timestamps(microseconds: np.ndarray) -> pa.Array:
    """UTC timestamps from microseconds since the start of the log."""
    origin = int(LOG_START.timestamp()) * 1_000_000
    return pa.array(microseconds + origin, pa.int64()).cast(pa.timestamp("us", tz="UTC"))


def add_quality(source: Path, target: Path, quality: dict[str, np.ndarray], as_of: datetime) -> None:
    """Copy a table of texts, block by block, with the quality columns added."""
    with pq.ParquetFile(source) as file, pq.ParquetWriter(target, PRODUCT_SCHEMA, compression="zstd") as writer:
        start = 0
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            rows = slice(start, start + len(table))
            for name, values in quality.items():
                table = table.append_column(name, pa.array(values[rows].astype(np.float64)))
            moment = pa.array([as_of] * len(table), pa.timestamp("us", tz="UTC"))
            writer.write_table(table.append_column("quality_as_of", moment).cast(PRODUCT_SCHEMA))
            start += len(table)
