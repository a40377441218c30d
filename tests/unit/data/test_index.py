from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ichtune.data import index
from ichtune.data.content_hash import content_hash, near_hash
from ichtune.data.dicom.reader import SliceReading, read_slices
from ichtune.data.index import ROW_COLUMNS, build_slice_table, image_id_of, read_file, shared_names, slice_normal
from ichtune.errors import DataError
from ichtune.labels import LABELS
from ichtune.tables import SLICES

#: Tags that would say where a slice lies.
NOWHERE = {"InstanceNumber": None, "ImagePositionPatient": None}


def table_of(folder: Path) -> pd.DataFrame:
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    rows = [reading.row for path in paths for reading in read_file((folder / path).read_bytes(), path)]
    return build_slice_table(pd.DataFrame(rows).astype(ROW_COLUMNS)).set_index("path", drop=False)


def test_a_row_tells_what_the_header_says(tmp_path, write_slice):
    write_slice(
        tmp_path / "sub" / "a.dcm",
        SOPInstanceUID="1.2.3.9",
        SliceThickness="5",
        PixelSpacing=[0.5, 0.5],
        ImagePositionPatient=[1, 2, 3],
    )
    table = table_of(tmp_path)
    assert list(table.columns) == list(SLICES.columns)
    row = table.iloc[0]
    assert (row["image_id"], row["path"], row["status"], row["reason"]) == ("1.2.3.9", "sub/a.dcm", "ok", "")
    assert (row["patient_id"], row["dicom_study_uid"], row["series_instance_uid"]) == (
        "P1",
        "1.2.3",
        "1.2.3.4",
    )
    assert (row["z_mm"], row["slice_thickness_mm"], row["pixel_spacing_mm"], row["tilt_deg"]) == (
        3,
        5,
        0.5,
        0,
    )
    assert (row["rows_px"], row["columns_px"], row["encoding"]) == (16, 12, "12u-1024")
    assert not row["is_labelled"]
    assert row[list(LABELS)].isna().all()


def test_a_row_holds_the_window_that_its_file_asks_for(tmp_path, write_slice):
    write_slice(tmp_path / "a.dcm", WindowCenter=["36", "600"], WindowWidth=["80", "2800"], SOPInstanceUID="1.2.1")
    write_slice(tmp_path / "b.dcm", WindowCenter="40", WindowWidth="-1", SOPInstanceUID="1.2.2")
    write_slice(tmp_path / "c.dcm", SOPInstanceUID="1.2.3")
    windows = table_of(tmp_path)[["window_center_hu", "window_width_hu"]]
    assert windows.loc["a.dcm"].tolist() == [36, 80]
    assert windows.loc[["b.dcm", "c.dcm"]].isna().all(axis=None)
    assert set(windows.dtypes.astype(str)) == {"float64"}


def test_names_and_birth_dates_reach_no_row(tmp_path, write_slice):
    write_slice(tmp_path / "a.dcm")
    text = table_of(tmp_path).to_csv()
    assert "Seeded" not in text
    assert "19010203" not in text


@pytest.mark.parametrize(
    ("uid", "path", "image_id"),
    [
        ("ID_abc", "x/other.dcm", "ID_abc"),
        ("1.2.3", "x/ID_abc.dcm", "ID_abc"),
        ("1.2.3", "x/0001.dcm", "1.2.3"),
        ("", "x/ID_abc.dcm", "ID_abc"),
        ("", "x/0001.dcm", "x/0001.dcm"),
    ],
)
def test_the_image_id_is_the_competitions_where_there_is_one(uid, path, image_id):
    assert image_id_of(uid, path) == image_id


def test_a_repeated_uid_is_a_duplicate_row_of_the_first_file(tmp_path, write_slice):
    for name in ("a", "b", "c"):
        write_slice(tmp_path / f"{name}.dcm", SOPInstanceUID="1.2.9")
    write_slice(tmp_path / "d.dcm", SOPInstanceUID="1.2.10")
    table = table_of(tmp_path)
    assert table["image_id"].tolist() == ["1.2.9", "1.2.9~2", "1.2.9~3", "1.2.10"]
    assert table["status"].tolist() == ["ok", "duplicate", "duplicate", "ok"]
    assert table.loc["b.dcm", "reason"] == "duplicate_sop_instance_uid: same as a.dcm"
    assert sorted(table["slice_rank"]) == [-1, -1, 0, 1]


def test_a_readable_copy_is_not_lost_to_a_broken_first_file(tmp_path, write_slice):
    broken = write_slice(tmp_path / "a.dcm", SOPInstanceUID="1.2.9")
    broken.write_bytes(broken.read_bytes()[:-50])
    write_slice(tmp_path / "b.dcm", SOPInstanceUID="1.2.9")
    table = table_of(tmp_path)
    assert table.loc["b.dcm", ["image_id", "status"]].tolist() == ["1.2.9", "ok"]
    assert table.loc["a.dcm", ["image_id", "status"]].tolist() == ["1.2.9~2", "refused"]
    assert table.loc["a.dcm", "reason"].startswith("truncated_pixel_data")


