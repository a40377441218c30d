"""Sound DICOM files of every kind, small and deterministic: what the fuzz of the reader damages."""

import io
import logging
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from ichtune.data.dicom.reader import SliceReading, read_slices
from ichtune.data.phantom.headers import ENCODINGS, SeriesHeader, encode_file, stored_pixels

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "transfer_syntaxes"
JPEG = "1.2.840.10008.1.2.4."
DEFLATED = "1.2.840.10008.1.2.1.99"


@dataclass(frozen=True)
class Base:
    """One sound file: its bytes, what it reads as, and its compressed frames."""

    name: str
    data: bytes
    readings: tuple[SliceReading, ...]
    streams: tuple[bytes, ...] = ()


def head_hu(size: int = 40, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    radius = np.hypot(x, y * 0.9)
    hu = np.where(radius < 0.75, 35, np.where(radius < 0.85, 900, -1000)) + rng.normal(0, 4, radius.shape)
    return np.rint(hu).astype(np.int16)


def phantom_file(encoding_index: int, has_padding_tag: bool = False) -> bytes:
    encoding = ENCODINGS[encoding_index]
    header = SeriesHeader(
        "P1", "1.2.3", "1.2.3.4", encoding, "40", "80", True, has_padding_tag, 0.5, (1, 0, 0, 0, 1, 0)
    )
    hu = head_hu(seed=encoding_index)
    stored = stored_pixels(hu, hu < -990, encoding)
    return encode_file(header, f"ID_{encoding_index:09d}", (1.0, 2.0, 3.0), stored)


def saved(dataset: Dataset, syntax: str, value: bytes) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    dataset.file_meta = meta
    dataset.PixelData = value
    dataset["PixelData"].VR = "OW" if syntax.count(".") < 7 else "OB"
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def plain_dataset(encoding_index: int) -> tuple[Dataset, np.ndarray]:
    dataset = dcmread(io.BytesIO(phantom_file(encoding_index)))
    return dataset, dataset.pixel_array


def compressed_files() -> dict[str, tuple[bytes, tuple[bytes, ...]]]:
    encode: dict[str, Callable[[np.ndarray], bytes]] = {
        f"{JPEG}90": lambda image: imagecodecs.jpeg2k_encode(image, level=0, codecformat="j2k"),
        f"{JPEG}91": lambda image: imagecodecs.jpeg2k_encode(image, level=60, codecformat="j2k"),
        f"{JPEG}80": imagecodecs.jpegls_encode,
        f"{JPEG}70": lambda image: imagecodecs.ljpeg_encode(image, bitspersample=16),
        f"{JPEG}57": lambda image: imagecodecs.ljpeg_encode(image, bitspersample=16),
    }
    files = {}
    for syntax, encoder in encode.items():
        for index in (0, 5):
            dataset, image = plain_dataset(index)
            stream = encoder(np.ascontiguousarray(image).view(np.uint16))
            files[f"{syntax}, {ENCODINGS[index].name}"] = saved(dataset, syntax, encapsulate([stream])), (stream,)
    dataset, image = plain_dataset(0)
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.RescaleSlope = 7, 16
    stream = imagecodecs.jpeg8_encode((image >> 4).astype(np.uint8), level=95)
    files[f"{JPEG}50"] = saved(dataset, f"{JPEG}50", encapsulate([stream])), (stream,)
    return files


def enhanced(n_frames: int) -> tuple[Dataset, np.ndarray]:
    """A multi-frame file whose frames lie 5 mm apart."""
    dataset, _ = plain_dataset(5)
    frames = np.stack([head_hu(seed=10 + i) + 1024 for i in range(n_frames)])
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    dataset.NumberOfFrames = n_frames
    shared, plane, scale = Dataset(), Dataset(), Dataset()
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    scale.RescaleIntercept, scale.RescaleSlope, scale.RescaleType = "-1024", "1", "HU"
    shared.PlaneOrientationSequence, shared.PixelValueTransformationSequence = [plane], [scale]
    dataset.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for i in range(n_frames):
        group, position = Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, 5 * i]
        group.PlanePositionSequence = [position]
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = groups
    for keyword in ("ImagePositionPatient", "RescaleIntercept", "RescaleSlope"):
        delattr(dataset, keyword)
    return dataset, frames


