"""What a model of the second level is, in one file: arrays as safetensors with plain values in the header; no torch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ichtune.errors import DataError, StorageError
from ichtune.tables import SCHEMA_VERSION, whole_file
from ichtune.version import __version__


def save_state(path: Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """Write arrays and their JSON description as one file, whole or not at all.

    Raises:
        StorageError: the disk is full, or the folder may not be written.
    """
    header = {"schema_version": SCHEMA_VERSION, "ichtune_version": __version__, **about}
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    try:
        with whole_file(path) as temporary:
            temporary.touch()
            mode = temporary.stat().st_mode
            save_file(contiguous, temporary, metadata={"ichtune": json.dumps(header, sort_keys=True)})
            temporary.chmod(mode)  # safetensors makes a file that nobody else may read, whatever the umask says
    except SafetensorError as error:
        raise StorageError(f"cannot write {path}: {error}") from error


def load_state(path: Path, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what ``save_state`` wrote: arrays, and their description.

    Args:
        path: the file.
        kind: what its description must call it: ``weights`` (to predict with) or ``resume`` (to train on from).

    Raises:
        DataError: no such file, or not such a file of the second level.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist; run `ichtune stack` to make it")
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
            about = json.loads((file.metadata() or {})["ichtune"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise DataError(f"{path} is no file of the second level: {error!r}; run `ichtune stack` again") from error
    if about.get("kind") != kind:
        raise DataError(f"{path} must be of kind {kind!r}, got {about.get('kind')!r}; name another file")
    return arrays, about


def part(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Return the arrays whose name starts with ``prefix.``, without it."""
    start = f"{prefix}."
    return {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}


def with_prefix(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays with ``prefix.`` before every name."""
    return {f"{prefix}.{name}": array for name, array in arrays.items()}
