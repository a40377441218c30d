import pytest

from ichtune.data.cache.check import check_cache


@pytest.fixture
def made(fake_workspace):
    workspace = fake_workspace()
    return workspace.layout.hu / str(workspace.about["cache_id"]), workspace.slices


def test_a_whole_cache_has_a_row_for_every_slice(made):
    folder, slices = made
    check = check_cache(folder, slices, read_checksums=True)
    assert (check.cache_id, check.n_rows, check.are_checksums_read, check.problem) == (
        folder.name,
        len(slices),
        True,
        "",
    )
    assert not check_cache(folder, slices, read_checksums=False).are_checksums_read


def test_another_number_of_rows_is_a_problem(made):
    folder, slices = made
    problem = check_cache(folder, slices.iloc[:-1], read_checksums=False).problem
    assert f"has {len(slices)} rows, the slice table has {len(slices) - 1}" in problem


def test_a_usable_slice_without_pixels_is_a_problem(made):
    folder, slices = made
    problem = check_cache(folder, slices.assign(status="ok"), read_checksums=False).problem
    assert "no pixels of 1 usable slices, the first 'ID_refused'" in problem


def test_a_changed_byte_is_a_problem_once_checksums_are_read(made):
    folder, slices = made
    shard = next(path for path in folder.iterdir() if path.name.startswith("00000.hu"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert check_cache(folder, slices, read_checksums=False).problem == ""
    check = check_cache(folder, slices, read_checksums=True)
    assert shard.name in check.problem
    assert not check.are_checksums_read


def test_a_missing_cache_is_a_problem(made):
    folder, slices = made
    assert "no finished HU cache" in check_cache(folder.with_name("gone"), slices, read_checksums=True).problem
