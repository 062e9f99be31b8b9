"""One spelling for the numbers, units and dimensions of shopping text.

`3/4 in.`, `3/4-inch` and `0.75in` become `0.75 inch`; `12 ft.` and `12'` become `12 foot`; `2x4`,
`2 in. x 4 in.` and `2 by 4` keep their numbers and share one dimension term. The rules are applied
to queries and products alike, so a wrong guess ("size 8 in black" is no length) costs little: both
sides make the same one.
"""

import re
from itertools import pairwise

TIMES = "\u00d7"
"""The multiplication sign: stands between the numbers of a dimension after `normalize_numbers`."""

# Abbreviations are units only after a number; `_WORDS` stand for the same thing anywhere.
_ABBREVIATIONS = {
    "inch": ("in", "ins"),
    "foot": ("ft",),
    "yard": ("yd", "yds"),
    "millimeter": ("mm",),
    "centimeter": ("cm", "cms"),
    "meter": ("m", "mtr"),
    "gallon": ("gal", "gals"),
    "quart": ("qt", "qts"),
    "pint": ("pt", "pts"),
    "milliliter": ("ml",),
    "liter": ("l", "ltr"),
    "ounce": ("oz", "ozs"),
    "pound": ("lb", "lbs"),
    "milligram": ("mg",),
    "gram": ("g", "gm", "gms", "gr"),
    "kilogram": ("kg", "kgs"),
    "watt": ("w",),
    "kilowatt": ("kw",),
    "volt": ("v", "vdc", "vac"),
    "ampere": ("amp", "amps"),
    "horsepower": ("hp",),
    "degree": ("deg",),
    "gauge": ("ga",),
    "piece": ("pc", "pcs"),
    "pack": ("pk", "pks"),
    "count": ("ct",),
    "month": ("mo", "mos"),
    "year": ("yr", "yrs"),
    "hour": ("hr", "hrs"),
    "megabyte": ("mb",),
    "gigabyte": ("gb",),
    "terabyte": ("tb",),
}
_WORDS = {
    "inch": ("inches",),
    "foot": ("feet",),
    "ounce": ("oz", "ounces"),
    "pound": ("lb", "lbs", "pounds"),
    "gallon": ("gal", "gallons"),
    "ampere": ("amp", "amps", "amperes"),
    "millimeter": ("mm", "millimetre", "millimetres"),
    "centimeter": ("cm", "centimetre", "centimetres"),
    "meter": ("metre", "metres"),
    "liter": ("litre", "litres"),
    "milliliter": ("millilitre", "millilitres"),
    "kilogram": ("kg",),
}
_LENGTHS = ("inch", "foot", "yard", "millimeter", "centimeter", "meter")


def _inverted(table: dict[str, tuple[str, ...]]) -> dict[str, str]:
    return {written: unit for unit, forms in table.items() for written in forms}


_UNIT_OF_ABBREVIATION = _inverted(_ABBREVIATIONS) | {
    "a": "ampere",
    "''": "inch",
    '"': "inch",
    "'": "foot",
    "°": "degree",
}
_UNIT_OF_WORD = _inverted(_WORDS)
_AFTER_NUMBER = "|".join(sorted(set(_inverted(_ABBREVIATIONS)) - {"in"}, key=len, reverse=True))

