import numpy as np
import pytest
from safetensors.numpy import save_file

from ichtune.errors import DataError
from ichtune.training.tensor_file import read_tensors, write_tensors


def write(path, arrays, **about):
    write_tensors(path, lambda file, header: save_file(arrays, file, metadata=header), about, "thing")


def test_tensors_and_their_description_read_back(tmp_path):
    path = tmp_path / "a.safetensors"
    write(path, {"x": np.arange(3.0)}, kind="weights", epochs=[1, 2])
    for framework in ("numpy", "pt"):
        tensors, about = read_tensors(path, "weights", framework, "thing", "make it")
        assert np.asarray(tensors["x"]).tolist() == [0, 1, 2]
        assert (about["kind"], about["epochs"]) == ("weights", [1, 2])
        assert {"schema_version", "ichtune_version"} <= set(about)
    assert [one.name for one in tmp_path.iterdir()] == ["a.safetensors"]


def test_what_cannot_be_read_says_what_to_do(tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(DataError, match=r"thing .*a\.safetensors does not exist; run `make it`"):
        read_tensors(path, "weights", "numpy", "thing", "make it")
    path.write_bytes(b"no tensors")
    with pytest.raises(DataError, match=r"is no thing of ichtune: .*run `make it` again"):
        read_tensors(path, "weights", "numpy", "thing", "make it")
    save_file({"x": np.zeros(1)}, path)
    with pytest.raises(DataError, match="is no thing of ichtune"):
        read_tensors(path, "weights", "numpy", "thing", "make it")
    write(path, {"x": np.zeros(1)}, kind="resume")
    with pytest.raises(DataError, match="must be of kind 'weights', got 'resume'"):
        read_tensors(path, "weights", "numpy", "thing", "make it")
