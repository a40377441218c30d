import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest

from ichtune.data.cache.check import check_cache
from ichtune.data.cache.hu_cache import CACHE_JSON, file_checksum
from ichtune.errors import ConfigError, DataError, StorageError
from ichtune.search import staging
from ichtune.search.staging import StageProgress, stage_workspace
from ichtune.store.store import Store
from ichtune.workspace import Workspace

SOURCES = Path(staging.__file__).parents[2]


@pytest.fixture
def work(fake_workspace):
    """A workspace with a cache of several shards and a second cache."""
    workspace = fake_workspace()
    hu = workspace.layout.hu
    first = hu / "fakecache"
    for number in range(1, 4):
        extra = first / f"{number:05d}.hu.b2"
        extra.write_bytes(os.urandom(5000 + number))
        about = json.loads((first / CACHE_JSON).read_text())
        shard = {"name": extra.name, "n_bytes": extra.stat().st_size, "checksum": file_checksum(extra)}
        (first / CACHE_JSON).write_text(json.dumps({**about, "shards": [*about["shards"], shard]}))
    shutil.copytree(first, hu / "second")
    (hu / "second" / CACHE_JSON).write_text((first / CACHE_JSON).read_text().replace("fakecache", "second"))
    path = workspace.layout.workspace_json
    notes = [{"cache_id": name, "size_px": 32, "crop": "none"} for name in ("fakecache", "second")]
    path.write_text(json.dumps({**json.loads(path.read_text()), "caches": notes}))
    return workspace.layout.root


def content(root: Path) -> dict[str, bytes]:
    """Every file of tables and caches; links are followed."""
    tables = [path for path in root.iterdir() if path.is_file()]
    caches = [path for folder in (root / "hu").iterdir() for path in folder.iterdir()]
    return {str(path.relative_to(root)): path.read_bytes() for path in [*tables, *caches]}


def edit(work: Path, **changes: object) -> None:
    about = json.loads((work / "workspace.json").read_text())
    (work / "workspace.json").write_text(json.dumps({**about, **changes}))


def test_a_copy_reads_like_the_original(work, tmp_path):
    told: list[StageProgress] = []

    copy = stage_workspace(work, tmp_path / "node", on_progress=told.append)

    assert copy.is_relative_to(tmp_path / "node")
    assert content(copy) == content(work)
    here, there = Workspace(work), Workspace(copy)
    assert there.about == here.about
    assert there.fold_plan.plan_hash == here.fold_plan.plan_hash
    rows = here.labelled.index.to_numpy()
    assert (there.cache_for(32).gather(rows) == here.cache_for(32).gather(rows)).all()
    assert check_cache(there.layout.hu / "second", there.slices, read_checksums=True).problem == ""
    assert told[0].done_bytes == 0
    assert told[-1].done_bytes == told[-1].total_bytes > 30_000
    assert [step.done_bytes for step in told] == sorted(step.done_bytes for step in told)


def test_what_is_written_goes_to_the_original(work, tmp_path):
    (work / "runs" / "abc").mkdir(parents=True)
    copy = stage_workspace(work, tmp_path / "node")

    (copy / "runs" / "abc" / "new.txt").write_text("kept")

    assert (work / "runs" / "abc" / "new.txt").read_text() == "kept"


def test_what_is_there_is_not_copied_again(work, tmp_path, monkeypatch):
    first = stage_workspace(work, tmp_path / "node")
    monkeypatch.setattr(staging, "_copy_file", None)  # copying anything would fail

    assert stage_workspace(str(work), tmp_path / "node") == first
    edit(work, note="changed")
    with pytest.raises(TypeError):
        stage_workspace(work, tmp_path / "node")


