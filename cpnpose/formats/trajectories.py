"""People over time, for formats that want to know all people or the number of frames before the first row.

The poses of a record go through a temporary file without a name; only the frames' times stay in memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from cpnpose.errors import OptionError
from cpnpose.formats.frame_record import SCORE_DECIMALS, ImageResult
from cpnpose.formats.header import Header
from cpnpose.pose.keypoints import NUM_KEYPOINTS
from cpnpose.pose.types import FrameResult, IntArray
from cpnpose.whole_file import writing

ROW = np.dtype([("frame", np.int64), ("id", np.int64), ("keypoints", np.float32, (NUM_KEYPOINTS, 3))])
"""One person in one frame; ``frame`` counts the frames of the record."""

TEMPORARY = Path(tempfile.gettempdir()) / "cpnpose"
"""Stands in error messages for the file without a name."""

DECIMALS = SCORE_DECIMALS
"""Rounding where coordinates and scores share a table: records hold two decimals of the one, four of the other."""

Keypoints = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Trajectories:
    """The frames of a record and the people with an id in them. Context manager: it owns a temporary file.

    People without an id are left out. A record without any id is taken as one person's (id 1), if no frame has more.
    """

    indices: IntArray
    """(F,) int64: ``frame.index`` of each frame of the record."""
    times: npt.NDArray[np.float64]
    """(F,) seconds."""
    ids: tuple[int, ...]
    """Identities in ascending order."""
    _rows: npt.NDArray[Any]
    _file: Any

    @staticmethod
    def collect(frames: Iterable[FrameResult]) -> Trajectories:
        """Go through ``frames`` once.

        Raises:
            OptionError: several people in a frame, and no frame has ids.
            OutputError: the temporary file cannot be written.
        """
        times: list[tuple[int, float]] = []
        ids: set[int] = set()
        crowd = 0
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by Trajectories
        try:
            for result in frames:
                poses = result.poses
                identities = np.full(len(poses), -1) if poses.track_ids is None else poses.track_ids
                rows = np.zeros(len(poses), ROW)
                rows["frame"], rows["id"] = len(times), identities
                rows["keypoints"][:, :, :2] = poses.keypoints_xy
                rows["keypoints"][:, :, 2] = poses.keypoint_scores
                with writing(TEMPORARY):
                    file.write(rows.tobytes())
                times.append((int(result.frame.index), float(result.frame.time_s)))
                ids.update(int(identity) for identity in identities if identity >= 0)
                crowd = max(crowd, len(poses))
            with writing(TEMPORARY):
                file.flush()
            size = file.tell() // ROW.itemsize
            stored = np.memmap(file, ROW, "r+", shape=(size,)) if size else np.zeros(0, ROW)
            if not ids and size:
                if crowd > 1:
                    remedy = "Run `cpnpose track` on the record first, and convert its result"
                    if isinstance(result, ImageResult):
                        remedy = "Images have no time along which people get them; choose another format"
                    raise OptionError(
                        f"this format follows people over time, and the record has several people without ids. {remedy}"
                    )
                stored["id"], ids = 1, {1}
        except BaseException:
            file.close()
            raise
        columns = np.array(times, np.float64).reshape(-1, 2)
        return Trajectories(columns[:, 0].astype(np.int64), columns[:, 1], tuple(sorted(ids)), stored, file)

    def choose(self, person: int | None) -> tuple[int, ...]:
        """All ids, or only ``person``.

        Raises:
            OptionError: nobody has that id.
        """
        if person is None:
            return self.ids
        if person not in self.ids:
            known = ", ".join(map(str, self.ids)) or "none"
            raise OptionError(f"nobody in the record has the id {person}. Ids that it has: {known}")
        return (person,)

    def person(self, identity: int) -> Keypoints:
        """(F, 17, 3) float32: x, y, score of one person in every frame; NaN in frames without that person."""
        track = np.full((len(self.times), NUM_KEYPOINTS, 3), np.nan, np.float32)
        rows = self._rows[self._rows["id"] == identity]
        track[rows["frame"]] = rows["keypoints"]
        return track

    def frames(self) -> Iterator[dict[int, Keypoints]]:
        """For each frame the (17, 3) keypoints of each id that is in it."""
        bounds = np.searchsorted(self._rows["frame"], np.arange(len(self.times) + 1))
        for start, end in pairwise(bounds):
            rows = self._rows[start:end]
            yield {int(row["id"]): row["keypoints"] for row in rows if row["id"] >= 0}

    def rate(self, header: Header) -> float:
        """Frames per second of the record: from its times, which know of frames left out; else the header's."""
        if len(self.times) > 1 and self.times[-1] > self.times[0]:
            measured = (len(self.times) - 1) / (self.times[-1] - self.times[0])
            steps = np.diff(self.indices)
            if header.fps and (steps == steps[0]).all():
                nominal = float(header.fps / Fraction(int(steps[0])))
                if abs(nominal - measured) < 0.01 * nominal:
                    return nominal
            return float(measured)
        return float(header.fps or 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
