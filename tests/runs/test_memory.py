"""Memory between steps: kept while training, given back afterwards."""

import json
import platform
import subprocess
import sys

import pytest

# In a process of its own: the settings are those of a process, and other threads' page faults would count.
PROGRAM = """
import json, resource
import numpy as np
from uepp.runs.memory import freed_memory_kept

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        np.empty(2**26, np.uint8)[:: 4096] = 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * resource.getpagesize()

found = {"before": faults()}
with freed_memory_kept():
    faults()
    found["kept"] = faults()
    inside = resident()
found["given_back"] = inside - resident()
found["after"] = faults()
print(json.dumps(found))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep memory")
def test_what_a_step_frees_is_there_for_the_next() -> None:
    environment = {"NUMPY_MADVISE_HUGEPAGE": "0"}
    found = json.loads(subprocess.check_output([sys.executable, "-c", PROGRAM], text=True, env=environment))
    # How many pages there are to fault is the system's choice, for it may take large ones.
    assert found["before"] > 10 * (found["kept"] + 1)
    assert found["given_back"] > 2**26 - 2**22
    assert found["after"] > 10 * (found["kept"] + 1)
