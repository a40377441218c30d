"""Slices a second from DICOM files to a 256 px cache, beside the seed's method and beside what the bytes alone cost.

The seed's method is made anew from its description: for each of three windows a file is read once for its header and
once for its pixels, the window is stretched from its minimum to its maximum, the non-black box is cut out, and the
three are written as one PNG by Pillow.

The bound reads the bytes, resizes, writes raw values and flushes them to the disk at the end, as every shard of a cache
is; it looks at nothing. It is measured once more, and so is the gain of a second process, where the system has a folder
in memory, so that nothing waits for a disk.
"""

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from pydicom import dcmread

from benchmarks.head_slices import SIZE_PX, write_slices
from ichtune.data.cache.build import CacheSpec, build_cache
from ichtune.data.source_files import find_files

CACHE_PX = 256
N_FILES = 8000
N_WRITTEN = 2000
N_SEED_FILES = 60
N_POOL_FILES = 60_000
REPEATS = 3
MEMORY_FOLDER = Path("/dev/shm")
SEED_WINDOWS = ((40, 80), (80, 200), (200, 450))
_PIXEL_BYTES = SIZE_PX * SIZE_PX * 2


def measure() -> Iterator[tuple[str, str, str]]:
    """Yield the ratios of one core, then two processes beside one."""
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written = write_slices(folder / "dicom", N_WRITTEN)
        source = _names(written, folder / "source", N_FILES)
        paths = sorted(source.iterdir())
        ours, bound, seed = [], [], []
        for repeat in range(REPEATS):
            bound.append(_rate(partial(_bound, paths, folder / f"bound{repeat}"), N_FILES))
            ours.append(_rate(partial(_ours, source, folder / f"ours{repeat}"), N_FILES))
            seed.append(_rate(partial(_seed, paths[:N_SEED_FILES], folder / f"seed{repeat}"), N_SEED_FILES))
        per_second, how = statistics.median(ours), f"median of {REPEATS}; generated 512 px slices, files in memory"
        yield (
            "prepare to a 256 px cache beside the seed's method, slices a second, one core",
            f"{_ratio(ours, seed):.0f}",
            f"{per_second:.0f} /s; {how}",
        )
        yield (
            "prepare beside `read the bytes, resize, write, flush`, slices a second, one core",
            f"{_ratio(ours, bound):.2f}",
            f"bound {statistics.median(bound):.0f} /s; {how}",
        )
    with tempfile.TemporaryDirectory(dir=MEMORY_FOLDER if MEMORY_FOLDER.is_dir() else None) as name:
        folder = Path(name)
        written = write_slices(folder / "dicom", N_WRITTEN)
        where = f"all files in {folder.parent}"
        yield _beside_the_bound(written, folder, where)
        yield _two_processes(written, folder, where)


def _beside_the_bound(written: Path, folder: Path, where: str) -> tuple[str, str, str]:
    """The ratio to the bound; in a folder in memory writing costs no more than copying."""
    source = _names(written, folder / "source", N_FILES)
    paths = sorted(source.iterdir())
    ours, bound = [], []
    for _ in range(REPEATS):
        bound.append(_rate(partial(_bound, paths, folder / "bound"), N_FILES))
        ours.append(_rate(partial(_ours, source, folder / "ours"), N_FILES))
        shutil.rmtree(folder / "ours")
    how = f"{statistics.median(ours):.0f} /s beside {statistics.median(bound):.0f} /s; median of {REPEATS}; {where}"
    return "the same where no disk has to be waited for", f"{_ratio(ours, bound):.2f}", how


def _rate(work: Callable[[], None], n_files: int) -> float:
    start = time.perf_counter()
    work()
    return n_files / (time.perf_counter() - start)


def _ratio(rates: list[float], others: list[float]) -> float:
    return statistics.median(rate / other for rate, other in zip(rates, others, strict=True))


def _ours(source: Path, out: Path, n_processes: int = 1) -> None:
    build_cache(find_files(source), out, CacheSpec(CACHE_PX), n_processes=n_processes)


def _two_processes(written: Path, folder: Path, where: str) -> tuple[str, str, str]:
    many = _names(written, folder / "many", N_POOL_FILES)
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(REPEATS):
        for n_processes, measured in rates.items():
            measured.append(_rate(partial(_ours, many, folder / "pool", n_processes), N_POOL_FILES))
            shutil.rmtree(folder / "pool")
    how = f"median of {REPEATS}; {N_POOL_FILES} files, start of the processes included; {where}"
    return "prepare with two processes beside one, slices a second", f"{_ratio(rates[2], rates[1]):.2f}", how


def _names(written: Path, folder: Path, n_files: int) -> Path:
    """Many names of the same files: enough work that starting does not count, in little room."""
    folder.mkdir()
    paths = sorted(written.iterdir())
    for number in range(n_files):
        (folder / f"{number:06d}.dcm").hardlink_to(paths[number % len(paths)])
    return folder


def _bound(paths: list[Path], out: Path) -> None:
    with out.open("wb") as file:
        for path in paths:
            data = path.read_bytes()
            pixels = np.frombuffer(data, "<i2", offset=len(data) - _PIXEL_BYTES).reshape(SIZE_PX, SIZE_PX)
            file.write(cv2.resize(pixels, (CACHE_PX, CACHE_PX), interpolation=cv2.INTER_AREA).data)
        file.flush()
        os.fsync(file.fileno())


def _seed(paths: list[Path], out: Path) -> None:
    out.mkdir()
    for path in paths:
        image = np.stack([_seed_channel(path, *window) for window in SEED_WINDOWS], axis=-1)
        is_bright = (image > 0).all(axis=-1)
        rows, columns = np.flatnonzero(is_bright.any(axis=1)), np.flatnonzero(is_bright.any(axis=0))
        cut = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        Image.fromarray(cut.astype(np.uint8)).save(out / f"{path.stem}.png")


def _seed_channel(path: Path, centre: int, width: int) -> np.ndarray:
    """One window stretched over 0 to 255, float64, from a file that is read twice."""
    header = dcmread(path)
    hu = dcmread(path).pixel_array.astype(np.int32) * int(header.RescaleSlope) + int(header.RescaleIntercept)
    low, high = centre - width // 2, centre + width // 2
    hu[hu < low] = low
    hu[hu > high] = high
    return np.asarray((hu - np.min(hu)) / (np.max(hu) - np.min(hu)) * 255)


if __name__ == "__main__":
    for row in measure():
        print(*row, sep="  ")
