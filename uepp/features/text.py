"""Text to tokens, in the TensorFlow graph (UEPPR III-B-1).

The same functions run when the catalogue is prepared and inside the exported towers, so training
and serving cannot differ. Tokens are strings; kinds cannot collide, because a normalised word holds
only letters, digits and marks:

    word       deck            bigram     deck over
    trigram    ~#de ~dec …     category   #category_home.furniture     attribute  #attr_color_red
"""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import tensorflow as tf
import tensorflow_text as tf_text

from uepp.config import FeaturesConfig
from uepp.features.raw import product_batches

MAX_CATEGORY_LEVELS = 8
_QUERIES_AT_ONCE = 65_536
_NOT_A_WORD = r"[^\p{L}\p{N}\p{M}]+"
_ACCENTS = r"[\x{0300}-\x{036F}]"

TEXT_FIELDS = ("title", "tags", "category", "attributes", "description")
"""Product fields, each one string a product: tags one a line, attributes one `key: value` a line,
category levels joined by ` > `."""


def normalize(text: tf.Tensor) -> tf.Tensor:
    """Lower-cased (Unicode case folding), compatibility-normalised words joined by single spaces.

    Args:
        text: strings of any shape; bytes that are not UTF-8 become U+FFFD and so separate words.

    Returns:
        Strings of the same shape. Latin accents are removed; marks of other scripts are kept.
    """
    text = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace")
    text = tf_text.normalize_utf8(tf_text.case_fold_utf8(text), "NFKD")
    text = tf_text.normalize_utf8(tf.strings.regex_replace(text, _ACCENTS, ""), "NFKC")
    return tf.strings.strip(tf.strings.regex_replace(text, _NOT_A_WORD, " "))


def normalized_queries(queries: Sequence[str]) -> list[str]:
    """Queries as words only, in lower case (`normalize`); empty where there is no letter and no digit."""
    parts: list[str] = []
    for begin in range(0, len(queries), _QUERIES_AT_ONCE):
        normal = normalize(tf.constant(queries[begin : begin + _QUERIES_AT_ONCE], tf.string))
        parts += [text.decode() for text in normal.numpy().tolist()]
    return parts


def query_keys(queries: Sequence[str]) -> list[str]:
    """What queries are known by wherever they are counted, split or compared.

    Those that differ only in case, accents or punctuation are one, as in the graph. One without any letter or digit
    stays as it is written.
    """
    return [text or query for text, query in zip(normalized_queries(queries), queries, strict=True)]


def query_numbers(queries: Sequence[str]) -> np.ndarray:
    """The number of each query's key among those that occur, from 0 in the order of the first one: int64 [Q]."""
    number_of: dict[str, int] = {}
    return np.array([number_of.setdefault(key, len(number_of)) for key in query_keys(queries)], np.int64)


def joined_fields(inputs: dict[str, tf.Tensor], fields: Sequence[str]) -> tf.Tensor:
    """Product fields as one text, joined in order by a space; line breaks (between tags) become spaces.

    Args:
        inputs: strings [R] by field.
        fields: which, in order.

    Returns:
        Strings [R].
    """
    text = tf.strings.join([inputs[field] for field in fields], " ")
    text = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace")
    return tf.strings.strip(tf.strings.regex_replace(text, r"\s+", " "))


def product_texts(products: pa.Table, fields: Sequence[str]) -> list[str]:
    """Some fields of each product of a catalogue as one text, see `joined_fields`."""
    texts: list[str] = []
    for inputs, _ in product_batches(products, fields):
        texts += [text.decode("utf-8") for text in joined_fields(inputs, fields).numpy()]
    return texts


