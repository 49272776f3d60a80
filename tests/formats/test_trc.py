from __future__ import annotations

import numpy as np
import pytest

from cpnpose.errors import InputError, OutputError
from cpnpose.formats.trc import write_trc


def test_opensims_layout(tmp_path, header, clip):
    path = tmp_path / "walk.trc"
    assert write_trc(header, clip, path, person=3) == [path]
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    assert lines[0] == ["PathFileType", "4", "(X/Y/Z)", "walk.trc"]
    facts = dict(zip(lines[1], lines[2], strict=True))
    assert facts == {
        "DataRate": "29.97",
        "CameraRate": "29.97",
        "NumFrames": "5",
        "NumMarkers": "17",
        "Units": "px",
        "OrigDataRate": "29.97",
        "OrigDataStartFrame": "1",
        "OrigNumFrames": "5",
    }
    assert lines[3][:2] == ["Frame#", "Time"]
    assert lines[3][2::3] == list(header.keypoint_names)
    assert lines[4][2:] == [f"{axis}{number}" for number in range(1, 18) for axis in "XYZ"]
    assert lines[5] == [""]
    rows = lines[6:]
    assert [row[0] for row in rows] == ["1", "2", "3", "4", "5"]
    for row, result in zip(rows, clip, strict=True):
        assert len(row) == 2 + 17 * 3
        assert float(row[1]) == pytest.approx(result.frame.time_s, abs=1e-6)
        at = np.flatnonzero(result.poses.track_ids == 3)
        if len(at) == 0:
            assert set(row[2:]) == {""}
            continue
        points = np.array(row[2:], float).reshape(17, 3)
        np.testing.assert_allclose(points[:, :2], result.poses.keypoints_xy[at[0]], atol=5.1e-3)
        assert (points[:, 2] == 0).all()


def test_a_file_per_person(tmp_path, header, clip):
    paths = write_trc(header, clip, tmp_path / "walk.trc")
    assert [path.name for path in paths] == ["walk_id1.trc", "walk_id3.trc"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["walk_id1.trc", "walk_id3.trc"]
    with pytest.raises(OutputError, match="--overwrite"):
        write_trc(header, clip, tmp_path / "walk.trc")


def test_nobody(tmp_path, header, clip):
    with pytest.raises(InputError, match="nobody"):
        write_trc(header, clip[1:2], tmp_path / "walk.trc")
    assert list(tmp_path.iterdir()) == []
