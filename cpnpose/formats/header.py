"""What a record says about itself before its first frame: source, model, settings, keypoints and conventions."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from cpnpose import __version__
from cpnpose.errors import InputError
from cpnpose.file_name import printable
from cpnpose.pose.keypoints import KEYPOINT_NAMES, SKELETON
from cpnpose.pose.types import VideoInfo

SCHEMA = "cpnpose-record"
SCHEMA_VERSION = "1.0"
"""Major.minor. A reader takes any minor version of its own major version."""

COORDINATES = (
    "Pixels of the upright image (rotation and pixel aspect ratio applied). The origin is the upper left corner of the "
    "image, x runs right, y runs down, and the centre of the first pixel is (0.5, 0.5). Boxes are [x1, y1, x2, y2]."
)
SCORES = {
    "keypoint": "Largest value of the keypoint's heatmap (by published decoding: its value at the keypoint), divided "
    "by 255, plus 0.5. Not a probability.",
    "box": "Score of the person detector, 0 to 1; 1 where the box was given.",
    "person": "Box score times the mean of the 17 keypoint scores.",
}

EXTRAS = ("track_ids", "uncertainty", "raw", "flags", "angles")
"""What the people of a record may carry beyond the basic fields; see :attr:`Header.extras`."""

SCHEMA_FILE = Path(__file__).with_name("schema.json")
"""JSON Schema of the JSON document. ``#/$defs/header`` and ``#/$defs/frame`` are the lines of a JSON Lines record."""


@dataclass(frozen=True)
class Header:
    """The head of a record. Two runs with equal headers over the same input give equal records."""

    source: str
    """Name of the input file or folder, or the address of a stream (without user name and password)."""
    size: tuple[int, int] | None = None
    """(height, width) of the upright picture in pixels; None for images, whose frames carry their own size."""
    fps: Fraction | None = None
    """Average frame rate of the input, or None where it has none or does not say."""
    rotation: int = 0
    """Clockwise degrees by which the stored picture was turned to be upright."""
    duration_s: float | None = None
    frame_count: int | None = None
    """Number of frames by the container's own word, or None."""
    kind: str = "video"
    """``video``, ``images`` or ``camera``."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """Which weights: name, sha256, architecture, input size, and of the detector name and sha256. Any JSON values."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The options that change the result (not those that only change its speed): resuming compares them."""
    extras: tuple[str, ...] = ()
    """Subset of :data:`EXTRAS`: what the people of this record carry. ``angles`` makes the writers compute joint
    angles; the CSV has columns for exactly these."""
    keypoint_names: tuple[str, ...] = KEYPOINT_NAMES
    skeleton: tuple[tuple[int, int], ...] = SKELETON
    generator: str = f"cpnpose {__version__}"

    def __post_init__(self) -> None:
        unknown = set(self.extras) - set(EXTRAS)
        if unknown:
            raise ValueError(f"unknown extras {sorted(unknown)}; known are {', '.join(EXTRAS)}")

    @staticmethod
    def for_video(
        info: VideoInfo,
        *,
        model: Mapping[str, Any],
        settings: Mapping[str, Any],
        extras: tuple[str, ...] = (),
        kind: str = "video",
    ) -> Header:
        """The header of a run over one video or camera."""
        return Header(
            source=source_name(info.source),
            size=(info.height, info.width),
            fps=info.fps,
            rotation=info.rotation,
            duration_s=info.duration_s,
            frame_count=info.frame_count,
            kind=kind,
            model=model,
            settings=settings,
            extras=extras,
        )

    def to_dict(self) -> dict[str, Any]:
        """The header as plain JSON values, in the order in which it is written."""
        height, width = self.size if self.size is not None else (None, None)
        document = {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "generator": self.generator,
            "source": {
                "kind": self.kind,
                "file": self.source,
                "height": height,
                "width": width,
                "fps": None if self.fps is None else f"{self.fps.numerator}/{self.fps.denominator}",
                "fps_value": None if self.fps is None else round(float(self.fps), 6),
                "rotation": self.rotation,
                "duration": None if self.duration_s is None else round(self.duration_s, 6),
                "frame_count": self.frame_count,
            },
            "model": self.model,
            "settings": self.settings,
            "coordinates": COORDINATES,
            "scores": SCORES,
            "keypoint_names": self.keypoint_names,
            "skeleton": self.skeleton,
            "extras": self.extras,
        }
        plain: dict[str, Any] = _plain(document)
        return plain

    @staticmethod
    def from_dict(document: Mapping[str, Any], where: str) -> Header:
        """The header of a parsed document. ``where`` names the file in errors.

        Raises:
            InputError: it is not a record of ours, or of a later major version.
        """
        if document.get("schema") != SCHEMA:
            raise InputError(
                f'{where}: not a cpnpose record (no "schema": "{SCHEMA}"). Give a file made by --json or --jsonl'
            )
        version = str(document.get("schema_version", ""))
        if version.split(".")[0] != SCHEMA_VERSION.split(".")[0]:
            raise InputError(
                f"{where}: record of schema version {version or '?'}, this program reads {SCHEMA_VERSION}. "
                "Use the cpnpose that wrote it"
            )
        try:
            source = document["source"]
            height, width = source["height"], source["width"]
            return Header(
                source=source["file"],
                size=None if height is None or width is None else (int(height), int(width)),
                fps=None if source["fps"] is None else Fraction(source["fps"]),
                rotation=int(source["rotation"]),
                duration_s=source["duration"],
                frame_count=source["frame_count"],
                kind=source["kind"],
                model=dict(document["model"]),
                settings=dict(document["settings"]),
                extras=tuple(name for name in document.get("extras", ()) if name in EXTRAS),
                keypoint_names=tuple(document["keypoint_names"]),
                skeleton=tuple((int(a), int(b)) for a, b in document["skeleton"]),
                generator=document.get("generator", ""),
            )
        except (KeyError, TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
            raise InputError(f"{where}: damaged header of the record ({error!r}). Make the record again") from error

    def differences(self, other: Header) -> list[str]:
        """What ``other`` has otherwise than this header, one text per field: ``settings.score: 0.5 -> 0.3``."""
        return list(_differences("", self.to_dict(), other.to_dict()))


def source_name(source: str) -> str:
    """The name of a source as it goes into a record: a file's name without its folders, an address without
    user name, password and query."""
    if "://" in source:
        parts = urlsplit(source)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    return Path(source).name or source


def source_stem(header: Header) -> str:
    """The name of the source without its suffix, fit for a file name."""
    stem = Path(header.source.rstrip("/").rpartition("/")[2]).stem
    return "".join(letter if letter.isalnum() or letter in "-_. " else "_" for letter in stem) or "record"


def header_text(header: Header) -> str:
    """The header as one line of JSON, without the line's end."""
    return json.dumps(header.to_dict(), ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    """``value`` with only what JSON knows: paths and fractions become text, numbers that are none become null, and
    file names printable."""
    if isinstance(value, Mapping):
        return {printable(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        return printable(value)
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return printable(str(value))


def _differences(name: str, ours: Any, theirs: Any) -> list[str]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        found = []
        for key in [*ours, *(key for key in theirs if key not in ours)]:
            found += _differences(f"{name}.{key}" if name else key, ours.get(key), theirs.get(key))
        return found
    return [] if ours == theirs else [f"{name}: {json.dumps(ours)} -> {json.dumps(theirs)}"]
