"""The command ``render``: a record drawn into its video."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cpnpose.cli import pipeline_arguments as args
from cpnpose.cli.effects import refuse_idle
from cpnpose.cli.output_checks import refuse
from cpnpose.cli.outputs import Outputs
from cpnpose.cli.record_files import Person, Record, open_record
from cpnpose.errors import InputError, OptionError, OutputError

if TYPE_CHECKING:
    from cpnpose.formats import Header
    from cpnpose.pose.types import Frame, FrameResult, VideoInfo

TIME_TOLERANCE_S = 2e-6
"""Records hold times to a microsecond."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("render")(render)


def render(
    record: Record,
    video: Annotated[str, typer.Argument(help="The video that the record was made from.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The video to write; else VIDEO_pose.mp4 beside the record.")
    ] = None,
    person: Person = None,
    codec: args.Codec = None,
    crf: args.Crf = None,
    draw_threshold: args.DrawThreshold = None,
    draw_boxes: args.DrawBoxes = False,
    draw_ids: args.DrawIds = False,
    background: args.Background = args.BackgroundChoice.KEEP,
    blur_faces: args.BlurFaces = False,
    overwrite: args.Overwrite = False,
    quiet: args.Quiet = False,
    progress: args.ProgressOption = args.ProgressChoice.BAR,
) -> None:
    """Draw the people of a record into its video, without the networks.

    The video gets the frames that the record holds, with their own timestamps and the sound.
    """
    header, results, _ = open_record(record, person)
    if header.kind == "images":
        raise OptionError("the record is of images, not of a video. Draw it with `cpnpose images`")
    if "track_ids" not in header.extras:
        refuse_idle({"--draw-ids": draw_ids}, "the record has no identities; run `cpnpose track` on it first")
    target = out or record.with_name(f"{Path(header.source).stem or 'video'}_pose.mp4")
    if target.is_dir():
        raise OutputError(f"{target} is a folder; give the name of the video with --out")
    refuse(Outputs(picture=target), [video, str(record)], overwrite=overwrite)

    from cpnpose.cli.interrupt import InterruptAtRest
    from cpnpose.cli.progress import Progress
    from cpnpose.cli.whole_clip import with_blurred_faces
    from cpnpose.media.draw import DrawStyle, draw_poses
    from cpnpose.media.video import VideoReader, VideoWriter

    style = DrawStyle(
        threshold=DrawStyle.threshold if draw_threshold is None else draw_threshold,
        draw_boxes=draw_boxes,
        draw_ids=draw_ids,
        background=background.value,
        blur_faces=blur_faces,
    )
    start, end = float(header.settings.get("start") or 0.0), header.settings.get("end")
    every = int(header.settings.get("every") or 1)
    with ExitStack() as stack:
        interrupt = stack.enter_context(InterruptAtRest())  # is left last, when the video is closed
        with interrupt.waiting():
            reader = stack.enter_context(VideoReader(video, start=start, end=end, every=every))
        check_video(header, reader.info, video)
        writer = stack.enter_context(
            VideoWriter(
                target,
                size=(reader.info.height, reader.info.width),
                time_base=reader.time_base,
                source=video,
                start=start,
                end=end,
                codec=codec,
                crf=crf,
                overwrite=overwrite,
                fps=reader.info.fps / every if reader.info.fps is not None else None,
            )
        )
        shown = stack.enter_context(Progress(str(record), None, "none" if quiet else progress.value))
        frames = iter(reader)
        shown_results: Iterator[FrameResult] = with_frames(results, frames, video)
        everybody, found, _ = open_record(record)
        if blur_faces and everybody.settings.get("person"):
            shown.say("the record holds one person only: the faces of others are not blurred")
        if person is not None and blur_faces:
            shown_results = with_blurred_faces(shown_results, found)
        try:
            while True:
                with interrupt.waiting():
                    if (result := next(shown_results, None)) is None:
                        break
                shown.tally.frames_in += 1
                writer.write(result.frame, draw_poses(result.frame.image, result.poses, style, in_place=True))
                shown.tally.add(result.poses)
                shown.update()
        except KeyboardInterrupt:
            shown.end([str(target)] if writer.frames_written else [], interrupted=True)
            raise
        more = next(frames, None) is not None
        writer.close(cut_audio=more)
    shown.tally.damaged = reader.damaged
    for note in [*reader.notes, *writer.notes]:
        shown.say(note)
    if more:
        shown.say("the record ends before the video; the rest was left out")
    shown.end([str(target)] if writer.frames_written else [])
    interrupt.check()


def with_frames(results: Iterable[FrameResult], frames: Iterator[Frame], video: str) -> Generator[FrameResult]:
    """The frames of a record with the pictures of ``video``.

    Raises:
        InputError: a frame of the record is not in the video, or at another time.
    """
    from cpnpose.pose.types import FrameResult

    for result in results:
        wanted = result.frame
        frame = next((frame for frame in frames if frame.index >= wanted.index), None)
        if frame is None or frame.index != wanted.index:
            raise InputError(
                f"{video}: has no frame {wanted.index}, which the record has. Give the video it was made from"
            )
        if abs(frame.time_s - wanted.time_s) > TIME_TOLERANCE_S:
            raise InputError(
                f"{video}: its frame {frame.index} is at {frame.time_s:.3f} s, in the record at {wanted.time_s:.3f} s. "
                "Give the video that the record was made from"
            )
        yield FrameResult(frame, result.poses)


def check_video(header: Header, info: VideoInfo, video: str) -> None:
    """Raises:
    InputError: the video has another size than the record's."""
    if header.size is not None and header.size != (info.height, info.width):
        raise InputError(
            f"{video}: its picture is {info.width}x{info.height}, the record's {header.size[1]}x{header.size[0]}. "
            "Give the video that the record was made from"
        )
