"""One safetensors file with plain values in its header, written whole or not at all; no torch, no pickle."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ichtune.errors import DataError, StorageError
from ichtune.tables import SCHEMA_VERSION, whole_file
from ichtune.version import __version__


def write_tensors(
    path: Path, save: Callable[[Path, dict[str, str]], None], about: Mapping[str, Any], what: str
) -> None:
    """Write tensors and their JSON description as one file.

    Args:
        path: the file.
        save: writes the tensors to a path, with the header's entries.
        about: what they are.
        what: as people call the file.

    Raises:
        StorageError: the disk is full, or the folder may not be written.
    """
    header = {"schema_version": SCHEMA_VERSION, "ichtune_version": __version__, **about}
    try:
        with whole_file(path) as temporary:
            temporary.touch()
            mode = temporary.stat().st_mode
            save(temporary, {"ichtune": json.dumps(header, sort_keys=True)})
            temporary.chmod(mode)  # safetensors makes a file that nobody else may read, whatever the umask says
    except SafetensorError as error:
        raise StorageError(f"cannot write the {what} {path}: {error}") from error


def read_tensors(
    path: Path, kind: str, framework: str, what: str, command: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what ``write_tensors`` wrote: tensors on the CPU, and their description.

    Args:
        path: the file.
        kind: what its description must call it.
        framework: ``pt`` for torch tensors, ``numpy`` for arrays.
        what: as people call the file.
        command: what makes it.

    Raises:
        DataError: no such file, or not such a file of ichtune.
    """
    if not path.is_file():
        raise DataError(f"{what} {path} does not exist; run `{command}` to make it")
    try:
        with safe_open(path, framework=framework) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
            about = json.loads((file.metadata() or {})["ichtune"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise DataError(f"{path} is no {what} of ichtune: {error!r}; run `{command}` again") from error
    if about.get("kind") != kind:
        raise DataError(f"{what} {path} must be of kind {kind!r}, got {about.get('kind')!r}; name another file")
    return tensors, about
