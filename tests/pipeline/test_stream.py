from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from cpnpose.errors import InputError
from cpnpose.pipeline.detect import WholeImageDetector
from cpnpose.pipeline.estimate import PoseNetwork, load_pose_network
from cpnpose.pipeline.options import StreamOptions
from cpnpose.pipeline.stream import run, run_serial
from cpnpose.pose.types import Detections, Frame, FrameResult, ImageArray, PersonCrops, Poses

MakeFrames = Callable[..., list[Frame]]


@pytest.fixture(scope="module")
def network(tiny_weights: Path) -> PoseNetwork:
    return load_pose_network(tiny_weights, device="cpu", precision="fp32", batch=8)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("cpnpose-")] == []


class SomePeople:
    """0, 1, 2, 3, 0, ... people by the frame's number; counts its calls."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.seen: list[int] = []
        self.delay_s = delay_s

    def __call__(self, images: list[ImageArray], indices: Sequence[int] | None = None) -> list[Detections]:
        assert indices is not None
        self.seen += indices
        time.sleep(self.delay_s)
        found = []
        for index in indices:
            count = index % 4
            boxes = np.array([[4 * n, 3 * n, 30 + 5 * n, 40 + 2 * n] for n in range(count)], np.float32)
            found.append(Detections(boxes.reshape(-1, 4), np.linspace(0.9, 0.6, count, dtype=np.float32)))
        return found


class Steady(PoseNetwork):
    """A network whose joints stand still in the box; each call takes the next of ``scores``, and keeps to the last."""

    def __init__(self, network: PoseNetwork, scores: tuple[float, ...] = (1.4,)) -> None:
        super().__init__(network.model, input_size=network.input_size, preprocessing=network.preprocessing)
        self._scores = list(scores)

    def __call__(self, crops: PersonCrops) -> Poses:
        poses = super().__call__(crops)
        score = self._scores.pop(0) if len(self._scores) > 1 else self._scores[0]
        middle = (poses.boxes_xyxy[:, None, :2] + poses.boxes_xyxy[:, None, 2:]) / 2
        return replace(
            poses,
            keypoints_xy=middle + np.arange(17, dtype=np.float32)[None, :, None],
            keypoint_scores=np.full_like(poses.keypoint_scores, score),
        )


def assert_equal(first: list[FrameResult], second: list[FrameResult]) -> None:
    assert [result.frame.index for result in first] == [result.frame.index for result in second]
    for one, other in zip(first, second, strict=True):
        assert one.frame is other.frame
        for name, value in vars(one.poses).items():
            np.testing.assert_array_equal(value, getattr(other.poses, name), err_msg=f"{one.frame.index} {name}")


@pytest.mark.parametrize(
    "options",
    [
        StreamOptions(smooth="off"),
        StreamOptions(track=False),
        StreamOptions(),
        StreamOptions(chunk_frames=1, workers=1),
        StreamOptions(chunk_frames=7, workers=3),
        StreamOptions(detect_every=3),
        StreamOptions(detect_every=5, chunk_frames=15),
    ],
    ids=str,
)
def test_all_stages_at_once_equal_the_series_bit_for_bit(
    network: PoseNetwork, make_frames: MakeFrames, options: StreamOptions
) -> None:
    frames = make_frames(23)
    serial = list(run_serial(frames, SomePeople(), network, options))
    queued = list(run(frames, SomePeople(), network, options))
    assert [result.frame.index for result in serial] == list(range(23))
    assert sum(len(result.poses) for result in serial) > 20
    assert_equal(queued, serial)


def test_no_frames_and_nobody(network: PoseNetwork, make_frames: MakeFrames) -> None:
    assert list(run([], SomePeople(), network)) == []

    def nobody(images: list[ImageArray], indices: Sequence[int] | None = None) -> list[Detections]:
        return [Detections.empty()] * len(images)

    results = list(run(make_frames(5), nobody, network))
    assert [len(result.poses) for result in results] == [0] * 5


def test_a_crowd_of_a_hundred(network: PoseNetwork, make_frames: MakeFrames) -> None:
    generator = np.random.default_rng(5)

    def crowd(images: list[ImageArray], indices: Sequence[int] | None = None) -> list[Detections]:
        corner = generator.uniform(0, 30, (100, 2))
        boxes = np.concatenate([corner, corner + generator.uniform(8, 30, (100, 2))], axis=1).astype(np.float32)
        return [Detections(boxes, np.full(100, 0.8, np.float32))] * len(images)

    results = list(run(make_frames(3), crowd, network))
    assert [len(result.poses) for result in results] == [100] * 3


def test_detect_every_n_asks_the_detector_in_every_nth_frame(network: PoseNetwork, make_frames: MakeFrames) -> None:
    steady = Steady(network)
    calls: list[int] = []

    def one_person(images: list[ImageArray], indices: Sequence[int] | None = None) -> list[Detections]:
        calls.extend(indices or [])
        return [Detections(np.array([[10, 10, 40, 40]], np.float32), np.array([0.8], np.float32))] * len(images)

    results = list(run(make_frames(17), one_person, steady, StreamOptions(detect_every=5)))
    assert sorted(calls) == [0, 5, 10, 15]
    assert [len(result.poses) for result in results] == [1] * 17
    # A cut in the middle of a segment asks for a fresh detection there.
    frames = make_frames(10)
    dark = [Frame(f.index, f.pts, f.time_base, f.time_s, f.image // 8) for f in frames[3:]]
    calls.clear()
    list(run(frames[:3] + dark, one_person, steady, StreamOptions(detect_every=5)))
    assert sorted(calls) == [0, 3, 8]


@pytest.mark.parametrize("way", [run, run_serial])
def test_who_was_lost_is_followed_from_where_the_detector_finds_him_again(
    network: PoseNetwork, make_frames: MakeFrames, way: Callable[..., Iterator[FrameResult]]
) -> None:
    """Somebody is hardly seen from the second frame on: one more detection, not one in every frame."""
    boxes = np.array([[10, 10, 40, 40], [22, 4, 38, 46]], np.float32)
    calls: list[int] = []

    def one_person(images: list[ImageArray], indices: Sequence[int] | None = None) -> list[Detections]:
        assert indices is not None
        calls.extend(indices)
        return [Detections(boxes[[min(index, 1)]], np.array([0.8], np.float32)) for index in indices]

    options = StreamOptions(detect_every=6, track=False)
    results = list(way(make_frames(6), one_person, Steady(network, (1.4, 0.75)), options))
    assert calls == [0, 1]
    seen = np.concatenate([result.poses.boxes_xyxy for result in results])
    np.testing.assert_allclose(seen, boxes[[0, 1, 1, 1, 1, 1]], atol=1e-3)


@pytest.mark.parametrize("stage", ["decode", "detect", "network"])
def test_the_first_error_of_any_stage_arrives_soon(
    network: PoseNetwork, make_frames: MakeFrames, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode() -> Iterator[Frame]:
        for frame in make_frames(200):
            if stage == "decode" and frame.index == 6:
                raise InputError("clip.mp4: damaged. Check the file.")
            yield frame

    def detect(images: list[ImageArray], indices: Sequence[int] | None = None) -> list[Detections]:
        assert indices is not None
        if stage == "detect" and 6 in indices:
            raise InputError("boxes.json: damaged. Check the file.")
        return WholeImageDetector()(images)

    if stage == "network":
        calls: list[int] = []

        def broken(pixels: object) -> object:
            calls.append(1)
            if len(calls) > 2:
                raise InputError("network: damaged. Check the file.")
            return original(pixels)  # type: ignore[arg-type]

        original = network._estimate
        monkeypatch.setattr(network, "_estimate", broken)
    start = time.perf_counter()
    got: list[int] = []
    with pytest.raises(InputError, match="damaged") as caught:
        got.extend(r.frame.index for r in run(decode(), detect, network, StreamOptions(smooth="off")))
    assert time.perf_counter() - start < 5
    assert got == list(range(len(got)))
    assert got if stage != "decode" else got == list(range(6))
    assert any("stage" in note for note in caught.value.__notes__)


def test_leaving_early_ends_all_threads(network: PoseNetwork, make_frames: MakeFrames) -> None:
    endless = (make_frames(1, first=index)[0] for index in range(10**9))
    results = run(endless, SomePeople(), network)
    assert [result.frame.index for result in islice(results, 3)] == [0, 1, 2]
    results.close()


def test_memory_does_not_grow_with_length(network: PoseNetwork, make_frames: MakeFrames) -> None:
    def most_alive(count: int) -> int:
        alive: set[int] = set()
        most = 0

        def frames() -> Iterator[Frame]:
            nonlocal most
            for index in range(count):
                frame = make_frames(1, first=index)[0]
                alive.add(index)
                weakref.finalize(frame, alive.discard, index)
                most = max(most, len(alive))
                yield frame

        for _ in run(frames(), SomePeople(), network, StreamOptions(workers=2)):
            time.sleep(0.002)  # a slow consumer: the stages before it must wait
        return most

    short, long = most_alive(60), most_alive(300)
    assert long <= 1.5 * short
    assert long <= 4 * 6 + 6  # read, chunks under way and waiting, results, those with identities


def test_stages_overlap(network: PoseNetwork, make_frames: MakeFrames) -> None:
    def slow_frames() -> Iterator[Frame]:
        for frame in make_frames(16):
            time.sleep(0.03)
            yield frame

    detector = SomePeople(delay_s=0.1)
    options = StreamOptions(chunk_frames=4, workers=1, smooth="off")
    list(run(make_frames(4), SomePeople(), network, options))  # warm up
    elapsed = []
    for _ in range(3):
        start = time.perf_counter()
        for _ in run(slow_frames(), detector, network, options):
            time.sleep(0.03)
        elapsed.append(time.perf_counter() - start)
    # The best, because other programs slow the others down.
    assert min(elapsed) < 0.75 * (16 * 0.03 + 4 * 0.1 + 16 * 0.03) + 16 * 0.02