class Tokenizer:
    """Strings to bags of tokens.

    Args:
        config: which n-grams, and how many words of a field are read.
    """

    def __init__(self, config: FeaturesConfig) -> None:
        self._config = config
        self._by_field: dict[str, Callable[[tf.Tensor], tf.RaggedTensor]] = {
            "title": self.text,
            "tags": self.lines,
            "category": self.category,
            "attributes": self.attributes,
            "description": self.text,
        }

    def text(self, text: tf.Tensor) -> tf.RaggedTensor:
        """Unigrams, bigrams and character trigrams of free text: [B] strings to ragged [B, None]."""
        words = tf.strings.split(normalize(text))[:, : self._config.max_words_per_field]
        kinds = []
        if self._config.word_unigrams:
            kinds.append(words)
        if self._config.word_bigrams:
            kinds.append(tf_text.ngrams(words, 2, reduction_type=tf_text.Reduction.STRING_JOIN, string_separator=" "))
        if self._config.character_trigrams:
            kinds.append(_character_trigrams(words))
        return tf.concat(kinds, axis=1)

    def lines(self, text: tf.Tensor) -> tf.RaggedTensor:
        """Free text of several lines; no bigram crosses a line."""
        lines = tf.strings.split(text, "\n")
        tokens = self.text(lines.values)
        return lines.with_values(tokens).merge_dims(1, 2)

    def category(self, text: tf.Tensor) -> tf.RaggedTensor:
        """One token for each level of `a > b > c`: #category_a, #category_a.b, #category_a.b.c.

        With `category_text`, the words of the levels too.
        """
        levels = tf.strings.split(text, ">")
        names = levels.with_values(tf.strings.regex_replace(normalize(levels.values), " ", "_"))
        names = tf.ragged.boolean_mask(names, names != "")
        depth = names.row_lengths()
        tokens = [
            tf.ragged.boolean_mask(
                tf.expand_dims("#category_" + tf.strings.reduce_join(names[:, :level], axis=1, separator="."), 1),
                tf.expand_dims(depth >= level, 1),
            )
            for level in range(1, MAX_CATEGORY_LEVELS + 1)
        ]
        if self._config.category_text:
            tokens.append(self.lines(tf.strings.regex_replace(text, ">", "\n")))
        return tf.concat(tokens, axis=1)

    def attributes(self, text: tf.Tensor) -> tf.RaggedTensor:
        """A token for each `key: value` line (#attr_color_red) and the n-grams of the value."""
        # Regular expressions match no bytes outside UTF-8, so those are replaced before lines are cut.
        lines = tf.strings.split(tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace"), "\n")
        is_pair = tf.strings.regex_full_match(lines.values, r"(?s).*:.*")
        flat = tf.boolean_mask(lines.values, is_pair)
        row_of_line = tf.boolean_mask(lines.value_rowids(), is_pair)
        pair = tf.strings.regex_replace(normalize(tf.strings.regex_replace(flat, ":.*", "")), " ", "_")
        value = tf.strings.regex_replace(flat, "^[^:]*:", "")
        pair = "#attr_" + pair + "_" + tf.strings.regex_replace(normalize(value), " ", "_")
        per_line = tf.concat([tf.expand_dims(pair, 1), self.text(value)], axis=1)
        rows = tf.RaggedTensor.from_value_rowids(per_line, row_of_line, nrows=lines.nrows())
        return rows.merge_dims(1, 2)

    def fields(self, products: dict[str, tf.Tensor], fields: Sequence[str]) -> tf.RaggedTensor:
        """The tokens of several product fields as one bag: [C] strings a field to ragged [C, None]."""
        return tf.concat([self._by_field[field](products[field]) for field in fields], axis=1)


def _character_trigrams(words: tf.RaggedTensor) -> tf.RaggedTensor:
    """`deck` to ~#de ~dec ~eck ~ck#; a one-letter word to ~#a#. Characters are code points."""
    characters = tf.strings.unicode_split(tf.strings.join(["#", words.values, "#"]), "UTF-8")
    trigrams = tf_text.ngrams(characters, 3, reduction_type=tf_text.Reduction.STRING_JOIN, string_separator="")
    trigrams = trigrams.with_values(tf.strings.join(["~", trigrams.values]))
    return words.with_values(trigrams).merge_dims(1, 2)
