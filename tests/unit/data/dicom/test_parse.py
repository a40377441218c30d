import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from ichtune.data.dicom.parse import is_dicom, parse, parse_with_pydicom
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


def test_a_deflated_file_inflates_no_further_than_its_pixels(tmp_path, write_slice, stored):
    data = write_slice(tmp_path / "a.dcm", TransferSyntaxUID=DeflatedExplicitVRLittleEndian).read_bytes()
    parsed = parse(repacked(data, b"\0" * 500_000))
    assert parsed.pixel_data.nbytes == stored.nbytes
    assert parsed.problem == ""
    bomb = parse(repacked(data, b"\0" * 5_000_000))
    assert bomb.problem.startswith("pixel_data_length")
    assert bomb.header.rows_px == stored.shape[0]


def test_deflated_pixels_beyond_the_limit_are_not_inflated(tmp_path, write_slice):
    tags = {"Rows": 10_000, "Columns": 10_000, "TransferSyntaxUID": DeflatedExplicitVRLittleEndian}
    parsed = parse(write_slice(tmp_path / "a.dcm", **tags).read_bytes())
    assert parsed.problem.startswith("absurd_matrix")
    assert len(parsed.pixel_data) < 20


def test_a_deflated_file_with_damaged_meta_header_is_not_handed_to_a_parser_that_inflates_it_all(tmp_path, write_slice):
    data = write_slice(tmp_path / "a.dcm", TransferSyntaxUID=DeflatedExplicitVRLittleEndian).read_bytes()
    broken = data.replace(b"\x02\x00\x02\x00UI", b"\x02\x00\x02\x00XX")
    with pytest.raises(DataError, match=r"^unreadable_header: a deflated file"):
        parse(broken)


def test_the_encoding_is_that_of_the_tags_not_that_of_the_syntax(tmp_path, write_slice, stored):
    implicit = write_slice(tmp_path / "i.dcm", TransferSyntaxUID=ImplicitVRLittleEndian).read_bytes()
    explicit = write_slice(tmp_path / "e.dcm").read_bytes()
    for head, body in ((implicit, explicit), (explicit, implicit)):
        mixed = head[: len(head) - len(without_meta(head))] + without_meta(body)
        assert pixels_of(mixed) == stored.ravel().tolist()


def test_the_scan_and_pydicom_give_the_same_file(tmp_path, write_slice):
    data = write_slice(tmp_path / "a.dcm").read_bytes()
    assert parse(data) == parse_with_pydicom(data)


def repacked(data: bytes, trailing: bytes) -> bytes:
    start = len(data) - len(without_meta(data))
    packer = zlib.compressobj(wbits=-15)
    return data[:start] + packer.compress(zlib.decompress(data[start:], -15) + trailing) + packer.flush()


@pytest.mark.parametrize("head", [b"", b"short", b"\0" * 300, b"PK\x03\x04" + b"\0" * 300, b"ID,Label\n" * 40])
def test_other_files_are_no_dicom(head):
    assert not is_dicom(head)
    with pytest.raises(DataError, match=r"^not_dicom"):
        parse(head)


def test_a_file_that_ends_after_its_meta_header_is_refused(tmp_path, write_slice):
    data = write_slice(tmp_path / "a.dcm").read_bytes()
    with pytest.raises(DataError, match=r"^unreadable_header"):
        parse(data[: len(data) - len(without_meta(data))])


@pytest.mark.parametrize(
    ("known", "named"),
    [(b"ISO_IR 100", b"DOE^JANE10"), (b"1.2.840.10008.1.2.1", b"DOE^JANE.10008.1.2.")],
)
def test_no_text_of_a_damaged_header_is_warned_of_or_logged(tmp_path, write_slice, caplog, recwarn, known, named):
    data = write_slice(tmp_path / "a.dcm", SpecificCharacterSet="ISO_IR 100").read_bytes()
    assert known in data
    damaged = data.replace(known, named, 1)
    with caplog.at_level("DEBUG"):
        parse(damaged)
        assert not caplog.records
        assert not recwarn.list
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            str(dcmread(io.BytesIO(damaged)))
        assert "DOE" in caplog.text  # whoever asks the parser itself still hears of it


def test_a_file_without_pixels_says_so(tmp_path, write_slice):
    assert parse(write_slice(tmp_path / "a.dcm", PixelData=None).read_bytes()).pixel_data is None
