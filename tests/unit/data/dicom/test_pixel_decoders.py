import io
from dataclasses import replace

import imagecodecs
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from ichtune.data.dicom.parse import parse
from ichtune.data.dicom.pixel_decoders import codestream_shape, decode_pixels
from ichtune.errors import DataError

ENCODERS = {
    JPEG2000Lossless: lambda image: imagecodecs.jpeg2k_encode(image, level=0, codecformat="j2k"),
    JPEGLSLossless: imagecodecs.jpegls_encode,
    JPEGLosslessSV1: lambda image: imagecodecs.ljpeg_encode(image, bitspersample=16),
}


def compressed(path, frame: bytes | list[bytes], syntax, **tags) -> bytes:
    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = syntax
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    dataset.PixelData = encapsulate(frame if isinstance(frame, list) else [frame])
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


@pytest.mark.parametrize("is_encapsulated", [True, False])
def test_a_syntax_that_is_no_uid_is_refused_and_not_quoted(tmp_path, write_slice, is_encapsulated):
    parsed = parse(write_slice(tmp_path / "a.dcm").read_bytes())
    named = replace(parsed.header, transfer_syntax_uid="1.2.DOE^JANE")
    with pytest.raises(DataError, match=r"^unsupported_transfer_syntax: .*an unknown one") as refusal:
        decode_pixels(replace(parsed, header=named, is_encapsulated=is_encapsulated))
    assert "DOE" not in str(refusal.value)


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


