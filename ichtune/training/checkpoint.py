"""Checkpoints: tensors in one safetensors file with the rest in its header, written whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ichtune.data.cache.hu_cache import file_sha256
from ichtune.errors import DataError
from ichtune.tables import write_json
from ichtune.training.tensor_file import read_tensors, write_tensors

#: What people call such a file.
WHAT = "checkpoint"


def save_checkpoint(
    path: Path,
    tensors: Mapping[str, torch.Tensor],
    about: Mapping[str, Any],
    sidecar: Mapping[str, Any] | None = None,
) -> None:
    """Write tensors and their JSON description as one file, atomically.

    Args:
        path: the file, ``.safetensors``.
        tensors: what to keep.
        about: what it is; lies in the file's header.
        sidecar: further facts; where given, they and ``about`` are also written as JSON beside the file, with the
            SHA-256 of the tensors' file, so that people and other tools can read them.

    Raises:
        StorageError: the disk is full or the folder may not be written.
    """
    contiguous = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_tensors(path, lambda file, header: save_file(contiguous, file, metadata=header), about, WHAT)
    if sidecar is not None:
        write_json({**about, **sidecar, "sha256": file_sha256(path)}, sidecar_path(path))


def sidecar_path(path: Path) -> Path:
    """Return where the JSON sidecar of a weights file lies."""
    return path.with_suffix(".json")


def read_sidecar(path: Path) -> dict[str, Any]:
    """Read the sidecar of a weights file.

    Raises:
        DataError: there is none, or it belongs to another file.
    """
    beside = sidecar_path(path)
    try:
        about = json.loads(beside.read_text(encoding="utf-8"))
        told = about["sha256"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{beside} is no record of what {path.name} is and has learnt from: {error!r}") from error
    if told != file_sha256(path):
        raise DataError(f"{beside} describes another file than {path.name}; bring the two of one training")
    return dict(about)


def load_checkpoint(path: Path, kind: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read what ``save_checkpoint`` wrote: tensors on the CPU, and their description.

    Args:
        path: the file.
        kind: what its description must call it: ``weights`` (to predict with) or ``resume`` (to train on from).

    Raises:
        DataError: no such file, or not such a checkpoint of ichtune.
    """
    return read_tensors(path, kind, "pt", WHAT, "ichtune train")


def with_prefix(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors with ``prefix.`` before every name."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def without_prefix(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors whose name starts with ``prefix.``, without it."""
    start = f"{prefix}."
    return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Flatten an optimizer's state to tensors named ``<parameter number>.<key>``."""
    return {
        f"{number}.{key}": torch.as_tensor(value)
        for number, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
        if value is not None
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put back what ``optimizer_tensors`` flattened."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        number, key = name.split(".", 1)
        like = parameters[int(number)]
        # in the memory order of the parameter, channels last or not: fused steps walk both as they lie
        ordered = torch.empty_like(like, dtype=tensor.dtype) if tensor.shape == like.shape else None
        state.setdefault(int(number), {})[key] = tensor if ordered is None else ordered.copy_(tensor)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
