from ichtune.data.phantom.folder import MANIFEST, find_phantom


def test_a_phantom_is_known_by_its_folder_and_by_those_of_its_files(tmp_path, monkeypatch):
    train = tmp_path / "made" / "stage_2_train"
    train.mkdir(parents=True)
    (tmp_path / "made" / MANIFEST).write_text("{}", encoding="utf-8")
    assert find_phantom(tmp_path / "made") == tmp_path / "made"
    assert find_phantom(train) == tmp_path / "made"
    monkeypatch.chdir(train)
    assert find_phantom(train.relative_to(train)) == tmp_path / "made"


def test_other_folders_are_no_phantom(tmp_path):
    (tmp_path / MANIFEST).write_text("{}", encoding="utf-8")
    assert find_phantom(tmp_path / "a" / "b") is None
    assert find_phantom(tmp_path.parent) is None
