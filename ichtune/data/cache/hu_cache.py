"""The HU cache: slices as exact int16 Hounsfield units, compressed one by one, row i being row i of the SliceTable.

A cache is a folder: flat shards (``00000.hu.b2``) of blosc2 buffers, one a slice; beside each shard the rows that
its files gave (``00000.rows.parquet``); ``index.npy``, which says for every row where its buffer lies; and
``cache.json``, which is written last and marks the cache as whole. Shards are memory-mapped and never change, so
that any number of processes can read them at once.
"""

import errno
import hashlib
import json
import mmap
from collections import OrderedDict
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import xxhash

from ichtune.errors import DataError

CACHE_JSON = "cache.json"
INDEX_FILE = "index.npy"
#: Layout of the folder; part of every cache_id. 1 was raw int16.
CACHE_FORMAT = 2
HU_DTYPE = np.dtype("<i2")
#: Where a slice lies: ``offset`` and ``n_bytes`` of its buffer within the shard, and ``checksum``, the xxh3 of
#: those bytes; n_bytes is 0 where there are no pixels.
INDEX_DTYPE = np.dtype(
    [
        ("shard", "<i4"),
        ("height", "<i4"),
        ("width", "<i4"),
        ("n_bytes", "<i4"),
        ("offset", "<i8"),
        ("checksum", "<u8"),
    ]
)
#: Shards kept mapped at once by one cache: a map holds a file descriptor, and 1,024 of them is a usual limit. The
#: competition has 427 shards; a slice from a shard that must be mapped first takes three times as long.
MAX_OPEN_SHARDS = 448
#: Both halves of each value in one stream, the slice in one block: a third of the time of the lowest level, 1 % larger.
_CODEC = {"level": 9, "compressor": "lz4", "shuffle": 1, "typesize": 2, "splitmode": "never", "numthreads": 1}
# the codec takes and fills arrays; its type stubs know of bytes only
_encode: Any = imagecodecs.blosc2_encode
_decode: Any = imagecodecs.blosc2_decode
_AGAIN = "run `ichtune prepare` again"


def pack_slice(hu: np.ndarray) -> bytes:
    """Compress one slice without loss; the same slice always gives the same bytes.

    Args:
        hu: int16 (H, W), HU.

    Returns:
        A blosc2 buffer: bytes shuffled, then lz4.
    """
    values = np.ascontiguousarray(hu, dtype=HU_DTYPE)
    return bytes(_encode(values, **_CODEC))


def checksum(packed: bytes | memoryview) -> int:
    """Return the xxh3 of a packed slice, 64 bits."""
    return xxhash.xxh3_64_intdigest(packed)


def index_of(slices: list[bytes], shapes: list[tuple[int, int]]) -> np.ndarray:
    """Return the index of one shard that holds packed slices one after the other; empty bytes mean no pixels.

    Args:
        slices: packed slices, in row order.
        shapes: (H, W) of each; (0, 0) without pixels.

    Returns:
        ``INDEX_DTYPE`` (n,), shard 0.
    """
    index = np.zeros(len(slices), dtype=INDEX_DTYPE)
    index["height"], index["width"] = np.array(shapes).reshape(-1, 2).T
    index["n_bytes"] = [len(packed) for packed in slices]
    index["offset"] = np.cumsum(index["n_bytes"], dtype=np.int64) - index["n_bytes"]
    index["checksum"] = [checksum(packed) if packed else 0 for packed in slices]
    return index