def three(stored) -> np.ndarray:
    return np.stack([stored, stored // 2, stored[::-1]])


def test_each_native_frame_is_a_view_of_the_file(tmp_path, write_slice, stored):
    frames = three(stored)
    path = write_slice(tmp_path / "a.dcm", stored, NumberOfFrames=3, PixelData=frames.tobytes())
    data = path.read_bytes()
    decoded = [decode_pixels(parse(data), frame) for frame in range(3)]
    assert (np.stack(decoded) == frames).all()
    assert all(np.shares_memory(image, np.frombuffer(data, np.uint8)) for image in decoded)


def test_of_a_native_file_cut_short_the_frames_that_are_there_are_read(tmp_path, write_slice, stored):
    frames = three(stored)
    path = write_slice(tmp_path / "a.dcm", stored, NumberOfFrames=3, PixelData=frames.tobytes())
    parsed = parse(path.read_bytes()[:-1])
    assert (decode_pixels(parsed, 1) == frames[1]).all()
    with pytest.raises(DataError, match=r"^truncated_pixel_data"):
        decode_pixels(parsed, 2)


@pytest.mark.parametrize(("n_frames", "rows"), [(4, 16), (2, 16), (3, 17), (3, 15)])
def test_a_header_that_contradicts_the_length_of_all_frames_is_refused_for_each(
    tmp_path, write_slice, stored, n_frames, rows
):
    path = write_slice(
        tmp_path / "a.dcm", stored, NumberOfFrames=n_frames, Rows=rows, PixelData=three(stored).tobytes()
    )
    with pytest.raises(DataError, match=r"^pixel_data_length"):
        decode_pixels(parse(path.read_bytes()), 0)


@pytest.mark.parametrize("syntax", [*ENCODERS, RLELossless])
def test_each_compressed_frame_is_decoded_and_a_broken_one_spoils_no_other(tmp_path, write_slice, stored, syntax):
    frames = three(stored)
    if syntax == RLELossless:
        dataset = dcmread(write_slice(tmp_path / "b.dcm", stored, NumberOfFrames=3, PixelData=frames.tobytes()))
        dataset.compress(RLELossless, encoding_plugin="pydicom")
        streams = [get_frame(dataset.PixelData, frame, number_of_frames=3) for frame in range(3)]
    else:
        streams = [ENCODERS[syntax](image) for image in frames]
    streams[1] = streams[1][: len(streams[1]) // 2]
    parsed = parse(compressed(write_slice(tmp_path / "a.dcm"), streams, syntax, NumberOfFrames=3))
    assert (decode_pixels(parsed, 2) == frames[2]).all()
    assert (decode_pixels(parsed, 0) == frames[0]).all()
    with pytest.raises(DataError, match=r"^(truncated|undecodable)"):
        decode_pixels(parsed, 1)


def test_a_frame_that_the_header_does_not_have_is_a_mistake_of_the_caller(tmp_path, write_slice):
    parsed = parse(write_slice(tmp_path / "a.dcm").read_bytes())
    with pytest.raises(ValueError, match=r"frame must lie in 0\.\.0, got 1"):
        decode_pixels(parsed, 1)


def j2k(image: np.ndarray) -> bytes:
    return imagecodecs.jpeg2k_encode(image, level=0, codecformat="j2k")


@pytest.mark.parametrize(
    ("image", "tags"),
    [
        (np.full((16, 12), 200, np.uint8), {}),  # 8 bits, 12 are stored
        (np.full((16, 12), -5, np.int16), {}),  # signed, the header says unsigned
        (np.full((16, 12), 4096, np.uint16), {}),  # one more than 12 bits hold
        (np.full((16, 12), 0xF000, np.uint16), {"PixelRepresentation": 1}),
    ],
)
def test_a_stream_of_another_depth_or_sign_than_the_headers_is_refused(tmp_path, write_slice, image, tags):
    data = compressed(write_slice(tmp_path / "a.dcm"), j2k(image), JPEG2000Lossless, **tags)
    with pytest.raises(DataError, match=r"^undecodable_pixels: the compressed image (is|has)"):
        decode_pixels(parse(data))


@pytest.mark.parametrize("image", [np.full((16, 12), -5, np.int16), np.full((16, 12), 0x0FFB, np.uint16)])
def test_signed_values_may_come_extended_or_as_their_stored_bits(tmp_path, write_slice, image):
    data = compressed(write_slice(tmp_path / "a.dcm"), j2k(image), JPEG2000Lossless, PixelRepresentation=1)
    assert ((decode_pixels(parse(data)) & 0x0FFF) == 0x0FFB).all()


def test_eight_stored_bits_in_sixteen_allocated_are_read(tmp_path, write_slice):
    image = np.arange(16 * 12, dtype=np.uint8).reshape(16, 12)
    data = compressed(write_slice(tmp_path / "a.dcm"), j2k(image), JPEG2000Lossless, BitsStored=8, HighBit=7)
    assert (decode_pixels(parse(data)) == image).all()


def test_a_lossless_stream_with_a_hole_is_refused_although_its_decoder_takes_it(tmp_path, write_slice, stored):
    stream = ENCODERS[JPEGLosslessSV1](stored)
    holed = stream[:150] + stream[190:]
    assert imagecodecs.jpegsof3_decode(holed).shape == stored.shape
    with pytest.raises(DataError, match=r"^(truncated|undecodable)"):
        decode_pixels(parse(compressed(write_slice(tmp_path / "a.dcm"), holed, JPEGLosslessSV1)))


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, "1.2.840.10008.1.2.4.50"])
def test_codes_too_few_for_the_matrix_are_refused_before_decoding(tmp_path, write_slice, monkeypatch, syntax):
    monkeypatch.setattr("ichtune.data.dicom.pixel_decoders.decode_isolated", None)
    frame = b"\xff\xd8\xff\xc3\x00\x0b\x10\x0f\xa0\x0f\xa0\x01\x01\x11\x00" + bytes(500) + b"\xff\xd9"
    data = compressed(write_slice(tmp_path / "a.dcm"), frame, syntax, Rows=4000, Columns=4000)
    with pytest.raises(DataError, match=r"^truncated_pixel_data: 518 compressed bytes cannot hold 4000 x 4000 pixels"):
        decode_pixels(parse(data))
