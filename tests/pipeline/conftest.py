"""DICOM files that name a person in every tag with room for one, some damaged so that a reader may quote it."""

import io
import re
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from pydicom.datadict import DicomDictionary, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from ichtune.data.dicom.header import TAGS

SIDE = 32
MARK = re.compile(rb"(?i)z\0?q\0?x\0?j\0?v\0?((?:[0-9]\0?){5})")
#: Text tags that describe person, place, order and device; whatever the reader is not meant to read is seeded.
GROUPS = (0x0008, 0x0010, 0x0018, 0x0020, 0x0032, 0x0038, 0x0040, 0x4008)
TEXT_VRS = ("PN", "LO", "SH", "LT", "ST", "UT", "UC", "AE", "CS")
CHARACTER_SET = 0x00080005
#: What may be kept: PatientID and UIDs. SOPClassUID says what an object is, not which.
KEPT = {"patient_id", "sop_instance_uid", "study_instance_uid", "series_instance_uid"}


@dataclass
class Marks:
    """Hands out marks, and remembers where each was put."""

    places: dict[str, str] = field(default_factory=dict)

    def text(self, place: str) -> str:
        number = f"{len(self.places):05d}"
        self.places[number] = place
        return f"ZQXJV{number}"  # of even length, as values in a file are

    def date(self, place: str) -> str:
        """A date in the first years of the last century, told apart by its day."""
        n = len(self.places)
        date = f"19{n // 336 % 60 + 10}{n // 28 % 12 + 1:02d}{n % 28 + 1:02d}"
        self.places[date] = place
        return date

    def found_in(self, data: bytes) -> set[str]:
        """Return the places whose marks stand in these bytes, in any letter case, in 8 or 16 bits a letter."""
        numbers = {match[1].replace(b"\0", b"").decode() for match in MARK.finditer(data)}
        numbers |= {mark for mark in self.places if len(mark) == 8 and any(form in data for form in _forms(mark))}
        return {self.places.get(number, f"mark {number}") for number in numbers}


def _forms(date: str) -> list[bytes]:
    year, month, day = date[:4], date[4:6], date[6:]
    return [text.encode() for text in (date, f"{year}-{month}-{day}", f"{day}.{month}.{year}", f"{day}/{month}/{year}")]


def person(marks: Marks) -> Dataset:
    """A mark in every text and date tag that has room for one and is none of those that are read."""
    dataset = Dataset()
    for number, (vr, _, name, _, keyword) in DicomDictionary.items():
        if number >> 16 not in GROUPS or number in (*map(int, TAGS.values()), CHARACTER_SET) or not keyword:
            continue
        if vr in TEXT_VRS:
            dataset.add_new(number, vr, marks.text(name))
        elif vr == "DA":
            dataset.add_new(number, vr, marks.date(name))
    item = Dataset()
    item.ScheduledPerformingPhysicianName = marks.text("in a sequence")
    dataset.RequestAttributesSequence = Sequence([item])
    block = dataset.private_block(0x0009, marks.text("private creator"), create=True)
    block.add_new(1, "LO", marks.text("private tag"))
    dataset.add_new(0xFFFCFFFC, "OB", marks.text("trailing padding").encode())
    return dataset


