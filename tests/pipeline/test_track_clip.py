"""Identities on a real clip, without any network: a fixed camera, so people are what differs from the empty room."""

from __future__ import annotations

import os
from itertools import groupby
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from cpnpose.pipeline.track import PoseTracker
from cpnpose.pose.types import Poses

SHARED = Path(os.environ.get("CPNPOSE_SHARED", Path(__file__).resolve().parents[2].parent / "shared"))
CLIP = SHARED / "media" / "standing_table.mp4"
FPS, SIZE, ZOOM = 10, (432, 768), 2
EMPTY_FRAMES = 50
BODY = np.random.default_rng(0).uniform((0.2, 0.02), (0.8, 0.98), (17, 2))


def differing_boxes() -> list[np.ndarray]:
    """Boxes (N, 4) of what differs from the empty room, in each frame."""
    with av.open(str(CLIP)) as container:
        height, width = SIZE[0] // ZOOM, SIZE[1] // ZOOM
        grey = [f.reformat(width=width, height=height, format="gray").to_ndarray() for f in container.decode(video=0)]
    empty = np.median(np.array(grey[:EMPTY_FRAMES]), axis=0).astype(np.uint8)
    found = []
    for image in grey:
        mask = (cv2.absdiff(image, empty) > 28).astype(np.uint8)
        mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3)))
        mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((25, 13)))
        areas = cv2.connectedComponentsWithStats(mask)[2][1:]
        boxes = [(x, y, x + w, y + h) for x, y, w, h, area in areas if area > 1500]
        found.append(ZOOM * np.array(boxes, np.float32).reshape(-1, 4))
    return found


@pytest.mark.skipif(not CLIP.is_file(), reason="needs ../shared/media/standing_table.mp4")
def test_one_id_for_each_visit_at_the_standing_table() -> None:
    """Six people come one after the other, cut off by the picture's edge when they enter and leave."""
    tracker = PoseTracker()
    ids: list[int] = []
    people: list[bool] = []
    for index, boxes in enumerate(differing_boxes()):
        count = len(boxes)
        poses = Poses(
            keypoints_xy=(boxes[:, None, :2] + BODY * (boxes[:, None, 2:] - boxes[:, None, :2])).astype(np.float32),
            keypoint_scores=np.ones((count, 17), np.float32),
            scores=np.full(count, 0.8, np.float32),
            boxes_xyxy=boxes,
            box_scores=np.full(count, 0.8, np.float32),
        )
        given = tracker.update(index / FPS, poses, SIZE).track_ids
        assert given is not None
        assert len(given[given > 0]) <= 1
        ids.append(int(given.max(initial=0)))
        people.append(count > 0)
    visits = [own for own, _ in groupby(i for i in ids if i > 0)]
    assert visits == [1, 2, 3, 4, 5, 6]
    with_id = sum(i > 0 for i in ids)
    assert with_id >= 0.97 * sum(people)
    assert all(seen for seen, own in zip(people, ids, strict=True) if own > 0)
