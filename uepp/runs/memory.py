"""What happens to memory between the steps of a training."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

# of glibc's malloc.h
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
_KEEP = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 2**28}
# Where glibc's own adjustment ends in a process with large arrays; it makes none after a first call of mallopt.
_AFTERWARDS = {_MMAP_MAX: 2**16, _TRIM_THRESHOLD: 2**26, _TOP_PAD: 2**17, _MMAP_THRESHOLD: 2**25}


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Let the process keep what a step frees for the step after it; all that is free is given back at the end.

    A step frees large arrays and asks for the same ones again. By default glibc takes each from the system, which
    clears its pages first: a sixth of the processor time of a step of `demo`. With other C libraries nothing changes.
    """
    try:
        library = ctypes.CDLL(None)
        mallopt, trim = library.mallopt, library.malloc_trim
    except (AttributeError, OSError, TypeError):  # no glibc
        yield
        return
    for option, value in _KEEP.items():
        mallopt(option, value)
    try:
        yield
    finally:
        for option, value in _AFTERWARDS.items():
            mallopt(option, value)
        trim(0)
