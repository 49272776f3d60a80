from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cpnpose.cli.whole_clip import with_blurred_faces
from cpnpose.media.blur import blur_heads
from cpnpose.media.draw import DrawStyle, draw_poses
from cpnpose.pose.types import Frame, FrameResult, Poses


def people(*ids: int, shift: float = 0.0) -> Poses:
    """One person per id, side by side, the head alone sure."""
    boxes = np.array([(10 + 40 * identity, 10, 40 + 40 * identity, 110) for identity in ids], np.float32).reshape(-1, 4)
    boxes += np.float32(shift)
    keypoints = np.repeat(boxes[:, None, :2], 17, axis=1) + np.float32(15)
    scores = np.repeat(np.array([[1.2] * 5 + [0.5] * 12], np.float32), len(ids), axis=0)
    ones = np.ones(len(ids), np.float32)
    return Poses(keypoints, scores, ones, boxes, ones, track_ids=np.array(ids, np.int64))


@pytest.mark.parametrize("found", [people(1, 2, -1), people(2, -1), people(1)])
def test_every_head_is_blurred_once(make_frames: Callable[..., list[Frame]], found: Poses) -> None:
    """That of the chosen person where it is drawn, also in a frame in which the pose was filled in."""
    (frame,) = make_frames(1, 120, 180)
    chosen = people(1, shift=2)
    (result,) = with_blurred_faces([FrameResult(frame, chosen)], [FrameResult(frame, found)])
    drawn = draw_poses(result.frame.image, result.poses, DrawStyle(blur_faces=True, threshold=9.0))
    expected = frame.image.copy()
    for one in (found.select(found.track_ids != 1), chosen):
        blur_heads(expected, one)
    np.testing.assert_array_equal(drawn, expected)
    assert (drawn != frame.image).any()
