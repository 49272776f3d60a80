from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cpnpose.api import PoseEstimator
from cpnpose.errors import InputError
from cpnpose.pose.types import Detections, Frame

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def estimator(tiny_weights: Path) -> PoseEstimator:
    return PoseEstimator(tiny_weights, detector="none", device="cpu", precision="fp32")


@pytest.mark.parametrize(
    "image",
    [
        np.ascontiguousarray(IMAGE[..., ::-1])[..., ::-1],
        np.dstack([IMAGE, IMAGE[..., :1]])[..., :3],
        np.asfortranarray(IMAGE),
        np.ascontiguousarray(IMAGE[::-1])[::-1],
    ],
    ids=["bgr", "rgba", "fortran", "upside down"],
)
def test_views_of_every_layout_are_images(estimator: PoseEstimator, image: Any) -> None:
    np.testing.assert_array_equal(estimator(image).keypoints_xy, estimator(IMAGE).keypoints_xy)


@pytest.mark.parametrize(
    "image",
    [IMAGE.astype(np.uint16), IMAGE / 255, IMAGE[..., 0], IMAGE[..., :1], IMAGE[None], IMAGE[:0], IMAGE.tolist(), None],
    ids=["uint16", "float", "grey", "one channel", "batch", "empty", "list", "none"],
)
def test_other_images_are_refused(
    estimator: PoseEstimator, image: Any, make_frames: Callable[..., list[Frame]]
) -> None:
    with pytest.raises(InputError, match="uint8"):
        estimator(image)
    frame = make_frames(1)[0]
    for serial in (False, True):
        with pytest.raises(InputError, match="uint8"):
            list(estimator.frames([Frame(0, 0, frame.time_base, 0.0, image)], serial=serial))


def test_boxes_may_be_none_at_all_or_of_another_number_format(estimator: PoseEstimator) -> None:
    assert len(estimator(IMAGE, Detections(np.array([]), np.array([])))) == 0
    exact = Detections(np.array([[1, 2, 30, 40]], np.float32), np.ones(1, np.float32))
    whole: Any = Detections(np.array([[1, 2, 30, 40]]), np.ones(1))  # type: ignore[arg-type]
    np.testing.assert_array_equal(estimator(IMAGE, whole).keypoints_xy, estimator(IMAGE, exact).keypoints_xy)


@pytest.mark.parametrize(
    ("boxes", "scores"),
    [
        ([[0, 0, np.nan, 9]], [1]),
        ([[0, 0, np.inf, 9]], [1]),
        ([[0, 0, 3e38, 9]], [1]),
        ([[0, 0, 9, 9]], [np.nan]),
        ([[0, 0, 9, 9]], [1, 1]),
        ([[0, 0, 9]], [1]),
    ],
)
def test_boxes_without_a_place_are_refused(estimator: PoseEstimator, boxes: Any, scores: Any) -> None:
    with pytest.raises(InputError, match="boxes"):
        estimator(IMAGE, Detections(np.array(boxes, np.float32), np.array(scores, np.float32)))
