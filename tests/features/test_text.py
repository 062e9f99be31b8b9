"""Text to tokens: the n-grams of UEPPR III-B-1, on all the text that shops have."""

import oracles
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from uepp.config import FeaturesConfig
from uepp.features.text import Tokenizer, normalize, normalized_queries, query_keys

ALL = Tokenizer(FeaturesConfig())

# Blocks that Python's and ICU's Unicode tables have agreed on for many years.
_BLOCKS = [
    (0x20, 0x7E),
    (0xC0, 0x24F),
    (0x370, 0x3CE),
    (0x410, 0x451),
    (0x905, 0x94D),
    (0x4E00, 0x4E40),
    (0x30A2, 0x30F3),
]
_LETTERS = [st.characters(min_codepoint=low, max_codepoint=high) for low, high in _BLOCKS]
unicode_text = st.text(st.one_of(*_LETTERS, st.sampled_from("  \n\t™½😀’")), max_size=40)


def test_queries_without_words_are_told_apart_as_they_are_written() -> None:
    queries = ["Red  LAMP!", "red lamp", "Émile’s", "", "?", "★"]
    assert normalized_queries(queries) == ["red lamp", "red lamp", "emile s", "", "", ""]
    assert query_keys(queries) == ["red lamp", "red lamp", "emile s", "", "?", "★"]
    assert normalized_queries([]) == query_keys([]) == []


def tokens_of(ragged: tf.RaggedTensor) -> list[list[str]]:
    return [[token.decode() for token in row] for row in ragged.to_list()]


def normalized(text: str | bytes) -> str:
    return normalize(tf.constant([text])).numpy()[0].decode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Crème BRÛLÉE", "creme brulee"),
        ("cre\u0300me", "creme"),
        ("Straße", "strasse"),
        ("İstanbul", "istanbul"),
        ("ΣΊΣΥΦΟΣ", "σισυφοσ"),
        ("東京 タワー", "東京 タワー"),
        ("ﾊﾟﾝ", "パン"),
        ("हिन्दी पुस्तक", "हिन्दी पुस्तक"),
        ("ﬁne x² ½", "fine x2 1 2"),
        ("LEGO™", "legotm"),
        ("mother’s-day  gift!\n\t", "mother s day gift"),
        ("1,000.5", "1 000 5"),
        ("snake_case #hash ~tilde", "snake case hash tilde"),
        ("👍", ""),
        ("", ""),
        (b"caf\xff\xfe bar", "caf bar"),
        (b"na\xc3(ve", "na ve"),
    ],
)
def test_normalize_gives_plain_words(text: str | bytes, expected: str) -> None:
    assert normalized(text) == expected


def test_normalize_keeps_the_shape() -> None:
    assert normalize(tf.constant([["A", "B"], ["C", "É"]])).numpy().tolist() == [[b"a", b"b"], [b"c", b"e"]]
    assert normalize(tf.constant("ÉCLAIR")).numpy() == b"eclair"
    assert normalize(tf.constant([], tf.string)).shape == (0,)


@settings(deadline=None, max_examples=60)
@given(st.lists(unicode_text, min_size=1, max_size=6))
@example(["ΐ", "ŉ", "ǆ", "K", "ſ"])
def test_text_is_the_oracle(texts: list[str]) -> None:
    expected = [oracles.text_tokens(text) for text in texts]
    assert tokens_of(ALL.text(tf.constant(texts))) == expected
    again = normalize(normalize(tf.constant(texts))).numpy().tolist()
    assert [text.decode() for text in again] == [" ".join(oracles.words(text)) for text in texts]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.binary(max_size=20), min_size=1, max_size=5))
def test_any_bytes_give_utf8_words_of_letters(texts: list[bytes]) -> None:
    for row in ALL.text(tf.constant(texts)).to_list():
        for token in row:
            token.decode()  # raises on half a character
            assert token.strip() == token != b""


def test_text_spelled_out() -> None:
    assert tokens_of(ALL.text(tf.constant(["Deck over", "", "a", "é"]))) == [
        ["deck", "over", "deck over", "~#de", "~dec", "~eck", "~ck#", "~#ov", "~ove", "~ver", "~er#"],
        [],
        ["a", "~#a#"],
        ["e", "~#e#"],
    ]


def test_trigrams_are_of_code_points() -> None:
    assert tokens_of(ALL.text(tf.constant(["東京"])))[0] == ["東京", "~#東京", "~東京#"]
    devanagari = tokens_of(ALL.text(tf.constant(["पुस्तक"])))[0]
    assert devanagari[0] == "पुस्तक"
    assert len(devanagari) == 1 + len("पुस्तक")


@pytest.mark.parametrize("kind", ["word_unigrams", "word_bigrams", "character_trigrams"])
def test_each_kind_can_stand_alone(kind: str) -> None:
    switches = dict.fromkeys(["word_unigrams", "word_bigrams", "character_trigrams"], False) | {kind: True}
    got = tokens_of(Tokenizer(FeaturesConfig(**switches)).text(tf.constant(["red box"])))[0]
    expected = {
        "word_unigrams": ["red", "box"],
        "word_bigrams": ["red box"],
        "character_trigrams": ["~#re", "~red", "~ed#", "~#bo", "~box", "~ox#"],
    }
    assert got == expected[kind]


def test_only_the_first_words_are_read() -> None:
    tokenizer = Tokenizer(FeaturesConfig(max_words_per_field=3))
    assert tokens_of(tokenizer.text(tf.constant(["a b c d e"]))) == tokens_of(tokenizer.text(tf.constant(["a b c"])))
    assert tokens_of(tokenizer.text(tf.constant(["a b c d e"])))[0] == oracles.text_tokens("a b c d e", max_words=3)


