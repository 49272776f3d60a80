"""The stages of the pipeline one after the other, each timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from cpnpose.api import PoseEstimator
from cpnpose.media.draw import draw_poses
from cpnpose.media.video import VideoReader, VideoWriter
from cpnpose.pipeline.detect import Detector
from cpnpose.pipeline.estimate import PoseNetwork
from cpnpose.pipeline.follow import Follower, with_weak_people
from cpnpose.pipeline.options import StreamOptions
from cpnpose.pipeline.segments import chunks_of, estimate_chunk
from cpnpose.pipeline.stream import MOST_BYTES, MOST_FRAMES

T = TypeVar("T")
STAGES = ("decode", "to_rgb", "detect", "crop", "network", "track", "draw", "to_yuv", "encode")


class Stopwatch:
    """Seconds and items by stage, in the order of the data."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.items = dict.fromkeys(STAGES, 0)

    def time(self, stage: str, items: int, function: Callable[[], T]) -> T:
        """Call the function and book its time."""
        start = time.perf_counter()
        result = function()
        self.seconds[stage] += time.perf_counter() - start
        self.items[stage] += items
        return result

    def iterate(self, stage: str, source: Iterable[T]) -> Iterator[T]:
        """The items of ``source``, the time to get each booked."""
        iterator = iter(source)
        while True:
            start = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            self.seconds[stage] += time.perf_counter() - start
            self.items[stage] += 1
            yield item


def stages_in_turn(
    video: Path, result: Path, estimator: PoseEstimator, options: StreamOptions, frames: int
) -> Stopwatch:
    """The pipeline in one thread, the time of each stage booked."""
    watch = Stopwatch()
    weak, options = with_weak_people(estimator.detector, options)  # as the run does, so that it is the same work
    detector, network = _timed_detector(weak, watch), _TimedNetwork(estimator.network, watch)
    follower = Follower(options)
    with VideoReader(video) as reader, writer_like(result, video, reader) as writer:
        decoded = watch.iterate("decode", islice(reader.decoded(), frames))
        source = (watch.time("to_rgb", 1, partial(reader.frame, frame)) for frame in decoded)
        kind = "cuda" if estimator.network.device.type == "cuda" else "cpu"
        most = options.chunk_frames or MOST_FRAMES[kind]
        for chunk in chunks_of(source, options.detect_every, most, MOST_BYTES[kind]):
            before = watch.seconds["detect"] + watch.seconds["network"]
            start = time.perf_counter()
            found = estimate_chunk(chunk, detector, network)  # type: ignore[arg-type]
            inside = watch.seconds["detect"] + watch.seconds["network"] - before
            watch.seconds["crop"] += time.perf_counter() - start - inside
            watch.items["crop"] += sum(map(len, found))
            for frame, poses in zip(chunk.frames, found, strict=True):
                poses = watch.time("track", 1, partial(follower.update, frame, poses))
                image = watch.time("draw", 1, partial(draw_poses, frame.image, poses, in_place=True))
                picture = watch.time("to_yuv", 1, partial(writer.convert, image))
                watch.time("encode", 1, partial(writer.write, frame, picture))
        watch.time("encode", 0, writer.close)
    return watch


def writer_like(path: Path, video: Path, reader: VideoReader) -> VideoWriter:
    """A writer of a video as ``reader`` reads it from ``video``."""
    info = reader.info
    return VideoWriter(path, size=(info.height, info.width), time_base=reader.time_base, source=video, fps=info.fps)


def _timed_detector(detector: Detector, watch: Stopwatch) -> Detector:
    return lambda images, indices=None: watch.time("detect", len(images), lambda: detector(images, indices))


class _TimedNetwork:
    """A pose network whose time is booked."""

    def __init__(self, network: PoseNetwork, watch: Stopwatch) -> None:
        self._network, self._watch = network, watch

    def __call__(self, crops: Any) -> Any:
        return self._watch.time("network", len(crops), lambda: self._network(crops))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)
