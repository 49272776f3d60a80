"""Records to write: a short video with people who come and go, empty frames, and numbers that are none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from cpnpose.formats import Header
from cpnpose.pose.types import FLAG_FILLED, FLAG_SWAPPED, Frame, FrameResult, Poses

TIME_BASE = Fraction(1, 30000)

MakePoses = Callable[..., Poses]
MakeResult = Callable[..., FrameResult]


@pytest.fixture
def make_poses() -> MakePoses:
    def make(ids: Sequence[int] | int, *, seed: int = 0, everything: bool = False) -> Poses:
        """Random people: of the given ids, or a number of them without ids."""
        rng = np.random.default_rng(seed)
        count = ids if isinstance(ids, int) else len(ids)
        corner = rng.uniform(-20, 1000, (count, 2))
        size = rng.uniform(50, 900, (count, 2))
        keypoints = corner[:, None] + rng.uniform(0, 1, (count, 17, 2)) * size[:, None]
        poses = Poses(
            keypoints_xy=keypoints.astype(np.float32),
            keypoint_scores=rng.uniform(0.4, 1.6, (count, 17)).astype(np.float32),
            scores=rng.uniform(0, 1, count).astype(np.float32),
            boxes_xyxy=np.concatenate([corner, corner + size], axis=1).astype(np.float32),
            box_scores=rng.uniform(0, 1, count).astype(np.float32),
            track_ids=None if isinstance(ids, int) else np.array(ids, np.int64),
        )
        if not everything:
            return poses
        return replace(
            poses,
            uncertainty_px=rng.uniform(0, 9, (count, 17)).astype(np.float32),
            raw_keypoints_xy=(keypoints + rng.normal(0, 1, keypoints.shape)).astype(np.float32),
            flags=rng.choice([0, FLAG_FILLED, FLAG_SWAPPED, FLAG_FILLED | FLAG_SWAPPED], (count, 17)).astype(np.uint8),
        )

    return make


@pytest.fixture
def make_result() -> MakeResult:
    def make(index: int, poses: Poses, *, pts: int | None = None) -> FrameResult:
        pts = 1001 * index if pts is None else pts
        frame = Frame(index, pts, TIME_BASE, float(pts * TIME_BASE), np.zeros((0, 0, 3), np.uint8))
        return FrameResult(frame, poses)

    return make


@pytest.fixture
def header() -> Header:
    return Header(
        source="clip.mp4",
        size=(720, 1280),
        fps=Fraction(30000, 1001),
        rotation=90,
        duration_s=1.25,
        frame_count=5,
        model={"name": "cpn50-256x192", "sha256": "ab" * 32, "input_size": (256, 192)},
        settings={"detector": "person-detector", "score": 0.3, "flip": True},
        extras=("track_ids",),
    )


@pytest.fixture
def clip(make_poses: MakePoses, make_result: MakeResult) -> list[FrameResult]:
    """Frames 0 to 4: ids 1, 3 | nobody | 3 and somebody without id | 1 | 3, 1 (other order)."""
    people: list[Sequence[int]] = [[1, 3], [], [3, -1], [1], [3, 1]]
    return [make_result(index, make_poses(ids, seed=index)) for index, ids in enumerate(people)]


@pytest.fixture
def rich_clip(make_poses: MakePoses, make_result: MakeResult) -> list[FrameResult]:
    """The same with everything that poses can carry, and a NaN keypoint."""
    frames = []
    for index, ids in enumerate([[1, 3], [], [3, -1], [1]]):
        poses = make_poses(ids, seed=index, everything=True)
        if index == 0:
            poses.keypoints_xy[1, 4] = np.nan
            poses.keypoint_scores[1, 4] = np.inf
        frames.append(make_result(index, poses))
    return frames


@pytest.fixture
def same_results() -> Callable[[FrameResult, FrameResult], None]:
    """Asserts that what was read equals what was written, to the record's precision."""

    def check(read: FrameResult, written: FrameResult) -> None:
        assert read.frame.index == written.frame.index
        assert read.frame.pts == written.frame.pts
        assert read.frame.time_base == written.frame.time_base
        assert read.frame.time_s == pytest.approx(written.frame.time_s, abs=1e-6)
        assert len(read.poses) == len(written.poses)
        for name, ours in vars(written.poses).items():
            theirs = getattr(read.poses, name)
            if ours is None or (len(written.poses) == 0 and theirs is None):
                assert theirs is None, name
                continue
            assert theirs.shape == ours.shape, name
            assert theirs.dtype == ours.dtype, name
            tolerance = 5.1e-5 if name.endswith("scores") else 5.1e-3
            finite = np.where(np.isfinite(ours), ours, np.nan)
            np.testing.assert_allclose(theirs, finite, atol=tolerance, rtol=1e-6, err_msg=name)

    return check
