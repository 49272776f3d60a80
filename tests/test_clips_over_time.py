"""Identities and jitter on real clips, with the shipped networks: what a user of ``cpnpose video`` sees.

The networks look at each clip once; the record of what they saw is kept in a folder of your choice, under the name of
the weights, so that tracking and smoothing are measured again within seconds::

    CPNPOSE_CLIP_RECORDS=/tmp/records pytest -n 0 -s tests/test_clips_over_time.py

Skipped without that variable and without the clips. Frame numbers were found by looking at the clips.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from cpnpose.api import PoseEstimator
from cpnpose.formats import Header, JsonlWriter, read_record
from cpnpose.media.video import VideoReader
from cpnpose.pipeline.detect import PersonDetector
from cpnpose.pipeline.follow import Follower, as_estimated, with_weak_people
from cpnpose.pipeline.options import StreamOptions
from cpnpose.pipeline.stream import run
from cpnpose.pose.types import Poses

SHARED = Path(os.environ.get("CPNPOSE_SHARED", Path(__file__).resolve().parents[1].parent / "shared"))
CLIPS = SHARED / "media"
RECORDS = os.environ.get("CPNPOSE_CLIP_RECORDS")

pytestmark = [
    pytest.mark.skipif(RECORDS is None, reason="name a folder for the clips' records in CPNPOSE_CLIP_RECORDS"),
    pytest.mark.skipif(not CLIPS.is_dir(), reason="needs the clips of ../shared/media"),
    pytest.mark.timeout(900),
]

WALKER_FRAMES = range(41, 200)
"""walker_outdoors: the woman is half out from behind the tree, until the left edge has cut half of her away."""
VISITS = [(63, 196), (230, 446), (506, 697), (748, 866), (923, 1197), (1239, 1357)]
"""standing_table: first and last frame in which at least a head and shoulders, or half of a person, are seen."""
EMPTY_FRAMES = [*range(59), *range(202, 227), *range(454, 499), *range(704, 743), *range(872, 921), *range(1202, 1233),
                *range(1362, 1394)]  # fmt: skip
"""standing_table: nobody, not even a foot or the top of a head."""
STILL = [(90, 175), (250, 430), (540, 640), (785, 845), (960, 1160), (1300, 1336)]
"""standing_table: somebody stands at the table and hardly moves more than the hands, which the back hides."""


@cache
def estimator() -> PoseEstimator:
    return PoseEstimator(device="cpu")


def followed(clip: str) -> list[Poses]:
    """The people of each frame of a clip as ``cpnpose video`` gives them."""
    detector, options = with_weak_people(estimator().detector, StreamOptions())
    header, frames = read_record(record_of(clip, detector))
    follower = Follower(options)
    return [follower.update(result.frame, as_estimated(result.poses), header.size) for result in frames]


def record_of(clip: str, detector: PersonDetector) -> Path:
    """What the networks see in a clip, weak detections included; made where it is missing."""
    model = estimator().describe()
    name = sha256(json.dumps([model, detector.score], sort_keys=True, default=str).encode()).hexdigest()[:12]
    path = Path(str(RECORDS)) / f"{Path(clip).stem}-{model['weights']}-{name}.jsonl"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with VideoReader(CLIPS / clip) as reader:
            header = Header.for_video(reader.info, model=model, settings={})
            with JsonlWriter(path, header) as writer:
                for result in run(reader, detector, estimator().network, StreamOptions(track=False)):
                    writer.write(result)
    return path


def ids_near(frames: list[Poses], index: int, point_xy: tuple[float, float]) -> list[int]:
    """Ids of the people of a frame whose box holds the point, the smallest box first."""
    poses = frames[index]
    assert poses.track_ids is not None
    boxes = poses.boxes_xyxy
    holds = (boxes[:, :2] <= point_xy).all(1) & (boxes[:, 2:] >= point_xy).all(1) & (poses.track_ids > 0)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return [int(poses.track_ids[row]) for row in np.argsort(area, kind="stable") if holds[row]]


def named(frames: list[Poses]) -> Iterator[list[int]]:
    """The ids of each frame."""
    for poses in frames:
        assert poses.track_ids is not None
        yield sorted(int(i) for i in poses.track_ids if i > 0)


def test_the_walker_has_one_id() -> None:
    """She walks 9.94 pixels per frame to the left."""
    frames = followed("walker_outdoors.mp4")
    own = [ids_near(frames, index, (max(1496 - 9.94 * (index - 49), 10), 700)) for index in WALKER_FRAMES]
    print(
        "ids at the walker:",
        sorted({tuple(i) for i in own}),
        "ids in the clip:",
        sorted({i for f in named(frames) for i in f}),
    )
    assert all(own)
    assert len({ids[0] for ids in own}) == 1


def test_the_people_of_the_portrait_clip_keep_their_ids() -> None:
    """Three people are in the picture from first to last: the man, the woman in front, a woman at the wall."""
    frames = followed("two_people_portrait.mp4")
    counted = np.bincount([i for ids in named(frames) for i in ids])
    print("frames of each id:", counted[1:].tolist())
    assert len(counted) - 1 == 3
    assert counted[1:].min() >= 0.95 * len(frames)


def test_each_visit_to_the_standing_table_has_one_id() -> None:
    frames = followed("standing_table.mp4")
    ids = list(named(frames))
    visits = [{i for frame in ids[first : last + 1] for i in frame} for first, last in VISITS]
    covered = [np.mean([len(frame) == 1 for frame in ids[first : last + 1]]) for first, last in VISITS]
    empty = [index for index in EMPTY_FRAMES if ids[index]]
    print(
        "ids of the visits:", visits, "share of frames:", np.round(covered, 3), "empty frames with an id:", len(empty)
    )
    assert visits == [{1}, {2}, {3}, {4}, {5}, {6}]
    assert min(covered) >= 0.97
    assert not empty


def test_smoothing_halves_the_jitter_of_people_who_stand() -> None:
    """Root mean square of the joints' steps from frame to frame, over all 17 joints."""
    frames = followed("standing_table.mp4")
    ratios = []
    for first, end in STILL:
        people = [poses.select(np.flatnonzero(poses.track_ids > 0)[:1]) for poses in frames[first:end]]  # type: ignore[operator]
        raw = np.concatenate([poses.raw_keypoints_xy for poses in people])  # type: ignore[misc]
        smooth = np.concatenate([poses.keypoints_xy for poses in people])
        before, after = (float(np.sqrt(np.square(np.diff(p, axis=0)).sum(-1).mean())) for p in (raw, smooth))
        print(f"frames {first} to {end}: {before:.2f} -> {after:.2f} px, {after / before:.2f}")
        ratios.append(after / before)
    assert max(ratios) <= 0.5
