"""No name, date, address or comment of a header reaches a file, a picture or a line that ichtune writes.

Headers are seeded with marks in every tag that could hold a person, and damaged in every way that could make a
reader quote one. Then every byte of every output is searched, decoded where it is compressed. What may be kept is
``PatientID`` and UIDs, and numbers.
"""

import io
import json
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless

from ichtune.data.cache.hu_cache import HuCache
from ichtune.data.dicom.header import TAGS
from ichtune.labels import LABELS

pytestmark = pytest.mark.slow

Marks = Any  # of conftest.py


def read_out(path: Path) -> Iterator[bytes]:
    """Everything that one output file holds: as it lies there, and unpacked."""
    data = path.read_bytes()
    yield str(path.name).encode()
    yield data
    if path.suffix == ".parquet":
        table = pq.read_table(path, partitioning=None)
        yield str(table.schema).encode() + str(table.schema.metadata).encode()
        yield repr(table.to_pydict()).encode()
    if path.suffix in (".json", ".jsonl"):
        for line in [data] if path.suffix == ".json" else data.splitlines():
            yield json.dumps(json.loads(line), ensure_ascii=False).encode()
    if path.suffix == ".png":
        with Image.open(path) as picture:
            yield repr(picture.info).encode()
    if path.name == "cache.json":
        cache = HuCache(path.parent)
        yield from (cache.read(row).tobytes() for row in range(cache.n_rows) if cache.shape(row))


def leaks(marks: Marks, folder: Path) -> dict[str, list[str]]:
    """Return, for each place of which a mark was found, the outputs that hold it."""
    found: dict[str, list[str]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        places = set().union(*(marks.found_in(part) for part in read_out(path)))
        for place in places:
            found.setdefault(place, []).append(path.relative_to(folder).as_posix())
    return found


@dataclass
class Outputs:
    """Where every command wrote, with what each said beside it."""

    root: Path
    marks: Marks
    codes: dict[str, int] = field(default_factory=dict)

    def run(self, name: str, *arguments: str | Path) -> None:
        """Run one command; its stdout and stderr become files that are searched too."""
        folders = {"HOME": "home", "TMPDIR": "tmp", "MPLCONFIGDIR": "home"}
        environ = {key: str(self.root / folder) for key, folder in folders.items()}
        said = subprocess.run(
            [sys.executable, "-W", "always", "-m", "ichtune", "-v", *map(str, arguments)],
            cwd=self.root,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environ},
            capture_output=True,
            check=False,
            timeout=300,
        )
        self.codes[name] = said.returncode
        (self.root / f"{name}.stdout").write_bytes(said.stdout)
        (self.root / f"{name}.stderr").write_bytes(said.stderr)


