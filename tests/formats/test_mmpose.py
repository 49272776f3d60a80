from __future__ import annotations

import json

import numpy as np

from cpnpose.formats.mmpose import write_mmpose


def test_an_entry_per_frame(tmp_path, header, clip):
    path = tmp_path / "out.json"
    write_mmpose(header, clip, path)
    entries = json.loads(path.read_text())
    assert [entry["frame_id"] for entry in entries] == [0, 1, 2, 3, 4]
    for entry, result in zip(entries, clip, strict=True):
        poses = result.poses
        assert len(entry["instances"]) == len(poses)
        for row, instance in enumerate(entry["instances"]):
            np.testing.assert_allclose(instance["keypoints"], poses.keypoints_xy[row], atol=5.1e-3)
            np.testing.assert_allclose(instance["keypoint_scores"], poses.keypoint_scores[row], atol=5.1e-5)
            np.testing.assert_allclose(instance["bbox"], poses.boxes_xyxy[row : row + 1], atol=5.1e-3)
            np.testing.assert_allclose(instance["bbox_score"], poses.box_scores[row], atol=5.1e-5)
            assert instance.get("track_id", -1) == poses.track_ids[row]
