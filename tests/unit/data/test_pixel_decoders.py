import io

import imagecodecs
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from ichtune.data.dicom_parse import parse
from ichtune.data.pixel_decoders import codestream_shape, decode_pixels
from ichtune.errors import DataError

ENCODERS = {
    JPEG2000Lossless: lambda image: imagecodecs.jpeg2k_encode(image, level=0, codecformat="j2k"),
    JPEGLSLossless: imagecodecs.jpegls_encode,
    JPEGLosslessSV1: lambda image: imagecodecs.ljpeg_encode(image, bitspersample=16),
}


def compressed(path, frame: bytes, syntax, **tags) -> bytes:
    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = syntax
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


@pytest.mark.parametrize("syntax", ENCODERS)
def test_lossless_codecs_give_the_stored_values(tmp_path, write_slice, stored, syntax):
    data = compressed(write_slice(tmp_path / "a.dcm"), ENCODERS[syntax](stored), syntax)
    assert (decode_pixels(parse(data)) == stored).all()


def test_rle_gives_the_stored_values(tmp_path, write_slice, stored):
    dataset = dcmread(write_slice(tmp_path / "a.dcm"))
    dataset.compress(RLELossless, encoding_plugin="pydicom")
    dataset.save_as(tmp_path / "rle.dcm")
    assert (decode_pixels(parse((tmp_path / "rle.dcm").read_bytes())) == stored).all()


@pytest.mark.parametrize("syntax", ENCODERS)
def test_a_stream_that_was_cut_is_refused_never_padded(tmp_path, write_slice, stored, syntax):
    frame = ENCODERS[syntax](stored)
    data = compressed(write_slice(tmp_path / "a.dcm"), frame[: len(frame) * 3 // 4], syntax)
    with pytest.raises(DataError, match=r"^truncated_pixel_data"):
        decode_pixels(parse(data))


@pytest.mark.parametrize("syntax", ENCODERS)
def test_a_stream_of_another_size_is_refused_before_it_is_decoded(tmp_path, write_slice, stored, syntax):
    data = compressed(write_slice(tmp_path / "a.dcm"), ENCODERS[syntax](stored), syntax, Rows=512)
    with pytest.raises(DataError, match=r"^undecodable_pixels: the compressed image is 16 x 12"):
        decode_pixels(parse(data))


@pytest.mark.parametrize("syntax", [*ENCODERS, RLELossless])
def test_noise_in_place_of_a_stream_is_refused(tmp_path, write_slice, syntax):
    noise = np.random.default_rng(0).bytes(4000)
    with pytest.raises(DataError, match=r"^(undecodable|truncated)"):
        decode_pixels(parse(compressed(write_slice(tmp_path / "a.dcm"), noise, syntax)))


def test_run_lengths_too_few_for_the_matrix_are_refused_before_decoding(tmp_path, write_slice):
    data = compressed(write_slice(tmp_path / "a.dcm"), b"\0" * 100, RLELossless, Rows=4000, Columns=4000)
    with pytest.raises(DataError, match=r"^truncated_pixel_data: .* run lengths"):
        decode_pixels(parse(data))


def test_a_syntax_without_decoder_is_refused(tmp_path, write_slice):
    data = compressed(write_slice(tmp_path / "a.dcm"), b"\0" * 100, "1.2.840.10008.1.2.4.55")
    with pytest.raises(DataError, match=r"^unsupported_transfer_syntax: .*4\.55"):
        decode_pixels(parse(data))


def test_native_pixels_may_have_a_byte_of_padding_but_not_a_row(tmp_path, write_slice, stored):
    odd = np.arange(9, dtype=np.uint8).reshape(3, 3)
    tags = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    padded = write_slice(tmp_path / "a.dcm", odd, **tags, PixelData=odd.tobytes() + b"\0")
    assert (decode_pixels(parse(padded.read_bytes())) == odd).all()
    longer = write_slice(tmp_path / "b.dcm", PixelData=stored.tobytes() + b"\0" * 24)
    with pytest.raises(DataError, match=r"^pixel_data_length"):
        decode_pixels(parse(longer.read_bytes()))


@pytest.mark.parametrize("encode", ENCODERS.values())
def test_the_size_is_read_without_decoding(encode, stored):
    assert codestream_shape(encode(stored)) == (16, 12)


@pytest.mark.parametrize("frame", [b"", b"\xff\xd8", b"\xff\xd8\xff\xda", b"\xff\xd8" + b"\xff" * 50, b"GIF89a"])
def test_a_stream_without_frame_header_has_no_size(frame):
    assert codestream_shape(frame) is None
