"""Frames that are worked on together, and the people in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from cpnpose.models.device_images import upload
from cpnpose.pipeline.carry import CarriedBoxes, SceneCuts
from cpnpose.pipeline.crop_device import crop_people
from cpnpose.pipeline.detect import Detector
from cpnpose.pipeline.estimate import PoseNetwork
from cpnpose.pose.types import Detections, Frame, Picture, Poses, check_image


@dataclass(frozen=True)
class Chunk:
    """Segments in order. In the first frame of a segment people are detected, in the others their boxes come from
    the last keypoints; so segments do not depend on each other."""

    segments: tuple[tuple[Frame, ...], ...]

    @property
    def frames(self) -> list[Frame]:
        """All frames in order."""
        return [frame for segment in self.segments for frame in segment]


class SegmentStarts:
    """Tells at which frames a segment begins: every ``detect_every`` frames, and where the scene cuts. Feed it every
    frame in order."""

    def __init__(self, detect_every: int) -> None:
        self._length = detect_every
        self._since = detect_every
        self._cuts = SceneCuts()

    def begins(self, frame: Frame) -> bool:
        """Whether a segment begins with this frame. Raises :class:`InputError` where it holds no image."""
        check_image(frame.image)
        cut = self._length > 1 and self._cuts.is_cut(frame.image)
        if self._since == self._length or cut:
            self._since = 0
        self._since += 1
        return self._since == 1


def chunks_of(frames: Iterable[Frame], detect_every: int, most_frames: int, most_bytes: int) -> Iterator[Chunk]:
    """Pack frames into segments, and segments into chunks.

    A chunk ends when another segment would make it larger than ``most_frames`` or ``most_bytes``, but has at least one
    segment. Its make-up depends on the frames alone, never on the clock.
    """
    starts = SegmentStarts(detect_every)
    segments: list[list[Frame]] = []
    error: Exception | None = None
    try:
        for frame in frames:
            if starts.begins(frame):
                count = sum(map(len, segments)) + detect_every
                if segments and (count > most_frames or count * frame.image.nbytes > most_bytes):
                    yield Chunk(tuple(map(tuple, segments)))
                    segments = []
                segments.append([])
            segments[-1].append(frame)
    except Exception as caught:
        error = caught  # what came before it is worked on first
    if segments:
        yield Chunk(tuple(map(tuple, segments)))
    if error is not None:
        raise error


def estimate_chunk(chunk: Chunk, detector: Detector, network: PoseNetwork) -> list[Poses]:
    """The poses of a chunk's frames, in their order. Segments go in step: the detector sees all first frames as one
    batch, and the network the people of all n-th frames."""
    found: list[list[Poses]] = [[] for _ in chunk.segments]
    carried: list[CarriedBoxes] = []
    for step in range(max(map(len, chunk.segments))):
        rows = [row for row, segment in enumerate(chunk.segments) if step < len(segment)]
        frames = [chunk.segments[row][step] for row in rows]
        if step == 0:
            people = detect_people(frames, detector, network)
            carried = [CarriedBoxes(poses) for poses in people]
        else:
            boxes = [carried[row].next(found[row][-1]) for row in rows]
            people = estimate_people(frames, boxes, network)
            lost = [
                place
                for place, row in enumerate(rows)
                if carried[row].is_lost(people[place], frames[place].image.shape[:2])
            ]
            if lost:
                again = detect_people([frames[place] for place in lost], detector, network)
                for place, poses in zip(lost, again, strict=True):
                    people[place] = poses
                    carried[rows[place]] = CarriedBoxes(poses)
        for row, poses in zip(rows, people, strict=True):
            found[row].append(poses)
    return [poses for segment in found for poses in segment]


def detect_people(frames: list[Frame], detector: Detector, network: PoseNetwork) -> list[Poses]:
    """Find the people of each frame and their poses."""
    images = upload([frame.image for frame in frames], network.device)
    found = detector(images, [frame.index for frame in frames])
    return _estimate(images, found, network)


def estimate_people(frames: list[Frame], boxes: list[Detections], network: PoseNetwork) -> list[Poses]:
    """The poses of the people in these boxes; all of them go through the network together."""
    return _estimate(upload([frame.image for frame in frames], network.device), boxes, network)


def _estimate(images: list[Picture], boxes: list[Detections], network: PoseNetwork) -> list[Poses]:
    poses = network(crop_people(images, boxes, network.input_size, network.preprocessing))
    ends = np.cumsum([len(found) for found in boxes])
    return [poses.select(np.arange(end - len(found), end)) for end, found in zip(ends, boxes, strict=True)]
