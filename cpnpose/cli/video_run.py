"""One video from its input to its outputs."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cpnpose.api import PoseEstimator
from cpnpose.cli.drawing import Draw
from cpnpose.cli.interrupt import InterruptAtRest
from cpnpose.cli.progress import Progress, Tally
from cpnpose.cli.sinks import DataSinks
from cpnpose.cli.video_task import VideoTask, expected_frames, make_header, open_reader, open_writer
from cpnpose.cli.whole_clip import improved, measure, with_blurred_faces, with_pictures
from cpnpose.errors import InputError, OptionError
from cpnpose.media.video import VideoReader, VideoWriter
from cpnpose.pipeline.draw_ahead import draw_ahead
from cpnpose.pipeline.follow import Follower, as_estimated, with_weak_people
from cpnpose.pipeline.options import StreamOptions
from cpnpose.pipeline.queues import Background
from cpnpose.pipeline.read_ahead import read_ahead
from cpnpose.pipeline.segments import SegmentStarts
from cpnpose.pipeline.stream import run
from cpnpose.pose.types import Frame, FrameResult, ImageArray, VideoInfo

_AHEAD = 4


def process_video(task: VideoTask, estimator: PoseEstimator, options: StreamOptions, draw: Draw) -> None:
    """Estimate the poses of a video and write what the task asks for.

    Raises:
        CpnposeError: the input cannot be read or an output not written.
        KeyboardInterrupt: the user stopped the run; the files are whole up to there.
    """
    with ExitStack() as stack:
        interrupt = stack.enter_context(InterruptAtRest())  # is left last, when all files are closed
        with interrupt.waiting():
            reader = stack.enter_context(open_reader(task))
            header = make_header(task, reader.info, estimator, options)
            writer = stack.enter_context(open_writer(task, reader)) if task.outputs.picture is not None else None
            sinks = stack.enter_context(DataSinks(task.outputs, header, overwrite=task.overwrite, resume=task.resume))
            progress = Progress(task.source, expected_frames(task, reader.info), task.progress)  # its clock starts here
            frames = counted(stack.enter_context(read_ahead(reader)), progress.tally)
            if task.whole_clip:
                record = measured(task, reader.info, stack, estimator, options)
                size = (reader.info.height, reader.info.width)
                better = partial(improved, record, size, options, fill_s=task.fill_s, swaps=task.repair_swaps)
                whole = with_pictures(frames, better(person=task.person))
                if task.person is not None and task.blur_faces:
                    whole = with_blurred_faces(whole, better(person=None))
                results = (Item(result, False) for result in whole)
            else:
                results = results_of(frames, sinks, estimator, options)
        stack.enter_context(progress)
        ready: Iterator[tuple[Item, Any]]
        if writer is not None:
            ready = stack.enter_context(draw_ahead(results, partial(picture_of, draw), writer))
        else:
            ready = ((item, None) for item in stack.enter_context(Background(results, ahead=_AHEAD, name="results")))
        stack.callback(reader.stop)  # first of all at the end, so that nobody waits for a pipe
        try:
            while True:
                with interrupt.waiting():
                    if (pair := next(ready, None)) is None:
                        break
                item, picture = pair
                if writer is not None and picture is not None:
                    writer.write(item.result.frame, picture)
                (sinks.repeat if item.repeated else sinks.write)(item.result)
                progress.tally.add(item.result.poses)
                progress.update()
        except KeyboardInterrupt:
            finish(task, progress, reader, writer, sinks, interrupted=True)
            raise
    finish(task, progress, reader, writer, sinks)
    interrupt.check()


def picture_of(draw: Draw, item: Item) -> ImageArray:
    """The item's picture, drawn on the frame itself. Not so where an earlier run has recorded it: such a frame may be
    looked at again, for the boxes of those behind it."""
    return draw(item.result, in_place=not item.repeated)


@dataclass(frozen=True)
class Item:
    """A result on its way to the files."""

    result: FrameResult
    repeated: bool
    """The record of an earlier run holds it already."""


def results_of(
    frames: Iterator[Frame], sinks: DataSinks, estimator: PoseEstimator, options: StreamOptions
) -> Generator[Item, None, None]:
    """First the results that an earlier run has recorded, then those of the remaining frames.

    Raises:
        InputError: the record is of another video.
    """
    detector, options = with_weak_people(estimator.detector, options)
    follower = Follower(options)
    starts = SegmentStarts(options.detect_every)
    segment: list[Frame] = []
    for recorded in sinks.recorded():
        frame = next(frames, None)
        if frame is None or (frame.index, frame.pts) != (recorded.frame.index, recorded.frame.pts):
            raise InputError(
                f"cannot resume: frame {recorded.frame.index} of the record is not in the video; "
                "use the same input, or --overwrite to start anew"
            )
        segment = [frame] if starts.begins(frame) else [*segment, frame]
        follower.update(frame, as_estimated(recorded.poses))
        yield Item(FrameResult(frame, recorded.poses), True)
    lead = segment if options.detect_every > 1 else []
    new = run(chain(lead, frames), detector, estimator.network, options, follower=follower, lead=len(lead))
    with closing(new):
        for result in new:
            yield Item(result, False)


def measured(
    task: VideoTask, info: VideoInfo, stack: ExitStack, estimator: PoseEstimator, options: StreamOptions
) -> Path:
    """The record of a first pass over the whole clip, in a folder that ``stack`` removes.

    Raises:
        OptionError: the source cannot be read twice.
    """
    if info.live:
        raise OptionError(
            f"{task.source}: --person, --fill and --repair-swaps read a video twice, which a live stream or pipe does "
            "not allow; record it first"
        )
    record = Path(stack.enter_context(TemporaryDirectory(prefix="cpnpose-"))) / "measured.jsonl"
    progress = Progress(f"{task.source} (measuring)", expected_frames(task, info), task.progress)
    with open_reader(task) as reader, progress:
        measure(reader, record, estimator, options, progress)
    return record


def counted(frames: Iterator[Frame], tally: Tally) -> Iterator[Frame]:
    """The frames, counted."""
    for frame in frames:
        tally.frames_in += 1
        yield frame


def finish(
    task: VideoTask,
    progress: Progress,
    reader: VideoReader,
    writer: VideoWriter | None,
    sinks: DataSinks,
    *,
    interrupted: bool = False,
) -> None:
    """Tell what the user should know, and the last line."""
    progress.tally.damaged = reader.damaged
    for note in [*reader.notes, *(writer.notes if writer is not None else [])]:
        progress.say(note)
    if reader.damaged:
        lost = "frame or packet" if reader.damaged == 1 else "frames or packets"
        progress.say(f"{reader.damaged} damaged {lost} could not be decoded, or only in part")
    if interrupted and sinks.kept_partial and not task.whole_clip:
        progress.say("stopped early; the same command with --resume goes on")
    drawn = writer is not None and writer.frames_written > 0
    progress.end(sinks.results(drawn=drawn, interrupted=interrupted), interrupted=interrupted)