class HuCache:
    """Read side of one cache; cheap to open, safe to share between processes, pickled by its path.

    Args:
        folder: one cache, ``<workspace>/hu/<cache_id>``.

    Attributes:
        cache_id: its name.
        size_px: side of its slices; None where each keeps its own matrix.
        crop: which part of each slice it holds, ``"none"`` for all of it.
        rows_id: equal for all caches of one state of the source, whatever their size and crop.
        n_rows: rows, those without pixels among them.

    Raises:
        DataError: no such cache, not whole, of an older format, or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        about = read_about(self.folder)
        self.cache_id: str = about["cache_id"]
        self.size_px: int | None = about["size_px"]
        self.crop: str = about["crop"]
        self.rows_id: str = about["rows_id"]
        self._index = _read_index(self.folder, about)
        self.n_rows: int = len(self._index)
        self._shard_names: list[str] = [shard["name"] for shard in about["shards"]]
        self._shards: OrderedDict[int, memoryview] = OrderedDict()

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
        entry = self._index[self._checked(row)]
        if not entry["height"]:
            raise self._no_pixels(row)
        hu = np.empty((entry["height"], entry["width"]), dtype=HU_DTYPE)
        self._unpack(entry.item(), hu.view(np.uint8).reshape(-1), row)
        return hu

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
            raise self._no_pixels(int(rows[int(np.argmin(heights))]))
        if (heights != heights[0]).any() or (widths != widths[0]).any():
            raise DataError(
                f"slices of one batch must have one shape, got {_listed(entries)}; prepare them at one size: "
                "`ichtune prepare ... --size 256`"
            )
        batch = np.empty((len(rows), heights[0], widths[0]), dtype=HU_DTYPE)
        memory = batch.view(np.uint8).reshape(len(rows), -1)
        for place, entry in enumerate(entries.tolist()):
            self._unpack(entry, memory[place], int(rows[place]))
        return batch

    def _checked(self, row: int) -> int:
        if not 0 <= row < self.n_rows:
            raise DataError(f"the HU cache {self.cache_id} has rows 0 to {self.n_rows - 1}, got row {row}")
        return int(row)

    def _no_pixels(self, row: int) -> DataError:
        return DataError(
            f"row {row} of the HU cache {self.cache_id} has no pixels: its file was refused, see `reason` in the "
            "slice table"
        )

    def _unpack(self, entry: tuple[int, ...], out: np.ndarray, row: int) -> None:
        """Decompress one slice into ``out``, uint8 (H * W * 2,); what is damaged never reaches the decoder."""
        shard, _, _, n_bytes, offset, expected = entry
        packed = self._shard(shard)[offset : offset + n_bytes]
        if checksum(packed) != expected:
            raise self._damaged(shard, row)
        try:
            _decode(packed, numthreads=1, out=out)
        except (RuntimeError, ValueError) as error:
            raise self._damaged(shard, row) from error

    def _damaged(self, shard: int, row: int) -> DataError:
        path = self.folder / self._shard_names[shard]
        return DataError(f"{path} is damaged at row {row} of its cache; remove {self.folder} and {_AGAIN}")

    def _shard(self, shard: int) -> memoryview:
        """The mapped bytes of one shard; the one opened first is let go when too many are open."""
        found = self._shards.get(shard)
        if found is not None:
            return found
        path = self.folder / self._shard_names[shard]
        try:
            try:
                mapped = _mapped(path)
            except OSError as error:
                if error.errno != errno.EMFILE or not self._shards:
                    raise
                self._shards.clear()
                mapped = _mapped(path)
        except (OSError, ValueError) as error:
            raise DataError(f"cannot map {path} ({error}); {_AGAIN}") from error
        self._shards[shard] = mapped
        if len(self._shards) > MAX_OPEN_SHARDS:
            self._shards.popitem(last=False)
        return mapped


def _mapped(path: Path) -> memoryview:
    with path.open("rb", buffering=0) as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


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
        raise DataError(
            f"{path} has format {about.get('format')!r}, expected {CACHE_FORMAT}: another version of ichtune wrote "
            f"it; {_AGAIN} to build a new cache beside it"
        )
    for shard in about["shards"]:
        shard_path = folder / shard["name"]
        n_bytes = shard_path.stat().st_size if shard_path.is_file() else -1
        if n_bytes != shard["n_bytes"]:
            held = "is missing" if n_bytes < 0 else f"has {n_bytes} bytes, expected {shard['n_bytes']}"
            raise DataError(f"{shard_path} {held}; remove {folder} and {_AGAIN}")
    return dict(about)


def check_rows(folder: Path, about: dict[str, Any]) -> None:
    """Compare what the files told with its checksums.

    Raises:
        DataError: the rows of a shard are missing or damaged.
    """
    for shard in about["shards"]:
        path = folder / shard["rows"] if "rows" in shard else None  # None: pixels only, made without files
        if path and not (path.is_file() and file_checksum(path) == shard["rows_checksum"]):
            raise DataError(f"{path} is missing or damaged: its checksum differs; {_AGAIN}, it builds the cache anew")


def verify_cache(folder: Path) -> None:
    """Read every byte of a cache and compare it with the checksums.

    Raises:
        DataError: a shard, its rows or the index is damaged.
    """
    about = read_about(folder)
    _read_index(folder, about)
    check_rows(folder, about)
    for shard in about["shards"]:
        if file_checksum(folder / shard["name"]) != shard["checksum"]:
            raise DataError(f"{folder / shard['name']} is damaged: its checksum differs; remove {folder} and {_AGAIN}")


def file_checksum(path: Path) -> str:
    """Return the xxh3 of a file, 128 bits in hexadecimal: finds damage at the speed of the disk, proves no origin."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


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