def test_a_changed_workspace_gets_another_copy_and_shares_the_caches_that_did_not_change(work, tmp_path):
    first = stage_workspace(work, tmp_path / "node")
    edit(work, labels_path="elsewhere.csv")
    told: list[StageProgress] = []

    second = stage_workspace(work, tmp_path / "node", on_progress=told.append)

    assert second != first
    assert Workspace(second).about["labels_path"] == "elsewhere.csv"
    assert Workspace(first).about["labels_path"] != "elsewhere.csv"
    assert (first / "hu" / "second").resolve() == (second / "hu" / "second").resolve()
    tables = sum(path.stat().st_size for path in work.glob("*.parquet"))
    assert told[-1].total_bytes == tables


def test_a_cache_of_the_same_name_with_other_content_is_copied_anew(work, tmp_path):
    first = stage_workspace(work, tmp_path / "node")
    shard = work / "hu" / "second" / "00001.hu.b2"
    shard.write_bytes(bytes(reversed(shard.read_bytes())))
    about = json.loads((shard.parent / CACHE_JSON).read_text())
    about["shards"][1]["checksum"] = file_checksum(shard)
    (shard.parent / CACHE_JSON).write_text(json.dumps(about))

    second = stage_workspace(work, tmp_path / "node")

    assert second == first  # the tables are the same; the link leads to the other content
    assert (second / "hu" / "second" / "00001.hu.b2").read_bytes() == shard.read_bytes()


def test_one_cache_is_enough(work, tmp_path):
    copy = stage_workspace(work, tmp_path / "node", caches=["fakecache"])

    assert [path.name for path in (copy / "hu").iterdir()] == ["fakecache"]
    assert stage_workspace(work, tmp_path / "node") == copy
    assert sorted(path.name for path in (copy / "hu").iterdir()) == ["fakecache", "second"]
    with pytest.raises(ConfigError, match=r"no HU cache 'secnd'.*Did you mean 'second'"):
        stage_workspace(work, tmp_path / "node", caches=["secnd"])


@pytest.mark.parametrize("protocol", ["memory", "file"])
def test_a_url_is_staged_as_a_path_is(protocol, work, tmp_path):
    url = f"file://{work}"
    if protocol == "memory":
        url = f"memory://bucket-{tmp_path.name}/work"
        fsspec.filesystem("memory").put(str(work), url, recursive=True)

    copy = stage_workspace(url, tmp_path / "node")

    assert content(copy) == content(work)
    assert len(Workspace(copy).labelled) == len(Workspace(work).labelled)


@pytest.mark.parametrize(
    ("url", "said"), [("nosuch://bucket/work", "Protocol not known"), ("memory://empty/work", "holds no prepared data")]
)
def test_a_url_that_cannot_be_read_is_said_so(url, said, tmp_path):
    with pytest.raises((ConfigError, DataError), match=said):
        stage_workspace(url, tmp_path / "node")


def test_a_damaged_original_is_never_taken_for_whole(work, tmp_path):
    shard = work / "hu" / "second" / "00002.hu.b2"
    whole = shard.read_bytes()
    shard.write_bytes(b"\0" * len(whole))

    with pytest.raises(DataError, match=r"second/00002\.hu\.b2 is damaged"):
        stage_workspace(work, tmp_path / "node")
    shard.write_bytes(whole[:-1])
    with pytest.raises(DataError, match=rf"has {len(whole) - 1} bytes, expected {len(whole)}"):
        stage_workspace(work, tmp_path / "node")
    shard.write_bytes(whole)

    assert content(stage_workspace(work, tmp_path / "node")) == content(work)


def test_a_staged_file_that_was_cut_short_is_copied_again(work, tmp_path):
    copy = stage_workspace(work, tmp_path / "node")
    with (copy / "hu" / "second" / "00001.hu.b2").open("r+b") as file:
        file.truncate(100)

    assert content(stage_workspace(work, tmp_path / "node")) == content(work)


def test_a_workspace_that_changes_meanwhile_is_not_taken_for_whole(work, tmp_path):
    def change(progress: StageProgress) -> None:
        if progress.done_bytes == progress.total_bytes:
            edit(work, note="prepared again")

    with pytest.raises(DataError, match="changed while it was copied"):
        stage_workspace(work, tmp_path / "node", on_progress=change)


