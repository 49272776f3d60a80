"""Speed of a whole run over a video, and of its stages alone."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from cpnpose.api import PoseEstimator
from cpnpose.bench_stages import stages_in_turn, writer_like
from cpnpose.errors import InputError
from cpnpose.media.draw import draw_poses
from cpnpose.media.video import VideoReader, VideoWriter
from cpnpose.pipeline.cores import thread_shares
from cpnpose.pipeline.draw_ahead import draw_ahead
from cpnpose.pipeline.options import StreamOptions
from cpnpose.pipeline.read_ahead import read_ahead
from cpnpose.pipeline.stream import run
from cpnpose.pose.types import Frame, FrameResult, ImageArray
from cpnpose.processor import available_cores

_QUEUE_BEHIND = {"to_rgb": "read", "network": "estimate", "track": "track", "draw": "draw", "to_yuv": "convert"}
"""The queue that a stage's results wait in; the other stages hand theirs on directly."""


def pipeline(video: Path, estimator: PoseEstimator, options: StreamOptions, frames: int) -> dict[str, Any]:
    """Measure a run over the first frames of a video, with drawing and a written video.

    First the stages one after the other in one thread, each with the threads that it has in a run: their times, and
    the processor time of all of them. Then the run itself, where they work at the same time.

    Args:
        video: the input.
        estimator: the networks.
        options: of the stream.
        frames: most frames.

    Returns:
        The pose network's number format, which int8 weights choose themselves, and what the user should know of the
        options; per stage milliseconds per item, items per second, share; the run's frames per second, and its time as
        a multiple of what the busiest resource alone needs: on a CPU all work spread evenly over the cores, on a
        graphics card the slowest stage; and as a multiple of the time that decoding and encoding the same frames takes
        when nothing happens in between.

    Raises:
        InputError: the video cannot be read or is empty.
    """
    kind = "cuda" if estimator.network.device.type == "cuda" else "cpu"
    cores = available_cores()
    with TemporaryDirectory(prefix="cpnpose-") as folder:
        run_at_once(video, Path(folder) / "warm.mp4", estimator, options, min(frames, 8), None)
        with thread_shares(cores):
            begin, work = time.perf_counter(), time.process_time()
            watch = stages_in_turn(video, Path(folder) / "turns.mp4", estimator, options, frames)
            in_turn, work = time.perf_counter() - begin, time.process_time() - work
        fill: dict[str, list[float]] = defaultdict(list)
        begin, run_work = time.perf_counter(), time.process_time()
        count = run_at_once(
            video, Path(folder) / "run.mp4", estimator, options, frames,
            lambda name, waiting, room: fill[name].append(waiting / room),
        )  # fmt: skip
        seconds, run_work = time.perf_counter() - begin, time.process_time() - run_work
        begin = time.perf_counter()
        recode(video, Path(folder) / "recoded.mp4", frames)
        recoding = time.perf_counter() - begin
    if count == 0:
        raise InputError(f"{video} holds no frames to measure; give another video")
    total = sum(watch.seconds.values())
    slowest = max(watch.seconds, key=lambda stage: watch.seconds[stage])
    bound = work / cores if kind == "cpu" else watch.seconds[slowest]
    return {
        "frames": count,
        "people": watch.items["network"],
        "detect_every": options.detect_every,
        "precision": estimator.network.number_format,
        "notes": list(estimator.notes),
        "stages": [
            {
                "stage": stage,
                "items": watch.items[stage],
                "ms_per_item": spent / max(watch.items[stage], 1) * 1e3,
                "items_per_s": watch.items[stage] / spent if spent > 0 else None,
                "share": spent / total,
                "queue_fill": _mean(fill.get(_QUEUE_BEHIND.get(stage, ""), [])),
            }
            for stage, spent in watch.seconds.items()
        ],
        "in_turn_seconds": in_turn,
        "seconds": seconds,
        "frames_per_s": count / seconds,
        "slowest_stage": slowest,
        "slowest_stage_seconds": watch.seconds[slowest],
        "cpu_work_seconds": work,
        "cpu_work_of_the_run_seconds": run_work,
        "cores": cores,
        "bound_seconds": bound,
        "times_the_bound": seconds / bound,
        "times_the_slowest_stage": seconds / watch.seconds[slowest],
        "recoding_seconds": recoding,
        "times_recoding": seconds / recoding,
    }


def run_at_once(
    video: Path,
    result: Path,
    estimator: PoseEstimator,
    options: StreamOptions,
    frames: int,
    watch: Callable[[str, int, int], None] | None,
) -> int:
    """The pipeline as ``cpnpose video`` runs it; the number of frames."""
    with ExitStack() as stack:
        reader = stack.enter_context(VideoReader(video))
        writer = stack.enter_context(writer_like(result, video, reader))
        source = islice(stack.enter_context(read_ahead(reader)), frames)
        results = run(source, estimator.detector, estimator.network, options, watch=watch)
        ready = stack.enter_context(draw_ahead(results, _picture, writer, watch))
        return _written(((result.frame, picture) for result, picture in ready), writer)


def recode(video: Path, result: Path, frames: int) -> int:
    """Decoding and encoding at the same time, with nothing in between; the number of frames."""
    with ExitStack() as stack:
        reader = stack.enter_context(VideoReader(video))
        writer = stack.enter_context(writer_like(result, video, reader))
        source = (frame for frame in islice(stack.enter_context(read_ahead(reader)), frames))
        return _written(stack.enter_context(draw_ahead(source, lambda frame: frame.image, writer)), writer)


def _picture(result: FrameResult) -> ImageArray:
    return draw_poses(result.frame.image, result.poses, in_place=True)


def _written(ready: Iterator[tuple[Frame, Any]], writer: VideoWriter) -> int:
    """Write the frames; their number."""
    count = 0
    for frame, picture in ready:
        writer.write(frame, picture)
        count += 1
    return count


def peak_memory_bytes(device: torch.device) -> dict[str, int]:
    """The most memory that this process has held so far: of the machine, and of the graphics card."""
    report: dict[str, int] = {}
    if sys.platform != "win32":
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        report["process"] = peak if sys.platform == "darwin" else peak * 1024
    if device.type == "cuda":
        report["device"] = torch.cuda.max_memory_allocated(device)
    return report


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