def native_files() -> dict[str, bytes]:
    files = {f"phantom {e.name}": phantom_file(i, has_padding_tag=i == 5) for i, e in enumerate(ENCODINGS)}
    for syntax in (ImplicitVRLittleEndian, ExplicitVRBigEndian):
        dataset, image = plain_dataset(5)
        value = image.astype(">i2" if syntax == ExplicitVRBigEndian else "<i2").tobytes()
        files[syntax.name] = (
            big_endian(dataset, value) if syntax == ExplicitVRBigEndian else saved(dataset, syntax, value)
        )
    files["no meta header"] = files[ImplicitVRLittleEndian.name][
        files[ImplicitVRLittleEndian.name].index(b"\x08\0\x16\0") :
    ]
    files[DEFLATED] = deflated(phantom_file(0))
    dataset, _ = plain_dataset(0)
    dataset.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    files["RLE"] = saved(dataset, RLELossless, dataset.PixelData)
    dataset, frames = enhanced(3)
    files["enhanced"] = saved(dataset, ExplicitVRLittleEndian, frames.astype("<i2").tobytes())
    dataset.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    files["enhanced RLE"] = saved(dataset, RLELossless, dataset.PixelData)
    return files


def big_endian(dataset: Dataset, value: bytes) -> bytes:
    other = Dataset()
    for element in dataset:
        other.add(element)
    return saved(other, ExplicitVRBigEndian, value)


def deflated(data: bytes) -> bytes:
    """The same explicit little-endian file as a deflated one; whatever it is called, its meta header is kept."""
    end = data.index(b"\x08\0\x16\0") if b"\x08\0\x16\0" in data else 300
    old = b"\x02\0\x10\0UI" + struct.pack("<H", 20) + b"1.2.840.10008.1.2.1\0"
    new = b"\x02\0\x10\0UI" + struct.pack("<H", 22) + DEFLATED.encode()
    meta = data[:end].replace(old, new)
    (length,) = struct.unpack_from("<I", meta.ljust(144, b"\0"), 140)
    meta = meta[:140] + struct.pack("<I", (length + 2) & 0xFFFFFFFF) + meta[144:]
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return meta + packer.compress(data[end:]) + packer.flush()


@pytest.fixture(scope="module")
def quiet() -> Iterator[None]:
    """pydicom logs what it thinks of each damaged file."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


@pytest.fixture(scope="module")
def bases(quiet: None) -> list[Base]:
    """Small files of every kind; each reads as a whole."""
    with warnings.catch_warnings(action="ignore"):
        made = [Base(name, data, tuple(read_slices(data))) for name, data in native_files().items()]
        made += [Base(name, d, tuple(read_slices(d)), streams) for name, (d, streams) in compressed_files().items()]
        dataset, frames = enhanced(3)
        streams = tuple(imagecodecs.jpegls_encode(frame.astype(np.uint16)) for frame in frames)
        data = saved(dataset, f"{JPEG}80", encapsulate(list(streams)))
    made.append(Base("enhanced JPEG-LS", data, tuple(read_slices(data)), streams))
    assert [(base.name, r.reason) for base in made for r in base.readings if r.hu is None] == []
    return made


@pytest.fixture(scope="module")
def real_bases(quiet: None) -> list[Base]:
    """The real files of 512 x 512 that lie beside some checkouts; none where they do not."""
    files = sorted(FOLDER.glob("*.dcm")) if FOLDER.is_dir() else []
    return [Base(path.name, path.read_bytes(), tuple(read_slices(path.read_bytes()))) for path in files]


@pytest.fixture(scope="module")
def deflate() -> Callable[[bytes], bytes]:
    """Return ``deflated``."""
    return deflated
