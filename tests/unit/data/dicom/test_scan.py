"""The scan answers as pydicom does, or not at all."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from ichtune.data.dicom.parse import ParsedFile, parse, parse_with_pydicom
from ichtune.data.dicom.scan import file_meta, scan
from ichtune.data.phantom.headers import ENCODINGS, SeriesHeader, encode_file, stored_pixels
from ichtune.errors import DataError

SHARED = Path(__file__).parents[5] / "shared" / "data"
SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
PIXELS = np.arange(64, dtype=np.uint16).reshape(8, 8)
UNDEFINED = b"\xff\xff\xff\xff"


def outcome(data: bytes, with_scan: bool) -> ParsedFile | str:
    try:
        return parse(data) if with_scan else parse_with_pydicom(data)
    except DataError as error:
        return str(error)


def is_scanned(data: bytes) -> bool:
    """Whether the scan answers; if so, it must answer as pydicom does."""
    try:
        if scan(data) is None:
            return False
    except DataError:
        pass  # a bad number, which pydicom must find as well
    assert outcome(data, with_scan=True) == outcome(data, with_scan=False)
    return True


def item(is_undefined: bool, **tags) -> Dataset:
    made = Dataset()
    made.is_undefined_length_sequence_item = is_undefined
    for keyword, value in tags.items():
        setattr(made, keyword, value)
    return made


def file(syntax: str = ExplicitVRLittleEndian, is_undefined: bool = False, **tags) -> bytes:
    """A file with nested sequences of defined or undefined length, private tags and overlays."""
    dataset = item(
        False,
        SpecificCharacterSet="ISO_IR 100",
        ImageType=["ORIGINAL", "PRIMARY", "AXIAL"],
        SOPClassUID=CTImageStorage,
        SOPInstanceUID="1.2.3.4",
        Modality="CT",
        PatientName="Müller^A",
        PatientID="P1",
        SliceThickness="5",
        StudyInstanceUID="1.2.3",
        SeriesInstanceUID="1.2.3.1",
        InstanceNumber="7",
        ImagePositionPatient=[0, 0, 1.5],
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        PhotometricInterpretation="MONOCHROME2",
        SamplesPerPixel=1,
        Rows=8,
        Columns=8,
        BitsAllocated=16,
        BitsStored=12,
        HighBit=11,
        PixelRepresentation=0,
        PixelPaddingValue=0,
        PixelSpacing=[0.5, 0.5],
        RescaleIntercept="-1024",
        RescaleSlope="1",
        PixelData=PIXELS.tobytes(),
    )
    inner = [item(is_undefined, CodeValue="1", Rows=99), item(is_undefined)]
    outer = item(is_undefined, Modality="MR", PurposeOfReferenceCodeSequence=inner)
    dataset.ReferencedImageSequence = [outer, item(is_undefined, ReferencedSOPInstanceUID="9.9")]
    dataset.ProcedureCodeSequence = []
    dataset.private_block(0x0009, "VENDOR", create=True).add_new(1, "OB", b"\x28\x00\x10\x00US\x02\x00")
    for element in (*dataset, *outer):
        if element.VR == "SQ":
            element.is_undefined_length = is_undefined
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    dataset.file_meta.TransferSyntaxUID = syntax
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


WINDOWS = {"WindowCenter": ["40", "600"], "WindowWidth": ["80", "2800"]}
BASES = [file(syntax, is_undefined, **WINDOWS) for syntax in SYNTAXES for is_undefined in (False, True)]


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("is_undefined", [False, True])
def test_plain_files_are_scanned(syntax, is_undefined):
    data = file(syntax, is_undefined)
    assert is_scanned(data)
    parsed = parse(data)
    assert np.array_equal(np.frombuffer(parsed.pixel_data, "<u2"), PIXELS.ravel())
    assert (parsed.header.rows_px, parsed.header.modality, parsed.header.patient_id) == (8, "CT", "P1")
    assert is_scanned(data[file_meta(data).end :])  # without meta header
    assert is_scanned(data[132:])  # without preamble
    assert is_scanned(data[:132] + data[file_meta(data).end :])  # preamble, no meta header
    assert is_scanned(data[:-10])  # cut in its pixels


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda encoding: encoding.name)
def test_every_encoding_of_the_competition_is_scanned(encoding):
    series = SeriesHeader("ID_p", "ID_st", "ID_se", encoding, "30\\40", "80\\80", True, True, 0.5, (1, 0, 0, 0, 1, 0))
    stored = stored_pixels(np.full((16, 16), 40, np.int16), np.zeros((16, 16), bool), encoding)
    data = encode_file(series, "ID_1", (0, 0, 1), stored)
    assert is_scanned(data)
    assert parse(data).header.window_hu == (30, 80)


@pytest.mark.skipif(not SHARED.is_dir(), reason="real test files are not beside this checkout")
@pytest.mark.parametrize("folder", ["transfer_syntaxes", "head_ct_tilt"])
def test_real_files_are_read_alike(folder):
    scanned = {path.name for path in sorted((SHARED / folder).glob("*.dcm")) if is_scanned(path.read_bytes())}
    if folder == "head_ct_tilt":
        assert len(scanned) == 28
    else:
        names = {
            "CTImage.dcm",
            *(
                f"CTImage.dcm_LittleEndian{way}TransferSyntax_1.2.840.10008.1.2{end}.dcm"
                for way, end in (("Implicit", ""), ("Explicit", ".1"))
            ),
        }
        assert scanned == names


@pytest.mark.skipif(not SHARED.is_dir(), reason="real test files are not beside this checkout")
def test_windows_of_real_files_are_those_that_pydicom_finds():
    paths = sorted(SHARED.glob("*/*.dcm"))
    windows = {}
    for path in paths:
        data = path.read_bytes()
        dataset = dcmread(io.BytesIO(data), stop_before_pixels=True)
        expected = [dataset.get(keyword) for keyword in ("WindowCenter", "WindowWidth")]
        first = [value[0] if isinstance(value, MultiValue) else value for value in expected]
        windows[path.parent.name] = parse(data).header.window_hu
        assert windows[path.parent.name] == (None if None in first else tuple(map(float, first))), path.name
    assert len(paths) == 28 + 16
    assert windows["head_ct_tilt"] is not None


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize(
    ("center", "width", "window"),
    [
        (b"40", b"80", (40, 80)),
        (b"00036\\00036", b"00080\\00080", (36, 80)),
        (b"40\\x ", b"80", (40, 80)),
        (b"forty ", b"80", None),
        (b"40", b"-1", None),
        (b"\xb4\xb0", b"80", None),
        (b"", b"80", None),
    ],
)
def test_windows_are_scanned(syntax, center, width, window):
    data = file(syntax)
    at = data.index(b"\x28\x00\x52\x10")
    for tag, text in ((0x00281050, center), (0x00281051, width)):
        value = text + b" " * (len(text) % 2)
        made = explicit(tag, b"DS", value)
        if syntax == ImplicitVRLittleEndian:
            made = made[:4] + struct.pack("<I", len(value)) + value
        data, at = data[:at] + made + data[at:], at + len(made)
    assert is_scanned(data)
    assert parse(data).header.window_hu == window


def explicit(tag: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


@pytest.mark.parametrize(
    "inserted",
    [
        explicit(0x00020000, b"UL", b"\0\0\0\0"),  # out of order
        explicit(0x00280010, b"US", b"\x10\0"),  # repeated
        explicit(0x00281052, b"DS", b"0"),  # odd length
        explicit(0x00281056, b"ZZ", b""),  # unknown representation
        explicit(0x00281056, b"\0\0", b""),  # implicit among explicit ones
        struct.pack("<HH2sHI", 0x29, 0x1010, b"UN", 0, 0xFFFFFFFF) + b"\xfe\xff\xdd\xe0\0\0\0\0",
        struct.pack("<HH2sHI", 0x29, 0x1010, b"OB", 0, 0xFFFFFFFF) + b"\xfe\xff\xdd\xe0\0\0\0\0",
        struct.pack("<HH2sHI", 0x5200, 0x9230, b"SQ", 0, 0),  # functional groups
        struct.pack("<HH2sHI", 0x7FE0, 0x0008, b"OF", 0, 0),  # float pixels
        b"\xfe\xff\x0d\xe0\0\0\0\0",  # a stray end of an item
    ],
)
def test_anything_unusual_is_left_to_pydicom(inserted):
    data = file()
    at = data.index(b"\xe0\x7f\x10\x00OW")
    assert not is_scanned(data[:at] + inserted + data[at:])


@pytest.mark.parametrize(
    "tags",
    [{"NumberOfFrames": 2}, {"SpecificCharacterSet": "ISO_IR 192"}, {"SpecificCharacterSet": "ISO_IR 101"}],
)
def test_frames_and_foreign_character_sets_are_left_to_pydicom(tags):
    assert is_scanned(file(**tags)) == (tags == {"SpecificCharacterSet": "ISO_IR 192"})


@pytest.mark.parametrize("cut", [0, 8, 131, 140, 200, 400, 700])
def test_a_file_cut_in_its_header_is_left_to_pydicom(cut):
    assert not is_scanned(file()[:cut])


def test_a_bad_number_is_refused_alike():
    data = file().replace(b"-1024 ", b"minus ")
    assert is_scanned(data)
    with pytest.raises(DataError, match=r"^bad_header: rescale_intercept"):
        parse(data)


def test_the_file_meta_information():
    meta = file_meta(BASES[0])
    assert meta.transfer_syntax_uid == ExplicitVRLittleEndian
    assert meta.media_sop_class_uid == CTImageStorage
    assert BASES[0][meta.end : meta.end + 2] == b"\x08\x00"
    assert file_meta(BASES[0][meta.end :]) == (0, "", "")
    assert file_meta(BASES[0][:150]) is None
    assert file_meta(BASES[0].replace(b"UI\x14\x00", b"LO\x14\x00")) is None


interesting = st.sampled_from(
    [
        b"",
        b"\0",
        b"\0\0",
        UNDEFINED,
        b"\xfe\xff\x0d\xe0\0\0\0\0",
        b"\xfe\xff\xdd\xe0\0\0\0\0",
        b"\xfe\xff\x00\xe0",
        b"SQ",
        b"UN\0\0" + UNDEFINED,
        b"OB",
        b"US",
        b"DS",
        b"ZZ",
        b"\x08\x00\x05\x00CS\x02\x00XX",
        b"\x28\x00\x10\x00",
        b"1\\2",
    ]
)
mutation = st.tuples(st.floats(0, 1), st.integers(0, 8), interesting | st.binary(max_size=6))


@settings(max_examples=150, deadline=None)
@given(base=st.sampled_from(BASES), mutations=st.lists(mutation, min_size=1, max_size=4), cut=st.floats(0, 1.5))
def test_damaged_headers_are_read_alike_or_left_to_pydicom(base, mutations, cut):
    header_bytes = len(base) - PIXELS.nbytes
    data = bytearray(base)
    for place, n_replaced, new in mutations:
        at = 132 + int(place * (header_bytes - 132))
        data[at : at + n_replaced] = new
    is_scanned(bytes(data[: int(cut * len(data))] if cut < 1 else data))
