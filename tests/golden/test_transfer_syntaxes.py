"""One CT slice in 15 transfer syntaxes, written by others: what the reader makes of each."""

from pathlib import Path

import numpy as np
import pytest

from ichtune.data.dicom.reader import DicomFile, read_hu
from ichtune.data.prepare import PrepareSpec, prepare
from ichtune.errors import DataError
from ichtune.workspace import Workspace

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "transfer_syntaxes"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="real test files are not beside this checkout")

#: Largest difference to the reference in HU; 0 where the syntax is lossless.
TOLERANCE_HU = {
    "1.2.840.10008.1.2": 0,
    "1.2.840.10008.1.2.1": 0,
    "1.2.840.10008.1.2.1.99": 0,
    "1.2.840.10008.1.2.2": 0,
    "1.2.840.10008.1.2.5": 0,
    "1.2.840.10008.1.2.4.57": 0,
    "1.2.840.10008.1.2.4.70": 0,
    "1.2.840.10008.1.2.4.80": 0,
    "1.2.840.10008.1.2.4.90": 0,
    "1.2.840.10008.1.2.4.81": 1,
    "1.2.840.10008.1.2.4.91": 5,
    "1.2.840.10008.1.2.4.51": 36,
    "1.2.840.10008.1.2.4.50": 64,
}
REFUSED = ("1.2.840.10008.1.2.4.53", "1.2.840.10008.1.2.4.55")


def file_of(syntax: str) -> Path:
    return next(FOLDER.glob(f"*_{syntax}.dcm"))


@pytest.mark.parametrize("syntax", TOLERANCE_HU)
def test_a_syntax_gives_the_reference_in_hu(syntax):
    reference = read_hu(file_of("1.2.840.10008.1.2.1")).astype(int)
    file = DicomFile(file_of(syntax))
    hu = file.hu()
    assert file.header.transfer_syntax_uid == ("1.2.840.10008.1.2.1" if syntax.endswith(".99") else syntax)
    assert (hu.dtype, hu.shape) == (np.int16, (512, 512))
    assert np.abs(hu - reference).max() <= TOLERANCE_HU[syntax]
    assert file.header.is_lossy == (TOLERANCE_HU[syntax] > 0)


def test_the_reference_has_the_values_of_its_pixels():
    data = file_of("1.2.840.10008.1.2.1").read_bytes()
    stored = np.frombuffer(data[-512 * 512 * 2 :], "<i2").reshape(512, 512)
    assert (read_hu(file_of("1.2.840.10008.1.2.1")) == stored - 1024).all()
    assert stored.min() == -2000


@pytest.mark.parametrize("syntax", REFUSED)
def test_a_syntax_that_no_decoder_reads_is_refused(syntax):
    with pytest.raises(DataError, match=r"^unsupported_transfer_syntax"):
        read_hu(file_of(syntax))


def test_every_file_is_named_here():
    named = {*TOLERANCE_HU, *REFUSED}
    assert {path.stem.rsplit("_", 1)[1] for path in FOLDER.glob("*_1.2.*.dcm")} == named


@pytest.mark.parametrize("fraction", [0.3, 0.9, 0.999])
@pytest.mark.parametrize("syntax", TOLERANCE_HU)
def test_a_file_cut_short_is_refused_never_filled_in(syntax, fraction):
    data = file_of(syntax).read_bytes()
    with pytest.raises(DataError, match=r"^(truncated_pixel_data|undecodable_pixels)"):
        DicomFile(data[: int(len(data) * fraction)]).hu()


def test_prepare_accounts_for_every_file(tmp_path):
    summary = prepare(PrepareSpec(FOLDER, None, tmp_path / "work", size_px=None, n_processes=1))
    assert (summary.files, summary.slices) == (16, 5)
    assert summary.refused == {"duplicate_sop_instance_uid": 9, "unsupported_transfer_syntax": 2}
    assert summary.ignored == 1  # the licence
    workspace = Workspace(tmp_path / "work")
    reference = read_hu(file_of("1.2.840.10008.1.2.1"))
    duplicates = workspace.slices[workspace.slices["status"] == "duplicate"]
    assert all((workspace.hu(image_id) == reference).all() for image_id in duplicates["image_id"])
