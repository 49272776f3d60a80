"""From frames to poses: in series, which is the document and the tests' oracle, and with all stages at the same time.

Source of the order of the stages: DESIGN of cpnpose, "The way of the data".
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from itertools import islice

from cpnpose.pipeline.carry import CarriedBoxes
from cpnpose.pipeline.cores import thread_shares, use_threads, workers_for
from cpnpose.pipeline.detect import Detector
from cpnpose.pipeline.device import one_at_a_time, own_stream
from cpnpose.pipeline.estimate import PoseNetwork
from cpnpose.pipeline.follow import Follower, with_weak_people
from cpnpose.pipeline.options import StreamOptions
from cpnpose.pipeline.queues import Background, map_in_order
from cpnpose.pipeline.segments import (
    Chunk,
    SegmentStarts,
    chunks_of,
    detect_people,
    estimate_chunk,
    estimate_people,
)
from cpnpose.pose.types import Frame, FrameResult, Poses
from cpnpose.processor import available_cores

_FOLLOWED_AHEAD = 4
MOST_BYTES = {"cpu": 64 << 20, "cuda": 512 << 20}
MOST_FRAMES = {"cpu": 4, "cuda": 16}
"""Of a chunk, and MOST_BYTES of its images, by the kind of device."""


def run_serial(
    frames: Iterable[Frame],
    detector: Detector,
    network: PoseNetwork,
    options: StreamOptions | None = None,
    *,
    follower: Follower | None = None,
) -> Generator[FrameResult, None, None]:
    """Poses of each frame, one frame after the other: the whole pipeline as one loop, and the way with the least delay.

    Args:
        frames: in order.
        detector: finds people.
        network: finds their keypoints.
        options: see there; ``chunk_frames`` and ``workers`` do not matter here.
        follower: tracker and filter that have seen the frames before these; None starts anew.

    Yields:
        A result for each frame, in order, those without people included.
    """
    detector, options = with_weak_people(detector, options or StreamOptions())
    follower = follower or Follower(options)
    starts = SegmentStarts(options.detect_every)
    for frame in frames:
        if starts.begins(frame):
            poses = detect_people([frame], detector, network)[0]
            carried = CarriedBoxes(poses)
        else:
            poses = estimate_people([frame], [carried.next(poses)], network)[0]
            if carried.is_lost(poses, frame.image.shape[:2]):
                poses = detect_people([frame], detector, network)[0]
                carried = CarriedBoxes(poses)
        yield FrameResult(frame, follower.update(frame, poses))


def run(
    frames: Iterable[Frame],
    detector: Detector,
    network: PoseNetwork,
    options: StreamOptions | None = None,
    *,
    follower: Follower | None = None,
    lead: int = 0,
    watch: Callable[[str, int, int], None] | None = None,
) -> Generator[FrameResult, None, None]:
    """As :func:`run_serial`, with equal results, but reading (the iteration of ``frames``), detection, cropping and the
    network, and tracking run at the same time as each other and as the caller's own work on the results.

    Several frames form a chunk: the detector sees them as a batch, the network sees the people of all of them as a
    batch. Several chunks are worked on at the same time. Memory depends on the chunks' size, not on the number of
    frames. An error of any stage is raised here after the results before it. Close the generator (or use it up) to end
    its threads.

    Arguments and results as in :func:`run_serial`; ``frames`` is iterated in another thread, and ``follower`` used in
    one. The first ``lead`` frames are only there because later boxes come from their keypoints: they give no results
    and ``follower`` has seen them. ``watch`` is told how full the queues are, see
    :class:`~cpnpose.pipeline.queues.Background`.
    """
    detector, options = with_weak_people(detector, options or StreamOptions())
    follower = follower or Follower(options)
    kind = "cuda" if network.device.type == "cuda" else "cpu"
    size = options.chunk_frames or MOST_FRAMES[kind]
    workers = workers_for(network.device, options.workers)

    def estimate(chunk: Chunk) -> list[tuple[Frame, Poses]]:
        use_threads(share)
        with own_stream(network.device), one_at_a_time(network.device):
            return list(zip(chunk.frames, estimate_chunk(chunk, detector, network), strict=True))

    def estimated(decoded: Iterable[Frame]) -> Iterator[tuple[Frame, Poses]]:
        chunks = chunks_of(decoded, options.detect_every, size, MOST_BYTES[kind])
        with closing(map_in_order(estimate, chunks, workers=workers, name="estimate")) as results:
            for pairs in results:
                yield from pairs

    with ExitStack() as stack:
        # Beside a graphics card, threads that wait actively for each other would only disturb the decoder and encoder.
        share = stack.enter_context(thread_shares(workers if kind == "cpu" else available_cores()))
        read = Background(frames, ahead=size, name="read", watch=watch)
        found = stack.enter_context(Background(estimated(read), ahead=size, name="estimate", watch=watch))
        stack.enter_context(read)  # is left first, so that nobody waits for more frames
        followed = (FrameResult(frame, follower.update(frame, poses)) for frame, poses in islice(found, lead, None))
        yield from stack.enter_context(Background(followed, ahead=_FOLLOWED_AHEAD, name="track", watch=watch))
