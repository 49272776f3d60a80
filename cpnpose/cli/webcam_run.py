"""Live pictures from the camera to the preview and the files."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import cv2

from cpnpose.api import PoseEstimator
from cpnpose.cli.drawing import Draw
from cpnpose.cli.interrupt import InterruptAtRest
from cpnpose.cli.outputs import Outputs
from cpnpose.cli.progress import Progress, ProgressKind
from cpnpose.cli.sinks import DataSinks
from cpnpose.errors import InputError
from cpnpose.formats import Header
from cpnpose.media.camera import TIME_BASE, Camera
from cpnpose.media.preview import open_preview, why_no_preview
from cpnpose.media.video import VideoWriter
from cpnpose.pipeline.cores import thread_shares
from cpnpose.pipeline.follow import stream_settings
from cpnpose.pipeline.options import StreamOptions
from cpnpose.pipeline.queues import Background
from cpnpose.pose.types import Frame, ImageArray

_LATENCIES = 60


@dataclass(frozen=True)
class LiveTask:
    """What is to be done with a camera's pictures."""

    camera: str
    outputs: Outputs
    preview: bool = True
    max_frames: int | None = None
    duration_s: float | None = None
    codec: str | None = None
    crf: int | None = None
    overwrite: bool = False
    extras: tuple[str, ...] = ()
    progress: ProgressKind = "bar"


def process_live(task: LiveTask, estimator: PoseEstimator, options: StreamOptions, draw: Draw) -> None:
    """Estimate poses in the newest pictures until somebody or something ends it; the files are whole however it ends.

    Raises:
        InputError: the camera cannot be opened, or fails while it runs.
        OutputError: a file cannot be written.
        KeyboardInterrupt: Ctrl-C ended it.
    """
    ended_by: BaseException | None = None
    with ExitStack() as stack:
        interrupt = stack.enter_context(InterruptAtRest())  # is left last, when all files are closed
        with interrupt.waiting():
            camera = stack.enter_context(Camera(task.camera))
            window = stack.enter_context(opened) if task.preview and (opened := open_preview()) is not None else None
            writer = stack.enter_context(open_writer(task, camera)) if task.outputs.picture is not None else None
            header = make_header(task, camera, estimator, options)
            sinks = stack.enter_context(DataSinks(task.outputs, header, overwrite=task.overwrite))
        progress = stack.enter_context(Progress(f"camera {task.camera}", task.max_frames, task.progress))
        if task.preview and window is None:
            progress.say(f"no preview: {why_no_preview()}")
        stack.enter_context(thread_shares(1))
        results = estimator.frames(wanted_frames(camera, task), options, serial=True)
        estimated = stack.enter_context(Background(results, ahead=1, name="estimate"))
        stack.callback(camera.close)  # first of all at the end, so that nobody waits for another picture
        latencies: deque[float] = deque(maxlen=_LATENCIES)
        tally = progress.tally
        try:
            while window is None or not window.closed:
                with interrupt.waiting():
                    if (result := next(estimated, None)) is None:
                        break
                tally.frames_in += 1
                if writer is not None or window is not None:
                    picture = draw(result)
                    if writer is not None:
                        writer.write(result.frame, picture)
                    if window is not None:
                        text = f"{tally.frames_out / progress.seconds:.0f} frames/s" + (
                            f", {latencies[-1]:.0f} ms" if latencies else ""
                        )
                        window.show(labelled(picture, text))
                sinks.write(result)
                latencies.append(camera.latency_s(result.frame) * 1000)
                tally.add(result.poses)
                progress.details = {
                    "latency_ms": round(statistics.median(latencies)),
                    "dropped": camera.dropped,
                }
                progress.update()
        except (KeyboardInterrupt, InputError) as error:
            ended_by = error  # the files are closed as whole ones first
    for note in [*camera.notes, *(writer.notes if writer is not None else [])]:
        progress.say(note)
    progress.end(sinks.results(drawn=writer is not None and writer.frames_written > 0))
    if ended_by is not None:
        raise ended_by


def wanted_frames(camera: Camera, task: LiveTask) -> Iterator[Frame]:
    """The newest pictures, up to the number or time that was asked for; one at least."""
    for count, frame in enumerate(camera):
        if count and task.duration_s is not None and frame.time_s >= task.duration_s:
            return
        yield frame
        if count + 1 == task.max_frames:
            return


def open_writer(task: LiveTask, camera: Camera) -> VideoWriter:
    """The recording, in the time of the machine's clock."""
    assert task.outputs.picture is not None
    return VideoWriter(
        task.outputs.picture,
        size=(camera.info.height, camera.info.width),
        time_base=TIME_BASE,
        codec=task.codec,
        crf=task.crf,
        overwrite=task.overwrite,
        fps=camera.info.fps,
    )


def make_header(task: LiveTask, camera: Camera, estimator: PoseEstimator, options: StreamOptions) -> Header:
    """What the records say of this run."""
    settings = stream_settings(estimator.detector, options)
    return Header.for_video(
        camera.info, model=estimator.describe(), settings=settings, extras=task.extras, kind="camera"
    )


def labelled(picture: ImageArray, text: str) -> ImageArray:
    """``picture`` with a line of text in its upper left corner."""
    shown = picture.copy()
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.6, 1)
    cv2.rectangle(shown, (0, 0), (width + 16, height + below + 8), (0, 0, 0), -1)
    cv2.putText(shown, text, (8, height + 4), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 1, cv2.LINE_AA)
    return shown
