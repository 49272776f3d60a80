from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest

from cpnpose.formats import CsvWriter
from cpnpose.pose.keypoints import KEYPOINT_NAMES


def rows_of(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream, strict=True))


def test_a_row_per_frame_and_person_and_one_for_empty_frames(tmp_path, header, clip):
    path = tmp_path / "out.csv"
    with CsvWriter(path, header) as writer:
        for result in clip:
            writer.write(result)
        assert not path.exists()
    rows = rows_of(path)
    assert [row["frame"] for row in rows] == ["0", "0", "1", "2", "2", "3", "4", "4"]
    assert [row["track_id"] for row in rows] == ["1", "3", "", "3", "", "1", "3", "1"]
    assert [row["person"] for row in rows] == ["0", "1", "", "0", "1", "0", "0", "1"]
    empty = rows[2]
    assert (empty["pts"], empty["time"]) == ("1001", "0.033367")
    assert all(empty[name] == "" for name in empty if name not in ("frame", "pts", "time"))
    poses = clip[0].poses
    for number, name in enumerate(KEYPOINT_NAMES):
        values = [float(rows[1][f"{name}_{part}"]) for part in ("x", "y", "score")]
        np.testing.assert_allclose(
            values, [*poses.keypoints_xy[1, number], poses.keypoint_scores[1, number]], atol=5.1e-3
        )
    box = [float(rows[1][f"box_{part}"]) for part in ("x1", "y1", "x2", "y2")]
    np.testing.assert_allclose(box, poses.boxes_xyxy[1], atol=5.1e-3)
    assert float(rows[1]["score"]) == pytest.approx(float(poses.scores[1]), abs=5.1e-5)
    assert float(rows[1]["box_score"]) == pytest.approx(float(poses.box_scores[1]), abs=5.1e-5)


def test_extras_have_their_columns(tmp_path, header, rich_clip):
    path = tmp_path / "out.csv"
    with CsvWriter(path, replace(header, extras=("track_ids", "uncertainty", "raw", "flags"))) as writer:
        for result in rich_clip:
            writer.write(result)
    row, poses = rows_of(path)[1], rich_clip[0].poses
    assert (row["right_ear_x"], row["right_ear_score"]) == ("", "")
    for number, name in enumerate(KEYPOINT_NAMES):
        assert float(row[f"{name}_uncertainty_px"]) == pytest.approx(float(poses.uncertainty_px[1, number]), abs=5.1e-3)
        assert float(row[f"{name}_raw_x"]) == pytest.approx(float(poses.raw_keypoints_xy[1, number, 0]), abs=5.1e-3)
        assert row[f"{name}_flags"] == ("", "filled", "swapped", "filled+swapped")[poses.flags[1, number]]


def test_extras_that_a_frame_lacks(tmp_path, header, clip):
    """Without smoothing the raw keypoints are the keypoints; an unknown uncertainty is an empty cell."""
    path = tmp_path / "out.csv"
    with CsvWriter(path, replace(header, extras=("uncertainty", "raw", "flags"))) as writer:
        writer.write(clip[0])
    row = rows_of(path)[0]
    assert row["nose_raw_x"] == row["nose_x"]
    assert row["nose_uncertainty_px"] == row["nose_flags"] == ""


def test_angles_have_their_columns(tmp_path, header, clip):
    angles = pytest.importorskip("cpnpose.pose.angles")
    path = tmp_path / "out.csv"
    with CsvWriter(path, replace(header, extras=("angles",))) as writer:
        for result in clip:
            writer.write(result)
    poses = clip[0].poses
    expected = angles.joint_angles(poses.keypoints_xy, poses.keypoint_scores)[1]
    row = rows_of(path)[1]
    for name, degrees in zip(angles.ANGLE_NAMES, expected, strict=True):
        cell = row[f"{name}_angle"]
        assert (cell == "") == bool(np.isnan(degrees))
        assert cell == "" or float(cell) == pytest.approx(float(degrees), abs=5.1e-3)


def test_images_start_with_their_file(tmp_path, header, clip):
    path = tmp_path / "out.csv"
    with CsvWriter(path, replace(header, kind="images", size=None, fps=None)) as writer:
        writer.write(clip[0], file='odd, "name".jpg')
        writer.write(clip[1], file="empty.jpg")
    rows = rows_of(path)
    assert next(iter(rows[0])) == "file"
    assert [row["file"] for row in rows] == ['odd, "name".jpg'] * 2 + ["empty.jpg"]


def test_interruption_keeps_whole_rows(tmp_path, header, clip):
    path = tmp_path / "out.csv"

    def run():
        with CsvWriter(path, header) as writer:
            writer.write(clip[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert len(rows_of(path)) == 2


def test_an_error_leaves_no_file(tmp_path, header, clip):
    def run():
        with CsvWriter(tmp_path / "out.csv", header) as writer:
            writer.write(clip[0])
            raise ValueError("something else broke")

    with pytest.raises(ValueError, match="something else"):
        run()
    assert list(tmp_path.iterdir()) == []