@dataclass
class Folder:
    """DICOM files as a hospital would give them, every text of theirs marked."""

    path: Path
    marks: Marks
    n: int = 0
    person: Dataset = field(init=False)

    def __post_init__(self) -> None:
        self.person = person(self.marks)

    def dataset(self, name: str, syntax: str = ExplicitVRLittleEndian) -> Dataset:
        """A CT slice that can be read, with a person in every tag that has room for one."""
        self.n += 1
        dataset = Dataset()
        dataset.update(self.person)
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.file_meta.SourceApplicationEntityTitle = self.marks.text(f"{name}: SourceApplicationEntityTitle")
        dataset.file_meta.PrivateInformationCreatorUID = "1.9.9"
        dataset.file_meta.PrivateInformation = self.marks.text(f"{name}: PrivateInformation").encode() + b" "
        dataset.preamble = self.marks.text(f"{name}: preamble").encode().ljust(128, b"\0")
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, f"1.2.3.{self.n}"
        dataset.PatientID = f"PAT{self.n // 6:04d}"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"1.3.{self.n // 6}", f"1.4.{self.n // 6}"
        dataset.Modality, dataset.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, 5 * self.n], [1, 0, 0, 0, 1, 0]
        dataset.PixelSpacing, dataset.SliceThickness, dataset.InstanceNumber = [0.5, 0.5], 5, self.n
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.Rows = dataset.Columns = SIDE
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
        dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "-1024", "1", "HU"
        dataset.SpecificCharacterSet, dataset.NumberOfFrames, dataset.SliceLocation = "ISO_IR 100", 1, 0
        dataset.FrameType = ["ORIGINAL", "PRIMARY", "AXIAL", "NONE"]
        dataset.LossyImageCompression, dataset.WindowCenter, dataset.WindowWidth = "00", 40, 80
        dataset.GantryDetectorTilt, dataset.PixelPaddingValue, dataset.PixelPaddingRangeLimit = 0, -2000, -2001
        pixels = np.random.default_rng(self.n).integers(1000, 1100, (SIDE, SIDE))
        dataset.PixelData = pixels.astype(">i2" if syntax == ExplicitVRBigEndian else "<i2").tobytes()
        return dataset

    def add(
        self, name: str, syntax: str = ExplicitVRLittleEndian, change: Callable[[Dataset], None] | None = None
    ) -> bytes:
        dataset = self.dataset(name, syntax)
        if change:
            change(dataset)
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        return self.write(name, buffer.getvalue())

    def write(self, name: str, data: bytes) -> bytes:
        (self.path / f"{name}.dcm").write_bytes(data)
        return data

    def named(self, name: str) -> None:
        """A file in which one tag that is read holds a person's name."""
        tag = struct.pack("<HH", int(TAGS[name]) >> 16, int(TAGS[name]) & 0xFFFF)
        data = self.add(f"named_{name}")
        at = re.search(re.escape(tag) + b"[A-Z]{2}", data).start()  # type: ignore[union-attr]
        end = at + 8 + struct.unpack_from("<H", data, at + 6)[0]
        value = self.marks.text(f"{name} holds a name").encode()
        self.write(f"named_{name}", data[:at] + tag + b"LO" + struct.pack("<H", len(value)) + value + data[end:])


def changed(**values: object) -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        for tag, value in values.items():
            setattr(dataset, tag, value)

    return change


def fill(folder: Folder) -> None:
    """Write sound files, files of every other kind, and damaged ones."""
    for number in range(12):
        folder.add(f"sound_{number}")
    for syntax in (ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian):
        folder.add(f"sound_{syntax.keyword}", syntax)
    whole = folder.add("cut")
    for place in np.linspace(100, len(whole) - 2, 40).astype(int):
        folder.write(f"cut_at_{place}", whole[:place])
    deflated = folder.add("cut_deflated", DeflatedExplicitVRLittleEndian)
    for place in np.linspace(400, len(deflated) - 2, 8).astype(int):
        folder.write(f"cut_deflated_at_{place}", deflated[:place])
    for place in range(140, 1400, 60):  # lengths and VRs that lie: what follows is read as something else
        folder.write(
            f"bent_at_{place}",
            whole[:place] + bytes(255 - byte for byte in whole[place : place + 3]) + whole[place + 3 :],
        )
    folder.write("no_dicom", f"Dear Dr {folder.marks.text('a letter')}".encode())
    folder.write("no_meta", whole[132:])
    for name in sorted(TAGS.keys() - KEPT):
        folder.named(name)
    folder.add("named_character_set", change=changed(SpecificCharacterSet=folder.marks.text("SpecificCharacterSet")))
    fill_other_kinds(folder)


