"""Where people were last, as far as the examples know."""

from functools import reduce
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

PLACES = "places.parquet"
_COLUMNS = ("country", "region", "language", "zip", "latitude", "longitude")


def write_last_places(mined: Path, directory: Path) -> None:
    """Write `places.parquet`: each known person's context of their latest example that has one.

    Args:
        mined: folder of mined tables; all of its examples are before the end of training.
        directory: where to.
    """
    order = ("user_id", "request_timestamp", "request_id")
    examples = pq.read_table(mined / "examples.parquet", columns=[*order, *_COLUMNS])
    has_place = reduce(pc.or_, (pc.is_valid(examples.column(name)) for name in _COLUMNS))
    known = examples.filter(pc.and_(has_place, pc.is_valid(examples.column("user_id"))))
    known = known.sort_by([(name, "ascending") for name in order])
    users = known.column("user_id").combine_chunks()
    is_last = np.ones(len(users), bool)
    is_last[:-1] = np.asarray(pc.not_equal(users[1:], users[:-1]).cast(pa.uint8()), bool)
    pq.write_table(known.filter(pa.array(is_last)).select(["user_id", *_COLUMNS]), directory / PLACES)
