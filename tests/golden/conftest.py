"""CT files in memory, plain and multi-frame, written by pydicom."""

import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from pydicom import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)

from ichtune.data.dicom import parse as dicom_parse
from ichtune.data.dicom import reader as dicom
from ichtune.data.dicom import scan as dicom_scan
from ichtune.data.dicom.parse import ParsedFile

MakeFile = Callable[..., bytes]
_NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)


@pytest.fixture(autouse=True)
def _both_parsers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever file a test reads: where the scan of plain files answers, pydicom must find the same."""

    def parse(data: bytes) -> ParsedFile:
        parsed = dicom_parse.parse(data)
        if dicom_scan.scan(data) is not None:
            assert parsed == dicom_parse.parse_with_pydicom(data)
        return parsed

    monkeypatch.setattr(dicom, "parse", parse)


@pytest.fixture
def ct_file() -> MakeFile:
    """Write one plain CT slice; keywords override tags, a value of None leaves a tag out."""
    return make_ct


@pytest.fixture
def enhanced_file() -> MakeFile:
    """Write one multi-frame CT whose frames lie 5 mm apart."""
    return make_enhanced


def make_ct(pixels: np.ndarray, /, syntax: str = ExplicitVRLittleEndian, **tags: Any) -> bytes:
    dataset = _plain(pixels, syntax)
    return _written(_with(dataset, tags), syntax)


def make_enhanced(
    frames: Sequence[np.ndarray] | Sequence[bytes],
    /,
    syntax: str = ExplicitVRLittleEndian,
    edit: Callable[[Dataset], None] | None = None,
    **tags: Any,
) -> bytes:
    """``edit`` may change the data set before it is written; frames given as bytes are encapsulated."""
    raw = [frame if isinstance(frame, bytes) else frame.tobytes() for frame in frames]
    first = frames[0]
    dataset = _plain(first if isinstance(first, np.ndarray) else np.zeros((8, 8), np.uint16), syntax)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(dataset, keyword)
    del dataset.RescaleIntercept, dataset.RescaleSlope
    dataset.SOPClassUID = EnhancedCTImageStorage
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.NumberOfFrames = len(raw)
    dataset.SharedFunctionalGroupsSequence = [_shared_groups()]
    dataset.PerFrameFunctionalGroupsSequence = [_frame_groups(number) for number in range(len(raw))]
    dataset.PixelData = b"".join(raw) if syntax in _NATIVE else encapsulate(raw)
    _with(dataset, tags)
    if edit:
        edit(dataset)
    return _written(dataset, syntax)


def item(**tags: Any) -> Dataset:
    """One item of a sequence."""
    return _with(Dataset(), tags)


def _plain(pixels: np.ndarray, syntax: str) -> Dataset:
    if syntax == ExplicitVRBigEndian:
        pixels = pixels.byteswap()
    raw = pixels.tobytes()
    return item(
        SOPClassUID=CTImageStorage,
        SOPInstanceUID=generate_uid(),
        Modality="CT",
        PatientID="P1",
        PatientName="Seeded^Name",
        StudyInstanceUID="1.2.3",
        SeriesInstanceUID="1.2.3.4",
        InstanceNumber=1,
        ImagePositionPatient=[-10.0, -20.0, 30.0],
        ImageOrientationPatient=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        PixelSpacing=[0.5, 0.5],
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        Rows=pixels.shape[0],
        Columns=pixels.shape[1],
        BitsAllocated=16,
        BitsStored=16,
        HighBit=15,
        PixelRepresentation=1,
        RescaleIntercept="-1024",
        RescaleSlope="1",
        PixelData=raw if syntax in _NATIVE else encapsulate([raw]),
    )


def _shared_groups() -> Dataset:
    return item(
        PixelMeasuresSequence=[item(PixelSpacing=[0.4, 0.4], SliceThickness="5")],
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelValueTransformationSequence=[item(RescaleIntercept="-1024", RescaleSlope="1", RescaleType="HU")],
    )


def _frame_groups(number: int) -> Dataset:
    return item(
        FrameContentSequence=[item(FrameAcquisitionNumber=1, InStackPositionNumber=number + 1)],
        PlanePositionSequence=[item(ImagePositionPatient=[-10, -20, 5 * number])],
        CTImageFrameTypeSequence=[item(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])],
    )


def _with(dataset: Dataset, tags: dict[str, Any]) -> Dataset:
    for keyword, value in tags.items():
        if isinstance(value, DataElement):  # one with a representation of its own
            dataset.add(value)
        elif value is not None:
            setattr(dataset, keyword, value)
        elif keyword in dataset:
            delattr(dataset, keyword)
    return dataset


def _written(dataset: Dataset, syntax: str) -> bytes:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", CTImageStorage)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", "1.2")
    dataset.file_meta.TransferSyntaxUID = syntax
    stream = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):  # some of the files are meant to be odd
        dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()
