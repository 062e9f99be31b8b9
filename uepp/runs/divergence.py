"""A training whose numbers are none any more."""

import math
from collections.abc import Mapping

from uepp.errors import InputError


def refuse_divergence(step: int, value: float, rates: Mapping[str, float], *, name: str = "loss") -> None:
    """Stop where nothing can be learned any more: weights that are no numbers stay none.

    Args:
        step: that was done last.
        value: of it.
        rates: highest learning rates by the names of their settings.
        name: of the value.

    Raises:
        InputError: the value is not finite.
    """
    if not math.isfinite(value):
        lower = " or ".join(f"{key} below {rate:g}" for key, rate in rates.items())
        raise InputError(f"step {step}: the {name} is {value}, training has diverged; start a new one with {lower}")
