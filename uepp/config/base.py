"""What all stages of the configuration share."""

import functools
from datetime import datetime
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

InteractionType = Literal["click", "cart", "purchase"]
INTERACTION_TYPES: tuple[InteractionType, ...] = get_args(InteractionType)
"""Positive interactions, weakest first; the position is the type's id in batches."""

TextField = Literal["title", "tags", "category", "attributes", "description"]
ProductEncoder = Literal["tokens", "shop", "location", "graph", "text"]
QueryEncoder = Literal["tokens", "location", "history", "text"]
Weights = tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]
"""A weight at the start of training and at its end."""

_IN_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple: "a list",
    datetime: "a time (2024-05-01, 2024-05-01T12:00:00Z)",
    NoneType: "none",
}


class Stage(BaseModel):
    """Base of all settings: immutable; unknown keys, infinity and NaN are refused.

    What YAML takes for something else is taken for what was meant, or refused: `none` is null, in any case; a boolean
    is no number, and a number is no time.

    Attributes:
        may_be_off: settings for which `off`, which YAML reads as false, is null too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    may_be_off: ClassVar[frozenset[str]] = frozenset()

    @field_validator("*", mode="before")
    @classmethod
    def _as_it_was_meant(cls, value: Any, info: ValidationInfo) -> Any:
        name = str(info.field_name)
        annotation: Any = cls.model_fields[name].annotation
        choices = _choices(annotation)
        word = value.strip().lower() if isinstance(value, str) else value
        if word in ("off", False) and type(word) in (str, bool) and name in cls.may_be_off:
            return None
        if word == "none" or word is None:
            return "none" if "none" in choices else None if NoneType in choices else value
        if not _has_booleans(annotation) and _holds_boolean(value):
            raise ValueError(
                f"must be {_in_words(annotation)}, not true or false, as YAML reads yes, no, on and off too"
            )
        if datetime in choices and _is_number(word):
            raise ValueError(f"must be {_in_words(annotation)}, not a number")
        return value


@functools.cache
def _choices(annotation: Any) -> tuple[Any, ...]:
    """What a setting may be: types, and the values of literals."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _choices(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return tuple(choice for part in get_args(annotation) for choice in _choices(part))
    if origin is Literal:
        return get_args(annotation)
    return (origin or annotation,)


@functools.cache
def _has_booleans(annotation: Any) -> bool:
    return bool in _choices(annotation)


def _holds_boolean(value: Any) -> bool:
    """Whether it is one, or a list with one, or a list of such lists: no setting is deeper."""
    parts = [value]
    for _ in range(2):
        parts += [part for one in parts if isinstance(one, list | tuple) for part in one]
    return any(isinstance(part, bool) for part in parts)


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _in_words(annotation: Any) -> str:
    choices = [
        repr(choice) if not isinstance(choice, type) else _IN_WORDS.get(choice, "a mapping of settings")
        for choice in _choices(annotation)
    ]
    return " or ".join(filter(None, [", ".join(choices[:-1]), choices[-1]]))
