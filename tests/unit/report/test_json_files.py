import pytest

from ichtune.errors import DataError
from ichtune.report.json_files import read_json, read_json_object


def test_an_absent_file_is_none(tmp_path):
    assert read_json(tmp_path / "x.json", "blend") is None
    assert read_json_object(tmp_path / "x.json", "blend") is None


def test_what_is_written_is_read(tmp_path):
    (tmp_path / "x.json").write_text('{"a": [1]}', encoding="utf-8")
    assert read_json_object(tmp_path / "x.json", "blend") == {"a": [1]}


@pytest.mark.parametrize("text", ['{"a": ', "[1, 2]", "\x00"])
def test_a_damaged_file_names_itself_and_the_command_that_writes_it(tmp_path, text):
    path = tmp_path / "blend.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"blend\.json .*run `ichtune blend` again"):
        read_json_object(path, "blend")


def test_bytes_that_are_no_text_are_a_data_error(tmp_path):
    (tmp_path / "x.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="no readable JSON"):
        read_json(tmp_path / "x.json", "blend")
