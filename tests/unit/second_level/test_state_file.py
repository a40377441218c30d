"""One file for what a model is: the same bits back, whole or not at all, and nothing else taken for it."""

import math
from pathlib import Path

import numpy as np
import pytest

from ichtune.errors import DataError, StorageError
from ichtune.second_level.state_file import load_state, part, save_state, with_prefix

ARRAYS = {
    "a.floats": np.array([[0.1, math.nan], [math.inf, -0.0]]),
    "a.turned": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "b.whole": np.array([2**62, -1]),
    "b.flags": np.array([True, False]),
    "b.none": np.empty((0, 6)),
    "one": np.array(0.1),
}


def test_the_same_bits_come_back(tmp_path: Path) -> None:
    about = {"kind": "resume", "values": {"gap": 0.1, "names": ["x"], "none": None}}
    save_state(tmp_path / "new" / "state.safetensors", ARRAYS, about)
    arrays, told = load_state(tmp_path / "new" / "state.safetensors", "resume")
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert arrays[name].shape == array.shape
        assert arrays[name].tobytes() == array.tobytes()
    assert about.items() <= told.items()


def test_others_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    save_state(path, ARRAYS, {"kind": "weights"})
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    with pytest.raises(DataError, match=r"does not exist; run `ichtune stack`"):
        load_state(path, "weights")
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match="no second-level model"):
        load_state(path, "weights")
    save_state(path, ARRAYS, {"kind": "resume"})
    with pytest.raises(DataError, match="must be of kind 'weights', got 'resume'"):
        load_state(path, "weights")


def test_a_folder_that_cannot_be_made_is_a_matter_of_storage(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(StorageError):
        save_state(tmp_path / "taken" / "state.safetensors", ARRAYS, {"kind": "weights"})


def test_parts_are_told_apart_by_their_first_name() -> None:
    parts = part(ARRAYS, "a")
    assert parts.keys() == {"floats", "turned"}
    assert with_prefix("a", parts).keys() == {"a.floats", "a.turned"}
