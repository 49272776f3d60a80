"""What a graphics card does with images, held here by tensors on the CPU."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from cpnpose.errors import CpnposeError
from cpnpose.models.device_images import resized, shrink, upload
from cpnpose.pipeline import crop_device
from cpnpose.pipeline.crop import crop_persons
from cpnpose.pipeline.crop_device import crop_people
from cpnpose.pipeline.estimate import load_pose_network
from cpnpose.pipeline.options import StreamOptions
from cpnpose.pipeline.stream import run, run_serial
from cpnpose.pose.types import Detections, Frame, ImageArray, Preprocessing

SIZE = (128, 96)
TIME_BASE = Fraction(1, 25)
LOOK = Preprocessing(mean=(122.7, 115.9, 10.0))


def photo(seed: int, height: int = 300, width: int = 500) -> ImageArray:
    """Noise without the finest detail, as pictures are."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return np.asarray(cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX), np.uint8)  # type: ignore[call-overload]


def tensors(images: list[ImageArray]) -> list[torch.Tensor]:
    return [torch.from_numpy(image) for image in images]


@pytest.mark.parametrize(
    "box",
    [
        (100, 50, 160, 180),  # about as fine as the image
        (100, 50, 112, 70),  # enlarged
        (10, 10, 200, 280),  # shrunk by less than two
        (150, 0, 350, 300),  # by area, factor 2 and more
        (0, 0, 500, 300),
        (-30, -40, 60, 90),  # over the corner
        (450, 250, 560, 380),
        (900, 900, 950, 990),  # nothing of the image
    ],
)
def test_crops_of_the_device_are_those_of_the_cpu_up_to_rounding(box: tuple[float, float, float, float]) -> None:
    image = photo(1)
    people = [Detections(np.array([box], np.float32), np.ones(1, np.float32))]
    wanted = crop_persons([image], people, SIZE, LOOK)
    found = crop_people(tensors([image]), people, SIZE, LOOK)
    assert isinstance(found.pixels, torch.Tensor)
    apart = np.abs(found.pixels.numpy().astype(int) - np.asarray(wanted.pixels).astype(int))
    assert apart.mean() < 0.4
    assert apart.max() <= 6  # OpenCV rounds places to a 32nd of a pixel
    np.testing.assert_array_equal(found.affines, wanted.affines)


def test_people_of_several_images_of_several_shapes_keep_their_rows() -> None:
    images = [photo(1), photo(2), photo(3, 200, 220), photo(4)]
    counts = (2, 0, 1, 3)
    generator = np.random.default_rng(0)
    found = []
    for count in counts:
        corner = generator.uniform(0, 150, (count, 2))
        boxes = np.concatenate([corner, corner + generator.uniform(20, 260, (count, 2))], 1).astype(np.float32)
        found.append(Detections(boxes, np.linspace(0.9, 0.5, count, dtype=np.float32)))
    wanted, made = crop_persons(images, found, SIZE, LOOK), crop_people(tensors(images), found, SIZE, LOOK)
    for name in ("frame_indices", "boxes_xyxy", "scores", "affines"):
        np.testing.assert_array_equal(getattr(made, name), getattr(wanted, name))
    apart = np.abs(np.asarray(made.pixels).astype(int) - np.asarray(wanted.pixels).astype(int))
    assert apart.mean(axis=(1, 2, 3)).max() < 0.4


def test_nobody_is_a_normal_value() -> None:
    crops = crop_people(tensors([photo(1)]), [Detections.empty()], SIZE, LOOK)
    assert crops.pixels.shape == (0, *SIZE, 3)
    assert len(crops) == 0


def test_arrays_are_cut_by_the_cpu() -> None:
    people = [Detections(np.array([[10, 10, 60, 90]], np.float32), np.ones(1, np.float32))]
    crops = crop_people(upload([photo(1)], torch.device("cpu")), people, SIZE, LOOK)
    assert isinstance(crops.pixels, np.ndarray)
    np.testing.assert_array_equal(crops.pixels, crop_persons([photo(1)], people, SIZE, LOOK).pixels)


@pytest.mark.parametrize("size", [(96, 160), (300, 500), (416, 640)])
def test_images_for_the_detector_are_resized_alike(size: tuple[int, int]) -> None:
    images = [photo(1), photo(2)]
    found = resized(tensors(images), *size, torch.device("cpu"))
    assert found.dtype == torch.uint8
    wanted = np.stack([shrink(image, *size) for image in images])
    assert np.abs(found.numpy().astype(int) - wanted.astype(int)).mean() < 2
    np.testing.assert_array_equal(resized(images, *size, torch.device("cpu")).numpy(), wanted)


