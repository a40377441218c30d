from pathlib import Path

import pytest

from ichtune.store.urls import folder_name, is_url


@pytest.mark.parametrize("place", ["s3://bucket/a", "gs://b", "file:///tmp/a", "memory://x", "abfss://c@a/b", "S3://B"])
def test_urls_are_told_from_paths(place: str) -> None:
    assert is_url(place)


@pytest.mark.parametrize("place", ["work", "./s3:/bucket", "/tmp/a", "C:/x", "a b://c", "", Path("s3://bucket/a")])
def test_paths_are_no_urls(place: str | Path) -> None:
    assert not is_url(place)


def test_a_url_has_one_folder_name_that_no_other_has_and_that_any_disk_takes() -> None:
    names = [
        folder_name(url) for url in ("s3://bucket/a", "s3://bucket/b", "gs://bucket/a", "s3://bucket//a", "s3://é?")
    ]

    assert len(set(names)) == len(names)
    assert folder_name("s3://bucket/a/") == folder_name("s3://bucket/a")
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.") for name in names)
    assert len(folder_name(f"s3://bucket/{'long/' * 200}")) < 80
