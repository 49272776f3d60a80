"""OpenPose's folder of JSON files: ``NAME_000000000000_keypoints.json`` a frame, ``NAME_keypoints.json`` an image.

Format: OpenPose 1.3, doc/02_output.md of CMU-Perceptual-Computing-Lab/openpose.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from posixpath import splitext
from typing import Any

import numpy as np

from cpnpose.errors import OptionError
from cpnpose.formats.coco import joined
from cpnpose.formats.frame_record import image_file, track_ids
from cpnpose.formats.header import Header, source_stem
from cpnpose.formats.output_file import output_folder
from cpnpose.pose.types import FloatArray, FrameResult, Poses

NECK, MID_HIP, NONE = -1, -2, -3
"""Points that are no keypoint of ours: midpoint of the shoulders, midpoint of the hips, not there at all."""

COCO_18 = (0, NECK, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
"""Nose, neck, right arm, left arm, right leg, left leg, right eye, left eye, right ear, left ear."""
BODY_25 = (0, NECK, 6, 8, 10, 5, 7, 9, MID_HIP, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3, *[NONE] * 6)
"""COCO_18 with the middle of the hips after the arms, and six points of the feet, which we do not have, at the end."""
LAYOUTS = {"COCO": COCO_18, "BODY_25": BODY_25}

EMPTY_PARTS = (
    "face_keypoints_2d",
    "hand_left_keypoints_2d",
    "hand_right_keypoints_2d",
    "pose_keypoints_3d",
    "face_keypoints_3d",
    "hand_left_keypoints_3d",
    "hand_right_keypoints_3d",
)
PATTERN = "*_keypoints.json"
NOT_IN_NAMES = re.compile(r'[<>:"/\\|?*\x00-\x1f]')
"""What one system or another does not allow in the name of a file."""


def write_openpose(
    header: Header,
    frames: Iterable[FrameResult],
    path: Path | str,
    *,
    overwrite: bool = False,
    layout: str = "COCO",
) -> None:
    """Write a folder with one file per frame, those without people included.

    Files of a set of images are named after them, with the folders that they lie in: ``below_b_keypoints.json`` of
    ``below/b.png``; where two would have one name, the later gets its position too, as a frame of a video has it.

    ``person_id`` is the track id, or -1. ``layout`` is ``COCO`` (18 points) or ``BODY_25``; the six points of the feet,
    which we do not have, are 0, 0, 0: OpenPose's way to say "not found". Neck and mid-hip are midpoints, their score
    the lesser of the two.

    Raises:
        OptionError: ``layout`` is neither.
        OutputError: the folder exists and ``overwrite`` is not set, holds other files, or cannot be written.
    """
    if layout not in LAYOUTS:
        raise OptionError(f"OpenPose has no layout {layout!r} here. Choose {' or '.join(LAYOUTS)}")
    stem = source_stem(header)
    taken: set[str] = set()
    with output_folder(path, PATTERN, overwrite=overwrite) as folder:
        for result in frames:
            document = {"version": 1.3, "people": _people(result.poses, LAYOUTS[layout])}
            image, position = image_file(result), f"_{result.frame.index:012d}"
            name = stem + position if image is None else _image_name(image, position, taken)
            (folder / f"{name}_keypoints.json").write_text(json.dumps(document, separators=(",", ":")))


def _image_name(image: str, position: str, taken: set[str]) -> str:
    """The name of an image's file, which is added to ``taken``: capitals make no difference, as on some systems."""
    name = NOT_IN_NAMES.sub("_", splitext(image)[0])
    while name.casefold() in taken:
        name += position
    taken.add(name.casefold())
    return name


def _people(poses: Poses, layout: tuple[int, ...]) -> list[dict[str, Any]]:
    xy, scores = openpose_points(poses, layout)
    points = joined(xy, scores).reshape(len(poses), 3 * len(layout)).tolist()
    return [
        {
            "person_id": [-1 if identity is None else identity],
            "pose_keypoints_2d": values,
            **{part: [] for part in EMPTY_PARTS},
        }
        for identity, values in zip(track_ids(poses), points, strict=True)
    ]


def openpose_points(poses: Poses, layout: tuple[int, ...] = COCO_18) -> tuple[FloatArray, FloatArray]:
    """Points (N, P, 2) and scores (N, P) in OpenPose's order; NaN for points we do not have."""
    xy, scores = poses.keypoints_xy, poses.keypoint_scores
    missing = np.full((len(poses), 1), np.nan, np.float32)
    # The three last columns are addressed from the end: NONE is -3, MID_HIP -2, NECK -1.
    all_xy = np.concatenate(
        [xy, np.repeat(missing, 2, 1)[:, None], xy[:, 11:13].mean(1)[:, None], xy[:, 5:7].mean(1)[:, None]], axis=1
    )
    all_scores = np.concatenate(
        [scores, missing, scores[:, 11:13].min(1)[:, None], scores[:, 5:7].min(1)[:, None]], axis=1
    )
    order = list(layout)
    return all_xy[:, order], all_scores[:, order]
