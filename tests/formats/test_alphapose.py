from __future__ import annotations

import json

import numpy as np
import pytest

from cpnpose.formats import ImageResult
from cpnpose.formats.alphapose import write_alphapose


def test_an_entry_per_person(tmp_path, header, clip):
    path = tmp_path / "alphapose-results.json"
    write_alphapose(header, clip, path)
    entries = json.loads(path.read_text())
    people = [(result, row) for result in clip for row in range(len(result.poses))]
    assert len(entries) == len(people)
    for entry, (result, row) in zip(entries, people, strict=True):
        poses = result.poses
        assert entry["image_id"] == f"{result.frame.index}.jpg"
        assert entry["category_id"] == 1
        keypoints = np.array(entry["keypoints"]).reshape(17, 3)
        np.testing.assert_allclose(keypoints[:, :2], poses.keypoints_xy[row], atol=5.1e-3)
        x1, y1, x2, y2 = poses.boxes_xyxy[row]
        np.testing.assert_allclose(entry["box"], [x1, y1, x2 - x1, y2 - y1], atol=5.2e-3)
        assert entry["score"] == pytest.approx(float(poses.scores[row]), abs=5.1e-5)
        assert entry["idx"] == max(poses.track_ids[row], 0)


def test_images_keep_their_name(tmp_path, header, clip):
    write_alphapose(header, [ImageResult(clip[3].frame, clip[3].poses, file="me.png")], tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text())[0]["image_id"] == "me.png"
