from __future__ import annotations

import numpy as np
import pytest

from cpnpose.formats.mot import write_mot


def test_lines_count_from_one_and_leave_out_people_without_id(tmp_path, header, clip):
    path = tmp_path / "out.txt"
    write_mot(header, clip, path)
    rows = np.loadtxt(path, delimiter=",")
    assert rows[:, :2].tolist() == [[1, 1], [1, 3], [3, 3], [4, 1], [5, 3], [5, 1]]
    x1, y1, x2, y2 = clip[0].poses.boxes_xyxy[1]
    np.testing.assert_allclose(rows[1, 2:6], [x1 + 1, y1 + 1, x2 - x1, y2 - y1], atol=5.2e-3)
    np.testing.assert_allclose(rows[1, 6], clip[0].poses.scores[1], atol=5.1e-5)
    assert (rows[:, 7:] == -1).all()


def test_without_tracking_it_is_a_detections_file(tmp_path, header, make_poses, make_result):
    write_mot(header, [make_result(0, make_poses(3))], tmp_path / "out.txt")
    assert np.loadtxt(tmp_path / "out.txt", delimiter=",")[:, 1].tolist() == [-1, -1, -1]


def test_motmetrics_reads_the_boxes_of_the_record(tmp_path, header, clip):
    motmetrics = pytest.importorskip("motmetrics")
    write_mot(header, clip, tmp_path / "out.txt")
    table = motmetrics.io.loadtxt(str(tmp_path / "out.txt"), fmt="mot15-2D")
    for result in clip:
        for row, identity in enumerate(result.poses.track_ids):
            if identity < 0:
                continue
            x1, y1, x2, y2 = result.poses.boxes_xyxy[row]
            read = table.loc[(result.frame.index + 1, identity)]
            np.testing.assert_allclose(read[["X", "Y", "Width", "Height"]], [x1, y1, x2 - x1, y2 - y1], atol=5.2e-3)
