import json
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import typer
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from typer.testing import CliRunner

from ichtune.cli.prepare import StageBars, prepare, read_size
from ichtune.data.cache.cache_set import PrepareProgress
from ichtune.data.cache.shards import build_shard
from ichtune.errors import ConfigError
from ichtune.labels import LABELS

app = typer.Typer()
app.command("prepare")(prepare)
app.command("other")(lambda: None)


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three slices of three patients, two of them labelled."""
    (tmp_path / "in").mkdir()
    for number in range(3):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, f"1.2.{number}"
        dataset.Modality, dataset.PatientID, dataset.StudyInstanceUID = "CT", f"P{number}", f"1.3.{number}"
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = (
            16,
            16,
            15,
            1,
        )
        dataset.RescaleIntercept, dataset.RescaleSlope = "0", "1"
        dataset.Rows = dataset.Columns = 32
        dataset.PixelData = np.full((32, 32), 40, "<i2").tobytes()
        dataset.save_as(tmp_path / "in" / f"{number}.dcm", enforce_file_format=True)
    zeros = ",0" * len(LABELS)
    (tmp_path / "labels.csv").write_text(f"image_id,{','.join(LABELS)}\n1.2.0{zeros}\n1.2.1{zeros}\n")
    return tmp_path


def run(*arguments: str | Path):
    return CliRunner().invoke(app, ["prepare", *map(str, arguments)], catch_exceptions=False)


def test_json_has_the_promised_keys_and_stdout_nothing_else(folder):
    result = run(folder / "in", "--labels", folder / "labels.csv", "--out", folder / "work", "--size", 16, "--json")
    summary = json.loads(result.stdout)
    promised = {
        "slices",
        "series",
        "patients",
        "refused",
        "seconds",
        "labelled",
        "duplicates",
        "repaired_12bit",
        "lossy",
    }
    assert promised | {"label_issues", "cache_id", "fold_plan_hash", "files"} <= set(summary)
    assert (summary["slices"], summary["patients"], summary["labelled"], summary["refused"]) == (3, 3, 2, {})
    assert (folder / "work" / "workspace.json").is_file()


def test_a_person_gets_counts_and_the_next_command(folder):
    result = run(folder / "in", "--labels", folder / "labels.csv", "--work", folder / "work")
    assert result.exit_code == 0
    assert "usable slices" in result.stdout
    assert result.stdout.splitlines()[-1] == f"Next: ichtune search --space windows.yaml --work {folder / 'work'}"
    assert "3/3 slices" in result.stderr


def test_sizes_and_crops_become_caches_and_a_bar_each(folder):
    result = run(
        folder / "in",
        "--labels",
        folder / "labels.csv",
        "--work",
        folder / "work",
        "--size",
        "32, 48",
        "--crop",
        "none, head",
    )
    assert result.exit_code == 0
    assert "32 px, 32 px head, 48 px, 48 px head" in result.stdout
    stages = [line.partition(":")[0] for line in result.stderr.splitlines() if "3/3 slices" in line]
    assert stages == [
        "reading, 32 px",
        "finding boxes (head)",
        "cropping (head), 32 px",
        "reading, 48 px",
        "cropping (head), 48 px",
    ]


def test_a_second_run_reads_nothing_and_says_so(folder):
    command = (folder / "in", "--labels", folder / "labels.csv", "--work", folder / "work", "--crop", "head")
    assert "there already" not in run(*command).stdout
    again = run(*command)
    assert "caches were there already" in again.stdout
    assert "slices" not in again.stderr


def test_progress_counts_what_this_run_does(capsys):
    with StageBars(quiet=False) as bars:
        bars.show(PrepareProgress("reading, 256 px", 0, 10, 0, 20))
        bars.show(PrepareProgress("reading, 256 px", 5, 10, 1, 20))
        bars.show(PrepareProgress("cropping (head), 256 px", 1, 10))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("reading, 256 px: 5/10 slices, ")
    assert lines[0].endswith("left, 1 refused, 20 files were done before")
    assert lines[1].startswith("cropping (head), 256 px: 1/10 slices")


def test_a_cluster_builds_the_shards(folder, monkeypatch):
    joined = []

    @contextmanager
    def ray_shards(address):
        joined.append(address)
        yield lambda tasks: (build_shard(task) for task in tasks)

    monkeypatch.setattr("ichtune.search.shard_tasks.ray_shards", ray_shards)
    assert run(folder / "in", "--out", folder / "work", "--address", "10.0.0.1:6379").exit_code == 0
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    assert run(folder / "in", "--out", folder / "work").exit_code == 0
    assert joined == ["10.0.0.1:6379", "10.0.0.2:6379"]


def test_quiet_says_nothing_on_stderr(folder):
    result = run(folder / "in", "--labels", folder / "labels.csv", "--out", folder / "work", "--quiet")
    assert result.stderr == ""


def test_without_labels_the_next_step_is_to_give_some(folder, monkeypatch):
    monkeypatch.setenv("ICHTUNE_WORK", str(folder / "elsewhere"))
    result = run(folder / "in", "--size", "native")
    assert "native size" in result.stdout
    assert "--labels" in result.stdout.splitlines()[-1]
    assert (folder / "elsewhere" / "slices.parquet").is_file()


def test_help_shows_an_example():
    assert "Example: ichtune prepare" in run("--help").stdout


def test_the_size_is_a_number_or_native():
    assert read_size("256") == 256
    assert read_size("Native") is None
    with pytest.raises(ConfigError, match="got 'big'"):
        read_size("big")
