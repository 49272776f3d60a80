"""Decoded video frames to upright 8-bit RGB arrays: colour matrix and range, HDR, alpha, aspect ratio, rotation."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import Type as SideDataType
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from cpnpose.media.hdr import BT2020_TO_BT709, P3_TO_BT709, ToneMapper
from cpnpose.pose.types import ImageArray

# Numbers of ITU-T H.273, which FFmpeg uses for its tags.
_MATRICES = {1: Colorspace.ITU709, 4: Colorspace.FCC, 5: Colorspace.ITU601, 6: Colorspace.ITU601}
_MATRICES |= {7: Colorspace.SMPTE240M, 9: Colorspace.BT2020, 10: Colorspace.BT2020}
_TRANSFERS = {16: "pq", 18: "hlg"}
_PRIMARIES = {9: BT2020_TO_BT709, 11: P3_TO_BT709, 12: P3_TO_BT709}
_UNKNOWN_TRANSFERS = {0, 2, 3}
_TURNS = ((1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0))
"""Display matrices of 0 to 3 clockwise quarter turns."""
_PLAIN = Interpolation.BILINEAR
"""Swscale's fast path: 12 times faster than with ACCURATE_RND and FULL_CHR_H_INT (0.6 and 7.3 ms for 1920x1080 on one
core), one grey level of 255 darker. FULL_CHR_H_INT must not be used for rgb48: its green and blue come out wrong."""
_RESIZED = Interpolation.BICUBIC | Interpolation.ACCURATE_RND


def display_matrix(frame: VideoFrame) -> tuple[int, int, int, int]:
    """(a, b, c, d) of the frame's display matrix, each -1, 0 or 1: x' = a x + c y, y' = b x + d y with y down.

    Angles that are no multiple of 90 degrees go to the nearest one; (1, 0, 0, 1) where the frame carries none.
    """
    try:
        found: Any = frame.side_data  # PyAV's stubs and its code disagree about the type.
        side_data = found[SideDataType.DISPLAYMATRIX]
    except KeyError:
        return (1, 0, 0, 1)
    except ValueError:  # Beside it stands what PyAV does not know: the EXIF of a JPEG, the views of a 3D video.
        return _TURNS[round(-frame.rotation / 90) % 4]  # All that it tells then; mirror images count as turned.
    a, b, _, c, d = np.frombuffer(bytes(side_data), dtype=np.int32)[:5].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return (-1 if a < 0 else 1, 0, 0, -1 if d < 0 else 1)
    return (0, -1 if b < 0 else 1, -1 if c < 0 else 1, 0)


def rotation_of(matrix: tuple[int, int, int, int]) -> int:
    """Clockwise degrees (0, 90, 180, 270) by which the picture is turned; a mirror image counts as its turn."""
    a, b, _, d = matrix
    if a:
        return 180 if a < 0 and d < 0 else 0
    return 90 if b > 0 else 270


def turn(image: ImageArray, matrix: tuple[int, int, int, int]) -> ImageArray:
    """The image (H, W, 3) as the display matrix wants it shown; contiguous."""
    a, b, c, d = matrix
    if matrix == (1, 0, 0, 1):
        return image
    if b:
        code = {(1, -1): cv2.ROTATE_90_CLOCKWISE, (-1, 1): cv2.ROTATE_90_COUNTERCLOCKWISE}.get((b, c))
        if code is not None:
            return np.asarray(cv2.rotate(image, code), dtype=np.uint8)
        image = np.asarray(cv2.transpose(image), dtype=np.uint8)
        return image if b > 0 else np.asarray(cv2.flip(image, -1), dtype=np.uint8)
    return np.asarray(cv2.flip(image, {(-1, 1): 1, (1, -1): 0, (-1, -1): -1}[(a, d)]), dtype=np.uint8)


class FrameConverter:
    """Converts the frames of one stream; what the first frame says about colour, shape and rotation holds for all.

    ``height`` and ``width`` are those of the result: upright, square pixels.
    """

    def __init__(self, first: VideoFrame, sample_aspect_ratio: Fraction | None, threads: int = 0) -> None:
        self._threads = threads
        self._reformatter = VideoReformatter()
        self.matrix = display_matrix(first)
        self.rotation = rotation_of(self.matrix)
        aspect = sample_aspect_ratio or Fraction(1)
        if aspect <= 0 or not Fraction(1, 8) <= aspect <= 8:
            aspect = Fraction(1)
        self._stored_width = max(1, round(first.width * aspect)) if aspect > 1 else first.width
        self._stored_height = max(1, round(first.height / aspect)) if aspect < 1 else first.height
        turned = self.matrix[0] == 0
        self.height = self._stored_width if turned else self._stored_height
        self.width = self._stored_height if turned else self._stored_width

        tag = int(first.colorspace)
        large = first.width >= 1280 or first.height > 576
        self._colorspace = _MATRICES.get(tag, Colorspace.ITU709 if large else Colorspace.ITU601)
        full = int(first.color_range) == int(ColorRange.JPEG) or first.format.name.startswith("yuvj")
        self._range = ColorRange.JPEG if full else ColorRange.MPEG
        self._tone_mapper = self._choose_tone_mapper(first)

    @staticmethod
    def _choose_tone_mapper(first: VideoFrame) -> ToneMapper | None:
        transfer = _TRANSFERS.get(int(first.color_trc), "gamma")
        primaries = _PRIMARIES.get(int(first.color_primaries))
        if transfer == "gamma" and (primaries is None or int(first.color_trc) in _UNKNOWN_TRANSFERS):
            return None
        if transfer != "gamma" and int(first.color_primaries) in _UNKNOWN_TRANSFERS:
            primaries = BT2020_TO_BT709
        return ToneMapper(transfer, primaries)

    def __call__(self, frame: VideoFrame) -> ImageArray:
        """(height, width, 3) uint8 RGB, BT.709, full range, upright, square pixels."""
        if self._tone_mapper is not None:
            image = self._tone_mapper(self._array(frame, "rgb48le"))
        elif has_alpha(frame.format):
            rgba = self._array(frame, "rgba")
            weight = rgba[..., 3:].astype(np.uint16)
            image = ((rgba[..., :3] * weight + 127) // 255).astype(np.uint8)
        else:
            image = np.asarray(self._array(frame, "rgb24"), dtype=np.uint8)
        return np.ascontiguousarray(turn(image, self.matrix))

    def _array(self, frame: VideoFrame, pixel_format: str) -> npt.NDArray[Any]:
        resized = (frame.width, frame.height) != (self._stored_width, self._stored_height)
        yuv = not frame.format.is_rgb and "pal8" not in frame.format.name
        converted = self._reformatter.reformat(
            frame,
            width=self._stored_width,
            height=self._stored_height,
            format=pixel_format,
            src_colorspace=self._colorspace if yuv else None,
            src_color_range=self._range if yuv else ColorRange.JPEG,
            dst_color_range=ColorRange.JPEG,
            interpolation=_RESIZED if resized else _PLAIN,
            threads=self._threads,
        )
        return converted.to_ndarray()


def has_alpha(pixel_format: VideoFormat) -> bool:
    """Whether pixels of this format carry transparency (palettes of GIF and PNG may)."""
    return pixel_format.name == "pal8" or any(component.is_alpha for component in pixel_format.components)
