"""Terms of the three strengths, and the spelling of numbers, units and dimensions."""

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uepp.lexical.analysis import STRENGTHS, Analyzer, fold, trigrams
from uepp.lexical.units import dimensions, normalize_numbers

TUNED = Analyzer.of("tuned")


def words(text: str) -> list[str]:
    return TUNED(text)["word"]


def test_plain_gives_lower_case_words_only() -> None:
    assert Analyzer.of("plain")("Painted WALLS, 3/4 Café") == {"word": ["painted", "walls", "3", "4", "café"]}


def test_stemmed_gives_the_stems_of_the_plain_words() -> None:
    assert Analyzer.of("stemmed")("Painted WALLS, 3/4 Café") == {"word": ["paint", "wall", "3", "4", "café"]}


def test_an_unknown_strength_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'strong': expected one of plain, stemmed, tuned"):
        Analyzer.of("strong")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "spellings",
    [
        [
            "3/4 in. pipe",
            "3/4-inch pipe",
            "0.75in pipe",
            '3/4" pipe',
            ".75 inches pipe",
            "\u00be in pipe",
            "3/4'' pipe",
        ],
        ["1-1/2 in. bolt", "1 1/2-inch bolt", '1\u00bd" bolt', "1.50 in bolt"],
        ["12 ft. ladder", "12-foot ladder", "12' ladder", "12ft ladder", "12 feet ladder"],
        ["1,000 sq. ft. rug", "1000 sqft rug", "1000 square feet rug"],
        ["5 gal. bucket", "5-gallon bucket", "5gal bucket", "5 gallons bucket"],
        ["16 oz mug", "16-ounce mug", "16oz. mug"],
        ["20 lb. plate", "20 lbs plate", "20-pound plate"],
        ["60W bulb", "60-Watt bulb", "60 watts bulb"],
        ["18V drill", "18-Volt drill", "18 volts drill"],
        ["15a fuse", "15-Amp fuse", "15 amps fuse"],
        ["500 ml jar", "500ml jar", "500 millilitres jar"],
        ["8 fl. oz. lotion", "8 fluid ounce lotion", "8 fl oz lotion"],
        ["90\u00b0 elbow", "90-degree elbow", "90 deg. elbow"],
        ["12 ct. napkins", "12-count napkins"],
        ["0.0625 in. shim", "1/16 in. shim"],
    ],
    ids=lambda spellings: spellings[0],
)
def test_one_measure_has_one_spelling(spellings: list[str]) -> None:
    first = words(spellings[0])
    assert len(first) >= 3
    for spelling in spellings[1:]:
        assert words(spelling) == first, spelling


@pytest.mark.parametrize(
    "text",
    [
        "2x4 stud",
        "2 x 4 stud",
        "2 in. x 4 in. stud",
        "2\u00d74 stud",
        "2 by 4 stud",
        "2 in. W x 4 in. D stud",
        "2'x4' stud",
    ],
)
def test_a_dimension_is_one_term_beside_its_numbers(text: str) -> None:
    assert {"2", "4", "2\u00d74", "stud"} <= set(words(text))
    assert "x" not in words(text)


def test_three_numbers_give_both_pairs_and_the_whole() -> None:
    assert {"2\u00d74", "4\u00d78", "2\u00d74\u00d78"} <= set(words("2 in. x 4 in. x 8 ft."))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12/2 wire", ["12", "2", "wire"]),
        ("24/7 service", ["24", "7", "servic"]),
        ("3-in-1 oil", ["3", "in", "1", "oil"]),
        ("made in 2 days", ["made", "in", "2", "day"]),
        ("2 a day", ["2", "a", "day"]),
        ("M size V neck", ["m", "size", "v", "neck"]),
        ("10x zoom", ["10x", "zoom"]),
    ],
)
def test_what_is_no_measure_is_left_alone(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@pytest.mark.parametrize(
    ("apart", "together"),
    [("deck over", "DeckOver"), ("dish washers", "dishwasher"), ("sc 141", "SC141"), ("7 up", "7up")],
)
def test_joined_neighbours_are_the_word_written_together(apart: str, together: str) -> None:
    assert TUNED(apart)["joined"] == words(together)
    assert TUNED(together)["joined"] == []


def test_two_numbers_are_not_joined() -> None:
    assert "24" not in TUNED("2 4")["joined"]
    assert TUNED("2 4")["joined"] == []


def test_trigrams_mark_both_ends_of_a_word() -> None:
    assert trigrams("red") == ("_re", "red", "ed_")
    assert trigrams("a") == ("_a_",)
    assert TUNED("red")["trigram"] == ["_re", "red", "ed_"]


def test_other_scripts_keep_their_words_whole() -> None:
    assert words("हिन्दी कपड़े") == [fold("हिन्दी"), fold("कपड़े")]
    assert words("日本語の時計") == ["日本語の時計"]
    assert words("Crème BRÛLÉE straße ﬁne") == words("creme brulee strasse fine")
    assert words("Behr\u2122 paint") == ["behr", "paint"]
    assert words("Mother\u2019s day") == words("mothers day") == words("mother's Day")


def test_accents_written_in_two_ways_are_one() -> None:
    assert words("cafe\u0301") == words("caf\u00e9") == ["cafe"]


def test_a_huge_word_is_cut_and_a_huge_title_is_not() -> None:
    assert len(Analyzer(folded=True)("x" * 10_000)["word"][0]) == 64
    assert len(words("lamp " * 2_000)) == 2_000


@pytest.mark.parametrize("strength", STRENGTHS)
@settings(deadline=None, max_examples=150)
@given(text=st.text(max_size=60))
def test_any_text_gives_terms_without_spaces(strength: str, text: str) -> None:
    terms = Analyzer.of(strength)(text)  # type: ignore[arg-type]
    assert not any(term == "" or " " in term for kind in terms.values() for term in kind)
    assert terms == Analyzer.of(strength)(text)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=150)
@given(text=st.text(alphabet="0123456789./-,'\"x inftwa°", max_size=40))
def test_numbers_of_any_shape_are_normalised_without_error(text: str) -> None:
    assert normalize_numbers(text) == normalize_numbers(text)


def dimensions_by_backtracking(text: str) -> list[str]:
    """Wherever a dimension may begin, the longest one; time that grows with the cube of the length."""
    terms = []
    for match in re.finditer(r"\d[\d.]*(?:[ -]*[a-z]*[ ]*×[ ]*\d[\d.]*)+", text):
        numbers = re.findall(r"\d+(?:\.\d+)?", match[0])
        terms += [f"{one}×{other}" for one, other in itertools.pairwise(numbers)]
        terms += ["×".join(numbers)] if len(numbers) > 2 else []
    return terms


@given(st.lists(st.sampled_from(["1", "25", ".", "..", " ", "-", "inch", "x", "×", " × ", "é", "٣"]), max_size=14))
def test_dimensions_are_found_without_going_back(parts: list[str]) -> None:
    text = "".join(parts)
    assert dimensions(text) == dimensions_by_backtracking(text)


@pytest.mark.parametrize("part", ["1", "1.", "1 ", "1.. ", "a", "1a", "1-", "1×", "1 in x "])
def test_a_long_text_takes_no_longer_than_its_words(part: str) -> None:
    """A title of 20,000 digits took 13 s; with times that grow as the square this does not end."""
    text = part * (400_000 // len(part))
    assert dimensions(text) == dimensions(text + " ®")
