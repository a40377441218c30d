"""Whether an HU cache is what it was when it was written, and has a row for every row of the SliceTable."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ichtune.data.cache.hu_cache import HuCache, verify_cache
from ichtune.errors import DataError


@dataclass(frozen=True)
class CacheCheck:
    """One cache of a workspace.

    Attributes:
        cache_id: its name.
        n_rows: rows that it has; 0 where it could not be opened.
        are_checksums_read: whether every byte was compared with its checksum.
        problem: what is wrong with it, ``""`` when nothing is.
    """

    cache_id: str
    n_rows: int
    are_checksums_read: bool
    problem: str


def check_cache(folder: Path, slices: pd.DataFrame, *, read_checksums: bool) -> CacheCheck:
    """Check one cache against the SliceTable and, on demand, against its checksums.

    Args:
        folder: the cache.
        slices: the SliceTable.
        read_checksums: read every byte; takes as long as the disk needs for the whole cache.
    """
    try:
        cache = HuCache(folder)
        n_rows = cache.n_rows
        problem = _rows_problem(cache, slices)
        if read_checksums:
            verify_cache(folder)
    except DataError as error:
        return CacheCheck(folder.name, 0, False, str(error))
    return CacheCheck(folder.name, n_rows, read_checksums, problem)


def _rows_problem(cache: HuCache, slices: pd.DataFrame) -> str:
    if cache.n_rows != len(slices):
        return (
            f"the HU cache {cache.cache_id} has {cache.n_rows} rows, the slice table has {len(slices)}; run "
            "`ichtune prepare` again"
        )
    usable = np.flatnonzero((slices["status"] == "ok").to_numpy(bool)).tolist()
    without = [row for row in usable if cache.shape(row) is None]
    if without:
        return (
            f"the HU cache {cache.cache_id} has no pixels of {len(without)} usable slices, the first "
            f"{slices['image_id'].iloc[without[0]]!r}; run `ichtune prepare` again"
        )
    return ""