def test_ten_kilobyte_title() -> None:
    long_word, long_title = "x" * 10_000, "ab " * 3_500
    word_tokens, title_tokens = tokens_of(ALL.text(tf.constant([long_word, long_title])))
    assert word_tokens == [long_word, "~#xx", *["~xxx"] * 9_998, "~xx#"]
    assert title_tokens == oracles.text_tokens("ab " * 100)


def test_tags_make_no_bigrams_across_lines() -> None:
    one_line, two_lines, empty, blank = tokens_of(ALL.lines(tf.constant(["red box blue", "red box\nblue", "", "\n\n"])))
    assert "box blue" in one_line
    assert "box blue" not in two_lines
    assert two_lines == oracles.text_tokens("red box") + oracles.text_tokens("blue")
    assert empty == blank == []


@pytest.mark.parametrize(
    ("category", "expected"),
    [
        ("Furniture > Bedroom", ["#category_furniture", "#category_furniture.bedroom"]),
        ("Home & Garden>Ma\u0301s", ["#category_home_garden", "#category_home_garden.mas"]),
        ("> a >> b >", ["#category_a", "#category_a.b"]),
        ("", []),
        (" > ", []),
    ],
)
def test_category_has_a_token_a_level(category: str, expected: list[str]) -> None:
    assert tokens_of(ALL.category(tf.constant([category]))) == [expected]
    assert oracles.category_tokens(category) == expected


def test_category_stops_at_eight_levels() -> None:
    deep = " > ".join("abcdefghijkl")
    got = tokens_of(ALL.category(tf.constant([deep, "a", ""])))
    assert got == [oracles.category_tokens(deep), ["#category_a"], []]
    assert len(got[0]) == 8
    assert got[0][-1] == "#category_a.b.c.d.e.f.g.h"


def test_category_text_adds_the_words_of_the_levels() -> None:
    tokenizer = Tokenizer(FeaturesConfig(category_text=True))
    plain, with_text = (tokens_of(t.category(tf.constant(["Wall art > Posters", ""]))) for t in (ALL, tokenizer))
    assert with_text[0] == plain[0] + oracles.text_tokens("wall art") + oracles.text_tokens("posters")
    assert with_text[1] == plain[1] == []


@pytest.mark.parametrize(
    "attributes",
    [
        "color: Red",
        "Main Color: Dark Red\nsize: 10 cm",
        "no colon here\ncolor: red\n\nnor here",
        "ratio: 16:9\ntime: 10:30: pm",
        "",
        "\n",
        "no colon",
        "Größe: Übergroß\nछाया: लाल",
        "color: red\r\nsize: xl",
    ],
)
def test_attributes_are_the_oracle(attributes: str) -> None:
    got = tokens_of(ALL.attributes(tf.constant(["x: y", attributes, "z: w"])))
    assert got == [oracles.attribute_tokens(text) for text in ("x: y", attributes, "z: w")]


def test_attributes_spelled_out() -> None:
    got = tokens_of(ALL.attributes(tf.constant(["color: red\nnothing\nratio: 16:9"])))[0]
    assert got[:4] == ["#attr_color_red", "red", "~#re", "~red"]
    assert "#attr_ratio_16_9" in got
    assert "16 9" in got
    assert not [token for token in got if "nothing" in token]


def test_attribute_lines_that_are_not_utf8_are_read_like_any_text() -> None:
    """A byte that is not UTF-8 separates words, as it does in a title; the line is not lost."""
    got = tokens_of(ALL.attributes(tf.constant([b"color: r\xffed", b"col\xffor: red"])))
    assert got == [oracles.attribute_tokens("color: r ed"), oracles.attribute_tokens("col or: red")]


def test_fields_become_one_bag_in_order() -> None:
    products = {
        "title": tf.constant(["Red box", ""]),
        "tags": tf.constant(["gift\nbox", ""]),
        "category": tf.constant(["a > b", ""]),
        "attributes": tf.constant(["color: red", ""]),
        "description": tf.constant(["a box", ""]),
    }
    got = tokens_of(ALL.fields(products, ["tags", "title", "attributes", "category", "description"]))
    expected = (
        oracles.text_tokens("gift")
        + oracles.text_tokens("box")
        + oracles.text_tokens("red box")
        + oracles.attribute_tokens("color: red")
        + oracles.category_tokens("a > b")
        + oracles.text_tokens("a box")
    )
    assert got == [expected, []]


def test_kinds_of_tokens_cannot_collide() -> None:
    hostile = "#category_a #attr_color_red ~dec ~#de"
    free = set(tokens_of(ALL.text(tf.constant([hostile])))[0])
    special = set(tokens_of(ALL.category(tf.constant(["a"])))[0]) | {"#attr_color_red"}
    assert free
    assert not free & special
    assert all(token.startswith("~") or not set("#~.") & set(token) for token in free)


def test_eager_and_graph_agree() -> None:
    texts = ["Crème brûlée", "", "東京 タワー", "a > b\nc: d", "x" * 300]
    products = {field: tf.constant(texts) for field in ("title", "tags", "category", "attributes", "description")}
    fields = list(products)
    eager = ALL.fields(products, fields)
    graph = tf.function(lambda batch: ALL.fields(batch, fields), reduce_retracing=True)
    assert sum(map(len, eager.to_list())) > 50
    for _ in range(2):
        assert graph(products).to_list() == eager.to_list()


def test_a_row_does_not_depend_on_its_batch() -> None:
    texts = ["red box", "", "blue wooden chair", "é"]
    together = tokens_of(ALL.text(tf.constant(texts)))
    assert together == [tokens_of(ALL.text(tf.constant([text])))[0] for text in texts]
    assert tokens_of(ALL.text(tf.constant([], tf.string))) == []
