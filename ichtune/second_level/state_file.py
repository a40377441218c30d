"""What a model of the second level is, in one file: arrays as safetensors with plain values in the header; no torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from ichtune.training.tensor_file import read_tensors, write_tensors

#: What people call such a file.
WHAT = "second-level model"


def save_state(path: Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """Write arrays and their JSON description as one file, whole or not at all.

    Raises:
        StorageError: the disk is full, or the folder may not be written.
    """
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    write_tensors(path, lambda file, header: save_file(contiguous, file, metadata=header), about, WHAT)


def load_state(path: Path, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what ``save_state`` wrote: arrays, and their description.

    Args:
        path: the file.
        kind: what its description must call it: ``weights`` (to predict with) or ``resume`` (to train on from).

    Raises:
        DataError: no such file, or not such a file of the second level.
    """
    return read_tensors(path, kind, "numpy", WHAT, "ichtune stack")


def part(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Return the arrays whose name starts with ``prefix.``, without it."""
    start = f"{prefix}."
    return {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}


def with_prefix(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays with ``prefix.`` before every name."""
    return {f"{prefix}.{name}": array for name, array in arrays.items()}
