"""One frame of a record: from a FrameResult to JSON text and back.

Coordinates are rounded to 0.01 pixel, scores to 0.0001, times to a microsecond, angles to 0.01 degree. What is no
number (NaN, infinity) is written as null and read back as NaN.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from cpnpose.errors import InputError
from cpnpose.file_name import printable
from cpnpose.formats.header import Header
from cpnpose.pose.keypoints import NUM_KEYPOINTS
from cpnpose.pose.types import FLAG_FILLED, FLAG_SWAPPED, FloatArray, Frame, FrameResult, Poses

PIXEL_DECIMALS = 2
SCORE_DECIMALS = 4
TIME_DECIMALS = 6
ANGLE_DECIMALS = 2
FLAG_NAMES = {"filled": FLAG_FILLED, "swapped": FLAG_SWAPPED}

Number = float | int | None


@dataclass(frozen=True)
class ImageResult(FrameResult):
    """The result of one image of a set. ``frame.index`` counts the images, ``frame.pts`` is the same."""

    file: str = ""
    """The image's name, relative to the folder that was given."""
    size: tuple[int, int] = (0, 0)
    """(height, width) of the upright image in pixels."""


def frame_text(result: FrameResult, header: Header, file: str | None = None) -> str:
    """One frame as one line of JSON, without the line's end.

    Args:
        result: the frame and its people; an :class:`ImageResult` brings its file name.
        header: ``extras`` decides whether joint angles are added.
        file: name of the image, for a plain FrameResult of a set of images.
    """
    return json.dumps(frame_dict(result, header, file), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def frame_dict(result: FrameResult, header: Header, file: str | None = None) -> dict[str, Any]:
    """The frame as plain JSON values; arguments as in :func:`frame_text`."""
    frame = result.frame
    entry: dict[str, Any] = {"index": int(frame.index)}
    name = image_file(result, file)
    if name is not None:
        entry["file"] = name
        entry["size"] = list(result.size if isinstance(result, ImageResult) else frame.image.shape[:2])
    entry["pts"] = int(frame.pts)
    entry["time"] = round(float(frame.time_s), TIME_DECIMALS)
    entry["time_base"] = f"{frame.time_base.numerator}/{frame.time_base.denominator}"
    entry["people"] = _people(result.poses, header)
    return entry


def image_file(result: FrameResult, file: str | None = None) -> str | None:
    """The printable name of the image that ``result`` belongs to, or None for a frame of a video."""
    name = result.file if file is None and isinstance(result, ImageResult) else file
    return None if name is None else printable(name)


def joint_angles(poses: Poses) -> tuple[tuple[str, ...], FloatArray]:
    """Names (A) and degrees (N, A) of the joint angles of ``poses``; NaN where an angle is not defined."""
    from cpnpose.pose.angles import ANGLE_NAMES, joint_angles

    return tuple(ANGLE_NAMES), joint_angles(poses.keypoints_xy, poses.keypoint_scores, flags=poses.flags)


def rounded(values: npt.NDArray[Any], decimals: int) -> Any:
    """``values`` as nested lists of rounded numbers; None for what is no number."""
    numbers = np.round(values.astype(np.float64), decimals) + 0.0  # + 0.0 turns -0.0 into 0.0
    finite = np.isfinite(numbers)
    if finite.all():
        return numbers.tolist()
    cells = numbers.astype(object)
    cells[~finite] = None
    return cells.tolist()


def quantize(poses: Poses) -> Poses:
    """``poses`` as a record gives them back: writing and reading changes them no more.

    A run that tracks and smooths these poses can be resumed from its record with the same result. Exact for images up
    to 32768 pixels wide or high.
    """

    def stored(values: FloatArray, decimals: int) -> FloatArray:
        return np.round(values.astype(np.float64), decimals).astype(np.float32)

    changed = {
        "keypoints_xy": stored(poses.keypoints_xy, PIXEL_DECIMALS),
        "keypoint_scores": stored(poses.keypoint_scores, SCORE_DECIMALS),
        "scores": stored(poses.scores, SCORE_DECIMALS),
        "boxes_xyxy": stored(poses.boxes_xyxy, PIXEL_DECIMALS),
        "box_scores": stored(poses.box_scores, SCORE_DECIMALS),
    }
    for name in ("uncertainty_px", "raw_keypoints_xy"):
        values = getattr(poses, name)
        if values is not None:
            changed[name] = stored(values, PIXEL_DECIMALS)
    return replace(poses, **changed)  # type: ignore[arg-type]


def parse_frame(entry: Mapping[str, Any], header: Header, where: str) -> FrameResult:
    """The frame of a parsed JSON object; ``where`` names file and line in errors. The image is empty (0, 0, 3).

    Raises:
        InputError: a field is missing or has another shape.
    """
    try:
        base = Fraction(entry["time_base"])
        frame = Frame(
            index=int(entry["index"]),
            pts=int(entry["pts"]),
            time_base=base,
            time_s=float(entry["time"]),
            image=np.zeros((0, 0, 3), np.uint8),
        )
        poses = _poses(entry["people"], "track_ids" in header.extras)
        if "file" in entry:
            height, width = entry["size"]
            return ImageResult(frame, poses, file=entry["file"], size=(height, width))
        return FrameResult(frame, poses)
    except (KeyError, TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
        raise InputError(f"{where}: damaged frame ({error!r}). Make the record again") from error


def _people(poses: Poses, header: Header) -> list[dict[str, Any]]:
    if len(poses) == 0:
        return []
    columns: dict[str, list[Any]] = {
        "track_id": track_ids(poses),
        "score": rounded(poses.scores, SCORE_DECIMALS),
        "box": rounded(poses.boxes_xyxy, PIXEL_DECIMALS),
        "box_score": rounded(poses.box_scores, SCORE_DECIMALS),
    }
    xy, scores = rounded(poses.keypoints_xy, PIXEL_DECIMALS), rounded(poses.keypoint_scores, SCORE_DECIMALS)
    columns["keypoints"] = [
        [[x, y, score] for (x, y), score in zip(points, values, strict=True)]
        for points, values in zip(xy, scores, strict=True)
    ]
    if poses.uncertainty_px is not None:
        columns["uncertainty_px"] = rounded(poses.uncertainty_px, PIXEL_DECIMALS)
    if poses.raw_keypoints_xy is not None:
        columns["raw_keypoints"] = rounded(poses.raw_keypoints_xy, PIXEL_DECIMALS)
    if poses.flags is not None:
        columns["flags"] = [
            {name: np.flatnonzero(row & bit).tolist() for name, bit in FLAG_NAMES.items()} for row in poses.flags
        ]
    if "angles" in header.extras:
        names, degrees = joint_angles(poses)
        columns["angles"] = [dict(zip(names, row, strict=True)) for row in rounded(degrees, ANGLE_DECIMALS)]
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def track_ids(poses: Poses) -> list[int | None]:
    """The id of each person, None where there is none (yet)."""
    if poses.track_ids is None:
        return [None] * len(poses)
    return [int(identity) if identity >= 0 else None for identity in poses.track_ids]


def _poses(people: list[Mapping[str, Any]], tracked: bool) -> Poses:
    ids = [person["track_id"] for person in people]
    identities = np.array([-1 if identity is None else identity for identity in ids], np.int64)
    has_ids = tracked or any(identity is not None for identity in ids)
    if not people:
        return replace(Poses.empty(), track_ids=identities) if has_ids else Poses.empty()
    count = len(people)

    def column(name: str, shape: tuple[int, ...]) -> FloatArray:
        return np.array([person[name] for person in people], np.float64).astype(np.float32).reshape(count, *shape)

    def optional(name: str, shape: tuple[int, ...]) -> FloatArray | None:
        return column(name, shape) if all(name in person for person in people) else None

    keypoints = column("keypoints", (NUM_KEYPOINTS, 3))
    return Poses(
        keypoints_xy=keypoints[:, :, :2].copy(),
        keypoint_scores=keypoints[:, :, 2].copy(),
        scores=column("score", ()),
        boxes_xyxy=column("box", (4,)),
        box_scores=column("box_score", ()),
        track_ids=identities if has_ids else None,
        uncertainty_px=optional("uncertainty_px", (NUM_KEYPOINTS,)),
        raw_keypoints_xy=optional("raw_keypoints", (NUM_KEYPOINTS, 2)),
        flags=_flags(people) if all("flags" in person for person in people) else None,
    )


def _flags(people: list[Mapping[str, Any]]) -> npt.NDArray[np.uint8]:
    flags = np.zeros((len(people), NUM_KEYPOINTS), np.uint8)
    for row, person in zip(flags, people, strict=True):
        for name, bit in FLAG_NAMES.items():
            row[person["flags"].get(name, [])] |= np.uint8(bit)
    return flags
