import pytest

from ichtune.errors import ConflictError
from ichtune.locks import only_one


def test_a_second_holder_is_refused_and_a_later_one_is_not(tmp_path):
    path = tmp_path / "folder" / ".lock"

    with only_one(path, "busy"), pytest.raises(ConflictError, match="busy"), only_one(path, "busy"):
        pass

    with only_one(path, "busy"):
        assert path.exists()
