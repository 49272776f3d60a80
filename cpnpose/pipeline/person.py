"""One person chosen over the whole clip: first all frames are measured, then the person's id is known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from cpnpose.errors import InputError, OptionError
from cpnpose.pose.types import FrameResult

CHOICES = ("largest", "longest", "center")


@dataclass
class _Presence:
    first_s: float
    frames: int = 0
    seconds: float = 0.0
    area_seconds: float = 0.0
    distance_seconds: float = 0.0


@dataclass
class PersonStatistics:
    """What is known of each person after a pass over the frames: one small entry per id."""

    people: dict[int, _Presence] = field(default_factory=dict)
    _extent: tuple[float, float] = (0.0, 0.0)
    _last_s: float | None = None

    def add(self, result: FrameResult, frame_size: tuple[int, int] | None = None) -> None:
        """Take in the next frame. ``frame_size`` (height, width) in pixels is taken from the image where it is None."""
        time_s = result.frame.time_s
        elapsed = 0.0 if self._last_s is None else max(time_s - self._last_s, 0.0)
        self._last_s = time_s
        poses = result.poses
        if poses.track_ids is None or not len(poses):
            return
        boxes = poses.boxes_xyxy.astype(np.float64)
        height, width = frame_size or result.frame.image.shape[:2]
        if not height or not width:  # no image was kept: the farthest box tells how large the picture is at least
            self._extent = (
                max(self._extent[0], float(boxes[:, 3].max())),
                max(self._extent[1], float(boxes[:, 2].max())),
            )
            height, width = self._extent
        middle = (boxes[:, :2] + boxes[:, 2:]) / 2
        distance = np.linalg.norm(middle - np.array([width, height]) / 2, axis=1)
        area = np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1)
        for row in np.flatnonzero(poses.track_ids > 0):
            own = self.people.setdefault(int(poses.track_ids[row]), _Presence(time_s))
            own.frames += 1
            # The first frame of a clip stands for no time of its own; a little keeps a single frame comparable.
            seconds = max(elapsed, 1e-6)
            own.seconds += seconds
            own.area_seconds += seconds * float(area[row])
            own.distance_seconds += seconds * float(distance[row])

    def choose(self, how: str) -> int:
        """The id of one person, see :func:`choose_person`, with the same errors."""
        wanted = check_choice(how)
        people = self.people
        if not people:
            raise InputError(f"--person {how}: nobody in the clip has an id; track it first, or leave --person away")
        if wanted is not None:
            if wanted not in people:
                known = ", ".join(map(str, sorted(people)[:20])) + (", ..." if len(people) > 20 else "")
                raise InputError(f"--person {how}: there is no such id in the clip; its ids are {known}")
            return wanted
        if how == "largest":
            merit = {track_id: own.area_seconds for track_id, own in people.items()}
        elif how == "longest":
            merit = {track_id: own.seconds for track_id, own in people.items()}
        else:
            enough = max(own.seconds for own in people.values()) / 4
            merit = {i: -own.distance_seconds / own.seconds for i, own in people.items() if own.seconds >= enough}
        return min(merit, key=lambda track_id: (-merit[track_id], people[track_id].first_s, track_id))


def check_choice(how: str) -> int | None:
    """The id in ``id:N``, or None for the other ways.

    Raises:
        OptionError: ``how`` is none of largest, longest, center, id:N.
    """
    if how in CHOICES:
        return None
    if how.startswith("id:") and how[3:].isascii() and how[3:].isdigit() and int(how[3:]) > 0:
        return int(how[3:])
    raise OptionError(
        f"unknown person {how!r}; use one of {', '.join(CHOICES)} or id:N with an id from 1, such as id:2"
    )


def choose_person(records: Iterable[FrameResult], how: str, frame_size: tuple[int, int] | None = None) -> int:
    """The id of one person, chosen over the whole clip in one pass and constant memory.

    ``largest``: the greatest sum over time of the box's area, so that neither a short close-up nor a small person in
    the background wins. ``longest``: seen for the longest time. ``center``: the smallest mean distance from the
    picture's centre among the people seen for at least a quarter of the longest one's time. ``id:N``: that id. On a tie
    the person seen first.

    Args:
        records: the frames in order.
        how: see above.
        frame_size: (height, width) in pixels, for frames without image.

    Raises:
        OptionError: ``how`` is unknown.
        InputError: nobody has an id, or not the one that was asked for.
    """
    check_choice(how)  # before all frames are read
    return person_statistics(records, frame_size).choose(how)


def person_statistics(records: Iterable[FrameResult], frame_size: tuple[int, int] | None = None) -> PersonStatistics:
    """What a pass over the frames tells of each person; see :meth:`PersonStatistics.add`."""
    statistics = PersonStatistics()
    for result in records:
        statistics.add(result, frame_size)
    return statistics


def only_person(records: Iterable[FrameResult], track_id: int) -> Iterator[FrameResult]:
    """The same frames with nobody but the person ``track_id`` (frames without that person stay, empty)."""
    for result in records:
        ids = result.poses.track_ids
        keep = np.zeros(len(result.poses), np.bool_) if ids is None else ids == track_id
        yield replace(result, poses=result.poses.select(keep))
