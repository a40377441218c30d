"""Peak memory of ``ichtune prepare`` at 1,000 and at 50,000 slices: of its main process and of its largest worker."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.head_slices import write_slices

COUNTS = (1_000, 50_000)
SIZE_PX = 32
_SCRIPT = """
import json, resource, sys
from pathlib import Path
from ichtune.data.prepare import PrepareSpec, prepare
if __name__ == "__main__":
    summary = prepare(PrepareSpec(Path(sys.argv[1]), None, Path(sys.argv[2]), size_px=32, n_processes=2))
    status = Path("/proc/self/status").read_text()  # getrusage would count the process that started this one
    own = int(status.split("VmHWM:")[1].split()[0])
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(json.dumps([summary.slices, own / 1024, workers / 1024]))
"""


def measure() -> Iterator[tuple[str, str, str]]:
    """Yield the growth of the peak from the small set to the large one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "run.py").write_text(_SCRIPT, encoding="utf-8")
        peaks = [_peak(folder, count) for count in COUNTS]
    (small, small_worker), (large, large_worker) = peaks
    yield (
        "peak memory of prepare, main process: 50,000 slices beside 1,000",
        f"{large / small:.2f}",
        f"{large:.0f} MB beside {small:.0f} MB; generated slices of {SIZE_PX} px",
    )
    yield (
        "peak memory of prepare, largest worker: 50,000 slices beside 1,000",
        f"{large_worker / small_worker:.2f}",
        f"{large_worker:.0f} MB beside {small_worker:.0f} MB",
    )


def _peak(folder: Path, count: int) -> tuple[float, float]:
    source = write_slices(folder / f"dicom{count}", count, size_px=SIZE_PX)
    command = [sys.executable, str(folder / "run.py"), str(source), str(folder / f"work{count}")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    n_slices, own, workers = json.loads(done.stdout)
    if n_slices != count:
        raise RuntimeError(f"{n_slices} slices of {count} were prepared")
    return own, workers


if __name__ == "__main__":
    for row in measure():
        print(*row, sep="  ")
