"""Trials on one node read one cache: its pages lie in memory once, however many processes have read them all."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ichtune.workspace import Workspace

SMAPS = Path("/proc/self/smaps_rollup")
pytestmark = pytest.mark.skipif(not SMAPS.is_file(), reason="needs Linux, which tells whose pages are shared")

#: Reads a whole cache, and says by how many bytes that made its own memory and its shared memory grow.
READER = """
import json, sys
from pathlib import Path
import numpy as np
from ichtune.data.cache.hu_cache import HuCache

def held():
    sums = {"Private": 0, "Shared": 0}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        for kind in sums:
            if line.startswith((f"{kind}_Clean", f"{kind}_Dirty")):
                sums[kind] += int(line.split()[1]) * 1024
    return sums

def told(line):
    print(json.dumps(line), flush=True)
    sys.stdin.readline()

told("imported")
before = held()
cache = HuCache(Path(sys.argv[1]))
rows = np.array([row for row in range(cache.n_rows) if cache.shape(row)])
for start in range(0, len(rows), 4):
    cache.gather(rows[start : start + 4])
told("read")
told({kind: held()[kind] - before[kind] for kind in before})
"""


def test_two_readers_hold_a_cache_once(fake_workspace: Callable[..., Workspace]) -> None:
    workspace = fake_workspace(n_patients=12, n_slices=8, size_px=256)
    folder = workspace.hu_cache.folder
    n_bytes = sum(path.stat().st_size for path in folder.glob("*.hu.b2"))
    assert n_bytes > 5e6
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    try:
        for expected in ("imported", "read"):
            for reader in readers:
                assert json.loads(reader.stdout.readline()) == expected  # type: ignore[union-attr]
            for reader in readers:  # each goes on when both are there
                reader.stdin.write("\n")  # type: ignore[union-attr]
                reader.stdin.flush()  # type: ignore[union-attr]
        grown = [json.loads(reader.stdout.readline()) for reader in readers]  # type: ignore[union-attr]
    finally:
        for reader in readers:
            reader.kill()
            reader.communicate()
    for one in grown:
        assert one["Shared"] > 0.9 * n_bytes
        assert one["Private"] < 0.3 * n_bytes