def test_too_little_space_is_said_before_anything_is_copied(work, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=staging.SPARE_BYTES + 10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)

    with pytest.raises(StorageError, match=r"takes 0 MiB and 256 MiB to spare.*has 256 MiB free.*larger disk"):
        stage_workspace(work, tmp_path / "node")

    assert not list((tmp_path / "node").rglob("*.b2"))


def test_a_disk_that_fills_up_is_said_and_what_is_copied_is_kept(work, tmp_path, monkeypatch):
    rest = Store.blocks

    def fill(self, name):
        if str(name).endswith("second/00003.hu.b2"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return rest(self, name)

    with monkeypatch.context() as patched:
        patched.setattr(Store, "blocks", fill)
        with pytest.raises(StorageError, match=r"no space left in .*node while staging"):
            stage_workspace(work, tmp_path / "node")

    assert not list((tmp_path / "node").rglob(".*"))
    assert content(stage_workspace(work, tmp_path / "node")) == content(work)


#: Stages slowly, and notes every file that it copies itself.
SLOW = """
import sys, time
from pathlib import Path
from ichtune.search import staging
from ichtune.store import store
work, stage, log, pause_s = sys.argv[1:5]
store.BLOCK_BYTES, staging.N_STREAMS = 1024, 1
copied = staging._copy_file
blocks = store.Store.blocks
def slow(self, name):
    for block in blocks(self, name):
        time.sleep(float(pause_s))
        yield block
def noted(origin, file, stage):
    copied(origin, file, stage)
    with open(log, "a") as out:
        out.write(file.name + "\\n")
store.Store.blocks, staging._copy_file = slow, noted
print(staging.stage_workspace(work, Path(stage)))
"""


def start_slow(work: Path, stage: Path, log: Path, pause_s: float) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
    command = [sys.executable, "-c", SLOW, str(work), str(stage), str(log), str(pause_s)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.slow
def test_of_two_processes_at_once_one_copies_and_the_other_waits(work, tmp_path):
    log = tmp_path / "copied.txt"
    both = [start_slow(work, tmp_path / "node", log, 0.005) for _ in range(2)]

    ended = [process.communicate(timeout=120) for process in both]

    assert [process.returncode for process in both] == [0, 0], ended
    assert ended[0][0] == ended[1][0]
    copied = log.read_text().splitlines()
    assert len(copied) == len(set(copied)) == len(content(work)) - 3  # the three that mark a folder as whole
    assert content(Path(ended[0][0].strip())) == content(work)


@pytest.mark.slow
def test_a_copy_that_is_killed_is_not_taken_for_whole_and_goes_on(work, tmp_path):
    log = tmp_path / "copied.txt"
    process = start_slow(work, tmp_path / "node", log, 0.05)
    deadline = time.monotonic() + 60
    while not log.is_file() or len(log.read_text().splitlines()) < 2:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = log.read_text().splitlines()
    staged = {path.name for path in (tmp_path / "node").rglob("*") if path.is_file()}
    assert not staged & {"cache.json", "workspace.json"}

    again = start_slow(work, tmp_path / "node", log, 0.0)
    out, errors = again.communicate(timeout=120)

    assert again.returncode == 0, errors
    assert content(Path(out.strip())) == content(work)
    assert not [path for path in (tmp_path / "node").rglob(".*")], "the killed process's file is left behind"
    second = log.read_text().splitlines()[len(kept) :]
    assert not set(second) & set(kept), "what was whole was copied again"


def test_rows_beside_the_shards_come_along(work, tmp_path):
    rows = work / "hu" / "second" / "00000.rows.parquet"
    rows.write_bytes(np.random.default_rng(3).bytes(999))
    about = json.loads((rows.parent / CACHE_JSON).read_text())
    about["shards"][0] |= {"rows": rows.name, "rows_checksum": file_checksum(rows)}
    (rows.parent / CACHE_JSON).write_text(json.dumps(about))

    copy = stage_workspace(work, tmp_path / "node")

    assert (copy / "hu" / "second" / rows.name).read_bytes() == rows.read_bytes()