_VULGAR_FRACTION = re.compile("[¼-¾⅐-⅞]")
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_FRACTION = re.compile(r"(?<![\w./])(?:(\d{1,4})[ -]+)?(\d{1,2})/(2|3|4|5|6|8|10|12|16|32|64)(?![\d/])")
_DECIMAL = re.compile(r"(?<![\d.])\d*\.\d+(?!\.?\d)")
_SQUARE_OR_CUBIC = re.compile(
    r"\b(?:(sq)(?:uare)?|(cu)(?:bic)?)"
    r"(?:[. -]*(?:(ft|foot|feet)|(in|inch|inches)|(yd|yards?))|[. -]+(m|met(?:er|re)s?))\b\.?"
)
_FLUID_OUNCE = re.compile(r"\bfl(?:uid)?\b[. -]*(?:oz|ounces?)\b\.?")
_UNIT = re.compile(
    r"(?<=\d)(?:"
    r"\s*(''|\"|°|'(?=\s*x\s*\d|[\W\d]|$))"  # 6' x 8', 5'10"
    r"|[\s-]*(in)(?:\.|\b(?!-?\s*\d))"  # 2 in. or 2 in, but "2 in 1" and "3-in-1" count things
    rf"|[\s-]*({_AFTER_NUMBER})\b\.?"
    r"|-?(a)\b"  # 15a, 15-a, but "2 a day"
    r")"
)
_WORD = re.compile(rf"\b(?:{'|'.join(sorted(_UNIT_OF_WORD, key=len, reverse=True))})\b\.?")
_BY = re.compile(rf"(?<=\d)(\s*-?(?:{'|'.join(_LENGTHS)})\b)?(?:\s*[wdhl]\b\.?)?\s*(?:x|\bby\b)\s*(?=\d)")
# From the begin of a run of digits, and possessive: what is tried once is enough, so the time is linear in the text.
_DIMENSIONS = re.compile(rf"(?<![\d.])\.*+\d[\d.]*+(?:[ -]*+[a-z]*+[ ]*+{TIMES}[ ]*+\d[\d.]*+)+")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def _decimal(value: float) -> str:
    """At most three decimals, no trailing zeros: `1/16` and `.0625` meet."""
    return f"{value:.3f}".rstrip("0").rstrip(".")


def _fraction(match: re.Match[str]) -> str:
    whole, numerator, denominator = match.groups()
    if not 0 < int(numerator) < int(denominator):  # a wire gauge (12/2), a date
        return match[0]
    return _decimal(int(whole or 0) + int(numerator) / int(denominator))


def _square_or_cubic(match: re.Match[str]) -> str:
    power = "square" if match[1] else "cubic"
    unit = "foot" if match[3] else "inch" if match[4] else "yard" if match[5] else "meter"
    return f" {power} {unit} "


def _unit(match: re.Match[str]) -> str:
    return f" {_UNIT_OF_ABBREVIATION[match[match.lastindex or 0]]} "


def normalize_numbers(text: str) -> str:
    """Rewrite numbers, units and dimensions of lower-case text into one spelling each.

    Args:
        text: folded, lower-case text.

    Returns:
        The text with decimal numbers (`0.75`), whole unit names and `TIMES` between the numbers of a dimension.
    """
    text = _FLUID_OUNCE.sub(" fluid ounce ", _SQUARE_OR_CUBIC.sub(_square_or_cubic, text))
    if any(map(str.isdecimal, text)):
        text = _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)
        text = _FRACTION.sub(_fraction, text)
        text = _DECIMAL.sub(lambda match: _decimal(float(match[0])), text)
        text = _UNIT.sub(_unit, text)
        text = _BY.sub(lambda match: f"{match[1] or ''} {TIMES} ", text)
    return _WORD.sub(lambda match: _UNIT_OF_WORD[match[0].rstrip(".")], text)


def dimensions(text: str) -> list[str]:
    """The dimensions in normalised text: each pair of neighbours (2 by 4), and the whole when it is longer."""
    terms = []
    for match in _DIMENSIONS.finditer(text):
        numbers = _NUMBER.findall(match[0])
        terms += [f"{first}{TIMES}{second}" for first, second in pairwise(numbers)]
        if len(numbers) > 2:
            terms.append(TIMES.join(numbers))
    return terms


def spell_out_fractions(text: str) -> str:
    """Set a space before `½` and its like, so that Unicode's compatibility form of `1½` is not `11/2`."""
    return _VULGAR_FRACTION.sub(r" \g<0>", text)
