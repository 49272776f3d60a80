from __future__ import annotations

import cv2
import numpy as np
import pytest

from cpnpose.pipeline.crop import crop_persons, warp
from cpnpose.pose.geometry import crop_affines, crop_boxes, invert_affines, transform_points
from cpnpose.pose.types import Detections, FloatArray, ImageArray, Preprocessing

SIZE = (128, 96)
DARK = Preprocessing(mean=(0.0, 0.0, 0.0))


def people(*boxes: tuple[float, float, float, float]) -> Detections:
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), np.linspace(0.9, 0.5, len(boxes), dtype=np.float32))


def dotted(place_xy: tuple[float, float], height: int, width: int, radius: float) -> ImageArray:
    """A soft white dot on black; ``place_xy`` is corner-origin."""
    y, x = np.mgrid[:height, :width] + 0.5
    distance = (x - place_xy[0]) ** 2 + (y - place_xy[1]) ** 2
    return np.repeat((255 * np.exp(-distance / (2 * radius**2)))[..., None], 3, axis=2).round().astype(np.uint8)


def centroid(image: ImageArray) -> FloatArray:
    """Centre of brightness, corner-origin (1, 1, 2)."""
    light = image[..., 0].astype(np.float64)
    y, x = np.mgrid[: light.shape[0], : light.shape[1]] + 0.5
    return np.array([[[(x * light).sum(), (y * light).sum()]]], np.float32) / np.float32(light.sum())


@pytest.mark.parametrize("height_of_box", [25, 60, 128, 300, 700, 1500])
def test_the_affine_is_the_one_that_maps_back(height_of_box: int) -> None:
    """A dot that is drawn in the image is found in the crop, mapped back, and lies where it was drawn."""
    generator = np.random.default_rng(height_of_box)
    fineness = SIZE[0] / (height_of_box * 1.3)  # crop pixels per image pixel
    for _ in range(3):
        left, top = generator.uniform(0, 100, 2)
        box = (left, top, left + 0.5 * height_of_box, top + height_of_box)
        dot = (
            left + generator.uniform(0.2, 0.8) * 0.5 * height_of_box,
            top + generator.uniform(0.2, 0.8) * height_of_box,
        )
        image = dotted(dot, int(height_of_box * 1.4) + 100, height_of_box + 100, radius=max(2.5, 2.5 / fineness))
        crops = crop_persons([image], [people(box)], SIZE, DARK)
        back = transform_points(invert_affines(crops.affines), centroid(crops.pixels[0]))[0, 0]
        error_in_crop_pixels = np.abs(back - dot).max() * fineness
        assert error_in_crop_pixels < 0.08


def test_a_crop_of_the_same_size_is_a_copy() -> None:
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    same = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    assert np.array_equal(warp(image, same, SIZE, (0, 0, 0)), image)
    moved = warp(image, np.array([[1, 0, 7], [0, 1, -3]], np.float32), SIZE, (9, 9, 9))
    assert np.array_equal(moved[: SIZE[0] - 3, 7:], image[3:, : SIZE[1] - 7])
    assert (moved[:, :7] == 9).all()


def test_halving_averages_two_by_two() -> None:
    """Corner-origin frames: crop pixel (0, 0) of a half-size crop covers image pixels (0, 0) to (1, 1)."""
    image = np.random.default_rng(1).integers(0, 256, (128, 192, 3), np.uint8)
    half = warp(image, np.array([[0.5, 0, 0], [0, 0.5, 0]], np.float32), (64, 96), (0, 0, 0))
    expected = image.reshape(64, 2, 96, 2, 3).mean((1, 3))
    assert np.abs(half - expected).max() <= 1


@pytest.mark.parametrize("scale", [0.49, 0.3, 0.2, 0.11, 0.05])
def test_fine_stripes_become_gray_when_shrunk(scale: float) -> None:
    """Without area averaging, a pattern of one-pixel stripes would turn into coarse false stripes."""
    image = np.zeros((1300, 1000, 3), np.uint8)
    image[:, ::2] = 255
    affine = np.array([[scale, 0, -scale * 3.3], [0, scale, -scale * 5.7]], np.float32)
    small = warp(image, affine, (50, 40), (0, 0, 0))
    assert small.min() >= 80  # a whole factor of 3 leaves a third of the contrast
    assert small.max() <= 175


