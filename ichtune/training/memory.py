"""Memory of a device: keeping to a share of it, telling that there is none left, and what a run takes at its peak."""

import contextlib
import gc
import math
import os
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ichtune.errors import ConfigError, NothingUsableError

if TYPE_CHECKING:
    from ichtune.training.loop import TrainingRun

MIB = 2**20
#: What a process takes of a GPU beside its tensors, MiB: CUDA's context and the libraries' kernels, by the larger of
#: what current drivers take (300 to 600), with something to spare.
CONTEXT_MB = 768.0
#: Share by which a peak measured over a few steps is enlarged: shorter batches ask for blocks of other sizes.
MARGIN = 0.1
#: Held-out slices that ``peak_memory_mb`` predicts: at least one full batch of prediction.
_VALID_SLICES = 256
#: What errors of too little memory say that are no class of their own. The last but one pair is cuDNN's way of saying
#: that no algorithm's workspace fits, the last pair oneDNN's, on a CPU, of having got no memory for a kernel.
_OUT_OF_MEMORY = (
    "cuda out of memory",
    "cuda error: out of memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "defaultcpuallocator: can't allocate memory",
    "defaultcpuallocator: not enough memory",
    "unable to find a valid cudnn algorithm",
    "unable to find an engine to execute this computation",
    "could not create a memory object",
    "could not execute a primitive",
)
#: oneDNN's again; a longer message of the same beginning means another thing.
_NO_PRIMITIVE = "could not create a primitive"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error, or what it was raised from, says that a device or this machine has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    told = str(error).strip().lower() if isinstance(error, RuntimeError) else ""
    if told == _NO_PRIMITIVE or any(text in told for text in _OUT_OF_MEMORY):
        return True
    return error.__cause__ is not None and is_out_of_memory(error.__cause__)


def free_memory(device: torch.device) -> None:
    """Give back to a GPU what is held but not used; nothing to do elsewhere."""
    if device.type == "cuda":
        gc.collect()  # tensors in cycles, such as those of an error's frames
        torch.cuda.empty_cache()


def hold_to_share(device: torch.device, share: float = 1.0, gpu_memory_mb: float | None = None) -> float | None:
    """Let this process take no more than its share of a GPU's memory, from now on; elsewhere nothing is held.

    Whoever asks for more gets ``torch.OutOfMemoryError``, and its neighbours on the GPU are spared. What an earlier
    trial of the same process left is given back first, and its peak forgotten. The context that CUDA itself needs
    counts into the share.

    Args:
        device: the GPU, or the CPU, where nothing is done.
        share: of the device's memory; 1 or more is all of it.
        gpu_memory_mb: MiB in place of the share.

    Returns:
        MiB that tensors may take; None on a CPU.

    Raises:
        ConfigError: the share does not even hold the context.
    """
    if device.type != "cuda":
        return None
    index = torch.cuda.current_device() if device.index is None else device.index
    about = torch.cuda.get_device_properties(index)
    total_mb = about.total_memory / MIB
    asked_mb = min(share, 1.0) * total_mb if gpu_memory_mb is None else min(gpu_memory_mb, total_mb)
    tensors_mb = total_mb if asked_mb >= total_mb else asked_mb - CONTEXT_MB
    if tensors_mb <= 0:
        raise ConfigError(
            f"{asked_mb:.0f} MiB of {about.name}'s {total_mb:.0f} MiB hold no trial beside the {CONTEXT_MB:.0f} MiB "
            f"that CUDA itself takes; give each trial more of the GPU by `gpu` or `gpu_memory` in `resources`"
        )
    free_memory(device)
    torch.cuda.reset_peak_memory_stats(index)
    torch.cuda.set_per_process_memory_fraction(tensors_mb / total_mb, index)
    return tensors_mb


def in_parts_that_fit(work: Callable[[int, int], None], n: int, at_a_time: int, device: torch.device) -> int:
    """Do work on n items, as many at a time as memory holds: a part that does not fit is halved and done again.

    Args:
        work: does items ``start`` to ``stop``, and may be told to do some of them again.
        n: items in all.
        at_a_time: items that are tried at a time.
        device: whose memory is given back before another try.

    Returns:
        Items at a time that did fit; at most ``at_a_time``.

    Raises:
        NothingUsableError: not even one item fits.
    """
    done = 0
    while done < n:
        stop = min(done + at_a_time, n)
        try:
            work(done, stop)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if stop - done == 1:
                raise NothingUsableError(
                    f"out of memory on {device} with a single slice: {first_line(error)}. Lower image_px or take a "
                    f"smaller network, or give each trial more memory"
                ) from error
        else:
            done = stop
            continue
        # here the error is gone, and with it the frames that held on to memory
        at_a_time = math.ceil((stop - done) / 2)
        free_memory(device)
    return at_a_time


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def peak_memory_mb(run: "TrainingRun", n_steps: int = 2) -> float:
    """Return what a run takes of its device's memory at its peak: training steps, judging, and a batch of validation.

    The run's weights change, its history does not. Measure in a process that did nothing else before.

    On a GPU it is what torch's allocator held at most, with ``MARGIN``, and CUDA's context: what a trial needs in all.
    On a CPU it is by how much the process's resident memory grew, without what imports and tables took before. That is
    approximate: pages of the cache that were read count as well, although processes share them.

    Args:
        run: at its start; of a recipe without frozen epochs, in which less is kept.
        n_steps: training steps, at least 2: the optimizer's state comes with the first.

    Returns:
        MiB; infinity where the device has not got enough to do the steps as the recipe says.
    """
    before_mb = _start_of_peak(run.device)
    try:
        _train_and_validate(run, max(2, n_steps))
    except Exception as error:
        if not (is_out_of_memory(error) or isinstance(error, NothingUsableError)):
            raise
        return math.inf
    if run.is_short_of_memory:
        return math.inf
    later_mb = _later_mb(run)
    if run.device.type == "cuda":
        return (torch.cuda.max_memory_reserved(run.device) / MIB + later_mb) * (1.0 + MARGIN) + CONTEXT_MB
    return max(0.0, _highest_resident_mb() - before_mb) + later_mb


def _train_and_validate(run: "TrainingRun", n_steps: int) -> None:
    kept = None
    run.network.train()
    for step, batch in enumerate(islice(run.endless(), n_steps)):
        if step == 1:
            kept = run.snapshot()  # a rung that is judged on a branch holds a second copy of all states
        run.step(batch)
    run.predict(run.valid_rows[:_VALID_SLICES])
    del kept


def _later_mb(run: "TrainingRun") -> float:
    """What later epochs hold that the first does not: snapshots, kept and as networks; the weights beside a mean."""
    n_copies = 2 * (run.recipe.snapshots - 1) + int(run.recipe.swa_start < 1)
    weights = run.network.state_dict().values()
    return n_copies * sum(tensor.numel() * tensor.element_size() for tensor in weights) / MIB


def _start_of_peak(device: torch.device) -> float:
    """Forget earlier peaks, and return what this process holds in host memory, MiB."""
    if device.type == "cuda":
        free_memory(device)
        torch.cuda.reset_peak_memory_stats(device)
        return 0.0
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # Linux: the peak starts anew
    return resident_mb()


def resident_mb() -> float:
    """Return the host memory that this process holds, MiB; where that is not told, the most that it has held."""
    try:
        resident_pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return _highest_resident_mb()
    return resident_pages * os.sysconf("SC_PAGE_SIZE") / MIB


def _highest_resident_mb() -> float:
    """Most host memory that this process has held, MiB."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB
