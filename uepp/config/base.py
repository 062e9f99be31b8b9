"""What all stages of the configuration share."""

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

InteractionType = Literal["click", "cart", "purchase"]
INTERACTION_TYPES: tuple[InteractionType, ...] = get_args(InteractionType)
"""Positive interactions, weakest first; the position is the type's id in batches."""

TextField = Literal["title", "tags", "category", "attributes", "description"]
ProductEncoder = Literal["tokens", "shop", "location", "graph", "text"]
QueryEncoder = Literal["tokens", "location", "history", "text"]
Weights = tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]
"""A weight at the start of training and at its end."""


class Stage(BaseModel):
    """Base of all settings: immutable; unknown keys, infinity and NaN are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