def fill_other_kinds(folder: Folder) -> None:
    folder.add("mr", change=changed(Modality="MR", SOPClassUID=MRImageStorage))
    folder.add("capture", change=changed(SOPClassUID=SecondaryCaptureImageStorage))
    folder.add("presentation", change=changed(SOPClassUID="1.2.840.10008.5.1.4.1.1.11.1"))
    folder.add(
        "localizer",
        change=changed(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER", folder.marks.text("ImageType of a localizer")]),
    )
    folder.add(
        "summary",
        change=changed(ImageType=["DERIVED", "SECONDARY", f"{folder.marks.text('ImageType of a summary')} MIP"]),
    )
    folder.add("colour", change=changed(SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0))
    folder.add("coronal", change=changed(ImageOrientationPatient=[1, 0, 0, 0, 0, -1]))
    folder.add("absurd", change=changed(Rows=60000, Columns=60000))
    folder.add("32_bit", change=changed(BitsAllocated=32, BitsStored=32, HighBit=31))
    folder.add("no_pixels", change=lambda dataset: dataset.__delitem__("PixelData"))
    folder.add("no_rescale", change=lambda dataset: dataset.__delitem__("RescaleIntercept"))
    folder.add("two_slopes", change=changed(RescaleSlope=["1", "2"]))
    folder.add("frames", change=changed(NumberOfFrames=4))
    folder.add("enhanced_bare", change=changed(SOPClassUID=EnhancedCTImageStorage, NumberOfFrames=2))
    for name in ("", "RescaleType", "FrameType", "RescaleSlope", "PixelSpacing"):
        folder.add(f"enhanced_{name}", change=lambda dataset, name=name: make_enhanced(dataset, folder, name))
    for syntax in (RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless):
        comment = folder.marks.text(f"{syntax.keyword}: comment in the pixels").encode()
        jpeg = b"\xff\xd8\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + b"\xff\xd9"
        folder.add(f"damaged_{syntax.keyword}", syntax, changed(PixelData=encapsulate([jpeg])))
    for syntax in (f"1.2.{folder.marks.text('TransferSyntaxUID')}", "1.2.840.10008.1.2.4.100"):
        data = folder.add(f"syntax_{syntax[-6:]}")
        known = ExplicitVRLittleEndian.encode().ljust(20, b"\0")
        folder.write(f"syntax_{syntax[-6:]}", data.replace(known, syntax[:19].encode().ljust(20, b"\0"), 1))


def make_enhanced(dataset: Dataset, folder: Folder, named: str) -> None:
    """Two frames, each described by functional groups that hold a person as well; in one tag that is read, if named."""
    dataset.SOPClassUID, dataset.NumberOfFrames = EnhancedCTImageStorage, 2
    dataset.PixelData = dataset.PixelData * 2
    frames = []
    for n in range(2):
        frame = Dataset()
        groups: dict[str, dict[str, object]] = {
            "PlanePositionSequence": {"ImagePositionPatient": [0, 0, 5 * n]},
            "PlaneOrientationSequence": {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
            "PixelMeasuresSequence": {"PixelSpacing": [0.5, 0.5], "SliceThickness": 5},
            "PixelValueTransformationSequence": {"RescaleSlope": 1, "RescaleIntercept": -1024, "RescaleType": "HU"},
            "CTImageFrameTypeSequence": {"FrameType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]},
            "FrameContentSequence": {"FrameComments": folder.marks.text("FrameComments"), "FrameAcquisitionNumber": n},
        }
        for sequence, values in groups.items():
            item = Dataset()
            item.PatientName = folder.marks.text(f"PatientName in {sequence}")
            for tag, value in values.items():
                setattr(item, tag, value)
            if named in values:
                mark = folder.marks.text(f"{named} of a frame holds a name").encode()
                number = tag_for_keyword(named)
                item[number] = RawDataElement(BaseTag(number), "LO", len(mark), mark, 0, False, True)
            setattr(frame, sequence, Sequence([item]))
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)


@pytest.fixture
def marks() -> Marks:
    """Marks of which none is given out yet."""
    return Marks()


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A folder of seeded files."""
    folder = Folder(tmp_path_factory.mktemp("seeded"), Marks())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that such files are wrong is what they are for
        fill(folder)
    return folder