def add_for_decoders(seeded: Any) -> None:
    """Add compressed frames with a comment that get as far as their decoder, which refuses them."""
    image = np.random.default_rng(0).integers(0, 4096, (32, 32)).astype(np.uint16)
    streams = {
        JPEGLosslessSV1: imagecodecs.ljpeg_encode(image, bitspersample=16),
        JPEGLSLossless: imagecodecs.jpegls_encode(image),
        JPEG2000Lossless: imagecodecs.jpeg2k_encode(image, level=0, codecformat="j2k"),
    }
    for syntax, stream in streams.items():
        text = seeded.marks.text(f"{syntax.keyword}: comment that a decoder meets").encode()
        is_jpeg2k = syntax == JPEG2000Lossless  # its comment follows the segment that states the size
        at = 4 + int.from_bytes(stream[4:6], "big") if is_jpeg2k else 2
        body = b"\0\1" + text if is_jpeg2k else text
        comment = (b"\xff\x64" if is_jpeg2k else b"\xff\xfe") + struct.pack(">H", len(body) + 2) + body
        table = stream.find(b"\xff\xc4") + 5 if syntax == JPEGLosslessSV1 else 120  # of Huffman codes
        for end, damaged in {
            "early": stream[:at] + comment + stream[at:table] + text + stream[table + len(text) :],
            "late": stream[:at] + comment + stream[at : len(stream) // 2] + text * 4 + b"\xff\xd9",
        }.items():
            pixels = encapsulate([damaged])
            seeded.add(
                f"decoder_{syntax.keyword}_{end}",
                syntax,
                lambda dataset, pixels=pixels: setattr(dataset, "PixelData", pixels),
            )


def add_dates(seeded: Any) -> None:
    """Add files whose coded tags hold a birth date: digits and points, as in a UID, are no UID yet."""
    for name in ("sop_class_uid", "modality", "photometric_interpretation", "rescale_type"):
        data = seeded.add(f"dated_{name}")
        tag = struct.pack("<HH", int(TAGS[name]) >> 16, int(TAGS[name]) & 0xFFFF)
        start = data.index(tag, 132)
        end = start + 8 + struct.unpack_from("<H", data, start + 6)[0]
        date = seeded.marks.date(f"{name} holds a birth date").encode()
        seeded.write(f"dated_{name}", data[:start] + tag + b"LO\x08\0" + date + data[end:])


@pytest.fixture(scope="module")
def outputs(seeded: Any, tmp_path_factory: pytest.TempPathFactory) -> Outputs:
    """Prepare seeded files as a folder and as an archive, look at them in every way, and fail in a few."""
    source: Path = seeded.path
    add_for_decoders(seeded)
    add_dates(seeded)
    archive = source.parent / "seeded.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.comment = seeded.marks.text("comment of the archive").encode()
        for path in sorted(source.iterdir()):
            file.write(path, path.name)
    labels = source.parent / "labels.csv"
    rows = [f"1.2.3.{n},{','.join(str(int(n % 2)) for _ in LABELS)}" for n in range(1, 40)]
    labels.write_text("\n".join([f"image_id,{','.join(LABELS)}", *rows]) + "\n")
    refused = source.parent / "refused"
    refused.mkdir()
    (refused / "named.dcm").write_bytes((source / "named_modality.dcm").read_bytes())
    made = Outputs(tmp_path_factory.mktemp("outputs"), seeded.marks)
    for folder in ("home", "tmp"):
        (made.root / folder).mkdir()
    made.run("prepare", "prepare", source, "--labels", labels, "--out", "work", "--size", "32")
    made.run("prepare_again", "prepare", source, "--labels", labels, "--out", "work", "--size", "32", "--json")
    made.run("prepare_zip", "prepare", archive, "--out", "zipped", "--size", "native")
    made.run("nothing_usable", "prepare", refused, "--out", "nothing")
    made.run("wrong_labels", "prepare", source, "--labels", source / "sound_0.dcm", "--out", "wrong")
    slices = pq.read_table(made.root / "work" / "slices.parquet").to_pandas()
    no_series = slices.loc[slices["series_instance_uid"] == "", "image_id"].iloc[0]
    in_series = slices.loc[slices["path"] == "named_modality.dcm", "image_id"].iloc[0]
    for name, options in {
        "inspect": [],
        "inspect_json": ["--json"],
        "inspect_patient": ["--patient", "PAT0000", "--windows", "brain,40/80+80/200"],
        "inspect_refused": ["--image", in_series],
        "inspect_no_series": ["--image", no_series],
        "audit": [],
        "report": [],
        "leaderboard": [],
    }.items():
        made.run(name, name.split("_")[0], "--work", "work", *options)
    return made


def test_the_commands_did_what_they_were_run_for(outputs: Outputs) -> None:
    """A search of outputs that were never written would prove nothing."""
    wanted = {"prepare": 0, "prepare_again": 0, "prepare_zip": 0, "nothing_usable": 7, "wrong_labels": 3}
    wanted |= dict.fromkeys(("inspect", "inspect_json", "inspect_patient", "inspect_refused", "report"), 0)
    wanted |= {"inspect_no_series": 3, "audit": 0}
    said = {name: (outputs.root / f"{name}.stderr").read_text()[-600:] for name in wanted}
    assert {name: (code, said[name]) for name, code in outputs.codes.items() if name in wanted} == {
        name: (code, said[name]) for name, code in wanted.items()
    }
    kinds = {path.suffix for path in outputs.root.rglob("*")}
    assert {".parquet", ".json", ".npy", ".b2", ".png", ".html", ".stdout", ".stderr"} <= kinds


def test_files_of_every_kind_were_refused(outputs: Outputs) -> None:
    slices = pq.read_table(outputs.root / "work" / "slices.parquet").to_pandas()
    codes = set(slices.loc[slices["status"] == "refused", "reason"].str.split(":").str[0])
    assert {"not_dicom", "bad_header", "not_ct_image", "localizer", "derived_summary", "not_axial"} <= codes
    assert {"colour_image", "not_hounsfield", "absurd_matrix", "truncated_pixel_data", "no_pixel_data"} <= codes
    assert {"unsupported_transfer_syntax", "undecodable_pixels", "no_rescale"} <= codes
    assert (slices["status"] == "ok").sum() > 12
    reasons = "\n".join(slices["reason"])
    said_by_decoders = {f"{codec}Error" for codec in ("Jpegls", "Jpeg2k", "Jpegsof3") if f"{codec}Error: " in reasons}
    assert said_by_decoders == {"JpeglsError", "Jpeg2kError", "Jpegsof3Error"}


def test_what_may_be_kept_is_found(outputs: Outputs) -> None:
    """PatientIDs and UIDs stand in the tables: the search does see what lies in compressed columns."""
    parts = b"".join(read_out(outputs.root / "work" / "slices.parquet"))
    assert b"PAT0001" in parts
    assert b"1.2.3.1" in parts


def test_no_output_holds_what_a_header_says_of_a_person(outputs: Outputs) -> None:
    found = leaks(outputs.marks, outputs.root)
    assert not found, "\n".join(f"{place}: {', '.join(paths)}" for place, paths in sorted(found.items()))


@pytest.mark.parametrize("kind", ["plain", "utf16", "parquet", "json", "png", "birth date"])
def test_a_mark_would_be_found(tmp_path: Path, marks: Marks, kind: str) -> None:
    text, date = marks.text("PatientName"), marks.date("PatientBirthDate")
    if kind == "plain":
        (tmp_path / "log").write_text(f"bad value {text.lower()}!")
    elif kind == "utf16":
        (tmp_path / "log").write_bytes(text.encode("utf-16-le"))
    elif kind == "parquet":
        pd.DataFrame({"reason": [f"x: {text}"] * 50}).to_parquet(tmp_path / "a.parquet", compression="zstd")
    elif kind == "json":
        escaped = "".join(f"\\u{ord(letter):04x}" for letter in text)
        (tmp_path / "a.json").write_text(f'{{"reason": "{escaped}"}}')
    elif kind == "png":
        data = b"Comment\0\0" + zlib.compress(text.encode())
        chunk = b"zTXt" + data
        head, end = io.BytesIO(), 0
        Image.new("L", (4, 4)).save(head, "PNG")
        end = head.getvalue().index(b"IDAT") - 4
        chunk = struct.pack(">I", len(data)) + chunk + struct.pack(">I", zlib.crc32(chunk))
        (tmp_path / "a.png").write_bytes(head.getvalue()[:end] + chunk + head.getvalue()[end:])
    else:
        (tmp_path / "log").write_text(f"born {date[:4]}-{date[4:6]}-{date[6:]}")
    assert list(leaks(marks, tmp_path)) == ["PatientBirthDate" if kind == "birth date" else "PatientName"]
