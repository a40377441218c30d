import pytest

from ichtune.errors import ConflictError
from ichtune.locks import is_held, only_one


def test_a_second_holder_is_refused_and_a_later_one_is_not(tmp_path):
    path = tmp_path / "folder" / ".lock"

    with only_one(path, "busy"), pytest.raises(ConflictError, match="busy"), only_one(path, "busy"):
        pass

    with only_one(path, "busy"):
        assert path.exists()


def test_whether_a_lock_is_held_can_be_asked_without_taking_it(tmp_path):
    path = tmp_path / ".lock"

    assert not is_held(path)
    with only_one(path, "busy"):
        assert is_held(path)
    assert not is_held(path)
