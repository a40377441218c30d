"""Embeddings of slices: the pooled features before the classifier, which a second level may learn from.

Dimension key: M networks, N slices, D embedding.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ichtune.errors import DataError
from ichtune.tables import write_parquet

_COLUMN = "embedding"


def write_embeddings(path: Path, image_ids: Sequence[str], e_MND: np.ndarray, inputs: Mapping[str, Any]) -> None:
    """Write one row a slice and network: ``image_id``, ``network`` and ``embedding``, a list of D numbers.

    They are float16, or float32 where one of them is too large for that.

    Args:
        path: parquet file.
        image_ids: of the N slices.
        e_MND: embeddings of M networks.
        inputs: ids of what they were made from, kept in the file's metadata.

    Raises:
        StorageError: the file cannot be written.
    """
    n_networks, n_slices, n_dimensions = e_MND.shape
    values = pa.array(as_kept(e_MND).reshape(-1))
    table = pa.table(
        {
            "image_id": pa.array(list(image_ids) * n_networks, pa.string()),
            "network": pa.array(np.repeat(np.arange(n_networks, dtype=np.int32), n_slices)),
            _COLUMN: pa.FixedSizeListArray.from_arrays(values, n_dimensions),
        }
    )
    write_parquet(table, path, inputs)


def as_kept(e_MND: np.ndarray) -> np.ndarray:
    """Return embeddings rounded as ``write_embeddings`` keeps them, which is how a second level has seen them."""
    kind = np.float16 if np.abs(e_MND).max(initial=0.0) < np.finfo(np.float16).max else np.float32
    return np.ascontiguousarray(e_MND, dtype=kind)


def read_embeddings(path: Path, image_ids: Sequence[str]) -> np.ndarray:
    """Return the embeddings of the given slices: (M, N, D), N in the order of ``image_ids``.

    Raises:
        DataError: no such file, or a slice that is not in it.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist; run `ichtune train --embeddings` to make it")
    table = pq.read_table(path, partitioning=None)
    column = table.column(_COLUMN).combine_chunks()
    e_RD = column.flatten().to_numpy().reshape(len(column), column.type.list_size)
    network_R = table.column("network").to_numpy()
    place = {
        image_id: row for row, image_id in enumerate(table.column("image_id").to_pylist()[: (network_R == 0).sum()])
    }
    missing = [image_id for image_id in image_ids if image_id not in place]
    if missing:
        raise DataError(f"{path} has no embedding of {len(missing)} slices, the first {missing[0]!r}")
    rows = np.array([place[image_id] for image_id in image_ids], dtype=int)
    return e_RD.reshape(int(network_R.max(initial=0)) + 1, len(place), column.type.list_size)[:, rows]