def test_a_refused_file_is_a_row_with_what_could_be_read(tmp_path, write_slice):
    write_slice(tmp_path / "a.dcm", Modality="MR", SOPInstanceUID="1.2.9")
    (tmp_path / "b.dcm").write_text("no DICOM")
    table = table_of(tmp_path)
    assert table.loc["a.dcm", ["image_id", "status", "patient_id"]].tolist() == ["1.2.9", "refused", "P1"]
    assert table.loc["b.dcm", ["image_id", "status", "patient_id"]].tolist() == ["b.dcm", "refused", ""]
    assert (table["slice_rank"] == -1).all()


def test_without_patient_or_series_a_slice_belongs_to_its_study(tmp_path, write_slice):
    write_slice(tmp_path / "a.dcm", PatientID=None, SeriesInstanceUID=None)
    write_slice(tmp_path / "b.dcm", PatientID="", StudyInstanceUID=None, SeriesInstanceUID=None, SOPInstanceUID="1.5")
    table = table_of(tmp_path)
    assert table.loc["a.dcm", ["patient_id", "series_instance_uid"]].tolist() == ["1.2.3", "1.2.3"]
    assert table.loc["b.dcm", ["patient_id", "series_instance_uid"]].tolist() == ["1.5", "1.5"]


def test_a_repaired_file_is_marked(tmp_path, write_slice):
    write_slice(tmp_path / "a.dcm", RescaleIntercept="1")
    write_slice(tmp_path / "b.dcm")
    assert table_of(tmp_path)["repaired_12bit"].tolist() == [True, False]


def test_of_two_copies_the_lossless_one_is_used(tmp_path, write_slice):
    write_slice(tmp_path / "a.dcm", SOPInstanceUID="1.5", LossyImageCompression="01")
    write_slice(tmp_path / "b.dcm", SOPInstanceUID="1.5")
    table = table_of(tmp_path)
    assert table["is_lossy"].tolist() == [True, False]
    assert table["status"].tolist() == ["duplicate", "ok"]
    assert table.loc["a.dcm", "reason"] == "duplicate_sop_instance_uid: same as b.dcm"


def test_padding_below_air_makes_no_other_picture(tmp_path, write_slice):
    signed = {"PixelRepresentation": 1, "BitsStored": 16, "HighBit": 15, "RescaleIntercept": "0"}
    for name, padding in (("a", -2000), ("b", -3024), ("c", -1000)):
        pixels = np.full((8, 8), 40, np.int16)
        pixels[0] = padding
        write_slice(tmp_path / f"{name}.dcm", pixels, **signed)
    table = table_of(tmp_path)
    assert table["content_hash"].iloc[0] == table["content_hash"].iloc[1] != table["content_hash"].iloc[2]
    (reading,) = read_file((tmp_path / "a.dcm").read_bytes(), "a.dcm")
    assert (reading.hu.min(), reading.lifted_hu.min()) == (-2000, -1024)


def test_one_uid_for_several_slices_loses_none_of_them(tmp_path, write_slice):
    for number, name in enumerate(("a", "b", "c")):
        pixels = np.full((8, 8), 1000 + number, np.uint16)
        write_slice(tmp_path / f"{name}.dcm", pixels, SOPInstanceUID="1.5", ImagePositionPatient=[0, 0, 5 * number])
    (tmp_path / "d.dcm").write_bytes((tmp_path / "b.dcm").read_bytes())
    table = table_of(tmp_path)
    assert table["status"].tolist() == ["ok", "ok", "ok", "duplicate"]
    assert table["image_id"].tolist() == ["1.5", "1.5~2", "1.5~3", "1.5~4"]
    assert table.loc["d.dcm", "reason"] == "duplicate_sop_instance_uid: same as b.dcm"
    assert table["slice_rank"].tolist() == [0, 1, 2, -1]
    assert shared_names(table).tolist() == ["1.5", "1.5", "1.5", ""]


def test_another_version_of_a_slice_at_its_place_is_a_copy(tmp_path, write_slice):
    for name in ("a", "b"):
        pixels = np.full((8, 8), ord(name), np.uint16)
        write_slice(tmp_path / f"{name}.dcm", pixels, SOPInstanceUID="1.5", ImagePositionPatient=[0, 0, 5])
    assert table_of(tmp_path)["status"].tolist() == ["ok", "duplicate"]


def test_without_any_place_only_equal_pixels_are_a_copy(tmp_path, write_slice):
    for number, name in enumerate(("a", "b", "c")):
        pixels = np.full((8, 8), 1000 + number % 2, np.uint16)
        write_slice(tmp_path / f"{name}.dcm", pixels, SOPInstanceUID="1.5", **NOWHERE)
    assert table_of(tmp_path)["status"].tolist() == ["ok", "ok", "duplicate"]