@pytest.mark.parametrize(
    ("shape", "size"),
    [((400, 640), (100, 160)), ((401, 643), (96, 160)), ((994, 1768), (416, 736)), ((360, 640), (416, 736))],
)
def test_shrinking_in_steps_shows_the_same_as_by_area(shape: tuple[int, int], size: tuple[int, int]) -> None:
    """Also where sides are odd; nothing moves: a picture that moved by half a pixel would be further away."""
    image = photo(5, *shape)
    wanted = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA).astype(int)
    made = shrink(image, *size)
    assert made.dtype == np.uint8
    off = np.abs(made.astype(int) - wanted).mean()
    moved = np.abs(wanted[:, 1:] - wanted[:, :-1]).mean() / 2
    assert off < 1.0
    assert off < 0.6 * moved


@pytest.mark.parametrize("detect_every", [1, 3])
def test_the_pipeline_with_images_on_the_device_gives_the_same_poses(
    tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, detect_every: int
) -> None:
    network = load_pose_network(tiny_weights, device="cpu", precision="fp32")
    frames = [Frame(index, index, TIME_BASE, index / 25, photo(index)) for index in range(7)]
    options = StreamOptions(track=False, detect_every=detect_every)

    def detector(images: object, indices: object = None) -> list[Detections]:
        boxes = np.array([[40, 30, 90, 170], [200, 100, 260, 250]], np.float32)
        return [Detections(boxes, np.array([0.9, 0.8], np.float32)) for _ in images]  # type: ignore[attr-defined]

    wanted = list(run_serial(frames, detector, network, options))
    monkeypatch.setattr("cpnpose.pipeline.segments.upload", lambda images, device: tensors(images))
    for way in (run_serial, run):
        for result, expected in zip(way(frames, detector, network, options), wanted, strict=True):  # type: ignore[operator]
            apart = np.abs(result.poses.keypoint_scores - expected.poses.keypoint_scores)
            assert apart.max() < 0.01
            moved = np.linalg.norm(result.poses.keypoints_xy - expected.poses.keypoints_xy, axis=-1)
            assert np.median(moved) < 0.5


def people_in(images: list[ImageArray]) -> list[Detections]:
    """Two in each image, one of them shrunk by area."""
    boxes = np.array([[100, 50, 160, 180], [0, 0, 490, 290]], np.float32)
    return [Detections(boxes + 3 * number, np.ones(2, np.float32)) for number in range(len(images))]


def test_few_images_at_a_time_become_float(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [photo(number) for number in range(5)]
    wanted = crop_people(tensors(images), people_in(images), SIZE, LOOK)
    together: list[int] = []

    def watched(stack: torch.Tensor, *rest: object) -> torch.Tensor:
        together.append(len(stack))
        return sampled(stack, *rest)  # type: ignore[arg-type]

    sampled = crop_device._sampled
    monkeypatch.setattr(crop_device, "_sampled", watched)
    monkeypatch.setattr(crop_device, "_FLOAT_BYTES", 2 * images[0].nbytes * 4)
    found = crop_people(tensors(images), people_in(images), SIZE, LOOK)
    assert together == [2, 2, 1] * 2
    assert torch.equal(torch.as_tensor(found.pixels), torch.as_tensor(wanted.pixels))


def test_out_of_memory_fewer_images_are_cut_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [photo(number) for number in range(5)]
    wanted = crop_people(tensors(images), people_in(images), SIZE, LOOK)
    room, tried = 1, []

    def greedy(stack: torch.Tensor, *rest: object) -> torch.Tensor:
        tried.append(len(stack))
        if len(stack) > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return sampled(stack, *rest)  # type: ignore[arg-type]

    sampled = crop_device._sampled
    monkeypatch.setattr(crop_device, "_sampled", greedy)
    found = crop_people(tensors(images), people_in(images), SIZE, LOOK)
    assert tried == [5, 2, 1, 1, 1, 1, 1] * 2
    assert torch.equal(torch.as_tensor(found.pixels), torch.as_tensor(wanted.pixels))
    room = 0
    with pytest.raises(CpnposeError, match=r"not enough memory on cpu to cut people out of a single 500x300 image; "):
        crop_people(tensors(images), people_in(images), SIZE, LOOK)
