import struct
import zlib

import numpy as np
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from ichtune.data import dicom_parse
from ichtune.data.dicom_parse import is_dicom, parse
from ichtune.errors import DataError


def without_meta(data: bytes) -> bytes:
    return data[144 + struct.unpack("<I", data[140:144])[0] :]


def pixels_of(data: bytes) -> list[int]:
    parsed = parse(data)
    kind = ">u2" if parsed.is_big_endian else "<u2"
    return np.frombuffer(parsed.pixel_data or b"", kind).tolist()


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_pixel_data_is_found_in_every_uncompressed_syntax(tmp_path, write_slice, stored, syntax):
    data = write_slice(tmp_path / "a.dcm", TransferSyntaxUID=syntax).read_bytes()
    assert pixels_of(data) == stored.ravel().tolist()
    assert not parse(data).is_encapsulated


def test_a_file_without_meta_header_is_read(tmp_path, write_slice, stored):
    path = write_slice(tmp_path / "a.dcm")
    assert pixels_of(without_meta(path.read_bytes())) == stored.ravel().tolist()
    implicit = without_meta(write_slice(path, TransferSyntaxUID=ImplicitVRLittleEndian).read_bytes())
    assert pixels_of(implicit) == stored.ravel().tolist()
    without_preamble = path.read_bytes()[132:]
    assert pixels_of(without_preamble) == stored.ravel().tolist()


def test_a_deflated_file_that_was_cut_gives_what_is_there(tmp_path, write_slice):
    noise = np.random.default_rng(0).integers(0, 4096, (64, 64), dtype=np.uint16)
    data = write_slice(tmp_path / "a.dcm", noise, TransferSyntaxUID=DeflatedExplicitVRLittleEndian).read_bytes()
    parsed = parse(data[: len(data) * 3 // 4])
    assert parsed.header.rows_px == 64
    assert 0 < len(parsed.pixel_data) < 64 * 64 * 2


def test_a_deflated_file_cannot_inflate_without_bound(tmp_path, write_slice, monkeypatch):
    monkeypatch.setattr(dicom_parse, "MAX_INFLATED_BYTES", 100_000)
    data = write_slice(tmp_path / "a.dcm", TransferSyntaxUID=DeflatedExplicitVRLittleEndian).read_bytes()
    start = 144 + struct.unpack("<I", data[140:144])[0]
    body = zlib.decompress(data[start:], -15) + b"\0" * 10_000_000
    packer = zlib.compressobj(wbits=-15)
    bomb = data[:start] + packer.compress(body) + packer.flush()
    assert len(parse(bomb).pixel_data) <= 100_000


@pytest.mark.parametrize("head", [b"", b"short", b"\0" * 300, b"PK\x03\x04" + b"\0" * 300, b"ID,Label\n" * 40])
def test_other_files_are_no_dicom(head):
    assert not is_dicom(head)
    with pytest.raises(DataError, match=r"^not_dicom"):
        parse(head)


def test_a_file_that_ends_after_its_meta_header_is_refused(tmp_path, write_slice):
    data = write_slice(tmp_path / "a.dcm").read_bytes()
    with pytest.raises(DataError, match=r"^unreadable_header"):
        parse(data[: len(data) - len(without_meta(data))])


def test_a_file_without_pixels_says_so(tmp_path, write_slice):
    assert parse(write_slice(tmp_path / "a.dcm", PixelData=None).read_bytes()).pixel_data is None
