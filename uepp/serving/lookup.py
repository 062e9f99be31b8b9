"""Where a text is among millions, without a Python object for each of them."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

_PRIME = 2_654_435_761  # below 2^32, and far from a power of 256, whose remainders would be small
_ROWS_AT_ONCE = 65_536


class Lookup:
    """Rows of distinct texts, by a hash of each and then by the texts themselves: 16 bytes a text beside them.

    A dictionary would take some 150, and be filled while no other thread of Python runs.

    Args:
        texts: distinct, not null.
    """

    def __init__(self, texts: pa.Array | pa.ChunkedArray) -> None:
        if isinstance(texts, pa.ChunkedArray):
            texts = texts.combine_chunks()
        self._texts = texts.cast(pa.large_binary())
        hashes = _hashes(self._texts)
        self._rows = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._rows]

    def __len__(self) -> int:
        """N."""
        return len(self._texts)

    def rows(self, texts: Sequence[str]) -> np.ndarray:
        """Where they are, int64 [n]; -1: nowhere."""
        if not texts:  # as most often
            return np.empty(0, np.int64)
        # what is no Unicode text is none of these, and no reason to fail
        asked = [text.encode("utf-8", "surrogatepass") for text in texts]
        hashes = np.array([_hash(text) for text in asked], np.uint64)
        places = np.searchsorted(self._hashes, hashes).tolist()
        return np.array([self._row(*one) for one in zip(asked, hashes, places, strict=True)], np.int64)

    def row(self, text: str) -> int:
        """Where it is; -1: nowhere."""
        return int(self.rows([text])[0])

    def _row(self, text: bytes, hashed: np.uint64, place: int) -> int:
        while place < len(self) and self._hashes[place] == hashed:
            row = int(self._rows[place])
            if self._texts[row].as_py() == text:
                return row
            place += 1  # another text with this hash
        return -1


def _hash(text: bytes) -> int:
    """Of the text as a number, its remainder."""
    return int.from_bytes(text, "little") % _PRIME


def _hashes(texts: pa.LargeBinaryArray) -> np.ndarray:
    """The same of N texts, uint64 [N]."""
    offsets = np.frombuffer(texts.buffers()[1], np.int64)[texts.offset : texts.offset + len(texts) + 1]
    data = np.frombuffer(texts.buffers()[2] or b"", np.uint8)
    powers = np.array([pow(256, place, _PRIME) for place in range(np.diff(offsets).max(initial=0))], np.uint64)
    hashes = np.empty(len(texts), np.uint64)
    for first in range(0, len(texts), _ROWS_AT_ONCE):
        edges = offsets[first : first + _ROWS_AT_ONCE + 1]
        places = np.arange(edges[0], edges[-1]) - np.repeat(edges[:-1], np.diff(edges))
        # that of one text is below 2^64; what is summed up before it may not be, and is taken off again
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(data[edges[0] : edges[-1]] * powers[places])])
        hashes[first : first + len(edges) - 1] = np.diff(sums[edges - edges[0]]) % np.uint64(_PRIME)
    return hashes
