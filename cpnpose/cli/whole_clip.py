"""What can only be decided when the whole clip has been seen: which person, which gaps, which swaps.

The clip is measured once into a temporary record, and read a second time for its pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from cpnpose.api import PoseEstimator
from cpnpose.cli.interrupt import InterruptAtRest
from cpnpose.cli.progress import Progress
from cpnpose.formats import Header, JsonlWriter, read_record
from cpnpose.media.blur import blur_heads
from cpnpose.media.video import VideoReader
from cpnpose.pipeline.fill import FillOptions, fill_gaps
from cpnpose.pipeline.options import StreamOptions
from cpnpose.pipeline.person import choose_person, only_person
from cpnpose.pipeline.read_ahead import read_ahead
from cpnpose.pipeline.repair import repair_swaps
from cpnpose.pipeline.smooth import OneEuroFilter
from cpnpose.pose.types import Frame, FrameResult, Poses


def measure(
    reader: VideoReader, record: Path, estimator: PoseEstimator, options: StreamOptions, progress: Progress
) -> None:
    """Write the people of every frame, with identities but not smoothed, into ``record``."""
    plain = replace(options, smooth="off")
    tally = progress.tally
    extras = ("track_ids", "uncertainty") if estimator.options.flip else ("track_ids",)
    header = Header.for_video(reader.info, model={}, settings={}, extras=extras)
    with (
        JsonlWriter(record, header) as writer,
        InterruptAtRest() as interrupt,
        read_ahead(reader) as frames,
        closing(estimator.frames(frames, plain)) as results,
    ):
        while True:
            with interrupt.waiting():
                if (result := next(results, None)) is None:
                    return
            writer.write(result)
            tally.add(result.poses)
            progress.update()


def improved(
    record: Path, size: tuple[int, int], options: StreamOptions, *, person: str | None, fill_s: float, swaps: bool
) -> Iterator[FrameResult]:
    """The frames of a measured record, repaired, filled and smoothed, with one person or all; without images.

    Args:
        record: from :func:`measure`.
        size: (height, width) of the picture.
        options: of the run.
        person: see :func:`~cpnpose.pipeline.person.choose_person`; None for everybody.
        fill_s: gaps of up to so many seconds are filled.
        swaps: exchange left and right back.

    Raises:
        InputError: there is no such person.
    """
    frames: Iterable[FrameResult]
    _, frames = read_record(record)
    if person is not None:
        chosen = choose_person(frames, person, size)
        _, frames = read_record(record)
        frames = only_person(frames, chosen)
    if swaps:
        frames = repair_swaps(frames)
    if fill_s > 0:
        frames = fill_gaps(frames, FillOptions(max_gap_s=fill_s))
    one_euro = OneEuroFilter() if options.smoothing == "one-euro" else None
    for result in frames:
        poses = result.poses if one_euro is None else one_euro.update(result.frame.time_s, result.poses)
        yield replace(result, poses=poses)


def with_blurred_faces(results: Iterable[FrameResult], everybody: Iterable[FrameResult]) -> Iterator[FrameResult]:
    """The results, with the heads of those people blurred in their pictures who are in the same frames of
    ``everybody`` only. The heads of the results' own people are left to the drawing, so that none is blurred twice."""
    for result, found in zip(results, everybody, strict=True):
        image = result.frame.image.copy()
        blur_heads(image, _others(found.poses, result.poses))
        yield FrameResult(replace(result.frame, image=image), result.poses)


def _others(poses: Poses, own: Poses) -> Poses:
    """``poses`` without the people whose ids are in ``own``."""
    if poses.track_ids is None or own.track_ids is None:
        return poses
    return poses.select(~np.isin(poses.track_ids, own.track_ids))


def with_pictures(frames: Iterable[Frame], results: Iterable[FrameResult]) -> Iterator[FrameResult]:
    """The results with the decoded frames that they belong to."""
    for frame, result in zip(frames, results, strict=True):
        yield FrameResult(frame, result.poses)
