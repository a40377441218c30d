"""The HU cache: slices as raw int16 Hounsfield units, memory-mapped, row i being row i of the SliceTable.

A cache is a folder: flat shards of int16 (``00000.hu16``), beside each the rows that its files gave
(``00000.rows.parquet``), ``index.npy`` with shard, offset and shape of every row, and ``cache.json``, which
is written last and marks the cache as whole.
"""

import hashlib
import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from ichtune.errors import DataError

CACHE_JSON = "cache.json"
INDEX_FILE = "index.npy"
#: Layout of the folder; part of every cache_id.
CACHE_FORMAT = 1
HU_DTYPE = np.dtype("<i2")
INDEX_DTYPE = np.dtype([("shard", "<i4"), ("height", "<i4"), ("width", "<i4"), ("offset", "<i8")])
#: Shards kept mapped at once in one process: a map holds a file descriptor, and 1,024 is a usual limit.
MAX_OPEN_SHARDS = 256
_AGAIN = "run `ichtune prepare` again"


class HuCache:
    """Read side of one cache; cheap to open, safe to share between processes, pickled by its path.

    Args:
        folder: one cache, ``<workspace>/hu/<cache_id>``.

    Raises:
        DataError: no such cache, not whole, or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        about = read_about(self.folder)
        self.cache_id: str = about["cache_id"]
        self.size_px: int | None = about["size_px"]
        self._index = _read_index(self.folder, about)
        self.n_rows: int = len(self._index)
        self._shard_names: list[str] = [shard["name"] for shard in about["shards"]]
        self._shards: OrderedDict[int, np.ndarray] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.folder,))

    def shape(self, row: int) -> tuple[int, int] | None:
        """Return (H, W) of one row; None where there are no pixels because the file was refused."""
        entry = self._index[self._checked(row)]
        return (int(entry["height"]), int(entry["width"])) if entry["height"] else None

    def read(self, row: int) -> np.ndarray:
        """Return one slice.

        Returns:
            int16 (H, W), HU; a copy that may be changed.

        Raises:
            DataError: no such row, or a row without pixels.
        """
        return np.array(self._view(self._checked(row)), dtype=np.int16)

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Return a batch of slices of one shape.

        Args:
            rows: integers (n,), rows of the SliceTable.

        Returns:
            int16 (n, H, W), HU.

        Raises:
            DataError: a row without pixels, or slices of different shapes.
        """
        if not len(rows):
            return np.empty((0, self.size_px or 0, self.size_px or 0), dtype=np.int16)
        for row in (int(np.min(rows)), int(np.max(rows))):
            self._checked(row)
        entries = self._index[rows]
        heights, widths = entries["height"], entries["width"]
        if not heights.all():
            self._view(int(rows[int(np.argmin(heights))]))  # raises: no pixels
        if (heights != heights[0]).any() or (widths != widths[0]).any():
            raise DataError(
                f"slices of one batch must have one shape, got {_listed(entries)}; prepare them at one size: "
                "`ichtune prepare ... --size 256`"
            )
        batch = np.empty((len(rows), heights[0], widths[0]), dtype=np.int16)
        n_values = int(heights[0]) * int(widths[0])
        places = zip(entries["shard"].tolist(), entries["offset"].tolist(), strict=True)
        for place, (shard, offset) in enumerate(places):
            batch[place].reshape(-1)[:] = self._shard(shard)[offset : offset + n_values]
        return batch

    def _checked(self, row: int) -> int:
        if not 0 <= row < self.n_rows:
            raise DataError(f"the HU cache {self.cache_id} has rows 0 to {self.n_rows - 1}, got row {row}")
        return int(row)

    def _view(self, row: int) -> np.ndarray:
        shard, height, width, offset = self._index[row].item()
        if not height:
            raise DataError(
                f"row {row} of the HU cache {self.cache_id} has no pixels: its file was refused, see "
                "`reason` in the slice table"
            )
        return self._shard(shard)[offset : offset + height * width].reshape(height, width)

    def _shard(self, shard: int) -> np.ndarray:
        """The mapped values of one shard; the one opened first is let go when too many are open."""
        found = self._shards.get(shard)
        if found is not None:
            return found
        path = self.folder / self._shard_names[shard]
        try:
            mapped = np.memmap(path, dtype=HU_DTYPE, mode="r").view(np.ndarray)
        except (OSError, ValueError) as error:
            raise DataError(f"cannot map {path} ({error}); {_AGAIN}") from error
        self._shards[shard] = mapped
        if len(self._shards) > MAX_OPEN_SHARDS:
            self._shards.popitem(last=False)
        return mapped


def _listed(entries: np.ndarray) -> str:
    shapes = sorted(set(zip(entries["height"].tolist(), entries["width"].tolist(), strict=True)))
    return ", ".join(f"{height} x {width}" for height, width in shapes)


def read_about(folder: Path) -> dict[str, Any]:
    """Read ``cache.json`` and check that every shard is there at its full length.

    Raises:
        DataError: absent, unfinished, of another format, or a shard is missing or cut short.
    """
    path = folder / CACHE_JSON
    if not path.is_file():
        raise DataError(f"{folder} is no finished HU cache: {CACHE_JSON} is missing; {_AGAIN}, it continues")
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path} ({error}); {_AGAIN}") from error
    if about.get("format") != CACHE_FORMAT:
        raise DataError(f"{path} has format {about.get('format')!r}, expected {CACHE_FORMAT}; {_AGAIN}")
    for shard in about["shards"]:
        shard_path = folder / shard["name"]
        n_bytes = shard_path.stat().st_size if shard_path.is_file() else -1
        if n_bytes != shard["n_bytes"]:
            held = "is missing" if n_bytes < 0 else f"has {n_bytes} bytes, expected {shard['n_bytes']}"
            raise DataError(f"{shard_path} {held}; remove {folder} and {_AGAIN}")
    return dict(about)


def verify_cache(folder: Path) -> None:
    """Read every byte of a cache and compare it with the checksums.

    Raises:
        DataError: a shard or the index is damaged.
    """
    about = read_about(folder)
    _read_index(folder, about)
    for shard in about["shards"]:
        if file_sha256(folder / shard["name"]) != shard["sha256"]:
            raise DataError(f"{folder / shard['name']} is damaged: its checksum differs; remove {folder} and {_AGAIN}")


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_index(folder: Path, about: dict[str, Any]) -> np.ndarray:
    path = folder / INDEX_FILE
    try:
        is_whole = file_sha256(path) == about["index_sha256"]
        index = np.load(path) if is_whole else None
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path} ({error}); remove {folder} and {_AGAIN}") from error
    if index is None or index.dtype != INDEX_DTYPE or len(index) != about["n_rows"]:
        raise DataError(f"{path} is damaged: its checksum differs; remove {folder} and {_AGAIN}")
    return index