def test_shrinking_by_area_does_not_move_the_picture() -> None:
    """Both ways of resampling agree on a smooth picture at the scale where one takes over from the other."""
    image = dotted((301.3, 288.8), 600, 600, 20.0)
    crops = []
    for scale in (0.4999, 0.5001):
        shift = np.array([[scale, 0, 40 - 301.3 * scale], [0, scale, 60 - 288.8 * scale]], np.float32)
        crops.append(warp(image, shift, SIZE, (0, 0, 0)).astype(int))
        assert centroid(crops[-1].astype(np.uint8))[0, 0] == pytest.approx([40, 60], abs=0.05)
    assert np.abs(crops[0] - crops[1]).max() <= 3


def test_outside_the_image_is_the_mean_colour() -> None:
    mean = (123.0, 116.0, 103.0)
    for size in (100, 900):  # with and without shrinking
        image = np.full((size, size, 3), 255, np.uint8)
        box = (-0.5 * size, -0.5 * size, 0.5 * size, 0.5 * size)
        crop = crop_persons([image], [people(box)], SIZE, Preprocessing(mean=mean)).pixels[0]
        assert (crop[: SIZE[0] // 2 - 3] == mean).all()
        assert (crop[:, : SIZE[1] // 2 - 3] == mean).all()
        assert (crop[SIZE[0] // 2 + 3 : SIZE[0] // 2 + 15, SIZE[1] // 2 + 3 : SIZE[1] // 2 + 15] == 255).all()


@pytest.mark.parametrize("side", [40, 2000])
def test_a_box_beside_the_image_gives_only_mean_colour(side: float) -> None:
    image = np.full((80, 80, 3), 200, np.uint8)
    for x, y in ((5000, 0), (-9000, 0), (0, 7000), (-6000, -6000)):
        crop = crop_persons([image], [people((x, y, x + side, y + side))], SIZE, DARK).pixels[0]
        assert (crop == 0).all()


def test_thin_boxes_and_tiny_images_are_cropped() -> None:
    image = np.full((1, 3, 3), 50, np.uint8)
    crops = crop_persons([image], [people((0, 0, 3, 1), (0, 0, 0, 0), (0, 0, 4000, 3))], SIZE, DARK)
    assert crops.pixels.shape == (3, *SIZE, 3)
    least = 49 if int(cv2.__version__.partition(".")[0]) >= 5 else 48  # OpenCV 4 rounds in fixed point
    assert (crops.pixels[0][SIZE[0] // 2, SIZE[1] // 2] >= least).all()


def test_rows_keep_the_order_of_images_and_detections() -> None:
    images = [np.full((60, 60, 3), shade, np.uint8) for shade in (10, 20, 30)]
    found = [people((10, 10, 30, 40), (5, 5, 50, 50)), people(), people((20, 20, 40, 50))]
    crops = crop_persons(images, found, SIZE, DARK)
    assert len(crops) == 3
    assert crops.frame_indices.tolist() == [0, 0, 2]
    assert crops.pixels[:, SIZE[0] // 2, SIZE[1] // 2, 0].tolist() == [10, 10, 30]
    assert np.array_equal(crops.boxes_xyxy, np.concatenate([item.boxes_xyxy for item in found]))
    assert crops.scores.tolist() == pytest.approx([0.9, 0.5, 0.9])
    regions = crop_boxes(crops.boxes_xyxy, SIZE, DARK.box_padding)
    assert np.array_equal(crops.affines, crop_affines(regions, SIZE))


@pytest.mark.parametrize("images", [0, 2])
def test_nobody_is_a_normal_value(images: int) -> None:
    crops = crop_persons([np.zeros((9, 9, 3), np.uint8)] * images, [Detections.empty()] * images, SIZE, DARK)
    assert len(crops) == 0
    assert crops.pixels.shape == (0, *SIZE, 3)
    assert crops.affines.shape == (0, 2, 3)
    assert crops.frame_indices.dtype == np.int64


def test_rotated_affines_are_warped_as_points_are() -> None:
    angle = np.deg2rad(30)
    linear = 0.8 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    affine = np.concatenate([linear, [[20.0], [-30.0]]], axis=1).astype(np.float32)
    dot = (95.3, 61.7)
    crop = warp(dotted(dot, 150, 160, 3.0), affine, SIZE, (0, 0, 0))
    expected = transform_points(affine[None], np.array([[dot]], np.float32))
    assert centroid(crop) == pytest.approx(expected, abs=0.05)
    assert cv2.minMaxLoc(crop[..., 0])[1] > 200
