"""A set of images from their files to their outputs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from cpnpose.api import PoseEstimator
from cpnpose.cli.drawing import Draw
from cpnpose.cli.interrupt import InterruptAtRest
from cpnpose.cli.outputs import Outputs
from cpnpose.cli.progress import Progress, ProgressKind
from cpnpose.cli.sinks import DataSinks
from cpnpose.errors import InputError, OutputError
from cpnpose.formats import Header, ImageResult
from cpnpose.formats.header import source_name
from cpnpose.media.images import read_image, write_image
from cpnpose.pipeline.options import StreamOptions
from cpnpose.pipeline.queues import Background
from cpnpose.pose.types import Frame

_NO_TIME = StreamOptions(track=False)
_DRAWN_AHEAD = 2


@dataclass(frozen=True)
class ImageSet:
    """What is to be done with a set of images."""

    source: str
    paths: list[Path]
    names: list[str]
    """Of each image, relative to the folder that they share."""
    outputs: Outputs
    drawn: list[Path] = field(default_factory=list)
    """Where each image is drawn to, in ``outputs.picture`` or this itself; empty where none is."""
    overwrite: bool = False
    extras: tuple[str, ...] = ()
    progress: ProgressKind = "bar"


def process_images(task: ImageSet, estimator: PoseEstimator, draw: Draw) -> int:
    """Estimate the poses of a set of images and write what the task asks for.

    Returns:
        How many of them could not be read.

    Raises:
        CpnposeError: an output cannot be written.
        KeyboardInterrupt: the user stopped the run; the files are whole up to there.
    """
    header = Header(
        source=source_name(task.source), kind="images", model=estimator.describe(), settings={}, extras=task.extras
    )
    with ExitStack() as stack:
        interrupt = stack.enter_context(InterruptAtRest())  # is left last, when all files are closed
        sinks = stack.enter_context(DataSinks(task.outputs, header, overwrite=task.overwrite))
        progress = stack.enter_context(Progress(task.source, len(task.paths), task.progress, unit="image"))
        tally = progress.tally
        tally.separate = True
        unreadable: list[str] = []

        def frames() -> Iterator[Frame]:
            for index, path in enumerate(task.paths):
                tally.frames_in += 1
                try:
                    image = read_image(path)
                except InputError as error:
                    unreadable.append(str(error))
                    progress.say_error(error)
                    continue
                yield Frame(index, index, Fraction(1), float(index), image)

        results = estimator.frames(frames(), _NO_TIME)
        waiting = stack.enter_context(Background(results, ahead=_DRAWN_AHEAD, name="results"))
        try:
            while True:
                with interrupt.waiting():
                    if (result := next(waiting, None)) is None:
                        break
                frame, name = result.frame, task.names[result.frame.index]
                if task.drawn:
                    target = task.drawn[frame.index]
                    make_folder_of(target)
                    write_image(target, draw(result), overwrite=task.overwrite)
                size = (frame.image.shape[0], frame.image.shape[1])
                sinks.write(ImageResult(frame, result.poses, file=name, size=size))
                tally.add(result.poses)
                progress.update()
        except KeyboardInterrupt:
            tally.damaged = len(unreadable)
            finish(progress, sinks, interrupted=True)
            raise
        tally.damaged = len(unreadable)
    finish(progress, sinks)
    return len(unreadable)


def finish(progress: Progress, sinks: DataSinks, *, interrupted: bool = False) -> None:
    """The last line, with the files that are there."""
    drawn = progress.tally.frames_out > 0
    progress.end(sinks.results(drawn=drawn, interrupted=interrupted), interrupted=interrupted)


def make_folder_of(path: Path) -> None:
    """Raises:
    OutputError: the folder cannot be made."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{path.parent}: cannot make this folder ({error.strerror}); choose another with --out"
        ) from error
