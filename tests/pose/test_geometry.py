from __future__ import annotations

import numpy as np
import pytest

from cpnpose.pose.geometry import box_iou, crop_affines, crop_boxes, invert_affines, transform_points

SIZE = (256, 192)
PADDING = (0.10, 0.15)


def test_a_tall_box_is_padded_and_grows_in_width() -> None:
    region = crop_boxes(np.array([[100, 50, 140, 250]], np.float32), SIZE, PADDING)[0]
    height = 200 * 1.3
    assert region == pytest.approx([120 - height * 0.375, 150 - height / 2, 120 + height * 0.375, 150 + height / 2])


def test_a_wide_box_is_padded_and_grows_in_height() -> None:
    region = crop_boxes(np.array([[0, 0, 300, 30]], np.float32), SIZE, PADDING)[0]
    width = 300 * 1.2
    assert region == pytest.approx([150 - width / 2, 15 - width * 2 / 3, 150 + width / 2, 15 + width * 2 / 3])


@pytest.mark.parametrize("size", [(256, 192), (384, 288), (128, 96), (64, 64), (96, 160)])
def test_regions_have_the_shape_of_the_input_and_hold_the_box(size: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    corner = generator.uniform(-50, 600, (100, 2))
    boxes = np.concatenate([corner, corner + generator.uniform(1, 500, (100, 2))], axis=1).astype(np.float32)
    regions = crop_boxes(boxes, size, PADDING)
    sides = regions[:, 2:] - regions[:, :2]
    assert sides[:, 1] / sides[:, 0] == pytest.approx(np.full(100, size[0] / size[1]), rel=1e-4)
    assert (regions[:, :2] < boxes[:, :2]).all()
    assert (regions[:, 2:] > boxes[:, 2:]).all()
    assert (regions[:, :2] + regions[:, 2:]) / 2 == pytest.approx((boxes[:, :2] + boxes[:, 2:]) / 2, abs=1e-3)


def test_empty_boxes_still_have_a_region() -> None:
    regions = crop_boxes(np.array([[5, 5, 5, 5], [9, 9, 3, 3]], np.float32), SIZE, PADDING)
    assert (regions[:, 2:] - regions[:, :2] >= 1).all()
    assert np.isfinite(crop_affines(regions, SIZE)).all()


def test_affines_take_the_corners_of_the_region_to_those_of_the_crop() -> None:
    regions = np.array([[10, 20, 106, 148], [-30, -40, 162, 216]], np.float32)
    corners = np.stack([regions[:, :2], regions[:, 2:], regions[:, [2, 1]]], axis=1)
    moved = transform_points(crop_affines(regions, SIZE), corners)
    assert moved == pytest.approx(np.broadcast_to([[0, 0], [192, 256], [192, 0]], (2, 3, 2)), abs=1e-3)


def test_affines_and_their_inverses_cancel() -> None:
    generator = np.random.default_rng(1)
    affines = generator.normal(size=(50, 2, 3)).astype(np.float32)
    affines[:, :, :2] += 3 * np.eye(2, dtype=np.float32)
    points = generator.uniform(-500, 500, (50, 17, 2)).astype(np.float32)
    assert transform_points(invert_affines(affines), transform_points(affines, points)) == pytest.approx(
        points, abs=1e-2
    )


def test_points_are_moved_row_by_row() -> None:
    affines = np.array([[[0, -2, 5], [3, 0, 7]], [[1, 0, 0], [0, 1, 0]]], np.float32)
    points = np.array([[[1, 10]], [[1, 10]]], np.float32)
    assert transform_points(affines, points).tolist() == [[[-15, 10]], [[1, 10]]]


def test_nobody_is_a_normal_value() -> None:
    none = np.zeros((0, 4), np.float32)
    regions = crop_boxes(none, SIZE, PADDING)
    affines = crop_affines(regions, SIZE)
    assert regions.shape == (0, 4)
    assert affines.shape == invert_affines(affines).shape == (0, 2, 3)
    assert transform_points(affines, np.zeros((0, 17, 2), np.float32)).shape == (0, 17, 2)
    assert box_iou(none, np.ones((3, 4), np.float32)).shape == (0, 3)


def test_intersection_over_union() -> None:
    first = np.array([[0, 0, 10, 10], [5, 5, 5, 5]], np.float32)
    second = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [10, 10, 0, 0]], np.float32)
    assert box_iou(first, second) == pytest.approx(np.array([[1, 1 / 3, 0, 0], [0, 0, 0, 0]]))
