"""What is to be done with one video, and the files that it takes."""

from __future__ import annotations

from dataclasses import dataclass

from cpnpose.api import PoseEstimator
from cpnpose.cli.outputs import Outputs
from cpnpose.cli.progress import ProgressKind
from cpnpose.formats import Header
from cpnpose.media.video import VideoReader, VideoWriter
from cpnpose.pipeline.follow import stream_settings
from cpnpose.pipeline.options import StreamOptions
from cpnpose.pose.types import VideoInfo


@dataclass(frozen=True)
class VideoTask:
    """What is to be done with one video."""

    source: str
    outputs: Outputs
    start: float = 0.0
    end: float | None = None
    every: int = 1
    codec: str | None = None
    crf: int | None = None
    hwaccel: str | None = None
    overwrite: bool = False
    resume: bool = False
    extras: tuple[str, ...] = ()
    """What records carry, see :class:`~cpnpose.formats.Header`."""
    progress: ProgressKind = "bar"
    person: str | None = None
    fill_s: float = 0.0
    repair_swaps: bool = False
    blur_faces: bool = False
    """The drawing blurs faces; those of people that ``person`` leaves out, too."""

    @property
    def whole_clip(self) -> bool:
        """Whether the whole clip must have been seen before the first frame can be put out."""
        return self.person is not None or self.fill_s > 0 or self.repair_swaps


def open_reader(task: VideoTask) -> VideoReader:
    """The task's input."""
    return VideoReader(task.source, start=task.start, end=task.end, every=task.every, hwaccel=task.hwaccel)


def open_writer(task: VideoTask, reader: VideoReader) -> VideoWriter:
    """The task's video, with the size, times and sound of the input."""
    assert task.outputs.picture is not None
    writer = VideoWriter(
        task.outputs.picture,
        size=(reader.info.height, reader.info.width),
        time_base=reader.time_base,
        source=None if reader.info.live else task.source,
        start=task.start,
        end=task.end,
        codec=task.codec,
        crf=task.crf,
        overwrite=task.overwrite or task.resume,
        fps=reader.info.fps / task.every if reader.info.fps is not None else None,
    )
    if reader.info.live and reader.info.has_audio:
        writer.notes.append("the sound of a live stream or pipe is not recorded")
    return writer


def make_header(task: VideoTask, info: VideoInfo, estimator: PoseEstimator, options: StreamOptions) -> Header:
    """What the records say of this run."""
    settings = {
        "start": task.start,
        "end": task.end,
        "every": task.every,
        **stream_settings(estimator.detector, options),
        "person": task.person,
        "fill_s": task.fill_s,
        "repair_swaps": task.repair_swaps,
    }
    return Header.for_video(info, model=estimator.describe(), settings=settings, extras=task.extras)


def expected_frames(task: VideoTask, info: VideoInfo) -> int | None:
    """About how many frames will come out, or None."""
    if info.fps is None:
        return None if info.frame_count is None or task.start or task.end else info.frame_count // task.every
    length = info.duration_s if info.duration_s is not None else None
    if length is None and info.frame_count is not None:
        length = float(info.frame_count / info.fps)
    ends = [value for value in (task.end, length) if value is not None]
    return max(1, round((min(ends) - task.start) * float(info.fps) / task.every)) if ends else None