def test_files_of_one_competition_name_share_it_and_are_told_apart(tmp_path, write_slice):
    for number, folder in enumerate(("one", "two")):
        write_slice(tmp_path / folder / "ID_1.dcm", np.full((8, 8), number, np.uint16), SOPInstanceUID=f"1.{number}")
    table = table_of(tmp_path)
    assert table["image_id"].tolist() == ["ID_1", "ID_1~2"]
    assert shared_names(table).tolist() == ["ID_1", "ID_1"]


@pytest.mark.parametrize("orientation", [(-1, 0, 0, 0, 1, 0), (1, 0, 0, 0, -1, 0), (1, 0, 0, 0, 1, 0)])
def test_a_mirrored_series_has_the_order_and_tilt_of_any_other(tmp_path, write_slice, orientation):
    for number, name in enumerate("abc"):
        write_slice(
            tmp_path / f"{name}.dcm",
            SOPInstanceUID=f"1.{number}",
            ImagePositionPatient=[0, 0, 5 * number],
            ImageOrientationPatient=list(orientation),
        )
    table = table_of(tmp_path)
    assert table["slice_rank"].tolist() == [0, 1, 2]
    assert table["z_mm"].tolist() == [0, 5, 10]
    assert table["tilt_deg"].tolist() == [0, 0, 0]


def test_a_row_holds_the_fingerprints_of_its_slice(tmp_path, write_slice):
    write_slice(tmp_path / "a.dcm")
    (reading,) = read_file((tmp_path / "a.dcm").read_bytes(), "a.dcm")
    assert set(reading.row) == set(ROW_COLUMNS)
    assert reading.row["content_hash"] == content_hash(reading.hu)
    assert reading.row["near_hash"] == near_hash(reading.hu)
    assert (reading.row["frame_number"], reading.row["is_blank"], reading.row["padding_ignored"]) == (1, False, False)


def test_a_slice_without_anatomy_is_marked_blank(tmp_path, write_slice):
    write_slice(tmp_path / "a.dcm", np.zeros((16, 12), np.uint16))
    assert table_of(tmp_path)["is_blank"].tolist() == [True]


def test_a_file_that_could_not_be_read_is_a_refused_row():
    (reading,) = read_file(DataError("unreadable_file: Permission denied"), "sub/a.dcm")
    assert (reading.hu, reading.row["path"], reading.row["reason"]) == (
        None,
        "sub/a.dcm",
        "unreadable_file: Permission denied",
    )
    row = build_slice_table(pd.DataFrame([reading.row]).astype(ROW_COLUMNS)).iloc[0]
    assert (row["image_id"], row["status"], row["content_hash"], row["n_at_position"]) == (
        "sub/a.dcm",
        "refused",
        "",
        0,
    )


def test_each_frame_of_a_file_is_a_row_with_a_name_of_its_own(tmp_path, write_slice, monkeypatch):
    (plain,) = read_slices(write_slice(tmp_path / "m.dcm", SOPInstanceUID="1.2.9").read_bytes())

    def three_frames(data):
        for frame in (1, 2, 3):
            header = replace(plain.header, frame_number=frame, image_position_mm=(0.0, 0.0, 5.0 * frame))
            broken = frame == 2
            yield SliceReading(
                header, None if broken else plain.hu + np.int16(frame), "undecodable_pixels: x" if broken else ""
            )

    monkeypatch.setattr(index, "read_slices", three_frames)
    rows = [reading.row for path in ("a.dcm", "b.dcm") for reading in read_file(b"", path)]
    table = build_slice_table(pd.DataFrame(rows).astype(ROW_COLUMNS))
    assert table["image_id"].tolist() == ["1.2.9#1", "1.2.9#2", "1.2.9#3", "1.2.9#1~2", "1.2.9#2~2", "1.2.9#3~2"]
    assert table["status"].tolist() == ["ok", "refused", "ok", "duplicate", "refused", "duplicate"]
    assert table["frame_number"].tolist() == [1, 2, 3, 1, 2, 3]
    assert table["slice_rank"].tolist() == [0, -1, 1, -1, -1, -1]
    assert table["spacing_mm"].tolist()[0] == 10
    assert table["content_hash"].nunique() == 3  # two frames, and nothing for the broken ones


def test_the_one_frame_of_a_file_goes_by_the_files_name(tmp_path, write_slice):
    write_slice(tmp_path / "ID_abc.dcm", SOPInstanceUID="1.2.9")
    write_slice(tmp_path / "b.dcm", SOPInstanceUID="1.2.10")
    assert table_of(tmp_path)["image_id"].tolist() == ["ID_abc", "1.2.10"]


def test_the_normal_is_row_times_column_turned_towards_the_head():
    assert slice_normal((1, 0, 0, 0, 1, 0)) == (0, 0, 1)
    assert slice_normal((0, 1, 0, 1, 0, 0)) == (0, 0, 1)
    x, y, z = slice_normal((1, 0, 0, 0, 0.8, -0.6))
    assert (x, y, z) == pytest.approx((0, 0.6, 0.8))
    assert np.isnan(slice_normal((1, 0, 0, 1, 0, 0))).all()
    assert np.isnan(slice_normal(None)).all()
