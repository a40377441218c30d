"""The HU cache beside a folder of three-window PNG files: bytes a slice, and slices a second in random batches."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from benchmarks.head_slices import write_slices
from ichtune.data.cache.build import CacheSpec, build_cache
from ichtune.data.cache.hu_cache import HuCache
from ichtune.data.source_files import find_files

CACHE_PX = 256
N_SLICES = 1500
BATCH = 64
REPEATS = 9
WINDOWS = ((40, 80), (80, 200), (200, 450))


def measure() -> Iterator[tuple[str, str, str]]:
    """Yield bytes a slice, and the ratio of random reads."""
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = write_slices(folder / "dicom", N_SLICES)
        build = build_cache(find_files(source), folder / "hu", CacheSpec(CACHE_PX), n_processes=1)
        cache = HuCache(build.folder)
        pngs = _write_pngs(cache, folder / "png")
        ours = sum(path.stat().st_size for path in build.folder.iterdir()) / N_SLICES
        png = sum(path.stat().st_size for path in pngs) / N_SLICES
        yield (
            "bytes a slice at 256 px: cache of raw HU beside one three-window PNG",
            f"{ours / png:.2f}",
            f"{ours / 1024:.0f} kB beside {png / 1024:.0f} kB; generated slices with noise of 8 HU",
        )
        ratio, per_second = _reads(cache, pngs)
        yield (
            "random batches of 64 slices from the cache beside reading those PNG files, slices a second",
            f"{ratio:.0f}",
            f"median of {REPEATS}; {per_second:.0f} /s from the cache, one core, files in memory",
        )


def _write_pngs(cache: HuCache, folder: Path) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{row:06d}.png" for row in range(cache.n_rows)]
    for row, path in enumerate(paths):
        hu = cache.read(row).astype(np.float32)
        channels = [np.clip((hu - (c - w / 2)) / w, 0, 1) * 255 for c, w in WINDOWS]
        cv2.imwrite(str(path), np.stack(channels, axis=-1).astype(np.uint8))
    return paths


def _reads(cache: HuCache, pngs: list[Path]) -> tuple[float, float]:
    ratios, speeds = [], []
    rng = np.random.default_rng(7)
    for _ in range(REPEATS):
        batches = rng.permutation(N_SLICES)[: N_SLICES // BATCH * BATCH].reshape(-1, BATCH)
        ours = _rate(lambda b=batches: [cache.gather(rows) for rows in b], batches.size)
        few = batches[:12]
        theirs = _rate(lambda b=few: [np.stack([cv2.imread(str(pngs[row])) for row in rows]) for rows in b], few.size)
        ratios.append(ours / theirs)
        speeds.append(ours)
    return statistics.median(ratios), statistics.median(speeds)


def _rate(work: Callable[[], object], n_slices: int) -> float:
    start = time.perf_counter()
    work()
    return n_slices / (time.perf_counter() - start)


if __name__ == "__main__":
    for row in measure():
        print(*row, sep="  ")
