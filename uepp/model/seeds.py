"""Seeds of initial values."""

import numpy as np


def named_seed(seed: int, name: str) -> int:
    """A seed of its own for each named variable."""
    return int(np.random.SeedSequence([seed, *name.encode()]).generate_state(1)[0])
