"""Declared settings: every kind is checked and brought into one form; lengths of time and amounts of memory."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from ichtune.space.setting_fields import (
    SettingError,
    above_zero,
    amount,
    check_search_name,
    check_settings,
    check_whole,
    memory_mb,
    name,
    names,
    one_of,
    read_memory_mb,
    read_time_s,
    special,
    time_s,
    whole,
)


@dataclass(frozen=True)
class Every:
    """One setting of each kind."""

    count: int = whole(3, 1, 9)
    limit: int | None = whole(None, 1)
    length: float = above_zero(0.5, 8.0)
    share: float = amount(1.0)
    judge: str = one_of("last", ("last", "short"))
    word: str = name("tpe")
    words: tuple[str, ...] = names()
    time: float | None = time_s()
    memory: float | None = memory_mb()
    own: str = special("anything")
    inner: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_settings(self)


def test_defaults_pass_and_every_kind_takes_its_one_form() -> None:
    assert Every() == Every(limit=None, time=None, memory=None)
    told = Every(length=2, share=0, words="one", time="2m", memory="1GiB", own=3)  # type: ignore[arg-type]

    assert (told.length, told.share, told.words, told.time, told.memory) == (2.0, 0.0, ("one",), 120.0, 1024.0)
    assert all(isinstance(number, float) for number in (told.length, told.share))
    assert told.own == 3


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("count", 10, "must be a whole number, between 1 and 9, got 10"),
        ("count", None, "must be a whole number"),
        ("count", True, "must be a whole number"),
        ("limit", 0, "at least 1, got 0"),
        ("length", 0, "must be a number above 0 and at most 8, got 0"),
        ("length", "1", "must be a number above 0"),
        ("length", float("nan"), "must be a number above 0"),
        ("share", -0.1, "must be a number of at least 0, got -0.1"),
        ("judge", "lst", "must be one of last, short, got 'lst'. Did you mean 'last'"),
        ("judge", ["last"], "must be one of"),
        ("word", "", "must be a name"),
        ("words", ["a", 3], "must be a name of up to 100 letters .*, got 3"),
        ("words", ["a", "b/c"], "must be a name of up to 100 letters .*, got 'b/c'"),
        ("words", ["a", "a"], "must give each name once"),
    ],
)
def test_what_a_setting_may_not_be_is_refused_by_key(key: str, value: Any, message: str) -> None:
    with pytest.raises(SettingError, match=message) as caught:
        Every(**{key: value})
    assert caught.value.key == key


@pytest.mark.parametrize("written", ["a", "windows-2", "9.5_x", "A" * 100])
def test_names_of_searches(written: str) -> None:
    assert check_search_name("name", written) == written


@pytest.mark.parametrize("written", ["a/b", "../x", "", ".hidden", "-x", "with space", "ä", "x" * 101, "a\n", 3, None])
def test_what_is_no_name_of_a_search(written: Any) -> None:
    with pytest.raises(SettingError, match="must be a name of up to 100 letters"):
        check_search_name("name", written)


def test_a_whole_number_without_upper_bound() -> None:
    check_whole("k", 10**9, 2)
    with pytest.raises(SettingError, match="at least 2, got 1"):
        check_whole("k", 1, 2)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("6h", 21600),
        ("30m", 1800),
        ("30min", 1800),
        ("90s", 90),
        ("1h30m", 5400),
        ("1d", 86400),
        (20, 20),
        ("0.5h", 1800),
    ],
)
def test_lengths_of_time(written: Any, seconds: float) -> None:
    assert read_time_s(written) == seconds


@pytest.mark.parametrize("written", ["", "6x", "h", "30m1h", 0, -1, True, None, [1], "0s", float("nan")])
def test_what_is_no_length_of_time(written: Any) -> None:
    with pytest.raises(SettingError, match="6h, 30m, 90s"):
        read_time_s(written)


@pytest.mark.parametrize(
    ("written", "mib"),
    [("12GiB", 12288), ("12 gib", 12288), ("512MiB", 512), ("16GB", 16e9 / 2**20), ("100MB", 1e8 / 2**20), (800, 800)],
)
def test_amounts_of_memory(written: Any, mib: float) -> None:
    assert read_memory_mb(written) == pytest.approx(mib, rel=1e-12)


@pytest.mark.parametrize("written", ["", "12", "12G", "GiB", "-1GiB", "0MiB", 0, True, None, [1], float("nan")])
def test_what_is_no_amount_of_memory(written: Any) -> None:
    with pytest.raises(SettingError, match="12GiB, 800MiB"):
        read_memory_mb(written)
